"""What Homer is told of calls, on virtual wires: each message once, with its addresses, under one correlation id."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import pytest
from hepkit import Seen, seen
from pydantic import ValidationError

from orchestrator.fact_kinds import CallLeg, CallRecord, MessageIn, MessageOut, TraceWritten
from orchestrator.flow.loader import Source, load_sources
from orchestrator.integrations.hep.homer import Hep, HepSettings
from orchestrator.integrations.hep.packet import LOG, SIP
from orchestrator.testing.services import FakeServer
from orchestrator.testing.switch.server import VirtualFreeSwitch
from orchestrator.testing.world import World

FLOW = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}
flows:
  main:
    on: invite
    do:
      - subscribe: ringing
        limit: 1
        do: [log: 'rings, pn-prid=geheim']
      - relay: {to: registered, via: fs1, ring: 30s}
"""
PROXY, ALICE, BOB, SWITCH = ("10.0.0.1", 5060), ("10.0.0.2", 5060), ("10.0.0.3", 5060), ("10.0.0.9", 5080)


class Stage:
    """A site with one FreeSWITCH, and the service beside it; its facts are handed over turn by turn."""

    def __init__(self, **settings: Any) -> None:
        program, _ = load_sources([Source("f.flow.yaml", FLOW)])
        trust = (ip_network("10.0.0.9/32"),)
        self.world = World(program, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=trust, wall=1_700_000_000.0)
        switch = VirtualFreeSwitch.in_world(self.world, "fs1", SWITCH)
        self.world.on_job = switch.perform
        self.alice, self.bob = self.world.phone("alice@example.com", *ALICE), self.world.phone("bob@example.com", *BOB)
        self.server = FakeServer("hep")
        self.server.wall_offset = self.world.settings.wall_offset
        self.hep = Hep(self.server, HepSettings.model_validate({"address": "udp:127.0.0.1:9060", **settings}))
        self.hep.start()
        for header in self.server.marks:
            self.world.engine.network.mark_calls(header.encode())
        self.facts: list[Any] = []
        for kind in (MessageIn, MessageOut, CallLeg, CallRecord, TraceWritten):
            if kind is not TraceWritten or settings.get("steps") != "off":
                self.world.engine.history.listen(kind, self.facts.append)

    def call(self, *headers: bytes) -> str:
        """A call from alice to bob that is answered and hung up; its first Call-ID."""
        self.bob.register()
        self.world.run()
        call = self.alice.invite("bob@example.com", list(headers))
        self.world.run(1)
        self.bob.calls[-1].answer()
        self.world.run(1)
        call.hangup()
        self.world.run(40)
        return call.call_id.decode()

    def seen(self) -> list[Seen]:
        self.hep.take(self.facts)
        return [seen(packet) for packet in self.hep.sender._packets]

    def sent(self, source: tuple[str, int], destination: tuple[str, int], line: str) -> list[str]:
        """Messages on the wires that begin with this line."""
        return [
            octets.decode()
            for _, *ends, octets in self.world.sent
            if ends == [source, destination] and octets.startswith(line.encode())
        ]


def call_id_of(told: Seen) -> str:
    found = re.search("Call-ID: (.*)\r", told.text)
    assert found is not None
    return found[1]


def test_each_message_once_with_its_addresses_and_all_legs_under_one_id() -> None:
    stage = Stage(mask="off")
    first = stage.call()
    told = [each for each in stage.seen() if each.kind == SIP]
    assert sorted((each.source, each.destination, each.text) for each in told) == sorted(
        (source, destination, octets.decode()) for _, source, destination, octets in stage.world.sent
    )
    calls = {call_id_of(each): each.correlation for each in told if "REGISTER" not in each.text}
    assert len(calls) == 2 and set(calls.values()) == {first}
    assert all(1_700_000_000 <= each.time < 1_700_000_100 and each.protocol == 17 for each in told)
    assert [each.time for each in told] == sorted(each.time for each in told)


def test_what_the_flow_does_is_told_as_text_of_the_call() -> None:
    stage = Stage()
    first = stage.call()
    lines = [each for each in stage.seen() if each.kind == LOG]
    assert {each.correlation for each in lines} == {first}
    said = "\n".join(each.text for each in lines)
    for part in (
        "flow main starts",
        "handler of ringing runs",
        "relay to",
        "log: rings, pn-prid=***",
        "ended by caller",
    ):
        assert part in said
    assert "geheim" not in said
    assert lines[0].source == PROXY


def test_freeswitch_is_told_whose_leg_it_has_and_nobody_else() -> None:
    stage = Stage()
    first = stage.call(b"X-CID: of-somebody-else")
    (into,) = stage.sent(PROXY, SWITCH, "INVITE")
    assert re.findall("X-CID: (.*)\r", into) == [first]
    (to_bob,) = stage.sent(PROXY, BOB, "INVITE")
    assert "X-CID" not in to_bob


def test_no_header_and_no_steps_where_none_are_wanted() -> None:
    stage = Stage(header=None, steps="off")
    stage.call()
    assert stage.server.marks == []
    assert "X-CID" not in stage.sent(PROXY, SWITCH, "INVITE")[0]
    assert {each.kind for each in stage.seen()} == {SIP}


def test_a_call_is_in_the_sample_as_a_whole_or_not_at_all() -> None:
    stage = Stage(sample="0.5", without=["REGISTER"])
    ids = {stage.call() for _ in range(12)}
    sip = [each for each in stage.seen() if each.kind == SIP]
    taken = {each.correlation for each in sip}
    assert 0 < len(taken) < len(ids) and taken < ids
    assert {each.correlation for each in stage.seen() if each.kind == LOG} == taken
    per_call = {id: sum(each.correlation == id for each in sip) for id in taken}
    assert len(set(per_call.values())) == 1, "each of them whole"


def test_secrets_are_masked_and_lengths_stay_true() -> None:
    message = (
        b'REGISTER sip:a SIP/2.0\r\nCall-ID: c\r\nAuthorization: Digest response="dead"\r\nCSeq: 1 REGISTER\r\n\r\n'
    )
    fact = MessageIn(message, "10.0.0.2", 5060, 0, "10.0.0.1", 5060, "tls", 7.0)
    for mask, secret in (("on", '"****"'), ("off", '"dead"')):
        hep = Hep(FakeServer("hep"), HepSettings.model_validate({"address": "udp:h", "mask": mask}))
        hep.take([fact])
        (packet,) = hep.sender._packets
        assert secret in seen(packet).text and len(seen(packet).text) == len(message)
        assert seen(packet).protocol == 6


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"address": "homer:9060"}, "not the address of a HEP receiver"),
        ({"address": "udp:homer:99999"}, "not the address of a HEP receiver"),
        ({"address": "udp:[::zz]:1"}, "not the address"),
        ({"address": "udp:h", "methods": ["IN VITE"]}, "not a SIP method"),
        ({"address": "udp:h", "header": "From"}, "not a header that can be added"),
        ({"address": "udp:h", "header": "X-Orchestrator-Call"}, "used by the server"),
        ({"address": "udp:h", "sample": "0"}, "greater than 0"),
        ({"address": "udp:h", "capture_id": "0"}, "greater than or equal to 1"),
        ({}, "address"),
    ],
)
def test_a_wrong_setting_is_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        HepSettings.model_validate(wrong)


def test_the_password_is_in_no_text_of_the_settings() -> None:
    settings = HepSettings.model_validate({"address": "tls:homer.example.com", "password": "geheim"})
    assert "geheim" not in repr(settings) + settings.model_dump_json()
    assert str(settings.address) == "tls:homer.example.com:9060"
