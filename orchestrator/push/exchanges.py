"""What push services over HTTP/1.1 have in common: a server that is posted to, and how its answers are read.

The connections are those of `http:` steps (`runtime.http_host`): no redirect is followed, no proxy is taken from the
environment, an answer is read up to 64 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from gevent import ssl
from urllib3.util import parse_url

from orchestrator import __version__
from orchestrator.packages.push_service import PushDown
from orchestrator.runtime.http_host import Answer, ExchangeFailed, Guard, HttpHost, HttpRequest
from orchestrator.sip.push import Push

LONGEST = 60.0
"""Seconds that an exchange may take; who sends a push gives up long before."""
LONGEST_REST = 3600.0
"""Seconds of a Retry-After at most."""
_SHOWN = 200
"""Characters of what a service says that go into a reason."""
_PORTS = {"http": 80, "https": 443}


@cache
def trusting(ca: Path | None = None) -> ssl.SSLContext:
    """TLS with servers that the authorities in this file vouch for, else those of the system; one for all connections,
    since reading the authorities takes longer than a handshake. Raises OSError: the file cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca)
    return context


class Server:
    """One server, by the URL of its pages or of one page."""

    def __init__(self, url: str, guard: Guard | None = None, ca: Path | None = None, idle: int = 8) -> None:
        """`ca`: see `trusting`; `idle`: connections kept open. Raises OSError: `ca` cannot be read."""
        parsed = parse_url(url)
        scheme = parsed.scheme or ""
        self.path = parsed.request_uri
        port, context = parsed.port or _PORTS[scheme], trusting(ca) if scheme == "https" else None
        self.host = HttpHost(scheme, parsed.host or "", port, guard or Guard(), context=context, idle=idle)

    def post(self, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """POST to a path, '' for that of the URL. Raises PushDown, from the `ExchangeFailed` that it was."""
        headers = {"user-agent": f"orchestrator/{__version__}", "accept-encoding": "identity", **headers}
        try:
            return self.host.exchange(HttpRequest("POST", target or self.path, headers, body), LONGEST)
        except ExchangeFailed as failure:
            raise PushDown(failure.message) from failure

    def close(self) -> None:
        self.host.close()


def json_of(body: bytes) -> Mapping[str, Any]:
    """The object in a body; an empty one when there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds in which the server wants no request (RFC 9110 §10.2.3: seconds, or a date), None where it says nothing.
    `headers` have names in lower case, `now` is seconds since the epoch."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), LONGEST_REST)
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    wait = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now
    return min(max(wait, 0.0), LONGEST_REST)


def told(said: Any) -> str:
    """What a service says, as a part of one line; '' for what is no text."""
    if not isinstance(said, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:_SHOWN]


def facts_of(push: Push) -> dict[str, Any]:
    """What every app is told, whatever wakes it: why, for whom, and `data:`."""
    facts: dict[str, Any] = {"kind": push.kind, "aor": push.aor}
    if push.call:
        facts["call"] = push.call
    return facts | dict(push.data)
