"""Sinks: what an event looks like outside, that each reaches its peer at least once, and what is bounded on the way."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from gevent.event import Event

from orchestrator.errors import InputError, OrchestratorError
from orchestrator.event_choice import Chooser
from orchestrator.events.registry import BUILTIN_EVENTS, EventRegistry
from orchestrator.history import CallRecord
from orchestrator.integrations.sinks import Sinks, SinksSettings, in_slices, outbox
from orchestrator.integrations.sinks import spool as spool_module
from orchestrator.integrations.sinks.formats import Formatter, domain_of
from orchestrator.integrations.sinks.outbox import Outbox
from orchestrator.integrations.sinks.spool import Spool
from orchestrator.packages.sink import CDR, Outgoing, SinkSettings, Undelivered
from orchestrator.settings import read_settings
from orchestrator.site import check_site
from orchestrator.testing.services import FakeServer

EVENTS = {spec.name: spec for spec in BUILTIN_EVENTS}
RECORD = CallRecord(
    "c1", "a@x", "main", "main#1", "al@example.com", "bob@example.com", None, "192.0.2.1:5060", 5e9, 5e9 + 1, 5e9 + 6.5,
    200,     "sip:bob@192.0.2.2", "caller", "normal", None, None, None,
)  # fmt: skip


def event(number: int, time: float = 5e9, body: bytes = b"{}") -> Outgoing:
    """Of the far future, unless told: not too old for any test."""
    return Outgoing(f"id-{number}", "registered", "example.com", "", time, body)


class Peer:
    """A `Delivery` that does what its test says."""

    def __init__(self, batch: int = 10) -> None:
        self.batch = batch
        self.taken: list[str] = []
        self.asked = 0
        self.closed = False
        self.answer: Callable[[Sequence[Outgoing]], None] = lambda events: None

    def send(self, events: Sequence[Outgoing]) -> None:
        assert 0 < len(events) <= self.batch
        self.asked += 1
        try:
            self.answer(events)
        except Undelivered as failure:
            self.taken += [event.id for event in events[: failure.taken]]
            raise
        self.taken += [event.id for event in events]

    def close(self) -> None:
        self.closed = True


class Box:
    """An outbox with its greenlets."""

    def __init__(self, path: Path, peer: Peer, size: int = 1_000_000, age: float = 1e6, pace: float = 0.0) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.spool = Spool(path, size, age)
        self.box = Outbox(self.spool, peer, lambda level, text, **facts: self.lines.append((level, text, facts)), pace)
        self.greenlets = [gevent.spawn(self.box.write), gevent.spawn(self.box.deliver)]

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.box.put(event(number))

    def said(self, text: str) -> int:
        return sum(line[1] == text for line in self.lines)

    def stop(self) -> None:
        gevent.killall(self.greenlets)
        self.box.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GATHER", 0.001), ("RETRY_WRITE", 0.01), ("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.02)):
        monkeypatch.setattr(outbox, name, value)
    monkeypatch.setattr(outbox, "NOTED_EVERY", 0.0)


@pytest.fixture
def boxes() -> Iterator[list[Box]]:
    boxes: list[Box] = []
    yield boxes
    for box in boxes:
        box.stop()


def ids(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]


def down(reason: str = "refused", **more: Any) -> Callable[[Sequence[Outgoing]], None]:
    def answer(events: Sequence[Outgoing]) -> None:
        raise Undelivered(reason, **more)

    return answer


# --- what leaves ------------------------------------------------------------------------------------------------------


def test_an_event_as_a_cloud_event() -> None:
    formatter = Formatter("cloudevents", "n1", (), iter(["the-id"]))
    sent = formatter.make("registered", {"aor": "bob@example.com", "expires": 60, "path": None}, "", 1_767_225_600.25)
    assert (sent.id, sent.name, sent.domain) == ("the-id", "registered", "example.com")
    assert json.loads(sent.body) == {
        "specversion": "1.0",
        "id": "the-id",
        "source": "/orchestrator/n1",
        "type": "registered",
        "subject": "bob@example.com",
        "time": "2026-01-01T00:00:00.250Z",
        "datacontenttype": "application/json",
        "data": {"aor": "bob@example.com", "expires": 60, "path": None},
    }


def test_the_subject_of_an_event_of_a_call_is_the_call() -> None:
    sent = Formatter("cloudevents", "n1", ("digit",), iter(["i"])).make("dtmf", {"digit": "5", "ms": 80}, "call-7", 0.0)
    told = json.loads(sent.body)
    assert (told["subject"], told["data"]) == ("call-7", {"digit": "5"})


def test_a_notification_as_opensips_sends_it() -> None:
    sent = Formatter("jsonrpc", "n1", (), iter(["i"])).make(
        "gateway_up", {"gateway": "telco", "reason": "200"}, "", 0.0
    )
    assert json.loads(sent.body) == {
        "jsonrpc": "2.0",
        "method": "gateway_up",
        "params": {"gateway": "telco", "reason": "200"},
    }


def test_text_that_is_no_unicode_leaves_as_json_all_the_same() -> None:
    sent = Formatter("cloudevents", "n1", (), iter(["i"])).make("fs", {"body": "\udcff\x00\"'\n"}, "", 0.0)
    assert json.loads(sent.body)["data"]["body"] == "\udcff\x00\"'\n"
    assert b"\n" not in sent.body


@pytest.mark.parametrize("text", ['a"b\\c', "\u20ac\n\x00", "\udcff", "{name}"])
def test_whatever_a_text_holds_it_is_json(text: str) -> None:
    sent = Formatter("cloudevents", text, (), iter([text])).make(text, {text: text}, text, 0.0)
    found = json.loads(sent.body)
    assert [found["id"], found["type"], found["subject"], found["data"]] == [text, text, text, {text: text}]


@pytest.mark.parametrize(
    ("attributes", "domain"),
    [({"aor": "b@x.org"}, "x.org"), ({"to": "1@y"}, "y"), ({"aor": "b"}, ""), ({"aor": 5}, ""), ({}, "")],
)
def test_the_domain_is_that_of_the_address(attributes: dict[str, Any], domain: str) -> None:
    assert domain_of(attributes) == domain


def test_a_call_record_has_the_attributes_that_conditions_may_use() -> None:
    assert RECORD.facts().keys() == CDR.attributes.keys()


# --- which events -----------------------------------------------------------------------------------------------------


def chooser(when: str) -> Chooser:
    return Chooser(SinkSettings(events=("registered",), when=when), lambda: EVENTS)


def test_a_condition_chooses() -> None:
    choice = chooser("event.aor.endsWith('@example.com') and event.expires > 60")
    assert choice.wants("registered", {"aor": "bob@example.com", "expires": 61})
    assert not choice.wants("registered", {"aor": "bob@example.com", "expires": 60})
    assert not choice.wants("registered", {"aor": "bob@example.org", "expires": 61})


def test_what_a_condition_cannot_be_worked_out_for_is_counted() -> None:
    choice = chooser("int(event.user_agent) > 5")
    assert not choice.wants("registered", {"user_agent": "Snom"})
    assert choice.failed == 1


def mistakes(tmp_path: Path, text: str) -> list[tuple[int, int, str, str]]:
    flow = tmp_path / "a.flow.yaml"
    flow.write_text("flowlang: 1\nevents: {door_open: {door: text}}\nflows: {a: {on: invite, do: [reply: 480]}}\n")
    try:
        settings = read_settings("o.yml", f"flows: ['{flow}']\nsinks:\n  out: {text}\n", {})
        found, _ = check_site(settings, {})
    except InputError as error:
        found = list(error.diagnostics)
    return [(d.line, d.column, d.code, f"{d.message} = {d.help}") for d in found]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{type: file, path: x, events: [registerd]}", "E112", "there is no event 'registerd' = did you mean"),
        ("{type: file, path: x, events: [registered, 'x*']}", "E112", "no event fits 'x*'"),
        ("{type: file, path: x, events: [door_open], when: event.dor == 'a'}", "E206", "no attribute 'dor'"),
        ("{type: file, path: x, events: [cdr], when: event.duration}", "E203", "(event 'cdr')"),
        ("{type: file, path: x, events: cdr, fields: [dura]}", "E106", "none of these events has an attribute"),
        ("{type: file, path: x, events: []}", "E106", "must not be empty"),
        ("{type: file, path: x}", "E115", "add events:"),
        ("{type: file, events: cdr}", "E115", "add path:"),
        ("{type: file, path: x, events: cdr, pth: y}", "E101", "did you mean 'path'"),
        ("{type: file, path: x, events: cdr, spool: {sise: 1}}", "E101", "did you mean 'size'"),
        ("{type: fiel, path: x, events: cdr}", "E118", "did you mean 'file'"),
        ("{path: x, events: cdr}", "E115", "needs its type = add type: with one of"),
        ("{type: webhook, events: cdr, url: 'ftp://x/secret'}", "E106", "not the address of a web service"),
        ("{type: webhook, events: cdr, url: 'http://x', secret: short}", "E106", "this secret"),
        ("file", "E103", "a map is expected here"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, code: str, message: str) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1, found
    assert (found[0][0], found[0][2]) == (3, code), found
    assert message in found[0][3]
    assert "ftp://x/secret" not in found[0][3]


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "{type: file, path: x, events: ['door_*', cdr, fs], fields: [door, code]}") == []


def test_an_event_that_cannot_be_taken_costs_none_behind_it() -> None:
    taken: list[int] = []
    with pytest.raises(ZeroDivisionError):
        in_slices([1, 0, 2], lambda number: taken.append(2 // number))
    assert taken == [2, 1]


# --- few hand-overs ---------------------------------------------------------------------------------------------------


def test_a_kind_with_a_pace_gathers_what_comes_steadily(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    box = Box(tmp_path / "s.db", peer, pace=0.05)
    boxes.append(box)
    box.put(0)
    wait_until(lambda: peer.asked == 1)  # after a pause at once
    for number in range(1, 6):
        box.put(number)
        wait_until(lambda number=number: box.spool.last == number + 1)  # a segment each
    wait_until(lambda: len(peer.taken) == 6)
    assert peer.asked == 2
    assert peer.taken == ids(*range(6))


def test_full_batches_wait_for_no_pace(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer(batch=1)
    box = Box(tmp_path / "s.db", peer, pace=3600.0)
    boxes.append(box)
    box.put(*range(5))
    wait_until(lambda: peer.taken == ids(*range(5)))


def test_what_is_delivered_is_noted_later_when_nothing_comes(
    tmp_path: Path, boxes: list[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "NOTED_EVERY", 0.05)
    peer = Peer()
    box = Box(tmp_path / "s.db", peer)
    boxes.append(box)
    for number in range(3):
        box.put(number)
        wait_until(lambda number=number: len(peer.taken) == number + 1)
    wait_until(lambda: box.box.waiting == 0)
    assert box.spool.done == box.spool.last == 3
    assert box.spool.events == 0


# --- at least once ----------------------------------------------------------------------------------------------------


def test_events_are_delivered_in_order_and_leave_the_spool(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(*range(25))
    wait_until(lambda: box.box.waiting == 0 and len(peer.taken) == 25)
    assert peer.taken == ids(*range(25))
    assert box.box.delivered == box.box.taken == 25
    assert box.spool.events == box.spool.octets == 0


def test_a_peer_that_is_away_costs_only_the_spool(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    peer.answer = down("connection refused")
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(1, 2)
    wait_until(lambda: peer.asked > 2)
    box.put(3)
    wait_until(lambda: box.spool.events == 3)
    assert box.box.trouble == "connection refused"
    assert box.said("sink_down") == 1
    peer.answer = lambda events: None
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken == ids(1, 2, 3)
    assert (box.box.trouble, box.said("sink_up")) == ("", 1)


def test_what_was_taken_before_a_failure_is_not_sent_again(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    peer.answer = down(taken=2)
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(*range(5))
    wait_until(lambda: len(peer.taken) >= 4)
    peer.answer = lambda events: None
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken == ids(*range(5))


def test_an_event_that_the_peer_refuses_holds_up_no_other(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()

    def answer(events: Sequence[Outgoing]) -> None:
        bad = [event.id for event in events].index("id-3") if "id-3" in [event.id for event in events] else None
        if bad is not None:
            raise Undelivered("400", bad, refused=True)

    peer.answer = answer
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(*range(6))
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken == ids(0, 1, 2, 4, 5)
    assert (box.box.dropped["refused"], box.box.failures, box.said("sink_refused")) == (1, 0, 1)


def test_a_peer_that_wants_nothing_more_is_left_alone(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    peer.answer = down("410", stop=True)
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(1)
    wait_until(lambda: peer.asked == 1)
    box.put(2)
    wait_until(lambda: box.spool.events == 2)
    gevent.sleep(0.1)
    assert peer.asked == 1


def test_a_bug_of_a_kind_of_sink_is_a_failure_like_others(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()

    def answer(events: Sequence[Outgoing]) -> None:
        raise KeyError("oops")

    peer.answer = answer
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(1)
    wait_until(lambda: peer.asked > 1)
    peer.answer = lambda events: None
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken == ids(1)


def test_what_is_on_disk_at_a_start_is_sent_first(tmp_path: Path, boxes: list[Box]) -> None:
    away, back = Peer(), Peer()
    away.answer = down()
    first = Box(tmp_path / "s.db", away)
    first.put(1, 2)
    wait_until(lambda: first.spool.events == 2)
    first.box.put(event(3))
    first.stop()  # the third is written at the end
    assert away.closed
    boxes.append(second := Box(tmp_path / "s.db", back))
    second.put(4)
    wait_until(lambda: second.box.waiting == 0)
    assert back.taken == ids(1, 2, 3, 4)


def test_a_stop_delivers_what_it_can(tmp_path: Path) -> None:
    peer = Peer()
    box = Box(tmp_path / "s.db", peer)
    gevent.sleep(0)
    box.put(1, 2, 3)
    box.stop()
    assert peer.taken == ids(1, 2, 3)


KILLED = """
import os, sys
from orchestrator.integrations.sinks import spool as spool_module
from orchestrator.integrations.sinks.spool import Spool
from orchestrator.packages.sink import Outgoing
from pathlib import Path
spool = Spool(Path(sys.argv[1]), 10**9, 1e9)
n = 0
while True:
    spool.append([Outgoing(f"id-{n + i}", "e", "", "", 5e9, b"{}") for i in range(3)], 5e9, 0)
    n += 3
    if n == 30:
        spool.advance(2, 3, 1)
    os.write(1, b"%d\\n" % n)
"""


def test_the_spool_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(200)][-1]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    told = int(rest[-1]) if rest else said
    spool = Spool(path, 10**9, 1e9)
    found = [event.id for segment in spool.read(0, 10**9) for event in segment.events]
    spool.close()
    assert found[:3] == ids(7, 8, 9), "two segments and one event of the third were delivered"
    assert found == ids(*range(7, 7 + len(found)))
    assert told - 7 <= len(found) <= told - 7 + 3


def test_two_servers_do_not_share_a_spool(tmp_path: Path) -> None:
    first = Spool(tmp_path / "s.db", 10**6, 1e6)
    with pytest.raises(OrchestratorError, match="another server uses it"):
        Spool(tmp_path / "s.db", 10**6, 1e6)
    first.close()
    Spool(tmp_path / "s.db", 10**6, 1e6).close()


def test_a_damaged_spool_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"no database at all" * 100)
    spool = Spool(path, 10**6, 1e6)
    assert spool.set_aside is not None
    assert spool.set_aside.read_bytes().startswith(b"no database")
    spool.append([event(1)], 5e9, 0)
    spool.close()


# --- what is bounded --------------------------------------------------------------------------------------------------


def test_the_oldest_make_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 5_000, 1e6)
    for number in range(20):
        spool.append([event(number, body=b"x" * 1000)], 5e9, 0)
    assert spool.octets <= 5_000
    kept = [event.id for segment in spool.read(0, 100) for event in segment.events]
    assert kept == ids(*range(20 - len(kept), 20))
    assert spool.dropped == {"size": 20 - len(kept)}
    spool.close()


def test_what_is_being_delivered_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 5_000, 1e6)
    for number in range(20):
        spool.append([event(number, body=b"x" * 1000)], 5e9, 2)
    kept = [event.id for segment in spool.read(0, 100) for event in segment.events]
    assert kept[:2] == ids(0, 1)
    assert spool.octets <= 5_000
    spool.close()


def test_what_is_too_old_goes(tmp_path: Path, boxes: list[Box]) -> None:
    spool = Spool(tmp_path / "s.db", 10**6, 60.0)
    spool.append([event(1, time=100.0)], 120.0, 0)
    spool.append([event(2, time=150.0)], 165.0, 0)
    assert [event.id for segment in spool.read(0, 100) for event in segment.events] == ids(2)
    assert spool.dropped == {"age": 1}
    spool.close()
    peer = Peer()
    peer.answer = down()
    boxes.append(box := Box(tmp_path / "other.db", peer, age=60.0))
    box.box.put(event(3, time=0.0))
    wait_until(lambda: box.box.dropped["age"] == 1 and box.box.waiting == 0)


def test_a_disk_that_cannot_be_written_costs_memory_and_then_events(
    tmp_path: Path, boxes: list[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MEMORY", 5)
    peer = Peer()
    peer.answer = down()
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.spool._connection.execute("PRAGMA max_page_count=1")
    pages = box.spool._connection.execute("PRAGMA max_page_count").fetchone()[0]
    box.box.put(event(0, body=b"x" * 5000 * pages))  # SQLITE_FULL, as of a full disk
    wait_until(lambda: box.said("sink_spool_unwritable") == 1)
    box.put(*range(1, 9))
    assert box.box.dropped["memory"] in (3, 4)  # the first one waits in memory, or is being written or delivered
    assert "full" in box.box.disk_trouble
    box.spool._connection.execute("PRAGMA max_page_count=100000")
    wait_until(lambda: box.said("sink_spool_writable"))
    peer.answer = lambda events: None
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken[-5:] == ids(4, 5, 6, 7, 8)
    assert (box.box.disk_trouble, box.said("sink_spool_writable")) == ("", 1)


class FullDisk:
    """A connection for which the disk has no room while `full`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.full = True

    def execute(self, statement: str, *values: Any) -> Any:
        if self.full and statement.startswith(("INSERT", "DELETE")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self.connection.execute(statement, *values)

    def close(self) -> None:
        self.connection.close()


def test_a_full_disk_holds_up_no_peer_that_takes_events_and_is_freed(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    peer.answer = down()
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.put(*range(25))
    wait_until(lambda: box.box.trouble and box.spool.events == 25)
    box.spool._connection = FullDisk(box.spool._connection)  # type: ignore[assignment]
    box.put(*range(25, 50))
    wait_until(lambda: "full" in box.box.disk_trouble)
    peer.answer = down(taken=3)
    wait_until(lambda: len(peer.taken) > 6)
    peer.answer = lambda events: None
    wait_until(lambda: not box.box.waiting)
    assert peer.taken == ids(*range(50))
    assert not isinstance(box.spool._connection, FullDisk), "what nobody needs is freed, and the spool begins anew"
    assert not box.box.disk_trouble
    box.put(50)
    wait_until(lambda: not box.box.waiting)
    assert box.said("sink_spool_unwritable") == box.said("sink_spool_writable") == 1


def test_what_could_not_be_written_waits_for_a_peer_that_is_away(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    boxes.append(box := Box(tmp_path / "s.db", peer))
    box.spool._connection = disk = FullDisk(box.spool._connection)  # type: ignore[assignment]
    peer.answer = down()
    box.put(*range(30))
    wait_until(lambda: box.box.failures > 2 and box.box.disk_trouble)
    assert box.box.waiting == 30
    disk.full = False
    wait_until(lambda: box.spool.events == 30)
    peer.answer = lambda events: None
    wait_until(lambda: not box.box.waiting)
    assert peer.taken == ids(*range(30))


def test_a_disk_full_after_the_delivery_sends_nothing_twice(tmp_path: Path, boxes: list[Box]) -> None:
    peer = Peer()
    boxes.append(box := Box(tmp_path / "s.db", peer))
    held = Event()
    peer.answer = lambda events: held.wait() and None
    box.put(1)
    wait_until(lambda: peer.asked == 1)
    box.spool._connection.execute("PRAGMA query_only=1")
    held.set()
    wait_until(lambda: box.box.disk_trouble != "")
    box.put(2)
    gevent.sleep(0.05)
    box.spool._connection.execute("PRAGMA query_only=0")
    wait_until(lambda: box.box.waiting == 0)
    assert peer.taken == ids(1, 2)


# --- all together -----------------------------------------------------------------------------------------------------


def sinks_of(server: FakeServer, text: str) -> Sinks:
    settings = read_settings("o.yml", f"sinks:\n  out: {text}\n", {})
    choose = lambda common: Chooser(common, lambda: EventRegistry().specs)  # noqa: E731
    return Sinks(server, SinksSettings(sinks=settings.sinks, choice=choose))


def test_a_file_gets_the_events_that_were_chosen(tmp_path: Path) -> None:
    server = FakeServer("sinks")
    sinks = sinks_of(
        server,
        f"{{type: file, path: {tmp_path}/out.jsonl, events: ['gateway_*', cdr], fields: [gateway, duration], "
        f"format: jsonrpc, spool: {{file: {tmp_path}/s.db}}}}",
    )
    sinks.start()
    server.raise_event("gateway_up", {"gateway": "telco", "reason": "200"})
    server.raise_event("unregistered", {"aor": "b@x", "contact": "sip:b@192.0.2.1", "reason": "expired"})
    server.tell(RECORD)
    assert server.read("taken") == {"out": 2}
    sinks.stop()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["method"], line["params"]) for line in lines] == [
        ("gateway_up", {"gateway": "telco"}),
        ("cdr", {"duration": 5.5}),
    ]
    assert server.read("delivered") == {"out": 2}
    assert server.read("dropped") == {("out", why): 0 for why in ("memory", "age", "size", "refused")}
    assert server.complaints() == []


def test_a_file_that_was_renamed_is_made_anew(tmp_path: Path) -> None:
    server = FakeServer("sinks")
    path = tmp_path / "out.jsonl"
    sinks = sinks_of(server, f"{{type: file, path: {path}, events: cdr, spool: {{file: {tmp_path}/s.db}}}}")
    sinks.start()
    for work in server.work:
        gevent.spawn(work)
    server.tell(RECORD)
    wait_until(lambda: len(path.read_bytes().splitlines()) == 1)
    path.rename(tmp_path / "out.1")
    server.tell(RECORD)
    wait_until(lambda: path.exists() and len(path.read_bytes().splitlines()) == 1)
    sinks.stop()


@pytest.mark.parametrize("text", ["path: /nowhere/x", "path: x.jsonl, spool: {file: /nowhere/s.db}"])
def test_what_cannot_be_written_stops_the_start(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OrchestratorError, match="sink 'out': cannot"):
        sinks_of(FakeServer("sinks"), f"{{type: file, events: cdr, {text}}}")


def test_a_spool_that_is_damaged_in_its_middle_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, 10_000_000, 3600.0)
    for number in range(200):
        spool.append([Outgoing(f"i{number}", "e", "", "", 1.0, b"x" * 3000)], 1.0, 0)
    spool.close()
    octets = bytearray(path.read_bytes())
    for at in range(8192, len(octets) - 4096, 7 * 4096):
        octets[at : at + 200] = b"\xa5" * 200
    path.write_bytes(octets)
    spool = Spool(path, 10_000_000, 3600.0)
    assert spool.set_aside is not None and spool.set_aside.exists() and spool.events == 0
    spool.close()


def damaged_in_its_middle(path: Path, number: int = 200) -> None:
    spool = Spool(path, 10_000_000, 1e9)
    for at in range(number):
        spool.append([event(at, body=b"x" * 3000)], 5e9, 0)
    spool.close()
    octets = bytearray(path.read_bytes())
    for at in range(16 * 4096, len(octets) - 4096, 7 * 4096):
        octets[at : at + 200] = b"\xa5" * 200
    path.write_bytes(octets)


def test_a_large_spool_is_not_read_at_the_start_and_set_aside_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    damaged_in_its_middle(path)
    monkeypatch.setattr(spool_module, "CHECKED", 0)
    spool = Spool(path, 10_000_000, 1e9)
    plan = spool._connection.execute("EXPLAIN QUERY PLAN SELECT total(events), total(octets) FROM segment").fetchall()
    assert "COVERING INDEX" in str(plan), "the events themselves are not read"
    spool.close()
    peer = Peer(batch=5)
    box = Box(path, peer, size=10_000_000, age=1e9)
    assert box.spool.set_aside is None and box.spool.events == 200
    box.put(1000, 1001)
    wait_until(lambda: ids(1001)[0] in peer.taken)
    assert box.said("sink_spool_set_aside") == 1 and box.spool.set_aside is not None
    assert box.spool.dropped["damaged"] > 0 and not box.box.waiting
    assert peer.taken[0] == ids(0)[0], "what could be read was delivered first"
    box.put(1002)
    wait_until(lambda: ids(1002)[0] in peer.taken)
    box.stop()
    again = Spool(path, 10_000_000, 1e9)
    assert again.events == 0 and again.set_aside is None
    again.close()


def test_events_of_a_damaged_spool_that_are_delivered_from_memory_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boxes: list[Box]
) -> None:
    """Of 20 found at the start 5 are delivered, 15 are in the file alone; 4 new ones are in memory, too."""
    path = tmp_path / "s.db"
    spool = Spool(path, 10_000_000, 1e9)
    for first in range(0, 20, 5):
        spool.append([event(number) for number in range(first, first + 5)], 5e9, 0)
    spool.close()
    peer, closed = Peer(batch=5), Event()

    def first_five_only(events: Sequence[Outgoing]) -> None:
        if peer.taken and not closed.is_set():
            raise Undelivered("away")

    peer.answer = first_five_only
    box = Box(path, peer, size=10_000_000, age=1e9)
    boxes.append(box)
    wait_until(lambda: box.box.failures > 0)
    box.put(100, 101)
    box.put(102, 103)
    wait_until(lambda: box.spool.events == 19)

    def append(*_: Any) -> int:
        raise spool_module.Damaged("segment 5")

    monkeypatch.setattr(box.spool, "append", append)
    box.put(104)
    wait_until(lambda: box.said("sink_spool_set_aside") > 0)
    monkeypatch.undo()
    wait_until(lambda: box.spool.events == 1)
    closed.set()
    wait_until(lambda: ids(104)[0] in peer.taken)
    assert peer.taken == ids(*range(10), *range(100, 105)), "the load, what is in memory, then the new file"
    assert box.spool.dropped["damaged"] == 10
    assert box.box.taken + 20 == box.box.delivered + sum(box.box.dropped.values())


def test_a_spool_that_cannot_be_set_aside_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    damaged_in_its_middle(path)
    monkeypatch.setattr(spool_module, "CHECKED", 0)
    box = Box(path, Peer(batch=5), size=10_000_000, age=1e9)
    real, refused = Path.replace, [3]

    def replace(self: Path, target: Any) -> Any:
        if refused[0] and self.name == "s.db":
            refused[0] -= 1
            raise OSError(30, "Read-only file system")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    box.put(1000)
    wait_until(lambda: refused[0] == 0 and not box.box.waiting and not box.box.disk_trouble)
    assert box.said("sink_spool_unwritable") == 1
    box.stop()
