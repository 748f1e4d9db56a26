"""What state the call can be in at each step: W301, W302, W304, W305, E301, E302, E303, E304, E305."""

from __future__ import annotations

import pytest
from flowcheck import codes, diagnose, said, steps

RELAY = "- relay: registered\n"
USERS = "users: {local: {file: users.yaml}}"


def found(text: str, on: str = "invite", more: str = "") -> list[str]:
    """`line CODE` of each diagnostic."""
    return [f"{d.line} {d.code}" for d in diagnose(steps(text, on, more))]


# --- replies --------------------------------------------------------------------------------------------------------


def test_reply_behind_a_relay_may_meet_an_answered_call() -> None:
    assert found(RELAY + "- reply: 480") == ["7 W301"]
    assert found(RELAY + RELAY) == ["7 W301"]


@pytest.mark.parametrize(
    "text",
    [
        "- relay: registered\n  on: {else: [reply: 480]}",
        "- relay: registered\n  on: {busy: [reply: 486], else: [reply: 480]}",
        "- relay: registered\n  on: {answered: [stop]}\n- reply: 480",
        "- relay: registered\n  on: {answered: [{wait: hangup}, stop], else: [log: x]}\n- reply: 480",
        "- reply: 180\n- relay: registered",
        "- relay: registered\n  as: out\n- if: out.outcome != 'answered'\n  then: [reply: 480]",
        "- relay: registered\n  as: out\n- if: out.outcome == 'answered'\n  then: [stop]\n- reply: 480",
        "- relay: registered\n  as: out\n- reply: 486\n  if: out.outcome == 'busy'",
        "- relay: registered\n  as: o\n- switch: o.outcome\n  cases: {answered: [stop]}\n  default: [reply: 480]",
        "- relay: registered\n- reply: 480\n  if: not call.answered",
        "- relay: registered\n- reply: 480\n  if: call.state != 'answered'",
        "- relay: registered\n- if: call.answered\n  then: [stop]\n  else: [reply: 480]",
        "- foreach: [201, 202]\n  do:\n    - relay: {aor: x@a.b, ring: 9s}\n      on: {answered: [stop]}\n- reply: 480",
        "- try: [relay: registered]\n  catch: [{do: [stop]}]",
        "- hangup: busy",
        "- media: fs1\n- reply: 480",
        "- subscribe: dtmf\n  do: [reply: 480]\n- relay: registered",
        "- relay: registered\n  on: {cancelled: [log: gone], answered: [stop]}\n- reply: 480",
    ],
)
def test_replies_that_are_possible(text: str) -> None:
    assert found(text, more="freeswitch: {fs1: {host: h, password: p}}") == []


@pytest.mark.parametrize(
    "text",
    [
        "- relay: registered\n  on: {busy: [stop]}\n- reply: 480",
        "- relay: registered\n  as: out\n- if: out.outcome == 'answered'\n  then: [log: x]\n- reply: 480",
        "- relay: registered\n  if: call.target.user == '1'\n- reply: 480",
        "- parallel: [[{relay: registered}], [log: x]]\n- reply: 480",
        "- try: [relay: registered]\n  finally: [reply: 480]",
        "- relay: registered\n  on_error: [reply: 500]",
        "- repeat: {times: 2, do: [relay: registered]}",
        "- wait: ringing\n  meanwhile: [relay: registered]\n- reply: 480",
        "- first_of:\n    - {wait: dtmf, do: [relay: registered]}\n    - {after: 5s}\n- reply: 480",
    ],
)
def test_replies_that_may_come_too_late(text: str) -> None:
    assert [line.split()[1] for line in found(text)] == ["W301"]


def test_second_reply_is_an_error() -> None:
    assert found("- reply: 404\n- reply: 480") == ["7 E302"]
    assert found("- reply: 200\n- reply: 480") == ["7 E302"]
    assert found("- hangup: x\n- relay: registered") == ["7 E302"]
    assert found(
        "- media: {server: fs1, answer: true}\n- reply: 480", more="freeswitch: {fs1: {host: h, password: p}}"
    ) == ["7 E302"]


def test_reply_that_one_way_has_sent_already_is_a_warning() -> None:
    assert said(steps("- reply: 486\n  if: call.target.user == '1'\n- reply: 404")) == [
        "8:9 W301 the request may already be answered when this reply: runs"
    ]


def test_transfer_answers_a_refer() -> None:
    (sure,) = diagnose(steps("- transfer: {to: registered}\n- reply: 480", "refer"))
    assert (sure.code, sure.help) == ("E302", "transfer: answers the REFER, too")
    (perhaps,) = diagnose(steps("- transfer: {to: registered}\n  if: refer.by != null\n- reply: 480", "refer"))
    assert (perhaps.code, perhaps.help) == ("W301", "stop after the transfer or reply above")


def test_computed_status_is_not_judged() -> None:
    assert found("- reply: ${size(call.id)}\n- reply: 404") == []


def test_failure_handler_of_a_cancelled_call_is_not_judged() -> None:
    assert found("- relay: registered\n  on: {cancelled: [reply: 487], answered: [stop]}") == ["7 E302"]
    assert found("- relay: registered\n  on: {answered: [stop], else: [reply: 480]}") == []


def test_catch_sees_every_state_of_its_steps() -> None:
    text = (
        "- try:\n    - reply: 404\n    - http: {url: 'https://a.example/'}\n    - stop\n  catch: [{do: [reply: 500]}]"
    )
    assert [line.split()[1] for line in found(text)] == ["W301"]


def test_charge_goes_on_only_when_granted() -> None:
    text = "- charge: ${call.from.user}\n  on: {denied: [reply: 402]}\n- reply: 404"
    assert found(text) == ["8 W301"]
    assert found(text.replace("[reply: 402]", "[{reply: 402}, stop]")) == []


IT = "call.target.user == '1'"


@pytest.mark.parametrize(
    "text",
    [
        f"- reply: 404\n  if: {IT}\n- stop:\n  if: {IT}\n- reply: 480",
        f"- if: {IT}\n  then: [reply: 404]\n- log: x\n- if: {IT}\n  then: [stop]\n- relay: registered",
        f"- reply: 404\n  if: {IT}\n- reply: 480\n  if: not ({IT})",
        f"- reply: 404\n  if: {IT}\n- reply: 480\n  if: call.target.user != '1'",
        f"- if: {IT}\n  then: [reply: 404]\n- if: {IT}\n  then: [log: x]\n  else: [reply: 480]",
        f"- foreach: [1, 2]\n  do: [log: x]\n- reply: 404\n  if: {IT}\n- stop:\n  if: {IT}\n- reply: 480",
        "- switch: call.target.user\n  cases: {'1': [reply: 404]}\n"
        "- switch: call.target.user\n  cases: {'1': [stop]}\n- reply: 480",
        f"- relay: registered\n  if: {IT}\n- stop:\n  if: {IT}\n- reply: 480",
    ],
)
def test_the_same_condition_holds_twice_or_never(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        f"- reply: 404\n  if: {IT}\n- stop:\n  if: call.target.user == '2'\n- reply: 480",
        f"- reply: 404\n  if: {IT}\n- stop:\n  if: not ({IT})\n- reply: 480\n  if: call.target.user == '2'",
        "- reply: 404\n  if: vars.a == '1'\n- set: {a: '2'}\n- stop:\n  if: vars.a == '1'\n- reply: 480",
        "- subscribe: dtmf\n  do: [set: {a: '2'}]\n"
        "- reply: 404\n  if: vars.a == '1'\n- stop:\n  if: vars.a == '1'\n- reply: 480",
        "- reply: 404\n  if: call.duration > 5s\n- stop:\n  if: call.duration > 5s\n- reply: 480",
        "- foreach: [a, b]\n  do:\n    - reply: 404\n      if: item == 'a'\n    - stop:\n      if: item == 'b'",
    ],
)
def test_another_condition_or_another_value_may_hold(text: str) -> None:
    whole = steps(text).replace("    do:", "    vars: {a: '1'}\n    do:", 1)
    assert set(codes(whole)) & {"W301", "E302"}
    assert set(codes(whole)) <= {"W301", "E302"}


def test_a_called_flow_keeps_apart_what_its_caller_keeps_apart() -> None:
    text = f"- reply: 404\n  if: {IT}\n- call: other\n- stop:\n  if: {IT}\n- reply: 480"
    assert [d.code for d in diagnose(steps(text) + "  other:\n    do: [log: x]\n")] == []


# --- REGISTER -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- register", []),
        ("- reply: 403", []),
        ("- log: x", ["3 W302"]),
        ("- auth: {realm: a, users: local}\n- register", []),
        ("- auth: {realm: a, users: local}\n  on_fail: [log: x]\n- register", []),
        ("- if: request.user_agent == null\n  then: [stop]\n- register", ["3 W302"]),
        ("- if: request.user_agent == null\n  then: [{reply: 403}, stop]\n- register", []),
        ("- fail: no", []),
        ("- repeat: {times: 2, do: [register]}", ["3 W302", "6 W301"]),
    ],
)
def test_register_is_answered_on_every_way(text: str, expected: list[str]) -> None:
    assert found(text, on="register", more=USERS) == expected


# --- steps that never run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "- stop\n- log: x",
        "- fail: x\n- log: x",
        "- if: call.answered\n  then: [stop]\n  else: [stop]\n- log: x",
        "- relay: registered\n  on: {answered: [stop], else: [stop]}\n- log: x",
        "- switch: call.state\n  cases: {new: [stop]}\n  default: [stop]\n- log: x",
        "- try: [stop]\n- log: x",
        "- try: [log: x]\n  finally: [stop]\n- log: x",
        "- parallel: [[stop], [log: x]]\n- log: x",
        "- first_of: [{wait: dtmf, do: [stop]}, {after: 5s, do: [stop]}]\n- log: x",
        "- repeat: {times: 2, do: [break, log: x]}",
        "- subscribe: dtmf\n  do: [stop, log: x]",
    ],
)
def test_step_behind_the_end_is_an_error(text: str) -> None:
    assert [line.split()[1] for line in found(text)] == ["E301"]


@pytest.mark.parametrize(
    "text",
    [
        "- stop:\n  if: call.answered\n- log: x",
        "- if: call.answered\n  then: [stop]\n- log: x",
        "- relay: registered\n  on: {answered: [stop], busy: [stop]}\n- log: x",
        "- foreach: [1]\n  do: [stop]\n- log: x",
        "- repeat: {times: 2, do: [{break: , if: call.answered}, log: x]}",
        "- try: [stop]\n  catch: [{do: [log: x]}]\n- log: x",
        "- fail: x\n  on_error: continue\n- log: x",
        "- parallel: [[stop], [log: x]]\n  wait_for: first\n- log: x",
        "- subscribe: dtmf\n  do: [stop]\n- log: x",
        "- wait: registered\n  for: 5s\n  on_timeout: [stop]\n- log: x",
        "- auth: {realm: a, users: local}\n  on_fail: [stop]\n- log: x",
    ],
)
def test_step_that_can_run_is_not_reported(text: str) -> None:
    assert found(text, more=USERS) == []


def test_only_the_first_unreachable_step_of_a_block_is_named() -> None:
    assert found("- stop\n- log: x\n- log: y") == ["7 E301"]


def test_sub_flow_that_ends_comes_back_to_its_caller() -> None:
    text = "flowlang: 1\nflows:\n  main: {on: invite, do: [call: sub, log: back]}\n  sub: {do: [stop]}"
    assert codes(text) == []


# --- called flows ---------------------------------------------------------------------------------------------------

CALLED = """\
flowlang: 1
flows:
  main:
    on: invite
    do:
      - {first}
      - call: refuse
      - {last}
  refuse:
    do: [reply: 480]
"""


def test_state_goes_into_a_called_flow_and_comes_back() -> None:
    assert codes(CALLED.format(first="log: x", last="log: x")) == []
    assert codes(CALLED.format(first="log: x", last="reply: 404")) == ["E302"]
    (warning,) = diagnose(CALLED.format(first="relay: registered", last="log: x"))
    assert (warning.code, warning.line, warning.notes) == ("W301", 10, ("in the call at test.flow.yaml:7:9",))


def test_flow_that_nobody_calls_is_walked_without_assumptions() -> None:
    assert codes("flowlang: 1\nflows: {s: {do: [{relay: registered}, {reply: 404}]}}") == ["W301"]
    assert codes("flowlang: 1\nflows: {s: {do: [{reply: 404}]}}") == []
    assert codes("flowlang: 1\nflows: {s: {do: [stop, {log: x}]}}") == ["E301"]


def test_calls_in_a_circle_end() -> None:
    circle = (
        "flowlang: 1\nflows: {m: {on: invite, do: [call: a]}, a: {do: [call: b]}, b: {do: [{reply: 404}, call: a]}}"
    )
    assert codes(circle) == ["E305"]


def test_parameters_missing_in_a_circle_are_not_said_besides() -> None:
    text = "flowlang: 1\nflows: {a: {params: {x: text}, do: [call: b]}, b: {do: [call: a]}}"
    assert codes(text) == ["E305"]


# --- places ---------------------------------------------------------------------------------------------------------


def test_call_scoped_events_need_a_call() -> None:
    assert found("- wait: dtmf", on="register") == ["3 W302", "6 E303"]
    assert found("- subscribe: dtmf\n  any_call: true\n  do: [log: x]", on="start") == []
    assert found("- originate: {to: 'sip:a@b.c'}\n- wait: dtmf", on="start") == []
    assert found("- first_of: [{wait: dtmf}, {after: 5s}]", on="start") == ["6 E303"]


def test_demands_of_called_flows_reach_the_caller() -> None:
    main = "flowlang: 1\nflows:\n  main: {{on: {on}, do: [{first}call: a]}}\n"
    flows = main + "  a: {{do: [call: b]}}\n  b: {{do: [{step}]}}\n"
    assert codes(flows.format(on="invite", first="", step="hangup: x")) == []
    assert codes(flows.format(on="start", first="", step="hangup: x")) == ["E303"]
    assert codes(flows.format(on="start", first="{originate: {to: 'sip:a@b.c'}}, ", step="hangup: x")) == []
    assert codes(flows.format(on="start", first="", step="log: '${call.id}'")) == ["E303"]
    assert codes(flows.format(on="register", first="", step="register: 1h")) == []
    assert codes(flows.format(on="invite", first="", step="register: 1h")) == ["E303"]


def test_on_end_may_work_but_not_touch_the_call() -> None:
    main = "flowlang: 1\nflows:\n  main: {{on: invite, do: [log: x], on_end: [{step}]}}\n"
    base = main + "  sub: {{do: [{inner}]}}\n"
    for step in (
        "log: '${call.duration}'",
        "sleep: 1s",
        "{if: call.answered, then: [stop]}",
        "fs.api: status",
        "call: sub",
    ):
        assert codes(base.format(step=step, inner="log: x")) == []
    for step in ("hangup: x", "play: x", "wait: dtmf", "{subscribe: registered, do: [log: x]}"):
        assert codes(base.format(step=step, inner="log: x")) == ["E304"]
    assert codes(base.format(step="call: sub", inner="hangup: x")) == ["E304"]


def test_waits_without_end() -> None:
    assert found("- wait: registered", on="start") == ["6 W304"]
    assert found("- wait: registered\n  for: 5s", on="start") == []
    assert found("- wait: registered") == []
    assert found("- first_of: [{wait: registered}, {wait: unregistered}]", on="start") == ["6 W304"]
    assert found("- first_of: [{wait: registered}, {after: 5s}]", on="start") == []
    assert codes("flowlang: 1\nflows: {s: {do: [wait: registered]}}") == []


def test_shadowed_flows() -> None:
    head = "flowlang: 1\nflows:\n  a: {on: invite, do: [log: x]}\n  b: {on: register, do: [register]}\n"
    text = head + "  c: {on: ON, do: [log: x]}"
    assert codes(text.replace("ON", "invite")) == ["W305"]
    assert codes(text.replace("ON", "start")) == []
    assert codes(text.replace("on: ON, ", "")) == []


def test_unsubscribe_may_name_what_a_called_flow_subscribed() -> None:
    text = """\
        flowlang: 1
        flows:
          main: {on: invite, do: [call: listen, unsubscribe: ID]}
          listen: {do: [{subscribe: registered, id: there, do: [log: x]}]}
          other: {do: [{subscribe: registered, id: elsewhere, do: [unsubscribe: elsewhere]}]}
        """
    assert codes(text.replace("ID", "there")) == []
    assert codes(text.replace("ID", "elsewhere")) == ["E118"]
