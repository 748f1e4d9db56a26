"""Events that other programs and people raise, by the admin interface or through a service: held against the catalogue
as `raise:` of a flow is, and raised in a turn of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from gevent import Timeout
from gevent.event import AsyncResult

from orchestrator.core.engine import Engine
from orchestrator.events.event import Event
from orchestrator.events.outside import typed_event
from orchestrator.events.received import NoRoom, NoSuchCall, NoSuchEvent, Received, may_be_raised, values_of

PATIENCE = 10.0
"""Seconds for the turn to come."""


class Incoming:
    """Raises them. `offer(receive, *arguments)` leaves an input for the reactor; False when it has no room."""

    def __init__(self, engine: Engine, offer: Callable[..., bool]) -> None:
        self.outcomes: Counter[str] = Counter({"raised": 0, "invalid": 0, "no_call": 0, "no_room": 0})
        self._engine = engine
        self._offer = offer

    def take(self, received: Received) -> int:
        """Raise an event and wait until its turn is over; returns how many subscriptions of flows took it.

        Raises:
            NoSuchEvent, ValueError: what is wrong with it.
            NoSuchCall, NoRoom: it is right, and was not raised.
        """
        try:
            event = self._event(received)
        except ValueError:
            self.outcomes["invalid"] += 1
            raise
        done: AsyncResult[int | None] = AsyncResult()
        if not self._offer(self._turn, event, done):
            self.outcomes["no_room"] += 1
            raise NoRoom("the server has no room for more events")
        try:
            taken = done.get(timeout=PATIENCE)
        except Timeout:
            self.outcomes["no_room"] += 1
            raise NoRoom("the server does not come to it") from None
        if taken is None:
            self.outcomes["no_call"] += 1
            raise NoSuchCall(f"there is no call {received.call!r}")
        self.outcomes["raised"] += 1
        return taken

    def _event(self, received: Received) -> Event:
        events = self._engine.flows.program.events
        spec = events.get(received.name)
        if spec is None:
            possible = [name for name, known in events.items() if may_be_raised(known)]
            raise NoSuchEvent(_with_help(f"there is no event {received.name[:80]!r}", received.name, possible))
        if not may_be_raised(spec):
            raise NoSuchEvent(f"{spec.name!r} is raised by the server and cannot be raised from outside")
        for name in sorted(received.attributes.keys() - spec.attributes.keys()):
            message = f"event {spec.name!r} has no attribute {name[:80]!r}"
            raise ValueError(_with_help(message, name, spec.attributes))
        call = received.call
        if spec.scope != "call" and call:
            if not received.may_be_no_call:
                raise ValueError(f"event {spec.name!r} belongs to no call")
            call = ""
        if spec.scope == "call" and not call:
            raise ValueError(f"event {spec.name!r} needs the id of its call")
        attributes = values_of(spec, received.attributes) if received.written else received.attributes
        return typed_event(spec, attributes, call)

    def _turn(self, event: Event, done: AsyncResult[int | None], now: float) -> None:
        if event.call and self._engine.calls.by_id(event.call) is None:
            done.set(None)
            return
        try:
            done.set(self._engine.receive_event(event, now))
        finally:
            if not done.ready():
                done.set(0)


def _with_help(message: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:80], known, 1)
    return f"{message}; did you mean {near[0]!r}?" if near else message
