"""The account of a run: what its steps, its host and its trace read and count.

Everything here holds for the run as it is now; how it goes on is decided in `run`, which stands on this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Flow, Program, Step
from orchestrator.flow.run.environment import NO_VARS, Environment
from orchestrator.flow.run.run_facts import Failed, KeyIgnored, StepFailed
from orchestrator.flow.run.scheduler import Scheduler
from orchestrator.flow.run.signals import CallEnded, Owner, Waiter
from orchestrator.flow.run.trace import KEPT_LINES, Read, ReadLine, TraceLine, TraceWritten
from orchestrator.history import RunFact


@dataclass(frozen=True, slots=True)
class Version:
    """A program as loaded: what its runs keep when another one is loaded."""

    program: Program
    names: Mapping[str, Any]
    """Names of the program for expressions, from the host."""
    flows: Mapping[str, Flow]


class Phase(StrEnum):
    MAIN = "main"
    OPEN = "open"
    ENDING = "ending"
    DONE = "done"


class Listening(Protocol):
    """A subscription of a run."""

    step: Step

    def close(self) -> None:
        """Hear of nothing more."""


class Subject(Protocol):
    """What a run serves: a call, a REGISTER, another request."""

    @property
    def replied(self) -> bool:
        """A final reply is out, by whomever."""


class Account(Owner):
    """Facts of one run. Hosts read `flow`, `program`, `call_id`, `vars` and set `subject`; everything else belongs to
    the engine."""

    __slots__ = (
        "call",
        "chain",
        "charges",
        "dropped",
        "engine",
        "env",
        "error",
        "failure",
        "flow",
        "handlers",
        "id",
        "left_out",
        "listeners",
        "max_forwards",
        "octets",
        "passed_on",
        "phase",
        "records",
        "request",
        "steps",
        "subject",
        "version",
    )

    def __init__(self, engine: Scheduler, id: int, flow: Flow, version: Version, names: Mapping[str, Any]) -> None:
        self.engine = engine
        self.id = id
        self.flow = flow
        self.version = version
        self.call: Any = names.get("call")
        self.chain: tuple[str, ...] = flow.chain
        """The flows whose runs have led to this one, itself the last: what starts what, also over waits."""
        self.max_forwards = 70
        """Hops that calls it places have left: what begins elsewhere and comes back ends by them (RFC 7332)."""
        self.call_id: str = self.call["id"] if self.call is not None else ""
        if self.call is not None:
            names = {name: value for name, value in names.items() if name != "call"}
        self.env = Environment(version.names, names, self.call, {} if flow.vars else NO_VARS)
        """The names of the main steps: at their start, then at their end (for on_end)."""
        self.phase = Phase.MAIN
        self.tasks: tuple[Waiter[Owner], ...] = ()
        self.listeners: tuple[Listening, ...] = ()
        self.handlers: dict[str, list[int]] | None = None
        """Id of a subscribe step → [events handled, events skipped]; None as long as there was none."""
        self.steps = 0
        self.subject: Subject | None = None
        self.request: Subject | None = None
        """The request of a flow `on: register`, `on: message` and so on; its subject becomes the call that it
        originates."""
        self.passed_on = False
        self.charges = 0
        """Charged sessions that its call has had."""
        """The call was given to somebody who will answer it (`transfer`)."""
        self.failure: Mapping[str, Any] | None = None
        """`relay result` of the last relay that failed: what the caller is told if nobody says otherwise."""
        self.ended: CallEnded | None = None
        self.error = ""
        """Type of the error that ended the main steps, or of the last one that ended a handler."""
        self.records: list[TraceLine] = []
        self.octets = 0
        """What they take."""
        self.dropped = 0
        self.left_out = 0
        """Lines behind the first one that have made room for others."""

    @property
    def vars(self) -> Mapping[str, Any]:
        """Variables of the flow."""
        return self.env.vars

    @property
    def name(self) -> str:
        return f"{self.flow.name}#{self.id}"

    @property
    def replied(self) -> bool:
        """A final reply is out, or another will send it."""
        subject = self.request or self.subject
        return self.passed_on or (subject is not None and subject.replied)

    @property
    def closing(self) -> bool:
        """The call is over, or `on_end` has begun: nothing new is listened to."""
        return self.ended is not None or self.phase in (Phase.ENDING, Phase.DONE)

    @property
    def program(self) -> Program:
        return self.version.program

    def longest_call(self) -> float:
        """Seconds that its call may last, by `max_duration:` of the flow as it is now; inf where that says nothing."""
        asked = self.flow.max_duration
        if asked is None:
            return inf
        try:
            return max(0.0, float(asked.evaluate(self.env)))
        except StepError as error:
            self.trace(None, StepFailed(error.type, error.message, "max_duration does not hold"))
            return inf

    # --- trace and accounts

    def trace(self, step: Step | Flow | None, fact: RunFact, read: Read = ()) -> None:
        """Add a line. `read` is what a condition looked at, or the attributes of an event."""
        engine = self.engine
        if len(self.records) + self.left_out < engine.limits.records:
            now = engine.timers.now
            record = ReadLine(now, step, fact, read) if read else TraceLine(now, step, fact)
            octets = record.cut()
            if self.phase is not Phase.DONE:  # else the trace is kept already: this is for who listens now
                if engine.trace_memory.take(octets):
                    self.records.append(record)
                    self.octets += octets
                else:
                    self.dropped += 1
            history = engine.history
            if TraceWritten in history.told:  # as `hears` says; asked for each line
                history.tell(TraceWritten(self, record))
        else:
            self.dropped += 1

    def shorten(self) -> int:
        """Let go of older lines, but for the first; returns the octets that are free now."""
        gone = self.records[1:-KEPT_LINES]
        del self.records[1 : 1 + len(gone)]
        self.left_out += len(gone)
        octets = sum(record.octets for record in gone)
        self.octets -= octets
        return octets

    def ignored_key(self, digit: str, leg: str) -> None:
        """A key was pressed that no step has taken: neither a `collect` nor a filter."""
        self.trace(None, KeyIgnored(digit, leg, "no step takes it now"))

    def count_step(self) -> None:
        """One more step; raises StepError `flow.limit` beyond the bound."""
        self.steps += 1
        if self.steps > self.engine.limits.steps:
            raise StepError("flow.limit", f"more than {self.engine.limits.steps} steps in one run")

    def count_handler(self, step: Step, skipped: bool) -> int:
        """One more event of a subscribe step; returns how many it has handled, or skipped, now."""
        if self.handlers is None:
            self.handlers = {}
        counts = self.handlers.setdefault(step.id or f"L{step.place.line}", [0, 0])
        counts[skipped] += 1
        return counts[skipped]

    def failed(self, step: Step | None, what: str, error: StepError) -> None:
        """Put an error nobody caught into trace and accounts."""
        self.error = error.type
        self.trace(step, Failed(what, error.type, error.message, error.line))
        if what != "flow":  # that of the main steps is told with the answer it led to
            self._tell_failure(what, error, 0)

    def _tell_failure(self, what: str, error: StepError, code: int) -> None:
        if self.engine.on_failure is not None:
            self.engine.on_failure(self, what, error, code)
