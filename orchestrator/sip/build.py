"""Messages to octets by splicing (RFC 3261 §8.2.6, §16.6, §16.7).

What goes out is the list of header lines that came in, with lines put in, taken out or replaced, joined once. Lines nobody asked to
change leave as they came, octet for octet. `headers` and `reason` may carry text of a flow: a CR or LF in them would end the line and
begin another header, so they are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.headers import split_commas, split_first
from orchestrator.sip.model import DIALOG_METHODS, Request, Response, line_value
from orchestrator.sip.uri import parse_name_addr

_COPIED: Final = frozenset((b"via", b"from", b"to", b"call-id", b"cseq"))
_COPIED_DIALOG: Final = _COPIED | {b"record-route"}
_COPIED_TRYING: Final = _COPIED | {b"timestamp"}


def header_line(name: bytes, value: bytes) -> bytes:
    """`Name: value`.

    Raises:
        ValueError: CR, LF or NUL in it.
    """
    line = b"%s: %s" % (name, value)
    _check_lines((line,))
    return line


def _check_lines(lines: Sequence[bytes]) -> None:
    for line in lines:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise ValueError("line break in a header")


def _has_tag(to_line: bytes) -> bool:
    if b"tag" not in to_line.lower():
        return False
    try:
        return parse_name_addr(line_value(to_line)).tag is not None
    except MalformedMessage:
        return True  # a salvaged request: leave alone what we cannot read


def build_response(
    request: Request,
    status: int,
    reason: str,
    to_tag: bytes | None = None,
    headers: Sequence[bytes] = (),
    body: bytes = b"",
) -> bytes:
    """A response to `request` (§8.2.6): Via, From, To, Call-ID and CSeq copied, `to_tag` added to a To that has none.

    Record-Route is copied into 1xx and 2xx that may form a dialog (§12.1.1), Timestamp into a 100. `headers` are full lines; `body`
    needs its Content-Type among them.

    Raises:
        ValueError: a line break in `reason` or `headers`.
    """
    copied = _COPIED
    if status == 100:
        copied = _COPIED_TRYING
    elif status < 300 and request.method in DIALOG_METHODS:
        copied = _COPIED_DIALOG
    start = b"SIP/2.0 %d %s" % (status, reason.encode())
    _check_lines((start, *headers))
    out = [start]
    for name, line in zip(request.names, request.lines, strict=True):
        if name in copied:
            if name == b"to" and to_tag and not _has_tag(line):
                line = b"%s;tag=%s" % (line, to_tag)
            out.append(line)
    out += headers
    out.append(b"Content-Length: %d\r\n\r\n" % len(body))
    return b"\r\n".join(out) + body


def _drop_routes(names: list[bytes], lines: list[bytes], count: int) -> None:
    """Remove the first `count` Route values in place."""
    index = 0
    while count and index < len(names):
        if names[index] != b"route":
            index += 1
            continue
        values = split_commas(line_value(lines[index]))
        if len(values) <= count:
            count -= len(values)
            del names[index], lines[index]
        else:
            lines[index] = b"Route: " + b", ".join(values[count:])
            count = 0


def forward_request(
    request: Request,
    *,
    uri: bytes,
    via: bytes,
    max_forwards: int,
    record_route: bytes | None = None,
    drop_routes: int = 0,
    routes: Sequence[bytes] = (),
    remove: Collection[bytes] = (),
    headers: Sequence[bytes] = (),
) -> bytes:
    """The request as it goes to the next hop (§16.6).

    `via` and `record_route` are full lines put on top, `routes` values that become Route lines above the remaining ones after the first
    `drop_routes` values are gone, `remove` canonical names whose lines are dropped, `headers` full lines put behind the last one.

    Raises:
        ValueError: a line break in what is put in.
        MalformedMessage: a Route that cannot be cut into values.
    """
    names, lines = request.names.copy(), request.lines.copy()
    if b"max-forwards" in names:
        lines[names.index(b"max-forwards")] = b"Max-Forwards: %d" % max_forwards
    else:
        names.insert(0, b"max-forwards")
        lines.insert(0, b"Max-Forwards: %d" % max_forwards)
    if drop_routes:
        _drop_routes(names, lines, drop_routes)
    if remove:
        lines = [line for name, line in zip(names, lines, strict=True) if name not in remove]
    out = [b"%s %s SIP/2.0" % (request.method, uri), via]
    if record_route is not None:
        out.append(record_route)
    out += [b"Route: " + route for route in routes]
    out += headers
    _check_lines(out)
    del out[len(out) - len(headers) :]
    out += lines
    out += headers
    if b"content-length" not in names:
        out.append(b"Content-Length: %d" % len(request.body))
    out.append(b"\r\n")
    return b"\r\n".join(out) + request.body


def forward_response(response: Response) -> bytes:
    """The response without its topmost Via value (§16.7 step 3), for the hop before us."""
    index = response.names.index(b"via")
    lines = response.lines.copy()
    line = lines[index]
    if b"," in line and (rest := split_first(line_value(line))[1]):
        lines[index] = b"Via: " + rest
    else:
        del lines[index]
    lines.insert(0, response.start_line)
    if b"content-length" not in response.names:
        lines.append(b"Content-Length: %d" % len(response.body))
    lines.append(b"\r\n")
    return b"\r\n".join(lines) + response.body
