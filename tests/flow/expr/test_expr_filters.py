"""Filters: what becomes a hash key, what is left, and that taking a filter apart never changes what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import StepError
from orchestrator.flow.expr import (
    ANY,
    ExprError,
    Match,
    Scope,
    all_of,
    compile_expression,
    match_attribute,
    record,
    split_filter,
)

EVENT = {"digit": "2", "leg": "callee", "aor": "bob@example.com", "mobile": True, "expires": 60, "group": None}


def keys(text: str, scope: Scope, values: Any) -> dict[str, Any]:
    """The keys of a filter with their values, worked out without an event."""
    env = {name: value for name, value in values.items() if name != "event"}
    return {name: value.evaluate(env) for name, value in split_filter(text, scope).equals.items()}


@pytest.mark.parametrize(
    "text, equals, rest",
    [
        ("event.aor == call.to.aor", {"aor": "0049301234@example.com"}, None),
        ("call.to.aor == event.aor", {"aor": "0049301234@example.com"}, None),
        ("event.digit == 2", {"digit": "2"}, None),
        ("007 == event.digit", {"digit": "007"}, None),
        ("event.expires == 60", {"expires": 60}, None),
        ("event.leg == 'callee'", {"leg": "callee"}, None),
        ("event.mobile", {"mobile": True}, None),
        ("not event.mobile", {"mobile": False}, None),
        ("event.mobile == true", {"mobile": True}, None),
        ("event.lasted == 1m", {"lasted": 60.0}, None),
        ("event.aor == call.from.user + '@' + call.domain", {"aor": "alice@example.com"}, None),
        ("event.aor == call.from.aor.lower()", {"aor": "alice@example.com"}, None),
        ("event.aor == (call.headers['X-Id'] ?? '')", {"aor": "42"}, None),
        ("event.aor == (groups.sales == [] ? 'a' : 'b')", {"aor": "b"}, None),
        ("event.aor == (phone?.aor ?? 'x')", {"aor": "x"}, None),
        ("event.aor == call.to.aor and event.mobile", {"aor": "0049301234@example.com", "mobile": True}, None),
        ("(event.aor == 'a' and event.digit == 1) and event.mobile", {"aor": "a", "digit": "1", "mobile": True}, None),
        ("event.aor == 'a' and event.expires > 0", {"aor": "a"}, "event.expires > 0"),
        (
            "event.expires > 0 and event.aor == 'a' and event.tags == []",
            {"aor": "a"},
            "event.expires > 0 and event.tags == []",
        ),
        ("event.aor == 'a' and event.aor == 'b'", {"aor": "a"}, "event.aor == 'b'"),
        ("event.group != null and event.group == 7", {"group": "7"}, "event.group != null"),
        ("event.aor == 'a' and (event.mobile or event.digit == 1)", {"aor": "a"}, "(event.mobile or event.digit == 1)"),
    ],
)
def test_equality_becomes_a_key(text: str, equals: dict[str, Any], rest: str | None, scope: Scope, values: Any) -> None:
    found = split_filter(text, scope)
    assert keys(text, scope, values) == equals
    assert (found.rest.source if found.rest else None) == rest
    assert found.whole.source == text


@pytest.mark.parametrize(
    "text",
    [
        "event.aor != 'a'",
        "event.aor == 'a' or event.mobile",
        "not (event.aor == 'a')",
        "event.aor == event.contact",
        "event.aor == vars.who",  # a variable may change while the subscription waits
        "event.at == now",
        "event.lasted == call.duration",
        "event.mobile == (call.user != null)",
        "event.aor == 'n' + string(vars.n)",
        "event.expires == int(call.to.user)",  # would fail when the filter arms and not when the event comes
        "event.expires == 60 / size(call.to.user)",
        "event.expires == 60 + size(call.to.user)",
        "call.from.user != '' and call.headers['A'] != null and event.aor == call.headers['A'].lower()",
        "event.data == 2",
        "event.tags == ['a']",
        "event.aor == json.name",
        "phone?.aor == null and phone == null",
        "[event].exists(x, x.mobile)",
        "event.aor in ['a', 'b']",
        "event.headers['a'] == null",
    ],
)
def test_what_is_no_key_is_evaluated_with_each_event(text: str, scope: Scope) -> None:
    found = split_filter(text, scope)
    assert found.equals == {}
    assert found.rest is found.whole


def test_a_guarded_value_stays_behind_its_guard(scope: Scope, values: Any) -> None:
    text = "call.from.user.matches('^[0-9]+$') and event.expires == int(call.from.user)"
    found = split_filter(text, scope)
    assert found.equals == {}
    assert found.rest is not None
    assert found.rest.evaluate(values) is False  # alice is no number: no error


def test_what_the_place_knows_about_null_holds_when_the_filter_arms(scope: Scope) -> None:
    inside = scope.narrow({("call", "headers", "A")})
    assert set(split_filter("event.aor == call.headers['A']", inside).equals) == {"aor"}
    with pytest.raises(ExprError, match="E208"):
        split_filter("event.aor == call.headers['A']", scope)


def test_an_unknown_event_is_not_indexed(scope: Scope) -> None:
    found = split_filter("event.aor == 'a' and event.mobile", scope.extend({"event": ANY}))
    assert found.equals == {}
    assert found.whole.evaluate({"event": {"aor": "a", "mobile": True}}) is True


def test_a_filter_tells_whether_it_looks_at_the_event(scope: Scope) -> None:
    assert "event" in split_filter("event.mobile", scope).whole.roots
    assert "event" not in split_filter("call.to.user == 'bob'", scope).whole.roots


@pytest.mark.parametrize(
    "text, code",
    [("event.aor", "E203"), ("event.aor == ${call.id}", "E209"), ("event.aorr == 'a'", "E206"), ("", "E201")],
)
def test_a_filter_is_checked_like_any_condition(text: str, code: str, scope: Scope) -> None:
    with pytest.raises(ExprError) as caught:
        split_filter(text, scope)
    assert caught.value.code == code


ATOMS = [
    "event.aor == call.to.aor",
    "event.digit == 2",
    "'2' == event.digit",
    "event.mobile",
    "not event.mobile",
    "event.expires == 60",
    "event.expires > 30",
    "event.leg != 'caller'",
    "event.group != null",
    "(event.group ?? '') == '7'",
    "vars.n == 3",
    "event.aor == vars.who",
    "(event.mobile or event.digit == 1)",
]


@settings(max_examples=150, deadline=None)
@given(
    atoms=st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5),
    digit=st.sampled_from(["1", "2"]),
    mobile=st.booleans(),
    expires=st.sampled_from([60, 60.0, 10]),
    group=st.sampled_from([None, "7"]),
    aor=st.sampled_from(["0049301234@example.com", "carol", "x"]),
)
def test_keys_and_rest_together_mean_the_whole_filter(
    scope: Scope, values: Any, atoms: list[str], digit: str, mobile: bool, expires: float, group: str | None, aor: str
) -> None:
    text = " and ".join(atoms)
    event = {**EVENT, "digit": digit, "mobile": mobile, "expires": expires, "group": group, "aor": aor}
    env = {**values, "event": event}
    found = split_filter(text, scope)
    armed = keys(text, scope, values)
    hit = all({event[name]: True}.get(value, False) for name, value in armed.items())  # as a hash sees it
    assert (hit and (found.rest is None or found.rest.evaluate(env))) == found.whole.evaluate(env)


# --- where: maps -----------------------------------------------------------------------------------------------------


def fits(match: Match, attribute: str, event: dict[str, Any], env: dict[str, Any]) -> bool:
    """Whether an event fits one line of a map, the way the bus decides it."""
    if match.equals is not None:
        return bool(event[attribute] == match.equals.evaluate(env))
    assert match.test is not None
    return bool(match.test.evaluate({**env, "event": event}))


@pytest.mark.parametrize(
    "attribute, text, good, bad",
    [
        ("aor", "bob@example.com", "bob@example.com", "bob@example.org"),
        ("aor", "${call.to.aor}", "0049301234@example.com", "bob@example.com"),
        ("aor", "${call.from.user}@${call.domain}", "alice@example.com", "alice@example.org"),
        ("aor", "*@example.com", "bob@example.com", "bob@example.org"),
        ("aor", "*@${call.domain}", "bob@example.com", "bob@example.org"),
        ("aor", "?${call.from.user}*", "xalice!", "alice!"),
        ("aor", "$${x}", "${x}", "x"),
        ("digit", "2", "2", "02"),
        ("digit", "007", "007", "7"),
        ("digit", "${vars.n}", "3", "4"),
        ("digit", "[0-9]", "[0-9]", "5"),
        ("leg", "callee", "callee", "caller"),
        ("expires", "60", 60, 61),
        ("expires", "-1", -1, 1),
        ("expires", "${vars.n * 20}", 60, 61),
        ("mobile", "true", True, False),
        ("mobile", "false", False, True),
        ("mobile", "${vars.low}", False, True),
        ("lasted", "1m", 60.0, 61.0),
        ("lasted", "${vars.limit}", 90.0, 91.0),
        ("group", "sales", "sales", None),
        ("group", "s*", "sales", None),
        ("group", "*${vars.n}", "x3", None),
        ("data", "2", "2", [2]),
        ("data", "${vars.n}", 3, {"n": 3}),
    ],
)
def test_a_line_of_a_map(attribute: str, text: str, good: Any, bad: Any, scope: Scope, values: Any) -> None:
    match = match_attribute(attribute, text, scope)
    assert (match.equals is None) != (match.test is None)
    env = {name: value for name, value in values.items() if name != "event"}
    assert fits(match, attribute, {attribute: good}, env)
    assert not fits(match, attribute, {attribute: bad}, env)


@pytest.mark.parametrize(
    "attribute, text", [("aor", "${call.to.aor}"), ("digit", "2"), ("mobile", "true"), ("aor", "${vars.who}")]
)
def test_exact_lines_are_keys(attribute: str, text: str, scope: Scope) -> None:
    assert match_attribute(attribute, text, scope).equals is not None


@pytest.mark.parametrize("caller", ["*", "*@example.com", "?????", "[a-z]*"])
def test_a_wildcard_that_a_caller_sends_is_a_letter(caller: str, scope: Scope, values: Any) -> None:
    env = {**values, "call": {**values["call"], "from": {"user": caller, "aor": caller}}}
    exact = match_attribute("aor", "${call.from.aor}", scope)
    glob = match_attribute("aor", "sip:*${call.from.aor}", scope)
    assert not fits(exact, "aor", {"aor": "alice@example.com"}, env)
    assert not fits(glob, "aor", {"aor": "sip:alice@example.com"}, env)
    assert fits(exact, "aor", {"aor": caller}, env)
    assert fits(glob, "aor", {"aor": f"sip:x{caller}"}, env)


def test_values_are_those_of_the_flow_around(scope: Scope) -> None:
    """`where: {ip: '${event.ip}'}` waits for the next event with the address of the one that started the flow."""
    outer = scope.extend({"event": record("event", {"ip": scope.names["vars"].fields["who"]})})
    match = match_attribute("aor", "${event.ip}", scope, outer)
    assert match.equals is not None
    assert match.equals.evaluate({"event": {"ip": "10.0.0.1"}}) == "10.0.0.1"
    with pytest.raises(ExprError, match="the event of the flow around"):
        match_attribute("aor", "*${event.ip}", scope, outer)
    with pytest.raises(ExprError, match="E206"):
        match_attribute("aor", "${event.aor}", scope, outer)


@pytest.mark.parametrize(
    "attribute, text, code, message",
    [
        ("leg", "calee", "E204", "'event.leg' is never 'calee'"),
        ("leg", "call*", "E204", "'event.leg' is never 'call*'"),
        ("expires", "soon", "E203", "event.expires is number, but 'soon' is not"),
        ("expires", "60s", "E203", "event.expires is number, but '60s' is not"),
        ("expires", "${vars.who}", "E203", "expected number here, but 'vars.who' is text"),
        ("mobile", "yes", "E203", "event.mobile is true/false, but 'yes' is not"),
        ("lasted", "60", "E203", "event.lasted is duration, but '60' is not"),
        ("headers", "x", "E203", "event.headers is map of text, but 'x' is not"),
        ("aor", "${call.user}", "E208", "'call.user' may be missing here"),
        ("aor", "*${call.user}", "E208", "'call.user' may be missing here"),
        ("aor", "${call.usr}", "E206", "call has no attribute 'usr'"),
        ("aor", "*${call", "E210", "this ${ is not closed"),
    ],
)
def test_a_line_that_cannot_be(attribute: str, text: str, code: str, message: str, scope: Scope) -> None:
    with pytest.raises(ExprError) as caught:
        match_attribute(attribute, text, scope)
    error = caught.value
    assert (error.code, error.message) == (code, message)
    assert 0 <= error.offset < len(text)


def test_all_of_is_one_test(scope: Scope, values: Any) -> None:
    one, two = (compile_expression(text, scope) for text in ("event.mobile", "call.user == null"))
    both = all_of([one, two])
    assert both is not None
    assert both.evaluate(values) is True
    assert both.evaluate({**values, "event": {"mobile": False}}) is False
    assert both.reads == one.reads | two.reads
    assert both.source == "event.mobile and call.user == null"
    assert all_of([one]) is one
    assert all_of([]) is None
    with pytest.raises(StepError):
        both.evaluate({})


def test_a_test_over_null_is_no_error(scope: Scope, value: Callable[..., Any]) -> None:
    match = match_attribute("group", "1?", scope)
    assert match.test is not None
    assert match.test.evaluate({"event": {"group": None}}) is False
    assert match.test.evaluate({"event": {"group": "12"}}) is True


def test_a_pattern_meets_text_only(scope: Scope) -> None:
    match = match_attribute("aor", "*${vars.who}", scope)
    assert match.test is not None
    for aor in (7, ["x"], "x" * 100_000):
        with pytest.raises(StepError):
            match.test.evaluate({"event": {"aor": aor}, "vars": {"who": "x"}})
