"""What a SIP message is to the rest of the program: raw header lines, and typed views of them made on first use.

A proxy reads a handful of headers and passes on all of them, so a message keeps its header lines as they came (folds, case and
order included) and next to them the list of their canonical names. Forwarding edits the list of lines; nothing is re-serialised.

What every message is judged by (start line, top Via, From, To, Call-ID, CSeq, Max-Forwards, Content-Length) was checked when it was
parsed: these accessors never raise. Contact, Route, Record-Route and token lists are read when asked for and may raise
MalformedMessage then. Messages are never changed, with one exception the RFC demands: `Request.stamp_source`.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import MAX_NUMBER
from orchestrator.sip.headers import Via, parse_contacts, parse_name_addrs, parse_via, split_commas, split_first
from orchestrator.sip.uri import NameAddr, Uri, parse_name_addr

_fold = re.compile(rb"\r\n[ \t]++").sub


def line_value(line: bytes) -> bytes:
    """Value of a header line: unfolded (§7.3.1), stripped."""
    value = line.split(b":", 1)[1].strip()
    return _fold(b" ", value) if b"\r\n" in value else value


class Message:
    """A parsed message; see `Request` and `Response`.

    `names` holds the canonical lower-case long name of each header line, `lines` the raw line without its final CRLF, `body` exactly
    the octets Content-Length counts. `call_id`, `cseq`, `cseq_method` and `via` (the topmost value) are read at parse time.
    """

    __slots__ = ("names", "lines", "body", "call_id", "cseq", "cseq_method", "via", "_from", "_to")

    def __init__(self, names: list[bytes], lines: list[bytes], body: bytes) -> None:
        self.names = names
        self.lines = lines
        self.body = body
        self.call_id = b""
        self.cseq = 0
        self.cseq_method = b""
        self.via: Via
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None

    def get(self, name: bytes) -> bytes | None:
        """Value of the first header called `name` (canonical, lower-case): unfolded and stripped; None when absent."""
        names = self.names
        return line_value(self.lines[names.index(name)]) if name in names else None

    def get_all(self, name: bytes) -> list[bytes]:
        """Values of all headers of that name, one per line, not split at commas."""
        return [line_value(line) for key, line in zip(self.names, self.lines, strict=True) if key == name]

    @property
    def from_(self) -> NameAddr:
        address = self._from
        if address is None:
            address = self._from = parse_name_addr(self.get(b"from") or b"")
        return address

    @property
    def to(self) -> NameAddr:
        address = self._to
        if address is None:
            address = self._to = parse_name_addr(self.get(b"to") or b"")
        return address

    def contacts(self) -> list[NameAddr]:
        """Contact values in order; `*` gives one address with `star`. Raises MalformedMessage."""
        return parse_contacts(self.get_all(b"contact"))

    def routes(self) -> list[NameAddr]:
        """Route values in order. Raises MalformedMessage."""
        return parse_name_addrs(self.get_all(b"route")) if b"route" in self.names else []

    def record_routes(self) -> list[NameAddr]:
        """Record-Route values in order. Raises MalformedMessage."""
        return parse_name_addrs(self.get_all(b"record-route")) if b"record-route" in self.names else []

    def vias(self) -> list[Via]:
        """All Via values, topmost first. Raises MalformedMessage for one below the top."""
        return [parse_via(value) for line in self.get_all(b"via") for value in split_commas(line)]

    def tokens(self, name: bytes) -> list[bytes]:
        """Comma-separated elements of all headers of that name: option tags, methods. Empty ones are left out."""
        if name not in self.names:
            return []
        return [token for line in self.get_all(name) for token in (piece.strip() for piece in line.split(b",")) if token]

    def require(self) -> list[bytes]:
        """Option tags of Require (§20.32)."""
        return self.tokens(b"require")

    def proxy_require(self) -> list[bytes]:
        """Option tags of Proxy-Require (§20.29)."""
        return self.tokens(b"proxy-require")

    @property
    def expires(self) -> int | None:
        """Seconds of the Expires header; None when absent or unreadable (§10.2.1.1: as if absent); capped at 2**32-1."""
        value = self.get(b"expires")
        return min(int(value), MAX_NUMBER) if value and value.isdigit() and len(value) <= 20 else None


class Request(Message):
    """A request. `uri` is the raw Request-URI, `max_forwards` None when the header is absent (RFC 2543)."""

    __slots__ = ("method", "uri", "parsed_uri", "max_forwards")

    def __init__(self, method: bytes, uri: Uri, names: list[bytes], lines: list[bytes], body: bytes) -> None:
        super().__init__(names, lines, body)
        self.method = method
        self.parsed_uri = uri
        self.uri = bytes(uri)
        self.max_forwards: int | None = None

    @property
    def start_line(self) -> bytes:
        return b"%s %s SIP/2.0" % (self.method, self.uri)

    def stamp_source(self, host: bytes, port: int) -> None:
        """Note the source of a received request in its top Via: `received` (§18.2.1) and, when asked for, `rport` (RFC 3581 §4).

        `host` is an IP address in text, IPv6 without brackets. What the sender wrote into these two parameters itself is replaced.
        """
        via = self.via
        wants_rport = via.wants_rport
        if not wants_rport and via.host.strip(b"[]") == host and b"received" not in via.params:
            return
        index = self.names.index(b"via")
        first, rest = split_first(line_value(self.lines[index]))
        bare = _source_params(b"", first)
        stamped = b"%s;rport=%d;received=%s" % (bare, port, host) if wants_rport else b"%s;received=%s" % (bare, host)
        self.lines[index] = b"Via: %s, %s" % (stamped, rest) if rest else b"Via: " + stamped
        self.via = parse_via(stamped)

    def __repr__(self) -> str:
        return f"<Request {self.method.decode(errors='replace')} {self.uri!r} {self.call_id!r} {self.cseq}>"


_source_params = re.compile(rb";[ \t]*+(?i:received|rport)[ \t]*+(?:=[^;]*+|(?=;|$))").sub


class Response(Message):
    """A response. `reason` is the raw reason phrase, possibly empty."""

    __slots__ = ("status", "reason")

    def __init__(self, status: int, reason: bytes, names: list[bytes], lines: list[bytes], body: bytes) -> None:
        super().__init__(names, lines, body)
        self.status = status
        self.reason = reason

    @property
    def start_line(self) -> bytes:
        return b"SIP/2.0 %d %s" % (self.status, self.reason)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.call_id!r} {self.cseq} {self.cseq_method.decode(errors='replace')}>"


DIALOG_METHODS: Final = frozenset((b"INVITE", b"SUBSCRIBE", b"REFER", b"NOTIFY"))
"""Methods whose answers carry Record-Route back (§12.1.1, RFC 6665)."""

__all__ = ["DIALOG_METHODS", "MalformedMessage", "Message", "Request", "Response", "line_value"]
