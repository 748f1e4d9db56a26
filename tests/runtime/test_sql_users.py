"""Users in a database: what is found, what is not, and that a slow database holds nobody up. SQLite always; PostgreSQL
and MariaDB where their programs are installed (Debian: postgresql, mariadb-server-core), else the tests say so."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.runtime.sql_users import SqlTable, SqlUsers, driver_flaw, secret_of
from orchestrator.sip.digest import Secret

sqlalchemy = pytest.importorskip("sqlalchemy", reason="the extra `sql` is not installed")

MD5, SHA, SHA512 = "a" * 32, "b" * 64, "c" * 64
COLUMNS = (
    ("user", "username"), ("realm", "domain"), ("password", "password"), ("ha1", "ha1"), ("ha1_sha256", "ha1_sha256"),
    ("ha1_sha512_256", "ha1_sha512t256"),
)  # fmt: skip
CREATE = """
create table subscriber (
  id integer not null primary key, username varchar(64) not null default '', domain varchar(64) not null default '',
  password varchar(64), ha1 varchar(128) not null default '', ha1_sha256 varchar(128) not null default '',
  ha1_sha512t256 varchar(128) not null default ''
)
"""
ROWS = [
    (1, "alice", "example.com", "wonder", "", "", ""),
    (2, "bob", "example.com", None, MD5, SHA.upper(), SHA512),
    (3, "bob", "example.org", None, "f" * 32, "", ""),
    (4, "o'hara", "example.com", "quoted", "", "", ""),
    (5, "empty", "example.com", "", "short", "", ""),
    (6, "twice", "example.com", "one", "", "", ""),
    (7, "twice", "example.com", "two", "", "", ""),
    (8, "Jürgen", "example.com", "ü", "", "", ""),
]


# --- the databases ----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_postgresql(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    owner = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    run: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "cwd": folder} if os.getuid() == 0 else {}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **run}
    bin, data, port = programs[-1].parent, folder / "data", free_port()
    subprocess.run(
        [bin / "initdb", "-D", data, "-U", "sip", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"],
        check=True,
        **quiet,
    )
    options = [f"-cport={port}", "-clisten_addresses=127.0.0.1", "-cfsync=off", f"-cunix_socket_directories={folder}"]
    return subprocess.Popen([bin / "postgres", "-D", data, *options], **quiet), f"postgresql://sip@127.0.0.1:{port}"


def start_mariadb(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    install, server = (
        shutil.which("mariadb-install-db"),
        shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin"),
    )
    if install is None or server is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server-core")
    data, port = folder / "data", free_port()
    user = pwd.getpwuid(os.getuid()).pw_name
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
    normal = "--auth-root-authentication-method=normal"
    subprocess.run([install, *common, normal, "--skip-test-db", "--skip-name-resolve"], check=True, **quiet)
    options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    process = subprocess.Popen([server, *common, *options, "--skip-name-resolve", "--innodb-fast-shutdown=2"], **quiet)
    return process, f"mysql://root@127.0.0.1:{port}"


STARTS = {"postgresql": start_postgresql, "mariadb": start_mariadb}


def fill(url: str) -> None:
    scheme, _, rest = url.partition("://")
    driver = {"postgresql": "postgresql+pg8000", "mysql": "mysql+pymysql"}.get(scheme, scheme)
    engine = sqlalchemy.create_engine(f"{driver}://{rest}", isolation_level="AUTOCOMMIT")
    end = monotonic() + 60
    while True:
        try:
            with engine.connect() as connection:
                break
        except sqlalchemy.exc.DBAPIError:
            assert monotonic() < end, "the database does not come up"
            sleep(0.1)
    with engine.connect() as connection:
        if scheme == "mysql":
            connection.exec_driver_sql("create database if not exists sip character set utf8mb4")
            connection.exec_driver_sql("use sip")
        connection.exec_driver_sql(CREATE)
        insert = "insert into subscriber values (:a, :b, :c, :d, :e, :f, :g)"
        connection.execute(sqlalchemy.text(insert), [dict(zip("abcdefg", row, strict=True)) for row in ROWS])
    engine.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the table."""
    folder = Path(tempfile.mkdtemp(prefix="users-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        if request.param == "sqlite":
            found = f"sqlite:///{folder}/users.db"
        else:
            process, base = STARTS[request.param](folder)
            found = f"{base}/{'postgres' if request.param == 'postgresql' else 'sip'}"
        fill(found if request.param != "mariadb" else base)
        yield found
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT if request.param == "postgresql" else signal.SIGKILL)
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def users(url: str) -> Iterator[SqlUsers]:
    found = SqlUsers(SqlTable(url, columns=COLUMNS))
    yield found
    found.close()


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_user_has_a_password_or_hashes(users: SqlUsers) -> None:
    assert users.find("alice", "example.com") == Secret("wonder", {})
    assert users.find("bob", "example.com") == Secret(None, {"MD5": MD5, "SHA-256": SHA, "SHA-512-256": SHA512})
    assert users.find("bob", "example.org") == Secret(None, {"MD5": "f" * 32})
    assert users.find("Jürgen", "example.com") == Secret("ü", {})
    assert users.find("empty", "example.com") == Secret(None, {}), "no hash is no hash: nobody logs in with it"


@pytest.mark.parametrize(
    "user",
    ["nobody", "", "Alice", "ALICE", "alice ", "alice' or '1'='1", "%", "al_ce", "alice'; drop table subscriber; --",
     "\\", "alice\\", "😀" * 20, "x" * 256],
)  # fmt: skip
def test_nobody_else_is_found(users: SqlUsers, user: str) -> None:
    assert users.find(user, "example.com") is None
    assert users.find("o'hara", "example.com") == Secret("quoted", {}), "and the table is still there"


def test_a_realm_that_is_another_has_other_users(users: SqlUsers) -> None:
    assert users.find("alice", "example.org") is None


def test_a_user_who_is_there_twice_is_a_mistake_of_the_table(users: SqlUsers) -> None:
    with pytest.raises(LookupError, match="several rows"):
        users.find("twice", "example.com")


def test_without_a_column_for_the_realm_it_is_not_asked_for(url: str) -> None:
    users = SqlUsers(SqlTable(url, columns=(("user", "username"), ("password", "password"))))
    assert users.find("alice", "whatever") == Secret("wonder", {})
    users.close()


def test_a_query_of_ones_own(url: str) -> None:
    query = "select ha1, ha1_sha256 as ha1_sha256 from subscriber where username = :user and domain = :realm"
    users = SqlUsers(SqlTable(url, query=query))
    assert users.find("bob", "example.com") == Secret(None, {"MD5": MD5, "SHA-256": SHA})
    assert users.find("nobody", "example.com") is None
    users.close()
    fixed = SqlUsers(SqlTable(url, query="select password from subscriber where id = 1"))
    assert fixed.find("x", "y") == Secret("wonder", {})
    fixed.close()


def test_what_cannot_be_asked_raises_and_names_no_password(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    for table in (SqlTable(url, table="nothing"), SqlTable(url, query="select nonsense from")):
        users = SqlUsers(table)
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as raised:
            users.find("alice", "example.com")
        assert "alice" not in str(raised.value), "parameters are not told"
        users.close()
    assert "Traceback" not in capfd.readouterr().err


GREEN = textwrap.dedent(
    """
    import sys
    from gevent import monkey; monkey.patch_all()
    import gevent
    from orchestrator.core.jobs import FindUser
    from orchestrator.errors import StepError
    from orchestrator.packages.user_source import ChosenUsers
    from orchestrator.runtime.user_sources import UserSources
    from orchestrator.runtime.sql_users import SQL, SqlTable

    url, sleep, kill = sys.argv[1:]
    sources, ticks = UserSources(), 0

    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0.01)

    def ask(query, timeout=20.0, user="bob"):
        table = SqlTable(url, query=query, timeout=20.0, connections=2)
        try:
            chosen = ChosenUsers(SQL, table, timeout, 2)
            return sources.find(FindUser("t", chosen, user, "example.com", timeout))
        except StepError as error:
            return error.message

    PLAIN = "select ha1 from subscriber where username = :user and domain = :realm"
    gevent.spawn(tick)
    assert ask(PLAIN).ha1 == {"MD5": "a" * 32}
    ticks = 0
    slow = [gevent.spawn(ask, f"select ha1, {sleep} from subscriber where id = 2") for _ in range(2)]
    assert ask(PLAIN).ha1 == {"MD5": "a" * 32}, "another source goes on"
    gevent.joinall(slow)
    print("ticks", ticks)
    late = ask(f"select ha1, {sleep} from subscriber where id = 2", 0.2)
    assert late == "no answer within 0.2 s", late
    assert sources.trouble == "t: no answer within 0.2 s"
    assert ask(PLAIN).ha1 == {"MD5": "a" * 32} and sources.trouble == ""
    if kill:
        ask(kill)
        assert ask(PLAIN).ha1 == {"MD5": "a" * 32}, "a lost connection is made anew"
    sources.keep(())
    print("done")
    """
)


def test_a_slow_database_holds_up_itself_only(url: str) -> None:
    """In a process of its own, which is patched as the server is."""
    sleeps = {"postgresql": "pg_sleep(1)", "mysql": "sleep(1)"}
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return  # it is asked in a thread, and never waits
    kill = {"postgresql": "select pg_terminate_backend(pid)::text as ha1 from pg_stat_activity "
                          "where pid <> pg_backend_pid() and usename = 'sip' limit 1", "mysql": ""}[scheme]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", GREEN, url, sleeps[scheme], kill],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ticks = int(done.stdout.split()[1])
    assert ticks >= 20, "the loop went on while the database slept for a second"


# --- without a database -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("postgresql://u@h/d", ""),
        ("mysql://u@h/d", ""),
        ("mariadb://u:pw@h/d", ""),
        ("sqlite:///users.db", ""),
        ("postgresql+pg8000://u@h/d", ""),
        ("postgres://u@h/d", ""),
        ("oracle://u:secret@h/d", "the driver of this database is missing"),
        ("nonsense://u:secret@h/d", "this is not the URL of a database"),
        ("u:secret@h", "this is not the URL of a database"),
    ],
)
def test_urls_that_cannot_be_used_are_told_without_their_password(url: str, flaw: str) -> None:
    found = driver_flaw(url)
    assert found.startswith(flaw) and bool(found) is bool(flaw) and "secret" not in found
    if flaw:
        with pytest.raises(OrchestratorError):
            SqlUsers(SqlTable(url))


def test_the_password_stands_in_no_repr() -> None:
    assert "secret" not in repr(replace(SqlTable("sqlite://"), password="secret"))


@pytest.mark.parametrize(
    ("row", "secret"),
    [
        ({"password": "x", "ha1": MD5}, Secret("x", {"MD5": MD5})),
        ({"password": None, "ha1": None}, Secret(None, {})),
        ({"password": 7, "ha1": b"x"}, Secret(None, {})),
        ({"ha1": SHA}, Secret(None, {})),
        ({}, Secret(None, {})),
    ],
)
def test_what_a_row_says(row: dict[str, Any], secret: Secret) -> None:
    assert secret_of(row) == secret
