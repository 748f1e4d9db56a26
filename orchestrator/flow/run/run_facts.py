"""What runs do, as typed facts: each line of a trace is one of these, or a fact about SIP (`orchestrator.history`).

Traces, the log of the demonstration, `orchestrator trace --as-test` and whoever listens to `TraceWritten` read the
fields; `str()` is the line for people. A fact holds plain values only and never changes once it is told. Here is what
all runs have in common; what the actions do is in `flow.run.step_facts`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.history import RunFact

# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RunBegan(RunFact):
    """A flow begins: for a call, another request, or on an event."""

    flow: str
    caller: str = ""
    """Address of record in From; '' where no request began the run."""
    called: str = ""
    """Address of record in To."""
    method: str = ""
    """The request, where it is no INVITE."""
    event: str = ""
    """Name of the event that began the run."""

    def __str__(self) -> str:
        if self.event:
            return f"flow {self.flow} starts on {self.event}"
        if not (self.caller or self.called):
            return f"flow {self.flow} starts"
        method = f"{self.method} " if self.method else ""
        return f"flow {self.flow} starts for {method}{self.caller} -> {self.called}"


@dataclass(slots=True)
class RunEnded(RunFact):
    """The call of the run is over, or the run is ended for another reason; `on_end` steps may follow."""

    by: str
    """caller, callee or engine."""
    reason: str
    of_call: bool = True

    def __str__(self) -> str:
        return f"{'call ' if self.of_call else ''}ended by {self.by}: {self.reason}"


@dataclass(slots=True)
class LastSteps(RunFact):
    """The `on_end` steps begin."""

    def __str__(self) -> str:
        return "on_end"


@dataclass(slots=True)
class LastStepsCut(RunFact):
    """`finally` or `on_end` steps took longer than they may."""

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} cut after {self.seconds:g}s"


@dataclass(slots=True)
class ReplyImplied(RunFact):
    """The main steps are done without a final reply: the run sends one."""

    code: int
    reason: str

    def __str__(self) -> str:
        return f"implicit reply {self.code} {self.reason}"


@dataclass(slots=True)
class ReplyRefused(RunFact):
    """That reply could not be sent."""

    why: str

    def __str__(self) -> str:
        return f"implicit reply not sent: {self.why}"


@dataclass(slots=True)
class ServedByDefault(RunFact):
    """The flow of a request has not replied."""

    def __str__(self) -> str:
        return "no reply: served as if there were no flow"


# --- errors -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Failed(RunFact):
    """An error that nobody caught has ended a part of the run: `flow`, `on_end`, a handler."""

    what: str
    type: str
    message: str
    at: int = 0
    """Line of the flow file that failed, 0 where none did."""

    def __str__(self) -> str:
        line = f" (line {self.at})" if self.at else ""
        return f"{self.what} failed, {self.type}: {self.message}{line}"


@dataclass(slots=True)
class StepFailed(RunFact):
    """A step has failed; `then` is what follows: `on_error`, `on_error of the flow`, or '' where the step ran in the
    background and its flow goes on."""

    type: str
    message: str
    then: str = ""

    def __str__(self) -> str:
        if self.then:
            return f"failed, {self.type}: {self.message}; {self.then}"
        return f"skipped in the background, {self.type}: {self.message}"


@dataclass(slots=True)
class Caught(RunFact):
    """`catch` has taken an error."""

    type: str
    message: str

    def __str__(self) -> str:
        return f"caught {self.type}: {self.message}"


@dataclass(slots=True)
class BackgroundFailed(RunFact):
    """Something begun in the background has failed; its flow has gone on."""

    what: str
    type: str
    message: str

    def __str__(self) -> str:
        return f"background {self.what} failed, {self.type}: {self.message}"


# --- decisions --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Decided(RunFact):
    """A condition was looked at; the line keeps what it has read."""

    source: str
    held: bool

    def __str__(self) -> str:
        return f"if {self.source} -> {'true' if self.held else 'false'}"


@dataclass(slots=True)
class Switched(RunFact):
    """`switch` has chosen the case of a value, or its default."""

    value: str
    default: bool

    def __str__(self) -> str:
        return f"switch -> {self.value}{' (default)' if self.default else ''}"


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class EventTaken(RunFact):
    """An event was taken: by the handler of a `subscribe` (its number `count`), by `wait` or by `first_of`. The line
    keeps the event's attributes."""

    event: str
    by: str
    count: int = 0

    def __str__(self) -> str:
        if self.by == "handler":
            return f"handler of {self.event} runs ({self.count})"
        return f"{self.by} -> {self.event}"


@dataclass(slots=True)
class EventSkipped(RunFact):
    """A handler has not taken an event: it is busy, or has `seen` this value before (as `repr` writes it)."""

    why: str
    seen: str = ""

    def __str__(self) -> str:
        return f"  skipped, {self.why}" + (f" = {self.seen} was seen before" if self.seen else "")


@dataclass(slots=True)
class EventDropped(RunFact):
    """Too many events wait already."""

    def __str__(self) -> str:
        return "event dropped, too many wait already"


@dataclass(slots=True)
class EventUnfit(RunFact):
    """A subscription that looked similar has not got an event (`explain`)."""

    subscription: str
    why: str

    def __str__(self) -> str:
        return f"  subscription {self.subscription} not for us: {self.why}"


@dataclass(slots=True)
class FilterFailed(RunFact):
    """A filter (`where`, `unique_by`) could not be worked out: the event does not fit."""

    filter: str
    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.filter}: failed, {self.type}: {self.message}"


@dataclass(slots=True)
class Subscribed(RunFact):
    """A subscription is armed, for so many seconds where it has a bound; not `armed` when the run ends."""

    event: str
    seconds: float | None = None
    armed: bool = True

    def __str__(self) -> str:
        if not self.armed:
            return f"subscribe {self.event}: not armed, the run ends"
        return f"subscribe {self.event}" + ("" if self.seconds is None else f" for {self.seconds:g}s")


@dataclass(slots=True)
class Unsubscribed(RunFact):
    """`unsubscribe`; not `found` when that subscription had ended."""

    id: str
    found: bool

    def __str__(self) -> str:
        return f"unsubscribe {self.id}{'' if self.found else ', it had ended'}"


@dataclass(slots=True)
class SubscriptionExpired(RunFact):
    """`for:` of a subscription is over; `taken` events had fitted."""

    subscription: str
    taken: int

    def __str__(self) -> str:
        return f"subscription {self.subscription} expired after {self.taken} events"


@dataclass(slots=True)
class WaitBegan(RunFact):
    """`wait` for an event."""

    event: str

    def __str__(self) -> str:
        return f"wait for {self.event}"


@dataclass(slots=True)
class WaitTimedOut(RunFact):
    """`for:` of a `wait` is over."""

    event: str

    def __str__(self) -> str:
        return f"wait for {self.event} timed out"


@dataclass(slots=True)
class FirstOfBegan(RunFact):
    """`first_of` waits for one of its branches."""

    branches: int

    def __str__(self) -> str:
        return f"first of {self.branches}"


@dataclass(slots=True)
class FirstOfTimedOut(RunFact):
    """Its `after:` was first."""

    def __str__(self) -> str:
        return "first_of -> after"


@dataclass(slots=True)
class Raised(RunFact):
    """`raise`: how many have taken the event."""

    event: str
    delivered: int

    def __str__(self) -> str:
        return f"raise {self.event} -> delivered to {self.delivered}"


@dataclass(slots=True)
class KeyIgnored(RunFact):
    """A key was pressed that had no effect."""

    digit: str
    leg: str
    """'' while a `collect` of one leg is under way."""
    why: str

    def __str__(self) -> str:
        return f"key {self.digit}{f' of the {self.leg}' if self.leg else ''} ignored: {self.why}"
