"""A real `orchestrator run`, asked by `orchestrator trace` what happened to a call: the whole way, in processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from called import orchestrator

from orchestrator.runtime.admin_connections import OF_ONE

CODE = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
FLOW = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do: [{reply: {code: 404, reason: Nobody}}]\n"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs, and where its configuration lies."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def sip(folder: Path) -> Iterator[tuple[str, int]]:
    """Where a server listens."""
    (folder / "flows").mkdir()
    (folder / "flows" / "a.flow.yaml").write_text(FLOW)
    (folder / "config").mkdir()
    admin = f"{{listen: '127.0.0.1:{free_port()}', names: [calls.example.org], connections_per_client: 2}}"
    config = f"sip: {{listen: ['udp:127.0.0.1:0']}}\nlocation: 'memory:'\nadmin: {admin}\n"
    (folder / "config" / "orchestrator.yml").write_text(config)
    said = folder / "said"
    with said.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", CODE, "run"], cwd=folder, stderr=stream, env={**os.environ})
    try:
        deadline = monotonic() + 90
        while "ready udp:" not in said.read_text():
            assert process.poll() is None and monotonic() < deadline, said.read_text()
            sleep(0.05)
        ready = next(line for line in said.read_text().splitlines() if line.startswith("ready "))
        yield "127.0.0.1", int(ready.split()[1].rpartition(":")[2])
    finally:
        process.kill()
        process.wait(5)


def invite(sip: tuple[str, int], call: str) -> int:
    """The status of the final answer to a call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(30)
        here = f"127.0.0.1:{phone.getsockname()[1]}"
        lines = [
            "INVITE sip:bob@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{call}",
            "From: <sip:alice@127.0.0.1>;tag=1",
            "To: <sip:bob@127.0.0.1>",
            f"Call-ID: {call}",
            "CSeq: 1 INVITE",
            "Max-Forwards: 70",
            f"Contact: <sip:alice@{here}>",
            "Content-Length: 0",
        ]
        phone.sendto("\r\n".join([*lines, "", ""]).encode(), sip)
        while (status := int(phone.recv(4000).split()[1])) < 200:
            pass
        return status


def admin_of(folder: Path) -> tuple[str, int]:
    """Where the server says that its admin interface listens."""
    ready = next(line for line in (folder / "said").read_text().splitlines() if line.startswith("ready "))
    host, _, port = ready.split()[-1].removeprefix("http://").rpartition(":")
    return host, int(port)


def test_a_call_leaves_a_trace_that_can_be_asked_for(sip: tuple[str, int], folder: Path) -> None:
    assert invite(sip, "served") == 404
    asked = subprocess.run(
        [sys.executable, "-c", CODE, "trace", "last"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    texts = [line[30:].strip() for line in asked.stdout.splitlines()]
    assert texts[0] == "flow main starts for alice@example.com -> bob@example.com"
    assert "SIP >> 404 Nobody" in texts


@pytest.mark.parametrize(
    ("host", "status"), [("calls.example.org", 200), ("calls.example.org:8080", 200), ("stranger.example.net", 421)]
)
def test_the_admin_interface_is_asked_by_its_configured_names(
    sip: tuple[str, int], folder: Path, host: str, status: int
) -> None:
    with socket.create_connection(admin_of(folder), timeout=5) as sock:
        sock.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert int(sock.recv(100).split()[1]) == status


def test_silent_connections_of_one_client_make_room_and_are_counted(sip: tuple[str, int], folder: Path) -> None:
    to = admin_of(folder)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(to, timeout=30)) for _ in range(OF_ONE + 3)]
        assert silent[0].recv(100) == b"", "the oldest is cut"
        with socket.create_connection(to, timeout=30) as asks:
            asks.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            said = b""
            while chunk := asks.recv(65_536):
                said += chunk
    (count,) = re.findall(rb"^orchestrator_admin_connections_refused_total (\S+)$", said, re.MULTILINE)
    assert float(count) >= 3


def test_the_commands_look_into_a_running_server(sip: tuple[str, int], folder: Path) -> None:
    """With the token that it made at its first start, which stands in a file beside its data."""
    file = folder / "orchestrator.token"
    assert file.stat().st_mode & 0o077 == 0
    said = (folder / "said").read_text()
    assert "admin token made, kept in orchestrator.token\n" in said and file.read_text().strip() not in said
    status = orchestrator(folder, "status")
    assert (status.returncode, status.stderr) == (0, "") and status.stdout.startswith("state ")
    for command in ("calls", "registrations", "gateways", "servers", "bans", "loglevel"):
        ended = orchestrator(folder, command)
        assert (ended.returncode, ended.stderr) == (0, ""), command
    wrong = orchestrator(folder, "status", "--token", "wrong-token-0123456789")
    assert wrong.returncode == 1 and wrong.stdout == ""


def test_a_contact_is_registered_and_removed_by_hand(sip: tuple[str, int], folder: Path) -> None:
    added = orchestrator(folder, "registrations", "add", "bob@127.0.0.1", "sip:bob@127.0.0.1:5999", "--expires", "10m")
    assert (added.returncode, added.stderr) == (0, "")
    (_, row) = orchestrator(folder, "registrations", "bob").stdout.splitlines()
    assert "sip:bob@127.0.0.1:5999" in row
    assert orchestrator(folder, "registrations", "remove", "bob@127.0.0.1").returncode == 0
    again = orchestrator(folder, "registrations", "remove", "bob@127.0.0.1")
    assert again.returncode == 1 and "`orchestrator registrations` lists" in again.stderr


def test_a_reload_shows_the_mistake_and_takes_nothing(sip: tuple[str, int], folder: Path) -> None:
    flow = folder / "flows" / "a.flow.yaml"
    flow.write_text(FLOW.replace("reply", "relpy"))
    refused = orchestrator(folder, "reload")
    assert refused.returncode == 1 and refused.stdout == ""
    assert "a.flow.yaml:5:11: error E109: unknown action 'relpy'" in refused.stderr
    assert "     |           ^^^^^\n     = help: did you mean 'reply'?" in refused.stderr
    assert "reload" in orchestrator(folder, "status").stdout, "it is degraded"
    flow.write_text(FLOW)
    assert orchestrator(folder, "reload").stdout.startswith("1 flow loaded, version ")
    assert invite(sip, "reloaded") == 404


def test_a_drain_refuses_calls_until_it_is_undone(sip: tuple[str, int], folder: Path) -> None:
    assert orchestrator(folder, "drain").returncode == 0
    assert "draining" in orchestrator(folder, "status").stdout
    assert invite(sip, "drained") == 503
    assert orchestrator(folder, "drain", "--undo").returncode == 0
    assert invite(sip, "undrained") == 404


def test_the_log_level_is_changed(sip: tuple[str, int], folder: Path) -> None:
    assert orchestrator(folder, "loglevel").stdout == "info\n"
    assert orchestrator(folder, "loglevel", "debug").stdout == "debug\n"
    assert invite(sip, "logged") == 404
    assert "sip_received" in (folder / "said").read_text()
    assert orchestrator(folder, "loglevel", "info").stdout == "info\n"
    assert orchestrator(folder, "loglevel", "loud").returncode == 2


def test_events_are_followed(sip: tuple[str, int], folder: Path) -> None:
    command = [sys.executable, "-c", CODE, "events", "follow", "registered", "--json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found: list[str] = []
        reader = Thread(target=lambda: found.append(process.stdout.readline()))
        reader.start()
        number = 0
        deadline = monotonic() + 60
        while reader.is_alive():
            number += 1
            assert monotonic() < deadline
            orchestrator(folder, "registrations", "add", f"phone{number}@127.0.0.1", "sip:phone@127.0.0.1:5999")
            reader.join(0.2)
        told = json.loads(found[0])
        assert told["name"] == "registered" and told["attributes"]["aor"].startswith("phone")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
