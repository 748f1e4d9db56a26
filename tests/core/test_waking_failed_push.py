"""Phones whose push fails: what is wrong with the service says nothing about the phone, which rings where it is."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from test_connections import EVERY
from wakekit import AOR, Night, program, push_parameters

from orchestrator.sip.push import Pushed
from orchestrator.testing.peer import Peer

DOWN = Pushed("failed", "503 ServiceUnavailable")


def connected(night: Night, host: str = "10.0.0.31", token: str = "T1", transport: str = "tcp") -> Peer:
    """A phone that has registered over a connection a while ago."""
    phone = night.world.peer(host, host, 5060, transport, listens=False)
    again(night, phone, token)
    night.world.run(31)
    phone.received.clear()
    return phone


def again(night: Night, phone: Peer, token: str = "T1", cseq: int = 1) -> None:
    contact = f"Contact: <sip:bob@{phone.name}.invalid;transport=tcp;{push_parameters(token)}>"
    ask = phone.ask("REGISTER", "sip:example.com", contact, to=f"<sip:{AOR}>", call_id=f"r-{token}", cseq=cseq)
    night.world.run()
    assert ask.statuses == [200]


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_a_phone_whose_connection_lives_rings_there_at_once(transport: str) -> None:
    night = Night(points=EVERY)
    phone = connected(night, transport=transport)
    night.answer = None
    call = night.call()
    assert (night.rung(phone), call.statuses) == ([0], [100])
    night.told(outcome="failed", reason="503")
    assert night.rung(phone) == [1]
    night.reply(phone, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


def test_a_phone_whose_connection_has_ended_cannot_be_reached() -> None:
    night = Night(points=EVERY)
    phone = connected(night)
    night.world.cut(phone)
    night.world.run()
    night.answer = DOWN
    call = night.call()
    assert call.statuses == [100, 480]
    night.quiet(call)


def test_over_udp_it_is_tried_as_a_last_resort() -> None:
    night = Night()
    phone = night.sleeper()
    night.answer = DOWN
    call = night.call()
    assert (night.rung(phone), call.statuses) == ([1], [100])
    night.world.run(33)
    assert call.final.status in (408, 480)
    night.quiet(call)


def test_one_that_registers_anew_over_its_connection_does_not_ring_twice() -> None:
    night = Night(points=EVERY)
    phone, other = connected(night), night.phone("other", "10.0.0.12", "T2")
    night.world.run(31)
    night.answer = None
    call = night.call()
    failed = next(number for number, (_, token) in enumerate(night.pushes) if token == "T1")
    night.told(failed, outcome="failed", reason="503")
    again(night, phone, cseq=2)
    assert night.rung(phone, other) == [1, 0]
    night.register(other, "T2")
    assert night.rung(phone, other) == [1, 1]
    night.reply(other, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


@pytest.mark.parametrize("registers", [False, True])
def test_over_udp_it_is_tried_when_nobody_else_is_waited_for(registers: bool) -> None:
    """Until then it may wake up all the same."""
    night = Night()
    one, other = night.phone("one", "10.0.0.11", "T1"), night.phone("other", "10.0.0.12", "T2")
    night.world.run(31)
    night.answer = None
    call = night.call()
    failed = next(number for number, (_, token) in enumerate(night.pushes) if token == "T1")
    night.told(failed, outcome="failed", reason="no answer within 5 s")
    moved = night.world.peer("moved", "10.0.0.77")
    assert night.rung(one) == [0]
    if registers:
        night.register(moved, "T1")
        assert night.rung(one, moved, other) == [0, 1, 0]
    night.register(other, "T2")
    assert night.rung(one, moved, other) == [not registers, registers, 1]
    night.reply(moved if registers else one, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


def test_over_udp_it_is_tried_when_the_others_have_not_woken_up() -> None:
    night = Night()
    one = night.phone("one", "10.0.0.11", "T1")
    night.phone("other", "10.0.0.12", "T2")
    night.world.run(31)
    night.answer = None
    call = night.call()
    failed = next(number for number, (_, token) in enumerate(night.pushes) if token == "T1")
    night.told(failed, outcome="failed", reason="no answer within 5 s")
    night.told(1 - failed)
    night.world.run(20)
    assert (night.rung(one), call.statuses) == ([1], [100])
    night.reply(one, 486)
    assert call.statuses == [100, 486]
    night.quiet(call)


@pytest.mark.parametrize("mode", ["parallel", "serial", "by_q"])
def test_in_a_flow_it_rings_in_its_turn(mode: str, tmp_path: Path) -> None:
    flow = program(tmp_path, f"      - relay: {{to: registered, wake: 20s, ring: 40s, mode: {mode}}}\n")
    night = Night(flow, points=EVERY)
    phone, desk = connected(night), night.phone("desk", "10.0.0.12")
    night.answer = DOWN
    call = night.call()
    night.reply(desk, 486)
    assert night.rung(phone) == [1]
    night.reply(phone, 603)
    assert call.statuses == [100, 603]
    night.quiet(call)


def test_a_service_that_hangs_keeps_no_phone_from_ringing_over_its_connection() -> None:
    night = Night(points=EVERY)
    phone = connected(night)
    night.answer = None
    call = night.call()
    night.world.run(2.9)
    assert night.rung(phone) == [0]
    night.world.run(0.1)
    assert night.rung(phone) == [1]
    night.told(outcome="failed", reason="no answer within 5 s")
    assert night.rung(phone) == [1]
    night.reply(phone, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


@pytest.mark.parametrize("same", [True, False])
def test_a_push_that_arrives_late_all_the_same(same: bool) -> None:
    """The phone may have left that connection without a word; over another one it rings once more."""
    night = Night(points=EVERY)
    phone = connected(night)
    night.answer = None
    call = night.call()
    night.world.run(3)
    new = phone if same else night.world.peer("10.0.0.32", "10.0.0.32", 5060, "tcp", listens=False)
    again(night, new, cseq=2)
    assert night.rung(phone, new) == [1, 1]
    night.told()
    night.world.run(1)
    night.reply(new, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


def test_a_push_that_was_taken_is_waited_for() -> None:
    """The phone wakes up, and may leave its old connection for it."""
    night = Night(points=EVERY)
    phone = connected(night)
    call = night.call()
    night.world.run(20)
    assert (night.rung(phone), call.statuses) == ([0], [100, 480])
    night.quiet(call)


@pytest.mark.parametrize("answered", [False, True])
def test_over_udp_a_service_that_hangs_is_waited_for_to_the_end(answered: bool) -> None:
    night = Night()
    phone = night.sleeper()
    night.answer = None
    call = night.call()
    if answered:
        night.told()
    night.world.run(20)
    assert (night.rung(phone), call.statuses) == (([0], [100, 480]) if answered else ([1], [100]))
    if not answered:
        night.reply(phone, 200)
        night.told(outcome="failed")
    night.quiet(call)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_phone_that_has_left_meanwhile_does_not_ring(transport: str) -> None:
    night = Night(points=EVERY)
    phone = connected(night) if transport == "tcp" else night.sleeper("10.0.0.31", "10.0.0.31")
    night.answer = None
    call = night.call()
    ask = phone.ask("REGISTER", "sip:example.com", "Contact: *", "Expires: 0", to=f"<sip:{AOR}>", call_id="z", cseq=99)
    night.world.run()
    assert ask.statuses == [200]
    night.told(outcome="failed")
    assert (night.rung(phone), call.statuses) == ([0], [100, 480])
    night.quiet(call)


def test_a_phone_whose_connection_ends_meanwhile_is_not_rung_over_it() -> None:
    night = Night(points=EVERY)
    phone = connected(night)
    night.answer = None
    call = night.call()
    night.world.cut(phone)
    night.world.run()
    night.told(outcome="failed")
    assert (night.rung(phone), call.statuses) == ([0], [100, 480])
    night.quiet(call)


def test_a_text_goes_there_too() -> None:
    night = Night(points=EVERY, trust=(ip_network("10.0.0.0/24"),))
    phone = connected(night)
    night.answer = DOWN
    text = night.call(method="MESSAGE")
    night.reply(phone, 200, "MESSAGE")
    assert text.statuses == [200]
    night.quiet(text)


def test_a_phone_that_gets_no_more_pushes_rings_over_its_connection() -> None:
    night = Night(per_phone=0, points=EVERY)
    phone = connected(night)
    call = night.call()
    assert (night.pushes, night.rung(phone)) == ([], [1])
    night.reply(phone, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


def test_of_one_phone_with_two_contacts_the_connection_rings() -> None:
    night = Night(points=EVERY)
    phone = night.world.peer("10.0.0.31", "10.0.0.31", 5060, "tcp", listens=False)
    there = f'<sip:bob@10.0.0.31;transport=tcp;{push_parameters("T1")}>;+sip.instance="<urn:uuid:1>"'
    here = f'<sip:bob@10.0.0.55;{push_parameters("T2")}>;+sip.instance="<urn:uuid:1>"'
    ask = phone.ask("REGISTER", "sip:example.com", f"Contact: {here}, {there}", to=f"<sip:{AOR}>")
    night.world.run(31)
    assert ask.statuses == [200]
    night.answer = DOWN
    call = night.call()
    assert night.rung(phone) == [1]
    night.reply(phone, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)
