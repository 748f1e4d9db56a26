"""A flow task: a generator that walks steps and yields what it needs.

A step's handler yields an effect (flow.run.effects) and gets the host's answer, or a `Ticket` of its own and
gets what some event or timer puts in. In between nothing of it runs: a task that waits is a few small objects, no
stack and no greenlet. Handlers run nested step lists with `yield from task.walk(steps)`.

Everything a task waits for is disarmed in the `finally` of the handler that armed it. Cancelling is therefore one move:
throw a signal in where the task waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import StepError
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Block, Step
from orchestrator.flow.run.account import Account
from orchestrator.flow.run.environment import ABSENT, Environment
from orchestrator.flow.run.run_facts import Decided, StepFailed
from orchestrator.flow.run.signals import Deadline, FlowSignal, Ticket, Waiter
from orchestrator.flow.run.signals import Steps as Steps
from orchestrator.flow.run.trace import PLAIN
from orchestrator.history import Note, RunFact

Done = Callable[["Task", Any, BaseException | None], None]
"""Told when a task has ended: (task, what its steps returned, the StepError or FlowSignal that ended it or None)."""


class Task(Waiter[Account]):
    """Main steps of a run, or a child of it: handler, meanwhile, parallel branch, on_end. `env` are its names."""

    __slots__ = ("chain", "env", "nesting")

    def __init__(self, run: Account, env: Environment, label: str, on_done: Done, nesting: int = 0) -> None:
        super().__init__(label)
        self.run = run
        self.env = env
        self.on_done = on_done
        self.nesting = nesting
        self.chain: tuple[str, ...] = ()
        """The flows that have led to what it does: those of its run, or of an event it has taken."""

    # --- what handlers use

    def value(self, step: Step, name: str, default: Any = None) -> Any:
        """The value of a key of this step now, `default` when it is not written."""
        evaluable = step.args.get(name)
        return default if evaluable is None else evaluable.evaluate(self.env)

    def values(self, step: Step, name: str) -> dict[str, Any]:
        """A map key, each of its values evaluated; {} when it is not written."""
        env = self.env
        return {key: evaluable.evaluate(env) for key, evaluable in step.args.get(name, {}).items()}

    def trace(self, step: Step, fact: RunFact | str) -> None:
        """A line of the run's trace: a fact of `flow.run.run_facts`, or what an action of a package says of itself."""
        self.run.trace(step, Note(fact) if isinstance(fact, str) else fact)

    def spawn(self, block: Block, label: str, on_done: Done) -> Task:
        """Start a child with the names of now; it runs when this task waits.

        Raises:
            StepError: `flow.limit`, too many tasks in this run.
        """
        child = spawn(self.run, block, self.env, label, on_done, self.nesting)
        child.chain = self.chain
        return child

    def caused_by(self, chain: tuple[str, ...]) -> None:
        """It acts on an event that came from these flows."""
        if len(chain) >= len(self.chain):
            self.chain = (*chain, self.run.flow.name)

    def raise_event(self, event: Event) -> int:
        """Publish an event that this task causes; returns how many took it.

        Raises:
            StepError: `flow.limit`, flows raise events in a circle, or too many in one turn.
        """
        engine = self.run.engine
        engine.check_chain(self.chain)
        event.chain, event.max_forwards = self.chain, self.run.max_forwards
        engine.count_raise()
        return int(engine.bus.publish(event))

    def sleep(self, seconds: float) -> Steps:
        """Wait that long; one passing of the reactor at least."""
        engine = self.run.engine
        ticket = Ticket(self, due=engine.timers.now + seconds)
        timer = engine.arm(seconds, engine.wake, ticket)
        try:
            yield ticket
        finally:
            engine.disarm(timer)

    def give_way(self) -> Steps:
        """Let everything that is ready run first: children that were just cancelled unwind before the next step."""
        ticket = Ticket(self)
        self.run.engine.resume(ticket, None)
        yield ticket

    def adopt(self, child: Task) -> None:
        """Take over the names a child has kept with `as:`."""
        env = self.env
        kept = {name: value for name, value in child.env.items() if env.get(name, ABSENT) is not value}
        if kept:
            self.env = env.more(kept)

    def interrupt(self, signal: FlowSignal) -> None:
        """Throw `signal` in where the task waits, or will wait next; one that has not begun never begins."""
        self.run.engine.interrupt(self, signal)

    # --- walking steps

    def walk(self, block: Block) -> Steps:
        """Run the steps of `block` in order.

        Raises:
            StepError: of a step, or of its condition or timeout, that has no `on_error`; step and line filled in.
            FlowSignal: whatever ended the steps early.
        """
        run = self.run
        at = 0
        while at < len(block):  # an iterator would be one more object for each task that waits
            step = block[at]
            at += 1
            failed = None
            try:
                run.count_step()
                if step.condition is not None and not self._holds(step, step.condition):
                    if step.action is None and "else" in step.args:
                        yield from self.walk(step.args["else"])
                    continue
                if run.engine.on_step is not None:
                    run.engine.on_step(step)
                self.step = step
                action = step.action
                if action is None:
                    yield from self.walk(step.args["then"])
                    continue
                if action.function is not None:
                    result = action.function(self, step)
                elif action.request is not None and action.answered is not None and step.timeout is None:
                    result = yield action.request(self, step)
                    result = yield from action.answered(self, step, result)
                elif step.timeout is None:
                    result = yield from action.handler(self, step)  # type: ignore[misc]  # E119 refused it at load
                else:
                    result = yield from self._with_deadline(step)
                if step.result is not None:
                    self.env = self.env.bind(step.result, result)
            except StepError as error:
                if not error.line:
                    error.file, error.line = step.place.file, step.place.line
                    error.step = step.source
                if step.on_error is None:
                    if not self._behind(step, error):
                        raise
                    continue
                failed = error_record(error)
            if failed is not None and step.on_error is not None:
                yield from self._recover(step, step.on_error, failed)

    def scoped(self, block: Block, names: Mapping[str, Any]) -> Steps:
        """Run `block` with more names; they end with it, names its steps keep with `as:` stay."""
        before = self.env
        bound = self.env = before.more(names)
        try:
            yield from self.walk(block)
        finally:
            self.env = before if self.env is bound else self.env.without(names, before)

    def _holds(self, step: Step, condition: Any) -> bool:
        held = condition.evaluate(self.env)
        if type(held) is not bool:
            raise StepError("expr.type", f"if: gave {held!r} instead of true or false")
        source = getattr(condition, "source", "…")
        self.run.trace(step, Decided(source, held), values_read(condition, self.env))
        return held

    def _behind(self, step: Step, error: StepError) -> bool:
        """Whether the step runs in the background and so fails alone: it is skipped and counted, its flow goes on."""
        try:
            behind = error.type != "flow.limit" and self.value(step, "background", False) is True
        except StepError:
            return False
        if behind:
            self.run.engine.stats.background_failed += 1
            self.trace(step, StepFailed(error.type, error.message))
            if step.result is not None:
                self.env = self.env.bind(step.result, None)
        return behind

    def _recover(self, step: Step, block: Block, failed: Mapping[str, Any]) -> Steps:
        self.trace(step, StepFailed(failed["type"], failed["message"], "on_error"))
        if step.result is not None:
            self.env = self.env.bind(step.result, None)
        yield from self.scoped(block, {"error": failed})

    def _with_deadline(self, step: Step) -> Steps:
        """A step with `timeout:` beside it."""
        assert step.timeout is not None and step.action is not None and step.action.handler is not None
        seconds = step.timeout.evaluate(self.env)
        deadline = Deadline()
        engine = self.run.engine
        timer = engine.arm(seconds, self.interrupt, deadline)
        try:
            return (yield from step.action.handler(self, step))
        except Deadline as signal:
            if signal is not deadline:
                raise
        finally:
            engine.disarm(timer)
            if self.signal is deadline:
                self.signal = None
        raise StepError("step.timeout", f"{step.action.name} took longer than {seconds:g}s")

    def __repr__(self) -> str:
        state = "waits" if self.ticket else "ready" if self.generator else "done"
        return f"<Task {self.run.name} {self.label} {state}>"


def spawn(run: Account, block: Block, env: Environment, label: str, on_done: Done, nesting: int = 0) -> Task:
    """Start a task of this run; it runs when the engine comes to it, not inside this call.

    Raises:
        StepError: `flow.limit`, too many tasks in this run.
    """
    engine = run.engine
    if len(run.tasks) >= engine.limits.tasks:
        raise StepError("flow.limit", f"more than {engine.limits.tasks} tasks in one run")
    task = Task(run, env, label, on_done, nesting)
    task.chain = run.chain
    task.generator = task.walk(block)
    run.tasks += (task,)
    engine.ready(task)
    return task


def values_read(expression: Any, env: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What an expression has read, as (path, value): plain values only, for the trace."""
    found = []
    for path in sorted(getattr(expression, "reads", ())):
        value: Any = env
        try:
            for name in path:
                value = value[name]
        except (LookupError, TypeError):
            continue
        if value is None or isinstance(value, PLAIN):
            found.append((".".join(path), value))
    return tuple(found)


def error_record(error: StepError) -> dict[str, Any]:
    """What `error.*` is in catch and on_error. The error's frames are let go: they would keep all they belong to."""
    error.__traceback__ = None
    return {
        "type": error.type,
        "message": error.message,
        "step": error.step,
        "line": error.line,
        "data": error.data,
    }
