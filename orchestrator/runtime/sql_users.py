"""Users in a database: the `subscriber` table of Kamailio and OpenSIPS, or what a query of one's own finds.

SQLAlchemy Core speaks to the database. With PyMySQL and pg8000, which are written in Python, a look-up waits in its
greenlet and the loop goes on; those of other drivers run one at a time in a thread. The extra `orchestrator[sql]`
installs all three.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.errors import OrchestratorError
from orchestrator.packages.user_source import UserSourceKind
from orchestrator.sip.digest import Secret, is_hash

INSTALL: Final = "install the extra: pip install 'orchestrator[sql]'"
_DRIVERS: Final = {
    "postgresql": "postgresql+pg8000",
    "postgres": "postgresql+pg8000",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""Database → the driver that is meant where the URL names none."""
_COOPERATIVE: Final = ("pymysql", "pg8000")
HASHES: Final = {"ha1": "MD5", "ha1_sha256": "SHA-256", "ha1_sha512_256": "SHA-512-256"}
"""Names of columns → the algorithm of the hash in them."""
IDLE: Final = 300
"""Seconds after which a connection is made anew."""


@dataclass(frozen=True, slots=True)
class SqlTable:
    """Which database is asked, and what."""

    url: str
    password: str | None = field(default=None, repr=False)
    """Of the database; in place of one in the URL."""
    query: str = ""
    """A statement over `:user` and `:realm`, which finds columns `password`, `ha1`, `ha1_sha256`, `ha1_sha512_256`, or
    some of them. '' for the table:"""
    table: str = "subscriber"
    columns: tuple[tuple[str, str], ...] = (("user", "username"), ("realm", "domain"), ("ha1", "ha1"))
    """Our name → that of the column."""
    timeout: float = 3.0
    connections: int = 4


def driver_flaw(url: str) -> str:
    """Why this URL cannot be used: '' when it can. Loads what it needs, which takes some tenths of a second."""
    try:
        engine = importlib.import_module("sqlalchemy.engine")
    except ImportError:
        return f"users in a database need SQLAlchemy: {INSTALL}"
    try:
        made = engine.make_url(_with_driver(url))
        made.get_dialect().import_dbapi()
    except ImportError as error:
        return f"the driver of this database is missing ({error}): {INSTALL}"
    except Exception:  # which names the URL, and a password may stand in it
        return "this is not the URL of a database that is known: write postgresql://user@host/database"
    return ""


def _with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return _DRIVERS.get(scheme, scheme) + separator + rest


class SqlUsers:
    """One database. `find` may be called by as many greenlets at a time as the table has `connections`."""

    def __init__(self, table: SqlTable) -> None:
        """Raises OrchestratorError: it cannot be used."""
        flaw = driver_flaw(table.url)
        if flaw:
            raise OrchestratorError(flaw)
        import sqlalchemy  # only where users stand in a database

        url = sqlalchemy.make_url(_with_driver(table.url))
        if table.password is not None:
            url = url.set(password=table.password)
        self._threads: Any = None
        driver = url.get_driver_name()
        if driver in _COOPERATIVE:
            bounds: dict[str, Any] = {
                "pool_size": table.connections, "max_overflow": 0, "pool_timeout": table.timeout,
                "pool_recycle": IDLE, "pool_pre_ping": True, "connect_args": _timeouts(driver, table.timeout),
            }  # fmt: skip
        else:
            from gevent.threadpool import ThreadPool  # only where something is asked: `check` does without

            self._threads = ThreadPool(1)
            bounds = {"poolclass": sqlalchemy.NullPool}
        self._engine = sqlalchemy.create_engine(url, hide_parameters=True, **bounds)
        self._columns = dict(table.columns)
        self._exact = "" if table.query else "user"
        self._statement: Any = sqlalchemy.text(table.query) if table.query else self._select(table.table)
        self._named = frozenset(self._statement.compile().params)
        """Which of `user` and `realm` it asks for."""

    def _select(self, name: str) -> Any:
        """The statement for a table. Names are quoted where they have to be."""
        from sqlalchemy import bindparam, column, select, table

        schema, _, bare = name.rpartition(".")
        there = table(bare, *(column(known) for known in set(self._columns.values())), schema=schema or None)
        found = [there.c[known].label(ours) for ours, known in self._columns.items() if ours != "realm"]
        statement = select(*found).where(there.c[self._columns["user"]] == bindparam("user"))
        if "realm" in self._columns:
            statement = statement.where(there.c[self._columns["realm"]] == bindparam("realm"))
        return statement.limit(2)

    def find(self, user: str, realm: str) -> Secret | None:
        """What the database knows of a user. Raises what the driver raises, and LookupError: several rows fit."""
        told = self._rows(user, realm) if self._threads is None else self._threads.apply(self._try, (user, realm))
        if isinstance(told, Exception):
            raise told
        rows: Sequence[Mapping[str, Any]] = told
        if self._exact:  # MySQL takes Alice for alice
            rows = [row for row in rows if row[self._exact] == user]
        if len(rows) > 1:
            raise LookupError("the query finds several rows for a user")
        return secret_of(rows[0]) if rows else None

    def _try(self, user: str, realm: str) -> list[Mapping[str, Any]] | Exception:
        """For a thread of gevent's pool, which reports what is raised in it as a fault of its own."""
        try:
            return self._rows(user, realm)
        except Exception as error:
            return error

    def _rows(self, user: str, realm: str) -> list[Mapping[str, Any]]:
        given = {name: value for name, value in (("user", user), ("realm", realm)) if name in self._named}
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(self._statement, given).mappings().fetchmany(3)]

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        if self._threads is not None:
            self._threads.kill()


def secret_of(row: Mapping[str, Any]) -> Secret:
    """What a row says. A column that is empty, or no hash, says nothing."""
    password = row.get("password")
    hashes = {name: str(row.get(column)) for column, name in HASHES.items()}
    known = {name: text.lower() for name, text in hashes.items() if is_hash(name, text)}
    return Secret(password if isinstance(password, str) and password else None, known)


def _timeouts(driver: str, seconds: float) -> dict[str, Any]:
    """For sockets of a driver, which end before the greenlet's own time does."""
    if driver == "pg8000":
        return {"timeout": seconds}
    return {"connect_timeout": max(1, round(seconds)), "read_timeout": seconds, "write_timeout": seconds}


SQL = UserSourceKind("sql", "A database.", SqlUsers)
