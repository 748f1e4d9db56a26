"""Properties over generated expressions: errors of one kind only, types that hold, places inside the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from expr_strategies import anything, conditions, damaged, well_typed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import StepError
from orchestrator.flow.expr import (
    BOOL,
    TEXT,
    ExprError,
    Scope,
    Type,
    compile_expression,
    compile_template,
    match_attribute,
    split_filter,
)
from orchestrator.flow.expr.origin import Alphabet

many = settings(max_examples=200, deadline=None)

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["2", "callee", "alice", 2**70]),
)
nested = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["n", "name", "from", "user", "digit", "list", "X-Id", "aor"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)
"""What JSON from outside may hold, and more."""

ENTRIES: dict[str, Callable[[str, Scope], object]] = {
    "expression": compile_expression,
    "condition": lambda text, scope: compile_expression(text, scope, BOOL),
    "template": compile_template,
    "text": lambda text, scope: compile_template(f"a ${{{text}}} b", scope, TEXT),
    "filter": split_filter,
    "match": lambda text, scope: match_attribute("aor", text, scope),
    "glob": lambda text, scope: match_attribute("aor", f"*${{{text}}}", scope),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_any_text_compiles_or_is_refused_with_a_place(entry: Callable[[str, Scope], object], scope: Scope) -> None:
    @many
    @given(text=anything)
    @example(text="")
    @example(text="\ud800'\udfff'")
    @example(text="vars.who.matches('\ud800')")
    @example(text="'" * 7)
    @example(text="call" + "?." * 9)
    def check(text: str) -> None:
        try:
            entry(text, scope)
        except ExprError as error:
            assert error.code in {f"E2{number:02}" for number in range(1, 12)}
            assert error.message
            assert 0 <= error.offset <= len(text) + len("a ${") + 1
            assert error.length >= 1

    check()


@many
@given(text=st.one_of(damaged(), well_typed))
def test_an_error_underlines_something_of_the_text(scope: Scope, text: str) -> None:
    try:
        compile_expression(text, scope)
    except ExprError as error:
        assert error.offset + error.length <= max(len(text), error.offset + 1)
        assert error.offset <= len(text)


def conforms(value: Any, type: Type) -> bool:
    """Whether a value is one of its static type."""
    if value is None:
        return type.optional or type.kind in ("any", "null")
    if type.textual:
        return isinstance(value, str) and (type.kind != "enum" or value in type.values)
    if type.kind in ("number", "duration", "time"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if type.kind == "list":
        return isinstance(value, list | tuple) and all(conforms(item, type.items) for item in value)
    kinds = {"bool": bool, "map": Mapping, "record": Mapping, "contact": Mapping, "any": object, "nothing": object}
    return isinstance(value, kinds[type.kind])


@many
@given(text=well_typed)
def test_a_value_has_the_type_that_was_said(scope: Scope, values: dict[str, Any], text: str) -> None:
    try:
        made = compile_expression(text, scope)
    except ExprError as error:
        expected = {
            "E202": ("nested",),
            "E203": ("can never be worked out", "a list is counted from 0"),
            "E204": ("is never",),
            "E207": ("already a name",),
        }
        assert any(reason in error.message for reason in expected[error.code]), str(error)
        return
    try:
        value = made.evaluate({**values, "json": {"n": 2, "name": "bob", "t": True, "list": ["a"]}})
    except StepError as error:
        assert error.type in ("expr.value", "flow.limit")  # never expr.missing: nothing of this world is missing
        return
    assert conforms(value, made.type)


@many
@given(
    text=well_typed,
    env=st.dictionaries(st.sampled_from(["call", "event", "vars", "json", "groups", "now", "out"]), nested),
)
def test_a_world_unlike_the_declared_one_gives_step_errors_only(scope: Scope, text: str, env: dict[str, Any]) -> None:
    try:
        made = compile_expression(text, scope)
    except ExprError:
        return
    try:
        made.evaluate(env)
    except StepError as error:
        assert error.type in ("expr.missing", "expr.value", "flow.limit")


@many
@given(text=well_typed)
def test_text_around_an_expression_is_that_text_and_its_value(scope: Scope, values: Any, text: str) -> None:
    if "}" in text or "[" in text[:1]:
        return
    try:
        inside, around = compile_expression(text, scope), compile_template(f"<${{{text}}}>", scope, TEXT)
    except ExprError:
        return
    try:
        value = inside.evaluate(values)
        if isinstance(value, str):
            assert around.evaluate(values) == f"<{value}>"
    except StepError:
        with pytest.raises(StepError):
            around.evaluate(values)


@many
@given(text=conditions)
def test_not_turns_a_condition_and_its_facts_around(scope: Scope, values: Any, text: str) -> None:
    try:
        one, other = compile_expression(text, scope, BOOL), compile_expression(f"not ({text})", scope, BOOL)
    except ExprError:
        return
    assert (one.when_true, one.when_false) == (other.when_false, other.when_true)
    try:
        assert one.evaluate(values) is (not other.evaluate(values))
    except StepError:
        with pytest.raises(StepError):
            other.evaluate(values)


@many
@given(left=conditions, right=conditions, user=st.sampled_from([None, "a"]))
def test_facts_hold_where_a_condition_was_true_or_false(
    scope: Scope, values: Any, left: str, right: str, user: str | None
) -> None:
    try:
        made = compile_expression(f"({left}) and ({right}) or ({left})", scope, BOOL)
        env = {**values, "call": {**values["call"], "user": user}}
        facts = made.when_true if made.evaluate(env) else made.when_false
    except (ExprError, StepError):
        return
    for path in facts:
        if isinstance(path[-1], Alphabet):
            continue
        value: Any = env
        for name in path:
            value = value[int(name[1:-1])] if name.startswith("[") else value[name]
        assert value is not None


@many
@given(text=well_typed)
def test_compiling_is_repeatable_and_reads_what_it_names(scope: Scope, values: Any, text: str) -> None:
    try:
        one, two = compile_expression(text, scope), compile_expression(text, scope)
    except ExprError:
        return
    assert replace(one, evaluate=two.evaluate) == two
    assert one.is_constant is not bool(one.reads)
    assert not one.is_constant or one.evaluate({}) == one.constant
