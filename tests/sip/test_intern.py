"""Requests that wait share the lines they have in common, and say the same as before."""

from __future__ import annotations

from orchestrator.sip import intern
from orchestrator.sip.intern import SharedLines
from orchestrator.sip.message import Request, parse_message

USER_AGENT = b"User-Agent: Test Phone 1.0"


def invite(number: int, *headers: bytes) -> Request:
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
                b"Content-Length: 0\r\n\r\n",
            )
        )
    )
    assert isinstance(message, Request)
    return message


def test_lines_that_are_alike_become_one_object_and_nothing_else_changes() -> None:
    shared = SharedLines()
    first, second = invite(1, USER_AGENT), invite(2, USER_AGENT)
    before = [list(request.lines) for request in (first, second)]
    shared.share(first)
    shared.share(second)
    assert [first.lines, second.lines] == before
    same = [one is other for one, other in zip(first.lines, second.lines, strict=True)]
    assert [name for name, one in zip(first.names, same, strict=True) if one] == [
        b"max-forwards", b"user-agent", b"content-length",
    ]  # fmt: skip
    assert second.get(b"user-agent") == b"Test Phone 1.0"


def test_lines_that_name_a_call_are_not_remembered() -> None:
    shared = SharedLines()
    for number in range(100):
        shared.share(invite(number, USER_AGENT))
    assert len(shared) == 3


def test_strangers_cannot_grow_the_table() -> None:
    shared = SharedLines()
    for number in range(intern._MAX_LINES * 2):
        shared.share(invite(number, b"User-Agent: %d" % number))
    assert len(shared) <= intern._MAX_LINES + 3


def test_a_request_that_forgets_its_parts_reads_them_again() -> None:
    request = invite(1)
    before = [repr(part) for part in (request.parsed_uri, request.from_, request.to)]
    request.forget_parts()
    assert (request._parsed_uri, request._from, request._to) == (None, None, None)
    assert [repr(part) for part in (request.parsed_uri, request.from_, request.to)] == before
