"""The API over an archive: calls that are in memory no more are found, with their history and their ladder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from orchestrator.archive import call_archive
from orchestrator.archive.call_archive import CallArchive
from orchestrator.testing.api_stage import ApiStage

FLOWS = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - relay: registered\n"


class Archived(ApiStage):
    """Two calls that are over: one is written, one waits to be."""

    def __init__(self, path: Path) -> None:
        super().__init__(FLOWS)
        engine = self.world.engine
        self.archive = CallArchive(path, 30, engine.history, self.shown.history.facts, lambda: engine.wall)
        self.ended._archive = self.archive
        self.archive.start()
        phones = [self.world.phone(f"{name}@example.com", f"10.0.0.{n}") for n, name in enumerate(("alice", "bob"), 2)]
        phones[1].register()
        self.world.run()
        for number in range(2):
            call = phones[0].invite("bob@example.com")
            self.world.run(1)
            phones[1].calls[-1].answer()
            self.world.run(1)
            call.hangup()
            self.world.run(60 if number == 0 else 1)
        with gevent.Timeout(20):
            while not self.archive.written:
                gevent.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archived]:
    monkeypatch.setattr(call_archive, "EVERY", 0.01)
    made = Archived(tmp_path / "calls.db")
    yield made
    made.archive.close()


def forget(stage: Archived) -> None:
    """Memory keeps no call any more."""
    history = stage.shown.history
    for kept in list(history.ended()):
        history._forget(kept.id)


def test_calls_of_memory_and_disk_are_one_list(stage: Archived) -> None:
    page = stage.get("archive/calls").json
    assert page["total"] == 2 and page["items"][0]["ended"] > page["items"][1]["ended"]
    assert set(page["items"][0]) == set(page["items"][1])
    assert len(stage.items("archive/calls?of=ali&code=2&flow=main&from=2027-01-15T08:00:00Z")) == 2
    assert stage.items("archive/calls?code=486") == [] == stage.items("archive/calls?of=carol")
    assert stage.get("archive/calls?cursor=x").json["code"] == "query.invalid"


def test_what_memory_has_forgotten_the_archive_knows(stage: Archived) -> None:
    old = stage.items("archive/calls")[1]["id"]
    before = {path: stage.get(f"calls/{old}{path}").json for path in ("/history", "/ladder", "")}
    assert before["/history"]["items"] and before["/ladder"]["arrows"]
    forget(stage)
    for path, told in before.items():
        assert stage.get(f"calls/{old}{path}").json == told
    assert "<svg" in stage.get(f"calls/{old}/ladder.svg").text
    assert stage.get("calls/nobody").json["code"] == "call.unknown"


def test_an_archive_that_cannot_be_read_is_said(stage: Archived) -> None:
    forget(stage)
    file = stage.archive._file
    stage.archive._pen.apply(lambda: (file.close(), file.path.unlink(), file.path.mkdir()))
    assert stage.get("archive/calls").json["code"] == "archive.unreadable"
    assert stage.get("calls/gone").json["code"] == "archive.unreadable"
