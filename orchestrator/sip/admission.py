"""Who may ask how much: a share of our work for each source, so that one that floods costs the others nothing.

A source is an IPv4 address, or an IPv6 /64, which is what one subscriber has. It has *points*, which come back at a
steady rate up to a bound. What it sends costs points by what it costs us, and what we have to refuse costs more: a
scanner is refused all day long, an office is not. Whoever has none left is not read: the datagram is dropped before it
is parsed. A source that goes on sending after that is banned for a time.

A UDP source can be forged. So a source is a *stranger* until it has sent something that only the holder of the address
can know: the answer to a digest challenge, the tag or the route of an answer of ours to it, the branch of a request of
ours to it. All strangers together share a second store of points and half of the transactions, so thousands of forged
addresses take nothing from those we know. Nor do they take their places: strangers are remembered in a table of their
own, which forgets them when it is full.

Who answers challenges with wrong passwords or for unknown users is banned, too. A nonce is good for the address that
was challenged only, so nobody can have somebody else banned for that; a refused call, which anybody can forge, costs
points instead. A source that has logged somebody in is an office, maybe, and may fail ten times as often.

Bans are for all transports: a connection of a banned source is refused (`runtime.streams`). There are at most
`MOST_BANS`, the oldest ends first, and they end with the process: who goes on is banned again within a second.

Trusted sources, gateways and FreeSWITCH servers are exempt. Pure: `now` is the caller's monotonic clock in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

PROVED_FACTOR: Final = 10
"""How many times as much a source may do that has proved itself."""
PROOF_LASTS: Final = 600.0
"""Seconds since the last proof; a phone that is used renews it all the time."""
FORGOTTEN_AFTER: Final = 60.0
"""Seconds after the latest call was answered until those that nobody acknowledged are forgotten."""
LATE: Final = 0.050
"""Seconds that a datagram has waited from which nobody may use the last half of `burst`: who empties his store at that
moment is why the others wait. A phone behind the same NAT repeats what was dropped."""
BAN_AFTER: Final = 1000
"""Datagrams dropped in a row, ten times as many of a proved source: what no phone does, and a scanner in a second."""
MOST_SOURCES: Final = 10_000
"""Strangers of a generation; two are remembered, some 4 MB."""
MOST_BANS: Final = 10_000
FAILURES_LAST: Final = 600.0
"""Seconds from the first failed login until all of them are forgotten."""
MOST_KNOWN: Final = 50_000

_METHODS: Final[Mapping[bytes, float]] = {b"INVITE": 5.0, b"REGISTER": 2.0, b"SUBSCRIBE": 2.0, b"MESSAGE": 2.0}
MALFORMED: Final = 5.0
REPETITION: Final = 0.5
IN_DIALOG: Final = 0.25
FULL: Final = 5.0
"""What comes on top of it for one more request than may be pending."""
SCANNER: Final = 20.0
"""A request of a scanner, which is not answered."""
STRAY: Final = 1.0
"""Responses and ACKs that belong to nothing."""
_FAILURES: Final[Mapping[int, float]] = {401: 1.0, 407: 1.0, 480: 3.0, 486: 0.0, 487: 0.0, 503: 0.0, 600: 0.0, 603: 0.0}
_FAILURE: Final = 5.0
"""What a refusal costs besides: most of all 403 and 404, whom nobody ought to get twice. A first challenge is no
failure, a callee who is busy is not the caller's fault."""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """Of one source that has not proved itself; see the module."""

    rate: float = 200.0
    """Points that come back in a second: 40 calls, or 100 registrations."""
    burst: float = 1000.0
    """Points at most: an office whose phones all register at once."""
    pending: int = 100
    """Requests that wait for their answer at a time."""
    strangers: float = 2000.0
    """Points a second for all strangers together."""
    ban: float = 60.0
    """Seconds a source is left unread that goes on when it has no points left."""
    failures: int = 30
    """Failed logins within ten minutes; one more is a ban. 0: no bound. Ten times as many of a source that has logged
    somebody in meanwhile."""
    failures_ban: float = 600.0
    """Seconds of that ban."""


class Source:
    """What one source has left."""

    __slots__ = (
        "name", "points", "at", "pending", "proved_until", "dropped", "banned_since", "banned_until", "offered",
        "exempt", "unacknowledged", "answered_at", "failed", "failed_since", "logged_in_until", "banned_for",
    )  # fmt: skip

    def __init__(self, name: str, points: float, now: float, exempt: bool = False) -> None:
        self.name = name
        self.points = points
        self.at = now
        self.pending = 0
        """Its requests that have no final answer yet."""
        self.proved_until = 0.0
        self.dropped = 0
        """Datagrams dropped since it last was within its share."""
        self.banned_since = self.banned_until = 0.0
        self.offered: tuple[bytes, ...] = ()
        """Call-IDs of its latest calls that were answered: an ACK for one of them is a proof."""
        self.exempt = exempt
        self.unacknowledged = 0
        """Calls that were answered within a minute and that it has not shown to know of."""
        self.answered_at = 0.0
        self.failed = 0
        """Failed logins since `failed_since`."""
        self.failed_since = self.logged_in_until = 0.0
        self.banned_for = ""
        """Why it was banned last: `flood` or `passwords`."""

    def __repr__(self) -> str:
        return f"<Source {self.name} {self.points:.1f} points, {self.pending} pending>"


NOBODY: Final = Source("", 0.0, 0.0, exempt=True)
"""Who is not bound by any share."""


class _Generations:
    """A table that forgets what was not used lately once it is full."""

    __slots__ = ("_size", "new", "_old")

    def __init__(self, size: int) -> None:
        self._size = size
        self.new: dict[str, Source] = {}
        """Those that were put in last: most datagrams come from one of them."""
        self._old: dict[str, Source] = {}

    def get(self, key: str) -> Source | None:
        found = self.new.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: str, source: Source) -> None:
        if len(self.new) >= self._size:
            self._old, self.new = self.new, {}
        self.new[key] = source

    def clear(self) -> None:
        self.new.clear()
        self._old.clear()

    def __len__(self) -> int:
        return len(self.new) + len(self._old)


class Admission:
    """The shares of all sources of one engine. `exempts(host)` says who has none; with `limits` None nobody has."""

    def __init__(self, limits: SourceLimits | None, exempts: Callable[[str], bool]) -> None:
        self.limits = limits or SourceLimits()
        self.dropped: Counter[str] = Counter()
        """Datagrams not read, by `banned`, `share` (of the source), `late` (half of it, while others wait), `strangers`
        (of all of them)."""
        self.bans: Counter[str] = Counter()
        """Bans, by reason: `flood`, `passwords`."""
        self.on_ban: Callable[[Source], object] | None = None
        """Told a source whose ban begins."""
        self.strangers_pending = 0
        """Requests of strangers without a final answer."""
        self._off = limits is None
        self._exempts = exempts
        self._known = _Generations(MOST_KNOWN)
        self._met = _Generations(MOST_SOURCES)
        self._banned: dict[str, Source] = {}
        self._pool, self._pool_at = 2 * self.limits.strangers, 0.0

    # --- before a datagram is read ------------------------------------------------------------------------------------

    def admit(self, host: str, now: float, late: Callable[[], float] = lambda: 0.0) -> Source | None:
        """The source of a datagram that may be read; None for one to be dropped, which is counted. `late`: seconds the
        oldest datagram has waited, asked where it matters."""
        if self._off:
            return NOBODY
        source = self._known.new.get(host) or self._find(host, now)
        if source.exempt:
            return source
        if source.banned_until > now:
            self.dropped["banned"] += 1
            source.dropped += 1
            return None
        proved = source.proved_until > now
        self._refill(source, proved, now)
        if source.points <= 0.0:
            self._drop(source, proved, now)
            return None
        if source.points < self.limits.burst / 2 and late() > LATE:
            self.dropped["late"] += 1
            return None
        if not proved and not self._stranger_may(now):
            self.dropped["strangers"] += 1
            return None
        return source

    def _refill(self, source: Source, proved: bool, now: float) -> None:
        limits = self.limits
        factor = PROVED_FACTOR if proved else 1
        points = source.points + (now - source.at) * limits.rate * factor
        source.at = now
        if points >= limits.burst * factor:
            points = limits.burst * factor
            source.dropped = 0
        source.points = points

    def _stranger_may(self, now: float) -> bool:
        rate = self.limits.strangers
        self._pool = min(2 * rate, self._pool + (now - self._pool_at) * rate)
        self._pool_at = now
        return self._pool > 0.0

    def _drop(self, source: Source, proved: bool, now: float) -> None:
        self.dropped["share"] += 1
        source.dropped += 1
        if source.dropped >= BAN_AFTER * (PROVED_FACTOR if proved else 1):
            self._ban(source, "flood", self.limits.ban, now)

    def _ban(self, source: Source, reason: str, seconds: float, now: float) -> None:
        source.dropped = source.failed = 0
        source.banned_since, source.banned_until, source.banned_for = now, now + seconds, reason
        self.bans[reason] += 1
        self._banned.pop(source.name, None)
        while len(self._banned) >= MOST_BANS:
            oldest = self._banned.pop(next(iter(self._banned)))
            oldest.banned_until = min(oldest.banned_until, now)
        self._banned[source.name] = source
        if self.on_ban is not None:
            self.on_ban(source)

    def _find(self, host: str, now: float) -> Source:
        return self._known.get(host) or self._met.get(host) or self._meet(host, now)

    def _meet(self, host: str, now: float) -> Source:
        """A source seen for the first time, or an address of an IPv6 network that was."""
        name = source_name(host)
        source = self._banned.get(name)
        if source is None and name != host:
            source = self._known.get(name) or self._met.get(name)
        if source is None:
            exempt = self._exempts(host)
            source = NOBODY if exempt else Source(name, self.limits.burst, now)
        if source.exempt:
            self._known.put(host, source)
            return source
        if name != host:
            self._met.put(name, source)
        self._met.put(host, source)
        return source

    # --- what it turned out to cost -----------------------------------------------------------------------------------

    def charge(self, source: Source, points: float, now: float) -> None:
        """Take points off, of the strangers' store too."""
        if source.exempt:
            return
        source.points = max(source.points - points, -self.limits.burst / 4)
        if source.proved_until <= now:
            self._pool -= points

    def asked(self, source: Source, method: bytes, now: float) -> None:
        """It has sent a new request."""
        self.charge(source, _METHODS.get(method, 1.0), now)

    def refused(self, source: Source, status: int, now: float) -> None:
        """Its request was refused."""
        self.charge(source, _FAILURES.get(status, _FAILURE if status < 600 else 0.0), now)

    def is_full(self, source: Source, transactions: int, now: float) -> bool:
        """Whether it has as many requests under way as it may; `transactions` is the bound of all sources together."""
        if source.exempt:
            return False
        if source.proved_until > now:
            return source.pending >= self.limits.pending * PROVED_FACTOR
        return source.pending >= self.limits.pending or self.strangers_pending >= transactions // 2

    def opened(self, source: Source, stranger: bool) -> None:
        """A transaction of this source begins."""
        source.pending += 1
        self.strangers_pending += stranger

    def settled(self, source: Source, stranger: bool, method: bytes, status: int, call_id: bytes, now: float) -> None:
        """That transaction has its final answer. A call that was answered, or not served for lack of room, is given
        its points back."""
        source.pending -= 1
        self.strangers_pending -= stranger
        if status >= 300 and status != 503:
            self.refused(source, status, now)
        elif method == b"INVITE":
            self.charge(source, -_METHODS[method], now)
            if now > source.answered_at + FORGOTTEN_AFTER:
                source.unacknowledged = 0
            source.unacknowledged += 1
            source.answered_at = now
            source.offered = (*source.offered[-3:], call_id)

    def prove(self, source: Source, now: float) -> None:
        """It has sent what only the holder of the address can know."""
        if source.exempt:
            return
        if source.proved_until <= now:
            source.points += self.limits.burst
            self._known.put(source.name, source)
        source.proved_until = now + PROOF_LASTS
        source.unacknowledged = 0

    def failed(self, source: Source, now: float) -> None:
        """It has answered a challenge of ours with a wrong password, or for a user who is unknown."""
        most = self.limits.failures
        if source.exempt or not most:
            return
        if now > source.failed_since + FAILURES_LAST:
            source.failed, source.failed_since = 0, now
        source.failed += 1
        if source.failed > most * (PROVED_FACTOR if source.logged_in_until > now else 1):
            self._ban(source, "passwords", self.limits.failures_ban, now)

    def logged_in(self, source: Source, now: float) -> None:
        """It has answered a challenge with the right password."""
        self.prove(source, now)
        if not source.exempt:
            source.logged_in_until = now + PROOF_LASTS

    def is_proved(self, source: Source, now: float) -> bool:
        return source.exempt or source.proved_until > now

    def source_of(self, host: str, now: float) -> Source:
        """The source an address belongs to."""
        return NOBODY if self._off else self._find(host, now)

    def forget(self) -> None:
        """Who is exempt has changed: begin anew, but for the bans of those that are not."""
        self._known.clear()
        self._met.clear()
        self._banned = {name: one for name, one in self._banned.items() if not self._exempts(name)}

    # --- for people ---------------------------------------------------------------------------------------------------

    def banned(self, now: float) -> list[Source]:
        """Those whose ban lasts, the latest last."""
        return [source for source in self._banned.values() if source.banned_until > now]

    def lift(self, host: str, now: float) -> bool:
        """End the ban of a source, by its name or by an address of it, and give it a full share. False when it has
        none."""
        source = self._banned.pop(source_name(host), None)
        if source is None or source.banned_until <= now:
            return False
        source.banned_until, source.dropped, source.points, source.at = now, 0, self.limits.burst, now
        source.failed = 0
        return True

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._known) + len(self._met)


def source_name(host: str) -> str:
    """The source of an address: itself, of IPv6 its /64; an IPv4 address mapped into IPv6 is the IPv4 address."""
    if ":" not in host or "/" in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
