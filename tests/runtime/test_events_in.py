"""Events that others raise: what is understood, who may, and what flows make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import falcon
import falcon.testing
import pytest

from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.received import MOST_OCTETS, NoRoom, NoSuchCall, NoSuchEvent, Received, read_event
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.testing.api_stage import NODE, TOKEN, ApiStage

FLOW = """flowlang: 1
events:
  door: {number: number, name: optional text, open: optional bool, wait: optional duration, tags: optional list}
flows:
  rings:
    on: {event: door}
    do:
      - log: 'door ${event.number}'
  call:
    on: invite
    do:
      - subscribe: key
        do: [log: 'key ${event.number}']
      - log: '${call.id}'
      - sleep: 10s
      - reply: 486
"""
KEY = EventSpec("key", "A key.", "call", {"number": Attribute("number", "number")})
MAIL = EventSpec("mail", "Mail.", "global", {}, esl=("CUSTOM vm::maintenance",))


class Stage(ApiStage):
    def __init__(self, token: str | None = TOKEN) -> None:
        super().__init__(FLOW, token=token, read_token=None, events=(*BUILTIN_EVENTS, KEY, MAIL))
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)

    def post(self, told: Any, token: str | None = TOKEN, kind: str = "application/json") -> falcon.testing.Result:
        return self.ask("POST", "/events", told, token=token, headers={"Content-Type": kind})


@pytest.fixture
def stage() -> Iterator[Stage]:
    yield Stage()


# --- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"name": "door", "attributes": {"number": 1}}, Received("door", {"number": 1})),
        ({"name": "key", "attributes": {}, "call": "c1"}, Received("key", {}, "c1")),
        ({"name": "door", "written": {"number": "1"}}, Received("door", {"number": "1"}, written=True)),
        ({"jsonrpc": "2.0", "method": "door", "params": {"number": 1}, "id": 7}, Received("door", {"number": 1})),
        (
            {"specversion": "1.0", "id": "x", "type": "door", "source": "/a", "subject": "s", "data": {"number": 1}},
            Received("door", {"number": 1}, "s", "/a", may_be_no_call=True),
        ),
    ],
)
def test_three_forms_are_understood(told: Any, found: Received) -> None:
    assert read_event(json.dumps(told).encode()) == found


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "octets"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "name is missing"),
        (b'{"name": 5}', "name must be text"),
        (b'{"name": ""}', "name must be text"),
        (b'{"name": "door", "atributes": {}}', "there is no key 'atributes'"),
        (b'{"name": "door", "attributes": []}', "attributes must be an object"),
        (b'{"name": "door", "attributes": {}, "written": {}}', "exclude each other"),
        (b'{"name": "door", "call": 7}', "call must be text"),
        (b'{"specversion": "1.0"}', "type is missing"),
        (b'{"jsonrpc": "2.0", "method": "door", "params": [1]}', "params must be an object"),
        (b'"' + b"x" * MOST_OCTETS + b'"', "more than 65536 octets"),
    ],
)
def test_what_is_no_event_is_told_so(told: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_event(told)


# --- what may be raised -----------------------------------------------------------------------------------------------


def test_an_event_starts_a_flow(stage: Stage) -> None:
    assert stage.incoming.take(Received("door", {"number": 7})) == 1
    stage.world.run()
    assert stage.logged == ["door 7"]
    assert stage.incoming.outcomes["raised"] == 1


@pytest.mark.parametrize(
    ("received", "error", "complaint"),
    [
        (Received("dor", {}), NoSuchEvent, "there is no event 'dor'; did you mean 'door'\\?"),
        (Received("registered", {}), NoSuchEvent, "raised by the server"),
        (Received("charge_stop", {"reason": "x"}, "c"), NoSuchEvent, "raised by the server"),
        (Received("mail", {}), NoSuchEvent, "raised by the server"),
        (Received("door", {}), ValueError, "needs attribute 'number'"),
        (Received("door", {"number": "7"}), ValueError, "str is not of type number"),
        (Received("door", {"number": True}), ValueError, "bool is not of type number"),
        (Received("door", {"number": float("nan")}), ValueError, "not a number of the language"),
        (Received("door", {"number": 1, "opn": True}), ValueError, "no attribute 'opn'; did you mean 'open'\\?"),
        (Received("door", {"number": 1, "x": 1}), ValueError, "has no attribute 'x'"),
        (Received("door", {"number": 1}, "c1"), ValueError, "belongs to no call"),
        (Received("key", {"number": 1}), ValueError, "needs the id of its call"),
        (Received("door", {"number": "seven"}, written=True), ValueError, "'seven' is not of type number"),
        (Received("door", {"number": "1", "open": "yes"}, written=True), ValueError, "is not of type bool"),
        (Received("door", {"number": "1", "tags": "[1"}, written=True), ValueError, "is not of type list"),
    ],
)
def test_what_is_wrong_is_refused_and_counted(
    stage: Stage, received: Received, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        stage.incoming.take(received)
    assert stage.incoming.outcomes["invalid"] == 1
    assert stage.logged == []


def test_text_that_a_person_wrote_is_read_by_its_type(stage: Stage) -> None:
    told = {"number": "7", "name": "5", "open": "true", "wait": "1.5", "tags": '["a"]'}
    heard: list[Any] = []
    stage.world.engine.bus.tap("door", lambda event: heard.append(event.attributes))
    stage.incoming.take(Received("door", told, written=True))
    assert heard == [{"number": 7, "name": "5", "open": True, "wait": 1.5, "tags": ["a"]}]


def test_an_event_of_a_call_reaches_that_call(stage: Stage) -> None:
    stage.world.peer("alice", "10.0.0.2").ask("INVITE", "sip:301@example.com")
    stage.world.run(1)
    (call,) = stage.logged
    assert stage.incoming.take(Received("key", {"number": 3}, call, may_be_no_call=True)) == 1
    stage.world.run(1)
    assert stage.logged[1:] == ["key 3"]
    with pytest.raises(NoSuchCall):
        stage.incoming.take(Received("key", {"number": 3}, "another"))
    assert stage.incoming.outcomes["no_call"] == 1


def test_the_subject_of_a_cloud_event_is_not_always_a_call(stage: Stage) -> None:
    assert stage.incoming.take(Received("door", {"number": 1}, "front", may_be_no_call=True)) == 1


def test_without_room_nothing_is_raised(stage: Stage) -> None:
    stage.room = False
    with pytest.raises(NoRoom):
        stage.incoming.take(Received("door", {"number": 7}))
    assert stage.incoming.outcomes["no_room"] == 1


# --- over HTTP --------------------------------------------------------------------------------------------------------

DOOR = {"name": "door", "attributes": {"number": 7}}


def test_a_posted_event_is_raised(stage: Stage) -> None:
    answer = stage.post(DOOR)
    assert (answer.status_code, answer.json) == (200, {"node": NODE, "taken": 1})
    stage.world.run()
    assert stage.logged == ["door 7"]


@pytest.mark.parametrize("token", [None, "", "x", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "\u00fc", TOKEN + "\u00fc"])
def test_who_does_not_bear_the_token_raises_nothing(stage: Stage, token: str | None) -> None:
    answer = stage.post(DOOR, token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orchestrator"'
    assert TOKEN not in answer.text
    assert (stage.access.refused.total(), stage.logged) == (1, [])


def test_without_a_token_in_the_configuration_nobody_raises_anything() -> None:
    stage = Stage(token=None)
    for token in (TOKEN, "", "None", None):
        assert stage.post(DOOR, token).status_code == 403
    assert stage.logged == []


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (b"{", 400),
        ({"name": "door"}, 400),
        ({"name": "dor"}, 404),
        ({"name": "registered"}, 404),
        ({"name": "key", "attributes": {"number": 1}, "call": "c"}, 404),
        (b" " * 70_000, 413),
    ],
)
def test_what_is_wrong_has_its_status(stage: Stage, told: Any, status: int) -> None:
    answer = stage.post(told)
    assert answer.status_code == status
    assert answer.json["title"]


def test_a_form_of_a_page_is_no_event(stage: Stage) -> None:
    assert stage.post(DOOR, kind="text/plain").status_code == 415
    assert stage.post(DOOR, kind="application/json; charset=utf-8").status_code == 200


def test_a_server_without_room_says_when_to_try_again(stage: Stage) -> None:
    stage.room = False
    answer = stage.post(DOOR)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
