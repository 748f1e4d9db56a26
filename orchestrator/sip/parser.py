"""Octets to messages (RFC 3261 §7, §18.3, RFC 4475).

The usual message takes one pass: cut the head at CRLF, look the header names up in a table, put the lines every
message is judged by one below the other in a fixed order and match them all with one expression. What that expression
does not know goes to `_judge`, which reads header by header and decides. So the expression may only accept what
`_judge` accepts too, with the same values (a test holds them against each other). Where the scanner in C is there
(`native`), it stands before all of this under the same condition.

Two readers of one message must not see different headers: CR and LF stand only in line ends, names are tokens,
single-valued headers come once, a body is as long as Content-Length says, and what follows it is noise that nobody
looks at (RFC 4475 dblreq).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from orchestrator import native
from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import (
    BLANKS,
    HOST,
    MAX_HEADER,
    MAX_HEADERS,
    MAX_MESSAGE,
    MAX_URI,
    NUL,
    PORT,
    QUOTED,
    TOKEN,
    is_token,
    parse_number,
    read_number,
)
from orchestrator.sip.header_shapes import Shape, shape_of
from orchestrator.sip.headers import Via, parse_via, split_first
from orchestrator.sip.model import NO_LINES, Message, Request, Response, line_value
from orchestrator.sip.names import LONG_NAMES, SPELLINGS, canonical_name
from orchestrator.sip.tolerance import any_address, any_via, read_address
from orchestrator.sip.uri import PARAM_CHAR, USER_CHAR, NameAddr, Uri

_quoted_strings = re.compile(QUOTED).sub
_unfolded_break = re.compile(rb"\r\n(?![ \t])").split

# --- what every message has, read header by header ------------------------------------------------------------------

_request_line = re.compile(rb"(" + TOKEN + rb"++) ([^\s]++) [Ss][Ii][Pp]/([0-9]++\.[0-9]++)[ \t]*+").fullmatch
_status_line = re.compile(rb"[Ss][Ii][Pp]/2\.0[ \t]++([1-6][0-9]{2})(?:[ \t]([^\r\n\x00]*+))?").fullmatch
_cseq = re.compile(rb"([0-9]++)[ \t]++(" + TOKEN + rb"++)").fullmatch
_is_call_id = re.compile(rb"[!-~]++").fullmatch

_SINGLE: Final = (
    b"call-id", b"cseq", b"from", b"to", b"max-forwards", b"content-length", b"content-type", b"expires",
)  # fmt: skip
"""Headers that a second line of would make ambiguous (RFC 4475 multi01, mcl01)."""
_SINGLE_IN_RESPONSES: Final = (b"call-id", b"cseq", b"from", b"to", b"content-length")
_COPIED: Final = (b"from", b"to", b"call-id", b"cseq")
"""Mandatory beside Via (§8.1.1), and once each; so is Max-Forwards, but RFC 2543 had none (RFC 4475 inv2543)."""


def _value(message: Message, name: bytes) -> bytes:
    value = message.get(name)
    if value is None:
        raise MalformedMessage(f"Missing {LONG_NAMES[name]} Header")
    return value


def _address(message: Message, name: bytes) -> NameAddr:
    address = read_address(_value(message, name))
    if not address.params.get(b"tag", b"absent"):
        raise MalformedMessage("Empty Tag")  # neither a tag nor none: an answer could not add its own
    return address


def _judge_response(message: Message, rest: bytes) -> None:
    """The same for a response, whose defects are the caller's as long as it is clear what it answers
    (`sip.tolerance`).

    Raises MalformedMessage.
    """
    message.call_id = _value(message, b"call-id")
    cseq = _cseq(_value(message, b"cseq"))
    if cseq is None:
        raise MalformedMessage("Malformed CSeq")
    message.cseq, message.cseq_method = parse_number(cseq[1], "CSeq"), cseq[2]
    if b"content-length" in message.names:
        length = read_number(message.get(b"content-length"))
        if length is None or length > len(rest):
            mended = b"Content-Length: %d" % len(rest)
            pairs = zip(message.names, message.lines, strict=True)
            message.lines = [mended if name == b"content-length" else line for name, line in pairs]
        message.body = rest if length is None else rest[:length]
    via = _value(message, b"via")
    message.via = any_via(via)
    split_first(via)
    message._from, message._to = any_address(_value(message, b"from")), any_address(_value(message, b"to"))
    message.from_tag, message.to_tag = message._from.tag or None, message._to.tag or None


def _judge(message: Message, rest: bytes) -> None:
    """Read what every message is judged by; `rest` is all that came behind the head.

    Raises:
        MalformedMessage: something is missing or malformed.
    """
    if _is_call_id(call_id := _value(message, b"call-id")) is None:
        raise MalformedMessage("Malformed Call-ID")
    message.call_id = call_id
    cseq = _cseq(_value(message, b"cseq"))
    if cseq is None:
        raise MalformedMessage("Malformed CSeq")
    message.cseq, message.cseq_method = parse_number(cseq[1], "CSeq"), cseq[2]
    if b"content-length" in message.names:
        length = parse_number(_value(message, b"content-length"), "Content-Length")
        if length > len(rest):
            raise MalformedMessage("Content-Length Exceeds Message")
        message.body = rest[:length]
    message.via = parse_via(_value(message, b"via"))
    message._from = _address(message, b"from")
    message._to = _address(message, b"to")
    message.from_tag, message.to_tag = message._from.tag, message._to.tag
    if isinstance(message, Request) and b"max-forwards" in message.names:
        message.max_forwards = parse_number(_value(message, b"max-forwards"), "Max-Forwards", 255)


# --- the same in one match ------------------------------------------------------------------------------------------

_NAME: Final = rb"[^:\n]++:[ \t]*+"
_PARAM: Final = rb"(?:;" + PARAM_CHAR + rb"++(?:=" + PARAM_CHAR + rb"++)?+)?+"
SIP_URI: Final = rb"sips?:(?:" + USER_CHAR + rb"++@)?+" + HOST + rb"(?::" + PORT + rb")?+" + _PARAM
"""A sip URI without escapes and with at most one parameter: nothing in it is left to check."""
ADDRESS: Final = (
    rb'(?:"[^"\\\r\n]*+"[ \t]*+|[A-Za-z0-9\-.!%*_+`\'~ ]*+)<' + SIP_URI + rb">"
)  # fmt: skip
TAGGED: Final = ADDRESS + rb"(?:;tag=(" + TOKEN + rb"++))?+"
TOP_VIA: Final = (
    rb"SIP/2\.0/([A-Z]++) (" + HOST + rb")(?::(" + PORT + rb"))?+(;rport;branch=(" + TOKEN + rb"++)|"
    rb";branch=(" + TOKEN + rb"++)(?:;rport(?:=[0-9]++)?+)?+(?:;received=[0-9.]++)?+)(?:,[^\r\n]*+)?+"
)  # fmt: skip
"""A Via as senders write it, in the two orders of parameters that cannot repeat one."""
CALL_ID: Final = rb"([!-~]++)"
CSEQ_NUMBER: Final = rb"([0-9]{1,9})"
LENGTH: Final = rb"([0-9]{1,5})"
HOPS: Final = rb"([0-9]{1,3})"
_CSEQ: Final = CSEQ_NUMBER + rb" (" + TOKEN + rb"++)"
_usual = re.compile(
    b"\n".join(_NAME + value for value in (TOP_VIA, TAGGED, TAGGED, CALL_ID, _CSEQ, LENGTH))
    + rb"(?:\n" + _NAME + HOPS + rb")?+"
).fullmatch  # fmt: skip
_usual_request_line = re.compile(
    rb"(" + TOKEN + rb"++) ((sips?):(?:(" + USER_CHAR + rb"++)@)?+"
    rb"(" + HOST + rb")(?::(" + PORT + rb"))?+(" + _PARAM + rb")) SIP/2\.0"
).fullmatch  # fmt: skip
"""Method, URI and its parts: the same `SIP_URI`."""

_CoreLines = Callable[[dict[bytes, bytes]], tuple[bytes, ...]]
_response_lines: _CoreLines = itemgetter(b"via", b"from", b"to", b"call-id", b"cseq", b"content-length")
_request_lines: _CoreLines = itemgetter(b"via", b"from", b"to", b"call-id", b"cseq", b"content-length", b"max-forwards")


def _read_usual(message: Message, core: bytes, rest: bytes) -> bool:
    """Fill in `message` from `core`: its six lines (a request's seven) in order. False: not of the usual kind."""
    match = _usual(core)
    if match is None:
        return False
    transport, host, port, tail, branch, other, from_tag, to_tag, call_id, cseq, method, length, hops = match.groups()
    size = int(length)
    if size > len(rest):
        return False
    if hops is not None:
        message.max_forwards = int(hops)
        if message.max_forwards > 255:
            return False
    message.via = Via(transport, host, int(port) if port is not None else None, branch or other, tail)
    message.from_tag = from_tag
    message.to_tag = to_tag
    message.call_id = call_id
    message.cseq = int(cseq)
    message.cseq_method = method
    message.body = rest[:size]
    return True


# --- the head -------------------------------------------------------------------------------------------------------


def _split_head(head: bytes, name_of: Callable[[bytes], bytes]) -> tuple[bytes, list[bytes], list[bytes]]:
    """Start line, header lines, canonical names; `name_of` reads those that are not in the table."""
    lines = head.splitlines()  # which also cuts at a bare CR or LF: then it cannot be put together again
    if b"\r\n".join(lines) != head:
        raise MalformedMessage("Bare CR or LF in Header")
    if len(lines) > MAX_HEADERS:
        raise MalformedMessage("Too Many Header Fields")
    start = lines.pop(0)
    try:
        names = [SPELLINGS[name] for line in lines for name, _ in (line.split(b":", 1),)]
    except (KeyError, ValueError):  # a name that is not in the table, or no colon
        if head.find(b"\r\n ") >= 0 or head.find(b"\r\n\t") >= 0:
            start, *lines = _unfolded_break(head)
        names = [name_of(line) for line in lines]
    if len(head) > MAX_HEADER and max(map(len, lines), default=0) > MAX_HEADER:
        raise MalformedMessage("Header Field Too Long")
    return start, lines, names


def _check_controls(lines: list[bytes]) -> None:
    """A NUL is legal in a quoted pair only (RFC 4475 intmeth); anywhere else it would cut the value short for some
    reader behind us.

    Raises:
        MalformedMessage: one stands elsewhere.
    """
    for line in lines:
        if NUL in line and NUL in _quoted_strings(b"", line):
            raise MalformedMessage("Control Character in Header")


def _name_of(line: bytes) -> bytes:
    name, colon, _ = line.partition(b":")
    if not colon:
        raise MalformedMessage("Malformed Header Line")
    return canonical_name(name)


def _any_name_of(line: bytes) -> bytes:
    try:
        return _name_of(line)
    except MalformedMessage:
        return b""


def _check_single(names: list[bytes], lines: list[bytes], distinct: int, single: tuple[bytes, ...]) -> None:
    """Only some headers may stand twice. Via and Record-Route do so most, and are counted first."""
    spare = len(names) - distinct - (names.count(b"via") or 1) + 1
    if spare and spare != names.count(b"record-route") - 1:
        for name in single:
            if names.count(name) > 1 and not (name == b"content-length" and _all_alike(names, lines, name)):
                raise MalformedMessage(f"Multiple {LONG_NAMES[name]} Headers")


def _all_alike(names: list[bytes], lines: list[bytes], name: bytes) -> bool:
    return len({line_value(line) for key, line in zip(names, lines, strict=True) if key == name}) == 1


_METHOD_NAMES: Final = (
    b"ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE".split()
)
METHODS: Final = {name: name for name in _METHOD_NAMES}
"""So that thousands of requests that wait share the word."""


def _read_request_line(start: bytes) -> Request:
    match = _usual_request_line(start)
    if match is not None and len(start) <= MAX_URI:
        method, uri, scheme, user, host, port, params = match.groups()
        request = Request(METHODS.get(method, method), uri)
        scheme = b"sip" if scheme == b"sip" else b"sips"
        request._parsed_uri = Uri(uri, scheme, user or b"", None, host, int(port) if port else None, params)
        return request
    match = _request_line(start)
    if match is None:
        raise MalformedMessage("Malformed Request Line")
    method, uri, version = match.groups()
    if version != b"2.0":
        raise MalformedMessage("Version Not Supported", 505)
    if len(uri) > MAX_URI:
        raise MalformedMessage("Request-URI Too Long", 414)
    request = Request(method, uri)
    if request.parsed_uri.headers:
        raise MalformedMessage("Headers in Request-URI")
    return request


def _read_status_line(start: bytes) -> Response:
    match = _status_line(start)
    if match is None:
        raise MalformedMessage("Malformed Status Line")
    return Response(int(match[1]), match[2] or b"")


def _fill(message: Message, lines: list[bytes], names: list[bytes], rest: bytes, core_lines: _CoreLines) -> None:
    """Everything behind the start line."""
    message.shape, message.lines, message.body = shape_of(tuple(names)), lines, rest
    index = dict(zip(names, lines))  # noqa: B905  as many names as lines, and the check is not free
    if len(index) != len(names):  # then the last line of a name stays, which only matters for Via
        single = _SINGLE if core_lines is _request_lines else _SINGLE_IN_RESPONSES
        _check_single(names, lines, len(index), single)
        if b"via" in index:
            index[b"via"] = lines[names.index(b"via")]
    try:
        core = b"\n".join(core_lines(index))
    except KeyError:
        core = b""
    if not _read_usual(message, core, rest):
        if core_lines is _request_lines:
            _judge(message, rest)
        else:
            _judge_response(message, rest)


def _parse(data: bytes, is_response: bool, limit: int) -> Request | Response:
    if len(data) > limit:
        raise MalformedMessage("Message Too Large", 513)
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        if not (is_response and data.endswith(b"\r\n")):
            raise MalformedMessage("No End of Header")
        head = data[:-2]
    start, lines, names = _split_head(head, _any_name_of if is_response else _name_of)
    if NUL in head:
        _check_controls(lines)
    if is_response:
        response = _read_status_line(start)
        _fill(response, lines, names, rest, _response_lines)
        return response
    request = _read_request_line(start)
    _fill(request, lines, names, rest, _request_lines)
    if request.method != request.cseq_method:
        raise MalformedMessage("CSeq Method Mismatch")
    request.cseq_method = request.method
    return request


def read_scanned(found: tuple[Any, ...]) -> Request | Response:
    """The message that the scanner has found."""
    if len(found) == _PARTS_OF_RESPONSE:
        (
            status, reason, method, via_at, via_end,
            shape, lines, body, transport, host, port, branch, tail, from_tag, to_tag, id, cseq,
        ) = found  # fmt: skip
        response = Response(status, reason)
        if via_end:
            _fill_scanned(response, shape, NO_LINES, b"", method, from_tag, to_tag, id, cseq)
            response.keep_whole(body, via_at, via_end)
        else:
            _fill_scanned(response, shape, lines, body, method, from_tag, to_tag, id, cseq)
        response.via = Via(transport, host, port, branch, tail)
        return response
    (
        method, uri, secure, user, at, at_port, params, hops,
        shape, lines, body, transport, host, port, branch, tail, from_tag, to_tag, id, cseq,
    ) = found  # fmt: skip
    request = Request(method, uri)
    _fill_scanned(request, shape, lines, body, method, from_tag, to_tag, id, cseq)
    request.via = Via(transport, host, port, branch, tail)
    request._parsed_uri = Uri(uri, b"sips" if secure else b"sip", user, None, at, at_port, params)
    request.max_forwards = hops
    return request


def _fill_scanned(
    message: Message,
    shape: Shape,
    lines: list[bytes],
    body: bytes,
    cseq_method: bytes,
    from_tag: bytes | None,
    to_tag: bytes | None,
    call_id: bytes,
    cseq: int,
) -> None:
    """What both kinds have."""
    message.shape = shape
    message.lines = lines
    message.body = body
    message.cseq_method = cseq_method
    message.from_tag = from_tag
    message.to_tag = to_tag
    message.call_id = call_id
    message.cseq = cseq


_PARTS_OF_RESPONSE: Final = 17
_scan: Callable[[bytes], tuple[Any, ...] | None] | None = None
if native.FAST is not None:
    native.FAST.prepare(SPELLINGS, (*_METHOD_NAMES, b"UDP", b"TCP", b"TLS", b"WS", b"WSS"), _name_of, shape_of)
    _scan = native.FAST.scan


def parse_message(data: bytes, limit: int = MAX_MESSAGE) -> Request | Response:
    """Read one datagram, or one message framed from a stream, of at most `limit` octets.

    Raises:
        MalformedMessage: and nothing else. `sip_status` is what a request is to be answered with (through
            `salvage_request`), 0 where nothing may be sent: to a response or a keep-alive.
    """
    scan = _scan
    if scan is not None and len(data) <= limit:
        found = scan(data)
        if found is not None:
            return read_scanned(found)
    return parse_plain(data, limit)


def parse_plain(data: bytes, limit: int = MAX_MESSAGE) -> Request | Response:
    """`parse_message` without the scanner in C."""
    if data[:1] < b" ":
        data = data.lstrip(b"\r\n")  # §7.5: empty lines before the start line are ignored
    is_response = data[:4] in (b"SIP/", b"sip/")
    try:
        return _parse(data, is_response, limit)
    except MalformedMessage as error:
        if is_response or not data:
            error.sip_status = 0
        raise


# --- answering what cannot be read ----------------------------------------------------------------------------------


def _is_whole(line: bytes) -> bool:
    breaks = line.count(b"\r\n")
    return line.find(b":") >= 0 and len(line) <= MAX_HEADER and line.count(b"\n") == line.count(b"\r") == breaks


def salvage_request(data: bytes) -> Request | None:
    """A view of a malformed request good enough for `build_response`; None when silence is due.

    Only the method and the top Via must be readable; From, To, Call-ID and CSeq are copied as far as they are there,
    unread. An ACK is never answered.
    """
    start, _, rest = data[:MAX_MESSAGE].lstrip(b"\r\n").partition(b"\r\n\r\n")[0].partition(b"\r\n")
    method, space, rest_of_line = start.partition(b" ")
    if not space or not is_token(method) or method == b"ACK":
        return None
    request = Request(method, rest_of_line.split(b" ", 1)[0])
    names: list[bytes] = []
    lines: list[bytes] = []
    for line in _unfolded_break(rest, MAX_HEADERS)[:MAX_HEADERS]:
        raw = line.partition(b":")[0].strip(BLANKS)
        name = SPELLINGS.get(raw) or SPELLINGS.get(raw.lower(), b"")
        if _is_whole(line) and (name == b"via" or (name in _COPIED and name not in names)):
            names.append(name)
            lines.append(line)
    request.shape, request.lines, request.body = shape_of(tuple(names)), lines, b""
    via = request.get(b"via")
    if via is None:
        return None
    try:
        request.via = parse_via(via)
    except MalformedMessage:
        return None
    request.call_id, request.cseq, request.cseq_method = request.get(b"call-id") or b"", 0, method
    return request
