"""Call records in a file: each once, through renamed files, missing folders and the end of the server."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from echo_core import wait_until

from orchestrator.errors import OrchestratorError
from orchestrator.history import CallRecord
from orchestrator.runtime import cdr
from orchestrator.runtime.cdr import CdrFile

RECORD = CallRecord(
    id="1", sip_call_id="a@b", flow="main", run="main#1", caller="Zoë@example.com", called="bob@example.com", user=None,
    source="10.0.0.2:5060", started=1_800_000_000.0, answered=1_800_000_001.5, ended=1_800_000_061.5, code=200,
    contact="sip:bob@10.0.0.3", ended_by="caller", reason="normal", server=None, caller_uuid=None, callee_uuid=None,
)  # fmt: skip


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_a_record_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cdr.jsonl"
    file = CdrFile(path)
    file.add(RECORD)
    wait_until(lambda: file.written == 1)
    assert json.loads(path.read_text()) == RECORD.facts()
    assert "Zoë" in path.read_text(), "as people read it"
    file.close()


def test_what_is_there_stays_and_what_still_waits_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "cdr.jsonl"
    path.write_text(json.dumps({"id": "0"}) + "\n")
    file = CdrFile(path)
    for number in range(1, 4):
        file.add(replace(RECORD, id=str(number)))
    file.close()
    assert ids(path) == ["0", "1", "2", "3"]


def test_a_file_that_was_renamed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "cdr.jsonl"
    file = CdrFile(path)
    file.add(RECORD)
    wait_until(lambda: file.written == 1)
    path.rename(tmp_path / "cdr.jsonl.1")
    file.add(replace(RECORD, id="2"))
    wait_until(lambda: file.written == 2)
    file.close()
    assert ids(path) == ["2"]


def test_a_folder_that_is_gone_for_a_while_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdr, "RETRY", 0.01)
    folder = tmp_path / "log"
    folder.mkdir()
    file = CdrFile(folder / "cdr.jsonl")
    (folder / "cdr.jsonl").unlink()
    folder.rmdir()
    for number in range(3):
        file.add(replace(RECORD, id=str(number)))
        gevent.idle()
    assert (file.written, file.waiting) == (0, 3)
    folder.mkdir()
    wait_until(lambda: file.written == 3)
    file.close()
    assert ids(folder / "cdr.jsonl") == ["0", "1", "2"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    file = CdrFile(Path("/dev/full"))
    file.add(RECORD)
    assert not file._write()
    assert (file.written, file.waiting) == (0, 1)
    file.path = tmp_path / "cdr.jsonl"
    file.close()
    assert ids(file.path) == ["1"]


def test_a_file_that_takes_half_a_batch_has_none_of_it(tmp_path: Path) -> None:
    """As a disk does that is nearly full."""
    path = tmp_path / "cdr.jsonl"
    path.write_text(json.dumps({"id": "0"}) + "\n")
    file = CdrFile(path)
    for number in range(1, 4):
        file.add(replace(RECORD, id=str(number)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        assert not file._write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ids(path) == ["0"] and file.waiting == 3
    file.close()
    assert ids(path) == ["0", "1", "2", "3"]


def test_many_that_wait_are_written_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that calls go on between them."""
    monkeypatch.setattr(cdr, "BATCH", 10)
    file = CdrFile(tmp_path / "cdr.jsonl")
    for number in range(25):
        file.add(replace(RECORD, id=str(number)))
    assert file._write() and (file.written, file.waiting) == (10, 15)
    wait_until(lambda: not file.waiting)
    file.close()
    assert ids(file.path) == [str(number) for number in range(25)]


def test_the_oldest_go_when_too_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdr, "WAITING", 2)
    file = CdrFile(tmp_path / "cdr.jsonl")
    for number in range(5):
        file.add(replace(RECORD, id=str(number)))
    file.close()
    assert file.dropped == 3 and ids(file.path) == ["3", "4"]


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(OrchestratorError, match=r"cdr: cannot write .*nowhere/cdr.jsonl: No such file or directory"):
        CdrFile(tmp_path / "nowhere" / "cdr.jsonl")
