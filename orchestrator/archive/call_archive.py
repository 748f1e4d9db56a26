"""Finished calls on their way to the archive, and back to whoever searches it.

A turn of the core only leaves a record here. Some seconds later, when the last answers have passed and `on_end` steps
are done, a greenlet puts the history of the call beside it, one call at a time, and hands what has gathered to a
thread, which compresses and writes it. Calls wait for none of that. A disk that is full or a file that is gone costs no
call: finished ones wait, `WAITING` of them, and then the oldest go and are counted; /readyz says `degraded`. A damaged
file is set aside, and an empty one takes its place.

Calls older than `days` are deleted a few at a time. Searches run in threads of their own.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gevent
from gevent.threadpool import ThreadPool
from loguru import logger

from orchestrator.archive.archive_file import ArchivedCall, ArchiveFile, Search, is_damage
from orchestrator.flow.run.trace import masked_text
from orchestrator.history import CallRecord, History

T = TypeVar("T")

SETTLE = 5.0
"""Seconds from the end of a call until it is written."""
WAITING = 5_000
"""Calls that wait while the file cannot be written."""
BATCH = 50
"""Calls written in one go."""
EVERY = 1.0
"""Seconds between two of these."""
RETRY = 10.0
"""Seconds until the next try after a failure."""
DAY = 86_400.0
PRUNED = 200
"""Calls deleted in one go."""
READERS = 2
"""Searches at a time."""

Facts = Callable[[str], Any]
"""The history of a call by its id (`CallHistory.facts`)."""


class CallArchive:
    """The archive of one server. `wall()` gives seconds since 1970."""

    def __init__(self, path: Path, days: float, history: History, facts: Facts, wall: Callable[[], float]) -> None:
        self.written = self.dropped = self.deleted = 0
        """Calls written, calls lost because the file could not be written, calls deleted for their age."""
        self.trouble = ""
        """Why nothing can be written, '' for nothing."""
        self._file = ArchiveFile(path)
        self._days = days
        self._facts = facts
        self._wall = wall
        self._waiting: deque[CallRecord] = deque()
        self._hub = gevent.get_hub()
        self._pen = ThreadPool(1, hub=self._hub)
        self._eyes = ThreadPool(READERS, hub=self._hub)
        self._history = history
        self._greenlet: gevent.Greenlet[..., Any] | None = None

    def start(self) -> None:
        """Begin; a file that cannot be opened is tried again."""
        self._attempt(self._file.open)
        self._history.listen(CallRecord, self._take)
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Write what still waits, if that can be done, and end."""
        self._history.ignore(CallRecord, self._take)
        if self._greenlet is not None:
            self._greenlet.kill()
        while self._waiting and self._write(settled=False):
            pass
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._pen.apply(self._file.close)
        self._pen.kill()
        self._eyes.kill()

    @property
    def waiting(self) -> int:
        """Calls that are to be written."""
        return len(self._waiting)

    @property
    def pending(self) -> list[CallRecord]:
        """Those, the one that ended last first."""
        return list(reversed(self._waiting))

    # --- reading ------------------------------------------------------------------------------------------------------

    def search(self, asked: Search, limit: int = 100, cursor: str = "") -> tuple[list[dict[str, Any]], int, str | None]:
        """Records of finished calls, the one that ended last first; how many there are, up to 2,000; the cursor of the
        next page, None for none. Waits in a thread.

        Raises:
            ValueError: no such cursor.
            OSError: the archive cannot be read.
        """
        before = _place(cursor) if cursor else None
        told, total, after = self._read(lambda: self._file.search(asked, limit, before))
        return told, total, None if after is None else f"{after[0]!r}-{after[1]}"

    def find(self, call: str) -> dict[str, Any] | None:
        """One call by its id: `record` and `history`; None where it is not there. Raises OSError."""
        return self._read(lambda: self._file.find(call))

    def _read(self, read: Callable[[], T]) -> T:
        found, error = self._eyes.apply(_caught, (read,))
        if isinstance(error, sqlite3.Error | OSError):
            raise OSError(f"the archive cannot be read: {error}")
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]

    # --- writing ------------------------------------------------------------------------------------------------------

    def _take(self, record: CallRecord) -> None:
        """Within a turn."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(record)

    def _run(self) -> None:
        while True:
            good = True
            while good and self._settled():
                good = self._write()
            if good:
                good = self._prune()
            gevent.sleep(EVERY if good else RETRY)

    def _settled(self) -> bool:
        return bool(self._waiting) and self._waiting[0].ended <= self._wall() - SETTLE

    def _write(self, settled: bool = True) -> bool:
        """Write the calls that ended first. False when it could not be done; they wait on."""
        batch: list[ArchivedCall] = []
        records: list[CallRecord] = []
        while self._waiting and len(batch) < BATCH and (not settled or self._settled()):
            record = self._waiting.popleft()
            records.append(record)
            try:
                batch.append(archived(record, self._facts(record.id)))
            except Exception:  # a bug of ours: this call is lost, and no other one
                logger.exception("archive_fault")
                records.pop()
                self.dropped += 1
            if settled:
                gevent.sleep(0)  # others have their turn
        if not self._attempt(lambda: self._file.add(batch)):
            self._waiting.extendleft(reversed(records))
            while len(self._waiting) > WAITING:
                self._waiting.popleft()
                self.dropped += 1
            return False
        self.written += len(batch)
        return True

    def _prune(self) -> bool:
        before, deleted = self._wall() - self._days * DAY, list[int]()
        good = self._attempt(lambda: deleted.append(self._file.prune(before, PRUNED)))
        self.deleted += sum(deleted)
        return good

    def _attempt(self, write: Callable[[], object]) -> bool:
        """Do it in the thread that writes; whether it was done."""
        aside = self._file.set_aside
        _, error = self._pen.apply(_caught, (write,))
        if error is not None:
            if isinstance(error, sqlite3.Error) and is_damage(error):  # opened anew, it is set aside
                self._pen.apply(self._file.close)
            reason = str(error) or type(error).__name__
            if reason != self.trouble:
                logger.bind(file=str(self._file.path), reason=reason).error("archive_unwritable")
            self.trouble = reason
            return False
        if self._file.set_aside != aside:
            logger.bind(file=str(self._file.set_aside)).error("archive_set_aside")
        self.trouble = ""
        return True


def _caught(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """In a thread: what it gives, or what went wrong, whatever it is: the greenlet that writes must not end of it, and
    gevent prints what a thread raises."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def archived(record: CallRecord, facts: Any) -> ArchivedCall:
    """A call as it is written; `facts` may be None."""
    told = {**record.facts(), "contact": masked_text(record.contact) if record.contact else None}
    return ArchivedCall(
        _text(record.id),
        record.ended,
        _text(record.flow),
        record.code,
        [_text(name) for name in _names(record)],
        _text(json.dumps(told, ensure_ascii=False, separators=(",", ":"))),
        _text(json.dumps(facts, ensure_ascii=False, separators=(",", ":"))),
    )


def _text(value: str) -> str:
    """As UTF-8 can hold it: a lone surrogate, which JSON and YAML can say, is a question mark."""
    return value.encode("utf-8", "replace").decode()


def _names(record: CallRecord) -> Iterator[str]:
    """What a call is found by: both addresses, their user parts, the user."""
    for address in (record.caller, record.called, record.user or ""):
        yield address.lower()
        yield address.rpartition("@")[0].lower()


def _place(cursor: str) -> tuple[float, int]:
    ended, _, number = cursor.partition("-")
    try:
        place = float(ended), int(number)
    except ValueError:
        raise ValueError(f"{cursor[:40]!r} is no cursor") from None
    if not (0 <= place[0] < 1e12 and 0 <= place[1] < 1 << 62):
        raise ValueError(f"{cursor[:40]!r} is no cursor")
    return place
