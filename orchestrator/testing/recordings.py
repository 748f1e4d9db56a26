"""Recorded Event Socket streams: read them, pick events out of them, change identities in them.

Two formats. `.esl` is the raw stream a server sent, as netcat or a proxy stores it; its times are those of the events
(Event-Date-Timestamp). `.eslrec` is JSON lines: one line about the recording, then `{t, dir, head, body}` per frame,
with bytes that are no UTF-8 kept as surrogates. Lengths are always computed anew, never taken from the file.

The point of a recording is that it is not made up. What is changed in one - another uuid, another Call-ID - goes
through the same encoder FreeSWITCH has, and everything else stays as it was, octet for octet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, overload
from urllib.parse import unquote_to_bytes

from orchestrator.errors import EslProtocolError
from orchestrator.esl.codec import EVENT_JSON, EVENT_PLAIN, EslEvent, Frame, FrameDecoder

_UNSAFE = re.compile(rb"%(?![0-9A-F]{2})|[^!$\'()*,./0-9A-Z_a-z~%-]")
"""What switch_url_encode escapes (switch_utils.h, SWITCH_URL_UNSAFE). A `%XX` that is already there passes: that is
FreeSWITCH's ambiguity, through which a caller's `%0A` reaches us as a line feed."""


def url_encode(value: str) -> bytes:
    """A header value as FreeSWITCH writes it into an event."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], value.encode("utf-8", "surrogateescape"))


def build_frame(content_type: str, body: bytes) -> bytes:
    """A frame with a body, its head in the order FreeSWITCH gives that of an event or of a reply."""
    length, kind = b"Content-Length: %d\n" % len(body), f"Content-Type: {content_type}\n".encode()
    return (length + kind if content_type.startswith("text/event-") else kind + length) + b"\n" + body


def build_log(level: int, file: str, text: str) -> bytes:
    """A log/data frame, its headers in the order FreeSWITCH gives them (mod_event_socket.c)."""
    body = text.encode()
    head = f"Content-Length: {len(body)}\nLog-Level: {level}\nText-Channel: 0\nLog-File: {file}\n"
    return f"Content-Type: log/data\n{head}Log-Func: event_handler\nLog-Line: 389\nUser-Data: \n\n".encode() + body


def build_reply(text: str, **headers: str) -> bytes:
    """A command/reply; headers are written raw, underscores in their names as dashes."""
    lines = [f"Content-Type: command/reply\nReply-Text: {text}\n"]
    lines += [f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items()]
    return "".join(lines).encode() + b"\n"


def rewrite(
    block: bytes, headers: Mapping[str, str | None] | None = None, substitute: Mapping[str, str] | None = None
) -> bytes:
    """An event's block with other identities.

    `headers` replaces the value of a header wherever it occurs, adds it when it does not, and removes it for None.
    `substitute` replaces text inside the decoded values of all headers. Lines that neither touches stay as they are.
    """
    head, gap, body = block.partition(b"\n\n")
    wanted = dict(headers or {})
    lines, written = [], set()
    for name, line in _named_lines(head):
        if name in wanted:
            written.add(name)
            value = wanted[name]
            line = b"" if value is None else name.encode() + b": " + url_encode(value)
        elif substitute:
            line = _substitute(line, substitute)
        if line:
            lines.append(line)
    added = [(name, value) for name, value in wanted.items() if name not in written and value is not None]
    at = len(lines) - (lines[-1].startswith(b"Content-Length: ") if body else 0)  # the length of a body stays last
    lines[at:at] = [name.encode() + b": " + url_encode(value) for name, value in added]
    return b"\n".join(lines) + gap + body


@lru_cache(maxsize=256)
def _named_lines(head: bytes) -> tuple[tuple[str, bytes], ...]:
    """Each line with the name of its header; few recorded events are rewritten again and again."""
    return tuple((line.partition(b": ")[0].decode(), line) for line in head.split(b"\n"))


def _substitute(line: bytes, substitute: Mapping[str, str]) -> bytes:
    name, colon, value = line.partition(b": ")
    text = old = unquote_to_bytes(value).decode("utf-8", "surrogateescape")
    for before, after in substitute.items():
        text = text.replace(before, after)
    return line if text == old else name + colon + url_encode(text)


def block_of(event: EslEvent) -> bytes:
    """The `text/event-plain` body of an event, whichever format it came in."""
    if event.block:
        return event.block
    lines = [name.encode() + b": " + (url_encode(value) or b"_undef_") for name, value in event.headers.items()]
    return b"\n".join(lines) + b"\n\n" + event.body.encode()


def json_of(event: EslEvent) -> bytes:
    """The `text/event-json` body of an event: compact, multi-value headers as lists, the body in `_body`."""
    fields: dict[str, str | list[str]] = {
        name: event.array(name) if value.startswith("ARRAY::") else value for name, value in event.headers.items()
    }
    if event.body:
        fields["_body"] = event.body
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Recorded:
    """One frame of the server and when it came, in seconds from the beginning."""

    at: float
    frame: Frame
    raw: bytes = field(repr=False)

    @property
    def event(self) -> EslEvent | None:
        return self.frame.event() if self.frame.content_type in (EVENT_PLAIN, EVENT_JSON) else None


class Recording(Sequence[Recorded]):
    """A recorded connection: a sequence of frames. `meta` is the first line of an `.eslrec`, else empty."""

    def __init__(self, items: Sequence[Recorded], name: str = "", meta: Mapping[str, str] | None = None) -> None:
        self._items = tuple(items)
        self.name = name
        self.meta = meta or {}
        self.cut_off = 0
        """Octets at the end of the file that are no whole frame, and left out."""

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read `.esl` or `.eslrec`. Raises ValueError for a file that is neither, OSError when it cannot be read."""
        path = Path(path)
        data = path.read_bytes()
        if path.suffix == ".eslrec":
            first, *lines = data.splitlines() or [b""]
            meta = _line(first, 1) if first else {}
            if not str(meta.get("format", "")).startswith("eslrec/"):
                raise ValueError(f"{path} is not an eslrec recording: its first line names no format")
            cut_off = 0 if data.endswith(b"\n") or not lines or _is_json(lines[-1]) else len(lines.pop())
            recording = cls(list(_from_lines(lines)), path.stem, meta)
            recording.cut_off = cut_off
            return recording
        decoder = FrameDecoder()
        recording = cls(list(_timed(data, decoder)), path.stem)
        recording.cut_off = decoder.pending
        return recording

    @property
    def raw(self) -> bytes:
        """The stream."""
        return b"".join(item.raw for item in self._items)

    @property
    def events(self) -> list[EslEvent]:
        """The events, in order."""
        return [event for item in self._items if (event := item.event) is not None]

    @property
    def core_uuid(self) -> str:
        """Core-UUID of the FreeSWITCH recorded, '' for a recording without events."""
        return next((event.core_uuid for event in self.events if event.core_uuid), "")

    def find(self, key: str, nth: int = 0, **headers: str) -> EslEvent:
        """The `nth` event of that name (or CUSTOM subclass) whose headers, written with `_` for `-`, have these values.

        Raises LookupError.
        """
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
        hits = [e for e in self.events if e.key == key and all(e.get(n) == v for n, v in wanted.items())]
        if not -len(hits) <= nth < len(hits):
            raise LookupError(f"{self.name or 'recording'} has {len(hits)} events {key} with {wanted}")
        return hits[nth]

    def only(self, *keys: str) -> Recording:
        """The frames of these events, with their times."""
        kept = [item for item in self._items if (event := item.event) is not None and event.key in keys]
        return Recording(kept, self.name, self.meta)

    def substituted(self, substitute: Mapping[str, str]) -> Recording:
        """The same with other uuids, Call-IDs and so on in all events."""
        return Recording([_changed(item, substitute) for item in self._items], self.name, self.meta)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Recorded: ...
    @overload
    def __getitem__(self, index: slice) -> Recording: ...
    def __getitem__(self, index: int | slice) -> Recorded | Recording:
        """A frame, or for a slice a shorter recording."""
        if isinstance(index, slice):
            return Recording(self._items[index], self.name, self.meta)
        return self._items[index]

    def __repr__(self) -> str:
        return f"<Recording {self.name} {len(self._items)} frames>"


def _line(line: bytes, number: int) -> dict[str, Any]:
    """A line of an eslrec. Raises ValueError."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise ValueError(f"line {number} is not a JSON object")
    return entry


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _timed(data: bytes, decoder: FrameDecoder) -> Iterator[Recorded]:
    """Frames of a raw stream; the clock is that of the events and never runs backwards."""
    try:
        frames = decoder.feed(data)
    except EslProtocolError as error:
        raise ValueError(f"not an Event Socket stream: {error}") from None
    if decoder.error is not None:
        raise ValueError(f"not an Event Socket stream: {decoder.error}")
    if not frames:
        raise ValueError("not an Event Socket stream: no frame in it" if data.strip() else "the recording is empty")
    first = now = 0.0
    for frame in frames:
        event = frame.event()
        if event is not None and event.timestamp:
            first = first or event.timestamp
            now = max(now, event.timestamp - first)
        yield Recorded(now, frame, frame.head + b"\n" + frame.body)


def _from_lines(lines: Sequence[bytes]) -> Iterator[Recorded]:
    """Frames of the server from the JSON lines of an eslrec; what the client sent is left out."""
    for number, line in enumerate(lines, 2):
        entry = _line(line, number)
        if entry["dir"] != "s2c":
            continue
        body = entry.get("body", "").encode("utf-8", "surrogateescape")
        head = re.sub(r"(?m)^Content-Length: \d+$", f"Content-Length: {len(body)}", entry["head"])
        raw = head.encode("utf-8", "surrogateescape") + b"\n\n" + body
        (frame,) = FrameDecoder().feed(raw)
        yield Recorded(float(entry["t"]), frame, raw)


def _changed(item: Recorded, substitute: Mapping[str, str]) -> Recorded:
    if item.frame.content_type == EVENT_PLAIN:
        raw = build_frame(EVENT_PLAIN, rewrite(item.frame.body, substitute=substitute))
    elif item.frame.content_type == EVENT_JSON:
        text = item.frame.body.decode("utf-8", "surrogateescape")
        for before, after in substitute.items():
            text = text.replace(before, after)
        raw = build_frame(EVENT_JSON, text.encode("utf-8", "surrogateescape"))
    else:
        return item
    (frame,) = FrameDecoder().feed(raw)
    return Recorded(item.at, frame, raw)
