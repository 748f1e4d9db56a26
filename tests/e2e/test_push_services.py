"""Push services on real sockets: the server in a process of its own, phones that sleep, and web servers that are
Firebase with Google's token endpoint, a browser's push service, and a gateway of one's own."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gevent import ssl
from gevent.pywsgi import WSGIServer

from orchestrator.cli.certificate import self_signed
from orchestrator.testing.sockets import SocketPhone, wait_until

BROWSER = ec.generate_private_key(ec.SECP256R1())
SECRET = bytes(16)
DEAD = {"error": {"code": 404, "status": "NOT_FOUND", "details": [{"errorCode": "UNREGISTERED"}]}}


def encoded(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@dataclass
class Phones:
    """What push services have heard, and the phones that they wake: at another address, with another Contact."""

    proxy: tuple[str, int] = ("", 0)
    pushes: list[tuple[str, Any]] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    """Name → the push parameters of that phone."""
    all: list[SocketPhone] = field(default_factory=list)

    def begin(self, name: str, parameters: str = "") -> SocketPhone:
        phone = SocketPhone(f"{name}@example.com", self.proxy, parameters=parameters or self.parameters.get(name, ""))
        self.all.append(phone)
        return phone

    def asleep(self, name: str, parameters: str) -> None:
        """Registered, and gone."""
        self.parameters[name] = parameters
        phone = self.begin(name)
        phone.register()
        assert wait_until(lambda: phone.registered == [200], 60)
        phone.close()

    def pushed(self, name: str, told: Any) -> None:
        self.pushes.append((name, told))
        gevent.spawn(lambda: self.begin(name).register())

    def app(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
        status, said = "200 OK", {}
        if path == "/token":
            said = {"access_token": "t", "expires_in": 3600}
        elif path == "/v1/projects/phones-1/messages:send":
            message = json.loads(body)["message"]
            if message["token"] == "gone":
                self.pushes.append(("gone", message))
                status, said = "404 Not Found", DEAD
            else:
                self.pushed(message["token"], message["data"])
        elif path.startswith("/s/"):
            told = http_ece.decrypt(body, private_key=BROWSER, auth_secret=SECRET, version="aes128gcm")
            self.pushed(path[3:], json.loads(told))
        else:
            self.pushed(path[6:], json.loads(body))
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(said).encode()]

    def close(self) -> None:
        for phone in self.all:
            phone.close()


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory, serve_all: Any) -> Iterator[Phones]:
    folder, phones = tmp_path_factory.mktemp("push"), Phones()
    certificate, key = self_signed(["localhost"], 2, datetime.now(UTC))
    (folder / "certificate.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    plain = WSGIServer(("127.0.0.1", 0), phones.app, log=None)
    secure = WSGIServer(("127.0.0.1", 0), phones.app, log=None, ssl_context=context)
    for server in (plain, secure):
        server.start()
    phones.proxy = serve_all(push=configured(folder, plain.server_port, secure.server_port)).sip
    point = BROWSER.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    url = quote(f"https://localhost:{secure.server_port}/s/carol", safe="")
    phones.asleep("bob", ";pn-provider=fcm;pn-param=phones-1;pn-prid=bob")
    phones.asleep("carol", f";pn-provider=webpush;pn-prid={url};pn-p256dh={encoded(point)};pn-auth={encoded(SECRET)}")
    phones.asleep("dave", ";pn-provider=acme;pn-param=x;pn-prid=dave")
    yield phones
    phones.close()
    for server in (plain, secure):
        server.stop()


def configured(folder: Path, plain: int, secure: int) -> dict[str, Any]:
    account = {
        "type": "service_account",
        "project_id": "phones-1",
        "private_key_id": "k",
        "private_key": pem(rsa.generate_private_key(65537, 2048)).decode(),
        "client_email": "a@phones-1.example",
        "token_uri": f"http://127.0.0.1:{plain}/token",
    }
    (folder / "account.json").write_text(json.dumps(account))
    (folder / "vapid.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    services = {
        "fcm": {"account": str(folder / "account.json"), "url": f"http://127.0.0.1:{plain}"},
        "webpush": {
            "key": str(folder / "vapid.pem"),
            "subject": "mailto:ops@example.com",
            "hosts": [f"localhost:{secure}"],
            "ca": str(folder / "certificate.pem"),
        },
        "acme": {
            "type": "http",
            "url": f"http://127.0.0.1:{plain}/acme/${{push.token}}",
            "json": {"kind": "${push.kind}", "from": "${push.data['from'] ?? ''}"},
        },
    }
    return {"services": services, "wake": "60s", "awake": "1ms"}


@pytest.mark.parametrize(("name", "key"), [("bob", "sip_from"), ("carol", "from"), ("dave", "from")])
def test_a_phone_is_woken_and_rings(phones: Phones, name: str, key: str) -> None:
    caller = phones.begin("alice")
    call = caller.invite(f"{name}@example.com")
    assert wait_until(lambda: phones.all[-1].user == name and phones.all[-1].calls, 90)
    woken = phones.all[-1]
    woken.calls[0].answer()
    assert wait_until(lambda: call.state == "answered", 60)
    ((_, told),) = [push for push in phones.pushes if push[0] == name]
    assert told["kind"] == "call" and "alice@example.com" in told[key]
    call.hangup()
    assert wait_until(lambda: woken.calls[0].state == "ended", 60)
    assert len(woken.calls) == 1


def test_a_token_that_is_dead_is_pushed_to_once(phones: Phones) -> None:
    phones.asleep("erin", ";pn-provider=fcm;pn-param=phones-1;pn-prid=gone")
    caller = phones.begin("alice")
    for _ in range(2):
        call = caller.invite("erin@example.com")
        assert wait_until(lambda: call.statuses[-1:] == [480], 60)  # noqa: B023 - it is awaited here
    assert [name for name, _ in phones.pushes].count("gone") == 1
