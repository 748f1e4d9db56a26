"""A core that does next to nothing, so that what is tested is the shell around it; and how tests wait."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from orchestrator.errors import MalformedMessage
from orchestrator.history import History
from orchestrator.sip.points import Hop
from orchestrator.timers import Timers


class EchoCore:
    """Sends every datagram back and writes down every input. `on_datagram`, when set, is called instead of the echo."""

    def __init__(self) -> None:
        self.timers = Timers(monotonic())
        self.datagrams: list[tuple[bytes, Hop]] = []
        self.jobs: list[Any] = []
        self.history = History()
        self.inputs: list[tuple[Any, ...]] = []
        self.on_datagram: Callable[[bytes, Hop], None] | None = None
        self.on_malformed: bytes | None = None
        """What is answered to octets that are no message."""

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        self.timers.run_due(now)
        self.inputs.append(("datagram", data, hop.host, hop.port, hop.point.index))
        if self.on_datagram is not None:
            self.on_datagram(data, hop)
        else:
            self.datagrams.append((data, hop))

    def receive_esl(self, server: str, event: Any, now: float) -> None:
        self.inputs.append(("esl", server, event))

    def link_changed(self, server: str, state: str, reason: str, now: float) -> None:
        self.inputs.append(("link", server, state))

    def complete(self, job: int, result: Any, now: float) -> None:
        self.inputs.append(("complete", job, result))

    def transport_failed(self, hop: Hop, data: bytes, now: float) -> None:
        self.inputs.append(("failed", hop, data))

    def connection_lost(self, hop: Hop, now: float) -> None:
        self.inputs.append(("lost", hop))

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        self.inputs.append(("malformed", data, error, hop))
        if self.on_malformed is not None:
            self.datagrams.append((self.on_malformed, hop))

    def run_timers(self, now: float) -> None:
        self.inputs.append(("timers", now))
        self.timers.run_due(now)

    def seen(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.inputs if entry[0] == kind]


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Let the loop turn until `condition()` is true; its value. Fails the test when it takes too long."""
    deadline = monotonic() + seconds
    while not (value := condition()):
        assert monotonic() < deadline, "it did not happen in time"
        gevent.sleep(0.001)
    return value


def received(sock: socket.socket) -> bytes:
    """The next datagram, b"" when there is none."""
    try:
        return sock.recv(65_535)
    except BlockingIOError:
        return b""
