"""A call under a flow when things cross: CANCEL and failures, a BYE that is not ours to hear, a 6xx between two
relays."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from reliable import Callee, Caller, Plan

from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.phone import Address
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"


def program(tmp_path: Path, steps: str, top: str = "") -> Any:
    path = tmp_path / "main.flow.yaml"
    path.write_text(f"flowlang: 1\n{top}flows:\n  main:\n    on: invite\n    do:\n{steps}", encoding="utf-8")
    return load_program([path])[0]


class Stage:
    """alice calls bob and the flow decides; `said` is what it logged."""

    def __init__(self, tmp_path: Path, steps: str, top: str = "", **settings: Any) -> None:
        self.world = World(program(tmp_path, steps, top), **settings)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bob = self.world.peer("bob", "10.0.0.11")
        self.said: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.do(self.bob.register("bob@example.com"))
        self.bob.received.clear()

    def do(self, ask: Ask) -> Ask:
        self.world.run()
        return ask

    def call(self) -> Ask:
        return self.do(self.alice.ask("INVITE", BOB))

    def answer(self, peer: Peer, status: int, call: int = 0, **more: Any) -> None:
        peer.answer(peer.requests("INVITE")[call], status, **more)
        self.world.run()

    def quiet(self, *calls: Ask) -> None:
        for call in calls:
            call.acknowledge()
        self.world.run(70.0)
        assert not any(self.world.leftovers().values()), self.world.leftovers()
        assert self.world.engine.layer.unanswered == 0
        assert self.world.engine.flows.stats.faults == 0


RELAY = "      - relay: {to: registered}\n        as: result\n"
RING_5S = RELAY.replace("registered", "registered, ring: 5s")
TO_VOICEMAIL = RELAY.replace("registered", "['sip:vm@10.0.0.12']")
SAY = "      - log: '${result.outcome} ${result.code}'\n"


# --- giving up --------------------------------------------------------------------------------------------------------


def test_a_cancel_is_487_whatever_a_flow_does_about_the_branches_it_ends(tmp_path: Path) -> None:
    """The branch that is still looked up ends inside the CANCEL: a handler that replies 603 to that comes too late."""
    handler = "      - subscribe: branch_failed\n        do: [{reply: 603}]\n"
    stage = Stage(tmp_path, handler + "      - relay: {to: ['sip:bob@phone.example.net']}\n        as: result\n")
    stage.world.on_job = lambda job: stage.world.LATER
    call = stage.call()
    stage.do(call.cancel())
    assert call.statuses == [100, 487]
    stage.quiet(call)


@pytest.mark.parametrize("when", ["before", "trying", "ringing", "failed"])
def test_a_cancel_ends_the_flow_in_every_state_of_its_relay(when: str, tmp_path: Path) -> None:
    steps = {"before": "      - sleep: 30s\n" + RELAY}.get(when, "      - relay: {to: registered, keep_open: 30s}\n")
    stage = Stage(tmp_path, steps)
    call = stage.call()
    if when in ("ringing", "failed"):
        stage.answer(stage.bob, 180)
    if when == "failed":
        stage.answer(stage.bob, 486)
    stage.do(call.cancel())
    assert call.statuses[-1] == 487
    assert len(stage.world.engine.calls) == len(stage.world.engine.flows.runs) == 0
    stage.quiet(call)


# --- what is not of this call -----------------------------------------------------------------------------------------


def dialog(stage: Stage, call: Ask, peer: Peer, method: str, local: str, remote: str) -> Ask:
    """A request with the call's Call-ID from a peer, with the tags given, through us."""
    call_id = call.responses[0].call_id.decode()
    sides: dict[str, Any] = {"sender": f"<{BOB}>;tag={local}", "to": f"<sip:alice@example.com>;tag={remote}"}
    body = b"Signal=5\r\nDuration=100\r\n" if method == "INFO" else b""
    kind = ["Content-Type: application/dtmf-relay"] if body else []
    target = "sip:alice@10.0.0.2:5060"
    return stage.do(peer.ask(method, target, route_of(stage), *kind, body=body, cseq=9, call_id=call_id, **sides))


def route_of(stage: Stage) -> str:
    """The Route that both sides take from our Record-Route; whoever has seen a message of the call knows it."""
    return f"Route: <{(stage.bob.requests('INVITE')[0].record_routes()[0].uri or b'').decode()}>"


@pytest.mark.parametrize("state", ["ringing", "answered"])
@pytest.mark.parametrize("tags", [("bob", "stranger"), ("stranger", "alice"), ("eve", "mallory")])
@pytest.mark.parametrize("method", ["BYE", "INFO"])
def test_a_request_of_another_dialog_with_our_call_id_is_not_heard(
    state: str, tags: tuple[str, str], method: str, tmp_path: Path
) -> None:
    """A phone that lost the race says BYE with the call's own Call-ID; so can anybody who has seen it."""
    steps = "      - subscribe: dtmf\n        do: [{log: '${event.digit}'}]\n" + RELAY + SAY
    stage = Stage(tmp_path, steps)
    eve = stage.world.peer("eve", "10.0.0.66")
    call = stage.call()
    stage.answer(stage.bob, 180)
    if state == "answered":
        stage.answer(stage.bob, 200)
    for peer in (stage.bob, eve):
        dialog(stage, call, peer, method, *tags)
    assert len(stage.world.engine.calls) == 1
    assert stage.said == (["answered 200"] if state == "answered" else [])
    if state == "ringing":
        stage.answer(stage.bob, 486)
        assert stage.said == ["busy 486"]


@pytest.mark.parametrize(("local", "remote", "who"), [("bob", "alice", "callee"), ("alice", "bob", "caller")])
def test_the_bye_of_either_side_ends_the_call(local: str, remote: str, who: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path, "      - subscribe: hangup\n        do: [{log: '${event.leg}'}]\n" + RELAY)
    call = stage.call()
    stage.answer(stage.bob, 200)
    dialog(stage, call, stage.bob if who == "callee" else stage.alice, "BYE", local, remote)
    assert stage.said == [who]
    assert len(stage.world.engine.calls) == 0


def test_the_bye_to_a_phone_that_answered_second_does_not_end_the_call(tmp_path: Path) -> None:
    """Two phones answer at once; the caller keeps the first and ends the other, as it must."""
    stage = Stage(tmp_path, "      - subscribe: hangup\n        do: [{log: over}]\n" + RELAY + SAY)
    second = stage.world.peer("second", "10.0.0.12")
    stage.do(second.register("bob@example.com"))
    second.received.clear()
    call = stage.call()
    for peer in (stage.bob, second):
        peer.answer(peer.requests("INVITE")[0], 200)
    stage.world.run()
    assert call.statuses == [100, 200, 200]
    unwanted = call.responses[2].to.tag or b""
    dialog(stage, call, stage.alice, "BYE", "alice", unwanted.decode())
    assert stage.said == ["answered 200"]
    assert len(stage.world.engine.calls) == 1


def test_a_party_that_has_moved_is_hung_up_where_it_is_now(tmp_path: Path) -> None:
    """§12.2.2: a re-INVITE changes the remote target, for the proxy that ends the call as well."""
    stage = Stage(tmp_path, RELAY + "      - sleep: 5s\n      - hangup: enough\n")
    moved = stage.world.peer("moved", "10.0.0.3")
    call = stage.call()
    stage.answer(stage.bob, 200)
    routes = route_of(stage), "Contact: <sip:alice@10.0.0.3>"
    dialog: dict[str, Any] = {"to": f"<{BOB}>;tag=bob", "call_id": call.final.call_id.decode()}
    stage.alice.ask("ACK", "sip:bob@10.0.0.11:5060", *routes, **dialog)
    stage.do(stage.alice.ask("INVITE", "sip:bob@10.0.0.11:5060", *routes, **dialog, cseq=7))
    stage.answer(stage.bob, 200, call=1)
    stage.world.run(5.0)
    assert moved.heard == ["BYE"]
    assert stage.bob.requests("BYE")[0].cseq == 8, "behind the last number alice has used"


# --- one relay after another ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [486, 600, 603])
def test_a_call_that_was_declined_may_still_go_to_voicemail(status: int, tmp_path: Path) -> None:
    """A 6xx says that bob does not want the call; the flow that then tries another place knows."""
    stage = Stage(tmp_path, RELAY + SAY + "      - relay: {to: ['sip:vm@10.0.0.12']}\n        as: second\n")
    voicemail = stage.world.peer("vm", "10.0.0.12")
    call = stage.call()
    stage.answer(stage.bob, 180)
    stage.answer(stage.bob, status)
    assert stage.said == [f"{'rejected' if status == 603 else 'busy'} {status}"]
    assert voicemail.heard == ["INVITE"]
    stage.answer(voicemail, 200)
    assert call.statuses == [100, 180, 200]


def test_a_6xx_of_a_phone_that_was_stopped_does_not_stop_the_next_relay(tmp_path: Path) -> None:
    stage = Stage(tmp_path, RING_5S + SAY + TO_VOICEMAIL)
    voicemail = stage.world.peer("vm", "10.0.0.12")
    call = stage.call()
    stage.answer(stage.bob, 180)
    stage.world.run(5.0)
    assert stage.said == ["no_answer 408"]
    stage.answer(voicemail, 180)
    stage.answer(stage.bob, 603)
    assert voicemail.heard == ["INVITE"]
    stage.answer(voicemail, 200)
    assert call.statuses == [100, 180, 180, 200]


def test_a_late_answer_of_the_first_relay_wins_over_the_second(tmp_path: Path) -> None:
    stage = Stage(tmp_path, RING_5S + TO_VOICEMAIL + SAY)
    voicemail = stage.world.peer("vm", "10.0.0.12")
    call = stage.call()
    stage.answer(stage.bob, 180)
    stage.world.run(5.0)
    stage.answer(voicemail, 180)
    stage.answer(stage.bob, 200)
    assert call.statuses == [100, 180, 180, 200]
    assert voicemail.heard == ["INVITE", "CANCEL"]
    assert stage.said == ["answered 200"]


# --- FreeSWITCH in the middle -----------------------------------------------------------------------------------------


def test_when_freeswitch_gives_up_the_destinations_behind_it_stop_and_the_flow_goes_on(tmp_path: Path) -> None:
    top = "freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}\n"
    steps = "      - relay: {to: registered, via: fs1, ring: 300s}\n        as: result\n" + SAY + "      - reply: 486\n"
    trust = (ip_network("10.0.0.9/32"),)
    stage = Stage(tmp_path, steps, top, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=trust)
    switch = stage.world.peer("fs", "10.0.0.9", 5080)
    call = stage.call()
    tie = (switch.requests("INVITE")[0].get(b"x-orchestrator-call") or b"").decode()
    back = stage.do(switch.ask("INVITE", BOB, f"X-Orchestrator-Call: {tie}"))
    stage.answer(stage.bob, 180)
    stage.do(back.cancel())
    assert back.statuses[-1] == 487
    assert stage.bob.heard[-1] == "CANCEL"
    assert stage.said == [], "FreeSWITCH may still have a plan of its own"
    stage.answer(switch, 480)
    assert stage.said == ["unavailable 480"]
    assert call.statuses[-1] == 486
    stage.quiet(call, back)


# --- requests nobody should be able to leave behind -------------------------------------------------------------------


@pytest.mark.parametrize("when", ["", "    when: request.contacts.size() > 0\n"])
def test_a_register_with_a_malformed_contact_is_refused_before_a_flow_sees_it(when: str, tmp_path: Path) -> None:
    path = tmp_path / "r.flow.yaml"
    steps = "    do:\n      - log: '${request.contacts.size()}'\n      - register: {}\n"
    path.write_text(f"flowlang: 1\nflows:\n  main:\n    on: register\n{when}{steps}", encoding="utf-8")
    world = World(load_program([path])[0])
    bob = world.peer("bob", "10.0.0.11")
    ask = bob.ask("REGISTER", "sip:example.com", "Contact: <<nonsense", to=f"<{BOB}>")
    world.run()
    assert ask.statuses == [400]
    assert not any(world.leftovers().values())
    assert world.engine.flows.stats.runs == 0


# --- everything with everything ---------------------------------------------------------------------------------------

RELAYS = (
    "relay: {to: registered}",
    "relay: {to: registered, ring: 5s}",
    "relay: {to: registered, mode: serial, each: 2s}",
    "relay: {to: registered, ring: 25s, keep_open: 20s}",
)
HANDLERS = (
    ("branch_failed", "{log: '${event.code}'}"),
    ("branch_failed", "{reply: 603}"),
    ("ringing", "{sleep: 1s}, {hangup: enough}"),
    ("ringing", "{sleep: 2s}, {inject: 'sip:bob9@10.0.2.10:5060'}"),
    ("ringing", "{sleep: 2s}, {inject: {to: 'sip:bob9@10.0.2.10:5060', cancel_others: true}}"),
    ("ringing", "{cancel: all}"),
    ("answered", "{sleep: 3s}, {hangup: done}"),
    ("answered", "{hangup: done}"),
)
OTHERWISE = ("reply: 480", "relay: {to: ['sip:bob9@10.0.2.10:5060']}")
GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0, 31.5, 40.0)


def flow(relay: str, handler: tuple[str, str], otherwise: str) -> str:
    event, steps = handler
    return (
        f"      - subscribe: {event}\n        limit: 1\n        do: [{steps}]\n      - {relay}\n        as: result\n"
        f"      - if: result.outcome != 'answered'\n        then:\n          - {otherwise}\n"
        + ("            as: second\n" if otherwise.startswith("relay") else "")
    )


def plan(chance: random.Random) -> Plan:
    steps = [(chance.choice(GRID[:5]), 180)] if chance.random() < 0.8 else []
    if chance.random() < 0.8:
        steps.append((chance.choice(GRID), chance.choice((200, 200, 200, 404, 486, 503, 603))))
    return Plan(sorted(steps))


def cast(world: World, chance: random.Random) -> tuple[list[Caller], list[Callee]]:
    phones = [Callee(world, f"bob{n}", f"10.0.2.{n + 1}", plan(chance)) for n in (*range(chance.choice((1, 2, 3))), 9)]
    for phone in phones[:-1]:
        world.location.save("bob@example.com", [Binding("bob@example.com", phone.uri, world.engine.wall + 86400)], 0)
    callers = [Caller(world, f"caller{n}", f"10.0.1.{n + 1}") for n in range(chance.choice((1, 2)))]
    for caller in callers:
        begin = chance.choice(GRID[:4])
        world.engine.timers.after(begin, caller.call, b"bob@example.com")
        if chance.random() < 0.4:
            world.engine.timers.after(begin + chance.choice(GRID), Caller.cancel, caller)
    return callers, phones


def both_sides_agree(callers: Sequence[Caller], phones: Sequence[Callee]) -> None:
    assert set().union(*(caller.up for caller in callers)) == set().union(*(phone.up for phone in phones))
    assert not any(phone.ringing for phone in phones)
    for caller in callers:
        assert caller.finals, "every call has an answer"
        assert set(caller.finals) == {200} or len(set(caller.finals)) == 1


def lossy(loss: float, chance: random.Random) -> Callable[[bytes, Address, Address], tuple[float, ...]]:
    """Wires that lose a part of the datagrams and let the others overtake each other."""
    return lambda data, source, target: () if chance.random() < loss else (0.05 * chance.random(),)


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("relay", RELAYS)
def test_whatever_a_flow_does_and_when_everybody_is_told_and_nothing_is_left(
    relay: str, loss: float, tmp_path: Path
) -> None:
    """Random phones and callers under flows that hang up, reply, inject, cancel and relay again at bad moments; on
    wires that are good, and on wires that lose a tenth and change the order."""
    for number, (handler, otherwise) in enumerate(product(HANDLERS, OTHERWISE)):
        flows = program(tmp_path, flow(relay, handler, otherwise))
        for seed in range(8 if loss else 4):
            world = World(flows, seed=seed)
            callers, phones = cast(world, random.Random(f"{relay}{number}{seed}"))
            if loss:
                world.fate = lossy(loss, random.Random(f"{number}{seed}"))
            try:
                world.run(1000.0)
                both_sides_agree(callers, phones)
                for caller in callers:
                    for call in caller.dialogs.values():
                        call.hang_up()
                world.run(80.0)
                assert not any(world.leftovers().values()), world.leftovers()
                assert not len(world.engine.handshakes)
                assert world.engine.layer.unanswered == world.engine.flows.stats.faults == 0
            except AssertionError as error:
                error.add_note(f"{seed=}\n{flow(relay, handler, otherwise)}{[phone.plan for phone in phones]}")
                raise
