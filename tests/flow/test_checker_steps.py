"""Steps as the engine gets them: each way of writing one means the same."""

from __future__ import annotations

from typing import Any

import pytest
from flowcheck import diagnose, first_step, main_flow, said, steps, value

from orchestrator.flow.language.program import Branch, Catch, Step, Where

CALL = {
    "id": "c1",
    "to": {"aor": "bob@example.com", "user": "bob"},
    "target": {"user": "101", "aor": "bob@example.com"},
    "answered": False,
}


def test_bare_value_and_map_are_the_same() -> None:
    short, long = first_step("- reply: 404"), first_step("- reply: {code: 404}")
    assert value(short, "code") == value(long, "code") == 404
    assert short.action is long.action


def test_keys_beside_may_stand_inside() -> None:
    beside = first_step("- subscribe: registered\n  for: 20s\n  do: [log: x]")
    inside = first_step("- subscribe: {event: registered, for: 20s, do: [log: x]}")
    assert beside.args["event"] == inside.args["event"] == "registered"
    assert value(beside, "for") == value(inside, "for") == 20.0
    assert len(beside.args["do"]) == len(inside.args["do"]) == 1


@pytest.mark.parametrize("written", ["- stop", "- stop:", "- {stop: null}"])
def test_actions_without_keys(written: str) -> None:
    if "null" in written:
        assert said(steps(written)) == ["6:16 E105 stop takes no value"]
        return
    step = first_step(written)
    assert step.action is not None and step.action.name == "stop"
    assert dict(step.args) == {}


def test_keys_that_are_not_written_are_not_in_args() -> None:
    assert set(first_step("- relay: registered").args) == {"to"}


def test_common_keys() -> None:
    step = first_step(
        """
        - http: {url: 'https://a.example/'}
          if: call.answered
          as: answer
          id: ask
          timeout: 1500ms
          note: a remark
          on_error: continue
        """
    )
    assert step.condition is not None and step.condition.evaluate({"call": CALL}) is False
    assert (step.result, step.id, step.note, step.on_error) == ("answer", "ask", "a remark", ())
    assert step.timeout is not None and step.timeout.evaluate({}) == 1.5


def test_on_error_may_be_steps() -> None:
    step = first_step("- http: {url: 'https://a.example/'}\n  on_error: [log: '${error.message}']")
    assert step.on_error is not None
    assert value(step.on_error[0], "text", error={"message": "m"}) == "m"


def test_block_form() -> None:
    step = first_step("- if: call.answered\n  then: [log: yes, log: really]\n  else: [log: no]")
    assert step.action is None
    assert (len(step.args["then"]), len(step.args["else"])) == (2, 1)


def test_one_step_may_stand_for_a_list() -> None:
    step = first_step("- if: call.answered\n  then: {log: yes}")
    assert len(step.args["then"]) == 1


def test_place_and_source_for_traces() -> None:
    flow = main_flow("- log: 'said ${call.id}'\n- relay: {to: registered,\n          ring: 5s}\n- stop")
    assert [step.source for step in flow.do] == ["log: 'said ${call.id}'", "relay: {to: registered,", "stop"]
    assert [(step.place.line, step.place.column) for step in flow.do] == [(6, 9), (7, 9), (9, 9)]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("registered", "registered"),
        ("'sip:bob@example.com;transport=udp'", "sip:bob@example.com;transport=udp"),
        ("['sip:a@b.c', '${call.target.aor}']", ["sip:a@b.c", "bob@example.com"]),
        ("${call.target.aor}", "bob@example.com"),
    ],
)
def test_destinations(written: str, kept: Any) -> None:
    assert (
        value(
            first_step(f"- relay: {{to: {written}}}" if written[0] != "$" else f"- relay: {written}"), "to", call=CALL
        )
        == kept
    )


def test_names_and_choices_are_plain_text() -> None:
    step = first_step(
        "- relay: {gateways: [telco], mode: serial, failover_on: [408, 5xx, timeout], via: fs1}",
        more="gateways: {telco: {uri: 'sip:t'}}\nfreeswitch: {fs1: {host: h, password: p}}",
    )
    assert step.args["gateways"] == ("telco",)
    assert (step.args["mode"], step.args["via"]) == ("serial", "fs1")
    assert step.args["failover_on"] == ("408", "5xx", "timeout")


def test_one_gateway_may_stand_for_a_list() -> None:
    assert first_step("- relay: {gateways: telco}", more="gateways: {telco: {uri: 'sip:t'}}").args["gateways"] == (
        "telco",
    )


def test_outcomes_may_share_an_entry() -> None:
    step = first_step("- relay: registered\n  on:\n    busy, rejected: [reply: 486]\n    else: [reply: 480]")
    assert set(step.args["on"]) == {"busy", "rejected", "else"}
    assert step.args["on"]["busy"] is step.args["on"]["rejected"]


def test_cases_are_kept_as_the_engine_writes_values() -> None:
    step = first_step(
        "- switch: size(call.to.user)\n  cases:\n    '1': [log: a]\n    2, 3: [log: b]\n  default: [log: c]",
    )
    assert list(step.args["cases"]) == ["1", "2", "3"]
    assert len(step.args["default"]) == 1


def test_quoted_case_keeps_its_comma() -> None:
    assert list(first_step("- switch: call.to.user\n  cases: {'a, b': [log: x]}").args["cases"]) == ["a, b"]


def test_first_of_branches() -> None:
    step = first_step(
        """
        - first_of:
            - wait: dtmf
              where: {digit: 2}
              as: key
              do: [log: '${event.digit} ${key.leg}']
            - after: 8s
        """
    )
    wait, after = step.args["branches"]
    assert isinstance(wait, Branch) and isinstance(wait.wait, Step)
    assert (wait.wait.args["event"], wait.wait.result, len(wait.do)) == ("dtmf", "key", 1)
    assert isinstance(wait.wait.args["where"], Where)
    assert after.wait is None and after.do == ()
    assert after.after.evaluate({}) == 8.0


def test_parallel_branches_and_catches() -> None:
    flow = main_flow(
        """
        - parallel: [[log: a, log: b], {log: c}]
          wait_for: first
        - try: [log: x]
          catch:
            - {error: http.*, do: [log: '${error.type}']}
            - do: [log: any]
          finally: [log: last]
        """
    )
    assert [len(block) for block in flow.do[0].args["branches"]] == [2, 1]
    catches = flow.do[1].args["catch"]
    assert all(isinstance(catch, Catch) for catch in catches)
    assert [catch.error for catch in catches] == ["http.*", "*"]
    assert len(flow.do[1].args["finally"]) == 1


def test_loops() -> None:
    flow = main_flow(
        """
        - foreach: [201, '0301']
          item: ext
          do: [log: '${ext}']
          until: call.answered
        - repeat: {times: 3, every: 500ms, do: [log: x]}
        """
    )
    loop, again = flow.do
    assert value(loop, "in") == ["201", "0301"]
    assert loop.args["item"] == "ext"
    assert loop.args["until"].evaluate({"call": CALL}) is False
    assert (value(again, "times"), value(again, "every")) == (3, 0.5)


def test_http_keeps_types_of_json() -> None:
    step = main_flow(
        """
        - http:
            url: 'https://a.example/${call.id}'
            json: {n: '${size(call.id)}', list: [1, yes, 0049, 30s, null], text: '${call.id}!', nested: {deep: true}}
            headers: {X-Count: '${size(call.id)}'}
        """
    ).do[0]
    assert value(step, "url", call=CALL) == "https://a.example/c1"
    assert value(step, "json", call=CALL) == {
        "n": 2,
        "list": [1, "yes", "0049", "30s", None],
        "text": "c1!",
        "nested": {"deep": True},
    }
    assert step.args["headers"]["X-Count"].evaluate({"call": CALL}) == "2"


def test_list_fields_take_one_value() -> None:
    assert value(first_step("- cancel: all"), "branches") == ["all"]
    assert value(first_step("- cancel: ['1', '2']"), "branches") == ["1", "2"]
    step = first_step("- subscribe: ringing\n  do: [cancel: '${event.branch}']")
    assert value(step.args["do"][0], "branches", event={"branch": "7"}) == ["7"]


def test_dollar_is_escaped_for_freeswitch() -> None:
    step = first_step("- fs.execute: {app: playback, args: '$${sound_prefix}/${call.id}.wav'}")
    assert value(step, "args", call=CALL) == "${sound_prefix}/c1.wav"


# --- filters --------------------------------------------------------------------------------------------------------


def where(text: str, on: str = "invite", more: str = "") -> Where:
    found = first_step(text, on, more).args["where"]
    assert isinstance(found, Where)
    return found


def test_map_filter_becomes_keys() -> None:
    found = where("- wait: registered\n  where: {aor: '${call.to.aor}', mobile: true, expires: 60}")
    env = {"call": CALL}
    values = {name: given.evaluate(env) for name, given in found.equals.items()}
    assert values == {"aor": "bob@example.com", "mobile": True, "expires": 60}
    assert found.rest is None


def test_wildcards_are_what_the_author_wrote_only() -> None:
    found = where("- wait: registered\n  where: {uri: 'sip:*@${call.to.user}'}")
    assert dict(found.equals) == {}
    assert found.rest is not None

    def fits(uri: str, user: str) -> bool:
        assert found.rest is not None
        return found.rest.evaluate({"call": {"to": {"user": user}}, "event": {"uri": uri}}) is True

    assert fits("sip:x@bob", "bob")
    assert not fits("sip:x@bob", "*")
    assert fits("sip:x@*", "*")


def test_condition_filter_is_split_into_keys_and_rest() -> None:
    found = where("- wait: registered\n  where: event.aor == call.to.aor and event.expires > 60")
    assert list(found.equals) == ["aor"]
    assert found.rest is not None
    assert found.rest.evaluate({"event": {"expires": 61}, "call": CALL}) is True


def test_map_filter_reads_the_event_of_the_flow_around() -> None:
    flow = main_flow(
        "- wait: failed\n  where: {ip: '${event.ip}'}\n  for: 5s\n  on_timeout: [stop]",
        on="failed",
        more="events: {failed: {ip: text}}",
    )
    assert flow.do[0].args["where"].equals["ip"].evaluate({"event": {"ip": "10.0.0.1"}}) == "10.0.0.1"


def test_lookup_filters_contacts() -> None:
    by_map = where("- lookup: ${call.to.aor}\n  where: {mobile: true, uri: 'sip:*'}")
    by_condition = where("- lookup: ${call.to.aor}\n  where: contact.mobile and contact.uri.startsWith('sip:')")
    for found in (by_map, by_condition):
        assert dict(found.equals) == {} and found.rest is not None
        assert found.rest.evaluate({"contact": {"mobile": True, "uri": "sip:x"}}) is True
        assert found.rest.evaluate({"contact": {"mobile": True, "uri": "tel:x"}}) is False
        assert found.rest.evaluate({"contact": {"mobile": False, "uri": "sip:x"}}) is False


def test_lookup_filter_sees_the_names_around() -> None:
    found = where("- lookup: ${call.to.aor}\n  where: {aor: '${call.to.aor}'}")
    assert found.rest is not None
    assert found.rest.evaluate({"contact": {"aor": "bob@example.com"}, "call": CALL}) is True


# --- one mistake, one message ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "- relay: {too: registered}",
        "- relya: registered\n  if: call.nonsense",
        "- wait: registerd\n  where: {anything: goes}\n  as: x\n- log: '${x.whatever}'",
        "- relay: {gateways: nowhere}",
        "- subscribe: registered\n  do: [injct: x]",
        "- http: {url: 'https://a.example/', methd: GET}",
        "- set: {n: 1}",
        "- stop:\n  if: call.nonsense\n- log: x",
        "- if: call.nonsense\n  then: [stop]\n- log: x",
        "- if: call.nonsense\n  then: [stop]\n  else: [stop]",
        "- relay: registered\n  on: [stop]\n- log: x",
        "- http: {url: 'https://a.example/'}\n  if: call.nonsense\n  as: r\n- log: '${r?.status ?? 0}'",
        "- if: call.answered\n  thn: [stop]\n  else: [stop]",
    ],
)
def test_one_slip_gives_one_message(text: str) -> None:
    assert len(diagnose(steps(text))) == 1


def test_unknown_trigger_makes_its_names_anything() -> None:
    text = steps("- relay: ${call.whatever}\n- log: '${event.x} ${request.y}'\n- reply: 404", on="invit")
    assert [d.code for d in diagnose(text)] == ["E112"]


def test_unknown_type_of_an_event_is_said_once() -> None:
    text = steps("- wait: due\n  where: {n: 5}\n  for: 5s", more="events: {due: {n: nmber}}")
    assert [d.code for d in diagnose(text)] == ["E102"]
