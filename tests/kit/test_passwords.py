"""`given: users:` and `password:` — phones that answer challenges in test files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.testing.case_files import load_cases

FLOW = """\
flowlang: 1
users:
  phones: {file: phones.txt}
flows:
  registrations:
    on: register
    do:
      - auth: example.com
      - register
  calls:
    on: invite
    do:
      - auth: example.com
        as: who
        on_fail: [log: 'wrong password']
      - log: 'call of ${who.user}'
      - relay: registered
  texts:
    on: message
    do:
      - auth: example.com
      - reply: 200
"""
HEAD = """\
flowlang_test: 1
flows: auth.flow.yaml
tests:
  - given:
      users: {phones: {alice: wonderland, bob: builder}}
"""
STORIES = {
    "a call": """\
      registered: {bob@example.com: ['bob@10.0.0.5']}
    when:
      - {at: 1s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 2s, branch: {uri: 'bob@10.0.0.5*', reply: 200}}
      - {at: 9s, hangup: caller}
    expect:
      - reply: 407
      - log: call of alice
      - sent: {INVITE: '*bob@10.0.0.5*', at: 1s}
      - reply: {code: 200, at: 2s}
      - sent: {BYE: '*bob*', at: 9s}
      - ends: {by: caller}
""",
    "a wrong password": """\
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com, password: looking-glass}}
    expect:
      - reply: 407
      - log: wrong password
      - never: {reply: 200}
      - never: {log: 'call of*'}
""",
    "nobody": """\
    when:
      - {at: 0s, invite: {from: eve@example.com, to: bob@example.com}}
      - {at: 1s, register: {aor: eve@example.com, contact: eve@10.0.0.9, password: apple}}
      - {at: 2s, send: {method: message, from: eve@example.com, to: bob@example.com, body: hello}}
    expect:
      - reply: 407
      - register: 401
      - never: {reply: 200}
      - never: {register: 200}
""",
    "a text, and a phone that registers later": """\
    when:
      - {at: 0s, send: {method: message, from: alice@example.com, to: bob@example.com, body: hello}}
      - {at: 1s, register: {aor: bob@example.com, contact: bob@10.0.0.6, password: builder}}
      - {at: 3s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 4s, hangup: caller}
    expect:
      - reply: {code: 407, at: 0s}
      - reply: {code: 200, at: 0s}
      - register: {code: 200, at: 1s}
      - sent: {INVITE: '*bob@10.0.0.6*', at: 3s}
      - reply: 487
      - sent: {CANCEL: '*bob@10.0.0.6*', at: 4s}
""",
}


def run(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "auth.flow.yaml").write_text(FLOW)
    file = tmp_path / "auth.test.yaml"
    file.write_text(text)
    return [str(failure) for case in load_cases(file) for failure in case.run().failures]


@pytest.mark.parametrize("name", STORIES)
def test_phones_answer_challenges(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, HEAD + STORIES[name]) == []


def test_a_table_that_the_flows_do_not_have_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phnes"):
        run(tmp_path, HEAD.replace("phones:", "phnes:") + STORIES["nobody"])
