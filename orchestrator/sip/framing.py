"""A stream of octets to SIP messages (RFC 3261 §18.3, §7.5, RFC 5626 §3.5.1). Pure: no socket, no clock.

A message of a stream is as long as its Content-Length says, and must have one (§20.14): without it nobody knows where
the next message begins. So what cannot be cut is the end of the stream: `ended` is true, `malformed` is the message
and what is wrong with it, for the answer that a request still gets.

However the octets are cut, each is looked at once, and a message that comes in one piece is not copied: the search for
the end of a head goes on where it stopped, so a peer that dribbles costs what one costs that does not.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage

HEAD: Final = 32_768
"""Octets that the start line and the headers may have together."""

PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"
"""RFC 5626 §3.5.1: what a phone sends to keep its connection open, and what it gets."""

_END: Final = b"\r\n\r\n"
_LONGEST_NUMBER: Final = 10
_lengths = re.compile(
    rb"\r\n(?:[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh]|[Ll])[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+)"
).findall
_is_beginning = re.compile(rb"[A-Za-z0-9\-.!%*_+`'~]").match
"""A start line begins with a token (§7)."""


class StreamFramer:
    """One stream. Give `receive` what comes, send what `take` gives; `send` gives the octets that carry a message.

    `open` is true from the start: nobody has to shake hands.
    """

    __slots__ = ("ended", "malformed", "why", "_blank", "_buffer", "_end", "_most", "_pongs", "_scanned")

    open = True
    ping_every = 0.0
    read_size = 65_536

    def __init__(self, message: int = 65_535) -> None:
        """`message`: octets that one may have, headers and body; a longer one is answered 513."""
        self.ended = False
        self.why = ""
        self.malformed: tuple[bytes, MalformedMessage] | None = None
        self._pongs = 0
        """Keep-alives to be answered."""
        self._most = message
        self._buffer = bytearray()
        """The beginning of a message; nothing between two."""
        self._scanned = 0
        """Octets of it without the end of a head."""
        self._end = 0
        """Octets of the message that it begins, 0 as long as its head is not there."""
        self._blank = b""
        """Line ends before it, as far as they may still become a ping."""

    @property
    def unfinished(self) -> bool:
        """A message has begun and has not come to its end."""
        return bool(self._buffer)

    @property
    def held(self) -> int:
        """Octets kept of it."""
        return len(self._buffer)

    def receive(self, octets: bytes) -> list[bytes]:
        """Octets of the peer, however they were cut. Returns the messages that are whole now."""
        found: list[bytes] = []
        if self.ended:
            return found
        buffer = self._buffer
        if buffer:
            buffer += octets
            if len(buffer) < self._end:
                return found
        data: bytes | bytearray = buffer or octets
        start, size = 0, len(data)
        while start < size:
            if not self._end:
                if not self._scanned:
                    start = self._skip_blanks(data, start)
                    if start == size:
                        break
                    if _is_beginning(data, start) is None:
                        self._fail(b"", 0, "this is no SIP")
                        return found
                behind = data.find(_END, start + max(0, self._scanned - 3))
                if behind < 0:
                    self._scanned = size - start
                    if self._scanned > HEAD:
                        self._fail(b"", 0, "too long a head")
                        return found
                    break
                if not self._measure(bytes(data[start : behind + 4])):
                    return found
            if size - start < self._end:
                break
            found.append(bytes(data[start : start + self._end]))
            start += self._end
            self._end = self._scanned = 0
        if data is buffer:
            del buffer[:start]
        elif start < size:
            buffer += octets[start:] if start else octets
        return found

    def take(self) -> bytes:
        """Octets for the peer since the last time: a pong for each ping."""
        pongs, self._pongs = self._pongs, 0
        return PONG * pongs

    def send(self, message: bytes) -> bytes:
        """The octets that carry a message."""
        return message

    def ping(self) -> bytes:
        """Nothing: it is for who has opened a connection to ask (RFC 5626 §3.5.1)."""
        return b""

    def give_up(self) -> None:
        """The rest of the message that has begun does not come; a request is owed an answer all the same."""
        if self._buffer and not self.ended:
            self._fail(bytes(self._buffer), 400, "Incomplete Message")

    def close(self) -> None:
        """End it from our side."""
        self.ended = True
        self._buffer.clear()

    def _skip_blanks(self, data: bytes | bytearray, start: int) -> int:
        """Where a message begins behind line ends, which say nothing but that the peer is there."""
        size, position = len(data), start
        while position < size and data[position] in PING:
            position += 1
        if position == start:
            self._blank = b""
            return position
        *pings, rest = (self._blank + data[start:position]).split(PING)
        self._pongs += len(pings)
        self._blank = rest[-3:] if position == size else b""
        return position

    def _measure(self, head: bytes) -> bool:
        """How long the message with this head is. False when it has no length: then the stream has ended."""
        lengths = _lengths(head)
        if not lengths:
            self._fail(head, 400, "Content-Length is missing")
            return False
        text = lengths[0].strip()
        if len(lengths) > 1 and any(length.strip() != text for length in lengths):
            self._fail(head, 400, "several Content-Lengths")
            return False
        if not text.isdigit():
            self._fail(head, 400, "Content-Length is not a number")
            return False
        if len(head) > HEAD:
            self._fail(head, 513, "Message Too Large")
            return False
        size = len(head) + int(text) if len(text) <= _LONGEST_NUMBER else self._most + 1
        if size > self._most:
            self._fail(head, 513, "Message Too Large")
            return False
        self._end = size
        return True

    def _fail(self, head: bytes, status: int, why: str) -> None:
        self.ended = True
        self.why = why
        self.malformed = (head, MalformedMessage(why, status))
        self._buffer.clear()
