"""`send:` of test files: requests that begin no call, from phones and strangers."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.testing.case_files import load_cases

FLOWS = """\
flowlang: 1
flows:
  texts:
    on: message
    when: request.target.user == 'bob'
    do:
      - relay: registered
        on:
          else: [reply: {code: 202, reason: Kept}]
"""
TEST = """\
flowlang_test: 1
flows: flows.flow.yaml
tests:
  - name: t
    given:
      registered: {bob@example.com: ['bob@10.0.0.5'], alice@example.com: ['alice@10.0.0.6']}
%s
"""


def failures(folder: Path, text: str) -> list[str]:
    (folder / "flows.flow.yaml").write_text(FLOWS)
    path = folder / "a.test.yaml"
    path.write_text(TEST % text)
    [case] = load_cases(path)
    return [str(failure) for failure in case.run().failures]


def test_a_message_reaches_the_phone_and_its_answer_the_sender(tmp_path: Path) -> None:
    text = """\
    when:
      - send: {method: message, from: carol@example.com, to: bob@example.com, headers: {X-A: b}, body: hi}
      - {at: 1s, send: {method: message, from: carol@example.com, to: alice@example.com}}
      - {at: 2s, send: {method: options, from: alice@example.com, to: bob@example.com}}
    expect:
      - sent: {MESSAGE: 'sip:bob@10.0.0.5', at: 0s}
      - reply: 200
      - reply: {code: 403, at: 1s}
      - sent: {OPTIONS: 'sip:bob@10.0.0.5', at: 2s}
      - reply: 200
      - never: {sent: {MESSAGE: 'sip:alice*'}}"""
    assert failures(tmp_path, text) == []


def test_a_phone_may_refuse_it(tmp_path: Path) -> None:
    text = """\
      answers: {bob@10.0.0.5: 404}
    when: [{send: {method: message, from: alice@example.com, to: bob@example.com}}]
    expect: [{reply: {code: 202, reason: Kept}}]"""
    assert failures(tmp_path, text) == []


@pytest.mark.parametrize("method", ["invite", "mesage", "''"])
def test_other_methods_are_mistakes(tmp_path: Path, method: str) -> None:
    text = f"    when: [{{send: {{method: {method}, from: a@example.com, to: b@example.com}}}}]"
    with pytest.raises(InputError) as caught:
        failures(tmp_path, text)
    [mistake] = caught.value.diagnostics
    assert (mistake.code, mistake.help) == ("E106", "message, subscribe, publish, options, refer or notify")
