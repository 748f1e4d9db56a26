"""Overload: which new work is turned away while what is in progress goes on (RFC 7339's principles, our own measure).

What is measured is time, not queue length: how long the oldest input had waited when it was taken up. Below 50 ms
nothing happens. From there to 200 ms a growing share of new INVITEs, SUBSCRIBEs and MESSAGEs is refused at random, so
that callers do not all come back at once and the load settles where it can be served; beyond 200 ms all of them are,
and phones that register for the first time. A phone that refreshes its registration is served up to 500 ms: without
it nobody can be called afterwards. Requests inside dialogs, ACK, CANCEL and responses are never refused here: they
end work.

A refusal is a stateless 503 whose Retry-After is random, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.sip.message import Request

if TYPE_CHECKING:
    from orchestrator.core.engine import Engine

NORMAL = 0.050
"""Seconds of age up to which everything is served; 64 datagrams of one wake-up take less."""
FULL = 0.200
"""Seconds of age from which no new call is begun: T1 is 500 ms, more and every INVITE comes twice."""
REGISTERS = 0.500
"""Seconds of age up to which registrations are refreshed; beyond, the phone's repetition is on its way anyway."""
LONGEST_RETRY = 8
"""Seconds of Retry-After, 1 to this."""

_NEW_WORK = frozenset((b"INVITE", b"SUBSCRIBE", b"MESSAGE"))


class Overload:
    """Decides for one engine; `age()` gives seconds, `entropy(n)` random octets."""

    def __init__(self, engine: Engine, age: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._engine = engine
        self._age = age
        self._entropy = entropy

    @property
    def share(self) -> float:
        """The share of new calls that is refused now, 0 to 1."""
        return min(1.0, max(0.0, (self._age() - NORMAL) / (FULL - NORMAL)))

    def refuses(self, request: Request) -> bool:
        """Whether this request outside of dialogs is to be refused, and counted."""
        age = self._age()
        if age <= NORMAL:
            return False
        refused = self._is_refused(request, age)
        if refused:
            self._engine.count(f"overload.{request.method.decode()}")
        return refused

    def _is_refused(self, request: Request, age: float) -> bool:
        method = request.method
        if method == b"REGISTER":
            return age > REGISTERS or (age > FULL and not self._is_refresh(request))
        return method in _NEW_WORK and self._random() < (age - NORMAL) / (FULL - NORMAL)

    def _is_refresh(self, request: Request) -> bool:
        engine = self._engine
        return bool(engine.location.bindings(engine.network.aor(request.to.parsed), engine.wall))

    def _random(self) -> float:
        """0 up to, but not, 1."""
        return int.from_bytes(self._entropy(2), "big") / 65_536

    def retry_after(self) -> bytes:
        """A Retry-After header line."""
        return b"Retry-After: %d" % (1 + int(self._random() * LONGEST_RETRY))
