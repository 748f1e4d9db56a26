"""`given: sinks:` and `sent: {amqp: …}` — events out in test files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.testing.case_files import load_cases

FLOW = """\
flowlang: 1
events:
  order_done: {total: number, customer: text}
flows:
  orders:
    on: invite
    do:
      - raise: {event: order_done, data: {total: 7, customer: '${call.from.user}'}}
      - relay: registered
      - raise: {event: order_done, data: {total: 3, customer: '${call.from.user}'}}
"""
HEAD = "flowlang_test: 1\nflows: orders.flow.yaml\ntests:\n"
WHEN = """\
    when:
      - {at: 0s, invite: {from: alice@example.com, to: bob@example.com}}
      - {at: 2s, branch: {uri: 'bob@10.0.0.5*', reply: 200}}
      - {at: 9s, hangup: caller}
"""
GIVEN = "  - given:\n      registered: {bob@example.com: ['bob@10.0.0.5']}\n"
SINKS = """\
      sinks:
        rabbit: {type: amqp, events: ['order_*', cdr], when: "event.total > 5", fields: [total]}
        crm: {type: webhook, events: [cdr]}
        hall: {type: board, events: [order_done]}
"""
COUNTED = SINKS.replace("['order_*', cdr]", "['order_*']")


def run(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "orders.flow.yaml").write_text(FLOW)
    file = tmp_path / "orders.test.yaml"
    file.write_text(HEAD + text)
    return [str(failure) for case in load_cases(file) for failure in case.run().failures]


def test_without_sinks_each_type_gets_everything(tmp_path: Path) -> None:
    expect = """\
    expect:
      - sent: {amqp: {event: order_done, data: {total: 7, customer: alice}}, at: 0s}
      - sent: {amqp: ringing}
      - sent: {amqp: answered, at: 2s}
      - sent: {amqp: {event: order_done, data: {total: 3}}}
      - sent: {amqp: {event: cdr, sink: amqp, domain: example.com, data: {to: bob@example.com, code: 200}}, at: 9s}
      - sent: {webhook: order_done, at: 0s}
      - sent: {kafka: cdr}
      - sent: {file: 'order_*'}
      - never: {sent: {amqp: {event: order_done, data: {total: 5}}}}
"""
    assert run(tmp_path, GIVEN + WHEN + expect) == []


def test_sinks_choose_as_those_of_the_configuration(tmp_path: Path) -> None:
    expect = """\
    expect:
      - sent: {amqp: {sink: rabbit, event: order_done, data: {total: 7}}, at: 0s}
      - sent: {board: order_done, at: 0s}
      - sent: {webhook: cdr, at: 9s}
      - never: {sent: {amqp: {data: {total: 3}}}}
      - never: {sent: {amqp: {data: {customer: '*'}}}}
      - never: {sent: {webhook: order_done}}
"""
    assert run(tmp_path, GIVEN + COUNTED + WHEN + expect) == []


def test_what_did_not_come_is_told_with_what_came(tmp_path: Path) -> None:
    expect = "    expect:\n      - sent: {amqp: {event: order_done, data: {total: 5}}}\n"
    (told,) = run(tmp_path, GIVEN + WHEN + expect)
    assert "expected amqp" in told and "0.0s amqp order_done amqp" in told
    assert "orders.test.yaml:11:9: " in told


@pytest.mark.parametrize(
    ("given", "expect", "told"),
    [
        ("", "{amqp: order_dnoe}", "there is no event 'order_dnoe'"),
        ("", "{amqp: {event: order_done, data: {totl: 5}}}", "'totl'"),
        ("", "{amqp: {event: order_done, skin: x}}", "unknown key for amqp: 'skin'"),
        ("", "{board: order_done}", "unknown key for sent: 'board'"),
        ("", "{amqp: order_done, call: a}", "call: belongs to SIP"),
        (SINKS, "{amqp: order_done}", "event 'cdr'"),  # when: reads what records of calls lack
        (COUNTED, "{kafka: order_done}", "no sink of type kafka"),
        (COUNTED, "{amqp: {sink: rabit}}", "no sink of type amqp is called 'rabit'"),
        (COUNTED.replace("order_*", "ordr_*"), "{amqp: order_done}", "no event fits 'ordr_*'"),
        (COUNTED.replace("[total]", "[totl]"), "{amqp: order_done}", "'totl'"),
        (COUNTED.replace("type: amqp, ", ""), "{webhook: cdr}", "a sink needs type:"),
        (COUNTED.replace("type: amqp", "type: amqp, host: x"), "{amqp: order_done}", "'host'"),
    ],
)
def test_mistakes_are_told_at_their_place(tmp_path: Path, given: str, expect: str, told: str) -> None:
    with pytest.raises(InputError) as raised:
        run(tmp_path, GIVEN + given + WHEN + f"    expect:\n      - sent: {expect}\n")
    assert told in str(raised.value) and "orders.test.yaml:" in str(raised.value)
