"""The JSON Schema: what an editor accepts, refuses and offers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from flowcheck import steps
from schemacheck import as_editor_reads

from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.language.sections import SECTIONS
from orchestrator.flow.tools.schema import flow_schema

SCHEMA = flow_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def problems(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(as_editor_reads(text))]


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_it_is_a_draft_07_schema_of_bounded_size() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert len(json.dumps(SCHEMA)) < 80_000


def test_it_has_no_alternatives_an_editor_cannot_explain() -> None:
    assert not [node for node in walk(SCHEMA) if "oneOf" in node or "anyOf" in node]


def test_it_is_the_same_each_time() -> None:
    assert json.dumps(flow_schema()) == json.dumps(SCHEMA)


def test_it_knows_every_section_action_and_event() -> None:
    assert set(SCHEMA["properties"]) == set(SECTIONS)
    step = SCHEMA["definitions"]["step"]
    names = step["propertyNames"]["enum"]
    actions = [action.name for action in ACTIONS]
    assert names[: len(actions)] == actions
    assert step["properties"]["subscribe"]["examples"] == [event.name for event in BUILTIN_EVENTS]
    assert all(step["properties"][name]["description"] for name in actions)


@pytest.mark.parametrize(
    "text",
    [
        "- stop",
        "- stop:",
        "- reply: 404",
        "- reply: {code: 404, reason: no, headers: {X-A: 1}}",
        "- reply: ${vars.code}",
        "- relay: {to: [registered, 'sip:a@b.c'], ring: 30s}\n  on: {'busy, rejected': [stop], else: [stop]}",
        "- relay: {gateways: telco, failover_on: [408, 5xx]}",
        "- subscribe: pickup\n  where: {group: sales}\n  do: [stop]",
        "- subscribe: dtmf\n  where: event.leg == 'callee'\n  do: {hangup: x}",
        "- subscribe: {event: dtmf, where: {leg: callee}, do: [stop]}",
        "- first_of: [{wait: dtmf, where: {leg: caller}, do: [stop]}, {after: 5s}]",
        "- parallel: [[stop], [{log: x}]]",
        "- foreach: [201, 202]\n  do: [log: '${item}']",
        "- switch: told.delivered\n  cases: {'0': [stop]}",
        "- try: [stop]\n  catch: [{error: http.*, do: [stop]}]",
        "- detect: {what: fax, for: 6s}",
        "- detect: fax",
        "- set: {n: 1, list: [1]}",
        "- return: {a: [1]}",
        "- http: {url: x, json: {a: [1, {b: null}]}, background: true}",
        "- log: 5\n  if: true\n  on_error: continue",
        "- charge: alice",
        "- charge: {account: a, destination: b, tenant: t, type: postpaid, max: 2h}\n  timeout: 2s\n"
        "  on: {granted: [], 'denied, error': [{reply: 402}, stop]}",
    ],
)
def test_right_steps_are_accepted(text: str) -> None:
    assert problems(steps(text)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- relya: registered", "'relya' is not one of"),
        ("- brake", "'brake' does not match"),
        ("- reply: 99", "99 is less than the minimum"),
        ("- reply: {code: 404, reson: x}", "'reson' was unexpected"),
        ("- relay: {aorr: x}", "'aorr' was unexpected"),
        ("- relay: {to: registered, mode: all}", "'all' is not one of"),
        ("- relay: registered\n  on: {anwered: [stop]}", "'anwered' does not match"),
        ("- sleep: 30", "30 is not of type 'string'"),
        ("- sleep: 1:30", "does not match"),
        ("- detect: vax", "'vax' does not match"),
        ("- log: x\n  for: 5s", "'for' is not one of"),
        ("- subscribe: registered\n  where: {aorr: x}\n  do: [stop]", "'aorr' was unexpected"),
        ("- subscribe: dtmf\n  where: {leg: calee}\n  do: [stop]", "'calee' is not one of"),
        ("- wait: dtmf\n  where: {digits: 2}", "'digits' was unexpected"),
        ("- first_of: [{wait: dtmf, where: {leg: x}}]", "'x' is not one of"),
        ("- first_of: [{after: 5s, for: 5s}]", "'for' was unexpected"),
        ("- http: {url: x, background: maybe}", "'maybe' does not match"),
        ("- charge: {account: a, type: prepayed}", "'prepayed' is not one of"),
        ("- charge: {account: a, max: 90}", "90 is not of type 'string'"),
        ("- charge: {account: a, maxx: 2h}", "'maxx' was unexpected"),
        ("- charge: {account: a}\n  on: {refused: [stop]}", "'refused' does not match"),
    ],
)
def test_wrong_steps_are_refused(text: str, says: str) -> None:
    found = problems(steps(text))
    assert any(says in message for message in found), found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "'flowlang' is a required property"),
        ("flowlang: 2", "1 was expected"),
        ("flowlang: 1\nflow: {}", "'flow' was unexpected"),
        ("flowlang: 1\ngateways: {t: {user: x}}", "'uri' is a required property"),
        ("flowlang: 1\nflows: {f: {on: invite}}", "'do' is a required property"),
        ("flowlang: 1\nflows: {f: {od: invite, do: []}}", "'od' was unexpected"),
        ("flowlang: 1\nflows: {f: {on: {evnt: x}, do: []}}", "'evnt' was unexpected"),
        ("flowlang: 1\nfreeswitch: {f: {host: h, password: {evn: X}}}", "'evn' was unexpected"),
        ("flowlang: 1\nschedules: {s: {opn: {}}}", "'opn' was unexpected"),
        ("flowlang: 1\ndefaults: {limits: {stps: 5}}", "'stps' was unexpected"),
    ],
)
def test_wrong_sections_are_refused(text: str, says: str) -> None:
    found = problems(text)
    assert any(says in message for message in found), found


def test_keys_offered_depend_on_the_action() -> None:
    rules = {
        rule["if"]["required"][0]: rule["then"]
        for rule in SCHEMA["definitions"]["step"]["allOf"]
        if "propertyNames" in rule["then"]
    }
    assert set(rules) == {action.name for action in ACTIONS}
    assert rules["log"]["propertyNames"]["enum"] == ["log", "if", "as", "id", "on_error", "timeout", "note"]
    assert {"where", "for", "limit", "unique_by", "run", "do"} <= set(rules["subscribe"]["propertyNames"]["enum"])
    assert rules["charge"]["propertyNames"]["enum"][:2] == ["charge", "on"]
    assert rules["subscribe"]["properties"]["run"]["enum"] == ["queue", "parallel", "drop", "restart"]


def test_what_is_offered_for_charge() -> None:
    fields = SCHEMA["definitions"]["step"]["properties"]["charge"]
    assert "CGRateS" in fields["description"]
    assert list(fields["properties"]) == ["account", "destination", "tenant", "type", "max", "on"]
    assert fields["properties"]["type"]["enum"] == ["prepaid", "postpaid", "pseudoprepaid", "rated"]
    events = SCHEMA["definitions"]["step"]["properties"]["subscribe"]["examples"]
    assert {"limit_reached", "low_balance", "charge_stop"} <= set(events)


def test_an_action_that_needs_nothing_may_be_left_empty() -> None:
    steps = "".join(f"      - {name}:\n" for name in ("answer", "stop"))
    assert problems(f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n{steps}") == []
    assert problems("flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - reply:\n") != []
