"""Callers who give up: 487 at once in every state of the branches, and no phone left talking to nobody (§9, §16.10;
DEPARTURES)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scene import BOB, Scene

from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import Hop
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.target import Target
from orchestrator.testing.peer import Ask, Peer

ELSEWHERE = b'SIP;cause=200;text="Call completed elsewhere"'


def stop(phone: Peer, scene: Scene) -> None:
    """A well-behaved phone takes the CANCEL: 200 to it, 487 to the INVITE."""
    phone.answer(phone.requests("CANCEL")[0], 200)
    scene.answer(phone, 487)


# --- 487 at once, whatever the branches are doing ---------------------------------------------------------------------


def held_call(scene: Scene) -> tuple[Ask, ResponseContext]:
    """An INVITE whose target set is held open, as a flow does that waits for phones to come."""
    engine = scene.world.engine
    call = Ask(scene.alice, "INVITE", "z9hG4bKheld", invite(scene))
    request = parse_message(call.octets)
    assert isinstance(request, Request)
    server = engine.layer.open_server(request, Hop(engine.network.points[0], *scene.alice.address))
    context = ResponseContext(engine.network, server, request)
    context.held = True
    return call, context


def invite(scene: Scene) -> bytes:
    return scene.alice.ask("INVITE", BOB, branch="z9hG4bKheld", send=False).octets


def no_branch(scene: Scene, context: ResponseContext) -> None:
    """Nothing rings yet."""


def resolving(scene: Scene, context: ResponseContext) -> None:
    scene.world.on_job = lambda job: scene.world.LATER
    assert context.add(Target(b"sip:bob@phone.example.net"))


def trying(scene: Scene, context: ResponseContext) -> None:
    assert context.add(Target(b"sip:bob1@10.0.0.11"))


def ringing(scene: Scene, context: ResponseContext) -> None:
    trying(scene, context)
    scene.run()
    scene.answer(scene.phones[0], 180)


def all_failed(scene: Scene, context: ResponseContext) -> None:
    ringing(scene, context)
    scene.answer(scene.phones[0], 486)


def one_failed_one_silent(scene: Scene, context: ResponseContext) -> None:
    all_failed(scene, context)
    assert context.add(Target(b"sip:bob2@10.0.0.12"))


def cancelled_before(scene: Scene, context: ResponseContext) -> None:
    """A flow has stopped the branch, and it has not answered to that yet."""
    ringing(scene, context)
    context.cancel_pending()


STATES: list[Callable[[Scene, ResponseContext], None]] = [
    no_branch,
    resolving,
    trying,
    ringing,
    all_failed,
    one_failed_one_silent,
    cancelled_before,
]


@pytest.mark.parametrize("state", STATES)
def test_a_cancel_is_answered_487_at_once_in_every_state_of_the_branches(state: Any) -> None:
    """The second row from the bottom is the one OpenSIPS answers at the end of its timer, and with the 486."""
    scene = Scene(2)
    call, context = held_call(scene)
    state(scene, context)
    scene.run()
    before = call.statuses
    cancel = scene.do(call.cancel())
    assert cancel.statuses == [200]
    assert call.statuses == [*before, 487]
    assert scene.world.now == 0.0
    assert context.add(Target(b"sip:late@10.0.0.11")) is None, "nothing rings for a caller who has gone"
    call.acknowledge()
    scene.run(64.0)
    assert scene.world.leftovers()["transactions"] == 0
    assert call.statuses == [*before, 487]


def test_a_branch_that_is_being_looked_up_is_not_rung_any_more() -> None:
    scene = Scene()
    call, context = held_call(scene)
    resolving(scene, context)
    scene.run()
    scene.do(call.cancel())
    scene.world.engine.complete(scene.world.jobs[0].id, scene.phones[0].address[0], scene.world.now)
    scene.run(1.0)
    assert scene.phones[0].heard == []


def test_late_branches_share_what_breadth_is_left_and_failed_ones_give_theirs_back() -> None:
    scene = Scene(0)
    _, context = held_call(scene)
    for number in range(60):
        context.add(Target(b"sip:bob@10.0.0.%d" % (20 + number)))
    assert sum(branch.breadth for branch in context.pending) == 60
    assert all(branch.breadth >= 1 for branch in context.pending)
    assert 40 < len(context.pending) < 60, "those in front got a little more, for phones behind another proxy"
    assert context.add(Target(b"sip:late@10.0.0.99")) is None
    context.pending[0].on_unreachable(context.pending[0].client)  # type: ignore[arg-type]
    assert context.add(Target(b"sip:late@10.0.0.99")) is not None


# --- what the phones hear ---------------------------------------------------------------------------------------------


def test_a_ringing_phone_is_cancelled_with_the_callers_reason() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.answer(phone, 180)
    scene.do(call.cancel('Reason: Q.850;cause=16;text="changed my mind"'))
    assert phone.heard == ["INVITE", "CANCEL"]
    first, cancel = phone.requests()
    assert cancel.get(b"reason") == b'Q.850;cause=16;text="changed my mind"'
    assert (cancel.uri, cancel.via.branch, cancel.call_id, cancel.cseq) == (
        first.uri,
        first.via.branch,
        first.call_id,
        1,
    )
    assert len(cancel.vias()) == 1
    assert (cancel.body, cancel.max_forwards) == (b"", 69)
    stop(phone, scene)
    assert phone.heard == ["INVITE", "CANCEL", "ACK"]
    assert call.statuses == [100, 180, 487], "the phone's own 487 stays here"
    scene.quiet([call])


def test_a_phone_that_has_not_spoken_is_cancelled_when_it_does() -> None:
    """§9.1: a CANCEL that overtakes its INVITE would find nothing to cancel."""
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.do(call.cancel())
    scene.do(call.acknowledge())
    scene.run(0.6)
    assert phone.heard == ["INVITE", "INVITE"], "it may not have heard the first one"
    scene.answer(phone, 100)
    assert phone.heard == ["INVITE", "INVITE", "CANCEL"]
    scene.answer(phone, 180)
    assert phone.heard == ["INVITE", "INVITE", "CANCEL"], "once"
    stop(phone, scene)
    assert call.statuses == [100, 487]
    scene.quiet()


def test_a_cancel_that_gets_lost_is_repeated_and_the_branch_given_up_in_the_end() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.answer(phone, 180)
    scene.do(call.cancel())
    scene.quiet([call])
    assert phone.heard == ["INVITE"] + ["CANCEL"] * 11


def test_a_repeated_cancel_is_answered_again_and_not_sent_again() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 180)
    cancel = scene.do(call.cancel())
    for _ in range(3):
        cancel.again()
    scene.run()
    assert cancel.statuses == [200] * 4
    assert call.statuses == [100, 180, 487]
    assert scene.phones[0].heard == ["INVITE", "CANCEL"]


def test_the_487_is_repeated_until_its_ack_comes() -> None:
    scene = Scene()
    call = scene.call()
    scene.do(call.cancel())
    scene.run(1.6)
    assert call.statuses == [100, 487, 487, 487]
    call.acknowledge()
    scene.run(30.0)
    assert call.statuses == [100, 487, 487, 487]
    assert "ack.unmatched" not in scene.world.engine.counters


# --- too late, or for nothing -----------------------------------------------------------------------------------------


def test_a_cancel_behind_the_answer_changes_nothing() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 200)
    cancel = scene.do(call.cancel())
    assert cancel.statuses == [200]
    assert call.statuses == [100, 200]
    assert scene.phones[0].heard == ["INVITE"]
    scene.quiet()


def test_a_cancel_behind_a_failure_changes_nothing() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 486)
    cancel = scene.do(call.cancel())
    assert cancel.statuses == [200]
    assert call.statuses == [100, 486]
    scene.quiet([call])


def test_a_cancel_for_nothing_is_refused_without_a_transaction() -> None:
    scene = Scene()
    call = scene.call()
    scene.world.sent.clear()
    stray = scene.do(scene.alice.ask("CANCEL", BOB))
    assert stray.statuses == [481]
    assert len(scene.world.sent) == 2
    assert call.statuses == [100]
    assert scene.phones[0].heard == ["INVITE"]


def test_a_stranger_cannot_cancel_a_call_without_its_branch_and_sender() -> None:
    scene = Scene()
    eve = scene.world.peer("eve", "10.0.0.66")
    call = scene.call()
    scene.answer(scene.phones[0], 180)
    forged = scene.do(eve.ask("CANCEL", BOB, branch=call.branch.decode(), call_id="alice2"))
    assert forged.statuses == [481]
    assert call.statuses == [100, 180]


def test_only_an_invite_can_be_cancelled() -> None:
    scene = Scene()
    registration = scene.alice.register("alice@example.com")
    scene.run()
    assert scene.do(registration.cancel()).statuses == [481]


# --- answered behind the 487: released --------------------------------------------------------------------------------


def crossing(scene: Scene, *headers: str, **more: Any) -> tuple[Ask, bytes]:
    """bob answers while alice's CANCEL is on its way to him."""
    call = scene.call()
    scene.answer(scene.phones[0], 180)
    scene.do(call.cancel())
    return call, scene.answer(scene.phones[0], 200, *headers, **more)


def test_a_2xx_behind_the_487_is_acknowledged_and_ended_by_us() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call, octets = crossing(scene, tag="b")
    assert call.statuses == [100, 180, 487], "the caller has had its final answer"
    assert phone.heard == ["INVITE", "CANCEL", "ACK", "BYE"]
    ack, bye = phone.requests()[2:]
    for request, cseq in ((ack, 1), (bye, 2)):
        assert (request.uri, request.cseq) == (phone.contact.strip("<>").encode(), cseq)
        assert (request.from_.tag, request.to.tag) == (b"alice", b"b")
        assert request.call_id == phone.requests("INVITE")[0].call_id
        assert request.routes() == []
    assert len({request.via.branch for request in phone.requests()}) == 3, "INVITE and CANCEL share theirs"
    assert bye.get(b"reason") == ELSEWHERE
    phone.send(octets)
    scene.run(0.1)
    assert phone.heard == ["INVITE", "CANCEL", "ACK", "BYE", "ACK"], "its ACK was lost: once more, and no second BYE"
    phone.answer(bye, 200)
    scene.quiet([call])
    assert call.statuses == [100, 180, 487]


def test_the_bye_is_repeated_until_the_phone_hears_it() -> None:
    scene = Scene()
    call, _ = crossing(scene)
    scene.quiet([call])
    assert scene.phones[0].heard.count("BYE") == 11


def test_the_release_goes_through_the_proxies_between_us_and_the_phone_only() -> None:
    """The 2xx lists the route from the phone's side down; what stands below our own entry leads to the caller."""
    scene = Scene()
    phone, edge = scene.phones[0], scene.world.peer("edge", "10.0.0.50")
    call = scene.call("Record-Route: <sip:10.0.0.40;lr>")
    through = b"Record-Route: <sip:10.0.0.51;lr>, <sip:10.0.0.50;lr;x=1>\r\nRecord-Route:"
    received = parse_message(phone.raw[0].replace(b"Record-Route:", through, 1))
    assert isinstance(received, Request)
    scene.do(call.cancel())
    phone.answer(received, 200)
    scene.run()
    assert edge.heard == ["ACK", "BYE"]
    for request in edge.requests():
        assert [route.uri for route in request.routes()] == [b"sip:10.0.0.50;lr;x=1", b"sip:10.0.0.51;lr"]
        assert request.uri == b"sip:bob1@10.0.0.11:5060"
        assert request.max_forwards == 70


@pytest.mark.parametrize("contact", ["", "<sip:bob@@nowhere>", "*"])
def test_a_phone_without_a_usable_contact_is_released_where_its_invite_went(contact: str) -> None:
    scene = Scene()
    crossing(scene, contact=contact)
    assert scene.phones[0].heard == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert scene.phones[0].requests("BYE")[0].uri == scene.phones[0].requests("INVITE")[0].uri


def test_a_phone_behind_nat_is_released_where_it_is_and_not_where_it_believes_to_be() -> None:
    scene = Scene(0)
    phone = scene.add_phone(register=False)
    scene.phones.append(phone)
    inside = "<sip:bob@192.168.1.7>"
    registration = "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.7;branch=z9hG4bKr;rport\r\n"
    registration += f"From: <{BOB}>;tag=r\r\nTo: <{BOB}>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nContact: {inside}\r\n"
    phone.send(registration.encode() + b"Content-Length: 0\r\n\r\n")
    scene.run()
    crossing(scene, contact=inside)
    assert phone.heard == ["200", "INVITE", "CANCEL", "ACK", "BYE"]
    assert phone.requests("BYE")[0].uri == b"sip:bob@192.168.1.7"


def test_every_phone_that_answers_behind_a_fork_below_us_is_released() -> None:
    """A proxy below us sends one 2xx per phone, all on our one branch, told apart by their To tags."""
    scene = Scene()
    fork = scene.phones[0]
    crossing(scene, tag="desk")
    scene.answer(fork, 200, tag="mobile")
    scene.answer(fork, 200, tag="desk")
    byes = fork.requests("BYE")
    assert [bye.to.tag for bye in byes] == [b"desk", b"mobile"]
    assert [ack.to.tag for ack in fork.requests("ACK")] == [b"desk", b"mobile", b"desk"]


def test_a_flood_of_2xx_is_not_answered_without_end() -> None:
    scene = Scene()
    crossing(scene, tag="first")
    for number in range(200):
        scene.answer(scene.phones[0], 200, tag=f"t{number}")
    assert len(scene.phones[0].requests("BYE")) == 60


def test_two_phones_that_answer_behind_the_487_are_both_released() -> None:
    scene = Scene(3)
    call = scene.call()
    for phone in scene.phones[:2]:
        scene.answer(phone, 180)
    scene.do(call.cancel())
    for phone in scene.phones:
        scene.answer(phone, 200)
        assert phone.heard[-2:] == ["ACK", "BYE"]
        phone.answer(phone.requests("BYE")[0], 200)
    assert call.statuses == [100, 180, 180, 487]
    scene.quiet([call])


def test_a_phone_that_answers_behind_a_failure_sent_by_a_flow_is_released() -> None:
    """A flow that replies by itself leaves branches behind just like a CANCEL."""
    scene = Scene()
    call, context = held_call(scene)
    ringing(scene, context)
    context.reply(480)
    context.cancel_pending()
    scene.answer(scene.phones[0], 200)
    assert call.statuses == [180, 480]
    assert scene.phones[0].heard == ["INVITE", "CANCEL", "ACK", "BYE"]


def test_a_message_answered_late_is_no_call_to_be_ended() -> None:
    scene = Scene()
    engine = scene.world.engine
    call = Ask(scene.alice, "MESSAGE", "z9hG4bKheld", invite(scene).replace(b"INVITE", b"MESSAGE"))
    request = parse_message(call.octets)
    assert isinstance(request, Request)
    context = ResponseContext(
        engine.network, engine.layer.open_server(request, Hop(engine.network.points[0], *scene.alice.address)), request
    )
    context.add(Target(b"sip:bob1@10.0.0.11"))
    scene.run()
    context.reply(480)
    phone = scene.phones[0]
    phone.answer(phone.requests()[0], 200)
    scene.quiet()
    assert phone.heard == ["MESSAGE"]
    assert call.statuses == [480]
