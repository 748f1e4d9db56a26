"""The whole way on sockets: a call for a phone that sleeps, Apple's push service, the REGISTER of a phone that has come
back elsewhere, and the ringing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra `push` is not installed")

from apns_server import ApnsServer, Reply, Request, reason
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tls_files import write_authority, write_pair

from orchestrator.app import Server
from orchestrator.settings import read_settings
from orchestrator.site import read_site
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

CONFIG = """\
sip: {listen: ['udp:127.0.0.1:0'], domains: [example.com]}
location: 'memory:'
flows: [FOLDER/flows]
admin: {listen: '127.0.0.1:0'}
push:
  awake: 1ms
  services:
    apns: {key: FOLDER/AuthKey.p8, key_id: ABC123DEFG, team: DEF123GHIJ, ca: FOLDER/ca.pem, host: '127.0.0.1:PORT'}
"""
APPLE = ";pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=" + "ab" * 32


@dataclass
class Scene:
    apple: ApnsServer
    server: Server
    bob: SocketPhone
    bob_elsewhere: SocketPhone
    alice: SocketPhone


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    write_authority(tmp_path / "ca.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "AuthKey.p8").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/a.flow.yaml").write_text("flowlang: 1\n")
    with ExitStack() as stack:
        apple = ApnsServer(write_pair(tmp_path, "127.0.0.1"))
        stack.callback(apple.close)
        text = CONFIG.replace("FOLDER", str(tmp_path)).replace("PORT", str(apple.port))
        server = Server(read_site(read_settings("o.yml", text, {}), {}), stack)
        server.start()

        def phone(aor: str, parameters: str = "") -> SocketPhone:
            made = SocketPhone(aor, server.listening.bound[0], parameters=parameters)
            stack.callback(made.close)
            return made

        yield Scene(
            apple,
            server,
            phone("bob@example.com", APPLE),
            phone("bob@example.com", APPLE),
            phone("alice@example.com"),
        )


def metrics(scene: Scene) -> str:
    return scene.server.metrics.exposition().decode()


def statuses(call: PhoneCall) -> list[int]:
    return [status for status in call.statuses if status >= 180]


def test_a_phone_that_sleeps_is_woken_and_rings_where_it_is_then(scene: Scene) -> None:
    scene.bob.register()
    assert wait_until(lambda: scene.bob.registered == [200])

    def wakes_up(request: Request) -> Any:
        scene.bob.is_now_at(scene.bob_elsewhere)
        scene.bob_elsewhere.register()
        return Reply()

    scene.apple.say = wakes_up
    call = scene.alice.invite("bob@example.com")
    assert wait_until(lambda: statuses(call) == [180])
    (request,) = scene.apple.requests
    assert request.headers["apns-topic"] == "com.example.app.voip"
    assert request.headers["apns-push-type"] == "voip"
    assert request.json["from"] == "alice@example.com"
    assert request.json["call"] == request.json["aps"]["call-id"] == call.call_id.decode()
    assert (len(scene.bob.calls), len(scene.bob_elsewhere.calls)) == (0, 1)
    scene.bob_elsewhere.calls[0].answer()
    assert wait_until(lambda: call.state == "answered")
    assert 'orchestrator_pushes_total{outcome="sent",service="apns"} 1.0' in metrics(scene)
    assert 'orchestrator_push_seconds_count{service="apns"} 1.0' in metrics(scene)


def test_a_phone_that_apple_calls_gone_is_gone(scene: Scene) -> None:
    scene.bob.register()
    assert wait_until(lambda: scene.bob.registered == [200])
    scene.apple.say = lambda request: reason(410, "Unregistered")
    call = scene.alice.invite("bob@example.com")
    assert wait_until(lambda: statuses(call) == [480]), "at once, not after the wait"
    assert len(scene.server.engine.location) == 0
    assert 'orchestrator_pushes_total{outcome="dead",service="apns"} 1.0' in metrics(scene)


def test_without_apple_phones_ring_where_they_are_and_the_server_says_so(scene: Scene) -> None:
    scene.bob.register()
    assert wait_until(lambda: scene.bob.registered == [200])
    scene.apple.close()
    for _ in range(2):
        call = scene.alice.invite("bob@example.com")
        assert wait_until(lambda call=call: statuses(call) == [180])  # type: ignore[misc]
    assert "refused" in scene.server.health.degradations()["push"]
    assert len(scene.server.engine.location) == 1
