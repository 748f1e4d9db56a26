"""What has happened in the calls of flows: SIP of all their legs, steps, events, jobs, in the order it happened.

A call is kept from its INVITE on and for some time after its end, within bounds: octets of all calls together, ended
calls in number, entries and octets of one call. A long call loses its middle; how it began and what it did last stay,
and `dropped` says how much is missing.

Nothing here costs while no call of a flow is up: messages and events are listened to from when the first one begins
until `LINGER` seconds after the last one has ended. The INVITE that the first call begins with is taken from the call.
Of a message there is kept what the history says of it (`MessageIn`, `MessageOut`), unread but for its Call-ID. Lines
of traces are the run's own: a call keeps its run's list, and with each message how many lines there were before it.

Whoever follows a call (`follow`) is only told that there is something new and asks for what has come since (`facts`
with `after`), when it has the time: a reader that is slow, or many of them, cost a turn nothing, and there is no queue
that could grow.

What one call pays, plain CPython: `python -m bench.history`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.calls.cdr import CallOver
from orchestrator.core.engine import Engine
from orchestrator.errors import TooManyWatchersError
from orchestrator.events.event import Event
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallLeg, CallRecord, JobDone, MessageIn, MessageOut, SipMessage
from orchestrator.sip.points import Hop
from orchestrator.views.call_summary import record_later
from orchestrator.views.kept_call import CALL, ENTRY, Entry, KeptCall, Wake, call_id_of, event_octets, facts_of

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
RECENT = 50
"""Events of one name that are remembered for those who ask why nothing has happened."""
NAMES = 200
"""Names of events that this is done for."""


@dataclass(frozen=True, slots=True)
class HistoryBounds:
    """How much is kept: octets of all calls together, ended calls, and whether messages are kept at all."""

    memory: int = 50_000_000
    calls: int = 1_000
    messages: bool = True


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
        self._recent: dict[str, deque[Event]] = {}
        self._listening = False
        self._until = 0.0
        """When messages are listened to no more, once no call is up."""
        self._last: MessageIn | None = None
        """The message that came last: it may begin a call, or a leg of one."""
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
        kept = self._calls.get(call) or self._legs.get(call.encode("utf-8", "replace")) or self._socket(call)
        if kept is not None and kept.live and kept.run is None:
            self._bind(kept)
        return kept

    def ended(self) -> Iterator[KeptCall]:
        """Calls that are over, the last one first."""
        return reversed(list(self._ended.values()))

    def recent(self, name: str) -> Sequence[Event]:
        """The last events of that name, of all calls and of none, the oldest first."""
        return tuple(self._recent.get(name, ()))

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
        kept.wakes[self._follower] = wake
        return self._follower

    def unfollow(self, number: int) -> None:
        """Idempotent; after the last one lines of traces cost what they did before."""
        call = self._followers.pop(number, None)
        if call is None:
            return
        kept = self._calls.get(call)
        if kept is not None:
            kept.wakes.pop(number, None)
        if not self._followers:
            self._engine.history.ignore(TraceWritten, self._take_line)

    # --- beginning and end of calls -----------------------------------------------------------------------------------

    def _take_leg(self, leg: CallLeg) -> None:
        kept = self._calls.get(leg.call)
        first = kept is None
        if kept is None:
            if not self._has_room(CALL):
                self.refused += 1
                return
            kept = self._begin(leg.call)
        before = self._legs.get(leg.call_id)
        self._tie(kept, leg.call_id, before)
        invite = self._invite_of(leg, before, first)
        if invite is not None:
            self._add(kept, invite, len(invite.data))

    def _tie(self, kept: KeptCall, call_id: bytes, before: KeptCall | None) -> None:
        """A leg of a call; `before` is the one that had its Call-ID: the same call come back to us, or an earlier try
        that was challenged."""
        if call_id not in kept.call_ids:
            kept.call_ids.append(call_id)
        if before is None or not before.live:
            self._legs[call_id] = kept
        elif before is not kept and kept not in before.also:
            before.also = (*before.also, kept)

    def _invite_of(self, leg: CallLeg, before: KeptCall | None, first: bool) -> MessageIn | None:
        """The INVITE that a leg begins with: as it came, or where nobody has listened then, as the call has it."""
        if not self.bounds.messages:
            return None
        last, self._last = self._last, None
        if last is not None and call_id_of(last.data) == leg.call_id and last.data.startswith(b"INVITE "):
            if before is not None and not before.live:
                self.octets -= before.take_back(last)
            return last
        call = self._engine.calls.by_id(leg.call) if first else None
        if call is None:
            return None
        invite = call.invite
        data = b"\r\n".join((invite.start_line, *invite.lines, b"", invite.body))
        return MessageIn.at(data, Hop(call.front.server.destination.point, *call.source), self._engine.now)

    def _begin(self, id: str) -> KeptCall:
        if not self._listening:
            self._listen()
        elif self.live > 2 * len(self._engine.calls) + 100:
            self._sweep()
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
        octets = sum([line.octets for line in kept.records])
        kept.octets += octets
        self.octets += octets
        record = record_later(self._engine, kept, over)
        if record is None:
            made = over.record()
            self._end(kept, lambda: made)
        else:
            self._end(kept, record)

    def _end(self, kept: KeptCall, record: Callable[[], CallRecord] | None = None) -> None:
        now = self._engine.timers.now
        kept.end(now, record)
        self._ended[kept.id] = kept
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
            history.listen(MessageIn, self._take_received)
            history.listen(MessageOut, self._take_sent)
        history.listen(JobDone, self._take_job)
        self._engine.bus.watch(self._take_event)

    def _ignore(self) -> None:
        history = self._engine.history
        self._listening, self._last = False, None
        history.ignore(MessageIn, self._take_received)
        history.ignore(MessageOut, self._take_sent)
        history.ignore(JobDone, self._take_job)
        self._engine.bus.unwatch(self._take_event)
        self._recent.clear()

    def _take_received(self, message: MessageIn) -> None:
        self._last = message
        kept = self._legs.get(call_id_of(message.data))
        if kept is not None:
            self._add(kept, message, len(message.data))
        elif len(self._calls) == len(self._ended) and message.time > self._until:
            self._ignore()

    def _take_sent(self, message: MessageOut) -> None:
        kept = self._legs.get(call_id_of(message.data))
        if kept is not None:
            self._add(kept, message, len(message.data))

    def _take_job(self, job: JobDone) -> None:
        kept = self._calls.get(job.call) or self._legs.get(job.call.encode("utf-8", "replace"))
        if kept is not None:
            self._add(kept, job, 100)

    def _take_event(self, event: Event) -> None:
        if len(self._calls) == len(self._ended) and event.time > self._until:  # where no messages are kept
            self._ignore()
            return
        octets = event_octets(event)
        if octets < LARGEST // 100:
            recent = self._recent.get(event.name)
            if recent is not None:
                recent.append(event)
            elif len(self._recent) < NAMES:
                self._recent[event.name] = deque((event,), RECENT)
        kept = self._calls.get(event.call) if event.call else None
        if kept is not None:
            self._add(kept, event, octets)

    def _take_line(self, written: TraceWritten) -> None:
        """Somebody follows a call, maybe this one."""
        kept = self._calls.get(written.run.call_id)
        if kept is not None:
            for wake in tuple(kept.wakes.values()):
                wake()

    def _bind(self, kept: KeptCall) -> Run | None:
        """Its run, once there is one."""
        call = self._engine.calls.by_id(kept.id)
        run = call.run if call is not None else None
        if run is not None:
            kept.bind(run)
        return run

    def _add(self, kept: KeptCall, what: SipMessage | Event | JobDone, octets: int) -> None:
        octets += ENTRY
        if self.octets + octets > self.bounds.memory and not (
            self._make_room(octets) and kept.id in self._calls  # it may have been what made room
        ):
            kept.dropped += 1
            self.dropped += 1
            return
        run = kept.run
        if run is None and kept.ended_at is None:
            run = self._bind(kept)
        kept.number += 1
        entries = kept.entries
        lines = len(kept.records) + (run.left_out if run is not None else kept.left_out)
        entries.append(Entry(kept.number, lines, what))
        kept.octets += octets
        self.octets += octets
        if len(entries) > FIRST + LAST or kept.octets > LARGEST:
            self._shorten(kept)
        if kept.also:
            for other in kept.also:
                self._add(other, what, octets - ENTRY)
        if kept.wakes:
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
        before = kept.dropped
        self.octets -= kept.shorten(first, last)
        self.dropped += kept.dropped - before

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
