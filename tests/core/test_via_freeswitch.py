"""`relay … via:`: the call goes to FreeSWITCH and comes back; two dialogs, one call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.esl.codec import EslEvent
from orchestrator.events.event import Event
from orchestrator.flow.loader import load_program
from orchestrator.sip.message import Request, Response
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.world import World

FLOW = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}
flows:
  main:
    on: invite
    vars: {outcome: ''}
    do:
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        unique_by: event.contact
        do: [inject: '${event.uri}']
      - subscribe: dtmf
        do: [log: '${event.leg} ${event.digit}']
      - relay: {to: registered, via: fs1, ring: 30s, keep_open: 5s}
        as: result
      - set: {outcome: '${result.outcome}'}
"""


class Bridge(Phone):
    """The SIP side of FreeSWITCH with our dialplan: each call that comes in goes back out, tied by the header."""

    def setup(self) -> Bridge:
        self.other: dict[PhoneCall, PhoneCall] = {}
        self.on_invite = self._back
        return self

    def _back(self, front: PhoneCall) -> None:
        assert front.invite is not None
        header = front.invite.get(b"x-orchestrator-call") or b""
        user = front.invite.parsed_uri.user.decode()
        back = self.invite(f"{user}@example.com", [b"X-Orchestrator-Call: " + header])
        self.other[back], self.other[front] = front, back

    def _on_invite_response(self, call: PhoneCall, response: Response) -> None:
        super()._on_invite_response(call, response)
        front = self.other[call]
        if front.state != "ringing":
            return
        if response.status == 180:
            front.ring()
        elif 200 <= response.status < 300:
            front.answer()
        elif response.status >= 300:
            front.reject(response.status)

    def _on_request(self, request: Request) -> None:
        super()._on_request(request)
        call = self._call_of(request)
        if call in self.other and request.method in (b"BYE", b"CANCEL"):
            other = self.other[call]
            if other.state != "ended":
                other.hangup()


PICKED = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}
events: {pickup: {picker: text}}
flows:
  main:
    on: invite
    do:
      - subscribe: pickup
        limit: 1
        do: [inject: {aor: '${event.picker}', cancel_others: true, last: true}]
      - relay: {to: registered, via: fs1, ring: 30s}
"""


def build(tmp_path: Path, flow: str = FLOW) -> tuple[World, Phone, Phone, Bridge]:
    path = tmp_path / "via.flow.yaml"
    path.write_text(flow)
    program, _ = load_program([path])
    from ipaddress import ip_network

    w = World(program, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=(ip_network("10.0.0.9/32"),))
    bridge = Bridge(
        "fs@example.com", ("10.0.0.9", 5080), ("10.0.0.1", 5060), w.phone("fs", "10.0.0.9", 5080).send
    ).setup()
    w.phones[("10.0.0.9", 5080)] = bridge
    return w, w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3"), bridge


def logs(w: World) -> list[str]:
    said: list[str] = []
    w.engine.host.on_log = lambda run, effect: said.append(effect.text)
    return said


def assert_all_over(w: World) -> None:
    w.run(45)
    assert w.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}
    assert all(call.state == "ended" for phone in w.phones.values() for call in phone.calls)


def connected(w: World, alice: Phone, bob: Phone) -> PhoneCall:
    """A call between them, through FreeSWITCH."""
    bob.register()
    w.run()
    call = alice.invite("bob@example.com")
    w.run()
    bob.calls[0].answer()
    w.run(1)
    return call


def test_the_call_comes_back_and_rings_the_destination(tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    bob.register()
    w.run()
    call = alice.invite("bob@example.com")
    w.run(1)
    assert len(bob.calls) == 1
    assert b"x-orchestrator-call" not in bob.calls[0].invite.names, "the phone is not told"
    assert call.statuses == [100, 180]
    bob.calls[0].answer()
    w.run(1)
    assert call.state == "answered"
    assert len(w.engine.calls) == 1, "two dialogs, one call"
    call.hangup()
    assert_all_over(w)
    assert len(w.engine.flows.traces) == 1


@pytest.mark.parametrize("who", ["caller", "callee", "engine"])
def test_whoever_hangs_up_ends_all_of_it(who: str, tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    call = connected(w, alice, bob)
    (engine_call,) = w.engine.calls
    if who == "caller":
        call.hangup()
    elif who == "callee":
        bob.calls[0].hangup()
    else:
        engine_call.hangup("enough", None, "both")
    w.run(1)
    assert engine_call.ended_by == who
    assert_all_over(w)


@pytest.mark.parametrize("spoken", [0, 3])
def test_a_freeswitch_that_died_leaves_nobody_in_a_dead_call(spoken: int, tmp_path: Path) -> None:
    """Nobody but us can tell the called phone: its dialog was with FreeSWITCH. Requests that FreeSWITCH has sent in it
    before have moved the number that ours goes on behind."""
    w, alice, bob, bridge = build(tmp_path)
    call = connected(w, alice, bob)
    back = next(c for c in bridge.calls if not c.incoming)
    for _ in range(spoken):
        back.press("1")
        w.run(0.1)
    (engine_call,) = w.engine.calls
    del w.phones[("10.0.0.9", 5080)]
    engine_call.lose_freeswitch()
    w.run(1)
    assert [c.state for c in (call, bob.calls[0])] == ["ended", "ended"]
    assert bob.calls[0].bye is not None and bob.calls[0].bye.cseq == back.cseq + 1
    assert (engine_call.ended_by, engine_call.end_reason) == ("engine", "channel lost")


@pytest.mark.parametrize("who", ["caller", "callee", "engine"])
@pytest.mark.parametrize("state", ["down", "up"])
def test_whoever_hangs_up_while_freeswitch_is_away_ends_both_sides(who: str, state: str, tmp_path: Path) -> None:
    """Its link is down, and perhaps it is dead, too: the other side is told by us. Two are told twice if it is not."""
    w, alice, bob, _bridge = build(tmp_path)
    call = connected(w, alice, bob)
    (engine_call,) = w.engine.calls
    w.engine.channels.observe("fs1", channel_of(call), w.now)
    w.engine.link_changed("fs1", state, "gone", w.now)
    if state == "down":
        del w.phones[("10.0.0.9", 5080)]
    if who == "engine":
        engine_call.hangup("enough", None, "both")
    else:
        (call if who == "caller" else bob.calls[0]).hangup()
    w.run(1)
    assert [c.state for c in (call, bob.calls[0])] == ["ended", "ended"]
    assert sum(request.method == b"BYE" for request in bob.requests) == (who != "callee")


def channel_of(call: PhoneCall) -> EslEvent:
    id = call.call_id.decode()
    facts = {"Event-Name": "CHANNEL_CREATE", "Unique-ID": id, "variable_sip_call_id": id, "Call-Direction": "inbound"}
    event = EslEvent.json(json.dumps(facts))
    assert event is not None
    return event


def test_a_phone_that_registers_late_joins_behind_freeswitch(tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    call = alice.invite("bob@example.com")
    w.run(3)
    bob.register()
    w.run(1)
    assert len(bob.calls) == 1
    bob.calls[0].answer()
    w.run(1)
    assert call.state == "answered"
    call.hangup()
    assert_all_over(w)


def test_a_picker_takes_a_call_that_rings_behind_freeswitch(tmp_path: Path) -> None:
    """Bob's branch goes, the picker's phone joins, and it is one call all the same."""
    w, alice, bob, _bridge = build(tmp_path, PICKED)
    carol = w.phone("carol@example.com", "10.0.0.4")
    for phone in (bob, carol):
        phone.register()
    w.run()
    call = alice.invite("bob@example.com")
    w.run(1)
    assert [c.state for c in bob.calls] == ["ringing"]
    w.engine.bus.publish(Event("pickup", {"picker": "carol@example.com"}))
    w.engine.flows.drain()
    w.run(1)
    assert bob.calls[0].cancelled and [c.state for c in carol.calls] == ["ringing"]
    carol.calls[0].answer()
    w.run(1)
    assert call.state == "answered" and len(w.engine.calls) == 1
    call.hangup()
    assert_all_over(w)


def test_digits_are_named_after_the_side_that_pressed_them(tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    said = logs(w)
    call = connected(w, alice, bob)
    call.press("1")
    w.run(1)
    assert said == [], "what FreeSWITCH carries, FreeSWITCH reports: an INFO would count twice"
    call.hangup()
    assert_all_over(w)


def test_cancel_reaches_the_destination(tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    bob.register()
    w.run()
    call = alice.invite("bob@example.com")
    w.run(1)
    call.hangup()
    w.run()
    assert call.statuses[-1] == 487
    assert bob.calls[0].cancelled
    assert_all_over(w)


def test_when_all_destinations_refuse_the_flow_hears_it_and_the_caller_gets_the_best(tmp_path: Path) -> None:
    w, alice, bob, _bridge = build(tmp_path)
    bob.on_invite = lambda call: call.reject(486)
    bob.register()
    w.run()
    call = alice.invite("bob@example.com")
    w.run(6)
    assert call.statuses[-1] == 486
    assert_all_over(w)


def test_a_freeswitch_that_does_not_send_the_call_back_is_not_awaited_for_ever(tmp_path: Path) -> None:
    w, alice, _bob, bridge = build(tmp_path)
    bridge.on_invite = PhoneCall.ring
    call = alice.invite("bob@example.com")
    w.run(15)
    assert call.statuses[-1] == 504
    assert_all_over(w)


def test_a_stranger_cannot_take_a_call_by_its_header(tmp_path: Path) -> None:
    w, alice, _bob, bridge = build(tmp_path)
    bridge.on_invite = lambda call: None
    alice.invite("bob@example.com")
    w.run()
    (call,) = w.engine.calls
    stranger = w.phone("mallory@example.com", "10.0.0.66")
    stranger.invite("bob@example.com", [b"X-Orchestrator-Call: " + call.id.encode()])
    w.run(1)
    assert call.back is None
