"""Contacts nothing can ever be sent to, and answers to phones behind NAT that do not ask for rport."""

from __future__ import annotations

import pytest

from orchestrator.sip.points import ListenPoint
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import PROXY, World


def register(world: World, contact: str, expires: int = 3600) -> Ask:
    peer = world.peer("alice", "203.0.113.9")
    ask = peer.ask("REGISTER", "sip:example.com", f"Contact: {contact};expires={expires}", to="<sip:alice@example.com>")
    world.run()
    return ask


@pytest.mark.parametrize(
    "contact",
    [
        "<http://a.example/>",
        "<mailto:a@b.example>",
        "<tel:+4930123>",
        "<sip:alice@203.0.113.9;transport=foo>",
        "<sip:alice@203.0.113.9;transport=tcp>",
        "<sip:alice@203.0.113.9;Transport=TLS>",
        "<sip:alice@203.0.113.9;transport=ws>",
        "<sips:alice@203.0.113.9>",
        "<sips:alice@203.0.113.9;transport=tcp>",
        "<sips:alice@192.168.1.2>",
    ],
)
def test_a_contact_that_can_never_be_reached_is_400(contact: str) -> None:
    world = World()
    asked = register(world, contact)
    assert (asked.statuses, asked.final.reason) == ([400], b"Contact Cannot Be Reached")
    assert len(world.location) == 0


@pytest.mark.parametrize(
    ("point", "contact", "status"),
    [
        ("TCP", "<sip:alice@203.0.113.9;transport=tcp>", 200),
        ("TCP", "<sip:alice@203.0.113.9;transport=tls>", 400),
        ("TCP", "<sips:alice@203.0.113.9>", 400),
        ("TLS", "<sips:alice@203.0.113.9>", 200),
        ("TLS", "<sips:alice@203.0.113.9;transport=tcp>", 200),
        ("TLS", "<sip:alice@203.0.113.9;transport=tls>", 200),
        ("WS", "<sip:alice@x7f3.invalid;transport=ws>", 200),
        ("WS", "<sips:alice@x7f3.invalid;transport=ws>", 400),
        ("WSS", "<sips:alice@x7f3.invalid;transport=ws>", 200),
    ],
)
def test_a_transport_counts_when_there_is_a_point_for_it(point: str, contact: str, status: int) -> None:
    world = World(points=(ListenPoint(*PROXY), ListenPoint("10.0.0.1", 5061, point)))
    assert register(world, contact).statuses == [status]


@pytest.mark.parametrize(
    ("contact", "status"), [("sips:alice@b.example", 200), ("sip:a@b.invalid;transport=ws", 200), ("http://b/", 400)]
)
def test_a_path_reaches_what_we_cannot(contact: str, status: int) -> None:
    """RFC 3327: the edge proxy of the Path has the connection."""
    world = World()
    ask = world.peer("edge", "203.0.113.9").ask(
        "REGISTER",
        "sip:example.com",
        f"Contact: <{contact}>",
        "Path: <sip:203.0.113.9;lr>",
        "Supported: path",
        to="<sip:alice@example.com>",
    )
    world.run()
    assert ask.statuses == [status]


def test_who_removes_such_a_contact_may() -> None:
    assert register(World(), "<sips:alice@203.0.113.9>", expires=0).statuses == [200]


def test_the_200_gives_the_parameters_of_each_contact_back() -> None:
    """RFC 3261 §10.3 step 8, RFC 5626 §6, RFC 3840: in another 200 too, after a restart too."""
    store = MemoryStore()
    world = World(store=store)
    first = "<sip:alice@203.0.113.9;pn-provider=apns;pn-prid=7>;q=0.7;reg-id=1"
    first += ';+sip.instance="<urn:uuid:0-1>";methods="INVITE";audio;+g.x="a \\"b\\"";n=w'
    shown = first.replace("<sip", "Contact: <sip") + ";expires=3600"
    peer = world.peer("alice", "203.0.113.9")
    for number, contact in enumerate((first, "<sip:alice@203.0.113.9:7000>;expires=60;q=0.2")):
        headers = (f"Contact: {contact}",)
        asked = peer.ask("REGISTER", "sip:example.com", *headers, to="<sip:alice@example.com>", call_id=f"call{number}")
        world.run()
    lines = [line.decode() for line in asked.final.lines if line.startswith(b"Contact")]
    assert sorted(lines) == sorted([shown, "Contact: <sip:alice@203.0.113.9:7000>;q=0.2;expires=60"])
    later = World(store=store)
    later.location.load(later.engine.wall)
    peer = later.peer("alice", "203.0.113.9")
    told = peer.ask("REGISTER", "sip:example.com", to="<sip:alice@example.com>")
    later.run()
    assert shown.encode() in told.final.lines


@pytest.mark.parametrize("contact", ["<sip:alice@203.0.113.9>", "<sip:alice@203.0.113.9;transport=UDP>"])
def test_others_are_saved(contact: str) -> None:
    assert register(World(), contact).statuses == [200]


@pytest.mark.parametrize(
    ("source", "via", "port", "nat"),
    [
        ("203.0.113.9", "192.168.1.2:5060", 40000, True),
        ("203.0.113.9", "203.0.113.9:5060", 5060, True),
        ("10.0.0.9", "192.168.1.2", 5060, True),
        ("203.0.113.9", "192.168.1.2:5060", 5060, False),
    ],
)
@pytest.mark.parametrize("malformed", [False, True])
def test_without_rport_a_private_via_behind_a_public_source_is_answered_there(
    source: str, via: str, port: int, nat: bool, malformed: bool
) -> None:
    world = World(nat=nat)
    peer = world.peer("alice", source, 40000)
    ask = peer.ask("OPTIONS", "sip:example.com", send=False)
    ask.octets = ask.octets.replace(f"Via: SIP/2.0/UDP {source}:40000".encode(), f"Via: SIP/2.0/UDP {via}".encode())
    ask.octets = ask.octets.replace(b";rport", b"")
    if malformed:
        ask.octets = ask.octets.replace(b"Call-ID:", b"Call-ID: a\r\nCall-ID:")
    ask.again()
    world.run()
    assert [to for _, frm, to, _ in world.sent if frm == ("10.0.0.1", 5060)] == [(source, port)]


@pytest.mark.parametrize("line", ["OPTIONS sip:10.0.0.1 SIP/2.0 ", "OPTIONS sip:10.0.0.1 SIP/2.0\t  "])
def test_a_trailing_blank_on_the_request_line_is_read(line: str) -> None:
    world = World()
    ask = world.peer("alice", "203.0.113.9").ask("OPTIONS", "sip:10.0.0.1", send=False)
    ask.octets = ask.octets.replace(b"OPTIONS sip:10.0.0.1 SIP/2.0", line.encode(), 1)
    ask.again()
    world.run()
    assert ask.statuses == [200]
