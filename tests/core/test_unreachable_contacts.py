"""Contacts nothing can ever be sent to, and answers to phones behind NAT that do not ask for rport."""

from __future__ import annotations

import pytest

from orchestrator.testing.peer import Ask
from orchestrator.testing.world import World


def register(world: World, contact: str, expires: int = 3600) -> Ask:
    peer = world.peer("alice", "203.0.113.9")
    ask = peer.ask("REGISTER", "sip:example.com", f"Contact: {contact};expires={expires}", to="<sip:alice@example.com>")
    world.run()
    return ask


@pytest.mark.parametrize(
    "contact", ["<http://a.example/>", "<mailto:a@b.example>", "<sip:alice@203.0.113.9;transport=foo>"]
)
def test_a_contact_that_can_never_be_reached_is_400(contact: str) -> None:
    world = World()
    asked = register(world, contact)
    assert (asked.statuses, asked.final.reason) == ([400], b"Contact Cannot Be Reached")
    assert len(world.location) == 0


@pytest.mark.parametrize("contact", ["<sip:alice@203.0.113.9>", "<sip:alice@203.0.113.9;transport=UDP>"])
def test_others_are_saved(contact: str) -> None:
    assert register(World(), contact).statuses == [200]


@pytest.mark.parametrize(
    ("source", "via", "port"),
    [
        ("203.0.113.9", "192.168.1.2:5060", 40000),
        ("203.0.113.9", "203.0.113.9:5060", 5060),
        ("10.0.0.9", "192.168.1.2", 5060),
    ],
)
def test_without_rport_a_private_via_behind_a_public_source_is_answered_there(source: str, via: str, port: int) -> None:
    world = World()
    peer = world.peer("alice", source, 40000)
    ask = peer.ask("OPTIONS", "sip:example.com", send=False)
    ask.octets = ask.octets.replace(f"Via: SIP/2.0/UDP {source}:40000".encode(), f"Via: SIP/2.0/UDP {via}".encode())
    ask.octets = ask.octets.replace(b";rport", b"")
    ask.again()
    world.run()
    assert [to for _, frm, to, _ in world.sent if frm == ("10.0.0.1", 5060)] == [(source, port)]
