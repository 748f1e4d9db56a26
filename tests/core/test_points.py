"""Points and hops in the pure core: two sides that leave by different points, families, connections, equal addresses.

Values are RFC 3261's and RFC 5658's: each side gets a Record-Route it can reach, topmost on its own side.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.core.engine import Engine
from orchestrator.core.settings import CoreSettings
from orchestrator.events.event import Event
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.program import Program
from orchestrator.sip.location import Binding, Location
from orchestrator.sip.message import Request, Response, parse_message
from orchestrator.sip.points import Hop, ListenPoint, Point
from orchestrator.sip.uri import parse_uri
from orchestrator.store.memory import MemoryStore

NEAR, FAR = ListenPoint("10.0.0.1", 5060), ListenPoint("10.8.0.1", 5060)
SIX = ListenPoint("2001:db8::1", 5060)
STREAM = ListenPoint("10.0.0.1", 5061, "tcp")


class Net:
    """An engine and what it sends, hop by hop."""

    def __init__(self, *points: ListenPoint, **settings: Any) -> None:
        self.location = Location(MemoryStore())
        program = Program(events={spec.name: spec for spec in BUILTIN_EVENTS})
        given = CoreSettings(points, domains=("example.com", "example.org"), **settings)
        self.engine = Engine(given, self.location, program)
        self.points = self.engine.network.points
        self.now = 0.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.engine.on_news = lambda event, facts: self.told.append((event, dict(facts)))

    def receive(self, hop: Hop, start: str, *lines: str) -> list[tuple[Request | Response, Hop]]:
        """One message from there; what is sent on account of it."""
        self.engine.receive("\r\n".join((start, *lines, "Content-Length: 0", "", "")).encode(), hop, self.now)
        return self.sent()

    def sent(self) -> list[tuple[Request | Response, Hop]]:
        out = [(parse_message(data), hop) for data, hop in self.engine.datagrams]
        self.engine.datagrams.clear()
        return out

    def run(self, seconds: float) -> list[tuple[Request | Response, Hop]]:
        self.now += seconds
        while (due := self.engine.timers.next_due()) is not None and due <= self.now:
            self.engine.run_timers(due)
        return self.sent()

    def register(self, hop: Hop, aor: str, contact: str = "", cseq: int = 1) -> Response:
        host = f"[{hop.host}]" if ":" in hop.host else hop.host
        contact = contact or f"sip:{aor.partition('@')[0]}@{host}:{hop.port}"
        domain = aor.rpartition("@")[2]
        out = self.receive(
            hop, f"REGISTER sip:{domain} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{hop.port};rport;branch=z9hG4bK{aor.replace('@', '.')}{hop.port}{cseq}",
            "Max-Forwards: 70", f"From: <sip:{aor}>;tag=r", f"To: <sip:{aor}>",
            f"Call-ID: {aor}-{hop.point.name}", f"CSeq: {cseq} REGISTER", f"Contact: <{contact}>",
        )  # fmt: skip
        [(response, to)] = out
        assert isinstance(response, Response) and to == hop, "the answer leaves by the point that was asked"
        return response

    def invite(self, hop: Hop, target: str, call: str = "c1") -> list[tuple[Request, Hop]]:
        host = f"[{hop.host}]" if ":" in hop.host else hop.host
        out = self.receive(
            hop, f"INVITE sip:{target} SIP/2.0", f"Via: SIP/2.0/UDP {host}:{hop.port};rport;branch=z9hG4bK{call}",
            "Max-Forwards: 70", "From: <sip:alice@example.com>;tag=a", f"To: <sip:{target}>", f"Call-ID: {call}",
            "CSeq: 1 INVITE", f"Contact: <sip:alice@{host}:{hop.port}>",
        )  # fmt: skip
        return [(message, to) for message, to in out if isinstance(message, Request)]

    def answer(self, request: Request, hop: Hop, status: int = 200) -> list[tuple[Request | Response, Hop]]:
        lines = [line.decode() for name, line in zip(request.names, request.lines, strict=True)
                 if name in (b"via", b"from", b"call-id", b"cseq", b"record-route")]  # fmt: skip
        host = f"[{hop.host}]" if ":" in hop.host else hop.host
        to = (request.get(b"to") or b"").decode()
        return self.receive(
            hop, f"SIP/2.0 {status} OK", *lines, f"To: {to};tag=b", f"Contact: <sip:b@{host}:{hop.port}>"
        )

    def inside(self, hop: Hop, routes: list[str], to: Hop, forth: bool = True, method: str = "INFO") -> Hop:
        """A request inside the dialog along the route set; the hop that it was sent on to."""
        ends = ("<sip:alice@example.com>;tag=a", "<sip:bob@example.com>;tag=b")
        sender, receiver = ends if forth else ends[::-1]
        host = f"[{to.host}]" if ":" in to.host else to.host
        [(sent, where)] = [
            (message, where) for message, where in self.receive(
                hop, f"{method} sip:{'b' if forth else 'alice'}@{host}:{to.port} SIP/2.0",
                f"Via: SIP/2.0/UDP {host}:9;branch=z9hG4bK{method}{forth}", "Max-Forwards: 70",
                *(f"Route: {route}" for route in routes),
                f"From: {sender}", f"To: {receiver}", "Call-ID: c1", f"CSeq: 7 {method}",
            ) if isinstance(message, Request)
        ]  # fmt: skip
        assert not sent.routes(), "all Routes were ours"
        return where


def recorded(message: Request | Response) -> list[str]:
    return [f"<{(route.uri or b'').decode()}>" for route in message.record_routes()]


def hosts(routes: list[str]) -> list[str]:
    return [re.sub(r"<sip:[0-9a-f]+@(.*);lr>", r"\1", route) for route in routes]


@pytest.mark.parametrize("method", ["INFO", "BYE", "UPDATE", "ACK"])
@pytest.mark.parametrize(
    ("listen", "alice", "bob", "names"),
    [
        ((NEAR, FAR), ("10.0.0.9", 5060), ("10.8.0.9", 5062), ("10.0.0.1:5060", "10.8.0.1:5060")),
        ((NEAR, SIX), ("10.0.0.9", 5060), ("2001:db8::9", 5062), ("10.0.0.1:5060", "[2001:db8::1]:5060")),
        ((SIX, NEAR), ("2001:db8::9", 5060), ("10.0.0.9", 5062), ("[2001:db8::1]:5060", "10.0.0.1:5060")),
    ],
)
def test_each_side_is_reached_by_its_own_point(
    listen: tuple[ListenPoint, ...], alice: tuple[str, int], bob: tuple[str, int], names: tuple[str, str], method: str
) -> None:
    """RFC 5658: two Record-Routes; topmost for each side is the one in its own network."""
    net = Net(*listen)
    caller, callee = Hop(net.points[0], *alice), Hop(net.points[1], *bob)
    net.register(callee, "bob@example.com")
    [(invite, to)] = net.invite(caller, "bob@example.com")
    assert to == callee
    via = invite.via
    assert f"{via.host.decode()}:{via.port}" == names[1]
    routes = recorded(invite)
    assert hosts(routes) == [names[1], names[0]]
    [(answer, back)] = net.answer(invite, callee)
    assert back == caller and recorded(answer) == routes
    assert net.inside(caller, routes[::-1], callee, method=method) == callee
    assert net.inside(callee, routes, caller, forth=False, method=method) == caller


def test_one_point_for_both_sides_is_recorded_once() -> None:
    net = Net(NEAR, FAR)
    here = net.points[0]
    net.register(Hop(here, "10.0.0.8", 5060), "bob@example.com")
    [(invite, _)] = net.invite(Hop(here, "10.0.0.9", 5060), "bob@example.com")
    assert hosts(recorded(invite)) == ["10.0.0.1:5060"]


def test_two_networks_with_the_same_private_contact_are_two() -> None:
    """10.7.7.7 behind either point: who is rung, who is answered, and where the dialog goes, each by its own point."""
    net = Net(NEAR, FAR)
    one, two = (Hop(point, "10.7.7.7", 5060) for point in net.points)
    net.register(one, "alice@example.com", "sip:phone@10.7.7.7:5060")
    net.register(two, "bob@example.org", "sip:phone@10.7.7.7:5060")
    [(invite, to)] = net.invite(one, "bob@example.org")
    assert to == two
    routes = recorded(invite)
    assert net.answer(invite, two)[0][1] == one
    assert net.inside(one, routes[::-1], two) == two
    assert net.inside(two, routes, one, forth=False) == one
    message = net.receive(
        one, "MESSAGE sip:bob@example.org SIP/2.0", "Via: SIP/2.0/UDP 10.7.7.7:5060;branch=z9hG4bKm",
        "Max-Forwards: 70",
        "From: <sip:alice@example.com>;tag=m", "To: <sip:bob@example.org>", "Call-ID: m", "CSeq: 1 MESSAGE",
    )  # fmt: skip
    assert [where for sent, where in message if isinstance(sent, Request)] == [two], (
        "not back to its sender: it is another"
    )


def test_a_contact_of_one_address_leads_where_it_was_registered_last() -> None:
    """RFC 3261 §10.3: the same URI is the same binding, and it moves to the network of the last REGISTER."""
    net = Net(NEAR, FAR)
    one, two = (Hop(point, "10.7.7.7", 5060) for point in net.points)
    net.register(one, "bob@example.org", "sip:phone@10.7.7.7:5060")
    net.register(two, "bob@example.org", "sip:phone@10.7.7.7:5060", cseq=2)
    assert [to for _, to in net.invite(Hop(net.points[0], "10.7.7.9", 5060), "bob@example.org")] == [two]


def test_two_phones_of_one_address_with_the_same_contact_in_two_networks_both_ring() -> None:
    """RFC 5626 §6: their instances tell them apart, each is called in its own network."""
    net = Net(NEAR, FAR)
    hops = [Hop(point, "10.7.7.7", 5060) for point in net.points]
    for number, hop in enumerate(hops):
        binding = Binding(
            "bob@example.org", b"sip:phone@10.7.7.7:5060", net.engine.wall + 600, instance=f"urn:uuid:{number}",
            call_id=b"%d" % number, point=hop.point.name,
        )  # fmt: skip
        net.location.save("bob@example.org", [binding], net.engine.wall)
    assert [to for _, to in net.invite(Hop(net.points[0], "10.7.7.9", 5060), "bob@example.org")] == hops


# --- sockets bound to all addresses -----------------------------------------------------------------------------------


def everywhere(**more: Any) -> ListenPoint:
    return ListenPoint("192.0.2.1", 5060, bound="0.0.0.0", everywhere=True, **more)


def test_an_address_that_was_asked_at_is_a_point_of_its_own() -> None:
    net = Net(everywhere())
    at = net.engine.network.point_at
    floating = at(0, "10.0.0.2")
    assert (floating.sent_by, floating.local, floating.index) == (b"10.0.0.2:5060", "10.0.0.2", 0)
    assert at(0, "10.0.0.2") is floating and at(0, "192.0.2.1") is net.points[0]
    assert at(0, "224.0.1.75") is net.points[0], "nothing is sent from there"
    caller, callee = Hop(at(0, "10.8.0.1"), "10.8.0.9", 5060), Hop(floating, "10.0.0.9", 5060)
    net.register(callee, "bob@example.com")
    [(invite, to)] = net.invite(caller, "bob@example.com")
    assert to == callee and hosts(recorded(invite)) == ["10.0.0.2:5060", "10.8.0.1:5060"]


def test_a_binding_finds_its_point_again_after_a_restart() -> None:
    """Also one of an address that nobody has been asked at since; without that socket it is reached as it can be."""
    net = Net(everywhere())
    net.register(Hop(net.engine.network.point_at(0, "10.0.0.2"), "10.0.0.9", 5060), "bob@example.com")
    name = next(iter(net.location)).point
    assert name == "udp:10.0.0.2:5060"
    again = Net(everywhere()).engine.network.point_called(name)
    assert again is not None and again.local == "10.0.0.2"
    assert Net(NEAR).engine.network.point_called(name) is None


def test_an_advertised_name_is_shown_whatever_was_asked() -> None:
    net = Net(everywhere(advertised=True))
    point = net.engine.network.point_at(0, "10.0.0.2")
    assert (point.sent_by, point.local) == (b"192.0.2.1:5060", "10.0.0.2")


def test_without_a_binding_the_systems_routes_say_which_point_leads_there() -> None:
    ways = {"203.0.113.5": "10.8.0.1", "203.0.113.6": "198.51.100.1"}
    net = Net(NEAR, FAR, source_of=lambda address: ways.get(address, ""))
    found: list[Hop | None] = []
    for host in (b"203.0.113.5", b"203.0.113.6", b"203.0.113.7"):
        net.engine.network.resolve(parse_uri(b"sip:" + host), net.points[0], found.append)
    assert [hop.point.host for hop in found if hop] == ["10.8.0.1", "10.0.0.1", "10.0.0.1"], "ours, not ours, no way"


# --- connections ------------------------------------------------------------------------------------------------------


def stream() -> tuple[Net, Hop]:
    net = Net(NEAR, STREAM)
    return net, Hop(net.points[1], "10.0.0.9", 40001, 7)


def test_a_call_to_a_phone_on_a_connection_leaves_by_it_and_is_sent_once() -> None:
    net, bob = stream()
    net.register(bob, "bob@example.com", "sip:bob@192.168.1.2:5060;transport=tcp")
    caller = Hop(net.points[0], "10.0.0.8", 5060)
    [(invite, to)] = net.invite(caller, "bob@example.com")
    assert to == bob and invite.via.transport == b"TCP"
    assert not [message for message, _ in net.run(20) if isinstance(message, Request)], "timer A does not run"
    routes = recorded(invite)
    assert routes[0].endswith("@10.0.0.1:5061;transport=tcp;lr>")
    net.answer(invite, bob)
    assert net.inside(caller, routes[::-1], Hop(net.points[1], "192.168.1.2", 5060)) == bob, "over the connection"
    assert net.inside(bob, routes, caller, forth=False) == caller


def test_a_refused_call_is_refused_once_over_a_connection() -> None:
    """Timer G is not started, timer H is (table 4)."""
    net, alice = stream()
    net.register(Hop(net.points[0], "10.0.0.8", 5060), "bob@example.com")
    [(invite, callee)] = net.invite(alice, "bob@example.com")
    answers = [to for sent, to in net.answer(invite, callee, 486) if isinstance(sent, Response)]
    assert answers == [alice] and net.run(31) == []


@pytest.mark.parametrize("ringing", [False, True])
def test_a_lost_connection_fails_what_is_under_way_and_removes_what_was_registered(ringing: bool) -> None:
    net, bob = stream()
    net.register(bob, "bob@example.com")
    other = Hop(net.points[1], "10.0.0.9", 40002, 8)
    net.register(other, "carol@example.com")
    caller = Hop(net.points[0], "10.0.0.8", 5060)
    [(invite, _)] = net.invite(caller, "bob@example.com")
    if ringing:
        net.answer(invite, bob, 180)
    net.engine.connection_lost(bob, net.now)
    [(answer, to)] = net.sent()
    assert isinstance(answer, Response) and (answer.status, to) == (480, caller)
    assert [binding.aor for binding in net.location] == ["carol@example.com"]
    [gone] = [facts for event, facts in net.told if event == "unregistered"]
    assert (gone["aor"], gone["reason"]) == ("bob@example.com", "connection closed")
    assert not net.engine.layer.by_connection
    net.engine.connection_lost(bob, net.now)
    assert net.sent() == [] and net.engine.counters["connection.lost"] == 2


def test_a_phone_that_moves_is_told_with_both_contacts() -> None:
    net, bob = stream()
    old, new = (f"sip:bob@{host}:5060;pn-provider=fcm;pn-param=p;pn-prid=tok" for host in ("10.0.0.7", "10.0.0.9"))
    net.register(bob, "bob@example.com", old)
    net.register(bob, "bob@example.com", old, cseq=2)
    net.register(bob, "bob@example.com", new, cseq=3)
    told = [(event, facts["contact"][:16], facts.get("reason")) for event, facts in net.told if "registered" in event]
    assert told == [
        ("registered", "sip:bob@10.0.0.7", None),
        ("registered", "sip:bob@10.0.0.9", None),
        ("unregistered", "sip:bob@10.0.0.7", "replaced"),
    ]


def test_a_phone_that_has_come_back_over_a_new_connection_stays() -> None:
    net, bob = stream()
    net.register(bob, "bob@example.com", "sip:bob@192.168.1.2;transport=tcp")
    net.register(bob._replace(port=40002, connection=9), "bob@example.com", "sip:bob@192.168.1.2;transport=tcp", cseq=2)
    net.engine.connection_lost(bob, net.now)
    assert [binding.connection for binding in net.location] == [9]


# --- events from outside ----------------------------------------------------------------------------------------------


def test_an_event_from_outside_reaches_who_listens() -> None:
    net, heard = Net(NEAR), []
    net.engine.bus.subscribe("unregistered", lambda event, _: heard.append(event))
    event = Event("unregistered", {"aor": "bob@example.com", "contact": "sip:bob@x", "reason": "expired"})
    net.engine.receive_event(event, 3.0)
    assert (heard[0].attributes, heard[0].time) == (event.attributes, 3.0)


def test_a_point_is_what_it_is_called() -> None:
    assert Point(0, "WSS", "edge.example.com", 443).via == b"Via: SIP/2.0/WSS edge.example.com:443;branch="
    assert Point(0, "udp", "::1", 5060).uri == b"sip:[::1]:5060"
