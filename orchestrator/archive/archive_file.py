"""The SQLite file of the archive: one row a call to search by, and its history beside it, compressed.

All here waits for the disk; `call_archive` keeps it in threads of its own. A reader and the writer do not wait for each
other (WAL). What is searched by address stands in a table of its own, one row for each name a call can be found by, so
that a name and its beginning are found by an index among any number of calls.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

VERSION = 1
"""Kept in the file as `user_version`."""
APPLICATION_ID = 0x4F524341
"""'ORCA' in the file's header."""
FEW = 5_000
"""Calls of one name that are sorted; of a name that has more, the newest are looked through."""
COUNTED = 2_000
"""A search counts no further."""
BUSY = 5.0
"""Seconds that one connection waits for another."""

_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE call (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, ended REAL NOT NULL, flow TEXT NOT NULL, code INTEGER
);
CREATE INDEX call_ended ON call (ended, number);
CREATE INDEX call_flow ON call (flow, ended, number);
CREATE INDEX call_code ON call (code, ended, number);
CREATE TABLE name (name TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (name, number)) WITHOUT ROWID;
CREATE INDEX name_number ON name (number);
CREATE TABLE history (number INTEGER PRIMARY KEY, record TEXT NOT NULL, facts BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class ArchivedCall:
    """A call to be written: its record as `CallRecord.facts` has it, times in seconds since 1970, the names it is found
    by in lower case, and its history as `CallHistory.facts` has it."""

    id: str
    ended: float
    flow: str
    code: int | None
    names: Sequence[str]
    record: str
    """JSON."""
    facts: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for; '' and None for anything. `of` is the beginning of an address or number of either side, of the
    dialled one, or of the user; `codes` are the least and the greatest final status; the call ended at `since` or
    later, and before `until`, in seconds since 1970."""

    of: str = ""
    flow: str = ""
    codes: tuple[int, int] | None = None
    since: float | None = None
    until: float | None = None


class ArchiveFile:
    """One archive. Every method may raise sqlite3.Error or OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged file went that stood here."""
        self._writer: sqlite3.Connection | None = None

    def open(self) -> None:
        """Make it ready to be written; a damaged file is set aside, and an empty one takes its place."""
        if self._writer is not None:
            return
        try:
            self._writer = self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.set_aside = _set_aside(self.path)
            self._writer = self._connect()

    def close(self) -> None:
        """Idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # call records say who talked to whom
        connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.executescript(_SCHEMA)
            elif version != VERSION:
                raise sqlite3.OperationalError(f"{self.path} is of version {version}, this program writes {VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    # --- writing ------------------------------------------------------------------------------------------------------

    def add(self, calls: Iterable[ArchivedCall]) -> None:
        """Write these calls, all or none; one that is there already is replaced."""
        packed = [(call, zlib.compress(call.facts.encode(), 6)) for call in calls]
        writer = self._ready()
        writer.execute("BEGIN")
        try:
            for call, facts in packed:
                self._drop(
                    writer, [number for (number,) in writer.execute("SELECT number FROM call WHERE id = ?", (call.id,))]
                )
                row = (call.id, call.ended, call.flow, call.code)
                number = writer.execute("INSERT INTO call (id, ended, flow, code) VALUES (?, ?, ?, ?)", row).lastrowid
                names = {(name, number) for name in call.names if name}
                writer.executemany("INSERT INTO name VALUES (?, ?)", names)
                writer.execute("INSERT INTO history VALUES (?, ?, ?)", (number, call.record, facts))
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def prune(self, before: float, most: int) -> int:
        """Delete calls that ended before that time, `most` of them; returns how many."""
        writer = self._ready()
        found = [number for (number,) in writer.execute(
            "SELECT number FROM call WHERE ended < ? ORDER BY ended LIMIT ?", (before, most))]  # fmt: skip
        if found:
            writer.execute("BEGIN")
            try:
                self._drop(writer, found)
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
            writer.execute("PRAGMA incremental_vacuum(500)").fetchall()
        return len(found)

    @staticmethod
    def _drop(writer: sqlite3.Connection, numbers: Sequence[int]) -> None:
        for table in ("name", "history", "call"):
            writer.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])  # noqa: S608

    def _ready(self) -> sqlite3.Connection:
        self.open()
        assert self._writer is not None
        if not self.path.exists():  # removed while we run: what is written would be seen by nobody
            self.close()
            self.open()
        assert self._writer is not None
        return self._writer

    # --- reading, on connections of its own ---------------------------------------------------------------------------

    def search(
        self, asked: Search, limit: int, before: tuple[float, int] | None = None
    ) -> tuple[list[dict[str, Any]], int, Any]:
        """Records of calls, the one that ended last first, without those that are damaged; how many there are, up to
        COUNTED; where the next page begins, None for none. `before` is such a place."""
        with closing(self._reader()) as reader:
            clause, values = _where(reader, asked)
            counted = f"SELECT count(*) FROM (SELECT 1 FROM call{clause} LIMIT {COUNTED})"  # noqa: S608
            total = reader.execute(counted, values).fetchone()[0]
            if before is not None:
                clause += f"{' AND' if clause else ' WHERE'} (call.ended, call.number) < (?, ?)"
                values += before
            order = "ORDER BY call.ended DESC, call.number DESC LIMIT ?"
            found = f"SELECT call.ended, call.number FROM call{clause} {order}"  # noqa: S608
            rows = reader.execute(found, [*values, limit + 1]).fetchall()
            one = "SELECT record FROM history WHERE number = ?"
            texts = [reader.execute(one, (number,)).fetchone() for _, number in rows[:limit]]
        told = [record for text in texts if text is not None and (record := _read_record(text[0])) is not None]
        return told, total, tuple(rows[limit - 1]) if len(rows) > limit else None

    def find(self, call: str) -> dict[str, Any] | None:
        """One call: `record`, and `history` as `CallHistory.facts` has it; None where it is not there."""
        with closing(self._reader()) as reader:
            one = "SELECT record, facts FROM history JOIN call USING (number) WHERE id = ?"
            found = reader.execute(one, (call,)).fetchone()
        if found is None:
            return None
        record = _read_record(found[0])
        try:
            history = json.loads(zlib.decompress(found[1]))
        except (ValueError, TypeError, RecursionError, zlib.error):
            record = None
        if record is None:
            raise sqlite3.DatabaseError(f"what it has of the call {call} is damaged")
        return {"record": record, "history": history}

    def _reader(self) -> sqlite3.Connection:
        if not self.path.exists():
            raise sqlite3.OperationalError(f"{self.path} is not there")
        connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return connection


def _where(reader: sqlite3.Connection, asked: Search) -> tuple[str, list[Any]]:
    """The condition of a search and its values. A name of few calls is the way to them; of many, the time is."""
    where: list[str] = []
    values: list[Any] = []
    if asked.of:
        bounds = asked.of.lower(), asked.of.lower() + "\U0010ffff"
        counted = "SELECT count(*) FROM (SELECT 1 FROM name WHERE name >= ? AND name < ? LIMIT ?)"
        few = reader.execute(counted, (*bounds, FEW + 1)).fetchone()[0] <= FEW
        names = "SELECT number FROM name WHERE name >= ? AND name < ?"
        where.append(f"call.number IN ({names})" if few else f"EXISTS ({names} AND name.number = call.number)")
        values += bounds
    conditions = (
        ("flow = ?", asked.flow or None),
        ("code = ?", asked.codes[0] if asked.codes is not None and asked.codes[0] == asked.codes[1] else None),
        ("code >= ?", asked.codes[0] if asked.codes is not None else None),
        ("code <= ?", asked.codes[1] if asked.codes is not None else None),
        ("ended >= ?", asked.since),
        ("ended < ?", asked.until),
    )
    for condition, value in conditions:
        if value is not None:
            where.append(f"call.{condition}")
            values.append(value)
    return f" WHERE {' AND '.join(where)}" if where else "", values


def _read_record(text: Any) -> dict[str, Any] | None:
    """The record of a row; None for one that is damaged."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is broken, and not only the disk full or the folder gone."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _set_aside(path: Path) -> Path:
    """Move the file and its log to the first free `<path>.corrupt-<n>`; returns the new name."""
    target = next(t for n in count(1) if not (t := path.with_name(f"{path.name}.corrupt-{n}")).exists())
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(target.with_name(target.name + suffix))
    return target
