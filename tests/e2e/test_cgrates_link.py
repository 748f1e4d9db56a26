"""The connection to CGRateS against its stub: a server that is mute, jammed, gone, back, or speaks something else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from cgrates_stub import CgratesStub

from orchestrator.integrations.cgrates import cgr_link
from orchestrator.integrations.cgrates.cgr_link import Link, NotAnswered, NotSent, Refused
from orchestrator.testing.sockets import wait_until

EVENT = {"Event": {"OriginID": "a", "OriginHost": "n", "Account": "alice"}}
AUTHORISE = "SessionSv1.AuthorizeEvent"


class Stage:
    def __init__(self, port: int) -> None:
        self.news: list[tuple[bool, str]] = []
        self.asked = 0
        self.link = Link([("127.0.0.1", 1), ("127.0.0.1", port)], self.called, lambda *news: self.news.append(news))
        self.greenlet = gevent.spawn(self.link.run)

    def called(self, method: str, params: Any) -> tuple[Any, str | None]:
        self.asked += 1
        if method == "Fault":
            raise OverflowError("a bug")
        return [method, params], None

    def fails(self) -> Exception | None:
        """What a request ends with."""
        try:
            self.link.ask(AUTHORISE, EVENT, 60.0)
        except Exception as error:
            return error
        return None


@pytest.fixture
def stub() -> Iterator[CgratesStub]:
    stub = CgratesStub({"alice": 60.0})
    yield stub
    stub.stop()


@pytest.fixture
def stage(stub: CgratesStub) -> Iterator[Stage]:
    stage = Stage(stub.port)
    assert wait_until(lambda: stage.link.up and stub.connections)
    yield stage
    stage.greenlet.kill()


def test_requests_of_many_get_their_own_answers(stage: Stage, stub: CgratesStub) -> None:
    def ask(seconds: int) -> int:
        event = EVENT["Event"] | {"Usage": f"{seconds}s"}
        return int(stage.link.ask(AUTHORISE, {"Event": event}, 30.0)["MaxUsage"])

    asked = [gevent.spawn(ask, 1 + number % 50) for number in range(300)]
    gevent.joinall(asked, timeout=60)
    assert [each.value for each in asked] == [(1 + number % 50) * 1_000_000_000 for number in range(300)]
    assert stage.link.waiting == 0


def test_an_error_is_a_refusal(stage: Stage, stub: CgratesStub) -> None:
    stub.errors[AUTHORISE] = "RALS_ERROR:INSUFFICIENT_CREDIT"
    with pytest.raises(Refused, match="INSUFFICIENT_CREDIT"):
        stage.link.ask(AUTHORISE, EVENT, 30.0)


def test_a_mute_server_is_asked_once_a_second(stage: Stage, stub: CgratesStub, monkeypatch: Any) -> None:
    monkeypatch.setattr(cgr_link, "SILENT_AFTER", 3)
    stub.mute = True
    for _ in range(3):
        with pytest.raises(NotAnswered):
            stage.link.ask(AUTHORISE, EVENT, 0.01)
    assert stage.link.silent
    with pytest.raises(NotAnswered):  # the one that looks
        stage.link.ask(AUTHORISE, EVENT, 0.01)
    with pytest.raises(NotSent):
        stage.link.ask(AUTHORISE, EVENT, 0.01)
    stub.mute = False
    monkeypatch.setattr(cgr_link, "LOOK_AGAIN", 0.0)
    assert stage.link.ask(AUTHORISE, EVENT, 30.0) and not stage.link.silent


def test_answers_that_come_too_late_do_not_end_its_silence(stage: Stage, stub: CgratesStub, monkeypatch: Any) -> None:
    monkeypatch.setattr(cgr_link, "SILENT_AFTER", 3)
    stub.delay = 0.3
    for _ in range(3):
        with pytest.raises(NotAnswered):
            stage.link.ask(AUTHORISE, EVENT, 0.01)
    assert wait_until(lambda: stage.link.counts["stray"] == 3)
    stub.connections[-1].send({"id": None, "result": "OK", "error": None})
    assert wait_until(lambda: stage.link.counts["stray"] == 4)
    assert stage.link.silent


def test_an_answer_counts_though_garbage_follows_it(stage: Stage, stub: CgratesStub) -> None:
    stub.mute = True
    waits = gevent.spawn(stage.link.ask, AUTHORISE, EVENT, 60.0)
    assert wait_until(lambda: stub.count("AuthorizeEvent"))
    stub.connections[-1].made.sendall(b'{"id":1,"result":{"MaxUsage":5},"error":null}\nnonsense')
    assert waits.get(timeout=60) == {"MaxUsage": 5}
    assert wait_until(lambda: stage.link.counts["garbage"] == 1)


def test_what_waits_when_the_connection_is_lost_is_told(stage: Stage, stub: CgratesStub) -> None:
    stub.mute = True
    waits = gevent.spawn(stage.fails)
    assert wait_until(lambda: stub.count("AuthorizeEvent"))
    stub.cut()
    assert isinstance(waits.get(timeout=60), NotAnswered)
    assert wait_until(lambda: stage.link.counts["connects"] == 2)
    assert [up for up, _ in stage.news] == [True, False, True]


def test_without_a_connection_nothing_waits() -> None:
    link = Link([("127.0.0.1", 1)], lambda method, params: (None, None), lambda up, what: None)
    with pytest.raises(NotSent):
        link.ask(AUTHORISE, EVENT, 60.0)


def asked_before_the_start(port: int) -> Any:
    link = Link([("127.0.0.1", port)], lambda method, params: (None, None), lambda up, what: None)

    def ask() -> Any:
        link.begun(60.0)
        try:
            return link.ask(AUTHORISE, EVENT, 60.0)
        except NotSent as error:
            return error

    asked = gevent.spawn(ask)
    gevent.sleep(0)
    running = gevent.spawn(link.run)
    try:
        return asked.get(timeout=30)
    finally:
        running.kill()


def test_who_asks_before_the_first_attempt_to_connect_waits_for_it(stub: CgratesStub) -> None:
    assert asked_before_the_start(stub.port)["MaxUsage"] == 60_000_000_000
    assert isinstance(asked_before_the_start(1), NotSent)


def test_something_else_than_cgrates_is_left_alone() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def web() -> None:
        made, _ = server.accept()
        with made:
            made.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            made.recv(1)

    threading.Thread(target=web, daemon=True).start()
    stage = Stage(server.getsockname()[1])
    assert wait_until(lambda: stage.link.counts["garbage"] == 1)
    stage.greenlet.kill()
    server.close()


def test_a_fault_ends_the_connection_instead_of_leaving_it_deaf(stage: Stage, stub: CgratesStub) -> None:
    stub.connections[-1].send({"method": "Fault", "params": [], "id": 1})
    with pytest.raises(OverflowError):
        stage.greenlet.get(timeout=60)  # the service is begun anew then
    assert not stage.link.up


def test_who_never_stops_to_call_lets_others_run(stage: Stage, stub: CgratesStub) -> None:
    made, calls = stub.connections[-1].made, b'{"method":"AgentV1.Storm","id":7,"params":[{"a":"%s"}]}' % (b"x" * 80)

    def storm() -> None:
        try:
            for _ in range(60):
                made.sendall(calls * 400)
        except OSError:
            pass

    before, turns = stage.link.counts["losses"], 0
    threading.Thread(target=storm, daemon=True).start()
    while stage.asked < 24_000 and stage.link.counts["losses"] == before:
        gevent.sleep(0)
        turns += 1
    assert stage.link.counts["losses"] == before  # who answers had its turns
    assert turns > 100  # and so had we: it is read in hundreds of pieces


def test_a_name_that_cannot_be_one_is_a_failed_connection() -> None:
    link = Link([("a..b", 2014)], lambda method, params: (None, None), lambda up, what: None)
    greenlet = gevent.spawn(link.run)
    assert wait_until(lambda: link.counts["connect_failed"] or greenlet.dead)
    assert not greenlet.dead
    greenlet.kill()
