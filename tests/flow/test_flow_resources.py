"""Sections other than flows: what they become, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from flowcheck import codes, load, said

from orchestrator.flow.language.schedules import Schedule


def loaded(section: str) -> Any:
    return load(f"flowlang: 1\n{section}\n").resources


def test_servers_gateways_and_users_are_plain_values_with_references_to_secrets() -> None:
    found = loaded(
        "freeswitch: {fs1: {host: 10.0.0.1, port: 8022, password: {env: ESL}, sip: 'sip:10.0.0.1:5080'}}\n"
        "gateways: {telco: {uri: 'sip:t.example.net', user: 007, password: {file: /run/pw}, realm: r}}\n"
        "users: {local: {file: users.yaml}, remote: {http: 'https://u.example/'}}"
    )
    assert found.freeswitch["fs1"] == {
        "host": "10.0.0.1",
        "port": 8022,
        "password": {"env": "ESL"},
        "sip": "sip:10.0.0.1:5080",
    }
    assert found.gateways["telco"] == {
        "uri": "sip:t.example.net",
        "user": "007",
        "password": {"file": "/run/pw"},
        "realm": "r",
    }
    assert found.users["local"] == {"file": "users.yaml"}


def test_plain_password_is_kept_as_written() -> None:
    assert loaded("freeswitch: {f: {host: h, password: 0123}}").freeswitch["f"]["password"] == "0123"


def test_secrets_are_references_only() -> None:
    assert loaded("secrets: [A, B]").secrets == {"A": {"env": "A"}, "B": {"env": "B"}}
    assert loaded("secrets: {A: {env: X}, B: {file: /f}}").secrets == {"A": {"env": "X"}, "B": {"file": "/f"}}
    assert codes("flowlang: 1\nsecrets: {A: cleartext}") == ["E103"]
    assert codes("flowlang: 1\nsecrets: [A, A]") == ["E104"]


def test_groups_keep_leading_zeros() -> None:
    assert loaded("groups: {sales: [101, 0102, '*8'], none: []}").groups == {"sales": ("101", "0102", "*8"), "none": ()}


def test_endpoints_are_compiled_and_may_hold_secrets() -> None:
    found = loaded(
        "secrets: [KEY]\nconst: {host: push.example.com}\n"
        "endpoints: {push: {url: 'https://${const.host}/', headers: {A: 'key=${secrets.KEY}'},\n"
        "            timeout: 2s, retries: 2}}"
    ).endpoints["push"]
    env = {"secrets": {"KEY": "k"}, "const": {"host": "h"}}
    assert found["url"].evaluate(env) == "https://h/"
    assert found["headers"]["A"].evaluate(env) == "key=k"
    assert (found["timeout"], found["retries"]) == (2.0, 2)


def test_endpoint_names_what_it_does_not_know() -> None:
    assert codes("flowlang: 1\nendpoints: {p: {url: 'https://${secrets.KEY}/'}}") == ["E206"]


def test_order_of_sections_does_not_matter() -> None:
    text = "flowlang: 1\nflows: {f: {on: due, do: [{http: {endpoint: p}}]}}\nendpoints: {p: {url: '${const.u}'}}\n"
    assert codes(text + "events: {due: {n: digits}}\nconst: {u: 'https://a.example/'}") == []


def test_defaults_are_plain_values() -> None:
    found = loaded(
        "defaults: {ring: 20s, http_timeout: 2s, replies: {wait.timeout: 408, '*': 500}, limits: {steps: 9, grace: 2s}}"
    )
    assert found.defaults == {
        "ring": 20.0,
        "http_timeout": 2.0,
        "replies": {"wait.timeout": 408, "*": 500},
        "limits": {"steps": 9, "grace": 2.0},
    }


def test_schedules_are_ready_to_be_asked() -> None:
    found = loaded(
        "schedules: {o: {timezone: Europe/Berlin, open: {mon-thu: [09:00-12:00, 13:00-17:30]},\n"
        "            closed: 2026-12-24..2026-12-26}}"
    ).schedules["o"]
    assert isinstance(found, Schedule)
    assert found.hours == {day: [(540, 720), (780, 1050)] for day in range(4)}
    assert len(found.closed) == 1


def test_fixed_values_take_no_expressions() -> None:
    assert said("flowlang: 1\ngateways: {t: {uri: 'sip:${const.x}'}}\ngroups: {g: ['${const.x}']}") == [
        "2:21 E106 uri: takes a fixed value, not ${...}",
        "3:14 E106 an extension is a fixed value here, not ${...}",
    ]


@pytest.mark.parametrize("section", ["gateways", "freeswitch", "events", "const", "endpoints", "secrets", "flows"])
def test_empty_sections_are_empty(section: str) -> None:
    assert codes(f"flowlang: 1\n{section}:\n") == []


def test_custom_events_may_have_optional_attributes_and_none() -> None:
    program = load("flowlang: 1\nevents: {a: {x: optional digits, y: contacts}, b: }")
    assert program.events["a"].attributes["x"].optional
    assert program.events["b"].attributes == {}
