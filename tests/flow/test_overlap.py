"""W305: what `when:` proves about the flow above."""

from __future__ import annotations

import pytest

from orchestrator.flow.loader import Source, load_sources

TEXT = """flowlang: 1
groups: {sales: [101, bob], mobile: [bob, carol], staff: [101, bob, carol]}
flows:
  one: {on: invite, when: "FIRST", do: [{reply: 486}]}
  two: {on: invite, when: "SECOND", do: [{reply: 486}]}
"""
USER = "call.target.user"


def warned(first: str, second: str) -> str:
    text = TEXT.replace("FIRST", first).replace("SECOND", second)
    _, warnings = load_sources([Source("a.flow.yaml", text)])
    return "; ".join(warning.message for warning in warnings if warning.code == "W305")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{USER} == 'bob'", f"{USER} == 'bob'"),
        (f"{USER} == 'bob'", f"'bob'  ==  {USER}"),
        (f"{USER}.startsWith('8')", f"{USER}.startsWith('88')"),
        (f"{USER}.startsWith('8')", f"{USER} == 8123"),
        (f"{USER} in groups.staff", f"{USER} in groups.sales"),
        (f"{USER} in groups.sales", f"{USER} == 'bob' and call.user != null"),
        (f"{USER} == 'a' or {USER} == 'b'", f"{USER} == 'b'"),
        (f"{USER} in ['a', 'b']", f"{USER} == 'a' or {USER} == 'b'"),
        ("call.user != null", "call.user != null and call.target.host == 'x'"),
    ],
)
def test_never_reached(first: str, second: str) -> None:
    assert warned(first, second) == "flow 'two' is never reached: 'one' above takes what it would take"


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (f"{USER} in groups.sales", f"{USER} in groups.mobile", "bob"),
        (f"{USER}.startsWith('88')", f"{USER} in ['8812', '77']", "8812"),
    ],
)
def test_some_are_taken(first: str, second: str, taken: str) -> None:
    assert warned(first, second) == f"flow 'two' is never reached for {taken}: 'one' above takes it"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{USER}.startsWith('88')", f"{USER}.startsWith('8')"),
        (f"{USER}.startsWith('88')", f"{USER}.startsWith('99')"),
        (f"{USER} == 'bob' and call.user != null", f"{USER} == 'bob'"),
        (f"{USER} == 'bob'", "call.from.user == 'bob'"),
        (f"not ({USER} == 'bob')", f"{USER} == 'carol'"),
    ],
)
def test_what_is_not_proved_is_not_said(first: str, second: str) -> None:
    assert "never reached: " not in warned(first, second)
