"""Filters and data of events: `where:`, `data:`, `with:`, `set:`: keys that are names declared elsewhere, with types.

In a `where:` map, `${…}` is worked out where the step stands and when it arms, so `event` in it is the event of the
flow or handler around, not the one being filtered: `where: {ip: '${event.ip}'}` waits for the next event from the
same address. In a `where:` expression `event` is the one being filtered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.events.event import EventSpec
from orchestrator.flow.check.values import Values, type_of
from orchestrator.flow.expr import (
    CONTACT,
    ExprError,
    Expression,
    Match,
    Scope,
    Type,
    all_of,
    closest,
    match_attribute,
    split_filter,
)
from orchestrator.flow.language.context import attribute_type, event_type
from orchestrator.flow.language.declarations import FlowHead
from orchestrator.flow.language.evaluables import ContactTest
from orchestrator.flow.language.program import Evaluable, Where
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Node, Scalar


def where(values: Values, node: Node, spec: EventSpec | None, scope: Scope) -> Where | None:
    """A filter over the attributes of an event; nothing can be said when the event is unknown (`spec` None)."""
    if spec is None:
        return None
    inner = scope.extend({"event": event_type(spec)})
    if isinstance(node, Scalar):
        return _condition(values, node, inner, "event")
    if isinstance(node, Entries):
        what = f"unknown attribute of event {spec.name!r}"
        return _attributes(values, node, {n: attribute_type(a) for n, a in spec.attributes.items()}, scope, inner, what)
    return _wrong_shape(values, node)


def contact_where(values: Values, node: Node, scope: Scope) -> Where | None:
    """The filter of a lookup: `rest` reads `contact`."""
    if isinstance(node, Scalar):
        return _condition(values, node, scope.extend({"contact": CONTACT}), "contact")
    if isinstance(node, Entries):
        inner = scope.extend({"event": CONTACT})
        found = _attributes(values, node, CONTACT.fields, scope, inner, "unknown attribute of a contact")
        return Where({}, ContactTest(found.equals, found.rest)) if found else None
    return _wrong_shape(values, node)


def _wrong_shape(values: Values, node: Node) -> Where | None:
    values.report.error("E103", "where: takes a map of attributes or a condition", node, "write  where: {name: value}")
    return None


def _condition(values: Values, node: Scalar, inner: Scope, subject: str) -> Where | None:
    scalar = values.scalar(node, "a condition")
    if scalar is None:
        return None
    try:
        found = split_filter(scalar.text, inner)
    except ExprError as error:
        values.report.expression(error, scalar)
        return None
    values.reads |= found.whole.roots
    if subject not in found.whole.roots:
        message = f"this filter does not look at the {subject}, so it is the same for every {subject}"
        help = f"compare an attribute of the {subject}, or put the condition into if:"
        values.report.warning("W303", message, scalar, help)
    return Where(found.equals, found.rest)


def _attributes(
    values: Values, node: Entries, types: Mapping[str, Type], outer: Scope, inner: Scope, unknown: str
) -> Where | None:
    """All lines of a map; `types` are the attributes, `inner` the scope in which `event` has them."""
    equals: dict[str, Evaluable] = {}
    tests: list[Expression] = []
    good = True
    for key, item in node:
        if key.text not in types:
            values.report.error("E206", f"{unknown}: {key.text!r}", key, meant(key.text, types))
            good = False
            continue
        scalar = values.scalar(item, "a value")
        found = _attribute(values, key.text, scalar, outer, inner) if scalar else None
        if found is None:
            good = False
        elif found.test is not None:
            tests.append(found.test)
        elif found.equals is not None:
            equals[key.text] = found.equals
    return Where(equals, all_of(tests)) if good else None


def _attribute(values: Values, name: str, scalar: Scalar, outer: Scope, inner: Scope) -> Match | None:
    try:
        return match_attribute(name, scalar.text, inner, outer)
    except ExprError as error:
        values.report.expression(error, scalar)
        return None


# --- names with typed values ----------------------------------------------------------------------------------------


def event_data(values: Values, node: Node | None, spec: EventSpec, at: Scalar, scope: Scope) -> dict[str, Any] | None:
    """`data:` of a raise: every attribute that is not optional has to be there. `at` is the action."""
    types = {name: attribute_type(attribute) for name, attribute in spec.attributes.items()}
    absent = missing(types, node)
    if absent:
        values.report.error("E115", f"raise: needs {absent}", at)
    unknown = f"unknown attribute of event {spec.name!r}"
    found = _assigned(values, node, types, scope, ("E206", unknown), lambda name: f"{name} is", "data")
    return None if absent else found


def parameters(values: Values, node: Node | None, flow: FlowHead, scope: Scope) -> dict[str, Any] | None:
    """`with:` of a call; what is missing is judged when it is known which flows call each other."""
    unknown = f"unknown parameter of flow {flow.name!r}"
    what = ("E114", unknown)
    found = _assigned(values, node, flow.params, scope, what, lambda name: f"parameter {name!r} is", "with")
    for name, value in (found or {}).items():
        values.names.learn(("params", flow.name, name), type_of(value), flow.params[name])
    return found


def assignments(values: Values, node: Node, scope: Scope, flow: FlowHead) -> dict[str, Any] | None:
    """The map of a set: only variables declared in `vars:`, each with its type."""
    if not isinstance(node, Entries) or not len(node):
        values.report.error("E103", "set: takes a map of variables", node, "write  set: {name: value}")
        return None
    variables = scope.names["vars"].fields
    found: dict[str, Any] = {}
    for key, item in node:
        type = variables.get(key.text)
        if type is None:
            best = closest(key.text, variables)
            declare = f"declare it first: add  {key.text}:  under vars: of flow {flow.name!r}"
            values.report.error(
                "E205", f"unknown variable {key.text!r}", key, f"did you mean {best!r}?" if best else declare
            )
            found[key.text] = None
        else:
            value = values.typed_value(item, type, scope, f"variable {key.text!r} holds")
            values.names.learn(("vars", flow.name, key.text), type_of(value), type)
            found[key.text] = value
    return None if None in found.values() else found


def _assigned(
    values: Values,
    node: Node | None,
    types: Mapping[str, Type],
    scope: Scope,
    unknown: tuple[str, str],
    what: Callable[[str], str],
    action: str,
) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    entries = node if isinstance(node, Entries) else None
    if node is not None and entries is None:
        values.report.error("E103", f"{action}: takes a map of names and values here", node)
        return None
    for key, item in entries or ():
        type = types.get(key.text)
        if type is None:
            values.report.error(unknown[0], f"{unknown[1]}: {key.text!r}", key, meant(key.text, types))
            found[key.text] = None
        else:
            found[key.text] = values.typed_value(item, type, scope, what(key.text))
    return None if None in found.values() else found


def missing(types: Mapping[str, Type], given: Node | None) -> str:
    """The names that have to be given and are not, joined for a message; '' when nothing is missing."""
    there = given if isinstance(given, Entries) else ()
    return " and ".join(name for name, type in types.items() if not type.optional and name not in there)
