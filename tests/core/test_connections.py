"""Calls over connections, in memory: where they leave, what happens when a connection is cut in each state of a call,
`sips:`, long requests, responses whose connection is gone (RFC 3261 §18, RFC 5658, RFC 7118)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import pytest
from test_next_hops import ALL, BACKUP, FIRST, SECOND, TCP, TLS, Stage

from orchestrator.sip.message import Request
from orchestrator.sip.points import ListenPoint
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import PROXY

WS, WSS = ListenPoint("10.0.0.1", 8080, "ws"), ListenPoint("10.0.0.1", 8443, "wss")
EVERY = (ListenPoint(*PROXY), TCP, TLS, WS, WSS)
BOB = "sip:bob@example.com"
FLOW = """\
flowlang: 1
flows:
  call:
    on: invite
    do:
      - relay: {to: registered, ring: 20s}
        on: {busy: [reply: 486], else: [reply: 480]}
"""


class Line(Stage):
    """alice calls bob; both speak over `transport`, unless `alice` says something else."""

    def __init__(
        self, transport: str = "tcp", alice: str = "", flows: str = "", contact: str = "", listens: bool = True
    ) -> None:
        super().__init__({}, flows, points=EVERY, trust=ALL)
        self.alice = self.world.peer("alice", "10.0.0.2", 5060, alice or transport, listens)
        self.bob = self.world.peer("bob", "10.0.0.3", 5060, transport, listens=False)
        ask = self.bob.register("bob@example.com", contact or self.bob.contact)
        self.run()
        assert ask.statuses == [200]
        self.bob.received.clear()

    def inside(self, sender: Peer, method: str, ask: Ask, to_tag: str, cseq: int = 2) -> Ask:
        """A request of alice in the dialog of `ask`."""
        answer = ask.responses[-1]
        routes = [f"Route: <{(route.uri or b'').decode()}>" for route in reversed(answer.record_routes())]
        target = (answer.contacts()[0].uri or b"").decode()
        call = answer.call_id.decode()
        to = f"<{BOB}>;tag={to_tag}"
        return sender.ask(method, target, *routes, to=to, call_id=call, cseq=cseq)

    def acknowledge(self, ask: Ask) -> None:
        self.inside(self.alice, "ACK", ask, "bob", cseq=1)
        self.run()


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_a_call_goes_over_the_connection_that_registered_and_its_dialog_too(transport: str) -> None:
    contact = "" if transport in ("tcp", "tls") else f"<sip:bob@x7f3.invalid;transport={transport}>"
    line = Line(transport, alice="udp", contact=contact)
    ask = line.call(BOB)
    invite = line.bob.requests("INVITE")[0]
    assert invite.via.transport == transport.upper().encode()
    near, far = (bytes(route.parsed).decode() for route in invite.record_routes())
    assert re.fullmatch(rf"sip:[0-9a-f]+@10\.0\.0\.1:\d+;transport={transport};lr", near)
    assert re.fullmatch(r"sip:[0-9a-f]+@10\.0\.0\.1:5060;lr", far)
    line.run(20.0)
    assert line.bob.heard == ["INVITE"], "nothing is repeated where nothing is lost"
    line.bob.answer(invite, 200, contact=contact or None)
    line.run()
    line.acknowledge(ask)
    bye = line.inside(line.alice, "BYE", ask, "bob")
    line.run()
    assert line.bob.heard == ["INVITE", "ACK", "BYE"] and line.bob.requests("BYE")[0].via.transport != b"UDP"
    line.bob.answer(line.bob.requests("BYE")[0], 200)
    line.run()
    assert bye.statuses == [200]
    assert len(line.world.streams.connections) == 1, "nobody was connected to"


def test_timers_of_repetitions_are_nought_where_nothing_is_lost() -> None:
    """RFC 3261 table 4: D, I, J and K are 0 for reliable transports."""
    line = Line()
    ask = line.call(BOB)
    line.bob.answer(line.bob.requests("INVITE")[0], 486)
    line.run()
    ask.acknowledge()
    line.run(0.01)
    assert len(line.world.engine.layer) == 0


def test_a_registration_ends_with_its_connection() -> None:
    line = Line()
    news: list[tuple[str, object]] = []
    line.world.engine.on_news = lambda event, facts: news.append((event, facts.get("reason")))
    line.world.cut(line.bob)
    line.run()
    assert "unregistered" in [event for event, _ in news] and len(line.world.location) == 0
    assert line.call(BOB).statuses == [480]


# --- a cut in each state of a call ------------------------------------------------------------------------------------


def _sent(line: Line) -> Ask:
    return line.call(BOB)


def _ringing(line: Line) -> Ask:
    ask = _sent(line)
    line.bob.answer(line.bob.requests("INVITE")[0], 180)
    line.run()
    return ask


def _answered(line: Line) -> Ask:
    ask = _ringing(line)
    line.bob.answer(line.bob.requests("INVITE")[0], 200)
    line.run()
    return ask


def _acknowledged(line: Line) -> Ask:
    ask = _answered(line)
    line.acknowledge(ask)
    return ask


def _refused(line: Line) -> Ask:
    ask = _ringing(line)
    line.bob.answer(line.bob.requests("INVITE")[0], 486)
    line.run()
    return ask


def _cancelled(line: Line) -> Ask:
    ask = _ringing(line)
    ask.cancel()
    line.run()
    return ask


def _cancelled_early(line: Line) -> Ask:
    ask = _sent(line)
    ask.cancel()
    line.run()
    return ask


def _hanging_up(line: Line) -> Ask:
    ask = _acknowledged(line)
    line.inside(line.alice, "BYE", ask, "bob")
    line.run()
    return ask


def _changing(line: Line) -> Ask:
    ask = _acknowledged(line)
    line.inside(line.alice, "INVITE", ask, "bob")
    line.run()
    return ask


STATES: dict[str, Callable[[Line], Ask]] = {
    "sent": _sent, "ringing": _ringing, "answered": _answered, "acknowledged": _acknowledged, "refused": _refused,
    "cancelled": _cancelled, "cancelled early": _cancelled_early, "hanging up": _hanging_up, "changing": _changing,
}  # fmt: skip
CUTS = {"caller": ("alice",), "callee": ("bob",), "both": ("alice", "bob")}


@pytest.mark.parametrize(
    ("state", "cut", "flows", "listens"),
    list(product(STATES, CUTS, ("", FLOW), (True, False))),
    ids=lambda value: "" if value == "" else "flow" if value == FLOW else str(value),
)
def test_a_connection_is_cut_in_each_state_of_a_call(state: str, cut: str, flows: str, listens: bool) -> None:
    """One final answer for each request whose sender can be reached, and nothing is left."""
    line = Line(flows=flows, listens=listens)
    ask = STATES[state](line)
    line.world.cut(*(getattr(line, name) for name in CUTS[cut]))
    line.run(10.0)
    line.run(300.0)
    finals = [
        response for response in line.alice.received if not isinstance(response, Request) and response.status >= 200
    ]
    by_request = {(response.via.branch, response.cseq_method): set[int]() for response in finals}
    for response in finals:
        by_request[response.via.branch, response.cseq_method].add(response.status)
    assert all(len(statuses) == 1 for statuses in by_request.values()), by_request
    if "alice" not in CUTS[cut] or listens:
        assert {status for status in ask.statuses if status >= 200}, "the INVITE has its answer"
    line.run(12 * 3600.0)
    assert not any(line.world.leftovers().values()), line.world.leftovers()
    layer = line.world.engine.layer
    assert layer.unanswered == 0 and not layer.by_connection and not layer.octets


@pytest.mark.parametrize("ringing", [False, True])
def test_a_trunk_that_is_cut_leads_to_the_next_server(ringing: bool) -> None:
    records = {("_sip._tcp.carrier.example", "SRV"): BACKUP["_sip._udp.carrier.example", "SRV"]}
    stage = Stage({**records, **{key: value for key, value in BACKUP.items() if key[1] == "A"}})
    first, second = stage.server(FIRST, "tcp"), stage.server(SECOND, "tcp")
    ask = stage.call()
    assert first.heard == ["INVITE"]
    if ringing:
        first.answer(first.requests("INVITE")[0], 180)
        stage.run()
    stage.world.cut(first)
    stage.run()
    assert second.heard == ["INVITE"], "a connection that we have opened is known by where it leads"
    second.answer(second.requests("INVITE")[0], 486)
    stage.run()
    assert stage.over(ask) == [486]


def test_a_response_goes_where_the_via_leads_when_its_connection_is_gone() -> None:
    line = Line()
    ask = _ringing(line)
    line.world.cut(line.alice)
    line.bob.answer(line.bob.requests("INVITE")[0], 200)
    line.run()
    assert ask.statuses[-1] == 200
    assert line.world.streams.connections[-1].remote == line.alice.address, "a new connection to her port"
    assert line.world.engine.counters["response.new_connection"] == 1


def test_a_request_in_a_dialog_goes_where_the_contact_leads_when_the_connection_is_gone() -> None:
    line = Line()
    ask = _acknowledged(line)
    invite = line.bob.requests("INVITE")[0]
    line.world.cut(line.alice)
    line.run()
    routes = [f"Route: <{(route.uri or b'').decode()}>" for route in invite.record_routes()]
    sender = "<sip:bob@example.com>;tag=bob"
    bye = line.bob.ask(
        "BYE", line.alice.contact.strip("<>"), *routes, to="<sip:alice@example.com>;tag=alice", sender=sender,
        call_id=invite.call_id.decode(),
    )  # fmt: skip
    line.run()
    assert line.alice.requests("BYE"), "she takes connections where her Contact leads"
    line.alice.answer(line.alice.requests("BYE")[0], 200)
    line.run()
    assert bye.statuses == [200] and ask.statuses[-1] == 200


# --- sips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "alice", "statuses"),
    [("tls", "tls", [100]), ("wss", "tls", [100]), ("tcp", "tls", [100, 480]), ("udp", "tls", [100, 480])],
)
def test_sips_is_tls_on_every_hop(transport: str, alice: str, statuses: list[int]) -> None:
    """RFC 3261 §26.2.2, RFC 5630 §5.3: what cannot be reached so is 480."""
    line = Line(transport, alice)
    ask = line.call("sips:bob@example.com")
    assert ask.statuses == statuses
    if len(statuses) == 1:
        routes = [bytes(route.parsed) for route in line.bob.requests("INVITE")[0].record_routes()]
        assert all(route.startswith(b"sips:") and b"transport=tls" not in route for route in routes)
        line.bob.answer(line.bob.requests("INVITE")[0], 200)
        line.run()
        line.acknowledge(ask)
        assert line.bob.heard[-1] == "ACK", "and its Routes are ours"


def test_a_sips_uri_leaves_by_tls_or_not_at_all() -> None:
    stage = Stage({})
    secure = stage.server(("10.0.1.1", 5061), "tls")
    stage.call("sips:x@10.0.1.1")
    assert secure.heard == ["INVITE"] and secure.requests()[0].via.transport == b"TLS"
    assert Stage({}, points=(ListenPoint(*PROXY), TCP)).call("sips:x@10.0.1.1").statuses == [100, 480]
    assert stage.call("sips:x@10.0.1.1;transport=udp").statuses == [100, 480]


# --- long requests ----------------------------------------------------------------------------------------------------

LONG = b"v=0\r\n" + b"a=x\r\n" * 300


def test_a_long_request_goes_over_tcp_where_that_is_taken() -> None:
    """RFC 3261 §18.1.1."""
    stage = Stage({})
    server = stage.server(("10.0.1.1", 5060), "tcp")
    ask = stage.call("sip:x@10.0.1.1", LONG)
    invite = server.requests("INVITE")[0]
    assert invite.via.transport == b"TCP" and invite.body == LONG
    assert b";transport=tcp" in bytes(invite.record_routes()[0].parsed)
    server.answer(invite, 486)
    stage.run()
    assert stage.over(ask) == [486]


def test_a_long_request_goes_by_udp_where_tcp_is_refused_and_the_next_one_at_once() -> None:
    stage = Stage({})
    server = stage.server(("10.0.1.1", 5060))
    counters = stage.world.engine.counters
    for round in (1, 2):
        ask = stage.call("sip:x@10.0.1.1", LONG)
        assert server.requests("INVITE")[-1].via.transport == b"UDP"
        assert (counters["transport.failed"], counters["request.long_datagram"]) == (1, round)
        server.answer(server.requests("INVITE")[-1], 486)
        stage.run()
        ask.acknowledge()


@pytest.mark.parametrize(
    ("uri", "transport"),
    [("sip:x@10.0.1.1;transport=udp", b"UDP"), ("sip:x@both.example", b"TCP"), ("sip:x@only.example", b"UDP")],
)
def test_the_uri_and_the_domain_say_whether_a_long_request_may_go_over_tcp(uri: str, transport: bytes) -> None:
    server = BACKUP["_sip._udp.carrier.example", "SRV"][:1]
    records = {
        ("_sip._udp.both.example", "SRV"): server, ("_sip._tcp.both.example", "SRV"): server,
        ("_sip._udp.only.example", "SRV"): server, ("a.carrier.example", "A"): ("10.0.1.1",),
    }  # fmt: skip
    stage = Stage(records)
    by_udp = stage.server(("10.0.1.1", 5060))
    by_tcp: list[bytes] = []
    stage.world.streams.listening["tcp", ("10.0.1.1", 5060)] = ("10.0.9.9", 1)
    stage.world.attach(("10.0.9.9", 1), lambda data, source: by_tcp.append(data))
    stage.call(uri, LONG)
    assert (by_tcp[:1] != [], by_udp.heard[:1] != []) == (transport == b"TCP", transport == b"UDP")


def test_nobody_connects_to_a_phone_that_is_reached_where_it_was_seen() -> None:
    stage = Stage({}, trust=())
    phone = stage.world.peer("bob", "203.0.113.9", 4000)
    ask = phone.ask("REGISTER", "sip:example.com", "Contact: <sip:bob@192.168.1.2>", to="<sip:bob@example.com>")
    stage.run()
    assert ask.statuses == [200]
    stage.call(BOB, LONG)
    assert phone.requests("INVITE")[0].via.transport == b"UDP"
    assert stage.world.engine.counters["request.long_datagram"] == 1


def test_our_own_bye_reaches_a_party_whose_connection_is_gone() -> None:
    """The end of a call that has lasted too long, over a new connection where the Contact leads."""
    line = Line(flows=FLOW)
    ask = _acknowledged(line)
    line.world.cut(line.alice)
    line.run(12 * 3600.0)
    assert [request.cseq for request in line.alice.requests("BYE")] and ask.statuses[-1] == 200


def test_phones_of_the_test_kit_speak_over_streams_too() -> None:
    line = Line("udp")
    carol = line.world.phone("carol@example.com", "10.0.0.7", transport="ws", listens=False)
    carol.register()
    line.run()
    assert carol.registered == [200]
    line.call("sip:carol@example.com")
    [call] = carol.calls
    assert call.state == "ringing" and carol.requests[0].via.transport == b"WS"
    line.world.cut(carol)
    line.run()
    assert len(line.world.location.bindings("carol@example.com", line.world.engine.wall)) == 0
