"""Which sections of the configuration a reload applies, and which the log names as `restart_needed`."""

from __future__ import annotations

import pytest

from orchestrator.settings import Settings, read_settings
from orchestrator.site import APPLIED_AGAIN, needs_restart

CHANGED = {
    "sip": "{domains: example.net}",
    "location": "'memory:'",
    "freeswitch": "{fs1: {host: 127.0.0.9}}",
    "gateways": "{telco: {uri: 'sip:192.0.2.9'}}",
    "users": "{local: {http: 'https://users.example.net/'}}",
    "flows": "[elsewhere]",
    "registrar": "{min_expires: 90s}",
    "push": "{wake: 5s}",
    "socket": "{listen: '127.0.0.1:8084'}",
    "cdr": "cdr.jsonl",
    "admin": "{listen: '127.0.0.1:8081'}",
    "http": "{allow: [192.0.2.0/24]}",
    "limits": "{runs: 5}",
    "stop": "{ringing: 5s}",
    "contacts": "{allow: any}",
    "sources": "{rate: 5}",
    "scanners": "{agents: [], addresses: []}",
    "auth": "{cache: 5s}",
    "sinks": "{out: {type: file, path: out.jsonl, events: cdr}}",
    "node": "n1",
    "log": "{level: debug}",
}


def test_every_section_is_here() -> None:
    assert CHANGED.keys() == Settings.model_fields.keys() - {"services"}, "services need an installed package"


@pytest.mark.parametrize("section", CHANGED)
def test_a_changed_section_is_applied_or_named(section: str) -> None:
    changed = read_settings("o.yml", f"{section}: {CHANGED[section]}", {})
    applied = section in ("flows", "freeswitch", "gateways", "users")
    assert needs_restart(Settings(), changed) == ([] if applied else [section])
    assert (section in APPLIED_AGAIN) is applied


def test_nothing_changed_needs_nothing() -> None:
    assert needs_restart(Settings(), read_settings("o.yml", "", {})) == []
