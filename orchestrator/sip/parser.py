"""Octets to messages (RFC 3261 §7, §18.3, RFC 4475).

One pass for the usual message: cut the head at CRLF, look the header names up in a table, check what every message is judged by with
one expression each. What the expressions do not know goes to the slower readers of `headers` and `uri`, which decide. So each fast
path may only accept what the slow one accepts too.

Two readers of one message must not see different headers: CR and LF stand only in line ends, names are tokens, single-valued
headers come once, a body is as long as Content-Length says and what follows it is noise that nobody looks at (RFC 4475 dblreq).
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import (
    MAX_HEADER,
    MAX_HEADERS,
    MAX_MESSAGE,
    MAX_URI,
    TOKEN,
    is_token,
    parse_number,
)
from orchestrator.sip.headers import parse_via
from orchestrator.sip.model import Message, Request, Response, line_value
from orchestrator.sip.names import SPELLINGS, canonical_name
from orchestrator.sip.uri import SIP_URI, parse_name_addr, parse_uri, uri_of_match

_request_line = re.compile(rb"(" + TOKEN + rb"++) (" + SIP_URI + rb") SIP/2\.0").fullmatch
_loose_request_line = re.compile(rb"(" + TOKEN + rb"++) ([^\s]++) [Ss][Ii][Pp]/([0-9]++\.[0-9]++)").fullmatch
_status_line = re.compile(rb"SIP/2\.0 ([1-6][0-9]{2})(?: ([^\r\n\x00]*+))?").fullmatch
_unfolded_break = re.compile(rb"\r\n(?![ \t])").split
_cseq = re.compile(rb"([0-9]{1,20})[ \t]++(" + TOKEN + rb"++)").fullmatch
_is_call_id = re.compile(rb"[!-~]++").fullmatch

_SINGLE: Final = frozenset((b"call-id", b"cseq", b"from", b"to", b"max-forwards", b"content-length", b"content-type", b"expires"))
"""Headers that a second line of would make ambiguous (RFC 4475 multi01, mcl01)."""
_REQUIRED: Final = frozenset((b"via", b"from", b"to", b"call-id", b"cseq"))
"""Mandatory in every message (§8.1.1); Max-Forwards is too, but RFC 2543 senders lack it (RFC 4475 inv2543)."""


def _split_head(head: bytes) -> tuple[list[bytes], list[bytes]]:
    """Head → (header lines with the start line in front, canonical names)."""
    lines = head.split(b"\r\n")
    names = [SPELLINGS.get(line.split(b":", 1)[0]) for line in lines]
    del names[0]
    if None not in names:
        return lines, names  # type: ignore[return-value]
    lines = _unfolded_break(head)
    if any(b":" not in line for line in lines[1:]):
        raise MalformedMessage("Malformed Header Line")
    return lines, [canonical_name(line.split(b":", 1)[0]) for line in lines[1:]]


def _check_head(head: bytes, lines: list[bytes], names: list[bytes]) -> None:
    """Limits, line ends, and the counts of headers."""
    breaks = head.count(b"\n")
    if breaks != head.count(b"\r") or breaks != head.count(b"\r\n"):
        raise MalformedMessage("Bare CR or LF in Header")
    if len(names) > MAX_HEADERS:
        raise MalformedMessage("Too Many Header Fields")
    if len(head) > MAX_HEADER and max(map(len, lines)) > MAX_HEADER:
        raise MalformedMessage("Header Field Too Long")
    seen = set(names)
    if not _REQUIRED <= seen:
        raise MalformedMessage("Missing " + min(_REQUIRED - seen).decode().title())
    if len(seen) != len(names):
        for name in _SINGLE & seen:
            if names.count(name) > 1:
                raise MalformedMessage("Multiple " + name.decode().title())


def _fill(message: Message, rest: bytes) -> None:
    """Read what every message is judged by. `rest` is all that came behind the head."""
    names, lines = message.names, message.lines
    call_id = line_value(lines[names.index(b"call-id")])
    if _is_call_id(call_id) is None:
        raise MalformedMessage("Malformed Call-ID")
    message.call_id = call_id
    cseq = _cseq(line_value(lines[names.index(b"cseq")]))
    if cseq is None:
        raise MalformedMessage("Malformed CSeq")
    message.cseq = parse_number(cseq[1], "CSeq")
    message.cseq_method = cseq[2]
    if b"content-length" in names:
        length = parse_number(line_value(lines[names.index(b"content-length")]), "Content-Length")
        if length > len(rest):
            raise MalformedMessage("Content-Length Exceeds Message")
        message.body = rest[:length]
    message.via = parse_via(line_value(lines[names.index(b"via")]))
    message._from = parse_name_addr(line_value(lines[names.index(b"from")]))
    message._to = parse_name_addr(line_value(lines[names.index(b"to")]))


def _parse_request(start: bytes, names: list[bytes], lines: list[bytes], rest: bytes) -> Request:
    match = _request_line(start)
    if len(start) > MAX_URI + 64 and len(max(start.split(b" "), key=len)) > MAX_URI:
        raise MalformedMessage("Request-URI Too Long", 414)
    if match is not None:
        method, uri = match[1], uri_of_match(match[2], match, 3)
    else:
        loose = _loose_request_line(start)
        if loose is None:
            raise MalformedMessage("Malformed Request Line")
        if loose[3] != b"2.0":
            raise MalformedMessage("Version Not Supported", 505)
        method, uri = loose[1], parse_uri(loose[2])
    if uri.headers:
        raise MalformedMessage("Headers in Request-URI")
    request = Request(method, uri, names, lines, rest)
    _fill(request, rest)
    if request.cseq_method != method:
        raise MalformedMessage("CSeq Method Mismatch")
    if b"max-forwards" in names:
        request.max_forwards = parse_number(line_value(lines[names.index(b"max-forwards")]), "Max-Forwards", 255)
    return request


def _parse_response(start: bytes, names: list[bytes], lines: list[bytes], rest: bytes) -> Response:
    match = _status_line(start)
    if match is None:
        raise MalformedMessage("Malformed Status Line")
    response = Response(int(match[1]), match[2] or b"", names, lines, rest)
    _fill(response, rest)
    return response


def parse_message(data: bytes) -> Request | Response:
    """Read one datagram, or one message framed from a stream.

    Raises:
        MalformedMessage: and nothing else. `sip_status` is what a request is to be answered with (through `salvage_request`), 0 where
            nothing may be sent: a response, a keep-alive, noise.
    """
    if data[:1] in b"\r\n":
        data = data.lstrip(b"\r\n")  # §7.5: empty lines before the start line are ignored
    is_response = data[:4].upper() == b"SIP/"
    try:
        if len(data) > MAX_MESSAGE:
            raise MalformedMessage("Message Too Large", 513)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            raise MalformedMessage("No End of Header")
        head = data[:end]
        lines, names = _split_head(head)
        start = lines.pop(0)
        _check_head(head, lines, names)
        return (_parse_response if is_response else _parse_request)(start, names, lines, data[end + 4 :])
    except MalformedMessage as error:
        if is_response or not data:
            error.sip_status = 0
        raise


def salvage_request(data: bytes) -> Request | None:
    """A view of a malformed request good enough for `build_response` to answer it; None when silence is due.

    Only the method and the top Via must be readable; From, To, Call-ID and CSeq are copied as far as they are there. An ACK is never
    answered.
    """
    data = data[:MAX_MESSAGE].lstrip(b"\r\n")
    start, _, rest = data.partition(b"\r\n\r\n")[0].partition(b"\r\n")
    method = start.split(b" ", 1)[0]
    if not is_token(method) or method == b"ACK" or b" " not in start:
        return None
    names: list[bytes] = []
    lines: list[bytes] = []
    for line in _unfolded_break(rest)[:MAX_HEADERS]:
        name, colon, _ = line.partition(b":")
        name = name.strip().lower()
        canonical = SPELLINGS.get(name, name)
        clean = colon and len(line) <= MAX_HEADER and line.count(b"\n") == line.count(b"\r") == line.count(b"\r\n")
        if clean and (canonical == b"via" or (canonical in _REQUIRED and canonical not in names)):
            names.append(canonical)
            lines.append(line)
    if b"via" not in names:
        return None
    request = Request(method, parse_uri(b"sip:invalid"), names, lines, b"")
    try:
        request.via = parse_via(line_value(lines[names.index(b"via")]))
    except MalformedMessage:
        return None
    request.call_id = request.get(b"call-id") or b""
    return request
