"""Speaking to one side of a call as if we were the other (RFC 3261 §12): route sets, targets, sequence numbers."""

from __future__ import annotations

import pytest

from orchestrator.errors import MalformedMessage
from orchestrator.sip.dialog import Leg, callee_leg, caller_leg
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.points import Point
from orchestrator.sip.uri import Uri

HERE = Point(0, "udp", "10.0.0.1", 5060)

VIA = b"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKnew"


def is_own(uri: Uri) -> bool:
    return uri.host == b"10.0.0.1"


def invite(*headers: bytes, contact: bytes = b"Contact: <sip:alice@10.0.0.2;ob>") -> Request:
    lines = [
        b"INVITE sip:bob@10.0.0.3 SIP/2.0",
        b"Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1",
        *headers,
        b"Max-Forwards: 69",
        b'From: "Alice" <sip:alice@example.com>;tag=a',
        b"To: <sip:bob@example.com>",
        b"Call-ID: c1",
        b"CSeq: 314 INVITE",
        *([contact] if contact else []),
        b"Content-Length: 0\r\n\r\n",
    ]
    message = parse_message(b"\r\n".join(lines))
    assert isinstance(message, Request)
    return message


def answer(request: Request, *headers: bytes, contact: bytes = b"Contact: <sip:bob@10.0.0.3>") -> Response:
    message = parse_message(build_response(request, 200, "OK", b"b", [*headers, *([contact] if contact else [])]))
    assert isinstance(message, Response)
    return message


ROUTES = (
    b"Record-Route: <sip:10.0.0.52;lr>, <sip:10.0.0.51;lr>",
    b"Record-Route: <sip:10.0.0.1;lr>",
    b"Record-Route: <sip:10.0.0.41;lr>",
    b"Record-Route: <sip:10.0.0.40;lr>",
)
"""As the callee saw it: 40 nearest to the caller, then 41, then us, then 51 and 52 before the callee."""


@pytest.mark.parametrize(
    "contact",
    [
        b"Contact: <sip:alice@10.0.0.2>",
        b"m:Alice Liddell <sips:alice@[2001:db8::2]:5061;transport=tcp>",
        b"Contact: <sip:alice@10.0.0.2;ob;x=1>",
        b"Contact: <sip:alice@10.0.0.2>;expires=60",
        b'Contact: "A, <b>" <sip:alice@10.0.0.2>',
        b"Contact: sip:alice@10.0.0.2;expires=60",
        b"Contact: <sip:alice@10.0.0.2>, <sip:alice@10.0.0.9>",
        b"Contact: <sip:alice@10.0.0.2>\r\nContact: <sip:alice@10.0.0.9>",
        b"Contact: <sip:alice@10.0.0.2>\r\n ",
        b"Contact: <sip:a%6cice@10.0.0.2>",
    ],
)
def test_the_target_is_the_first_contact_however_it_is_written(contact: bytes) -> None:
    request = invite(contact=contact)
    leg = caller_leg(request, answer(request), HERE)
    assert leg is not None and leg.target == request.contacts()[0].uri


def test_headers_of_a_contact_are_no_part_of_the_target() -> None:
    """§19.1.1 table 1: a Request-URI has none."""
    request = invite(contact=b"Contact: <sip:alice@10.0.0.2;ob?Subject=x&Replaces=y>")
    leg = caller_leg(request, answer(request), HERE)
    assert leg is not None and leg.target == b"sip:alice@10.0.0.2;ob"
    leg.refresh(invite(contact=b"Contact: <sip:alice@10.0.0.9?a=b>"))
    assert leg.target == b"sip:alice@10.0.0.9"


@pytest.mark.parametrize("contact", [b"Contact: <sip:alice@10.0.0.2", b"Contact: <sip:alice@10.0.0.2:99999>"])
def test_a_malformed_contact_is_no_target(contact: bytes) -> None:
    request = invite(contact=contact)
    with pytest.raises(MalformedMessage):
        caller_leg(request, answer(request), HERE)


def read(octets: bytes) -> Request:
    message = parse_message(octets)
    assert isinstance(message, Request)
    return message


def routes(request: Request) -> list[bytes]:
    return [route.uri or b"" for route in request.routes()]


def test_to_the_callee_we_are_the_caller() -> None:
    leg = callee_leg(answer(invite(*ROUTES)), is_own, HERE)
    assert leg is not None
    bye = read(leg.request(b"BYE", VIA, [b"Reason: SIP;cause=200"]))
    assert bye.uri == b"sip:bob@10.0.0.3"
    assert (bye.from_.tag, bye.to.tag, bye.call_id, bye.cseq) == (b"a", b"b", b"c1", 315)
    assert routes(bye) == [b"sip:10.0.0.51;lr", b"sip:10.0.0.52;lr"], "from us on, nearest first"
    assert bytes(leg.first_hop()) == b"sip:10.0.0.51;lr"
    assert bye.get(b"reason") == b"SIP;cause=200"
    assert (bye.max_forwards, bye.body) == (70, b"")


def test_to_the_caller_we_are_the_callee() -> None:
    """The INVITE as it reached us: the proxies below us are not in it yet."""
    leg = caller_leg(invite(*ROUTES[2:]), answer(invite(*ROUTES)), HERE)
    assert leg is not None
    bye = read(leg.request(b"BYE", VIA))
    assert bye.uri == b"sip:alice@10.0.0.2;ob"
    assert (bye.from_.tag, bye.to.tag, bye.cseq) == (b"b", b"a", 1)
    assert routes(bye) == [b"sip:10.0.0.41;lr", b"sip:10.0.0.40;lr"]
    assert bye.to.display == b"Alice"


def test_without_proxies_the_contact_is_the_next_hop() -> None:
    leg = callee_leg(answer(invite()), is_own, HERE)
    assert leg is not None
    assert leg.routes == ()
    assert bytes(leg.first_hop()) == b"sip:bob@10.0.0.3"


def test_an_ack_uses_up_no_sequence_number() -> None:
    leg = callee_leg(answer(invite()), is_own, HERE)
    assert leg is not None
    sent = [read(leg.request(method, VIA)) for method in (b"ACK", b"INFO", b"BYE")]
    assert [(request.cseq, request.cseq_method) for request in sent] == [(314, b"ACK"), (315, b"INFO"), (316, b"BYE")]


def test_without_a_contact_there_is_nobody_to_speak_to() -> None:
    request = invite(contact=b"")
    assert caller_leg(request, answer(request), HERE) is None
    assert callee_leg(answer(invite(), contact=b""), is_own, HERE) is None


@pytest.mark.parametrize("contact", [b"Contact: <<sip:bob", b"Contact: sip:bob@10.0.0.3:0", b"Contact: <sip:b@x>,"])
def test_a_contact_that_cannot_be_read_is_an_error_of_the_message(contact: bytes) -> None:
    with pytest.raises(MalformedMessage):
        callee_leg(answer(invite(), contact=contact), is_own, HERE)


@pytest.mark.parametrize(
    ("method", "contact", "target"),
    [
        (b"INVITE", b"Contact: <sip:alice@10.0.0.9>", b"sip:alice@10.0.0.9"),
        (b"UPDATE", b"Contact: <sip:alice@10.0.0.9>", b"sip:alice@10.0.0.9"),
        (b"INVITE", b"", b"sip:alice@10.0.0.2"),
        (b"INVITE", b"Contact: <<", b"sip:alice@10.0.0.2"),
        (b"INFO", b"Contact: <sip:alice@10.0.0.9>", b"sip:alice@10.0.0.2"),
    ],
)
def test_a_target_refresh_moves_the_target(method: bytes, contact: bytes, target: bytes) -> None:
    leg = Leg(b"c1", b"", b"", b"sip:alice@10.0.0.2", (), 1, HERE)
    request = invite(contact=contact)
    request.method = request.cseq_method = method
    leg.refresh(request)
    assert leg.target == target
