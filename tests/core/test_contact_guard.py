"""The border: where the contact of an untrusted phone may lead, and what strangers may say about who they are."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from test_call_races import program

from orchestrator.esl.codec import EslEvent
from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.uri import parse_uri
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Peer
from orchestrator.testing.recordings import rewrite
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
TOP = "gateways:\n  a: {uri: 'sip:198.51.100.9:5080'}\n  b: {uri: 'sip:gw.example.net'}\n"
HEARD = """gateways: {a: {uri: 'sip:198.51.100.9:5080'}}
flows:
  main:
    on: invite
    do:
      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        do: [log: '${event.contact}', inject: '${event.%s}']
      - relay: {to: registered, ring: 20s, keep_open: 20s}
"""
RING = "      - relay: {to: registered, ring: 3s}\n        on: {else: [reply: 480]}\n"


class Stage:
    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        settings.setdefault("contacts", "source")
        flows = program(tmp_path, RING, TOP)
        self.world = World(
            flows, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=(ip_network("10.9.0.0/16"),), **settings
        )
        self.alice = self.world.peer("alice", "203.0.113.2")

    def register(self, source: str, contact: str, *headers: str, port: int = 40011, expires: int = 3600) -> Any:
        peer = self.world.peers.get((source, port)) or self.world.peer("bob", source, port)
        ask = peer.register("bob@example.com", f"<{contact}>", expires, *headers, cseq=1 if expires else 2)
        self.world.run()
        return ask.final

    def rung(self, peer: Peer) -> bool:
        self.alice.ask("INVITE", BOB)
        self.world.run()
        return bool(peer.requests("INVITE"))


@pytest.mark.parametrize("allow", ["source", "private", "any"])
@pytest.mark.parametrize(
    ("contact", "status"),
    [
        ("sip:bob@10.0.0.1", 403),  # us
        ("sip:bob@10.0.0.1:7000", 403),  # another port of this machine
        ("sip:bob@10.0.0.9:5080", 403),  # FreeSWITCH
        ("sip:bob@10.0.0.9:8021", 403),
        ("sip:0049301234567@198.51.100.9:5080", 403),  # a gateway
        ("sip:0049301234567@198.51.100.9", 403),
        ("sip:0049301234567@gw.example.net", 403),
        ("sip:0049301234567@GW.example.net.:5070", 403),
        ("sip:bob@[::ffff:198.51.100.9]", 403),
        ("sip:bob@example.com", 403),
        ("sip:bob@127.0.0.1:22", 403),
        ("sip:bob@[::1]", 403),
        ("sip:bob@[::ffff:127.0.0.1]", 403),
        ("sip:bob@192.168.1.5;maddr=127.0.0.1", 403),
        ("sip:bob@192.168.1.5;maddr=198.51.100.9", 403),
        ("sip:bob@0.0.0.0", 400),
        ("sip:bob@255.255.255.255", 400),
        ("sip:bob@224.0.1.75", 400),
        ("sip:bob@[ff02::1]", 400),
        ("sip:bob@203.0.113.11:40011;method=BYE", 400),
        ("sip:bob@203.0.113.11:40011", 200),
        ("sip:bob@192.168.1.5:5060", 200),
    ],
)
def test_where_a_contact_never_leads(tmp_path: Path, contact: str, status: int, allow: str) -> None:
    stage = Stage(tmp_path, contacts=allow)
    answer = stage.register("203.0.113.11", contact)
    assert answer.status == status
    assert len(stage.world.location) == (status == 200)
    if status != 200:
        assert stage.register("203.0.113.11", contact, expires=0).status == 200, "who removes one calls nobody there"


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."])
def test_odd_spellings_of_an_address_are_no_names(tmp_path: Path, host: str) -> None:
    assert Stage(tmp_path).register("203.0.113.11", f"sip:bob@{host}").status in (400, 403)


@pytest.mark.parametrize(
    ("allow", "source", "contact", "at_source"),
    [
        ("source", "203.0.113.11", "sip:bob@192.168.1.5:5060", True),
        ("private", "203.0.113.11", "sip:bob@192.168.1.5:5060", True),
        ("any", "203.0.113.11", "sip:bob@192.168.1.5:5060", True),
        ("source", "203.0.113.11", "sip:bob@203.0.113.77:5060", True),
        ("private", "203.0.113.11", "sip:bob@203.0.113.77:5060", True),
        ("any", "203.0.113.11", "sip:bob@203.0.113.77:5060", False),
        ("source", "192.168.1.9", "sip:bob@192.168.1.5:5060", True),
        ("private", "192.168.1.9", "sip:bob@192.168.1.5:5060", False),
        ("any", "192.168.1.9", "sip:bob@192.168.1.5:5060", False),
        ("source", "203.0.113.11", "sip:bob@x7f3.invalid", True),
        ("source", "203.0.113.11", "sip:bob@203.0.113.11:7000", False),  # its own other port: STUN knows
        ("source", "10.9.0.4", "sip:bob@203.0.113.77:5060", False),  # trusted
    ],
)
def test_a_contact_is_reached_where_it_may_be(
    tmp_path: Path, allow: str, source: str, contact: str, at_source: bool
) -> None:
    stage = Stage(tmp_path, contacts=allow)
    assert stage.register(source, contact).status == 200
    host, _, port = contact.partition("@")[2].partition(":")
    named = stage.world.peer("named", host, int(port or 5060))
    here = stage.world.peers[(source, 40011)]
    assert (stage.rung(here), stage.rung(named)) == (at_source, not at_source)


def test_a_path_begins_where_the_register_came_from(tmp_path: Path) -> None:
    for path, status in (
        ("203.0.113.11:40011", 200),
        ("203.0.113.77", 403),
        ("10.0.0.9:5080", 403),
        ("127.0.0.1", 403),
    ):
        answer = Stage(tmp_path).register("203.0.113.11", "sip:bob@192.168.7.7", f"Path: <sip:t@{path};lr>")
        assert answer.status == status, path


def test_headers_of_a_contact_become_no_route(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.register("203.0.113.11", "sip:bob@203.0.113.11:40011?Route=%3Csip:198.51.100.9%3E").status == 200
    here = stage.world.peers[("203.0.113.11", 40011)]
    assert stage.rung(here)
    [invite] = here.requests("INVITE")
    assert (invite.uri, invite.routes()) == (b"sip:bob@203.0.113.11:40011", [])


# --- who somebody is --------------------------------------------------------------------------------------------------

CLAIMS = [
    "P-Asserted-Identity: <sip:boss@example.com>",
    "P-Preferred-Identity: <sip:boss@example.com>",
    "Remote-Party-ID: <sip:boss@example.com>;party=calling",
    "Diversion: <sip:boss@example.com>;reason=unconditional",
    "X-Orchestrator-Call: 1",
    "x-orchestrator-MEDIA : answer",
]


@pytest.mark.parametrize("source", ["203.0.113.2", "10.9.0.2"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_only_those_we_trust_say_who_is_calling(tmp_path: Path, claim: str, source: str) -> None:
    stage = Stage(tmp_path)
    stage.register("203.0.113.11", "sip:bob@203.0.113.11:40011")
    caller = stage.world.peer("caller", source)
    if source == "10.9.0.2" and claim.lower().startswith("x-"):
        return  # of a call of ours that FreeSWITCH sends back, which there is not
    caller.ask("INVITE", BOB, claim)
    stage.world.run()
    [invite] = stage.world.peers[("203.0.113.11", 40011)].requests("INVITE")
    name = claim.partition(":")[0].strip().lower().encode()
    assert (name in invite.names) is (source == "10.9.0.2" and not name.startswith(b"x-"))


@pytest.mark.parametrize(
    ("privacy", "phone", "told"),
    [
        ("id", "203.0.113.11", False),
        ("header;id", "203.0.113.11", False),
        ("none", "203.0.113.11", True),
        ("", "203.0.113.11", True),
        ("id", "10.9.0.3", True),
    ],
)
def test_an_identity_that_is_private_is_told_to_those_we_trust_only(
    tmp_path: Path, privacy: str, phone: str, told: bool
) -> None:
    stage = Stage(tmp_path)
    stage.register(phone, f"sip:bob@{phone}:40011")
    caller = stage.world.peer("caller", "10.9.0.2")
    caller.ask("INVITE", BOB, CLAIMS[0], *([f"Privacy: {privacy}"] if privacy else []))
    stage.world.run()
    [invite] = stage.world.peers[(phone, 40011)].requests("INVITE")
    assert (b"p-asserted-identity" in invite.names) is told


def test_an_answer_tells_no_private_identity_either(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.register("10.9.0.3", "sip:bob@10.9.0.3:40011")
    bob = stage.world.peers[("10.9.0.3", 40011)]
    ask = stage.alice.ask("INVITE", BOB)
    stage.world.run()
    bob.answer(bob.requests("INVITE")[0], 200, CLAIMS[0], "Privacy: id")
    stage.world.run()
    assert b"p-asserted-identity" not in ask.final.names


# --- what has changed since the REGISTER ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "rung"),
    [
        ("203.0.113.77", True),
        ("203.0.113.11", True),
        ("198.51.100.9", False),  # a gateway
        ("198.51.100.20", False),  # a gateway by its name
        ("10.0.0.9", False),  # FreeSWITCH
        ("10.0.0.1", False),  # us
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:198.51.100.9", False),
        ("192.168.1.5", False),  # of a network inside
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.1.75", False),
    ],
)
def test_a_host_name_is_guarded_by_the_address_it_leads_to(tmp_path: Path, address: str, rung: bool) -> None:
    """Looked up again for each call: what it led to when it was registered says nothing."""
    stage = Stage(tmp_path, contacts="any")
    world = stage.world
    news: list[tuple[str, Any]] = []
    world.engine.on_news = lambda event, facts: news.append((event, facts))
    leads = {"gw.example.net": "198.51.100.20", "x7f3.example.org": "203.0.113.77"}
    world.on_job = lambda job: leads.get(getattr(job.effect, "host", ""))
    assert stage.register("203.0.113.11", "sip:bob@x7f3.example.org").status == 200
    first = world.peer("first", "203.0.113.77")
    assert stage.rung(first)
    first.answer(first.requests("INVITE")[-1], 486)
    world.run(100.0)
    world.engine.network.resolve(parse_uri(b"sip:gw.example.net"), world.engine.network.points[0], print)
    world.run()
    leads["x7f3.example.org"] = address
    heard = len(first.requests("INVITE"))
    sent = len(world.sent)
    ask = stage.alice.ask("INVITE", BOB, call_id="second")
    world.run(5.0)
    named = [
        to
        for _, _, to, data in world.sent[sent:]
        if data.startswith(b"INVITE sip:bob@x7f3") and to != ("10.0.0.1", 5060)
    ]
    assert bool(named) is rung
    assert len(first.requests("INVITE")) == heard or address == "203.0.113.77"
    if not rung:
        assert ask.statuses[-1] == 480
    numeric = address not in ("0.0.0.0", "224.0.1.75", "::1")  # no datagram goes there at all
    assert world.engine.counters["contact.refused"] == (not rung and numeric)
    assert ("contact_refused" in [event for event, _ in news]) is (not rung and numeric)


@pytest.mark.parametrize(("uri", "rung"), [("sip:203.0.113.11:5080", False), ("sip:198.51.100.9", True)])
def test_a_contact_that_stands_is_not_rung_where_a_gateway_is_now(tmp_path: Path, uri: str, rung: bool) -> None:
    stage = Stage(tmp_path)
    assert stage.register("203.0.113.11", "sip:bob@203.0.113.11:40011").status == 200
    (tmp_path / "later").mkdir()
    stage.world.engine.load(program(tmp_path / "later", RING, f"gateways:\n  a: {{uri: '{uri}'}}\n"), stage.world.site)
    here = stage.world.peers[("203.0.113.11", 40011)]
    assert stage.rung(here) is rung


def test_a_contact_of_the_store_is_guarded_after_a_restart(tmp_path: Path) -> None:
    """Its address is FreeSWITCH's by then."""
    store = MemoryStore()
    before = Stage(tmp_path, store=store)
    wall = before.world.engine.wall
    for source in ("203.0.113.11", ""):
        gone = Binding("bob@example.com", b"sip:bob@10.0.0.9:5080", wall + 3600, call_id=b"1", cseq=1, source=source)
        store.write([Change("added", gone)])
        after = Stage(tmp_path, store=store)
        after.world.location.load(wall)
        assert len(after.world.location) == 1
        assert not after.rung(after.world.peer("freeswitch", "10.0.0.9", 5080))
        assert after.world.engine.counters["contact.refused"] == 1


# --- registered at FreeSWITCH -----------------------------------------------------------------------------------------


def at_freeswitch(contact: str, ip: str, port: int = 40011) -> EslEvent:
    """What mod_sofia tells of a REGISTER (sofia_reg.c, sofia::register)."""
    headers = {
        "Event-Name": "CUSTOM",
        "Event-Subclass": "sofia::register",
        "from-user": "bob",
        "from-host": "example.com",
        "contact": f'"B" <{contact};fs_nat=yes;fs_path=sip%3Abob%40{ip}%3A{port}>',
        "expires": "3600",
        "network-ip": ip,
        "network-port": str(port),
        "user-agent": "phone/1",
    }
    return EslEvent.plain(rewrite(b"Core-UUID: c\n\n", headers))


@pytest.mark.parametrize("key", ["uri", "contact"])
@pytest.mark.parametrize(
    ("contact", "rung"),
    [
        ("sip:bob@203.0.113.11:40011", ("203.0.113.11", 40011)),
        ("sip:bob@192.168.1.5:5060", ("203.0.113.11", 40011)),  # behind NAT
        ("sip:bob@203.0.113.77:5060", ("203.0.113.11", 40011)),  # somebody else's
        ("sip:bob;x=1@203.0.113.11:40011;transport=udp", ("203.0.113.11", 40011)),
        ("sip:0049301234567@198.51.100.9:5080", None),
        ("sip:bob@10.0.0.9:5080", None),
        ("sip:bob@10.0.0.1", None),
        ("sip:bob@127.0.0.1:22", None),
        ("sip:bob@224.0.1.75", None),
        ("sip:bob@203.0.113.11;maddr=198.51.100.9", None),
        ("nonsense", None),
    ],
)
def test_a_contact_that_freeswitch_tells_of_passes_the_same_guard(
    tmp_path: Path, contact: str, rung: tuple[str, int] | None, key: str
) -> None:
    flow = tmp_path / "a.flow.yaml"
    flow.write_text("flowlang: 1\n" + HEARD % key)
    flows, _ = load_program([flow])
    world = World(flows, freeswitch={"fs1": "sip:10.0.0.9:5080"}, contacts="source")
    said: list[str] = []
    world.engine.host.on_log = lambda run, effect: said.append(effect.text)
    world.peer("alice", "203.0.113.2").ask("INVITE", BOB)
    world.run(1)
    world.engine.receive_esl("fs1", at_freeswitch(contact, "203.0.113.11"), world.now)
    world.run(1)
    sent = {to for _, source, to, data in world.sent if source == ("10.0.0.1", 5060) and data.startswith(b"INVITE")}
    assert sent == ({rung} if rung else set())
    assert world.engine.counters["contact.refused"] == (rung is None)
    assert said == ([contact.partition(";transport")[0]] if rung else [])
