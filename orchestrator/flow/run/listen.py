"""Listening for events from inside a flow: the filter of `subscribe`, `wait` and `first_of`, and the life of a
subscription.

A filter becomes what the bus wants: the call, values that must be equal, a condition for the rest. Equal values are
taken when the step arms, the condition sees the names of that moment plus `event`. A condition that fails at run time
(a header that is not there) means "not for us"; it is traced and counted, and ends nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import StepError
from orchestrator.events.bus import Accept, Deliver, Expire, Subscription
from orchestrator.events.event import Event, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.program import Block, Evaluable, Program, Step, Where
from orchestrator.flow.run.account import Account
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.run_facts import EventDropped, EventSkipped, EventTaken, FilterFailed, SubscriptionExpired
from orchestrator.flow.run.signals import Cancelled, Ticket
from orchestrator.flow.run.task import Task, spawn
from orchestrator.flow.run.trace import PLAIN, Read
from orchestrator.timers import TICK

_BUILTIN = {spec.name: spec for spec in BUILTIN_EVENTS}


def event_read(attributes: Mapping[str, Any]) -> Read:
    """What the trace keeps of an event that was taken: its plain attributes."""
    return tuple([(f"event.{name}", value) for name, value in attributes.items() if isinstance(value, PLAIN)])


class Expired:
    """What a wait gets instead of an event when `for:` is over."""


EXPIRED = Expired()


def event_spec(program: Program, event: str) -> EventSpec:
    """The event's entry in the catalogue: of the program, else built in. The checker has refused all others."""
    return program.events.get(event) or _BUILTIN[event]


def equal_values(where: Where | None, env: Environment, fs_name: str = "") -> dict[str, Any]:
    """The values an event must have, as of now. `fs_name` is the `name:` beside a subscription to `fs`."""
    equals = {name: value.evaluate(env) for name, value in where.equals.items()} if where is not None else {}
    if fs_name:
        equals["name"] = fs_name
    return equals


def subscribe(
    task: Task, step: Step, accept: Accept, deliver: Deliver, owner: Any, *, limit: int | None, on_expire: Expire
) -> Subscription:
    """Arm the filter and the `for:` of a `subscribe` or `wait` step on the bus."""
    name = step.args["event"]
    run = task.run
    if len(run.engine.bus) >= run.engine.capacity:
        raise StepError("flow.limit", f"more than {run.engine.capacity} subscriptions in all")
    own = event_spec(run.program, name).scope == "call" and not task.value(step, "any_call", False)
    seconds = task.value(step, "for")
    return run.engine.bus.subscribe(
        name,
        deliver,
        call=run.call_id if own else None,
        equals=equal_values(step.args.get("where"), task.env, step.args.get("name", "")),
        accept=accept,
        limit=limit,
        expires_in=None if seconds is None else max(seconds, TICK),
        on_expire=on_expire,
        owner=owner,
    )


def fits(run: Account, step: Step, condition: Evaluable, env: Environment, event: Event) -> bool:
    """Evaluate the rest of a filter; an error in it means no."""
    try:
        return condition.evaluate(env.bind("event", event.attributes)) is True
    except StepError as error:
        run.engine.stats.filter_errors += 1
        run.trace(step, FilterFailed("where", error.type, error.message))
        return False


class Wait:
    """One armed wait: the first event resumes the task with `(position, attributes)`, `for:` with EXPIRED.

    `position` tells the branches of a first_of apart.
    """

    __slots__ = ("chain", "condition", "env", "position", "run", "step", "subscription", "ticket")

    def __init__(self, task: Task, step: Step, ticket: Ticket, position: int = 0) -> None:
        self.run = task.run
        self.step = step
        self.env = task.env
        self.ticket = ticket
        self.position = position
        self.chain: tuple[str, ...] = ()
        """Which flows the event came from that it took."""
        where: Where | None = step.args.get("where")
        self.condition = where.rest if where is not None else None
        self.subscription = subscribe(task, step, _fits_wait, _arrived, self, limit=1, on_expire=_expired)

    def accepts(self, event: Event) -> bool:
        """Whether its filter lets an event pass."""
        if self.ticket.task is None:  # another branch has won in this very turn
            return False
        return self.condition is None or fits(self.run, self.step, self.condition, self.env, event)


def _fits_wait(event: Event, subscription: Subscription) -> bool:
    wait: Wait = subscription.owner
    return wait.accepts(event)


def _arrived(event: Event, subscription: Subscription) -> None:
    wait: Wait = subscription.owner
    wait.chain = event.chain
    wait.run.engine.resume(wait.ticket, (wait.position, event.attributes))


def _expired(subscription: Subscription) -> None:
    wait: Wait = subscription.owner
    wait.run.engine.resume(wait.ticket, (wait.position, EXPIRED))


class Listener:
    """A `subscribe` step that has run: armed until `for:`, `limit:`, `unsubscribe` or the end of the run.

    What happens to an event while the handler of an earlier one runs is the step's `run:` mode. A closed listener still
    finishes the events it has taken, unless it was closed by `unsubscribe` or by the end of the run.
    """

    __slots__ = ("_busy", "_env", "_nesting", "_queue", "_seen", "run", "step", "subscription")

    def __init__(self, task: Task, step: Step) -> None:
        self.run = task.run
        self.step = step
        self._env = task.env
        self._nesting = task.nesting
        self._busy: list[Task] | None = None
        self._queue: deque[Event] | None = None
        self._seen: dict[Any, None] | None = None
        limit = task.value(step, "limit")
        self.subscription = subscribe(task, step, _fits_listener, _taken, self, limit=limit, on_expire=_lapsed)

    @property
    def env(self) -> Environment:
        """The names its filter and its handlers see, besides `event`."""
        return self._env

    @property
    def mode(self) -> str:
        """What becomes of an event that comes while the steps still run."""
        mode: str = self.step.args.get("run", "queue")
        return mode

    def _room(self, event: Event) -> bool:
        """Whether the queue, or the run's tasks, have room for one more."""
        limits = self.run.engine.limits
        full = len(self.run.tasks) >= limits.tasks or (self._queue is not None and len(self._queue) >= limits.queue)
        if full:
            self.run.engine.stats.dropped += 1
            self.run.trace(self.step, EventDropped())
        return not full

    def accepts(self, event: Event) -> bool:
        """Whether its filter lets an event pass, and its mode and `unique_by` do."""
        where: Where | None = self.step.args.get("where")
        rest = where.rest if where is not None else None
        if rest is not None and not fits(self.run, self.step, rest, self._env, event):
            return False
        if self.mode == "drop" and self._busy:
            self._skip(EventSkipped("still busy with the last one"))
            return False
        return self._room(event) and self._is_new(event)

    def _is_new(self, event: Event) -> bool:
        """Whether `unique_by` has not seen this value yet; it is remembered."""
        unique: Evaluable | None = self.step.args.get("unique_by")
        if unique is None:
            return True
        try:
            value = unique.evaluate(self._env.bind("event", event.attributes))
        except StepError as error:
            self.run.engine.stats.filter_errors += 1
            self.run.trace(self.step, FilterFailed("unique_by", error.type, error.message))
            return False
        key: Any = value if value is None or isinstance(value, PLAIN) else repr(value)
        key = getattr(value, "unique_key", key)  # a contact is more than its text
        if self._seen is None:
            self._seen = {}
        if key in self._seen:
            self._skip(EventSkipped(getattr(unique, "source", "unique_by"), repr(value)))
            return False
        self._seen[key] = None
        if len(self._seen) > self.run.engine.limits.seen:
            del self._seen[next(iter(self._seen))]
        return True

    def _skip(self, skipped: EventSkipped) -> None:
        self.run.count_handler(self.step, skipped=True)
        self.run.trace(self.step, skipped)

    def take(self, event: Event) -> None:
        """An event that passed the filter: handle it now, or when its turn has come."""
        if self._busy and self.mode == "restart":
            self._queue = deque((event,))  # begins when the running one has unwound
            for task in list(self._busy):
                task.interrupt(Cancelled())
        elif self._busy and self.mode == "queue":
            if self._queue is None:
                self._queue = deque()
            self._queue.append(event)
        else:
            self._start(event)

    def _start(self, event: Event) -> None:
        run = self.run
        count = run.count_handler(self.step, skipped=False)
        run.trace(self.step, EventTaken(self.step.args["event"], "handler", count), event_read(event.attributes))
        env = self._env.bind("event", event.attributes)
        task = spawn(run, self.step.args["do"], env, "handler", self._handled, self._nesting)
        if event.chain:
            task.caused_by(event.chain)
        if self._busy is None:
            self._busy = []
        self._busy.append(task)

    def _handled(self, task: Task, result: Any, failure: BaseException | None) -> None:
        """A handler is done; an error ends it alone."""
        assert self._busy is not None
        self._busy.remove(task)
        if isinstance(failure, StepError):
            self.run.failed(self.step, f"handler of {self.step.args['event']}", failure)
            self.run.engine.stats.handler_errors += 1
        if self._queue and not self._busy:
            self.run.engine.bus.as_caused_by(self._queue.popleft(), self._start)
        self._retire()

    def lapse(self) -> None:
        """`for:` is over."""
        taken = self.subscription.taken
        name = self.step.id or self.step.args["event"]
        self.run.trace(self.step, SubscriptionExpired(name, taken))
        block: Block | None = self.step.args.get("on_expire")
        if block is not None:
            try:
                spawn(self.run, block, self._env, "on_expire", self._lapsed, self._nesting)
            except StepError as error:  # too many tasks
                self.run.failed(self.step, "on_expire", error)
        self._retire()

    def _lapsed(self, task: Task, result: Any, failure: BaseException | None) -> None:
        if isinstance(failure, StepError):
            self.run.failed(self.step, "on_expire", failure)
            self.run.engine.stats.handler_errors += 1

    def close(self) -> None:
        """Hear of nothing more and forget what waits; handlers that run go on."""
        self.subscription.cancel()
        self._queue = None
        self._retire()

    def _retire(self) -> None:
        if not self.subscription.armed and not self._queue and self in self.run.listeners:
            self.run.listeners = tuple([other for other in self.run.listeners if other is not self])
            self.run.settle()


def _fits_listener(event: Event, subscription: Subscription) -> bool:
    listener: Listener = subscription.owner
    return listener.accepts(event)


def _taken(event: Event, subscription: Subscription) -> None:
    listener: Listener = subscription.owner
    listener.take(event)


def _lapsed(subscription: Subscription) -> None:
    listener: Listener = subscription.owner
    listener.lapse()
    listener.run.engine.drain()
