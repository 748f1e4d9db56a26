"""Push services of phones (RFC 8599): how a contact names its own, and what a push is.

A phone that sleeps registers with `pn-provider`, `pn-param` and `pn-prid` in its Contact URI: the service that wakes
it, the app, and the phone. Some phones write other names for the same; what they mean is read here once:

    pn-provider=apns;pn-param=TEAM.com.example.app.voip;pn-prid=TOKEN                    RFC 8599 §9
    pn-provider=apns.dev;pn-param=TEAM.com.example.app.remote&voip;pn-prid=T1:remote&T2:voip      Linphone
    pn-type=firebase;app-id=PROJECT;pn-tok=TOKEN                                         before RFC 8599
    pn-provider=webpush;pn-prid=URL;pn-p256dh=KEY;pn-auth=SECRET       RFC 8599 §12, and the keys of the subscription
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from orchestrator.sip.uri import Uri

APNS: Final = "apns"
FCM: Final = "fcm"
WEBPUSH: Final = "webpush"

_SAME: Mapping[str, str] = {
    "apple": APNS,
    "apns.dev": APNS,
    "firebase": FCM,
    "android": FCM,
    "google": FCM,
}
"""What phones call a service → its name in the IANA registry (RFC 8599 §14.4)."""
SUBSCRIPTION_KEYS: Final = ("p256dh", "auth")
"""Of a Web Push subscription (RFC 8291 §2), which no RFC has a parameter for: `pn-p256dh` and `pn-auth`."""
_KINDS = ("voip", "remote")
"""Of Apple's tokens: for PushKit and for notifications."""
_TEAM = 10
"""Characters of the name of an Apple team."""
_unfit = re.compile(r"[\x00-\x20\x7f-\x9f\ufffd]").search
"""What no push service has in its names and tokens: blanks, control characters, octets that are no text."""

PushKind = Literal["call", "message", "request", "cancel", "refresh"]
"""Why a phone is woken: a call; a text; another request; a call that it missed or that was answered elsewhere; to
register before its binding expires."""


@dataclass(frozen=True, slots=True)
class PushAddress:
    """What one contact says about its push service."""

    service: str
    """As the IANA registry has it, in lower case: `apns`, `fcm`, `webpush`, or the name of another."""
    param: str
    """`pn-param` as the phone wrote it, '' for none."""
    prid: str
    """`pn-prid` as the phone wrote it."""
    sandbox: bool = False
    """Apple's development server."""
    team: str = ""
    """Apple: the team that the app is of; '' where the phone does not say."""
    app: str = ""
    """Apple: the bundle, without `.voip`. FCM: the sender or project. Else `param`."""
    tokens: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    """What the token is for → token. Apple: `voip`, `remote`. Others: '' → the token, or the URL of the resource;
    Web Push: `SUBSCRIPTION_KEYS`, where the phone gives them."""

    @property
    def token(self) -> str:
        """The first of them."""
        return next(iter(self.tokens.values()))

    @property
    def shown(self) -> str:
        """The token as people may see it: whoever knows it all can push to the phone."""
        head, scheme, rest = self.token.rpartition("://")
        host, slash, token = rest.partition("/") if scheme else ("", "", rest)
        masked = f"{token[:4]}…{token[-4:]}" if len(token) >= 20 else "…"
        return head + scheme + host + slash + masked

    def is_same_phone(self, other: PushAddress) -> bool:
        """Whether both are one app on one phone, in whichever dialect each is written: the same service, and a token in
        common. Tokens of `fcm` and `webpush` are unique; elsewhere the app has to be the same, too (RFC 8599 §5.3)."""
        if self.service != other.service:
            return False
        if self.service in (FCM, WEBPUSH):
            return self.token == other.token
        if self.app != other.app or (self.team and other.team and self.team != other.team):
            return False
        return not self.keys.isdisjoint(other.keys)

    @property
    def tells_phones_apart(self) -> bool:
        """No two phones have one token. What services of other names call their phones is not known: it may be a name
        of the user."""
        return self.service in (APNS, FCM, WEBPUSH)

    @property
    def keys(self) -> frozenset[str]:
        """The tokens as they are compared: Apple's are hexadecimal numbers."""
        return frozenset(token.lower() if self.service == APNS else token for token in self.tokens.values())


def service_named(said: str) -> str:
    """The name of a service in the IANA registry, for what a phone or a proxy calls it."""
    said = said.lower()
    return _SAME.get(said, said)


def asks_for_push(contact: bytes) -> bool:
    """At a glance: whether a Contact URI may name a push service. Most do not."""
    return b"pn-" in contact or b"pn-" in contact.lower()


def address_of(uri: Uri) -> PushAddress | None:
    """The push address in a Contact URI; None where it names none, or has no `pn-prid` (a query, RFC 8599 §4.1.5), and
    where a part of it could be in no request to a push service."""
    params = uri.params
    said, param, prid = (_text(params, name) for name in ("pn-provider", "pn-param", "pn-prid"))
    if not said and not prid:
        said, param, prid = (_text(params, name) for name in ("pn-type", "app-id", "pn-tok"))
    if not said or not prid or _unfit(said) or _unfit(param) or _unfit(prid):
        return None
    said = said.lower()
    service = service_named(said)
    if service == APNS:
        return _apple(param, prid, said == "apns.dev" or param.endswith(".dev"))
    tokens = {"": prid}
    if service == WEBPUSH:
        tokens |= {name: key for name in SUBSCRIPTION_KEYS if (key := _text(params, f"pn-{name}")) and not _unfit(key)}
    return PushAddress(service, param, prid, app=param, tokens=tokens)


def _apple(param: str, prid: str, sandbox: bool) -> PushAddress:
    """`TEAM.bundle`, with `.voip` or Linphone's `.remote&voip` behind it; the tokens with what they are for."""
    head, _, tail = param.rpartition(".")
    kinds = tail.split("&")
    app = head if head and all(kind in _KINDS for kind in kinds) else param
    if app is param:
        kinds = ["remote"]
    first, _, rest = app.partition(".")
    team, bundle = (first, rest) if len(first) == _TEAM and first.isalnum() and first.isupper() and rest else ("", app)
    tokens: dict[str, str] = {}
    for piece in prid.split("&"):
        token, _, kind = piece.partition(":")
        if token:
            tokens.setdefault(kind if kind in _KINDS else kinds[0], token)
    return PushAddress(APNS, param, prid, sandbox, team, bundle, tokens or {"": prid})


def _text(params: Mapping[bytes, bytes | None], name: str) -> str:
    return (params.get(name.encode()) or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class PushService:
    """One push service that this server pushes through: an entry of `push: services:`."""

    name: str
    """As the configuration names it."""
    service: str
    """As contacts name it: `PushAddress.service`."""
    teams: Sequence[str] = ()
    """Apple: the teams whose apps it pushes to; none: all. An address without a team is everybody's."""
    apps: Sequence[str] = ()
    """The apps it pushes to, as in `PushAddress.app`; none: all."""
    cancels: bool = True
    """Phones may be told that a call they were woken for is over."""
    vapid: str = ""
    """Web Push: the public key that phones subscribe with (RFC 8292), for `+sip.vapid`."""

    def serves(self, address: PushAddress) -> bool:
        return (
            self.service == address.service
            and (not self.teams or not address.team or address.team in self.teams)
            and (not self.apps or address.app in self.apps)
        )


@dataclass(frozen=True, slots=True)
class PushPolicy:
    """How phones are woken; times in seconds."""

    services: Sequence[PushService] = ()
    """The first one that serves an address has it."""
    wake: float = 20.0
    """How long calls and texts that no flow takes wait for phones to wake up; 0: they are not woken."""
    awake: float = 30.0
    """How long after its REGISTER a phone is taken to be awake. One that registered over a connection is asleep as soon
    as that has ended, too."""
    refresh: float = 120.0
    """How long before its binding expires a phone is woken that does not wake by itself; 0: never."""
    per_phone: int = 10
    """Pushes that one phone gets in a minute for one address of record; more are not sent and count as failed
    (`core.push.room`)."""
    max_expires: int = 604_800
    """The longest registration of a phone that is served; others have that of the registrar (`RegisterPolicy`)."""
    unserved: Literal["refuse", "register"] = "refuse"
    """What becomes of a REGISTER whose contact names a service that nobody serves: 555, or it is saved as any other.
    Without services it is saved."""

    def service_of(self, address: PushAddress | None) -> PushService | None:
        """Who pushes to this address, None for nobody."""
        if address is None:
            return None
        return next((service for service in self.services if service.serves(address)), None)


@dataclass(frozen=True, slots=True)
class Push:
    """One push to one phone. As a job of the core its result is a `Pushed`."""

    service: str
    """`PushService.name`."""
    address: PushAddress
    kind: PushKind
    ttl: float
    """Seconds that the push service may keep it."""
    aor: str
    call: str = ""
    """The id of the call it is for."""
    collapse: str = ""
    """Pushes with the same one replace each other on the phone: 64 octets at most, '' for none."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the app is told: `call`, `from`, `display_name`, and `data:` of the step."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the step says to this kind of service: `services: {apns: …}`."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the push service said."""

    outcome: Literal["sent", "failed", "dead"]
    """`dead`: it will never reach this phone under this address again."""
    reason: str = ""
    """In the words of the service: `Unregistered`, `429 TooManyRequests`; '' for one that was sent."""
    since: float | None = None
    """Since when it is dead, in seconds since the epoch, where the service says so."""
    id: str = ""
    """The service's name of the push."""
