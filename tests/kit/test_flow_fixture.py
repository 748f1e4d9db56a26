"""The fixture `flow`, as a user's own suite has it, and what the runner says of tests that fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from orchestrator.cli import main

ROOT = Path(__file__).parents[2]
PUSH = ROOT / "flows" / "push_wakeup.flow.yaml"
BY_HAND = ROOT / "docs" / "flows" / "push_by_hand.flow.yaml"
VOICEMAIL = ROOT / "flows" / "voicemail_detect.flow.yaml"
SCREENING = ROOT / "flows" / "dtmf_screening.flow.yaml"
SECRETS = {"PUSH_URL": "https://push.example.com/v1/send", "PUSH_KEY": "test"}
CALLEE = "b9086ca5-fa13-46e0-9180-46063e449f34"

Flow = Callable[..., Any]


def test_late_mobile(flow: Flow) -> None:
    phone = "bob@10.0.0.7;pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=token1"
    run = flow(PUSH, registered={"bob@example.com": ["bob@10.0.0.5", phone]})
    run.push.on("bob@example.com").wakes("4s", contact="bob@10.0.0.9")
    call = run.invite("alice@example.com", "bob@example.com")
    call.branch("bob@10.0.0.9").answers(at="6s")
    assert call.replies == [200] and call.branch("bob@10.0.0.5").cancelled
    assert not call.branch("bob@10.0.0.7").rang
    [push] = run.push.asked
    assert (push.kind, push.address.token, push.data["from"]) == ("call", "token1", "alice@example.com")


@pytest.mark.parametrize(("outcome", "at"), [("dead", 1), ("failed", 40), ("sent", 20)])
def test_what_a_push_service_says(flow: Flow, outcome: str, at: int) -> None:
    """A phone whose push has failed rings where it is, for as long as `ring:` says."""
    run = flow(PUSH, registered={"bob@example.com": ["bob@10.0.0.7;pn-provider=fcm;pn-prid=token1"]})
    run.push.on(service="fcm").says(outcome, "as the test says", delay="1s")
    call = run.invite("alice@example.com", "bob@example.com")
    assert call.replies == [480]
    assert [fact.time for fact in run.story.facts if fact.kind == "reply" and fact.what == "480"] == [at]


def test_late_mobile_by_hand(flow: Flow) -> None:
    run = flow(BY_HAND, registered={"bob@example.com": ["bob@10.0.0.5"]}, secrets=SECRETS)
    run.http.on("POST", "https://push.example.com/*").reply(200)
    call = run.invite("alice@example.com", "bob@example.com")
    run.at("4s").register("bob@example.com", "bob@10.0.0.7;pn-provider=apns")
    call.branch("bob@10.0.0.7*").answers(at="6s")
    assert call.replies == [200]
    assert call.branch("bob@10.0.0.5").cancelled
    assert run.handler("late_phone").runs == 1
    assert run.http.requests[0].json["to"] == "bob@example.com"


@pytest.mark.parametrize("digit, ended_by", [("5", "engine"), ("2", "")])
def test_screening(flow: Flow, digit: str, ended_by: str) -> None:
    run = flow(SCREENING, registered={"bob@example.com": ["bob@10.0.0.5"]})
    call = run.invite("alice@example.com", "88bob@example.com").branch("bob@10.0.0.5").answers(at="2s").call
    run.at("3s").press(call, "callee", digit)
    assert call.ended_by == ended_by


def test_a_recording_stands_for_freeswitch(flow: Flow) -> None:
    run = flow(SCREENING, registered={"bob@example.com": ["bob@10.0.0.5"]})
    call = run.invite("alice@example.com", "88bob@example.com").branch("bob@10.0.0.5").answers(at="1s").call
    run.esl.replay(ROOT / "tests/fixtures/esl/via_bridge.esl", legs={"callee": CALLEE}, at="1s")
    assert (call.ended_by, call.end_reason) == ("engine", "callee pressed 5")


@pytest.mark.parametrize(
    ("length", "tone", "verdict"),
    [("1s", "", "human"), ("9s", "", "machine"), ("1s", "beep", "beep"), ("", "", "silence")],
)
def test_who_answers_is_told_by_what_is_heard(flow: Flow, length: str, tone: str, verdict: str) -> None:
    run = flow(VOICEMAIL, registered={"bob@example.com": ["bob@10.0.0.5"]}, sounds={"*440*": 4})
    run.at(0).raise_event("message_due", to="bob@example.com", **{"from": "clinic@example.com"})
    run.placed.branch("bob@10.0.0.5").answers(at="2s")
    if length:
        run.at("2.4s").speaks(run.placed, "callee", length)
    if tone:
        run.at("2.8s").tone(run.placed, "callee", tone)
    assert run.logs[0].startswith(f"{verdict} at bob@example.com")
    assert run.placed.ended_by == "engine"


def test_a_tone_that_is_none(flow: Flow) -> None:
    run = flow(VOICEMAIL)
    with pytest.raises(ValueError, match="'bep' is not a tone: beep, cng, ced"):
        run.at(0).tone(run.placed, "callee", "bep")


def test_nothing_can_be_added_once_the_story_is_told(flow: Flow) -> None:
    run = flow(PUSH, secrets=SECRETS)
    run.http.on("*", "*").reply(200)
    call = run.invite("alice@example.com", "bob@example.com")
    assert call.replies == [480]
    with pytest.raises(RuntimeError, match="the story has been told"):
        run.at("70s").register("bob@example.com", "bob@10.0.0.7")


def test_times_are_durations(flow: Flow) -> None:
    with pytest.raises(ValueError, match="'4' is not a duration: write 6s"):
        flow(PUSH, secrets=SECRETS).at("4")


# --- what a failing test says -----------------------------------------------------------------------------------------

FLOW = """flowlang: 1
flows:
  main:
    on: invite
    do:
      - subscribe: registered
        id: late
        do: [log: 'late ${event.aor}']
      - relay: {to: registered, ring: 20s}
      - fail: not at home
"""


def run_cases(tmp_path: Path, cases: str) -> CompletedProcess[str]:
    """What `orchestrator test` says."""
    (tmp_path / "main.flow.yaml").write_text(FLOW)
    (tmp_path / "main.test.yaml").write_text(f"flowlang_test: 1\nflows: main.flow.yaml\ntests:\n{cases}")
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["test", str(tmp_path)])
    assert isinstance(ended.value.code, int)
    return CompletedProcess((), ended.value.code, out.getvalue(), err.getvalue())


def test_a_failure_has_its_place_what_was_seen_and_the_trace(tmp_path: Path) -> None:
    done = run_cases(
        tmp_path,
        """  - name: it rings
    given: {registered: {bob@example.com: ['bob@10.0.0.5']}}
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 1s, branch: {uri: '*', reply: 200}}
    expect:
      - reply: 486
      - sent: {INVITE: '*', at: 3s}
    allow: [user.error]
""",
    )
    assert done.returncode == 1
    assert "main.test.yaml:10:9: expected reply what: 486; seen:" in done.stdout
    assert "1.0s reply 200 OK" in done.stdout
    assert "relay -> answered 200" in done.stdout, "the trace of what happened"
    assert "0 passed, 1 failed" in done.stdout


def test_an_error_nobody_caught_fails_the_test_unless_it_is_allowed(tmp_path: Path) -> None:
    case = """  - name: nobody
    when: [{at: 0s, invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [{reply: 500}]
"""
    done = run_cases(tmp_path, case)
    assert done.returncode == 1
    assert "user.error: not at home (line 10); write allow: [user.error]" in done.stdout
    assert run_cases(tmp_path, case + "    allow: [user*]\n").returncode == 0


@pytest.mark.parametrize(
    "case, said",
    [
        ("  - name: x\n    wen: []\n", "unknown key for a test: 'wen'"),
        ("  - name: x\n    when: [{at: 3, hangup: caller}]\n", "'3' is not a duration"),
        ("  - name: x\n    when: [{hangup: both}]\n", "'both' cannot hang up"),
        ("  - name: x\n    when: [{invit: {}}]\n", "unknown key for a step of when: 'invit'"),
        ("  - name: x\n    expect: [{replies: 200}]\n", "unknown key for an expectation: 'replies'"),
        ("  - name: x\n    flows: nowhere.flow.yaml\n", "there is no"),
        ("  - name: x\n    when: [{raise: {event: registerd}}]\n", "unknown event 'registerd'"),
        ("  - name: x\n    when: [{esl: nowhere.esl}]\n", "no recording"),
        ("  - name: x\n    when: [{tone: {tone: bep}}]\n", "'bep' is not a tone"),
        ("  - name: x\n    when: [{tone: {}}]\n", "'' is not a tone"),
        ("  - name: x\n    when: [{speaks: {leg: calle}}]\n", "'calle' is not a leg"),
        ("  - name: x\n    given: {sounds: {a.wav: 3}}\n", "'3' is not a duration"),
        ("  - name: x\n    given: {time: tomorrow}\n", "time is not a date and time"),
    ],
)
def test_a_mistake_in_a_test_file_has_its_place(tmp_path: Path, case: str, said: str) -> None:
    done = run_cases(tmp_path, case)
    assert done.returncode == 1
    assert said in done.stderr
    assert "main.test.yaml:" in done.stderr


def test_acts_that_cannot_happen_are_failures(tmp_path: Path) -> None:
    done = run_cases(tmp_path, "  - name: x\n    when: [{at: 1s, branch: {uri: 'bob@*', reply: 200}}]\n")
    assert done.returncode == 1
    assert "no phone 'bob@*' rings at 1s" in done.stdout


def test_what_nobody_hears_is_a_failure(tmp_path: Path) -> None:
    done = run_cases(
        tmp_path,
        """  - name: x
    given: {registered: {bob@example.com: ['bob@10.0.0.5']}}
    when:
      - {at: 0s, speaks: {leg: caller}}
      - {at: 1s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 2s, tone: {leg: callee, tone: beep}}
      - {at: 3s, branch: {uri: '*', reply: 200}}
      - {at: 4s, tone: {leg: callee, tone: beep}}
""",
    )
    assert done.returncode == 1
    assert "nobody has called yet" in done.stdout
    assert "nobody has answered this call" in done.stdout
    assert "the media of this call do not go through FreeSWITCH: nobody there hears the callee" in done.stdout


def test_no_tests_is_not_success(tmp_path: Path) -> None:
    assert run_cases(tmp_path, "  []\n").returncode == 5
