"""A stop: every request in progress gets exactly one final answer, those that ring have time."""

from __future__ import annotations

import pytest

from orchestrator.core.stopping import give_up
from orchestrator.flow.loader import Source, load_sources
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
    give_up(world.engine, False, world.now)
    world.run()
    assert (503 in asked.statuses) is not rings
    assert world.engine.idle is not rings
    if rings:
        give_up(world.engine, True, world.now)
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
    give_up(world.engine, True, world.now)
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
    give_up(world.engine, False, world.now)
    world.run()
    assert late.statuses == [100, 503] and message.statuses == [503]
    assert world.engine.idle and not world.engine.calls
    world.run(40.0)
    assert world.leftovers()["runs"] == 0 and world.leftovers()["transactions"] == 0
