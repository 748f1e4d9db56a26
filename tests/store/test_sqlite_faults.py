"""What must not be lost, and what must be said: kill -9, a full disk, foreign locks, damage, missing rights."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.sip.location import Binding, Change, Location
from orchestrator.store.sqlite import SCHEMA_VERSION, SqliteStore

NOW = 1_800_000_000.0

WRITER = """
import resource, sys
from pathlib import Path
from orchestrator.errors import StoreError
from orchestrator.sip.location import Binding, Location
from orchestrator.store.sqlite import SqliteStore

path, limit = Path(sys.argv[1]), int(sys.argv[2])
location = Location(SqliteStore(path))
location.load(0.0)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
number = int(sys.argv[3])
while True:
    aor = f"user{number}@example.com"
    try:
        location.save(aor, [Binding(aor, b"sip:user@10.0.0.1", 2e9, call_id=b"x" * 200, cseq=number)], 1.8e9)
    except StoreError as error:
        print("refused", error.sip_status, flush=True)
        sys.exit(0)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""
"""Registers phone after phone through the table, and acknowledges each on stdout once `save` has returned."""


def added(bindings: Iterable[Binding]) -> list[Change]:
    return [Change("added", binding) for binding in bindings]


def start_writer(path: Path, limit: int = 0, first: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(limit), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def binding(number: int = 0) -> Binding:
    return Binding(f"user{number}@example.com", b"sip:user@10.0.0.1", NOW + 60, cseq=number)


def aors(path: Path) -> set[str]:
    with closing(SqliteStore(path)) as store:
        assert store.set_aside is None
        return {loaded.aor for loaded in store.load(NOW)}


def test_kill_9_while_writing_loses_no_acknowledged_registration(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    acknowledged: list[int] = []
    for patience in (300, 700, 1500):
        with start_writer(path, first=len(acknowledged)) as writer:
            assert writer.stdout is not None
            seen = [int(writer.stdout.readline()) for _ in range(patience)]
            os.kill(writer.pid, signal.SIGKILL)
            seen += [int(line) for line in writer.stdout if line.endswith("\n")]
            assert writer.wait(10) == -signal.SIGKILL
        acknowledged += seen
        assert {f"user{number}@example.com" for number in acknowledged} <= aors(path)
    assert len(acknowledged) >= 2500


def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    with start_writer(path, limit=300_000) as writer:
        output, _ = writer.communicate(timeout=30)
    *numbers, refusal = output.split("\n")[:-1]
    assert refusal == "refused 503"
    assert len(numbers) > 10
    assert {f"user{number}@example.com" for number in numbers} == aors(path)


def test_space_that_comes_back_is_used_without_a_restart(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "location.db")) as store:
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="full"):
            store.write(added([binding(number) for number in range(1000)]))
        store._connection.execute("PRAGMA max_page_count=1000000")
        store.write(added([binding(7)]))
        assert list(store.load(NOW)) == [binding(7)]


def test_a_foreign_lock_is_refused_at_once_and_leaves_the_calls_their_bindings(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    with closing(SqliteStore(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        location = Location(store)
        location.save(binding().aor, [binding()], NOW)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked") as refused:
            location.save(binding(1).aor, [binding(1)], NOW)
        assert refused.value.sip_status == 503
        assert location.bindings(binding().aor, NOW) == (binding(),)
        assert location.bindings(binding(1).aor, NOW) == ()
        other.execute("ROLLBACK")
        location.save(binding(1).aor, [binding(1)], NOW)
    assert aors(path) == {binding().aor, binding(1).aor}


def make_file(path: Path, rows: int = 500) -> None:
    with closing(SqliteStore(path)) as store:
        store.write(added([binding(number) for number in range(rows)]))


def scribble(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


@pytest.mark.parametrize(
    ("offset", "octets"),
    [
        pytest.param(0, b"no database at all", id="header"),
        pytest.param(4096, b"\xff" * 64, id="root page of the table"),
        pytest.param(3 * 4096, b"\xff" * 16, id="leaf page"),
    ],
)
def test_a_damaged_file_is_set_aside_and_named(tmp_path: Path, offset: int, octets: bytes) -> None:
    path = tmp_path / "location.db"
    for number in (1, 2):
        make_file(path)
        scribble(path, offset, octets)
        damaged = path.read_bytes()
        with closing(SqliteStore(path)) as store:
            assert store.set_aside == tmp_path / f"location.db.corrupt-{number}"
            assert store.set_aside.read_bytes() == damaged
            assert list(store.load(NOW)) == []
            store.write(added([binding(3)]))
        assert aors(path) == {binding(3).aor}
        path.unlink()


def test_a_truncated_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    make_file(path)
    os.truncate(path, path.stat().st_size - 4096 - 100)
    with closing(SqliteStore(path)) as store:
        assert store.set_aside is not None


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE invoice (n)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    make_file(path, rows=1)
    with closing(sqlite3.connect(path)) as future:
        future.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"has schema {SCHEMA_VERSION + 1}, this version reads {SCHEMA_VERSION}"):
        SqliteStore(path)


@pytest.fixture
def folder_without_rights() -> Iterator[Path]:
    """A folder this process may read, not write. Root may write everywhere, so it is somebody else meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-"))
    make_file(folder / "location.db")
    (folder / "location.db").chmod(0o444)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["location.db", "new.db"])
def test_a_folder_without_the_right_to_write_is_named_at_start(folder_without_rights: Path, name: str) -> None:
    with pytest.raises(StoreError, match=name):
        SqliteStore(folder_without_rights / name)


def test_a_folder_that_is_not_there_is_named_at_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*/missing/location\.db: unable to open its lock file"):
        SqliteStore(tmp_path / "missing" / "location.db")


def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "location.db")
    store.close()
    with pytest.raises(StoreError):
        store.write(added([binding()]))
    with pytest.raises(StoreError):
        store.load(NOW)


def test_a_second_instance_is_refused_and_told_why(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    first = SqliteStore(path)
    with pytest.raises(StoreError, match="is in use by another instance; give each its own location:"):
        SqliteStore(path)
    first.close()
    SqliteStore(path).close()


def test_only_we_may_read_the_file_and_its_log(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    path.touch(0o644)
    store = SqliteStore(path)
    store.write(added([some_binding()]))
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert set(modes) >= {"location.db", "location.db-wal"}
    assert set(modes.values()) == {0o600}
    store.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_goes_away_while_we_run_is_noticed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "location.db"
    location = Location(SqliteStore(path))
    told: list[str] = []
    location.on_trouble = told.append
    location.write(added([some_binding()]))
    path.unlink()
    if how == "replaced":
        path.touch()
    for _ in range(3):
        with pytest.raises(StoreError, match="removed or replaced"):
            location.write(added([some_binding()]))
    assert len(told) == 1 and "removed or replaced" in told[0]
    assert (location.failures, bool(location.trouble)) == (3, True)
    location.store.close()


def test_an_outage_is_told_once_and_its_end_too(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    location = Location(SqliteStore(path))
    told: list[str] = []
    location.on_trouble = told.append
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        with pytest.raises(StoreError):
            location.write(added([some_binding()]))
    other.execute("ROLLBACK")
    other.close()
    location.write(added([some_binding()]))
    assert [bool(text) for text in told] == [True, False]
    location.store.close()


def test_the_phone_is_not_told_where_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    store = SqliteStore(path)
    path.unlink()
    with pytest.raises(StoreError) as refused:
        store.write(added([some_binding()]))
    assert (refused.value.sip_status, refused.value.reason) == (503, "Service Unavailable")
    assert str(tmp_path) in refused.value.detail
    store.close()


def some_binding() -> Binding:
    return Binding("bob@example.com", b"sip:bob@10.0.0.3", 9e9, call_id=b"c", cseq=1, registered_at=1.0)
