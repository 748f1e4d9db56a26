"""`sinks:` of the configuration, run: a service of the server's own that gives each sink the events it wants.

Its parts: `formats` says how an event leaves, `spool` keeps events on disk, `outbox` delivers them at least once. Kinds
of sinks come through entry points (`packages.sink`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import gevent
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import OrchestratorError
from orchestrator.history import CallRecord
from orchestrator.integrations.sinks.formats import CONTENT_TYPES, Formatter, fresh_ids
from orchestrator.integrations.sinks.outbox import GATHER, MEMORY, Outbox
from orchestrator.integrations.sinks.spool import Spool
from orchestrator.packages.service import Raised, ServerContext, Service
from orchestrator.packages.sink import CDR, ChosenSink, SinkSettings

TURN = 8
"""Events that are made ready before others run: a quarter of a millisecond."""
T = TypeVar("T")


def in_slices(items: Sequence[T], take: Callable[[T], object]) -> None:
    """Take one after the other, and let others run between. One that cannot be taken costs none behind it: what it
    raised is raised at the end."""
    bug: Exception | None = None
    for count, item in enumerate(items, 1):
        try:
            take(item)
        except Exception as error:
            bug = error
        if count % TURN == 0:
            gevent.sleep(0)
    if bug is not None:
        raise bug


class Choice(Protocol):
    """Which events of those it listens to a sink gets."""

    failed: int

    def wants(self, name: str, attributes: Mapping[str, Any]) -> bool: ...


class SinksSettings(BaseModel):
    """What the composition root knows of the sinks of a site."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    sinks: Mapping[str, ChosenSink]
    choice: Callable[[SinkSettings], Choice]


class OneSink:
    """A sink: what it gets, and where it leaves it. It is the `SinkContext` of its kind."""

    def __init__(self, server: ServerContext, name: str, sink: ChosenSink, choice: Choice) -> None:
        self.name = name
        self.node = server.node
        self.content_type = CONTENT_TYPES[sink.common.format]
        self.choice = choice
        self.settings = sink.common
        self._server = server
        kept = sink.common.spool
        delivery = sink.kind.open(self, sink.settings)
        spool = Spool(Path(kept.file or f"sink-{name}.db"), kept.size, kept.age)
        if spool.set_aside is not None:
            self.log("error", "sink_spool_set_aside", file=str(spool.set_aside))
        self.outbox = Outbox(spool, delivery, self.log, sink.kind.pace)

    def log(self, level: str, text: str, **facts: Any) -> None:
        self._server.log(level, text, sink=self.name, **facts)

    def listen(self, formatter: Formatter) -> None:
        outbox, wants, make = self.outbox, self.choice.wants, formatter.make

        def take_one(event: Raised) -> None:
            if wants(event.name, event.attributes):
                outbox.put(make(event.name, event.attributes, event.call, event.time))

        def take_record(record: CallRecord) -> None:
            facts = record.facts()
            if wants(CDR.name, facts):
                outbox.put(make(CDR.name, facts, record.id, record.ended))

        def take(events: list[Raised]) -> None:
            in_slices(events, take_one)

        def take_records(records: list[CallRecord]) -> None:
            in_slices(records, take_record)

        events = [name for name in self.settings.events if name != CDR.name]
        if events:
            self._server.listen_together(events, take, MEMORY, GATHER)
        if len(events) < len(self.settings.events):
            self._server.follow([CallRecord], take_records, MEMORY, GATHER)


class Sinks:
    """All of them."""

    def __init__(self, server: ServerContext, settings: SinksSettings) -> None:
        self._server = server
        self.sinks: dict[str, OneSink] = {}
        for name, sink in settings.sinks.items():
            try:
                self.sinks[name] = OneSink(server, name, sink, settings.choice(sink.common))
            except Exception as error:
                self.stop()
                raise OrchestratorError(f"sink {name!r}: {error}") from error
        self._ids = fresh_ids()
        self._export(server)

    def _export(self, server: ServerContext) -> None:
        def each(read: Callable[[Outbox], float]) -> Callable[[], dict[str, float]]:
            return lambda: {name: read(sink.outbox) for name, sink in self.sinks.items()}

        def dropped() -> dict[tuple[str, ...], float]:
            return {
                (name, why): count for name, sink in self.sinks.items() for why, count in sink.outbox.dropped.items()
            }

        label = ("sink",)
        server.counter("taken", "Events that the sink is to get.", each(lambda box: box.taken), label)
        server.counter("delivered", "Events that the peer has taken.", each(lambda box: box.delivered), label)
        server.counter("failures", "Attempts to deliver that failed.", each(lambda box: box.failures), label)
        server.counter(
            "dropped",
            "Events lost: too old (age), too many (size), refused by the peer, no disk and no room in memory "
            "(memory), in a spool that was damaged (damaged).",
            dropped,
            ("sink", "reason"),
        )
        server.counter(
            "undecided",
            "Events left out because when: could not be worked out for their values.",
            lambda: {name: sink.choice.failed for name, sink in self.sinks.items()},
            label,
        )
        server.gauge("waiting", "Events that wait to be delivered.", each(lambda box: box.waiting), label)
        server.gauge("spool_octets", "Size of the events in the spool.", each(lambda box: box.octets), label)
        server.gauge("up", "1 while the peer takes events.", each(lambda box: not box.trouble), label)

    def start(self) -> None:
        for sink in self.sinks.values():
            settings = sink.settings
            sink.listen(Formatter(settings.format, sink.node, settings.fields, self._ids))
            self._server.spawn(sink.outbox.write)
            self._server.spawn(sink.outbox.deliver)
        self._server.health(self.complaint)

    def complaint(self) -> str:
        """Sinks that are in trouble."""
        found = []
        for name, sink in self.sinks.items():
            trouble = "; ".join(text for text in (sink.outbox.trouble, sink.outbox.disk_trouble) if text)
            if trouble:
                found.append(f"sink {name}: {trouble}")
        return "; ".join(found)

    def stop(self) -> None:
        for sink in self.sinks.values():
            sink.outbox.close()


SERVICE = Service("sinks", "Gives events to the sinks of the configuration.", Sinks, SinksSettings)
