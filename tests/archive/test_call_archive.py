"""Calls on their way to the archive: nothing waits for the disk, and what cannot be written is counted and said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from orchestrator.archive import call_archive
from orchestrator.archive.archive_file import Search
from orchestrator.archive.call_archive import CallArchive, archived
from orchestrator.history import CallRecord, History


def a_record(number: int = 1, ended: float = 1_010.0, **other: Any) -> CallRecord:
    values: dict[str, Any] = {
        "id": f"call{number}", "sip_call_id": f"c{number}@x", "flow": "main", "run": f"main#{number}",
        "caller": "alice@example.com", "called": "+4930123@example.com", "user": "al", "source": "10.0.0.2:5060",
        "started": 1_000.0 + number, "answered": None, "ended": ended, "code": 486, "contact": None,
        "ended_by": "callee", "reason": "busy", "server": None, "caller_uuid": None, "callee_uuid": None,
    }  # fmt: skip
    return CallRecord(**{**values, **other})


class Stage:
    """An archive in a folder, whose clock stands still until it is told to move."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, days: float = 30.0) -> None:
        for name in ("EVERY", "RETRY"):
            monkeypatch.setattr(call_archive, name, 0.01)
        self.now = 1_020.0
        self.history = History()
        self.path = folder / "calls.db"
        self.archive = CallArchive(self.path, days, self.history, self.facts, lambda: self.now)

    def facts(self, call: str) -> dict[str, Any]:
        return {"call": call, "items": [{"kind": "message", "text": "INVITE \ud800"}]}

    def until(self, holds: Any) -> None:
        with gevent.Timeout(20):
            while not holds():
                gevent.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    made.archive.start()
    yield made
    made.archive.close()


def test_a_call_is_written_when_it_has_settled_and_found_again(stage: Stage) -> None:
    stage.history.tell(a_record(1))
    stage.history.tell(a_record(2, ended=1_019.0))
    stage.until(lambda: stage.archive.written == 1)
    assert stage.archive.waiting == 1
    stage.now = 1_030.0
    stage.until(lambda: stage.archive.written == 2)
    told, total, cursor = stage.archive.search(Search(of="+49"), 1)
    assert [record["id"] for record in told] == ["call2"] and total == 2 and cursor is not None
    told, _, cursor = stage.archive.search(Search(of="al"), 1, cursor)
    assert [record["id"] for record in told] == ["call1"] and cursor is None
    found = stage.archive.find("call1")
    assert found is not None and found["record"]["code"] == 486 and found["history"]["call"] == "call1"
    assert stage.archive.find("nobody") is None


@pytest.mark.parametrize("cursor", ["x", "1", "-", "1-x", "nan-1", "1e99-1", "1-9" + "9" * 30])
def test_a_cursor_that_is_none(stage: Stage, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        stage.archive.search(Search(), 1, cursor)


def test_what_waits_at_the_end_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch)
    stage.archive.start()
    stage.history.tell(a_record(ended=1_019.9))
    stage.archive.close()
    assert stage.archive.written == 1 and not stage.history.told
    again = Stage(tmp_path, monkeypatch)
    again.archive.start()
    assert again.archive.search(Search())[1] == 1
    again.archive.close()


def test_old_calls_go(stage: Stage) -> None:
    stage.history.tell(a_record())
    stage.until(lambda: stage.archive.written == 1)
    stage.now += 31 * 86_400
    stage.until(lambda: stage.archive.deleted == 1)
    assert stage.archive.search(Search())[1] == 0


def test_a_folder_that_is_not_there_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path / "gone", monkeypatch)
    stage.archive.start()
    stage.history.tell(a_record())
    assert "No such file" in stage.archive.trouble
    with pytest.raises(OSError, match="cannot be read"):
        stage.archive.search(Search())
    (tmp_path / "gone").mkdir()
    stage.until(lambda: stage.archive.written == 1)
    assert stage.archive.trouble == "" and stage.archive.dropped == 0
    stage.archive.close()


def test_while_nothing_can_be_written_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_archive, "WAITING", 3)
    stage = Stage(tmp_path / "gone", monkeypatch)
    stage.archive.start()
    for number in range(5):
        stage.history.tell(a_record(number))
    assert stage.archive.dropped == 2 and stage.archive.waiting == 3
    (tmp_path / "gone").mkdir()
    stage.until(lambda: stage.archive.written == 3)
    assert [record["id"] for record in stage.archive.search(Search())[0]] == ["call4", "call3", "call2"]
    stage.archive.close()


def test_a_disk_that_is_full_costs_no_call(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(calls: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    add = stage.archive._file.add
    monkeypatch.setattr(stage.archive._file, "add", full)
    stage.history.tell(a_record())
    stage.until(lambda: stage.archive.trouble == "database or disk is full")
    monkeypatch.setattr(stage.archive._file, "add", add)
    stage.until(lambda: stage.archive.written == 1)
    assert stage.archive.trouble == ""


def test_a_file_that_breaks_while_it_is_used_is_set_aside(stage: Stage) -> None:
    stage.history.tell(a_record(1))
    stage.until(lambda: stage.archive.written == 1)
    file = stage.archive._file
    stage.archive._pen.apply(lambda: (file.close(), stage.path.write_bytes(b"broken" * 5_000)))
    stage.history.tell(a_record(2))
    stage.until(lambda: stage.archive.written == 2)
    assert (stage.path.parent / "calls.db.corrupt-1").exists()
    assert [record["id"] for record in stage.archive.search(Search())[0]] == ["call2"]


def test_names_and_texts_of_a_call() -> None:
    call = archived(a_record(user=None, caller="Al@X.test"), None)
    assert set(call.names) == {"al@x.test", "al", "+4930123@example.com", "+4930123", ""}
    assert call.facts == "null"


def test_a_record_with_a_lone_surrogate_is_written_as_text(stage: Stage) -> None:
    """JSON and YAML may hold `\\ud800`, and a flow may make a reason of it; SQLite takes no such text."""
    stage.history.tell(a_record(1, reason="bye \ud800", user="\udfff", caller="\ud800@x"))
    stage.history.tell(a_record(2))
    stage.until(lambda: stage.archive.written == 2)
    found = stage.archive.find("call1")
    assert found is not None and found["record"]["reason"] == "bye ?"


def test_what_cannot_be_written_for_a_bug_of_ours_stops_no_other_call(stage: Stage) -> None:
    facts = stage.facts

    def failing(call: str) -> dict[str, Any]:
        if call == "call1":
            raise RuntimeError
        return facts(call)

    stage.archive._facts = failing
    for number in (1, 2):
        stage.history.tell(a_record(number))
    stage.until(lambda: stage.archive.written + stage.archive.dropped == 2)
    assert [record["id"] for record in stage.archive.search(Search())[0]] == ["call2"]
    assert (stage.archive.written, stage.archive.dropped) == (1, 1)


@pytest.mark.parametrize("column", ["facts", "record"])
@pytest.mark.parametrize("found", [b"\xff" * 20, "{", None, b"x\x9cK\x04\x00\x00b\x00b", 7])
def test_a_row_that_is_damaged_is_told_as_such(stage: Stage, column: str, found: Any) -> None:
    stage.history.tell(a_record(1))
    stage.until(lambda: stage.archive.written == 1)
    connection = sqlite3.connect(stage.path)
    if found is None:
        connection.execute("DELETE FROM history")
    else:
        connection.execute(f"UPDATE history SET {column} = ?", (found,))
    connection.commit()
    connection.close()
    if found is not None:
        with pytest.raises(OSError, match="cannot be read"):
            stage.archive.find("call1")
    assert len(stage.archive.search(Search())[0]) == (column == "facts" and found is not None)
