"""By which names a Route means us, strict routers before us, and headers of several lines (RFC 3261 §16.4, §7.3.1)."""

from __future__ import annotations

import pytest
from test_request_routes import BOB, Stage

from orchestrator.core.request_view import RequestView
from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.uri import parse_uri
from orchestrator.testing.world import World

ADVERTISED = ListenPoint(
    "sip.example.net", 5070, bound="10.0.0.1", aliases=("10.0.0.1", "2001:db8::1"), bound_port=5062
)


@pytest.mark.parametrize(
    ("uri", "in_dialog", "preloaded"),
    [
        ("sip:sip.example.net:5070;lr", True, True),  # as advertised
        ("sip:sip.example.net:5062;lr", True, True),  # its socket's port
        ("sip:sip.example.net;lr", True, True),  # SRV records say which port
        ("sip:SIP.Example.NET;transport=udp;lr", True, True),
        ("sip:sip.example.net:5060;lr", False, False),  # another server there
        ("sip:10.0.0.1:5062;lr", True, True),
        ("sip:10.0.0.1:5070;lr", True, True),
        ("sip:10.0.0.1:5060;lr", False, False),
        ("sip:10.0.0.1;lr", False, True),  # perhaps another server's, unless a phone was told so
        ("sip:[2001:db8::1]:5062;lr", True, True),
        ("sip:[2001:0DB8:0:0:0:0:0:1]:5062;lr", True, True),
        ("sip:[::ffff:10.0.0.1]:5062;lr", True, True),
        ("sip:[2001:db8::2]:5062;lr", False, False),
        ("sip:example.com;lr", True, True),  # a domain we serve
        ("sip:EXAMPLE.COM:5062;lr", True, True),
        ("sip:second.example;lr", True, True),
        ("sip:example.com:5080;lr", False, False),
        ("sip:sub.example.com;lr", False, False),
        ("sip:203.0.113.7;lr", False, False),
        ("tel:+4930123", False, False),
    ],
)
def test_names_by_which_a_route_means_us(uri: str, in_dialog: bool, preloaded: bool) -> None:
    network = World(points=(ADVERTISED,), domains=("example.com", "second.example")).engine.network
    parsed = parse_uri(uri.encode())
    assert network.is_own_route(parsed, preloaded=False) is in_dialog
    assert network.is_own_route(parsed, preloaded=True) is preloaded


@pytest.mark.parametrize(
    "route",
    [
        "<sip:example.com;lr>",
        "<sip:EXAMPLE.com:5060;lr>",
        "sip:example.com;lr=",
        "<sip:10.0.0.1>",
        "<sip:example.com;lr;>",
    ],
)
@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "OPTIONS"])
def test_an_outbound_proxy_given_by_name(method: str, route: str) -> None:
    stage = Stage()
    stage.bob.register("bob@example.com")
    stage.world.run()
    uri = BOB if method == "INVITE" else "sip:example.com"
    asked = stage.alice.ask(method, uri, f"Route: {route}")
    stage.world.run()
    assert asked.statuses == ([100] if method == "INVITE" else [200])
    if method == "INVITE":
        assert stage.bob.requests("INVITE")[0].routes() == []


# --- strict routing (§16.4, first paragraph) --------------------------------------------------------------------------

TARGET = "sip:bob@10.0.0.11"


@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE", "ACK"])
@pytest.mark.parametrize("shape", ["{uri}", "{bare}", "{uri};transport=udp"])
@pytest.mark.parametrize("routes", [f"<{TARGET}>", f'"bob" <{TARGET}>;x=1', TARGET])
def test_a_strict_router_puts_our_record_route_in_the_request_uri(method: str, shape: str, routes: str) -> None:
    stage = Stage()
    ours = stage.begin().strip("<>")
    uri = shape.format(uri=ours, bare=ours.partition(";")[0])
    stage.send(stage.alice, method, uri, routes)
    got = stage.bob.requests(method)[-1]
    assert (got.uri, got.routes()) == (TARGET.encode(), [])


def test_from_the_other_side_and_with_proxies_between() -> None:
    stage = Stage()
    ours = stage.begin().strip("<>")
    stage.send(stage.bob, "INFO", ours, "<sip:alice@10.0.0.2>", callee=True)
    assert stage.alice.requests("INFO")[0].uri == b"sip:alice@10.0.0.2"
    edge = stage.world.peer("edge", "10.0.0.5")
    asked = stage.alice.ask(
        "INFO", ours, "Route: <sip:10.0.0.5;lr>", f"Route: <sip:x@10.0.0.6;lr>, <{TARGET}>",
        sender="<sip:alice@example.com>;tag=alice", to=f"<{BOB}>;tag=bob", call_id="call", cseq=3,
    )  # fmt: skip
    stage.world.run()
    assert asked.statuses == []
    [passed] = edge.requests("INFO")
    assert passed.uri == TARGET.encode()
    assert [bytes(route.parsed) for route in passed.routes()] == [b"sip:10.0.0.5;lr", b"sip:x@10.0.0.6;lr"]


@pytest.mark.parametrize("uri", ["sip:0123456789abcdef@10.0.0.1:5060;lr", "sip:10.0.0.1:5060;lr", "sip:bob@10.0.0.1"])
def test_what_we_have_not_recorded_is_not_undone(uri: str) -> None:
    stage = Stage()
    stage.begin()
    assert stage.send(stage.eve, "BYE", uri, "<sip:victim@203.0.113.7>").statuses == [403]
    assert stage.victim.received == []


# --- several lines of one header --------------------------------------------------------------------------------------

SIP_REASON, Q850 = 'SIP ;cause=200 ;text="Call completed elsewhere"', "Q.850;cause=26"


@pytest.mark.parametrize("lines", [[SIP_REASON, Q850], [Q850, SIP_REASON], [f"{Q850}, {SIP_REASON}"], [Q850], []])
def test_every_reason_of_a_cancel_reaches_the_callee(lines: list[str]) -> None:
    stage = Stage()
    stage.bob.register("bob@example.com")
    stage.world.run()
    call = stage.alice.ask("INVITE", BOB)
    stage.world.run()
    stage.bob.answer(stage.bob.requests("INVITE")[0], 180)
    stage.world.run()
    call.cancel(*(f"Reason: {line}" for line in lines))
    stage.world.run()
    [cancel] = stage.bob.requests("CANCEL")
    assert [value.decode() for value in cancel.get_all(b"reason")] == lines


def test_flows_see_several_lines_as_one_list() -> None:
    stage = Stage()
    request = stage.alice.ask("INVITE", BOB, "History-Info: <sip:a@x>;index=1", "History-Info: <sip:b@x>;index=2")
    parsed = parse_message(request.octets)
    assert isinstance(parsed, Request)
    view = RequestView(stage.world.engine, parsed, ("10.0.0.2", 5060))
    assert view["headers"]["history-info"] == "<sip:a@x>;index=1, <sip:b@x>;index=2"
