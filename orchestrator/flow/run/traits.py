"""What an effect says about itself, so that nothing has to list effects by name.

An `Effect` is a request of a step to whatever is outside of the flow. Those of the product are in `flow.run.effects`
and are performed by the core. A package brings its own kind, in one of two ways:

    TurnEffect    done at once inside the turn: it must not wait for anything
    PoolEffect    done outside the turn by a few greenlets of its own, as a job: it may block on the network

What has to go on while a call lasts, and to be finished after it, is a `CallWork`: a `TurnEffect` binds it to the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from orchestrator.timers import Timer

WaitsFor = tuple[str, float | None]
"""What a step waits for, in words ('the answer to GET'), and after how many seconds at most it goes on."""


class Effect:
    """The traits of an effect that asks nothing of anybody."""

    __slots__ = ()
    needs_call: ClassVar[bool] = False
    """It acts on the call of its run: once the call has ended, its step fails with `call.state`."""
    ends_call: ClassVar[bool] = False
    """It wants the call, or a part of it, to end: once the call has ended, there is nothing to do."""

    @property
    def waits(self) -> bool:
        """Whether the answer comes later: a task that has been told to end does not begin it."""
        return False

    def waits_for(self) -> WaitsFor | None:
        """What `explain` and /explain say while a step waits; None for 'the answer to' and the name of the action."""
        return None


class Waiting(Effect):
    """The answer comes later."""

    __slots__ = ()

    @property
    def waits(self) -> bool:
        return True


class Turn(Protocol):
    """What a `TurnEffect` may use of the engine."""

    @property
    def now(self) -> float:
        """The monotonic clock, in seconds."""

    @property
    def wall(self) -> float:
        """Seconds since the epoch."""

    @property
    def call(self) -> str:
        """The id of the call of the run, '' without one."""

    @property
    def run(self) -> str:
        """The run, as the log and the traces name it."""

    def count(self, name: str) -> None:
        """Add one to a counter, exported as `orchestrator_core_total{event="name"}`."""

    def publish(self, event: str, attributes: Mapping[str, Any]) -> int:
        """Raise an event of a package or of `events:`, of the call of the run where it is one of a call. Returns how
        many took it.

        Raises:
            ValueError: there is no such event, or an attribute is wrong.
            StepError: `flow.limit`, flows raise events in a circle, or too many in one turn.
        """

    def bind(self, work: CallWork) -> None:
        """Bind work to the life of the call of the run.

        Raises:
            StepError: `call.state`, the run has no call, or it is over.
        """


class CallLife(Protocol):
    """What a `CallWork` may use of its call, until it lets go. Times are seconds of the monotonic clock."""

    @property
    def call(self) -> str:
        """The id of the call."""

    @property
    def now(self) -> float: ...

    @property
    def wall(self) -> float:
        """Seconds since the epoch."""

    @property
    def answered_at(self) -> float | None:
        """None before the answer."""

    @property
    def ended_at(self) -> float | None:
        """None before the end."""

    @property
    def end_reason(self) -> str:
        """Why the call has ended; '' before the end."""

    @property
    def crowded(self) -> bool:
        """So many works outlive their calls that this one should give up what cannot be done now."""

    def job(self, effect: PoolEffect, done: Callable[[Any], None]) -> None:
        """Have an effect performed; `done(result or StepError)` is called in a later turn."""

    def after(self, seconds: float, due: Callable[[Any], object]) -> Timer:
        """Call `due(None)` later, unless the timer is cancelled."""

    def publish(self, event: str, attributes: Mapping[str, Any]) -> int:
        """Raise an event of the call; returns how many took it. None does once the call has ended."""

    def hangup(self, reason: str, code: int | None = None) -> None:
        """End the call by what fits its state: final reply or BYE to both sides."""

    def note(self, text: str) -> None:
        """A line in the trace of the run."""

    def count(self, name: str) -> None:
        """Add one to a counter, exported as `orchestrator_core_total{event="name"}`."""

    def let_go(self) -> None:
        """The work is done: it is told nothing more. Without this it outlives its call for ever."""


class CallWork(ABC):
    """Work of a package that goes on while a call lasts. All methods are called inside turns: they must not wait."""

    __slots__ = ()
    keeps_call: ClassVar[bool] = False
    """The call may not go on without us: a server that stops hangs up."""

    @abstractmethod
    def bound(self, life: CallLife) -> None:
        """It is bound to its call. One that is answered already is told by `answered` next."""

    @abstractmethod
    def answered(self, life: CallLife) -> None:
        """The call was answered; called once at most, before `ended`."""

    @abstractmethod
    def ended(self, life: CallLife) -> None:
        """The call is over; called exactly once, whoever has ended it and however: a party, a flow, a fault, the stop
        of the server."""

    @abstractmethod
    def told(self, life: CallLife, message: Any) -> None:
        """A service has a message for it (`ServerContext.tell_work`), before or after the end of the call."""


class TurnEffect(Effect, ABC):
    """An effect of a package that is done inside the turn, in microseconds and without waiting."""

    __slots__ = ()

    @abstractmethod
    def perform(self, turn: Turn) -> Any:
        """Do it; what is returned is the result of the step.

        Raises:
            StepError: it is refused; the error of the step. Any other exception is a fault of the package: it is
                logged and the step fails with `flow.fault`.
        """


class PoolEffect(Waiting, ABC):
    """An effect of a package that is done outside the turn, in a pool of its own."""

    __slots__ = ()
    name: ClassVar[str]
    """In metrics (`pool="name"`), errors (`name.timeout`) and test files; mostly that of the action."""
    size: ClassVar[int] = 16
    """Most that are done at a time."""
    backlog: ClassVar[int] = 100
    """Most that wait for their turn; one more fails with `flow.limit` and is counted as refused."""
    timeout: ClassVar[float] = 10.0
    """Seconds each may take; then it is broken off and fails with `name.timeout`."""

    @abstractmethod
    def perform(self) -> Any:
        """Do it, in a greenlet: sockets wait without holding anybody up. What is returned is the result of the step.

        Raises:
            StepError: the error of the step. Any other exception is logged, counted, and fails it with `name.failed`.
        """

    def waits_for(self) -> WaitsFor | None:
        return f"the answer to {self.name}", self.timeout
