"""What is known of a name at a place: its type, and whether it may be missing (E205, E206, E208, E116, E203)."""

from __future__ import annotations

import pytest
from flowcheck import codes, diagnose, load, said, steps

HTTP = "http: {url: 'https://a.example/'}"
WAIT = "- wait: registered\n  for: 5s\n  as: phone\n"


def fine(text: str, on: str = "invite", more: str = "") -> None:
    assert said(steps(text, on, more)) == []


def missing(text: str, *names: str) -> None:
    assert [d.message for d in diagnose(steps(text))] == [f"'{name}' may be missing here" for name in names]


# --- results --------------------------------------------------------------------------------------------------------


def test_result_of_a_wait_is_there_when_the_timeout_fails_or_ends_the_flow() -> None:
    fine(WAIT + "- inject: ${phone.uri}")
    fine(WAIT + "  on_timeout: [stop]\n- inject: ${phone.uri}")
    fine(WAIT + "  on_timeout: [{fail: late}]\n- inject: ${phone.uri}")
    fine(
        WAIT + "  on_timeout:\n    - if: call.answered\n      then: [stop]\n      else: [stop]\n- inject: ${phone.uri}"
    )


def test_result_of_a_wait_may_be_missing_when_the_timeout_falls_through() -> None:
    missing(WAIT + "  on_timeout: [log: late]\n- inject: ${phone.uri}", "phone")
    missing(WAIT + "  on_timeout:\n    - stop:\n      if: call.answered\n- inject: ${phone.uri}", "phone")


def test_result_of_a_conditional_step_may_be_missing() -> None:
    missing(f"- {HTTP}\n  if: call.answered\n  as: r\n- log: '${{r.status}}'", "r")


def test_result_of_a_step_with_on_error_may_be_missing() -> None:
    missing(f"- {HTTP}\n  on_error: continue\n  as: r\n- log: '${{r.status}}'", "r")
    fine(f"- {HTTP}\n  on_error: [stop]\n  as: r\n- log: '${{r.status}}'")


@pytest.mark.parametrize(
    "guard",
    [
        "- log: '${r.status}'\n  if: r != null",
        "- if: r != null\n  then: [log: '${r.status}']",
        "- if: r == null\n  then: [stop]\n- log: '${r.status}'",
        "- stop:\n  if: r == null\n- log: '${r.status}'",
        "- if: r == null\n  then: [log: x]\n  else: [log: '${r.status}']",
        "- log: '${r?.status ?? 0}'",
        "- log: x\n  if: r != null and r.status == 200",
        "- fail: no\n  if: not (r != null)\n- log: '${r.status}'",
    ],
)
def test_a_test_for_null_is_understood(guard: str) -> None:
    fine(f"- {HTTP}\n  if: call.answered\n  as: r\n{guard}")


def test_a_test_for_null_holds_only_where_it_was_made() -> None:
    missing(f"- {HTTP}\n  if: call.answered\n  as: r\n- log: x\n  if: r != null\n- log: '${{r.status}}'", "r")


def test_flow_condition_narrows_the_whole_flow() -> None:
    flow = "flowlang: 1\nflows: {{main: {{on: invite, when: {when}, do: [log: '${{call.user}}', reply: 404]}}}}"
    assert codes(flow.format(when="call.user != null")) == []
    assert codes(flow.format(when="call.answered")) == ["E208"]


def test_both_branches_of_an_if_set_the_name() -> None:
    both = f"- if: call.answered\n  then: [{{{HTTP}, as: r}}]\n  else: [{{{HTTP}, as: r}}]\n- log: '${{r.status}}'"
    fine(both)
    missing(both.replace("else: [{" + HTTP + ", as: r}]", "else: [log: x]"), "r")
    fine(both.replace("else: [{" + HTTP + ", as: r}]", "else: [stop]"))


def test_outcomes_join_like_branches() -> None:
    text = f"- relay: registered\n  on:\n    answered: [{{{HTTP}, as: r}}]\n    else: [OTHER]\n- log: '${{r.status}}'"
    fine(text.replace("OTHER", "stop"))
    missing(text.replace("OTHER", "log: x"), "r")
    missing(f"- relay: registered\n  on: {{busy: [{{{HTTP}, as: r}}]}}\n- log: '${{r.status}}'", "r")


def test_cases_join_like_branches() -> None:
    case = "- switch: call.state\n  cases: {new: [{" + HTTP + ", as: r}]}\n"
    missing(case + "- log: '${r.status}'", "r")
    fine(case + "  default: [stop]\n- log: '${r.status}'")


def test_first_of_joins_its_branches() -> None:
    text = "- first_of:\n    - {wait: dtmf, as: key}\n    - {after: 5s, do: [OTHER]}\n- log: '${key.digit}'"
    fine(text.replace("OTHER", "stop"))
    missing(text.replace("OTHER", "log: x"), "key")


def test_names_from_loops_may_be_missing() -> None:
    missing(f"- repeat: {{times: 2, do: [{{{HTTP}, as: r}}]}}\n- log: '${{r.status}}'", "r")


def test_a_name_that_a_loop_may_lose_is_missing_at_its_head() -> None:
    steps_inside = f"      - log: '${{r.status}}'\n      - {HTTP}\n        as: r\n"
    loop = f"- {HTTP}\n  as: r\n- repeat:\n    times: 2\n    do:\n{steps_inside}"
    fine(loop)
    missing(loop + "        if: call.answered\n", "r")


def test_break_carries_its_names_out_of_the_loop() -> None:
    loop = f"- repeat:\n    times: 2\n    do:\n      - {HTTP}\n        as: r\n      - break\n"
    fine(f"- {HTTP}\n  as: r\n{loop}- log: '${{r.status}}'")


def test_names_of_parallel_branches() -> None:
    branches = f"[[{{{HTTP}, as: a}}], [{{{HTTP}, as: b}}]]"
    text = f"- parallel: {branches}\n  wait_for: WHICH\n- log: '${{a.status}} ${{b.status}}'"
    fine(text.replace("WHICH", "all"))
    missing(text.replace("WHICH", "first"), "a")  # the first mistake of a text stands for it


def test_try_makes_names_uncertain_for_catch_and_afterwards() -> None:
    text = f"- try: [{{{HTTP}, as: r}}]\n  catch: [{{do: [WHAT]}}]\n- log: '${{r.status}}'"
    fine(text.replace("WHAT", "stop"))
    missing(text.replace("WHAT", "log: x"), "r")
    missing(text.replace("WHAT", "{log: '${r.status}'}, stop"), "r")


def test_on_end_may_run_before_anything_was_set() -> None:
    text = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do: [{http: {url: 'https://a.example/'}, as: r}]\n"
    assert codes(text + "    on_end: [log: '${r.status}']") == ["E208"]
    assert codes(text + "    on_end: [log: '${r?.status ?? 0}']") == []
    assert codes(text + "    on_error: [log: '${r.status} ${error.type}']") == ["E208"]


def test_variables_are_never_missing() -> None:
    text = """
        flowlang: 1
        flows:
          main:
            on: invite
            vars: {who: ''}
            do:
              - set: {who: WHAT}
              - log: '${vars.who}'
        """
    assert codes(text.replace("WHAT", "'${call.user}'")) == ["E208"]
    assert codes(text.replace("WHAT", "'${call.user ?? \"?\"}'")) == []


# --- where a name is known ------------------------------------------------------------------------------------------


def test_names_end_with_their_block() -> None:
    assert said(steps("- subscribe: dtmf\n  do: [log: '${event.digit}']\n- log: '${event.digit}'")) == [
        "8:17 E205 unknown name 'event'"
    ]
    assert codes(steps("- foreach: [1]\n  do: [log: '${item}']\n- log: '${item}'")) == ["E205"]
    assert codes(steps("- relay: registered\n  on: {else: [log: '${relay.code}']}\n- log: '${relay.code}'")) == ["E205"]
    assert codes(steps("- try: [log: x]\n  catch: [{do: [log: '${error.type}']}]\n- log: '${error.type}'")) == ["E205"]


def test_handler_sees_what_was_set_before_it_and_keeps_its_own_names() -> None:
    fine(f"- {HTTP}\n  as: r\n- subscribe: dtmf\n  do: [log: '${{r.status}} ${{event.digit}}']")
    assert codes(steps(f"- subscribe: dtmf\n  do: [{{{HTTP}, as: r}}]\n- log: '${{r.status}}'")) == ["E205"]
    assert codes(steps(f"- subscribe: dtmf\n  do: [log: '${{r.status}}']\n- {HTTP}\n  as: r")) == ["E205"]
    fine(f"- subscribe: dtmf\n  do: [{{{HTTP}, as: r}}, {{{HTTP}, as: r}}]")


def test_two_handlers_may_use_the_same_name() -> None:
    fine(f"- subscribe: dtmf\n  do: [{{{HTTP}, as: r}}]\n- subscribe: ringing\n  do: [{{{HTTP}, as: r}}]")


def test_result_of_a_relay_is_known_behind_it_by_its_own_name() -> None:
    fine("- relay: registered\n  as: out\n- log: '${out.outcome} ${out.contact ?? \"?\"} ${size(out.tried)}'")
    assert codes(steps("- relay: registered\n  as: out\n  on: {else: [log: '${out.code}']}")) == ["E205"]


def test_sub_flow_has_its_own_names() -> None:
    text = """
        flowlang: 1
        flows:
          main:
            on: invite
            vars: {n: 0}
            do:
              - http: {url: 'https://a.example/'}
                as: r
              - call: sub
                with: {box: main}
                as: told
              - log: '${told}'
              - set: {n: '${told}'}
          sub:
            params: {box: text}
            returns: number
            do:
              - log: 'WHAT'
              - return: 5
        """
    assert codes(text.replace("WHAT", "${params.box} ${call.id}")) == []
    assert codes(text.replace("WHAT", "${r.status}")) == ["E205"]
    assert codes(text.replace("WHAT", "${vars.n}")) == ["E205"]


def test_hints_say_where_a_name_is_known() -> None:
    def hint(text: str, on: str = "invite") -> str:
        return diagnose(steps(text, on))[0].help

    assert "no call before originate" in hint("- log: '${call.id}'", on="start")
    assert "on: register" in hint("- log: '${request.aor}'")
    assert "on another way" in hint(f"- if: call.answered\n  then: [log: '${{r.status}}']\n- {HTTP}\n  as: r")
    assert "further down" in hint(f"- log: '${{r.status}}'\n- {HTTP}\n  as: r")
    assert "event is known under do:" in hint("- log: '${event.digit}'")


def test_originate_gives_the_flow_a_call() -> None:
    fine("- originate: {to: 'sip:a@b.c'}\n- log: '${call.id}'\n- hangup: done", on="start")
    text = steps("- originate: {to: 'sip:a@b.c'}\n  if: now > now\n- log: '${call.id}'", on="start")
    (found,) = diagnose(text)
    assert found.message == "'call' may be missing here"
    assert found.help == "test call != null first, or write call?. for call."  # ?? has no call to offer
    fine("- originate: {to: 'sip:a@b.c'}\n  if: now > now\n- log: \"${call?.id ?? '-'}\"", on="start")


# --- taken names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["call", "request", "event", "error", "vars", "now", "secrets", "relay", "true", "not"]
)
def test_built_in_names_cannot_be_given(name: str) -> None:
    (found,) = diagnose(steps(f"- {HTTP}\n  as: {name}"))
    assert (found.code, found.message) == ("E116", f"'{name}' is already a name here (built in)")


def test_a_name_may_be_given_again_with_the_same_type_only() -> None:
    fine(f"- {HTTP}\n  as: r\n- {HTTP}\n  as: r\n- log: '${{r.status}}'")
    assert codes(steps(f"- {HTTP}\n  as: r\n- lookup: bob@example.com\n  as: r")) == ["E116"]


# --- types ----------------------------------------------------------------------------------------------------------


def test_digits_are_text_that_compares_with_numbers() -> None:
    fine(
        "- subscribe: dtmf\n  where: event.digit == 2\n  do: [stop]\n- reply: 404\n  if: call.target.user == 0049301234"
    )


def test_variable_of_an_enum_value_takes_other_texts() -> None:
    text = "flowlang: 1\nflows: {main: {on: invite, vars: {s: '${call.state}'}, do: [set: {s: anything}, reply: 404]}}"
    assert codes(text) == []


def test_constants_groups_and_schedules_are_typed() -> None:
    more = """
        const: {limit: 5, pause: 30s, trusted: [10.0.0.5], name: sales}
        groups: {sales: [101, '0102']}
        schedules: {office: {open: {mon-fri: 09:00-17:00}}}
        """
    fine("- sleep: ${const.pause}\n- log: x\n  if: call.source_ip in const.trusted and const.limit > 3", more=more)
    fine("- log: x\n  if: schedules.office.open and call.from.user in groups.sales", more=more)
    assert codes(steps("- log: x\n  if: schedules.office.opne", more=more)) == ["E206"]
    assert codes(steps("- sleep: ${const.limit}", more=more)) == ["E203"]
    program = load(steps("- log: x", more=more))
    assert program.resources.const == {"limit": 5, "pause": 30.0, "trusted": ["10.0.0.5"], "name": "sales"}


def test_expressions_know_every_field_the_context_promises() -> None:
    fine(
        """
        - log: '${call.id} ${call.sip_call_id} ${call.state} ${call.from.display} ${call.to.scheme} ${call.target.uri}'
        - log: '${call.domain} ${call.user_agent ?? ""} ${call.source_ip}:${call.source_port} ${call.transport}'
        - log: '${call.answered} ${call.duration} ${call.started_at} ${call.ended_by ?? ""} ${call.end_reason ?? ""}'
        - log: '${call.fs.server ?? ""} ${call.fs.caller ?? ""} ${call.fs.vars["x"] ?? ""} ${size(call.branches)}'
        - log: '${call.target.port ?? 5060}'
        """
    )
    fine(
        """
        - log: '${request.id} ${request.method} ${request.aor} ${request.from.user} ${request.to.host}'
        - log: '${request.domain}'
        - log: '${request.user ?? ""} ${request.headers["X-A"] ?? ""} ${request.expires ?? 0} ${size(request.contacts)}'
        - register
        """,
        on="register",
    )
