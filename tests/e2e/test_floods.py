"""Floods of connections beside calls: none of the calls is lost, whoever floods is cut off in its time.

A SIPp calls another one over UDP, as in test_sipp.py, while strangers from addresses of their own do their worst.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_sipp import call_through, callee_port, metrics

from orchestrator.cli.certificate import self_signed
from orchestrator.testing.sipp import sipp_path

pytestmark = [
    pytest.mark.sipp,
    pytest.mark.slow,
    pytest.mark.usefixtures("full_load"),
    pytest.mark.skipif(sipp_path() is None, reason="SIPp is not installed (Debian: sip-tester)"),
]
__all__ = ["callee_port"]

SOURCES = 1_000
CALLS, RATE = 300, 100
TRIES = 3
"""A machine without a free core refuses calls for overload, as it should: those runs say nothing."""
DRIBBLED = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK" + b"x" * 10_000
CLIENT_HELLO = bytes.fromhex("16030100")  # how a TLS handshake begins; its length never comes


class Flood:
    """Strangers, each with an address of its own, run by a thread of the test."""

    def __init__(self, port: int, act: Callable[[socket.socket, int], None], pause: float) -> None:
        self.connected = 0
        """Connections that came to stand."""
        self._port, self._act, self._pause = port, act, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        socks = [self._connect(number) for number in range(SOURCES)]
        step = 0
        with selectors.DefaultSelector() as selector:
            for sock in socks:
                selector.register(sock, selectors.EVENT_READ)
            while not self._over.is_set():
                for sock in list(selector.get_map().values()):
                    try:
                        self._act(sock.fileobj, step)  # type: ignore[arg-type]
                    except OSError:
                        pass  # it has been cut off
                for key, _ in selector.select(0):
                    selector.unregister(key.fileobj)
                step += 1
                self._over.wait(self._pause)
        for sock in socks:
            sock.close()

    def _connect(self, number: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), 60, (f"127.9.{number // 250}.{number % 250 + 1}", 0))
        sock.setblocking(False)
        self.connected += 1
        return sock


@contextmanager
def flooded(server: Any, transport: str, act: Callable[[socket.socket, int], None], pause: float) -> Iterator[Flood]:
    with Flood(server.ports[transport], act, pause) as flood:
        deadline = time.monotonic() + 90
        while flood.connected < SOURCES:
            assert time.monotonic() < deadline, "they do not get through"
            time.sleep(0.01)
        yield flood


def calls_pass(
    serve: Callable[..., Any],
    folder: Path,
    port: int,
    transport: str,
    act: Callable[[socket.socket, int], None],
    cut: str,
    **sip: Any,
) -> None:
    """Make calls beside a flood: not one may fail, and the counter `cut` tells that those who flood are cut off."""
    cut = f"orchestrator_connections_{cut}"
    for attempt in range(TRIES):
        server, own = serve(listen=[transport], sip=dict(sip)), folder / f"try{attempt}"
        own.mkdir()
        with flooded(server, transport, act, 0.1):
            caller, callee = call_through(server, own, port, CALLS, RATE)
            deadline = time.monotonic() + 60
            while (seen := metrics(server)).get(cut, 0) <= SOURCES / 2 and time.monotonic() < deadline:
                time.sleep(0.1)
        if caller.clean or not any('"overload.' in name for name in seen):
            break
    assert caller.clean, caller.problems
    assert callee is not None and callee.clean, callee and callee.problems
    assert seen["orchestrator_turns_failed_total"] == 0 and seen["orchestrator_reactor_stalls_total"] == 0
    assert seen[cut] > SOURCES / 2


def dribble(sock: socket.socket, step: int) -> None:
    sock.send(DRIBBLED[step : step + 1])


def test_a_thousand_sources_that_dribble_cost_no_call(
    serve: Callable[..., Any], tmp_path: Path, callee_port: int
) -> None:
    streams = {"handshake": "2s", "message": "1s"}
    calls_pass(serve, tmp_path, callee_port, "tcp", dribble, 'ended_total{reason="message time-out"}', streams=streams)


def test_a_thousand_handshakes_that_do_not_end_cost_no_call(
    serve: Callable[..., Any], tmp_path: Path, callee_port: int
) -> None:
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    for path, octets in zip(paths, self_signed(["127.0.0.1"], 30, datetime.now(UTC)), strict=True):
        path.write_bytes(octets)
    tls = {"certificate": str(paths[0]), "key": str(paths[1])}

    def begin(sock: socket.socket, step: int) -> None:
        sock.send(CLIENT_HELLO[step : step + 1])

    streams = {"handshake": "1s"}
    calls_pass(
        serve,
        tmp_path,
        callee_port,
        "tls",
        begin,
        'failed_total{reason="handshake time-out"}',
        tls=tls,
        streams=streams,
    )
