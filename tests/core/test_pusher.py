"""Pushes to phones (RFC 8599 §5.3): who sleeps, what a push says, how many one gets, what becomes of answers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.push import room as module
from orchestrator.core.settings import CoreSettings
from orchestrator.errors import StepError
from orchestrator.events.event import Event
from orchestrator.sip.location import Binding
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.push import Push, PushAddress, Pushed, PushKind, PushPolicy, PushService, address_of
from orchestrator.sip.uri import parse_uri
from orchestrator.testing.world import PROXY, World

BOB = "bob@example.com"
APNS = ";pn-provider=apns;pn-param=DEF123GHIJ.com.example.app;pn-prid="
SERVICES = (PushService("apns", "apns", apps=("com.example.app",)), PushService("push", "acme"))
POINTS = (ListenPoint(*PROXY), ListenPoint(*PROXY, "tls", reliable=True, secure=True, default_port=5061))


class Desk:
    """Registered phones, and push services that answer when they are told to."""

    def __init__(self, **policy: Any) -> None:
        self.world = World(points=POINTS, push=PushPolicy(SERVICES, **policy))
        self.world.on_job = lambda job: self.world.LATER
        self.engine = self.world.engine
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.engine.on_news = lambda event, facts: self.told.append((event, dict(facts)))
        self.events: list[dict[str, Any]] = []
        self.engine.bus.subscribe("push_failed", lambda event, _: self.events.append(dict(event.attributes)))
        self.results: list[Pushed] = []

    def phone(self, token: str = "T1", host: str = "10.0.0.5", parameters: str = APNS, **more: Any) -> Binding:
        """Registered just now."""
        wall = self.engine.wall
        contact = f"sip:bob@{host}:5060{parameters}{token if parameters else ''}".encode()
        more = {"registered_at": wall, "call_id": b"1", "cseq": 1, "expires_at": wall + 3600} | more
        binding = Binding(BOB, contact, **more)
        self.world.location.save(BOB, [binding], wall)
        return binding

    def push(self, binding: Binding, kind: PushKind = "call", **more: Any) -> bool:
        return self.engine.pusher.send(binding, kind, self.results.append, ttl=20.0, **more)

    @property
    def pushes(self) -> list[Push]:
        self.world.run()
        return [job.effect for job in self.world.jobs if isinstance(job.effect, Push)]

    def answer(self, result: Any, number: int = -1) -> None:
        """What becomes of one of the pushes."""
        assert self.pushes
        job = [job for job in self.world.jobs if isinstance(job.effect, Push)][number]
        self.engine.complete(job.id, result, self.world.now)
        self.world.run()

    @property
    def registered(self) -> tuple[str, ...]:
        found = self.world.location.bindings(BOB, self.engine.wall)
        return tuple(address.prid for binding in found if (address := binding.push_address))

    def count(self, name: str) -> int:
        return self.engine.counters[name]


# --- who sleeps -------------------------------------------------------------------------------------------------------


def test_a_phone_sleeps_when_its_register_is_so_long_ago() -> None:
    desk = Desk(awake=30.0)
    phone = desk.phone()
    sleeps = desk.engine.pusher.sleeps
    assert not sleeps(phone)
    desk.world.run(29.9)
    assert not sleeps(phone)
    desk.world.run(0.1)
    assert sleeps(phone)


def test_a_phone_sleeps_as_soon_as_its_connection_has_ended() -> None:
    desk = Desk()
    sleeps = desk.engine.pusher.sleeps
    home = {"point": desk.engine.network.points[1].name, "transport": "tls", "received": ("10.0.0.5", 40_000)}
    assert not sleeps(desk.phone(connection=7, **home))
    assert sleeps(desk.phone(connection=0, **home)), "ended, or of before a restart"
    assert not sleeps(desk.phone(path=(b"<sip:edge.example.com;lr>",), **home)), "its connection is to an edge proxy"


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        ";pn-provider=apns",
        ";pn-provider=fcm;pn-param=p;pn-prid=",
        ";pn-provider=apns;pn-param=A.other.app;pn-prid=",
    ],
)
def test_a_phone_that_nobody_pushes_to_does_not_sleep(parameters: str) -> None:
    desk = Desk()
    phone = desk.phone(parameters=parameters, registered_at=0.0)
    assert not desk.engine.pusher.sleeps(phone)
    assert not desk.push(phone)
    assert desk.pushes == []


def test_without_push_services_nobody_sleeps() -> None:
    world = World()
    contact = f"sip:bob@10.0.0.5{APNS}T1".encode()
    assert not world.engine.pusher.sleeps(Binding(BOB, contact, world.engine.wall + 60))
    assert CoreSettings(POINTS).push.services == ()


# --- one push ---------------------------------------------------------------------------------------------------------


def test_what_a_push_says() -> None:
    desk = Desk()
    options = {"apns": {"sound": "bell"}, "push": {"colour": "red"}}
    assert desk.push(desk.phone(), call="c1", collapse="k", data={"from": "alice@example.com"}, options=options)
    [push] = desk.pushes
    assert (push.service, push.kind, push.ttl, push.aor, push.call, push.collapse) == (
        "apns",
        "call",
        20.0,
        BOB,
        "c1",
        "k",
    )
    assert (push.address.app, push.address.token) == ("com.example.app", "T1")
    assert (push.data, push.options) == ({"from": "alice@example.com"}, {"sound": "bell"})


def test_a_push_that_was_sent() -> None:
    desk = Desk()
    desk.push(desk.phone(), call="c1")
    desk.answer(Pushed("sent", id="42"))
    assert desk.results == [Pushed("sent", id="42")]
    assert (desk.count("push.sent"), desk.registered, desk.events) == (1, ("T1",), [])
    [(event, facts)] = desk.told
    assert event == "push_sent"
    assert facts == {
        "call": "c1", "aor": BOB, "contact": "sip:bob@10.0.0.5:5060", "service": "apns", "kind": "call", "id": "42",
    }  # fmt: skip


def test_a_push_that_failed_is_told_and_the_phone_stays_registered() -> None:
    desk = Desk()
    desk.push(desk.phone())
    desk.answer(Pushed("failed", "503 Shutdown"))
    assert (desk.count("push.failed"), desk.registered) == (1, ("T1",))
    told = {"aor": BOB, "contact": "sip:bob@10.0.0.5:5060", "service": "apns", "reason": "503 Shutdown", "dead": False}
    assert desk.events == [told]
    assert [event for event, _ in desk.told] == ["push_failed"]
    assert "T1" not in str(desk.told), "a token is a secret"


def test_a_job_that_ends_in_an_error_is_a_push_that_failed() -> None:
    desk = Desk()
    desk.push(desk.phone())
    desk.answer(StepError("flow.busy", "the backlog is full"))
    [result] = desk.results
    assert result.outcome == "failed"
    assert "the backlog is full" in result.reason


# --- dead addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [None, "now"])
def test_a_dead_phone_is_not_registered_any_more(since: str | None) -> None:
    desk = Desk()
    lost: list[Event] = []
    desk.engine.bus.subscribe("unregistered", lambda event, _: lost.append(event))
    phone, other = desk.phone(), desk.phone("T2", host="10.0.0.6", cseq=2)
    desk.world.run(1)
    desk.push(phone)
    desk.answer(Pushed("dead", "410 Unregistered", None if since is None else desk.engine.wall))
    assert desk.registered == ("T2",)
    assert [event.attributes["contact"] for event in lost] == [phone.uri]
    assert (desk.count("push.dead"), desk.events[0]["dead"]) == (1, True)
    assert other.push_address is not None


@pytest.mark.parametrize("said", [None, -5.0, 0.0])
def test_a_phone_that_has_registered_since_stays(said: float | None) -> None:
    """APNs says since when (RFC 8599 knows no such thing); the others mean the time of the push."""
    desk = Desk()
    old = desk.phone()
    desk.world.run(10)
    desk.push(old)
    at = desk.engine.wall
    assert desk.pushes
    desk.world.run(1)
    desk.phone(host="10.0.0.99", call_id=b"2")
    desk.answer(Pushed("dead", "410 Unregistered", None if said is None else at + said))
    assert desk.registered == ("T1",)


def test_an_address_that_died_before_the_phone_registered_stays() -> None:
    desk = Desk()
    phone = desk.phone()
    desk.push(phone)
    desk.answer(Pushed("dead", "410 Unregistered", phone.registered_at - 1))
    assert desk.registered == ("T1",)


def test_a_phone_with_a_new_token_stays() -> None:
    desk = Desk()
    old = desk.phone(instance="urn:uuid:1")
    desk.push(old)
    assert desk.pushes
    desk.phone("T2", instance="urn:uuid:1", cseq=2)
    desk.answer(Pushed("dead", "400 BadDeviceToken"))
    assert desk.registered == ("T2",)


# --- how many ---------------------------------------------------------------------------------------------------------


def test_a_phone_gets_so_many_pushes_in_a_minute() -> None:
    desk = Desk(per_phone=3)
    phone, other = desk.phone(), desk.phone("T2", host="10.0.0.6", cseq=2)
    times = (0, 10, 20, 59.9, 60, 60.1, 70, 71)
    taken = []
    for at in times:
        desk.world.run(at - desk.world.now)
        taken.append(desk.push(phone))
    assert taken == [True, True, True, False, True, False, True, False]
    assert desk.push(other), "each has its own"
    assert (len(desk.pushes), desk.count("push.limited")) == (6, 3)
    assert [event["reason"] for event in desk.events] == ["too many pushes to this phone (push: per_phone)"] * 3


def test_the_bound_is_of_the_phone_and_not_of_its_address_of_record() -> None:
    """Whoever registers somebody's token under many addresses does not push him more often for that."""
    desk = Desk(per_phone=2)
    phones = [desk.phone(host=f"10.0.0.{number}", instance=str(number), cseq=number) for number in range(1, 5)]
    assert [desk.push(phone) for phone in phones] == [True, True, False, False]


def test_somebody_elses_token_is_no_way_to_flood_him_nor_to_keep_his_calls_from_him() -> None:
    """Whoever has seen a token may register it, under addresses of his own and written otherwise."""
    room, own = module.PushRoom(5), address("abc1")
    stranger = [
        address("abc1"),
        address("ABC1"),
        address("abc1", "DEF123GHIJ.com.example.app.voip"),
        address("0001:remote&abc1:voip"),
        address("0002:remote&abc1:voip"),
        address("abc1:remote&0003:voip"),
    ]
    taken = [room.take(each, "mallory@example.com", 1.0) for each in stranger * 3]
    assert sum(taken) == 5
    assert all(room.take(own, "bob@example.com", 2.0) for _ in range(5)), "bob is called all the same"
    taken = [room.take(own, f"m{number}@example.com", 3.0) for number in range(1000)]
    assert sum(taken) == 5, "fifteen in all, under however many addresses"
    assert room.last(own) == 3.0
    assert room.take(own, "bob@example.com", 63.0)


def address(token: str, param: str = "DEF123GHIJ.com.example.app") -> PushAddress:
    found = address_of(parse_uri(f"sip:x@192.0.2.1;pn-provider=apns;pn-param={param};pn-prid={token}".encode()))
    assert found is not None
    return found


def test_of_phones_that_were_pushed_long_ago_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(module, "MOST_PHONES", 50)
    for number in range(100):
        desk.push(desk.phone(f"T{number}", host=f"10.1.0.{number}", cseq=number + 1, call_id=b"%d" % number))
        desk.world.location._put(BOB, ())
    assert len(desk.engine.pusher.room) == 50
    desk.world.run(61)
    desk.push(desk.phone("T0"))
    assert len(desk.engine.pusher.room) == 1


def test_who_was_pushed_lately() -> None:
    desk = Desk()
    phone = desk.phone()
    lately = desk.engine.pusher.pushed_lately
    assert not lately(phone, 20)
    desk.push(phone)
    desk.world.run(20)
    assert lately(phone, 20)
    desk.world.run(0.1)
    assert not lately(phone, 20)
