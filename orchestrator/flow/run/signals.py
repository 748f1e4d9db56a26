"""What unwinds a flow besides errors, and what a waiting flow holds on to.

A flow task is a stack of generators. A step ends early by an exception that rises through them: `StepError` for what
`catch` and `on_error` may see, a `FlowSignal` for what they may not. Signals are no subclass of Exception, so that no
handler swallows one by accident; `finally` of the language sees both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, Protocol, TypeVar

from orchestrator.flow.language.program import Step
from orchestrator.flow.run.traits import Effect

Steps = Generator[Any, Any, Any]
"""Yields effects and tickets, is sent their answers, returns the result."""


class FlowSignal(BaseException):
    """Root of what is thrown through steps and cannot be caught by them."""


class Stop(FlowSignal):
    """`stop`: the flow, or the sub-flow, ends here."""


class Refused(FlowSignal):
    """`auth`: the request was challenged or refused. The whole flow ends, not only the sub-flow that asked: nobody may
    go on as if the sender were known."""


class Return(FlowSignal):
    """`return`: the flow ends here and its caller gets `value`."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Break(FlowSignal):
    """`break`: the innermost loop ends."""


class Cancelled(FlowSignal):
    """The task is not needed any more: its parallel sibling won, its wait is over, its handler was restarted."""


class CallEnded(Cancelled):
    """The call is over (FLOWLANG §5, Cancellation). `by` is caller, callee or engine."""

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(by, reason)
        self.by = by
        self.reason = reason


class Deadline(FlowSignal):
    """`timeout:` of a step is over; becomes `step.timeout` where that step stands, so that no step inside catches
    it."""


class Work(Protocol):
    """What a host has begun for a step: a relay, an application on a channel, a call it places."""

    def undo(self) -> None:
        """Nobody waits for it any more (timeout of the step, end of the call): stop what can be stopped."""


class Ticket:
    """A task's claim on one answer: given to the host with an effect, or kept by the step that waits for events.

    The first `FlowEngine.resume` or `throw` uses it up; `task` is None from then on and later answers are ignored.
    `effect` is what the host was asked for, None where events, timers or children answer; `due` is when a timer does.
    A host that answers later may leave its `work`, which is undone when nobody waits for the answer any more.
    """

    __slots__ = ("due", "effect", "task", "work")

    def __init__(self, task: Waiter[Owner] | None, effect: Effect | None = None, due: float | None = None) -> None:
        self.task: Waiter[Owner] | None = task
        self.effect = effect
        self.due = due
        self.work: Work | None = None

    def use_up(self) -> Work | None:
        """Nobody waits for the answer from now on; returns the work that was for it."""
        work, self.work = self.work, None
        self.task = None
        return work


class Owner(ABC):
    """The run of a task, as the scheduler sees it."""

    __slots__ = ("call_id", "ended", "tasks")

    call_id: str
    """Of its call, '' for none."""
    ended: CallEnded | None
    tasks: tuple[Waiter[Owner], ...]

    @abstractmethod
    def settle(self) -> None:
        """A task has ended: go on to the end of the run when nothing is left to run or to wait for."""

    @abstractmethod
    def abort(self) -> None:
        """End where it stands, without another step: a bug has struck that its tasks did not catch. Idempotent."""


O_co = TypeVar("O_co", bound=Owner, covariant=True)


class Waiter(Generic[O_co]):
    """What is scheduled of a task: steps that run until they wait.

    `ticket` stands while it waits, which it does since `since`; `signal` is thrown in where it would wait next; `told`
    says that it has been told to end and may not be disturbed in its `finally` steps by being told again.
    """

    __slots__ = ("generator", "label", "on_done", "run", "signal", "since", "started", "step", "ticket", "told")

    run: O_co
    on_done: Callable[[Any, Any, BaseException | None], None]

    def __init__(self, label: str) -> None:
        self.label = label
        self.generator: Steps | None = None
        self.step: Step | None = None
        """The step that began last: while the task waits, the one that waits."""
        self.ticket: Ticket | None = None
        self.since = 0.0
        self.signal: FlowSignal | None = None
        self.started = False
        self.told = False


class _Pending:
    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()
"""Answer of `Host.perform` that says: later, through `FlowEngine.resume(ticket, …)` or `throw`."""
