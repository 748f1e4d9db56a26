"""Filters of subscriptions: which of their tests can be looked up in a hash instead of being evaluated (FLOWLANG
§10.15).

A filter is a conjunction. Each part `event.attribute == value`, where the value does not look at the event, becomes a
key of the bus's index; what is left is evaluated for the few events that have the key. The value of a key is worked
out once, when the subscription is armed, so a part is only taken when that cannot change what the filter means: the
value reads nothing that changes during a call, and working it out cannot fail (an `int(x)` behind a test that guards
it has to stay behind it).

A `where:` map says the same with attribute and text: `{aor: '${call.to.aor}'}`; `*` and `?` written there are
wildcards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.check import check
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.expression import Expression, compile_expression, finish, guarded
from orchestrator.flow.expr.glob import Pattern, pieces
from orchestrator.flow.expr.lexer import reject_interpolation, seconds
from orchestrator.flow.expr.nodes import (
    Attribute,
    Binary,
    Call,
    Conditional,
    Glob,
    Index,
    Join,
    Literal,
    Logic,
    Name,
    Node,
    Number,
    Unary,
    Wildcard,
    paths_read,
)
from orchestrator.flow.expr.parser import parse
from orchestrator.flow.expr.scope import Path, Scope
from orchestrator.flow.expr.template import finish_template, part_node, parts_of, template_node
from orchestrator.flow.expr.types import BOOL, TEXT, Type

EVENT = "event"
_KEYS = frozenset({"text", "digits", "uri", "enum", "number", "bool", "duration", "time"})
_STEADY_FUNCTIONS = frozenset(
    {"lower", "upper", "trim", "contains", "startsWith", "endsWith", "like", "string", "size"}
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter taken apart: `equals` (attribute → value that does not read the event) and the rest, evaluated per
    event.

    `whole` is the filter as written; an event passes when every key is equal and `rest` (if any) is true.
    """

    whole: Expression
    equals: Mapping[str, Expression] = field(default_factory=dict)
    rest: Expression | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """One line of a `where:` map: a value to look up, or a test to evaluate with `event` in the environment."""

    equals: Expression | None = None
    test: Expression | None = None


def split_filter(text: str, scope: Scope) -> Filter:
    """Compile a filter expression and take its keys out.

    Raises:
        ExprError: as `compile_expression`.
    """
    reject_interpolation(text)
    return guarded(lambda: _split(text, check(text, parse(text), scope, BOOL), scope))


def match_attribute(attribute: str, text: str, scope: Scope) -> Match:
    """Compile one line of a `where:` map; `event` in the scope has the attribute.

    Raises:
        ExprError: as `compile_template`; E203 or E204 when the value cannot be one of this attribute.
    """
    return guarded(lambda: _match(attribute, text, scope))


def all_of(tests: Sequence[Expression]) -> Expression | None:
    """One expression that is true where all are; None for no test."""
    if len(tests) < 2:
        return tests[0] if tests else None
    evaluators = [test.evaluate for test in tests]

    def evaluate(env: Mapping[str, Any]) -> bool:
        return all(evaluator(env) for evaluator in evaluators)

    empty: frozenset[Path] = frozenset()
    reads, true = (empty.union(*(getattr(test, name) for test in tests)) for name in ("reads", "when_true"))
    return Expression(" and ".join(test.source for test in tests), BOOL, evaluate, reads, true)


# --- expressions ------------------------------------------------------------------------------------------------------


def _split(text: str, node: Node, scope: Scope) -> Filter:
    whole = finish(text, node)
    equals: dict[str, Expression] = {}
    rest: list[Node] = []
    for part in _conjuncts(node):
        attribute, value = _key(part)
        made = _value(text, value, scope) if value is not None and attribute not in equals else None
        if made is None:
            rest.append(part)
        else:
            equals[attribute] = made
    if not equals:
        return Filter(whole, {}, whole)
    tests = [finish(complaints.source_of(text, part), part) for part in rest]
    return Filter(whole, equals, all_of(tests))


def _conjuncts(node: Node) -> Iterator[Node]:
    if isinstance(node, Logic) and node.op == "and":
        for operand in node.operands:
            yield from _conjuncts(operand)
    else:
        yield node


def _key(node: Node) -> tuple[str, Node | None]:
    """(attribute, value) of a test that could be a key; the value is None when it is none."""
    if isinstance(node, Binary) and node.op == "==":
        for side, value in ((node.left, node.right), (node.right, node.left)):
            attribute = _event_attribute(side)
            if attribute and value.type.kind in _KEYS and not value.type.optional:
                return attribute, value
    plain = node.operand if isinstance(node, Unary) and node.op == "not" else node
    attribute = _event_attribute(plain)
    if attribute and plain.type == BOOL:
        return attribute, Literal(plain is node, start=node.start, end=node.end, type=BOOL)
    return "", None


def _event_attribute(node: Node) -> str:
    """The name in `event.name`, else ''."""
    if isinstance(node, Attribute) and isinstance(node.target, Name) and not node.safe and node.type.kind in _KEYS:
        return node.name if node.target.name == EVENT and not node.target.local else ""
    return ""


def _value(text: str, node: Node, scope: Scope) -> Expression | None:
    """The expression of a key, or None when it has to be evaluated with each event."""
    source = complaints.source_of(text, node)
    if isinstance(node, Literal | Number):
        return finish(source, node)
    if not is_steady(node, scope):
        return None
    try:
        # once more by itself: what is known about null from the tests beside it does not hold when it is armed
        return compile_expression(source, replace(scope, known=frozenset()))
    except ExprError:
        return None


def is_steady(node: Node, scope: Scope) -> bool:
    """Whether a value can be worked out once for a whole subscription: it never changes and never fails."""
    volatile = {*scope.volatile, (EVENT,)}
    if any(_overlap(path, other) for path in paths_read(node) for other in volatile):
        return False
    return _cannot_fail(node)


def _overlap(one: Path, other: Path) -> bool:
    size = min(len(one), len(other))
    return one[:size] == other[:size]


def _cannot_fail(node: Node) -> bool:
    if isinstance(node, Attribute | Index) and (node.target.type.kind in ("any", "list") or node.target.type.optional):
        return False
    if isinstance(node, Call) and node.name not in _STEADY_FUNCTIONS:
        return False
    if isinstance(node, Binary) and (
        node.helper not in ("", "concat") or (node.op in ("+", "-") and node.helper != "concat")
    ):
        return False
    kinds = (Literal, Number, Name, Attribute, Index, Call, Binary, Logic, Conditional, Unary, Join)
    return isinstance(node, kinds) and all(_cannot_fail(child) for child in node.children())


# --- maps -------------------------------------------------------------------------------------------------------------


def _match(attribute: str, text: str, scope: Scope) -> Match:
    subject = _subject(attribute, scope)
    type = subject.type.required
    parts = parts_of(text)
    wild = type.textual and type.kind != "enum" and any(not part.code and set("*?") & set(part.text) for part in parts)
    if wild:
        return Match(test=_wildcards(subject, text, scope))
    if len(parts) == 1 and not parts[0].code:
        return Match(equals=finish(text, _constant(subject, text)))
    node = template_node(text, scope, type)
    if is_steady(node, scope) and type.kind in _KEYS:
        return Match(equals=finish_template(text, node, parts))
    helper = "same" if "any" in (type.kind, node.type.kind) else ""
    return Match(test=finish(text, Binary("==", subject, node, helper, start=0, end=len(text), type=BOOL)))


def _subject(attribute: str, scope: Scope) -> Attribute:
    event = Name(EVENT, start=0, end=0, type=scope.names[EVENT])
    type = event.type.fields.get(attribute, event.type)
    return Attribute(event, attribute, False, 0, start=0, end=0, type=type)


def _wildcards(subject: Attribute, text: str, scope: Scope) -> Expression:
    parts = parts_of(text)
    end = len(text)
    if len(parts) == 1:
        arguments: list[Node] = [subject, Literal(text, start=0, end=end, type=TEXT)]
        test: Node = Call("like", arguments, True, True, 0, Pattern(pieces(parts[0].text)), start=0, end=end, type=BOOL)
        if subject.type.optional:
            test = Binary("??", test, Literal(False, start=0, end=end, type=BOOL), start=0, end=end, type=BOOL)
        return finish(text, test)
    found: list[Node] = []
    for part in parts:
        found.extend([part_node(part, scope)] if part.code else _written(part.text, part.start, part.end))
    return finish(text, Glob(subject, found, start=0, end=end, type=BOOL))


def _written(text: str, start: int, end: int) -> Iterator[Node]:
    for piece in pieces(text):
        if isinstance(piece, str):
            yield Literal(piece, start=start, end=end, type=TEXT)
        else:
            yield Wildcard("*" if piece else "?", start=start, end=end)


def _constant(subject: Attribute, text: str) -> Node:
    """A value as written in YAML, as the attribute's type reads it. Raises ExprError E203, E204."""
    type = subject.type.required
    node = Literal(text, start=0, end=len(text), type=TEXT)
    if type.kind == "enum" and text not in type.values:
        raise complaints.never(node, f"'{EVENT}.{subject.name}'", text, type.values)
    if type.textual or type.kind == "any":
        return node
    value = _read(text, type)
    if value is None:
        help = {"bool": "write true or false", "duration": "write a duration such as 30s"}.get(type.kind, "")
        raise complaints.at(node, "E203", f"{EVENT}.{subject.name} is {type}, but '{text}' is not", help)
    return value


def _read(text: str, type: Type) -> Node | None:
    place: dict[str, Any] = {"start": 0, "end": len(text), "type": type}
    if type.kind == "bool" and text in ("true", "false"):
        return Literal(text == "true", **place)
    if type.kind == "duration" and (found := seconds(text)) is not None:
        return Literal(found, **place)
    if type.kind == "number":
        try:
            node = parse(text)
        except ExprError:
            return None
        number = node.operand if isinstance(node, Unary) and node.op == "-" else node
        node.type = type
        return node if isinstance(number, Number) else None
    return None
