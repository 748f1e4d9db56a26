"""Runs are bounded in all and for each flow, and flows that start each other in a circle are ended, waits or not."""

from __future__ import annotations

import pytest

from orchestrator.core.settings import CoreLimits
from orchestrator.events.event import Event
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import Log
from orchestrator.flow.run.trace import Trace, render
from orchestrator.testing.world import World

HEAD = "flowlang: 1\nevents:\n  ping: {n: number}\n  pong: {n: number}\nflows:\n"
CALLS = HEAD + "  calls:\n    on: invite\n    do: [{sleep: 60s}]\n"
ITSELF = (
    HEAD + "  again:\n    on: {event: ping}\n    do:\n"
    "      - sleep: 10ms\n      - raise: ping\n        data: {n: 1}\n      - raise: ping\n        data: {n: 1}\n"
)
BOTH = HEAD + (
    "  one:\n    on: {event: ping}\n    do: [{sleep: 1s}, {raise: pong, data: {n: 1}}]\n"
    "  two:\n    on: {event: pong}\n    do: [{sleep: 1s}, {raise: ping, data: {n: 1}}]\n"
)


def world_of(flows: str, **limits: int) -> tuple[World, list[tuple[str, str]]]:
    program, _ = load_sources([Source("b.flow.yaml", flows)])
    world = World(program, limits=CoreLimits(**limits))
    told: list[tuple[str, str]] = []
    world.engine.flows.on_bound = lambda flow, what: told.append((flow, what))
    return world, told


@pytest.mark.parametrize("limit", ["runs", "runs_per_flow"])
def test_a_call_beyond_the_bound_is_refused_and_those_before_go_on(limit: str) -> None:
    world, told = world_of(CALLS, **{limit: 3})
    alice = world.peer("alice", "192.0.2.1")
    asks = [alice.ask("INVITE", "sip:bob@example.com", call_id=f"c{n}") for n in range(5)]
    world.run()
    assert [ask.statuses[-1] for ask in asks] == [100, 100, 100, 503, 503]
    assert 1 <= int(asks[-1].final.get(b"retry-after") or b"0") <= 8
    assert len(world.engine.flows.runs) == 3 and world.engine.flows.stats.refused == 2
    assert told[0][0] == "calls" and f"(limits: {limit})" in told[0][1]
    asks[0].cancel()
    world.run(40.0)
    later = alice.ask("INVITE", "sip:bob@example.com", call_id="later")
    world.run()
    assert later.statuses == [100], "room again"


def test_flows_that_start_two_each_over_a_sleep_come_to_an_end() -> None:
    world, told = world_of(ITSELF, chain=6)
    world.engine.bus.publish(Event("ping", {"n": 1}))
    world.run(10.0)
    flows = world.engine.flows
    assert flows.stats.runs == 2**7 - 1
    assert not flows.runs
    assert "again -> again" in told[0][1] and "circle" in told[0][1]


def test_a_circle_of_two_flows_over_waits_is_ended_and_named() -> None:
    world, told = world_of(BOTH)
    world.engine.bus.publish(Event("ping", {"n": 1}))
    world.run(120.0)
    flows = world.engine.flows
    assert flows.stats.runs == 17 and flows.stats.circles == 1 and not flows.runs
    assert "two -> one -> two -> one" in told[0][1]


def test_what_happens_outside_begins_a_chain_of_its_own() -> None:
    world, told = world_of(HEAD + "  one:\n    on: {event: ping}\n    do: [{raise: pong, data: {n: 1}}]\n", chain=2)
    for _ in range(50):
        world.engine.bus.publish(Event("ping", {"n": 1}))
        world.run(1.0)
    assert world.engine.flows.stats.runs == 50 and not told


# --- circles over SIP -------------------------------------------------------------------------------------------------

SPIRAL = "flowlang: 1\nflows:\n  on_and_on:\n    on: invite\n    do: [{relay: {to: %s}}]\n"


@pytest.mark.parametrize(
    ("to", "runs"),
    [
        ("'sip:${call.target.user}@10.0.0.1:5060'", 1),  # the same address again: a loop at the first return
        ("'sip:1${call.target.user}@10.0.0.1:5060'", 16),  # always another one
        ("'sip:1${call.target.user}@example.com'", 16),
        ("['sip:1${call.target.user}@10.0.0.1', 'sip:2${call.target.user}@10.0.0.1']", 16),
    ],
)
def test_a_flow_that_relays_to_ourselves_comes_to_an_end_with_482(to: str, runs: int) -> None:
    world, told = world_of(SPIRAL % to)
    world.on_job = lambda job: "10.0.0.1"
    asked = world.peer("alice", "192.0.2.1").ask("INVITE", "sip:bob@example.com")
    world.run(5.0)
    flows = world.engine.flows
    assert asked.final.status == 482
    assert flows.stats.runs >= runs and flows.stats.runs < 200
    assert bool(told) is (runs > 1)
    world.run(60.0)
    assert not flows.runs and world.leftovers()["transactions"] == 0


def test_a_spiral_that_ends_is_served() -> None:
    """An extension that is forwarded to another one, which is forwarded to a phone."""
    flows = (
        "flowlang: 1\nflows:\n  forwarded:\n    on: invite\n    when: call.target.user != 'carol'\n"
        "    do:\n      - if: call.target.user == 'alex'\n        then: [{relay: {to: 'sip:bob@example.com'}}]\n"
        "        else: [{relay: {to: 'sip:carol@example.com'}}]\n"
    )
    world, told = world_of(flows)
    world.on_job = lambda job: "10.0.0.1"
    carol = world.registered_phone("carol@example.com", "10.0.0.4")
    asked = world.peer("alice", "192.0.2.1").ask("INVITE", "sip:alex@example.com")
    world.run()
    assert 180 in asked.statuses and len(carol.calls) == 1 and not told
    assert world.engine.flows.stats.runs == 2


# --- traces -----------------------------------------------------------------------------------------------------------

TALKS = HEAD + (
    "  talks:\n    on: invite\n    do:\n      - repeat: 199\n"
    '        do: [{log: \'it says ${call.headers["X-Long"] ?? ""}\'}]\n      - sleep: 60s\n'
)
LONG = HEAD + (
    '  long:\n    on: invite\n    do:\n      - log: {text: \'${call.headers["X-Long"] ?? ""}\', '
    'data: {n: \'${call.headers["X-Long"] ?? ""}\'}}\n'
)


def long_calls(world: World, count: int, length: int) -> None:
    for number in range(count):
        long = f"X-Long: {'x' * length}"
        world.peer(f"p{number}", f"192.0.2.{number + 1}").ask(
            "INVITE", "sip:bob@example.com", long, call_id=f"c{number}"
        )
    world.run()


def test_the_lines_of_live_runs_are_bounded_in_all_and_the_oldest_make_room() -> None:
    world, _ = world_of(TALKS, trace_memory=1_000_000)
    long_calls(world, 5, 1_500)
    memory, runs = world.engine.flows.trace_memory, list(world.engine.flows.runs.values())
    assert 500_000 < memory.octets <= 1_000_000
    assert memory.octets == sum(record.octets for run in runs for record in run.records)
    assert runs[0].left_out and not runs[-1].left_out
    lines = list(render(Trace.of(runs[0])))
    assert "flow talks starts" in lines[0] and lines[1].strip().endswith(f"… {runs[0].left_out} lines left out")
    assert "sleep 60s" in lines[-1]
    world.run(120.0)
    assert memory.live == 0 and memory.octets == world.engine.flows.traces.octets


def test_finished_traces_make_room_first() -> None:
    world, _ = world_of(TALKS, trace_memory=1_000_000)
    long_calls(world, 2, 1_500)
    world.run(120.0)
    assert len(world.engine.flows.traces) == 2
    long_calls(world, 2, 1_400)
    flows = world.engine.flows
    assert len(flows.traces) == 0 and flows.trace_memory.octets <= 1_000_000
    assert [run.left_out for run in flows.runs.values()] == [0, 0]


def test_when_nothing_more_can_be_freed_lines_are_not_kept_and_counted() -> None:
    world, _ = world_of(TALKS, trace_memory=20_000)
    long_calls(world, 5, 1_500)
    flows = world.engine.flows
    assert flows.trace_memory.octets <= 20_000
    assert all(run.dropped for run in list(flows.runs.values())[1:])
    world.run(120.0)
    assert not flows.runs and flows.trace_memory.live == 0


def test_the_text_of_a_log_step_is_cut_and_says_so() -> None:
    world, _ = world_of(LONG)
    told: list[Log] = []
    world.engine.host.on_log = lambda run, effect: told.append(effect)
    long_calls(world, 1, 5_000)
    for text in (told[0].text, told[0].data["n"]):
        assert text == "x" * 2_000 + "… (3000 characters left out)"
    assert all(len(record.text) < 2_100 for trace in world.engine.flows.traces for record in trace.records)
