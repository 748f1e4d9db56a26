"""What starts flows without a SIP request: events and timers, and how many runs of a flow there may be (FLOWLANG §4.2).

`mode` says what happens when the trigger fires while a run of the same flow, and of the same `key`, is still there:
`parallel` starts another, up to `max`; `single` does not take the event; `restart` ends the old run and starts a new
one; `queued` lets the event wait, up to `max`. An event that is not taken is not counted as delivered to whoever
raised it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.events.bus import Bus, Subscription
from orchestrator.events.event import Event
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.program import Flow, Program
from orchestrator.flow.run.account import Version
from orchestrator.flow.run.environment import Environment
from orchestrator.flow.run.listen import equal_values
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.scheduler import Stats
from orchestrator.flow.run.trace import PLAIN
from orchestrator.timers import Timer, Timers


class Launcher(Protocol):
    """What a trigger needs of the engine: to count time, to listen, to begin a run."""

    bus: Bus
    timers: Timers
    limits: Limits
    stats: Stats
    stopping: bool

    def arm(self, delay: float, callback: Callable[[Any], None], argument: Any) -> Timer: ...
    def disarm(self, timer: Timer) -> None: ...
    def create(self, flow: Flow, program: Program, names: Mapping[str, Any]) -> Run: ...
    def has_room(self, flow: Flow) -> bool: ...


class Starter:
    """One flow with a trigger `event` or `every`, armed as long as its program is loaded."""

    def __init__(self, engine: Launcher, version: Version, flow: Flow) -> None:
        self._engine = engine
        self._version = version
        self._flow = flow
        self._running: dict[Any, list[Run]] = {}
        self._waiting: dict[Any, deque[Event | None]] = {}
        self._key: Any = None
        self._subscription: Subscription | None = None
        self._timer: Timer | None = None
        self._due = 0.0

    def arm(self) -> None:
        """Begin to listen, or to count time."""
        trigger = self._flow.trigger
        if trigger.kind == "every":
            self._due = self._engine.timers.now
            self._next_tick()
        else:
            env = Environment(self._version.names, {})
            equals = equal_values(trigger.where, env)
            self._subscription = self._engine.bus.subscribe(
                trigger.event, self._take, equals=equals, accept=self._accept, owner=self
            )

    def close(self) -> None:
        """Start nothing more for new events; what was taken still runs."""
        if self._subscription is not None:
            self._subscription.cancel()
        if self._timer is not None:
            self._engine.disarm(self._timer)

    @property
    def flow(self) -> Flow:
        return self._flow

    @property
    def env(self) -> Environment:
        """The names its filter sees, besides `event`."""
        return Environment(self._version.names, {})

    @property
    def ticking(self) -> bool:
        return self._timer is not None and self._timer.armed

    def _next_tick(self) -> None:
        """Ticks keep their distance from the first one, however late the reactor comes."""
        self._due += self._flow.trigger.every
        self._timer = self._engine.arm(self._due - self._engine.timers.now, self._tick, None)

    def _tick(self, _: None) -> None:
        self._next_tick()
        if self._has_room(None):
            self._begin(None)

    def _accept(self, event: Event, _: Subscription) -> bool:
        where = self._flow.trigger.where
        env = Environment(self._version.names, {"event": event.attributes})
        try:
            if where is not None and where.rest is not None and where.rest.evaluate(env) is not True:
                return False
            self._key = _hashable(self._flow.key.evaluate(env)) if self._flow.key is not None else None
        except StepError:
            self._engine.stats.filter_errors += 1
            return False
        return self._has_room(self._key)

    def _has_room(self, key: Any) -> bool:
        running, most = len(self._running.get(key, ())), self._flow.max
        match self._flow.mode:
            case "single":
                taken = not running
            case "queued":
                taken = len(self._waiting.get(key, ())) < (most or self._engine.limits.queue)
            case "parallel":
                taken = not most or running < most
            case _:
                taken = True
        if taken and not (running and self._flow.mode in ("queued", "restart")):
            taken = self._engine.has_room(self._flow)
        if not taken:
            self._engine.stats.dropped += 1
        return taken

    def _take(self, event: Event, subscription: Subscription) -> None:
        self._key, key = None, self._key
        self._begin(event, key)

    def _begin(self, event: Event | None, key: Any = None) -> None:
        """Start a run, or let the event wait for its turn."""
        running = self._running.get(key, ())
        if running and self._flow.mode == "queued":
            self._waiting.setdefault(key, deque()).append(event)
            return
        if self._flow.mode == "restart":
            for run in list(running):
                run.end("engine", "restarted by a newer event")
        names = {"event": event.attributes} if event is not None else {}
        run = self._engine.create(self._flow, self._version.program, names)
        if event is not None:
            run.chain, run.max_forwards = (*event.chain, self._flow.name), event.max_forwards
        run.on_done = lambda run: self._done(run, key)
        self._running.setdefault(key, []).append(run)
        run.begin()

    def _done(self, run: Run, key: Any) -> None:
        running = self._running[key]
        running.remove(run)
        if running:
            return
        waiting = self._waiting.get(key)
        if not waiting or self._engine.stopping:
            self._waiting.pop(key, None)
            del self._running[key]
            return
        event = waiting.popleft()
        if event is None:
            self._begin(None, key)
        else:
            self._engine.bus.as_caused_by(event, lambda event: self._begin(event, key))


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, PLAIN) else repr(value)
