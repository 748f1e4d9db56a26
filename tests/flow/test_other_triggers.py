"""What the checker says of flows that take requests which begin no call."""

from __future__ import annotations

import pytest

from orchestrator.errors import InputError
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.tools.graph import graph_of, mermaid
from orchestrator.flow.tools.schema import flow_schema

HEAD = "flowlang: 1\nfreeswitch: {fs1: {host: h, port: 8021, password: x}}\nendpoints: {push: {url: 'https://a.example'}}\n"


def told(steps: str, kind: str = "message", rest: str = "") -> list[tuple[int, str, str]]:
    text = f"{HEAD}flows:\n  main:\n    on: {kind}\n    do:\n{steps}{rest}"
    try:
        _, found = load_sources([Source("t.flow.yaml", text)])
    except InputError as error:
        found = list(error.diagnostics)
    return [(diagnostic.line - 8, diagnostic.code, diagnostic.message) for diagnostic in found]


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_may_stand_in_such_a_flow(kind: str) -> None:
    steps = (
        "      - http: {endpoint: push, method: POST, json: {text: '${request.body}', who: '${request.from.aor}'}}\n"
        "      - relay: {to: registered, headers: {X-A: b}}\n        as: sent\n"
        "        on: {else: [reply: {code: 202, headers: {X-Why: '${request.content_type ?? \"?\"}'}}]}\n"
    )
    assert told(steps, kind) == []
    assert kind in flow_schema()["definitions"]["flow"]["properties"]["on"]["examples"]


@pytest.mark.parametrize(
    "step", ["hangup: no", "inject: 'sip:a@example.com'", "answer", "play: {file: a.wav}", "cancel: all"]
)
def test_steps_of_calls_are_refused(step: str) -> None:
    [(line, code, message)] = told(f"      - {step}\n")
    assert (line, code) == (0, "E303") and "runs on message" in message


def test_register_stays_with_register_and_relay_away_from_it() -> None:
    assert told("      - register\n") == [(0, "E303", "register: needs a REGISTER, but this flow runs on message")]
    assert (0, "E303", "relay: needs a call, but this flow runs on register") in told(
        "      - relay: registered\n", "register"
    )


@pytest.mark.parametrize("key", ["via: fs1", "ring: 3s", "each: 3s", "keep_open: 3s"])
def test_keys_of_relay_that_need_a_call(key: str) -> None:
    name = key.partition(":")[0]
    assert told(f"      - relay: {{to: registered, {key}}}\n") == [
        (0, "E303", f"relay: {name}: needs a call, but this flow runs on message")
    ]


def test_after_an_answer_there_is_no_second_one() -> None:
    assert [code for _, code, _ in told("      - reply: 200\n      - reply: 404\n")] == ["E302"]
    [(line, code, message)] = told("      - relay: registered\n      - reply: 404\n")
    assert (line, code, message) == (1, "W301", "the request may already be answered when this reply: runs")


@pytest.mark.parametrize("kind", [*REQUESTS, "register"])
def test_a_provisional_reply_is_for_calls_only(kind: str) -> None:
    """RFC 4320 §4.1: nothing but 100, which the engine sends."""
    [(line, code, message)] = told("      - reply: 180\n      - reply: 200\n", kind)
    assert (line, code) == (0, "E303") and "180 is provisional" in message


def test_call_is_not_known_and_what_comes_from_outside_is() -> None:
    [(_, code, message)] = told("      - log: '${call.id}'\n")
    assert code == "E205" and "call" in message
    [(_, code, _)] = told("      - relay: '${request.body}'\n")
    assert code == "E212"
    [(_, code, _)] = told("      - http: '${request.body}'\n")
    assert code == "E212"


def test_a_sub_flow_may_relay_for_a_call_and_for_a_request() -> None:
    both = "  sub: {do: [relay: registered]}\n  calls: {on: invite, do: [call: sub]}\n"
    assert told("      - call: sub\n", rest=both) == []
    assert [code for _, code, _ in told("      - call: sub\n", rest="  sub: {do: [hangup: no]}\n")] == ["E303"]


def test_the_second_flow_is_never_reached_and_others_are() -> None:
    rest = "  more: {on: message, do: [reply: 200]}\n  other: {on: refer, do: [reply: 200]}\n"
    [(_, code, message)] = told("      - reply: 200\n", rest=rest)
    assert code == "W305" and "every MESSAGE" in message


def test_a_misspelt_one_is_named() -> None:
    [(_, code, message)] = told("      - reply: 200\n", "mesage")
    assert (code, message) == ("E112", "unknown trigger 'mesage'")


def test_the_graph_names_the_trigger() -> None:
    program, _ = load_sources([Source("t.flow.yaml", "flowlang: 1\nflows: {m: {on: message, do: [reply: 200]}}")])
    assert "on message" in mermaid(graph_of(program.flows[0]))
