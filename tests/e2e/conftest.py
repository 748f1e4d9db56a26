"""The server as its user starts it: `orchestrator run` with a configuration file, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LISTENS = re.compile(r"\b([a-z]+):(?://)?127\.0\.0\.1:(\d+)")
"""`udp:127.0.0.1:5060 http://127.0.0.1:8080` in the line that says it is ready."""


class Server:
    """A running `orchestrator run`. `log` grows while it runs; `stop` ends it with SIGTERM, returns its exit status.

    It listens on UDP (`sip`) and on the transports of `listen`; `ports` has the ports of all."""

    def __init__(self, folder: Path, config: dict[str, object], environment: dict[str, str]) -> None:
        self.sip = self.admin = ("", 0)
        """Where it listens, once it is ready."""
        self.ports: dict[str, int] = {}
        others: list[str] = config.pop("listen", [])  # type: ignore[assignment]
        settings = {
            "sip": {"listen": [f"{name}:127.0.0.1:0" for name in ("udp", *others)], "domains": ["example.com"]},
            "location": "memory:",
            "freeswitch": {},
            "flows": [],
            "admin": {"listen": "127.0.0.1:0"},
        }
        path = folder / "orchestrator.yml"
        settings["sip"] |= config.pop("sip", {})  # type: ignore[operator]
        path.write_text(json.dumps(settings | config))  # JSON is YAML
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "run", "-c", str(path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            if line.startswith("ready "):
                self.ports = {name: int(port) for name, port in LISTENS.findall(line)}
                self.sip, self.admin = ("127.0.0.1", self.ports["udp"]), ("127.0.0.1", self.ports["http"])
                self._ready.set()
        self._ready.set()  # it has ended

    def wait_ready(self) -> None:
        assert self._ready.wait(90), "no ready line: " + "\n".join(self.log)
        assert self.sip[1], "\n".join(self.log)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status


Serve = Callable[..., Server]


def serving(folder: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(env: dict[str, str] | None = None, **config: object) -> Server:
        own = folder / f"server{len(servers)}"
        own.mkdir()
        server = Server(own, config, env or {})
        servers.append(server)
        server.wait_ready()
        return server

    yield start
    for server in servers:
        status = server.stop()
        text = "\n".join(server.log)
        assert "Traceback" not in text, text
        assert status in (0, -signal.SIGKILL), text


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(flows=[...], freeswitch={...}, env={...}, listen=['ws'])`: a server that is ready. Each has to end well
    and quietly."""
    yield from serving(tmp_path)


@pytest.fixture(scope="module")
def serve_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same for a server that all tests of a module share: it takes long to start on a busy machine."""
    yield from serving(tmp_path_factory.mktemp("servers"))
