"""Messages to octets by splicing (RFC 3261 §8.2.6, §16.6, §16.7).

What goes out is the list of header lines that came in, with lines put in, taken out or replaced, joined once. Lines
nobody asked to change leave as they came, octet for octet. What is put in may carry text of a flow: a CR or LF in it
would end the line and begin another header, so it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import COMMA, CR, LF, NUL
from orchestrator.sip.headers import split_commas, split_first
from orchestrator.sip.model import Request, Response, line_value
from orchestrator.sip.tolerance import read_address

_COPIED: Final = frozenset((b"via", b"from", b"to", b"call-id", b"cseq"))
_COPIED_TRYING: Final = _COPIED | {b"timestamp"}
_COPIED_DIALOG: Final = _COPIED | {b"record-route"}
_DIALOG_METHODS: Final = frozenset((b"INVITE", b"SUBSCRIBE", b"NOTIFY", b"REFER"))
"""Methods whose answers carry Record-Route back (§12.1.1, RFC 6665)."""


def _refuse_breaks(lines: Iterable[bytes]) -> None:
    text = b"".join(lines)
    if LF in text or CR in text or NUL in text:
        raise ValueError("a header may not hold CR, LF or NUL")


def header_line(name: bytes, value: bytes) -> bytes:
    """`name: value`.

    Raises:
        ValueError: CR, LF or NUL in it.
    """
    line = b"%s: %s" % (name, value)
    _refuse_breaks((line,))
    return line


def _has_tag(to_line: bytes) -> bool:
    if to_line.lower().find(b"tag") < 0:
        return False
    try:
        return read_address(line_value(to_line)).tag is not None
    except MalformedMessage:
        return True  # of a salvaged request: what cannot be read is sent back as it came


def _copied(method: bytes, status: int) -> frozenset[bytes]:
    if status == 100:
        return _COPIED_TRYING  # §8.2.6.1
    return _COPIED_DIALOG if status < 300 and method in _DIALOG_METHODS else _COPIED


def build_response(
    request: Request,
    status: int,
    reason: str,
    to_tag: bytes | None = None,
    headers: Sequence[bytes] = (),
    body: bytes = b"",
) -> bytes:
    """A response to `request` (§8.2.6): Via, From, To, Call-ID and CSeq copied, `to_tag` added to a To that has none.

    Record-Route is copied into 101-299 that may form a dialog (§12.1.1), Timestamp into a 100. `headers` are full
    lines; `body` needs its Content-Type among them.

    Raises:
        ValueError: CR, LF or NUL in `reason` or `headers`.
    """
    copied = _copied(request.method, status)
    out = [b"SIP/2.0 %d %s" % (status, reason.encode())]
    _refuse_breaks((*out, *headers) if headers else out)
    names, lines = request.names, request.lines
    if to_tag and b"to" in names:
        at = names.index(b"to")
        if not _has_tag(lines[at]):
            lines = lines.copy()
            lines[at] = b"%s;tag=%s" % (lines[at], to_tag)
    out += [line for name, line in zip(names, lines, strict=True) if name in copied]
    out += headers
    out.append(b"Content-Length: %d\r\n\r\n" % len(body))
    return b"\r\n".join(out) + body


def _drop_routes(names: list[bytes], lines: list[bytes], count: int) -> None:
    """Take the first `count` Route values out, in place."""
    while count and b"route" in names:
        index = names.index(b"route")
        if COMMA in lines[index]:
            values = split_commas(line_value(lines[index]))
            if len(values) > count:
                lines[index] = b"Route: " + b", ".join(values[count:])
                return
            count -= len(values)
        else:
            count -= 1
        del names[index], lines[index]


def forward_request(
    request: Request,
    *,
    uri: bytes,
    via: bytes,
    max_forwards: int,
    record_routes: Sequence[bytes] = (),
    drop_routes: int = 0,
    routes: Sequence[bytes] = (),
    remove: Collection[bytes] = (),
    headers: Sequence[bytes] = (),
) -> bytes:
    """The request as it goes to the next hop (§16.6).

    `via` and `record_routes` are full lines and come on top, then `routes` (values) as Route lines, above what is left
    of Route once its first `drop_routes` values are gone. `remove` are canonical names whose lines are dropped,
    `headers` full lines put behind the last one. Content-Length is added where it was absent (§18.3).

    Raises:
        ValueError: CR, LF or NUL in what is put in.
        MalformedMessage: a Route that cannot be cut into values.
    """
    names, lines = request.names, request.lines
    if remove:
        lines = [line for name, line in zip(names, lines, strict=True) if name not in remove]
        names = [name for name in names if name not in remove]
    else:
        names, lines = names.copy(), lines.copy()
    out = [b"%s %s SIP/2.0" % (request.method, uri), via]
    out += record_routes
    if routes:
        out += [b"Route: " + route for route in routes]
    _refuse_breaks((*out, *headers))
    hops = b"Max-Forwards: %d" % max_forwards
    if b"max-forwards" in names:
        lines[names.index(b"max-forwards")] = hops
    else:
        out.append(hops)
    if drop_routes:
        _drop_routes(names, lines, drop_routes)
    out += lines
    out += headers
    if b"content-length" not in names:
        out.append(b"Content-Length: %d" % len(request.body))
    out.append(b"\r\n")
    return b"\r\n".join(out) + request.body


def forward_response(response: Response, from_line: bytes | None = None, cseq_line: bytes | None = None) -> bytes:
    """The response without its topmost Via value (§16.7 step 3), for the hop before us; with `from_line` as its From
    and `cseq_line` as its CSeq where the request had gone on under others."""
    names, lines = response.names, [response.start_line, *response.lines]
    if from_line is not None:
        lines[1 + names.index(b"from")] = from_line
    if cseq_line is not None:
        lines[1 + names.index(b"cseq")] = cseq_line
    index = 1 + names.index(b"via")
    line = lines[index]
    rest = split_first(line_value(line))[1] if COMMA in line else b""
    if rest:
        lines[index] = b"Via: " + rest
    else:
        del lines[index]
    if b"content-length" not in names:
        lines.append(b"Content-Length: %d" % len(response.body))
    lines.append(b"\r\n")
    return b"\r\n".join(lines) + response.body
