"""Guards of the border: none is off by accident, and none changes its default in silence."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from loguru import logger

from orchestrator.core_settings import core_settings
from orchestrator.errors import InputError
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.guards import GUARDS, guards_off
from orchestrator.resources import Resolved
from orchestrator.server_log import log_of_files
from orchestrator.settings import Settings, read_settings
from orchestrator.site import LoadedSite

ROOT = Path(__file__).parents[2]

DEFAULTS: dict[str, Any] = {
    "sip.open_relay": "off",
    "sip.trust": ("127.0.0.0/8", "::1/128"),
    "sip.digest": ("MD5",),
    "registrar.without_flow": "anyone",
    "contacts.allow": "source",
    "sources.rate": 200,
    "sources.burst": 1000,
    "sources.pending": 100,
    "sources.strangers": 2000,
    "sources.ban": 60.0,
    "sources.failures": 30,
    "sources.failures_ban": 600.0,
    "auth.nonce": 300.0,
    "auth.qop": ("auth",),
    "limits.bindings": 200_000,
    "limits.bindings_per_source": 10_000,
    "limits.contacts_per_aor": 10,
    "limits.addresses_per_user": 100,
    "limits.transactions": 20_000,
    "limits.message": 65_535,
    "admin.listen": "127.0.0.1:8080",
    "http.allow": (),
}
"""Whoever changes one of these changes what strangers may do: in docs/security.md and CHANGELOG.md, too."""
OFF = {
    "sip.open_relay": "sip: {open_relay: on}",
    "registrar.without_flow": "registrar: {without_flow: anyone}",
    "contacts.allow": "contacts: {allow: any}",
    "sources.failures": "sources: {failures: 0}",
    "scanners": "scanners: {agents: [], addresses: []}",
}


def value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    plain = isinstance(found, (str, int, float))
    return found if plain else tuple(map(str, found)) if isinstance(found, tuple) else str(found)


def read(text: str) -> Settings:
    return read_settings("o.yml", text, {})


def program(tmp_path: Path, trigger: str) -> Program:
    (tmp_path / "a.flow.yaml").write_text(f"flowlang: 1\nflows: {{r: {{on: {trigger}, do: [reply: 403]}}}}\n")
    return load_program([tmp_path])[0]


def off(settings: Settings) -> list[str]:
    """Beside a flow that decides who registers."""
    with TemporaryDirectory() as folder:
        return guards_off(settings, program(Path(folder), "register"))


def test_registration_without_a_password_is_a_guard_that_is_off_until_a_flow_asks(tmp_path: Path) -> None:
    without, closed = program(tmp_path, "invite"), read("registrar: {without_flow: trusted}")
    assert guards_off(Settings(), without) == guards_off(Settings(), Program()) == ["registrar.without_flow"]
    assert guards_off(closed, without) == off(Settings()) == []


def test_the_shipped_flows_ask() -> None:
    assert guards_off(Settings(), load_program([ROOT / "flows"])[0]) == []


def test_the_guards_are_on_by_default_and_their_defaults_are_these() -> None:
    assert off(Settings()) == []
    assert {key: value(Settings(), key) for key in DEFAULTS} == DEFAULTS
    assert "friendly-scanner" in Settings().scanners.agents and "sipvicious" in Settings().scanners.addresses


def test_the_core_gets_them() -> None:
    bound = [("127.0.0.1", 5060)] * len(Settings().sip.listen)
    core = core_settings(Settings(), bound, lambda: 0.0, lambda: 0.0)
    assert core.sources is not None and core.sources.failures == 30 and core.sources.failures_ban == 600.0
    assert core.contacts == "source" and core.open_registrar and all(core.scanners)
    assert core.limits.addresses_per_user == 100


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_one_that_is_off_is_named(guard: Any) -> None:
    found = guards_off(read(OFF[guard.key]), Program())
    assert set(found) == {"registrar.without_flow", guard.key}


def test_the_log_names_them_at_the_start() -> None:
    settings = read("contacts: {allow: any}\nregistrar: {without_flow: anyone}\n")
    out = StringIO()
    sink = logger.add(out, format="{message} {extra}")
    log_of_files(LoadedSite(settings, Program(), Resolved()))
    logger.remove(sink)
    assert "guards_off" in out.getvalue() and "registrar.without_flow, contacts.allow" in out.getvalue()


def test_the_page_has_each_of_them_with_its_default() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = {key: row for row in page.splitlines() if row.startswith("|") for key in re.findall(r"`([a-z_.]+)`", row)}
    missing = [key for key in (*DEFAULTS, "scanners.agents", "scanners.addresses") if key not in rows]
    assert missing == []


# --- the open relay ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trust", ["0.0.0.0/0", "'::/0'", "[10.0.0.0/8, 0.0.0.0/0]", "[0.0.0.0/1, 128.0.0.0/1]", "['::/1', '8000::/1']"]
)
def test_trust_in_everybody_needs_a_word(trust: str) -> None:
    with pytest.raises(InputError) as refused:
        read(f"sip:\n  trust: {trust}\n")
    (mistake,) = refused.value.diagnostics
    assert "open relay" in mistake.message and mistake.line == 2 and "open_relay: on" in mistake.help
    settings = read(f"sip: {{trust: {trust}, open_relay: on}}")
    assert off(settings) == ["sip.open_relay"]


@pytest.mark.parametrize("trust", ["10.0.0.0/8", "[192.0.2.0/24, '2001:db8::/32']", "0.0.0.0/2"])
def test_trust_in_some_needs_none(trust: str) -> None:
    assert off(read(f"sip: {{trust: {trust}}}")) == []
