"""The flow engine: drives tasks from one input to the next.

Inputs are `start` (a request came), events from the bus, `resume`/`throw` (the host answers an effect), timers and
`call_ended`. Each makes some tasks ready; `drain` then runs all ready tasks, first come first served, until every one
of them waits again. Tasks never run inside one another: what a task causes (an event another flow waits for, the end
of a call, a child) is queued behind it. So a handler may end the very call it runs for, two events of one turn are
taken in order, and nothing depends on the depth of the Python stack.

The engine is pure: effects go to the `Host`, time comes from the shared `Timers`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.events.bus import Bus
from orchestrator.events.event import Event
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.program import Flow, Program, Step
from orchestrator.flow.run.effects import (
    Answer,
    Cancel,
    Collect,
    Detect,
    EslCommand,
    EslExecute,
    Hangup,
    Http,
    Inject,
    Media,
    Originate,
    Play,
    Relay,
    Reply,
    SaveContact,
    Transfer,
)
from orchestrator.flow.run.effects import (
    Record as RecordEffect,
)
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.listen import Listener, Wait
from orchestrator.flow.run.run import Run, Version
from orchestrator.flow.run.signals import PENDING, Cancelled, FlowSignal, Ticket
from orchestrator.flow.run.task import Task
from orchestrator.flow.run.trace import Record, Trace, TraceMemory, Traces
from orchestrator.flow.run.triggers import Starter
from orchestrator.timers import TICK, Timer, Timers

__all__ = ["PENDING", "FlowEngine", "Host", "Limits", "Run", "Stats", "Task", "Ticket"]


RUNS, RUNS_PER_FLOW = 50_000, 20_000
"""Runs at 7 KB each, their traces included."""
CHAIN = 16
"""What flows that mean it need (a call forwarded and forwarded again), and few enough for flows that start two each."""
CAPACITY = 200_000
"""Subscriptions at half a kilobyte each: what a machine of a gigabyte has room for."""


class Host(Protocol):
    """What performs effects: the composition of SIP, Event Socket and the pool, or a fake in tests."""

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        """Do what the effect says and return its result, or PENDING and answer the ticket later.

        Raises:
            StepError: the effect is refused, at once; it is the step's error.
        """

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for this answer any more (timeout of the step, end of the call): stop what can be stopped."""

    def names(self, program: Program) -> Mapping[str, Any]:
        """What expressions know besides the run: const, groups, schedules, secrets, now. Values may be computed when
        asked for; it is asked with `.get(name)`."""

    def trace(self, run: Run, record: Record) -> None:
        """A line was added to the trace of a run."""


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


class FlowEngine:
    """All runs of one process. Not thread-safe: one turn of the reactor at a time."""

    def __init__(self, program: Program, bus: Bus, timers: Timers, host: Host, limits: Limits | None = None) -> None:
        self.bus = bus
        self.timers = timers
        self.host = host
        self._limits = limits or Limits()
        self.stats = Stats()
        self.runs: dict[int, Run] = {}
        self.traces = Traces(self._limits.traces, self._limits.failures)
        self.trace_memory = TraceMemory(self.traces, self.runs)
        self._ready: deque[tuple[Task, Any, BaseException | None, int]] = deque()
        self._draining = False
        self._alarms = 0
        self.stopping = False
        self.capacity = CAPACITY
        """Most subscriptions of all runs together, those of the triggers included."""
        self.most_runs, self.most_runs_per_flow = RUNS, RUNS_PER_FLOW
        """Most runs of all flows together, and of one flow."""
        self.chain = CHAIN
        """How often runs may start each other in a row, whatever time lies between."""
        self._of_flow: Counter[str] = Counter()
        self.on_bound: Callable[[str, str], object] | None = None
        """Told a flow whose runs have met a bound, and which, for the log."""
        self.on_step: Callable[[Step], object] | None = None
        """Told every step that is run, after its condition held: which lines of a flow the tests have reached."""
        self.on_fault: Callable[[Run, Exception], object] | None = None
        """Told an exception that is a bug of an action or of the host, with its traceback, for the log."""
        self.on_failure: Callable[[Run, str, StepError, int], object] | None = None
        """Told a run, its part that ended in an error, the error, and the status the caller got (0: none)."""
        self.on_collapse: Callable[[Run], object] | None = None
        """Told a run that cannot go on, not even to its own end: whoever started it answers for it."""
        self._raised = 0
        self._starters: list[Starter] = []
        self._versions: list[Version] = []
        bus.settle = self.drain
        self.load(program)

    # --- programs

    def load(self, program: Program) -> None:
        """Use this program from now on; runs that exist keep theirs. Its event and timer flows replace the old
        ones'."""
        for starter in self._starters:
            starter.close()
        version = Version(program, self.host.names(program), {flow.name: flow for flow in program.flows})
        in_use = {id(run.version) for run in self.runs.values()}
        self._versions = [version for version in self._versions if id(version) in in_use]
        self._versions.append(version)
        self.limits = replace(self._limits, **program.resources.defaults.get("limits", {}))
        self.traces.bound(int(self.limits.traces), int(self.limits.failures))
        triggered = [flow for flow in program.flows if flow.trigger.kind in ("event", "every")]
        self._starters = [Starter(self, version, flow) for flow in triggered]
        for starter in self._starters:
            starter.arm()

    @property
    def program(self) -> Program:
        """The program that new runs get."""
        return self._versions[-1].program

    def launch(self) -> None:
        """Run the flows `on: start`; once, when the system serves."""
        for flow in self.program.flows:
            if flow.trigger.kind == "start":
                self.create(flow, self.program, {}).begin()
        self.drain()

    def choose(self, kind: str, names: Mapping[str, Any], dialled: str = "") -> Flow | None:
        """The first flow, in order of the files, that this request (`invite`, `register`, `socket`) starts.

        `names` are `call` or `request` for the `when:` conditions. A condition that fails at run time does not hold.
        `dialled` is the number that the pattern of a `socket` trigger has to match.
        """
        env = Environment(self._versions[-1].names, names)
        for flow in self.program.flows:
            if flow.trigger.kind == kind and (kind != "socket" or fnmatchcase(dialled, flow.trigger.pattern)):
                try:
                    if flow.when is None or flow.when.evaluate(env) is True:
                        return flow
                except StepError:
                    self.stats.filter_errors += 1
        return None

    # --- runs

    def start(
        self,
        flow: Flow,
        *,
        call: Any = None,
        request: Any = None,
        event: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Run:
        """Run a flow up to its first wait. `call` and `request` are mapping views; `call["id"]` scopes its events."""
        given = {"call": call, "request": request, "event": event, "params": params}
        names = {name: value for name, value in given.items() if value is not None}
        run = self.create(flow, self.program, names)
        run.begin()
        self.drain()
        return run

    def create(self, flow: Flow, program: Program, names: Mapping[str, Any]) -> Run:
        """A run that has not begun, for hosts that must know it before its first effect; then `run.begin()`, `drain()`.

        `program` is the loaded one, or an older one that still has runs.
        """
        self.stats.runs += 1
        self._of_flow[flow.name] += 1
        version = next(version for version in reversed(self._versions) if version.program is program)
        run = Run(self, self.stats.runs, flow, version, names)
        self.runs[run.id] = run
        return run

    def has_room(self, flow: Flow) -> bool:
        """Whether one more run of this flow may begin; a refusal is counted and told. Asked before `create`."""
        if len(self.runs) >= self.most_runs:
            what = f"{self.most_runs} runs of all flows are there already (limits: runs)"
        elif self._of_flow[flow.name] >= self.most_runs_per_flow:
            what = f"{self.most_runs_per_flow} runs of this flow are there already (limits: runs_per_flow)"
        else:
            return True
        self.stats.refused += 1
        self._tell_bound(flow.name, what)
        return False

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
        self._tell_bound(chain[-1], what)
        raise StepError("flow.limit", what)

    def _tell_bound(self, flow: str, what: str) -> None:
        if self.on_bound is not None:
            self.on_bound(flow, what)

    def call_ended(self, run: Run, by: str, reason: str) -> None:
        """The call of this run is over (`by` caller, callee or engine); idempotent, legal inside `Host.perform`."""
        run.end(by, reason)
        self.drain()

    def stop(self, reason: str = "engine stops") -> None:
        """End every run; their `finally` and `on_end` steps still get their time from the timers."""
        self.stopping = True
        for starter in self._starters:
            starter.close()
        for run in list(self.runs.values()):
            run.end("engine", reason)
        self.drain()

    def forget(self, run: Run) -> None:
        """A run is done: only its trace stays."""
        if self.runs.pop(run.id, None) is not None:
            name = run.flow.name
            self._of_flow[name] -= 1
            if not self._of_flow[name]:
                del self._of_flow[name]
        trace = Trace.of(run)
        self.trace_memory.live -= trace.octets
        self.traces.keep(trace)
        if run.on_done is not None:
            run.on_done(run)

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
        ticket.task = task.ticket = None
        self._ready.append((task, value, error, self.bus.depth))
        if not self.bus.depth:  # else the bus settles when all have been told
            self.drain()

    def interrupt(self, task: Task, signal: FlowSignal) -> None:
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

    def kill(self, task: Task, signal: FlowSignal) -> None:
        """End a task where it stands; its `finally:` steps do not run, only our own disarming does."""
        generator = task.generator
        if generator is None:
            return
        if task.ticket is not None:
            self._release(task, task.ticket)
        task.generator = None
        generator.close()
        self._done(task, None, signal)

    def _release(self, task: Task, ticket: Ticket) -> None:
        ticket.task = task.ticket = None
        if ticket.hosted:
            self.host.abandon(ticket)

    # --- running

    def ready(self, task: Task) -> None:
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

    def _advance(self, task: Task, value: Any, error: BaseException | None) -> None:
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

    def _perform(self, task: Task, effect: Any) -> tuple[Any, BaseException | None]:
        """Ask the host; (value or PENDING, what to throw instead)."""
        if task.signal is not None and _waits(effect):
            signal, task.signal = task.signal, None
            return None, signal
        run = task.run
        if run.ended is not None and isinstance(effect, _ON_CALL):
            refused = None if isinstance(effect, Hangup | Cancel) else StepError("call.state", "the call has ended")
            return None, refused
        ticket = Ticket(task, hosted=True, effect=effect)
        try:
            value = self.host.perform(run, ticket, effect)
        except StepError as error:
            ticket.task = None
            return None, error
        except Exception as bug:
            ticket.task = None
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

    def _done(self, task: Task, result: Any, failure: BaseException | None) -> None:
        run = task.run
        task.generator = None
        run.tasks.remove(task)
        if failure is not None:
            failure.__traceback__ = None  # its frames would keep the whole task alive
        task.on_done(task, result, failure)
        run.settle()

    def _fault(self, task: Task, bug: Exception) -> StepError:
        """A bug ends one task, not the engine."""
        self.stats.faults += 1
        if task.step is not None:
            bug.add_note(f"in the step at {task.step.place}: {task.step.source}")
        if self.on_fault is not None:
            self.on_fault(task.run, bug)
        return StepError("flow.fault", f"{type(bug).__name__}: {bug}")

    def collapse(self, run: Run, bug: Exception) -> None:
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

    def explain(self, event: Event) -> None:
        """Put into the traces why subscriptions that looked similar do not get this event. Set it as `bus.watch` in
        tests and while somebody asks: it looks at every subscription of the event."""
        for subscription, name, wanted in self.bus.near_misses(event):
            waiting: Listener | Wait | None = subscription.owner
            if isinstance(waiting, Listener | Wait):
                found = event.attributes.get(name)
                about = (waiting.step.id or event.name, name, repr(found), repr(wanted))
                waiting.run.trace(waiting.step, "  subscription {} not for us: {} is {}, wanted {}", *about)

    def live(self) -> dict[str, int]:
        """What is held for runs right now: all zero when no call is up. Linear, for tests and gauges."""
        return {
            "runs": len(self.runs),
            "tasks": sum(len(run.tasks) for run in self.runs.values()) + len(self._ready),
            "subscriptions": sum(isinstance(sub.owner, Listener | Wait) for sub in self.bus),
            "timers": self._alarms - sum(starter.ticking for starter in self._starters),
        }


_ON_CALL = (
    *(Reply, Relay, Inject, Cancel, Hangup, SaveContact),
    *(Media, Answer, Play, RecordEffect, Collect, Detect, Transfer),
)
"""Refused when the call has ended; cancelling and hanging up are then simply done."""


def _waits(effect: Any) -> bool:
    """Whether the host will answer later: such an effect is not begun by a task that has been told to end."""
    if isinstance(effect, Http | Play):
        return not effect.background
    return isinstance(effect, _WAITING)


_WAITING = (Relay, EslCommand, EslExecute, Media, Answer, RecordEffect, Collect, Detect, Transfer, Originate)
