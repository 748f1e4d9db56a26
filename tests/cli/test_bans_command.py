"""`orchestrator bans` against an admin interface: listed, ended, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.bans import command
from orchestrator.sip.admission import Admission, SourceLimits
from orchestrator.testing.api_stage import TOKEN, ApiStage


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Admission]]:
    stage = ApiStage(sources=SourceLimits(failures=1))
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    yield stage.serve(), stage.world.engine.admission
    stage.close()


def run(*arguments: str) -> Result:
    """In a thread: the server it asks is in this one."""
    result = gevent.get_hub().threadpool.apply(CliRunner().invoke, (command, list(arguments)))
    assert isinstance(result, Result)
    return result


def test_bans_are_listed_and_ended(server: tuple[str, Admission]) -> None:
    url, admission = server
    assert run("list", "--admin", url).output == "no banned sources\n"
    for _ in range(2):
        admission.failed(admission.source_of("2001:db8::7", 0.0), 0.0)
    listed = run("list", "--admin", url).output
    assert listed.startswith("2001:db8::/64 ") and " passwords " in listed and " until 2027-01-15T" in listed
    assert listed.endswith("Z\n"), "UTC, as in the log"
    assert '"reason": "passwords"' in run("list", "--json", "--admin", url).output
    assert run("remove", "2001:db8::9", "--admin", url).output == "2001:db8::9 is not banned any more\n"
    assert admission.banned(0.0) == []
    again = run("remove", "2001:db8::9", "--admin", url)
    assert again.exit_code == 1 and "2001:db8::9'" in again.output
    assert run("remove", "2001:db8::/64", "--admin", url).exit_code == 1
    wrong = run("remove", "alice", "--admin", url)
    assert wrong.exit_code == 2 and "'alice' is not an IP address" in wrong.output
