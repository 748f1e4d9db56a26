"""The share of each source: who floods is not read any more, and who is known is served all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from test_call_races import program

from orchestrator.errors import MalformedMessage
from orchestrator.sip.admission import BAN_AFTER, MOST_KNOWN, MOST_SOURCES, Admission, SourceLimits, source_name
from orchestrator.sip.fitting import fit
from orchestrator.sip.points import Hop
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.phone import Address
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
WAIT = "      - subscribe: registered\n        where: {aor: '${call.target.aor}'}\n        for: 20s\n        do: []\n"
WAKE_UP = WAIT + "      - relay: {to: registered, ring: 40s, keep_open: 20s}\n        on: {else: [reply: 480]}\n"


class Stage:
    """alice is a good caller, mallory floods; a flow where there are steps."""

    def __init__(self, tmp_path: Path, steps: str = "", top: str = "", **limits: Any) -> None:
        flows = program(tmp_path, steps, top) if steps else None
        self.world = World(flows, sources=SourceLimits(**limits))
        self.alice, self.bob = self.world.peer("alice", "203.0.113.2"), self.world.peer("bob", "203.0.113.11")
        self.mallory = self.world.peer("mallory", "203.0.113.66")
        self.world.attach(self.mallory.address, self._hear)
        self.bob.register("bob@example.com")
        self.world.run()

    def _hear(self, data: bytes, source: Address) -> None:
        """What answers garbage need not be well-formed itself: what was missing is missing."""
        try:
            self.mallory.receive(data, source)
        except MalformedMessage:
            pass

    @property
    def admission(self) -> Admission:
        return self.world.engine.admission

    def good_call(self) -> None:
        ask = self.alice.ask("INVITE", BOB)
        self.world.run()
        self.bob.answer(self.bob.requests("INVITE")[-1], 200)
        self.world.run()
        assert ask.statuses[-1] == 200
        route = f"Route: {(ask.final.get(b'record-route') or b'').decode()}"
        call_id, to = ask.final.call_id.decode(), (ask.final.get(b"to") or b"").decode()
        uri = self.bob.contact.strip("<>")
        self.alice.ask("ACK", uri, route, to=to, call_id=call_id)
        bye = self.alice.ask("BYE", uri, route, to=to, call_id=call_id, cseq=2)
        self.world.run()
        self.bob.answer(self.bob.requests("BYE")[-1], 200)
        self.world.run()
        assert bye.statuses == [200]


def octets(peer: Peer, kind: str) -> bytes:
    """One datagram of a flood."""
    word = peer.word()
    if kind == "garbage":
        return random.Random(word).randbytes(300)
    if kind == "malformed":
        return f"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bK{word}\r\nCSeq: x\r\n\r\n".encode()
    if kind == "response":
        ask = peer.ask("INVITE", BOB, send=False)
        return ask.octets.replace(b"INVITE sip:bob@example.com SIP/2.0", b"SIP/2.0 200 OK")
    method, uri = {
        "unknown": ("INVITE", f"sip:n{word}@example.com"),
        "bob": ("INVITE", BOB),
        "register": ("REGISTER", "sip:example.com"),
        "options": ("OPTIONS", "sip:10.0.0.1"),
        "bye": ("BYE", "sip:x@10.9.9.9"),
        "ack": ("ACK", BOB),
        "cancel": ("CANCEL", BOB),
    }[kind]
    to = f"<sip:{word}@example.com>" + (";tag=x" if kind in ("bye", "ack") else "")
    headers = ["Contact: " + peer.contact] if kind == "register" else []
    return peer.ask(method, uri, *headers, to=to, send=False).octets


KINDS = ["unknown", "bob", "register", "options", "bye", "ack", "cancel", "garbage", "malformed", "response"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", ["", WAKE_UP], ids=["default", "wake-up"])
def test_one_that_floods_is_banned_and_the_good_caller_is_served(tmp_path: Path, kind: str, steps: str) -> None:
    stage = Stage(tmp_path, steps)
    for _ in range(3):
        for _ in range(1000):
            stage.mallory.send(octets(stage.mallory, kind))
        stage.world.run()
        stage.good_call()
    assert [one.name for one in stage.admission.banned(stage.world.now)] == ["203.0.113.66"]
    assert stage.admission.bans == {"flood": 1}
    assert stage.world.engine.layer.unanswered <= 100
    unread = len(stage.mallory.received)
    stage.mallory.ask("OPTIONS", "sip:10.0.0.1")
    stage.world.run()
    assert len(stage.mallory.received) == unread, "a banned source is not read"
    stage.world.run(120.0)
    heard = stage.mallory.ask("OPTIONS", "sip:10.0.0.1")
    stage.world.run()
    assert heard.statuses == [200], "a ban ends"
    assert stage.admission.banned(stage.world.now) == []


def test_slow_calls_that_each_wait_are_bounded_for_one_source(tmp_path: Path) -> None:
    """Thirty calls a second are within the rate; six hundred that wait for their phone are not."""
    stage = Stage(tmp_path, WAKE_UP)
    asks: list[Ask] = []
    for _ in range(600):
        asks.append(stage.mallory.ask("INVITE", f"sip:n{len(asks)}@example.com"))
        stage.world.run(1 / 30)
    assert stage.world.engine.layer.unanswered <= 100
    assert len(stage.world.engine.flows.runs) <= 100
    assert any(503 in ask.statuses for ask in asks)
    stage.good_call()


def test_forged_sources_take_nothing_from_those_that_are_known(tmp_path: Path) -> None:
    stage = Stage(tmp_path, WAKE_UP)
    stage.good_call()
    receive, here = stage.world.engine.receive, stage.world.engine.network.points[0]
    for number in range(30_000):
        data = octets(stage.mallory, "unknown")
        host = f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        receive(data, Hop(here, host, 5060), stage.world.now)
        stage.world.engine.datagrams.clear()
    assert stage.admission.dropped["strangers"] > 20_000
    assert len(stage.admission) <= 2 * MOST_SOURCES + MOST_KNOWN
    stage.good_call()


def test_a_good_source_is_never_limited_by_what_succeeds(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for _ in range(300):  # at one instant: a burst of three hundred calls would be beyond any stranger's share
        stage.good_call()
    assert not stage.admission.dropped


def test_trusted_sources_and_gateways_have_no_share(tmp_path: Path) -> None:
    top = "gateways:\n  a: {uri: 'sip:203.0.113.66'}\n"
    stage = Stage(tmp_path, "      - relay: {gateways: a}\n", top)
    for _ in range(3000):
        stage.mallory.send(octets(stage.mallory, "options"))
    stage.world.run()
    assert not stage.admission.dropped
    assert stage.mallory.heard.count("200") == 3000


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2::5", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:1:2:3", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::5", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_subscriber_is_one_source(host: str, name: str) -> None:
    assert source_name(host) == name


def test_all_addresses_of_an_ipv6_network_share() -> None:
    admission = Admission(SourceLimits(), lambda host: False)
    for number in range(BAN_AFTER * 3):
        source = admission.admit(f"2001:db8::{number:x}", 0.0)
        if source is not None:
            admission.charge(source, 5.0, 0.0)
    assert [one.name for one in admission.banned(0.0)] == ["2001:db8::/64"]
    assert admission.admit("2001:db8::ffff:1", 0.0) is None


# --- amplification ----------------------------------------------------------------------------------------------------

AUTH = "users:\n  local: {file: config/users.yaml}\n"
FLOWS = {
    "default": "",
    "wake-up": WAKE_UP,
    "refused": "      - reply: 403\n",
    "talkative": (
        "      - reply: 183\n      - reply: {code: 480, reason: '"
        + "x" * 300
        + "', headers: {Warning: '399 x \""
        + "y" * 500
        + "\"', Retry-After: '5'}}\n"
    ),
    "progress": "      - reply: 180\n      - sleep: 5s\n      - reply: 180\n      - sleep: 5s\n      - reply: 486\n",
    "rings": "      - relay: {to: registered, ring: 10s}\n        on: {else: [reply: 480]}\n",
}


@pytest.mark.parametrize("user", ["nobody", "bob"])
@pytest.mark.parametrize("steps", FLOWS.values(), ids=list(FLOWS))
def test_one_forged_invite_gets_one_datagram_of_at_most_half_as_much_again(
    tmp_path: Path, steps: str, user: str
) -> None:
    stage = Stage(tmp_path, steps)
    ask = stage.mallory.ask("INVITE", f"sip:{user}@example.com")
    stage.world.run(5.0)
    for invite in {one.via.branch: one for one in stage.bob.requests("INVITE")}.values():
        stage.bob.answer(invite, 180)
        stage.bob.answer(invite, 486)
    stage.world.run(120.0)
    assert len(stage.mallory.raw) == 1, stage.mallory.heard
    assert len(stage.mallory.raw[0]) <= 1.5 * len(ask.octets)
    assert not any(stage.world.leftovers().values()), stage.world.leftovers()


def forged_calls(stage: Stage, count: int) -> tuple[int, int]:
    """Octets and datagrams that go to mallory's address for as many INVITEs that bob answers and repeats his 200 to."""
    asked = 0
    for _ in range(count):
        asked += len(stage.mallory.ask("INVITE", BOB).octets)
        stage.world.run()
        invite = stage.bob.requests("INVITE")[-1]
        stage.bob.answer(invite, 180)
        for pause in (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.0):
            stage.bob.answer(invite, 200)
            stage.world.run(pause if count == 1 else 0.01)
    return len(stage.mallory.raw), sum(map(len, stage.mallory.raw)) * 100 // asked


def test_a_forged_call_that_is_answered_is_told_four_times_at_most(tmp_path: Path) -> None:
    assert forged_calls(Stage(tmp_path), 1)[0] == 4


def test_of_many_forged_calls_each_is_told_once(tmp_path: Path) -> None:
    """The first two of an address could be real; whoever acknowledges none of them is told no more than once."""
    datagrams, percent = forged_calls(Stage(tmp_path), 50)
    assert datagrams == 50 + 2 * 3
    assert percent <= 150


def test_a_stranger_who_has_not_heard_the_answer_is_told_again(tmp_path: Path) -> None:
    """Its INVITE comes again, so it has not got the 200; when it acknowledges, it is a stranger no longer."""
    stage = Stage(tmp_path)
    for _ in range(3):
        call = stage.alice.ask("INVITE", BOB)
        stage.world.run()
        stage.bob.answer(stage.bob.requests("INVITE")[-1], 200)
        stage.world.run()
    assert call.statuses == [200]
    for _ in range(3):
        call.again()
        stage.world.run()
    assert call.statuses == [200] * 4
    route = f"Route: {(call.final.get(b'record-route') or b'').decode()}"
    call_id, to = call.final.call_id.decode(), (call.final.get(b"to") or b"").decode()
    stage.alice.ask("ACK", stage.bob.contact.strip("<>"), route, to=to, call_id=call_id)
    stage.world.run()
    for _ in range(5):
        stage.bob.answer(stage.bob.requests("INVITE")[-1], 200)
        stage.world.run()
    assert call.statuses == [200] * 9


def test_a_stranger_hears_two_provisional_responses_for_each_repetition(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    call = stage.mallory.ask("INVITE", BOB)
    stage.world.run()
    invite = stage.bob.requests("INVITE")[-1]
    call.again()
    stage.world.run()
    for _ in range(20):
        stage.bob.answer(invite, 180)
        stage.world.run(1.0)
    assert call.statuses == [100, 180, 180]
    stage.world.run(30.0)
    stage.bob.answer(invite, 180)
    stage.world.run()
    assert call.statuses == [100, 180, 180, 180]


@pytest.mark.parametrize("kind", KINDS)
def test_no_datagram_gets_more_than_one_back(tmp_path: Path, kind: str) -> None:
    stage = Stage(tmp_path)
    data = octets(stage.mallory, kind)
    stage.mallory.send(data)
    stage.world.run(120.0)
    assert len(stage.mallory.raw) <= 1
    assert all(len(answer) <= 1.5 * len(data) for answer in stage.mallory.raw)


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:10.0.0.1 SIP/2.0\r\nv:SIP/2.0/UDP a\r\nf:<sip:a@b>\r\nt:<sip:a@b>\r\ni:1\r\n"
        b"CSeq:1 OPTIONS\r\n\r\n",
        b"X sip:x SIP/2.0\r\nv:SIP/2.0/UDP a\r\n\r\n",
        b"REGISTER sip:example.com SIP/2.0\r\nv:SIP/2.0/UDP a\r\nf:<sip:bob@example.com>;tag=1\r\n"
        b"t:<sip:bob@example.com>\r\ni:1\r\nCSeq:1 REGISTER\r\n\r\n",
    ],
)
def test_tiny_requests_get_tiny_answers(tmp_path: Path, data: bytes) -> None:
    stage = Stage(tmp_path)
    for number in range(8):
        stage.bob.register("bob@example.com", f"<sip:bob{number}@203.0.113.11:{7000 + number}>", cseq=9)
        stage.world.run()
    stage.mallory.send(data)
    stage.world.run(60.0)
    assert len(stage.mallory.raw) <= 1
    assert all(len(answer) <= 1.5 * len(data) for answer in stage.mallory.raw)


def test_a_caller_who_repeats_gets_what_he_missed(tmp_path: Path) -> None:
    """One datagram for each: the 100 for the second, the failure again for the third."""
    stage = Stage(tmp_path, FLOWS["progress"].replace("180", "181"))
    ask = stage.alice.ask("INVITE", BOB)
    stage.world.run(0.5)
    assert ask.statuses == []
    ask.again()
    stage.world.run(20.0)
    assert ask.statuses[:3] == [181, 181, 486]
    told = len(ask.statuses)
    ask.again()
    stage.world.run()
    assert ask.statuses[told:] == [486]


def test_who_has_acknowledged_a_failure_is_no_stranger(tmp_path: Path) -> None:
    stage = Stage(tmp_path, FLOWS["refused"])
    first = stage.alice.ask("INVITE", BOB)
    stage.world.run()
    first.acknowledge()
    stage.world.run()
    second = stage.alice.ask("INVITE", BOB)
    stage.world.run(40.0)
    assert second.statuses[0] == 100
    assert second.statuses.count(403) == 11, "timer G runs for it"


def test_a_forged_acknowledgement_proves_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, FLOWS["refused"])
    first = stage.mallory.ask("INVITE", BOB)
    stage.world.run()
    forged = first.acknowledge().octets
    other = Stage(tmp_path, FLOWS["refused"])
    ask = other.mallory.ask("INVITE", BOB)
    other.world.run()
    other.mallory.send(forged.replace(b";tag=", b";tag=0", 2))
    other.world.run()
    assert not other.admission.is_proved(other.admission.source_of("203.0.113.66", 0.0), 0.0)
    assert ask.statuses == [403]


CHALLENGE = b'WWW-Authenticate: Digest realm="x", nonce="%b", algorithm=%b\r\n'


def test_an_answer_is_made_small_by_what_can_be_spared() -> None:
    head = b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP a\r\nFrom: b\r\nt: c\r\nCall-ID: d\r\nCSeq: 1 REGISTER\r\n"
    data = head + CHALLENGE % (b"n" * 90, b"MD5") + CHALLENGE % (b"n" * 90, b"SHA-256")
    data += b"Server: x\r\nContent-Length: 4\r\n\r\nbody"
    assert fit(data, len(data)) == data
    small = fit(data, 300)
    assert len(small) <= 300
    assert small.endswith(b"Content-Length: 0\r\n\r\n")
    assert b"MD5" in small
    assert b"SHA-256" not in small
    assert b"Server" not in small
    assert fit(data, 10).startswith(b"SIP/2.0 401 \r\nVia"), "what is copied stays, whatever the room"


@pytest.mark.parametrize(("late", "served"), [(0.0, 500), (0.049, 500), (0.051, 250)])
def test_the_second_half_of_a_share_is_for_times_when_nobody_waits(late: float, served: int) -> None:
    """A burst of registrations took half a second: long enough for overload to refuse others' calls."""
    admission = Admission(SourceLimits(), lambda host: False)
    read = 0
    for _ in range(1000):
        source = admission.admit("203.0.113.66", 0.0, lambda: late)
        if source is not None:
            read += 1
            admission.asked(source, b"REGISTER", 0.0)
    assert read == pytest.approx(served, abs=1)
    good = admission.admit("203.0.113.2", 0.0, lambda: late)
    assert good is not None
    again = admission.admit("203.0.113.66", 2.0, lambda: late)
    assert (again is not None) is (late < 0.05 or served == 250)  # 200 points a second have come back


def test_a_flood_beside_late_datagrams_leaves_a_known_caller_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.good_call()
    stage.world.engine.wire._late = lambda: 0.3
    for number in range(600):
        stage.mallory.ask("OPTIONS", f"sip:nobody{number}@example.com")
    stage.world.run()
    assert stage.admission.dropped["late"] > 0
    stage.good_call()
