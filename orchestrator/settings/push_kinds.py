"""The kinds of push services that come with the server, besides Apple's: Firebase, Web Push, and plain HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, PrivateAttr, SecretStr, model_validator

from orchestrator.errors import Diagnostic
from orchestrator.flow.language.yaml import Document, Node
from orchestrator.packages.push_service import PushSender, PushServiceKind
from orchestrator.settings.push_sections import APPLE, missing_extra
from orchestrator.settings.sip_sections import Section
from orchestrator.settings.values import (
    InvalidValue,
    one_by_one,
    parse_file,
    parse_key_source,
    parse_web_address,
)
from orchestrator.sip.push import FCM, WEBPUSH, PushService

_PUSH_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
_SUBJECT = re.compile(r"mailto:[^@\s]+@[^@\s]+|https://[^\s/]+\S*")
_STATUS = re.compile(r"[1-5]([0-9][0-9]|xx)")


def _opened(module: str, make: Callable[[Any], PushSender], what: str) -> PushSender:
    """What `make(module)` gives of a module of the room `push`. Raises OrchestratorError: a library is missing."""
    try:
        found = import_module(f"orchestrator.push.{module}")
    except ImportError as error:
        raise missing_extra(what, error) from None
    return make(found)


# --- Firebase ---------------------------------------------------------------------------------------------------------


class FcmSettings(Section):
    """A Firebase project."""

    account: Annotated[Path | SecretStr, PlainValidator(parse_key_source)]
    """The file of a service account, or the JSON in it."""
    url: Annotated[str, PlainValidator(parse_web_address)] = "https://fcm.googleapis.com"

    @model_validator(mode="after")
    def _there(self) -> FcmSettings:
        if self.account is None:
            raise InvalidValue("account: is empty", "name the file of a service account")
        return self


def _open_fcm(settings: FcmSettings) -> PushSender:
    return _opened("fcm", lambda fcm: fcm.Fcm(fcm.FcmAccount(settings.account, settings.url)), "fcm")


# --- Web Push ---------------------------------------------------------------------------------------------------------


def parse_subject(value: Any) -> str:
    if not isinstance(value, str) or _SUBJECT.fullmatch(value) is None:
        meant = f"write mailto:{value}" if isinstance(value, str) and "@" in value else "write mailto:ops@example.com"
        raise InvalidValue(f"{value!r} does not say whom a push service can reach", meant)
    return value


def parse_push_host(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if _PUSH_HOST.fullmatch(text) is None:
        bare = re.sub(r"^https?://|/.*$", "", text)
        help = (
            f"write {bare}" if _PUSH_HOST.fullmatch(bare) else "write push.example.com, or *.push.example.com for many"
        )
        raise InvalidValue(f"{value!r} is not a host", help)
    return text


class WebPushSettings(Section):
    """Who we are for the push services of browsers (RFC 8292), and which of them there are."""

    key: Annotated[Path | SecretStr, PlainValidator(parse_key_source)]
    subject: Annotated[str, PlainValidator(parse_subject)]
    hosts: Annotated[
        tuple[Annotated[str, PlainValidator(parse_push_host)], ...], BeforeValidator(one_by_one), Field(min_length=1)
    ] = ("fcm.googleapis.com", "updates.push.services.mozilla.com", "web.push.apple.com", "*.notify.windows.com")
    ca: Annotated[Path | None, PlainValidator(parse_file)] = None

    @model_validator(mode="after")
    def _there(self) -> WebPushSettings:
        if self.key is None:
            raise InvalidValue("key: is empty", "name the file of a P-256 key")
        return self


def _open_webpush(settings: WebPushSettings) -> PushSender:
    values = {name: getattr(settings, name) for name in WebPushSettings.model_fields}
    return _opened("webpush", lambda webpush: webpush.WebPush(webpush.WebPushAccount(**values)), "webpush")


def _vapid(plain: PushService, settings: WebPushSettings) -> PushService:
    """With the public key, which phones subscribe with; '' where the key cannot be used, which `check` tells."""
    try:
        webpush = import_module("orchestrator.push.webpush")
        return replace(plain, vapid=webpush.public_key(webpush.read_key(settings.key)))
    except ImportError:
        return plain
    except webpush.UnusableKey:
        return plain


# --- plain HTTP -------------------------------------------------------------------------------------------------------


def parse_status(value: Any) -> str:
    if not isinstance(value, str) or _STATUS.fullmatch(value) is None:
        raise InvalidValue(f"{value!r} is not an HTTP status", "write 404, or 4xx for all of them")
    return value


Statuses = Annotated[tuple[Annotated[str, PlainValidator(parse_status)], ...], BeforeValidator(one_by_one)]


class HttpAuth(Section):
    user: str
    password: SecretStr


class HttpPushSettings(Section):
    """A service that is told by a request made of a template; see `settings.push_template`."""

    url: Annotated[str, Field(repr=False)]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    headers: Annotated[Mapping[str, Any], Field(repr=False)] = Field(default_factory=dict)
    query: Annotated[Mapping[str, Any], Field(repr=False)] = Field(default_factory=dict)
    json_: Annotated[Any, Field(alias="json", repr=False)] = None
    form: Annotated[Mapping[str, Any] | None, Field(repr=False)] = None
    body: Annotated[str | None, Field(repr=False)] = None
    auth: HttpAuth | None = None
    expect: Statuses = ()
    dead: Statuses = ("410",)
    _template: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_body(self) -> HttpPushSettings:
        if sum(value is not None for value in (self.json_, self.form, self.body)) > 1:
            raise InvalidValue("a request has one body", "write one of json:, form: and body:")
        return self

    def compile(self, document: Document, nodes: Mapping[str, Node], raw: Mapping[str, Any]) -> list[Diagnostic]:
        """Make the template of what stands in the file; returns what is wrong with it. Called once, by the reader."""
        from orchestrator.settings.push_template import compile_push  # the compiler of flows: only who has a template

        auth = (self.auth.user, self.auth.password.get_secret_value()) if self.auth is not None else None
        self._template, found = compile_push(
            document, nodes, raw, method=self.method or "", auth=auth, expect=self.expect, dead=self.dead
        )
        return found

    @property
    def template(self) -> Any:
        """An `HttpTemplate`."""
        return self._template


def _open_http(settings: HttpPushSettings) -> PushSender:
    return _opened("http_service", lambda http: http.HttpPush(settings.template), "http")


KINDS = {
    kind.name: kind
    for kind in (
        APPLE,
        PushServiceKind("fcm", "Firebase Cloud Messaging: Android.", _open_fcm, FcmSettings, FCM),
        PushServiceKind("webpush", "Web Push: browsers.", _open_webpush, WebPushSettings, WEBPUSH, _vapid),
        PushServiceKind("http", "Any service that is told over HTTP.", _open_http, HttpPushSettings),
    )
}
"""Those that come with the server, by name."""
