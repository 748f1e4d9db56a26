"""Web Push against a push service on loopback that opens what it gets as a browser would: http-ece decrypts (RFC 8291),
py-vapid verifies (RFC 8292)."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gevent import ssl
from gevent.server import StreamServer
from hypothesis import given
from hypothesis import strategies as st
from py_vapid import Vapid02
from pydantic import SecretStr
from tls_files import authority, write_authority, write_pair
from urllib3.util import parse_url
from web import Exchange, Web, answer, drop

from orchestrator.packages.push_service import PushDown
from orchestrator.push.webpush import (
    HOSTS,
    MAX_PAYLOAD,
    TOKEN_LIFE,
    Allowed,
    WebPush,
    WebPushAccount,
    headers_of,
    keys_of,
    payload,
    public_key,
)
from orchestrator.runtime import http_host
from orchestrator.runtime.http_host import Guard
from orchestrator.sip.push import Push, PushAddress, Pushed, address_of
from orchestrator.sip.uri import parse_uri

START = 1_800_000_000.0
SUBJECT = "mailto:ops@example.com"


@cache
def vapid() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def browser() -> ec.EllipticCurvePrivateKey:
    """The key of a subscription."""
    return ec.generate_private_key(ec.SECP256R1())


SECRET = bytes(range(16))


def encoded(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def subscription() -> dict[str, str]:
    point = browser().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"p256dh": encoded(point), "auth": encoded(SECRET)}


def pem(key: Any = None) -> str:
    made = (key or vapid()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return str(made.decode())


def push(url: str, keys: dict[str, str] | None = None, **changes: Any) -> Push:
    values: dict[str, Any] = {
        "service": "webpush",
        "address": PushAddress("webpush", "", url, tokens={"": url, **(keys or {})}),
        "kind": "call",
        "ttl": 19.2,
        "aor": "bob@example.com",
        "call": "c1",
        "data": {"call": "c1", "from": "sip:alice@example.com", "display_name": "Älice"},
    }
    return Push(**values | changes)


class Service(Web):
    """A push service with TLS."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


class Wall:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    served = Service(answer(201, location="https://localhost/m/7Qf"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_pair(tmp_path, "localhost"))
    server = StreamServer(("127.0.0.1", 0), served.handle, ssl_context=context)
    server.start()
    served.port = server.server_port
    yield served
    server.stop(timeout=0)


@pytest.fixture
def sender(service: Service, tmp_path: Path, wall: Wall) -> Iterator[WebPush]:
    hosts = (f"localhost:{service.port}", f"*.localhost:{service.port}")
    ca = write_authority(tmp_path / "ca.pem")
    sender = WebPush(WebPushAccount(SecretStr(pem()), SUBJECT, hosts, ca), wall=wall)
    sender.start()
    yield sender
    sender.stop()


def opened(exchange: Exchange) -> Any:
    """What the browser gets."""
    assert exchange.headers["content-encoding"] == "aes128gcm"
    return json.loads(http_ece.decrypt(exchange.body, private_key=browser(), auth_secret=SECRET, version="aes128gcm"))


def claims_of(exchange: Exchange) -> dict[str, Any]:
    """The claims of the VAPID token, which is signed with the key that stands beside it."""
    said = exchange.headers["authorization"].replace(", ", ",")  # py-vapid knows no blank there, RFC 9110 §11.4 does
    assert Vapid02.verify(said)
    token, key = (part.partition("=")[2] for part in said.removeprefix("vapid ").split(","))
    assert key == public_key(vapid())
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_browser_reads_what_it_is_woken_for(service: Service, sender: WebPush) -> None:
    assert sender.send(push(service.url + "/s/a?b=1", subscription())) == Pushed("sent", id="7Qf")
    (exchange,) = service.exchanges
    assert (exchange.method, exchange.target) == ("POST", "/s/a?b=1")
    assert (exchange.headers["ttl"], exchange.headers["urgency"]) == ("20", "high")
    assert opened(exchange) == {
        "kind": "call",
        "aor": "bob@example.com",
        "call": "c1",
        "from": "sip:alice@example.com",
        "display_name": "Älice",
    }
    assert claims_of(exchange) == {"aud": service.url, "exp": START + TOKEN_LIFE, "sub": SUBJECT}


def test_each_payload_has_a_key_and_a_salt_of_its_own() -> None:
    """RFC 8291 §3.1, RFC 8188 §2.1."""
    bodies = [payload(push("https://x", subscription())) or b"" for _ in range(2)]
    assert bodies[0][:16] != bodies[1][:16] and bodies[0][21:86] != bodies[1][21:86]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"p256dh": encoded(b"\4" + bytes(64)), "auth": encoded(SECRET)},  # no point of the curve
        {"p256dh": "###", "auth": encoded(SECRET)},
        {"auth": encoded(SECRET)},
        {"p256dh": subscription()["p256dh"], "auth": encoded(SECRET[:5])},
        {"p256dh": subscription()["p256dh"], "auth": "ü"},
    ],
)
def test_without_keys_that_fit_a_browser_is_woken_without_a_word(
    service: Service, sender: WebPush, keys: dict[str, str]
) -> None:
    assert sender.send(push(service.url + "/s/a", keys)).outcome == "sent"
    (exchange,) = service.exchanges
    assert (exchange.body, exchange.headers["content-length"]) == (b"", "0")
    assert "content-encoding" not in exchange.headers


def test_keys_are_read_as_browsers_write_them() -> None:
    """PushSubscription.toJSON() gives base64url; what `btoa` makes of `getKey()` is ordinary base64."""
    keys = subscription()
    plain = {
        name: urlsafe_b64encode(urlsafe_b64decode(text + "=" * (-len(text) % 4))).decode()
        for name, text in keys.items()
    }
    ordinary = {name: text.replace("-", "+").replace("_", "/") for name, text in plain.items()}
    assert keys_of(keys) == keys_of(plain) == keys_of(ordinary) != None  # noqa: E711


def test_the_keys_stand_in_the_contact() -> None:
    keys = subscription()
    uri = (
        "sip:bob@x.invalid;transport=ws;pn-provider=webpush;pn-prid=https%3A%2F%2Fpush.example%2Fs%3Fa=b;"
        f"pn-p256dh={keys['p256dh']};pn-auth={keys['auth']}"
    )
    address = address_of(parse_uri(uri.encode()))
    assert address is not None
    assert address.token == "https://push.example/s?a=b"
    assert keys_of(address.tokens) is not None


def test_a_payload_that_is_too_long_is_not_sent(service: Service, sender: WebPush) -> None:
    """4096 octets are what a push service has to take (RFC 8030 §7.2, RFC 8291 §4)."""
    empty = len(json.dumps({"kind": "call", "aor": "bob@example.com", "call": "c1", "n": ""}, separators=(",", ":")))
    fits = push(service.url, subscription(), data={"n": "x" * (MAX_PAYLOAD - empty)})
    assert len(payload(fits) or b"") == 4096
    longer = push(service.url, subscription(), data={"n": "x" * (MAX_PAYLOAD - empty + 1)})
    assert sender.send(longer) == Pushed("failed", "the payload has 3994 octets, 3993 at most")
    assert not service.exchanges


@pytest.mark.parametrize(
    ("changes", "headers"),
    [
        ({}, {"ttl": "20", "urgency": "high"}),
        ({"ttl": -1.0, "kind": "refresh"}, {"ttl": "0", "urgency": "normal"}),
        ({"options": {"urgency": "low"}}, {"ttl": "20", "urgency": "low"}),
        ({"options": {"urgency": "now\r\nx: y"}}, {"ttl": "20", "urgency": "high"}),
        ({"collapse": "c-1_x"}, {"ttl": "20", "urgency": "high", "topic": "c-1_x"}),
        (
            {"collapse": "a@b.example"},  # RFC 8030 §5.4: 32 characters of base64url
            {"ttl": "20", "urgency": "high", "topic": encoded(sha256(b"a@b.example").digest())[:32]},
        ),
    ],
)
def test_ttl_urgency_and_topic(changes: dict[str, Any], headers: dict[str, str]) -> None:
    assert headers_of(push("https://x", **changes)) == headers


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_taken(service: Service, sender: WebPush, status: int) -> None:
    service.behave = answer(status)
    assert sender.send(push(service.url)) == Pushed("sent")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(404, "dead"), (410, "dead"), (400, "failed"), (403, "failed"), (413, "failed"), (307, "failed")],
)
def test_answers_about_the_phone(service: Service, sender: WebPush, status: int, outcome: Any) -> None:
    """RFC 8030 §7.3: 404 for a subscription that is gone; 410 is what push services say. 403: it was made with
    another key, which may be our mistake."""
    service.behave = answer(status, b"because\r\n", content_type="text/plain", location="https://169.254.169.254/")
    assert sender.send(push(service.url)) == Pushed(outcome, f"{status} because")


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [(429, {"retry_after": "30"}, 30.0), (503, {"retry_after": "5"}, 5.0), (500, {}, None), (502, {}, None)],
)
def test_answers_about_the_service(
    service: Service, sender: WebPush, status: int, headers: dict[str, str], retry_after: float | None
) -> None:
    service.behave = answer(status, **headers)
    with pytest.raises(PushDown) as caught:
        sender.send(push(service.url))
    assert (caught.value.reason, caught.value.retry_after, caught.value.final) == (str(status), retry_after, False)


def test_a_connection_that_breaks(service: Service, sender: WebPush) -> None:
    service.behave = drop
    with pytest.raises(PushDown):
        sender.send(push(service.url))


def test_a_certificate_of_somebody_else(service: Service, wall: Wall) -> None:
    """Without `ca:` the authorities of the system are believed, and nobody else."""
    sender = WebPush(WebPushAccount(SecretStr(pem()), SUBJECT, (f"localhost:{service.port}",)), wall=wall)
    with pytest.raises(PushDown, match="TLS failed"):
        sender.send(push(service.url))
    assert not service.exchanges


# --- VAPID tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_used_for_an_hour(service: Service, sender: WebPush, wall: Wall) -> None:
    tokens = []
    for passed in (0, 3599, 1, -7200, 90 * 86_400):
        wall.now += passed
        sender.send(push(service.url))
        tokens.append(claims_of(service.exchanges[-1])["exp"] - TOKEN_LIFE - START)
    assert tokens == [0, 0, 3600, -3600, 90 * 86_400 - 3600]  # a clock that jumps makes a new one


def test_a_token_that_is_refused_is_made_anew_once(service: Service, sender: WebPush) -> None:
    sender.send(push(service.url))
    service.behave = answer(401)
    assert sender.send(push(service.url)).outcome == "failed"
    used = [exchange.headers["authorization"] for exchange in service.exchanges]
    assert len(used) == 3 and used[0] == used[1] != used[2]


def test_each_push_service_has_a_token_for_itself(service: Service, sender: WebPush) -> None:
    """RFC 8292 §2: `aud` is the origin of the push resource."""
    sender.send(push(f"https://LOCALHOST:{service.port}/s"))
    assert claims_of(service.exchanges[0])["aud"] == service.url


# --- where pushes may go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://fcm.googleapis.com/fcm/send/abc:def",
        "https://updates.push.services.mozilla.com/wpush/v2/gAAA",
        "https://web.push.apple.com/QPf",
        "https://wns2-par02p.notify.windows.com/w/?token=BQYAAA%3d",
    ],
)
def test_the_services_of_browsers_are_allowed(url: str) -> None:
    sender = WebPush(WebPushAccount(SecretStr(pem()), SUBJECT))
    assert sender.server_of(push(url)) == url[: url.index("/", 8)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "http://fcm.googleapis.com/x",
        "ftp://fcm.googleapis.com/x",
        "//fcm.googleapis.com/x",
        "fcm.googleapis.com/x",
        "https://fcm.googleapis.com:8443/x",
        "https://fcm.googleapis.com:80/x",
        "https://fcm.googleapis.com./x",
        "https://fcm.googleapis.com.evil.example/x",
        "https://evil-fcm.googleapis.com/x",
        "https://user@fcm.googleapis.com/x",
        "https://fcm.googleapis.com@evil.example/x",
        "https://evil.example\\@fcm.googleapis.com/x",
        "https://evil.example#@fcm.googleapis.com/x",
        "https://evil.example?@fcm.googleapis.com/x",
        "https://notify.windows.com/x",
        "https://.notify.windows.com/x",
        "https://evilnotify.windows.com/x",
        "https://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://2130706433/x",
        "https://localhost/x",
        "https://fcm.googleapis.com%2eevil.example/x",
        "https://fcm.googleapis.com\r\nHost: evil/x",
        "https://fcm.googleapis.com:99999/x",
        "\ufffd",
    ],
)
def test_other_resources_are_never_asked(url: str) -> None:
    sender = WebPush(WebPushAccount(SecretStr(pem()), SUBJECT))
    pushed = sender.send(push(url))
    assert pushed.outcome == "failed" and pushed.reason
    assert sender.server_of(push(url)) == ""
    assert not sender._peers


@given(st.text(max_size=60))
def test_no_text_leads_elsewhere(text: str) -> None:
    sender = WebPush(WebPushAccount(SecretStr("never read"), SUBJECT, ("push.example", "*.wild.example")))
    for url in (text, "https://" + text, f"https://push.example{text}", f"https://{text}push.example/"):
        origin = sender.server_of(push(url))
        host = origin.removeprefix("https://")
        assert origin == "" or host == "push.example" or (host.endswith(".wild.example") and "/" not in host)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX-Evil: 1", "/%0d%0aX: 1", "/ü\x00", "/a#b", "?x=\r\n"])
def test_a_path_is_one_path(service: Service, sender: WebPush, path: str) -> None:
    sender.send(push(service.url + path))
    (exchange,) = service.exchanges
    assert exchange.target.isascii() and exchange.target.isprintable() and " " not in exchange.target
    assert not {"x-evil", "x"} & set(exchange.headers)


def addresses_that_are_not_public() -> list[str]:
    return [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
        "2002:a00:1::1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2001:db8::1",
        "::7f00:1", "::10.0.0.1", "64:ff9b:1::a00:1", "fec0::1",
    ]  # fmt: skip


@pytest.mark.parametrize("address", addresses_that_are_not_public())
def test_a_name_of_the_internet_leads_to_no_private_network(address: str) -> None:
    """Whatever the DNS says of it: it may lie."""
    allowed = Allowed(HOSTS)
    for url in ("https://fcm.googleapis.com/x", "https://x.notify.windows.com/x"):
        assert allowed.guard(parse_url(url)).refusal("fcm.googleapis.com", ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2607:f8b0:4004:c07::5f", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_the_internet_is_reached(address: str) -> None:
    assert Guard(public=True).refusal("fcm.googleapis.com", ip_address(address)) == ""


def test_a_name_that_leads_to_this_machine_is_not_connected_to(
    service: Service, sender: WebPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`*.localhost` may be made up by a phone, and the DNS say what its owner likes."""
    look_up = http_host.socket.getaddrinfo
    monkeypatch.setattr(http_host.socket, "getaddrinfo", lambda host, *rest: look_up("127.0.0.1", *rest))
    with pytest.raises(PushDown, match="is not an address of the Internet"):
        sender.send(push(f"https://made-up.localhost:{service.port}/x"))
    assert not service.exchanges


def test_few_push_services_are_remembered(service: Service, sender: WebPush, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_host.socket, "getaddrinfo", lambda *rest: [])
    for number in range(70):
        with pytest.raises(PushDown):
            sender.send(push(f"https://n{number}.localhost:{service.port}/x"))
    assert len(sender._peers) == 64


# --- the key ----------------------------------------------------------------------------------------------------------


def test_a_key_that_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "vapid.pem"
    file.write_text(pem())
    assert WebPush(WebPushAccount(file, SUBJECT)).check() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "is not a private key in PEM without a password"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "is not a P-256 key: openssl ecparam"),
        (authority()[0].public_bytes(Encoding.PEM).decode(), "is not a private key in PEM without a password"),
        (None, ": No such file or directory"),
    ],
)
def test_a_key_that_cannot_be_used(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "vapid.pem"
    if text is not None:
        file.write_text(text)
    sender = WebPush(WebPushAccount(file, SUBJECT, ca=tmp_path / "ca.pem"))
    problem, ca = sender.check()
    assert reason in problem and str(file) in problem
    assert ca.startswith(f"cannot read {tmp_path / 'ca.pem'}")
    sender.start()
    with pytest.raises(PushDown) as caught:
        sender.send(push("https://fcm.googleapis.com/x"))
    assert caught.value.final
