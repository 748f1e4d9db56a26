"""Bindings in one SQLite file, written through before the phone gets its 200.

The file is in WAL mode with `synchronous=NORMAL`: a commit is one write into the log, 25 µs against 150 µs with FULL,
and survives the death of the process at any instruction (the tests kill one with signal 9 while it writes). What it can
lose, when the machine loses its power, is the last moments of the log: phones register anew, calls do not wait.

There is one connection, and no busy timeout: somebody else's lock is an error to be
answered with a 503, not a reason to stop all calls for seconds. Every failure of a write is a StoreError, the
transaction is rolled back, and the next write tries anew.

One process owns the file: it holds a lock (`<file>.lock`), so a second instance is refused at its start. Only the owner
of the process may read the file. A file that is removed or replaced while we run takes no writes any more.

A file that is damaged is not repaired and not deleted: it is set aside under another name, which `set_aside` tells,
and an empty one takes its place. A file of a newer version is refused, an older one is migrated.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from sys import intern
from typing import Any

from orchestrator.errors import StoreError
from orchestrator.sip.location import Binding, Change

SCHEMA_VERSION = 8
"""Kept in the file as `user_version`."""

APPLICATION_ID = 0x4F524348
"""'ORCH' in the file's header: says whose file this is, to `file` and to us."""

_BINDING_7 = """
CREATE TABLE binding (
    aor TEXT NOT NULL,
    contact BLOB NOT NULL,
    device TEXT NOT NULL,            -- instance and reg_id: two phones may have the same contact
    expires_at REAL NOT NULL,
    q REAL NOT NULL,
    call_id BLOB NOT NULL,
    cseq INTEGER NOT NULL,
    path BLOB NOT NULL,              -- values joined by LF, which no header value holds
    received_host TEXT,
    received_port INTEGER,
    transport TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    instance TEXT,
    reg_id INTEGER,
    registered_at REAL NOT NULL,
    extra TEXT,                      -- JSON object of what a flow keeps with the contact, or NULL
    source TEXT NOT NULL DEFAULT '', -- address, or IPv6 /64, the REGISTER came from
    parameters BLOB NOT NULL DEFAULT x'',  -- of the Contact, as the 200 gives them back
    point TEXT NOT NULL DEFAULT '',  -- name of our point it came to: udp:10.0.0.1:5060
    PRIMARY KEY (aor, contact, device)
) WITHOUT ROWID
"""

_UPSTREAM = "woken_upstream INTEGER NOT NULL DEFAULT 0"
"""1: a proxy on the way to the phone wakes it."""

_BINDING = _BINDING_7.replace("    PRIMARY KEY", f"    {_UPSTREAM},\n    PRIMARY KEY")

SCHEMA = f"CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID; {_BINDING}"

ROUTE_KEY = "record-route"
"""Name of the key of our Record-Routes in the table `secret`. Until schema 3 it stood among the bindings, under an
empty address."""

PUT = "INSERT OR REPLACE INTO binding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
DELETE = "DELETE FROM binding WHERE aor = ? AND contact = ? AND device = ?"

MIGRATIONS = {
    1: "ALTER TABLE binding ADD COLUMN extra TEXT",
    2: "ALTER TABLE binding ADD COLUMN source TEXT NOT NULL DEFAULT ''",
    3: """
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO secret SELECT 'record-route', contact FROM binding WHERE aor = '' LIMIT 1;
DELETE FROM binding WHERE aor = ''
""",
    4: "ALTER TABLE binding ADD COLUMN parameters BLOB NOT NULL DEFAULT x''",
    5: "ALTER TABLE binding ADD COLUMN point TEXT NOT NULL DEFAULT ''",
    6: f"""
ALTER TABLE binding RENAME TO former;
{_BINDING_7};
INSERT INTO binding SELECT aor, contact, CASE WHEN instance IS NULL THEN '' WHEN reg_id IS NULL THEN instance
    ELSE instance || ';' || reg_id END, expires_at, q, call_id, cseq, path, received_host, received_port, transport,
    user_agent, instance, reg_id, registered_at, extra, source, parameters, point FROM former;
DROP TABLE former
""",  # noqa: S608  # our own constants
    7: f"ALTER TABLE binding ADD COLUMN {_UPSTREAM}",
}
"""From each older version to the next one."""


class SqliteStore:
    """A LocationStore in the SQLite file `path`, made when it is absent. Raises StoreError when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where the damaged file went that stood here, or None."""
        self._lock = _lock(path)
        try:
            self._connection = self._open_or_replace()
        except BaseException:
            os.close(self._lock)
            raise
        self._identity = _identity(path)

    def _open_or_replace(self) -> sqlite3.Connection:
        path = self.path
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise StoreError(f"cannot open {path}: {error}") from error
            self.set_aside = _set_aside(path)
            try:
                return self._open()
            except sqlite3.Error as again:
                raise StoreError(f"cannot open {path}: {again}") from again

    def load(self, now: float) -> Iterable[Binding]:
        try:
            self._connection.execute("DELETE FROM binding WHERE expires_at <= ?", (now,))
            return map(_binding, self._rows())
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error

    def _rows(self) -> list[tuple[Any, ...]]:
        """Of all bindings. Text that is no UTF-8 is read as `_text` reads it, which takes twice the time."""
        connection = self._connection
        try:
            connection.text_factory = str
            return connection.execute("SELECT * FROM binding").fetchall()
        except sqlite3.OperationalError:
            connection.text_factory = _text
            return connection.execute("SELECT * FROM binding").fetchall()
        finally:
            connection.text_factory = _text

    def route_key(self, fresh: bytes) -> bytes:
        try:
            self._check_identity()
            self._connection.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (ROUTE_KEY, fresh))
            found = self._connection.execute("SELECT value FROM secret WHERE name = ?", (ROUTE_KEY,)).fetchone()
            return bytes(found[0])
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {self.path}: {error}") from error

    def write(self, changes: Sequence[Change]) -> None:
        """Done on return, and in the turn: 25 µs."""
        connection = self._connection
        put = [_row(change.binding) for change in changes if change.stands]
        gone = [(change.binding.aor, *change.binding.key) for change in changes if not change.stands]
        try:
            self._check_identity()
            connection.execute("BEGIN IMMEDIATE")
            if gone:
                connection.executemany(DELETE, gone)
            if put:
                connection.executemany(PUT, put)
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, OverflowError) as error:  # the latter two: a value SQLite cannot hold
            self._roll_back()
            raise StoreError(f"cannot write {self.path}: {error}") from error

    def _check_identity(self) -> None:
        """Raises sqlite3.OperationalError when the path does not lead to our file any more."""
        if _identity(self.path) != self._identity:
            raise sqlite3.OperationalError("the file was removed or replaced while in use; restart to use it again")

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:  # the disk refuses even that; SQLite rolls back from the log at the next access
            pass

    def _open(self) -> sqlite3.Connection:
        _keep_private(self.path)
        connection = sqlite3.connect(self.path, timeout=0.0, isolation_level=None)
        try:
            connection.text_factory = _text
            for (verdict,) in connection.execute("PRAGMA quick_check(1)"):
                if verdict != "ok":
                    raise _Damaged(verdict)
            self._adopt(connection)
            connection.execute("PRAGMA journal_mode=WAL")  # kept in the file, so not before we know that it is ours
            connection.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _adopt(self, connection: sqlite3.Connection) -> None:
        """Make the schema in a new file, bring an older one up to it; refuse a file that is not ours or too new."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and not version:
            marks = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}"
            connection.executescript(f"BEGIN; {SCHEMA}; {marks}; COMMIT;")
        elif owner != APPLICATION_ID:
            raise StoreError(f"{self.path} is another program's database")
        elif version in MIGRATIONS:
            connection.executescript(f"BEGIN; {MIGRATIONS[version]}; PRAGMA user_version={version + 1}; COMMIT;")
            self._adopt(connection)
        elif version != SCHEMA_VERSION:
            raise StoreError(f"{self.path} has schema {version}, this version reads {SCHEMA_VERSION}")


def _lock(path: Path) -> int:
    """Take the lock of the file; returns its descriptor. Raises StoreError. The system frees it when we die."""
    name = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open {path}: unable to open its lock file: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreError(f"{path} is in use by another instance; give each its own location:") from None
    return descriptor


def _keep_private(path: Path) -> None:
    """Only we may read who is registered where. SQLite gives its log the rights of the file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # SQLite says what is wrong
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file the path leads to; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Damaged(sqlite3.DatabaseError):
    """What quick_check found."""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    primary_code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Damaged) or primary_code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _set_aside(path: Path) -> Path:
    """Move the file and its log to the first free `<path>.corrupt-<n>`; returns the new name. Raises StoreError."""
    target = next(t for n in count(1) if not (t := path.with_name(f"{path.name}.corrupt-{n}")).exists())
    try:
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(target.with_name(target.name + suffix))
    except OSError as error:
        raise StoreError(f"{path} is damaged and cannot be set aside: {error}") from error
    return target


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _row(binding: Binding) -> tuple[Any, ...]:
    host, port = binding.received or (None, None)
    return (
        binding.aor,
        binding.contact,
        binding.device,
        binding.expires_at,
        binding.q,
        binding.call_id,
        binding.cseq,
        b"\n".join(binding.path),
        host,
        port,
        binding.transport,
        binding.user_agent,
        binding.instance,
        binding.reg_id,
        binding.registered_at,
        json.dumps(dict(binding.extra)) if binding.extra else None,
        binding.source,
        binding.parameters,
        binding.point,
        int(binding.woken_upstream),
    )


def _binding(row: tuple[Any, ...]) -> Binding:
    (
        aor, contact, _, expires_at, q, call_id, cseq, path, host, port, transport, user_agent, instance, reg_id, at,
        kept, source, parameters, point, upstream,
    ) = row  # fmt: skip
    received = None if host is None else (host, port)
    paths = tuple(path.split(b"\n")) if path else ()
    model = intern(user_agent)  # thousands of phones share a few
    return Binding(
        aor, contact, expires_at, q, call_id, cseq, paths, received, intern(transport), model, instance, reg_id, at,
        json.loads(kept) if kept else None, intern(source), parameters, intern(point), woken_upstream=bool(upstream),
    )  # fmt: skip
