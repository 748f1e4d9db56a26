"""Where we knowingly do something else than an RFC says: each entry of the list is shown here, and nothing is shown
that is not listed."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.core.users import LocalUsers
from orchestrator.flow.loader import Source, load_sources
from orchestrator.settings.model import Settings
from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.departures import DEPARTURES
from orchestrator.sip.message import Request
from orchestrator.sip.push import Push, Pushed, PushPolicy, PushService
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
SHOWN: dict[str, Callable[[], None]] = {}


def shows(place: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(show: Callable[[], None]) -> Callable[[], None]:
        assert place not in SHOWN
        SHOWN[place] = show
        return show

    return keep


class Stage:
    """alice, whom we trust, and bob's phone."""

    def __init__(self, flows: str = "flowlang: 1", register: bool = True, **settings: Any) -> None:
        program, _ = load_sources([Source("departures.flow.yaml", flows)])
        self.world = World(program, trust=(ip_network("10.0.0.0/24"),), **settings)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bob = self.world.peer("bob", "10.0.0.3")
        if register:
            self.do(self.bob.register("bob@example.com"))
        self.bob.received.clear()

    def do(self, ask: Ask) -> Ask:
        self.world.run()
        return ask

    def answer(self, peer: Peer, status: int) -> None:
        peer.answer(peer.requests("INVITE")[0], status)
        self.world.run()


@shows("RFC 3261 §16.10")
def a_cancel_is_answered_before_the_phones_are() -> None:
    stage = Stage()
    call = stage.do(stage.alice.ask("INVITE", BOB))
    stage.answer(stage.bob, 180)
    stage.do(call.cancel())
    assert call.statuses == [100, 180, 487]
    assert stage.bob.heard == ["INVITE", "CANCEL"], "and it has not said a word to that"


@shows("RFC 3261 §16.10, last paragraph")
def a_cancel_for_nothing_ends_here() -> None:
    stage = Stage()
    assert stage.do(stage.alice.ask("CANCEL", BOB)).statuses == [481]
    assert stage.bob.heard == []


@shows("RFC 3261 §16.7 step 5")
def a_late_answer_is_not_the_callers_any_more() -> None:
    stage = Stage()
    call = stage.do(stage.alice.ask("INVITE", BOB))
    stage.do(call.cancel())
    stage.answer(stage.bob, 200)
    assert call.statuses == [100, 487]
    assert stage.bob.heard == ["INVITE", "ACK", "BYE"]


@shows("RFC 3261 §16.7 step 6")
def silence_is_answered_with_silence() -> None:
    stage = Stage()
    message = stage.do(stage.alice.ask("MESSAGE", BOB))
    stage.world.run(64.0)
    assert stage.bob.heard == ["MESSAGE"] * 11
    assert message.statuses == []


@shows("RFC 3261 §16.4, §16.6 step 6")
def a_strict_route_is_followed_loosely() -> None:
    stage = Stage()
    gateway = stage.world.peer("gateway", "10.0.0.9")
    stage.do(stage.alice.ask("MESSAGE", "sip:x@10.0.0.8", "Route: <sip:10.0.0.9>"))
    [message] = gateway.requests()
    assert message.uri == b"sip:x@10.0.0.8", "a strict router would find itself here"
    assert [route.uri for route in message.routes()] == [b"sip:10.0.0.9"]


@shows("RFC 3261 §16.6 step 7")
def a_request_inside_a_dialog_goes_to_where_the_phone_was_seen() -> None:
    stage = Stage()
    invite = stage.alice.ask("INVITE", BOB, "Contact: <sip:alice@192.168.1.2>", send=False)
    invite.octets = invite.octets.replace(b"Via: SIP/2.0/UDP 10.0.0.2:5060;", b"Via: SIP/2.0/UDP 192.168.1.2;rport;")
    stage.do(invite)
    invite.again()
    stage.world.run()
    [seen] = stage.bob.requests("INVITE")
    route = f"Route: <{(seen.record_routes()[0].uri or b'').decode()}>"
    sides = {"sender": f"<{BOB}>;tag=bob", "to": (seen.get(b"from") or b"").decode()}
    stage.do(stage.bob.ask("INFO", "sip:alice@192.168.1.2", route, call_id=seen.call_id.decode(), **sides))
    [info] = stage.alice.requests()
    assert info.uri == b"sip:alice@192.168.1.2", "which is where her Contact says she is"


@shows("RFC 3261 §18.1.1")
def a_large_request_stays_on_udp() -> None:
    stage = Stage()
    stage.do(stage.alice.ask("INVITE", BOB, body=b"a=x\r\n" * 2000))
    [invite] = stage.bob.requests()
    assert len(invite.body) == 10_000
    assert invite.via.transport == b"UDP"


@shows("RFC 3261 §18.2.2")
def a_maddr_leads_nobody_astray() -> None:
    stage = Stage()
    stranger = stage.world.peer("stranger", "10.0.0.77")
    ask = stage.alice.ask("OPTIONS", "sip:example.com", send=False)
    ask.octets = ask.octets.replace(b";branch", b";maddr=10.0.0.77;branch", 1)
    ask.again()
    assert stage.do(ask).statuses == [200]
    assert stranger.received == []


@shows("RFC 8760 §2.4")
def one_algorithm_is_offered_unless_configured() -> None:
    flows = "flowlang: 1\nusers: {u: {file: u.yaml}}\nflows: {r: {on: register, do: [auth: example.com, register]}}"
    for configured, offered in (
        (Settings(), ["MD5"]),
        (Settings(sip={"digest": ["SHA-256", "MD5"]}), ["SHA-256", "MD5"]),
    ):
        stage = Stage(flows, users={"u": LocalUsers.of({})}, digest=configured.sip.digest, register=False)
        asked = stage.do(stage.alice.register("alice@example.com")).final.get_all(b"www-authenticate")
        assert [value.partition(b"algorithm=")[2].partition(b",")[0].decode() for value in asked] == offered


RELAYED = """\
flowlang: 1
gateways: {telco: {uri: 'sip:10.0.0.9', user: us, password: secret}}
flows:
  out: {on: invite, when: call.target.user == 'out', do: [relay: {gateways: telco}]}
  as_sales: {on: invite, do: [relay: {to: registered, from: 'sales@example.com'}]}
"""


@shows("RFC 3261 §22.2")
def a_gateways_challenge_is_answered_under_the_same_cseq() -> None:
    stage = Stage(RELAYED)
    gateway = stage.world.peer("gateway", "10.0.0.9")
    stage.do(stage.alice.ask("INVITE", "sip:out@example.com", cseq=7))
    gateway.answer(gateway.requests()[0], 407, 'Proxy-Authenticate: Digest realm="gw", nonce="n"')
    stage.world.run()
    first, ack, second = gateway.requests()
    assert (first.cseq, ack.method, second.cseq) == (7, b"ACK", 7), "a user agent would say 8"
    assert first.via.branch != second.via.branch
    assert second.get(b"proxy-authorization") is not None


@shows("RFC 3261 §16.6")
def a_flow_rewrites_from() -> None:
    stage = Stage(RELAYED)
    call = stage.do(stage.alice.ask("INVITE", BOB))
    [invite] = stage.bob.requests("INVITE")
    assert invite.get(b"from") == b"<sip:sales@example.com>;tag=alice"
    stage.answer(stage.bob, 180)
    assert call.responses[-1].get(b"from") == b"<sip:alice@example.com>;tag=alice"


def called_by_a_stranger() -> tuple[World, Peer, Ask]:
    """A source that has proved nothing has called bob."""
    world = World(sources=SourceLimits())
    bob, stranger = world.peer("bob", "10.0.0.11"), world.peer("stranger", "203.0.113.66")
    bob.register("bob@example.com")
    world.run()
    call = stranger.ask("INVITE", BOB)
    world.run()
    return world, bob, call


@shows("RFC 3261 §16.7 step 5, RFC 6026 §7.1")
def a_stranger_is_spared_most_copies_of_a_2xx() -> None:
    world, bob, call = called_by_a_stranger()
    for copies in (1, 2, 2, 3, 3, 3, 3, 4, 4):
        bob.answer(bob.requests("INVITE")[0], 200)
        world.run()
        assert call.statuses == [200] * copies
    call.again()
    world.run()
    assert call.statuses == [200] * 5


@shows("RFC 3261 §16.2, §17.2.1")
def a_stranger_gets_one_datagram_for_one() -> None:
    world, bob, call = called_by_a_stranger()
    bob.answer(bob.requests("INVITE")[0], 180)
    world.run(1.0)
    assert call.statuses == []
    call.again()
    world.run()
    assert call.statuses == [180]


LEGACY, APPLE = "pn-type=apple;app-id=a.b.voip;pn-tok=1", "pn-provider=apns;pn-param=a.b.voip;pn-prid=1"


def features_of(params: str, *headers: str) -> list[bytes]:
    """Of the answer to a REGISTER, but for the PURR."""
    services = (PushService("apple", "apns"), PushService("google", "fcm"))
    stage = Stage(push=PushPolicy(services), register=False)
    contact = f"Contact: <sip:bob@10.0.0.3;{params}>"
    answer = stage.do(stage.bob.ask("REGISTER", "sip:example.com", contact, *headers, to=f"<{BOB}>")).final
    assert answer.status == 200
    return [line.partition(b";+sip.pnspurr")[0] for line in answer.get_all(b"feature-caps")]


@shows("RFC 8599 §5.6.1")
def phones_of_before_the_rfc_are_woken_too() -> None:
    assert features_of(LEGACY) == features_of(APPLE) == [b'*;+sip.pns="apns"']


@shows("RFC 8599 §5.6.1.1")
def a_proxy_that_serves_another_service_does_not_wake_this_phone() -> None:
    assert features_of(APPLE, 'Feature-Caps: *;+sip.pns="fcm"') == [b'*;+sip.pns="apns"']
    assert features_of(APPLE, 'Feature-Caps: *;+sip.pns="apns"') == []


@shows("RFC 8599 §5.6.1.2")
def a_query_is_not_answered_twice() -> None:
    assert features_of("pn-provider", 'Feature-Caps: *;+sip.pns="fcm"') == [b'*;+sip.pns="apns"']


@shows("RFC 8599 §5.6.2")
def a_phone_whose_push_failed_gets_the_request_where_it_is() -> None:
    stage = Stage(push=PushPolicy((PushService("apple", "apns"),)), register=False)
    stage.world.on_job = lambda job: Pushed("failed", "503") if isinstance(job.effect, Push) else None
    contact = f"Contact: <sip:bob@10.0.0.3;{APPLE}>"
    stage.do(stage.bob.ask("REGISTER", "sip:example.com", contact, to=f"<{BOB}>"))
    stage.world.run(31)
    call = stage.do(stage.alice.ask("INVITE", BOB))
    assert len(stage.bob.requests("INVITE")) == 1
    assert call.statuses == [100]


def test_the_list_is_typed_and_names_each_place_once() -> None:
    assert isinstance(DEPARTURES, tuple)
    for entry in DEPARTURES:
        place, what = entry
        assert place.startswith("RFC ")
        assert what
    assert len({place for place, _ in DEPARTURES}) == len(DEPARTURES)


def test_what_is_listed_is_shown_and_the_other_way_round() -> None:
    assert set(SHOWN) == {place for place, _ in DEPARTURES}


@pytest.mark.parametrize("place", [place for place, _ in DEPARTURES])
def test_a_departure_is_what_happens(place: str) -> None:
    SHOWN[place]()


def test_what_is_asked_of_bob_is_a_request() -> None:
    """The stage itself: a call reaches bob, so that the silences above mean something."""
    stage = Stage()
    stage.do(stage.alice.ask("INVITE", BOB))
    assert [type(message) for message in stage.bob.received] == [Request]
