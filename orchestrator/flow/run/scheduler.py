"""What runs the tasks: a queue of those that are ready, their answers, their timers.

An answer, an event or a timer makes tasks ready; `drain` then runs all of them, first come first served, until every
one waits again. Tasks never run inside one another: what a task causes (an event another flow waits for, the end of a
call, a child) is queued behind it. So a handler may end the very call it runs for, two events of one turn are taken in
order, and nothing depends on the depth of the Python stack.

It knows a task as a `Waiter` and its run as an `Owner`. Runs, tasks and listeners stand on it, never the other way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.events.bus import Bus
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.program import Step
from orchestrator.flow.run.signals import PENDING, Cancelled, FlowSignal, Owner, Ticket, Waiter
from orchestrator.flow.run.trace import TraceMemory
from orchestrator.flow.run.traits import Effect
from orchestrator.history import History
from orchestrator.timers import TICK, Timer, Timers

CHAIN = 16
"""What flows that mean it need (a call forwarded and forwarded again), and few enough for flows that start two each."""
CAPACITY = 200_000
"""Subscriptions at half a kilobyte each: what a machine of a gigabyte has room for."""


@dataclass(slots=True)
class Stats:
    """Counters since the start, for metrics."""

    runs: int = 0
    failed: int = 0
    """Runs whose main or on_end steps ended in an error."""
    handler_errors: int = 0
    filter_errors: int = 0
    background_failed: int = 0
    """Background steps that could not begin; their flows went on."""
    dropped: int = 0
    """Events not taken because a queue, a mode or `max:` had no room."""
    stale: int = 0
    """Answers to tickets that were not waited for any more."""
    refused: int = 0
    """Runs not begun because as many as may be are there."""
    circles: int = 0
    """Events not raised because the runs that led to them have started each other in a circle."""
    faults: int = 0
    """Exceptions that are bugs of an action or the host; each ended one task."""


class Performer(Protocol):
    """What performs effects, as far as tasks go."""

    def perform(self, run: Any, ticket: Ticket, effect: Any) -> Any:
        """Do what the effect says and return its result, or PENDING and answer the ticket later.

        Raises:
            StepError: the effect is refused, at once; it is the step's error.
        """


class Scheduler(ABC):
    """The tasks of one process, and the bounds and counters that all runs share. Not thread-safe."""

    host: Performer
    trace_memory: TraceMemory

    def __init__(self, bus: Bus, timers: Timers, limits: Limits, history: History) -> None:
        self.bus = bus
        self.history = history
        """Told each line of the trace of each run (`TraceWritten`)."""
        self.timers = timers
        self.limits = limits
        self.stats = Stats()
        self.stopping = False
        self.capacity = CAPACITY
        """Most subscriptions of all runs together, those of the triggers included."""
        self.chain = CHAIN
        """How often runs may start each other in a row, whatever time lies between."""
        self.on_bound: Callable[[str, str], object] | None = None
        """Told a flow whose runs have met a bound, and which, for the log."""
        self.on_step: Callable[[Step], object] | None = None
        """Told every step that is run, after its condition held: which lines of a flow the tests have reached."""
        self.on_fault: Callable[[Any, Exception], object] | None = None
        """Told an exception that is a bug of an action or of the host, with its traceback, for the log."""
        self.on_failure: Callable[[Any, str, StepError, int], object] | None = None
        """Told a run, its part that ended in an error, the error, and the status the caller got (0: none)."""
        self.on_collapse: Callable[[Any], object] | None = None
        """Told a run that cannot go on, not even to its own end: whoever started it answers for it."""
        self._ready: deque[tuple[Waiter[Owner], Any, BaseException | None, int]] = deque()
        self._draining = False
        self._alarms = 0
        self._raised = 0
        bus.settle = self.drain

    @abstractmethod
    def forget(self, run: Any) -> None:
        """A run is done."""

    # --- answers

    def resume(self, ticket: Ticket, value: Any) -> None:
        """The answer a task waits for. A second answer, or one nobody waits for any more, is counted and ignored."""
        self._answer(ticket, value, None)

    def throw(self, ticket: Ticket, error: BaseException) -> None:
        """The answer is an error (a StepError; a FlowSignal where a child hands one on)."""
        self._answer(ticket, None, error)

    def _answer(self, ticket: Ticket, value: Any, error: BaseException | None) -> None:
        task = ticket.task
        if task is None:
            self.stats.stale += 1
            return
        ticket.use_up()
        task.ticket = None
        self._ready.append((task, value, error, self.bus.depth))
        if not self.bus.depth:  # else the bus settles when all have been told
            self.drain()

    def interrupt(self, task: Waiter[Owner], signal: FlowSignal) -> None:
        """Throw a signal in where the task waits.

        One that is about to run gets it where it would wait next, one that has not begun ends without a step, one that
        was told to end already is left to its `finally` steps.
        """
        if task.generator is None:
            return
        if isinstance(signal, Cancelled):
            if task.told:
                return
            task.told = True
        ticket = task.ticket
        if ticket is not None:
            self._release(task, ticket)
            self._ready.append((task, None, signal, self.bus.depth))
        elif not task.started:
            self.kill(task, signal)
        else:
            task.signal = signal

    def kill(self, task: Waiter[Owner], signal: FlowSignal) -> None:
        """End a task where it stands; its `finally:` steps do not run, only our own disarming does."""
        generator = task.generator
        if generator is None:
            return
        if task.ticket is not None:
            self._release(task, task.ticket)
        task.generator = None
        generator.close()
        self._done(task, None, signal)

    def _release(self, task: Waiter[Owner], ticket: Ticket) -> None:
        task.ticket = None
        work = ticket.use_up()
        if work is not None:
            work.undo()

    # --- running

    def ready(self, task: Waiter[Owner]) -> None:
        """Queue a new task."""
        self._ready.append((task, None, None, self.bus.depth))

    def drain(self) -> None:
        """Run what is ready until everything waits; called at the end of every input."""
        if self._draining:
            return
        self._draining = True
        self._raised = 0
        bus, ready = self.bus, self._ready
        depth = bus.depth
        try:
            while ready:
                task, value, error, bus.depth = ready.popleft()
                try:
                    self._advance(task, value, error)
                except Exception as bug:
                    self.collapse(task.run, bug)
        finally:
            self._draining = False
            bus.depth = depth

    def count_raise(self) -> None:
        """One more event raised by flows in this turn; raises StepError `flow.limit` beyond the bound."""
        self._raised += 1
        if self._raised > self.limits.raises:
            raise StepError("flow.limit", f"more than {self.limits.raises} events caused by one")

    def _advance(self, task: Waiter[Owner], value: Any, error: BaseException | None) -> None:
        """Run a task to where it waits, or to its end."""
        generator = task.generator
        if generator is None:  # killed while it stood in the queue
            return
        task.started = True
        while True:
            try:
                if error is None:
                    wanted = generator.send(value)
                else:
                    thrown, error = error, None
                    wanted = generator.throw(thrown)
            except StopIteration as stop:
                self._done(task, stop.value, None)
                return
            except (StepError, FlowSignal) as failure:
                self._done(task, None, failure)
                return
            except Exception as bug:
                self._done(task, None, self._fault(task, bug))
                return
            if type(wanted) is Ticket:
                if wanted.task is None:  # answered before it was waited for: stands in the queue already
                    return
                if task.signal is None:
                    task.ticket, task.since = wanted, self.timers.now
                    return
                wanted.task = None
                error, task.signal = task.signal, None
                continue
            value, error = self._perform(task, wanted)
            if value is PENDING and error is None:
                return

    def _perform(self, task: Waiter[Owner], effect: object) -> tuple[Any, BaseException | None]:
        """Ask the host; (value or PENDING, what to throw instead)."""
        if not isinstance(effect, Effect):  # of a package's handler
            return None, self._fault(task, TypeError(f"{type(effect).__name__} is not an Effect"))
        if task.signal is not None and effect.waits:
            signal, task.signal = task.signal, None
            return None, signal
        run = task.run
        if effect.needs_call and run.ended is not None:
            return None, None if effect.ends_call else StepError("call.state", "the call has ended")
        ticket = Ticket(task, effect)
        try:
            value = self.host.perform(run, ticket, effect)
        except StepError as error:
            ticket.use_up()
            return None, error
        except Exception as bug:
            ticket.use_up()
            return None, self._fault(task, bug)
        if value is not PENDING:
            ticket.task = None
        elif ticket.task is not None:  # else the host has answered already
            if task.signal is not None:
                signal, task.signal = task.signal, None
                self._release(task, ticket)
                return None, signal
            task.ticket, task.since = ticket, self.timers.now
        return value, None

    def _done(self, task: Waiter[Owner], result: Any, failure: BaseException | None) -> None:
        run = task.run
        task.generator = None
        run.tasks = tuple([other for other in run.tasks if other is not task])
        if failure is not None:
            failure.__traceback__ = None  # its frames would keep the whole task alive
        task.on_done(task, result, failure)
        run.settle()

    def _fault(self, task: Waiter[Owner], bug: Exception) -> StepError:
        """A bug ends one task, not the engine."""
        self.stats.faults += 1
        if task.step is not None:
            bug.add_note(f"in the step at {task.step.place}: {task.step.source}")
        if self.on_fault is not None:
            self.on_fault(task.run, bug)
        return StepError("flow.fault", f"{type(bug).__name__}: {bug}")

    def collapse(self, run: Owner, bug: Exception) -> None:
        """A bug outside of the steps, where a task or the run itself begins or ends: the run is over, the others go
        on."""
        self.stats.faults += 1
        if self.on_fault is not None:
            self.on_fault(run, bug)
        if self.on_collapse is not None:
            self.on_collapse(run)
        run.abort()

    # --- timers and accounts

    def arm(self, delay: float, callback: Callable[[Any], None], argument: Any) -> Timer:
        """A timer of a flow: counted by `live` until it rings or is disarmed; the tasks it wakes run at once.

        No pause is shorter than a tick of the clock, or flows that start each other over `sleep: 0s` would never let
        the reactor go.
        """
        self._alarms += 1
        return self.timers.after(max(delay, TICK), self._ring, (callback, argument))

    def disarm(self, timer: Timer) -> None:
        if timer.armed:
            timer.cancel()
            self._alarms -= 1

    def _ring(self, alarm: tuple[Callable[[Any], None], Any]) -> None:
        self._alarms -= 1
        callback, argument = alarm
        callback(argument)
        self.drain()

    def answer(self, pair: tuple[Ticket, Any]) -> None:
        """Timer callback: the answer is known, the time has come."""
        self.resume(*pair)

    def wake(self, ticket: Ticket) -> None:
        """Timer callback: the pause of a task is over."""
        self.resume(ticket, None)

    # --- bounds

    def check_chain(self, chain: tuple[str, ...]) -> None:
        """`chain` names the flows whose runs have led to what is to be done now, the first one first.

        Raises StepError `flow.limit` when it is longer than it may be: they start each other in a circle, which no
        bound of a single run would ever end.
        """
        if len(chain) <= self.chain:
            return
        self.stats.circles += 1
        path = " -> ".join(chain[-4:])
        what = f"flows start each other in a circle: {path}, more than {self.chain} times (limits: chain)"
        self.tell_bound(chain[-1], what)
        raise StepError("flow.limit", what)

    def tell_bound(self, flow: str, what: str) -> None:
        """A flow has met a bound: into the log."""
        if self.on_bound is not None:
            self.on_bound(flow, what)
