"""The example packages of docs/examples: each is installed as anybody would, its tests pass, a server runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "docs" / "examples").glob("*/tests"))

pytest.importorskip("setuptools", reason="setuptools builds the examples: install the extra `test`")

Install = Callable[[str], "Installed"]


@dataclass
class Installed:
    """An example that stands in a folder with the others, as `pip install` leaves them."""

    source: Path
    target: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.target)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, cwd=self.source, env=self.environ, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    folder = tmp_path_factory.mktemp("examples")
    target = folder / "site"
    sources = {name: folder / name for name in EXAMPLES}
    for name, source in sources.items():
        shutil.copytree(ROOT / "docs" / "examples" / name, source)
    pip = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    built = subprocess.run(
        [sys.executable, "-m", *pip, *map(str, sources.values())],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return lambda name: Installed(sources[name], target)


@dataclass
class Running:
    """A server with a package, as a process."""

    process: subprocess.Popen[str]
    lines: list[str]

    def wait_for(self, text: str) -> str:
        """The line of its log with this text."""
        end = monotonic() + 90
        while monotonic() < end:
            found = next((line for line in list(self.lines) if text in line), None)
            if found is not None:
                return found
            sleep(0.02)
        raise AssertionError(f"{text!r} is not in the log:\n" + "".join(self.lines))

    @property
    def _addresses(self) -> list[str]:
        return self.wait_for("ready udp:").split()[1:]

    @property
    def sip(self) -> int:
        return int(self._addresses[0].rpartition(":")[2])

    def get(self, path: str) -> str:
        url = self._addresses[-1] + path
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        found = [line for line in self.get("/metrics").splitlines() if line.startswith(f"orchestrator_{name}")]
        return float(found[0].split()[-1])

    def call(self) -> int:
        """Call 301; the final status."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.bind(("127.0.0.1", 0))
            wire.settimeout(60)
            port = wire.getsockname()[1]
            wire.sendto(_invite(port), ("127.0.0.1", self.sip))
            while True:
                status = int(wire.recv(4000).split()[1])
                if status >= 200:
                    return status

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=90)


def _invite(port: int) -> bytes:
    return (
        "INVITE sip:301@example.com SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKexample{port}\r\n"
        f"From: <sip:alice@example.com>;tag=a{port}\r\n"
        "To: <sip:301@example.com>\r\n"
        f"Call-ID: example-{port}\r\n"
        "CSeq: 1 INVITE\r\n"
        f"Contact: <sip:alice@127.0.0.1:{port}>\r\n"
        "Max-Forwards: 70\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


@contextmanager
def serving(
    example: Installed,
    folder: Path,
    services: str = "{}",
    sip: str = "{listen: 'udp:127.0.0.1:0'}",
    push: str = "{}",
    **environ: str,
) -> Iterator[Running]:
    config = folder / "orchestrator.yml"
    config.write_text(
        f"sip: {sip}\nadmin: {{listen: '127.0.0.1:0'}}\nlocation: 'memory:'\n"
        f"flows: {example.source / 'tests'}\nservices: {services}\npush: {push}\n"
    )
    command = [sys.executable, "-m", "orchestrator", "run", "-c", str(config)]
    process = subprocess.Popen(
        command, cwd=folder, env={**example.environ, **environ}, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
    reader.start()
    running = Running(process, lines)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=90)
        reader.join()
        process.stderr.close()


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_installs_and_its_own_tests_pass(install: Install, name: str) -> None:
    found = install(name).run("pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert found.returncode == 0, found.stdout + found.stderr


def test_an_action_of_a_package_is_known_to_every_tool(install: Install) -> None:
    example = install("action")
    flow = str(example.source / "tests" / "forward.flow.yaml")
    assert '"redis_get"' in example.run("orchestrator", "schema").stdout
    assert "redis_get" in example.run("orchestrator", "graph", "forwarded", "--flows", flow).stdout
    alone = subprocess.run(
        [sys.executable, "-m", "orchestrator", "check", flow], capture_output=True, text=True, timeout=60, check=False
    )
    assert alone.returncode == 1 and "unknown action 'redis_get'" in alone.stdout + alone.stderr


def test_an_action_asks_its_server_while_the_call_waits(install: Install, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 16379)) as redis, serving(install("action"), tmp_path) as server:
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = redis.accept()
            with connection:
                asked.append(connection.recv(1000))
                connection.sendall(b"$3\r\n302\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert server.call() == 302
        thread.join()
        assert asked == [b"*2\r\n$3\r\nGET\r\n$11\r\nforward:301\r\n"]
        assert server.metric('jobs_done_total{pool="redis_get"}') == 1
        redis.close()
        assert server.call() == 500  # nobody listens any more
        server.wait_for("Redis: redis_get.connect")
        assert server.stop() == 0


def test_an_event_source_raises_events(install: Install, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(install("event_source"), tmp_path, f"{{doorbell: {{port: {port}}}}}") as server:
        server.wait_for("ready udp:")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.sendto(b"rubbish", ("127.0.0.1", port))
            wire.sendto(b'{"door": "front"}', ("127.0.0.1", port))
        server.wait_for("somebody at the front door")
        assert "doorbell_malformed" in server.wait_for("doorbell_malformed")
        assert server.metric("service_doorbell_malformed_total") == 1
        assert server.metric('service_events_published_total{service="doorbell"}') == 1
        assert server.stop() == 0


def test_an_event_sink_writes_what_has_happened(install: Install, tmp_path: Path) -> None:
    with serving(install("event_sink"), tmp_path, "{eventlog: {file: events.jsonl, events: [refused]}}") as server:
        assert server.call() == 486
        assert server.stop() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["refused", "call_ended"]
    assert (lines[0]["number"], lines[1]["code"]) == ("301", 486)


def test_a_service_starts_and_stops_with_the_server(install: Install, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(60)
        with serving(install("service"), tmp_path, "{systemd: {every: 50ms}}", NOTIFY_SOCKET=path) as server:
            told = [systemd.recv(100) for _ in range(3)]
            assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            assert server.metric("service_systemd_notifications_total") >= 3
            assert server.stop() == 0
        while told[-1] == b"WATCHDOG=1":
            told.append(systemd.recv(100))
        assert told[-1] == b"STOPPING=1"


def test_a_transport_carries_calls(install: Install, tmp_path: Path) -> None:
    sip = "{listen: ['udp:127.0.0.1:0', 'zudp:127.0.0.1:0'], transports: {zudp: {level: 9}}}"
    with serving(install("transport"), tmp_path, sip=sip) as server:
        port = int(server.wait_for("ready udp:").partition("zudp:127.0.0.1:")[2].split()[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.bind(("127.0.0.1", 0))
            wire.settimeout(60)
            wire.sendto(zlib.compress(_invite(wire.getsockname()[1]).replace(b"/UDP", b"/ZUDP")), ("127.0.0.1", port))
            answers = [zlib.decompress(wire.recv(4000)) for _ in range(2)]
        assert [answer[:12] for answer in answers] == [b"SIP/2.0 100 ", b"SIP/2.0 486 "]
        assert all(b"Via: SIP/2.0/ZUDP" in answer for answer in answers)
        assert server.stop() == 0


def test_a_push_service_wakes_phones(install: Install, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        heard: list[bytes] = []

        def serve() -> None:
            connection, _ = broker.accept()
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(b"\x20\x03\x00\x00\x00")
                heard.append(connection.recv(1000))
                connection.sendall(b"\x40\x02\x00\x01")
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        push = f"{{services: {{mqtt: {{host: 127.0.0.1, port: {broker.getsockname()[1]}}}}}, wake: 1s, awake: 1ms}}"
        with serving(install("push_service"), tmp_path, push=push) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
                wire.bind(("127.0.0.1", 0))
                wire.settimeout(60)
                port = wire.getsockname()[1]
                contact = f"<sip:301@127.0.0.1:{port};pn-provider=mqtt;pn-prid=door-7>"
                register = (
                    _invite(port).replace(b"INVITE sip:301@", b"REGISTER sip:").replace(b"1 INVITE", b"1 REGISTER")
                )
                register = register.replace(b"<sip:alice@example.com>", b"<sip:301@example.com>")
                register = register.replace(f"<sip:alice@127.0.0.1:{port}>".encode(), contact.encode())
                wire.sendto(register, ("127.0.0.1", server.sip))
                assert wire.recv(4000).startswith(b"SIP/2.0 200 ")
            assert server.call() == 480  # it was woken, and did not come back within a second
            assert server.metric('pushes_total{outcome="sent",service="mqtt"}') == 1
            assert server.stop() == 0
        thread.join()
    assert b"MQTT" in heard[0] and b"phones/door-7" in heard[1] and b'"kind": "call"' in heard[1]


def test_one_that_cannot_start_says_so_and_nothing_runs(install: Install, tmp_path: Path) -> None:
    with serving(install("event_sink"), tmp_path, "{eventlog: {file: e.jsonl, events: [refusd]}}") as server:
        assert server.process.wait(timeout=60) != 0
    said = "".join(server.lines)
    assert "the service 'eventlog' cannot be started: ValueError: there is no event 'refusd'" in said
    assert "ready udp:" not in said and "Traceback" not in said


def test_a_wrong_setting_has_its_place(install: Install, tmp_path: Path) -> None:
    with serving(install("event_sink"), tmp_path, "{eventlog: {fil: e.jsonl}}") as server:
        assert server.process.wait(timeout=60) != 0
    said = "".join(server.lines)
    assert "orchestrator.yml:5:" in said and "unknown key 'fil'" in said and "file" in said
