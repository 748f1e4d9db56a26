"""Firebase Cloud Messaging, HTTP v1: Android phones, and whatever else an app of a Firebase project runs on.

`POST /v1/projects/{id}/messages:send` with a data message of high priority: the app is started in the background and
handles it, nothing is shown for it. What the service says:

    404 UNREGISTERED, 403 SENDER_ID_MISMATCH           the token is dead
    400 INVALID_ARGUMENT about the token               the token is dead; about anything else, the push has failed
    401                                                a new access token, once
    401 THIRD_PARTY_AUTH_ERROR                         this push has failed; phones of other kinds are reached
    429 about the device                               this push has failed: too many to one phone
    429, 5xx                                           later (Retry-After)
    403, 404 without one of these codes                the account or the project is wrong, not the phone
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import monotonic, time
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from orchestrator.packages.push_service import PushDown
from orchestrator.push.exchanges import Server, facts_of, json_of, retry_after, told
from orchestrator.push.service_account import AccessTokens, ServiceAccount, UnusableAccount, read_account
from orchestrator.runtime.http_host import Answer
from orchestrator.sip.push import Push, Pushed

URL: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
LONGEST_TTL = 2_419_200
"""Seconds: four weeks."""
_THIRD_PARTY: Final = "THIRD_PARTY_AUTH_ERROR"
_TARGETS = ("token", "topic", "condition")
"""Keys of a message that say who gets it."""


@dataclass(frozen=True, slots=True)
class FcmAccount:
    """What the configuration says."""

    account: Path | SecretStr
    """The service account's file, or what is in it."""
    url: str = URL
    connections: int = 50


class Fcm:
    """One Firebase project."""

    def __init__(
        self, settings: FcmAccount, *, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._server = Server(settings.url, idle=settings.connections)
        self._account: ServiceAccount | None = None
        self._tokens: AccessTokens | None = None

    def check(self) -> list[str]:
        try:
            read_account(self._settings.account)
        except UnusableAccount as unusable:
            return [str(unusable)]
        return []

    def start(self) -> None:
        """Read the account; what is wrong with it has been said by `check`, and each push says it again."""
        try:
            self._open()
        except PushDown:
            pass

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        account, tokens = self._open()
        target = f"{self._server.path.rstrip('/')}/v1/projects/{quote(account.project, safe='')}/messages:send"
        body = json.dumps({"message": message_of(push)}).encode()
        token = tokens.token()
        answer = self._post(target, token, body)
        if answer.status == 401 and _THIRD_PARTY not in _codes(json_of(answer.body)):
            tokens.drop(token)
            answer = self._post(target, tokens.token(), body)
        return self._judge(answer)

    def stop(self) -> None:
        self._server.close()
        if self._tokens is not None:
            self._tokens.close()

    def _open(self) -> tuple[ServiceAccount, AccessTokens]:
        if self._account is None or self._tokens is None:
            try:
                self._account = read_account(self._settings.account)
            except UnusableAccount as unusable:
                raise PushDown(str(unusable), final=True) from None
            self._tokens = AccessTokens(self._account, SCOPE, clock=self._clock, wall=self._wall)
        return self._account, self._tokens

    def _post(self, target: str, token: str, body: bytes) -> Answer:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return self._server.post(target, headers, body)

    def _judge(self, answer: Answer) -> Pushed:
        """What the answer means. Raises PushDown."""
        status, said = answer.status, json_of(answer.body)
        if status == 200:
            return Pushed("sent", id=told(said.get("name")).rpartition("/")[2])
        error = said.get("error")
        error = error if isinstance(error, dict) else {}
        codes = _codes(said)
        code = next(iter(codes), "") or told(error.get("status"))
        reason = f"{status} {code}".rstrip()
        if (status == 404 and "UNREGISTERED" in codes) or (status == 403 and "SENDER_ID_MISMATCH" in codes):
            return Pushed("dead", reason)
        words = told(error.get("message"))
        if status == 400:
            return Pushed("dead" if _is_about_token(error) else "failed", f"{reason}: {words}" if words else reason)
        if _THIRD_PARTY in codes:  # an iPhone or a browser behind Firebase, whose own service does not take the project
            return Pushed("failed", f"{reason}: {words}" if words else reason)
        if status == 429 and _is_about_device(error):
            return Pushed("failed", reason)
        if status == 429 or status >= 500:
            raise PushDown(reason, retry_after(answer.headers, self._wall()))
        raise PushDown(f"{reason}: {words}" if words else reason, final=True)


def message_of(push: Push) -> dict[str, Any]:
    """The message, without a target in what the step says: `services: {fcm: {android: {…}, notification: {…}}}`."""
    android: dict[str, Any] = {"priority": "high", "ttl": f"{min(max(ceil(push.ttl), 0), LONGEST_TTL)}s"}
    if push.collapse:
        android["collapse_key"] = push.collapse
    own = push.options.get("data")
    facts = facts_of(push) | (dict(own) if isinstance(own, Mapping) else {})
    data = {_free(name): text_of(value) for name, value in facts.items()}
    if push.call:
        data["call-id"] = push.call  # where Linphone looks for it
    said = {key: value for key, value in push.options.items() if key not in (*_TARGETS, "data")}
    return {**_merged({"data": data, "android": android}, said), "token": push.address.token}


def _free(name: str) -> str:
    """The name of a value: FCM keeps some for itself, and refuses a message that has them."""
    taken = name in ("from", "message_type", "gcm") or name.startswith(("google", "gcm."))
    return f"sip_{name}" if taken else name


def text_of(value: Any) -> str:
    """A value of `data`, all of which are texts for FCM."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else str(value)


def _merged(ours: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the step says over what we do, map by map."""
    found = dict(ours)
    for key, value in said.items():
        there = found.get(key)
        if isinstance(value, Mapping):
            found[key] = _merged(there if isinstance(there, dict) else {}, value)
        else:
            found[key] = value
    return found


# --- what FCM says ----------------------------------------------------------------------------------------------------


def _listed(found: Any) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _listed(error.get("details"))


def _codes(said: Mapping[str, Any]) -> list[str]:
    """FCM's own error codes: those of the details, of which the status is only the kind."""
    error = said.get("error")
    found = _details(error) if isinstance(error, dict) else []
    return [told(detail["errorCode"]) for detail in found if isinstance(detail.get("errorCode"), str)]


def _is_about_token(error: Mapping[str, Any]) -> bool:
    """Whether what FCM finds wrong with the message is its token, and nothing else. Some answers name the fields, some
    say it in words."""
    violations = [each for detail in _details(error) for each in _listed(detail.get("fieldViolations"))]
    fields = [violation.get("field") for violation in violations]
    if fields:
        return all(field == "message.token" for field in fields)
    return "registration token" in told(error.get("message"))


def _is_about_device(error: Mapping[str, Any]) -> bool:
    """Whether a quota that is used up is that of one phone: FCM has quotas for devices, topics and projects, all with
    the code QUOTA_EXCEEDED, and says which one in words."""
    violations = [each for detail in _details(error) for each in _listed(detail.get("violations"))]
    words = [told(error.get("message"))]
    words += [told(violation.get(name)) for violation in violations for name in ("subject", "description")]
    said = " ".join(words).lower()
    return "device" in said and "project" not in said
