"""What sinks are given in a story (`given: sinks:`, `sent: {amqp: …}`): the events a server would send to RabbitMQ, to
web services and the like, chosen as `sinks:` of a configuration chooses. Nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.event_choice import Chooser, chosen_events
from orchestrator.events.event import Event
from orchestrator.history import CallRecord
from orchestrator.integrations.sinks.formats import domain_of
from orchestrator.packages.sink import CDR, SinkSettings
from orchestrator.testing.facts import Seen
from orchestrator.testing.world import World

TYPES = ("amqp", "webhook", "kafka", "file")
"""Our own kinds of sinks: a story that names no sinks has one of each, which gets everything."""


@dataclass(frozen=True, slots=True)
class SinkRule:
    """One sink: its name, its `type:`, and which events it gets."""

    name: str
    type: str
    settings: SinkSettings = field(default_factory=lambda: SinkSettings(events=("*", CDR.name)))


EACH_TYPE = tuple(SinkRule(type, type) for type in TYPES)


@dataclass(frozen=True, slots=True)
class Published:
    """An event that a sink has been given."""

    sink: str
    event: str
    domain: str
    """Of the address of record that it is about, '' for none."""
    data: Mapping[str, Any]


class SinksOfStory:
    """Listens to a world, and puts what its sinks get into `seen`, until `stop`."""

    def __init__(self, world: World, rules: Iterable[SinkRule], seen: list[Seen]) -> None:
        self._world = world
        self._seen = seen
        self._stops: list[Callable[[], None]] = []
        for rule in rules:
            self._listen(rule)

    def stop(self) -> None:
        for stop in self._stops:
            stop()
        self._stops.clear()

    def _listen(self, rule: SinkRule) -> None:
        engine, settings = self._world.engine, rule.settings
        known = engine.flows.program.events
        chooser = Chooser(settings, lambda: engine.flows.program.events)

        def give(name: str, attributes: Mapping[str, Any], call: str) -> None:
            if chooser.wants(name, attributes):
                fields = settings.fields or attributes
                data = {key: value for key, value in attributes.items() if key in fields}
                published = Published(rule.name, name, domain_of(attributes), data)
                self._seen.append(
                    Seen(self._world.now, f"sink {rule.type}", rule.type, name, rule.name, published, call)
                )

        def told(event: Event) -> None:
            give(event.name, event.attributes, event.call)

        def recorded(record: CallRecord) -> None:
            give(CDR.name, record.facts(), record.id)

        for spec in chosen_events(settings.events, known):
            if spec is CDR:
                engine.history.listen(CallRecord, recorded)
                self._stops.append(lambda: engine.history.ignore(CallRecord, recorded))
            else:
                engine.bus.tap(spec.name, told)
                self._stops.append(lambda name=spec.name: engine.bus.untap(name, told))  # type: ignore[misc]
