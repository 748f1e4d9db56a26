"""Five hundred plain calls between two SIPps that know nothing of us, through the server as its user starts it.

The callee is registered by a third SIPp. Everything on the way is a standard: Record-Route followed by ACK and BYE,
responses along the Vias, retransmission timers of SIPp's own. Not one call may fail, not one message be unexpected on
either side.
"""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing.sipp import Sipp, SippResult, run_sipp, sipp_path

pytestmark = [
    pytest.mark.sipp,
    pytest.mark.slow,
    pytest.mark.usefixtures("full_load"),
    pytest.mark.skipif(sipp_path() is None, reason="SIPp is not installed (Debian: sip-tester)"),
]

SCENARIOS = Path(__file__).parents[2] / "bench" / "sipp"
WITH_PASSWORD = Path(__file__).with_name("sipp")
CALLS, RATE = 500, 50
TRIES = 3
"""A machine without a free core refuses calls for overload, as it should: those runs say nothing."""
HOST = "127.0.0.19"
"""Where the SIPps live: an address of their own, so that nothing else on this machine can call them by mistake."""
READY_WITHIN = 30.0
"""Seconds a SIPp may take to bind its port."""


def bound(port: int) -> bool:
    """Whether a UDP socket of this machine has this port (Linux)."""
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") for row in rows)


def wait_bound(port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not bound(port):
        assert time.monotonic() < deadline, f"nobody has bound port {port}"
        time.sleep(0.01)


def metrics(server: Any) -> dict[str, float]:
    """What the running server exports: name with labels → value."""
    host, port = server.admin
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.fixture
def callee_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(serve: Callable[[], Any]) -> Any:
    return serve()


def proxy(server: Any) -> str:
    return f"127.0.0.1:{server.sip[1]}"


def call_through(server: Any, folder: Path, port: int, calls: int, rate: int) -> tuple[SippResult, SippResult | None]:
    """Register a callee, make the calls; results of caller and, when that is clean, callee."""
    run = partial(run_sipp, remote=proxy(server), folder=folder, host=HOST)
    with Sipp(SCENARIOS / "uas.xml", folder=folder, calls=calls, host=HOST, port=port) as callee:
        wait_bound(port)
        contact = {"contact": f"{HOST}:{port}"}
        registered = run(SCENARIOS / "register.xml", keys=contact, seconds=30)
        assert registered.clean, registered.problems
        caller = run(SCENARIOS / "uac.xml", calls=calls, rate=rate, seconds=60)
        return caller, callee.wait(30) if caller.clean else None


def test_five_hundred_calls_pass_without_a_failed_one_or_an_unexpected_message(
    serve: Callable[[], Any], tmp_path: Path, callee_port: int
) -> None:
    for attempt in range(TRIES):
        server, folder = serve(), tmp_path / f"try{attempt}"
        folder.mkdir()
        caller, callee = call_through(server, folder, callee_port, CALLS, RATE)
        if caller.clean or not any('"overload.' in name for name in metrics(server)):
            break
    assert caller.clean, caller.problems
    assert callee is not None and callee.clean, callee and callee.problems
    seen = metrics(server)
    assert seen["orchestrator_turns_failed_total"] == 0
    assert not [name for name in seen if name.startswith("orchestrator_core_total")]  # nothing refused or unmatched
    repeated = caller.retransmissions + callee.retransmissions
    assert seen['orchestrator_datagrams_total{direction="in"}'] <= 6 * CALLS + 1 + repeated  # and the REGISTER
    assert seen['orchestrator_datagrams_total{direction="out"}'] >= 7 * CALLS + 1  # a 100 of our own


def test_a_call_to_nobody_is_a_failed_call_for_sipp(server: Any, tmp_path: Path) -> None:
    caller = run_sipp(SCENARIOS / "uac.xml", proxy(server), folder=tmp_path, host=HOST, seconds=30)
    assert not caller.clean
    assert (caller.successful, caller.failed, caller.unexpected) == (0, 1, 1)
    assert "480" in caller.log  # RFC 3261 §21.4.18: known here, registered nowhere


PROTECTED = """flowlang: 1
users: {local: {file: USERS}}
flows:
  registers:
    on: register
    do:
      - auth: {realm: example.com, users: local}
      - register
  calls:
    on: invite
    do:
      - auth: {realm: example.com, users: local}
      - relay: registered
"""


def test_sipp_registers_and_calls_with_a_password(serve: Any, tmp_path: Path, callee_port: int) -> None:
    """[authentication] as SIPp has it, with `sip.digest` as it is by default: it knows MD5 alone."""
    (tmp_path / "users.yaml").write_text("alice: wonderland\nbob: builder\n")
    (tmp_path / "users.yaml").chmod(0o600)
    flow = tmp_path / "protected.flow.yaml"
    flow.write_text(PROTECTED.replace("USERS", str(tmp_path / "users.yaml")))
    server = serve(flows=[str(flow)])
    run = partial(run_sipp, remote=proxy(server), folder=tmp_path, host=HOST)
    register = partial(run, WITH_PASSWORD / "register_auth.xml", keys={"contact": f"{HOST}:{callee_port}"}, seconds=30)
    with Sipp(SCENARIOS / "uas.xml", folder=tmp_path, calls=40, host=HOST, port=callee_port) as callee:
        wait_bound(callee_port)
        wrong = register(login=("bob", "wrong"))
        assert (wrong.successful, wrong.failed) == (0, 1), wrong.problems
        registered = register(login=("bob", "builder"))
        assert registered.clean, registered.problems
        login = ("alice", "wonderland")
        caller = run(WITH_PASSWORD / "uac_auth.xml", calls=40, rate=20, login=login, seconds=60)
        assert caller.clean, caller.problems
        assert callee.wait(30).clean
