"""Phones that only sleep: connections that end, flows that fail, pings (RFC 8599 beside RFC 5626)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pushkit import AOR, APNS, Desk
from test_connections import EVERY
from test_location_writes import LaterStore
from wakekit import program

from orchestrator.core.jobs import Job, Write
from orchestrator.core.settings import PingPolicy
from orchestrator.sip.location import Binding
from orchestrator.sip.push import PushPolicy, PushService
from orchestrator.store.sqlite import SqliteStore
from orchestrator.testing.peer import Peer
from orchestrator.testing.world import World

POLICY = PushPolicy((PushService("apple", "apns"),))
NONE = PushPolicy()
BOB = f"<sip:{AOR}>"


class Line:
    """bob's phones, each over a connection of its own."""

    def __init__(self, policy: PushPolicy = POLICY, **more: object) -> None:
        self.world = World(points=EVERY, push=policy, **more)  # type: ignore[arg-type]
        self.news: list[tuple[str, object]] = []
        self.world.engine.on_news = lambda event, facts: self.news.append((event, facts.get("reason")))

    def phone(self, host: str, params: str = APNS, tail: str = "", *headers: str, transport: str = "tcp") -> Peer:
        phone = self.world.peer(host, host, 5060, transport, listens=False)
        self.register(phone, params, tail, *headers)
        return phone

    def register(self, phone: Peer, params: str = APNS, tail: str = "", *headers: str, cseq: int = 1) -> None:
        contact = f"Contact: <sip:bob@x7f3.invalid;transport=tcp;{params}>{tail}"
        call = f"call-{phone.name}"
        asked = phone.ask("REGISTER", "sip:example.com", contact, *headers, to=BOB, call_id=call, cseq=cseq)
        self.world.run()
        assert asked.statuses == [200]

    def cut(self, phone: Peer) -> None:
        self.world.cut(phone)
        self.world.run()

    @property
    def bindings(self) -> tuple[Binding, ...]:
        return self.world.location.bindings(AOR, self.world.engine.wall)

    @property
    def sleeping(self) -> list[bool]:
        return [self.world.engine.pusher.sleeps(binding) for binding in self.bindings]


def test_a_phone_whose_connection_ends_sleeps_and_is_still_registered() -> None:
    line = Line()
    phone = line.phone("10.0.0.3")
    assert line.sleeping == [False], "it has just registered"
    line.news.clear()
    line.cut(phone)
    [binding] = line.bindings
    assert (binding.connection, line.sleeping) == (0, [True])
    assert line.news == [], "nothing is told: it is registered as before"
    again = line.world.peer("again", "10.0.0.33", 5060, "tcp", listens=False)
    line.register(again)
    assert line.sleeping == [False] and len(line.bindings) == 1
    line.cut(phone)
    assert line.sleeping == [False], "the connection before that one is nobody's"
    line.world.run(POLICY.awake)
    assert line.sleeping == [True], "it may sleep with a connection that stands"


@pytest.mark.parametrize(
    ("policy", "params"),
    [
        (NONE, APNS),
        (POLICY, "ob"),
        (POLICY, "pn-prid=t1"),
        (POLICY, "pn-type=palm;app-id=1;pn-tok=2"),
        (PushPolicy((PushService("apple", "apns", apps=("com.example.other",)),)), APNS),
    ],
)
def test_a_phone_that_nobody_can_wake_is_gone_with_its_connection(policy: PushPolicy, params: str) -> None:
    line = Line(policy)
    phone = line.phone("10.0.0.3", params)
    assert len(line.bindings) == 1
    line.cut(phone)
    assert line.bindings == ()
    assert ("unregistered", "connection closed") in line.news


def test_of_two_flows_the_one_that_ends_goes_and_the_last_one_sleeps() -> None:
    """RFC 5626 §6: a phone that is reached over another flow does not sleep."""
    line = Line()
    headers = ("Supported: outbound, path",)
    phones = [
        line.phone(f"10.0.0.{number}", APNS, f';+sip.instance="<urn:uuid:1>";reg-id={number}', *headers)
        for number in (5, 6)
    ]
    other = line.phone("10.0.0.9", APNS.replace("t1", "t9"), ';+sip.instance="<urn:uuid:9>"')
    line.cut(phones[0])
    assert sorted((b.instance, b.reg_id) for b in line.bindings) == [("urn:uuid:1", 6), ("urn:uuid:9", None)]
    line.cut(phones[1])
    line.cut(other)
    assert line.sleeping == [True, True]


def test_two_phones_behind_one_connection_are_two() -> None:
    """An edge proxy brings several phones, of which some can be woken."""
    line = Line()
    edge = line.world.peer("edge", "10.0.0.4", 5060, "tcp", listens=False)
    for number, params in enumerate((APNS, "ob")):
        contact = f"Contact: <sip:u{number}@x{number}.invalid;transport=tcp;{params}>"
        asked = edge.ask("REGISTER", "sip:example.com", contact, to=BOB, call_id=f"c{number}")
        line.world.run()
        assert asked.statuses == [200]
    line.cut(edge)
    assert [binding.uri.partition("@")[0] for binding in line.bindings] == ["sip:u0"]


@pytest.mark.parametrize("policy", [POLICY, NONE])
def test_behind_a_proxy_that_wakes_its_phones_the_end_of_our_connection_to_it_means_nothing(policy: PushPolicy) -> None:
    line = Line(policy)
    edge = line.phone(
        "10.0.0.4", APNS, "", "Path: <sip:10.0.0.4;lr>", "Supported: path", 'Feature-Caps: *;+sip.pns="apns"'
    )
    line.cut(edge)
    assert len(line.bindings) == 1 and line.bindings[0].woken_upstream


@pytest.mark.parametrize(("params", "left"), [(APNS, 1), ("ob", 0)])
def test_a_failed_flow_of_a_phone_that_can_be_woken_is_no_end(params: str, left: int) -> None:
    desk = Desk(POLICY)
    desk.register(f"Contact: <sip:bob@10.0.0.99;{params}>", "Path: <sip:10.0.0.11;lr;ob>", "Supported: path")
    desk.world.engine.registrations.flow_failed(desk.bindings[0])
    assert len(desk.bindings) == left


def test_after_a_restart_phones_on_connections_sleep(tmp_path: object) -> None:
    path = tmp_path / "location.db"  # type: ignore[operator]
    line = Line(store=SqliteStore(path))
    line.phone("10.0.0.3")
    line.world.location.store.close()
    later = Line(store=SqliteStore(path))
    later.world.location.load(later.world.engine.wall)
    assert later.sleeping == [True]
    later.world.location.store.close()


def test_pings_leave_phones_alone_that_may_sleep() -> None:
    """Also those that write as before RFC 8599."""
    line = Line(ping=PingPolicy("all", 30.0, 3))
    line.phone("10.0.0.3")
    line.phone("10.0.0.4", "pn-type=apple;app-id=com.example.app;pn-tok=t2")
    assert len(line.world.engine.registrations.keepalive) == 0
    line.phone("10.0.0.5", "ob")
    assert len(line.world.engine.registrations.keepalive) == 1


@pytest.mark.parametrize(("step", "granted"), [("register: {}", 604800), ("register: {max_expires: 10m}", 600)])
def test_a_flow_may_bound_the_registrations_of_phones_that_sleep(tmp_path: Path, step: str, granted: int) -> None:
    desk = Desk(POLICY, program=program(tmp_path, f"      - {step}\n", on="register"))
    answer = desk.register(f"Contact: <sip:bob@10.0.0.11;{APNS}>;expires=31536000")
    assert [contact.expires for contact in answer.contacts()] == [granted]


def test_the_log_tells_no_push_tokens() -> None:
    """Whoever reads it could wake the phone."""
    lines: list[str] = []
    line = Line()
    line.world.engine.on_news = lambda event, facts: lines.append(f"{event} {dict(facts)}")
    phone = line.phone("10.0.0.3", APNS.replace("t1", "S3CRET"))
    line.register(phone, APNS.replace("t1", "S3CRET") + ";x=y", cseq=2)
    line.register(phone, APNS.replace("t1", "S3CRET"), ";expires=0", cseq=3)
    assert [text.partition(" ")[0] for text in lines] == ["registered", "registered", "unregistered", "unregistered"]
    assert "S3CRET" not in "".join(lines) and "pn-prid=***" in lines[0]


# --- a store that answers later ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [APNS, "ob"])
@pytest.mark.parametrize("known", [False, True])
def test_a_connection_that_ends_while_its_register_is_being_stored(params: str, known: bool) -> None:
    """The phone has it, and is not there any more: it sleeps, or it is gone."""
    line = Line(store=LaterStore())
    writes: list[Job] = []

    def later(job: Job) -> object:
        writes.append(job)
        return World.LATER

    if known:
        line.phone("10.0.0.9", params.replace("t1", "t9"))
    line.world.on_job = later
    phone = line.world.peer("10.0.0.3", "10.0.0.3", 5060, "tcp", listens=False)
    contact = f"Contact: <sip:bob@x7f3.invalid;transport=tcp;{params}>"
    phone.ask("REGISTER", "sip:example.com", contact, to=BOB, call_id="c", cseq=1)
    line.world.run()
    line.world.cut(phone)
    line.world.run()
    for job in writes:  # more may come meanwhile
        assert isinstance(job.effect, Write)
        job.effect.work()
        line.world.engine.complete(job.id, None, line.world.now)
        line.world.run()
    mine = [binding for binding in line.bindings if binding.call_id == b"c"]
    assert [(b.connection, line.world.engine.pusher.sleeps(b)) for b in mine] == ([(0, True)] if params == APNS else [])
    assert line.world.engine.registrations.writes.idle
