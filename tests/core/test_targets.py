"""Whose a contact is: a binding belongs to one address of record, whoever else registers the same URI.

bob is behind NAT. mallory registers his very Contact under an address of her own, before or after him; nothing she
does makes her ring for him, and two phones with one private Contact are still two phones.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from test_call_races import program

from orchestrator.sip.location import Binding
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.target import Target
from orchestrator.testing.peer import Peer
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
PRIVATE = "192.168.1.5:5060"
INSTANCE = ';+sip.instance="<urn:uuid:1>"'

LATE = """
      - subscribe: registered
        where: {{aor: '${{call.target.aor}}'}}
        for: 20s
        unique_by: {unique}
        do: [{steps}]
      - relay: {{to: registered, ring: 40s, keep_open: 20s}}
        on: {{else: [reply: 480]}}
"""


class Stage:
    """alice calls; bob and mallory sit behind one kind of router, at addresses of their own."""

    def __init__(self, tmp_path: Path, steps: str) -> None:
        self.world = World(program(tmp_path, steps))
        self.alice = self.world.peer("alice", "203.0.113.2")
        self.bob, self.mallory = self.natted("bob", "203.0.113.11"), self.natted("mallory", "203.0.113.66")

    def natted(self, name: str, host: str, port: int = 40011) -> Peer:
        peer = self.world.peer(name, host, port)
        peer.here = PRIVATE + ";rport"
        peer.contact = f"<{BOB.partition('@')[0]}@{PRIVATE}>"
        return peer

    def register(self, peer: Peer, aor: str, contact: str = "", seconds: float = 0.0, cseq: int = 1) -> None:
        asked = peer.register(aor, cseq=cseq, **({"contact": contact} if contact else {}))
        self.world.run(seconds)
        assert asked.statuses == [200]

    def call(self, seconds: float = 0.0) -> None:
        self.alice.ask("INVITE", BOB)
        self.world.run(seconds)

    def rung(self, peer: Peer) -> int:
        """How many different INVITEs came; none is answered, so each comes more than once."""
        return len({request.via.branch for request in peer.requests("INVITE")})


STEPS = {
    "lookup": "      - lookup: '${call.target.aor}'\n        as: phones\n      - relay: {to: '${phones}', ring: 3s}\n",
    "uri of lookup": (
        "      - lookup: '${call.target.aor}'\n        as: phones\n      - foreach: phones\n        item: phone\n"
        "        do: [{relay: {to: '${phone.uri}', ring: 3s}}]\n"
    ),
    "registered": "      - relay: {to: registered, ring: 3s}\n",
    "aor": "      - relay: {aor: '${call.target.aor}', ring: 3s}\n",
}


@pytest.mark.parametrize("mallory_first", [False, True])
@pytest.mark.parametrize("steps", STEPS.values(), ids=list(STEPS))
def test_the_same_contact_under_another_address_rings_nobody_else(
    tmp_path: Path, steps: str, mallory_first: bool
) -> None:
    stage = Stage(tmp_path, steps)
    both = [(stage.bob, "bob@example.com"), (stage.mallory, "mallory@example.com")]
    for peer, aor in reversed(both) if mallory_first else both:
        stage.register(peer, aor)
    stage.call()
    assert (stage.rung(stage.bob), stage.rung(stage.mallory)) == (1, 0)


@pytest.mark.parametrize("step", ["{inject: '${event.uri}'}", "{inject: '${event.contact}'}"])
def test_what_an_event_names_is_injected_whoever_registers_it_meanwhile(tmp_path: Path, step: str) -> None:
    stage = Stage(tmp_path, LATE.format(unique="event.contact", steps="{sleep: 500ms}, " + step))
    stage.call()
    stage.register(stage.bob, "bob@example.com")
    stage.register(stage.mallory, "mallory@example.com", seconds=1.0)
    assert (stage.rung(stage.bob), stage.rung(stage.mallory)) == (1, 0)


def test_a_uri_that_a_flow_writes_is_a_uri_and_no_binding(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "      - relay: {to: 'sip:bob@" + PRIVATE + "', ring: 3s}\n")
    stage.register(stage.mallory, "mallory@example.com")
    at_home = stage.world.peer("home", "192.168.1.5")
    stage.call()
    assert (stage.rung(at_home), stage.rung(stage.mallory)) == (1, 0)


def test_a_contact_in_the_result_of_a_relay_leads_to_its_phone_again(tmp_path: Path) -> None:
    steps = (
        "      - relay: {to: registered, ring: 3s}\n        as: first\n"
        "      - relay: {to: '${first.contact ?? \"sip:x@example.net\"}', ring: 3s}\n"
    )
    stage = Stage(tmp_path, steps)
    stage.register(stage.bob, "bob@example.com")
    stage.register(stage.mallory, "mallory@example.com")
    stage.call()
    stage.bob.answer(stage.bob.requests("INVITE")[0], 486)
    stage.world.run()
    assert (stage.rung(stage.bob), stage.rung(stage.mallory)) == (2, 0)


@pytest.mark.parametrize("instance", ["", INSTANCE])
def test_a_phone_that_comes_back_by_a_new_mapping_is_rung_there(tmp_path: Path, instance: str) -> None:
    stage = Stage(tmp_path, LATE.format(unique="event.contact", steps="{inject: '${event.uri}'}"))
    stage.register(stage.bob, "bob@example.com", stage.bob.contact + instance)
    stage.call()
    again = stage.natted("again", "203.0.113.11", 40012)
    stage.register(again, "bob@example.com", again.contact + instance, cseq=2)
    assert (stage.rung(stage.bob), stage.rung(again)) == (1, 1)
    for cseq in (3, 4):
        stage.register(again, "bob@example.com", again.contact + instance, cseq=cseq)
    assert stage.rung(again) == 1, "three REGISTERs of one contact at one place are one branch"


def test_two_phones_with_one_private_contact_in_two_houses_both_ring(tmp_path: Path) -> None:
    stage = Stage(tmp_path, LATE.format(unique="event.contact", steps="{inject: '${event.uri}'}"))
    other = stage.natted("other", "203.0.113.12")
    stage.call()
    stage.register(stage.bob, "bob@example.com", stage.bob.contact + INSTANCE)
    stage.register(other, "bob@example.com", other.contact + ';+sip.instance="<urn:uuid:2>"')
    assert (stage.rung(stage.bob), stage.rung(other)) == (1, 1)


# --- one phone, one place ---------------------------------------------------------------------------------------------

SEEN = Hop(Point(0, "udp", "10.0.0.1", 5060), "203.0.113.11", 40011)
INSIDE = Hop(SEEN.point, "10.0.0.5", 5060)
OTHER = Point(1, "udp", "10.1.0.1", 5060)


def target(
    contact: str = "sip:bob@" + PRIVATE,
    hop: Hop | None = SEEN,
    aor: str = "bob@example.com",
    instance: str | None = None,
    path: tuple[bytes, ...] = (),
) -> Target:
    binding = Binding(aor, contact.encode(), 9.0, instance=instance, reg_id=1 if instance else None, path=path)
    return Target(binding.contact, path, hop, binding=binding)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (target(), target(), True),
        (target(), target(hop=SEEN._replace(port=40012)), False),
        (target(), target(hop=SEEN._replace(point=OTHER)), True),  # the socket is ours, the place is the phone's
        (target(hop=INSIDE), target(hop=INSIDE._replace(point=OTHER)), False),  # one private address in two networks
        (target(), target(hop=None), False),
        (target("sip:b@198.51.100.1", None), Target(b"sip:b@198.51.100.1"), True),
        (
            target("sip:b@198.51.100.1:5060", Hop(SEEN.point, "198.51.100.1", 5060)),
            Target(b"sip:b@198.51.100.1:5060"),
            True,
        ),
        (target("sip:x1@" + PRIVATE, instance="i"), target("sip:x2@" + PRIVATE, instance="i"), True),
        (target("sip:x1@" + PRIVATE, instance="i"), target("sip:x2@" + PRIVATE, instance="j"), False),
        (target("sip:x1@" + PRIVATE, instance="i"), target("sip:x2@" + PRIVATE, instance="i", aor="eve@x"), False),
        (target("sip:x1@198.51.100.1", None, instance="i"), target("sip:x2@198.51.100.2", None, instance="i"), False),
        (target(hop=None, path=(b"<sip:edge1;lr>",)), target(hop=None, path=(b"<sip:edge2;lr>",)), False),
        (target(hop=None, path=(b"<sip:t1@edge;lr>",)), target(hop=None, path=(b"<sip:t2@edge;lr>",)), False),
        (target("sip:x1@" + PRIVATE), target("sip:x2@" + PRIVATE), False),  # two lines of one phone
    ],
)
def test_a_phone_is_told_by_its_place_and_then_by_uri_or_instance(one: Target, other: Target, same: bool) -> None:
    assert one.same_as(other) is same
    assert other.same_as(one) is same


# --- where a call is addressed to -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        "      - relay: {to: 'sip:x@${call.target.host}'}\n",
        "      - relay: 'x@${call.domain}'\n",
        "      - if: call.target.host == '198.51.100.7'\n"
        "        then: [relay: {to: 'sip:x@${call.target.host}'}]\n"
        "      - relay: {to: 'sip:x@${call.target.host}'}\n",
    ],
)
@pytest.mark.parametrize("port", [5070, None])
def test_a_foreign_host_keeps_its_port(tmp_path: Path, steps: str, port: int | None) -> None:
    """Without it a call to 198.51.100.7:5070 would go to port 5060 (RFC 3261 §19.1.2), which is another server."""
    world = World(program(tmp_path, steps), trust=(ip_network("10.0.0.0/8"),))
    far = {at: world.peer("far", "198.51.100.7", at) for at in (5060, 5070)}
    world.peer("alice", "10.0.0.2").ask("INVITE", "sip:bob@198.51.100.7" + (f":{port}" if port else ""))
    world.run(0.1)
    rung = {at: [bytes(request.uri) for request in peer.requests("INVITE")] for at, peer in far.items()}
    assert rung[port or 5060] == [b"sip:x@198.51.100.7" + (b":5070" if port else b"")]
    assert rung[5060 if port else 5070] == []
