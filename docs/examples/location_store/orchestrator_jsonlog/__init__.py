"""Registrations in a log of JSON lines, one for each write, on the disk before the phone gets its 200.

    location: {store: jsonlog, path: /var/lib/orchestrator/phones.jsonl}

A disk makes its caller wait, so a write is handed back as work: a thread appends the line and syncs it while calls go
on. There is one thread, so lines stand in the order in which their writes were begun. A line that a crash has cut short
was never acknowledged and is left out at the next start, where the log is written anew with what is still registered.

Other programs may read the log while they hold its lock (flock): nothing is written meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gevent.threadpool import ThreadPool
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import StoreError
from orchestrator.packages.location_store import StoreKind
from orchestrator.sip.location import Binding, Change
from orchestrator.store.packing import pack, unpack

Key = tuple[Any, ...]


class JsonLogSettings(BaseModel):
    """What stands beside `store: jsonlog`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Path


class JsonLog:
    """The `LocationStore`."""

    def __init__(self, settings: JsonLogSettings) -> None:
        self._path = settings.path
        self._thread = ThreadPool(1)
        self._rows: dict[Key, dict[str, Any]] = {}
        self._route_key = ""
        try:
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise StoreError(f"cannot open {self._path}: {error.strerror}") from error

    def load(self, now: float) -> Iterable[Binding]:
        """Read the log and write it anew, without what is over. Called before the server serves, so it may wait."""
        try:
            for line in self._path.read_bytes().splitlines():
                self._replay(line)
            self._rows = {key: row for key, row in self._rows.items() if row["expires_at"] > now}
            self._rewrite()
            return [unpack(row) for row in self._rows.values()]
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error
        finally:
            self._rows = {}

    def route_key(self, fresh: bytes) -> bytes:
        """Kept in a line of its own."""
        if not self._route_key:
            self._append(_line({"route_key": fresh.hex()}))
            self._route_key = fresh.hex()
        return bytes.fromhex(self._route_key)

    def write(self, changes: Sequence[Change]) -> Callable[[], None]:
        """The work that remains: it runs in a greenlet, which waits for the thread."""
        put = [pack(change.binding) for change in changes if change.stands]
        gone = [[*_key(pack(change.binding))] for change in changes if not change.stands]
        return partial(self._thread.apply, self._append, (_line({"gone": gone, "put": put}),))

    def close(self) -> None:
        self._file.close()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _append(self, line: bytes) -> None:
        """One line on the disk, or nothing. Raises StoreError."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                size = os.fstat(self._file.fileno()).st_size
                if self._file.write(line) != len(line):
                    os.ftruncate(self._file.fileno(), size)
                    raise StoreError(f"cannot write {self._path}: no space left")
                os.fsync(self._file.fileno())
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error

    # --- at the start -------------------------------------------------------------------------------------------------

    def _replay(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:  # cut short by a crash: nobody was told 200
            return
        self._route_key = said.get("route_key", self._route_key)
        for key in said.get("gone", ()):
            self._rows.pop(tuple(key), None)
        for row in said.get("put", ()):
            self._rows[_key(row)] = row

    def _rewrite(self) -> None:
        lines = [_line({"route_key": self._route_key})] if self._route_key else []
        lines += [_line({"put": [row]}) for row in self._rows.values()]
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)


def _key(row: dict[str, Any]) -> Key:
    """What tells a row apart: address, contact, and the device where it tells (`Binding.key`)."""
    return row["aor"], row["contact"], row["instance"], row["reg_id"]


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


STORE = StoreKind("jsonlog", "A log of JSON lines.", JsonLog, JsonLogSettings)
