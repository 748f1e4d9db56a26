"""FEL, the expression language of flows: CEL's syntax, checked at load, compiled to Python (FLOWLANG §3).

    compile_expression("event.digit != 2", scope, BOOL)      bare expression of a key: if, when, where, until, unique_by
    compile_template("call from ${call.from.user}", scope, TEXT)   text with ${…}; '${x}' alone keeps the type of x
    split_filter("event.aor == call.to.aor and …", scope)    a filter, its hash keys taken out for the bus
    match_attribute("aor", "*@${call.to.host}", scope)       one line of a where: map
    parse_type("optional digits")                            a declared type

Each takes the text as the user wrote it and a `Scope` (names and what is known about null), and raises `ExprError`
with code, message, help and the offset inside that text. What comes back is evaluated with `evaluate(env)`, where
`env` maps the root names to plain values: text and digits are `str`, numbers `int` or `float`, durations float
seconds, times seconds since 1970, lists `list` or `tuple`, records and maps anything with `__getitem__(name)`.
Evaluation raises nothing but `StepError`: `expr.missing`, `expr.value`, `flow.limit`.
"""

from __future__ import annotations

from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.expression import Expression, compile_expression
from orchestrator.flow.expr.filter import Filter, all_of, split_filter
from orchestrator.flow.expr.functions import FUNCTIONS, Function
from orchestrator.flow.expr.generate import Evaluator
from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.expr.match import Match, match_attribute
from orchestrator.flow.expr.scope import VOLATILE, Facts, Path, Scope, freeswitch_hint
from orchestrator.flow.expr.spelling import closest, did_you_mean, edit_distance
from orchestrator.flow.expr.template import Part, Template, compile_template, parts_of
from orchestrator.flow.expr.types import (
    ANY,
    BOOL,
    CONTACT,
    DIGITS,
    DURATION,
    NOTHING,
    NULL,
    NUMBER,
    TEXT,
    TIME,
    TYPE_WORDS,
    URI,
    Type,
    assignable,
    comparable,
    enum,
    list_of,
    map_of,
    optional,
    parse_type,
    record,
    unify,
)

__all__ = [
    "ANY",
    "BOOL",
    "CONTACT",
    "DIGITS",
    "DURATION",
    "FUNCTIONS",
    "NOTHING",
    "NULL",
    "NUMBER",
    "TEXT",
    "TIME",
    "TYPE_WORDS",
    "URI",
    "VOLATILE",
    "Evaluator",
    "ExprError",
    "Expression",
    "Facts",
    "Filter",
    "Function",
    "Match",
    "Part",
    "Path",
    "Scope",
    "Template",
    "Type",
    "all_of",
    "assignable",
    "closest",
    "comparable",
    "compile_expression",
    "compile_template",
    "did_you_mean",
    "edit_distance",
    "enum",
    "freeswitch_hint",
    "list_of",
    "map_of",
    "match_attribute",
    "optional",
    "parse_type",
    "parts_of",
    "record",
    "seconds",
    "split_filter",
    "unify",
]
