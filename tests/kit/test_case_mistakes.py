"""Mistakes in test files have a place and a cure; acts that hit no call are failures; calls have names."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.testing.case_files import load_cases
from orchestrator.testing.recordings import Recording

FLOW = """flowlang: 1
secrets: {KEY: {env: KEY}}
events: {nudge: {what: text}}
flows:
  ring:
    on: invite
    do:
      - subscribe: nudge
        id: late
        do: [log: here]
      - relay: registered
"""
BOB = "{bob@example.com: ['bob@10.0.0.5'], carol@example.com: ['carol@10.0.0.6']}"


def case(tmp_path: Path, *, given: str = "", when: str = "", expect: str = "") -> Path:
    (tmp_path / "a.flow.yaml").write_text(FLOW)
    path = tmp_path / "a.test.yaml"
    path.write_text(
        "flowlang_test: 1\nflows: a.flow.yaml\ntests:\n  - name: x\n"
        f"    given: {{registered: {BOB}{given}}}\n    when: [{when}]\n    expect: [{expect}]\n"
    )
    return path


def failures(path: Path) -> list[str]:
    return [failure.message for case in load_cases(path) for failure in case.run().failures]


def test_a_web_service_that_times_out_takes_the_time_of_the_step(tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text("""flowlang: 1
flows:
  ask:
    on: invite
    do:
      - http: {url: 'http://service.test/x', timeout: 2s}
        on_error: [log: '${error.type}']
      - reply: 480
""")
    path = tmp_path / "a.test.yaml"
    path.write_text("""flowlang_test: 1
flows: a.flow.yaml
tests:
  - name: x
    given: {http: [{url: '*', error: timeout}]}
    when: [{at: 1s, invite: {from: x@example.com, to: bob@example.com}}]
    expect: [log: {text: http.timeout, at: 3s}, reply: {code: 480, at: 3s}]
""")
    assert failures(path) == []


CALL = "{at: 0s, invite: {name: a, from: x@example.com, to: bob@example.com}}"
OTHER = "{at: 1s, invite: {name: b, from: y@example.com, to: carol@example.com}}"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"given": ", secrets: {KYE: x}"}, "the flows have no secret 'KYE'"),
        ({"given": ", answers: {'eve@10.0.0.1': 486}"}, "10.0.0.1 is the address of the engine in a test"),
        (
            {"when": "{register: {aor: a@b, contact: 'a@10.254.0.1'}}"},
            "10.254.0.1 is the address of FreeSWITCH in a test",
        ),
        ({"expect": "{handler: {id: layte, runs: 1}}"}, "no subscription has the id 'layte'"),
        ({"when": f"{CALL}, {{call: c, hangup: caller}}"}, "no call is named 'c'"),
        ({"when": f"{CALL}, {CALL}"}, "there is a call 'a' already"),
        ({"when": CALL, "expect": "{reply: {code: 200, call: c}}"}, "no call is named 'c'"),
    ],
)
def test_mistakes_that_the_file_shows(tmp_path: Path, parts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_cases(case(tmp_path, **parts))
    (found,) = caught.value.diagnostics
    assert found.message == message and found.line > 4 and found.column > 1


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{hangup: caller}", "nobody has called yet"),
        ("{branch: {uri: 'bob@*', reply: 200}}", "no phone 'bob@*' rings at 0s"),
        (f"{CALL}, {{at: 1s, hangup: caller}}, {{at: 2s, hangup: caller}}", "the call of the caller is over at 2s"),
    ],
)
def test_acts_that_hit_no_call(tmp_path: Path, when: str, message: str) -> None:
    assert message in failures(case(tmp_path, when=when))


def test_calls_are_told_apart_by_name(tmp_path: Path) -> None:
    when = (
        f"{CALL}, {OTHER}, {{at: 2s, call: a, branch: {{uri: '*', reply: 200}}}}, "
        "{at: 3s, call: b, hangup: caller}, {at: 4s, call: a, hangup: callee}"
    )
    right = (
        "{sent: {INVITE: 'sip:carol@*', call: b}}, {reply: {code: 200, call: a}}, {reply: {code: 487, call: b}}, "
        "{ends: {by: callee, call: a}}, {ends: {by: caller, call: b}}, {never: {reply: {code: 200, call: b}}}"
    )
    assert failures(case(tmp_path, when=when, expect=right)) == []
    wrong = "{ends: {by: caller, call: a}}, {reply: {code: 487, call: a}}"
    assert len(failures(case(tmp_path, when=when, expect=wrong))) == 2


def test_an_empty_recording(tmp_path: Path) -> None:
    (tmp_path / "a.esl").write_bytes(b"")
    with pytest.raises(ValueError, match="the recording is empty"):
        Recording.load(tmp_path / "a.esl")
