"""What may be null and what is known about it: `??`, `!= null`, `?.`, and the facts a condition leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import StepError
from orchestrator.flow.expr import ANY, BOOL, ExprError, Path, Scope, compile_expression, compile_template

Value = Callable[..., Any]
PHONE = {"group": "7", "digit": "2", "headers": {"a": "b"}, "leg": "caller", "tags": [], "mobile": True, "aor": "p@x"}


@pytest.mark.parametrize(
    "text",
    [
        "event.group != null and event.group == 'sales'",
        "null != event.group and event.group == 'sales'",
        "event.group == null or event.group == 'sales'",
        "not (event.group == null) and event.group == 'sales'",
        "!(event.group == null || false) && event.group == 'sales'",
        "event.group != null ? event.group == 'sales' : false",
        "event.group == null ? true : event.group == 'sales'",
        "event.group != null and event.target != null and event.group == event.target",
        "event.group != null and (event.target == null or event.target == event.group)",
        "(event.group != null and event.mobile) and event.group == 'sales'",
        "(event.group == null or event.mobile) or event.group == 'sales'",
        "phone != null and phone.group != null and phone.group == '7'",
        "phone?.group != null and phone.group == '7'",
        "phone?.headers.a != null and phone.headers.a == 'x'",
        "(phone?.mobile ?? false) and phone.aor == 'x'",
        "not (phone?.mobile ?? true) and phone.aor == 'x'",
        "call.headers['X-Id'] != null and call.headers['X-Id'] == 'x'",
        "call.headers['X-Id'] != null and call.headers[\"X-Id\"].size() > 1",
        "'X-Id' in call.headers and call.headers['X-Id'] == 'x'",
        "groups.sales[0] != null and groups.sales[0] == 1",
        "found.exists(x, x.path != null and x.path == 'a')",
        "call.user != null and [1].exists(x, call.user == 'a')",
        "(vars.low ? event.group != null : event.group != null) and event.group == 'a'",
    ],
)
def test_a_value_tested_for_null_may_be_used(text: str, scope: Scope, values: dict[str, Any]) -> None:
    made = compile_expression(text, scope, BOOL)
    for phone in (None, PHONE, {**PHONE, "group": None, "headers": {}}):
        for group in (None, "sales"):
            event = {**values["event"], "group": group}
            contacts = [{"path": None}, {"path": "a"}]
            assert made.evaluate({**values, "phone": phone, "event": event, "found": contacts}) in (True, False)


@pytest.mark.parametrize(
    "text, missing",
    [
        ("event.group == 'sales'", "event.group"),
        ("event.group == event.target", "event.group"),
        ("event.group != null or event.group == 'sales'", "event.group"),
        ("event.group == null and event.group == 'sales'", "event.group"),
        ("event.group == 'sales' and event.group != null", "event.group"),
        ("(event.mobile or event.group != null) and event.group == 'a'", "event.group"),
        ("event.group != null ? true : event.group == 'a'", "event.group"),
        ("event.target != null and event.group == 'a'", "event.group"),
        ("phone.group != null", "phone"),
        ("phone != null and phone.group == 'a'", "phone.group"),
        ("(phone?.mobile ?? true) and phone.aor == 'x'", "phone"),
        ("phone?.aor == 'x'", "phone?.aor"),
        ("phone?.group?.lower() == 'x'", "phone?.group?.lower()"),
        ("phone?.group.lower() != null", "phone?.group"),
        ("phone?.tags.exists(x, true)", "phone?.tags"),
        ("call.headers['A'] != null and call.headers['B'] == 'x'", "call.headers['B']"),
        ("call.headers[vars.who] != null and call.headers[vars.who] == 'x'", "call.headers[vars.who]"),
        ("vars.who in call.headers and call.headers['X'] == 'x'", "call.headers['X']"),
        ("found.exists(x, x.path != null) and found.all(x, x.path == 'a')", "x.path"),
        ("call.user + 'x' == 'y'", "call.user"),
        ("call.user in ['a']", "call.user"),
        ("string(call.user) == 'x'", "call.user"),
        ("'x'.contains(call.user)", "call.user"),
        ("groups.sales[0] == 1", "groups.sales[0]"),
        ("call.user > 'x'", "call.user"),
    ],
)
def test_a_value_that_may_be_null_is_not_used(text: str, missing: str, refusal: Callable[..., ExprError]) -> None:
    error = refusal(text)
    assert (error.code, error.message) == ("E208", f"'{missing}' may be missing here")
    assert text[error.offset : error.offset + error.length] == missing


@pytest.mark.parametrize(
    "text, with_phone, without",
    [
        ("phone?.digit", "2", None),
        ("phone?.digit ?? 'none'", "2", "none"),
        ("phone?.headers.a ?? 'none'", "b", "none"),
        ("phone?.headers['zz'] ?? 'none'", "none", "none"),
        ("phone?.['digit'] ?? '9'", "2", "9"),
        ("phone?.digit.upper().size() ?? 0", 1, 0),
        ("phone?.group?.lower() ?? 'none'", "7", "none"),
        ("phone?.tags[3] ?? 'none'", "none", "none"),
        ("phone?.leg == null", False, True),
        ("phone != null", True, False),
        ("phone == null ? 'gone' : phone.digit", "2", "gone"),
        ("phone?.group ?? phone?.digit ?? 'none'", "7", "none"),
    ],
)
def test_safe_reach_gives_null_for_the_whole_chain(text: str, with_phone: Any, without: Any, value: Value) -> None:
    assert value(text, phone=PHONE) == with_phone
    assert value(text, phone=None) == without


def test_a_default_replaces_null_only(value: Value) -> None:
    assert value("call.headers['Empty'] ?? 'x'") == ""
    assert value("json.n ?? 'x'", json={"n": 0}) == 0
    assert value("json.n ?? 'x'", json={"n": False}) is False
    assert value("json.n ?? 'x'", json={"n": None}) == "x"
    assert value("json.n ?? 'x'", json={}) == "x"
    assert value("null ?? 'x'") == "x"


def test_a_default_is_worked_out_only_when_needed(value: Value) -> None:
    assert value("json.n ?? int('x')", json={"n": 1}) == 1
    with pytest.raises(StepError, match="not a whole number"):
        value("json.n ?? int('x')", json={})


@pytest.mark.parametrize(
    "text, when_true, when_false",
    [
        ("event.group != null", [("event",), ("event", "group")], []),
        ("event.group == null", [], [("event",), ("event", "group")]),
        ("not (event.group != null)", [], [("event",), ("event", "group")]),
        ("phone?.headers['a'] != null", [("phone",), ("phone", "headers"), ("phone", "headers", "a")], []),
        ("phone != null and event.mobile", [("phone",)], []),
        ("phone != null or event.mobile", [], []),
        ("phone == null or event.mobile", [], [("phone",)]),
        ("phone != null or (phone != null and event.mobile)", [("phone",)], []),
        ("phone?.mobile ?? false", [("phone",), ("phone", "mobile")], []),
        ("phone?.mobile ?? true", [], [("phone",), ("phone", "mobile")]),
        ("event.mobile", [], []),
        ("1s == 1s", [], []),
    ],
)
def test_a_condition_tells_what_is_not_null_afterwards(
    text: str, when_true: list[Path], when_false: list[Path], scope: Scope
) -> None:
    made = compile_expression(text, scope)
    assert made.when_true == frozenset(when_true)
    assert made.when_false == frozenset(when_false)


def test_facts_narrow_a_scope_until_the_value_may_change(scope: Scope) -> None:
    then = scope.narrow(compile_expression("phone != null and call.user != null", scope).when_true)
    assert str(compile_expression("phone.digit", then).type) == "digits"
    assert str(compile_template("${call.user}", then).type) == "text"
    for changed in (then.forget(("phone",)), then.extend({"phone": scope.names["phone"]}), scope):
        with pytest.raises(ExprError, match="E208"):
            compile_expression("phone.digit", changed)
    assert compile_expression("call.user.size()", then.forget(("phone",))).type == compile_expression("1", scope).type


def test_narrowing_a_path_narrows_nothing_below_it(scope: Scope) -> None:
    then = scope.narrow({("event", "group")})
    with pytest.raises(ExprError, match=r"'event\.target' may be missing"):
        compile_expression("event.target == event.group", then)


def test_what_was_promised_not_to_be_null_and_is(value: Value) -> None:
    """The checker's promise can be broken by the world (a handler of another task): a StepError names what is gone."""
    with pytest.raises(StepError) as caught:
        value("call.from.user == 2", call={"from": None})
    assert caught.value.type == "expr.missing"
    assert "'call.from' is missing" in caught.value.message
    with pytest.raises(StepError, match=r"'phone' is missing \(in phone\.digit\)"):
        compile_expression("phone.digit", Scope({"phone": ANY, "call": ANY})).evaluate({})


@pytest.mark.parametrize(
    "text, env, missing",
    [
        ("call.from.user", {}, "call"),
        ("call.from.user", {"call": {}}, "call.from"),
        ("call.from.user", {"call": {"from": {}}}, "call.from.user"),
        ("vars.n + 1", {"vars": {"n": "x"}}, ""),
    ],
)
def test_run_time_errors_name_the_shortest_path_that_leads_nowhere(
    text: str, env: dict[str, Any], missing: str, scope: Scope
) -> None:
    made = compile_expression(text, scope)
    with pytest.raises(StepError) as caught:
        made.evaluate(env)
    error = caught.value
    assert error.type == ("expr.missing" if missing else "expr.value")
    assert f"'{missing}' is missing" in error.message or not missing
    assert error.message.endswith(f"(in {text})")
