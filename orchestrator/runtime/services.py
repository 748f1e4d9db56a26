"""Services of other packages, run: made before anything is served, stopped after the last call.

Their code never runs inside a turn. What they publish becomes an input of the reactor, what they listen to waits in a
bounded queue for a greenlet of their own, and what they raise is logged and counted here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.queue import SimpleQueue
from loguru import logger
from pydantic import BaseModel

from orchestrator.core.engine import Engine
from orchestrator.errors import OrchestratorError
from orchestrator.events.bus import Bus
from orchestrator.events.choice import matching
from orchestrator.events.event import Event
from orchestrator.events.outside import typed_event
from orchestrator.events.received import Received
from orchestrator.packages.service import QUEUE, Raised, Runs, Service
from orchestrator.runtime.admin import Health
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.metrics import Metrics

START_TIME = 10.0
STOP_TIME = 5.0
"""Seconds that `start` and `stop` of a service may take."""
DRAIN_TIME = 2.0
"""Seconds that listeners have at a stop for what waits in their queues."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a greenlet that failed is begun anew; twice as many each time."""
HELD = 1000
"""Events published before the server is ready that are kept."""

_HEADER_NAME = re.compile(r"[Xx]-[A-Za-z0-9-]{1,60}")

FAULTS = (Exception, gevent.Timeout, SystemExit)
"""What code of others may raise without ending anything of ours."""


class Sink:
    """A listener: what it is told within turns waits for its greenlet, or is dropped."""

    def __init__(self, host: Host, handle: Callable[[Any], object], capacity: int) -> None:
        self.dropped = self.handled = 0
        self._host = host
        self._handle = handle
        self._capacity = capacity
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._busy = False
        self.greenlet = gevent.spawn(self._work)

    def take(self, item: object) -> None:
        """Called within a turn; never waits, never raises."""
        if self._queue.qsize() >= self._capacity:
            self.dropped += 1
        else:
            self._queue.put(item)

    @property
    def idle(self) -> bool:
        return not self._busy and self._queue.empty()

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            self._busy = True
            try:
                self._handle(item)
                self.handled += 1
            except FAULTS as bug:
                self._host.fault(bug)
            finally:
                self._busy = False


class Bundles(Sink):
    """A listener that is given all that waits at once. Its greenlet never runs within a turn, so what one turn has
    told is in one bundle."""

    def __init__(self, host: Host, handle: Callable[[Any], object], capacity: int, gather: float = 0.0) -> None:
        """`gather`: seconds between two bundles."""
        self._waiting: list[object] = []
        self._wake = Signal()
        self._gather = gather
        super().__init__(host, handle, capacity)

    def take(self, item: object) -> None:
        waiting = self._waiting
        if len(waiting) >= self._capacity:
            self.dropped += 1
            return
        if not waiting:
            self._wake.set()
        waiting.append(item)

    @property
    def idle(self) -> bool:
        return not self._busy and not self._waiting

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            bundle, self._waiting = self._waiting, []
            self._busy = True
            try:
                self._handle(bundle)
                self.handled += len(bundle)
            except FAULTS as bug:
                self._host.fault(bug)
            finally:
                self._busy = False
            if self._gather:
                gevent.sleep(self._gather)


class Host:
    """The `ServerContext` of one service, and the service itself."""

    def __init__(self, services: Services, spec: Service) -> None:
        self.name = spec.name
        self.node = services.node
        self.running: Runs | None = None
        self.published = self.refused = self.faults = 0
        self.sinks: list[Sink] = []
        self._trouble = ""
        self._checks: list[Callable[[], str]] = []
        self._services = services
        self._work: list[Callable[[], object]] = []
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self._held: list[Event] = []
        self._ready = self._closed = False

    # --- what the service uses ----------------------------------------------------------------------------------------

    def publish(self, event: str, attributes: Mapping[str, Any], call: str = "") -> bool:
        spec = self._services.spec(event)
        if (spec.scope == "call") != bool(call):
            needs = "needs the id of its call" if spec.scope == "call" else "belongs to no call"
            raise ValueError(f"event {event!r} {needs}")
        made = typed_event(spec, attributes, call)
        if self._closed or (not self._ready and len(self._held) >= HELD):
            self.refused += 1
            return False
        if not self._ready:
            self._held.append(made)
            return True
        return self._offer(made)

    def _offer(self, event: Event) -> bool:
        taken = self._services.offer(event)
        self.published += taken
        self.refused += not taken
        return taken

    def take(self, received: Received) -> int:
        return self._services.incoming.take(received)

    def listen(self, events: Collection[str], handle: Callable[[Raised], object], queue: int = QUEUE) -> None:
        self._check(events)
        self._services.tap(events, self._sink(handle, queue).take)

    def listen_facts(self, kind: type[Any], handle: Callable[[Any], object], queue: int = QUEUE) -> None:
        self._services.tap_facts(kind, self._sink(handle, queue).take)

    def listen_together(
        self, events: Collection[str], handle: Callable[[list[Raised]], object], queue: int = QUEUE, gather: float = 0.0
    ) -> None:
        self._check(events)
        self._services.tap(events, self._bundles(handle, queue, gather).take)

    def follow(
        self,
        kinds: Collection[type[Any]],
        handle: Callable[[list[Any]], object],
        queue: int = QUEUE,
        gather: float = 0.0,
    ) -> None:
        bundles = self._bundles(handle, queue, gather)
        for kind in kinds:
            self._services.tap_facts(kind, bundles.take)

    def _check(self, events: Collection[str]) -> None:
        for name in events:
            if not matching(name, self._services.known()):
                self._services.spec(name)

    def _bundles(self, handle: Callable[[list[Any]], object], queue: int, gather: float) -> Bundles:
        bundles = Bundles(self, handle, queue, gather)
        self.sinks.append(bundles)
        return bundles

    def wall(self, time: float) -> float:
        return time + self._services.engine.settings.wall_offset

    def mark_calls(self, header: str) -> None:
        if _HEADER_NAME.fullmatch(header) is None:
            raise ValueError(f"{header!r} cannot be the name of a header of ours: it has to begin with X-")
        self._services.engine.network.mark_calls(header.encode())

    def mark_requests(self, header: str, value: Callable[[str, int], str]) -> None:
        engine = self._services.engine
        engine.request_marks = (*engine.request_marks, (header, value))

    def _sink(self, handle: Callable[[Any], object], queue: int) -> Sink:
        sink = Sink(self, handle, queue)
        self.sinks.append(sink)
        return sink

    def perform(self, effect: type[Any], perform: Callable[[Any], Any]) -> None:
        self._services.jobs.add(effect, perform)

    def begin(self, effect: type[Any], begin: Callable[[Any, Callable[[Any], None]], None]) -> None:
        self._services.jobs.add_errands(effect, begin)

    def tell_work(self, call: str, kind: type[Any], message: Any) -> bool:
        return self._services.offer_input(self._services.engine.host.works.receive, call, kind, message)

    def spawn(self, work: Callable[[], object]) -> None:
        if self._ready:
            self._greenlets.append(gevent.spawn(self._supervise, work))
        else:
            self._work.append(work)

    def counter(self, name: str, doc: str, read: Callable[[], Any], labels: tuple[str, ...] = ()) -> None:
        self._services.metrics.counter(f"service_{self.name}_{name}", doc, read, labels)

    def gauge(self, name: str, doc: str, read: Callable[[], Any], labels: tuple[str, ...] = ()) -> None:
        self._services.metrics.gauge(f"service_{self.name}_{name}", doc, read, labels)

    def health(self, complaint: Callable[[], str]) -> None:
        self._checks.append(complaint)

    def complaint(self) -> str:
        """What is wrong with the service, '' for nothing."""
        found = [self._trouble]
        for check in self._checks:
            try:
                found.append(str(check()))
            except FAULTS as bug:
                found.append(f"its health check failed: {_told(bug)}")
        return "; ".join(text for text in found if text)

    def log(self, level: str, text: str, **facts: Any) -> None:
        logger.bind(**facts, service=self.name).log(level.upper(), text)

    # --- its life -----------------------------------------------------------------------------------------------------

    def fault(self, bug: BaseException) -> None:
        """The service has raised something where it should not."""
        self.faults += 1
        logger.bind(service=self.name).opt(exception=bug).error("service_fault")

    def open(self) -> None:
        """The server is ready: what was published before is raised, greenlets begin."""
        self._ready = True
        held, self._held = self._held, []
        for event in held:
            self._offer(event)
        work, self._work = self._work, []
        for each in work:
            self.spawn(each)

    def _supervise(self, work: Callable[[], object]) -> None:
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            try:
                work()
                return
            except FAULTS as bug:
                self.fault(bug)
                self._trouble = f"it failed and is begun anew: {_told(bug)}"
            if monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            gevent.sleep(pause)
            self._trouble = ""
            pause = min(2 * pause, LONGEST_PAUSE)

    def quiesce(self, deadline: float) -> None:
        """Publish nothing more; listeners finish what waits for them."""
        self._closed = True
        while monotonic() < deadline and not all(sink.idle for sink in self.sinks):
            gevent.sleep(0.01)
        gevent.killall(self._greenlets, timeout=STOP_TIME)
        gevent.killall([sink.greenlet for sink in self.sinks], timeout=STOP_TIME)

    def stop(self) -> None:
        if self.running is None:
            return
        try:
            with gevent.Timeout(STOP_TIME):
                self.running.stop()
        except FAULTS as bug:
            self.fault(bug)


class Tap:
    """Who listens to what, by names and globs."""

    def __init__(self, patterns: Collection[str], told: Callable[[Event], object]) -> None:
        self.names: frozenset[str] = frozenset()
        self._patterns = patterns
        self._told = told

    def follow(self, bus: Bus, known: Collection[str]) -> None:
        """Listen to those of the known events that fit, and to no others."""
        names = frozenset(name for pattern in self._patterns for name in matching(pattern, known))
        for name in self.names - names:
            bus.untap(name, self._told)
        for name in names - self.names:
            bus.tap(name, self._told)
        self.names = names


class Services:
    """All services of one server."""

    def __init__(
        self, engine: Engine, offer: Callable[..., bool], metrics: Metrics, health: Health, jobs: Jobs, node: str = ""
    ) -> None:
        """`offer(receive, *arguments)` leaves an input for the reactor; False when it has no room. `node` is the name
        of this server."""
        self.node = node
        self.engine = engine
        self.metrics = metrics
        self.jobs = jobs
        self.hosts: dict[str, Host] = {}
        self.incoming = Incoming(engine, offer)
        self._offer = offer
        self._health = health
        self._tapped: list[Tap] = []
        self._facts: list[tuple[type[Any], Callable[[Any], object]]] = []

    def add(self, spec: Service, settings: BaseModel) -> None:
        """Make a service. Raises OrchestratorError."""
        host = self.hosts[spec.name] = Host(self, spec)
        try:
            with gevent.Timeout(START_TIME):
                host.running = spec.make(host, settings)
        except FAULTS as bug:
            raise self._cannot(host, bug) from bug
        self._health.add_degradation(f"service {spec.name}", host.complaint)

    def start(self) -> None:
        """Start all of them, in the order of the configuration. Raises OrchestratorError."""
        for host in self.hosts.values():
            assert host.running is not None
            try:
                with gevent.Timeout(START_TIME):
                    host.running.start()
            except FAULTS as bug:
                raise self._cannot(host, bug) from bug

    def open(self) -> None:
        """The server is ready."""
        for host in self.hosts.values():
            host.open()

    def close(self) -> None:
        """Stop them, the last one first."""
        for tap in self._tapped:
            tap.follow(self.engine.bus, ())
        for kind, take in self._facts:
            self.engine.history.ignore(kind, take)
        deadline = monotonic() + DRAIN_TIME
        for host in reversed(self.hosts.values()):
            host.quiesce(deadline)
            host.stop()

    @property
    def events(self) -> frozenset[str]:
        """Events that services listen to."""
        return frozenset(name for tap in self._tapped for name in tap.names)

    def events_changed(self) -> None:
        """A reload has brought other events: called in its turn."""
        for tap in self._tapped:
            tap.follow(self.engine.bus, self.known())

    # --- for hosts ----------------------------------------------------------------------------------------------------

    def spec(self, event: str) -> Any:
        """The event as the flows that run now know it. Raises ValueError."""
        found = self.engine.flows.program.events.get(event)
        if found is None:
            raise ValueError(f"there is no event {event!r}")
        return found

    def known(self) -> Collection[str]:
        """Names of the events that the flows know."""
        return self.engine.flows.program.events.keys()

    def offer_input(self, receive: Callable[..., object], *arguments: Any) -> bool:
        return self._offer(receive, *arguments)

    def offer(self, event: Event) -> bool:
        return self._offer(self.engine.receive_event, event)

    def tap(self, events: Collection[str], take: Callable[[Raised], object]) -> None:
        engine = self.engine

        def told(event: Event) -> None:
            wall = event.time + engine.settings.wall_offset
            take(Raised(event.name, dict(event.attributes), event.call, wall))

        tap = Tap(events, told)
        tap.follow(engine.bus, self.known())
        self._tapped.append(tap)

    def tap_facts(self, kind: type[Any], take: Callable[[Any], object]) -> None:
        self.engine.history.listen(kind, take)
        self._facts.append((kind, take))

    def _cannot(self, host: Host, bug: BaseException) -> OrchestratorError:
        return OrchestratorError(f"the service {host.name!r} cannot be started: {_told(bug)}")


def _told(bug: BaseException) -> str:
    if isinstance(bug, gevent.Timeout):
        return f"it took more than {bug.seconds or 0:g} s"
    return f"{type(bug).__name__}: {bug}"
