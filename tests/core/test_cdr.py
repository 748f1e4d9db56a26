"""One record for each call of a flow, however many legs, branches and dialogs it had."""

from __future__ import annotations

from pathlib import Path

from mediakit import stage
from test_socket_calls import NAME, Handed, program
from test_via_freeswitch import build

from orchestrator.core.engine import Engine
from orchestrator.flow.loader import load_program
from orchestrator.history import CallRecord
from orchestrator.testing.world import WALL, World


def records_of(engine: Engine) -> list[CallRecord]:
    records: list[CallRecord] = []
    engine.history.listen(CallRecord, records.append)
    return records


def relaying(tmp_path: Path, step: str = "relay: registered") -> World:
    path = tmp_path / "a.flow.yaml"
    path.write_text(f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - {step}\n")
    program, _ = load_program([path])
    return World(program)


def test_an_answered_call(tmp_path: Path) -> None:
    w = relaying(tmp_path)
    records = records_of(w.engine)
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.registered_phone("bob@example.com", "10.0.0.3")
    call = alice.invite("bob@example.com")
    w.run(3)
    bob.calls[0].answer()
    w.run(60)
    assert records == [], "not before its end"
    call.hangup()
    w.run(40)
    (record,) = records
    assert record.facts() == {
        "id": record.id,
        "sip_call_id": call.call_id.decode(),
        "flow": "main",
        "run": record.run,
        "from": "alice@example.com",
        "to": "bob@example.com",
        "user": None,
        "source": "10.0.0.2:5060",
        "started": "2027-01-15T08:00:00.000Z",
        "answered": "2027-01-15T08:00:03.000Z",
        "ended": "2027-01-15T08:01:03.000Z",
        "setup": 3.0,
        "duration": 60.0,
        "code": 200,
        "contact": bob.contact.strip(b"<>").decode(),
        "ended_by": "caller",
        "reason": "normal",
        "server": None,
        "caller_uuid": None,
        "callee_uuid": None,
        "pushed": 0,
        "woken": 0,
    }


def test_a_call_that_nobody_took(tmp_path: Path) -> None:
    w = relaying(tmp_path)
    records = records_of(w.engine)
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.registered_phone("bob@example.com", "10.0.0.3")
    alice.invite("bob@example.com")
    w.run(2)
    bob.calls[0].reject(486)
    w.run(40)
    (record,) = records
    assert (record.code, record.answered, record.duration, record.ended_by) == (486, None, 0.0, "engine")
    assert record.started == WALL and record.ended == WALL + 2
    assert record.facts()["setup"] == 2.0 and record.facts()["answered"] is None


def test_a_caller_who_gives_up(tmp_path: Path) -> None:
    w = relaying(tmp_path)
    records = records_of(w.engine)
    w.registered_phone("bob@example.com", "10.0.0.3")
    call = w.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    w.run(2)
    call.hangup()
    w.run(40)
    (record,) = records
    assert (record.code, record.ended_by, record.reason) == (487, "caller", "cancelled")


def test_a_refusal_of_the_flow_is_a_call_too(tmp_path: Path) -> None:
    w = relaying(tmp_path, "reply: {code: 404, reason: Nobody here}")
    records = records_of(w.engine)
    w.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    w.run(40)
    (record,) = records
    assert (record.code, record.ended_by, record.reason) == (404, "engine", "404 Nobody here")


def test_two_dialogs_a_late_branch_and_freeswitch_are_one_call(tmp_path: Path) -> None:
    w, alice, bob, _ = build(tmp_path)
    records = records_of(w.engine)
    call = alice.invite("bob@example.com")
    w.run(3)
    bob.register()
    w.run(1)
    bob.calls[0].answer()
    w.run(10)
    bob.calls[0].hangup()
    w.run(40)
    (record,) = records
    assert record.sip_call_id == call.call_id.decode()
    assert record.contact == bob.contact.strip(b"<>").decode(), "the phone, not FreeSWITCH"
    assert (record.ended_by, record.duration) == ("callee", 10.0)


def test_the_channels_of_both_legs_stand_in_it(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}")
    records = records_of(s.world.engine)
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    back = next(c for c in s.switch.calls if c.call_id != call.call_id)
    call.hangup()
    s.over()
    (record,) = records
    legs = (record.server, record.caller_uuid, record.callee_uuid)
    assert legs == ("fs1", call.call_id.decode(), back.call_id.decode())


def test_a_call_that_freeswitch_holds(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: {server: fs1, answer: true}", "sleep: 5s", "hangup: enough")
    records = records_of(s.world.engine)
    s.call()
    s.over()
    (record,) = records
    assert (record.server, record.ended_by, record.reason, record.duration) == ("fs1", "engine", "enough", 5.0)
    assert record.contact is None, "nobody but FreeSWITCH has answered"


def test_a_channel_that_the_dialplan_hands_over() -> None:
    handed = Handed(program("- answer:\n- sleep: 1h"))
    records = records_of(handed.world.engine)
    handed.hear("CHANNEL_HANGUP")
    (record,) = records
    assert (record.code, record.ended_by, record.server, record.called) == (None, "caller", NAME, "4711@example.com")
