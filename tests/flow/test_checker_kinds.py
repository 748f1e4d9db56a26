"""Values by kind, for every key of every action: what is taken, what is refused, and that the schema agrees."""

from __future__ import annotations

import re
from collections.abc import Iterator

import jsonschema
import pytest
from flowcheck import codes, diagnose, first_step, steps, value
from schemacheck import as_editor_reads

from orchestrator.flow import actions as _actions  # noqa: F401
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.language.written import filled_flaw, number_flaw
from orchestrator.flow.tools.schema import flow_schema

VALIDATOR = jsonschema.Draft7Validator(flow_schema())

MORE = """
events: {pickup: {picker: digits}}
gateways: {telco: {uri: 'sip:t.example.net'}}
freeswitch: {fs1: {host: h, password: p}}
users: {local: {file: users.yaml}}
endpoints: {push: {url: 'https://push.example.com/'}}
"""

GOOD: dict[Kind, tuple[str, ...]] = {
    Kind.TEXT: ("hello", "5", "'5'", "true", "'a ${call.id}'", "${call.id}", "'$${x}'", "''", "0049"),
    Kind.CONDITION: ("call.answered", "true", "not call.answered", "call.to.user == 'a' or call.answered"),
    Kind.EXPRESSION: ("call.to.user", "5", "'\"text\"'"),
    Kind.VALUE: ("5", "text", "[1, {a: null}]", "{a: {b: [true]}}", "${call.duration}", "'x ${call.id}'"),
    Kind.NUMBER: ("0", "5", "${size(call.id)}"),
    Kind.BOOLEAN: ("true", "false", "${call.answered}"),
    Kind.DURATION: ("500ms", "30s", "1.5s", "10m", "2h", "${call.duration}"),
    Kind.STATUS: ("100", "404", "699", "${size(call.id)}"),
    Kind.DESTINATION: (
        "'sip:a@b.c'",
        "${call.target.uri}",
        "['sip:a@b.c', '${call.target.aor}']",
    ),
    Kind.FAILOVER: ("408", "5xx", "[408, 5xx]"),
    Kind.STEPS: ("[stop]", "[{log: x}, stop]", "{log: x}", "[]"),
    Kind.MAP: ("{}", "{a: 1}", "{a: '${call.id}', b: text}"),
    Kind.LIST: ("one", "[one, two]", "['${call.id}']", "${call.id}"),
    Kind.NAME: ("word", "a-b"),
    Kind.GATEWAYS: ("telco", "[telco, telco]"),
    Kind.SERVER: ("fs1",),
    Kind.USERS: ("local",),
    Kind.ENDPOINT: ("push",),
}

BAD: dict[Kind, tuple[str, ...]] = {
    Kind.TEXT: ("[a]", "{a: b}", "", "'${nobody}'", "'${call.id'"),
    Kind.CONDITION: ("call.id", "5", "[true]", "'${call.answered}'", "''", "nobody"),
    Kind.EXPRESSION: ("{a: b}", "''", "nobody", "1 +"),
    Kind.VALUE: ("'${nobody}'", "['${nobody}']", "{a: '${nobody}'}"),
    Kind.NUMBER: ("five", "5s", "1.5", "'05'", "-1", "[5]", "${call.id}"),
    Kind.BOOLEAN: ("yes", "1", "[true]", "${call.id}"),
    Kind.DURATION: ("30", "30 s", "1:30", "soon", "[30s]", "${size(call.id)}"),
    Kind.STATUS: ("99", "700", "OK", "4xx", "[404]", "${call.id}"),
    Kind.DESTINATION: ("bob", "bob@b.c", "{a: b}", "${size(call.id)}", "['sip:a@b.c', bob]"),
    Kind.FAILOVER: ("5x", "1000", "never", "[408, never]", "{a: b}"),
    Kind.STEPS: ("stop", "[5]", "[[stop]]", "text"),
    Kind.MAP: ("text", "[a]", "{a: '${nobody}'}"),
    Kind.LIST: ("{a: b}", "['${nobody}']"),
    Kind.NAME: ("[a]", "'${call.id}'", ""),
    Kind.GATEWAYS: ("telc", "[telco, telc]", "${call.id}", "{a: b}"),
    Kind.SERVER: ("fs2", "[fs1]", "${call.id}"),
    Kind.USERS: ("locl", "[local]"),
    Kind.ENDPOINT: ("psh", "[push]"),
}

NEEDED = {
    "code": "404",
    "to": "'sip:a@b.c'",
    "branches": "all",
    "server": "fs1",
    "file": "x.wav",
    "max": "4",
    "what": "fax",
    "command": "status",
    "app": "echo",
    "url": "'https://a.example/'",
    "account": "bob",
    "realm": "example.com",
    "aor": "bob@example.com",
    "value": "call.to.user",
    "in": "call.branches",
    "times": "2",
    "message": "no",
    "for": "5s",
    "text": "x",
    "do": "[{log: x}]",
    "cases": "{a: [{log: x}]}",
    "event": "dtmf",
    "flow": "sub",
    "id": "there",
}
"""A right value for each key that an action cannot be without."""

SPECIAL = {"set", "call", "first_of", "parallel", "raise", "return", "unsubscribe", "try"}
"""Actions whose keys are names of the file itself: tested by hand elsewhere."""


def step_with(action: Action, field: Field, given: str) -> str:
    """A step of this action in which one key has this value and the others that are needed have a right one."""
    written = {known.name: NEEDED[known.name] for known in (*action.fields, *action.beside) if known.required}
    if action.name == "detect" and field.name != "what":
        written["what"] = "decision"  # it has every key
    if action.name == "relay" and field.name not in ("to", "aor", "gateways"):
        written.update({"gateways": "telco"} if field.name == "number" else {"to": "registered"})
    if action.name == "inject" and field.name not in ("to", "aor"):
        written["aor"] = "a@b.c"
    if action.name == "http" and field.name not in ("url", "endpoint"):
        written["url"] = NEEDED["url"]
    if action.name == "http" and field.name == "url":
        written["endpoint"] = "push"
    if action.name == "push":
        written["to"] = NEEDED["aor"]
    if action.name == "originate":
        written["gateway"] = "telco"
    if field.name in ("on_expire", "on_timeout"):
        written["for"] = "5s"
    if field.name == "trust":
        given = given.replace("one", "10.0.0.5").replace("two", "192.168.0.0/16")
    if field.name == "auth":
        given = given.replace("{a:", "{user:").replace("b: text", "password: text")
    if field.name == "name":
        written["event"] = "fs"
    elif action.name == "wait" and field.name != "for" and "for" not in written:
        written["for"] = "5s"
    written[field.name] = given
    return f"- {action.name}: {{{', '.join(f'{name}: {text}' for name, text in written.items())}}}"


def _suits(field: Field, given: str) -> bool:
    """Whether a text of no particular form is right for this key: not for one that takes an address."""
    check = field.check or (number_flaw if field.name == "to" and field.kind is Kind.TEXT else None)
    return check is None or filled_flaw(given.strip("'"), check) is None


def combinations(samples: dict[Kind, tuple[str, ...]]) -> Iterator[tuple[str, str, str]]:
    for action in ACTIONS:
        for field in (*action.fields, *action.beside):
            if action.name not in SPECIAL:
                for given in samples.get(field.kind, ()):
                    if not (field.name in ("item", "type") and given == "a-b") and _suits(field, given):
                        yield action.name, field.name, given


def written(action: str, name: str, given: str) -> str:
    """The file, in flow style: a `${…}` alone needs quotes there."""
    field = ACTIONS[action].field(name)
    assert field is not None
    quoted = f"'{given}'" if given.startswith("${") else given
    on = "register" if ACTIONS[action].needs == "register" else "invite"
    text = step_with(ACTIONS[action], field, quoted)
    if on == "register":
        text = text.replace("call.id", "request.id").replace("call.answered", "request.id == ''")
        text = text.replace("${call.duration}", "30s").replace("'30s'", "30s")
    text = text.replace("failover_on:", "mode: serial, failover_on:")  # which is of no use without
    return steps(text, on, MORE)


ABOUT_TYPES = {"foreach": "in", "switch": "value"}
"""Keys that want a certain type of value."""


@pytest.mark.parametrize(("action", "name", "given"), list(combinations(GOOD)))
def test_right_value_is_taken_by_check_and_schema(action: str, name: str, given: str) -> None:
    if ABOUT_TYPES.get(action) == name:
        return
    text = written(action, name, given)
    assert [d for d in diagnose(text) if d.severity == "error"] == []
    assert [error.message for error in VALIDATOR.iter_errors(as_editor_reads(text))] == []


@pytest.mark.parametrize(("action", "name", "given"), list(combinations(BAD)))
def test_wrong_value_is_refused(action: str, name: str, given: str) -> None:
    found = [d for d in diagnose(written(action, name, given)) if d.severity == "error"]
    assert found, "nothing is said"
    assert len(found) == 1, [d.message for d in found]
    assert found[0].line == 6


@pytest.mark.parametrize(
    ("action", "field"),
    [(a.name, f) for a in ACTIONS for f in (*a.fields, *a.beside) if f.kind is Kind.ENUM and a.name not in SPECIAL],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
def test_choices(action: str, field: Field) -> None:
    for given in field.values:
        text = steps(step_with(ACTIONS[action], field, given), more=MORE)
        assert [d.message for d in diagnose(text) if d.severity == "error"] == []
        assert list(VALIDATOR.iter_errors(as_editor_reads(text))) == []
    text = steps(step_with(ACTIONS[action], field, "nonsense"), more=MORE)
    (found,) = (d for d in diagnose(text) if d.severity == "error")
    assert found.message == f"unknown value for {field.name}: 'nonsense'"
    assert found.help == f"possible values: {', '.join(field.values)}"
    assert list(VALIDATOR.iter_errors(as_editor_reads(text)))


def test_every_kind_has_samples_or_a_reason() -> None:
    structural = {
        Kind.OUTCOMES,
        Kind.BRANCHES,
        Kind.CASES,
        Kind.CATCHES,
        Kind.EVENT,
        Kind.WHERE,
        Kind.DATA,
        Kind.ASSIGN,
    }
    elsewhere = {Kind.ENUM, Kind.FLOW, Kind.SUBSCRIPTION, Kind.NOTHING, Kind.SECRET}
    assert set(GOOD) == set(BAD) == set(Kind) - structural - elsewhere


def test_every_action_can_be_left_bare_or_says_what_it_needs() -> None:
    for action in ACTIONS:
        on = "register" if action.needs == "register" else "invite"
        text = f"- repeat: {{times: 1, do: [{action.name}]}}" if action.needs == "loop" else f"- {action.name}"
        found = [d for d in diagnose(steps(text, on)) if d.severity == "error"]
        needs = any(field.required for field in (*action.fields, *action.beside))
        if needs or action.name in ("relay", "inject", "http"):
            assert [d.code for d in found] == ["E115"], action.name
            assert re.match(rf"{re.escape(action.name)}: needs ", found[0].message)
        else:
            assert found == [], action.name


# --- single kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30.0), ("1.5s", 1.5), ("10m", 600.0), ("2h", 7200.0), ("0s", 0.0)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert value(first_step(f"- sleep: {text}"), "for") == seconds


def test_number_without_a_unit_gets_one_as_help() -> None:
    (found,) = diagnose(steps("- sleep: 45"))
    assert found.help == "write 45s"


def test_text_of_a_number_is_text() -> None:
    assert value(first_step("- log: 0049"), "text") == "0049"
    assert value(first_step("- log: ${size(call.id)}"), "text", call={"id": "abc"}) == "3"


def test_block_text_keeps_its_lines() -> None:
    assert value(first_step("- log: |\n    one\n    two"), "text") == "one\ntwo\n"


def test_optional_value_in_text_is_refused_at_its_place() -> None:
    (found,) = diagnose(steps("- log: >\n    some\n    ${call.user} here"))
    assert (found.code, found.line, found.column) == ("E208", 8, 13)


def test_secrets_reach_http_only() -> None:
    more = "secrets: [KEY]"
    for key in ("body: 'x ${secrets.KEY}'", "json: {a: '${secrets.KEY}'}", "headers: {A: '${secrets.KEY}'}"):
        assert codes(steps(f"- http: {{url: 'https://a.example/', {key}}}", more=more)) == []
    assert codes(steps("- http: 'https://a.example/${secrets.KEY}'", more=more)) == []
    for text in (
        "- log: '${secrets.KEY}'",
        "- log: x\n  if: secrets.KEY == 'x'",
        "- relay: 'sip:a@b.c'\n  note: '${secrets.KEY}'",
    ):
        assert codes(steps(text, more=more)) == ["E211"]


def test_header_fields_of_the_engine_are_refused_in_sip_and_allowed_in_http() -> None:
    assert codes(steps("- reply: {code: 404, headers: {Contact: x}}")) == ["E106"]
    assert codes(steps("- reply: {code: 404, headers: {X-Contact: x, Retry-After: 5}}")) == []
    assert codes(steps("- http: {url: 'https://a.example/', headers: {From: x}}")) == []
