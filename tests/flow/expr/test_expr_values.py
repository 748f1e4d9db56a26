"""What expressions are worth: digits, arithmetic, text, lists, durations, and values declared as anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from orchestrator.errors import StepError
from orchestrator.flow.expr import Scope, compile_expression

Value = Callable[..., Any]


@pytest.mark.parametrize(
    "text, digit, expected",
    [
        ("event.digit != 2", "2", False),
        ("event.digit != 2", "1", True),
        ("2 == event.digit", "2", True),
        ("event.digit == 007", "007", True),
        ("event.digit == 007", "7", False),
        ("event.digit == 7", "007", False),
        ("event.digit == 0049301234567890123456", "0049301234567890123456", True),
        ("event.digit == 2.50", "2.50", True),
        ("event.digit == '2'", "2", True),
        ("event.digit == '*'", "*", True),
        ("event.digit in [1, 2, 03]", "03", True),
        ("event.digit in [1, 2, 03]", "3", False),
        ("event.digit in ['1', 2, '*']", "2", True),
        ("event.digit not in [1, 2]", "2", False),
        ("(event.mobile ? event.digit : 5) == 5", "4", False),
        ("(event.group ?? 5) == 5", "4", True),
        ("event.digit.startsWith(00)", "0049", True),
        ("event.digit.contains(4)", "0049", True),
        ("event.digit.replace(00, '+')", "0049", "+49"),
        ("int(event.digit) > 5", "007", True),
        ("event.digit >= '100' and event.digit <= '199'", "150", True),
        ("event.digit in groups.sales", "007", True),
        ("event.digit in groups.sales", "7", False),
    ],
)
def test_digits_mean_what_an_operator_means(text: str, digit: str, expected: object, values: Any, value: Value) -> None:
    assert value(text, event={**values["event"], "digit": digit}) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 / -2", -3),
        ("-7 / -2", 3),
        ("7 % 3", 1),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("-7 % -3", -1),
        ("7.0 / 2", 3.5),
        ("7.5 % 2", 1.5),
        ("0.1 + 0.2 < 0.31", True),
        ("1 == 1.0", True),
        ("2 * 3 + 4", 10),
        ("2 + 3 * 4", 14),
        ("-vars.n", -3),
        ("- -vars.n", 3),
        ("vars.n + 1", 4),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775807 - 0", -(2**63) + 1),
        ("30s * 2", 60.0),
        ("call.duration / 2", 30.625),
        ("1h / 30m", 2.0),
        ("1m - 90s", -30.0),
        ("1.5s > 1500ms or 1.5s == 1500ms", True),
        ("now - call.started_at", 60),
        ("now - call.started_at > 30s", True),
        ("now - 60s == call.started_at", True),
        ("'a' + 'b' == 'ab'", True),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("[1, 2] == [1, 2]", True),
    ],
)
def test_arithmetic(text: str, expected: object, value: Value) -> None:
    result = value(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("'AbC'.lower()", "abc"),
        ("'stra\u00dfe'.upper()", "STRASSE"),
        ("'  a b '.trim()", "a b"),
        ("'abc'.contains('bc')", True),
        ("'abc'.contains('')", True),
        ("'abc'.startsWith('b')", False),
        ("'abc'.endsWith('bc')", True),
        ("'a-b-c'.replace('-', '')", "abc"),
        ("'aaa'.replace('aa', 'b')", "ba"),
        ("'ab'.replace('', '.')", ".a.b."),
        ("'a@b@c'.split('@')", ["a", "b", "c"]),
        ("'abc'.split('')", ["a", "b", "c"]),
        ("''.split('@')", [""]),
        ("'abcdef'.prefix(2)", "ab"),
        ("'abcdef'.prefix(99)", "abcdef"),
        ("'*8101'.drop(2)", "101"),
        ("'ab'.drop(9)", ""),
        ("'abc'.drop(4 / 2)", "c"),
        ("size('a\u00e4\U0001f600')", 3),
        ("'abc'.size()", 3),
        ("size([1, 2])", 2),
        ("size(call.headers)", 2),
        ("string(2)", "2"),
        ("string(2.0)", "2"),
        ("string(2.5)", "2.5"),
        ("string(true)", "true"),
        ("string('x')", "x"),
        ("string(90s)", "90"),
        ("string(1500ms)", "1.5"),
        ("call.duration.string()", "61.25"),
        ("string(call.started_at)", "2001-09-09T01:46:40Z"),
        ("int('007')", 7),
        ("int('-7')", -7),
        ("int('+7')", 7),
        ("int(2.9)", 2),
        ("int(-2.9)", -2),
        ("int(90s)", 90),
        ("int(call.started_at)", 1_000_000_000),
        ("groups.sales.join(',')", "101,102,007"),
        ("groups.sales.join()", "101102007"),
        ("[1, 2].join('+')", "1+2"),
        ("[].join(',')", ""),
        ("['b', 'a'][1] ?? 'none'", "a"),
        ("['b', 'a'][vars.n] ?? 'none'", "none"),
        ("groups.sales[vars.n - 3] ?? 'none'", "101"),
        ("groups.sales[vars.n - 4] ?? 'none'", "none"),
        ("call.headers['X-Id'] ?? 'none'", "42"),
        ("call.headers.Nope ?? 'none'", "none"),
        ("call.headers['x' + 'y'] ?? 'none'", "none"),
        ("call['id']", "call-1"),
        ("vars.who in call.headers", False),
        ("'X-Id' in call.headers", True),
        ("'a' < 'b' and 'B' < 'a'", True),
        ("vars.low == false ? 'high' : 'low'", "high"),
        ("event.leg == 'callee' and event.leg in ['caller', 'callee']", True),
    ],
)
def test_functions_and_operators(text: str, expected: object, value: Value) -> None:
    result = value(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("groups.sales.exists(x, x == 007)", True),
        ("groups.sales.exists(x, x == 7)", False),
        ("groups.sales.all(x, x.size() == 3)", True),
        ("[].all(x, false)", True),
        ("[].exists(x, true)", False),
        ("[1, 2, 3].filter(x, x % 2 == 1)", [1, 3]),
        ("[1, 2, 3].map(x, x * x)", [1, 4, 9]),
        ("[1, 2].map(x, [3, 4].map(y, x * y))", [[3, 4], [6, 8]]),
        ("[1, 2].exists(x, [2, 3].exists(y, x == y))", True),
        ("[1, 2].map(x, x).filter(x, x > 1)", [2]),
        ("found.filter(x, x.expires > 30).map(x, x.uri)", ["sip:b"]),
        ("found.map(x, x.expires).exists(x, x == 60)", True),
        ("(event.group ?? '').split(',').exists(x, (event.target ?? x) == x)", False),
        ("out.tried.map(gw, vars.who + '@' + gw).join(' ')", "carol@a carol@b"),
    ],
)
def test_list_macros(text: str, expected: object, value: Value) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "pattern, text, fits",
    [
        ("*", "", True),
        ("*", "anything", True),
        ("", "", True),
        ("", "a", False),
        ("abc", "abc", True),
        ("abc", "ABC", False),
        ("abc", "abcd", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("??", "ab", True),
        ("??", "abc", False),
        ("sip:*@example.com", "sip:bob@example.com", True),
        ("sip:*@example.com", "sip:bob@example.com.evil.org", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab*", "ab-ab", True),
        ("*ab*ab*", "abab", True),
        ("*ab*ab*", "aba", False),
        ("*?b*", "b", False),
        ("*?b*", "ab", True),
        ("a*?", "a", False),
        ("a*?", "ab", True),
        ("*a?c*a?d", "xabcyabcaxd", True),
        ("a*b*c", "acb", False),
        ("[a]*", "[a]x", True),
        ("*.?", "a.b", True),
        ("*a?c*", "abbaxc", True),
        ("*b*ab", "aab", False),
        ("*aa*a", "aa", False),
    ],
)
def test_globs(pattern: str, text: str, fits: bool, value: Value) -> None:
    assert value(f"vars.who.like({pattern!r})", vars={"who": text}) is fits


@pytest.mark.parametrize(
    "pattern, text, fits",
    [
        ("^(00|[+])[0-9]{6,}$", "0049301234", True),
        ("^(00|[+])[0-9]{6,}$", "49301234", False),
        (r"^\d+$", "123", True),
        ("b+", "abbc", True),
        ("^b", "ab", False),
        ("(?i)ACME", "acme phone", True),
        ("\u00e4", "\u00e4", True),
        ("^.$", "\U0001f600", True),
    ],
)
def test_patterns_fit_a_part_unless_anchored(pattern: str, text: str, fits: bool, value: Value) -> None:
    assert value(f"vars.who.matches('{pattern}')", vars={"who": text}) is fits


def test_patterns_may_be_put_together_from_constants(value: Value) -> None:
    assert value("vars.who.matches('^(a|b)' + '[0-9]' + '$')", vars={"who": "a7"}) is True


ANYTHING = {
    "n": 2,
    "f": 2.0,
    "s": "2",
    "t": True,
    "none": None,
    "list": [1, "2", None],
    "map": {"k": "v"},
    "zero": 0,
}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("json.n == 2", True),
        ("json.f == 2", True),
        ("json.s == 2", True),
        ("2 == json.s", True),
        ("json.s == 02", False),
        ("json.s == '2'", True),
        ("json.n == '2'", False),
        ("json.n == json.s", False),
        ("json.t == true", True),
        ("json.t == 1", False),
        ("json.zero == false", False),
        ("json.none == null", True),
        ("json.missing == null", True),
        ("json.missing != null", False),
        ("json.none == 2", False),
        ("json.s in [1, 2]", True),
        ("json.n in [1, 2]", True),
        ("json.t in [1, 2]", False),
        ("2 in json.list", False),
        ("1 in json.list", True),
        ("'2' in json.list", True),
        ("'k' in json.map", True),
        ("'x' in json.map", False),
        ("json.map.k + '!'", "v!"),
        ("json.map['k'] + '!'", "v!"),
        ("json.list[1]", "2"),
        ("json.list[7] ?? 'none'", "none"),
        ("json.n + 1", 3),
        ("json.n + json.n", 4),
        ("json.s + json.s", "22"),
        ("json.n * 2s", 4.0),
        ("-json.n", -2),
        ("json.n < 3 and json.n <= 2 and json.n > 1 and json.n >= 2", True),
        ("3 > json.n", True),
        ("json.s < '3'", True),
        ("json.t and true", True),
        ("json.t ? 1 : 2", 1),
        ("not json.t", False),
        ("json.s.lower()", "2"),
        ("json.list.exists(x, x == 2)", True),
        ("json.list.filter(x, x != null)", [1, "2"]),
        ("size(json.list)", 3),
        ("size(json.s)", 1),
        ("int(json.s)", 2),
        ("string(json.n)", "2"),
        ("string(json.t)", "true"),
        ("string(json.list)", '[1,"2",null]'),
        ("json.none?.a.b ?? 'none'", "none"),
        ("json?.missing.a.b ?? 'none'", "none"),
        ("json?.missing[0].lower() ?? 'none'", "none"),
        ("json?.s.lower() ?? 'none'", "2"),
        ("json.missing?.size() ?? 0", 0),
        ("json.list?.size() ?? 0", 3),
        ("json.missing?.lower() ?? 'none'", "none"),
        ("json.map?.k ?? 'none'", "v"),
        ("json.list + [4]", [1, "2", None, 4]),
    ],
)
def test_anything_is_checked_when_it_is_used(text: str, expected: object, value: Value) -> None:
    result = value(text, json=ANYTHING)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "text, type",
    [
        ("json.n and true", "expr.value"),
        ("not json.zero", "expr.value"),
        ("json.none and true", "expr.missing"),
        ("json.s + 1", "expr.value"),
        ("json.n + 'x'", "expr.value"),
        ("json.t + 1", "expr.value"),
        ("json.s + json.n", "expr.value"),
        ("json.none + 1", "expr.missing"),
        ("json.n < 'x'", "expr.value"),
        ("json.n.lower()", "expr.value"),
        ("json.none.a", "expr.missing"),
        ("json.missing.a", "expr.missing"),
        ("json.n.a", "expr.value"),
        ("json.s.a", "expr.value"),
        ("json.list.a", "expr.value"),
        ("json.map[1]", "expr.value"),
        ("json.s in json.n", "expr.value"),
        ("1 in json.map", "expr.value"),
        ("json.n.exists(x, true)", "expr.value"),
        ("json.list.map(x, x + 1)", "expr.value"),
        ("size(json.none)", "expr.value"),
        ("size(json.n)", "expr.value"),
        ("int(json.map)", "expr.value"),
        ("int(json.t)", "expr.value"),
        ("string(json.none)", "expr.missing"),
        ("1 / vars.tries", "expr.value"),
        ("1.0 / vars.tries", "expr.value"),
        ("1 % vars.tries", "expr.value"),
        ("1s / vars.tries", "expr.value"),
        ("1s / (vars.tries * 1s)", "expr.value"),
        ("int(vars.who)", "expr.value"),
        ("int('1_000' + vars.who)", "expr.value"),
        ("int(vars.who.replace('carol', '99999999999999999999'))", "expr.value"),
        ("vars.who.prefix(-vars.n)", "expr.value"),
        ("vars.who.drop(0.5 * vars.n)", "expr.value"),
        ("groups.sales[vars.n / 2.0]", "expr.value"),
        ("vars.n * 9223372036854775807", "expr.value"),
        ("vars.n + 9223372036854775807", "expr.value"),
        ("-9223372036854775807 - vars.n", "expr.value"),
        ("call.started_at + 999999999999h == now ? '' : string(call.started_at + 999999999999h)", "expr.value"),
    ],
)
def test_what_fails_while_a_call_runs_is_a_step_error(text: str, type: str, scope: Scope, values: Any) -> None:
    with pytest.raises(StepError) as caught:
        compile_expression(text, scope).evaluate({**values, "json": ANYTHING})
    assert caught.value.type == type
    assert caught.value.message.endswith(f"(in {text})")
    assert caught.value.__cause__ is None


class View(Mapping[str, Any]):
    """A live object as the core gives it: read by name, nothing copied."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Bare:
    """The least a view has to be: something with `__getitem__`."""

    def __getitem__(self, name: str) -> Any:
        if name == "X-Id":
            return "42"
        raise KeyError(name)


def test_records_and_maps_may_be_views(value: Value) -> None:
    asked: list[str] = []
    call = View(lambda name: asked.append(name) or {"user": "7"})
    assert value("call.from.user == 7", call=call) is True
    assert asked == ["from"]
    for headers in (Bare(), {"X-Id": "42"}):
        assert value("call.headers['X-Id'] ?? 'none'", call={"headers": headers}) == "42"
        assert value("call.headers['Y'] ?? 'none'", call={"headers": headers}) == "none"
        assert value("'X-Id' in call.headers", call={"headers": headers}) is True
        assert value("json['X-Id'] + (json.Y?.lower() ?? '!')", json=headers) == "42!"


def test_evaluation_reads_the_environment_of_its_own_time(scope: Scope) -> None:
    run = compile_expression("vars.n + 1", scope).evaluate
    assert [run({"vars": {"n": n}}) for n in (1, 5, 1)] == [2, 6, 2]


def test_the_second_half_is_not_looked_at_when_the_first_decides(value: Value) -> None:
    assert value("vars.n == 3 or 1 / vars.tries == 1") is True
    assert value("vars.n == 4 and 1 / vars.tries == 1") is False
    assert value("vars.n == 3 ? 1 : 1 / vars.tries") == 1
    assert value("[0, 1].exists(x, x == 0 or 1 / x == 5)") is True


def test_an_expression_says_what_it_reads(scope: Scope) -> None:
    text = "event.aor == call.to.aor and groups.sales.exists(x, x.size() > vars.n)"
    text += " or json.a[0].b == (call.headers['X'] ?? '')"
    made = compile_expression(text, scope)
    assert made.roots == {"event", "call", "groups", "vars", "json"}
    assert made.reads == {
        ("event", "aor"),
        ("call", "to", "aor"),
        ("groups", "sales"),
        ("vars", "n"),
        ("json", "a", "[0]", "b"),
        ("call", "headers", "X"),
    }
    assert not made.is_constant
    assert repr(compile_expression("vars.n + 1", scope)) == "<Expression 'vars.n + 1': number>"


def test_constants_are_worked_out_at_load(scope: Scope) -> None:
    made = compile_expression("2 * 30s + [1, 2].map(x, x).size() * 1m", scope)
    assert (made.is_constant, made.constant, made.reads) == (True, 180.0, frozenset())
