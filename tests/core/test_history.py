"""The stream of facts: who listens is told once, in order, and can break nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.faults import Fault
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.trace import Trace, TraceWritten, facts
from orchestrator.history import (
    BranchEnded,
    ByeHeld,
    CallFact,
    CallRecord,
    History,
    MessageIn,
    RequestSent,
    ResponseReceived,
    ResponseSent,
)
from orchestrator.testing.world import World


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (RequestSent("INVITE", "sip:bob@10.0.0.3"), "SIP >> INVITE to=sip:bob@10.0.0.3"),
        (RequestSent("CANCEL", "sip:bob@10.0.0.3"), "SIP >> CANCEL to=sip:bob@10.0.0.3"),
        (RequestSent("BYE", "callee"), "SIP >> BYE to callee"),
        (RequestSent("BYE", "caller", "FreeSWITCH is away"), "SIP >> BYE to caller, FreeSWITCH is away"),
        (ResponseSent(486), "SIP >> 486"),
        (ResponseSent(404, "Nothing to pick up"), "SIP >> 404 Nothing to pick up"),
        (ResponseReceived(180, "sip:bob@10.0.0.3"), "SIP << 180 from sip:bob@10.0.0.3"),
        (BranchEnded("sip:bob@10.0.0.3", "is given up"), "SIP -- sip:bob@10.0.0.3 is given up"),
        (ByeHeld(), "SIP -- BYE waits for the ACK"),
    ],
    ids=str,
)
def test_a_fact_is_a_line_for_people_and_data_for_programs(fact: CallFact, text: str) -> None:
    assert str(fact) == text
    assert fact.facts()["kind"] == type(fact).__name__


def test_each_listener_is_told_the_facts_of_its_kind_in_order() -> None:
    history, told = History(), list[str]()
    history.listen(str, lambda fact: told.append(f"first {fact}"))
    history.listen(str, lambda fact: told.append(f"second {fact}"))
    history.tell("a")
    history.tell(3)
    assert told == ["first a", "second a"]


def test_who_has_gone_is_told_nothing_and_the_fact_is_not_made() -> None:
    history, told = History(), list[str]()
    history.listen(str, told.append)
    assert history.hears(str)
    history.ignore(str, told.append)
    history.ignore(str, told.append)
    assert not history.hears(str)
    history.tell("a")
    assert told == []


def test_a_listener_that_raises_is_reported_and_the_others_are_told() -> None:
    history, told, bugs = History(), list[str](), list[Exception]()
    history.on_fault = bugs.append
    history.listen(str, lambda fact: [][1])
    history.listen(str, told.append)
    history.tell("a")
    assert told == ["a"] and [type(bug) for bug in bugs] == [IndexError]


def relayed(tmp_path: Path) -> World:
    path = tmp_path / "a.flow.yaml"
    path.write_text("flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - relay: registered\n")
    return World(load_program([path])[0])


def a_call(world: World) -> None:
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    world.run()
    call = alice.invite("bob@example.com")
    world.run(0.1)
    bob.calls[0].answer()
    world.run(0.1)
    call.hangup()
    world.run(40)


def test_one_call_as_facts(tmp_path: Path) -> None:
    world = relayed(tmp_path)
    lines: list[Any] = []
    records: list[CallRecord] = []
    world.engine.history.listen(TraceWritten, lambda written: lines.append(written.line))
    world.engine.history.listen(CallRecord, records.append)
    a_call(world)
    said = [line.fact for line in lines if isinstance(line.fact, CallFact)]
    contact = "sip:bob@10.0.0.3:5060"
    assert said == [RequestSent("INVITE", contact), ResponseReceived(180, contact), ResponseReceived(200, contact)]
    assert [record.ended_by for record in records] == ["caller"]


def test_the_admin_shows_facts_without_push_tokens(tmp_path: Path) -> None:
    world = relayed(tmp_path)
    phone = world.phone("bob@example.com", "10.0.0.3", parameters=";pn-prid=geheim")
    phone.register()
    world.run()
    world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(0.1)
    (run,) = world.engine.flows.runs.values()
    shown = [line["fact"] for line in facts(Trace.of(run))]
    assert [fact["kind"] for fact in shown[:3]] == ["RunBegan", "RelayBegan", "RequestSent"]
    assert shown[2]["method"] == "INVITE"
    assert "geheim" not in str(shown)


def test_a_listener_with_a_bug_costs_no_call(tmp_path: Path) -> None:
    world = relayed(tmp_path)
    bugs: list[Fault] = []
    world.engine.faults.told = bugs.append
    world.engine.history.listen(TraceWritten, lambda written: [][1])
    records: list[CallRecord] = []
    world.engine.history.listen(CallRecord, records.append)
    a_call(world)
    assert [record.code for record in records] == [200]
    assert {bug.where for bug in bugs} == {"history"}


def test_nothing_of_the_wire_is_made_while_nobody_listens() -> None:
    assert not World().engine.history.hears(MessageIn)


@pytest.mark.parametrize(
    ("message", "call_id"),
    [
        (b"BYE sip:a SIP/2.0\r\nCall-ID: a-1@host\r\n\r\n", b"a-1@host"),
        (b"BYE sip:a SIP/2.0\r\ncall-id : a-1 \r\nVia: x\r\n\r\n", b"a-1"),
        (b"MESSAGE sip:a SIP/2.0\r\ni: a-1\r\n\r\nBYE\r\nCall-ID: other\r\n\r\n", b"a-1"),
        (b"MESSAGE sip:a SIP/2.0\r\nTo: x\r\n\r\nBYE\r\nCall-ID: other\r\n\r\n", b""),
        (b"BYE sip:a SIP/2.0\r\nCall-ID: cut", b"cut"),
        (b"BYE sip:a SIP/2.0\r\nCall-ID: \r\n\r\n", b""),
        (b"\r\n\r\n", b""),
    ],
)
def test_the_call_id_of_a_message(message: bytes, call_id: bytes) -> None:
    assert MessageIn(message, "10.0.0.1", 5060, 0).call_id == call_id
