"""Sinks: where events go that others are to hear of, a message broker or a web service.

    SINK = SinkKind("webhook", "Events to a web service.", Webhook, WebhookSettings)

    [project.entry-points."orchestrator.sinks"]
    webhook = "orchestrator_webhook:SINK"

`sinks:` of the configuration names one with what it is to get. What there is to choose, to format and to keep until it
has been delivered is done for all kinds (`orchestrator.integrations.sinks`): a kind delivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.events.event import Attribute, EventSpec
from orchestrator.packages.groups import SINK_GROUP, Find, check_name, check_settings, installed, load_named, names_of
from orchestrator.packages.service import NoSettings
from orchestrator.packages.setting_types import Duration


def _fields(words: str) -> dict[str, Attribute]:
    pairs = (word.split(": ") for word in words.split(", "))
    return {name: Attribute(name, type.removesuffix("?"), optional=type.endswith("?")) for name, type in pairs}


CDR = EventSpec(
    "cdr",
    "A call of a flow has ended.",
    "global",
    _fields(
        "id: text, sip_call_id: text, flow: text, run: text, from: text, to: text, user: text?, source: text, "
        "started: text, answered: text?, ended: text, setup: number, duration: number, code: number?, contact: text?, "
        "ended_by: text, reason: text, server: text?, caller_uuid: text?, callee_uuid: text?, "
        "pushed: number, woken: number"
    ),
    source="history.CallRecord",
)
"""Call records as an event of sinks; flows do not know it. Its attributes are those of `CallRecord.facts`."""
FORMATS = ("cloudevents", "jsonrpc")


def source_of(node: str) -> str:
    """`source` of the CloudEvents of a server."""
    return f"/orchestrator/{node}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event for a sink, as it is delivered."""

    id: str
    """The same each time it is delivered: who gets it twice knows by this."""
    name: str
    """Of the event."""
    domain: str
    """Of the address of record it is about, '' for none."""
    subject: str
    """The id of its call, or that address of record, '' for none."""
    time: float
    """Seconds since the epoch."""
    body: bytes
    """JSON, in the format of the sink."""


class Undelivered(Exception):
    """Not all of a batch has been delivered; what has not comes again later, in order."""

    def __init__(
        self,
        reason: str,
        taken: int = 0,
        *,
        retry_after: float | None = None,
        refused: bool = False,
        stop: bool = False,
    ) -> None:
        """
        Args:
            reason: for the log, without secrets.
            taken: so many of the front have been delivered.
            retry_after: seconds that the peer wants us to wait; None for a pause that grows each time.
            refused: the peer will never take the next event; it is counted and left out.
            stop: the peer wants nothing any more, until the server is started anew.
        """
        super().__init__(reason)
        self.reason = reason
        self.taken = taken
        self.retry_after = retry_after
        self.refused = refused
        self.stop = stop


class SinkContext(Protocol):
    """What a kind of sink may use."""

    @property
    def name(self) -> str:
        """The sink's, in the configuration."""

    @property
    def node(self) -> str:
        """This server's."""

    @property
    def content_type(self) -> str:
        """Of each body: `application/cloudevents+json` or `application/json`."""

    def log(self, level: str, text: str, **facts: Any) -> None:
        """A line in the log of the server: `debug`, `info`, `warning` or `error`."""


class Delivery(Protocol):
    """What `SinkKind.open` returns. It is called in one greenlet, and may wait with sockets, locks and sleep."""

    batch: int
    """Most events that `send` is given."""

    def send(self, events: Sequence[Outgoing]) -> None:
        """Deliver them, in order; return when the peer has taken them all over. Connections are made when they are
        needed.

        Raises:
            Undelivered: some have not been. Any other exception is taken for that, and logged as a bug.
        """

    def close(self) -> None:
        """Let go of connections and files; called once, at the end."""


class Spool(BaseModel):
    """How much is kept for a peer that does not take it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str | None = None
    """None: sink-NAME.db in the working directory."""
    age: Duration = 86_400.0
    size: Annotated[int, Field(ge=100_000, le=1_000_000_000_000)] = 100_000_000
    """Octets."""


class SinkSettings(BaseModel):
    """The keys that sinks of all kinds have, besides `type`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    events: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the catalogue, globs among them, and `cdr`."""
    when: str | None = None
    """A condition over `event`."""
    fields: tuple[str, ...] = ()
    """Attributes that are sent; () for all."""
    format: Literal["cloudevents", "jsonrpc"] = "cloudevents"
    spool: Spool = Spool()


OURS = ("type", *SinkSettings.model_fields)
"""Keys of a sink that are not its kind's own."""


@dataclass(frozen=True, slots=True)
class SinkKind:
    """The declaration of a kind of sink, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: after `type:`, and of the entry point."""
    doc: str
    open: Callable[[SinkContext, Any], Delivery]
    """Mostly a class: it is given the context and an instance of `settings`. What it raises stops the start; a peer
    that is not there is no reason to."""
    settings: type[BaseModel] = NoSettings
    pace: float = 0.0
    """Seconds from one batch to the next one, unless that is full, for a kind that pays for each batch."""

    def __post_init__(self) -> None:
        check_name(self.name, "kind of sink")
        check_settings(self.settings.model_fields, OURS, f"kind of sink {self.name!r}", "sinks")


@dataclass(frozen=True, slots=True)
class ChosenSink:
    """What `sinks:` says of one sink."""

    kind: SinkKind
    common: SinkSettings
    settings: BaseModel
    places: Mapping[str, tuple[str, int, int]] = field(default_factory=dict, compare=False)
    """`events.0`, `when`, `fields.0` → file, line and column, for mistakes that show when the flows are known."""


def find_sink(name: str, find: Find = installed) -> SinkKind | None:
    """The installed kind of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, SINK_GROUP, name, SinkKind, "kind of sink")


def sink_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, SINK_GROUP)
