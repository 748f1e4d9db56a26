"""Grammar: what binds tighter, what literals mean, how deep it goes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.flow.expr import BOOL, ExprError, Scope, compile_expression, parts_of, seconds
from orchestrator.flow.expr.lexer import tokenize
from orchestrator.flow.expr.nodes import Node, path_of
from orchestrator.flow.expr.parser import MAX_DEPTH, parse

Refusal = Callable[..., ExprError]
Value = Callable[..., Any]


def shape(node: Node) -> str:
    """The tree in brackets, operators in front."""
    path = path_of(node)
    if path:
        return ".".join(path)
    name = str(getattr(node, "op", "") or getattr(node, "name", "") or type(node).__name__)
    children = list(node.children())
    if not children:
        return str(getattr(node, "source", None) or repr(getattr(node, "value", name)))
    return f"({' '.join([name, *map(shape, children)])})"


@pytest.mark.parametrize(
    "text, tree",
    [
        ("a + b * c", "(+ a (* b c))"),
        ("a - b - c", "(- (- a b) c)"),
        ("a / b % c", "(% (/ a b) c)"),
        ("-a * b", "(* (- a) b)"),
        ("- -a", "(- (- a))"),
        ("(a + b) * c", "(* (+ a b) c)"),
        ("a < b + c", "(< a (+ b c))"),
        ("a or b and c", "(or a (and b c))"),
        ("a || b && !c", "(or a (and b (not c)))"),
        ("a and b and c", "(and a b c)"),
        ("a or b or c or d", "(or a b c d)"),
        ("(a or b) or c", "(or (or a b) c)"),
        ("not a == b", "(not (== a b))"),
        ("!a == b", "(== (not a) b)"),
        ("not not a", "(not (not a))"),
        ("not a and b", "(and (not a) b)"),
        ("a and not b or c", "(or (and a (not b)) c)"),
        ("not a in b", "(not (in a b))"),
        ("a not in b", "(not (in a b))"),
        ("a not in b and c", "(and (not (in a b)) c)"),
        ("a ?? b == c", "(== (?? a b) c)"),
        ("a ?? b ?? c", "(?? a (?? b c))"),
        ("a + b ?? c", "(?? (+ a b) c)"),
        ("a ?? -b", "(?? a (- b))"),
        ("(a ?? b) + c", "(+ (?? a b) c)"),
        ("a ? b : c ? d : e", "(Conditional a b (Conditional c d e))"),
        ("a ? b ? c : d : e", "(Conditional a (Conditional b c d) e)"),
        ("a or b ? c : d", "(Conditional (or a b) c d)"),
        ("a.b?.c[0]['x']", "a.b.c.[0].x"),
        ("a?.['x']", "a.x"),
        ("a[b]", "(Index a b)"),
        ("a.f(b, c).g()", "(g (f a b c))"),
        ("size(a)", "(size a)"),
        ("a.in.or.not", "a.in.or.not"),
        ("a.exists(x, x > 1)", "(exists a (> x 1))"),
        ("a.map(x, x).filter(y, y)", "(filter (map a x) y)"),
        ("[a, [b]]", "(ListOf a (ListOf b))"),
        ("a\n  and\tb", "(and a b)"),
        ("a ?b :c", "(Conditional a b c)"),
        ("a?b.c:d", "(Conditional a b.c d)"),
    ],
)
def test_what_binds_tighter(text: str, tree: str) -> None:
    assert shape(parse(text)) == tree


@pytest.mark.parametrize(
    "text, expected",
    [
        ("'it''s'", None),
        (r"'it\'s'", "it's"),
        (r'"say \"x\""', 'say "x"'),
        (r"'a\n\t\r\\b'", "a\n\t\r\\b"),
        (r"'^\d+\.$'", r"^\d+\.$"),
        ("'two\nlines'", "two\nlines"),
        ("'#{}$ %s {0} \u00e9\U0001f600'", "#{}$ %s {0} \u00e9\U0001f600"),
        ("007", 7),
        ("3.50", 3.5),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("[]", []),
    ],
)
def test_literals(text: str, expected: object, scope: Scope) -> None:
    if text == "'it''s'":  # YAML's way to write a quote; YAML has undone it before we see the text
        with pytest.raises(ExprError, match="E201"):
            compile_expression(text, scope)
        return
    made = compile_expression(text, scope)
    assert made.is_constant
    assert made.constant == made.evaluate({}) == expected
    assert type(made.constant) is type(expected)


@pytest.mark.parametrize("text, length", [("30s", 30.0), ("250ms", 0.25), ("2h", 7200.0), ("0s", 0.0), ("0.5m", 30.0)])
def test_durations_of_the_language(text: str, length: float) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize(
    "text", ["", "30", "s", "30 s", "-30s", "30sec", "1d", "1h30m", "30s ", "'30s'", "1e3s", "\u0663s"]
)
def test_what_is_no_duration(text: str) -> None:
    assert seconds(text) is None


def test_tokens_keep_their_places() -> None:
    text = "a.b ?? 'x' != 007"
    tokens = tokenize(text)
    assert [text[token.start : token.end] for token in tokens] == ["a", ".", "b", "??", "'x'", "!=", "007", ""]
    assert tokens[-1].kind == "end"


NESTS: dict[str, tuple[str, str, str]] = {
    "parentheses": ("(", "true", ")"),
    "not": ("not ", "true", ""),
    "bang": ("!", "true", ""),
    "minus": ("-", "vars.n", ""),
    "ternary": ("vars.low ? 1 : ", "2", ""),
    "ternary inside": ("vars.low ? ", "1", " : 2"),
    "list": ("[", "1", "]"),
    "index": ("json[", "0", "]"),
    "default": ("json ?? ", "1", ""),
    "default left": ("(", "json", " ?? 1)"),
    "safe": ("", "json", "?.a"),
    "safe method": ("", "call.user", "?.trim()"),
    "attribute": ("", "json", ".a"),
    "sum": ("", "vars.n", " + vars.n"),
    "sum right": ("vars.n + (", "1", ")"),
    "method": ("", "vars.who", ".trim()"),
    "function": ("string(", "vars.n", ")"),
    "compare": ("(", "vars.low", " == true)"),
    "any compare": ("(", "json", " == json)"),
    "mixed": ("(json?.a ?? !(", "json", "))"),
    "and": ("(", "vars.low", " and vars.low)"),
    "any and": ("(", "json.a", " and json)"),
    "macro": ("[1].exists(x{n}, ", "true", ")"),
    "map": ("[[1]].map(x{n}, ", "1", ")"),
}


@pytest.mark.parametrize("before, core, after", NESTS.values(), ids=NESTS.keys())
def test_deep_expressions_compile_or_are_too_deep(before: str, core: str, after: str, scope: Scope) -> None:
    def nested(depth: int) -> str:
        return "".join(before.replace("{n}", str(n)) for n in range(depth)) + core + after * depth

    compile_expression(nested(12), scope)
    for depth in (MAX_DEPTH - 4, MAX_DEPTH, MAX_DEPTH + 1, 300, 2500):
        try:
            compile_expression(nested(depth), scope)
        except ExprError as error:
            assert error.code == "E202"
        else:
            assert depth <= MAX_DEPTH


@pytest.mark.parametrize("word", ["and", "or"])
def test_long_conditions_are_not_deep(word: str, value: Value) -> None:
    assert value(f" {word} ".join(["vars.n == 3"] * 2000)) is True


def test_a_long_list_is_not_deep(value: Value) -> None:
    assert value(f"vars.n in [{', '.join(map(str, range(5000)))}]") is True


def test_an_endless_expression_is_refused(refusal: Refusal) -> None:
    assert refusal("1" + " + 1" * 40_000).code == "E201"


@pytest.mark.parametrize(
    "text, parts",
    [
        ("plain", [("plain", False)]),
        ("", [("", False)]),
        ("${a}", [("a", True)]),
        ("x${a}y${b}", [("x", False), ("a", True), ("y", False), ("b", True)]),
        ("$${a}", [("${a}", False)]),
        ("$$${a}", [("$${a}", False)]),
        ("$${a}${b}", [("${a}", False), ("b", True)]),
        ("$5 $ {x} $", [("$5 $ {x} $", False)]),
        ("${'}'}", [("'}'", True)]),
        ('${"it\'s }"}!', [('"it\'s }"', True), ("!", False)]),
        (r"${'\'}'}", [(r"'\'}'", True)]),
        ("${a}}", [("a", True), ("}", False)]),
    ],
)
def test_texts_are_taken_apart_at_their_expressions(text: str, parts: list[tuple[str, bool]]) -> None:
    found = parts_of(text)
    assert [(part.text, part.code) for part in found] == parts
    assert found[0].start == 0
    assert found[-1].end == len(text)
    assert all(one.end == two.start for one, two in pairwise(found))


@pytest.mark.parametrize(
    "text, offset", [("${", 0), ("a ${b", 2), ("${a} ${b", 5), ("${'}", 0), ('x${"}', 1), ("${'a}'", 0)]
)
def test_an_open_interpolation_is_shown_where_it_starts(text: str, offset: int, refusal: Refusal) -> None:
    error = refusal(text, template=True)
    assert (error.code, error.offset, error.length) == ("E210", offset, 2)
    assert error.message == "this ${ is not closed"


@pytest.mark.parametrize("text, offset", [("${}", 2), ("x ${ } y", 4)])
def test_an_empty_interpolation_is_refused(text: str, offset: int, refusal: Refusal) -> None:
    error = refusal(text, template=True)
    assert (error.code, error.offset) == ("E201", offset)


def test_interpolation_cannot_be_nested(refusal: Refusal) -> None:
    error = refusal("${call.to.user ?? ${vars.who}}", template=True)
    assert (error.code, error.message) == ("E201", "${ } cannot stand inside an expression")
    assert error.offset == len("${call.to.user ?? ")


@pytest.mark.parametrize("text", ["${event.mobile}", " ${ event.mobile } "])
def test_interpolation_around_a_condition_is_shown_whole(text: str, refusal: Refusal) -> None:
    error = refusal(text, BOOL)
    assert (error.code, error.help) == ("E209", "write: event.mobile")
    assert text[error.offset : error.offset + error.length] == text.strip()
