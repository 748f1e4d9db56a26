"""Patching is the process's own decision."""

from __future__ import annotations

import subprocess
import sys


def run(script: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=120)


def test_importing_the_runtime_patches_nothing() -> None:
    run("""
import socket, select, ssl, threading, time
before = socket.socket, select.epoll, ssl.SSLContext, threading.Thread.start, time.sleep
import orchestrator.runtime.reactor, orchestrator.runtime.udp, orchestrator.runtime.http, orchestrator.runtime.pool
import orchestrator.runtime.admin, orchestrator.runtime.signals, orchestrator.runtime.log, orchestrator.runtime.resolve
import orchestrator.runtime.patch
assert before == (socket.socket, select.epoll, ssl.SSLContext, threading.Thread.start, time.sleep)
from gevent import monkey
assert not monkey.saved
""")


def test_patch_makes_the_standard_library_cooperative_once() -> None:
    run("""
from orchestrator.runtime.patch import patch
patch()
patch()
import socket, time, gevent, gevent.socket
assert socket.socket is gevent.socket.socket
seen = []
gevent.spawn(seen.append, 1)
time.sleep(0.001)
assert seen
""")
