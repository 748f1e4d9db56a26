"""Requests that wait are folded: they share what they have in common, and say the same as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sip import intern
from orchestrator.sip.intern import Folds
from orchestrator.sip.message import Request, parse_message

USER_AGENT = b"User-Agent: Test Phone 1.0"


def invite(number: int, *headers: bytes, body: bytes = b"") -> Request:
    message = parse_message(
        b"\r\n".join(
            (
                b"INVITE sip:bob@example.com SIP/2.0",
                b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%d" % number,
                b"Max-Forwards: 70",
                b"From: <sip:alice@example.com>;tag=%d" % number,
                b"To: <sip:bob@example.com>",
                b"Call-ID: c%d" % number,
                b"CSeq: 1 INVITE",
                *headers,
                b"Content-Length: %d\r\n\r\n" % len(body),
            )
        )
        + body
    )
    assert isinstance(message, Request)
    return message


def spoken(request: Request) -> list[object]:
    """All that it says."""
    via = request.via
    parts = [request.parsed_uri, request.from_, request.to, request.contacts(), request.vias()]
    return [
        list(request.names), list(request.lines), request.body, request.start_line, request.call_id, request.cseq,
        via.transport, via.host, via.port, via.branch, via.tail, repr(parts), request.get_all(b"x-folded"),
    ]  # fmt: skip


FOLDED = b"X-Folded: one\r\n two\r\n\tthree"


def test_a_folded_request_says_what_it_said_before() -> None:
    folds = Folds()
    request = invite(1, USER_AGENT, FOLDED, b"Contact: <sip:alice@192.0.2.1>", body=b"v=0\r\n\r\nmore\r\n")
    before = spoken(request)
    folds.fold(request)
    assert spoken(request) == before
    request.unfold()
    assert spoken(request) == before


def test_folded_requests_share_what_they_have_in_common() -> None:
    folds = Folds()
    first, second = invite(1, USER_AGENT), invite(2, USER_AGENT)
    folds.fold(first)
    folds.fold(second)
    assert first.names is second.names and len(folds) == 1
    same = [one is other for one, other in zip(first.lines, second.lines, strict=True)]
    assert [name for name, one in zip(first.names, same, strict=True) if one] == [b"max-forwards", b"user-agent"]
    assert second.get(b"user-agent") == b"Test Phone 1.0"


@pytest.mark.parametrize(
    "change",
    [
        lambda request: request.stamp_source(b"192.0.2.7", 5062),
        lambda request: request.drop_header(b"user-agent"),
        lambda request: request.add_line(b"x-more", b"X-More: 1"),
        lambda request: request.take_last_route(),
    ],
)
def test_a_folded_request_can_be_changed_and_no_other_is(change: Callable[[Request], None]) -> None:
    folds = Folds()
    route = b"Route: <sip:a.example.com;lr>, <sip:b.example.com;lr>"
    plain, folded, other = (invite(number, USER_AGENT, route) for number in (1, 1, 2))
    for request in (folded, other):
        folds.fold(request)
    before = spoken(other)
    change(plain)
    change(folded)
    assert spoken(folded) == spoken(plain)
    assert spoken(other) == before


def test_strangers_cannot_grow_the_table() -> None:
    folds = Folds()
    for number in range(intern._MOST + 10):
        folds.fold(invite(number, b"User-Agent: %d" % number))
    assert len(folds) <= intern._MOST
