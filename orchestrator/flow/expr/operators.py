"""Typing of operators: comparisons, `in`, arithmetic.

A number literal beside digits becomes text as it is written (`007` stays `007`), which is what makes `event.digit !=
2` mean what it says. Where a side is declared as anything, the check moves to run time and a helper of `runtime` does
it.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.nodes import Binary, Convert, ListOf, Literal, Node, Number
from orchestrator.flow.expr.types import (
    ANY,
    BOOL,
    DIGITS,
    DURATION,
    NUMBER,
    TEXT,
    TIME,
    Type,
    comparable,
    list_of,
    mixed,
    unify,
)


class _Sum(NamedTuple):
    result: Type
    helper: str


_ARITHMETIC = {
    ("+", "number", "number"): _Sum(NUMBER, "add"),
    ("-", "number", "number"): _Sum(NUMBER, "subtract"),
    ("*", "number", "number"): _Sum(NUMBER, "multiply"),
    ("/", "number", "number"): _Sum(NUMBER, "divide"),
    ("%", "number", "number"): _Sum(NUMBER, "remainder"),
    ("+", "duration", "duration"): _Sum(DURATION, "add"),
    ("-", "duration", "duration"): _Sum(DURATION, "subtract"),
    ("*", "duration", "number"): _Sum(DURATION, "multiply"),
    ("*", "number", "duration"): _Sum(DURATION, "multiply"),
    ("/", "duration", "number"): _Sum(DURATION, "ratio"),
    ("/", "duration", "duration"): _Sum(NUMBER, "ratio"),
    ("+", "time", "duration"): _Sum(TIME, "add"),
    ("+", "duration", "time"): _Sum(TIME, "add"),
    ("-", "time", "duration"): _Sum(TIME, "subtract"),
    ("-", "time", "time"): _Sum(DURATION, "subtract"),
}
_VERBS = {
    "+": "cannot add {right} to {left}",
    "-": "cannot subtract {right} from {left}",
    "*": "cannot multiply {left} by {right}",
    "/": "cannot divide {left} by {right}",
    "%": "cannot divide {left} by {right}",
}


def as_written(node: Node, beside: Type | None) -> Node:
    """A number literal beside digits as the text it is written with; every other node as it is."""
    if isinstance(node, Number) and beside is not None and beside.kind in ("digits", "tel"):
        return Literal(node.source, start=node.start, end=node.end, type=DIGITS)
    return node


def compare(source: str, node: Binary) -> Node:
    """Check `== != < <= > >=` whose sides are checked. Raises ExprError E203, E204, E208."""
    if node.op in ("==", "!="):
        node.left, node.right = as_written(node.left, node.right.type), as_written(node.right, node.left.type)
        if "null" in (node.left.type.kind, node.right.type.kind):
            return _typed(node, BOOL)
    left, right = node.left.type.required, node.right.type.required
    if not comparable(left, right) or (node.op not in ("==", "!=") and left.kind in ("bool", "list")):
        raise complaints.unlike(source, node, node.op, node.left, node.right)
    _present(source, node.left, node.right)
    if node.op in ("==", "!="):
        _check_values(source, node.left, node.right)
        _check_values(source, node.right, node.left)
    if "any" in (left.kind, right.kind):
        node.helper = "same" if node.op in ("==", "!=") else "less"
    return _typed(node, BOOL)


def contain(source: str, node: Binary) -> Node:
    """Check `x in list` and `key in map`. Raises ExprError E203, E204, E208."""
    left, right = node.left, node.right
    if isinstance(right, ListOf):
        for item in right.items:
            if not comparable(left.type.required, item.type.required):
                raise complaints.unlike(source, item, "==", left, item)
            _check_values(source, left, item)
    elif right.type.kind == "list" and not comparable(left.type.required, right.type.items.required):
        message = f"a {right.type.required} never holds {left.type.required}"
        raise complaints.at(node, "E203", message)
    elif right.type.kind == "map" and not (left.type.textual or left.type.kind == "any"):
        raise complaints.mismatch(source, left, TEXT)
    elif right.type.kind not in ("list", "map", "any"):
        raise _no_list(source, node)
    _present(source, left, right)
    if "any" in (left.type.kind, right.type.kind, right.type.items.kind) and right.type.kind != "map":
        node.helper = "within"
    return _typed(node, BOOL)


def calculate(source: str, node: Binary) -> Node:
    """Check `+ - * / %`. Raises ExprError E203, E208."""
    left, right = node.left.type.required, node.right.type.required
    if left.kind == "any" or right.kind == "any":
        return _calculate_any(source, node)
    rule = _ARITHMETIC.get((node.op, left.kind, right.kind))
    if rule is None and node.op == "+":
        rule = _joining(left, right)
    if rule is None:
        raise _no_sum(source, node)
    _present(source, node.left, node.right)
    node.helper = rule.helper
    return _typed(node, rule.result)


def negate(source: str, operand: Node) -> Node:
    """Check the operand of unary minus. Raises ExprError E203, E208."""
    if operand.type.kind == "any":
        return convert(operand, NUMBER)
    if operand.type.kind not in ("number", "duration"):
        raise complaints.mismatch(source, operand, NUMBER)
    _present(source, operand)
    return operand


def convert(node: Node, type: Type) -> Node:
    """The node, its value checked at run time to be of the type."""
    found = mixed(type, node.type.origin)
    return Convert(node, start=node.start, end=node.end, type=found, depth=node.depth)


def _joining(left: Type, right: Type) -> _Sum | None:
    if left.textual and right.textual:
        return _Sum(DIGITS if left.kind == right.kind == "digits" else TEXT, "concat")
    if left.kind == right.kind == "list":
        item = unify(left.items, right.items)
        return _Sum(list_of(item), "extend") if item else None
    return None


def _calculate_any(source: str, node: Binary) -> Node:
    """The side that is anything is taken for what the other side is when they are added, else for a number."""
    if node.op == "+" and node.left.type.kind == node.right.type.kind == "any":
        node.helper = "plus"
        return _typed(node, ANY)
    other = next((side.type for side in (node.left, node.right) if side.type.kind != "any"), NUMBER).required
    same = node.op in "+-" and (node.op, other.kind, other.kind) in _ARITHMETIC
    wanted = other if same or (node.op == "+" and (other.textual or other.kind == "list")) else NUMBER
    node.left = convert(node.left, wanted) if node.left.type.kind == "any" else node.left
    node.right = convert(node.right, wanted) if node.right.type.kind == "any" else node.right
    return calculate(source, node)


def _present(source: str, *sides: Node) -> None:
    for side in sides:
        if side.type.optional or side.type.kind == "null":
            raise complaints.missing(source, side)


def _check_values(source: str, side: Node, other: Node) -> None:
    """An enum compared with a text it never is."""
    if side.type.kind != "enum":
        return
    if isinstance(other, Literal) and isinstance(other.value, str) and other.value not in side.type.values:
        raise complaints.never(other, f"{complaints.quoted(source, side)} is", other.value, side.type.values)
    if other.type.kind == "enum" and not set(side.type.values) & set(other.type.values):
        message = f"{complaints.quoted(source, side)} and {complaints.quoted(source, other)} have no value in common"
        raise complaints.at(other, "E204", message, f"{side.type} is compared with {other.type}")


def _no_list(source: str, node: Binary) -> ExprError:
    right = node.right
    message = f"'in' needs a list or a map behind it, but {complaints.quoted(source, right)} is {right.type}"
    part, text = complaints.source_of(source, node.left), complaints.source_of(source, right)
    return complaints.at(right, "E203", message, f"write {text}.contains({part})" if right.type.textual else "")


def _no_sum(source: str, node: Binary) -> ExprError:
    left, right = node.left.type, node.right.type
    message = _VERBS[node.op].format(left=left, right=right)
    help = ""
    for side, other in ((node.left, right), (node.right, left)):
        text = complaints.source_of(source, side)
        if side.type.kind == "number" and other.kind in ("duration", "time"):
            help = f"write a duration such as {text if isinstance(side, Number) else '30'}s"
        elif side.type.kind == "digits" and other.kind == "number":
            help = f"write int({text}) to calculate with it"
        elif other.textual and node.op == "+" and side.type.kind in ("number", "duration", "bool", "time"):
            help = help or f"write string({text}) to put it into text"
    return complaints.at(node, "E203", message, help)


def _typed(node: Node, type: Type) -> Node:
    node.type = type
    return node
