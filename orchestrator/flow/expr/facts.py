"""What is known about null after a condition (flow typing).

`facts(node)` gives the paths that are not null where the condition was true, and those that are not null where it was
false. `a != null` says it directly; `and`, `or`, `not` and `? :` combine what their parts say. Inside `a and b`, b is
checked with what holds where a was true.
"""

from __future__ import annotations

from functools import reduce

from orchestrator.flow.expr.nodes import (
    Binary,
    Call,
    Conditional,
    Convert,
    Literal,
    Logic,
    Node,
    Unary,
    constant_text,
    path_of,
    value_key,
)
from orchestrator.flow.expr.origin import OURS_HERE, alphabet_of, of_characters
from orchestrator.flow.expr.scope import Facts
from orchestrator.flow.expr.types import origin_of

NO_FACTS: Facts = frozenset()


def facts(node: Node) -> tuple[Facts, Facts]:
    """(not null where true, not null where false)."""
    if isinstance(node, Convert):
        return facts(node.operand)
    if isinstance(node, Unary) and node.op == "not":
        true, false = facts(node.operand)
        return false, true
    if isinstance(node, Logic):
        return _logic(node)
    if isinstance(node, Conditional):
        return _conditional(node)
    if isinstance(node, Binary):
        return _binary(node)
    if isinstance(node, Call) and node.name == "matches":
        return _matching(node), NO_FACTS
    return NO_FACTS, NO_FACTS


def _logic(node: Logic) -> tuple[Facts, Facts]:
    parts = [facts(operand) for operand in node.operands]
    trues, falses = [true for true, _ in parts], [false for _, false in parts]
    if node.op == "and":
        return _union(trues), _intersection(falses)
    return _intersection(trues), _union(falses)


def _conditional(node: Conditional) -> tuple[Facts, Facts]:
    (true, false), then, other = facts(node.test), facts(node.then), facts(node.other)
    return (true | then[0]) & (false | other[0]), (true | then[1]) & (false | other[1])


def _binary(node: Binary) -> tuple[Facts, Facts]:
    if node.op in ("==", "!="):
        tested = _tested_for_null(node)
        found = _not_null(tested) if tested else NO_FACTS
        if not tested:
            same = _equal_to_ours(node)
            return (same, NO_FACTS) if node.op == "==" else (NO_FACTS, same)
        return (NO_FACTS, found) if node.op == "==" else (found, NO_FACTS)
    if node.op == "in" and not origin_of(node.right.type).outside:
        found = _ours(node.left)
        if node.right.type.kind != "map" or not isinstance(node.left, Literal):
            return found, NO_FACTS
    if node.op == "in" and node.right.type.kind == "map" and isinstance(node.left, Literal):
        path = path_of(node.right)
        return (frozenset({(*path, str(node.left.value))}) if path else NO_FACTS), NO_FACTS
    if node.op == "??" and isinstance(node.right, Literal) and isinstance(node.right.value, bool):
        found = _not_null(node.left)
        return (NO_FACTS, found) if node.right.value else (found, NO_FACTS)
    return NO_FACTS, NO_FACTS


def _tested_for_null(node: Binary) -> Node | None:
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if isinstance(other, Literal) and other.value is None:
            return side
    return None


def _equal_to_ours(node: Binary) -> Facts:
    """A value that equals one of ours is ours."""
    found = NO_FACTS
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if side.type.origin.outside and not origin_of(other.type).outside:
            found |= _ours(side)
    return found


def _ours(node: Node) -> Facts:
    path = value_key(node)
    return frozenset({(*path, OURS_HERE)}) if path else NO_FACTS


def _matching(node: Call) -> Facts:
    """A pattern for the whole text names the characters it can have."""
    path, pattern = value_key(node.arguments[0]), constant_text(node.arguments[1])
    alphabet = alphabet_of(pattern) if path and pattern is not None else None
    return frozenset({(*path, of_characters(alphabet))}) if path and alphabet is not None else NO_FACTS


def _not_null(node: Node) -> Facts:
    """A path that is not null was reached through targets that are not null either: `a?.b != null` speaks about a,
    too.
    """
    path = path_of(node)
    return frozenset(path[:size] for size in range(1, len(path) + 1)) if path else NO_FACTS


def _union(sets: list[Facts]) -> Facts:
    return frozenset().union(*sets)


def _intersection(sets: list[Facts]) -> Facts:
    return reduce(frozenset.intersection, sets)
