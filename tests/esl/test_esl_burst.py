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
LATE = 0.050
TRIES = 3
"""A busy machine only ever adds delay: the best of so many counts."""


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


def stream(port: int) -> tuple[float, int, int]:
    """Worst delay of a ticker in seconds, events seen, key presses among them."""
    translator, done = Translator(ChannelTable()), Event()
    seen = keys = 0
    worst = due = 0.0

    def receive(server: str, event: EslEvent) -> None:
        nonlocal seen, keys
        seen += 1
        keys += sum(found.event.name == "dtmf" for found in translator.translate(server, event, monotonic()))
        if event.key == "bench::end":
            done.set()

    def tick() -> None:
        nonlocal worst, due
        while True:
            due = monotonic() + TICK
            gevent.sleep(TICK)
            worst = max(worst, monotonic() - due)

    link = EslLink(EslServer("fs1", port=port, password="ClueCon"), lambda: needed(["dtmf"], ["bench::end"]), receive)
    link.start()
    assert link.wait_up(10)
    ticker = gevent.spawn(tick)
    gevent.sleep(2 * TICK)
    worst = 0.0
    link.api("start")
    assert done.wait(50)
    worst = max(worst, monotonic() - due)
    ticker.kill()
    link.stop()
    return worst, seen, keys


@pytest.mark.slow
def test_a_ticker_beside_twenty_thousand_events(port: int) -> None:
    worst = []
    for _ in range(TRIES):
        late, seen, keys = stream(port)
        worst.append(late)
        assert seen == EVENTS + 1
        assert keys > EVENTS // 3  # what was measured is the whole way to a typed event
        if late < LATE:
            break
    assert min(worst) < LATE
