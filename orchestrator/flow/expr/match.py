"""One line of a `where:` map: attribute and value, `{aor: '${call.to.aor}'}`.

What is written in YAML is read as the attribute's type says (`digit: 007` stays `007`, `expires: 60` is a number). `*`
and `?` written there are wildcards; what `${…}` puts in is always literal. A value without wildcards becomes a key of
the bus's index, worked out when the filter arms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.expression import Expression, finish, guarded
from orchestrator.flow.expr.filter import EVENT, KEYS
from orchestrator.flow.expr.glob import Pattern, pieces
from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.expr.nodes import Attribute, Binary, Call, Glob, Literal, Name, Node, Wildcard, paths_read
from orchestrator.flow.expr.scope import Scope
from orchestrator.flow.expr.template import Part, finish_template, part_node, parts_of, template_node
from orchestrator.flow.expr.types import ANY, BOOL, TEXT, Type

_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Match:
    """One line of a `where:` map: a value to look up, or a test to evaluate with `event` in the environment."""

    equals: Expression | None = None
    test: Expression | None = None


def match_attribute(attribute: str, text: str, scope: Scope, outer: Scope | None = None) -> Match:
    """Compile one line of a `where:` map.

    In `scope`, `event` is the event being filtered. `outer` is the scope where the step stands (`scope` when left
    out): a value with `${…}` is worked out there when the filter arms, so `event` in it is the event of the flow
    around, and `where: {ip: '${event.ip}'}` waits for the next event from the same address.

    Raises:
        ExprError: as `compile_template`; E203 or E204 when the value cannot be one of this attribute.
    """
    return guarded(lambda: _match(attribute, text, scope, outer or scope))


def _match(attribute: str, text: str, scope: Scope, outer: Scope) -> Match:
    subject = _subject(attribute, scope)
    type = subject.type.required
    parts = parts_of(text)
    computed = any(part.code for part in parts)
    if type.textual and type.kind != "enum" and any(set("*?") & set(part.text) for part in parts if not part.code):
        test = _computed_pattern(subject, text, parts, outer) if computed else _pattern(subject, text, parts[0].text)
        return Match(test=finish(text, test))
    if not computed:
        value = _constant(subject, text, parts[0].text)
        return Match(equals=finish(text, value)) if type.kind in KEYS else Match(test=_compared(subject, text, value))
    wanted = TEXT if type.textual else None if type.kind == "any" else type
    value = template_node(text, outer, wanted)
    if type.kind in KEYS:
        return Match(equals=finish_template(text, value, parts))
    _outside(value, text)
    return Match(test=_compared(subject, text, value))


def _subject(attribute: str, scope: Scope) -> Attribute:
    event = Name(EVENT, start=0, end=0, type=scope.names[EVENT])
    type = event.type.fields.get(attribute, ANY)
    return Attribute(event, attribute, False, 0, start=0, end=0, type=type)


def _compared(subject: Attribute, text: str, value: Node) -> Expression:
    """A test for an attribute whose values may be lists or maps, which cannot be looked up by hash."""
    return finish(text, Binary("==", subject, value, "same", start=0, end=len(text), type=BOOL))


def _pattern(subject: Attribute, text: str, pattern: str) -> Node:
    place: dict[str, Any] = {"start": 0, "end": len(text), "type": BOOL}
    test = Call("like", [subject, Literal(text, **place)], True, True, 0, Pattern(pieces(pattern)), **place)
    return Binary("??", test, Literal(False, **place), **place) if subject.type.optional else test


def _computed_pattern(subject: Attribute, text: str, parts: list[Part], outer: Scope) -> Node:
    found: list[Node] = []
    for part in parts:
        found.extend([part_node(part, outer)] if part.code else _written(part))
    test = Glob(subject, found, start=0, end=len(text), type=BOOL)
    for piece in found:
        _outside(piece, text)
    return test


def _outside(value: Node, text: str) -> None:
    """Refuse the event of the flow around where the filter is evaluated with its own `event`. Raises ExprError E203."""
    if any(path[0] == EVENT for path in paths_read(value)):
        message = "the event of the flow around cannot be part of a pattern here"
        raise ExprError("E203", message, "keep it in a variable first and use ${vars...}", 0, len(text))


def _written(part: Part) -> Iterator[Node]:
    for piece in pieces(part.text):
        if isinstance(piece, str):
            yield Literal(piece, start=part.start, end=part.end, type=TEXT)
        else:
            yield Wildcard("*" if piece else "?", start=part.start, end=part.end)


def _constant(subject: Attribute, text: str, value: str) -> Node:
    """A value as written in YAML, as the attribute's type reads it. Raises ExprError E203, E204."""
    type = subject.type.required
    node = Literal(value, start=0, end=len(text), type=TEXT)
    if type.kind == "enum" and value not in type.values:
        raise complaints.never(node, f"'{EVENT}.{subject.name}' is", value, type.values)
    if type.textual or type.kind == "any":
        return node
    found = _read(value, type)
    if found is None:
        help = {"bool": "write true or false", "duration": "write a duration such as 30s"}.get(type.kind, "")
        raise complaints.at(node, "E203", f"{EVENT}.{subject.name} is {type}, but '{value}' is not", help)
    return found


def _read(text: str, type: Type) -> Node | None:
    place: dict[str, Any] = {"start": 0, "end": len(text), "type": type}
    if type.kind == "bool" and text in ("true", "false"):
        return Literal(text == "true", **place)
    if type.kind == "duration" and (found := seconds(text)) is not None:
        return Literal(found, **place)
    if type.kind == "number" and _NUMBER.fullmatch(text):
        return Literal(float(text) if "." in text else int(text), **place)
    return None
