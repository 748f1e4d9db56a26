"""Events on their way to a sink, in one SQLite file; what is in it survives the death of the process at any moment.

A row is a *segment*: the events that were written together, in order. A write and the removal of what is delivered are
one statement each, however many events they are about. `progress` says how much of a segment has been delivered;
numbers of segments are never used twice.

WAL with `synchronous=NORMAL`: nothing is lost with the process; with the machine's power the last moments may be. The
file is locked for as long as it is open, so two servers cannot send the same events. A damaged file is set aside and
an empty one takes its place: at the start where it is small, else when the damage is met (`renew`). A start reads no
more than CHECKED octets, however large the spool is.

Nothing here waits for anything but the disk, and nothing knows of threads: `Outbox` calls it in one of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.packages.sink import Outgoing

SCHEMA = """
CREATE TABLE IF NOT EXISTS segment (
    number INTEGER PRIMARY KEY,
    time REAL NOT NULL,              -- of its newest event
    events INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    data TEXT NOT NULL               -- JSON: a list of [id, name, domain, subject, time, body]
);
CREATE INDEX IF NOT EXISTS sizes ON segment (events, octets);  -- else a start would read all events to add these up
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY, segment INTEGER NOT NULL, sent INTEGER NOT NULL);
"""
OLDEST = "SELECT number, time, events, octets FROM segment WHERE number > ? AND number < ? ORDER BY number LIMIT ?"
CHECKED = 4_000_000
"""Octets of a file that is looked through when it is opened, some ten milliseconds."""
LOOKED_AT = 50
"""Segments looked at in one go when room is made."""
LOOK_EVERY = 1.0
"""Seconds between two looks at the age of the oldest segment, while there is room."""


@dataclass(slots=True)
class Segment:
    """Events that were written together."""

    number: int
    events: Sequence[Outgoing]


class Damaged(sqlite3.DatabaseError):
    """What is in the file is not what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def is_damage(error: BaseException) -> bool:
    """Whether another file has to take the place of this one; it is closed when that has failed before."""
    if isinstance(error, sqlite3.ProgrammingError):
        return "closed" in str(error)
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def is_full(error: BaseException) -> bool:
    """Whether the disk has no room."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


class Spool:
    """The file. Raises OrchestratorError when it cannot be used; sqlite3.Error from all other methods."""

    def __init__(self, path: Path, size: int, age: float) -> None:
        """`size`: octets of events that are kept, `age`: seconds; what is beyond is dropped, the oldest first."""
        self.path = path
        self.size = size
        self.age = age
        self.events = self.octets = 0
        """What is in it."""
        self.dropped: Counter[str] = Counter()
        """Events lost, by what they were too much for: size, age; damaged, those in a file that was set aside."""
        self.gone = 0
        """The latest segment that was dropped: they go in order."""
        self.set_aside: Path | None = None
        """Where a damaged file went."""
        self.written: Sequence[Outgoing] = ()
        """The latest batch that is on disk."""
        self._looked = 0.0
        self.last = 0
        """Number of the latest segment."""
        self.partial = (0, 0)
        """Of this segment so many events have been delivered."""
        self._connection = self._open()
        try:
            first, last, events, octets = self._contents()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise self._unusable(error) from None
            self.renew()
            first, last, events, octets = self._contents()
        self.last = max(last or 0, self.partial[0])
        self.done: int = self.last if first is None else first - 1
        """What is up to here has been delivered or dropped."""
        self.events, self.octets = int(events), int(octets)

    def _contents(self) -> tuple[int | None, int | None, float, float]:
        """The first and the last number, events and octets, and how far the last one is delivered."""
        ask = self._connection.execute
        self.partial = ask("SELECT segment, sent FROM progress").fetchone() or (0, 0)
        (first,) = ask("SELECT min(number) FROM segment").fetchone()
        (last,) = ask("SELECT max(number) FROM segment").fetchone()  # each by itself is found at once
        events, octets = ask("SELECT total(events), total(octets) FROM segment").fetchone()
        return first, last, events, octets

    def renew(self) -> None:
        """Set the file aside, and begin an empty one; numbers go on. Who holds events of it counts those that are lost.
        Raises OrchestratorError."""
        self._connection.close()
        self.events = self.octets = 0
        self.partial = 0, 0
        self._connection = self._set_aside()

    def append(self, events: Sequence[Outgoing], now: float, busy: int) -> int:
        """Write a batch; returns the number of its segment. Segments up to `busy` are being delivered, and stay."""
        data = json.dumps([[e.id, e.name, e.domain, e.subject, e.time, e.body.decode()] for e in events])
        self._connection.execute(
            "INSERT INTO segment VALUES (?, ?, ?, ?, ?)", (self.last + 1, events[-1].time, len(events), len(data), data)
        )
        self.last += 1
        self.events += len(events)
        self.octets += len(data)
        self.written = events
        if self.octets > self.size or abs(now - self._looked) >= LOOK_EVERY:
            self._looked = now
            self.make_room(now, busy)
        return self.last

    def read(self, after: int, most: int) -> list[Segment]:
        """The segments behind this number, as many as hold `most` events, and at least one if there is any."""
        found: list[Segment] = []
        rows = self._connection.execute(
            "SELECT number, data FROM segment WHERE number > ? ORDER BY number LIMIT ?", (after, most)
        )
        for number, data in rows:
            try:
                events = [_event(*values) for values in json.loads(data)]
            except (ValueError, TypeError, AttributeError) as error:
                raise Damaged(f"segment {number}: {error}") from None
            sent = self.partial[1] if number == self.partial[0] else 0
            found.append(Segment(number, events[sent:]))
            most -= len(events)
            if most <= 0:
                break
        rows.close()
        return found

    def advance(self, number: int, segment: int = 0, sent: int = 0) -> None:
        """All up to segment `number` are done with, and `sent` events of `segment`, the next one."""
        if number > self.done:
            events, octets = self._connection.execute(
                "SELECT total(events), total(octets) FROM segment WHERE number <= ?", (number,)
            ).fetchone()
            try:
                self._connection.execute("DELETE FROM segment WHERE number <= ?", (number,))
            except sqlite3.OperationalError as error:
                if number < self.last or not is_full(error):
                    raise
                self._begin_anew()
            self.done = number
            self.events -= int(events)
            self.octets -= int(octets)
        if sent:
            self._connection.execute("INSERT OR REPLACE INTO progress VALUES (1, ?, ?)", (segment, sent))
            self.partial = segment, sent

    def _begin_anew(self) -> None:
        """Nothing in it is needed any more, and the disk has no room to write that down: free all that it takes."""
        self._connection.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self.partial = 0, 0
        self._connection = self._connect()

    def make_room(self, now: float, busy: int) -> None:
        """Drop what is too old, and the oldest while there is too much; the newest stays."""
        while self.events:
            rows = self._connection.execute(
                OLDEST,
                (busy, self.last, LOOKED_AT if self.octets > self.size else 1),
            ).fetchall()
            last = 0
            for number, newest, events, octets in rows:
                why = "age" if newest < now - self.age else "size" if self.octets > self.size else ""
                if not why:
                    break
                self.dropped[why] += events
                self.events -= events
                self.octets -= octets
                last = self.gone = number
            if not last:
                return
            self._connection.execute("DELETE FROM segment WHERE number > ? AND number <= ?", (busy, last))

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise self._unusable(error) from None
        return self._set_aside()

    def _set_aside(self) -> sqlite3.Connection:
        try:
            self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
            for end in ("-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            if self.path.exists():
                self.path.replace(self.set_aside)
            return self._connect()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _connect(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # events say who talks to whom
        except OSError as error:
            raise self._unusable(error) from None
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("PRAGMA journal_size_limit=1000000").fetchall()
            connection.executescript(SCHEMA)
            small = self.path.stat().st_size <= CHECKED
            if small and connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise Damaged("it is damaged")
            connection.execute("BEGIN IMMEDIATE")  # which takes the lock; it stays with us
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _unusable(self, error: Exception) -> OrchestratorError:
        reason = "another server uses it" if "locked" in str(error) else getattr(error, "strerror", None) or error
        return OrchestratorError(f"cannot use the spool {self.path}: {reason}")


def _event(id: str, name: str, domain: str, subject: str, time: float, body: str) -> Outgoing:
    return Outgoing(id, name, domain, subject, time, body.encode())
