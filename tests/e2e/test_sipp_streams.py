"""Plain calls between two SIPps over TCP, and over TLS through a tunnel: Debian's SIPp does not speak it.

The caller has one connection to us, we open one to the callee and use it for all calls. The callee is registered over
UDP: what is registered over a connection is called over it, and SIPp takes calls on others only. Not one call may fail,
not one message be unexpected on either side.
"""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_sipp import HOST, SCENARIOS, metrics, proxy

from bench.tls_tunnel import callee_behind, tunnel
from orchestrator.cli.certificate import self_signed
from orchestrator.testing.sipp import Sipp, run_sipp, sipp_path

pytestmark = [
    pytest.mark.sipp,
    pytest.mark.slow,
    pytest.mark.usefixtures("full_load"),
    pytest.mark.skipif(sipp_path() is None, reason="SIPp is not installed (Debian: sip-tester)"),
]

CALLS, RATE = 150, 50
TRIES = 3
"""A machine without a free core refuses calls for overload, as it should: those runs say nothing."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def ends(transport: str, server: Any, folder: Path, callee_port: int) -> Iterator[tuple[str, str, Path]]:
    """Where the caller finds us, what the callee is registered with, and its scenario."""
    port = server.ports[transport]
    if transport == "tcp":
        yield f"127.0.0.1:{port}", f"{HOST}:{callee_port};transport=tcp", SCENARIOS / "uas.xml"
        return
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    theirs = free_port()
    with ExitStack() as stack:
        stack.enter_context(tunnel("out", str(certificate), f"{HOST}:{port}", f"127.0.0.1:{port}"))
        stack.enter_context(tunnel("in", str(certificate), str(key), f"{HOST}:{theirs}", f"{HOST}:{callee_port}"))
        contact = f"{HOST}:{theirs};transport=tls"
        yield f"{HOST}:{port}", contact, callee_behind(folder, contact)


def write_certificate(folder: Path) -> str:
    """A new one, and its key; returns it."""
    paths = folder / "certificate.pem", folder / "key.pem"
    for path, octets in zip(paths, self_signed([HOST, "127.0.0.1"], 30, datetime.now(UTC)), strict=True):
        path.write_bytes(octets)
    return paths[0].read_text()


def sip_settings(transport: str, folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {"domains": [HOST]}
    if transport == "tls":
        write_certificate(folder)
        files = {"certificate": "certificate.pem", "key": "key.pem", "ca": "certificate.pem"}
        settings["tls"] = {key: str(folder / name) for key, name in files.items()}
    return settings


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_calls_without_a_failed_one_or_an_unexpected_message(
    transport: str, serve: Callable[..., Any], tmp_path: Path
) -> None:
    settings = sip_settings(transport, tmp_path)
    for attempt in range(TRIES):
        server, folder = serve(listen=[transport], sip=dict(settings)), tmp_path / f"try{attempt}"
        folder.mkdir()
        port = free_port()
        run = partial(run_sipp, folder=folder, host=HOST)
        answered = None
        with (
            ends(transport, server, tmp_path, port) as (remote, contact, scenario),
            Sipp(scenario, folder=folder, calls=CALLS, host=HOST, port=port, transport="t1") as callee,
        ):
            registered = run(SCENARIOS / "register.xml", proxy(server), keys={"contact": contact}, seconds=30)
            assert registered.clean, registered.problems
            caller = run(SCENARIOS / "uac.xml", remote, calls=CALLS, rate=RATE, seconds=60, transport="t1")
            if caller.clean:
                answered = callee.wait(30)
        if caller.clean or not any('"overload.' in name for name in metrics(server)):
            break
    assert caller.clean, caller.problems
    assert answered is not None and answered.clean, answered and answered.problems
    assert caller.retransmissions == answered.retransmissions == 0
    seen = metrics(server)
    assert seen["orchestrator_turns_failed_total"] == 0
    assert seen['orchestrator_connections_opened_total{by="we"}'] == 1, (
        "one connection to the callee does for all calls"
    )
    assert seen['orchestrator_datagrams_total{direction="in"}'] == 6 * CALLS + 1  # and the REGISTER
    assert seen['orchestrator_datagrams_total{direction="out"}'] == 7 * CALLS + 1  # a 100 of our own


def test_a_certificate_is_replaced_while_calls_go_on(serve: Callable[..., Any], tmp_path: Path) -> None:
    """Standing connections keep the old one, a new one is shown the new one."""
    server, port = serve(listen=["tls"], sip=sip_settings("tls", tmp_path)), free_port()
    run = partial(run_sipp, folder=tmp_path, host=HOST)
    with (
        ends("tls", server, tmp_path, port) as (remote, contact, scenario),
        Sipp(scenario, folder=tmp_path, calls=CALLS, host=HOST, port=port, transport="t1") as callee,
    ):
        assert run(SCENARIOS / "register.xml", proxy(server), keys={"contact": contact}, seconds=30).clean
        with Sipp(
            SCENARIOS / "uac.xml", remote, folder=tmp_path, calls=CALLS, rate=RATE, host=HOST, transport="t1"
        ) as caller:
            time.sleep(0.5)  # calls are under way
            new = write_certificate(tmp_path)
            server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 60
            while ssl.get_server_certificate(("127.0.0.1", server.ports["tls"])).strip() != new.strip():
                assert time.monotonic() < deadline, "new connections get the old certificate"
            made = caller.wait(60)
        assert made.successful == CALLS, made.problems
        assert callee.wait(30).successful == CALLS
    assert any("certificates_loaded" in line for line in server.log)
