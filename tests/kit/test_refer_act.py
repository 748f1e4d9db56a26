"""`refer:` of test files: a party of a call asks for a transfer."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.testing.case_files import load_cases

FLOWS = """\
flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x}}
flows:
  calls: {on: invite, do: [relay: {to: registered, via: fs1}]}
  transfers:
    on: refer
    when: call != null
    do: [transfer: '${refer.to.uri}']
"""
TEST = """\
flowlang_test: 1
flows: flows.flow.yaml
tests:
  - name: t
    given:
      registered: {bob@example.com: ['bob@10.0.0.5'], carol@example.com: ['carol@10.0.0.6']}
      answers: {bob@10.0.0.5: 200, carol@10.0.0.6: 200}
"""
BLIND = """\
    when:
      - invite: {from: alice@example.com, to: bob@example.com}
      - {at: 2s, refer: {to: carol@example.com}}
      - {at: 9s, hangup: caller}
    expect:
      - sent: {INVITE: 'sip:bob@10.0.0.5'}
      - reply: 200
      - reply: {code: 202, at: 2s}
      - sent: {NOTIFY: 'sip:bob@10.0.0.5*'}
      - sent: {INVITE: 'sip:carol@10.0.0.6', at: 2s}
      - sent: {BYE: 'sip:carol@10.0.0.6*', at: 9s}
"""
ATTENDED = """\
    when:
      - invite: {name: one, from: alice@example.com, to: bob@example.com}
      - {at: 1s, invite: {name: two, from: bob@example.com, to: carol@example.com}}
      - {at: 2s, call: one, refer: {leg: callee, to: carol@example.com, instead_of: two}}
      - {at: 9s, call: one, hangup: caller}
    expect:
      - esl: uuid_bridge *
      - sent: {BYE: 'sip:carol@10.0.0.6*', at: 9s}
"""


@pytest.mark.parametrize("text", [BLIND, ATTENDED], ids=["blind", "attended"])
def test_a_party_asks_for_a_transfer(text: str, tmp_path: Path) -> None:
    (tmp_path / "flows.flow.yaml").write_text(FLOWS)
    path = tmp_path / "a.test.yaml"
    path.write_text(TEST + text)
    [case] = load_cases(path)
    assert [str(failure) for failure in case.run().failures] == []


def test_who_has_no_part_in_the_other_call_cannot_name_it(tmp_path: Path) -> None:
    (tmp_path / "flows.flow.yaml").write_text(FLOWS)
    path = tmp_path / "a.test.yaml"
    path.write_text(TEST + ATTENDED.replace("leg: callee", "leg: caller"))
    [case] = load_cases(path)
    assert "the caller has no part in the call that is to be replaced" in str(case.run().failures[0])
