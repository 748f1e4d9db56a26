"""One call in the history: what is kept of it, and how that is told, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from orchestrator.events.event import Event
from orchestrator.flow.language.program import Step
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import TraceLine, masked
from orchestrator.history import CallRecord, JobDone, MessageIn, SipMessage
from orchestrator.sip.masking import masked as masked_message
from orchestrator.views.shown_values import iso

ENTRY = 350
"""Octets of an entry besides its text: tuples, numbers, the heads of objects."""
CALL = 2_000
"""Octets of a call without entries."""

_CALL_ID = b"\r\nCall-ID: "
_KEEP_ALIVE = 4
"""Octets of a keep-alive at most: a CRLF twice."""

Wake = Callable[[], object]


class Entry(NamedTuple):
    """A message, an event or a job of a call."""

    number: int
    """From 1, in order; those of entries that were dropped stay unused."""
    lines: int
    """Lines that the trace of its run had before it."""
    what: SipMessage | Event | JobDone


class KeptCall:
    """One call. `records` are the lines of its run, which the run goes on writing; `left_out` are those behind the
    first one that have made room for others."""

    __slots__ = (
        "also", "call_ids", "dropped", "ended_at", "entries", "id", "number", "octets", "records", "run",
        "run_name", "_record", "_make", "wakes", "_left_out", "started_at",
    )  # fmt: skip

    def __init__(self, id: str, started_at: float) -> None:
        self.id = id
        self.started_at = started_at
        """Seconds of the engine's clock."""
        self.ended_at: float | None = None
        self.call_ids: list[bytes] = []
        """Call-IDs of its legs, that of the caller first."""
        self.also: tuple[KeptCall, ...] = ()
        """Other calls with the same Call-ID: it came back to us."""
        self.entries: list[Entry] = []
        self.number = 0
        """Of the last entry."""
        self.dropped = 0
        self.octets = CALL
        self.run: Run | None = None
        self.run_name = ""
        self.records: list[TraceLine] = []
        self._record: CallRecord | None = None
        self._make: Callable[[], CallRecord] | None = None
        self.wakes: dict[int, Wake] = {}
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
    def messages(self) -> Iterator[tuple[str, SipMessage]]:
        """Each SIP message that is kept, with the id of its fact."""
        for entry in self.entries:
            if isinstance(entry.what, SipMessage):
                yield f"{entry.number}.{entry.lines}", entry.what

    def bind(self, run: Run) -> None:
        """Its run is known."""
        self.run, self.run_name, self.records = run, run.name, run.records

    def take_back(self, message: SipMessage) -> int:
        """The last entry, if it is this message, belongs to another call; returns the octets that are free now."""
        if not self.entries or self.entries[-1].what is not message:
            return 0
        free = weight_of(self.entries.pop().what)
        self.octets -= free
        return free

    def shorten(self, first: int, last: int) -> int:
        """Keep so many entries of the beginning and of the end; returns the octets that are free now."""
        gone = self.entries[first : len(self.entries) - last]
        if not gone:
            return 0
        del self.entries[first : first + len(gone)]
        self.dropped += len(gone)
        free = sum(weight_of(entry.what) for entry in gone)
        self.octets -= free
        return free


# --- facts as data ----------------------------------------------------------------------------------------------------


def facts_of(kept: KeptCall, wall_offset: float, after: str = "") -> Iterator[dict[str, Any]]:
    """The facts of a call in order, behind the one with the id `after`. `wall_offset` makes wall clock times.

    Each has `id`, `kind` (message, step, event or job), `text`, `time` and `at`, seconds since the call began.
    """
    seen, line = _position(after)
    number = 0
    for entry in kept.entries:
        for place, record in _lines(kept, line, entry.lines):
            line = place
            yield _fact(f"{max(seen, number)}.{line}", kept, record.time, wall_offset, _step(record))
        line = max(line, entry.lines)
        number = entry.number
        if number > seen:
            time, told = _told(entry.what)
            yield _fact(f"{number}.{line}", kept, time, wall_offset, told)
    for place, record in _lines(kept, line, 1 << 62):
        line = place
        yield _fact(f"{max(seen, number)}.{line}", kept, record.time, wall_offset, _step(record))


def _position(id: str) -> tuple[int, int]:
    """The numbers of entries and lines that the id of a fact stands for; 0 for what is none."""
    number, _, line = id.partition(".")
    decimal = number.isascii() and number.isdecimal() and line.isascii() and line.isdecimal()
    return (int(number), int(line)) if decimal and len(id) < 40 else (0, 0)


def _lines(kept: KeptCall, line: int, end: int) -> Iterator[tuple[int, TraceLine]]:
    """The lines of its run behind the first `line` and before the one with the number `end`, each with how many there
    were up to it."""
    records, left_out = kept.records, kept.left_out
    at = line if line == 0 else max(1, line - left_out)
    while at < len(records):
        number = at + left_out if at else 0
        if number >= end:
            break
        yield number + 1, records[at]
        at += 1


def _fact(id: str, kept: KeptCall, time: float, wall_offset: float, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, **told, "time": iso(time + wall_offset), "at": round(time - kept.started_at, 3)}


def _told(what: SipMessage | Event | JobDone) -> tuple[float, dict[str, Any]]:
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
    return what.time, message_fact(what)


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


def call_id_of(data: bytes) -> bytes:
    """Value of Call-ID. Nearly all write it the same way: then no expression has to look for it."""
    at = data.find(_CALL_ID)
    if at < 0 or data.find(b"\r\n\r\n", 0, at) >= 0:
        return SipMessage(data, "", 0, 0).call_id if len(data) > _KEEP_ALIVE else b""
    end = data.find(b"\r\n", at + 11)
    return data[at + 11 : end].strip()


def weight_of(what: SipMessage | Event | JobDone) -> int:
    if isinstance(what, Event):
        return ENTRY + event_octets(what)
    return ENTRY + (100 if isinstance(what, JobDone) else len(what.data))


def event_octets(event: Event) -> int:
    octets = 0
    for value in event.attributes.values():
        octets += len(value) if isinstance(value, str) else 50
    return octets
