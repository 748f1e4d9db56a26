"""What systemd is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from gevent import socket
from orchestrator_systemd import Systemd, SystemdSettings

from orchestrator.testing.services import FakeServer


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    return path


def test_a_notification_is_a_datagram(path: str) -> None:
    server = FakeServer("systemd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        service = Systemd(server, SystemdSettings())
        service.start()
        assert server.work == [service.live]
        service.stop()
        assert systemd.recv(100) == b"STOPPING=1"
    assert (server.read("notifications"), server.complaints()) == (1, [])


def test_a_socket_that_is_gone_is_said_and_nothing_raised(path: str) -> None:
    server = FakeServer("systemd")
    Systemd(server, SystemdSettings()).notify("READY=1")
    assert path in server.complaints()[0]


def test_without_systemd_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    server = FakeServer("systemd")
    service = Systemd(server, SystemdSettings())
    service.start()
    service.stop()
    assert (server.work, server.read("notifications")) == ([], 0)
