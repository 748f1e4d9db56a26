"""A real `orchestrator run`, asked by `orchestrator trace` what happened to a call: the whole way, in processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

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


def admin_of(folder: Path) -> tuple[str, int]:
    """Where the server says that its admin interface listens."""
    ready = next(line for line in (folder / "said").read_text().splitlines() if line.startswith("ready "))
    host, _, port = ready.split()[-1].removeprefix("http://").rpartition(":")
    return host, int(port)


def test_a_call_leaves_a_trace_that_can_be_asked_for(sip: tuple[str, int], folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(5)
        here = f"127.0.0.1:{phone.getsockname()[1]}"
        lines = [
            "INVITE sip:bob@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bKserved",
            "From: <sip:alice@127.0.0.1>;tag=1",
            "To: <sip:bob@127.0.0.1>",
            "Call-ID: served",
            "CSeq: 1 INVITE",
            "Max-Forwards: 70",
            f"Contact: <sip:alice@{here}>",
            "Content-Length: 0",
        ]
        phone.sendto("\r\n".join([*lines, "", ""]).encode(), sip)
        while not (answer := phone.recv(4000)).startswith(b"SIP/2.0 404"):
            assert answer.startswith(b"SIP/2.0 100")
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


def test_a_client_with_too_many_connections_gets_503_and_is_counted(sip: tuple[str, int], folder: Path) -> None:
    to = admin_of(folder)
    with socket.create_connection(to, timeout=5), socket.create_connection(to, timeout=5) as second:
        with socket.create_connection(to, timeout=5) as third:
            assert third.recv(100).startswith(b"HTTP/1.1 503")
        second.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = b""
        while chunk := second.recv(65_536):
            said += chunk
    assert b"orchestrator_admin_connections_refused_total 1.0" in said
