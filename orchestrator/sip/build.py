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
from orchestrator.sip.header_shapes import shape_of
from orchestrator.sip.headers import split_commas, split_first
from orchestrator.sip.model import Request, Response, line_value
from orchestrator.sip.tolerance import read_address

_NO_BODY: Final = b"Content-Length: 0"
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


def _copied(request: Request, status: int) -> tuple[int, ...]:
    shape = request.shape
    if status == 100:
        return shape.copied_trying
    return shape.copied_dialog if status < 300 and request.method in _DIALOG_METHODS else shape.copied


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
    out = [b"SIP/2.0 %d %s" % (status, reason.encode())]
    _refuse_breaks((*out, *headers) if headers else out)
    lines, to = request.lines, request.shape.to
    if to_tag and to >= 0 and not _has_tag(lines[to]):
        lines = lines.copy()
        lines[to] = b"%s;tag=%s" % (lines[to], to_tag)
    out += [lines[at] for at in _copied(request, status)]
    out += headers
    out.append(b"Content-Length: %d" % len(body) if body else _NO_BODY)
    out += (b"", body)
    return b"\r\n".join(out)


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
    shape, lines = request.shape, request.lines
    if remove:
        lines = [line for name, line in zip(shape.names, lines, strict=True) if name not in remove]
        shape = shape_of(tuple([name for name in shape.names if name not in remove]))
    else:
        lines = lines.copy()
    out = [b"%s %s SIP/2.0" % (request.method, uri), via]
    if record_routes:
        out += record_routes
    if routes:
        out += [b"Route: " + route for route in routes]
    _refuse_breaks((*out, *headers) if headers else out)
    hops = b"Max-Forwards: %d" % max_forwards
    if shape.hops >= 0:
        lines[shape.hops] = hops
    else:
        out.append(hops)
    if drop_routes and shape.routes == 1 and COMMA not in lines[shape.route]:
        del lines[shape.route]
    elif drop_routes:
        _drop_routes(list(shape.names), lines, drop_routes)
    out += lines
    if headers:
        out += headers
    if shape.length < 0:
        out.append(b"Content-Length: %d" % len(request.body))
    out += (b"", request.body)
    return b"\r\n".join(out)


def forward_response(response: Response, from_line: bytes | None = None, cseq_line: bytes | None = None) -> bytes:
    """The response without its topmost Via value (§16.7 step 3), for the hop before us; with `from_line` as its From
    and `cseq_line` as its CSeq where the request had gone on under others."""
    if from_line is None and cseq_line is None:
        whole = response.behind_us
        if whole is not None:  # nobody has looked into it
            return whole
    shape, lines, via = response.shape, response.lines.copy(), response.shape.via
    if from_line is not None:
        lines[shape.first[b"from"]] = from_line
    if cseq_line is not None:
        lines[shape.first[b"cseq"]] = cseq_line
    line, start = lines[via], response.start_line
    rest = split_first(line_value(line))[1] if COMMA in line else b""
    if rest:
        lines[via] = b"Via: " + rest
        lines.insert(0, start)
    elif via == 0:  # as nearly always
        lines[0] = start
    else:
        del lines[via]
        lines.insert(0, start)
    if shape.length < 0:
        lines.append(b"Content-Length: %d" % len(response.body))
    lines += (b"", response.body)
    return b"\r\n".join(lines)
