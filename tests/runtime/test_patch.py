"""Patching is the process's own decision; look-ups are bounded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gevent
import pytest

from orchestrator.runtime import resolve as resolve_module
from orchestrator.runtime.resolve import resolve

socket = resolve_module.socket


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


def found(*addresses: str) -> list[Any]:
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
    return [(family, 0, 0, "", (address, 0)) for family, address in zip(families, addresses, strict=True)]


def test_address_of_a_family_we_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: found("2001:db8::1", "192.0.2.1", "192.0.2.2"))
    assert resolve("phone.example.com") == "192.0.2.1"
    assert resolve("phone.example.com", (socket.AF_INET6,)) == "2001:db8::1"
    assert resolve("phone.example.com", (socket.AF_INET, socket.AF_INET6)) == "2001:db8::1"


def test_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert resolve("nowhere.invalid") is None
    monkeypatch.undo()
    assert resolve("a" * 300 + ".example") is None
    assert resolve("\udcff") is None


def test_dead_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module, "TIMEOUT", 0.02)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: gevent.sleep(10))
    assert resolve("phone.example.com") is None


def test_real_resolver_knows_this_machine() -> None:
    assert resolve("localhost") == "127.0.0.1"
