"""What one sink is to get, from the turn that raises an event to the peer that has taken it: at least once, in order.

    put() → memory → one greenlet writes it into the spool → another one delivers and removes it

`put` never waits; who calls it gathers some milliseconds of events. The disk is written in a thread, so a slow disk
delays nothing but the sink. A hand-over to the thread and a batch that is sent cost more than the events in them, so
they are few, and what has been delivered is noted now and then. A peer that is gone costs the spool; a spool that
cannot be written costs the memory below, and beyond that events, which are counted. A peer that takes events gets them
from memory then, behind those in the spool: a full disk holds up nobody. When the server starts, what is in
the spool is sent first.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from orchestrator.errors import OrchestratorError
from orchestrator.integrations.sinks.spool import Segment, Spool, is_damage
from orchestrator.packages.sink import Delivery, Outgoing, Undelivered

MEMORY = 20_000
"""Events that wait for the disk, some 10 MB; the oldest make room for one more."""
SEGMENT = 500
"""Events written in one go."""
GATHER = 0.02
"""Seconds in which events are gathered before they are put here and written: what a kill -9 may cost."""
FRESH = 16
"""Segments kept in memory for a peer that keeps up, so that they need not be read."""
RETRY_WRITE = 5.0
"""Seconds until the spool is tried again after it could not be written."""
TOLD_EVERY = 60.0
"""Seconds between two lines about a disk that can be written now and then."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to deliver, twice as many each time; the peer may ask for more."""
LONGEST_WISH = 3600.0
"""Seconds that a peer may ask us to wait."""
LONGEST_SEND = 300.0
"""Seconds after which a kind of sink that does not come back is interrupted."""
NOTED_EVERY = 0.1
"""Seconds between two notes of how much has been delivered; that much comes twice after a kill -9."""
LAST_WORDS = 3.0
"""Seconds at a stop for what has not been delivered."""

Log = Callable[..., None]
"""`log(level, text, **facts)`"""


class Outbox:
    """One sink. `write` and `deliver` run in greenlets of their own, for ever."""

    def __init__(self, spool: Spool, delivery: Delivery, log: Log, pace: float = 0.0) -> None:
        """`pace`: seconds from one batch to the next one, unless it is full."""
        self.taken = self.delivered = self.refused = self.failures = 0
        """Events; `failures` are attempts of a delivery."""
        self.lost = 0
        """Events that found no room in memory while the spool could not be written."""
        self.trouble = ""
        """Why nothing is delivered, '' when it is."""
        self.disk_trouble = ""
        """Why nothing can be written."""
        self._spool = spool
        self._delivery = delivery
        self._log = log
        self._memory: deque[Outgoing] = deque()
        self._batch: Sequence[Outgoing] = ()
        self._writing = False
        """The thread has the batch."""
        self._direct: Segment | None = None
        """Events that are delivered without having been written."""
        self._told = -TOLD_EVERY
        self._told_writable = True
        self._fresh: deque[Segment] = deque(maxlen=FRESH)
        segment, sent = spool.partial
        self._found = spool.events - (sent if segment > spool.done else 0)
        """Events that were in the spool at the start, and not delivered."""
        self._done = spool.done
        """Segments up to here have been delivered or dropped; the spool may not know yet."""
        self._busy = spool.done
        """Segments up to here are being delivered."""
        self._load: deque[Segment] = deque()
        self._work, self._more = Event(), Event()
        self._noted = 0.0
        self._unnoted = False
        """The spool does not know yet that all of it has been delivered."""
        self._pace = pace
        self._rest_until = 0.0
        self._stopped = False
        self._thread = ThreadPool(1)
        if spool.events:
            self._more.set()

    @property
    def waiting(self) -> int:
        """Events that have been taken and not yet delivered, nearly."""
        return len(self._memory) + len(self._batch) + self._spool.events

    @property
    def octets(self) -> int:
        """Of the events in the spool."""
        return self._spool.octets

    @property
    def dropped(self) -> Counter[str]:
        """Events lost, by reason."""
        found = Counter({"memory": self.lost, "age": 0, "size": 0, "refused": self.refused})
        found.update(self._spool.dropped)
        return found

    def put(self, event: Outgoing) -> None:
        """Take an event; never waits."""
        self.taken += 1
        if len(self._memory) >= MEMORY:
            self._memory.popleft()
            self.lost += 1
        self._memory.append(event)
        self._work.set()

    # --- into the spool -----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what comes; a spool that cannot be written is tried again and again."""
        while True:
            self._work.wait()
            self._work.clear()
            while self._memory or self._batch:
                if not self._batch:
                    self._batch = [self._memory.popleft() for _ in range(min(SEGMENT, len(self._memory)))]
                if not self._write_batch():
                    self._more.set()
                    gevent.sleep(RETRY_WRITE)

    def _write_batch(self) -> bool:
        batch = self._batch
        if not batch:
            return True
        self._writing = True
        try:
            number = self._in_thread(self._spool.append, batch, time(), self._busy)
        finally:
            self._writing = False
        if number is None:
            return False
        self._batch = ()
        self._fresh.append(Segment(number, batch))
        self._more.set()
        return True

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What the spool answers; None when it cannot be used, which is logged once. A damaged file is set aside."""
        found, error = self._thread.apply(_attempt, (work, arguments))
        if error == DAMAGED:
            _, error = self._thread.apply(_attempt, (self._spool.renew, ()))
            if error is None:
                self._spool.dropped["damaged"] += self._without_spool()
                self._log("error", "sink_spool_set_aside", file=str(self._spool.set_aside))
                found, error = self._thread.apply(_attempt, (work, arguments))
        if error is not None:
            if self._told_writable and monotonic() - self._told >= TOLD_EVERY:
                self._log("error", "sink_spool_unwritable", file=str(self._spool.path), reason=error)
                self._told, self._told_writable = monotonic(), False
            self.disk_trouble = error
            return None
        if self.disk_trouble and work != self._spool.read:
            self.disk_trouble = ""
            if not self._told_writable:
                self._log("info", "sink_spool_writable", file=str(self._spool.path))
                self._told_writable = True
        return found

    def _without_spool(self) -> int:
        """Events that were in the spool alone: neither delivered nor dropped, and not in memory."""
        ahead = max(self._done, self._busy, self._spool.gone)
        segments = [*self._load, *(segment for segment in self._fresh if segment.number > ahead)]
        held = len(self._memory) + len(self._batch) + sum(len(segment.events) for segment in segments)
        return max(0, self._found + self.taken - self.delivered - sum(self.dropped.values()) - held)

    # --- to the peer --------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Deliver what is there and what comes."""
        pause = FIRST_PAUSE
        while True:
            if not self._load:
                gevent.sleep(max(0.0, self._rest_until - monotonic()))
            if not self._load and not self._fetch():
                self._wait_for_more()
                continue
            wish = self._send()
            if wish is None:
                pause = FIRST_PAUSE
                continue
            if self._stopped:
                self._load.clear()
                self._busy = self._done
                self._forget_old(for_ever=True)
            gevent.sleep(wish or pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that many do not come at once
            pause = min(2 * pause, LONGEST_PAUSE)
            self._forget_old()

    def _wait_for_more(self) -> None:
        """All has been delivered: note that when it is time, unless more comes before."""
        if not self._unnoted:
            self._more.wait()
        elif not self._more.wait(
            max(0.0, self._noted + (RETRY_WRITE if self.disk_trouble else NOTED_EVERY) - monotonic())
        ):
            self._note(self._done)

    def _note(self, *progress: int) -> None:
        self._noted = monotonic()
        self._in_thread(self._spool.advance, *progress)
        self._unnoted = bool(self.disk_trouble)

    def _fetch(self) -> bool:
        """Have something to deliver. False when there is nothing."""
        self._more.clear()
        self._done = max(self._done, self._spool.gone)
        fresh = self._fresh
        while fresh and fresh[0].number <= self._done:
            fresh.popleft()
        most = max(self._delivery.batch, 1)
        if fresh and fresh[0].number == self._done + 1:
            self._load_fresh(most)
        elif self._spool.last > self._done:
            found = self._in_thread(self._spool.read, self._done, most)
            if found is None:
                gevent.sleep(RETRY_WRITE)
                self._more.set()
            elif not found or (fresh and fresh[0].number < found[0].number):
                self._done = fresh[0].number - 1 if fresh else self._spool.last  # what is between is gone
                found = ()
                self._more.set()
            self._load.extend(found or ())
        elif self.disk_trouble and not self._writing:
            self._load_unwritten()
        if not self._load:
            return False
        self._busy = self._load[-1].number
        return True

    def _load_unwritten(self) -> None:
        """The spool is empty and cannot be written: what waits in memory."""
        batch = self._batch or [self._memory.popleft() for _ in range(min(SEGMENT, len(self._memory)))]
        self._batch = ()
        if batch:
            self._direct = Segment(self._done, batch)
            self._load.append(self._direct)

    def _take_back(self) -> None:
        """Events that were to be delivered without having been written wait in memory again."""
        if self._direct is not None and self._direct in self._load:
            self._load.remove(self._direct)
            self._memory.extendleft(reversed(self._direct.events))
            self._work.set()
        self._direct = None

    def _load_fresh(self, most: int) -> None:
        """The next segment, and those behind it that fit into one batch with it."""
        fresh, load = self._fresh, self._load
        load.append(fresh.popleft())
        size = len(load[0].events)
        while fresh and fresh[0].number == load[-1].number + 1 and size + len(fresh[0].events) <= most:
            size += len(fresh[0].events)
            load.append(fresh.popleft())

    def _send(self) -> float | None:
        """One attempt to deliver the front of the load. None when something was done with it, else the seconds that
        the peer wants us to wait, 0 when it does not say."""
        batch = [event for segment in self._load for event in segment.events][: max(self._delivery.batch, 1)]
        if len(batch) < self._delivery.batch:
            self._rest_until = monotonic() + self._pace
        try:
            if batch:
                with gevent.Timeout(LONGEST_SEND):
                    self._delivery.send(batch)
        except Undelivered as failure:
            return self._failed(failure, batch)
        except (Exception, gevent.Timeout) as bug:
            told = f"it took more than {LONGEST_SEND:g} s" if isinstance(bug, gevent.Timeout) else str(bug)
            return self._failed(Undelivered(f"{type(bug).__name__}: {told}"), batch)
        self.delivered += len(batch)
        self._settle(len(batch))
        if self.trouble:
            self._log("info", "sink_up")
            self.trouble = ""
        return None

    def _failed(self, failure: Undelivered, batch: Sequence[Outgoing]) -> float | None:
        taken = min(failure.taken, len(batch))
        self.delivered += taken
        if failure.refused and taken < len(batch):
            self.refused += 1
            self._log("warning", "sink_refused", event=batch[taken].name, id=batch[taken].id, reason=failure.reason)
            self._settle(taken + 1)
            return None
        self.failures += 1
        if taken:
            self._settle(taken)
        if not self.trouble:
            self._log("warning", "sink_down", reason=failure.reason)
        self.trouble = failure.reason
        self._take_back()
        self._stopped = failure.stop
        return min(failure.retry_after or 0.0, LONGEST_WISH)

    def _settle(self, count: int) -> None:
        """So many events of the front are done with."""
        sent, load = count, self._load
        while load and sent >= len(load[0].events):
            sent -= len(load[0].events)
            self._done = load.popleft().number
        partial = load[0] if load and sent else None
        if partial is not None and partial is self._direct:
            partial.events = partial.events[sent:]
        elif partial is not None:
            total = self._sent_of(partial) + sent
            partial.events = partial.events[sent:]
            self._partial = partial.number, total
            if monotonic() - self._noted >= NOTED_EVERY:
                self._note(self._done, partial.number, total)
        elif monotonic() - self._noted >= NOTED_EVERY:
            self._note(self._done)
        else:
            self._unnoted = not load

    _partial = (0, 0)

    def _sent_of(self, segment: Segment) -> int:
        """How many events of a segment have been delivered already, as far as we or the spool know."""
        known = max(self._partial, self._spool.partial)
        return known[1] if known[0] == segment.number else 0

    def _forget_old(self, for_ever: bool = False) -> None:
        """While the peer is away: events beyond their age go, also those that wait for the next attempt."""
        while True:
            oldest = time() - self._spool.age
            while self._load and self._load[0].events and self._load[0].events[-1].time < oldest:
                self._spool.dropped["age"] += len(self._load[0].events)
                self._done = self._load.popleft().number
                self._in_thread(self._spool.advance, self._done)
            self._in_thread(self._spool.make_room, time(), self._busy)
            if not for_ever:
                return
            gevent.sleep(LONGEST_PAUSE)

    # --- at the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is in memory, try once more to deliver, let go. The greenlets are gone."""
        try:
            self._thread.join()  # what was being written when its greenlet ended
            self._writing = False
            self._take_back()
            if self._spool.written is not self._batch:
                self._write_left()
            self._batch = ()
            while self._memory and self._write_left():
                pass
            if not self.trouble:
                with gevent.Timeout.start_new(LAST_WORDS) as over:
                    self._say_last_words(over)
            self._in_thread(self._spool.advance, self._done, *self._partial)
            self._delivery.close()
        finally:
            self._thread.kill()
            self._spool.close()

    def _say_last_words(self, over: gevent.Timeout) -> None:
        try:
            while (self._load or self._fetch()) and self._send() is None:
                pass
        except gevent.Timeout as timeout:
            if timeout is not over:
                raise

    def _write_left(self) -> bool:
        if not self._batch:
            self._batch = [self._memory.popleft() for _ in range(min(SEGMENT, len(self._memory)))]
        return not self._batch or self._write_batch()


DAMAGED = "the file is damaged"


def _attempt(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """For the thread: gevent reports what is raised in one as a fault of its own."""
    try:
        return work(*arguments), None
    except (sqlite3.Error, OSError, OrchestratorError) as error:
        return None, DAMAGED if is_damage(error) else str(error) or type(error).__name__
