"""Bans over the admin interface: listed with their times, ended by a DELETE, told to the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from gevent import socket

from orchestrator.runtime.admin import Admin, Health
from orchestrator.runtime.bans import BansRoute
from orchestrator.runtime.metrics import Metrics
from orchestrator.sip.admission import BAN_AFTER, Admission, Source, SourceLimits

EPOCH = 1_800_000_000.0


def flood(admission: Admission, host: str, now: float) -> None:
    for _ in range(BAN_AFTER + 300):
        source = admission.admit(host, now)
        if source is not None:
            admission.charge(source, 5.0, now)


@pytest.fixture
def banned() -> Iterator[tuple[Admin, Admission]]:
    admission = Admission(SourceLimits(strangers=1_000_000.0), lambda host: False)
    admin = Admin("127.0.0.1", 0, Health(), Metrics())
    admin.app.add_route("/bans", BansRoute(admission, lambda: EPOCH - monotonic()))
    admin.start()
    yield admin, admission
    admin.close()


def ask(admin: Admin, target: str, method: str = "GET") -> tuple[int, Any]:
    with socket.create_connection(admin.address, timeout=30) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        octets = b""
        while chunk := sock.recv(65_536):
            octets += chunk
    head, _, body = octets.decode().partition("\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


@pytest.mark.parametrize(
    ("host", "name"), [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2::7", "2001:db8:1:2::/64")]
)  # fmt: skip
def test_a_ban_is_told_listed_and_ended(banned: tuple[Admin, Admission], host: str, name: str) -> None:
    admin, admission = banned
    told: list[Source] = []
    admission.on_ban = told.append
    assert ask(admin, "/bans") == (200, {"bans": []})
    flood(admission, host, monotonic())
    assert [source.name for source in told] == [name], "once"
    (ban,) = ask(admin, "/bans")[1]["bans"]
    assert (ban["source"], ban["class"]) == (name, "stranger")
    assert ban["until"] - ban["since"] == pytest.approx(60.0) and abs(ban["since"] - EPOCH) < 30
    assert admission.admit(host, monotonic()) is None
    assert ask(admin, f"/bans?source={host}", "DELETE") == (204, None)
    assert admission.admit(host, monotonic()) is not None
    assert ask(admin, "/bans") == (200, {"bans": []})
    assert ask(admin, f"/bans?source={name}", "DELETE")[0] == 404


@pytest.mark.parametrize("query", ["", "?source=", "?source=a&source=b", "?address=192.0.2.7", "?source=a%0Ab"])
def test_odd_deletions_are_refused(banned: tuple[Admin, Admission], query: str) -> None:
    assert ask(banned[0], f"/bans{query}", "DELETE")[0] == 400


def test_nothing_else_writes(banned: tuple[Admin, Admission]) -> None:
    assert ask(banned[0], "/bans?source=192.0.2.7", "POST")[0] == 405


def test_a_ban_ends_by_itself_and_a_new_one_is_told() -> None:
    admission = Admission(SourceLimits(strangers=1_000_000.0, ban=10.0), lambda host: False)
    told: list[Source] = []
    admission.on_ban = told.append
    flood(admission, "192.0.2.7", 0.0)
    assert len(admission.banned(9.0)) == 1 and admission.banned(10.5) == []
    assert not admission.lift("192.0.2.7", 10.5)
    flood(admission, "192.0.2.7", 11.0)
    assert len(told) == 2
