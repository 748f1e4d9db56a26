"""Charging of calls: what `charge` asks of whoever bills, and the session of a charged call, as a table.

    ringing    authorised; nobody has answered yet
    opening    the call is answered, the session is being opened
    refused    it was not opened: the call ends
    talking    it is open
    updating   more usage is asked for
    abandoned  the call is over before it is known whether the session is open
    leaving    the call is over while more is asked for: what comes after the end would open the session anew
    closing    the call is over, the session is being closed
    pausing    nobody has taken the end of the session: it is tried again
    recording  it is closed, the record is being written
    retrying   nobody has taken the record: it is tried again
    done       nothing is left of it

A session that was opened, or may have been, is closed from one place, `closing`, and every end of a call leads there:
BYE, the limit, a disconnect from the billing server, a fault, the stop of the server. Requests are effects; a service
performs them (`ServerContext.perform`), CGRateS' in `orchestrator.integrations.cgrates`. It raises `charge.refused` for
what the billing server refuses and `charge.down` when it does not answer; `data: {sent: false}` says that a request
has never left, so that there is nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from orchestrator.errors import StepError
from orchestrator.flow.run.traits import CallLife, CallWork, PoolEffect, Turn, TurnEffect
from orchestrator.timers import Timer

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 20.0
"""Seconds before what the billing server has not taken is sent again; twice as many each time."""
PATIENCE = 3600.0
"""Seconds after the end of a call that this is tried."""
EARLY = 5.0
"""Seconds before the granted usage is used up that more is asked for; a fifth of it where that is less."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What is charged, the same in all requests of one session."""

    session: str
    """Unique: the id of the call, and a number for each further session of the same call."""
    call: str
    """Its id."""
    sip_call_id: str
    account: str
    destination: str
    tenant: str
    """'' where the flow names none."""
    domain: str
    """That was called."""
    type: str
    """prepaid, postpaid, pseudoprepaid or rated."""
    setup: float
    """When the call began, in seconds since the epoch."""


@dataclass(slots=True)
class Authorise(PoolEffect):
    """May this call be made, and for how long? Answers with a mapping: `max_usage`, seconds, None for no limit;
    `portion`, seconds of usage to ask for at a time, None for all at once.

    Errors: `charge.refused`, `charge.down`.
    """

    name = "charge"
    size = 500
    backlog = 2_000
    timeout = 30.0

    charged: Charged
    usage: float | None = None
    """Seconds asked for."""
    limit: float | None = None
    """Seconds that the step may take."""

    def perform(self) -> Mapping[str, Any]:
        raise _nobody()


@dataclass(slots=True)
class Report(PoolEffect):
    """One request about a session. `what`: open, update, close, record, or drop (it is given up, nothing is sent).

    Open and update answer as `Authorise` does, without `portion`. `usage` are the seconds asked for; to close and
    record, those used. Errors: `charge.refused`, `charge.down`.
    """

    name = "charge_report"
    size = 1_000
    backlog = 20_000
    timeout = 70.0

    what: str
    charged: Charged
    usage: float | None = None
    answered: float | None = None
    """Seconds since the epoch."""
    cause: str = ""
    """Why the call has ended."""
    number: int = 0
    """Of the request in its session; one that is sent again has the same."""

    def perform(self) -> Mapping[str, Any]:
        raise _nobody()


def _nobody() -> StepError:
    return StepError("charge.down", "no billing service is configured: services: cgrates", {"sent": False})


@dataclass(slots=True)
class BeginCharging(TurnEffect):
    """Charge the call from its answer on."""

    session: ChargedCall

    def perform(self, turn: Turn) -> None:
        turn.bind(self.session)


# --- messages of the billing server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The billing server ends the call."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True)
class LowBalance:
    """It says that little is left."""

    session: str


@dataclass(frozen=True, slots=True)
class Alter:
    """It says how long the call may last from now on, in seconds, inf for no limit; None: ask again."""

    session: str
    usage: float | None


# --- the session ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ChargedCall(CallWork):
    """The session of one charged call."""

    keeps_call = True

    charged: Charged
    granted: float | None
    """Seconds that the authorisation has given; None for no limit."""
    portion: float | None = None
    """Seconds of usage to ask for at a time; None for all at once."""
    longest: float | None = None
    """Seconds that the flow allows (`max:`)."""
    state: str = "ringing"
    life: CallLife | None = field(default=None, repr=False)
    limit: float | None = None
    """When the call is cut, by the monotonic clock."""
    due: float | None = None
    """When more is asked for."""
    began: float = 0.0
    """When the charged usage begins: the answer, or `charge` where that comes later."""
    _until: float = 0.0
    """Up to when usage has been granted, in portions."""
    _asked: float | None = None
    _number: int = 0
    _pause: float = FIRST_PAUSE
    _timer: Timer | None = field(default=None, repr=False)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def bound(self, life: CallLife) -> None:
        self.life = life

    def answered(self, life: CallLife) -> None:
        self.step("answered")

    def ended(self, life: CallLife) -> None:
        self.step("ended")

    def told(self, life: CallLife, message: Any) -> None:
        if message.session == self.charged.session:
            self.step(_MESSAGES[type(message)], message)

    def step(self, what: str, argument: Any = None) -> bool:
        """Feed one input; whether the state took it. What the table does not list changes nothing."""
        move = SESSION[self.state].get(what)
        if move is None:
            return False
        self.state = move.state
        for reaction in move.reactions:
            if self.state == move.state:  # else one before has led to another input: a cut call is over
                reaction(self, argument)
        return True

    def heard(self, result: Any) -> None:
        """The answer to the request that is out."""
        if not isinstance(result, StepError):
            self.step("granted", result.get("max_usage"))
        elif result.type == "charge.refused":
            self.step("refused", result.message)
        elif result.data.get("sent") is False:
            self.step("unsent", result.message)
        else:
            self.step("down", result.message)

    # --- what reactions use -------------------------------------------------------------------------------------------

    @property
    def its_life(self) -> CallLife:
        assert self.life is not None
        return self.life

    @property
    def used(self) -> float:
        """Seconds that are charged so far, or until the end of the call."""
        life = self.its_life
        return (life.now if life.ended_at is None else life.ended_at) - self.began

    def report(self, what: str, usage: float | None, again: bool = False) -> None:
        """Send a request, or the last one again."""
        life = self.its_life
        self._number += not again
        at = life.wall - (life.now - self.began)
        if not again:
            shown = "" if usage is None else f", {usage:g}s"
            life.note(f"charge {what} {self.charged.account}{shown}")
        life.job(Report(what, self.charged, usage, at, life.end_reason, self._number), self.heard)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wait_for(self, seconds: float, what: str) -> None:
        """Feed this input later, in place of one that waits."""
        self.disarm()
        self._timer = self.its_life.after(max(0.0, seconds), lambda _: self.step(what))

    def arm(self) -> None:
        """Wait for what comes first: the limit, or the time to ask for more."""
        now = self.its_life.now
        self.disarm()
        if self.due is not None and (self.limit is None or self.due < self.limit):
            self.wait_for(self.due - now, "due")
        elif self.limit is not None:
            self.wait_for(self.limit - now, "limit")


_MESSAGES: Mapping[type, str] = {Disconnect: "stop", LowBalance: "warn", Alter: "alter"}


# --- reactions --------------------------------------------------------------------------------------------------------


def _asks(session: ChargedCall) -> float | None:
    """Seconds of usage to ask for next: a portion, or all that the flow allows, no more than is left of that."""
    most = None if session.longest is None else max(1.0, session.longest - session.used)
    if session.portion is None:
        return most
    return session.portion if most is None else min(session.portion, most)


def _open(session: ChargedCall, _: object) -> None:
    session.began = session._until = session.its_life.now
    session._asked = _asks(session)
    session.report("open", session._asked)


def _update(session: ChargedCall, _: object) -> None:
    session._asked = _asks(session)
    session.report("update", session._asked)
    if session.limit is not None:  # an answer that is late does not make the call longer
        session.wait_for(session.limit - session.its_life.now, "limit")


def _granted(session: ChargedCall, usage: float | None) -> None:
    """Note how long the call may last now."""
    life, portion, asked = session.its_life, session.portion, session._asked
    session.limit = session.due = None
    if portion is not None and asked is not None:
        session._until = max(session._until, life.now if usage is None else 0.0) + (asked if usage is None else usage)
        if usage is None or usage >= asked:
            session.due = max(life.now + 1.0, session._until - min(EARLY, asked / 5))
        if usage is not None:
            session.limit = session._until
    else:
        most = session.granted if usage is None else usage
        session.limit = None if most is None else session.began + most
    _bound(session)


def _keep(session: ChargedCall, _: object) -> None:
    """Nothing more is granted: what was granted before holds."""
    session.limit, session.due = session._until, None
    _bound(session)


def _bound(session: ChargedCall) -> None:
    """What the flow allows holds in any case."""
    if session.longest is not None:
        most = session.began + session.longest
        session.limit = most if session.limit is None else min(session.limit, most)
    session.arm()


def _alter(session: ChargedCall, message: Alter) -> None:
    if message.usage is not None:
        now, unlimited = session.its_life.now, message.usage == inf
        session._until = now if unlimited else now + message.usage
        session.limit, session.due = None if unlimited else session._until, None
        _bound(session)
    elif session.portion is not None:
        session.wait_for(0.0, "due")


def _reach(session: ChargedCall, _: object) -> None:
    life = session.its_life
    life.count("charge.limit")
    life.publish("limit_reached", {"usage": round(session.used, 3)})
    life.hangup("limit reached", 402)


def _stop(session: ChargedCall, message: Disconnect) -> None:
    _cut(session, message.reason)


def _cut(session: ChargedCall, reason: str) -> None:
    """The billing server, or its absence, ends the call: flows hear of it first."""
    life = session.its_life
    life.count("charge.stop")
    life.publish("charge_stop", {"reason": reason})
    life.hangup(reason or "charging stopped", 402)


def _warn(session: ChargedCall, _: object) -> None:
    session.its_life.publish("low_balance", {"usage": round(session.used, 3)})


def _close(session: ChargedCall, _: object) -> None:
    session.disarm()
    session._pause = FIRST_PAUSE
    session.report("close", session.used)


def _record(session: ChargedCall, _: object) -> None:
    session._pause = FIRST_PAUSE
    session.report("record", session.used)


def _note_refusal(session: ChargedCall, reason: object) -> None:
    session.its_life.count("charge.close_refused")
    session.its_life.note(f"charge close refused: {reason}")


def _pause(session: ChargedCall, _: object) -> None:
    """Wait before it is sent again, unless that was tried long enough."""
    life = session.its_life
    over_for = 0.0 if life.ended_at is None else life.now - life.ended_at
    if life.crowded or over_for > PATIENCE:
        session.step("tired")
        return
    session.wait_for(session._pause, "again")
    session._pause = min(2 * session._pause, LONGEST_PAUSE)


def _close_again(session: ChargedCall, _: object) -> None:
    session.report("close", session.used, again=True)


def _record_again(session: ChargedCall, _: object) -> None:
    session.report("record", session.used, again=True)


def _give_up(session: ChargedCall, _: object) -> None:
    life = session.its_life
    life.count("charge.lost")
    life.note(f"charge of {session.charged.account}, {session.used:g}s: nobody has taken it")
    life.job(Report("drop", session.charged), lambda result: None)
    _finish(session, _)


def _finish(session: ChargedCall, _: object) -> None:
    session.disarm()
    session.its_life.let_go()


# --- the table --------------------------------------------------------------------------------------------------------

Reaction = Callable[[ChargedCall, Any], None]


class Step(NamedTuple):
    """What an input leads to."""

    state: str
    reactions: tuple[Reaction, ...] = ()


_CLOSE = Step("closing", (_close,))
_CUT = Step("talking", (_cut,))
_WHILE_OPEN: Mapping[str, Step] = {
    "limit": Step("talking", (_reach,)),
    "stop": Step("talking", (_stop,)),
}

SESSION: Mapping[str, Mapping[str, Step]] = {
    "ringing": {
        "answered": Step("opening", (_open,)),
        "ended": Step("done", (_finish,)),
    },
    "opening": {
        "granted": Step("talking", (_granted,)),
        "refused": Step("refused", (_cut,)),
        "unsent": Step("refused", (_cut,)),
        "down": _CUT,
        "stop": Step("opening", (_stop,)),
        "ended": Step("abandoned"),
    },
    "refused": {
        "ended": Step("done", (_finish,)),
    },
    "talking": {
        **_WHILE_OPEN,
        "due": Step("updating", (_update,)),
        "alter": Step("talking", (_alter,)),
        "warn": Step("talking", (_warn,)),
        "ended": _CLOSE,
    },
    "updating": {
        "granted": Step("talking", (_granted,)),
        "refused": Step("talking", (_keep,)),
        "unsent": Step("talking", (_keep,)),
        "down": Step("talking", (_keep,)),
        "limit": Step("updating", (_reach,)),
        "stop": Step("updating", (_stop,)),
        "warn": Step("updating", (_warn,)),
        "ended": Step("leaving"),
    },
    "abandoned": {
        "granted": _CLOSE,
        "down": _CLOSE,
        "refused": Step("done", (_finish,)),
        "unsent": Step("done", (_finish,)),
    },
    "leaving": dict.fromkeys(("granted", "refused", "unsent", "down"), _CLOSE),
    "closing": {
        "granted": Step("recording", (_record,)),
        "refused": Step("recording", (_note_refusal, _record)),
        "unsent": Step("pausing", (_pause,)),
        "down": Step("pausing", (_pause,)),
    },
    "pausing": {
        "again": Step("closing", (_close_again,)),
        "tired": Step("done", (_give_up,)),
    },
    "recording": {
        "granted": Step("done", (_finish,)),
        "refused": Step("done", (_note_refusal, _finish)),
        "unsent": Step("retrying", (_pause,)),
        "down": Step("retrying", (_pause,)),
    },
    "retrying": {
        "again": Step("recording", (_record_again,)),
        "tired": Step("done", (_give_up,)),
    },
    "done": {},
}
"""State → input → step.

    answered, ended          of the call
    granted, refused         the billing server has answered
    down, unsent             it has not; the request has never left
    due, limit               it is time to ask for more; the call may last no longer
    stop, alter, warn        the billing server says so
    again, tired             the pause is over; it was tried long enough
"""
