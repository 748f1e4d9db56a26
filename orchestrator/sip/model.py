"""What a SIP message is to the rest of the program: raw header lines, and typed views of them made on first use.

A proxy reads a handful of headers and passes on all of them, so a message keeps its header lines as they came (folds,
case and order included) and next to them their canonical names, which all messages of one make share
(`sip.header_shapes`). Forwarding edits the list of lines; nothing is re-serialised.

What every message is judged by (start line, top Via, From, To, Call-ID, CSeq, Max-Forwards, Content-Length) was checked
when it was parsed: these accessors never raise. Contact, Route and Record-Route are read when asked for and may raise
MalformedMessage then. Messages never change, with three exceptions the RFC demands: `Request.stamp_source`,
`Request.take_last_route`, and `Request.drop_line` for what ends here.

A request that waits for long is *folded* (`Request.fold`): half of the memory it takes is lists and heads of objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import BLANKS, COMMA, CR, is_token, read_number
from orchestrator.sip.header_shapes import Shape, shape_of
from orchestrator.sip.headers import Via, parse_contacts, parse_name_addrs, parse_via, split_commas, split_first
from orchestrator.sip.names import LONG_NAMES
from orchestrator.sip.tolerance import any_address
from orchestrator.sip.uri import NameAddr, Uri, parse_uri

_fold = re.compile(rb"\r\n[ \t]++").sub
_unfolded_break = re.compile(rb"\r\n(?![ \t])").split
_END: Final = b"\r\n\r\n"


def line_value(line: bytes) -> bytes:
    """Value of a header line: unfolded (§7.3.1), stripped."""
    value = line.split(b":", 1)[1].strip(b" \t\r\n")
    return _fold(b" ", value) if CR in value else value


class Fold:
    """What folded requests of one model of phone have in common besides their shape: at their places those lines that
    are the same in all. Of the others, a line that the rest of the request says again is b'' (`SAID`), one of the
    request's own is None."""

    __slots__ = ("lines",)

    def __init__(self, lines: tuple[bytes | None, ...]) -> None:
        self.lines = lines


NO_LINES: Final[list[bytes]] = []
SAID: Final = b""
"""Stands for a line that `said_again` gives; no line is empty."""
WHOLE: Final = Fold(())
"""Of a response whose lines nobody has looked at yet: its octets are in one piece, as they came (`sip.parser`)."""


class Message:
    """A parsed message; see `Request` and `Response`.

    `shape` has the canonical lower-case long name of each header line, `lines` the raw line without its final CRLF,
    `body` exactly the octets Content-Length counts. `via` is the topmost value. `max_forwards` is None when absent
    (RFC 2543), and in responses. `from_tag` and `to_tag` are those of From and To, the latter None outside of dialogs.
    """

    __slots__ = (
        "shape", "call_id", "cseq", "cseq_method", "max_forwards", "from_tag", "to_tag", "_from", "_to",
        "_lines", "_body", "_via", "_folded",
    )  # fmt: skip

    shape: Shape
    call_id: bytes
    cseq: int
    cseq_method: bytes
    max_forwards: int | None
    from_tag: bytes | None
    to_tag: bytes | None
    _from: NameAddr | None
    _to: NameAddr | None
    _lines: list[bytes]
    _body: bytes
    """Of a folded request its own lines, too, each with CRLF, and the empty line behind them; all of a response in one
    piece."""
    _via: Via | None
    _folded: Fold | None
    """None: it is not folded."""

    @property
    def lines(self) -> list[bytes]:
        if self._folded is WHOLE:
            self.unfold()
        return self._lines if self._folded is None else self._folded_lines()

    @lines.setter
    def lines(self, lines: list[bytes]) -> None:
        self._lines = lines

    @property
    def body(self) -> bytes:
        return self._body if self._folded is None else self._body.partition(_END)[2]

    @body.setter
    def body(self, body: bytes) -> None:
        self._body = body

    @property
    def via(self) -> Via:
        via = self._via
        return via if via is not None else parse_via(self.get(b"via") or b"")

    @via.setter
    def via(self, via: Via) -> None:
        self._via = via

    def unfold(self) -> None:
        """Its lines are about to be read again and again, or to change."""
        if self._folded is WHOLE:
            head, _, self._body = self._body.partition(_END)
            self._lines = head.split(b"\r\n")[1:]
            self._folded = None
        elif self._folded is not None:
            self._lines, self._body, self._via, self._folded = self.lines, self.body, self.via, None

    def _folded_lines(self) -> list[bytes]:
        fold = self._folded
        assert fold is not None
        own: Iterator[bytes] = iter(_unfolded_break(self._body.partition(_END)[0]))
        return [
            next(own) if line is None else line or said_again(self, name)
            for name, line in zip(self.names, fold.lines, strict=True)
        ]

    @property
    def names(self) -> tuple[bytes, ...]:
        """Canonical names, one for each header line."""
        return self.shape.names

    def has(self, name: bytes) -> bool:
        """Whether there is a header called `name` (canonical)."""
        return name in self.shape.first

    def get(self, name: bytes) -> bytes | None:
        """Value of the first header called `name` (canonical): unfolded and stripped; None when absent."""
        at = self.shape.first.get(name)
        return line_value(self.lines[at]) if at is not None else None

    def get_all(self, name: bytes) -> list[bytes]:
        """Values of all headers of that name, one per line, not split at commas."""
        names, lines = self.names, self.lines
        count = names.count(name)
        if count < 2:
            return [line_value(lines[names.index(name)])] if count else []
        return [line_value(line) for key, line in zip(names, lines, strict=True) if key == name]

    @property
    def from_(self) -> NameAddr:
        """The From address."""
        address = self._from
        if address is None:
            address = self._from = any_address(self.get(b"from") or b"")
        return address

    @property
    def to(self) -> NameAddr:
        """The To address."""
        address = self._to
        if address is None:
            address = self._to = any_address(self.get(b"to") or b"")
        return address

    def contacts(self) -> list[NameAddr]:
        """Contact values in order; `*` gives one address with `star`. Raises MalformedMessage."""
        return parse_contacts(self.get_all(b"contact")) if self.has(b"contact") else []

    def routes(self) -> list[NameAddr]:
        """Route values in order. Raises MalformedMessage."""
        return parse_name_addrs(self.get_all(b"route")) if self.has(b"route") else []

    def record_routes(self) -> list[NameAddr]:
        """Record-Route values in order. Raises MalformedMessage."""
        return parse_name_addrs(self.get_all(b"record-route")) if self.has(b"record-route") else []

    def vias(self) -> list[Via]:
        """All Via values, topmost first. Raises MalformedMessage for one below the top."""
        return [parse_via(value) for line in self.get_all(b"via") for value in split_commas(line)]

    def tokens(self, name: bytes) -> list[bytes]:
        """Comma-separated tokens of all headers of that name (option tags, methods); what is none is left out."""
        if not self.has(name):
            return []
        return [piece for piece in self._pieces(name) if is_token(piece)]

    def _pieces(self, name: bytes) -> list[bytes]:
        return [piece for value in self.get_all(name) for part in value.split(b",") if (piece := part.strip(BLANKS))]

    def _option_tags(self, name: bytes) -> list[bytes]:
        """What may not be left out: somebody has to understand it. Raises MalformedMessage."""
        found = self._pieces(name)
        if not all(map(is_token, found)):
            raise MalformedMessage(f"Malformed {LONG_NAMES[name]}")
        return found

    def require(self) -> list[bytes]:
        """Option tags of Require (§20.32). Raises MalformedMessage."""
        return self._option_tags(b"require")

    def proxy_require(self) -> list[bytes]:
        """Option tags of Proxy-Require (§20.29). Raises MalformedMessage."""
        return self._option_tags(b"proxy-require")

    def drop_line(self, index: int) -> None:
        """Take out a header line that ends here: credentials for us are nobody else's to see (§22.3)."""
        self.unfold()
        names = self.names
        self.shape = shape_of((*names[:index], *names[index + 1 :]))
        del self.lines[index]

    def drop_header(self, name: bytes) -> None:
        """Take out all lines of a header."""
        for index in reversed([index for index, known in enumerate(self.names) if known == name]):
            self.drop_line(index)

    def add_line(self, name: bytes, line: bytes) -> None:
        """Put a header line behind the last one; `name` is canonical."""
        self.unfold()
        self.shape = shape_of((*self.names, name))
        self.lines.append(line)

    @property
    def expires(self) -> int | None:
        """Seconds of the Expires header, capped at 2**32-1; None when absent or unreadable (§10.2.1.1)."""
        return read_number(self.get(b"expires"))


def said_again(message: Message, name: bytes) -> bytes:
    """The header line of that name as most write it, made of what the rest of the message says; b'' for others."""
    if name == b"call-id":
        return b"Call-ID: " + message.call_id
    if name == b"cseq":
        return b"CSeq: %d %b" % (message.cseq, message.cseq_method)
    if name == b"content-length":
        return b"Content-Length: %d" % len(message.body)
    if name == b"to" and isinstance(message, Request):
        return b"To: <%b>" % message.uri
    return b""


class Request(Message):
    """A request; `uri` is the raw Request-URI."""

    __slots__ = ("method", "uri", "_contacts", "_parsed_uri")

    def __init__(self, method: bytes, uri: bytes) -> None:
        """Only the start line; the parser fills in the rest."""
        self.method = method
        self.uri = uri
        self.max_forwards = self.from_tag = self.to_tag = None
        self._parsed_uri: Uri | None = None
        self._contacts: list[NameAddr] | None = None
        self._from = None
        self._to = None
        self._folded = None

    @property
    def parsed_uri(self) -> Uri:
        """The Request-URI; of a scheme other than sip and sips it is opaque (the 416 is the proxy's)."""
        parsed = self._parsed_uri
        if parsed is None:
            parsed = self._parsed_uri = parse_uri(self.uri)
        return parsed

    def contacts(self) -> list[NameAddr]:
        contacts = self._contacts
        if contacts is None:
            contacts = self._contacts = super().contacts()
        return contacts

    @property
    def start_line(self) -> bytes:
        """The request line as it is sent."""
        return b"%s %s SIP/2.0" % (self.method, self.uri)

    def stamp_source(self, host: bytes, port: int) -> None:
        """Note in the top Via where this request came from; see `Via.stamped`."""
        via = self.via
        stamped = via.stamped(host, port)
        if stamped is via:
            return
        self.unfold()
        index = self.shape.via
        line, old, new = self.lines[index], via.tail, stamped.tail
        if old and COMMA not in line and line.endswith(old):  # as in most
            line = line[: -len(old)] + new
        elif old and line.find(old) >= 0:
            line = line.replace(old, new, 1)
        else:  # no parameters to find it by, or folded
            first, rest = split_first(line_value(line))
            line = b"Via: %s%s" % (first[: len(first) - len(old.rstrip(BLANKS))].rstrip(BLANKS), new)
            line += b", " + rest if rest else b""
        self.lines[index] = line
        self.via = stamped

    def fold(self, fold: Fold) -> None:
        """Keep what this request has of its own in one piece, and let go of all that can be read again: it waits now,
        maybe for long. What it says stays the same. `fold` has its other lines."""
        lines = self.lines
        own = [line for line, known in zip(lines, fold.lines, strict=True) if known is None]
        self._body = b"\r\n".join([*own, b"", self.body])
        self._lines, self._folded = NO_LINES, fold
        self._parsed_uri = self._contacts = self._from = self._to = self._via = None

    def take_last_route(self) -> None:
        """Make the last Route value the Request-URI: a strict router has put the Request-URI there (§16.4, §16.12.1.2).

        Raises MalformedMessage; the request is as it was then.
        """
        self.unfold()
        last = self.routes()[-1]
        parsed = last.parsed
        index = len(self.names) - 1 - self.names[::-1].index(b"route")
        values = split_commas(line_value(self.lines[index]))
        if len(values) > 1:
            self.lines[index] = b"Route: " + b", ".join(values[:-1])
        else:
            self.drop_line(index)
        self.uri, self._parsed_uri = bytes(parsed), parsed

    def readdress(self, uri: bytes) -> None:
        """Put another Request-URI in place: what a temporary GRUU stands for (RFC 5627 §5.2)."""
        self.unfold()
        self.uri, self._parsed_uri = uri, None

    def __repr__(self) -> str:
        return f"<Request {self.method!r} {self.uri!r} {self.call_id!r} {self.cseq}>"


class Response(Message):
    """A response; `reason` is the raw reason phrase, possibly empty."""

    __slots__ = ("status", "reason", "_via_at", "_via_end")

    def __init__(self, status: int, reason: bytes) -> None:
        """Only the start line; the parser fills in the rest."""
        self._via_at = self._via_end = 0
        self.status = status
        self.reason = reason
        self.max_forwards = self.from_tag = self.to_tag = None
        self._from = None
        self._to = None
        self._folded = None

    def keep_whole(self, data: bytes, via_at: int, via_end: int) -> None:
        """Take all octets in one piece: a head of whole lines and a body that ends with them. `via_at` and `via_end`
        are where the top Via begins and the line behind it; there is nothing else in that line."""
        self._body, self._lines, self._folded = data, NO_LINES, WHOLE
        self._via_at, self._via_end = via_at, via_end

    @property
    def behind_us(self) -> bytes | None:
        """The octets without the line of the topmost Via; None where they are not in one piece any more."""
        if self._folded is not WHOLE:
            return None
        return self._body[: self._via_at] + self._body[self._via_end :]

    @property
    def start_line(self) -> bytes:
        """The status line as it is sent."""
        return b"SIP/2.0 %d %s" % (self.status, self.reason)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.call_id!r} {self.cseq} {self.cseq_method!r}>"
