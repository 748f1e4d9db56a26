"""A call under a flow as a table: what SIP calls and the channels that FreeSWITCH's dialplan hands over share.

    new        nobody rings yet
    ringing    a destination rings
    answered   a 2xx has gone to the caller; its ACK has not been seen
    confirmed  the ACK has passed, or none will come; a channel of FreeSWITCH needs none
    parting    the call is over for all but its dialog: BYE waits for the ACK (RFC 3261 §15)
    ended      nothing is left of it

`FlowCall.step` is the only place where a state changes. An input that the table does not list for a state changes
nothing: flows, phones and FreeSWITCH may say anything at any time, and what is over stays over.

No state lasts for ever. While there is no answer, the INVITE's transaction asks whether anybody looks after the call
(`sip.server`, `watch`); then a timer bounds it (`limits: call_duration`), and while BYE waits, 64*T1 do
(`sip.ack_wait`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from orchestrator.core.calls.cdr import CallRecords
from orchestrator.core.node import Node
from orchestrator.errors import StepError
from orchestrator.esl.channels import Channel
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.history import RunFact
from orchestrator.measures import Histograms
from orchestrator.timers import Timer

PARTING, ENDED = "parting", "ended"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a call ends. `by` is caller, callee or engine; `code` and `headers` are for the response or BYE that says so,
    `leg` for whom a BYE is."""

    by: str
    reason: str
    code: int | None = None
    headers: tuple[bytes, ...] = ()
    leg: str = "both"


class BoundWork(Protocol):
    """Work of a package that is bound to a call (`core.calls.works`)."""

    @property
    def keeps_call(self) -> bool:
        """The call may not go on without us."""

    def call_answered(self) -> None: ...
    def call_ended(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who hears of the end of the calls of one engine."""

    records: CallRecords
    flows: FlowEngine


W = TypeVar("W", bound=Witnesses)


class FlowCall(ABC, Generic[W]):
    """One call that a flow has taken: its state, its times, its end and who hears of it."""

    __slots__ = (
        "node", "exchange", "id", "server", "run", "state", "started_at", "answered_at", "ended_at", "ending",
        "longest", "watch_timer", "works", "pushed", "woken",
    )  # fmt: skip

    def __init__(self, node: Node, exchange: W, id: str, server: str = "") -> None:
        self.node = node
        self.exchange = exchange
        self.id: str = id
        self.server = server
        """The FreeSWITCH server the call was sent to or comes from."""
        self.run: Run | None = None
        self.state: str = "new"
        self.started_at = node.timers.now
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.ending: Ending | None = None
        self.longest: float = node.settings.limits.call_duration
        """Seconds it may last once it is answered."""
        self.pushed = self.woken = 0
        """Phones that were to be woken for it, and those that have woken up."""
        self.watch_timer: Timer | None = None
        """What bounds the call."""
        self.works: tuple[BoundWork, ...] = ()
        """What packages do while it lasts."""

    def step(self, what: str, argument: Any = None) -> bool:
        """Feed one input; whether the state took it.

        A reaction may lead to another input of the same call: an event it raises makes a flow hang up. Where that has
        moved the state, this input has come too late.
        """
        move = CALL[self.state].get(what)
        if move is None:
            return False
        state = self.state
        for reaction in move.before:
            reaction(self, argument)
            if self.state != state:
                return False
        self.state = move.state
        bugs = []
        for reaction in move.after:  # all of them, or something stays behind that nothing ends
            try:
                reaction(self, argument)
            except Exception as bug:
                bugs.append(bug)
        if bugs:
            raise bugs[0]
        return True

    # --- what it is now -----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """It has ended, for its flow."""
        return self.state in (PARTING, ENDED)

    @property
    def ended_by(self) -> str:
        """caller, callee or engine; '' before the end."""
        return "" if self.ending is None else self.ending.by

    @property
    def end_reason(self) -> str:
        """Why it has ended; '' before the end."""
        return "" if self.ending is None else self.ending.reason

    @property
    def shown(self) -> str:
        """`call.state` of flows: new, ringing, answered or ended."""
        return _SHOWN.get(self.state, self.state)

    @property
    @abstractmethod
    def replied(self) -> bool:
        """A final reply is out."""

    @property
    def duration(self) -> float:
        """Seconds from the answer to the end or now; 0 for a call that was not answered."""
        if self.answered_at is None:
            return 0.0
        return (self.node.timers.now if self.ended_at is None else self.ended_at) - self.answered_at

    @property
    @abstractmethod
    def held(self) -> bool:
        """FreeSWITCH has the one party this call has; nobody else is there."""

    @property
    def needs_us(self) -> bool:
        """It cannot go on without us: a work of a package says so."""
        return any(work.keeps_call for work in self.works)

    @abstractmethod
    def channels(self) -> Iterator[Channel]:
        """Its FreeSWITCH channels."""

    def ask_longest(self) -> None:
        """Its flow says how long it may last."""
        if self.run is not None:
            self.longest = min(self.longest, self.run.longest_call())

    # --- what ends it -------------------------------------------------------------------------------------------------

    def end_by(self, side: str, cause: str, code: int | None = None) -> None:
        """A party has hung up."""
        if not self.over:
            self.publish("hangup", leg=side, cause=cause, code=code)
            self.step("hung up", Ending(side, cause))  # unless a handler of that very event has ended it

    @abstractmethod
    def hangup(self, reason: str, code: int | None, leg: str = "both") -> None:
        """End the call by what fits its state. The flow ends with it."""

    def leave(self, reason: str) -> None:
        """We stop. A call that does not need us goes on: its flow ends, and its record is written, as far as we know
        it."""
        if self.needs_us:
            self.hangup(reason, 503)
        else:
            self.step("left", Ending("engine", reason))

    def fail(self) -> None:
        """A bug has struck, or nothing is left that could answer: 500, or BYE where it has been answered."""
        self.hangup("internal error", 500)

    def part(self) -> None:
        """The call is over and its run is done: they let go of each other."""
        self.run = None

    # --- reactions that differ ----------------------------------------------------------------------------------------

    @abstractmethod
    def open_dialog(self, answer: Any) -> None:
        """It is answered."""

    @abstractmethod
    def turn_away(self, ending: Ending) -> None:
        """Refuse the caller, who has no answer yet, and stop whoever rings."""

    @abstractmethod
    def take_leave(self, ending: Ending) -> None:
        """Hang up on both sides."""

    @abstractmethod
    def hold_farewell(self, ending: Ending) -> None:
        """The same, once the ACK has passed."""

    @abstractmethod
    def say_farewell(self) -> None:
        """Now."""

    @abstractmethod
    def left_by(self, ending: Ending) -> None:
        """A party has hung up: the other one has to hear of it."""

    @abstractmethod
    def discard(self) -> None:
        """It is over: leave the tables."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """It is over: tell and record it."""

    @abstractmethod
    def let_go(self) -> None:
        """Its dialogs are not ours to end any more."""

    # --- telling ------------------------------------------------------------------------------------------------------

    def publish(self, name: str, **attributes: Any) -> int:
        """Raise an event of this call; returns how many took it."""
        try:
            return self.node.publish(name, attributes, self.id)
        except StepError:  # a nest of events too deep (flow.limit): the call goes on without it
            self.node.count("event.too_deep")
            return 0

    def note(self, fact: RunFact) -> None:
        """One fact of the call for the trace of the run."""
        if self.run is not None:
            self.run.trace(None, fact)

    def record(self, code: int | None, contact: str | None) -> None:
        """Write its call detail record."""
        if self.run is not None:
            self.node.measures.calls_ended.count(self.run.flow.name, str(code or ""))
            self.exchange.records.add(self, self.run, code, contact)

    def measure(self, what: Histograms) -> None:
        """Seconds since its begin."""
        if self.run is not None:
            what.observe(self.run.flow.name, self.node.timers.now - self.started_at)

    def tell_flow(self) -> None:
        """Its flow hears that it is over, once."""
        if self.run is not None:
            self.exchange.flows.call_ended(self.run, self.ended_by, self.end_reason)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state}>"


# --- reactions --------------------------------------------------------------------------------------------------------


AnyCall = FlowCall[Any]


def _note_ringing(call: AnyCall, _: object) -> None:
    call.measure(call.node.measures.post_dial_delay)


def _note_answer(call: AnyCall, _: object) -> None:
    call.answered_at = call.node.timers.now
    call.measure(call.node.measures.setup_time)
    call.ask_longest()


def _open_dialog(call: AnyCall, answer: Any) -> None:
    call.open_dialog(answer)


def _turn_away(call: AnyCall, ending: Ending) -> None:
    call.turn_away(ending)


def _take_leave(call: AnyCall, ending: Ending) -> None:
    call.take_leave(ending)


def _hold_farewell(call: AnyCall, ending: Ending) -> None:
    call.hold_farewell(ending)


def _say_farewell(call: AnyCall, _: object) -> None:
    call.say_farewell()


def _left_by(call: AnyCall, ending: Ending) -> None:
    call.left_by(ending)


def _end(call: AnyCall, ending: Ending) -> None:
    call.ended_at, call.ending = call.node.timers.now, ending
    if call.watch_timer is not None:
        call.watch_timer.cancel()
    call.discard()


def _close(call: AnyCall, ending: Ending) -> None:
    call.close(ending)


def _let_go(call: AnyCall, _: object) -> None:
    call.let_go()


def _tell_flow(call: AnyCall, _: object) -> None:
    call.tell_flow()


def _tell_works(call: AnyCall, _: object) -> None:
    for work in call.works:
        work.call_answered()


def _end_works(call: AnyCall, _: object) -> None:
    works, call.works = call.works, ()
    for work in works:
        work.call_ended()


# --- the table --------------------------------------------------------------------------------------------------------

Reaction = Callable[[Any, Any], None]


class Move(NamedTuple):
    """What an input leads to: what is done while the call still is what it was, the next state, what is done then."""

    before: tuple[Reaction, ...]
    state: str
    after: tuple[Reaction, ...]


_OVER = (_end, _close, _let_go, _end_works, _tell_flow)
_LEFT = Move((), ENDED, (_end, _close, _end_works, _tell_flow))
"""Its dialogs and channels live on."""

_UNANSWERED: Mapping[str, Move] = {
    "answered": Move((), "answered", (_note_answer, _open_dialog, _tell_works)),
    "refused": Move((), ENDED, (_end, _close, _let_go, _end_works)),
    "hangup": Move((_turn_away,), ENDED, _OVER),
    "hung up": Move((_left_by,), ENDED, _OVER),
    "left": _LEFT,
}

CALL: Mapping[str, Mapping[str, Move]] = {
    "new": {"ringing": Move((), "ringing", (_note_ringing,)), **_UNANSWERED},
    "ringing": _UNANSWERED,
    "answered": {
        "confirmed": Move((), "confirmed", ()),
        "hangup": Move((_hold_farewell,), PARTING, (_end, _close, _end_works, _tell_flow)),
        "hung up": Move((_left_by,), ENDED, _OVER),
        "left": _LEFT,
    },
    "confirmed": {
        "hangup": Move((_take_leave,), ENDED, _OVER),
        "hung up": Move((_left_by,), ENDED, _OVER),
        "left": _LEFT,
    },
    PARTING: {
        "confirmed": Move((_say_farewell,), ENDED, (_let_go,)),
        "hung up": Move((), ENDED, (_let_go,)),
    },
    ENDED: {},
}
"""State → input → move.

    ringing    a destination rings
    answered   a 2xx is on its way to the caller; FreeSWITCH says that the channel is answered
    confirmed  the ACK has passed, or will not come any more
    refused    a final failure has gone to the caller: the call is over, its flow goes on
    hangup     we end it: a flow, a bound, a bug
    hung up    a party does, by BYE, CANCEL or the end of its channel
    left       we stop, and the call goes on without us
"""

_SHOWN: Mapping[str, str] = {"confirmed": "answered", PARTING: ENDED}
