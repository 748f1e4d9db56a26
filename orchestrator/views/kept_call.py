"""One call in the history: what is kept of it, and how that is told, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from orchestrator.events.event import Event
from orchestrator.flow.language.program import Step
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import TraceLine, masked
from orchestrator.history import CallRecord, JobDone, MessageIn, MessageOut, SipMessage
from orchestrator.native import FAST
from orchestrator.sip.masking import masked as masked_message
from orchestrator.sip.points import Hop
from orchestrator.views.shown_values import iso

ENTRY = 300
"""Octets of an entry besides its text: tuples, numbers, the heads of objects."""
CALL = 3_500
"""Octets of a call without entries; what is left of its INVITE for its record is counted here."""

CALL_ID = b"\r\nCall-ID: "
"""How nearly all write it; then no expression has to look for it."""
_KEEP_ALIVE = 4
"""Octets of a keep-alive at most: a CRLF twice."""

Wake = Callable[[], object]
NOBODY: Mapping[int, Wake] = MappingProxyType({})
OnWire = tuple[bool, bytes, Hop, float]
"""A message as `History.wire` tells it: whether it came, octets, hop, time in seconds of the engine's clock."""


class Noted(NamedTuple):
    """An event or a job of a call, and how many lines the trace of its run had before it."""

    lines: int
    what: Event | JobDone


class KeptCall:
    """One call. `records` are the lines of its run, which the run goes on writing; `left_out` are those behind the
    first one that have made room for others."""

    __slots__ = (
        "also", "call_ids", "cut", "ended_at", "entries", "gone", "id", "octets", "refused", "records", "run",
        "run_name", "_record", "_make", "wakes", "watched", "_left_out", "started_at",
    )  # fmt: skip

    def __init__(self, id: str, started_at: float) -> None:
        self.id = id
        self.started_at = started_at
        """Seconds of the engine's clock."""
        self.ended_at: float | None = None
        self.call_ids: tuple[bytes, ...] = ()
        """Call-IDs of its legs, that of the caller first."""
        self.also: tuple[KeptCall, ...] = ()
        """Other calls with the same Call-ID: it came back to us."""
        self.entries: list[OnWire | Noted] = []
        self.cut = 1 << 30
        """Where entries are missing: behind so many of them."""
        self.gone = 0
        """How many."""
        self.refused = 0
        """Entries that there was no room for."""
        self.octets = CALL
        self.run: Run | None = None
        self.run_name = ""
        self.records: Sequence[TraceLine] = ()
        self._record: CallRecord | None = None
        self._make: Callable[[], CallRecord] | None = None
        self.wakes: Mapping[int, Wake] = NOBODY
        """Who follows it."""
        self.watched = False
        """Others are told of what it does: `also`, `wakes`."""
        self._left_out = 0

    @property
    def live(self) -> bool:
        """It has not ended."""
        return self.ended_at is None

    @property
    def record(self) -> CallRecord | None:
        """Of a call that has ended."""
        if self._make is not None:
            self._record, self._make = self._make(), None
        return self._record

    def end(self, time: float, record: Callable[[], CallRecord] | None) -> None:
        """It is over; `record()` makes its record when somebody asks for it."""
        self.ended_at, self._make = time, record
        if self.run is not None:
            self._left_out, self.run = self.run.left_out, None

    @property
    def left_out(self) -> int:
        return self._left_out if self.run is None else self.run.left_out

    @property
    def number(self) -> int:
        """Of the last entry."""
        return len(self.entries) + self.gone

    @property
    def dropped(self) -> int:
        """Messages, events and jobs that are not kept."""
        return self.gone + self.refused

    @property
    def messages(self) -> Iterator[tuple[str, SipMessage]]:
        """Each SIP message that is kept, with the id of its fact."""
        for number, lines, what in walk(self):
            if not isinstance(what, Event | JobDone | TraceLine):
                yield f"{number}.{lines}", sip_message(what)

    def bind(self, run: Run) -> None:
        """Its run is known."""
        self.run, self.run_name, self.records = run, run.name, run.records

    def shorten(self, first: int, last: int) -> int:
        """Keep so many entries of the beginning and of the end; returns the octets that are free now."""
        first = min(first, self.cut)
        gone = self.entries[first : len(self.entries) - last]
        if not gone:
            return 0
        del self.entries[first : first + len(gone)]
        self.cut = first
        self.gone += len(gone)
        free = sum(map(weight_of, gone))
        self.octets -= free
        return free


def sip_message(told: OnWire) -> SipMessage:
    """A message as a fact."""
    received, data, hop, time = told
    return (MessageIn if received else MessageOut).at(data, hop, time)


# --- facts as data ----------------------------------------------------------------------------------------------------


def walk(
    kept: KeptCall, seen: int = 0, line: int = 0
) -> Iterator[tuple[int, int, OnWire | Event | JobDone | TraceLine]]:
    """What is kept of a call, in order, behind `seen` entries and `line` lines of its run; each with how many entries
    and lines there were, itself included.

    What a turn has done stands behind the message that it began with, and before those that left when it was over.
    """
    records, left_out = kept.records, kept.left_out
    at = line if line == 0 else max(1, line - left_out)
    number = seen
    for index, entry in enumerate(kept.entries):
        while at < len(records) and _is_before(records[at], at + left_out, entry):
            line = at + left_out + 1 if at else 1
            yield number, line, records[at]
            at += 1
        if index + 1 + (kept.gone if index >= kept.cut else 0) > seen:
            number = index + 1 + (kept.gone if index >= kept.cut else 0)
            yield number, line, entry.what if isinstance(entry, Noted) else entry
    for place in range(at, len(records)):
        yield number, place + left_out + 1 if place else 1, records[place]


def _is_before(record: TraceLine, number: int, entry: OnWire | Noted) -> bool:
    if isinstance(entry, Noted):
        return number < entry.lines
    received, _, _, time = entry
    return record.time < time or (record.time == time and not received)


def facts_of(kept: KeptCall, wall_offset: float, after: str = "") -> Iterator[dict[str, Any]]:
    """The facts of a call in order, behind the one with the id `after`. `wall_offset` makes wall clock times.

    Each has `id`, `kind` (message, step, event or job), `text`, `time` and `at`, seconds since the call began.
    """
    for number, line, what in walk(kept, *_position(after)):
        time, told = _told(what)
        at = round(time - kept.started_at, 3)
        yield {"id": f"{number}.{line}", **told, "time": iso(time + wall_offset), "at": at}


def _position(id: str) -> tuple[int, int]:
    """The numbers of entries and lines that the id of a fact stands for; 0 for what is none."""
    number, _, line = id.partition(".")
    decimal = number.isascii() and number.isdecimal() and line.isascii() and line.isdecimal()
    return (int(number), int(line)) if decimal and len(id) < 40 else (0, 0)


def _told(what: OnWire | Event | JobDone | TraceLine) -> tuple[float, dict[str, Any]]:
    if isinstance(what, TraceLine):
        return what.time, _step(what)
    if isinstance(what, Event):
        return what.time, {"kind": "event", "text": what.name, "attributes": masked(_plain(what.attributes))}
    if isinstance(what, JobDone):
        return what.ended, {
            "kind": "job",
            "text": what.what,
            "facts": dict(what.facts),
            "seconds": round(what.ended - what.started, 3),
            "error": what.error,
        }
    return what[3], message_fact(sip_message(what))


def message_fact(message: SipMessage) -> dict[str, Any]:
    """A message without its secrets: credentials, nonces, push tokens, keys of media."""
    host, port, shown = message.host, message.port, masked_message(message.data)
    return {
        "kind": "message",
        "text": shown.partition(b"\r\n")[0][:300].decode("utf-8", "replace"),
        "direction": "received" if isinstance(message, MessageIn) else "sent",
        "peer": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "transport": message.transport,
        "octets": len(message.data),
        "call_id": message.call_id.decode("utf-8", "replace"),
        "method": message.cseq_method.decode("ascii", "replace"),
        "message": shown.decode("utf-8", "replace"),
    }


def _step(record: TraceLine) -> dict[str, Any]:
    step, fact = record.step, record.fact
    return {
        "kind": "step",
        "text": record.text,
        "file": step.place.file if step is not None else "",
        "line": record.line,
        "step": step.source if isinstance(step, Step) else "",
        "read": masked(_plain(dict(record.read))),
        "fact": masked(_plain(fact.facts())),
    }


def _plain(value: Any) -> Any:
    """As JSON has it; what it has not, as text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


# --- octets -----------------------------------------------------------------------------------------------------------


def usual_call_id(data: bytes) -> bytes | None:
    """Value of Call-ID where the header spells it as most do, else None. `_fast.c` has its twin."""
    at = data.find(CALL_ID)
    end = data.find(b"\r\n", at + len(CALL_ID))
    if at < 0 or end < 0 or data.find(b"\r\n\r\n", 0, at + 2) >= 0:  # it stands in the body
        return None
    return data[at + len(CALL_ID) : end].strip()


_usual_call_id: Callable[[bytes], bytes | None] = FAST.call_id if hasattr(FAST, "call_id") else usual_call_id


def call_id_of(data: bytes) -> bytes:
    """Value of Call-ID, b'' where there is none."""
    found = _usual_call_id(data)
    if found is not None:
        return found
    return SipMessage(data, "", 0, 0).call_id if len(data) > _KEEP_ALIVE else b""


def weight_of(entry: OnWire | Noted) -> int:
    """Octets of an entry."""
    if not isinstance(entry, Noted):
        return ENTRY + len(entry[1])
    return ENTRY + (event_octets(entry.what) if isinstance(entry.what, Event) else 100)


def event_octets(event: Event) -> int:
    """Octets of an event's attributes."""
    octets = 0
    for value in event.attributes.values():
        octets += len(value) if isinstance(value, str) else 50
    return octets
