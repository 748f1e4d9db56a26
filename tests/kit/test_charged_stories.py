"""`given: cgrates:` — charged calls in test files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.testing.case_files import load_cases

FLOW = """\
flowlang: 1
flows:
  prepaid:
    on: invite
    do:
      - subscribe: low_balance
        do: [log: 'low']
      - subscribe: limit_reached
        do: [log: 'cut after ${event.usage}']
      - subscribe: charge_stop
        do: [log: 'stopped: ${event.reason}']
      - charge: {account: '${call.from.user}', destination: '${call.target.user}', type: prepaid, max: 2h}
        timeout: 1500ms
        on:
          denied: [{reply: {code: 402, reason: No credit}}, stop]
          error: [{reply: {code: 503, reason: Billing unavailable}}, stop]
      - relay: registered
"""
HEAD = "flowlang_test: 1\nflows: prepaid.flow.yaml\ntests:\n"
UP = """\
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 2s, branch: {uri: 'bob@10.0.0.5*', reply: 200}}
"""
STORIES = {
    "the balance cuts the call": """\
  - given:
      registered: {bob@example.com: ['bob@10.0.0.5']}
      cgrates: {accounts: {alice: 90s}}
%s      - {at: 100s}
    expect:
      - sent: {cgrates: {what: authorise, account: alice, destination: bob, usage: 2h}, at: 0s}
      - sent: {cgrates: open, at: 2s}
      - log: cut after 90
      - sent: {cgrates: {what: close, usage: 90s, type: prepaid, cause: limit*}, at: 92s}
      - sent: {cgrates: record}
      - sent: {BYE: '*bob@10.0.0.5*'}
      - ends: {by: engine, reason: limit reached}
      - never: {sent: {cgrates: update}}
""",
    "portions": """\
  - given:
      registered: {bob@example.com: ['bob@10.0.0.5']}
      cgrates: {accounts: {alice: unlimited}, update: 60s, delay: 100ms}
%s      - {at: 80s, cgrates: low_balance}
      - {at: 90s, hangup: caller}
    expect:
      - sent: {cgrates: {what: update, usage: 60s}, at: 57.1s}
      - sent: {cgrates: close, at: 90s}
      - log: low
""",
    "cgrates ends it": """\
  - given:
      registered: {bob@example.com: ['bob@10.0.0.5']}
      cgrates: {accounts: {alice: 1h}}
%s      - {at: 9s, cgrates: {max_usage: 30s}}
      - {at: 20s, cgrates: {disconnect: INSUFFICIENT_CREDIT}}
    expect:
      - log: 'stopped: INSUFFICIENT_CREDIT'
      - ends: {by: engine, reason: INSUFFICIENT_CREDIT}
""",
    "cgrates is away": """\
  - given: {cgrates: {down: true}}
    when: [{at: 0s, invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [reply: 503]
""",
    "cgrates is late": """\
  - given: {cgrates: {accounts: {alice: 1h}, delay: 5s}}
    when: [{at: 0s, invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [reply: {code: 503, at: 1.35s}]
""",
    "nobody's account": """\
  - given: {cgrates: {}}
    when: [{at: 0s, invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [reply: 402]
""",
    "an effects rule goes first": """\
  - given:
      cgrates: {accounts: {alice: 1h}}
      effects: [{name: charge, error: charge.refused}]
    when: [{at: 0s, invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [reply: 402]
""",
}


def told(folder: Path, story: str) -> list[str]:
    (folder / "prepaid.flow.yaml").write_text(FLOW)
    file = folder / "a.test.yaml"
    file.write_text(HEAD + story.replace("%s", UP))
    (case,) = load_cases(file)
    return [str(failure) for failure in case.run().failures]


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str, tmp_path: Path) -> None:
    assert told(tmp_path, STORIES[name]) == []


def test_each_run_of_a_case_begins_with_the_same_balance(tmp_path: Path) -> None:
    (tmp_path / "prepaid.flow.yaml").write_text(FLOW)
    file = tmp_path / "a.test.yaml"
    file.write_text(HEAD + STORIES["the balance cuts the call"].replace("%s", UP))
    (case,) = load_cases(file)
    assert case.run().passed and case.run().passed


@pytest.mark.parametrize(
    ("story", "mistake"),
    [
        ("  - given: {cgrates: {account: {a: 1s}}}\n", "E101|E114"),
        ("  - expect: [sent: {cgrates: opne}]\n", "E106: nothing asks CGRateS to 'opne'"),
        ("  - when: [{at: 0s, cgrates: {disconnect: a, max_usage: 1s}}]\n", "E113: CGRateS does one of"),
        ("  - expect: [sent: {cgrates: open, call: a}]\n", "E114: call: belongs to SIP messages and pushes"),
    ],
)
def test_mistakes(story: str, mistake: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as found:
        told(tmp_path, story)
    text = str(found.value)
    assert any(each in text for each in mistake.split("|")), text
