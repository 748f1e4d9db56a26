"""Apple's push service: what a push looks like there, and what its answers mean.

    POST /3/device/<token>      a call: apns-push-type voip, topic <bundle>.voip, priority 10
                                a text: alert, topic <bundle>
                                the rest: background, priority 5

A push for a call wakes the app at once, and iOS takes this kind of push away from an app that shows no call for one. So
there is none for anything else, also where a phone has no other token: then the push fails, and its reason says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any, Final
from uuid import uuid4

from hpack import NeverIndexedHeaderTuple

from orchestrator.packages.push_service import PushDown
from orchestrator.push.apns_account import ApnsAccount, BadAccount, Contexts, ProviderTokens
from orchestrator.push.exchanges import json_of, retry_after, told
from orchestrator.push.h2_link import H2Answer, H2Client, LinkDown
from orchestrator.sip.push import Push, Pushed

__all__ = ["Apns", "ApnsAccount"]

MAX_CALL, MAX_OTHER = 5_120, 4_096
"""Octets of the payload."""
MAX_NAME: Final = 256
"""Characters of what callers say of themselves: a long name does not keep a phone asleep."""
LATEST: Final = 10**15
"""Milliseconds since the epoch: what is later is no time."""
MAX_COLLAPSE: Final = 64
OPTIONS = ("payload", "push_type", "topic", "priority")
"""What a step may say: `services: {apns: {…}}`."""

_TOKEN = re.compile(r"[0-9A-Za-z]{1,200}")
_TOPIC = re.compile(r"[A-Za-z0-9.-]{1,155}")
_HEADER = re.compile(r"[!-~]{1,64}")
_DEAD = ("BadDeviceToken", "Unregistered", "ExpiredToken")
_OLD_TOKEN = ("ExpiredProviderToken", "InvalidProviderToken")
_OF_THE_PHONE = ("TooManyRequests",)
"""Reasons of 429 that say nothing about the service: too many pushes to this token."""


class Unsendable(Exception):
    """This push cannot be sent to this phone; the text says why."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a push is sent."""

    token: str
    type: str
    topic: str
    priority: int


class Apns:
    """The `PushSender`."""

    def __init__(self, account: ApnsAccount, wall: Callable[[], float] = time) -> None:
        self._account = account
        self._wall = wall
        self.tokens = ProviderTokens(account, wall=wall) if account.key is not None else None
        self._contexts = Contexts(account)
        hosts = {False: account.host, True: account.sandbox_host}
        self.clients = {
            sandbox: H2Client(host.host, host.port, self._contexts, one_first=self._one_first)
            for sandbox, host in hosts.items()
        }
        """By whether it is the sandbox."""

    def check(self) -> Sequence[str]:
        return list(self._account.problems())

    def start(self) -> None:
        """The first push connects; the authorities of the system take long to read, so they are read before."""
        try:
            self._contexts()
        except BadAccount:  # which `check` has told
            pass

    def stop(self) -> None:
        for client in self.clients.values():
            client.close()

    def server_of(self, push: Push) -> str:
        return self._client(push).name

    def send(self, push: Push) -> Pushed:
        try:
            kind = kind_of(push)
            body = payload_of(push, kind.type)
        except Unsendable as why:
            return Pushed("dead" if str(why) in _DEAD else "failed", str(why))
        return self._send(push, kind, body)

    def _send(self, push: Push, kind: _Kind, body: bytes) -> Pushed:
        id = str(uuid4())
        try:
            token = self.tokens.current() if self.tokens is not None else ""
            answer = self._ask(push, kind, body, id, token)
            if token and _reason(answer)[0] in _OLD_TOKEN and self.tokens is not None and self.tokens.refused(token):
                answer = self._ask(push, kind, body, id, self.tokens.current())
        except BadAccount as bad:
            raise PushDown(str(bad), final=True) from None
        except LinkDown as down:
            raise PushDown(f"{self.server_of(push)}: {down}") from None
        return self._meaning(answer, id)

    def _ask(self, push: Push, kind: _Kind, body: bytes, id: str, token: str) -> H2Answer:
        client = self._client(push)
        headers: list[Any] = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", client.authority),
            NeverIndexedHeaderTuple(":path", f"/3/device/{kind.token}"),
            ("apns-push-type", kind.type),
            ("apns-topic", kind.topic),
            ("apns-priority", str(kind.priority)),
            ("apns-expiration", str(int(self._wall() + push.ttl))),
            NeverIndexedHeaderTuple("apns-id", id),
        ]
        if token:
            headers.append(("authorization", f"bearer {token}"))
        if push.collapse:
            headers.append(NeverIndexedHeaderTuple("apns-collapse-id", collapse_id(push.collapse)))
        return client.request(headers, body)

    def _client(self, push: Push) -> H2Client:
        said = self._account.sandbox
        return self.clients[push.address.sandbox if said == "auto" else said == "on"]

    def _one_first(self, status: int) -> bool:
        """Apple lets a connection have one request at a time until one had a valid token."""
        return self.tokens is not None and status == 403

    def _meaning(self, answer: H2Answer, id: str) -> Pushed:
        """Apple: "Handling notification responses from APNs"."""
        status = answer.status
        if status == 200:
            theirs = answer.headers.get("apns-id", id)
            return Pushed("sent", id=id if theirs == id else told(theirs))
        reason, since = _reason(answer)
        said = reason or str(status)
        if status == 410 or reason in _DEAD:
            return Pushed("dead", said, since, id)
        wait = retry_after(answer.headers, self._wall())
        if status >= 500 or reason == "IdleTimeout" or (status == 429 and reason not in _OF_THE_PHONE):
            raise PushDown(said, wait)
        if status == 403:
            raise PushDown(said, wait, final=True)
        return Pushed("failed", said if status != 429 else f"429 {said}", id=id)


def _reason(answer: H2Answer) -> tuple[str, float | None]:
    """`{"reason": "Unregistered", "timestamp": 1454948015990}`; the time in seconds."""
    if answer.status == 200:
        return "", None
    said = json_of(answer.body)
    since = said.get("timestamp")
    if not isinstance(since, int | float) or isinstance(since, bool) or not 0 <= since < LATEST:
        return told(said.get("reason")), None
    return told(said.get("reason")), since / 1000


def collapse_id(text: str) -> str:
    """As it fits into 64 octets of a header."""
    return text if _HEADER.fullmatch(text) else sha256(text.encode()).hexdigest()[:MAX_COLLAPSE]


def kind_of(push: Push) -> _Kind:
    """Token, type, topic and priority of a push. Raises Unsendable."""
    tokens, options = push.address.tokens, push.options
    for key in options:
        if key not in OPTIONS:
            raise Unsendable(f"unknown option {key!r} for Apple: known are {', '.join(OPTIONS)}")
    voip, remote = tokens.get("voip", ""), tokens.get("remote", "")
    usual = "voip" if push.kind == "call" and voip else "alert" if push.kind in ("call", "message") else "background"
    type = str(options.get("push_type", usual))
    token = voip if type == "voip" else remote
    if not token:
        raise Unsendable(
            f"no token for pushes of type {type}: pn-prid has only one for {'calls' if voip else 'others'}"
        )
    topic = str(options.get("topic", push.address.app + (".voip" if type == "voip" else "")))
    priority = options.get("priority", 5 if type == "background" else 10)
    if not _TOKEN.fullmatch(token):
        raise Unsendable("BadDeviceToken")
    if not _TOPIC.fullmatch(topic):
        raise Unsendable("BadTopic")
    if not re.fullmatch(r"[a-z]{1,32}", type):
        raise Unsendable("InvalidPushType")
    if priority not in (1, 5, 10):
        raise Unsendable("BadPriority")
    return _Kind(token, type, topic, int(priority))


def payload_of(push: Push, type: str) -> bytes:
    """The JSON. Raises Unsendable when it is too long, or has what JSON has not."""
    said = {name: value[:MAX_NAME] if isinstance(value, str) and name in _NAMES else value for name, value in
            push.data.items()}  # fmt: skip
    aps: dict[str, Any] = {}
    if type == "background":
        aps["content-available"] = 1
    elif type == "alert":
        aps |= {"alert": {"title": str(said.get("display_name") or said.get("from") or push.aor)}, "sound": "default"}
    if push.call:
        aps["call-id"] = push.call  # where Linphone looks for it
    payload = {"aps": aps, "kind": push.kind, "aor": push.aor, **said}
    if push.call:
        payload.setdefault("call", push.call)
    own = push.options.get("payload", {})
    if not isinstance(own, Mapping):
        raise Unsendable("payload: is a map")
    try:
        text = json.dumps(_merged(payload, own), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsendable(f"the payload is no JSON: {error}") from None
    body = text.encode("utf-8", "replace")
    most = MAX_CALL if type == "voip" else MAX_OTHER
    if len(body) > most:
        raise Unsendable(f"PayloadTooLarge: {len(body)} octets, {most} fit")
    return body


_NAMES = ("from", "display_name")


def _merged(payload: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a step says takes the place of what we say; maps are merged one level down (`aps`)."""
    merged = dict(payload)
    for name, value in own.items():
        known = merged.get(name)
        merged[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged
