"""Filters of subscriptions: which of their tests can be looked up in a hash instead of being evaluated (FLOWLANG
§10.15).

A filter is a conjunction. Each part `event.attribute == value`, where the value does not look at the event, becomes a
key of the bus's index; what is left is evaluated for the few events that have the key. The value of a key is worked
out once, when the subscription is armed, so a part is only taken when that cannot change what the filter means: the
value reads nothing that changes during a call, and working it out cannot fail (an `int(x)` behind a test that guards
it has to stay behind it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.check import check
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.expression import Expression, compile_expression, finish, guarded
from orchestrator.flow.expr.lexer import reject_interpolation
from orchestrator.flow.expr.nodes import (
    Attribute,
    Binary,
    Call,
    Conditional,
    Index,
    Join,
    ListOf,
    Literal,
    Logic,
    Name,
    Node,
    Number,
    Unary,
    paths_read,
)
from orchestrator.flow.expr.parser import parse
from orchestrator.flow.expr.scope import Path, Scope
from orchestrator.flow.expr.types import BOOL

EVENT = "event"
KEYS = frozenset({"text", "digits", "uri", "enum", "number", "bool", "duration", "time"})
"""Types whose values can be looked up by hash."""

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


def split_filter(text: str, scope: Scope) -> Filter:
    """Compile a filter expression and take its keys out.

    Raises:
        ExprError: as `compile_expression`.
    """
    reject_interpolation(text)
    return guarded(lambda: _split(text, check(text, parse(text), scope, BOOL), scope))


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
            if attribute and value.type.kind in KEYS and not value.type.optional:
                return attribute, value
    plain = node.operand if isinstance(node, Unary) and node.op == "not" else node
    attribute = _event_attribute(plain)
    if attribute and plain.type == BOOL:
        return attribute, Literal(plain is node, start=node.start, end=node.end, type=BOOL)
    return "", None


def _event_attribute(node: Node) -> str:
    """The name in `event.name`, else ''."""
    if isinstance(node, Attribute) and isinstance(node.target, Name) and not node.safe and node.type.kind in KEYS:
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
        # once more by itself: what the tests beside it say about null does not hold when it is armed
        return compile_expression(source, scope)
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
    if isinstance(node, Attribute | Index) and node.target.type.kind in ("any", "list"):
        return False
    if isinstance(node, Call) and node.name not in _STEADY_FUNCTIONS:
        return False
    if isinstance(node, Binary) and (
        node.helper not in ("", "concat") or (node.op in ("+", "-") and node.helper != "concat")
    ):
        return False
    kinds = (Literal, Number, Name, Attribute, Index, Call, Binary, Logic, Conditional, Unary, Join, ListOf)
    return isinstance(node, kinds) and all(_cannot_fail(child) for child in node.children())
