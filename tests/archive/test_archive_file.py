"""The file of the archive: searches, pages, bounds, damage."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.archive.archive_file import ArchivedCall, ArchiveFile, Search


def a_call(
    number: int, caller: str = "alice@example.com", called: str = "bob@example.com", **other: object
) -> ArchivedCall:
    names = [caller, caller.partition("@")[0], called, called.partition("@")[0]]
    ended = float(other.get("ended", 1_000.0 + number))  # type: ignore[arg-type]
    code = other.get("code", 200)
    return ArchivedCall(
        id=f"call{number}",
        ended=ended,
        flow=str(other.get("flow", "main")),
        code=code if isinstance(code, int) else None,
        names=names,
        record=json.dumps({"id": f"call{number}", "from": caller}),
        facts=json.dumps({"items": ["x" * 2000]}),
    )


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ArchiveFile]:
    opened = ArchiveFile(tmp_path / "calls.db")
    opened.open()
    yield opened
    opened.close()


ALL = Search()


def ids(file: ArchiveFile, asked: Search = ALL, limit: int = 100) -> list[str]:
    return [record["id"] for record in file.search(asked, limit)[0]]


def test_what_was_written_is_found_again(file: ArchiveFile) -> None:
    file.add([a_call(1)])
    found = file.find("call1")
    assert found == {"record": {"id": "call1", "from": "alice@example.com"}, "history": {"items": ["x" * 2000]}}
    assert file.find("call2") is None
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (Search(), ["call4", "call3", "call2", "call1"]),
        (Search(of="alice@example.com"), ["call2", "call1"]),
        (Search(of="ALI"), ["call2", "call1"]),
        (Search(of="+49"), ["call3"]),
        (Search(of="lice"), []),
        (Search(of="%"), []),
        (Search(flow="night"), ["call4"]),
        (Search(codes=(486, 486)), ["call2"]),
        (Search(codes=(400, 499)), ["call2"]),
        (Search(since=1_003.0), ["call4", "call3"]),
        (Search(until=1_003.0), ["call2", "call1"]),
        (Search(of="alice", codes=(200, 299), until=1_002.0), ["call1"]),
    ],
    ids=str,
)
def test_a_search(file: ArchiveFile, asked: Search, found: list[str]) -> None:
    file.add(
        [a_call(1), a_call(2, code=486), a_call(3, "+4930123@x", "dave@x"), a_call(4, "eve@x", "dave@x", flow="night")]
    )
    assert ids(file, asked) == found


def test_pages_have_each_call_once_also_of_one_instant(file: ArchiveFile) -> None:
    file.add([a_call(number, ended=1_000.0 + number // 3) for number in range(20)])
    seen, place = list[str](), None
    while True:
        told, total, place = file.search(Search(of="bob"), 7, place)
        assert total == 20
        seen += [record["id"] for record in told]
        if place is None:
            break
    assert sorted(seen) == sorted(f"call{number}" for number in range(20)) and seen[0] == "call19"


def test_a_name_of_many_calls_is_searched_by_time(file: ArchiveFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.archive.archive_file.FEW", 3)
    file.add([a_call(number, caller=f"a{number % 2}@x") for number in range(10)])
    assert ids(file, Search(of="a1"), 2) == ["call9", "call7"] and ids(file, Search(of="a"), 3) == [
        "call9",
        "call8",
        "call7",
    ]


def test_a_call_that_comes_again_is_replaced(file: ArchiveFile) -> None:
    file.add([a_call(1)])
    file.add([a_call(1, caller="carol@x")])
    assert ids(file) == ["call1"] and ids(file, Search(of="alice")) == []


def test_old_calls_are_deleted_a_few_at_a_time(file: ArchiveFile) -> None:
    file.add([a_call(number) for number in range(10)])
    assert file.prune(1_005.0, 3) == 3 and ids(file)[-1] == "call3"
    assert file.prune(1_005.0, 3) == 2 and file.prune(1_005.0, 3) == 0
    with sqlite3.connect(file.path) as raw:
        for table in ("call", "history"):
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (5,)
        assert raw.execute("SELECT count(DISTINCT number) FROM name").fetchone() == (5,)


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    path.write_bytes(b"this is no database at all, whatever its name says" * 100)
    file = ArchiveFile(path)
    file.open()
    file.add([a_call(1)])
    assert file.set_aside == tmp_path / "calls.db.corrupt-1" and file.set_aside.exists()
    assert ids(file) == ["call1"]
    file.close()


def test_a_file_that_was_removed_is_made_anew(file: ArchiveFile) -> None:
    file.add([a_call(1)])
    file.path.unlink()
    file.add([a_call(2)])
    assert ids(file) == ["call2"]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "calls.db")
    file.open()
    file.close()
    with sqlite3.connect(file.path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.OperationalError, match="version 99"):
        file.open()


PLANS = [
    Search(),
    Search(of="alice"),
    Search(flow="main"),
    Search(codes=(486, 486)),
    Search(since=1_000.0, until=2_000.0),
]


@pytest.mark.parametrize("asked", PLANS, ids=str)
def test_each_search_goes_by_an_index(file: ArchiveFile, asked: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 calls must not be read for a hundred."""
    file.add([a_call(number) for number in range(5)])
    told: list[str] = []
    connect = sqlite3.connect

    def traced(*args: object, **keys: object) -> sqlite3.Connection:
        connection = connect(*args, **keys)  # type: ignore[call-overload]
        connection.set_trace_callback(told.append)
        return connection  # type: ignore[no-any-return]

    monkeypatch.setattr(sqlite3, "connect", traced)
    file.search(asked, 10)
    monkeypatch.undo()
    with sqlite3.connect(file.path) as raw:
        for statement in told:
            if statement.startswith("SELECT"):
                for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    plan = str(row[3])
                    assert not plan.startswith("SCAN") or "USING" in plan or "subquery" in plan or "CONSTANT" in plan, (
                        plan
                    )
