"""Forking: what goes down to the branches, which of their answers goes up (RFC 3261 §16.6, §16.7, §16.8)."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from scene import Scene

from orchestrator.core.jobs import Resolve
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.sip.server import InviteServer
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import PROXY


def refuse(scene: Scene, *statuses: int) -> None:
    """Each phone in turn answers with a failure."""
    for phone, status in zip(scene.phones, statuses, strict=True):
        scene.answer(phone, status)


# --- down -------------------------------------------------------------------------------------------------------------


def test_what_is_forwarded_is_what_came_with_the_changes_of_16_6() -> None:
    scene = Scene()
    call = scene.call("Subject: lunch", "X-Odd:   two   blanks", body=b"v=0\r\n")
    [invite] = scene.phones[0].requests()
    assert invite.uri == b"sip:bob1@10.0.0.11:5060", "step 2"
    assert invite.max_forwards == 69, "step 3"
    [ours] = invite.record_routes()
    assert re.fullmatch(rb"sip:[0-9a-f]{16}@10\.0\.0\.1:5060;lr", ours.uri or b""), "step 4"
    above, theirs = invite.vias()
    assert (above.host, above.port) == (b"10.0.0.1", 5060), "step 8"
    assert re.fullmatch(rb"z9hG4bK[0-9a-f]{18}", above.branch or b"")
    assert theirs.branch == call.branch
    assert invite.lines[-4:-1] == [b"Contact: <sip:alice@10.0.0.2:5060>", b"Subject: lunch", b"X-Odd:   two   blanks"]
    assert invite.body == b"v=0\r\n"


def test_a_request_without_max_forwards_gets_one() -> None:
    scene = Scene()
    scene.call(max_forwards=None)
    assert scene.phones[0].requests()[0].max_forwards == 70


def test_the_caller_hears_100_at_once_and_each_ringing_phone() -> None:
    scene = Scene(2)
    call = scene.call()
    assert call.statuses == [100]
    for phone in scene.phones:
        scene.answer(phone, 100)
        scene.answer(phone, 180)
    assert call.statuses == [100, 180, 180], "a 100 is hop by hop"
    assert [len(response.vias()) for response in call.responses] == [1, 1, 1]


def test_every_contact_rings_on_a_branch_of_its_own() -> None:
    scene = Scene(3)
    scene.call()
    branches = {phone.requests("INVITE")[0].via.branch for phone in scene.phones}
    assert len(branches) == 3


def test_an_invite_repeated_a_hundred_times_is_one_call() -> None:
    scene = Scene(2)
    call = scene.call()
    for _ in range(100):
        call.again()
    scene.run()
    assert [phone.heard for phone in scene.phones] == [["INVITE"], ["INVITE"]]
    assert call.statuses == [100] * 101
    scene.answer(scene.phones[0], 180)
    call.again()
    scene.run()
    assert call.statuses[-2:] == [180, 180], "the last provisional answer is repeated"


def test_a_silent_phone_gets_the_invite_again_and_a_speaking_one_does_not() -> None:
    scene = Scene(2)
    scene.call()
    scene.answer(scene.phones[0], 180)
    scene.run(10.0)
    assert scene.phones[0].heard == ["INVITE"]
    assert scene.phones[1].heard == ["INVITE"] * 5


# --- up: one answer ---------------------------------------------------------------------------------------------------


def test_a_single_failure_goes_up_as_it_came_and_is_acknowledged_here() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 486, "Retry-After: 30", tag="busy")
    assert scene.phones[0].heard == ["INVITE", "ACK"]
    invite, ack = scene.phones[0].requests()
    assert (ack.uri, ack.via.branch, ack.cseq, ack.to.tag) == (invite.uri, invite.via.branch, 1, b"busy")
    assert call.statuses == [100, 486]
    assert call.final.to.tag == b"busy"
    assert call.final.get(b"retry-after") == b"30"
    scene.quiet([call])


def test_an_unacknowledged_failure_is_repeated_and_its_repetition_from_below_is_not_forwarded() -> None:
    scene = Scene()
    call = scene.call()
    octets = scene.answer(scene.phones[0], 486)
    scene.phones[0].send(octets)
    scene.run(0.1)
    assert call.statuses == [100, 486]
    assert scene.phones[0].heard == ["INVITE", "ACK", "ACK"]
    scene.run(1.9)
    assert call.statuses == [100, 486, 486, 486]
    scene.quiet([call])


BEST: list[tuple[tuple[int, ...], int]] = [
    ((486, 404), 404),
    ((404, 484), 484),
    ((486, 420), 420),
    ((486, 415), 415),
    ((486, 401), 401),
    ((480, 408), 480),
    ((408, 408), 408),
    ((408, 500), 408),
    ((486, 500), 486),
    ((302, 486), 302),
    ((302, 404, 500), 302),
    ((500, 502), 500),
    ((503, 502), 502),
    ((503, 503), 500),
    ((503, 408), 408),
    ((603, 486), 603),
    ((603, 302), 603),
    ((603, 600), 600),
]


IN_EVERY_ORDER = [(order, best) for statuses, best in BEST for order in permutations(statuses)]


@pytest.mark.parametrize(("statuses", "best"), IN_EVERY_ORDER)
def test_the_best_failure_goes_up_when_the_last_branch_has_spoken(statuses: tuple[int, ...], best: int) -> None:
    scene = Scene(len(statuses))
    call = scene.call()
    refuse(scene, *statuses)
    assert call.statuses == [100, best]
    scene.quiet([call])


def test_no_failure_goes_up_while_a_branch_is_still_open() -> None:
    scene = Scene(3)
    call = scene.call()
    scene.answer(scene.phones[0], 486)
    scene.answer(scene.phones[1], 180)
    scene.answer(scene.phones[1], 404)
    assert call.statuses == [100, 180]
    scene.answer(scene.phones[2], 200)
    assert call.statuses == [100, 180, 200]


def test_a_503_goes_up_as_500_because_it_says_nothing_about_us() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 503, "Retry-After: 3600")
    assert call.statuses == [100, 500]
    assert call.final.get(b"retry-after") is None, "or the caller would leave us alone for an hour"


def test_a_6xx_stops_the_others_and_goes_up_when_they_have_stopped() -> None:
    scene = Scene(3)
    ringing, silent, declining = scene.phones
    call = scene.call()
    scene.answer(ringing, 180)
    scene.answer(declining, 603)
    assert ringing.heard == ["INVITE", "CANCEL"]
    assert silent.heard == ["INVITE"], "nothing may be cancelled that has not answered (§9.1)"
    assert call.statuses == [100, 180]
    scene.answer(ringing, 487)
    scene.answer(silent, 100)
    assert silent.heard == ["INVITE", "CANCEL"]
    assert call.statuses == [100, 180]
    scene.answer(silent, 487)
    assert call.statuses == [100, 180, 603]
    scene.quiet([call])


def test_a_2xx_behind_a_6xx_still_wins() -> None:
    scene = Scene(2)
    call = scene.call()
    scene.answer(scene.phones[0], 180)
    scene.answer(scene.phones[1], 600)
    scene.answer(scene.phones[0], 200)
    assert call.statuses == [100, 180, 200]


def test_challenges_of_all_branches_go_up_in_one_answer() -> None:
    """§16.7 step 7: or the caller could authenticate to one of them only."""
    scene = Scene(4)
    call = scene.call()
    one, two, three = 'Digest realm="one"', 'Digest realm="two", nonce="2"', 'Digest realm="three"'
    scene.answer(scene.phones[0], 401, f"WWW-Authenticate: {one}")
    scene.answer(scene.phones[1], 407, f"Proxy-Authenticate: {two}", f"Proxy-Authenticate: {three}")
    scene.answer(scene.phones[2], 407, f"Proxy-Authenticate: {two}")
    scene.answer(scene.phones[3], 486, f"Proxy-Authenticate: {one}")
    final = call.final
    assert final.status == 401
    assert final.get_all(b"www-authenticate") == [one.encode()]
    assert final.get_all(b"proxy-authenticate") == [two.encode(), three.encode()]
    scene.quiet([call])


# --- up: the answer ---------------------------------------------------------------------------------------------------


def test_the_first_2xx_goes_up_at_once_and_the_others_are_told_that_somebody_answered() -> None:
    scene = Scene(3)
    ringing, silent, answering = scene.phones
    call = scene.call()
    scene.answer(ringing, 180)
    scene.answer(answering, 200, body=b"v=0\r\n")
    assert call.statuses == [100, 180, 200]
    assert call.final.body == b"v=0\r\n"
    assert ringing.heard == ["INVITE", "CANCEL"]
    cancel = ringing.requests("CANCEL")[0]
    invite = ringing.requests("INVITE")[0]
    assert cancel.get(b"reason") == b'SIP;cause=200;text="Call completed elsewhere"'
    assert (cancel.uri, cancel.via.branch, cancel.cseq, cancel.to.tag) == (invite.uri, invite.via.branch, 1, None)
    assert answering.heard == ["INVITE"], "the ACK to a 2xx is the caller's"
    scene.answer(silent, 180)
    assert silent.heard == ["INVITE", "CANCEL"]
    assert call.statuses == [100, 180, 200], "what still rings is no news for the caller"
    for loser in (ringing, silent):
        loser.answer(loser.requests("CANCEL")[0], 200)
        scene.answer(loser, 487)
        assert loser.heard[-1] == "ACK"
    assert call.statuses == [100, 180, 200]
    scene.quiet()


def test_a_repeated_200_goes_up_each_time_and_its_ack_comes_down() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    octets = scene.answer(phone, 200, tag="b")
    acknowledge(scene, call)
    assert phone.heard == ["INVITE", "ACK"]
    scene.run(0.5)
    phone.send(octets)
    scene.run()
    assert call.statuses == [100, 200, 200]
    acknowledge(scene, call)
    assert phone.heard == ["INVITE", "ACK", "ACK"]
    assert phone.requests("ACK")[0].via.branch != phone.requests("INVITE")[0].via.branch
    scene.run(31.4)
    phone.send(octets)
    scene.run()
    assert call.statuses == [100, 200, 200, 200]
    scene.run(0.1)
    phone.send(octets)
    scene.run()
    assert call.statuses == [100, 200, 200, 200], "after 64*T1 it is a stray (RFC 6026 §7.3)"
    assert scene.world.engine.counters["response.unmatched"] == 1
    scene.quiet()


def acknowledge(scene: Scene, call: Ask, to: Response | None = None) -> None:
    """alice's ACK to a 2xx: a request of its own, along the route set."""
    answer = to or call.responses[-1]
    routes = [f"Route: <{(route.uri or b'').decode()}>" for route in reversed(answer.record_routes())]
    target = (answer.contacts()[0].uri or b"").decode()
    call_id, remote = answer.call_id.decode(), (answer.get(b"to") or b"").decode()
    scene.do(scene.alice.ask("ACK", target, *routes, to=remote, call_id=call_id))


def test_two_phones_that_answer_at_once_are_two_dialogs_for_the_caller() -> None:
    """§16.7 step 5: all 2xx go up; the caller ends what it does not want. Its ACKs find the right phone each."""
    scene = Scene(2)
    call = scene.call()
    for phone in scene.phones:
        phone.answer(phone.requests("INVITE")[0], 200)
    scene.run()
    assert call.statuses == [100, 200, 200]
    assert {response.to.tag for response in call.responses[1:]} == {b"bob1", b"bob2"}
    for response in call.responses[1:]:
        acknowledge(scene, call, response)
    assert [phone.heard for phone in scene.phones] == [["INVITE", "ACK"], ["INVITE", "ACK"]]
    scene.quiet()


def test_a_2xx_of_a_second_branch_goes_up_as_long_as_the_caller_can_hear_it() -> None:
    scene = Scene(2)
    call = scene.call()
    scene.answer(scene.phones[1], 180)
    scene.answer(scene.phones[0], 200)
    scene.run(20.0)
    scene.answer(scene.phones[1], 200)
    assert call.statuses == [100, 180, 200, 200]
    scene.quiet()


def test_a_2xx_that_comes_when_the_caller_is_deaf_is_ended_by_us() -> None:
    """The server transaction is gone after 64*T1, and so is the caller's interest (§13.2.2.4)."""
    scene = Scene(2)
    winner, slow = scene.phones
    call = scene.call()
    scene.answer(winner, 200)
    scene.run(20.0)
    scene.answer(slow, 180)
    assert slow.heard[-1] == "CANCEL"
    scene.run(20.0)
    scene.answer(slow, 200, tag="late")
    assert call.statuses == [100, 200]
    assert slow.heard[-2:] == ["ACK", "BYE"]
    assert [request.to.tag for request in slow.requests()[-2:]] == [b"late", b"late"]
    scene.quiet()


def test_a_failure_behind_the_2xx_is_nobodys_business() -> None:
    scene = Scene(2)
    call = scene.call()
    scene.answer(scene.phones[0], 200)
    scene.answer(scene.phones[1], 603)
    assert call.statuses == [100, 200]
    assert scene.phones[1].heard == ["INVITE", "ACK"]
    scene.quiet()


def test_a_provisional_answer_behind_the_final_one_is_dropped() -> None:
    scene = Scene(2)
    call = scene.call()
    scene.answer(scene.phones[0], 200)
    scene.answer(scene.phones[1], 183)
    assert call.statuses == [100, 200]


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_branch_that_never_speaks_counts_as_408_after_32_seconds() -> None:
    scene = Scene()
    call = scene.call()
    scene.run(31.99)
    assert call.statuses == [100]
    scene.run(0.01)
    assert call.statuses == [100, 408]
    assert scene.phones[0].heard == ["INVITE"] * 7
    scene.quiet([call])


def test_silence_is_worse_than_any_4xx() -> None:
    scene = Scene(2)
    call = scene.call()
    scene.answer(scene.phones[0], 480)
    scene.run(32.0)
    assert call.statuses == [100, 480]


def test_timer_c_cancels_a_phone_that_rings_for_three_minutes() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.answer(phone, 180)
    scene.run(179.99)
    assert phone.heard == ["INVITE"]
    scene.run(0.01)
    assert phone.heard == ["INVITE", "CANCEL"]
    phone.answer(phone.requests("CANCEL")[0], 200)
    scene.answer(phone, 487)
    assert call.statuses == [100, 180, 487]
    scene.quiet([call])


def test_timer_c_starts_again_with_each_18x_but_not_with_a_100() -> None:
    scene = Scene()
    phone = scene.phones[0]
    scene.call()
    for seconds, status in ((10.0, 180), (150.0, 183), (50.0, 100)):
        scene.run(seconds)
        scene.answer(phone, status)
    assert scene.world.now == 210.0
    scene.run(129.99)
    assert "CANCEL" not in phone.heard
    scene.run(0.01)
    assert scene.world.now == 340.0, "180 s after the 183"
    assert phone.heard[-1] == "CANCEL"


def test_timer_c_gives_up_a_branch_that_does_not_even_hear_the_cancel() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.answer(phone, 180)
    scene.run(180.0)
    assert call.statuses == [100, 180]
    scene.run(31.99)
    assert phone.heard == ["INVITE"] + ["CANCEL"] * 11
    assert call.statuses == [100, 180]
    scene.run(0.01)
    assert call.statuses == [100, 180, 408]
    scene.answer(phone, 200)
    assert call.statuses[:3] == [100, 180, 408]
    assert scene.world.engine.counters["response.unmatched"] == 1
    scene.quiet([call])


def fail_to_send(scene: Scene, peer: Peer) -> None:
    """The socket refuses what was sent to this peer last."""
    engine = scene.world.engine
    engine.transport_failed(Hop(engine.network.points[0], *peer.address), peer.raw[-1], scene.world.now)


def test_a_phone_that_cannot_be_reached_is_a_480_and_not_a_wait() -> None:
    """§16.9: a transport error is a 503 of that branch."""
    scene = Scene(2)
    call = scene.call()
    for phone in scene.phones:
        fail_to_send(scene, phone)
    scene.run()
    assert call.statuses == [100, 480]
    assert scene.world.engine.counters["transport.failed"] == 2
    scene.quiet([call])


def test_a_transport_error_finds_its_transaction_whatever_the_request_uri_says() -> None:
    scene = Scene(0)
    phone = scene.add_phone(register=False)
    scene.do(phone.register("bob@example.com", f"<sip:bob@{phone.here};branch=z9hG4bK>"))
    call = scene.call()
    assert phone.raw[-1].startswith(b"INVITE sip:bob@10.0.0.11:5060;branch=z9hG4bK ")
    fail_to_send(scene, phone)
    scene.run()
    assert call.statuses == [100, 480]


def test_a_response_we_cannot_send_disturbs_nobody() -> None:
    scene = Scene()
    call = scene.call()
    fail_to_send(scene, scene.alice)
    scene.answer(scene.phones[0], 180)
    assert call.statuses == [100, 180]


# --- names ------------------------------------------------------------------------------------------------------------


def targets(scene: Scene) -> set[tuple[str, int]]:
    """Where the proxy has sent anything at all."""
    return {target for _, source, target, _ in scene.world.sent if source == PROXY}


def named_contact(scene: Scene, host: str = "phone.example.net") -> Peer:
    phone = scene.add_phone(register=False)
    scene.do(phone.register("bob@example.com", f"<sip:bob@{host}>"))
    return phone


def test_a_contact_with_a_name_is_looked_up_outside_and_then_rung() -> None:
    scene = Scene(0)
    phone = named_contact(scene)
    scene.world.on_job = lambda job: scene.world.LATER
    call = scene.call()
    [job] = scene.world.jobs
    assert isinstance(job.effect, Resolve) and job.effect.host == "phone.example.net"
    assert phone.requests() == []
    scene.world.engine.complete(job.id, phone.address[0], scene.world.now)
    scene.run()
    assert phone.heard[-1] == "INVITE"
    scene.answer(phone, 486)
    assert call.statuses == [100, 486]
    scene.quiet([call])


@pytest.mark.parametrize("address", [None, "255.255.255.255", "0.0.0.0", "224.0.1.75", "2001:db8::1", "nonsense"])
def test_a_name_that_leads_nowhere_fails_its_branch_alone(address: str | None) -> None:
    """Broadcast and multicast addresses count as nowhere, and so does an address family we do not speak."""
    scene = Scene(1)
    named_contact(scene)
    scene.world.on_job = lambda job: address
    call = scene.call()
    assert call.statuses == [100]
    scene.answer(scene.phones[0], 180)
    scene.answer(scene.phones[0], 486)
    assert call.statuses == [100, 180, 486]
    assert targets(scene) <= {scene.alice.address, *(phone.address for phone in scene.world.peers.values())}
    scene.quiet([call])


def test_when_no_contact_leads_anywhere_the_call_fails_at_once() -> None:
    scene = Scene(0)
    named_contact(scene)
    named_contact(scene, "other.example.net")
    scene.world.on_job = lambda job: None
    call = scene.call()
    assert call.statuses == [100, 500]
    scene.quiet([call])


@pytest.mark.parametrize(
    "contact",
    [
        "sip:bob@255.255.255.255",
        "sip:bob@0.0.0.0",
        "sip:bob@239.1.1.1",
        "sip:bob@[ff02::1]",
        "sip:bob@10.0.0.9;transport=tcp",
        "sips:bob@10.0.0.9",
    ],
)
def test_a_contact_no_datagram_may_be_sent_to_gets_none(contact: str) -> None:
    """Such a binding may stand in a store of before; a REGISTER with it may be refused."""
    scene = Scene(0)
    wall = scene.world.engine.wall
    binding = Binding("bob@example.com", contact.encode(), wall + 60)
    scene.world.location.save("bob@example.com", [binding], wall)
    call = scene.call()
    assert call.statuses == [100, 500]
    assert targets(scene) == {scene.alice.address}
    assert scene.world.jobs == [], "an address literal is not looked up"


def test_a_binding_that_was_damaged_in_the_store_fails_alone() -> None:
    scene = Scene(1)
    wall = scene.world.engine.wall
    for contact, path in ((b"not a uri", ()), (b"sip:bob@10.0.0.77", (b"<not a route>",))):
        scene.world.location.save("bob@example.com", [Binding("bob@example.com", contact, wall + 60, path=path)], wall)
    call = scene.call()
    assert scene.phones[0].heard == ["INVITE"]
    scene.answer(scene.phones[0], 486)
    assert call.statuses == [100, 486]
    scene.quiet([call])


# --- what it shows of itself ------------------------------------------------------------------------------------------


def test_a_context_and_its_branches_show_their_state() -> None:
    scene = Scene(1)
    scene.call()
    [server] = invites(scene)
    context = server.user
    [branch] = context.pending
    contact = "sip:bob1@10.0.0.11:5060"
    assert repr(server) == "<INVITE server INVITE proceeding>"
    assert repr(branch.client) == "<INVITE client INVITE calling>"
    assert (repr(context), repr(branch)) == ("<ResponseContext INVITE open pending=1>", f"<Branch 0 {contact} trying >")
    scene.answer(scene.phones[0], 180)
    assert repr(branch) == f"<Branch 0 {contact} ringing >"
    scene.answer(scene.phones[0], 486)
    assert repr(context) == "<ResponseContext INVITE closed pending=0>"
    assert (repr(branch), repr(server)) == (f"<Branch 0 {contact} failed 486>", "<INVITE server INVITE completed>")


def invites(scene: Scene) -> list[InviteServer]:
    return [server for server in scene.world.engine.layer.servers.values() if isinstance(server, InviteServer)]
