"""Which Route values mean us: the entry we wrote ourselves and every other way to write it (RFC 3261 §16.4)."""

from __future__ import annotations

import pytest

from orchestrator.core.engine import Engine
from orchestrator.core.settings import CoreSettings, ListenPoint
from orchestrator.flow.program import Program
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request, parse_message
from orchestrator.store.memory import MemoryStore

OURS = b"<sip:192.0.2.1:5060;lr>"
NEXT = b"<sip:192.0.2.99;lr>"


@pytest.fixture
def engine() -> Engine:
    points = (ListenPoint("192.0.2.1", 5060, aliases=("198.51.100.1",)), ListenPoint("192.0.2.2", 5070))
    return Engine(CoreSettings(points=points), Location(MemoryStore()), Program())


def bye(*routes: bytes) -> Request:
    request = parse_message(
        b"\r\n".join(
            (
                b"BYE sip:bob@192.0.2.20:5062 SIP/2.0",
                b"Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKr",
                b"Max-Forwards: 70",
                *(b"Route: " + route for route in routes),
                b"From: <sip:alice@192.0.2.10>;tag=a",
                b"To: <sip:bob@192.0.2.1>;tag=b",
                b"Call-ID: routes",
                b"CSeq: 2 BYE",
                b"Content-Length: 0\r\n\r\n",
            )
        )
    )
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize(
    ("routes", "drop", "toward"),
    [
        ((), 0, None),
        ((OURS,), 1, None),
        ((b"  " + OURS + b" ",), 1, None),
        ((b"<sip:192.0.2.2:5070;lr>",), 1, None),
        ((b'"us" <SIP:192.0.2.1;lr;x=1>',), 1, None),
        ((b"<sip:198.51.100.1:5060;lr>",), 1, None),
        ((OURS, OURS), 2, None),
        ((OURS, NEXT), 1, NEXT),
        ((OURS + b", " + NEXT,), 1, NEXT),
        ((NEXT,), 0, NEXT),
        ((NEXT, OURS), 0, NEXT),
    ],
)
def test_our_entries_come_off_the_top(
    engine: Engine, routes: tuple[bytes, ...], drop: int, toward: bytes | None
) -> None:
    route = engine.requests._route(bye(*routes))
    assert route.drop == drop
    assert (bytes(route.toward) if route.toward else None) == (toward.strip(b"<>") if toward else None)


def test_what_we_record_is_what_we_know_again(engine: Engine) -> None:
    for transport in range(2):
        line = engine.network.record_route(transport)
        assert line.removeprefix(b"Record-Route: ") in engine.network.own_routes
