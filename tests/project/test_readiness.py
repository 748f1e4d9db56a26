"""A real FreeSWITCH that does not take our calls: `/readyz` and the log say so, and why."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from media_server import PATIENCE, MediaServer, addresses, media_server, needs_freeswitch, orchestrator

pytestmark = needs_freeswitch

FLOW = "flowlang: 1\nflows:\n  m:\n    on: invite\n    do: [relay: {to: registered, via: fs1}]\n"
READY = (200, "")


def readyz(folder: Path) -> tuple[int, str]:
    """Status and what it says about FreeSWITCH."""
    host, port = addresses(folder)[1]
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=PATIENCE) as answer:
            status, told = answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        status, told = refused.code, json.load(refused)
    reasons: dict[str, Any] = told.get("reasons", {})
    return status, reasons.get("freeswitch", "")


def seen(folder: Path, fits: Callable[[tuple[int, str]], bool]) -> tuple[int, str]:
    """What `/readyz` says as soon as it fits, or last."""
    deadline = time.monotonic() + PATIENCE
    while not fits(found := readyz(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_its_access_list_does_not_hold_our_address(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    with (
        media_server(tmp_path_factory.mktemp("acl"), ORCHESTRATOR_NET="10.99.0.0/16") as refusing,
        orchestrator(refusing, tmp_path, FLOW),
    ):
        status, reason = seen(tmp_path, lambda found: "acl" in found[1])
    assert (status, reason) == (
        503,
        'no FreeSWITCH server takes our calls: fs1 (calls from 127.0.0.1 are not in apply-inbound-acl "orchestrator" '
        'of its profile "orchestrator", which refuses them)',
    )
    assert "freeswitch_takes_no_calls" in (tmp_path / "log.txt").read_text()


def test_nobody_listens_at_the_sip_address_that_we_have(
    server: MediaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "sip_port", 1)
    with orchestrator(server, tmp_path, FLOW):
        found = seen(tmp_path, lambda found: "it cannot be reached" in found[1] or "no answer" in found[1])
    assert found[0] == 503
    assert found[1].startswith("no FreeSWITCH server takes our calls: fs1 (")


def test_it_stalls_and_goes_on(server: MediaServer, tmp_path: Path) -> None:
    """Its sockets are open and nobody reads: what a debugger, a full disk or a suspended machine does."""
    with orchestrator(server, tmp_path, FLOW):
        assert seen(tmp_path, READY.__eq__) == READY
        server.process.send_signal(signal.SIGSTOP)
        try:
            stalled = seen(tmp_path, lambda found: found[0] == 503)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert stalled == (503, "no FreeSWITCH server takes our calls: fs1 (no answer to OPTIONS)")
        assert seen(tmp_path, READY.__eq__) == READY
    log = (tmp_path / "log.txt").read_text()
    assert 'freeswitch_takes_no_calls server=fs1 reason="no answer to OPTIONS"' in log
    assert 'freeswitch_takes_calls server=fs1 reason="it answers OPTIONS"' in log
