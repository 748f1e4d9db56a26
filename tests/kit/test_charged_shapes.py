"""Charged calls that fork, are transferred, go through FreeSWITCH or are charged twice: each session is closed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.testing.case_files import load_cases

HEAD = """\
flowlang: 1
freeswitch: {fs1: {host: 127.0.0.1, password: x}}
flows:
  transfers:
    on: refer
    when: call != null
    do: [transfer: '${refer.to.uri}']
  charged:
    on: invite
    do:
"""
CHARGE = "{charge: {account: '${call.from.user}', destination: '${call.target.user}'}}"
RELAY = "{relay: registered}"
FLOWS = {
    "plain": f"      - {CHARGE}\n      - {RELAY}\n",
    "media": f"      - {CHARGE}\n      - relay: {{to: registered, via: fs1}}\n",
    "again": f"      - {CHARGE}\n      - {{charge: {{account: bob}}}}\n      - {RELAY}\n",
    "late": f"      - relay: registered\n        on: {{answered: [{CHARGE}]}}\n",
}
GIVEN = """\
flowlang_test: 1
flows: charged.flow.yaml
tests:
  - given:
      registered:
        alice@example.com: ['alice@10.0.0.4']
        bob@example.com: ['bob@10.0.0.5', 'bob@10.0.0.6']
        carol@example.com: ['carol@10.0.0.7']
      cgrates: {accounts: {alice: 90s, bob: unlimited}}
    expect: []
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com}}
"""
BOB = "      - {at: 2s, branch: {uri: 'bob@10.0.0.5*', reply: 200}}\n"
CAROL = "      - {at: 7s, branch: {uri: 'carol@*', reply: 200}}\n"
STORIES = {
    "one of two answers": ("plain", BOB + "      - {at: 9s, hangup: caller}\n", 1),
    "the callee leaves at once": ("plain", BOB + "      - {at: 2s, hangup: callee}\n", 1),
    "nobody answers": ("plain", "      - {at: 3s, hangup: caller}\n", 0),
    "cut": ("plain", BOB + "      - {at: 200s}\n", 1),
    "through FreeSWITCH": ("media", BOB + "      - {at: 9s, hangup: callee}\n", 1),
    "through FreeSWITCH, cut": ("media", BOB + "      - {at: 120s}\n", 1),
    "through FreeSWITCH, left ringing": ("media", "      - {at: 2s, hangup: caller}\n", 0),
    "the callee transfers": (
        "media",
        BOB + "      - {at: 5s, refer: {leg: callee, to: carol@example.com}}\n" + CAROL + "      - {at: 20s}\n",
        1,
    ),
    "transferred, then cut": (
        "media",
        BOB + "      - {at: 5s, refer: {leg: callee, to: carol@example.com}}\n" + CAROL + "      - {at: 200s}\n",
        1,
    ),
    "charged twice": ("again", BOB + "      - {at: 20s, hangup: caller}\n", 2),
    "charged after the answer": ("late", BOB + "      - {at: 20s, hangup: caller}\n", 1),
    "charged after the answer, cut": ("late", BOB + "      - {at: 200s}\n", 1),
}


@pytest.mark.parametrize("name", STORIES)
def test_each_session_is_closed_once(tmp_path: Path, name: str) -> None:
    flow, acts, sessions = STORIES[name]
    (tmp_path / "charged.flow.yaml").write_text(HEAD + FLOWS[flow])
    (tmp_path / "x.test.yaml").write_text(GIVEN + acts)
    (case,) = load_cases(tmp_path / "x.test.yaml")
    outcome = case.run()
    assert outcome.passed, [str(failure) for failure in outcome.failures]
    seen = [fact for fact in outcome.story.facts if fact.stream == "cgrates"]
    asked = Counter((fact.what, fact.data.charged.session) for fact in seen)
    assert sum(count for (what, _), count in asked.items() if what == "open") == sessions
    for session in {session for _, session in asked}:
        assert asked["open", session] == asked["close", session] == asked["record", session] <= 1, asked
    billing = outcome.story.outside.billing
    assert billing is not None and not billing.open
    used = [fact.data.usage for fact in seen if fact.what == "close"]
    if "cut" in name:
        assert used == [pytest.approx(90.0, abs=0.1)]
