"""A server for the tests of a service: it keeps what the service does, and raises events for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from orchestrator.events.choice import matching
from orchestrator.events.event import Event, EventSpec
from orchestrator.events.outside import typed_event
from orchestrator.events.received import Received, may_be_raised
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.packages.service import QUEUE, Raised


class FakeServer:
    """A `ServerContext` without a server. Handlers are called at once, greenlets are not begun."""

    def __init__(self, name: str, events: Iterable[EventSpec] = ()) -> None:
        """`events` are known besides those built in."""
        self.name = name
        self.node = "n1"
        self.published: list[Event] = []
        self.lines: list[tuple[str, str, Mapping[str, Any]]] = []
        """(level, text, facts) of the log."""
        self.work: list[Callable[[], object]] = []
        """What was given to `spawn`."""
        self.request_marks: dict[str, Callable[[str, int], str]] = {}
        """Of `mark_requests`."""
        self.wall_offset = 0.0
        """Of `wall`."""
        self.marks: list[str] = []
        """Headers of `mark_calls`."""
        self.effects: dict[type[Any], Callable[[Any], Any]] = {}
        self.told: list[tuple[str, type[Any], Any]] = []
        """Messages for works of calls: (call, kind, message)."""
        self._specs = {spec.name: spec for spec in (*BUILTIN_EVENTS, *events)}
        self._listeners: list[tuple[Collection[str], Callable[[Raised], object]]] = []
        self._facts: list[tuple[type[Any], Callable[[Any], object]]] = []
        self._metrics: dict[str, Callable[[], Any]] = {}
        self._checks: list[Callable[[], str]] = []

    # --- for the service ----------------------------------------------------------------------------------------------

    def publish(self, event: str, attributes: Mapping[str, Any], call: str = "") -> bool:
        self.published.append(typed_event(self._spec(event), attributes, call))
        return True

    def take(self, received: Received) -> int:
        spec = self._spec(received.name)
        if not may_be_raised(spec):
            raise ValueError(f"{spec.name!r} cannot be raised from outside")
        call = received.call if spec.scope == "call" else ""
        self.published.append(typed_event(spec, received.attributes, call))
        return 1

    def listen(self, events: Collection[str], handle: Callable[[Raised], object], queue: int = QUEUE) -> None:
        for name in events:
            if not matching(name, self._specs):
                self._spec(name)
        self._listeners.append((events, handle))

    def listen_facts(self, kind: type[Any], handle: Callable[[Any], object], queue: int = QUEUE) -> None:
        self._facts.append((kind, handle))

    def listen_together(
        self, events: Collection[str], handle: Callable[[list[Raised]], object], queue: int = QUEUE, gather: float = 0.0
    ) -> None:
        self.listen(events, lambda event: handle([event]), queue)

    def follow(
        self,
        kinds: Collection[type[Any]],
        handle: Callable[[list[Any]], object],
        queue: int = QUEUE,
        gather: float = 0.0,
    ) -> None:
        for kind in kinds:
            self._facts.append((kind, lambda fact: handle([fact])))

    def wall(self, time: float) -> float:
        return time + self.wall_offset

    def mark_calls(self, header: str) -> None:
        self.marks.append(header)

    def mark_requests(self, header: str, value: Callable[[str, int], str]) -> None:
        self.request_marks[header] = value

    def perform(self, effect: type[Any], perform: Callable[[Any], Any]) -> None:
        self.effects[effect] = perform

    def tell_work(self, call: str, kind: type[Any], message: Any) -> bool:
        self.told.append((call, kind, message))
        return True

    def spawn(self, work: Callable[[], object]) -> None:
        self.work.append(work)

    def counter(self, name: str, doc: str, read: Callable[[], Any], labels: tuple[str, ...] = ()) -> None:
        self._metrics[name] = read

    gauge = counter

    def health(self, complaint: Callable[[], str]) -> None:
        self._checks.append(complaint)

    def log(self, level: str, text: str, **facts: Any) -> None:
        self.lines.append((level, text, facts))

    # --- for the test -------------------------------------------------------------------------------------------------

    def raise_event(self, name: str, attributes: Mapping[str, Any], call: str = "", time: float = 0.0) -> None:
        """Raise an event for those who listen. Raises ValueError when it is no such event."""
        event = typed_event(self._spec(name), attributes, call)
        for names, handle in self._listeners:
            if any(matching(pattern, [name]) for pattern in names):
                handle(Raised(name, event.attributes, call, time))

    def tell(self, fact: object) -> None:
        """Tell a fact to those who listen to its kind."""
        for kind, handle in self._facts:
            if type(fact) is kind:
                handle(fact)

    def read(self, metric: str) -> Any:
        """What a counter or gauge shows."""
        return self._metrics[metric]()

    def complaints(self) -> list[str]:
        """What its health checks say."""
        return [text for text in (check() for check in self._checks) if text]

    def _spec(self, event: str) -> EventSpec:
        found = self._specs.get(event)
        if found is None:
            raise ValueError(f"there is no event {event!r}")
        return found
