"""A real FreeSWITCH with config/freeswitch, on free ports of this machine, for as long as a test needs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "config" / "freeswitch"
PASSWORD = "s3cret-of-the-test"
PATIENCE = 90.0
"""Seconds a busy machine may take to start or end something; two are usual."""

USUAL_PLACES = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/bin", "/usr/local/freeswitch/bin", "/opt/freeswitch/bin")
)
BINARY = shutil.which("freeswitch", path=USUAL_PLACES)

needs_freeswitch = [
    pytest.mark.freeswitch,
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no freeswitch on this machine"),
]
"""`pytestmark` of a module that uses it."""


PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to sockets without one (Linux: from 32768): no client takes a port meanwhile."""
RTP_PORTS = 201
"""Of each FreeSWITCH, as many as its configuration gives it."""
_begin = os.getpid() * 2_503 % len(PORTS)  # processes that test at the same time begin apart
_ports = cycle((*PORTS[_begin:], *PORTS[:_begin]))


def free_port(kind: int) -> int:
    """A port that nobody has here, and that no test beside this one is given."""
    while True:
        port = next(_ports)
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def rtp_ports() -> tuple[int, int]:
    """The first and the last one of a range that no other FreeSWITCH of the tests has."""
    while True:
        first, *_, last = islice(_ports, RTP_PORTS)
        if first % 2 == 0 and first < last:
            return first, last


class EventSocket:
    """Just enough of the protocol: log in, send an api command, read its answer."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.stream = self.connection.makefile("rb")

    def frame(self) -> tuple[dict[str, str], str]:
        headers: dict[str, str] = {}
        while (line := self.stream.readline().decode().rstrip("\n")) or not headers:
            name, _, value = line.partition(": ")
            headers[name] = value
        return headers, self.stream.read(int(headers.get("Content-Length", "0"))).decode()

    def log_in(self, password: str) -> str:
        assert self.frame()[0]["Content-Type"] == "auth/request"
        self.connection.sendall(f"auth {password}\n\n".encode())
        return self.frame()[0]["Reply-Text"]

    def api(self, command: str) -> str:
        self.connection.sendall(f"api {command}\n\n".encode())
        return self.frame()[1]

    def close(self) -> None:
        self.stream.close()
        self.connection.close()


class MediaServer:
    def __init__(self, folder: Path, **environment: str) -> None:
        """`environment`: what its configuration shall find there instead."""
        assert BINARY is not None
        self.sip_port, self.esl_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        first, last = rtp_ports()
        environ = {
            "ESL_PASSWORD": PASSWORD,
            "FREESWITCH_IP": "127.0.0.1",
            "FREESWITCH_SIP_PORT": str(self.sip_port),
            "FREESWITCH_ESL_PORT": str(self.esl_port),
            "FREESWITCH_RTP_START": str(first),
            "FREESWITCH_RTP_END": str(last),
            **environment,
        }
        self.environ = os.environ | environ
        folders = [f"-{name}" for name in ("log", "db", "run", "storage", "temp", "recordings", "cache", "certs")]
        options = [item for name in folders for item in (name, str(folder))]
        self.output = folder / "output"
        self.command = [BINARY, "-nf", "-nc", "-np", "-nonat", "-nonatmap", "-conf", str(CONFIGURATION), *options]
        self.start()

    def start(self) -> None:
        """Start it; again after a `kill`, on the same ports."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        """As the kernel does to one that takes too much memory."""
        self.process.kill()
        self.process.wait(30)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            try:
                console = self.console()
            except OSError:
                time.sleep(0.1)
                continue
            ready = "is ready" in console.api("status") and "RUNNING" in console.api("sofia status")
            console.close()
            if ready:
                return
            time.sleep(0.1)
        pytest.fail(f"not ready within {PATIENCE} s: {self.output.read_text()}")

    def console(self) -> EventSocket:
        console = EventSocket(self.esl_port)
        assert console.log_in(PASSWORD) == "+OK accepted"
        return console

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)


@contextmanager
def media_server(folder: Path, **environment: str) -> Iterator[MediaServer]:
    """One that takes calls."""
    server = MediaServer(folder, **environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def addresses(folder: Path) -> tuple[tuple[str, int], tuple[str, int]]:
    """Where the orchestrator of this folder takes SIP, and where it serves HTTP."""
    ready = re.search(r"^ready udp:(\S+):(\d+) .*\bhttp://(\S+):(\d+)$", (folder / "log.txt").read_text(), re.MULTILINE)
    assert ready is not None
    return (ready[1], int(ready[2])), (ready[3], int(ready[4]))


@contextmanager
def orchestrator(server: MediaServer, folder: Path, flow: str, *flows: Path, more: str = "") -> Iterator[int]:
    """An `orchestrator run` with this flow and the files or folders `flows`, connected to FreeSWITCH as fs1; gives its
    SIP port. `more`: further lines of its configuration. What it logs stands in log.txt of the folder."""
    (folder / "a.flow.yaml").write_text(flow)
    (folder / "config").mkdir(exist_ok=True)  # shipped flows name it
    shutil.copy(CONFIGURATION.parent / "users.yaml", folder / "config")
    link = f"port: {server.esl_port}, password: {PASSWORD}, sip: 'sip:127.0.0.1:{server.sip_port}'"
    (folder / "orchestrator.yml").write_text(
        "sip: {listen: 'udp:127.0.0.1:0'}\n"
        "admin: {listen: '127.0.0.1:0'}\n"
        f"freeswitch: {{fs1: {{{link}}}}}\n"
        f"flows: [{', '.join(map(str, (folder, *flows)))}]\nlocation: 'memory:'\n{more}"
    )
    code = "from orchestrator.cli import main; main(['run', '-c', 'orchestrator.yml'])"
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE
        while "event_socket_up" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield addresses(folder)[0][1]
    finally:
        process.terminate()
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and "draining" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        if "stopped" not in log.read_text():
            process.terminate()  # the second one does not wait for transactions that linger
        status = process.wait(PATIENCE)
        said = log.read_text()
        assert "draining" in said and status in (0, -signal.SIGTERM, -signal.SIGALRM), (status, said)
        assert "stopped" in said or status, said  # the second one may find its handler gone, or arms a timer of 0.9 s
