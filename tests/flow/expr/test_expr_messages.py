"""What a user reads: code, message, help and the characters underlined."""

from __future__ import annotations

import re
from collections.abc import Callable
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

CASES = Path(__file__).parents[4] / "shared" / "flowlang-cases"
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


@pytest.mark.skipif(not CASES.is_dir(), reason="the acceptance files of the language are not beside the repository")
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


MISTAKES = [
    # --- E201 syntax
    ("", "E201", "the expression is empty", "write a value, for example call.from.user"),
    ("x = 3", "E201", "a single = does not compare", "write =="),
    ("a & b", "E201", "'&' is no operator", "write and"),
    ("a ~ b", "E201", "'~' is no operator", "to match a pattern write x.matches('...')"),
    ("vars.n is null", "E201", "expected an operator or the end here, found 'is'", "write == or !="),
    ("event.mobile AND true", "E201", "expected an operator or the end here, found 'AND'", "write and"),
    ("if vars.low then 1", "E201", "expected an operator or the end here, found 'vars'", "a choice is written  a ? b : c"),
    ("event.mobile ? 1", "E201", "expected ':' here, found the end of the expression", "a choice is written  a ? b : c"),
    ("'abc", "E201", "the text that starts here has no closing quote", "add '"),
    ('"abc', "E201", "the text that starts here has no closing quote", 'add "'),
    ("1 < 2 < 3", "E201", "comparisons cannot be chained", "write a < b and b < c"),
    ("vars.n == not vars.low", "E201", "'not' cannot stand here", "write parentheses: (not a)"),
    ("(1", "E201", "expected ')' here, found the end of the expression", ""),
    ("[1 2]", "E201", "expected ',' here, found '2'", "a missing ]?"),
    ("call.", "E201", "expected a name after the dot, found the end of the expression", ""),
    ("call.'x'", "E201", "expected a name after the dot, found ''x''", ""),
    ("and", "E201", "expected a value here, found 'and'", ""),
    ("\u2018x\u2019", "E201", "this is a typographic quote", "write ' or \""),
    ("1\u00a0+ 1", "E201", "there is a non-breaking space here", "type an ordinary space"),
    ("$call", "E201", "'$' belongs to no name here", "write the name alone"),
    ("#", "E201", "unexpected character '#'", ""),
    (
        "vars.limit > 30sec",
        "E201",
        "'30sec' is neither a number nor a duration",
        "durations are written 500ms, 30s, 10m or 2h; text stands in quotes",
    ),
    (
        "call.user ?? 0 + 1",
        "E201",
        "it is not clear here whether ?? or + comes first",
        "write parentheses: (a ?? b) + c",
    ),
    ("9223372036854775808", "E201", "this number is larger than 64 bits can hold", "put it in quotes if it is text"),
    # --- E203 types
    ("vars.n and true", "E203", "expected true/false here, but 'vars.n' is number", "to test for a number other than 0 write vars.n != 0"),
    ("not call.duration", "E203", "expected true/false here, but 'call.duration' is duration", "to test for a duration other than 0 write call.duration != 0s"),
    ("groups.sales or true", "E203", "expected true/false here, but 'groups.sales' is list of digits", "to test for a non-empty list write size(groups.sales) > 0"),
    ("call.headers or true", "E203", "expected true/false here, but 'call.headers' is map of text", "to test for a key write 'key' in call.headers"),
    ("call.user or true", "E203", "expected true/false here, but 'call.user' is text or nothing", "to test whether it is there write call.user != null"),
    ("out.gateway ? 1 : 2", "E203", "expected true/false here, but 'out.gateway' is text or nothing", "to test whether it is there write out.gateway != null"),
    ("call.duration == 30", "E203", "this compares duration with number, so it is always false", "write a duration such as 30s"),
    ("45 < call.duration", "E203", "cannot compare number with duration", "write a duration such as 45s"),
    ("vars.who != 5", "E203", "this compares text with number, so it is always true", "write '5' (in quotes) to compare with text"),
    ("event.digit > 5", "E203", "cannot compare digits with number", "write int(event.digit) to compare as numbers"),
    ("event.digit == vars.n", "E203", "this compares digits with number, so it is always false", "write int(event.digit) to compare as numbers"),
    ("vars.who == vars.n", "E203", "this compares text with number, so it is always false", "write string(vars.n) to compare with text"),
    ("event.leg == 1", "E203", "this compares caller/callee with number, so it is always false", "write '1' (in quotes) to compare with text"),
    ("event.mobile == 1", "E203", "this compares true/false with number, so it is always false", "true/false needs no comparison: write event.mobile or not event.mobile"),
    ("event.mobile < true", "E203", "cannot compare true/false with true/false", "true/false needs no comparison: write event.mobile or not event.mobile"),
    ("call.to == 'x'", "E203", "this compares address with text, so it is always false", "compare an attribute, such as call.to.user"),
    ("vars.n in call.to.user", "E203", "'in' needs a list or a map behind it, but 'call.to.user' is digits", "write call.to.user.contains(vars.n)"),
    ("vars.n in groups.sales", "E203", "a list of digits never holds number", ""),
    ("vars.n in call.headers", "E203", "expected text here, but 'vars.n' is number", "write string(vars.n)"),
    ("1 in ['a']", "E203", "this compares number with text, so it is always false", "write '1' (in quotes) to compare with text"),
    ("'a' + 1", "E203", "cannot add number to text", "write string(1) to put it into text"),
    ("call.duration + 5", "E203", "cannot add number to duration", "write a duration such as 5s"),
    ("now - 5", "E203", "cannot subtract number from time", "write a duration such as 5s"),
    ("event.digit * 2", "E203", "cannot multiply digits by number", "write int(event.digit) to calculate with it"),
    ("'a' - 'b'", "E203", "cannot subtract text from text", ""),
    ("-vars.who", "E203", "expected number here, but 'vars.who' is text", "write int(vars.who)"),
    ("[1, 'a']", "E203", "a list holds values of one type, but this mixes number with text", ""),
    ("vars.low ? 1 : 'a'", "E203", "the two results of ? : differ: number and text", "give both the same type"),
    ("out.gateway ?? 1", "E203", "the default is number, but 'out.gateway' is text", "both sides of ?? have one type"),
    ("vars.who.drop('2')", "E203", "expected number here, but ''2'' is text", "write int('2')"),
    ("vars.who.contains(5)", "E203", "expected text here, but '5' is number", "write string(5)"),
    ("vars.n.lower()", "E203", "lower works on text, but 'vars.n' is number", "write string(vars.n) first"),
    ("groups.sales.contains('1')", "E203", "contains works on text, but 'groups.sales' is list of digits", "write '1' in groups.sales"),
    ("vars.who.exists(x, true)", "E203", "exists works on lists, but 'vars.who' is text", ""),
    ("found.join(',')", "E203", "join puts texts together, but 'found' is list of contact", "choose an attribute with .map(x, x.name) first"),
    ("groups.sales[-1]", "E203", "a list is counted from 0", "the first item is [0]"),
    ("1 / 0", "E203", "this can never be worked out: division by zero (in 1 / 0)", ""),
    # --- E204 values
    ("event.leg in ['caller', 'both']", "E204", "'event.leg' is never 'both'", "possible values: caller, callee"),
    ("'calee' != event.leg", "E204", "'event.leg' is never 'calee'", "did you mean 'callee'? possible values: caller, callee"),
    ("event.leg == out.outcome", "E204", "'event.leg' and 'out.outcome' have no value in common", "caller/callee is compared with answered/busy"),
    # --- E205 E206 names
    ("tries > 1", "E205", "unknown name 'tries'", "did you mean 'vars.tries'?"),
    ("qqqq", "E205", "unknown name 'qqqq'", "known: call, contact, event, found, groups, json, now, out, phone, vars"),
    ("vars.trys", "E205", "unknown variable 'trys'", "declare it first: add  trys:  under vars: of flow 'main'"),
    ("vars.trise", "E205", "unknown variable 'trise'", "did you mean 'tries'?"),
    ("call.from.usr", "E206", "call.from has no attribute 'usr'", "did you mean 'user'?"),
    ("call.from.zzz", "E206", "call.from has no attribute 'zzz'", "known: aor, host, uri, user"),
    ("phone?.contcat", "E206", "phone has no attribute 'contcat'", "did you mean 'contact'?"),
    ("call.to.user.length", "E206", "call.to.user is digits and has no attribute 'length'", "write size(call.to.user)"),
    ("call.to.user.lower", "E206", "call.to.user is digits and has no attribute 'lower'", "write call.to.user.lower()"),
    ("groups['sale']", "E206", "groups has no attribute 'sale'", "did you mean 'sales'?"),
    ("vars.who[0]", "E206", "only lists and maps have [ ], but 'vars.who' is text", ""),
    ("call[vars.who]", "E206", "attributes are named by a text in quotes", "write ['name'] or .name"),
    # --- E207 functions
    ("vars.who.startswith('a')", "E207", "unknown function 'startswith'", "did you mean 'startsWith'?"),
    ("lower(vars.who)", "E207", "lower needs a value to work on", "write x.lower()"),
    ("size()", "E207", "size needs a value to work on", "write size(x)"),
    ("vars.who.replace('a')", "E207", "replace takes 2 arguments, but 1 is given", "write x.replace(a, b)"),
    ("vars.who.lower('a', 'b')", "E207", "lower takes no argument, but 2 are given", "write x.lower()"),
    ("groups.sales.join('a', 'b')", "E207", "join takes 0 to 1 arguments, but 2 are given", "write x.join(a)"),
    ("exists(groups.sales)", "E207", "exists needs a list to work on", "write list.exists(x, condition over x)"),
    ("groups.sales.exists(true)", "E207", "exists takes a name and an expression", "write list.exists(x, condition over x)"),
    ("groups.sales.exists(call, true)", "E207", "'call' is already a name here", "choose another name for the items of exists"),
    ("vars.who.matches(vars.who)", "E207", "the pattern of matches has to be a constant", "write it as text in quotes; to look for a value use contains"),
    ("vars.who.like('a' + vars.who)", "E207", "the pattern of like has to be a constant", "write it as text in quotes; to look for a value use contains"),
    ("vars.who.matches('(')", "E207", "this is no regular expression: missing ): (", ""),
    ("vars.who.matches('(?=a)')", "E207", "this is no regular expression: invalid perl operator: (?=", "patterns are RE2's: no look-ahead, no back references"),
    ("vars.who.matches('(a)\\\\1')", "E207", "this is no regular expression: invalid escape sequence: \\1", "patterns are RE2's: no look-ahead, no back references"),
    # --- E208 null
    ("call.user.lower() == 'x'", "E208", "'call.user' may be missing here", "give a default with call.user ?? '...', or test call.user != null first"),
    ("event.group == 'sales'", "E208", "'event.group' may be missing here", "give a default with event.group ?? '...', or test event.group != null first"),
    ("phone?.expires > 3", "E208", "'phone?.expires' may be missing here", "give a default with phone?.expires ?? 0, or test phone?.expires != null first"),
    ("phone?.mobile and true", "E208", "'phone?.mobile' may be missing here", "give a default with phone?.mobile ?? false, or test phone?.mobile != null first"),
    # --- E209 E211
    ("${call.from.user} == 'a'", "E209", "this key takes an expression, so ${ } is not needed", "write: call.from.user == 'a'"),
    ("'${call.from.user}' == 'a'", "E209", "this key takes an expression, so ${ } is not needed", "write: call.from.user == 'a'"),
    ("secrets.KEY == 'a'", "E211", "secrets may only be used in http requests (url, headers, auth, body)", "the value would end up in logs, traces or SIP messages"),
]  # fmt: skip


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
        ("groups.sales", TEXT, "E203", "expected text here, but 'groups.sales' is list of digits", "write groups.sales.join(', ')"),
        ("contact", TEXT, "E203", "expected text here, but 'contact' is contact", "write contact.uri"),
        ("'rot'", enum("red", "green"), "E204", "this is red/green, never 'rot'", "possible values: red, green"),
        ("'gren'", enum("red", "green"), "E204", "this is red/green, never 'gren'", "did you mean 'green'? possible values: red, green"),
        ("call.user", TEXT, "E208", "'call.user' may be missing here", "give a default: call.user ?? '...'"),
        ("phone?.mobile", BOOL, "E208", "'phone?.mobile' may be missing here", "give a default: phone?.mobile ?? false"),
        ("null", TEXT, "E203", "expected text here, but 'null' is nothing", ""),
    ],
)  # fmt: skip
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
    told = [re.fullmatch(r"write ((int|string|size)\(.+\)|\S+\.(lower|join|contains)\(.*\)|.+ in \S+)", case[3]) for case in MISTAKES]
    told_code = {found[1] for found in told if found and not re.search(r"\bx\b", found[1])}
    assert len(told_code) > 5
    for text in told_code - {"call.to.user.contains(vars.n)"}:
        compile_expression(text, scope)
