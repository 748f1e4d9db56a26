"""The kind of sink `webhook`, against a web server: what it is sent, and what its answers lead to."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from orchestrator.integrations.webhook import SINK, Webhook, WebhookSettings, parse_retry_after, sign, verify
from orchestrator.packages.sink import Outgoing, Undelivered

SECRET = "0123456789abcdef"


class Site:
    """A web service that answers as its test says."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.connections: set[tuple[str, int]] = set()
        self.status = 204
        self.refuses = b""
        self.headers: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=hidden"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                site.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                site.connections.add(self.client_address)
                status = 400 if site.refuses and site.refuses in body else site.status
                self.send_response(status)
                for name, value in [("Content-Length", "0"), *site.headers]:
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Context:
    name, node, content_type = "crm", "n1", "application/cloudevents+json"

    def log(self, level: str, text: str, **facts: Any) -> None:
        raise AssertionError(text)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.stop()


def hook(url: str, **settings: Any) -> Webhook:
    return Webhook(Context(), WebhookSettings.model_validate({"url": url, "timeout": "5s", **settings}))


def event(number: int) -> Outgoing:
    return Outgoing(f"id-{number}", "registered", "", "", 0.0, b'{"n":%d}' % number)


def failure(hook: Webhook, *numbers: int) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        hook.send([event(number) for number in numbers])
    assert "hidden" not in caught.value.reason
    return caught.value


def test_an_event_is_one_signed_request(site: Site) -> None:
    sink = hook(site.url, secret=SECRET, headers={"Authorization": "Bearer x"})
    assert sink.batch == 1
    sink.send([event(1)])
    sink.send([event(2)])
    (headers, body), _ = site.got
    assert body == b'{"n":1}'
    assert headers["content-type"] == "application/cloudevents+json"
    assert (headers["orchestrator-id"], headers["authorization"]) == ("id-1", "Bearer x")
    stamp, _, mac = headers["orchestrator-signature"].removeprefix("t=").partition(",v1=")
    assert mac == hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert len(site.connections) == 1
    sink.close()


def test_a_batch_is_a_list(site: Site) -> None:
    sink = hook(site.url, batch="50")
    sink.send([event(1), event(2)])
    ((headers, body),) = site.got
    assert json.loads(body) == [{"n": 1}, {"n": 2}]
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert "orchestrator-signature" not in headers
    sink.close()


@pytest.mark.parametrize(
    ("status", "refused", "stop"),
    [
        (400, True, False),
        (413, True, False),
        (422, True, False),
        (410, False, True),
        (401, False, False),
        (404, False, False),
        (302, False, False),
        (429, False, False),
        (503, False, False),
    ],
)
def test_what_an_answer_leads_to(site: Site, status: int, refused: bool, stop: bool) -> None:
    site.status = status
    site.headers = [("Location", "http://127.0.0.1:1/")]
    sink = hook(site.url)
    told = failure(sink, 1)
    assert (told.taken, told.refused, told.stop, told.retry_after) == (0, refused, stop, None)
    assert told.reason == f"it answers {status}"
    sink.close()


def test_retry_after_is_honoured(site: Site) -> None:
    site.status, site.headers = 503, [("Retry-After", "17")]
    sink = hook(site.url)
    assert failure(sink, 1).retry_after == 17.0
    sink.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:40 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("9" * 30, None),
        ("1.5", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, 60.0) == seconds


def test_of_a_batch_only_what_is_wrong_is_left_out(site: Site) -> None:
    site.refuses = b'{"n":3}'
    sink = hook(site.url, batch="8")
    told = failure(sink, 0, 1, 2, 3, 4, 5)
    assert (told.taken, told.refused) == (3, True)
    accepted = [n for _, body in site.got if site.refuses not in body for n in json.loads(body)]
    assert accepted == [{"n": 0}, {"n": 1}, {"n": 2}]
    sink.close()


def test_nobody_there() -> None:
    site = Site()
    port = site.server.server_port
    site.stop()
    assert "refused" in failure(hook(f"http://127.0.0.1:{port}/?token=hidden"), 1).reason.lower()
    assert failure(hook("http://nowhere.invalid/?token=hidden"), 1).reason


def test_a_signature_is_good_for_five_minutes() -> None:
    signature = sign(b"secret", b"body", 1000)
    assert signature.startswith("t=1000,v1=")
    assert verify(b"secret", b"body", signature, 1000 + 299)
    assert not verify(b"secret", b"body", signature, 1000 + 301)
    assert not verify(b"secret", b"body", signature, 1000 - 301)
    assert not verify(b"secret", b"bodi", signature, 1000)
    assert not verify(b"secres", b"body", signature, 1000)
    assert not verify(b"secret", b"body", signature.replace("t=1000", "t=1001"), 1000)
    for odd in ("", "t=,v1=", "t=x", "v1=" + "0" * 64, "t=" + "9" * 40):
        assert not verify(b"secret", b"body", odd, 1000)


def test_secrets_are_not_shown() -> None:
    settings = WebhookSettings.model_validate(
        {"url": "https://x.example/hidden", "secret": SECRET, "headers": {"Authorization": "Bearer hidden"}}
    )
    assert "hidden" not in repr(settings)
    assert SECRET not in repr(settings)
    assert SINK.settings is WebhookSettings
