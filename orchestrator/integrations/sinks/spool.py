"""Events on their way to a sink, in one SQLite file; what is in it survives the death of the process at any moment.

A row is a *segment*: the events that were written together, in order. A write and the removal of what is delivered are
one statement each, however many events they are about. `progress` says how much of a segment has been delivered;
numbers of segments are never used twice.

WAL with `synchronous=NORMAL`: nothing is lost with the process; with the machine's power the last moments may be. The
file is locked for as long as it is open, so two servers cannot send the same events. A damaged file is set aside and
an empty one takes its place.

Nothing here waits for anything but the disk, and nothing knows of threads: `Outbox` calls it in one of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
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
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY, segment INTEGER NOT NULL, sent INTEGER NOT NULL);
"""
OLDEST = "SELECT number, time, events, octets FROM segment WHERE number > ? AND number < ? ORDER BY number LIMIT ?"
LOOKED_AT = 50
"""Segments looked at in one go when room is made."""
LOOK_EVERY = 1.0
"""Seconds between two looks at the age of the oldest segment, while there is room."""


@dataclass(slots=True)
class Segment:
    """Events that were written together."""

    number: int
    events: Sequence[Outgoing]


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
        """Events lost, by what they were too much for: size, age."""
        self.gone = 0
        """The latest segment that was dropped: they go in order."""
        self.set_aside: Path | None = None
        """Where a damaged file went."""
        self.written: Sequence[Outgoing] = ()
        """The latest batch that is on disk."""
        self._looked = 0.0
        self._connection = self._open()
        row = self._connection.execute("SELECT segment, sent FROM progress").fetchone()
        self.partial: tuple[int, int] = row or (0, 0)
        """Of this segment so many events have been delivered."""
        first, last, events, octets = self._connection.execute(
            "SELECT min(number), max(number), total(events), total(octets) FROM segment"
        ).fetchone()
        self.last: int = max(last or 0, self.partial[0])
        """Number of the latest segment."""
        self.done: int = self.last if first is None else first - 1
        """What is up to here has been delivered or dropped."""
        self.events, self.octets = int(events), int(octets)

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
            events = [_event(*values) for values in json.loads(data)]
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
            self._connection.execute("DELETE FROM segment WHERE number <= ?", (number,))
            self.done = number
            self.events -= int(events)
            self.octets -= int(octets)
        if sent:
            self._connection.execute("INSERT OR REPLACE INTO progress VALUES (1, ?, ?)", (segment, sent))
            self.partial = segment, sent

    def make_room(self, now: float, busy: int) -> None:
        """Drop what is too old, and the oldest while there is too much; the newest stays."""
        while self.events:
            rows = self._connection.execute(
                OLDEST,
                (busy, self.last, LOOKED_AT if self.octets > self.size else 1),
            ).fetchall()
            last = 0
            for number, time, events, octets in rows:
                why = "age" if time < now - self.age else "size" if self.octets > self.size else ""
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
            if getattr(error, "sqlite_errorcode", 0) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise self._unusable(error) from None
        self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{int(self.path.stat().st_mtime)}")
        try:
            for end in ("-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
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
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                damaged = sqlite3.DatabaseError("it is damaged")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
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
