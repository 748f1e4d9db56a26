"""Signals, sent for real to a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import IO

import gevent
import pytest

from orchestrator.runtime.signals import LAST_GRACE, Signals

SCRIPT = """
import sys, time, gevent
from orchestrator.runtime.signals import Signals

def say(*words):
    print(*words, flush=True)

signals = Signals(gevent.get_hub().loop, lambda count: say("stop", count), lambda: say("reload"))
say("ready")
if "stuck" in sys.argv:
    while True:
        pass                      # a loop that never turns again
gevent.sleep(30)
"""


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield child, child.stdout
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()


def test_each_signal_is_reported_at_once_by_a_sleeping_loop() -> None:
    with process() as (child, lines):
        for number, line in [
            (signal.SIGHUP, "reload"),
            (signal.SIGTERM, "stop 1"),
            (signal.SIGHUP, "reload"),
            (signal.SIGINT, "stop 2"),
        ]:
            child.send_signal(number)
            assert lines.readline() == line + "\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_stop_ends_a_process_whose_loop_is_stuck(number: signal.Signals) -> None:
    with process("stuck") as (child, _):
        child.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        began = monotonic()
        child.send_signal(number)
        assert child.wait(5) == -signal.SIGALRM
        assert monotonic() - began < LAST_GRACE + 0.5


def test_close_gives_everything_back() -> None:
    gevent.sleep(0.001)  # the loop has its own descriptors by now
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0  # noqa: PTH110, PTH208
    heard: list[str] = []
    signals = Signals(
        gevent.get_hub().loop, lambda count: heard.append(f"stop {count}"), lambda: heard.append("reload")
    )
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    gevent.sleep(0.02)
    assert heard == ["reload", "stop 1"]
    signals.close()
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
