"""What a user reads: code, message, help and the characters underlined."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.flow.expr import (
    BOOL,
    DURATION,
    NUMBER,
    TEXT,
    ExprError,
    Scope,
    Type,
    compile_expression,
    compile_template,
    enum,
    freeswitch_hint,
)

CASES = Path(__file__).parents[1] / "specification"
Refusal = Callable[..., ExprError]

ACCEPTANCE: list[tuple[str, str, Type | None, str]] = [
    # file:line, text as in the file, type expected there, help
    ("e02:8", "${event.contcat}", TEXT, "did you mean 'contact'?"),
    ("e02:10", "event.leg == 'calee'", BOOL, "did you mean 'callee'? possible values: caller, callee"),
    ("e03:8", "call from ${calle.from.user}", TEXT, "did you mean 'call'?"),
    ("e03:9", "${sound_prefix}/busy.wav", TEXT, freeswitch_hint("sound_prefix")),
    ("e05:5", "call.from.user", BOOL, "to test for non-empty text write call.from.user != ''"),
    ("e05:10", "call.duration > 30", BOOL, "write a duration such as 30s"),
    ("e05:14", '${call.headers["X-Id"]}', TEXT, "give a default: ${call.headers[\"X-Id\"] ?? '...'}"),
    ("e05:16", "${call.from.host == 'a'}", BOOL, "write: call.from.host == 'a'"),
    ("e05:18", "call.user == 5", BOOL, "write '5' (in quotes) to compare with text"),
    ("e10:7", "key ${secrets.PUSH_KEY}", TEXT, "the value would end up in logs, traces or SIP messages"),
    ("e10:17", "${phone.uri}", TEXT, "give a default with phone ?? '...', or test phone != null first"),
]


@pytest.mark.parametrize("place, text, expected, help", ACCEPTANCE, ids=[case[0] for case in ACCEPTANCE])
def test_the_acceptance_files_give_the_messages_of_the_language(
    place: str, text: str, expected: Type | None, help: str, scope: Scope
) -> None:
    name, line = place.split(":")
    path = next((CASES / "bad").glob(f"{name}_*"))
    column = path.read_text().splitlines()[int(line) - 1].index(text) + 1
    condition = " if: " in path.read_text().splitlines()[int(line) - 1] or text.startswith(("event", "call.from.user"))
    compile = compile_expression if condition else compile_template
    with pytest.raises(ExprError) as caught:
        compile(text, replace(scope, hints=freeswitch_hint), expected)
    error = caught.value
    printed = f"{path.name}:{line}:{column + error.offset}: error {error.code}: {error.message}"
    assert printed in (CASES / "expected.txt").read_text().splitlines()
    assert error.help == help


UNDERLINED = [
    ("event.contcat", "contcat"),
    ("event.leg == 'calee'", "'calee'"),
    ("calle.from.user", "calle"),
    ("call.duration > 30", "call.duration > 30"),
    ("true and call.user == 5", "call.user == 5"),
    ("phone.uri == 'x'", "phone"),
    ("size(call.to.user) > 'x'", "size(call.to.user) > 'x'"),
    ("call.to.user.startswith('8')", "startswith"),
    ("(call.to.user).startswith('8')", "startswith"),
    ("event.mobile and call.to.user", "call.to.user"),
    ("call.to.user.matches('(a')", "'(a'"),
    ("event.digit == 2 and\n  event.lge == 'caller'", "lge"),
    ("call.headers['a'] == 'x'", "call.headers['a']"),
    ("[1, 2, 'x']", "'x'"),
    ("1 +", ""),
    ("a b", "b"),
]


@pytest.mark.parametrize("text, underlined", UNDERLINED)
def test_the_place_of_a_mistake_is_underlined(text: str, underlined: str, refusal: Refusal) -> None:
    error = refusal(text)
    assert text[error.offset : error.offset + error.length] == underlined
    assert error.length >= 1


@pytest.mark.parametrize("before", ["", "x", "to ${call.to.user} and ", "$${a} "])
@pytest.mark.parametrize("text, underlined", [case for case in UNDERLINED if case[1]])
def test_the_place_is_right_inside_a_longer_text(text: str, underlined: str, before: str, refusal: Refusal) -> None:
    whole = f"{before}${{ {text}}}!"
    error = refusal(whole, TEXT, template=True)
    assert whole[error.offset : error.offset + error.length] == underlined


def mistakes() -> Iterator[tuple[str, str, str, str]]:
    """The cases of mistakes.txt, and a few that cannot be seen in a file."""
    for case in (Path(__file__).parent / "mistakes.txt").read_text().split("\n\n"):
        text, *verdict = [line.strip() for line in case.splitlines()]
        if verdict:
            code, message = verdict[0].split(" ", 1)
            yield text, code, message, verdict[1].removeprefix("= ") if len(verdict) > 1 else ""
    yield "", "E201", "the expression is empty", "write a value, for example call.from.user"
    yield "\u2018x\u2019", "E201", "this is a typographic quote", "write ' or \""
    blanks = {"\xa0": "no-break space", "\u202f": "narrow no-break space", "\u2009": "thin space"}
    for blank, name in (blanks | {"\u200b": "zero-width space", "\u3000": "ideographic space"}).items():
        yield f"1{blank}+ 1", "E201", f"there is a {name} (U+{ord(blank):04X}) here", "type an ordinary space"


MISTAKES = list(mistakes())


@pytest.mark.parametrize("text, code, message, help", MISTAKES, ids=[case[0] or "empty" for case in MISTAKES])
def test_each_mistake_has_its_message(text: str, code: str, message: str, help: str, refusal: Refusal) -> None:
    error = refusal(text)
    assert (error.code, error.message, error.help) == (code, message, help)


@pytest.mark.parametrize(
    "text, expected, code, message, help",
    [
        ("vars.n", TEXT, "E203", "expected text here, but 'vars.n' is number", "write string(vars.n)"),
        ("vars.who", NUMBER, "E203", "expected number here, but 'vars.who' is text", "write int(vars.who)"),
        ("30", DURATION, "E203", "expected duration here, but '30' is number", "write a duration such as 30s"),
        (
            "groups.sales",
            TEXT,
            "E203",
            "expected text here, but 'groups.sales' is list of digits",
            "write groups.sales.join(', ')",
        ),
        ("contact", TEXT, "E203", "expected text here, but 'contact' is contact", "write contact.uri"),
        ("'rot'", enum("red", "green"), "E204", "this is red/green, never 'rot'", "possible values: red, green"),
        (
            "'gren'",
            enum("red", "green"),
            "E204",
            "this is red/green, never 'gren'",
            "did you mean 'green'? possible values: red, green",
        ),
        ("call.user", TEXT, "E208", "'call.user' may be missing here", "give a default: call.user ?? '...'"),
        (
            "phone?.mobile",
            BOOL,
            "E208",
            "'phone?.mobile' may be missing here",
            "give a default: phone?.mobile ?? false",
        ),
        ("null", TEXT, "E203", "expected text here, but 'null' is nothing", ""),
    ],
)
def test_a_value_that_does_not_fit_its_place(
    text: str, expected: Type, code: str, message: str, help: str, refusal: Refusal
) -> None:
    error = refusal(text, expected)
    assert (error.code, error.message, error.help) == (code, message, help)


def test_a_long_expression_is_not_repeated_in_the_message(refusal: Refusal) -> None:
    text = " + ".join(["call.from.user"] * 9)
    assert refusal(text, BOOL).message == "expected true/false here, but this is digits"


def test_unknown_names_ask_the_scope_for_help_only_when_nothing_is_near(scope: Scope) -> None:
    asked = []

    def hint(name: str) -> str:
        asked.append(name)
        return f"ask about {name}"

    hinted = replace(scope, hints=hint)
    for text, help in (("calle.x", "did you mean 'call'?"), ("domain_name", "ask about domain_name")):
        with pytest.raises(ExprError) as caught:
            compile_expression(text, hinted)
        assert caught.value.help == help
    assert asked == ["domain_name"]


def test_secrets_are_read_where_the_scope_says_so(scope: Scope) -> None:
    names = {**scope.names, "secrets": scope.names["vars"]}
    allowed = Scope(names, secrets=True)
    assert compile_template("key=${secrets.who}", allowed, TEXT).evaluate({"secrets": {"who": "x"}}) == "key=x"
    with pytest.raises(ExprError, match="E211"):
        compile_template("key=${secrets.who}", Scope(names), TEXT)


def test_a_secret_in_text_underlines_all_of_it(refusal: Refusal) -> None:
    error = refusal("key ${ secrets.A } x", TEXT, template=True)
    assert (error.offset, error.length) == (4, len("${ secrets.A }"))


def test_what_a_help_line_tells_to_write_can_be_written(scope: Scope) -> None:
    told = [
        re.fullmatch(r"write ((int|string|size)\(.+\)|\S+\.(lower|join|contains)\(.*\)|.+ in \S+)", case[3])
        for case in MISTAKES
    ]
    told_code = {found[1] for found in told if found and not re.search(r"\bx\b", found[1])}
    assert len(told_code) > 5
    for text in told_code - {"call.to.user.contains(vars.n)"}:
        compile_expression(text, scope)
