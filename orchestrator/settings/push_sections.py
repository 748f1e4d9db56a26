"""`push:` in the configuration: how phones are woken, and Apple's push service; `push_kinds` has the others.

What a kind needs is loaded when a service of it is opened, not when the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr, model_validator

from orchestrator.errors import OrchestratorError
from orchestrator.packages.push_service import ChosenPush, PushSender, PushServiceKind
from orchestrator.settings.sip_sections import Section
from orchestrator.settings.values import (
    Address,
    Count,
    Duration,
    Interval,
    InvalidValue,
    on_or_off,
    one_by_one,
    parse_chosen_push,
    parse_file,
    parse_key_source,
    parse_provider,
    parse_web_host,
)
from orchestrator.sip.push import APNS, PushService


class PushSettings(Section):
    """How phones that sleep are woken; see `sip.push`."""

    services: Mapping[str, Annotated[ChosenPush, PlainValidator(parse_chosen_push)]] = Field(default_factory=dict)
    """By name."""
    wake: Interval = 20.0
    awake: Duration = 30.0
    refresh: Interval = 120.0
    per_phone: Count = 10
    max_expires: Duration = 604_800.0
    unserved: Literal["refuse", "register"] = "refuse"


class PushEntrySettings(Section):
    """What all entries of `push: services:` have, whatever their kind."""

    provider: Annotated[str, PlainValidator(parse_provider)] | None = None
    apps: Annotated[tuple[str, ...], BeforeValidator(one_by_one)] = ()
    cancels: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "on"
    timeout: Duration = 5.0
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None

    def choose(self, name: str, kind: PushServiceKind, settings: Any) -> ChosenPush:
        """This entry, with the settings of its kind."""
        provider = self.provider or kind.provider or name
        plain = PushService(name, provider, apps=self.apps, cancels=self.cancels == "on")
        concurrency = self.concurrency or kind.concurrency
        return ChosenPush(kind, kind.describe(plain, settings), settings, self.timeout, concurrency)


def missing_extra(what: str, error: ImportError) -> OrchestratorError:
    """A library that only this kind needs is not there."""
    library = (error.name or "a library").partition(".")[0]
    return OrchestratorError(f"{what} needs {library}, which is not installed: pip install 'orchestrator[push]'")


# --- Apple ------------------------------------------------------------------------------------------------------------


def _ten(what: str) -> Any:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(r"[A-Z0-9]{10}", value) is None:
            raise InvalidValue(
                f"{value!r} is not {what}", "it has 10 capital letters and digits; Apple's developer pages show it"
            )
        return value

    return PlainValidator(parse)


class ApnsSettings(Section):
    """An account of the Apple Push Notification service: a signing key of a team, or the certificate of one app."""

    key: Annotated[Path | SecretStr | None, PlainValidator(parse_key_source)] = None
    key_id: Annotated[str, _ten("the id of an Apple key")] | None = None
    team: Annotated[str, _ten("the id of an Apple team")] | None = None
    certificate: Annotated[Path | SecretStr | None, PlainValidator(parse_key_source)] = None
    certificate_key: Annotated[Path | SecretStr | None, PlainValidator(parse_key_source)] = None
    """None: in the same file."""
    sandbox: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = "auto"
    """auto: as each phone says."""
    host: Annotated[Address, PlainValidator(parse_web_host)] = Address("api.push.apple.com", 443)
    sandbox_host: Annotated[Address, PlainValidator(parse_web_host)] = Address("api.sandbox.push.apple.com", 443)
    ca: Annotated[Path | None, PlainValidator(parse_file)] = None

    @model_validator(mode="after")
    def _one_account(self) -> ApnsSettings:
        if (self.key is None) == (self.certificate is None):
            raise InvalidValue(
                "an Apple account has either a key or a certificate",
                "write {key: AuthKey_ABC.p8, key_id: ..., team: ...} or {certificate: apns.pem}",
            )
        if self.key is not None and (self.key_id is None or self.team is None):
            raise InvalidValue("key: needs key_id: and team:", "Apple's developer pages show both beside the key")
        if self.key is not None and self.certificate_key is not None:
            raise InvalidValue("certificate_key: is for a certificate", "remove it")
        return self


def _open_apns(settings: ApnsSettings) -> PushSender:
    try:
        from orchestrator.push.apns import Apns, ApnsAccount
    except ImportError as error:
        raise missing_extra("apns", error) from None
    return Apns(ApnsAccount(**{name: getattr(settings, name) for name in ApnsSettings.model_fields}))


def _apple(plain: PushService, settings: ApnsSettings) -> PushService:
    """A key pushes to the apps of its team, a certificate to one app. Raises InvalidValue: to another one than asked
    for."""
    if settings.certificate is None:
        return replace(plain, teams=(settings.team,) if settings.team else ())
    bundle = _bundle(settings.certificate)
    if bundle and any(app != bundle for app in plain.apps):
        raise InvalidValue(
            f"the certificate is for {bundle}, not for {', '.join(plain.apps)}", f"write apps: [{bundle}]"
        )
    return replace(plain, apps=(bundle,)) if bundle else plain


def _bundle(certificate: Path | SecretStr) -> str:
    """The app that Apple has made it for; '' where it cannot be read, which `orchestrator check` tells."""
    try:
        from orchestrator.push.apns_account import BadAccount, bundle_of
    except ImportError as error:
        raise missing_extra("apns", error) from None
    try:
        return bundle_of(certificate)
    except BadAccount:
        return ""


APPLE = PushServiceKind("apns", "Apple's iPhones and iPads.", _open_apns, ApnsSettings, APNS, _apple, concurrency=500)
