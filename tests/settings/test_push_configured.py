"""`push:` of the configuration: services of ours and of packages, and mistakes in them."""

from __future__ import annotations

import sys
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import BaseModel, ConfigDict, SecretStr

from orchestrator.core_settings import core_settings
from orchestrator.errors import Diagnostic, InputError, OrchestratorError
from orchestrator.packages.push_service import PushServiceKind
from orchestrator.push.webpush import HOSTS
from orchestrator.settings import Settings, read_settings
from orchestrator.settings import reader as reader_module
from orchestrator.settings.push_kinds import KINDS
from orchestrator.settings.values import Address
from orchestrator.sip.push import PushPolicy, PushService


class AcmeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    depth: int = 1


def never(settings: Any) -> Any:
    raise AssertionError("reading the configuration opens nothing")


ACME = PushServiceKind("acme", "Acme.", never, AcmeSettings, describe=lambda s, own: replace(s, vapid=own.url))
KEY = "key: k.p8, key_id: ABC123DEFG, team: DEF123GHIJ"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "find_push_service", {"acme": ACME}.get)
    monkeypatch.setattr(reader_module, "push_service_names", lambda: ["acme"])


def read(text: str, **environ: str) -> Settings:
    return read_settings("o.yml", text, environ)


def the_mistake(text: str) -> Diagnostic:
    with pytest.raises(InputError) as refused:
        read(text)
    (found,) = refused.value.diagnostics
    return found


def policy(text: str) -> PushPolicy:
    return core_settings(read(text), [("127.0.0.1", 0)] * 2, float, float).push


def test_nothing_said_wakes_nobody() -> None:
    assert policy("") == policy("push: {services: }") == PushPolicy()
    assert PushPolicy().services == ()


def test_the_policy_of_the_core() -> None:
    found = policy(
        f"push: {{services: {{apns: {{{KEY}}}}}, wake: 0s, awake: 5s, refresh: 0s, per_phone: 3,"
        " max_expires: 24h, unserved: register}"
    )
    apple = PushService("apns", "apns", teams=("DEF123GHIJ",))
    assert found == PushPolicy((apple,), 0.0, 5.0, 0.0, per_phone=3, max_expires=86400, unserved="register")


def test_an_entry_is_of_the_kind_that_it_says_or_that_it_is_named_like() -> None:
    found = read(
        "push:\n  services:\n"
        f"    apns: {{{KEY}}}\n"
        "    work: {type: apns, certificate: c.pem, apps: com.example.work, cancels: off,\n"
        "           timeout: 2s, concurrency: 7}\n"
        "    acme: {url: u}\n"
        "    phones: {type: acme, provider: Acme-2, url: v, depth: 3}\n"
    ).push.services
    assert [chosen.kind.name for chosen in found.values()] == ["apns", "apns", "acme", "acme"]
    assert [chosen.service for chosen in found.values()] == [
        PushService("apns", "apns", teams=("DEF123GHIJ",)),
        PushService("work", "apns", apps=("com.example.work",), cancels=False),
        PushService("acme", "acme", vapid="u"),
        PushService("phones", "acme-2", vapid="v"),
    ]
    assert (found["work"].timeout, found["work"].concurrency) == (2.0, 7)
    assert (found["apns"].timeout, found["apns"].concurrency) == (5.0, KINDS["apns"].concurrency)
    assert found["phones"].settings == AcmeSettings(url="v", depth=3)


def test_a_key_is_a_file_or_stands_in_the_environment() -> None:
    text = "push: {services: {apns: {key: {env: KEY}, key_id: ABC123DEFG, team: DEF123GHIJ}}}"
    pem = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"
    assert read(text, KEY="keys/k.p8").push.services["apns"].settings.key == Path("keys/k.p8")
    inside = read(text, KEY=pem).push.services["apns"]
    assert inside.settings.key == SecretStr(pem)
    assert "abc" not in repr(inside)


def test_hosts_have_the_port_of_https_unless_they_say_another() -> None:
    settings = read(f"push: {{services: {{apns: {{{KEY}, host: push.example.com}}}}}}").push.services["apns"].settings
    assert settings.host == Address("push.example.com", 443)
    assert settings.sandbox_host == Address("api.sandbox.push.apple.com", 443)


@pytest.mark.parametrize(
    ("entry", "place", "code", "message", "help"),
    [
        (f"apns: {{{KEY}, tema: x}}", "tema", "E101", "unknown key 'tema'", "did you mean 'team'?"),
        (f"apns: {{{KEY}, concurency: 5}}", "concur", "E101", "unknown key", "did you mean 'concurrency'?"),
        (f"apns: {{{KEY}, host: 'a b'}}", "'a b", "E106", "'a b' is not an address and a port", "push.example.com"),
        ("apns: {key: k.p8}", "{key", "E106", "key: needs key_id: and team:", "Apple's developer pages show both"),
        ("apns: {key: k, certificate: c}", "{key", "E106", "has either a key or a certificate", "write {key:"),
        ("apns: {}", "{}", "E106", "has either a key or a certificate", "write {key:"),
        ("apns: {key_id: abc, certificate: c}", "abc", "E106", "'abc' is not the id of an Apple key", "10 capital"),
        ("apsn: {key: k}", "apsn", "E118", "has a push service 'apsn'", "did you mean 'apns'?"),
        ("work: {key: k}", "work", "E118", "has a push service 'work'", "type: apns"),
        ("work: {type: acmee}", "acmee", "E118", "has a push service 'acmee'", "did you mean 'acme'?"),
        ("work: {type: [a]}", "[a]", "E105", "the kind of a push service is expected here", ""),
        ("acme: {depth: 2}", "{depth", "E115", "a key is missing here", "add url:"),
        ("fcm: {}", "{}", "E115", "a key is missing here", "add account:"),
        ("fcm: {account: a, url: x}", "x}", "E106", "'x' is not an http: or https: address", "write https://"),
        ("webpush: {key: k}", "{key", "E115", "a key is missing here", "add subject:"),
        ("webpush: {key: k, subject: a@b.c}", "a@b", "E106", "does not say whom", "write mailto:a@b.c"),
        (
            "webpush: {key: k, subject: 'mailto:a@b', hosts: 'https://p.example/x'}",
            "'https",
            "E106",
            "is not a host",
            "write p.example",
        ),
        ("x: {type: http}", "{type", "E115", "a key is missing here", "add url:"),
        ("x: {type: http, url: 'https://a/${push.tokn}'}", "tokn", "E206", "push has no attribute", "'token'"),
        ("x: {type: http, url: 'https://${push.token}/x'}", "push.token", "E212", "comes from outside", ""),
        ("x: {type: http, url: 'https://a', jsn: 1}", "jsn", "E101", "unknown key 'jsn'", "did you mean 'json'?"),
        ("x: {type: http, url: 'https://a', json: 1, body: x}", "{type", "E106", "has one body", "write one of"),
        ("x: {type: http, url: 'https://a', dead: gone}", "gone", "E106", "is not an HTTP status", "write 404"),
        ("acme: 5", "5", "E106", "a map with the settings of a push service is expected here", ""),
        ("acme: {url: u, provider: 'a b'}", "'a b'", "E106", "'a b' is not a pn-provider", "apns, fcm"),
        ("acme: {url: u, timeout: 5}", "5}", "E106", "'5' is not a duration", "write 5ms or 5s"),
    ],
)
def test_a_mistake_is_told_at_its_place(entry: str, place: str, code: str, message: str, help: str) -> None:
    text = f"push: {{services: {{{entry}}}}}"
    found = the_mistake(text)
    assert found.code == code
    assert message in found.message
    assert help in found.help
    assert (found.line, found.column) == (1, text.index(place, text.index(entry)) + 1)


def test_what_has_to_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`h2` stands for all of the extra."""
    chosen = read(f"push: {{services: {{apns: {{{KEY}}}}}}}").push.services["apns"]
    monkeypatch.setitem(sys.modules, "h2", None)
    for name in [name for name in sys.modules if name.startswith(("h2.", "orchestrator.push."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(OrchestratorError) as missing:
        chosen.kind.open(chosen.settings)
    assert str(missing.value) == "apns needs h2, which is not installed: pip install 'orchestrator[push]'"


def test_services_that_are_no_map() -> None:
    assert the_mistake("push: {services: [apns]}").code == "E103"


def test_a_web_push_service_shows_its_public_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "vapid.pem"
    text = f"push: {{services: {{webpush: {{key: '{file}', subject: 'mailto:a@b.example'}}}}}}"
    assert policy(text).services == (PushService("webpush", "webpush"),)  # `check` says what is wrong with it
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    (service,) = policy(text).services
    assert service.vapid == urlsafe_b64encode(point).rstrip(b"=").decode()  # RFC 8292 §3.2


def test_the_hosts_of_web_push_are_those_of_the_sender() -> None:
    found = read("push: {services: {webpush: {key: k, subject: 'mailto:a@b.example'}}}").push.services["webpush"]
    assert found.settings.hosts == HOSTS


def test_two_templates_that_are_written_alike_are_the_same() -> None:
    """Or each reload would ask for a restart."""
    text = "push: {services: {x: {type: http, url: 'https://a/${push.token}'}}}"
    assert read(text) == read(text) != read(text.replace("token", "prid"))


def test_secrets_of_a_template_are_in_no_log() -> None:
    text = "push: {services: {x: {type: http, url: 'https://a/S3CRET', headers: {authorization: {env: KEY}}}}}"
    assert "S3CRET" not in repr(read(text, KEY="S3CRET"))


@pytest.mark.parametrize(
    ("entry", "library"),
    [
        ("fcm: {account: a.json}", "jwt"),
        ("webpush: {key: k, subject: 'mailto:a@b.example'}", "http_ece"),
    ],
)
def test_a_library_that_is_missing_is_one_message(entry: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fcm", "service_account", "webpush"):
        monkeypatch.delitem(sys.modules, f"orchestrator.push.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    ((name, chosen),) = read(f"push: {{services: {{{entry}}}}}").push.services.items()
    with pytest.raises(OrchestratorError) as refused:
        chosen.kind.open(chosen.settings)
    assert str(refused.value) == (f"{name} needs {library}, which is not installed: pip install 'orchestrator[push]'")


def test_plain_http_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("jwt", "http_ece", "h2"):
        monkeypatch.setitem(sys.modules, library, None)
    chosen = read("push: {services: {x: {type: http, url: 'https://a/${push.token}'}}}").push.services["x"]
    assert chosen.kind.open(chosen.settings).check() == []
