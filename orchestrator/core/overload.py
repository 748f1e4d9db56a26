"""Overload: which new work is turned away while what is in progress goes on (RFC 7339's principles, our own measure).

What is measured is time, not queue length: how long the oldest input had waited when it was taken up, where that delay
lasts (`core.delay`). Below 50 ms nothing happens. From there to 200 ms a growing share of new INVITEs, SUBSCRIBEs and
MESSAGEs is refused, so that callers do not all come back at once and the load settles where it can be served; beyond
200 ms all of them are, and phones that register for the first time. A phone that refreshes its registration is served
up to 500 ms: without it nobody can be called afterwards. Requests inside dialogs, ACK, CANCEL and responses are never
refused here: they end work.

A refusal is a stateless 503. It must hold for the repetitions of the request that are under way already: a caller who
was told 503 does not listen any more, so a repetition that were served would ring a phone for nobody. Which requests
belong to the share is therefore no coin but a keyed hash over the transaction, the same for each repetition; and as
the share falls, who was refused is remembered for as long as a request is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from orchestrator.core.delay import NORMAL
from orchestrator.core.node import Node
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request

FULL = 0.200
"""Seconds of age from which no new call is begun: T1 is 500 ms, more and every INVITE comes twice."""
REGISTERS = 0.500
"""Seconds of age up to which registrations are refreshed."""
LONGEST_RETRY = 8
"""Seconds of Retry-After, 1 to this."""
MOST_REFUSED = 100_000
"""Refused requests of a generation; two are remembered, some 13 MB."""

_NEW_WORK = frozenset((b"INVITE", b"SUBSCRIBE", b"MESSAGE"))
_RANGE: Final = 1 << 64


class Refusals:
    """Remembers refused requests for `lasts` seconds and up to twice as long; the oldest go first when there are too
    many. Attackers cannot make two requests look alike: the places are hashes with a key of our own."""

    def __init__(self, lasts: float, key: bytes) -> None:
        self._lasts = lasts
        self._keyed = blake2b(digest_size=8, key=key)
        self.mark: Final = blake2b(b"refused", digest_size=8, key=key).hexdigest().encode()
        """Begins the To tag of every refusal: an ACK for one is known by it before it is parsed."""
        self._last: tuple[Request | None, int] = None, 0
        self._new: set[int] = set()
        self._old: set[int] = set()
        self._until = 0.0

    def place(self, request: Request) -> int:
        """The same number below 2**64 for each repetition of a request, and none that its sender can foresee."""
        last, place = self._last
        if request is last:  # it is asked for at each decision about the same request
            return place
        keyed = self._keyed.copy()  # half as dear as to begin with the key each time
        keyed.update(b"%b\n%b\n%d %b" % (request.call_id, request.from_tag or b"", request.cseq, request.method))
        place = int.from_bytes(keyed.digest(), "big")
        self._last = request, place
        return place

    @property
    def any(self) -> bool:
        """Whether any are remembered."""
        return bool(self._new or self._old)

    def add(self, request: Request, now: float) -> None:
        if now >= self._until:
            self._turn_over(now)
        if len(self._new) >= MOST_REFUSED:
            self._new, self._old = set(), self._new
        self._new.add(self.place(request))

    def knows(self, request: Request, now: float) -> bool:
        """Whether this request, or one it repeats, was refused."""
        if not self.any:
            return False
        if now >= self._until:
            self._turn_over(now)
        place = self.place(request)
        return place in self._new or place in self._old

    def _turn_over(self, now: float) -> None:
        self._old = self._new if now < self._until + self._lasts else set()
        self._new = set()
        self._until = now + self._lasts

    def __len__(self) -> int:
        return len(self._new) + len(self._old)


class Overload:
    """Decides for one engine; `location` knows which phones refresh a registration."""

    def __init__(self, node: Node, location: Location) -> None:
        self._node = node
        self._location = location
        self._age = node.settings.age
        self.awaits: Callable[[str], bool] | None = None
        """Whether calls wait for phones of an address to register: their REGISTERs are the rest of work that is done
        already."""
        self.refusals = Refusals(node.settings.times.timeout, node.settings.entropy(16))

    @property
    def share(self) -> float:
        """The share of new calls that is refused now, 0 to 1."""
        return min(1.0, max(0.0, (self._age() - NORMAL) / (FULL - NORMAL)))

    @property
    def is_on(self) -> bool:
        """Whether anything is refused now."""
        return self._age() > NORMAL

    def refuses(self, request: Request) -> bool:
        """Whether this request outside of dialogs is to be refused."""
        age = self._age()
        return age > NORMAL and self._is_refused(request, age)

    def _is_refused(self, request: Request, age: float) -> bool:
        method = request.method
        if method == b"REGISTER":
            refused = age > REGISTERS or (age > FULL and not self._is_refresh(request))
            return refused and not self._is_awaited(request)
        return method in _NEW_WORK and self.refusals.place(request) / _RANGE < (age - NORMAL) / (FULL - NORMAL)

    def _is_refresh(self, request: Request) -> bool:
        node = self._node
        return bool(self._location.bindings(node.network.aor(request.to.parsed), node.wall))

    def _is_awaited(self, request: Request) -> bool:
        return self.awaits is not None and self.awaits(self._node.network.aor(request.to.parsed))

    def must_refuse_new(self) -> bool:
        """Whether a new request outside of dialogs has to go elsewhere: we are stopping, or full."""
        limits, layer = self._node.settings.limits, self._node.layer
        return (
            self._node.draining
            or layer.unanswered >= limits.transactions
            or layer.lingering >= limits.lingering
            or layer.octets >= limits.octets
        )

    def must_refuse_all(self) -> bool:
        """Whether even requests inside dialogs would take more memory than they may: somebody floods us with them."""
        limits, layer = self._node.settings.limits, self._node.layer
        most = limits.transactions + limits.lingering
        return len(layer) >= most + most // 4 or layer.octets >= limits.octets + limits.octets // 4

    def retry_after(self, request: Request) -> bytes:
        """A Retry-After header line, with another time for each request and the same for its repetitions."""
        return b"Retry-After: %d" % (1 + self.refusals.place(request) % LONGEST_RETRY)
