"""The kind of sink `webhook`: events are POSTed to a web service, signed.

    Orchestrator-Signature: t=1767225600,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd

`v1` is the HMAC-SHA256, in hexadecimal, of `t`, a full stop and the body, with the secret both sides have. The receiver
works it out itself, compares in constant time, and refuses a `t` that is more than five minutes off, so that nobody can
send an old request again. `verify` does it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Annotated

import urllib3
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SecretStr
from urllib3.exceptions import HTTPError, ProtocolError

from orchestrator import __version__
from orchestrator.errors import reason_of
from orchestrator.packages.setting_types import Duration, InvalidValue, parse_text
from orchestrator.packages.sink import Outgoing, SinkContext, SinkKind, Undelivered

REPLAY_WINDOW = 300.0
"""Seconds that a signature is good for."""
PACE = 0.1
"""Seconds between two requests that hold less than `batch` events: each costs a millisecond or two of CPU."""
GONE = 410
WRONG = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 431, 501})
"""Statuses of a peer that will never take this request."""
MOST_READ = 65_536
"""Octets of an answer that are read, to use the connection again."""


def parse_url(value: object) -> SecretStr:
    """An address of a web service; it often holds a token, so it is shown nowhere."""
    text = parse_text(value)
    try:
        parsed = urllib3.util.parse_url(text)
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidValue("this is not the address of a web service", "write https://hooks.example.com/path")
    return SecretStr(text)


def parse_headers(value: object) -> dict[str, SecretStr]:
    """Names and values of header fields, which may hold secrets."""
    if not isinstance(value, Mapping):
        raise InvalidValue("a map of header fields is expected here", "write {Authorization: 'Bearer ...'}")
    found = {}
    for name, text in value.items():
        if not str(name).replace("-", "").isalnum() or not str(name).isascii() or not _printable(text):
            raise InvalidValue(f"{str(name)[:40]!r} is not a header field with a value of printable ASCII")
        found[str(name)] = SecretStr(str(text))
    return found


def _printable(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


class WebhookSettings(BaseModel):
    """Keys of a sink of `type: webhook`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: Annotated[SecretStr, PlainValidator(parse_url)]
    secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Of the signature; None: requests are not signed."""
    headers: Annotated[Mapping[str, SecretStr], PlainValidator(parse_headers)] = Field(default_factory=dict)
    batch: Annotated[int, Field(ge=1, le=1000)] = 1
    """Events in one request; above 1 the body is a list."""
    timeout: Duration = 10.0
    ca: Path | None = None
    """Authorities that vouch for the peer; None: those of this machine."""


class Webhook:
    """One request at a time, on a connection that is kept."""

    def __init__(self, context: SinkContext, settings: WebhookSettings) -> None:
        self.batch = settings.batch
        self._url = settings.url.get_secret_value()
        self._secret = settings.secret.get_secret_value().encode() if settings.secret is not None else b""
        kind = context.content_type
        if settings.batch > 1:
            kind = kind.replace("cloudevents+json", "cloudevents-batch+json")
        self._headers = {"Content-Type": kind, "User-Agent": f"orchestrator/{__version__}"}
        self._headers |= {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=settings.timeout, read=settings.timeout),
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca) if settings.ca is not None else None,
        )

    def send(self, events: Sequence[Outgoing]) -> None:
        body = events[0].body if self.batch < 2 else b"[" + b",".join(event.body for event in events) + b"]"
        headers = {**self._headers, "Orchestrator-Id": events[0].id}
        if self._secret:
            headers["Orchestrator-Signature"] = sign(self._secret, body, int(time()))
        try:
            status, retry_after = self._post(body, headers)
        except (HTTPError, UnicodeError) as error:
            raise Undelivered(reason_of(error)) from None
        if 200 <= status < 300:
            return
        if status in WRONG and len(events) == 1:
            raise Undelivered(f"it answers {status}", refused=True)
        if status in WRONG:
            self._send_halves(events)
            return
        raise Undelivered(f"it answers {status}", retry_after=retry_after, stop=status == GONE)

    def _send_halves(self, events: Sequence[Outgoing]) -> None:
        """It refuses some of them: those are found, the others delivered."""
        half = len(events) // 2
        self.send(events[:half])
        try:
            self.send(events[half:])
        except Undelivered as failure:
            failure.taken += half
            raise

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, float | None]:
        """Status, and seconds of Retry-After. Raises HTTPError."""
        try:
            return self._once(body, headers)
        except ProtocolError:  # a kept connection that the peer was just closing
            return self._once(body, headers)

    def _once(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, float | None]:
        response = self._pool.request(
            "POST", self._url, body=body, headers=dict(headers), redirect=False, preload_content=False
        )
        finished = False
        try:
            finished = len(response.read(MOST_READ)) < MOST_READ
        finally:
            if finished:
                response.release_conn()
            else:
                response.close()
        return response.status, parse_retry_after(response.headers.get("Retry-After", ""), time())

    def close(self) -> None:
        self._pool.clear()


def sign(secret: bytes, body: bytes, timestamp: int) -> str:
    """Value of Orchestrator-Signature."""
    return f"t={timestamp},v1={hmac.new(secret, b'%d.%s' % (timestamp, body), hashlib.sha256).hexdigest()}"


def verify(secret: bytes, body: bytes, signature: str, now: float) -> bool:
    """Whether a request is ours and not an old one: for receivers in Python."""
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    stamp = parts.get("t", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12) or abs(now - int(stamp)) > REPLAY_WINDOW:
        return False
    return hmac.compare_digest(sign(secret, body, int(stamp)).encode(), signature.encode())


def parse_retry_after(value: str, now: float) -> float | None:
    """Seconds of a Retry-After (RFC 9110 §10.2.3), a number or a date; None where it says neither."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


SINK = SinkKind("webhook", "Events POSTed to a web service, signed.", Webhook, WebhookSettings, pace=PACE)
