"""Which requests an earlier flow takes away from a later one, as far as their `when:` prove it (W305).

A condition is looked at as it is written: `and`, `or`, equality with a literal, `in` over literals or a group, and
`startsWith`. Anything else is compared as text. What cannot be proved is not said: a special flow above a general one
is how flows are meant to be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.flow.expr import ExprError
from orchestrator.flow.expr.nodes import Binary, Call, ListOf, Literal, Logic, Node, Number, path_of
from orchestrator.flow.expr.parser import parse
from orchestrator.flow.expr.scope import Path

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Test:
    """One comparison: `path` is one of `values`, or begins with `prefix`; else only its text is known."""

    text: str
    path: Path | None = None
    values: frozenset[str] = frozenset()
    prefix: str | None = None

    def takes(self, value: str) -> bool:
        return value in self.values if self.prefix is None else value.startswith(self.prefix)


_All = tuple[_Test, ...]
"""Tests that all hold; a condition is a list of these of which one holds."""


class Condition:
    """A `when:`, taken apart."""

    def __init__(self, text: str, groups: Groups) -> None:
        self._text = text
        self._groups = groups
        try:
            self.ways: list[_All] = self._ways(parse(text))
        except (ExprError, RecursionError):  # reported where the expression is checked
            self.ways = [(_Test(text),)]

    def implies(self, other: Condition) -> bool:
        """Whether `other` holds whenever this does."""
        return all(any(_implies(mine, theirs) for theirs in other.ways) for mine in self.ways)

    def taken(self, other: Condition) -> list[str]:
        """Values that this condition names and `other` takes, in order."""
        found = {value for way in self.ways for value in _taken(way, other.ways)}
        return sorted(found)

    def _ways(self, node: Node) -> list[_All]:
        if isinstance(node, Logic) and node.op == "or":
            return [way for operand in node.operands for way in self._ways(operand)]
        if isinstance(node, Logic):
            ways: list[_All] = [()]
            for operand in node.operands:
                ways = [(*way, *more) for way in ways for more in self._ways(operand)]
                if len(ways) > _MOST:
                    return [(self._plain(node),)]
            return ways
        return [(self._test(node),)]

    def _plain(self, node: Node) -> _Test:
        return _Test(" ".join(self._text[node.start : node.end].split()))

    def _test(self, node: Node) -> _Test:
        plain = self._plain(node)
        if isinstance(node, Binary) and node.op == "==":
            for side, value in ((node.left, node.right), (node.right, node.left)):
                text, path = _literal(value), path_of(side)
                if text is not None and path is not None:
                    return _Test(plain.text, path, frozenset({text}))
        if isinstance(node, Binary) and node.op == "in":
            path, values = path_of(node.left), self._values(node.right)
            if path is not None and values is not None:
                return _Test(plain.text, path, values)
        if isinstance(node, Call) and node.name == "startsWith" and len(node.arguments) == 2:
            path, text = path_of(node.arguments[0]), _literal(node.arguments[1])
            if path is not None and text is not None:
                return _Test(plain.text, path, prefix=text)
        return plain

    def _values(self, node: Node) -> frozenset[str] | None:
        path = path_of(node)
        if path is not None and len(path) == 2 and path[0] == "groups":
            return frozenset(self._groups.get(path[1], ()))
        if not isinstance(node, ListOf):
            return None
        texts = [_literal(item) for item in node.items]
        return None if None in texts else frozenset(text for text in texts if text is not None)


_MOST = 64
"""Ways a condition is taken apart into before it is compared as text."""


def _literal(node: Node) -> str | None:
    if isinstance(node, Number):
        return node.source
    return node.value if isinstance(node, Literal) and isinstance(node.value, str) else None


def _implies(mine: _All, theirs: _All) -> bool:
    return all(any(_holds(test, wanted) for test in mine) for wanted in theirs)


def _holds(test: _Test, wanted: _Test) -> bool:
    if test.text == wanted.text:
        return True
    if test.path is None or test.path != wanted.path:
        return False
    if test.prefix is None:
        return bool(test.values) and all(wanted.takes(value) for value in test.values)
    return wanted.prefix is not None and test.prefix.startswith(wanted.prefix)


def _taken(way: _All, theirs: Sequence[_All]) -> Iterator[str]:
    for number, test in enumerate(way):
        for value in test.values:
            one = (*way[:number], _Test("", test.path, frozenset({value})), *way[number + 1 :])
            if any(_implies(one, other) for other in theirs):
                yield value
