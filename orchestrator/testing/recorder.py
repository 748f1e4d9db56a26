"""Writing down an Event Socket connection while it happens: the pure half of `orchestrator record`.

A recorder is fed what passes in both directions, in whatever pieces, and writes whole frames: `.esl` the server's
stream as it is on the wire, `.eslrec` JSON lines with times and both directions (orchestrator.testing.recordings reads
both). Redaction happens here, before anything is written.

A recorder never fails its connection: what cannot be cut into frames any more is not written, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from orchestrator.errors import EslProtocolError
from orchestrator.esl.codec import FrameDecoder
from orchestrator.testing.redaction import Redaction

Form = Literal["esl", "eslrec"]

COMMAND_LIMIT = 16 * 1024 * 1024
"""Octets of a command that has not ended; what is longer is none."""


class CommandDecoder:
    """Cuts what a client sends into commands: lines up to an empty one, and a body as long as Content-Length says."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """The commands these octets complete: (lines, body). Raises EslProtocolError."""
        self._buffer += data
        if len(self._buffer) > COMMAND_LIMIT:
            raise EslProtocolError("a command that does not end")
        while (found := self._next()) is not None:
            yield found

    def _next(self) -> tuple[str, str] | None:
        while self._buffer and self._buffer[0] in b"\r\n":
            del self._buffer[0]  # line breaks in front of a command are skipped, as FreeSWITCH does
        ends = [(at, len(gap)) for gap in (b"\n\n", b"\r\n\r\n") if (at := self._buffer.find(gap)) >= 0]
        if not ends:
            return None
        end, gap = min(ends)
        head = self._buffer[:end].decode("utf-8", "surrogateescape").replace("\r", "")
        length = _length(head)
        begin = end + gap
        if len(self._buffer) < begin + length:
            return None
        body = self._buffer[begin : begin + length].decode("utf-8", "surrogateescape")
        del self._buffer[: begin + length]
        return head, body


def _length(head: str) -> int:
    for line in head.split("\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            text = value.strip()
            if not text.isascii() or not text.isdigit() or len(text) > 8:
                raise EslProtocolError(f"bad Content-Length {text[:20]!r} in a command")
            return int(text)
    return 0


class Recorder:
    """One connection. `write` gets octets to append to a file; `began` is the clock's reading now, in seconds.

    `frames` and `commands` count what was written; `broken` says why recording has stopped, '' while it goes on.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        form: Form,
        redaction: Redaction,
        began: float,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        self._write = write
        self._form = form
        self._redaction = redaction
        self._began = began
        self._server = FrameDecoder()
        self._client = CommandDecoder()
        self.frames = self.commands = 0
        self.broken = ""
        if form == "eslrec":
            self._line({"format": "eslrec/1", **(meta or {})})

    def from_server(self, data: bytes, now: float) -> None:
        """Octets of FreeSWITCH."""
        if self.broken:
            return
        try:
            frames = self._server.feed(data)
        except EslProtocolError as error:
            self.broken = str(error)
            return
        for frame in frames:
            head, body = self._redaction.frame(frame)
            self.frames += 1
            if self._form == "esl":
                self._write(f"{head}\n\n{body}".encode("utf-8", "surrogateescape"))
            else:
                self._line({"t": self._time(now), "dir": "s2c", "head": head, "body": body})

    def from_client(self, data: bytes, now: float) -> None:
        """Octets of whoever talks to FreeSWITCH; `.esl` has no place for them, but its redaction learns from them."""
        if self.broken:
            return
        try:
            for head, body in self._client.feed(data):
                head, body = self._redaction.command(head, body)
                self.commands += 1
                if self._form == "eslrec":
                    self._line({"t": self._time(now), "dir": "c2s", "head": head, "body": body})
        except EslProtocolError as error:
            self.broken = str(error)

    def _time(self, now: float) -> float:
        return round(now - self._began, 3)

    def _line(self, entry: Mapping[str, object]) -> None:
        self._write(json.dumps({key: value for key, value in entry.items() if value != ""}).encode() + b"\n")
