"""Phones behind NAT: what their Contact says leads nowhere, and the other side's requests reach them all the same.

The wires of these worlds know public addresses only: nobody is at 192.168.x.x.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mediakit import Stage as Media
from mediakit import stage as media_stage
from test_call_races import program

from orchestrator.core import moves
from orchestrator.core.engine import Engine
from orchestrator.flow.language.program import Program
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.uri import parse_uri
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
METHODS = ["ACK", "INVITE", "INFO", "UPDATE", "BYE"]
PUBLIC = {"alice": ("203.0.113.2", 40002), "bob": ("203.0.113.11", 40011)}
PRIVATE = {"alice": "192.168.1.2:5060", "bob": "192.168.9.11:5062"}


class Stage:
    """alice calls bob; those named are behind NAT."""

    def __init__(self, *natted: str, world: World | None = None, rport: bool = True) -> None:
        self.world = world or World()
        self.alice, self.bob = (self.peer(name, name in natted, rport) for name in ("alice", "bob"))

    def peer(self, name: str, natted: bool, rport: bool) -> Peer:
        peer = self.world.peer(name, *PUBLIC[name])
        if natted:
            peer.here = PRIVATE[name] + (";rport" if rport else "")
            peer.contact = f"<sip:{name}@{PRIVATE[name]}>"
        return peer

    def call(self, *headers: str) -> Ask:
        self.bob.register("bob@example.com")
        self.world.run()
        call = self.alice.ask("INVITE", BOB, *headers, call_id="call")
        self.world.run()
        self.bob.answer(self.bob.requests("INVITE")[0], 200)
        self.world.run()
        assert call.statuses == [100, 200]
        return call

    def send(self, speaker: Peer, listener: Peer, method: str, cseq: int = 2) -> Request:
        """A request inside the dialog, to the Contact and along the Record-Route that the other one gave."""
        routes = [b"<%b>" % (route.uri or b"") for route in self.bob.requests("INVITE")[0].record_routes()]
        sides = {"sender": "<sip:alice@example.com>;tag=alice", "to": f"<{BOB}>;tag=bob", "call_id": "call"}
        if speaker is self.bob:
            sides["sender"], sides["to"] = sides["to"], sides["sender"]
        uri, before = listener.contact.strip("<>"), len(listener.requests())
        if speaker is self.alice:
            routes.reverse()
        speaker.ask(method, uri, *(f"Route: {route.decode()}" for route in routes), cseq=cseq, **sides)
        self.world.run()
        arrived = listener.requests()[before:]
        assert len(arrived) == 1, f"{method} did not arrive"
        assert arrived[0].uri == uri.encode(), "the Request-URI is what the phone knows itself by"
        return arrived[0]

    @property
    def token(self) -> bytes:
        [route] = self.bob.requests("INVITE")[0].record_routes()
        return parse_uri(route.uri or b"").user


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("natted", [(), ("alice",), ("bob",), ("alice", "bob")])
def test_every_request_of_the_dialog_arrives_on_both_sides(natted: tuple[str, ...], method: str) -> None:
    stage = Stage(*natted)
    stage.call()
    stage.send(stage.alice, stage.bob, method)
    stage.send(stage.bob, stage.alice, method)
    assert (len(stage.token) == 16) is (not natted), "an ordinary call's entry stays short"


def test_the_contact_is_nobodys_to_change() -> None:
    stage = Stage("alice", "bob")
    call = stage.call()
    assert stage.bob.requests("INVITE")[0].get(b"contact") == stage.alice.contact.encode()
    assert call.final.get(b"contact") == stage.bob.contact.encode()


def test_neither_side_can_read_where_the_other_is() -> None:
    stage = Stage("alice", "bob")
    stage.call()
    octets = bytes.fromhex(stage.token.decode())
    assert bytes((203, 0, 113)) not in octets


def test_a_caller_who_asks_for_no_rport_is_where_its_answers_go() -> None:
    stage = Stage("alice", rport=False)
    answered_at = stage.world.peer("router", PUBLIC["alice"][0], 5060)
    stage.bob.register("bob@example.com")
    stage.alice.ask("INVITE", BOB, call_id="call")
    stage.world.run()
    stage.bob.answer(stage.bob.requests("INVITE")[0], 200)
    stage.world.run()
    stage.alice.received = answered_at.received
    stage.send(stage.bob, stage.alice, "BYE")


# --- who is not behind NAT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contact", "via", "seen"),
    [
        ("sip:alice@203.0.113.2:40002", "203.0.113.2:40002", False),
        ("sip:alice@203.0.113.2", "192.168.1.2;rport", False),  # it knows how it is seen: STUN, or an answer's rport
        ("sip:203.0.113.2:40002", "203.0.113.2:40002", False),
        ("sip:alice@203.0.113.20", "203.0.113.2:40002", False),  # a carrier's other machine
        ("sip:alice@203.0.113.20", "203.0.113.20;rport", True),  # believes to be somewhere else altogether
        ("sip:alice@192.168.1.2", "203.0.113.2:40002", True),  # a router that repairs the Via and no more
        ("sip:alice@phone.local", "phone.local;rport", True),
        ("sip:alice@sbc.example.net", "203.0.113.2:40002", False),
        ("sip:alice@[fd00::7]:5060", "[fd00::7]:5060;rport", True),
        ("sip:alice@192.168.1.2;transport=tcp", "192.168.1.2;rport", True),
        ("tel:+4930123", "192.168.1.2;rport", False),
    ],
)
def test_who_is_behind_nat(contact: str, via: str, seen: bool) -> None:
    stage = Stage()
    stage.alice.here = via
    stage.call(f"Contact: <{contact}>")
    assert (len(stage.token) > 16) is seen


@pytest.mark.parametrize("contact", ["<<sip:alice", "sip:alice@192.168.1.2:0", "*"])
def test_a_contact_that_nobody_can_read_is_passed_on_as_it_is(contact: str) -> None:
    stage = Stage()
    stage.alice.here = "192.168.1.2;rport"
    stage.call(f"Contact: {contact}")
    assert len(stage.token) == 16


def test_in_one_network_a_private_contact_is_a_contact() -> None:
    """alice has two addresses in our own network and says so."""
    world = World()
    alice, bob = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.11")
    bob.register("bob@example.com")
    alice.ask("INVITE", BOB, "Contact: <sip:alice@10.0.0.3>")
    world.run()
    [route] = bob.requests("INVITE")[0].record_routes()
    assert len(parse_uri(route.uri or b"").user) == 16


@pytest.mark.parametrize("records", [True, False])
def test_behind_another_proxy_its_word_counts(records: bool) -> None:
    """The INVITE comes from a proxy: its address is not the caller's, and whoever records a route is reached by it."""
    stage = Stage()
    edge = stage.world.peer("edge", "203.0.113.50")
    stage.bob.register("bob@example.com")
    headers = ["Record-Route: <sip:203.0.113.50;lr>"] if records else []
    ask = edge.ask("INVITE", BOB, "Contact: <sip:alice@192.168.1.2>", *headers, call_id="call", send=False)
    below = b"Via: SIP/2.0/UDP 192.168.1.2;branch=z9hG4bKbelow;received=203.0.113.2\r\nMax-Forwards"
    ask.octets = ask.octets.replace(b"203.0.113.50:5060;branch", b"edge.local:5060;branch")
    ask.octets = ask.octets.replace(b"Max-Forwards", below if not records else b"Max-Forwards", 1)
    ask.again()
    stage.world.run()
    [ours, *_] = stage.bob.requests("INVITE")[0].record_routes()
    assert len(parse_uri(ours.uri or b"").user) == 16


def test_a_proxy_between_us_and_the_phone_is_asked_first() -> None:
    """The token's address is the phone's; a Route behind ours leads to it on another way."""
    stage = Stage("bob")
    stage.call()
    edge = stage.world.peer("edge", "203.0.113.50")
    [route] = stage.bob.requests("INVITE")[0].record_routes()
    routes = f"Route: <{(route.uri or b'').decode()}>, <sip:203.0.113.50;lr>"
    sides = {"sender": "<sip:alice@example.com>;tag=alice", "to": f"<{BOB}>;tag=bob", "call_id": "call"}
    stage.alice.ask("BYE", stage.bob.contact.strip("<>"), routes, cseq=2, **sides)
    stage.world.run()
    assert edge.heard == ["BYE"]
    assert stage.bob.requests("BYE") == []


# --- what we say ourselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("natted", [("alice",), ("bob",), ("alice", "bob")])
def test_a_flow_hangs_up_where_the_phones_are(natted: tuple[str, ...], tmp_path: Path) -> None:
    flow = "      - relay: {to: registered}\n      - sleep: 5s\n      - hangup: enough\n"
    stage = Stage(*natted, world=World(program(tmp_path, flow)))
    stage.call()
    stage.send(stage.alice, stage.bob, "ACK", cseq=1)
    stage.world.run(5.0)
    for peer in (stage.alice, stage.bob):
        [bye] = peer.requests("BYE")
        assert bye.uri == peer.contact.strip("<>").encode()
        peer.answer(bye, 200)
    stage.world.run(70.0)
    assert not any(stage.world.leftovers().values())


def behind_nat(phone: Phone) -> Phone:
    """A phone that knows only its private address."""
    name = phone.user
    phone.here = PRIVATE[name].encode() + b";rport"
    phone.contact = f"<sip:{name}@{PRIVATE[name]}>".encode()
    return phone


def through_freeswitch(tmp_path: Path) -> tuple[Media, Phone, Phone]:
    s = media_stage(tmp_path, "relay: {to: registered, via: fs1}", "sleep: 5s", "hangup: enough")
    alice, bob = (behind_nat(s.world.phone(f"{name}@example.com", *PUBLIC[name])) for name in ("alice", "bob"))
    bob.register()
    s.bob.register(expires=0)
    s.world.run()
    return s, alice, bob


@pytest.mark.parametrize(
    "end",
    [
        lambda s, call, answered: call.hangup(),
        lambda s, call, answered: answered.hangup(),
        lambda s, call, answered: s.world.run(5.0),
    ],
)
def test_with_freeswitch_between_them(end: Callable[[Media, PhoneCall, PhoneCall], object], tmp_path: Path) -> None:
    """Two dialogs, one phone behind NAT in each: the caller hangs up, the callee, the flow."""
    s, alice, bob = through_freeswitch(tmp_path)
    bob.on_invite = PhoneCall.answer
    call = alice.invite("bob@example.com")
    s.world.run()
    [answered] = bob.calls
    assert call.state == answered.state == "answered"
    assert answered.acknowledged
    end(s, call, answered)
    s.world.run()
    s.over()


# --- over a restart ---------------------------------------------------------------------------------------------------


def test_a_restart_forgets_nobody_behind_nat() -> None:
    """Also one after which the sockets stand in another order."""
    two = (ListenPoint("10.0.0.1", 5060), ListenPoint("10.0.0.1", 5070))
    stage = Stage("alice", "bob", world=World(points=two))
    stage.alice.proxy = ("10.0.0.1", 5070)
    stage.call()
    location = Location(stage.world.location.store)
    location.load(stage.world.engine.wall)
    after = World(seed=2, points=two[::-1])
    after.engine = Engine(after.settings, location, Program(), after.now)
    again = Stage("alice", "bob", world=after)
    again.alice.proxy = stage.alice.proxy
    again.bob.received.append(stage.bob.requests("INVITE")[0])
    again.send(again.alice, again.bob, "INFO")
    again.send(again.bob, again.alice, "INFO")


# --- when the NAT gives a phone another place -------------------------------------------------------------------------

ELSEWHERE = ("203.0.113.11", 51111)


def moved(stage: Stage, name: str, place: tuple[str, int], *contacts: str, call_id: str = "") -> Peer:
    """`name` registers from this place; what it says of itself stays as it was."""
    old = getattr(stage, name)
    new = stage.world.peer(f"{name}{place[1]}", *place)
    new.here, new.contact = old.here, old.contact
    new.received += old.requests("INVITE")  # it keeps its dialogs
    registers(stage, new, name, call_id or f"register-{name}", 10 + place[1], *contacts)
    setattr(stage, name, new)
    return new


def registers(stage: Stage, peer: Peer, name: str, call_id: str, cseq: int, *contacts: str) -> None:
    headers = contacts or (f"Contact: {peer.contact}",)
    ask = peer.ask("REGISTER", "sip:example.com", *headers, to=f"<sip:{name}@example.com>", call_id=call_id, cseq=cseq)
    stage.world.run()
    assert ask.final.status == 200


def in_a_call(*natted: str, world: World | None = None) -> Stage:
    stage = Stage(*natted, world=world)
    for name in natted:
        registers(stage, getattr(stage, name), name, f"register-{name}", 1)
    call = stage.alice.ask("INVITE", BOB, call_id="call")
    stage.world.run()
    stage.bob.answer(stage.bob.requests("INVITE")[0], 200)
    stage.world.run()
    assert call.statuses == [100, 200]
    return stage


@pytest.mark.parametrize("method", METHODS)
def test_a_phone_that_registers_from_its_new_place_goes_on_with_its_call(method: str) -> None:
    stage = in_a_call("alice", "bob")
    moved(stage, "bob", ("203.0.113.11", 51111))
    moved(stage, "bob", ("203.0.113.77", 52222))  # twice, and the router has got another address
    stage.send(stage.alice, stage.bob, method)
    moved(stage, "alice", ("203.0.113.2", 53333))
    stage.send(stage.bob, stage.alice, method)


def test_a_phone_that_comes_back_is_where_it_was() -> None:
    stage = in_a_call("bob")
    bob = stage.bob
    moved(stage, "bob", ELSEWHERE)
    registers(stage, bob, "bob", "register-bob", 60_000)
    stage.bob = bob
    stage.send(stage.alice, bob, "INFO")


def test_another_phone_with_the_same_contact_gets_nothing_of_the_call() -> None:
    """The same private address behind another router, and the same account: its REGISTERs have another Call-ID."""
    stage = in_a_call("bob")
    bob = stage.bob
    other = moved(stage, "bob", ("203.0.113.99", 5060), call_id="register-the-other-phone")
    stage.bob = bob
    stage.send(stage.alice, bob, "INFO")
    assert other.requests("INFO") == []


def test_an_instance_is_one_phone_whatever_its_call_id() -> None:
    """RFC 5626: a phone that has started again keeps its instance, not its Call-ID."""
    stage = Stage("bob")
    contact = f'Contact: {stage.bob.contact};+sip.instance="<urn:uuid:0f0a-1>"'
    registers(stage, stage.bob, "bob", "first", 1, contact)
    stage.alice.ask("INVITE", BOB, call_id="call")
    stage.world.run()
    bob = stage.bob
    bob.answer(bob.requests("INVITE")[0], 200)
    stage.world.run()
    moved(stage, "bob", ELSEWHERE, contact, call_id="second")
    stage.send(stage.alice, stage.bob, "BYE")


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_flow_hangs_up_where_a_phone_has_moved_to(name: str, tmp_path: Path) -> None:
    flow = "      - relay: {to: registered}\n      - sleep: 5s\n      - hangup: enough\n"
    stage = in_a_call("alice", "bob", world=World(program(tmp_path, flow)))
    stage.send(stage.alice, stage.bob, "ACK", cseq=1)
    phone = moved(stage, name, ELSEWHERE)
    stage.world.run(5.0)
    assert [bye.uri for bye in phone.requests("BYE")] == [phone.contact.strip("<>").encode()]


def test_old_places_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOST", 3)
    stage = in_a_call("bob")
    for port in range(51_000, 51_003):
        moved(stage, "bob", ("203.0.113.11", port))
    stage.send(stage.alice, stage.bob, "INFO")
    for port in range(51_003, 51_006):
        moved(stage, "bob", ("203.0.113.11", port))
    assert len(stage.world.engine.registrations.moves) == 3
