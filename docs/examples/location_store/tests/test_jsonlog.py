"""What stands in the log, and what is read from it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestrator_jsonlog import JsonLog, JsonLogSettings

from orchestrator.errors import StoreError
from orchestrator.sip.location import Binding, Change

BOB, EVE = (Binding(f"{user}@example.com", f"sip:{user}@192.0.2.1".encode(), 1000.0) for user in ("bob", "eve"))


def opened(folder: Path) -> JsonLog:
    return JsonLog(JsonLogSettings(path=folder / "phones.jsonl"))


def kept(folder: Path, now: float = 0.0) -> list[Binding]:
    """What the next start finds."""
    store = opened(folder)
    found = list(store.load(now))
    store.close()
    return found


def test_a_write_is_in_the_log_when_its_work_is_done(tmp_path: Path) -> None:
    store = opened(tmp_path)
    work = store.write([Change("added", BOB), Change("added", EVE)])
    assert (tmp_path / "phones.jsonl").read_bytes() == b"", "write must not wait"
    work()
    store.write([Change("removed", EVE)])()
    store.close()
    assert kept(tmp_path) == [BOB]


def test_what_has_expired_is_not_read_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write([Change("added", BOB)])()
    store.close()
    assert kept(tmp_path, 1000.0) == []


def test_a_line_that_a_crash_has_cut_short_is_left_out(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for binding in (BOB, EVE):
        store.write([Change("added", binding)])()
    store.close()
    log = tmp_path / "phones.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    assert kept(tmp_path) == [BOB]


def test_the_key_of_the_routes_is_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    list(store.load(0.0))
    assert store.route_key(b"1" * 32) == b"1" * 32
    store.close()
    again = opened(tmp_path)
    list(again.load(0.0))
    assert again.route_key(b"2" * 32) == b"1" * 32
    again.close()


def test_a_log_that_cannot_be_opened_or_written_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        opened(tmp_path / "nowhere")
    store = opened(tmp_path)
    store.close()
    with pytest.raises(StoreError, match="cannot write"):
        store.write([Change("added", BOB)])()
