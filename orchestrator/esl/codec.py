"""Event Socket bytes to frames to events: the reading half of mod_event_socket's protocol.

A frame is a block of `Name: value` lines, an empty line, and exactly Content-Length octets of body when that header
is there (mod_event_socket.c). The lines of this outer block are raw. An event travels as the body of a
`text/event-plain` frame and is itself a block of lines, this time URL-encoded value by value (switch_event.c,
switch_event_serialize), with an optional raw body behind an empty line of its own. The one exception is the reply to
`connect`: there the event *is* the outer block.

Order matters for safety. Whoever calls us writes parts of these values (display name, X- headers), and FreeSWITCH
lets a literal `%0A` through unescaped. So a block is first split at its real line feeds, and only then is each value
decoded, once: a line feed that comes out of a value stays inside that value. greenswitch does it the other way round,
which lets a caller forge events.

An event has some 150 headers of which a router reads five. `EslEvent` therefore keeps the block as it came and looks
a header up when it is asked for; splitting all of them costs ten times the search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any
from urllib.parse import unquote_to_bytes

from orchestrator import native
from orchestrator.errors import EslProtocolError

MAX_HEAD = 256 * 1024
"""Octets of an outer header block. Ordinary ones have 60; a `connect` reply holds a whole channel with its SDP (10-30
KB).
"""
MAX_BODY = 16 * 1024 * 1024
"""Octets of a body: FreeSWITCH's own limit for what it accepts from us; also what one frame may cost in memory."""

AUTH_REQUEST = "auth/request"
COMMAND_REPLY = "command/reply"
API_RESPONSE = "api/response"
DISCONNECT_NOTICE = "text/disconnect-notice"
RUDE_REJECTION = "text/rude-rejection"
EVENT_PLAIN = "text/event-plain"
EVENT_JSON = "text/event-json"
LOG_DATA = "log/data"

_ARRAY = "ARRAY::"
_UNDEFINED = "_undef_"
_PERCENT = ord("%")  # asking for an octet is five times faster than asking for a bytes of one
_END = b"\n\n"
_LENGTH = b"Content-Length: "
_LENGTH_LINE = b"\n" + _LENGTH
_EVENT_LINE = b"\nEvent-Name: "
_PLAIN_HEAD = re.compile(rb"Content-Length: ([0-9]{1,7})\nContent-Type: text/event-plain\n\n")
"""The head of nearly every frame, in the one form FreeSWITCH gives it; other forms are read line by line."""


def split_array(value: str) -> list[str]:
    """The parts of a multi-value header, `ARRAY::a|:b` to `['a', 'b']`; another value is a list of one, '' of none."""
    if value.startswith(_ARRAY):
        return value[len(_ARRAY) :].split("|:")
    return [value] if value else []


def _decode(value: bytes) -> str:
    """One header value of an event: URL-decoded once, invalid UTF-8 replaced, FreeSWITCH's word for empty made
    empty.
    """
    if _PERCENT in value:
        value = unquote_to_bytes(value)
    text = value.decode("utf-8", "replace")
    return "" if text == _UNDEFINED else text


class _Needles(dict[str, bytes]):
    """Header name → what its line begins with, the line feed before it included. Faster than a cached function."""

    def __missing__(self, name: str) -> bytes:
        needle = b"\n" + name.encode("utf-8", "replace") + b": "
        if len(self) < 1024:
            self[name] = needle
        return needle


_NEEDLES = _Needles()

_header: Callable[[bytes, bytes, Any], Any] | None = getattr(native.FAST, "header", None)
"""The value of the first line that begins so, in C; it reads no body."""
_identity: Callable[[bytes], tuple[str, str, str, str, str]] | None = getattr(native.FAST, "identity", None)
"""What every event is asked for, in one go."""
_events: Callable[[bytes, int], tuple[list[bytes], int]] | None = getattr(native.FAST, "events", None)
"""Cuts frames of the usual head in C."""


def _find(head: bytes, name: str) -> bytes | None:
    """Raw value of the first line of that name; `head` begins and ends with a line feed."""
    needle = _NEEDLES[name]
    at = head.find(needle)
    if at < 0:
        return None
    at += len(needle)
    return head[at : head.find(b"\n", at)]


class EslEvent:
    """One event. Headers are decoded when asked for; of a repeated header the first counts, as in
    switch_event_get_header.

    Make it with `plain(block)` from the body of a text/event-plain frame, or with `json(text)`.
    """

    __slots__ = ("_lines", "_head", "_body", "_fields", "_headers", "name", "uuid", "core_uuid", "order", "key")

    def __init__(self, lines: bytes, fields: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """`lines`: URL-encoded lines with a line feed in front of them, and behind an empty line the body, as long as
        the last header says; or `fields` and `body` of an event that came otherwise."""
        self._lines = lines
        self._head: bytes | None = None  # of `lines`, begins and ends with a line feed; nearly no event needs it
        self._body = body
        self._fields = fields
        self._headers: dict[str, str] | None = None
        if _identity is not None and fields is None:
            name, uuid, core_uuid, order, subclass = _identity(lines)
        else:
            get = self.get
            name, uuid, core_uuid, order = get("Event-Name"), get("Unique-ID"), get("Core-UUID"), get("Event-Sequence")
            subclass = get("Event-Subclass") if name == "CUSTOM" else ""
        self.name = name
        """`DTMF`, `CUSTOM` …"""
        self.uuid = uuid
        """The channel it belongs to; '' for events of the switch and for core tone_detect."""
        self.core_uuid = core_uuid
        """Changes when FreeSWITCH is restarted."""
        self.order = order
        """Event-Sequence as it came; see `sequence`."""
        self.key = name if name != "CUSTOM" else subclass
        """What handlers and flows call it: the subclass of a CUSTOM event, the name of any other."""

    @staticmethod
    def plain(block: bytes) -> EslEvent:
        """Of the body of a text/event-plain frame."""
        return EslEvent(b"\n" + block)

    def _cut(self) -> bytes:
        """The head; `_body` is set."""
        head = self._head
        if head is None:
            head = self._lines
            if head.rfind(_LENGTH_LINE) < 0:  # asked first: searching for an empty line is six times slower
                head = head if head.endswith(b"\n") else head + b"\n"
            else:
                head, _, body = head.partition(_END)
                head += b"\n"
                length = _find(head, "Content-Length")
                if length is not None and length.isdigit() and len(length) < 10:
                    body = body[: int(length)]
                self._body = body
            self._head = head
        return head

    @staticmethod
    def json(text: bytes | str) -> EslEvent | None:
        """`event json` form, also what `uuid_dump <uuid> json` answers; None when it is no JSON object.

        Not strict: FreeSWITCH leaves control characters of a value as they are.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        try:
            fields = json.loads(text, strict=False)
            if not isinstance(fields, dict):
                return None
            body = fields.pop("_body", "")
            return EslEvent(b"", fields, str(body).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None

    def find(self, name: str) -> str | None:
        """Value of the first header of this name (case matters), None when the event has none."""
        if self._fields is not None:
            return _text(self._fields[name]) if name in self._fields else None
        if _header is not None:
            found: str | None = _header(self._lines, _NEEDLES[name], None)
            return found
        value = _find(self._cut(), name)
        return None if value is None else _decode(value)

    def get(self, name: str, default: str = "") -> str:
        """The same with a default."""
        if self._fields is not None:
            return _text(self._fields[name]) if name in self._fields else default
        # _find and _decode written out: this line of code runs ten times for every event
        needle = _NEEDLES[name]
        if _header is not None:
            value: str = _header(self._lines, needle, default)
            return value
        head = self._cut()
        at = head.find(needle)
        if at < 0:
            return default
        at += len(needle)
        octets = head[at : head.find(b"\n", at)]
        if _PERCENT in octets:
            octets = unquote_to_bytes(octets)
        text = octets.decode("utf-8", "replace")
        return "" if text == _UNDEFINED else text

    @property
    def block(self) -> bytes:
        """The plain block as it came, body included; b"" for an event that came as JSON."""
        if self._fields is not None:
            return b""
        head = self._cut()
        return head[1:] + b"\n" + self._body if self._body else head[1:]

    def array(self, name: str) -> list[str]:
        """The values of a header that may hold several."""
        return split_array(self.get(name))

    @property
    def headers(self) -> dict[str, str]:
        """All headers, decoded; made on first use and kept. Prefer `get` on the message path."""
        if self._headers is None:
            if self._fields is not None:
                self._headers = {name: _text(value) for name, value in self._fields.items()}
            else:
                headers: dict[str, str] = {}
                for line in self._cut().split(b"\n"):
                    name, colon, value = line.partition(b": ")
                    if colon:
                        headers.setdefault(name.decode("utf-8", "replace"), _decode(value))
                self._headers = headers
        return self._headers

    @property
    def body(self) -> str:
        """Body as text; never URL-encoded."""
        if self._fields is None:
            self._cut()
        return self._body.decode("utf-8", "replace")

    @property
    def subclass(self) -> str:
        """`avmd::beep` for a CUSTOM event, else ''."""
        return self.get("Event-Subclass")

    @property
    def sequence(self) -> int:
        """Event-Sequence: counts all events of one FreeSWITCH core, also those we did not subscribe to; 0 when
        absent.
        """
        return integer(self.order)

    @property
    def timestamp(self) -> float:
        """When FreeSWITCH made the event, unix seconds; 0.0 when absent."""
        return integer(self.get("Event-Date-Timestamp")) / 1e6

    def __repr__(self) -> str:
        return f"<EslEvent {self.key or '?'} #{self.sequence}{' ' + self.uuid if self.uuid else ''}>"


def _text(value: Any) -> str:
    """A JSON value as the plain format would write it."""
    if isinstance(value, str):
        return "" if value == _UNDEFINED else value
    if isinstance(value, list):
        return _ARRAY + "|:".join(_text(item) for item in value)
    return "" if value is None else json.dumps(value)


def integer(text: str) -> int:
    """A header that counts something; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def number(text: str) -> float:
    """A header that measures something; 0.0 for anything else."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if isfinite(value) else 0.0


class Frame:
    """One frame: the outer header block (raw, ends with a line feed) and the body."""

    __slots__ = ("content_type", "_head", "_lines")

    def __init__(self, content_type: str, head: bytes, body: bytes = b"", lines: bytes = b"") -> None:
        """`lines`: the body and the line feed in front of it, where it is there; to put it there costs a copy."""
        self.content_type = content_type
        self._head = head
        self._lines = lines or b"\n" + body

    @property
    def head(self) -> bytes:
        """Of an event in the usual form nobody asks for it, so it is not kept."""
        if not self._head and self.content_type == EVENT_PLAIN:
            return b"Content-Length: %d\nContent-Type: text/event-plain\n" % self.size
        return self._head

    @property
    def body(self) -> bytes:
        return self._lines[1:]

    @property
    def size(self) -> int:
        """Octets of the body."""
        return len(self._lines) - 1

    def get(self, name: str, default: str = "") -> str:
        """Value of an outer header. These are raw, except in the reply to `connect`, which is an event."""
        head = b"\n" + self.head
        value = _find(head, name)
        if value is None:
            return default
        return _decode(value) if _EVENT_LINE in head else value.decode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        """All outer headers; the name and shape greenswitch gives a reply."""
        names = (line.partition(b": ") for line in self.head.split(b"\n"))
        return {name: self.get(name) for name in (raw.decode("utf-8", "replace") for raw, colon, _ in names if colon)}

    @property
    def text(self) -> str:
        """What a command answered: the body of an api/response, the Reply-Text of a command/reply."""
        return self.get("Reply-Text") if self.content_type == COMMAND_REPLY else self.body.decode("utf-8", "replace")

    @property
    def data(self) -> str:
        """greenswitch's name for it."""
        return self.text

    @property
    def ok(self) -> bool:
        """False for a reply that begins with -ERR or -USAGE."""
        return not self.text.startswith(("-ERR", "-USAGE"))

    def event(self) -> EslEvent | None:
        """The event inside; None for a frame that holds none, or JSON that cannot be read."""
        if self.content_type == EVENT_PLAIN:
            return EslEvent(self._lines)
        if self.content_type == EVENT_JSON:
            return EslEvent.json(self.body)
        head = b"\n" + self.head
        return EslEvent(head) if _EVENT_LINE in head else None

    def __repr__(self) -> str:
        return f"<Frame {self.content_type} {self.size} octets>"


class FrameDecoder:
    """Cuts a byte stream into frames, whatever the pieces it arrives in."""

    __slots__ = ("error", "_pending", "_need")

    def __init__(self) -> None:
        self.error: EslProtocolError | None = None
        """Set once the stream can no longer be cut; every later `feed` raises it."""
        self._pending = bytearray()
        self._need = 0  # length the incomplete frame will have; 0 while its head is not complete

    @property
    def pending(self) -> int:
        """Octets of a frame that is not complete."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data` (any length) and return the frames it completes, in order.

        Raises EslProtocolError when the stream breaks the framing and no complete frame is left to hand over: frames
        in front of the broken one are returned first, with `error` set.
        """
        if self.error is not None:
            raise self.error
        frames: list[Frame] = []
        begin = 0
        try:
            if self._need:
                begin = self._need - len(self._pending)
                if len(data) < begin:
                    self._pending += data
                    return frames
                whole, self._pending, self._need = bytes(self._pending) + data[:begin], bytearray(), 0
                self._cut(whole, 0, frames)
            elif self._pending:
                old = len(self._pending)
                self._pending += data
                if self._pending.find(_END, old - 1) < 0:
                    self._limit_head(len(self._pending))
                    return frames
                data, self._pending = bytes(self._pending), bytearray()
            rest = self._cut(data, begin, frames)
        except EslProtocolError as error:
            self.error = error
            if not frames:
                raise
            return frames
        if rest < len(data):
            self._pending += data[rest:]
        return frames

    def _cut(self, data: bytes, position: int, frames: list[Frame]) -> int:
        """Append the complete frames of `data` from here on; return where the incomplete rest begins."""
        size = len(data)
        while position < size:
            if _events is not None:
                blocks, position = _events(data, position)
                frames += [Frame(EVENT_PLAIN, b"", lines=block) for block in blocks]
                if position == size:
                    break
            match = _PLAIN_HEAD.match(data, position)
            if match is not None:
                content_type, length, begin = EVENT_PLAIN, int(match[1]), match.end()
            else:
                end = data.find(_END, position)
                if end < 0:
                    self._limit_head(size - position)
                    return position
                if data[position] == 10:  # an empty line where a frame should begin: no frame, no harm
                    position += 1
                    continue
                begin = end + 2
                content_type, length = _parse_head(data[position : end + 1])
            after = begin + length
            if after > size:
                self._need = after - position
                return position
            frames.append(Frame(content_type, data[position : begin - 1], lines=data[begin - 1 : after]))
            position = after
        return position

    def _limit_head(self, octets: int) -> None:
        if octets > MAX_HEAD:
            self.error = EslProtocolError(f"header block of more than {MAX_HEAD} octets")
            raise self.error


def _parse_head(head: bytes) -> tuple[str, int]:
    """Content type ('' when missing) and body length (0 when missing) of an outer block."""
    head = b"\n" + head
    if head.count(_LENGTH_LINE) > 1:
        raise EslProtocolError("two Content-Length headers in one frame")
    digits = _find(head, "Content-Length")
    kind = _find(head, "Content-Type") or b""
    return kind.decode("utf-8", "replace").strip(), 0 if digits is None else _length(digits.strip())


def _length(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 9 or int(digits) > MAX_BODY:
        raise EslProtocolError(f"bad Content-Length {digits[:20]!r} (limit {MAX_BODY})")
    return int(digits)
