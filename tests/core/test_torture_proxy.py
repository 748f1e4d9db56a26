"""Difficult messages through the whole core, one by one: what it answers, what it sends on, what it must not do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torture_stage import MESSAGES, OWN, RFC, V6, Stage, does

from orchestrator.sip.message import Response, build_response, parse_message
from orchestrator.testing.world import PROXY

pytestmark = pytest.mark.torture


# --- every message ----------------------------------------------------------------------------------------------------


def test_the_corpora_are_complete() -> None:
    assert len(OWN) == 64
    assert len(RFC) in (0, 49 + 12)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_verdict_is_that_of_the_index(name: str) -> None:
    stage = Stage(name)
    assert stage.outcome in stage.message.outcomes
    for forbidden in stage.message.verdict.get("must_not", ()):
        assert not does(stage, forbidden), forbidden


@pytest.mark.parametrize("name", MESSAGES)
def test_nothing_remains_of_it(name: str) -> None:
    stage = Stage(name)
    stage.world.run(70.0)
    assert not any(stage.world.leftovers().values())
    for _, data in stage.out:
        if stage.message.verdict["valid"] == "valid":
            parse_message(data)


@pytest.mark.parametrize("name", MESSAGES)
def test_its_repetition_is_no_second_request(name: str) -> None:
    stage = Stage(name)
    before = len(stage.forwarded), len(stage.world.location)
    stage.deliver(stage.message.data)
    assert (len(stage.forwarded), len(stage.world.location)) == before


PASSED_ON = [n for n, m in MESSAGES.items() if m.outcomes == {"routed"} and m.verdict.get("method") != "REGISTER"]


@pytest.mark.parametrize("name", PASSED_ON)
def test_an_answer_finds_its_way_back_with_every_via(name: str) -> None:
    """What the sender wrote into its Vias comes back octet for octet, but for the source we noted in the first."""
    stage = Stage(name)
    copy = stage.copy
    vias = [via.tail for via in copy.vias()[1:]]
    copy_to = next(target for target, data in stage.out if not data.startswith(b"SIP/2.0 "))
    home = (V6.host, V6.port) if ":" in copy_to[0] else PROXY
    stage.world.deliver(build_response(copy, 404, "Not Found", b"t"), copy_to, home)
    stage.world.run()
    status, octets = next(item for item in stage.answers if item[0] >= 200)
    answer = parse_message(octets)
    assert status == 404
    assert isinstance(answer, Response)
    assert [via.tail for via in answer.vias()] == vias
    assert (answer.call_id, answer.cseq, answer.cseq_method) == (copy.call_id, copy.cseq, copy.cseq_method)


def test_what_is_answered_400_names_the_reason_and_never_us() -> None:
    for name, message in MESSAGES.items():
        for status, data in Stage(name).answers:
            if status >= 300:
                phrase = data.split(b"\r\n")[0].split(b" ", 2)[2]
                assert re.fullmatch(rb"[A-Za-z0-9 *-]+", phrase), (name, phrase)
                assert b"Traceback" not in data
                assert len(data) < 1.2 * len(message.data) + 100


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_cut_off_anywhere_is_refused_or_ignored(name: str) -> None:
    stage = Stage(name)
    stage.world.sent.clear()
    head = stage.message.data.find(b"\r\n\r\n")
    for end in range(5, head if head > 0 else len(stage.message.data), 7):
        stage.deliver(stage.message.data[:end])
    assert stage.forwarded == []
    assert {status for status, _ in stage.answers} <= {400, 505}


# --- what our own messages are understood as --------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A part of a parsed message as JSON has it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def part(message: Any, path: str) -> Any:
    """`to.tag`, `vias.host` (a list: of each), `get:subject` (a header), `len:body`; as JSON has it."""
    if path.startswith("get:"):
        return plain(message.get(path[4:].encode()))
    if path.startswith("len:"):
        return len(getattr(message, path[4:]))
    value = message
    for name in path.split("."):
        if isinstance(value, list | tuple):
            value = [getattr(item, name) for item in value]
        else:
            value = getattr(value, name)
            value = value() if callable(value) else value
    return plain(value)


def parts(message: Any, verdict: dict[str, Any]) -> dict[str, Any]:
    return {path: part(message, path) for path in verdict}


def with_verdict(key: str) -> list[str]:
    return [name for name, message in OWN.items() if key in message.verdict]


@pytest.mark.parametrize("name", with_verdict("reads"))
def test_the_message_is_read_as_the_index_says(name: str) -> None:
    expected = OWN[name].verdict["reads"]
    assert parts(parse_message(OWN[name].data), expected) == expected


@pytest.mark.parametrize("name", with_verdict("copy"))
def test_the_copy_is_what_the_index_says(name: str) -> None:
    expected = OWN[name].verdict["copy"]
    assert parts(Stage(name).copy, expected) == expected


@pytest.mark.parametrize("name", with_verdict("bindings"))
def test_the_registrar_keeps_the_contacts_of_the_index(name: str) -> None:
    kept = sorted(binding.contact.decode() for binding in Stage(name).world.location)
    assert kept == sorted(OWN[name].verdict["bindings"])
