"""Phones of the test kit over WebSocket at a real server, and phones on UDP that they talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.certificate import command as certificate
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until
from orchestrator.testing.websocket import WebSocketPhone

NUMBERS = count(1)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    assert CliRunner().invoke(certificate, [str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Any], tls: Path) -> Any:
    files = {"certificate": str(tls / "certificate.pem"), "key": str(tls / "key.pem")}
    return serve_all(listen=["ws", "wss"], sip={"tls": files})


@pytest.fixture
def phone(server: Any, tls: Path) -> Iterator[Callable[..., Any]]:
    """`phone('ws')`: of somebody with no other phone, registered."""
    made: list[Any] = []

    def make(transport: str, aor: str = "") -> Any:
        aor = aor or f"user{next(NUMBERS)}@example.com"
        address = ("127.0.0.1", server.ports[transport])
        ca = str(tls / "certificate.pem") if transport == "wss" else None
        found = SocketPhone(aor, address) if transport == "udp" else WebSocketPhone(aor, address, ca=ca)
        made.append(found)
        found.register()
        assert wait_until(lambda: found.registered == [200])
        return found

    yield make
    for one in made:
        one.close()


def answered(caller: Phone, callee: Phone) -> tuple[PhoneCall, PhoneCall]:
    """A call that stands, from both sides."""
    before = len(callee.calls)
    call = caller.invite(f"{callee.user}@example.com")
    assert wait_until(lambda: len(callee.calls) > before), call.statuses
    taken = callee.calls[-1]
    taken.answer()
    assert wait_until(lambda: call.state == "answered" and taken.acknowledged)
    return call, taken


@pytest.mark.parametrize(("one", "other"), [("ws", "udp"), ("udp", "wss"), ("wss", "ws")])
def test_calls(phone: Callable[..., Any], one: str, other: str) -> None:
    """Each side hangs up once, and presses a key."""
    alice, bob = phone(one), phone(other)
    for ends in (0, 1):
        calls = answered(alice, bob)
        calls[1 - ends].press("5")
        heard = (alice, bob)[ends]
        assert wait_until(lambda heard=heard: heard.requests and heard.requests[-1].method == b"INFO")
        calls[ends].hangup()
        other_side = calls[1 - ends]
        assert wait_until(lambda side=other_side: side.state == "ended"), (one, other, ends)


def test_what_a_phone_is_told_names_websocket(phone: Callable[..., Any]) -> None:
    alice, bob = phone("udp"), phone("ws")
    _, taken = answered(alice, bob)
    assert taken.invite is not None
    assert taken.invite.uri == bob.contact.strip(b"<>")
    assert taken.invite.via.transport == b"WS"
    routes = [route.uri or b"" for route in taken.invite.record_routes()]
    assert [b";transport=ws" in uri for uri in routes] == [True, False], routes


def test_a_phone_whose_connection_is_gone_is_not_rung(phone: Callable[..., Any]) -> None:
    alice, bob = phone("udp"), phone("ws")
    bob.connection.cut()
    call = alice.invite(f"{bob.user}@example.com")
    assert wait_until(lambda: call.state == "ended")
    assert call.statuses[-1] == 480
    answered(alice, phone("ws", f"{bob.user}@example.com"))


@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_a_route_to_us_is_written_as_browsers_write_it(phone: Callable[..., Any], server: Any, transport: str) -> None:
    """JsSIP and SIP.js may put the address they have connected to into a Route, with `transport=ws` for both kinds."""
    alice, bob = phone(transport), phone("udp")
    bob.on_invite = PhoneCall.answer
    route = b"Route: <sip:127.0.0.1:%d;transport=ws;lr>" % server.ports[transport]
    call = alice.invite(f"{bob.user}@example.com", [route])
    assert wait_until(lambda: call.state == "answered"), call.statuses
    assert bob.calls[0].invite.get(b"route") is None
