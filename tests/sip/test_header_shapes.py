"""Messages with the same headers in the same order share their shape, and each change of headers gives another one."""

from __future__ import annotations

import pytest

from orchestrator.sip import header_shapes
from orchestrator.sip.header_shapes import Shape, shape_of
from orchestrator.sip.message import Request, Response, parse_message
from orchestrator.sip.session_timer import complete

HEADERS = (
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", b"f: <sip:a@example.com>;tag=1", b"To: <sip:b@example.com>;tag=2",
    b"Call-ID: c1", b"CSeq: 1 INVITE", b"X-Own: a", b"l: 0",
)  # fmt: skip


def octets(start: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((start, *HEADERS, *headers)) + b"\r\n\r\n"


def request(*headers: bytes) -> Request:
    message = parse_message(octets(b"INVITE sip:bob@example.com SIP/2.0", *headers))
    assert isinstance(message, Request)
    return message


def response(*headers: bytes) -> Response:
    message = parse_message(octets(b"SIP/2.0 200 OK", *headers))
    assert isinstance(message, Response)
    return message


def test_messages_of_one_make_share_it() -> None:
    one, other = request(b"Max-Forwards: 70"), request(b"Max-Forwards: 3")
    assert one.shape is other.shape
    assert one.shape is not request(b"Route: <sip:a>", b"Max-Forwards: 70").shape


def test_it_says_what_a_look_at_the_names_would() -> None:
    shape = Shape((b"to", b"via", b"via", b"record-route", b"timestamp", b"route", b"route", b"x-own"))
    assert (shape.to, shape.via, shape.vias, shape.route, shape.routes) == (0, 1, 2, 5, 2)
    assert (shape.hops, shape.length) == (-1, -1)
    assert shape.copied == (0, 1, 2)
    assert shape.copied_dialog == (0, 1, 2, 3)
    assert shape.copied_trying == (0, 1, 2, 4)
    assert not shape.claims
    assert Shape((b"via", b"p-asserted-identity")).claims


def test_a_change_of_headers_is_that_of_one_message() -> None:
    one, other = request(b"Max-Forwards: 70", b"Supported: a"), request(b"Max-Forwards: 70", b"Supported: b")
    one.drop_header(b"x-own")
    one.add_line(b"expires", b"Expires: 1")
    assert one.names == (*(name for name in other.names if name != b"x-own"), b"expires")
    assert len(one.lines) == len(one.names)
    assert one.get(b"expires") == b"1"
    assert other.has(b"x-own")
    assert not other.has(b"expires")


def test_an_answer_that_is_completed_leaves_others_alone() -> None:
    one, other = response(), response()
    complete(one, 1800)
    assert one.get(b"session-expires") == b"1800;refresher=uac"
    assert one.get(b"require") == b"timer"
    assert not other.has(b"require")


def test_strangers_cannot_grow_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_shapes, "_known", {})
    for number in range(header_shapes._MOST + 10):
        shape_of((b"via", b"x-%d" % number))
    assert len(header_shapes._known) <= header_shapes._MOST


def test_a_huge_shape_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_shapes, "_known", {})
    names = (b"via", b"x" * 60_000)
    assert shape_of(names).names == names
    assert not header_shapes._known
