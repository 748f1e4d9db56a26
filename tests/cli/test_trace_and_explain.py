"""`orchestrator trace` and `explain` against a server: the commands as processes of their own, the server here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest
import yaml
from gevent.subprocess import PIPE, Popen

from orchestrator.flow.loader import load_program
from orchestrator.testing.api_stage import TOKEN, ApiStage
from orchestrator.testing.case_files import load_cases
from orchestrator.testing.world import World

FLOWS = """\
flowlang: 1
flows:
  fails:
    on: invite
    when: call.target.user == 'wrong'
    do: [fail: by design]
  ring_user:
    on: invite
    do:
      - subscribe: registered
        id: late_phone
        where: {aor: '${call.to.aor}'}
        for: 20s
        do: [inject: '${event.uri}']
      - relay: {to: registered, keep_open: 20s}
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Server:
    """A world in memory, its admin interface on a real socket, and a configuration that leads to it."""

    def __init__(self, folder: Path) -> None:
        file = folder / "flows" / "a.flow.yaml"
        file.parent.mkdir()
        file.write_text(FLOWS)
        self.folder = folder
        self.world = World(load_program([file])[0])
        self.stage = ApiStage(world=self.world)
        self.url = self.stage.serve()
        (folder / "config").mkdir()
        config = f"admin: {{listen: '{self.url}', token: {TOKEN}}}\n"
        (folder / "config" / "orchestrator.yml").write_text(config)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")

    def call(self, user: str = "bob") -> Any:
        call = self.alice.invite(f"{user}@example.com")
        self.world.run()
        return call

    def register(self, aor: str) -> None:
        self.world.phone(aor, f"10.0.1.{len(self.world.phones)}").register()
        self.world.run()

    def start(self, *arguments: str) -> Any:
        code = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
        return Popen([sys.executable, "-c", code, *arguments], cwd=self.folder, stdout=PIPE, stderr=PIPE, text=True)

    def run(self, *arguments: str) -> Ended:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stage.close()


# --- trace ------------------------------------------------------------------------------------------------------------


def test_runs_are_listed(server: Server) -> None:
    assert server.run("trace") == Ended(0, "no runs yet\n", "")
    server.call("wrong")
    server.call()
    first, second = server.run("trace").out.splitlines()
    assert "ring_user#2  goes on " in first and first.endswith("alice@example.com -> bob@example.com")
    assert "fails#1      user.error " in second
    (failed,) = json.loads(server.run("trace", "--failed", "--json").out)
    assert failed["run"] == "fails#1" and failed["error"] == "user.error"
    assert server.run("trace", "--flow", "other").out == "no such runs\n"


def test_one_run_line_by_line(server: Server) -> None:
    server.call()
    ended = server.run("trace", "ring_user#1")
    assert ended.out.splitlines() == [
        "   0.000  ring_user#1   L7    flow ring_user starts for alice@example.com -> bob@example.com",
        "   0.000  ring_user#1   L10   subscribe registered for 20s",
        "   0.000  ring_user#1   L15   relay to registered, open for 20s",
    ]
    assert "goes on" in ended.err
    records = [json.loads(line) for line in server.run("trace", "ring_user#1", "--json").out.splitlines()]
    assert [record["line"] for record in records] == [7, 10, 15]
    assert server.run("trace", "last").out == ended.out


def test_a_call_becomes_a_test_that_passes(server: Server) -> None:
    call = server.call()
    server.world.run(3)
    server.register("bob@example.com")
    (phone,) = [phone for phone in server.world.phones.values() if phone.user == "bob"]
    phone.calls[0].answer()
    server.world.run(5)
    call.hangup()
    server.world.run(1)
    ended = server.run("trace", "last", "--as-test", "-o", "tests.test.yaml")
    assert ended.out == "" and "tests.test.yaml written; `orchestrator test tests.test.yaml` runs it" in ended.err
    (case,) = load_cases(server.folder / "tests.test.yaml")
    outcome = case.run()
    assert outcome.passed, [str(failure) for failure in outcome.failures]
    text = server.run("trace", "ring_user#1", "--as-test").out
    assert yaml.safe_load(text)["tests"][0]["when"][1]["at"] == "3s"
    assert server.run("test", "tests.test.yaml").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("trace", "nobody#1"), 1, "there is no run 'nobody#1'"),
        (("trace", "last"), 1, "there is no such run yet: only what a flow handles leaves a trace"),
        (("trace", "--as-test"), 2, "--as-test needs the name of a run"),
        (("trace", "--limit", "0"), 2, "0 is not in the range"),
        (("trace", "--admin", "http://127.0.0.1:1"), 1, "no server answers at http://127.0.0.1:1: "),
        (("explain", "x", "--for", "11m"), 2, "'11m' is not a time up to 10m; write 30s"),
        (("explain", "x", "--for", "soon"), 2, "'soon' is not a time up to 10m"),
        (("explain", "nothing", "--for", "0s"), 1, "nothing waits under the name 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said(server: Server, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = server.run(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err


def test_a_server_that_is_none(server: Server) -> None:
    """Another program answers at that address."""
    ended = server.run("trace", "--admin", f"http://{server.url}/metrics")
    assert ended.status == 1 and ended.err.startswith("Error: ")


# --- explain ----------------------------------------------------------------------------------------------------------


def test_what_a_run_waits_for(server: Server) -> None:
    server.call()
    ended = server.run("explain", "ring_user#1", "--for", "0s")
    assert ended.status == 0
    assert ended.out.splitlines()[1:3] == ["    aor must be 'bob@example.com'", "    of any call"]
    assert ended.out.startswith("ring_user#1/late_phone  subscribe registered  (") and "a.flow.yaml:10)" in ended.out
    assert "    took 0, takes " in ended.out
    (found,) = server.run("explain", "late_phone", "--for", "0s", "--json").out.splitlines()
    assert json.loads(found)["where"] == "aor = ${call.to.aor}"


def test_near_misses_while_it_watches(server: Server) -> None:
    server.call()
    before = server.world.engine.bus.watchers
    process = server.start("explain", "late_phone", "--for", "1s")
    with gevent.Timeout(60):
        while server.world.engine.bus.watchers == before:
            gevent.sleep(0.01)
    server.register("carol@example.com")
    server.register("bob@example.com")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.splitlines()[-2:] == [
        "ring_user#1/late_phone  registered  not for us: aor is 'carol@example.com', wanted 'bob@example.com'",
        "ring_user#1/late_phone  registered  fits",
    ]
    assert "2 events looked at" in err
    assert server.world.engine.bus.watchers == before
