"""Histories of calls, their ladders, calls that are over, and streams of events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from orchestrator.api import event_feed, streams
from orchestrator.runtime import admin_connections
from orchestrator.testing.api_stage import TOKEN, ApiStage

FLOWS = """\
flowlang: 1
events:
  door: {front: text}
flows:
  ring_user:
    on: invite
    do:
      - subscribe: door
        do: [log: 'door']
      - relay: registered
"""


class Stage(ApiStage):
    """Alice calls bob."""

    def __init__(self) -> None:
        super().__init__(FLOWS)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.phone("bob@example.com", "10.0.0.3")
        self.bob.register()
        self.world.run()

    def call(self) -> str:
        """The id of a call that rings."""
        self.alice.invite("bob@example.com")
        self.world.run(1)
        return str(self.items("calls")[-1]["id"])

    def follow(self, path: str, **headers: str) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Name, data and id of each event of a stream."""
        if self.admin is None:
            self.serve()
        assert self.admin is not None
        with socket.create_connection(self.admin.address, timeout=30) as sock:
            more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
            head = f"GET /api/v1/{path} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n"
            sock.sendall(f"{head}{more}\r\n".encode())
            with sock.makefile("rb") as stream:
                while stream.readline().strip():
                    pass
                event: dict[str, str] = {}
                for line in stream:
                    text = line.decode().rstrip("\n")
                    if not text and "data" in event:
                        yield event.get("event", ""), json.loads(event["data"]), event.get("id", "")
                    field, _, value = text.partition(": ")
                    event = {**event, field: value} if text else {}


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


# --- one call ---------------------------------------------------------------------------------------------------------


def test_the_history_of_a_call_while_it_lives_and_afterwards(stage: Stage) -> None:
    id = stage.call()
    told = stage.get(f"calls/{id}/history").json
    kinds = [fact["kind"] for fact in told["items"]]
    assert told["live"] and told["dropped"] == 0 and kinds[0] == "message" and "step" in kinds
    assert [arrow["method"] for arrow in stage.get(f"calls/{id}/ladder").json["arrows"]][:2] == ["INVITE", "INVITE"]
    drawn = stage.get(f"calls/{id}/ladder.svg")
    assert drawn.headers["content-type"] == "image/svg+xml" and drawn.text.startswith("<svg ")
    assert stage.get(f"calls/{id}").json["messages"] >= 2
    stage.ask("DELETE", f"calls/{id}")
    stage.world.run(1)
    ended = stage.get(f"calls/{id}").json
    assert (ended["state"], ended["from"], ended["record"]["code"]) == ("ended", "alice@example.com", 480)
    assert not stage.get(f"calls/{id}/history").json["live"]
    assert stage.get(f"calls/{id}/ladder").json["arrows"]


@pytest.mark.parametrize("what", ["history", "ladder", "ladder.svg"])
def test_of_a_call_that_nobody_knows(stage: Stage, what: str) -> None:
    for accept in ("application/json", "text/event-stream"):
        answer = stage.get(f"calls/nobody/{what}", headers={"Accept": accept})
        assert (answer.status_code, answer.json["code"]) == (404, "call.unknown")


def test_calls_that_are_over_are_found(stage: Stage) -> None:
    first, second = stage.call(), stage.call()
    for id in (first, second):
        stage.ask("DELETE", f"calls/{id}")
        stage.world.run(1)
    assert [row["id"] for row in stage.items("archive/calls")] == [second, first]
    assert len(stage.items("archive/calls?of=ALICE&flow=ring_user&code=4")) == 2
    assert stage.items("archive/calls?flow=other") == [] == stage.items("archive/calls?code=200")
    assert stage.items("archive/calls?of=carol") == []
    assert len(stage.items("archive/calls?from=2027-01-15T08:00:00Z&to=2027-01-15T09:00:00")) == 2
    assert stage.items("archive/calls?to=2027-01-15T08:00:00Z") == []
    page = stage.get("archive/calls?limit=1").json
    assert page["total"] == 2 and stage.items(f"archive/calls?cursor={page['next']}")[0]["id"] == first


@pytest.mark.parametrize("query", ["from=yesterday", "to=1", "code=abc", "code=4444", "cursor=%2F%2F", "cursor=x"])
def test_odd_searches_are_refused(stage: Stage, query: str) -> None:
    assert stage.get(f"archive/calls?{query}").json["code"] == "query.invalid"


def test_the_graph_of_a_flow(stage: Stage) -> None:
    assert "<svg" in stage.get("flows/ring_user/graph.svg").text
    assert stage.get("flows/other/graph.svg").json["code"] == "flow.unknown"


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_call_is_followed_to_its_end(stage: Stage) -> None:
    id = stage.call()
    stream = stage.follow(f"calls/{id}/history")
    with gevent.Timeout(30):
        known = [next(stream) for _ in stage.get(f"calls/{id}/history").json["items"]]
        gevent.spawn_later(0.05, lambda: (stage.bob.calls[0].reject(486), stage.world.run(1)))
        rest = list(stream)
    assert rest[-1][0] == "end" and any("486" in told.get("text", "") for _, told, _ in rest)
    with gevent.Timeout(30):
        again = list(stage.follow(f"calls/{id}/history", Last_Event_ID=known[-1][2]))
    assert [found[2] for found in again] == [found[2] for found in rest], "goes on where it was"


def test_events_come_as_they_happen_and_cost_nothing_afterwards(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "LINGER", 0.05)
    monkeypatch.setattr(streams, "BEAT", 0.05)
    stage.call()
    bus = stage.world.engine.bus
    stream = stage.follow("events/stream")
    with gevent.Timeout(30):
        gevent.spawn_later(0.2, stage.bob.register)
        gevent.spawn_later(0.25, stage.world.run, 1)
        name, told, number = next(stream)
        assert name == "event" and told["name"] == "registered" and told["attributes"]["aor"] == "bob@example.com"
        assert told["time"].startswith("2027-01-15T08:00:") and number == "1"
        assert bus.hears("unregistered")
        stream.close()  # type: ignore[attr-defined]  # a generator
        while bus.hears("unregistered"):
            gevent.sleep(0.01)


def test_only_some_events(stage: Stage) -> None:
    id = stage.call()
    stage.serve()
    with gevent.Timeout(30):
        stream = stage.follow(f"events/stream?name=hangup&call={id}")
        gevent.spawn_later(0.2, stage.ask, "POST", "events", {"name": "door", "attributes": {"front": "x"}})
        gevent.spawn_later(0.25, lambda: (stage.bob.calls[0].answer(), stage.world.run(1)))
        gevent.spawn_later(0.3, lambda: (stage.bob.calls[0].hangup(), stage.world.run(1)))
        _, told, _ = next(stream)
    assert (told["name"], told["call"]) == ("hangup", id)
    assert stage.get("events/stream?name=nope").json["code"] == "event.unknown"


def test_a_feed_tells_who_is_slow_what_he_has_missed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = event_feed.EventFeed(stage.world.engine)
    end = feed.open("", lambda: None)
    begun = feed.number
    for _ in range(event_feed.KEPT + 10):
        stage.world.engine.publish("door", {"front": "x"})
    found, number, lost = feed.since(begun)
    assert (len(found), found[0].number, lost) == (event_feed.BURST, begun + 11, 10)
    rest = 0
    while True:
        found, number, lost = feed.since(number)
        assert lost == 0
        if not found:
            break
        rest += len(found)
    assert rest == event_feed.KEPT - event_feed.BURST and number == feed.number
    assert feed.since(number, "door") == ([], number, 0)
    end()


def test_a_feed_is_bounded_by_octets(stage: Stage) -> None:
    """2,000 events of 64 KB would be 128 MB."""
    feed = event_feed.EventFeed(stage.world.engine)
    end = feed.open("", lambda: None)
    begun = feed.number
    for _ in range(100):
        stage.world.engine.publish("door", {"front": "x" * 65_000})
    found, number, lost = feed.since(begun)
    assert (len(found), lost, number) == (event_feed.MEMORY // 65_000, 100 - len(found), feed.number)
    stage.world.engine.publish("door", {"front": "x" * (event_feed.MEMORY + 1)})
    found, number, lost = feed.since(number)
    assert (len(found), lost, number) == (1, 0, feed.number)
    for _ in range(event_feed.BURST):
        stage.world.engine.publish("door", {"front": "x"})
    assert feed.since(number)[2] == 0
    end()


def test_streams_have_a_bound_of_their_own(stage: Stage) -> None:
    stage.serve()
    assert stage.admin is not None
    stage.admin._server.streams = admin_connections.Streams(1)
    with gevent.Timeout(30):
        first = stage.follow("events/stream")
        gevent.spawn_later(0.1, stage.bob.register)
        gevent.spawn_later(0.15, stage.world.run, 1)
        next(first)
        answer = b""
        with socket.create_connection(stage.admin.address, timeout=30) as sock:
            sock.sendall(f"GET /api/v1/events/stream HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            while chunk := sock.recv(4096):
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 503") and b"streams.full" in answer
