"""The events of an engine for those who follow them: kept for a moment, so that nobody needs a queue of his own.

While somebody follows, events of the names that are wanted are tapped on the bus, which has them made even if no flow
hears them; for LINGER seconds after the last one has gone, so that a browser that connects again misses nothing. Then
events cost what they did before. What is told of one is made when the first follower asks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import gevent

from orchestrator.core.engine import Engine
from orchestrator.events.event import Event
from orchestrator.flow.run.trace import masked
from orchestrator.views.kept_call import event_octets
from orchestrator.views.shown_values import iso

KEPT: Final = 2000
"""Events that are kept for followers who are slow, or connect again."""
MEMORY: Final = 4_000_000
"""Octets of their attributes at most; the last event is kept in any case."""
LINGER: Final = 30.0
BURST: Final = 200
"""Events that a follower is told at once."""
ALL: Final = ""
"""Stands for all names."""


class FeltEvent:
    """One event that has been, and its number."""

    __slots__ = ("_attributes", "_told", "call", "name", "number", "octets", "time")

    def __init__(self, number: int, event: Event) -> None:
        self.number = number
        self.octets = event_octets(event)
        self.name = event.name
        self.call = event.call
        self.time = event.time
        self._attributes: Mapping[str, Any] | None = event.attributes
        self._told: dict[str, Any] = {}

    def told(self, wall_offset: float) -> dict[str, Any]:
        """As JSON has it, without push tokens."""
        if self._attributes is not None:
            attributes = {name: _plain(masked(value, name)) for name, value in self._attributes.items()}
            self._attributes = None
            time = iso(self.time + wall_offset)
            self._told = {"name": self.name, "call": self.call or None, "time": time, "attributes": attributes}
        return self._told


class EventFeed:
    """The feed of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: deque[FeltEvent] = deque()
        self._octets = 0
        self._number = 0
        self._wanted: Counter[str] = Counter()
        self._tapped: set[str] = set()
        self._tap = self._take
        """One object, by which the bus knows it again."""
        self._wakes: dict[int, Callable[[], None]] = {}
        self._last = 0

    @property
    def number(self) -> int:
        """Of the last event."""
        return self._number

    def open(self, name: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake()` for each event of this name (ALL for any) from now on; returns what ends that."""
        self._last += 1
        number = self._last
        self._wakes[number] = wake
        self._wanted[name] += 1
        self.look()

        def end() -> None:
            if self._wakes.pop(number, None) is not None:
                gevent.spawn_later(LINGER, self._leave, name)

        return end

    def _leave(self, name: str) -> None:
        self._wanted[name] -= 1
        if not self._wanted[name]:
            del self._wanted[name]
        self.look()
        if not self._wanted:
            self._kept.clear()
            self._octets = 0

    def look(self) -> None:
        """Tap what is wanted now, of the names that the program knows; again when that may have changed."""
        known = self._engine.flows.program.events
        wanted = set(known) if ALL in self._wanted else set(self._wanted) & set(known)
        bus = self._engine.bus
        for name in self._tapped - wanted:
            bus.untap(name, self._tap)
        for name in wanted - self._tapped:
            bus.tap(name, self._tap)
        self._tapped = wanted

    def _take(self, event: Event) -> None:
        """Within a turn."""
        self._number += 1
        kept, felt = self._kept, FeltEvent(self._number, event)
        kept.append(felt)
        self._octets += felt.octets
        while len(kept) > KEPT or (self._octets > MEMORY and len(kept) > 1):
            self._octets -= kept.popleft().octets
        for wake in self._wakes.values():
            wake()

    def since(self, number: int, name: str = ALL, call: str = "") -> tuple[list[FeltEvent], int, int]:
        """At most BURST events behind that number which are wanted, the number to go on from, and how many of all have
        been forgotten in between."""
        kept = self._kept
        oldest = kept[0].number if kept else self._number + 1
        lost = max(0, oldest - number - 1)
        found: list[FeltEvent] = []
        for event in self._behind(max(number, oldest - 1)):
            number = event.number
            if name in (ALL, event.name) and call in ("", event.call):
                found.append(event)
                if len(found) == BURST:
                    return found, number, lost
        return found, self._number, lost

    def _behind(self, number: int) -> Iterator[FeltEvent]:
        """They are numbered without gaps."""
        kept = self._kept
        first = len(kept) - (self._number - number)
        return (kept[place] for place in range(max(0, first), len(kept)))


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | int | str):
        return str(value) if type(value) not in (type(None), bool, int, str) else value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else str(value)
