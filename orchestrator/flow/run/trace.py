"""The trace of a run: what each step did and why, as data first and as text on demand (FLOWLANG §9.4).

A line keeps a fact (`flow.run.run_facts`); nothing is formatted while calls run. Traces of finished runs are kept for
the last few hundred, and longer for runs that failed, so that the question "what happened to that call" has an answer
without any log level having been set before.

Who calls us decides what stands in it, and how much. So a value is cut at `LONGEST` characters, and all traces together
have a bound in octets: finished ones make room first, the oldest before the others, then runs that go on lose their
older lines, but for the first.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.flow.language.program import Flow, Program, Step
from orchestrator.history import RunFact

LONGEST = 2_000
"""Characters of one value, and of the text of a `log:` step; what is longer is cut, and says so."""
MEMORY = 100_000_000
"""Octets of all traces together, as far as they are counted: lines and their texts."""
KEPT_LINES = 10
"""Lines that a run keeps, besides its first, when it has to make room."""
_LINE = 300
"""Octets of a line without its texts."""
_NO_TEXT = (int, float, bool, type(None))
PLAIN = (str, int, float)
"""Types of values that are shown as they are. A tuple that is there: `str | int` in a condition is made each time."""

_PUSH = r"pn-(?:prid|param|purr|tok|auth)"
_TOKEN = re.compile(
    rf"""({_PUSH}=(?=[^;>,\s"'])|{_PUSH}%3d(?=[^;>,\s"'&]))(?:(?<==)[^;>,\s"']+|(?:(?!%3b|%3e|%22)[^;>,\s"'&])+)""",
    re.IGNORECASE,
)
"""Linphone has two tokens in one value: `T1:remote&T2:voip`."""
"""Who has it can wake the phone; in a URI, and in one that is escaped to stand in another."""
_TOKEN_FIELD = re.compile(r"\bpn[-_](?:prid|param|purr|tok|auth)\b|\bauthorization\b", re.IGNORECASE)

Read = tuple[tuple[str, Any], ...]
"""What a condition looked at, or the event that was taken: (path, plain value)."""


class TraceLine:
    """One line: `time` in seconds of the engine's clock; `step` None for what no step did (SIP, the end of the
    call)."""

    __slots__ = ("fact", "step", "time")

    def __init__(self, time: float, step: Step | Flow | None, fact: RunFact) -> None:
        self.time = time
        self.step = step
        self.fact = fact

    @property
    def read(self) -> Read:
        """What a condition looked at, or the event that was taken."""
        return ()

    @property
    def octets(self) -> int:
        """What it takes. Worked out: lines of calls that wait are many, and it is asked for once or twice."""
        return _LINE + self.fact.octets + (_weight_of(self.read) if self.read else 0)

    def cut(self) -> int:
        """Cut its values where they are too long; returns its octets then."""
        octets = self.octets
        if octets > _LINE + LONGEST:
            self._cut()
            octets = self.octets
        return octets

    def _cut(self) -> None:
        self.fact = _cut_fact(self.fact)

    @property
    def text(self) -> str:
        """The line, without push tokens."""
        return masked_text(str(self.fact))

    def what_was_read(self) -> dict[str, Any]:
        """Path → value, without push tokens."""
        return {path: masked(value, path) for path, value in self.read}

    @property
    def line(self) -> int:
        """Line in the flow file, 0 when there is none."""
        return self.step.place.line if self.step is not None else 0

    def __repr__(self) -> str:
        return f"<TraceLine {self.time:.3f} L{self.line} {self.text}>"


class ReadLine(TraceLine):
    """A line with what was read; most have nothing of it."""

    __slots__ = ("_read",)

    def __init__(self, time: float, step: Step | Flow | None, fact: RunFact, read: Read) -> None:
        super().__init__(time, step, fact)
        self._read = read

    @property
    def read(self) -> Read:
        return self._read

    def _cut(self) -> None:
        super()._cut()
        self._read = tuple((path, _cut_value(value)) for path, value in self._read)


def masked(value: Any, name: str = "") -> Any:
    """A value without push tokens and credentials, in lists and maps too; `name` is its own, or the path to it."""
    if name and value is not None and _TOKEN_FIELD.search(name):
        return "***"
    if isinstance(value, str):
        return masked_text(value)
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


def masked_text(text: str) -> str:
    """A text without the push tokens of URIs in it."""
    return _TOKEN.sub(r"\1***", text) if "pn-" in text.lower() else text


def _without_tokens(fact: RunFact) -> dict[str, Any]:
    return {name: masked(value, name) for name, value in fact.facts().items()}


def cut(text: str) -> str:
    """At most LONGEST characters of it, and a note how many are missing."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} characters left out)"


def _weight_of(read: Read) -> int:
    """Octets of what was read. Nearly all values are short texts: those cost no call."""
    octets = 0
    for _, value in read:
        octets += len(value) if isinstance(value, str) else _weight(value)
    return octets


def _weight(value: Any) -> int:
    """Octets that a value takes, roughly; a structure is looked at until it is too large anyway."""
    if isinstance(value, _NO_TEXT):
        return 0
    return _weight_within(value, LONGEST + 1)


def _weight_within(value: Any, most: int) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        parts: Iterable[Any] = (part for item in value.items() for part in item)
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        return 50
    octets = 50
    for part in parts:
        octets += _weight_within(part, most - octets)
        if octets >= most:
            break
    return octets


def _cut_value(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value)
    return cut(str(value)) if _weight(value) > LONGEST else value


def _cut_fact(fact: RunFact) -> RunFact:
    """A fact whose texts are cut; it is one of the dataclasses."""
    return type(fact)(*(_cut_value(getattr(fact, name)) for name in fact.__slots__))


class Traced(Protocol):
    """What a run tells of itself in its trace."""

    flow: Flow
    call_id: str
    error: str
    records: list[TraceLine]
    octets: int
    dropped: int
    left_out: int

    @property
    def name(self) -> str: ...
    @property
    def program(self) -> Program: ...
    def shorten(self) -> int:
        """Let go of older lines, but for the first; returns the octets that are free now."""


@dataclass(frozen=True, slots=True)
class TraceWritten:
    """A line has been added to the trace of a run; a fact of the engine's history."""

    run: Traced
    line: TraceLine


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of a run. `hash` names the version of the flows it ran, `error` is the type of the error that
    ended it (or of a handler's), `dropped` counts records beyond the limit, `left_out` those behind the first one that
    have made room for others, `octets` is what its lines take."""

    run: str
    flow: str
    hash: str
    call: str
    error: str
    records: Sequence[TraceLine]
    dropped: int = 0
    left_out: int = 0
    octets: int = 0

    @classmethod
    def of(cls, run: Traced) -> Trace:
        """The trace of a run so far."""
        name, flow, hash, records = run.name, run.flow.name, run.program.hash, tuple(run.records)
        return cls(name, flow, hash, run.call_id, run.error, records, run.dropped, run.left_out, run.octets)

    @property
    def file(self) -> str:
        """The flow file, '' for a trace without a line."""
        step = self.records[0].step if self.records else None
        return step.place.file if step is not None else ""


def summary(trace: Trace, running: bool = False, wall_offset: float = 0.0) -> dict[str, Any]:
    """One run in one JSON object. `started` is in seconds since the epoch when `wall_offset` is what the engine's clock
    lacks to it, `seconds` how long it took, or takes so far."""
    records = trace.records
    return {
        "run": trace.run,
        "flow": trace.flow,
        "file": trace.file,
        "hash": trace.hash,
        "call": trace.call,
        "about": records[0].text if records else "",
        "error": trace.error,
        "running": running,
        "started": round(records[0].time + wall_offset, 3) if records else None,
        "seconds": round(records[-1].time - records[0].time, 3) if records else 0.0,
        "lines": len(records) + trace.left_out + trace.dropped,
    }


def render(trace: Trace) -> Iterator[str]:
    """The lines of a trace for people, times in seconds from its first record."""
    lines = ((r.time, r.line, r.text) for r in trace.records)
    yield from render_lines(trace.run, lines, trace.dropped, trace.left_out)


def render_lines(
    run: str, lines: Iterable[tuple[float, int, str]], dropped: int = 0, left_out: int = 0
) -> Iterator[str]:
    """The same from (time, line in the file, text)."""
    origin: float | None = None
    for time, line, text in lines:
        first = origin is None
        origin = time if origin is None else origin
        place = f"L{line}" if line else ""
        yield f"{time - origin:8.3f}  {run:<12}  {place:<5} {'' if place else '  '}{text}"
        if first and left_out:
            yield f"{'':8}  {run:<12}          … {left_out} lines left out"
    if dropped:
        yield f"{'':8}  {run:<12}          … {dropped} more lines were not kept"


def facts(trace: Trace) -> Iterator[dict[str, Any]]:
    """The lines of a trace for programs: one JSON object each, the run's facts on every one of them."""
    for record in trace.records:
        step = record.step
        yield {
            "run": trace.run,
            "hash": trace.hash,
            "call": trace.call,
            "time": record.time,
            "line": record.line,
            "step": step.source if isinstance(step, Step) else "",
            "text": record.text,
            "read": record.what_was_read(),
            "fact": _without_tokens(record.fact),
        }


class Traces:
    """Finished runs: the last `kept` of all and the last `failed` of those that ended in an error, fairly by flow.

    Each flow has a ring of its own. When there are too many, the flow with the most traces loses its oldest, so that
    registrations, a run each, do not push calls out.
    """

    def __init__(self, kept: int, failed: int) -> None:
        self._all = _Rings(kept)
        self._failed = _Rings(failed)
        self.octets = 0
        """What all of them take; read for each line of a trace."""

    def bound(self, kept: int, failed: int) -> None:
        """Change how many are kept; the oldest of the largest rings go first."""
        self._all.bound(kept)
        self._failed.bound(failed)
        self._weigh()

    def keep(self, trace: Trace) -> None:
        (self._failed if trace.error else self._all).append(trace)
        self._weigh()

    def drop_oldest(self) -> bool:
        """Let go of one, of those that failed last. False when there is none."""
        dropped = self._all.drop_oldest() or self._failed.drop_oldest()
        self._weigh()
        return dropped

    def _weigh(self) -> None:
        self.octets = self._all.octets + self._failed.octets

    def find(self, run: str) -> Trace | None:
        """The trace of a finished run by its name (`ring_user#17`)."""
        return next((trace for trace in self if trace.run == run), None)

    def __iter__(self) -> Iterator[Trace]:
        yield from self._failed
        yield from self._all

    def __len__(self) -> int:
        return len(self._failed) + len(self._all)


class TraceMemory:
    """The bound of all traces together: `traces` of finished runs, and the lines of the live `runs`."""

    def __init__(self, traces: Traces, runs: Mapping[int, Traced]) -> None:
        self.most = MEMORY
        self.live = 0
        """Octets of the lines of live runs."""
        self._traces = traces
        self._runs = runs
        self._cramped = False

    @property
    def octets(self) -> int:
        """What the lines of all traces take."""
        return self.live + self._traces.octets

    def take(self, octets: int) -> bool:
        """Whether a live run may have one more line of that size, for which others may have to make room."""
        if self.live + self._traces.octets + octets > self.most and not self._make_room(octets):
            return False
        self.live += octets
        return True

    def _make_room(self, octets: int) -> bool:
        """Bring the traces down to nine tenths of what they may take, so that this is rare. Where nothing is left to
        free, lines are refused until runs end."""
        goal = self.most * 9 // 10
        if self._cramped and self.octets > goal:
            return False
        while self.octets > goal and self._traces.drop_oldest():
            pass
        for run in self._runs.values():
            if self.octets <= goal:
                break
            self.live -= run.shorten()
        self._cramped = self.octets > goal
        return self.octets + octets <= self.most


class _Rings:
    """Traces by flow, at most `most` of all flows together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.octets = 0
        self._count = 0
        self._number = 0
        self._rings: dict[str, deque[tuple[int, Trace]]] = {}

    def bound(self, most: int) -> None:
        self._most = most
        while self._count > most:
            self._drop(max(self._rings, key=lambda flow: len(self._rings[flow])))

    def append(self, trace: Trace) -> None:
        rings = self._rings
        ring = rings.setdefault(trace.flow, deque())
        self._number += 1
        ring.append((self._number, trace))
        self.octets += trace.octets
        self._count += 1
        if self._count > self._most:
            fair = len(ring) * len(rings) > self._most  # more than its share: no need to look at the others
            self._drop(trace.flow if fair else max(rings, key=lambda flow: len(rings[flow])))

    def drop_oldest(self) -> bool:
        """Let go of the oldest of all flows. False when there is none."""
        if not self._rings:
            return False
        self._drop(min(self._rings, key=lambda flow: self._rings[flow][0][0]))
        return True

    def _drop(self, flow: str) -> None:
        ring = self._rings[flow]
        self.octets -= ring.popleft()[1].octets
        self._count -= 1
        if not ring:
            del self._rings[flow]

    def __iter__(self) -> Iterator[Trace]:
        for _, trace in sorted((entry for ring in self._rings.values() for entry in ring), key=lambda entry: entry[0]):
            yield trace

    def __len__(self) -> int:
        return self._count
