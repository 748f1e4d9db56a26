"""The commands that look into a running server and steer it, against the real API over a world in memory."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli._tables import Column, clock, field, moment, table, text_of
from orchestrator.testing.api_stage import READ_TOKEN, TOKEN, ApiStage

FLOWS = """\
flowlang: 1
gateways: {trunk: {uri: 'sip:192.0.2.9', probe: 30s}}
events: {door_open: {door: text}}
flows:
  ring:
    on: invite
    do:
      - relay: {to: registered, ring: 40s}
"""
CODE = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"


class Stage(ApiStage):
    """With a call of alice that rings at bob's phone, and commands that ask it."""

    def __init__(self) -> None:
        super().__init__(FLOWS)
        self.url = self.serve()
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.phone("bob@example.com", "10.0.0.3")
        for phone in (self.alice, self.bob):
            phone.register()
        self.world.run()

    def call(self) -> str:
        """The id of a new call."""
        self.alice.invite("bob@example.com")
        self.world.run()
        return str(self.items("calls")[-1]["id"])

    def run(self, name: str, *arguments: str, token: str = TOKEN) -> Result:
        """In a thread: the server that is asked is in this one."""
        command = importlib.import_module(f"orchestrator.cli.{name}").command
        given = [*arguments, "--admin", self.url]
        invoke = CliRunner(env={"ORCHESTRATOR_TOKEN": token}).invoke
        result = gevent.get_hub().threadpool.apply(invoke, (command, given))
        assert isinstance(result, Result)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def test_status_says_how_the_server_is(stage: Stage) -> None:
    stage.call()
    said = stage.run("status").output
    assert re.search(r"^state +ready$", said, re.MULTILINE) and re.search(r"^calls +1$", said, re.MULTILINE)
    stage.health.add_degradation("push", lambda: "no\x1b[31m account")
    said = stage.run("status").output
    assert re.search(r"^state +degraded\n  push +no\\x1b\[31m account$", said, re.MULTILINE)
    told = json.loads(stage.run("status", "--json").output)
    assert told["counts"]["registrations"] == 2 and told["node"] == "node1"


def test_calls_are_listed_and_chosen(stage: Stage) -> None:
    assert stage.run("calls").output == "no calls\n"
    id = stage.call()
    titles, row = stage.run("calls").output.splitlines()
    assert titles.split()[:5] == ["ID", "STATE", "TIME", "FROM", "TO"]
    assert row.split()[:6] == [id, "ringing", "-", "alice@example.com", "bob@example.com", "ring"]
    assert "L8 an answer of those called" in row
    assert stage.run("calls", "list", "alice").output.splitlines()[1] == row
    assert stage.run("calls", "carol").output == "no calls\n"
    assert stage.run("calls", "--state", "answered").output == "no calls\n"
    told = json.loads(stage.run("calls", "--json", "--flow", "ring").output)
    assert told["total"] == 1 and told["items"][0]["id"] == id


def test_more_calls_than_are_shown_are_said(stage: Stage) -> None:
    for _ in range(3):
        stage.call()
    said = stage.run("calls", "--limit", "2").output.splitlines()
    assert len(said) == 4 and said[-1] == "2 of 3 calls; --limit shows more"


def test_one_call_is_shown_whole(stage: Stage) -> None:
    id = stage.call()
    said = stage.run("calls", "show", id).output
    assert re.search(r"^waits at +x.flow.yaml:8 an answer", said, re.MULTILINE)
    assert re.search(r"^branch +number 0, contact sip:bob@10.0.0.3:5060, state ringing$", said, re.MULTILINE)
    unknown = stage.run("calls", "show", "nobody")
    assert unknown.exit_code == 1 and "`orchestrator calls` lists those that live" in unknown.output


def test_registrations_are_listed_and_shown(stage: Stage) -> None:
    titles, *rows = stage.run("registrations").output.splitlines()
    assert titles.startswith("AOR ") and [row.split()[0] for row in rows] == ["alice@example.com", "bob@example.com"]
    assert len(stage.run("registrations", "bob").output.splitlines()) == 2
    said = stage.run("registrations", "show", "sip:bob@example.com").output
    assert said.startswith("bob@example.com\n") and "sip:bob@10.0.0.3:5060" in said
    assert stage.run("registrations", "show", "carol@example.com").exit_code == 1
    wrong = stage.run("registrations", "show", "bob")
    assert wrong.exit_code == 2


def test_gateways_and_servers(stage: Stage) -> None:
    assert stage.run("gateways").output.splitlines()[1].split()[:3] == ["trunk", "untried", "sip:192.0.2.9"]
    assert stage.run("servers").output == "no FreeSWITCH servers\n"
    assert json.loads(stage.run("servers", "--json").output) == {"node": "node1", "items": [], "total": 0}


def test_the_catalogue_has_the_events_of_the_flows(stage: Stage) -> None:
    said = stage.run("events", "catalogue").output
    assert "door_open  (of all calls, may be raised)" in said and "registered  (of all calls)" in said
    assert json.loads(stage.run("events", "catalogue", "door_open", "--json").output)["total"] == 1
    wrong = stage.run("events", "catalogue", "door_opne")
    assert wrong.exit_code == 1 and "did you mean 'door_open'?" in wrong.output


def test_a_name_that_begins_with_a_dot_stays_a_name(stage: Stage) -> None:
    for name in ("..", ".", "a/b", "%2e%2e", "?x=1", "#"):
        ended = stage.run("calls", "show", name)
        assert ended.exit_code == 1 and "there is no " in ended.output, ended.output


# --- what they change -------------------------------------------------------------------------------------------------


def test_a_call_is_hung_up(stage: Stage) -> None:
    id = stage.call()
    ended = stage.run("calls", "hangup", id, "--reason", "fire drill")
    assert (ended.exit_code, ended.output) == (0, f"{id} is hung up\n")
    assert stage.run("calls").output == "no calls\n"
    again = stage.run("calls", "hangup", id)
    assert again.exit_code == 1 and "there is no call" in again.output


def test_contacts_are_removed_one_and_all(stage: Stage) -> None:
    add = ("registrations", "add", "bob@example.com")
    assert stage.run(*add, "sip:bob@10.0.0.9", "--q", "0.5", "--expires", "2h").exit_code == 0
    assert re.search(r"sip:bob@10.0.0.9 +2:00:00 +0.5 ", stage.run("registrations", "10.0.0.9").output)
    remove = ("registrations", "remove", "bob@example.com")
    assert stage.run(*remove, "--contact", "sip:bob@10.0.0.3:5060").exit_code == 0
    (_, left) = stage.run("registrations", "bob").output.splitlines()
    assert "10.0.0.9" in left
    assert stage.run(*remove).output == "bob@example.com is not registered any more\n"
    assert stage.run(*remove).exit_code == 1
    assert stage.run(*add, "nonsense").exit_code == 1
    assert stage.run(*add, "sip:bob@10.0.0.9", "--expires", "soon").exit_code == 2
    assert stage.run(*add, "sip:bob@10.0.0.9", "--q", "2").exit_code == 2


def test_a_gateway_is_taken_out_of_service_and_back(stage: Stage) -> None:
    assert stage.run("gateways", "disable", "trunk").output == "trunk gets no calls\n"
    assert stage.run("gateways").output.splitlines()[1].split()[:2] == ["trunk", "disabled"]
    assert stage.run("gateways", "enable", "trunk").output.startswith("trunk gets calls again")
    assert stage.run("gateways", "probe", "trunk").output.startswith("trunk is probed")
    unknown = stage.run("gateways", "disable", "trukn")
    assert unknown.exit_code == 1 and "`orchestrator gateways` lists them" in unknown.output


# --- who may ----------------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_said_with_its_cure(stage: Stage) -> None:
    wrong = stage.run("status", token="wrong-token-0123456789")
    assert wrong.exit_code == 1 and "--token or ORCHESTRATOR_TOKEN" in wrong.output
    assert "wrong-token" not in wrong.output
    assert stage.run("status", token="a b").exit_code == 2
    assert stage.run("calls", token=READ_TOKEN).exit_code == 0
    refused = stage.run("raise", "door_open", "door=x", token=READ_TOKEN)
    assert refused.exit_code == 1 and "read" in refused.output


def test_the_token_comes_from_the_configuration_or_its_file(stage: Stage, tmp_path: Path) -> None:
    config, file = tmp_path / "o.yml", tmp_path / "token"
    config.write_text(f"admin: {{token: {TOKEN}}}\n")
    assert stage.run("status", "-c", str(config), token="").exit_code == 0
    config.write_text(f"admin: {{token_file: '{file}'}}\n")
    assert stage.run("status", "-c", str(config), token="").exit_code == 1
    file.touch(0o600)
    file.write_text(f"{TOKEN}\n")
    assert stage.run("status", "-c", str(config), token="").exit_code == 0
    file.chmod(0o644)
    open_to_all = stage.run("status", "-c", str(config), token="")
    assert open_to_all.exit_code == 1 and "can be read by others" in open_to_all.output


def test_a_server_that_is_away(stage: Stage) -> None:
    stage.close()
    away = stage.run("calls")
    assert away.exit_code == 1 and "no server answers at http://127.0.0.1:" in away.output


# --- tables -----------------------------------------------------------------------------------------------------------

NAMES = (Column("name", field("name")), Column("count", field("count"), right=True))


def test_a_pipe_gets_whole_lines() -> None:
    rows = [{"name": "x" * 500, "count": 7}, {"name": "日本", "count": 1234}]
    titles, first, second = table(NAMES, rows, None)
    assert first == "x" * 500 + "      7" and titles == "NAME" + " " * 498 + "COUNT"
    assert second == "日本" + " " * 496 + "  1,234", "wide characters take two columns"


def test_a_terminal_gets_its_width_and_nothing_is_lost() -> None:
    long = "sip:" + "".join(chr(97 + n % 26) for n in range(200))
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in table(NAMES, [{"name": long, "count": 7}], 60)]
    assert all(len(line) <= 60 for line in lines) and len(lines) > 3
    assert "".join(line[:53].strip() for line in lines[1:]) == long


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), ("", "-"), (True, "yes"), (False, "no"), (1234567, "1,234,567"), (0.5, "0.5"), (2.0, "2"),
        ("[bold]x[/]", "[bold]x[/]"), ("a\x1b]0;b\x07\n", r"a\x1b]0;b\x07\n"), ("\u202e", r"\u202e"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_text(value: object, shown: str) -> None:
    assert text_of(value) == shown
    (_, line) = table((Column("value", field("value")),), [{"value": value}], None)
    assert line == shown
    drawn = table((Column("value", field("value")),), [{"value": value}], 80)[1]
    assert re.sub(r"\x1b\[[0-9;]*m", "", drawn).strip() == shown


def test_lengths_and_moments() -> None:
    assert [clock(seconds) for seconds in (0.0, 64.9, 3700.0, 90_000.0, None)] == [
        "0:00", "1:04", "1:01:40", "1d 1:00:00", None,
    ]  # fmt: skip
    assert moment("2026-11-30T18:00:00.123Z") == "2026-11-30T18:00:00Z" and moment("soon") == "soon"


# --- again and again --------------------------------------------------------------------------------------------------


def started(stage: Stage, *arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "ORCHESTRATOR_TOKEN": TOKEN}
    command = [sys.executable, "-c", CODE, *arguments, "--admin", stage.url]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_until(descriptor: int, wanted: Any) -> bytes:
    """What comes until `wanted(said)`; the server here goes on meanwhile."""
    said, deadline = b"", monotonic() + 60
    while not wanted(said):
        assert monotonic() < deadline, said
        gevent.sleep(0.02)
        said += gevent.os.tp_read(descriptor, 65_536)
    return said


def test_watch_goes_on_until_it_is_interrupted(stage: Stage) -> None:
    process = started(stage, "calls", "--json", "--watch=0.1")
    assert process.stdout is not None
    said = read_until(process.stdout.fileno(), lambda said: said.count(b"\n") >= 2)
    assert [json.loads(line)["total"] for line in said.splitlines()[:2]] == [0, 0]
    stage.call()
    read_until(process.stdout.fileno(), lambda said: b'"total": 1' in said)
    process.send_signal(signal.SIGINT)
    _, errors = gevent.get_hub().threadpool.apply(process.communicate, (), {"timeout": 60})
    assert (process.returncode, errors) == (0, b"")


def test_watch_on_a_terminal_redraws(stage: Stage) -> None:
    stage.call()
    ours, theirs = pty.openpty()
    env = {**os.environ, "ORCHESTRATOR_TOKEN": TOKEN, "TERM": "xterm", "COLUMNS": "200", "LINES": "20"}
    command = [sys.executable, "-c", CODE, "calls", "--watch", "--admin", stage.url]
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = read_until(ours, lambda said: said.count(b"\x1b[J") >= 1)
    assert said.startswith(b"\x1b[H") and b"every 2 s; Ctrl-C ends it" in said and b"alice@example.com" in said
    process.send_signal(signal.SIGINT)
    assert gevent.get_hub().threadpool.apply(process.wait, (60,)) == 0
    os.close(ours)


def test_an_interval_that_is_none(stage: Stage) -> None:
    for wrong in ("0", "x", "nan", "1e9"):
        ended = stage.run("calls", f"--watch={wrong}")
        assert ended.exit_code == 2 and "write --watch=2" in ended.output
