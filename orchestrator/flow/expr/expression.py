"""A compiled expression and how one is made: parse, check, generate.

Text comes in once, at load; what remains is a function of the environment and the facts the checker of the flow wants
to know: type, names read, what is not null afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.errors import StepError
from orchestrator.flow.expr.check import check
from orchestrator.flow.expr.complaints import at
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.facts import NO_FACTS, facts
from orchestrator.flow.expr.functions import UNSAFE
from orchestrator.flow.expr.generate import Evaluator, generate
from orchestrator.flow.expr.lexer import reject_interpolation
from orchestrator.flow.expr.nodes import Node, calls_of, paths_read, value_key
from orchestrator.flow.expr.parser import parse
from orchestrator.flow.expr.scope import Facts, Path, Scope
from orchestrator.flow.expr.types import Type

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, repr=False)
class Expression:
    """One expression, or one text with `${…}`, ready to be evaluated.

    `evaluate(env)` takes the root names (`{"call": …, "event": …, "vars": …, "now": …}`) and gives a value of `type`,
    null only when the type is optional. Its errors are `StepError`: `expr.missing`, `expr.value`, `flow.limit`.
    """

    source: str
    type: Type
    evaluate: Evaluator
    reads: Facts = NO_FACTS
    """Every path it reads, as far as written out."""
    when_true: Facts = NO_FACTS
    """Paths that are not null where this was true; hand them to `Scope.narrow` for `then:` and the steps behind."""
    when_false: Facts = NO_FACTS
    """The same for `else:`."""
    is_constant: bool = False
    """It reads nothing; `constant` is its value."""
    constant: Any = None
    unsafe: tuple[int, ...] = ()
    """Offsets of `unsafe(…)` in the source."""
    path: Path | None = None
    """What a test of this value speaks about, see `nodes.value_key`."""

    @property
    def roots(self) -> frozenset[str]:
        """The root names it reads."""
        return frozenset(path[0] for path in self.reads)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source!r}: {self.type}>"


def compile_expression(text: str, scope: Scope, expected: Type | None = None) -> Expression:
    """Compile the value of an expression key (`if`, `when`, `where`, …).

    Raises:
        ExprError: E201-E211, offset and length within `text`.
    """
    reject_interpolation(text)
    return guarded(lambda: finish(text, check(text, parse(text), scope, expected)))


def finish(source: str, node: Node) -> Expression:
    """The expression of a checked tree. Raises ExprError E201-E203."""
    reads = frozenset(paths_read(node))
    evaluate = generate(node, source, sorted(reads))
    when_true, when_false = facts(node)
    constant = None
    if not reads:
        try:
            constant = evaluate({})
        except StepError as error:
            raise at(node, "E203", f"this can never be worked out: {error.message}") from None
    unsafe = tuple(call.start for call in calls_of(node, UNSAFE)) if UNSAFE in source else ()
    path = value_key(node)
    return Expression(source, node.type, evaluate, reads, when_true, when_false, not reads, constant, unsafe, path)


def guarded(make: Callable[[], _Made]) -> _Made:
    """Run a compilation; a stack nearly full before it began is reported like an expression nested too deep."""
    try:
        return make()
    except RecursionError:
        raise ExprError("E202", "this expression is nested too deep", "split it with set:") from None
