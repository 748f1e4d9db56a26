"""`orchestrator raise` against an admin interface."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from click.testing import CliRunner, Result

from orchestrator.events.received import Received
from orchestrator.testing.api_stage import TOKEN, ApiStage


class Taker:
    def __init__(self) -> None:
        self.got: list[Received] = []

    def take(self, received: Received) -> int:
        if received.name == "nope":
            raise ValueError("event 'nope' needs attribute 'x'")
        self.got.append(received)
        return 2


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Taker]]:
    taker = Taker()
    stage = ApiStage()
    monkeypatch.setattr(stage.incoming, "take", taker.take)
    yield stage.serve(), taker
    stage.close()


def run(*arguments: str) -> Result:
    """In a thread: the server it asks is in this one."""
    command = importlib.import_module("orchestrator.cli.raise").command
    result = gevent.get_hub().threadpool.apply(CliRunner().invoke, (command, list(arguments)))
    assert isinstance(result, Result)
    return result


def config(tmp_path: Path, token: str) -> str:
    path = tmp_path / "o.yml"
    path.write_text(f"admin: {{token: {token}}}\n")
    return str(path)


def test_an_event_is_raised(server: tuple[str, Taker], tmp_path: Path) -> None:
    url, taker = server
    at = ("--admin", url, "-c", config(tmp_path, TOKEN))
    told = run("door_open", "door=front", "note=a=b", "empty=", *at)
    assert told.output == "door_open raised, taken by 2 subscriptions\n"
    assert taker.got == [Received("door_open", {"door": "front", "note": "a=b", "empty": ""}, written=True)]
    assert run("key", "--call", "c1", *at).exit_code == 0
    assert taker.got[-1] == Received("key", {}, "c1", written=True)


def test_what_goes_wrong_is_said(server: tuple[str, Taker], tmp_path: Path) -> None:
    url, taker = server
    right = ("--admin", url, "-c", config(tmp_path, TOKEN))
    assert "needs attribute 'x'" in run("nope", *right).output
    assert "write name=value" in run("door", "front", *right).output
    assert "given twice" in run("door", "a=1", "a=2", *right).output
    wrong = run("door", "--admin", url, "-c", config(tmp_path, "another-token-here"))
    assert wrong.exit_code == 1 and "not the token of this server" in wrong.output
    assert TOKEN not in wrong.output and "another-token" not in wrong.output
    assert taker.got == []
