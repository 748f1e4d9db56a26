"""`services: cgrates:` in the configuration, and flows that charge without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.settings import read_settings
from orchestrator.site import check_site

FLOW = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - charge: alice\n      - relay: registered\n"


@pytest.mark.parametrize(("services", "codes"), [("", ["W311"]), ("services: {cgrates: {}}\n", [])])
def test_a_charge_that_nothing_bills_is_told(services: str, codes: list[str], tmp_path: Path) -> None:
    flow = tmp_path / "a.flow.yaml"
    flow.write_text(FLOW)
    settings = read_settings("o.yml", f"location: 'memory:'\nflows: ['{flow}']\n{services}", {})
    found, _ = check_site(settings, {})
    assert [(each.code, each.line, each.column) for each in found] == [(code, 6, 9) for code in codes]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{address: 'http://a'}", "'http://a' is not the address of a CGRateS"),
        ("{on_down: maybe}", "maybe"),
        ("{adress: 'tcp://a'}", "adress"),
        ("{timeout: soon}", "'soon' is not a duration"),
    ],
)
def test_mistakes_in_the_settings(text: str, mistake: str) -> None:
    with pytest.raises(InputError, match=re.escape(mistake)):
        read_settings("o.yml", f"services: {{cgrates: {text}}}\n", {})


def test_all_settings_are_read() -> None:
    text = """
services:
  cgrates:
    address: ['tcp://a', 'tcp://b:2012']
    tenant: cgrates.org
    origin_host: node1
    on_down: allow
    timeout: 500ms
    update: 1m
    sync: off
    fields: {Category: call}
    options: {'*x': y}
    flags: [GetAttributes]
"""
    settings = read_settings("o.yml", text, {}).services["cgrates"].model_dump()
    assert settings == {
        "address": (("a", 2014), ("b", 2012)), "tenant": "cgrates.org", "origin_host": "node1", "on_down": "allow",
        "timeout": 0.5, "update": 60.0, "sync": False, "fields": {"Category": "call"}, "options": {"*x": "y"},
        "flags": ("GetAttributes",),
    }  # fmt: skip
