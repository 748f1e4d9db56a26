"""Call detail records in a file: one JSON object a line, appended when the call is over.

Turns of the core only put a record in a queue; a greenlet of its own writes what has gathered there, in batches. Each
goes to the end of whatever file has the name then, so a tool that renames the file (logrotate) needs to tell us
nothing. A record is with the operating system a moment after its call and survives a crash of ours from then on.

A disk that is full or a folder that is gone costs no call: records wait, `WAITING` of them, and then the oldest go and
are counted.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from itertools import islice
from pathlib import Path

import gevent
from gevent.event import Event
from loguru import logger

from orchestrator.errors import OrchestratorError
from orchestrator.history import CallRecord

WAITING = 100_000
"""Records kept while the file cannot be written: an hour of 25 calls per second, some 100 MB."""
BATCH = 200
"""Records written in one go. Calls wait for that, some 3 ms."""
RETRY = 5.0
"""Seconds until the next try after a failure."""


def _private(path: str, flags: int) -> int:
    """A new file is for us alone: call records say who talked to whom."""
    return os.open(path, flags, 0o600)


class CdrFile:
    """Appends to `path`. Raises OrchestratorError when that cannot be done at the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = self.dropped = 0
        self._waiting: deque[CallRecord] = deque()
        self._work = Event()
        self._failing = False
        try:
            with open(path, "ab", opener=_private):
                pass
        except OSError as error:
            raise OrchestratorError(f"cdr: cannot write {path}: {error.strerror}") from None
        self._greenlet = gevent.spawn(self._run)

    def add(self, record: CallRecord) -> None:
        """Take a record; never waits."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(record)
        self._work.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Write what still waits and end."""
        self._greenlet.kill()
        while self._waiting and self._write():
            pass

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self._waiting:
                gevent.sleep(0 if self._write() else RETRY)

    def _write(self) -> bool:
        """Append the oldest that wait. False when it could not be done; nothing is lost or written twice then."""
        try:
            with open(self.path, "ab", buffering=0, opener=_private) as file:
                batch = list(islice(self._waiting, BATCH))
                lines = "".join(json.dumps(record.facts(), ensure_ascii=False) + "\n" for record in batch).encode()
                before = file.tell()
                # A disk that fills up takes a part and says so in the count alone.
                if file.write(lines) != len(lines):
                    file.truncate(before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._failing:
                logger.bind(file=str(self.path), reason=error.strerror).error("cdr_unwritable")
            self._failing = True
            return False
        self._failing = False
        self.written += len(batch)
        for _ in batch:
            self._waiting.popleft()
        return True
