"""What an event is: a name, typed attributes, and the call it belongs to (FLOWLANG §4.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Reach = Literal["call", "global"]

Read = Callable[[Mapping[str, str], str, str], Mapping[str, Any] | None]
"""`read(headers, body, leg)` of a FreeSWITCH event: the attributes, or None when it is another matter. `leg` is caller,
callee or ''. It is called within the turn: it must not wait."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of an event.

    `type` is a word of the language: text digits number bool duration time list map contact; `values` makes it an enum;
    `optional` says that it may be null.
    """

    name: str
    type: str
    doc: str = ""
    values: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class EventSpec:
    """The catalogue entry of an event: what checker, schema, completion and documentation read."""

    name: str
    doc: str
    scope: Reach
    attributes: Mapping[str, Attribute]
    source: str = ""
    esl: tuple[str, ...] = field(default=())
    """The Event Socket subscriptions it needs: `DTMF`, `CUSTOM avmd::beep`; empty when SIP or the engine raises it."""
    read: Read | None = None
    """For an event of a package: what its attributes are in one of these FreeSWITCH events."""


class Event:
    """One occurrence. `call` is the id of the engine's call for call-scoped events, else ''.

    Attributes are plain values keyed by the names of the spec, every declared name present (null where optional).
    `depth` is how many events lie between it and what happened outside; the bus writes it when the event is published.
    `chain` names the flows whose runs have led to it, empty for what happened outside; `max_forwards` is how many hops
    calls that it leads to have left.
    """

    __slots__ = ("name", "call", "attributes", "time", "depth", "chain", "max_forwards")

    def __init__(self, name: str, attributes: Mapping[str, Any], call: str = "", time: float = 0.0) -> None:
        self.name = name
        self.attributes = attributes
        self.call = call
        self.time = time
        self.depth = 0
        self.chain: tuple[str, ...] = ()
        self.max_forwards = 70

    def __repr__(self) -> str:
        where = f" call={self.call}" if self.call else ""
        return f"<Event {self.name}{where} {dict(self.attributes)}>"
