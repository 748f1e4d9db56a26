"""Pushes before a registration ends (RFC 8599 §5.5)."""

from __future__ import annotations

from typing import Any

import pytest
from pushkit import AOR, APNS, FCM, SERVICES, Desk, Pushes, contact

from orchestrator.core.engine import Engine
from orchestrator.core.push.refresh import BATCH, TICK
from orchestrator.flow.language.program import Program
from orchestrator.sip.location import Binding, Change, Location
from orchestrator.sip.push import Pushed, PushPolicy
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.world import WALL, World


def desk(refresh: float = 120.0, **more: Any) -> tuple[Desk, Pushes]:
    at = Desk(PushPolicy(SERVICES, refresh=refresh), **more)
    return at, Pushes(at.world)


def test_a_phone_is_pushed_in_time_and_again_while_it_does_not_register() -> None:
    at, pushes = desk()
    at.register(contact(APNS, ";expires=600"))
    at.world.run(700.0)
    assert pushes.times == [480.0, 540.0, 570.0, 585.0]
    [first, *_] = [push for _, push in pushes.sent]
    assert (first.kind, first.service, first.aor, first.ttl, first.collapse) == (
        "refresh",
        "apple",
        AOR,
        120.0,
        "refresh",
    )
    assert at.bindings == [] and at.world.engine.counters["push.refresh"] == 4
    assert len(at.world.engine.refreshes) == 0


def test_a_register_in_time_needs_no_push() -> None:
    at, pushes = desk()
    for _ in range(10):
        at.register(contact(APNS, ";expires=600"))
        at.world.run(400.0)
    assert pushes.times == []
    at.world.run(81.0)
    assert len(pushes.times) == 1
    at.register(contact(APNS, ";expires=600"))
    at.world.run(470.0)
    assert len(pushes.times) == 1, "it has woken up"


@pytest.mark.parametrize(
    ("params", "tail", "headers"),
    [
        (APNS, ";expires=600;+sip.pnsreg", ()),
        (APNS, ";expires=600", ('Feature-Caps: *;+sip.pns="apns"',)),
        ("pn-provider=acme;pn-param=1;pn-prid=2", ";expires=600", ('Feature-Caps: *;+sip.pns="acme"',)),
        ("pn-provider=apns", ";expires=600", ()),
        ("ob", ";expires=600", ()),
        (APNS, ";expires=0", ()),
    ],
)
def test_no_push_for_whom_it_is_needless_or_not_ours(params: str, tail: str, headers: tuple[str, ...]) -> None:
    at, pushes = desk()
    assert at.register(contact(params, tail), *headers).status == 200
    at.world.run(601.0)
    assert pushes.times == []


def test_none_where_it_is_off_and_none_without_services() -> None:
    at, pushes = desk(refresh=0.0)
    at.register(contact(APNS, ";expires=600"))
    plain = Desk()
    plain.register(contact(APNS, ";expires=600"))
    for each in (at, plain):
        each.world.run(601.0)
        assert len(each.world.engine.refreshes) == 0
    assert pushes.times == []


def test_who_leaves_is_not_pushed_any_more() -> None:
    at, pushes = desk()
    at.register(contact(APNS, ";expires=600"), contact(FCM, ";expires=600", "10.0.0.12"))
    at.register(contact(APNS, ";expires=0"))
    at.world.run(481.0)
    assert [push.service for _, push in pushes.sent] == ["google"]
    at.register("Contact: *", "Expires: 0")
    at.world.run(200.0)
    assert len(pushes.times) == 1


def test_a_dead_token_takes_the_binding_out() -> None:
    at, pushes = desk()
    pushes.answer = Pushed("dead", "Unregistered", since=WALL + 100.0)
    at.register(contact(APNS, ";expires=600"))
    at.world.run(500.0)
    assert at.bindings == [] and len(pushes.times) == 1


def test_a_service_that_fails_is_asked_again() -> None:
    at, pushes = desk()
    pushes.answer = Pushed("failed", "503")
    at.register(contact(APNS, ";expires=600"))
    at.world.run(560.0)
    assert pushes.times == [480.0, 540.0] and len(at.bindings) == 1


def test_two_bindings_of_one_phone_are_one_push() -> None:
    """§4.1.3: it registers both when it is woken."""
    at, pushes = desk()
    for number in (1, 2):
        tail = f';expires=600;reg-id={number};+sip.instance="<urn:uuid:1>"'
        at.register(contact(APNS, tail, f"10.0.0.{number}"), "Supported: outbound", call_id=f"c{number}")
        at.world.run(3.0)
    assert len(at.bindings) == 2
    at.world.run(490.0)
    assert pushes.times == [480.0]


def test_one_push_is_enough_for_all_accounts_of_a_phone() -> None:
    at, pushes = desk()
    for user in ("bob", "work"):
        at.register(contact(APNS, ";expires=600"), to=f"{user}@example.com")
    at.world.run(481.0)
    assert len(pushes.times) == 1


def test_bindings_of_before_the_start_are_pushed_too() -> None:
    store = MemoryStore()
    before = World(store=store)
    aors = [f"u{number}@example.com" for number in range(3)]
    for aor in aors:
        uri = b"sip:u@10.0.0.5;" + APNS.replace("t1", aor.partition("@")[0]).encode()
        made = Binding(aor, uri, WALL + 600, call_id=b"c", cseq=1, registered_at=WALL)
        before.location.save(aor, [made], WALL)
    location = Location(store)
    location.load(WALL)
    later = World(store=store, push=PushPolicy(SERVICES))
    later.location = location
    later.engine = Engine(later.settings, location, Program())
    pushes = Pushes(later)
    later.run(481.0)
    assert sorted(push.aor for _, push in pushes.sent) == aors


def test_a_thousand_that_are_due_together_are_spread() -> None:
    at, pushes = desk()
    wall, engine = at.world.engine.wall, at.world.engine
    changes = []
    for number in range(1000):
        aor = f"u{number}@example.com"
        uri = f"sip:u@10.0.0.5;pn-provider=fcm;pn-param=p;pn-prid=t{number}".encode()
        made = Binding(aor, uri, wall + 600, call_id=b"c", cseq=1, registered_at=wall)
        changes += at.world.location.save(aor, [made], wall)
    engine.registrations.announce(changes)
    at.world.run(479.9)
    assert pushes.times == []
    at.world.run(0.11)
    assert len(pushes.times) == BATCH
    at.world.run(TICK * 1000 / BATCH + 1)
    assert len(pushes.times) == 1000
    assert len({push.aor for _, push in pushes.sent}) == 1000


class Shared(MemoryStore):
    def watch(self, changed: Any) -> None: ...


@pytest.mark.parametrize(("point", "pushed"), [("udp:10.0.0.1:5060", 1), ("udp:10.0.0.2:5060", 0)])
def test_of_several_nodes_the_one_pushes_where_the_phone_registers(point: str, pushed: int) -> None:
    at, pushes = desk(store=Shared())
    wall, uri = at.world.engine.wall, b"sip:bob@10.0.0.5;" + APNS.encode()
    made = Binding(AOR, uri, wall + 600, call_id=b"c", cseq=1, registered_at=wall, point=point)
    at.world.engine.bindings_changed([Change("added", made)], at.world.now)
    at.world.run(481.0)
    assert len(pushes.times) == pushed


def test_a_server_that_stops_pushes_nobody() -> None:
    at, pushes = desk()
    at.register(contact(APNS, ";expires=600"))
    at.world.run(400.0)
    at.world.engine.drain(at.world.now)
    at.world.run(100.0)
    assert pushes.times == []


def test_phones_that_register_all_the_time_leave_no_more_than_they_are() -> None:
    at, pushes = desk()
    engine, uri = at.world.engine, b"sip:bob@10.0.0.5;" + APNS.encode()
    for number in range(3000):
        wall = engine.wall
        made = Binding(AOR, uri, wall + 7200, call_id=b"c", cseq=number + 1, registered_at=wall)
        engine.registrations.announce(at.world.location.save(AOR, [made], wall))
        at.world.run(1.0)
    assert len(at.world.engine.refreshes) <= 1_002 and pushes.times == []
    at.world.run(7079.0)
    assert len(pushes.times) == 1
