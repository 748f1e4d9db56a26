"""The office flow as shipped, and the specification's own: schedules, hunting, failover over gateways, messages."""

from __future__ import annotations

from datetime import datetime
from hashlib import md5
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core.users import LocalUsers
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.trace import render
from orchestrator.sip.digest import Secret
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "flows" / "office_hours.flow.yaml"
SPECIFIED = Path(__file__).parent / "specification" / "flows" / "7_office.flow.yaml"
BERLIN = ZoneInfo("Europe/Berlin")
TUESDAY_NOON = datetime(2026, 6, 9, 12, 0, tzinfo=BERLIN)

BOTH = [pytest.param(SHIPPED, "200", id="shipped"),
        pytest.param(SPECIFIED, "49305550", id="specified")]  # fmt: skip


class Office:
    """The flow at a moment of the calendar; the phones 201 and 202 are registered, the gateways are two peers."""

    def __init__(self, path: Path, moment: datetime = TUESDAY_NOON, **settings: Any) -> None:
        program, warnings = load_program([path])
        assert warnings == []
        self.names = {"gw-a.example.net": "10.0.1.1", "gw-b.example.net": "10.0.1.2"}
        self.world = World(program, wall=moment.timestamp(), **settings)
        self.world.on_job = lambda job: self.names.get(getattr(job.effect, "host", ""), World.LATER)
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.phones = {name: self.world.peer(name, f"10.0.0.{n}") for n, name in ((11, "201"), (12, "202"))}
        self.gates = {name: self.world.peer(name, host) for name, host in (("a", "10.0.1.1"), ("b", "10.0.1.2"))}
        for name, phone in self.phones.items():
            assert self.do(phone.register(f"{name}@example.com")).statuses == [200]
            phone.received.clear()

    def do(self, ask: Ask) -> Ask:
        self.world.run()
        return ask

    def call(self, number: str, *headers: str, **more: Any) -> Ask:
        return self.do(self.alice.ask("INVITE", f"sip:{number}@example.com", *headers, **more))

    def answer(self, peer: Peer, status: int) -> None:
        peer.answer(peer.requests("INVITE")[-1], status)
        self.world.run()

    @property
    def rung(self) -> list[str]:
        peers = {**self.phones, **self.gates}
        return [name for name, peer in peers.items() if peer.requests("INVITE")]

    def trace(self) -> str:
        engine = self.world.engine
        lines = [str(record) for run in engine.flows.runs.values() for record in run.records]
        return "\n".join([*lines, *(line for trace in engine.flows.traces for line in render(trace))])


# --- hours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "number"), BOTH)
@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-06-09 08:59:59", False),
        ("2026-06-09 09:00:00", True),
        ("2026-06-09 17:29:59", True),
        ("2026-06-09 17:30:00", False),
        ("2026-06-12 15:30:00", False),
        ("2026-06-13 12:00:00", False),
        ("2026-12-24 12:00:00", False),
        ("2027-01-01 12:00:00", False),
        ("2027-01-04 12:00:00", True),
    ],
)
def test_the_desk_rings_in_office_hours_only(path: Path, number: str, moment: str, open_: bool) -> None:
    office = Office(path, datetime.fromisoformat(moment).replace(tzinfo=BERLIN))
    office.call(number)
    assert office.rung == (["201"] if open_ else [])


# --- hunting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "number"), BOTH)
def test_the_desk_phones_ring_one_after_the_other(path: Path, number: str) -> None:
    office = Office(path)
    call = office.call(number)
    office.answer(office.phones["201"], 180)
    office.world.run(11.9)
    assert office.rung == ["201"]
    office.world.run(0.2)
    assert office.rung == ["201", "202"]
    assert [request.method for request in office.phones["201"].requests()] == [b"INVITE", b"CANCEL"]
    assert office.logged == ["201: no_answer"]
    office.answer(office.phones["202"], 200)
    assert call.statuses == [100, 180, 200]
    office.world.run(60)
    assert office.rung == ["201", "202"], "stop means stop"


@pytest.mark.parametrize(("path", "number"), BOTH)
def test_a_busy_phone_is_passed_over_at_once(path: Path, number: str) -> None:
    office = Office(path)
    office.call(number)
    office.answer(office.phones["201"], 486)
    assert office.rung == ["201", "202"]
    assert office.logged == ["201: busy"]


@pytest.mark.parametrize(("path", "number"), BOTH)
def test_with_nobody_at_the_desk_a_message_is_taken(path: Path, number: str) -> None:
    """There is no FreeSWITCH in this world: the voicemail flow is reached, and the caller gets an answer all the
    same."""
    office = Office(path)
    call = office.call(number)
    office.answer(office.phones["201"], 486)
    office.answer(office.phones["202"], 486)
    assert office.logged == ["201: busy", "202: busy"]
    assert "call voicemail" in office.trace()
    assert call.final.status >= 480
    call.acknowledge()
    office.world.run(64)
    assert not any(office.world.leftovers().values())


# --- calling out ------------------------------------------------------------------------------------------------------


def out(path: Path) -> Office:
    """Who may: the specified flow asks for a user whom a trusted source asserts, the shipped one for digest."""
    return Office(
        path,
        trust=(ip_network("10.0.0.0/16"),),
        users={"callers": LocalUsers.of({"alice": Secret("wonder")})},
    )


NUMBER = "0049301234"


def call_out(office: Office) -> Ask:
    asserted = "P-Asserted-Identity: <sip:alice@example.com>"
    first = office.call(NUMBER, asserted, call_id="out")
    if first.statuses != [100, 407]:
        return first
    first.acknowledge()
    value = next(v for v in first.final.get_all(b"proxy-authenticate") if b"MD5" in v).decode()
    nonce = value.split('nonce="')[1].split('"')[0]
    secret, about = (md5(text.encode()).hexdigest() for text in
                     ("alice:example.com:wonder", f"INVITE:sip:{NUMBER}@example.com"))  # fmt: skip
    response = md5(f"{secret}:{nonce}:00000001:c:auth:{about}".encode()).hexdigest()
    line = (
        f'Proxy-Authorization: Digest username="alice", realm="example.com", nonce="{nonce}", '
        f'uri="sip:{NUMBER}@example.com", response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
    )
    return office.call(NUMBER, asserted, line, call_id="out", cseq=2)


OUT = [pytest.param(SHIPPED, id="shipped"), pytest.param(SPECIFIED, id="specified")]


@pytest.mark.parametrize("path", OUT)
def test_a_gateway_that_fails_is_followed_by_the_next(path: Path) -> None:
    office = out(path)
    call = call_out(office)
    assert office.rung == ["a"]
    assert office.gates["a"].requests("INVITE")[0].uri == b"sip:0049301234@gw-a.example.net"
    office.answer(office.gates["a"], 503)
    office.answer(office.gates["b"], 200)
    assert call.final.status == 200
    assert office.logged[-1].endswith("via telco_b after 2 tries")


@pytest.mark.parametrize("path", OUT)
@pytest.mark.parametrize(("status", "told"), [(486, 486), (404, 503), (603, 503)])
def test_what_is_final_is_not_tried_again(path: Path, status: int, told: int) -> None:
    office = out(path)
    call = call_out(office)
    office.answer(office.gates["a"], status)
    assert office.rung == ["a"]
    assert call.final.status == told


@pytest.mark.parametrize("path", OUT)
def test_gateways_that_say_nothing_have_eight_seconds_each(path: Path) -> None:
    office = out(path)
    call = call_out(office)
    office.world.run(8.1)
    assert office.rung == ["a", "b"]
    office.world.run(8.1)
    assert call.final.status == 503


@pytest.mark.parametrize("path", OUT)
def test_who_is_not_known_does_not_call_out(path: Path) -> None:
    office = Office(path, users={"callers": LocalUsers.of({})})
    call = office.call(NUMBER, "P-Asserted-Identity: <sip:alice@example.com>")
    assert call.final.status in (407, 480), "asserted by somebody nobody trusts"
    assert office.rung == []
