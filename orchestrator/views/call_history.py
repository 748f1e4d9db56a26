"""What has happened in the calls of flows: SIP of all their legs, steps, events, jobs, in the order it happened.

A call is kept from its INVITE on and for some time after its end, within bounds: octets of all calls together, ended
calls in number, entries and octets of one call. A long call loses its middle; how it began and what it did last stay,
and `dropped` says how much is missing.

Nothing here costs while no call of a flow is up: messages and events are listened to from when the first one begins
until `LINGER` seconds after the last one has ended. The INVITE that the first call begins with is taken from the call.
Of a message there is kept what the wire says of it (`History.wire`), and whose it is, is found out for many together.
Lines of traces are the run's own: a call keeps its run's list, which is merged with the messages when somebody asks.

Whoever follows a call (`follow`) is only told that there is something new and asks for what has come since (`facts`
with `after`), when it has the time: a reader that is slow, or many of them, cost a turn nothing, and there is no queue
that could grow.

In plain Python a call of one step pays some 13 % for it, 5 to 6 % with `messages: off` (`python -m bench.history`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from orchestrator.core.calls.cdr import CallOver
from orchestrator.core.engine import Engine
from orchestrator.errors import TooManyWatchersError
from orchestrator.events.event import Event
from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallLeg, CallRecord, JobDone
from orchestrator.sip.points import Hop
from orchestrator.views.call_summary import record_later
from orchestrator.views.kept_call import (
    CALL,
    ENTRY,
    KeptCall,
    Noted,
    OnWire,
    Wake,
    call_id_of,
    event_octets,
    facts_of,
)

LINGER = 35.0
"""Seconds that messages of a call are taken after its end: repetitions go on for 32 (64*T1)."""
FIRST, LAST = 60, 140
"""Messages, events and jobs that a long call keeps: so many of its beginning, and of its end."""
LARGEST = 1_000_000
"""Octets of one call."""
KEPT_FIRST, KEPT_LAST = 4, 6
"""The same where memory is short."""
FOLLOWERS = 1_000
"""Of all calls together."""
BATCH = 64
"""Messages that may wait until it is looked whose they are: many together cost less than each for itself."""
RECENT = 50
"""Events of one name that are remembered for those who ask why nothing has happened."""
NAMES = 200
"""Names of events that this is done for."""
RECENT_OCTETS = 20_000
"""Of one name's: larger events push out older ones."""


@dataclass(frozen=True, slots=True)
class HistoryBounds:
    """How much is kept: octets of all calls together, ended calls, and whether messages are kept at all."""

    memory: int = 50_000_000
    calls: int = 1_000
    messages: bool = True


class RecentEvents:
    """The last events of one name."""

    __slots__ = ("_octets", "events")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self._octets = 0

    def add(self, event: Event, octets: int) -> None:
        events = self.events
        events.append(event)
        self._octets += octets
        while len(events) > RECENT or self._octets > RECENT_OCTETS:
            self._octets -= event_octets(events.popleft())


class CallHistory:
    """The calls of one engine. Its methods are called between two turns; what they return is copied."""

    def __init__(self, engine: Engine, bounds: HistoryBounds = HistoryBounds()) -> None:
        self.bounds = bounds
        self.octets = 0
        """What all of it takes, as far as it is counted."""
        self.dropped = 0
        """Entries that were let go or refused, of all calls so far."""
        self.refused = 0
        """Calls of which nothing is kept: there was no room."""
        self._engine = engine
        self._calls: dict[str, KeptCall] = {}
        self._legs: dict[bytes, KeptCall] = {}
        self._ended: dict[str, KeptCall] = {}
        """Those that are over, in the order of their ends."""
        self._recent: dict[str, RecentEvents] = {}
        self._listening = False
        self._until = inf
        """When messages are listened to no more, once no call is up."""
        self._log: list[OnWire] = []
        """Messages of which nobody has seen yet whose they are."""
        self._followers: dict[int, str] = {}
        self._follower = 0
        self._cramped = False
        engine.history.listen(CallLeg, self._take_leg)
        engine.history.listen(CallOver, self._take_end)

    # --- what is there ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Calls kept, live ones included."""
        return len(self._calls)

    @property
    def live(self) -> int:
        """Calls that have not ended."""
        return len(self._calls) - len(self._ended)

    @property
    def listening(self) -> bool:
        """Whether messages and events are taken now."""
        return self._listening

    def find(self, call: str) -> KeptCall | None:
        """A call by its id, or by a Call-ID of its legs; None where nothing is kept of it."""
        self._file()
        kept = self._calls.get(call) or self._legs.get(call.encode("utf-8", "replace")) or self._socket(call)
        if kept is not None and kept.live and kept.run is None:
            self._bind(kept)
        return kept

    def ended(self) -> Iterator[KeptCall]:
        """Calls that are over, the last one first."""
        self._file()
        return reversed(list(self._ended.values()))

    def recent(self, name: str) -> Sequence[Event]:
        """The last events of that name, of all calls and of none, the oldest first."""
        recent = self._recent.get(name)
        return () if recent is None else tuple(recent.events)

    def facts(self, call: str, after: str = "", most: int = 2_000) -> dict[str, Any] | None:
        """The history of a call as plain data, in order; None where nothing is kept of it.

        `after` is the `id` of a fact: only what has come since is told. Of more than `most` facts the last ones are.
        """
        kept = self.find(call)
        if kept is None:
            return None
        items = list(facts_of(kept, self._engine.settings.wall_offset, after))
        return {
            "call": kept.id,
            "run": kept.run_name,
            "live": kept.live,
            "call_ids": [call_id.decode("utf-8", "replace") for call_id in kept.call_ids],
            "items": items[-most:],
            "dropped": kept.dropped + kept.left_out + max(0, len(items) - most),
        }

    # --- those who follow ---------------------------------------------------------------------------------------------

    def follow(self, call: str, wake: Wake) -> int | None:
        """Call `wake()` whenever something is new of a call, also when it ends; it is called within turns and must not
        wait. Returns a number for `unfollow`, None for a call that is not known.

        Raises TooManyWatchersError.
        """
        kept = self.find(call)
        if kept is None:
            return None
        if len(self._followers) >= FOLLOWERS:
            raise TooManyWatchersError("too many calls are being followed")
        if not self._followers:
            self._engine.history.listen(TraceWritten, self._take_line)
        self._follower += 1
        self._followers[self._follower] = kept.id
        kept.wakes = {**kept.wakes, self._follower: wake}
        kept.watched = True
        return self._follower

    def unfollow(self, number: int) -> None:
        """Idempotent; after the last one lines of traces cost what they did before."""
        call = self._followers.pop(number, None)
        if call is None:
            return
        kept = self._calls.get(call)
        if kept is not None:
            kept.wakes = {other: wake for other, wake in kept.wakes.items() if other != number}
            kept.watched = bool(kept.wakes or kept.also)
        if not self._followers:
            self._engine.history.ignore(TraceWritten, self._take_line)

    # --- beginning and end of calls -----------------------------------------------------------------------------------

    def _take_leg(self, leg: CallLeg) -> None:
        invite = self._pop_invite(leg.call_id)
        if self._log:
            self._file()
        kept = self._calls.get(leg.call)
        if kept is None:
            if not self._has_room(CALL):
                self.refused += 1
                return
            kept = self._begin(leg.call)
            if invite is None and self.bounds.messages:
                invite = self._invite_of(leg.call)
        self._tie(kept, leg.call_id)
        if invite is not None:
            self._log.append(invite)

    def _pop_invite(self, call_id: bytes) -> OnWire | None:
        """The INVITE that a leg begins with, out of what waits: it came last, or it has been kept as one of an earlier
        call."""
        last = self._log[-1] if self._log else None
        if type(last) is tuple and last[0] and last[1].startswith(b"INVITE ") and call_id_of(last[1]) == call_id:
            del self._log[-1]
            return last
        return None

    def _invite_of(self, call: str) -> OnWire | None:
        """The INVITE of a call, where nobody has listened when it came: as the call has it."""
        found = self._engine.calls.by_id(call)
        if found is None:
            return None
        invite = found.invite
        data = b"\r\n".join((invite.start_line, *invite.lines, b"", invite.body))
        return True, data, Hop(found.transaction.destination.point, *found.source), self._engine.timers.now

    def _tie(self, kept: KeptCall, call_id: bytes) -> None:
        """A leg of a call. Another one may have the same Call-ID: this call come back to us, or an earlier try that was
        challenged."""
        if call_id not in kept.call_ids:
            kept.call_ids += (call_id,)
        before = self._legs.get(call_id)
        if before is None or not before.live:
            self._legs[call_id] = kept
        elif before is not kept and kept not in before.also:
            before.also = (*before.also, kept)
            before.watched = True

    def _begin(self, id: str) -> KeptCall:
        if not self._listening:
            self._listen()
        elif self.live > 2 * len(self._engine.calls) + 100:
            self._sweep()
        self._until = inf
        kept = self._calls[id] = KeptCall(id, self._engine.now)
        self.octets += CALL
        return kept

    def _take_end(self, over: CallOver) -> None:
        """A call has ended."""
        call, run = over.call, over.run
        kept = self._calls.get(call.id)
        if kept is None:
            if not self._has_room(CALL):
                return
            kept = self._begin(call.id)  # a channel of the dialplan: it has no legs of ours
            kept.started_at = call.started_at
        elif kept.ended_at is not None:
            return
        if kept.run is None:
            kept.bind(run)
        kept.octets += run.octets
        self.octets += run.octets
        record = record_later(self._engine, over)
        if record is None:
            made = over.record()
            self._end(kept, lambda: made)
        else:
            self._end(kept, record)

    def _end(self, kept: KeptCall, record: Callable[[], CallRecord] | None = None) -> None:
        now = self._engine.timers.now
        kept.end(now, record)
        self._ended[kept.id] = kept
        if not self.live:
            self._until = now + LINGER
        while len(self._ended) > self.bounds.calls:
            self._forget(next(iter(self._ended)))
        if self.octets > self.bounds.memory:
            self._make_room(0)
        if kept.wakes:
            for wake in tuple(kept.wakes.values()):
                wake()

    def _sweep(self) -> None:
        """Calls that have gone without a record: no flow was theirs any more."""
        calls, sockets = self._engine.calls, {call.id for call in self._engine.sockets}
        for kept in [kept for kept in self._calls.values() if kept.live]:
            if calls.by_id(kept.id) is None and kept.id not in sockets:
                self._end(kept)

    def _forget(self, id: str) -> None:
        kept = self._ended.pop(id)
        del self._calls[id]
        self.octets -= kept.octets
        for call_id in kept.call_ids:
            if self._legs.get(call_id) is kept:
                del self._legs[call_id]
        for wake in tuple(kept.wakes.values()):
            wake()

    def _socket(self, id: str) -> KeptCall | None:
        """A channel of the dialplan that nobody has asked about before."""
        for call in self._engine.sockets:
            if call.id == id and not call.over:
                kept = self._begin(id)
                kept.started_at = call.started_at
                if call.run is not None:
                    kept.bind(call.run)
                return kept
        return None

    # --- what calls do ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        history = self._engine.history
        self._listening = True
        if self.bounds.messages:
            history.wire = self._take
        history.listen(JobDone, self._take_job)
        self._engine.bus.watch(self._take_event)

    def _ignore(self) -> None:
        history = self._engine.history
        self._listening = False
        history.wire = None
        history.ignore(JobDone, self._take_job)
        self._engine.bus.unwatch(self._take_event)
        self._recent.clear()

    def _take(self, received: bool, data: bytes, hop: Hop, time: float) -> None:
        """A message: whose it is will be found out together with others."""
        log = self._log
        log.append((received, data, hop, time))
        if len(log) >= BATCH or self._followers or time > self._until:
            self._file()

    def _take_job(self, job: JobDone) -> None:
        self._file()
        kept = self._calls.get(job.call) or self._legs.get(job.call.encode("utf-8", "replace"))
        if kept is not None:
            self._add(kept, Noted(self._lines_of(kept), job), 100)

    def _take_event(self, event: Event) -> None:
        if event.time > self._until:
            self._ignore()
            return
        octets = event_octets(event)
        if octets < LARGEST // 100:
            recent = self._recent.get(event.name)
            if recent is None and len(self._recent) < NAMES:
                recent = self._recent[event.name] = RecentEvents()
            if recent is not None:
                recent.add(event, octets)
        kept = self._calls.get(event.call) if event.call else None
        if kept is not None:
            self._file()
            self._add(kept, Noted(self._lines_of(kept), event), octets)

    def _lines_of(self, kept: KeptCall) -> int:
        if kept.run is None and kept.ended_at is None:
            self._bind(kept)
        return len(kept.records) + kept.left_out

    def _take_line(self, written: TraceWritten) -> None:
        """Somebody follows a call, maybe this one."""
        kept = self._calls.get(written.run.call_id)
        if kept is not None:
            for wake in tuple(kept.wakes.values()):
                wake()

    def _bind(self, kept: KeptCall) -> None:
        """Its run, once there is one."""
        call = self._engine.calls.by_id(kept.id)
        if call is not None and call.run is not None:
            kept.bind(call.run)

    def _file(self) -> None:
        """Give the messages that wait to the calls they belong to."""
        log, self._log = self._log, []
        find, total, most = self._legs.get, self.octets, self.bounds.memory
        for told in log:
            data = told[1]
            kept = find(call_id_of(data))
            if kept is None:
                continue
            octets = len(data) + ENTRY
            if kept.watched or total + octets > most:
                self.octets = total
                self._add(kept, told, len(data))
                total = self.octets
                continue
            entries = kept.entries
            entries.append(told)
            total += octets
            kept.octets += octets
            if len(entries) > FIRST + LAST or kept.octets > LARGEST:
                self.octets = total
                self._shorten(kept)
                total = self.octets
        self.octets = total
        if log and log[-1][3] > self._until:
            self._ignore()

    def _add(self, kept: KeptCall, entry: OnWire | Noted, octets: int) -> None:
        octets += ENTRY
        if not self._has_room(octets) or kept.id not in self._calls:  # it may have been what made room
            kept.refused += 1
            self.dropped += 1
            return
        kept.entries.append(entry)
        kept.octets += octets
        self.octets += octets
        self._shorten(kept)
        for other in kept.also:
            self._add(other, entry, octets - ENTRY)
        for wake in tuple(kept.wakes.values()):
            wake()

    def _shorten(self, kept: KeptCall) -> None:
        """A long call loses its middle; one with long messages, more of it."""
        first, last = FIRST, LAST
        self._cut(kept, first, last)
        while kept.octets > LARGEST and first + last > 2:
            first, last = max(1, first // 2), max(1, last // 2)
            self._cut(kept, first, last)

    def _cut(self, kept: KeptCall, first: int, last: int) -> None:
        before = kept.gone
        self.octets -= kept.shorten(first, last)
        self.dropped += kept.gone - before

    def _has_room(self, octets: int) -> bool:
        return self.octets + octets <= self.bounds.memory or self._make_room(octets)

    def _make_room(self, octets: int) -> bool:
        """Bring what is kept down to nine tenths of what it may take, so that this is rare: calls that ended first go
        first, then live ones lose their middle. Where nothing is left to free, all that is new is refused until calls
        end."""
        goal = self.bounds.memory * 9 // 10 - octets
        while self.octets > goal and self._ended:
            self._forget(next(iter(self._ended)))
        if self.octets > goal and not self._cramped:
            for kept in self._calls.values():
                self._cut(kept, KEPT_FIRST, KEPT_LAST)
                if self.octets <= goal:
                    break
        self._cramped = self.octets > goal
        return self.octets + octets <= self.bounds.memory
