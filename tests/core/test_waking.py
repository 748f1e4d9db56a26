"""Calls and texts for phones that sleep, when no flow takes them (RFC 8599 §5.3): who is pushed, who rings and when,
how the wait ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from wakekit import AOR, BOB, Night, push_parameters

from orchestrator.core.stopping import give_up
from orchestrator.errors import StoreError
from orchestrator.sip.location import Change
from orchestrator.sip.push import Push
from orchestrator.store.memory import MemoryStore

# --- who rings, and when ----------------------------------------------------------------------------------------------


def test_a_sleeping_phone_rings_when_it_registers() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    assert (call.statuses, night.pushes, night.rung(phone)) == ([100], [("call", "T1")], [0])
    night.world.run(5)
    assert (call.statuses, night.rung(phone)) == ([100], [0])
    night.register(phone, "T1")
    assert night.rung(phone) == [1]
    night.reply(phone, 180)
    night.reply(phone, 200)
    assert call.statuses == [100, 180, 200]
    night.quiet(call)


def test_a_phone_that_is_awake_rings_at_once_without_a_push() -> None:
    night = Night()
    phone = night.phone("bob", "10.0.0.11", "T1")
    call = night.call()
    assert (night.pushes, night.rung(phone)) == ([], [1])
    night.reply(phone, 486)
    assert call.statuses == [100, 486]
    night.quiet(call)


def test_a_phone_without_push_rings_at_once_beside_one_that_sleeps() -> None:
    night = Night()
    mobile, desk = night.sleeper(), night.phone("desk", "10.0.0.12")
    call = night.call()
    assert night.rung(mobile, desk) == [0, 1]
    night.reply(desk, 180)
    night.reply(desk, 486)
    assert call.statuses == [100, 180], "the mobile may still wake up"
    night.register(mobile, "T1")
    assert night.rung(mobile, desk) == [1, 1]
    night.reply(mobile, 603)
    assert call.statuses == [100, 180, 603]
    night.quiet(call)


@pytest.mark.parametrize("desks", [0, 1, 3])
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_phones_that_register_meanwhile_take_no_room_from_those_that_wake_up(desks: int, method: str) -> None:
    """Max-Breadth (RFC 5393 §5.3.3): what the first ones get is not all there is."""
    night = Night(trust=())
    caller = night.phone("carol", "10.0.0.40", aor="carol@example.com")
    phone = night.phone("bob", "10.0.0.11", "T1")
    night.world.run(31)
    for number in range(desks):
        night.phone(f"desk{number}", f"10.0.1.{number + 1}")
    call = night.call(method=method, peer=caller)
    late = [night.world.peer(f"late{number}", f"10.0.2.{number + 1}") for number in range(3)]
    for each in late:
        night.register(each)
    night.register(phone, "T1")
    assert night.rung(*late, phone, method=method) == [1, 1, 1, 1]
    night.reply(phone, 200, method)
    assert call.final.status == 200
    night.quiet(call)


def test_nobody_wakes_up() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    night.world.run(19.9)
    assert call.statuses == [100]
    night.world.run(0.1)
    assert call.statuses == [100, 480]
    night.register(phone, "T1")
    assert night.rung(phone) == [0], "too late"
    night.quiet(call)


def test_the_best_failure_is_the_answer_when_nobody_wakes_up() -> None:
    night = Night()
    night.sleeper()
    desk = night.phone("desk", "10.0.0.12")
    call = night.call()
    night.reply(desk, 486)
    night.world.run(20)
    assert call.statuses == [100, 486]
    night.quiet(call)


def test_a_phone_that_rings_still_rings_when_the_wait_is_over() -> None:
    night = Night()
    night.sleeper()
    desk = night.phone("desk", "10.0.0.12")
    call = night.call()
    night.reply(desk, 180)
    night.world.run(25)
    assert call.statuses == [100, 180]
    night.reply(desk, 200)
    assert call.statuses == [100, 180, 200]
    night.quiet(call)


def test_the_wait_is_over_as_soon_as_all_have_woken_up() -> None:
    night = Night()
    one, two = night.phone("one", "10.0.0.11", "T1"), night.phone("two", "10.0.0.12", "T2")
    night.world.run(31)
    call = night.call()
    assert night.pushes == [("call", "T1"), ("call", "T2")] or night.pushes == [("call", "T2"), ("call", "T1")]
    night.register(one, "T1")
    night.reply(one, 486)
    assert call.statuses == [100]
    night.register(two, "T2")
    night.reply(two, 480)
    assert call.statuses in ([100, 486], [100, 480])
    night.quiet(call)


def test_a_phone_that_is_dead_to_its_service_is_not_waited_for() -> None:
    night = Night()
    phone = night.sleeper()
    night.answer = None
    call = night.call()
    night.told(outcome="dead", reason="410 Unregistered")
    assert call.statuses == [100, 480]
    assert len(night.engine.registrations.bindings_of(AOR)) == 0
    assert night.rung(phone) == [0]
    night.quiet(call)


def test_others_are_waited_for_when_one_push_went_wrong() -> None:
    night = Night()
    one, two = night.phone("one", "10.0.0.11", "T1"), night.phone("two", "10.0.0.12", "T2")
    night.world.run(31)
    night.answer = None
    call = night.call()
    dead = night.pushes.index(("call", "T1"))
    night.told(dead, "dead")
    assert call.statuses == [100]
    night.register(two, "T2")
    assert night.rung(one, two) == [0, 1]
    night.reply(two, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


# --- one phone, once --------------------------------------------------------------------------------------------------


def test_a_phone_that_comes_back_from_elsewhere_rings_there_and_once() -> None:
    """Another address, port, transport and Contact between push and REGISTER (RFC 8599 §5.3); and again while it
    rings."""
    night = Night()
    old = night.sleeper("bob", "10.0.0.11", "T1")
    call = night.call()
    moved = night.world.peer("bobs-mobile", "192.0.2.77", 40_001)
    night.register(moved, "T1")
    assert night.rung(old, moved) == [0, 1]
    again = night.world.peer("bob3", "198.51.100.3", 5066)
    night.register(again, "T1")
    night.register(moved, "T1")
    assert night.rung(old, moved, again) == [0, 1, 0]
    night.reply(moved, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


@pytest.mark.parametrize(
    "parameters",
    [
        "pn-provider=apns.dev;pn-param=DEF123GHIJ.com.example.app.remote&voip;pn-prid=T0:remote&T1:voip",
        "pn-type=apple;app-id=DEF123GHIJ.com.example.app;pn-tok=T1",
    ],
)
def test_a_phone_that_comes_back_in_another_dialect_is_the_same(parameters: str) -> None:
    night = Night()
    old = night.sleeper()
    call = night.call()
    moved = night.world.peer("bob", "192.0.2.77")
    moved.contact = f"<sip:bob@192.0.2.77;{parameters}>"
    night.register(moved)
    assert night.rung(old, moved) == [0, 1]
    assert len(night.engine.wakers) == 0, "nobody else is waited for"
    night.reply(moved, 486)
    night.quiet(call)


def test_a_phone_with_a_new_token_is_the_same() -> None:
    night = Night()
    instance = ';+sip.instance="<urn:uuid:1>"'
    phone = night.sleeper(more=instance)
    call = night.call()
    night.register(phone, "NEW", more=instance)
    assert (night.rung(phone), len(night.engine.wakers)) == ([1], 0)
    night.reply(phone, 486)
    night.quiet(call)


def test_a_phone_that_is_awake_and_registers_again_rings_once() -> None:
    night = Night()
    night.sleeper()
    awake = night.phone("two", "10.0.0.12", "T2")
    call = night.call()
    night.register(awake, "T2")
    moved = night.world.peer("two", "192.0.2.77")
    night.register(moved, "T2")
    assert night.rung(awake, moved) == [1, 0]
    night.world.run(20)
    night.reply(awake, 486)
    night.quiet(call)


def test_a_phone_with_two_contacts_is_pushed_once() -> None:
    night = Night()
    phone = night.sleeper(more=';+sip.instance="<urn:uuid:1>";reg-id=1')
    second = night.sleeper("bob", "10.0.0.12", "T1", more=';+sip.instance="<urn:uuid:1>";reg-id=2')
    call = night.call()
    assert night.pushes == [("call", "T1")]
    night.register(second, "T1", more=';+sip.instance="<urn:uuid:1>";reg-id=2')
    assert night.rung(phone, second) == [0, 1]
    night.register(phone, "T1", more=';+sip.instance="<urn:uuid:1>";reg-id=1')
    assert night.rung(phone, second) == [0, 1]
    night.reply(second, 486)
    night.quiet(call)


def test_another_phone_that_registers_during_the_wait_rings_too() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    new = night.world.peer("new", "10.0.0.30")
    night.register(new)
    assert night.rung(phone, new) == [0, 1]
    night.register(new)
    assert night.rung(phone, new) == [0, 1]
    stranger = night.world.peer("carol", "10.0.0.31")
    night.register(stranger, aor="carol@example.com")
    assert night.rung(stranger) == [0]
    night.reply(new, 200)
    assert call.statuses == [100, 200]
    night.quiet(call)


def test_what_is_for_one_phone_goes_to_no_other_that_registers() -> None:
    night = Night()
    phone = night.sleeper(more=';+sip.instance="<urn:uuid:1>"')
    call = night.call(f"{BOB};gr=urn:uuid:1")
    other = night.world.peer("other", "10.0.0.30")
    night.register(other)
    assert night.rung(phone, other) == [0, 0]
    night.register(phone, "T1", more=';+sip.instance="<urn:uuid:1>"')
    assert night.rung(phone, other) == [1, 0]
    night.reply(phone, 486)
    night.quiet(call)


def test_all_calls_that_wait_for_a_phone_get_it() -> None:
    night = Night()
    phone = night.sleeper()
    calls = [night.call() for _ in range(3)]
    assert len(night.pushes) == 3
    night.register(phone, "T1")
    assert night.rung(phone) == [3]
    for number in range(3):
        night.reply(phone, 486, number=number)
    assert all(call.statuses == [100, 486] for call in calls)
    night.quiet(*calls)


# --- giving up --------------------------------------------------------------------------------------------------------


def test_a_phone_is_told_of_a_call_that_was_cancelled_before_it_registered() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    call.cancel()
    night.world.run()
    assert call.statuses == [100, 487]
    assert night.pushes == [("call", "T1"), ("cancel", "T1")]
    called, over = (job.effect for job in night.jobs)
    assert isinstance(called, Push) and isinstance(over, Push)
    assert (called.collapse, called.call, called.data) == (over.collapse, over.call, over.data)
    night.register(phone, "T1")
    assert night.rung(phone) == [0]
    night.quiet(call)


def test_a_phone_is_told_of_a_call_that_was_answered_elsewhere() -> None:
    night = Night()
    night.sleeper()
    desk = night.phone("desk", "10.0.0.12")
    call = night.call()
    night.reply(desk, 200)
    assert call.statuses == [100, 200]
    assert night.pushes == [("call", "T1"), ("cancel", "T1")]
    night.quiet(call)


def test_a_phone_that_has_registered_gets_a_sip_cancel_and_no_push() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    night.register(phone, "T1")
    night.reply(phone, 180)
    call.cancel()
    night.world.run()
    assert night.pushes == [("call", "T1")]
    assert night.rung(phone, method="CANCEL") == [1]
    night.reply(phone, 487)
    night.quiet(call)


def test_a_push_that_is_under_way_is_called_off_when_it_has_been_sent() -> None:
    night = Night()
    night.sleeper()
    night.answer = None
    call = night.call()
    call.cancel()
    night.world.run()
    assert night.pushes == [("call", "T1")]
    night.told(0, "sent")
    assert night.pushes == [("call", "T1"), ("cancel", "T1")]
    night.told(1, "sent")
    assert len(night.pushes) == 2
    night.quiet(call)


def test_a_push_that_came_to_nothing_is_not_called_off() -> None:
    night = Night()
    night.sleeper()
    night.answer = None
    call = night.call()
    call.cancel()
    night.world.run()
    night.told(0, "failed")
    assert night.pushes == [("call", "T1")]
    night.quiet(call)


def test_a_phone_that_registers_before_its_push_is_answered_is_not_told() -> None:
    night = Night()
    phone = night.sleeper()
    night.answer = None
    call = night.call()
    night.register(phone, "T1")
    assert night.rung(phone) == [1]
    call.cancel()
    night.world.run()
    night.told(0, "sent")
    assert night.pushes == [("call", "T1")]
    night.reply(phone, 487)
    night.quiet(call)


def test_a_service_that_cannot_is_not_asked_to_call_off() -> None:
    night = Night()
    night.sleeper(service="fcm")
    call = night.call()
    call.cancel()
    night.world.run()
    assert night.pushes == [("call", "T1")]
    night.quiet(call)


def test_nobody_is_told_of_a_call_that_waited_in_vain() -> None:
    night = Night()
    night.sleeper()
    call = night.call()
    night.world.run(20)
    assert night.pushes == [("call", "T1")]
    night.quiet(call)


def test_a_phone_that_refuses_for_all_ends_the_wait() -> None:
    night = Night()
    night.sleeper()
    desk = night.phone("desk", "10.0.0.12")
    call = night.call()
    night.reply(desk, 603)
    assert call.statuses == [100, 603]
    assert night.pushes == [("call", "T1"), ("cancel", "T1")]
    night.quiet(call)


# --- what the app is told ---------------------------------------------------------------------------------------------


def test_what_an_app_is_told() -> None:
    night = Night()
    night.sleeper()
    call = night.alice.ask("INVITE", BOB, sender='"Alice \\"A\\"" <sip:Alice@EXAMPLE.com>;tag=1', call_id="c1@alice")
    night.world.run()
    [job] = night.jobs
    push = job.effect
    assert isinstance(push, Push)
    assert push.data == {"call": "c1@alice", "from": "Alice@example.com", "display_name": 'Alice "A"'}
    assert (push.aor, push.call, push.ttl, push.kind) == (AOR, "c1@alice", 20.0, "call")
    assert 0 < len(push.collapse) <= 32, "Web Push takes no more (RFC 8030 §5.4)"
    call.cancel()
    night.world.run()
    night.quiet(call)


# --- texts and other requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "kind"), [("MESSAGE", "message"), ("OPTIONS", "request"), ("NOTIFY", "request")])
def test_a_request_waits_for_its_phone(method: str, kind: str) -> None:
    night = Night(trust=())
    sender = night.phone("alice", "10.0.0.40", aor="alice@example.com")
    phone = night.sleeper()
    ask = night.call(method=method, peer=sender)
    assert (ask.statuses, night.pushes) == ([], [(kind, "T1")])
    night.world.run(3)
    night.register(phone, "T1")
    assert night.rung(phone, method=method) == [1]
    night.reply(phone, 200, method)
    assert ask.statuses == [200]
    night.quiet(ask)


def test_a_text_that_nobody_takes() -> None:
    night = Night(wake=60.0)
    night.sleeper()
    night.register(night.alice, aor="alice@example.com")
    ask = night.call(method="MESSAGE")
    night.world.run(27.9)
    assert ask.statuses == []
    night.world.run(0.2)
    assert ask.statuses == [480], "before its sender gives up, after 64*T1"
    assert night.pushes == [("message", "T1")], "a text is not called off"
    night.quiet(ask)


def test_a_text_is_not_sent_back_to_the_phone_it_comes_from() -> None:
    night = Night()
    phone, other = night.sleeper(), night.sleeper("two", "10.0.0.12", "T2")
    ask = night.call(method="MESSAGE", peer=phone)
    assert night.pushes == [("message", "T2")]
    night.register(phone, "T1")
    assert night.rung(phone, other, method="MESSAGE") == [0, 0]
    night.register(other, "T2")
    night.reply(other, 200, "MESSAGE")
    assert ask.statuses == [200]
    night.quiet(ask)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_phone_that_gets_no_more_pushes_is_waited_for_while_the_last_one_may_wake_it() -> None:
    night = Night(per_phone=2)
    phone = night.sleeper()
    calls = [night.call() for _ in range(3)]
    assert (len(night.pushes), night.engine.counters["push.limited"]) == (2, 1)
    night.register(phone, "T1")
    assert night.rung(phone) == [3]
    for number in range(3):
        night.reply(phone, 486, number=number)
    night.quiet(*calls)


def test_a_phone_that_gets_no_more_pushes_rings_where_it_is() -> None:
    night = Night(per_phone=1)
    phone = night.sleeper()
    first = night.call()
    night.world.run(20)
    first.acknowledge()
    night.world.run(10)
    second = night.call()
    assert (first.statuses, night.rung(phone), len(night.pushes)) == ([100, 480], [1], 1)
    night.reply(phone, 486)
    assert second.statuses == [100, 486]
    night.quiet(second)


def test_a_storm_of_calls_is_no_storm_of_pushes() -> None:
    night = Night(per_phone=10)
    night.sleeper()
    calls = [night.call() for _ in range(50)]
    assert (len(night.pushes), night.engine.counters["push.limited"]) == (10, 40)
    night.world.run(20)
    assert all(call.statuses == [100, 480] for call in calls)
    night.quiet(*calls)


def test_without_a_wait_phones_ring_as_they_are() -> None:
    night = Night(wake=0.0)
    phone = night.sleeper()
    call = night.call()
    assert (night.pushes, night.rung(phone)) == ([], [1])
    night.reply(phone, 486)
    night.quiet(call)


def test_a_phone_that_calls_wait_for_may_register_in_overload() -> None:
    """What is in progress passes; to have it wait for a phone that we turn away would be for nothing."""
    late = [0.0]
    night = Night(age=lambda: late[0])
    phone, other = night.sleeper(), night.world.peer("carol", "10.0.0.50")
    call = night.call()
    late[0] = 30.0
    refused = other.register("carol@example.com")
    night.world.run()
    assert refused.statuses == [503]
    night.register(phone, "T1")
    assert night.rung(phone) == [1]
    night.reply(phone, 486)
    night.quiet(call)


# --- a store that answers later ---------------------------------------------------------------------------------------


class LaterStore(MemoryStore):
    """Its rows change when the work is done."""

    def write(self, changes: Sequence[Change]) -> Callable[[], None]:  # type: ignore[override]
        return partial(super().write, changes)


def test_a_phone_rings_when_its_registration_is_stored() -> None:
    """Its 200 comes first (RFC 8599 §5.3.2)."""
    night = Night(store=LaterStore())
    phone = night.sleeper()
    call = night.call()
    night.writes_wait = True
    night.cseq += 1
    ask = phone.register(AOR, f"<{phone.contact.strip('<>')};{push_parameters('T1')}>", cseq=night.cseq)
    night.world.run(2)
    assert (ask.statuses, night.rung(phone)) == ([], [0])
    night.store_now()
    assert (ask.statuses, night.rung(phone)) == ([200], [1])
    assert [message for message in phone.heard if message in ("200", "INVITE")][-2:] == ["200", "INVITE"]
    night.reply(phone, 486)
    night.quiet(call)


def test_a_call_that_comes_while_the_registration_is_stored() -> None:
    night = Night(store=LaterStore())
    phone = night.sleeper()
    night.writes_wait = True
    night.cseq += 1
    phone.register(AOR, f"<{phone.contact.strip('<>')};{push_parameters('T1')}>", cseq=night.cseq)
    night.world.run()
    call = night.call()
    assert night.pushes == [("call", "T1")]
    night.store_now()
    assert night.rung(phone) == [1]
    night.reply(phone, 486)
    night.quiet(call)


def test_a_registration_that_comes_to_nothing_wakes_nobody() -> None:
    night = Night(store=LaterStore())
    phone = night.sleeper()
    call = night.call()
    night.writes_wait = True
    night.cseq += 1
    ask = phone.register(AOR, f"<{phone.contact.strip('<>')};{push_parameters('T1')}>", cseq=night.cseq)
    night.world.run()
    night.store_now(StoreError("disk full"))
    assert (ask.statuses, night.rung(phone)) == ([503], [0])
    night.writes_wait = False
    night.world.run(1)
    night.register(phone, "T1")
    assert night.rung(phone) == [1]
    night.reply(phone, 486)
    night.quiet(call)


# --- the end of the server, reload ------------------------------------------------------------------------------------


def test_a_stop_refuses_who_waits() -> None:
    """Nobody can register any more, so nobody will come."""
    night = Night()
    night.sleeper()
    call = night.call()
    night.engine.drain(night.world.now)
    night.world.run()
    assert call.statuses == [100, 503]
    assert night.pushes == [("call", "T1"), ("cancel", "T1")]
    night.quiet(call)


def test_a_stop_leaves_who_rings() -> None:
    night = Night()
    night.sleeper()
    desk = night.phone("desk", "10.0.0.12")
    call = night.call()
    night.reply(desk, 180)
    night.engine.drain(night.world.now)
    night.world.run()
    assert call.statuses == [100, 180]
    night.reply(desk, 486)
    assert call.statuses == [100, 180, 486]
    night.quiet(call)


def test_the_last_word_of_a_stop() -> None:
    night = Night()
    night.sleeper()
    call = night.call()
    give_up(night.engine, night.engine.faults, False, night.world.now)
    night.world.run()
    assert call.statuses == [100, 503]
    night.quiet(call)


def test_a_reload_changes_nothing_for_who_waits() -> None:
    night = Night()
    phone = night.sleeper()
    call = night.call()
    night.world.reload_site(secrets={"A": "b"})
    night.register(phone, "T1")
    assert night.rung(phone) == [1]
    night.reply(phone, 486)
    night.quiet(call)


def test_a_contact_that_others_have_registered_wakes_up_too() -> None:
    """Another node has taken the REGISTER (`Engine.bindings_changed`)."""
    night = Night()
    phone = night.sleeper()
    call = night.call()
    [old] = night.engine.registrations.bindings_of(AOR)
    new = replace(old, cseq=old.cseq + 1, registered_at=night.engine.wall)
    night.engine.bindings_changed([Change("refreshed", new)], night.world.now)
    night.world.run()
    assert night.rung(phone) == [1]
    night.reply(phone, 486)
    night.quiet(call)


def test_a_phone_that_unregisters_first_is_waited_for() -> None:
    """Some stacks remove the old contact and then register the new one."""
    night = Night()
    phone = night.sleeper()
    call = night.call()
    night.cseq += 1
    gone = phone.register(AOR, f"<{phone.contact.strip('<>')};{push_parameters('T1')}>", 0, cseq=night.cseq)
    night.world.run()
    assert (gone.statuses, call.statuses) == ([200], [100])
    moved = night.world.peer("bob2", "192.0.2.7")
    night.register(moved, "T1")
    assert night.rung(phone, moved) == [0, 1]
    night.reply(moved, 486)
    night.quiet(call)


def test_one_who_has_nothing_to_say_about_a_push_ends_nothing() -> None:
    """The result of a push comes when all is over."""
    night = Night()
    phone = night.sleeper()
    night.answer = None
    call = night.call()
    night.register(phone, "T1")
    night.reply(phone, 486)
    night.quiet(call)
    night.told(0, "dead")
    assert night.pushes == [("call", "T1")]
