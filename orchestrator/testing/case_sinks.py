"""Sinks in a test file: `given: sinks:`, written as in the configuration, and `sent: {amqp: …}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.event_choice import Events, sink_mistakes
from orchestrator.flow.language.program import Place
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar
from orchestrator.packages.service import NoSettings
from orchestrator.packages.sink import CDR, ChosenSink, SinkKind, SinkSettings
from orchestrator.testing.case_shapes import Shapes
from orchestrator.testing.published import EACH_TYPE, TYPES, SinkRule

_KEYS = ("type", "events", "when", "fields")
_NOTHING_IS_SENT = SinkKind("test", "Of a test.", lambda context, settings: context)  # type: ignore[arg-type,return-value]


def sink_rules(shapes: Shapes, node: Node | None, events: Events) -> tuple[SinkRule, ...]:
    """`{rabbit: {type: amqp, events: [order_*, cdr], when: event.total > 5, fields: [total]}}`."""
    if node is None:
        return EACH_TYPE
    rules = []
    for name, item in shapes.entries(node, (), "sinks") or ():
        entries = shapes.entries(item, _KEYS, "a sink of a test")
        if entries is not None:
            rules.append(_rule(shapes, name, entries, events))
    return tuple(rules)


def _rule(shapes: Shapes, name: Scalar, entries: Entries, events: Events) -> SinkRule:
    places: dict[str, tuple[str, int, int]] = {}

    def place(key: str, at: Node) -> None:
        found = shapes.report.place(at)
        places[key] = (found.file, found.line, found.column)

    def texts(key: str) -> tuple[str, ...]:
        node = entries.get(key)
        items = list(node) if isinstance(node, Items) else [node] if node is not None else []
        place(key, node or entries)
        for position, item in enumerate(items):
            place(f"{key}.{position}", item)
        return tuple(shapes.text(item, key) for item in items)

    for key in ("type", "events"):
        if key not in entries:
            shapes.report.error("E115", f"a sink needs {key}:", name, "write it as in the configuration")
    when = entries.get("when")
    if when is not None:
        place("when", when)
    condition = None if when is None else shapes.text(when, "when")
    settings = SinkSettings(events=texts("events") or ("*",), when=condition, fields=texts("fields"))
    for mistake in sink_mistakes({name.text: ChosenSink(_NOTHING_IS_SENT, settings, NoSettings(), places)}, events):
        shapes.report.add(
            mistake.code, mistake.message, Place(mistake.file, mistake.line, mistake.column), mistake.help
        )
    return SinkRule(name.text, shapes.text(entries.get("type"), "type"), settings)


def types_of(rules: tuple[SinkRule, ...]) -> tuple[str, ...]:
    """What may stand under `sent:` with these sinks."""
    return tuple(dict.fromkeys([*TYPES, *(rule.type for rule in rules)]))


def published(shapes: Shapes, type: str, node: Node, rules: tuple[SinkRule, ...], events: Events) -> dict[str, Any]:
    """What stands under `sent: {amqp: …}`: the name of the event, or `{event, sink, domain, data}`."""
    entries = None if isinstance(node, Scalar) else shapes.entries(node, ("event", "sink", "domain", "data"), type)
    names = [rule.name for rule in rules if rule.type == type]
    if not names:
        help = f"give it one:  sinks: {{mine: {{type: {type}, events: [...]}}}}"
        shapes.report.error("E118", f"this test has no sink of type {type}", node, help)
    event = node if isinstance(node, Scalar) else None if entries is None else entries.get("event")
    wanted: dict[str, Any] = {"what": "*" if event is None else shapes.text(event, "an event")}
    known: Mapping[str, Any] = {**events, CDR.name: CDR}
    if event is not None and events and not _is_glob(wanted["what"]) and wanted["what"] not in known:
        help = meant(wanted["what"], known)
        shapes.report.error("E112", f"there is no event {wanted['what']!r}", event, help)
    if entries is None:
        return wanted
    sink = entries.get("sink")
    if sink is not None:
        wanted["about"] = shapes.text(sink, "a sink")
        if names and not _is_glob(wanted["about"]) and wanted["about"] not in names:
            message = f"no sink of type {type} is called {wanted['about']!r}"
            shapes.report.error("E118", message, sink, meant(wanted["about"], names))
    wanted["with"] = {name: shapes.value(entries.get(name)) for name in ("domain", "data") if name in entries}
    spec = known.get(wanted["what"])
    shapes.entries(entries.get("data"), () if spec is None else tuple(spec.attributes), f"data of {wanted['what']}")
    return wanted


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text
