"""Whether a peer we send calls to is there: OPTIONS probes (RFC 3261 §11), and what calls to it have shown.

A peer that has answered a probe once is expected to answer the next ones: two without an answer put it down, the first
answer brings it back. A peer that has never answered a probe may ignore OPTIONS; only a call that it leaves without any
response puts such a peer down, for `hold` seconds. A 503 with Retry-After puts any peer down for that time (§21.5.4).

A peer that is `known` to answer OPTIONS, as FreeSWITCH does, is down with the first probe that finds nothing. And one
may answer OPTIONS while it refuses our calls.

The states of a peer are a table, like those of a transaction:

    unknown      it should answer probes, and has not been heard yet
    untried      it has not answered a probe yet; calls are sent to it
    up           it answers probes
    doubtful     one probe or one call went unanswered; it is probed again at once
    down         nothing is heard from it
    unavailable  it said for how long it takes no calls
    refusing     it answers probes, but takes no calls of ours
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import MalformedMessage
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.uri import parse_uri
from orchestrator.timers import Timer

EVERY = 30.0
"""Seconds between two probes where nothing else is said."""

PATIENCE = 4.0
"""Seconds a peer has to answer a probe: the request is sent five times meanwhile (timer E: 0, 0.5, 1.5, 3.5 s)."""

HOLD = 60.0
"""Seconds a peer is left alone that answers neither probes nor calls; then a call tries it again."""

LONGEST_HOLD = 3600.0
"""Seconds; what a longer Retry-After is cut to."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is watched. `uri` is where calls to it go; `every` the seconds between two probes, 0 for none; `accepts`
    says which status of an answer to OPTIONS means that it takes calls; `patience`: seconds it has to answer; `known`:
    it is known to answer OPTIONS."""

    uri: bytes
    every: float = EVERY
    accepts: Callable[[int], bool] = lambda status: status not in (408, 503)
    patience: float = PATIENCE
    known: bool = False


class Network(Protocol):
    """How a probe finds its way (sip.network.SipNetwork)."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def layer(self) -> TransactionLayer: ...
    @property
    def points(self) -> Sequence[Point]: ...
    @property
    def resolve(self) -> Callable[..., None]: ...
    @property
    def avoid(self) -> Callable[[Hop], None]: ...
    @property
    def answers(self) -> Callable[[Hop], None]: ...


Changed = Callable[[str, bool, str], None]
"""Told `(name, is up, reason)` when a peer goes down or comes back."""


class Prober:
    """Watches peers by name."""

    def __init__(
        self,
        network: Network,
        changed: Changed,
        answered: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`answered(name)` is told each probe that has been."""
        self.network = network
        self.changed = changed
        self.answered = answered
        self._watches: dict[str, Watch] = {}

    def watch(self, peers: Mapping[str, Peer]) -> None:
        """Watch these and no others. A peer that stays as it was keeps its state."""
        for name, watch in list(self._watches.items()):
            if peers.get(name) != watch.peer:
                watch.stop()
                del self._watches[name]
        spread = len(peers)
        for number, (name, peer) in enumerate(peers.items()):
            if name not in self._watches:
                watch = self._watches[name] = Watch(self, name, peer)
                watch.start(peer.every * number / spread)

    def is_up(self, name: str) -> bool:
        """Whether calls should be sent there; a peer that is not watched counts as up."""
        watch = self._watches.get(name)
        return watch is None or watch.is_up

    def state(self, name: str) -> str:
        """Its state in the table, '' for a peer that is not watched."""
        watch = self._watches.get(name)
        return "" if watch is None else watch.state

    def seen_as(self, name: str) -> str:
        """The address it has seen our last answered probe come from; '' before the first one."""
        watch = self._watches.get(name)
        return "" if watch is None else watch.seen_as

    def probe(self, name: str) -> None:
        """Probe it now."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.probe_now()

    def refused(self, name: str, reason: str) -> None:
        """It takes no calls of ours, though it answers."""
        self._step(name, "refused", reason)

    def accepted(self, name: str) -> None:
        """It would take calls of ours."""
        self._step(name, "accepted", "it takes our calls")

    def reason(self, name: str) -> str:
        """Why it is down, '' while it is up."""
        watch = self._watches.get(name)
        return "" if watch is None or watch.is_up else watch.reason

    def responded(self, name: str) -> None:
        """It has answered a call, whatever it said."""
        self._step(name, "responded", "it answers calls again")

    def silent(self, name: str, reason: str) -> None:
        """A call to it got no response at all."""
        self._step(name, "silent", reason)

    def retry_after(self, name: str, seconds: float) -> None:
        """It has answered 503 with this Retry-After."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.hold_for = min(seconds, LONGEST_HOLD)
            watch.step("retry after", f"it takes no calls for {watch.hold_for:g} s")

    def states(self) -> dict[str, bool]:
        """Name → is up, for metrics."""
        return {name: watch.is_up for name, watch in self._watches.items()}

    def _step(self, name: str, what: str, reason: str) -> None:
        watch = self._watches.get(name)
        if watch is not None:
            watch.step(what, reason)


class Watch:
    """One peer: its state, the timer of the next probe, the probe under way."""

    __slots__ = (
        "prober",
        "name",
        "peer",
        "state",
        "reason",
        "hold_for",
        "seen_as",
        "_probe",
        "_further",
        "_next",
        "_patience",
        "_hold",
    )

    def __init__(self, prober: Prober, name: str, peer: Peer) -> None:
        self.prober = prober
        self.name = name
        self.peer = peer
        self.state = "unknown" if peer.known and peer.every else "untried"
        self.reason = ""
        self.hold_for = HOLD
        self.seen_as = ""
        self._probe: ClientTransaction | None = None
        self._further: tuple[Hop, ...] = ()
        """Servers of the peer that are asked if the one before gives no answer."""
        self._next: Timer | None = None
        self._patience: Timer | None = None
        self._hold: Timer | None = None

    @property
    def is_up(self) -> bool:
        return self.state not in ("down", "unavailable", "refusing")

    def start(self, delay: float) -> None:
        if self.peer.every:
            self._next = self._after(delay, Watch._due)

    def stop(self) -> None:
        self._forget_probe()
        for timer in (self._next, self._hold):
            if timer is not None:
                timer.cancel()

    def step(self, what: str, reason: str) -> None:
        """One input of the table; one that is not listed for the state changes nothing."""
        entry = WATCH[self.state].get(what)
        if entry is None:
            return
        was_up = self.is_up
        self.state, effects = entry
        for effect in effects:
            effect(self)
        if not self.is_up:
            self.reason = reason
        if was_up != self.is_up:
            self.prober.changed(self.name, self.is_up, reason)

    def hold(self, seconds: float) -> None:
        """Leave the peer alone for that long."""
        self.forget_hold()
        self._hold = self._after(seconds, Watch._hold_over)

    def forget_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def probe_now(self) -> None:
        if self._next is not None and self._probe is None:
            self._next.cancel()
            self._due()

    def _after(self, delay: float, act: Callable[[Watch], None]) -> Timer:
        return self.prober.network.layer.timers.after(delay, act, self)

    def _hold_over(self) -> None:
        self._hold = None
        self.step("hold over", "it is tried again")

    # --- probing ------------------------------------------------------------------------------------------------------

    def _due(self) -> None:
        self._next = self._after(self.peer.every, Watch._due)
        self._forget_probe()
        try:
            uri = parse_uri(self.peer.uri)
        except MalformedMessage as error:  # the checker has refused it already
            self.step("missed", str(error.reason))
            return
        self._patience = self._after(min(self.peer.patience, self.peer.every), Watch._no_answer)
        network = self.prober.network
        network.resolve(uri, network.points[0], self._send, in_order=True)

    def _send(self, hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
        if self._patience is None or not self._patience.armed:
            return  # the name was found too late
        self._further = further
        if hop is None:
            self._forget_probe()
            self.step("missed", "its address cannot be found")
            return
        network = self.prober.network
        branch = network.tokens.branch()
        octets = options(self.peer.uri, hop.point.via + branch, hop.point.uri, network.tokens)
        self._probe = network.layer.open_client(branch, b"OPTIONS", octets, hop, self)

    def _no_answer(self) -> None:
        self._try_next("no answer to OPTIONS")

    def _try_next(self, reason: str) -> None:
        """The server that was asked is not there: the peer is, as long as another one of its servers is."""
        probe, further = self._probe, self._further
        self._forget_probe()
        if probe is not None and further:
            network = self.prober.network
            network.avoid(probe.destination)
            self._patience = self._after(min(self.peer.patience, self.peer.every), Watch._no_answer)
            self._send(further[0], further[1:])
        else:
            self.step("missed", reason)

    def _forget_probe(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._probe is not None:
            self._probe.end()
            self._probe = None
        self._further = ()

    # --- transaction user ---------------------------------------------------------------------------------------------

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status < 200:
            return
        self._probe = None  # the transaction absorbs repetitions and ends by itself
        self._forget_probe()
        self.prober.network.answers(client.destination)
        if self.peer.accepts(response.status):
            via = response.via
            self.seen_as = (via.received or via.host).strip(b"[]").decode("ascii", "replace")
            self.step("answered", "it answers OPTIONS")
            self.prober.answered(self.name)
        else:
            said = response.reason.decode("utf-8", "replace")[:60]
            self.step("missed", f"it answers OPTIONS with {response.status} {said}")

    def on_timeout(self, client: ClientTransaction) -> None:
        self._no_answer()

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._try_next("it cannot be reached")

    def __repr__(self) -> str:
        return f"<Watch {self.name} {self.state}>"


def options(uri: bytes, via: bytes, sender: bytes, tokens: Tokens) -> bytes:
    """An OPTIONS request outside of dialogs (RFC 3261 §11.1). `via` is a whole header line."""
    lines = [
        b"OPTIONS " + uri + b" SIP/2.0",
        via,
        b"Max-Forwards: 70",
        b"From: <" + sender + b">;tag=" + tokens.token(),
        b"To: <" + uri + b">",
        b"Call-ID: " + tokens.token(),
        b"CSeq: 1 OPTIONS",
        b"Contact: <" + sender + b">",
        b"Accept: application/sdp",
        b"Content-Length: 0\r\n\r\n",
    ]
    return b"\r\n".join(lines)


# --- the table --------------------------------------------------------------------------------------------------------


def _probe_again(watch: Watch) -> None:
    watch.probe_now()


def _hold(watch: Watch) -> None:
    watch.hold(HOLD)


def _hold_as_told(watch: Watch) -> None:
    watch.hold(watch.hold_for)


def _end_hold(watch: Watch) -> None:
    watch.forget_hold()


_UNAVAILABLE = ("unavailable", (_hold_as_told,))
_REFUSING = ("refusing", (_hold,))

WATCH: dict[str, dict[str, tuple[str, tuple[Callable[[Watch], None], ...]]]] = {
    "unknown": {
        "answered": ("up", ()),
        "responded": ("untried", ()),
        "missed": ("down", ()),
        "silent": ("down", ()),
        "retry after": _UNAVAILABLE,
        "refused": _REFUSING,
    },
    "untried": {
        "answered": ("up", ()),
        "silent": ("down", (_hold,)),
        "retry after": _UNAVAILABLE,
        "refused": _REFUSING,
    },
    "up": {
        "missed": ("doubtful", (_probe_again,)),
        "silent": ("doubtful", (_probe_again,)),
        "retry after": _UNAVAILABLE,
        "refused": _REFUSING,
    },
    "doubtful": {
        "answered": ("up", ()),
        "responded": ("untried", ()),
        "missed": ("down", ()),
        "silent": ("down", ()),
        "retry after": _UNAVAILABLE,
        "refused": _REFUSING,
    },
    "down": {
        "answered": ("up", (_end_hold,)),
        "responded": ("untried", (_end_hold,)),
        "missed": ("down", ()),  # for another reason, perhaps
        "retry after": _UNAVAILABLE,
        "hold over": ("untried", ()),
        "refused": _REFUSING,
    },
    "unavailable": {
        "responded": ("untried", (_end_hold,)),
        "retry after": _UNAVAILABLE,
        "hold over": ("untried", ()),
    },
    "refusing": {
        "responded": ("untried", (_end_hold,)),
        "missed": ("down", (_end_hold, _probe_again)),
        "silent": ("refusing", (_probe_again,)),  # the probe decides whether it is there at all
        "retry after": _UNAVAILABLE,
        "hold over": ("untried", ()),
        "refused": _REFUSING,
        "accepted": ("up", (_end_hold,)),
    },
}
"""State → input → (next state, effects). `silent` in state `up` is one sign, not two: a call may time out for reasons
of its own, so the probe decides."""
