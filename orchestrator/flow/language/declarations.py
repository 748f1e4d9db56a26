"""What a set of flow files declares: resources, events and the heads of flows, merged into one namespace.

The loader fills it before any step is looked at, so that a step may name what stands further down or in a later file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.events.checked import CHECKED
from orchestrator.events.event import EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS, EventRegistry
from orchestrator.flow.expr.origin import OURS, Origin, join
from orchestrator.flow.expr.types import DIGITS, TEXT, TIME, Type, list_of, mixed, origin_of, record, text_origin
from orchestrator.flow.language.context import SCHEDULE
from orchestrator.flow.language.program import REQUESTS, Place, Resources
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

TRIGGERS = ("invite", "register", *REQUESTS, "start")
"""Words that `on:` takes besides the names of events and `{every: …}`."""


@dataclass(slots=True)
class FlowHead:
    """A flow before its steps are read: what others have to know to call it or to be shadowed by it."""

    name: str
    key: Scalar
    node: Entries
    report: Report
    kind: str = "call"
    """invite, register, one of `REQUESTS`, socket, start, every, event, call; '' when the trigger is wrong and nothing
    can be said."""
    event: EventSpec | None = None
    params: dict[str, Type] = field(default_factory=dict)
    param_words: dict[str, str] = field(default_factory=dict)
    returns: Type | None = None

    @property
    def place(self) -> Place:
        return self.report.place(self.key)

    @property
    def runs_on(self) -> str:
        """How messages name its trigger."""
        if self.kind == "event" and self.event is not None:
            return self.event.name
        return "a timer" if self.kind == "every" else self.kind


@dataclass(slots=True)
class Declarations:
    """Names of a whole set. `known` are resources that the configuration file declares beside the flow files."""

    known: Resources = field(default_factory=Resources)
    builtin: Iterable[EventSpec] = BUILTIN_EVENTS
    events: EventRegistry = field(init=False)
    resources: dict[str, dict[str, Any]] = field(init=False)
    const_types: dict[str, Type] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    flows: dict[str, FlowHead] = field(default_factory=dict)
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    """(section, name) → where it is declared."""
    unsafe: list[tuple[Place, str]] = field(default_factory=list)
    """Where `unsafe(…)` stands, and the text it stands in."""
    relearn: bool = False
    """Something has become known about the origin of a name that expressions were checked without."""
    _origins: dict[tuple[str, str, str], Origin] = field(default_factory=dict)
    """(vars, params, returns or as; flow; name) → the origin of what is put into it anywhere."""
    _said: dict[tuple[str, str], Any] = field(default_factory=dict)
    """(section, name) → what was said of it, to tell a repetition from a contradiction."""

    def __post_init__(self) -> None:
        self.events = EventRegistry(self.builtin)
        known = self.known
        self.resources = {
            "freeswitch": dict(known.freeswitch),
            "gateways": dict(known.gateways),
            "users": dict(known.users),
            "endpoints": dict(known.endpoints),
            "groups": dict(known.groups),
            "schedules": dict(known.schedules),
            "secrets": dict(known.secrets),
            "const": dict(known.const),
        }

    def learn(self, key: tuple[str, str, str], found: Type, kept: Type) -> None:
        """A value of type `found` is put into a name that keeps values of type `kept`."""
        if kept.kind in CHECKED:
            return
        origin = text_origin(found) if found.required == kept.required else origin_of(found)
        if found.kind == "uri":
            origin = origin._replace(addressed=False)  # kept as a text, it is no whole address any more
        before = self._origins.get(key, OURS)
        after = join(before, origin)
        if after != before:
            self._origins[key] = after
            self.relearn = True

    def assumed(self, key: tuple[str, str, str], type: Type) -> Type:
        """The type of a name with the origin of what is put into it."""
        return mixed(type, self._origins.get(key, OURS))

    def claim(self, report: Report, section: str, name: Scalar, node: Node | None = None) -> bool:
        """Take a name; False when another file has it already. E104 is reported unless that file says the same of it
        (`node`): so each file can stand for itself and name the servers and gateways it uses."""
        key, said = (section, name.text), None if node is None else as_written(node)
        first = self.places.get(key)
        if first is None:
            self.places[key], self._said[key] = report.place(name), said
            return True
        differs = said is None or said != self._said[key]
        if differs or first.file == report.place(name).file:
            self._complain(report, section, name, first, differs)
        return False

    def _complain(self, report: Report, section: str, name: Scalar, first: Place, differs: bool) -> None:
        help = "all flow files share one namespace: rename or remove one of them"
        message, notes = f"{name.text!r} is defined twice under {section}", (f"first at {first}",)
        if section != "flows" and differs:
            message, help = f"{message}, and differently", f"{help}, or say the same in both"
        report.error("E104", message, name, help, notes=notes)

    def names(self) -> Mapping[str, Type]:
        """The root names that are there in every expression."""
        groups = {name: list_of(DIGITS) for name in self.resources["groups"]}
        schedules = dict.fromkeys(self.resources["schedules"], SCHEDULE)
        return {
            "now": TIME,
            "const": record("const", self.const_types),
            "groups": record("groups", groups),
            "schedules": record("schedules", schedules),
            "secrets": record("secrets", dict.fromkeys(self.resources["secrets"], TEXT)),
        }

    def finished(self) -> Resources:
        """What the engine gets of it. The configuration says where things are on this site, so it wins over a
        file.
        """
        self.resources["freeswitch"].update(self.known.freeswitch)
        self.resources["gateways"].update(self.known.gateways)
        known = self.known
        return Resources(
            **self.resources, defaults=self.defaults, transports=known.transports, push_services=known.push_services
        )


def as_written(node: Node) -> Any:
    """What a node says, whatever it looks like: plain lists, maps and text that can be compared."""
    if isinstance(node, Entries):
        return {key.text: as_written(value) for key, value in node}
    if isinstance(node, Items):
        return [as_written(item) for item in node]
    return (node.text, node.plain)


def as_entries(report: Report, node: Node, what: str) -> Entries | None:
    """The node as a map; None, with E103 reported unless nothing at all is written."""
    if isinstance(node, Entries):
        return node
    if isinstance(node, Scalar) and node.plain and not node.text and not report.cut_by_comment(node):
        return None
    report.error("E103", f"{what} takes a map here", node, "write  name: value  lines, indented under it")
    return None
