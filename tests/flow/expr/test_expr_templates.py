"""Text with `${…}`: what it becomes, and what it may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import StepError
from orchestrator.flow.expr import (
    ANY,
    BOOL,
    DIGITS,
    DURATION,
    NUMBER,
    TEXT,
    ExprError,
    Scope,
    Type,
    compile_template,
    enum,
    list_of,
    optional,
)

Written = Callable[..., str]
Refusal = Callable[..., ExprError]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain", "plain"),
        ("", ""),
        ("call from ${call.from.user}!", "call from alice!"),
        ("${call.from.user}@${call.domain}", "alice@example.com"),
        ("n=${vars.n} low=${vars.low} for ${vars.limit}", "n=3 low=false for 90"),
        ("at ${event.at}", "at 2001-09-09T01:46:40Z"),
        ("${vars.n}", "3"),
        ("${vars.limit / 4}", "22.5"),
        ("${1500ms}s", "1.5s"),
        ("${vars.n / 2.0 + 1}", "2.5"),
        ("${event.mobile}", "true"),
        ("leg ${event.leg}", "leg callee"),
        ("${json.name}: ${json.n}", "bob: 2"),
        ("${json.list}", '["x",{"y":"2"}]'),
        ("$${sound_prefix}/x.wav", "${sound_prefix}/x.wav"),
        ("$${a}${call.id}$$", "${a}call-1$$"),
        ("tone_stream://%(1000,4000,425)", "tone_stream://%(1000,4000,425)"),
        ("${call.user ?? '?'}", "?"),
        ('${out.gateway ?? "}"}', "}"),
        ("{${'{'}}", "{{}"),
        ("%s {0} \\n ${'\\n'}", "%s {0} \\n \n"),
        ("size ${size(out.tried)}", "size 2"),
        ("${ vars.n\n + 1 }", "4"),
    ],
)
def test_what_a_text_becomes(text: str, expected: str, written: Written) -> None:
    assert written(text) == expected


@pytest.mark.parametrize(
    "text, printed, value, alone",
    [
        ("${vars.n}", "number", 3, True),
        ("${event.mobile}", "true/false", True, True),
        ("${call.duration}", "duration", 61.25, True),
        ("${groups.sales}", "list of digits", ["101", "102", "007"], True),
        ("${event.digit}", "digits", "2", True),
        ("${call.user}", "text or nothing", None, True),
        ("${event.leg}", "caller/callee", "callee", True),
        (" ${vars.n}", "text", " 3", False),
        ("${vars.n}${vars.n}", "text", "33", False),
        ("3", "text", "3", False),
        ("$${vars.n}", "text", "${vars.n}", False),
    ],
)
def test_one_expression_alone_keeps_its_type(
    text: str, printed: str, value: object, alone: bool, scope: Scope, values: Any
) -> None:
    made = compile_template(text, scope)
    assert (str(made.type), made.evaluate(values), made.alone) == (printed, value, alone)


@pytest.mark.parametrize(
    "text, expected, value",
    [
        ("${vars.n}", NUMBER, 3),
        ("${vars.n}", TEXT, "3"),
        ("${vars.n}", DIGITS, "3"),
        ("${vars.n}", ANY, 3),
        ("${vars.limit}", DURATION, 90.0),
        ("${call.user}", optional(TEXT), None),
        ("${event.digit}", optional(DIGITS), "2"),
        ("${event.leg}", enum("caller", "callee", "both"), "callee"),
        ("${json.n}", NUMBER, 2),
        ("${json.list}", list_of(ANY), ["x", {"y": "2"}]),
        ("${json.nope}", optional(TEXT), None),
        ("both", enum("caller", "callee", "both"), "both"),
        ("x${vars.n}", optional(TEXT), "x3"),
    ],
)
def test_a_text_fits_the_type_of_its_place(text: str, expected: Type, value: object, scope: Scope, values: Any) -> None:
    assert compile_template(text, scope, expected).evaluate(values) == value


@pytest.mark.parametrize(
    "text, expected, code, message, help, underlined",
    [
        (
            "${call.from.user}",
            NUMBER,
            "E203",
            "expected number here, but 'call.from.user' is digits",
            "write int(call.from.user)",
            "call.from.user",
        ),
        (
            "n ${vars.n}",
            NUMBER,
            "E203",
            "expected number here, but text around ${ } makes it text",
            "write ${ } alone to keep the type of what is inside",
            "n ${vars.n}",
        ),
        ("abc", NUMBER, "E203", "expected number here, but 'abc' is text", "write int(abc)", "abc"),
        (
            "bth",
            enum("caller", "both"),
            "E204",
            "this is caller/both, never 'bth'",
            "did you mean 'both'? possible values: caller, both",
            "bth",
        ),
        (
            "to ${groups.sales}",
            TEXT,
            "E203",
            "expected text here, but 'groups.sales' is list of digits",
            "write groups.sales.join(', ')",
            "groups.sales",
        ),
        (
            "to ${call.from}",
            TEXT,
            "E203",
            "expected text here, but 'call.from' is address",
            "write call.from.uri",
            "call.from",
        ),
        (
            "to ${call.user}",
            TEXT,
            "E208",
            "'call.user' may be missing here",
            "give a default: ${call.user ?? '...'}",
            "call.user",
        ),
        (
            "${phone?.expires}",
            NUMBER,
            "E208",
            "'phone?.expires' may be missing here",
            "give a default: ${phone?.expires ?? 0}",
            "phone?.expires",
        ),
        ("${null}", TEXT, "E203", "expected text here, but 'null' is nothing", "", "null"),
        ("${ tries }", TEXT, "E205", "unknown name 'tries'", "did you mean 'vars.tries'?", "tries"),
        ("${1 / 0}", NUMBER, "E203", "this can never be worked out: division by zero (in ${1 / 0})", "", "1 / 0"),
        (
            "x ${99999999999999999999}",
            TEXT,
            "E201",
            "this number is larger than 64 bits can hold",
            "put it in quotes if it is text",
            "99999999999999999999",
        ),
        (
            "${vars.low ? 1}",
            NUMBER,
            "E201",
            "expected ':' here, found the end of the expression",
            "a choice is written  a ? b : c",
            "}",
        ),
    ],
)
def test_what_a_text_may_not_hold(
    text: str, expected: Type, code: str, message: str, help: str, underlined: str, refusal: Refusal
) -> None:
    error = refusal(text, expected, template=True)
    assert (error.code, error.message, error.help) == (code, message, help)
    assert text[error.offset : error.offset + error.length] == underlined


@pytest.mark.parametrize(
    "text, json, kind",
    [
        ("x ${json.gone}", {}, "expr.missing"),
        ("${json.gone}", {"gone": None}, "expr.missing"),
        ("x ${json.odd}", {"odd": object()}, "expr.value"),
        ("x ${json.f}", {"f": float("inf")}, "expr.value"),
        ("x ${json.f}", {"f": float("nan")}, "expr.value"),
    ],
)
def test_what_cannot_be_written_is_a_step_error(text: str, json: Any, kind: str, scope: Scope) -> None:
    with pytest.raises(StepError) as caught:
        compile_template(text, scope, TEXT).evaluate({"json": json})
    assert caught.value.type == kind


def test_a_caller_cannot_write_expressions(written: Written) -> None:
    """What comes in from outside is a value; it is never read again."""
    assert written("to ${vars.who}", vars={"who": "${call.id} $${x}"}) == "to ${call.id} $${x}"


def test_a_constant_text_is_known_at_load(scope: Scope) -> None:
    made = compile_template("a$${b}", scope, TEXT)
    assert (made.is_constant, made.constant, made.type) == (True, "a${b}", TEXT)
    assert compile_template("a ${'b'}", scope, TEXT).constant == "a b"
    assert not compile_template("a ${vars.n}", scope, TEXT).is_constant


def test_a_text_says_what_it_reads(scope: Scope) -> None:
    made = compile_template("${call.id} ${vars.n} ${call.headers['X'] ?? ''}", scope)
    assert made.reads == {("call", "id"), ("vars", "n"), ("call", "headers", "X")}
    assert made.roots == {"call", "vars"}


def test_a_condition_given_as_text_is_a_condition(scope: Scope, values: Any) -> None:
    assert compile_template("${event.mobile}", scope, BOOL).evaluate(values) is True
