"""GRUUs (RFC 5627): given with the 200, and a request for one reaches that phone and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.flow.loader import load_program
from orchestrator.sip import gruu
from orchestrator.sip.binding import Binding
from orchestrator.sip.message import Response
from orchestrator.sip.topology import Veil
from orchestrator.sip.uri import parse_uri
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

DESK, MOBILE = "urn:uuid:00000000-0000-1000-8000-000a95a0e128", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
RELAY = "flowlang: 1\nflows: {r: {on: invite, do: [relay: registered]}}\n"


class Stage:
    """bob has a desk phone and a mobile; alice calls."""

    def __init__(self, tmp_path: Path | None = None, **settings: Any) -> None:
        program = None
        if tmp_path is not None:
            (tmp_path / "r.flow.yaml").write_text(RELAY)
            program, _ = load_program([tmp_path])
        self.world = World(program, **settings)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.desk, self.mobile = self.world.peer("desk", "10.0.0.3"), self.world.peer("mobile", "10.0.0.4")
        self.desk_gruus, self.mobile_gruus = self.register(self.desk, DESK), self.register(self.mobile, MOBILE)

    def register(self, peer: Peer, instance: str, supported: str = "gruu, path", cseq: int = 1) -> tuple[str, str]:
        """Its public and its temporary GRUU."""
        contact = f'{peer.contact};+sip.instance="<{instance}>"'
        ask = peer.register("bob@example.com", contact, 3600, f"Supported: {supported}", cseq=cseq)
        self.world.run()
        assert ask.statuses == [200]
        return gruus_of(ask.final, peer.here)

    def call(self, uri: str, method: str = "INVITE") -> Ask:
        ask = self.alice.ask(method, uri)
        self.world.run()
        return ask

    def rung(self, method: str = "INVITE") -> list[str]:
        return [peer.name for peer in (self.desk, self.mobile) if peer.requests(method)]


def gruus_of(response: Response, here: str) -> tuple[str, str]:
    (line,) = [line.decode() for line in response.get_all(b"contact") if here.encode() in line]
    found = [re.search(rf'{name}="([^"]+)"', line) for name in ("pub-gruu", "temp-gruu")]
    return found[0][1] if found[0] else "", found[1][1] if found[1] else ""


def test_a_phone_that_asks_is_given_two() -> None:
    stage = Stage()
    public, temporary = stage.desk_gruus
    assert public == f"sip:bob@example.com;gr={DESK}"
    assert re.fullmatch(r"sip:tgruu\.[A-Za-z0-9_-]+@example\.com;gr", temporary)
    assert "bob" not in temporary and stage.mobile_gruus[0].endswith(MOBILE)


def test_one_that_does_not_ask_or_has_no_instance_gets_none() -> None:
    stage = Stage()
    assert stage.register(stage.desk, DESK, "path", cseq=2) == ("", "")
    plain = stage.world.peer("plain", "10.0.0.5")
    ask = plain.register("carol@example.com", "", 3600, "Supported: gruu")
    stage.world.run()
    assert gruus_of(ask.final, plain.here) == ("", "")
    none = Stage(gruu=False)
    assert none.desk_gruus == ("", "")


def test_one_whose_instance_is_far_too_long_gets_none() -> None:
    stage = Stage()
    assert stage.register(stage.world.peer("odd", "10.0.0.5"), "urn:uuid:" + "%" * 3000) == ("", "")
    assert stage.register(stage.mobile, MOBILE, cseq=2)[0] == stage.mobile_gruus[0]


def test_a_phone_may_require_it() -> None:
    stage = Stage()
    ask = stage.desk.register("bob@example.com", "", 3600, "Require: gruu", "Supported: gruu", cseq=5)
    stage.world.run()
    assert ask.statuses == [200]


@pytest.mark.parametrize("flow", [False, True], ids=["default", "flow"])
@pytest.mark.parametrize("kind", [0, 1], ids=["public", "temporary"])
def test_a_call_rings_the_phone_that_is_meant(tmp_path: Path, flow: bool, kind: int) -> None:
    stage = Stage(tmp_path if flow else None)
    stage.call(stage.mobile_gruus[kind])
    assert stage.rung() == ["mobile"]
    (invite,) = stage.mobile.requests("INVITE")
    assert invite.uri == b"sip:mobile@10.0.0.4:5060"
    other = Stage(tmp_path if flow else None)
    other.call("sip:bob@example.com")
    assert other.rung() == ["desk", "mobile"]


def test_a_message_goes_to_it_too() -> None:
    stage = Stage()
    caller = stage.world.peer("carol", "10.0.0.9")
    caller.register("carol@example.com")
    stage.world.run()
    caller.ask("MESSAGE", stage.desk_gruus[1], sender="<sip:carol@example.com>;tag=1")
    stage.world.run()
    assert stage.rung("MESSAGE") == ["desk"]


def test_one_that_is_not_registered_any_more_is_not_found() -> None:
    stage = Stage()
    stage.desk.register("bob@example.com", f'{stage.desk.contact};+sip.instance="<{DESK}>"', 0, cseq=9)
    stage.world.run()
    assert stage.call(stage.desk_gruus[0]).statuses[-1] == 480
    assert stage.call(stage.desk_gruus[1]).statuses == [404]
    assert stage.rung() == []


def test_a_temporary_one_ends_with_its_registration() -> None:
    """§3.2: a REGISTER with another Call-ID makes those before it invalid; a refresh does not."""
    stage = Stage()
    again = stage.register(stage.desk, DESK, cseq=2)
    assert again[0] == stage.desk_gruus[0] and again[1] != stage.desk_gruus[1]
    for temporary in (again[1], stage.desk_gruus[1]):
        assert stage.call(temporary).statuses[0] == 100
    line = f'Contact: {stage.desk.contact};+sip.instance="<{DESK}>"'
    stage.desk.ask("REGISTER", "sip:example.com", line, to="<sip:bob@example.com>", call_id="rebooted")
    stage.world.run()
    assert stage.call(again[1]).statuses == [404]


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("sip:tgruu.AAAA@example.com;gr", 404),
        ("sip:bob@example.com;gr", 404),
        ("sip:bob@example.com;gr=urn:uuid:unknown", 480),
        ("sip:bob@example.com;group=1", 100),
        ("sip:bob@example.com;grid=x;gr1", 100),
    ],
)
def test_what_is_none_leads_nowhere_or_is_no_gruu(uri: str, status: int) -> None:
    assert Stage().call(uri).statuses[0] == status


def test_after_a_restart_they_lead_to_the_same_phone() -> None:
    store = MemoryStore()
    stage = Stage(store=store)
    later = World(store=store, seed=3)
    later.location.load(later.engine.wall)
    alice, mobile = later.peer("alice", "10.0.0.2"), later.peer("mobile", "10.0.0.4")
    for uri in stage.mobile_gruus:
        alice.ask("INVITE", uri)
    later.run()
    assert len(mobile.requests("INVITE")) == 2


# --- inside dialogs ---------------------------------------------------------------------------------------------------


def answered(stage: Stage) -> tuple[Ask, str]:
    """A call to the mobile, which names its GRUU as its Contact; the second value is our Route."""
    ask = stage.call(stage.mobile_gruus[0])
    stage.mobile.answer(stage.mobile.requests("INVITE")[0], 200, contact=f"<{stage.mobile_gruus[0]}>")
    stage.world.run()
    return ask, (ask.final.get(b"record-route") or b"").decode()


@pytest.mark.parametrize("method", ["ACK", "BYE", "INVITE", "INFO"])
@pytest.mark.parametrize("routed", [True, False], ids=["route", "no route"])
def test_requests_inside_the_dialog_reach_the_contact(method: str, routed: bool) -> None:
    stage = Stage()
    ask, route = answered(stage)
    before = len(stage.mobile.requests(method))
    headers = [f"Route: {route}"] if routed else []
    to, call_id = (ask.final.get(b"to") or b"").decode(), ask.final.call_id.decode()
    stage.alice.ask(method, stage.mobile_gruus[0], *headers, to=to, call_id=call_id, cseq=1 + (method != "ACK"))
    stage.world.run()
    requests = stage.mobile.requests(method)[before:]
    assert [request.uri for request in requests] == [b"sip:mobile@10.0.0.4:5060"]
    assert requests[0].routes() == [] and len(stage.desk.requests(method)) == 0


def test_our_own_bye_finds_it(tmp_path: Path) -> None:
    (tmp_path / "h.flow.yaml").write_text(
        "flowlang: 1\nflows:\n  h:\n    on: invite\n    do:\n      - relay:\n          to: registered\n"
        "        on:\n          answered: [sleep: 1s, hangup: enough]\n"
    )
    stage = Stage()
    stage.world = World(load_program([tmp_path])[0])
    stage.alice = stage.world.peer("alice", "10.0.0.2")
    stage.mobile = stage.world.peer("mobile", "10.0.0.4")
    stage.mobile_gruus = stage.register(stage.mobile, MOBILE)
    ask, route = answered(stage)
    to, call_id = (ask.final.get(b"to") or b"").decode(), ask.final.call_id.decode()
    stage.alice.ask("ACK", stage.mobile_gruus[0], f"Route: {route}", to=to, call_id=call_id)
    stage.world.on_job = lambda job: "10.0.0.1"
    stage.world.run(5.0)
    assert [request.uri for request in stage.mobile.requests("BYE")][:1] == [b"sip:mobile@10.0.0.4:5060"]


# --- the values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aor", ["bob@example.com", "o'hara@example.com", "a b;c@example.com", "jürgen@[2001:db8::1]"])
@pytest.mark.parametrize("instance", [DESK, "urn:uuid:ä;b=c", "<x>"])
def test_both_forms_are_uris_that_mean_the_binding(aor: str, instance: str) -> None:
    veil = Veil(b"k" * 32)
    binding = Binding(aor, b"sip:x@y", 0.0, call_id=b"c1", instance=instance)
    written = gruu.parameters(veil, binding)
    found = [parse_uri(value) for value in re.findall(rb'gruu="([^"]+)"', written)]
    for uri in found:
        meant = gruu.read(veil, uri, uri.aor)
        assert meant is not None and (meant.aor, meant.instance) == (aor, instance) and meant.is_of(binding)
    other = Binding(aor, b"sip:x@y", 0.0, call_id=b"c2", instance=instance)
    assert [gruu.read(veil, uri, uri.aor).is_of(other) for uri in found] == [True, False]  # type: ignore[union-attr]
    assert gruu.read(Veil(b"j" * 32), found[1], "") is None
