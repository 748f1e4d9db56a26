"""Calls as traces: one for each call of a flow, made of the facts of its history.

    call main                       the INVITE to the end of the call; what happens in between are its events
      relay                         steps that last: relay, originate, collect, record, wait, first_of
        push apns                   work outside for the call: web requests, FreeSWITCH commands, pushes
      http POST
      fs.execute playback

Ids are made of the id of the call, so a web request can say which trace it belongs to (W3C Trace Context) without
asking anybody, and a call is sampled or not at all nodes alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from orchestrator.fact_kinds import CallLeg, CallRecord, JobDone, TraceWritten

MOST_CALLS = 20_000
"""Calls traced at a time; more are left out."""
MOST_EVENTS = 128
"""Events of one span, as OpenTelemetry's libraries have it."""
MOST_SPANS = 500
"""Spans of one call."""
GRACE = 3.0
"""Seconds after its end that a call waits for what belongs to it: the answers of its jobs, its `on_end` steps."""
LONGEST_TEXT = 500
"""Characters of a value."""

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans (opentelemetry/proto/trace/v1)."""

_BEGINS = {
    "RelayBegan": "relay", "PlacingBegan": "originate", "CollectBegan": "collect", "RecordBegan": "record",
    "WaitBegan": "wait", "FirstOfBegan": "first_of",
}  # fmt: skip
_ENDS = {
    "RelayEnded": "relay", "PlacingEnded": "originate", "CollectEnded": "collect", "RecordEnded": "record",
    "WaitTimedOut": "wait", "FirstOfTimedOut": "first_of",
}  # fmt: skip


@dataclass(slots=True)
class Span:
    """Times are seconds since the epoch."""

    trace: bytes
    id: bytes
    parent: bytes
    name: str
    kind: int
    start: float
    end: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[float, str]] = field(default_factory=list)
    dropped: int = 0
    error: str = ""


def trace_of(call: str) -> bytes:
    """The id of a call's trace, of 16 octets."""
    return blake2b(call.encode(), digest_size=16, person=b"trace").digest()


def span_of(call: str, number: int = 0) -> bytes:
    """The id of the span of a job of the call, or of the call itself (0), of 8 octets."""
    return blake2b(b"%d %b" % (number, call.encode()), digest_size=8, person=b"span").digest()


class _Call:
    """A call under way, or just over."""

    __slots__ = ("root", "legs", "open", "spans", "number", "over", "began")

    def __init__(self, root: Span) -> None:
        self.root = root
        self.legs: list[str] = []
        self.open: list[tuple[str, str, Span]] = []
        """Steps that last: run, kind of step, span."""
        self.spans = self.number = 0
        self.over = self.began = False


class CallTraces:
    """Facts in, spans out. `wall` makes wall clock times of the times of facts; `done` takes each span that is over."""

    def __init__(self, share: float, wall: Callable[[float], float], done: Callable[[Span], object]) -> None:
        """`share`: of all calls, 0 to 1."""
        self.left_out = 0
        """Calls not traced because there were too many."""
        self._below = round(share * 2**64)
        self._wall = wall
        self._done = done
        self._calls: dict[str, _Call] = {}
        self._legs: dict[str, str] = {}
        self._over: deque[tuple[float, str]] = deque()

    def takes(self, call: str) -> bool:
        """Whether a call is in the sample."""
        return int.from_bytes(trace_of(call)[:8]) < self._below

    def traceparent(self, call: str, number: int) -> str:
        """The header of a web request, '' for a call that is not sampled (W3C Trace Context §3.2)."""
        return f"00-{trace_of(call).hex()}-{span_of(call, number).hex()}-01" if self.takes(call) else ""

    # --- facts --------------------------------------------------------------------------------------------------------

    def leg(self, leg: CallLeg) -> None:
        """A call begins, or has one more leg."""
        found = self._calls.get(leg.call)
        if found is None:
            if not self.takes(leg.call):
                return
            if len(self._calls) >= MOST_CALLS:
                self.left_out += 1
                return
            root = Span(trace_of(leg.call), span_of(leg.call), b"", "call", SERVER, 0.0)
            root.attributes = {"call.id": leg.call, "sip.call_id": _text(leg.first)}
            found = self._calls[leg.call] = _Call(root)
        call_id = _text(leg.call_id)
        found.legs.append(call_id)
        self._legs[call_id] = leg.call

    def line(self, written: TraceWritten) -> None:
        """A run has done something."""
        run, line = written.run, written.line
        call = self._calls.get(run.call_id)
        if call is None:
            return
        time, kind = self._wall(line.time), type(line.fact).__name__
        if not call.began:
            call.began, call.root.start = True, time
            call.root.name = f"call {run.flow.name}"
            call.root.attributes |= {"flow": run.flow.name, "run": run.name}
        text = line.text[:LONGEST_TEXT]
        _add(call.root, time, text)
        if kind in _BEGINS:
            self._begin(run.call_id, call, run.name, _BEGINS[kind], time, text, line.line)
        elif kind in _ENDS:
            self._end(call, run.name, _ENDS[kind], time, text)
        elif kind == "EventTaken" and getattr(line.fact, "by", "") in ("wait", "first_of"):
            self._end(call, run.name, getattr(line.fact, "by", ""), time, text)
        elif kind == "Failed":
            call.root.error = text

    def job(self, job: JobDone) -> None:
        """Work outside is done."""
        id = job.call if job.call in self._calls else self._legs.get(job.call, "")
        call = self._calls.get(id)
        if call is None or not self._room(call):
            return
        parent = call.open[-1][2] if call.open else call.root
        span = Span(call.root.trace, span_of(id, job.number), parent.id, job.what, CLIENT, self._wall(job.started))
        span.end = self._wall(job.ended)
        span.attributes = {name: value for name, value in job.facts.items() if value}
        span.error = job.error
        self._done(span)

    def record(self, record: CallRecord) -> None:
        """A call is over."""
        call = self._calls.get(record.id)
        if call is None or call.over:
            return
        root = call.root
        call.over = True
        root.start, root.end = record.started, record.ended
        told = {
            "from": record.caller, "to": record.called, "user": record.user, "source": record.source,
            "sip.code": record.code, "contact": record.contact, "ended_by": record.ended_by, "reason": record.reason,
            "freeswitch": record.server, "answered": record.answered is not None, "duration": record.duration,
        }  # fmt: skip
        root.attributes |= {name: value for name, value in told.items() if value not in (None, "")}
        if record.code is not None and record.code >= 500 and not root.error:
            root.error = str(record.code)
        self._over.append((record.ended, record.id))

    def settle(self, now: float) -> None:
        """Let go of calls that have been over for a while; `now` in seconds since the epoch."""
        while self._over and self._over[0][0] <= now - GRACE:
            call = self._calls.pop(self._over.popleft()[1])
            for leg in call.legs:
                self._legs.pop(leg, None)
            for *_, span in call.open:
                span.end = max(span.start, call.root.end)
                self._done(span)
            self._done(call.root)

    def __len__(self) -> int:
        return len(self._calls)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _room(self, call: _Call) -> bool:
        call.spans += 1
        return call.spans <= MOST_SPANS

    def _begin(self, id: str, call: _Call, run: str, name: str, time: float, text: str, line: int) -> None:
        if not self._room(call):
            return
        call.number -= 1  # jobs count upward
        parent = call.open[-1][2] if call.open else call.root
        span = Span(call.root.trace, span_of(id, call.number), parent.id, name, INTERNAL, time)
        span.attributes = {"step": text, "line": line}
        call.open.append((run, name, span))

    def _end(self, call: _Call, run: str, name: str, time: float, text: str) -> None:
        for at in range(len(call.open) - 1, -1, -1):
            if call.open[at][:2] == (run, name):
                span = call.open.pop(at)[2]
                span.end = time
                span.attributes["result"] = text
                self._done(span)
                return


def _add(span: Span, time: float, text: str) -> None:
    if len(span.events) < MOST_EVENTS:
        span.events.append((time, text))
    else:
        span.dropped += 1


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
