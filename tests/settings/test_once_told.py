"""Each mistake of a configuration is told once, at its own place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.settings import read_settings
from orchestrator.site import check_site

UNSET = """\
freeswitch: {fs1: {host: 127.0.0.1, password: {env: A_ESL}}}
push:
  services:
    fcm: {account: {env: A_FCM}}
services:
  amqp_in: {queue: q, password: {env: A_QUEUE}}
  hep: {address: {env: A_HOMER}}
sinks:
  hook: {type: webhook, url: {env: A_URL}, secret: {env: A_SECRET}, events: [registered]}
location: {env: A_STORE}
"""


def test_an_unset_variable_is_one_message() -> None:
    with pytest.raises(InputError) as raised:
        read_settings("a.yml", UNSET, {})
    told = [str(diagnostic) for diagnostic in raised.value.diagnostics]
    assert len(told) == 7 and all("is not set" in line for line in told), told


def test_what_is_missing_beside_an_unset_variable_is_told() -> None:
    text = "services:\n  amqp_in: {password: {env: A_QUEUE}, prefetch: 0}\n"
    with pytest.raises(InputError) as raised:
        read_settings("a.yml", text, {})
    told = [str(diagnostic) for diagnostic in raised.value.diagnostics]
    assert told == [
        "a.yml:2:12: error E115: a key is missing here",
        "a.yml:2:29: error E106: environment variable A_QUEUE is not set",
        "a.yml:2:49: error E106: '0' is too small",
    ]


EVENTS = "flowlang: 1\nevents:\n  door_open: {door: text}\nflows: {f: {on: door_open, do: [log: x]}}\n"


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ("door_open", []),
        ("'*'", []),
        ("['door_*', cdr]", ["a.yml:2:42: error E112: no event 'cdr' that others may raise"]),
        ("[door_opne]", ["a.yml:2:32: error E112: no event 'door_opne' that others may raise"]),
        ("door_opne", ["a.yml:2:31: error E112: no event 'door_opne' that others may raise"]),
        ("registered", ["a.yml:2:31: error E112: the server raises 'registered' itself, others may not"]),
        ("['gate_*']", ["a.yml:2:32: error E112: no event fits 'gate_*' that others may raise"]),
    ],
)
def test_events_of_amqp_in_are_events_that_others_may_raise(tmp_path: Path, events: str, told: list[str]) -> None:
    flow = tmp_path / "door.flow.yaml"
    flow.write_text(EVENTS)
    settings = read_settings("a.yml", f"services:\n  amqp_in: {{queue: q, events: {events}}}\nflows: [{flow}]\n", {})
    found, _ = check_site(settings, {})
    assert [str(diagnostic) for diagnostic in found] == told
    if "opne" in events:
        assert "door_open" in found[0].help
