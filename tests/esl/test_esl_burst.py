"""A burst of events must not keep the rest of the process waiting: SIP's timers run on the same loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent.event import Event

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import Translator, needed
from orchestrator.runtime.esl_link import EslLink, EslServer

ROOT = Path(__file__).parents[2]
EVENTS = 20_000
TICK = 0.010
MOST = EVENTS // 8
"""Events between two ticks: some 20 ms of a slow machine's work, 50 ms of a fast one's."""


@pytest.fixture(scope="module")
def port():
    """A server in its own process that streams 20,000 events of real calls to whoever says `api start`."""
    command = [sys.executable, "-m", "bench.esl_events", "--role", "serve", "--events", str(EVENTS)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["port"]
        server.stdin.close()
        server.wait(10)


def stream(port: int) -> tuple[int, int, int]:
    """Most events between two turns of another greenlet, events seen, key presses among them."""
    translator, done = Translator(ChannelTable()), Event()
    seen = keys = most = before = 0

    def receive(server: str, event: EslEvent) -> None:
        nonlocal seen, keys
        seen += 1
        keys += sum(found.event.name == "dtmf" for found in translator.translate(server, event, monotonic()))
        if event.key == "bench::end":
            done.set()

    def tick() -> None:
        nonlocal most, before
        while True:
            gevent.sleep(TICK)
            most, before = max(most, seen - before), seen

    link = EslLink(EslServer("fs1", port=port, password="ClueCon"), lambda: needed(["dtmf"], ["bench::end"]), receive)
    link.start()
    assert link.wait_up(30)
    ticker = gevent.spawn(tick)
    link.api("start")
    assert done.wait(120)
    ticker.kill()
    link.stop()
    return max(most, seen - before), seen, keys


@pytest.mark.slow
def test_a_ticker_beside_twenty_thousand_events(port: int) -> None:
    """Counted in events, since a busy machine adds time and no events."""
    most, seen, keys = stream(port)
    assert seen == EVENTS + 1
    assert keys > EVENTS // 3  # what was measured is the whole way to a typed event
    assert most < MOST
