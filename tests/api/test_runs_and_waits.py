"""The admin interface's view into the engine, over real HTTP: traces, subscriptions, explanations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from gevent import socket

from orchestrator.flow.tools.explain import WATCHERS
from orchestrator.runtime import jsonlines
from orchestrator.testing.api_stage import NODE, TOKEN, ApiStage

FLOWS = """\
flowlang: 1
flows:
  fails:
    on: invite
    when: call.target.user == 'wrong'
    do: [fail: by design]
  ring_user:
    on: invite
    do:
      - subscribe: registered
        id: late_phone
        where: {aor: '${call.to.aor}'}
        for: 20s
        do: [log: here]
      - relay: {to: registered, keep_open: 20s}
"""
BEGAN = "2027-01-15T08:00:00.000Z"


class Inspected:
    """A world in memory behind a real admin interface."""

    def __init__(self) -> None:
        self.stage = ApiStage(FLOWS)
        self.world = self.stage.world
        host, _, port = self.stage.serve().partition(":")
        self.address = host, int(port)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")

    def call(self, user: str = "bob") -> None:
        self.alice.invite(f"{user}@example.com")
        self.world.run()

    def register(self, aor: str) -> None:
        self.world.phone(aor, f"10.0.1.{len(self.world.phones)}").register()
        self.world.run()

    def connect(self, target: str) -> socket.socket:
        sock: socket.socket = socket.create_connection(self.address, timeout=30)
        sock.sendall(f"GET /api/v1{target} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        return sock

    def ask(self, target: str) -> tuple[int, Any]:
        """Status and JSON."""
        with self.connect(target) as sock:
            octets = b""
            while chunk := sock.recv(65_536):
                octets += chunk
        head, _, body = octets.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def watch(self, target: str) -> Iterator[Any]:
        """The JSON lines of an answer that goes on."""
        with self.connect(target) as sock, sock.makefile("rb") as stream:
            for line in stream:
                if line.startswith(b"{"):
                    yield json.loads(line)


@pytest.fixture
def inspected() -> Iterator[Inspected]:
    inspected = Inspected()
    yield inspected
    inspected.stage.close()


# --- traces -----------------------------------------------------------------------------------------------------------


def test_no_runs_yet(inspected: Inspected) -> None:
    assert inspected.ask("/runs") == (200, {"node": NODE, "items": [], "total": 0, "next": None})


def test_runs_newest_first_the_live_ones_before(inspected: Inspected) -> None:
    inspected.call("wrong")
    inspected.call()
    status, told = inspected.ask("/runs")
    assert status == 200
    ringing, failed = told["items"]
    assert (ringing["run"], ringing["running"], ringing["error"]) == ("ring_user#2", True, "")
    assert (failed["run"], failed["running"], failed["error"]) == ("fails#1", False, "user.error")
    assert failed["about"] == "flow fails starts for alice@example.com -> wrong@example.com"
    assert failed["started"] == BEGAN and failed["file"] == "x.flow.yaml"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("failed=true", ["fails#2"]),
        ("flow=ring_user", ["ring_user#3", "ring_user#1"]),
        ("limit=1", ["ring_user#3"]),
        ("flow=nothing", []),
    ],
)
def test_some_of_them(inspected: Inspected, query: str, names: list[str]) -> None:
    for user in ("bob", "wrong", "bob"):
        inspected.call(user)
    assert [run["run"] for run in inspected.ask(f"/runs?{query}")[1]["items"]] == names


def test_a_run_that_ends_between_two_pages_leaves_none_out(inspected: Inspected) -> None:
    inspected.call()
    inspected.world.run(10)
    inspected.call()
    first = inspected.ask("/runs?limit=1")[1]
    assert [run["run"] for run in first["items"]] == ["ring_user#2"]
    inspected.alice.calls[-1].hangup()
    inspected.world.run(1)
    rest = inspected.ask(f"/runs?cursor={first['next']}")[1]["items"]
    assert [(run["run"], run["running"]) for run in rest] == [("ring_user#1", True), ("ring_user#2", False)]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "failed=perhaps"])
def test_parameters_that_make_no_sense(inspected: Inspected, query: str) -> None:
    assert inspected.ask(f"/runs?{query}")[0] == 400


def test_one_run_with_its_lines(inspected: Inspected) -> None:
    inspected.call()
    status, trace = inspected.ask(f"/runs/{quote('ring_user#1')}")
    assert status == 200 and trace["running"] and trace["dropped"] == 0
    texts = [(record["line"], record["text"]) for record in trace["records"]]
    assert texts == [
        (7, "flow ring_user starts for alice@example.com -> bob@example.com"),
        (10, "subscribe registered for 20s"),
        (15, "relay to registered, open for 20s"),
    ]
    inspected.world.run(30)
    assert not inspected.ask(f"/runs/{quote('ring_user#1')}")[1]["running"]


def test_a_run_nobody_knows(inspected: Inspected) -> None:
    status, told = inspected.ask(f"/runs/{quote('ring_user#9')}")
    assert (status, told["code"], told["detail"]) == (404, "run.unknown", "there is no run 'ring_user#9'")


def test_an_event_that_was_taken_stands_in_the_trace_with_its_attributes(inspected: Inspected) -> None:
    inspected.call()
    inspected.register("bob@example.com")
    records = inspected.ask(f"/runs/{quote('ring_user#1')}")[1]["records"]
    (taken,) = [record for record in records if record["text"] == "handler of registered runs (1)"]
    assert taken["read"]["event.aor"] == "bob@example.com" and taken["read"]["event.is_new"] is True


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_what_is_waited_for(inspected: Inspected) -> None:
    inspected.call()
    status, told = inspected.ask("/subscriptions?of=late_phone")
    assert status == 200 and told["total"] == 1
    (late,) = told["items"]
    assert late["name"] == "ring_user#1/late_phone" and late["wanted"] == {"aor": "bob@example.com"}
    assert inspected.ask("/subscriptions?of=other")[1]["total"] == 0


# --- explanations -----------------------------------------------------------------------------------------------------


def test_near_misses_come_as_they_happen(inspected: Inspected) -> None:
    inspected.call()
    bus = inspected.world.engine.bus
    before = bus.watchers
    lines = inspected.watch(f"/explain?of={quote('ring_user#1')}&seconds=5")
    gevent.spawn_later(0.05, inspected.register, "carol@example.com")
    verdict = next(lines)
    assert verdict["why"] == "aor is 'carol@example.com', wanted 'bob@example.com'"
    inspected.register("bob@example.com")
    assert next(lines)["fits"] is True
    assert len(bus.watchers) == len(before) + 1


def test_the_end_of_the_connection_ends_it(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "BEAT", 0.02)
    inspected.call()
    bus = inspected.world.engine.bus
    before = bus.watchers
    sock = inspected.connect("/explain?of=ring_user&seconds=60")
    sock.recv(100)
    assert len(bus.watchers) == len(before) + 1
    sock.close()
    with gevent.Timeout(30):
        while bus.watchers != before:
            gevent.sleep(0.01)


def test_the_end_of_its_time_ends_it(inspected: Inspected) -> None:
    inspected.call()
    before = inspected.world.engine.bus.watchers
    assert list(inspected.watch("/explain?of=ring_user&seconds=0.05")) == [{"end": True, "told": 0, "dropped": 0}]
    assert inspected.world.engine.bus.watchers == before


def test_a_slow_reader_misses_some_and_is_told(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "BACKLOG", 2)
    inspected.call()

    def burst() -> None:
        for number in range(5):  # one turn: nobody reads in between
            inspected.register(f"user{number}@example.com")

    gevent.spawn_later(0.05, burst)
    *told, end = inspected.watch("/explain?of=ring_user&seconds=0.3")
    assert len(told) < 5 and end == {"end": True, "told": len(told), "dropped": 5 - len(told)}


def test_no_more_than_some_at_a_time(inspected: Inspected) -> None:
    socks = [inspected.connect("/explain?of=x&seconds=60") for _ in range(WATCHERS)]
    for sock in socks:
        sock.recv(100)
    status, told = inspected.ask("/explain?of=x")
    assert status == 503 and told["title"] == "too many explanations"
    for sock in socks:
        sock.close()


@pytest.mark.parametrize(
    "query", ["", "of=x&seconds=601", "of=x&seconds=-1", "of=x&seconds=long", "of=x&seconds=nan", "of=x&seconds=inf"]
)
def test_explanations_of_nothing_or_for_ever_are_refused(inspected: Inspected, query: str) -> None:
    assert inspected.ask(f"/explain?{query}")[0] == 400


# --- odd queries ------------------------------------------------------------------------------------------------------

ODD_NUMBERS = ("nan", "inf", "-inf", "-1", "1e3", "9" * 5_000, "", "abc", "1_0", "%D9%A3", "+5", "0x10", "1%00", "%201")


@pytest.mark.parametrize("value", [*ODD_NUMBERS, "1000000000", "5&seconds=6"])
@pytest.mark.parametrize("path", ["/explain", "/siptrace"])
def test_odd_seconds_are_refused(inspected: Inspected, path: str, value: str) -> None:
    status, told = inspected.ask(f"{path}?of=x&seconds={value}")
    assert status == 400 and "seconds" in told["title"] + told["detail"]


@pytest.mark.parametrize("value", [*ODD_NUMBERS, "0", "1001", "1.5", "5&limit=6"])
def test_odd_limits_are_refused(inspected: Inspected, value: str) -> None:
    assert inspected.ask(f"/runs?limit={value}")[0] == 400


@pytest.mark.parametrize(
    "target",
    [
        "/runs?failed=perhaps",
        "/runs?failed=1&failed=0",
        "/runs?limt=5",
        "/runs?flow=a&flow=b",
        f"/runs?flow={'x' * 1_001}",
        "/runs?flow=a%0Ab",
        "/subscriptions?of=a&of=b",
        "/subscriptions?off=a",
        "/explain",
        "/explain?of=",
        "/explain?of=a&of=b",
        "/siptrace",
        "/siptrace?of=",
        "/siptrace?of=%FF",
        "/siptrace?seconds=5",
    ],
)
def test_odd_queries_are_refused_with_a_reason(inspected: Inspected, target: str) -> None:
    status, told = inspected.ask(target)
    assert status == 400 and told["title"]


def test_bounds_themselves_are_permitted(inspected: Inspected) -> None:
    assert inspected.ask("/runs?limit=1000&failed=true&flow=")[0] == 200
    assert list(inspected.watch("/explain?of=x&seconds=0")) == [{"end": True, "told": 0, "dropped": 0}]
