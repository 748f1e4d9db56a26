"""RFC 5626: phones that register flows, and what keeps them open."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.settings import PingPolicy
from orchestrator.sip.message import Request, Response
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import PROXY, World

BOB = "sip:bob@example.com"
INSTANCE = '+sip.instance="<urn:uuid:0f0a-1>"'
BOTH = (ListenPoint(*PROXY), ListenPoint(*PROXY, "TCP"))


def register(peer: Peer, flow: int = 1, *headers: str, path: str = "", via: str = "", cseq: int = 1) -> Response:
    """bob's phone registers a flow; its Contact says `ob` and names a private address."""
    contact = f"Contact: <sip:bob@192.168.1.9:506{flow};ob>;{INSTANCE};reg-id={flow}"
    lines = [contact, "Supported: path, outbound", *headers]
    lines += [f"Path: {path}"] if path else []
    lines += [f"Via: {via}"] if via else []
    ask = peer.ask("REGISTER", "sip:example.com", *lines, to=f"<{BOB}>", call_id=f"flow{flow}", cseq=cseq)
    return ask.final if ask.statuses else _settled(ask)


def _settled(ask: Ask) -> Response:
    worlds[-1].run()
    return ask.final


worlds: list[World] = []


def world(**settings: Any) -> World:
    found = World(**settings)
    worlds[:] = [found]
    return found


def invites(peer: Peer) -> list[Request]:
    return peer.requests("INVITE")


# --- registering ------------------------------------------------------------------------------------------------------


def test_a_flow_is_confirmed_and_told_how_often_to_say_something() -> None:
    stage = world(register=RegisterPolicy(flow_timer=120))
    answer = register(stage.peer("bob", "203.0.113.9", 40009))
    assert answer.status == 200
    assert answer.get(b"require") == b"outbound"
    assert answer.get(b"flow-timer") == b"120"


@pytest.mark.parametrize(
    "headers",
    [
        ("Contact: <sip:bob@10.0.0.9>;reg-id=1", "Supported: outbound"),  # no instance
        (f"Contact: <sip:bob@10.0.0.9>;{INSTANCE}", "Supported: outbound"),  # no flow
        (f"Contact: <sip:bob@10.0.0.9>;{INSTANCE};reg-id=1", "Supported: path"),
        *(
            (f"Contact: <sip:bob@10.0.0.9>;{INSTANCE};reg-id={wrong}", "Supported: outbound")
            for wrong in ("0", "-1", "x", "1.5", "2147483648", "99999999999999999999999")
        ),
    ],
)
def test_what_is_no_flow_is_an_ordinary_contact(headers: tuple[str, ...]) -> None:
    stage = world()
    ask = stage.peer("bob", "10.0.0.9").ask("REGISTER", "sip:example.com", *headers, to=f"<{BOB}>")
    stage.run()
    assert ask.final.status == 200
    assert ask.final.get(b"require") is None


def test_the_largest_number_of_a_flow() -> None:
    stage = world()
    contact = f"Contact: <sip:bob@10.0.0.9>;{INSTANCE};reg-id=2147483647"
    ask = stage.peer("bob", "10.0.0.9").ask(
        "REGISTER", "sip:example.com", contact, "Supported: outbound", to=f"<{BOB}>"
    )
    stage.run()
    assert ask.final.get(b"require") == b"outbound"
    assert [b.reg_id for b in stage.location.bindings("bob@example.com", stage.engine.wall)] == [2**31 - 1]


@pytest.mark.parametrize(("path", "status"), [("", 439), ("<sip:edge.example.net;lr>", 439)])
def test_439_when_the_proxy_in_between_keeps_no_flows(path: str, status: int) -> None:
    stage = world()
    answer = register(stage.peer("edge", "10.0.0.7"), path=path, via="SIP/2.0/UDP 192.168.1.9;branch=z9hG4bKphone")
    assert (answer.status, answer.reason) == (status, b"First Hop Lacks Outbound Support")


def test_a_proxy_that_keeps_flows_says_ob_in_its_path() -> None:
    stage = world()
    answer = register(
        stage.peer("edge", "10.0.0.7"),
        path="<sip:token@10.0.0.7;lr;ob>",
        via="SIP/2.0/UDP 192.168.1.9;branch=z9hG4bKphone",
    )
    assert answer.status == 200
    assert answer.get(b"require") == b"outbound"


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_flow_is_called_where_it_came_from_over_udp_too() -> None:
    stage = world()
    phone = stage.peer("bob", "203.0.113.9", 40009)
    register(phone)
    stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    assert len(invites(phone)) == 1


def test_two_flows_of_a_phone_ring_one_after_the_other() -> None:
    """RFC 5626 §6: never two contacts of one instance at a time; the next one after a 408 or 430."""
    stage = world()
    first, second = stage.peer("bob1", "203.0.113.9", 40009), stage.peer("bob2", "203.0.113.9", 40010)
    register(first, 1)
    stage.run(1)
    register(second, 2)
    call = stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run(1)
    assert (len(invites(first)), len(invites(second))) == (0, 2), "the one heard last, which is silent"
    stage.run(32)
    assert len(invites(first)) >= 1
    first.answer(invites(first)[0], 200)
    stage.run(1)
    assert call.final.status == 200


@pytest.mark.parametrize("status", [430, 408])
def test_a_flow_that_has_failed_is_followed_by_the_next(status: int) -> None:
    stage = world()
    edge, direct = stage.peer("edge", "10.0.0.7"), stage.peer("bob", "203.0.113.9", 40009)
    register(direct, 1)
    stage.run(1)
    register(edge, 2, path="<sip:token@10.0.0.7;lr;ob>", via="SIP/2.0/UDP 192.168.1.9;branch=z9hG4bKphone")
    call = stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    edge.answer(invites(edge)[0], status)
    stage.run()
    direct.answer(invites(direct)[0], 200)
    stage.run()
    assert call.final.status == 200
    left = [binding.reg_id for binding in stage.location.bindings("bob@example.com", stage.engine.wall)]
    assert left == ([1] if status == 430 else [2, 1]), "430: there is no flow any more"


def test_a_430_of_nobody_who_keeps_flows_removes_nothing() -> None:
    """A phone without an edge proxy does not say that; somebody who knows the branch might."""
    stage = world()
    first, second = stage.peer("bob1", "203.0.113.9", 40009), stage.peer("bob2", "203.0.113.9", 40010)
    register(first, 1)
    stage.run(1)
    register(second, 2)
    stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    second.answer(invites(second)[0], 430)
    stage.run()
    assert len(invites(first)) == 1
    assert len(stage.location) == 2


@pytest.mark.parametrize("status", [486, 603, 500, 404])
def test_a_phone_that_has_spoken_has_spoken_for_all_its_flows(status: int) -> None:
    stage = world()
    first, second = stage.peer("bob1", "203.0.113.9", 40009), stage.peer("bob2", "203.0.113.9", 40010)
    register(first, 1)
    stage.run(1)
    register(second, 2)
    call = stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    second.answer(invites(second)[0], status)
    stage.run()
    assert not invites(first)
    assert call.final.status == status


def test_a_caller_who_gives_up_rings_no_further_flow() -> None:
    stage = world()
    first, second = stage.peer("bob1", "203.0.113.9", 40009), stage.peer("bob2", "203.0.113.9", 40010)
    register(first, 1)
    stage.run(1)
    register(second, 2)
    call = stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    second.answer(invites(second)[0], 180)
    stage.run()
    call.cancel()
    stage.run(40)
    assert not invites(first)
    assert call.final.status == 487


def test_a_connection_that_ends_takes_its_flow_along_and_the_call_to_the_other() -> None:
    stage = world(points=BOTH)
    first = stage.peer("bob1", "203.0.113.9", 40009)
    second = stage.peer("bob2", "203.0.113.9", 40010, "tcp", listens=False)
    register(first, 1)
    stage.run(1)
    register(second, 2)
    call = stage.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    stage.run()
    assert (len(invites(first)), len(invites(second))) == (0, 1)
    stage.cut(second)
    stage.run()
    first.answer(invites(first)[0], 200)
    stage.run()
    assert call.final.status == 200
    assert [b.reg_id for b in stage.location.bindings("bob@example.com", stage.engine.wall)] == [1]


def test_a_dialog_stays_on_the_flow_of_a_contact_with_ob() -> None:
    """RFC 5626 §4.3: the phone knows its public address here, so nothing else tells that it wants its flow."""
    stage = world()
    alice, bob = stage.peer("alice", "203.0.113.2", 40002), stage.peer("bob", "203.0.113.9", 40009)
    alice.contact = "<sip:alice@203.0.113.2:5999;ob>"
    register(bob)
    alice.ask("INVITE", BOB, call_id="c1")
    stage.run()
    invite = invites(bob)[0]
    bob.answer(invite, 200)
    stage.run()
    routes = [f"Route: <{(route.uri or b'').decode()}>" for route in invite.record_routes()]
    bob.ask("BYE", "sip:alice@203.0.113.2:5999;ob", *routes, sender=f"<{BOB}>;tag=bob",
            to=f"<{'sip:alice@example.com'}>;tag=alice", call_id="c1")  # fmt: skip
    stage.run()
    assert len(alice.requests("BYE")) == 1


# --- keeping it open --------------------------------------------------------------------------------------------------

NAT = PingPolicy("nat", 30.0, 3)


def pings(peer: Peer) -> list[Request]:
    found: dict[bytes | None, Request] = {}
    for request in peer.requests("OPTIONS"):
        found.setdefault(request.via.branch, request)
    return list(found.values())


def behind_nat(stage: World, name: str = "bob", port: int = 40009, extra: str = "") -> Peer:
    peer = stage.peer(name, "203.0.113.9", port)
    peer.here = "192.168.1.9:5060;rport"
    contact = f"Contact: <sip:{name}@192.168.1.9:5060{extra}>"
    ask = peer.ask("REGISTER", "sip:example.com", contact, to=f"<sip:{name}@example.com>", call_id=name)
    stage.run()
    assert ask.final.status == 200
    return peer


def test_a_phone_behind_nat_is_pinged_where_it_was_seen() -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    stage.run(29)
    assert not pings(phone)
    for round in range(1, 5):
        stage.run(30)
        assert len(pings(phone)) == round
        phone.answer(pings(phone)[-1], 200)
    assert pings(phone)[0].uri == b"sip:bob@192.168.1.9:5060"


@pytest.mark.parametrize("status", [200, 404, 405, 486, 501])
def test_any_answer_shows_that_the_phone_is_there(status: int) -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    for _ in range(8):
        stage.run(30)
        phone.answer(pings(phone)[-1], status)
    stage.run(1)
    assert len(stage.location) == 1


def test_one_that_has_answered_and_is_silent_now_is_gone() -> None:
    stage = world(ping=NAT)
    heard: list[dict[str, Any]] = []
    stage.engine.bus.subscribe("unregistered", lambda event, _: heard.append(dict(event.attributes)))
    phone = behind_nat(stage)
    stage.run(30.1)
    phone.answer(pings(phone)[-1], 200)
    stage.run(89)
    assert len(stage.location) == 1
    stage.run(35)
    assert len(stage.location) == 0
    assert [(gone["aor"], gone["reason"]) for gone in heard] == [("bob@example.com", "removed")]
    before = len(pings(phone))
    stage.run(100)
    assert len(pings(phone)) == before


def test_one_that_has_never_answered_is_left_alone_after_three() -> None:
    """It may ignore OPTIONS; or somebody has forged its address, and three datagrams are all that he gets for that."""
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    stage.run(600)
    assert len(stage.location) == 1
    assert len(phone.requests("OPTIONS")) == 3, "not one is repeated"


def test_a_ping_of_one_that_has_answered_is_repeated() -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    stage.run(30.1)
    phone.answer(pings(phone)[-1], 200)
    stage.run(35)
    assert len(phone.requests("OPTIONS")) > 2 == len(pings(phone))


def test_one_that_was_left_alone_is_pinged_again_when_it_registers() -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    stage.run(200)
    phone.ask(
        "REGISTER", "sip:example.com", "Contact: <sip:bob@192.168.1.9:5060>", to=f"<{BOB}>", call_id="bob", cseq=2
    )
    stage.run(31)
    assert len(pings(phone)) == 4


def test_a_phone_that_registers_again_is_there() -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage)
    stage.run(30.1)
    phone.answer(pings(phone)[-1], 200)
    for _ in range(5):
        stage.run(60)
        ask = phone.ask("REGISTER", "sip:example.com", "Contact: <sip:bob@192.168.1.9:5060>", to=f"<{BOB}>",
                        call_id=phone.word())  # fmt: skip
        stage.run()
        assert ask.final.status == 200
    assert len(stage.location) == 1


def test_a_phone_that_a_push_wakes_may_sleep() -> None:
    stage = world(ping=NAT)
    phone = behind_nat(stage, extra=";pn-provider=apns;pn-prid=t;pn-param=p")
    stage.run(300)
    assert not pings(phone)


def test_a_phone_that_is_where_it_says_is_pinged_with_all_only() -> None:
    for policy, count in ((NAT, 0), (PingPolicy("all", 30.0, 3), 3), (PingPolicy("none"), 0)):
        stage = world(ping=policy)
        phone = stage.peer("bob", "10.0.0.9")
        phone.ask("REGISTER", "sip:example.com", "Contact: <sip:bob@10.0.0.9>", to=f"<{BOB}>")
        stage.run(95)
        assert len(pings(phone)) == count, policy


def test_pings_are_spread_and_bounded_in_each_turn() -> None:
    """1,000 phones that were registered at the start: nobody is pinged twice, and never many at once."""
    stage = world(ping=NAT, wall=1000.0)
    wall = stage.engine.wall
    from orchestrator.sip.binding import Binding

    for number in range(1000):
        aor = f"u{number}@example.com"
        contact = f"sip:u{number}@192.168.1.9:5060".encode()
        stage.location.save(aor, [Binding(aor, contact, wall + 3600, received=("203.0.113.9", 20000 + number))], wall)
    stage.engine.registrations.keepalive.begin(tuple(stage.location))
    seen: list[float] = []
    stage.fate = lambda data, source, target: seen.append(stage.now) or () if data.startswith(b"OPTIONS") else (0.0,)
    stage.run(15)
    first = len(set(seen))
    assert 400 <= stage.engine.counters["registration.ping"] <= 600
    assert first > 100
    stage.run(16)
    assert stage.engine.counters["registration.ping"] >= 1000


# --- STUN -------------------------------------------------------------------------------------------------------------


def test_stun_is_answered_at_the_sip_port() -> None:
    stage = world()
    got: list[bytes] = []
    stage.attach(("203.0.113.9", 40009), lambda data, source: got.append(data))
    request = bytes.fromhex("000100002112a442b7e7a701bc34d686fa87dfae")
    stage.post_from(("203.0.113.9", 40009))(request, PROXY)
    stage.run()
    [answer] = got
    assert answer[:20] == b"\x01\x01\x00\x0c" + request[4:]
    assert stage.engine.counters["malformed"] == 0
