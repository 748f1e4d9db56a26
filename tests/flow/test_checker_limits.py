"""Bounds of the check itself: no file, however it is made, hangs it or ends in a traceback; and values with a
bound.
"""

from __future__ import annotations

import pytest
from flowcheck import codes, diagnose, said, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.flow.language.registry import ACTIONS

HEAD = "flowlang: 1\nflows:\n"


def nested(step: str, depth: int, inner: str) -> str:
    """`step` with {} around itself, `depth` times, in flow style."""
    for _ in range(depth):
        inner = step.replace("{}", inner)
    return steps(f"- {inner}")


def test_loops_inside_loops_are_bounded() -> None:
    loop = "{repeat: {times: 2, do: [{}, {relay: registered}, break]}}"
    assert "E202" not in codes(nested(loop, 8, "stop"))
    assert "E202" in codes(nested(loop, 9, "stop"))


def test_loops_at_the_bound_are_checked_in_bounded_time() -> None:
    text = "{relay: registered}"
    for depth in range(8):
        text = (
            f"{{foreach: [1], item: i{depth}, do: [{{reply: 180, if: call.answered}}, {text}, {{relay: registered}}]}}"
        )
    assert set(codes(steps(f"- {text}"))) == {"W301", "E302"}


def test_deep_blocks_are_checked() -> None:
    assert codes(nested("{if: call.answered, then: [{}]}", 25, "stop")) == []


def test_long_chains_of_calls_are_refused() -> None:
    def chain(length: int) -> str:
        flows = "".join(f"  f{n}: {{do: [call: f{n + 1}]}}\n" for n in range(length))
        return f"{HEAD}  main: {{on: invite, do: [call: f0]}}\n{flows}  f{length}: {{do: [stop]}}\n"

    assert codes(chain(10)) == []
    assert codes(chain(20)) == ["E202"]
    assert codes(chain(2000)).count("E202") >= 1


def test_deep_blocks_in_deep_calls_are_no_traceback() -> None:
    text = HEAD + "  main: {on: invite, do: [call: f0]}\n"
    for n in range(15):
        body = f"call: f{n + 1}" if n < 14 else "stop"
        for _ in range(25):
            body = f"{{if: call.answered, then: [{body}]}}"
        text += f"  f{n}: {{do: [{body}]}}\n"
    assert set(codes(text)) <= {"E202"}


def test_many_ways_through_called_flows_are_walked_once_each() -> None:
    flows = "".join(f"  f{n}: {{do: [call: f{n + 1}, call: f{n + 1}, call: f{n + 1}]}}\n" for n in range(13))
    text = f"{HEAD}  main: {{on: invite, do: [call: f0]}}\n{flows}  f13: {{do: [{{log: x}}]}}\n"
    assert codes(text) == []


def test_mistake_of_a_flow_called_in_a_loop_is_said() -> None:
    text = (
        HEAD + "  main: {on: invite, do: [{repeat: {times: 2, do: [call: sub]}}]}\n  sub: {do: [{relay: registered}]}\n"
    )
    assert codes(text) == ["W301"]


def test_step_used_twice_by_an_alias_gives_one_message() -> None:
    text = "flowlang: 1\nflows:\n  a: {on: start, do: &steps [{log: '${nobody}'}]}\n  b: {on: start, do: *steps}\n"
    assert codes(text) == ["E205"]


# --- values with a bound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "on", "message"),
    [
        ("- repeat: {times: -1, do: [stop]}", "invite", "6:25 E106 '-1' is not a number"),
        ("- log: x", "{every: 0s}", "4:17 E106 this timer would run all the time"),
        ("- log: x", "{every: 50ms}", "4:17 E106 this timer would run all the time"),
        ("- log: x", "{every: soon}", "4:17 E106 'soon' is not a duration"),
        ("- log: x", "fs", "4:9 E115 on: fs needs the name of the FreeSWITCH event"),
        ("- log: x", "{event: fs, where: {name: 'HEART*'}}", "4:9 E115 on: fs needs the name of the FreeSWITCH event"),
        ("- originate: {to: bob}", "start", "6:25 E106 'bob' is not a destination"),
        ("- http: {url: 'http://x', auth: {usr: a}}", "invite", "6:40 E114 unknown key for auth: 'usr'"),
        ("- foreach: [1]\n  do: [{foreach: [2], do: [stop]}]", "invite", "7:15 E116 'item' is already a name here"),
    ],
)
def test_bounds(text: str, on: str, message: str) -> None:
    assert said(steps(text, on)) == [message]


def test_what_is_just_inside_the_bounds() -> None:
    assert said(steps("- log: x", on="{every: 100ms}")) == []
    assert said(steps("- log: '${event.body}'", on="{event: fs, where: {name: HEARTBEAT}}")) == []
    assert (
        said(steps("- originate: {to: '4930123', gateway: t}", on="start", more="gateways: {t: {uri: 'sip:t'}}")) == []
    )


def test_event_may_not_be_called_like_a_trigger() -> None:
    assert codes("flowlang: 1\nevents: {invite: {a: text}}") == ["E110"]
    assert codes("flowlang: 1\nendpoints: {p: {url: 'http://x', auth: {user: a, pass: b}}}") == ["E114"]


# --- anything -------------------------------------------------------------------------------------------------------

WORDS = [action.name for action in ACTIONS] + [
    *(
        "if",
        "then",
        "else",
        "do",
        "on",
        "where",
        "for",
        "as",
        "id",
        "with",
        "cases",
        "catch",
        "branches",
        "event",
        "to",
        "aor",
    ),
    *("registered", "dtmf", "5s", "404", "stop", "${call.id}", "${x}", "call.answered", "true", "", "*", "a"),
]
VALUES = st.recursive(
    st.sampled_from(WORDS).map(lambda word: f"'{word}'"),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=4).map(
            lambda entries: f"{{{', '.join(f'{key!r}: {value}' for key, value in entries.items())}}}"
        ),
    ),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(VALUES, st.sampled_from(["invite", "register", "start", "registered", "{every: 5s}", ""]))
def test_no_steps_make_it_raise(value: str, on: str) -> None:
    for found in diagnose(steps(f"- {value}", on)):
        assert found.line >= 1 and found.column >= 1 and found.message


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            "const",
            "secrets",
            "events",
            "gateways",
            "freeswitch",
            "users",
            "groups",
            "schedules",
            "endpoints",
            "defaults",
            "flows",
        ]
    ),
    VALUES,
)
def test_no_section_makes_it_raise(section: str, value: str) -> None:
    diagnose(f"flowlang: 1\n{section}: {value}\n")
    diagnose(f"flowlang: 1\n{section}: {{a: {value}}}\n")
