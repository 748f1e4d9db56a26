"""A stop: every request in progress gets exactly one final answer, those that ring have time."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import media
from test_call_table import SipStage

from orchestrator.core.stopping import end_flows, give_up
from orchestrator.flow.loader import Source, load_sources
from orchestrator.history import CallRecord
from orchestrator.testing.world import World

FLOWS = """\
flowlang: 1
flows:
  waits:
    on: invite
    when: call.target.user == 'late'
    do: [{sleep: 20s}]
  rings:
    on: invite
    when: call.target.user == 'flow'
    do: [{relay: {aor: bob@example.com}}]
"""


def world_with_calls() -> World:
    return World(load_sources([Source("s.flow.yaml", FLOWS)])[0])


@pytest.mark.parametrize("called", ["bob", "flow"])
@pytest.mark.parametrize("rings", [False, True])
def test_a_call_that_rings_has_time_and_one_that_does_not_is_refused(called: str, rings: bool) -> None:
    world = world_with_calls()
    alice, bob = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.3")
    bob.register("bob@example.com")
    world.run()
    asked = alice.ask("INVITE", f"sip:{called}@example.com")
    world.run()
    invite = bob.requests("INVITE")[0]
    if rings:
        bob.answer(invite, 180)
        world.run()
    world.engine.drain(world.now)
    give_up(world.engine, world.engine.faults, False, world.now)
    world.run()
    assert (503 in asked.statuses) is not rings
    assert world.engine.idle is not rings
    if rings:
        give_up(world.engine, world.engine.faults, True, world.now)
        world.run()
        assert asked.statuses == [100, 180, 503] and bob.requests("CANCEL")
    else:
        bob.answer(invite, 180)  # late: it is cancelled then (RFC 3261 §9.1)
        world.run()
        assert bob.requests("CANCEL") and asked.statuses == [100, 503]
    assert world.engine.idle


@pytest.mark.parametrize("called", ["bob", "flow"])
def test_a_phone_that_answers_behind_the_refusal_talks_to_nobody(called: str) -> None:
    world = world_with_calls()
    alice, bob = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.3")
    bob.register("bob@example.com")
    world.run()
    asked = alice.ask("INVITE", f"sip:{called}@example.com")
    world.run()
    give_up(world.engine, world.engine.faults, True, world.now)
    bob.answer(bob.requests("INVITE")[0], 200)
    world.run()
    assert asked.statuses == [100, 503] and bob.requests("ACK") and bob.requests("BYE")


def test_a_flow_that_waits_without_ringing_and_a_request_without_an_answer_are_ended() -> None:
    world = world_with_calls()
    alice, bob = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.3")
    for peer, aor in ((alice, "alice@example.com"), (bob, "bob@example.com")):
        peer.register(aor)
    world.run()
    late = alice.ask("INVITE", "sip:late@example.com", call_id="late")
    message = alice.ask("MESSAGE", "sip:bob@example.com", sender="<sip:alice@example.com>;tag=m", call_id="m")
    world.run()
    assert bob.requests("MESSAGE") and not world.engine.idle
    give_up(world.engine, world.engine.faults, False, world.now)
    world.run()
    assert late.statuses == [100, 503] and message.statuses == [503]
    assert world.engine.idle and not world.engine.calls
    world.run(40.0)
    assert world.leftovers()["runs"] == 0 and world.leftovers()["transactions"] == 0


# --- flows ------------------------------------------------------------------------------------------------------------


def end(world: World) -> None:
    engine = world.engine
    end_flows(engine.flows, (*engine.calls, *engine.sockets), engine.faults, world.now)
    world.run()


def test_an_answered_call_goes_on_while_its_flow_ends_and_its_record_is_written(tmp_path: Path) -> None:
    stage = SipStage(tmp_path)
    world = stage.world
    records: list[CallRecord] = []
    world.engine.history.listen(CallRecord, records.append)
    stage.feed("answered")
    stage.feed("confirmed")
    stage.forget()
    end(world)
    assert [(r.ended_by, r.reason, r.code) for r in records] == [("engine", "server stops", 200)]
    assert stage.heard == ["ended by engine"] and not world.engine.flows.runs
    assert stage.seen().sent == (), "nobody is hung up on"
    stage.feed("hung up")
    assert stage.seen().sent == ("bob BYE",), "the dialog leads through us still"


LAST_STEPS = """\
flowlang: 1
flows:
  slow:
    on: invite
    do:
      - try: [{wait: dtmf, for: 1h}]
        finally: [{sleep: 2s}, {log: finally}, {sleep: 4s}, {log: too late}]
    on_end: [{sleep: 4s}, {log: on_end}, {sleep: 2s}, {log: too late}]
"""


def test_last_steps_have_their_time_and_no_more(tmp_path: Path) -> None:
    """`limits: grace`, 5 s by default, for `finally` and again for `on_end`."""
    program = load_sources([Source("s.flow.yaml", LAST_STEPS)])[0]
    world = World(program)
    said: list[str] = []
    world.engine.host.on_log = lambda run, effect: said.append(effect.text)
    asked = world.peer("alice", "10.0.0.2").ask("INVITE", "sip:bob@example.com")
    world.run()
    give_up(world.engine, world.engine.faults, True, world.now)
    end(world)
    assert asked.statuses == [100, 503] and world.engine.flows.runs
    world.run(4.9)
    assert said == ["finally"]
    world.run(5.0)
    assert said == ["finally", "on_end"] and world.engine.flows.runs
    world.run(0.2)
    assert said == ["finally", "on_end"] and not world.engine.flows.runs


def test_a_flow_without_a_call_and_one_on_a_timer_end() -> None:
    text = """\
flowlang: 1
flows:
  ticks: {on: {every: 1s}, do: [{log: tick}]}
  watches:
    on: start
    do: [{sleep: 1h}]
    on_error: [{log: not told}]
"""
    world = World(load_sources([Source("s.flow.yaml", text)])[0])
    said: list[str] = []
    world.engine.host.on_log = lambda run, effect: said.append(effect.text)
    world.engine.flows.launch()
    world.run(1.5)
    end(world)
    world.run(20.0)
    assert said == ["tick"] and not world.engine.flows.runs and world.engine.flows.live()["timers"] == 0


def test_a_call_that_freeswitch_holds_for_its_flow_is_hung_up(tmp_path: Path) -> None:
    s = media(tmp_path, "wait: dtmf\n for: 1h")
    records: list[CallRecord] = []
    s.world.engine.history.listen(CallRecord, records.append)
    call = s.call()
    assert call.state == "answered"
    end(s.world)
    assert [(record.ended_by, record.reason, record.server) for record in records] == [
        ("engine", "server stops", "fs1")
    ]
    s.over()
