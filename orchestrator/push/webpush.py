"""Web Push: browsers and what speaks like them (RFC 8030), with encrypted payloads (RFC 8291) and VAPID (RFC 8292).

`pn-prid` is the URL of the phone's push resource (RFC 8599 §12). A phone that gives the keys of its subscription beside
it, `pn-p256dh` and `pn-auth`, is told what the push is for; one without is only woken: nothing but ciphertext may pass
the push service.

The phone has chosen that URL, so it is not simply posted to: https only, hosts of a list only, and no address of a
private network unless the configuration names the host itself. Each push service is a peer of its own: one that fails
or asks for a pause holds up its own phones only.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from re import ASCII, compile
from time import time
from typing import Any, Final

import http_ece
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import SecretStr
from urllib3.exceptions import LocationValueError
from urllib3.util import Url, parse_url

from orchestrator.packages.push_service import PushDown
from orchestrator.push.exchanges import Server, facts_of, retry_after, told, trusting
from orchestrator.runtime.http_host import Answer, Guard
from orchestrator.sip.push import Push, Pushed

HOSTS: Final = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    "*.notify.windows.com",
)
"""The push services of Chrome, Firefox, Safari and Edge."""
TOKEN_LIFE = 12 * 3600
"""Seconds that a VAPID token is good for; RFC 8292 §2 allows 24 hours."""
TOKEN_USE = 3600.0
"""Seconds that one is used: a clock that was wrong when it was made does little harm."""
MAX_PEERS = 64
"""Push services whose connections and tokens are kept; the longest unused one makes room."""
MAX_PAYLOAD = 3993
"""Octets that every push service takes: 4096 with what encryption adds (RFC 8291 §4)."""
URGENCIES = ("very-low", "low", "normal", "high")
"""RFC 8030 §5.3."""
_TOPIC = compile(r"[A-Za-z0-9_-]{1,32}", ASCII)
"""RFC 8030 §5.4."""


class UnusableKey(Exception):
    """The key cannot be used; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class WebPushAccount:
    """What the configuration says."""

    key: Path | SecretStr
    """VAPID: a P-256 key in PEM, its file or the PEM itself."""
    subject: str
    """`mailto:` or `https:` URI of who runs this server (RFC 8292 §2.1)."""
    hosts: Sequence[str] = HOSTS
    """`name`, `name:port` or `*.domain`."""
    ca: Path | None = None
    """Authorities that are believed, in place of the system's."""
    connections: int = 50


def read_key(source: Path | SecretStr) -> ec.EllipticCurvePrivateKey:
    """A VAPID key. Raises UnusableKey."""
    name = str(source) if isinstance(source, Path) else "the VAPID key"
    try:
        pem = source.read_bytes() if isinstance(source, Path) else source.get_secret_value().encode()
        key = load_pem_private_key(pem, None)
    except OSError as error:
        raise UnusableKey(f"cannot read {name}: {error.strerror or error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey(f"{name} is not a private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableKey(f"{name} is not a P-256 key: openssl ecparam -name prime256v1 -genkey -noout -out vapid.pem")
    return key


def public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """As phones subscribe with it, and as `+sip.vapid` and the parameter `k` have it (RFC 8292 §3.2)."""
    return _encoded(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


class WebPush:
    """All push services of the Web."""

    def __init__(self, settings: WebPushAccount, *, wall: Callable[[], float] = time) -> None:
        self._settings = settings
        self._allowed = Allowed(settings.hosts)
        self._wall = wall
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._public = ""
        self._peers: OrderedDict[str, _Peer] = OrderedDict()

    def check(self) -> list[str]:
        found = []
        try:
            read_key(self._settings.key)
        except UnusableKey as unusable:
            found.append(str(unusable))
        if self._settings.ca is not None:
            try:
                trusting(self._settings.ca)
            except OSError as error:
                found.append(f"cannot read {self._settings.ca}: {error.strerror or error}")
        return found

    def start(self) -> None:
        """Read the key; what is wrong with it has been said by `check`, and each push says it again."""
        try:
            self._open()
        except PushDown:
            pass

    def send(self, push: Push) -> Pushed:
        key = self._open()
        url = _parsed(push.address.token)
        refusal = self._allowed.refusal(url)
        if refusal:
            return Pushed("failed", refusal)
        try:
            body = payload(push)
        except ValueError as wrong:
            return Pushed("failed", str(wrong))
        return self._judge(self._exchange(self._peer(url), key, url.request_uri, push, body))

    def server_of(self, push: Push) -> str:
        """Whose failures these are: the push service that the phone has chosen."""
        url = _parsed(push.address.token)
        return "" if self._allowed.refusal(url) else _origin(url)

    def stop(self) -> None:
        for peer in self._peers.values():
            peer.server.close()
        self._peers.clear()

    def _open(self) -> ec.EllipticCurvePrivateKey:
        if self._key is None:
            try:
                key = read_key(self._settings.key)
                trusting(self._settings.ca)
            except (UnusableKey, OSError) as unusable:
                raise PushDown(str(unusable), final=True) from None
            self._key, self._public = key, public_key(key)
        return self._key

    def _peer(self, url: Url) -> _Peer:
        origin = _origin(url)
        peer = self._peers.get(origin)
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                self._peers.popitem(last=False)[1].server.close()
            server = Server(origin, self._allowed.guard(url), self._settings.ca, self._settings.connections)
            peer = self._peers[origin] = _Peer(origin, server)
        self._peers.move_to_end(origin)
        return peer

    def _exchange(
        self, peer: _Peer, key: ec.EllipticCurvePrivateKey, target: str, push: Push, body: bytes | None
    ) -> Answer:
        headers = headers_of(push)
        if body is not None:
            headers |= {"content-encoding": "aes128gcm", "content-type": "application/octet-stream"}
        now = self._wall()
        used = peer.knows(now)
        if not used:
            self._sign(peer, key, now)
        answer = peer.server.post(target, headers | {"authorization": peer.token}, body or b"")
        if answer.status in (401, 403) and used:
            self._sign(peer, key, now)
            answer = peer.server.post(target, headers | {"authorization": peer.token}, body or b"")
        return answer

    def _sign(self, peer: _Peer, key: ec.EllipticCurvePrivateKey, now: float) -> None:
        """RFC 8292 §2, §3."""
        peer.end = int(now) + TOKEN_LIFE
        claims = {"aud": peer.origin, "exp": peer.end, "sub": self._settings.subject}
        peer.token = f"vapid t={jwt.encode(claims, key, algorithm='ES256')}, k={self._public}"

    def _judge(self, answer: Answer) -> Pushed:
        """What the answer means (RFC 8030 §5, §7.3, §8.4). Raises PushDown."""
        status = answer.status
        if status in (200, 201, 202, 204):
            return Pushed("sent", id=told(answer.headers.get("location")).rpartition("/")[2])
        words = told(answer.body.decode("utf-8", "replace")) if _is_text(answer) else ""
        reason = f"{status} {words}".rstrip()
        if status == 429 or status >= 500:
            raise PushDown(reason, retry_after(answer.headers, self._wall()))
        return Pushed("dead" if status in (404, 410) else "failed", reason)


@dataclass(slots=True)
class _Peer:
    """One push service."""

    origin: str
    server: Server
    token: str = ""
    """The header `Authorization`."""
    end: int = 0
    """Of the token, in seconds since the epoch."""

    def knows(self, now: float) -> bool:
        """Whether there is a token to be used at this time; one from a time that the clock has left is not."""
        return TOKEN_LIFE - TOKEN_USE < self.end - now <= TOKEN_LIFE


class Allowed:
    """Where push resources may be."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """`hosts`: `name`, `name:port`, `[address]:port`, or `*.domain` for all names in it."""
        self._exact: dict[tuple[str, int], bool] = {}
        self._domains: list[tuple[str, int]] = []
        for entry in hosts:
            host, port = split_host(entry)
            if host.startswith("*."):
                self._domains.append((host[1:], port))
            else:
                self._exact[host, port] = entry not in HOSTS

    def refusal(self, url: Url) -> str:
        """Why nothing is posted to this URL, '' when it is."""
        if url.scheme != "https" or not url.host or url.auth is not None:
            return "pn-prid is not an https: URL"
        host, port = _place(url)
        if (host, port) in self._exact:
            return ""
        if any(port == at and host.endswith(domain) and len(host) > len(domain) for domain, at in self._domains):
            return ""
        return f"{told(host)} is none of hosts: of this push service"

    def guard(self, url: Url) -> Guard:
        """Which addresses the host may have: a host that the configuration names itself may be in a private network."""
        return Guard(public=not self._exact.get(_place(url), False))


def split_host(entry: str) -> tuple[str, int]:
    """Host in lower case, and port."""
    name, colon, port = entry.lower().rpartition(":")
    return (name, int(port)) if colon and port.isdigit() else (entry.lower(), 443)


def _parsed(text: str) -> Url:
    try:
        return parse_url(text)
    except LocationValueError:
        return Url()


def _place(url: Url) -> tuple[str, int]:
    return (url.host or "").lower(), url.port or 443


def _origin(url: Url) -> str:
    """RFC 6454 §6.2."""
    host, port = _place(url)
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def _is_text(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "").lower()
    return kind.startswith("text/plain") or "json" in kind


# --- what is sent -----------------------------------------------------------------------------------------------------


def headers_of(push: Push) -> dict[str, str]:
    """TTL, Urgency and Topic (RFC 8030 §5.2 to §5.4)."""
    said = push.options.get("urgency")
    urgency = said if said in URGENCIES else "normal" if push.kind == "refresh" else "high"
    headers = {"ttl": str(max(ceil(push.ttl), 0)), "urgency": urgency}
    if push.collapse:
        fits = _TOPIC.fullmatch(push.collapse) is not None
        headers["topic"] = push.collapse if fits else _encoded(sha256(push.collapse.encode()).digest())[:32]
    return headers


def payload(push: Push) -> bytes | None:
    """What the app is told, encrypted for this phone; None where its keys are not known.

    Raises ValueError: it is too long.
    """
    keys = keys_of(push.address.tokens)
    if keys is None:
        return None
    theirs, secret = keys
    text = json.dumps(facts_of(push), default=_plain, ensure_ascii=False, separators=(",", ":"))
    plain = text.encode("utf-8", "replace")
    if len(plain) > MAX_PAYLOAD:
        raise ValueError(f"the payload has {len(plain)} octets, {MAX_PAYLOAD} at most")
    ours = ec.generate_private_key(ec.SECP256R1())
    made = http_ece.encrypt(
        plain, salt=os.urandom(16), private_key=ours, dh=theirs, auth_secret=secret, version="aes128gcm"
    )
    assert isinstance(made, bytes)
    return made


def keys_of(tokens: Mapping[str, str]) -> tuple[bytes, bytes] | None:
    """Public key and authentication secret of a subscription (RFC 8291 §2); None where there are none that fit."""
    try:
        theirs, secret = _decoded(tokens["p256dh"]), _decoded(tokens["auth"])
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
    except (KeyError, ValueError):
        return None
    return (theirs, secret) if len(theirs) == 65 and len(secret) == 16 else None


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else str(value)


def _encoded(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """base64url with or without padding; ordinary base64, which some write, too."""
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
