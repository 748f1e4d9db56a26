"""`orchestrator bans` against an admin interface: listed, ended, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.bans import command
from orchestrator.runtime.admin import Admin, Health
from orchestrator.runtime.bans import BansRoute
from orchestrator.runtime.metrics import Metrics
from orchestrator.sip.admission import Admission, SourceLimits


@pytest.fixture
def server() -> Iterator[tuple[str, Admission]]:
    admission = Admission(SourceLimits(failures=1), lambda host: False)
    admin = Admin("127.0.0.1", 0, Health(), Metrics())
    admin.app.add_route("/bans", BansRoute(admission, lambda: 1_800_000_000.0 - monotonic()))
    admin.start()
    yield f"127.0.0.1:{admin.address[1]}", admission
    admin.close()


def run(*arguments: str) -> Result:
    """In a thread: the server it asks is in this one."""
    result = gevent.get_hub().threadpool.apply(CliRunner().invoke, (command, list(arguments)))
    assert isinstance(result, Result)
    return result


def test_bans_are_listed_and_ended(server: tuple[str, Admission]) -> None:
    url, admission = server
    assert run("list", "--admin", url).output == ""
    for _ in range(2):
        admission.failed(admission.source_of("2001:db8::7", monotonic()), monotonic())
    listed = run("list", "--admin", url).output
    assert listed.startswith("2001:db8::/64 ") and " passwords " in listed and " until 2027-01-15T" in listed
    assert listed.endswith("Z\n"), "UTC, as in the log"
    assert '"reason": "passwords"' in run("list", "--json", "--admin", url).output
    assert run("remove", "2001:db8::9", "--admin", url).output == "2001:db8::9 is not banned any more\n"
    assert admission.banned(monotonic()) == []
    again = run("remove", "2001:db8::9", "--admin", url)
    assert again.exit_code == 1 and "2001:db8::9 is not banned" in again.output
    assert run("remove", "2001:db8::/64", "--admin", url).exit_code == 1
    wrong = run("remove", "alice", "--admin", url)
    assert wrong.exit_code == 2 and "'alice' is not an IP address" in wrong.output
