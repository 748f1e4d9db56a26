"""The three scenarios in the pure core: every ordering of what can happen at once, on a clock moved by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from orchestrator.core.jobs import Resolve
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.effects import Http
from orchestrator.flow.run.trace import render
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.switch.channel import TONES
from orchestrator.testing.switch.server import SWITCHES, VirtualFreeSwitch
from orchestrator.testing.world import World

FLOWS = Path(__file__).parents[2] / "flows"
PROGRAM = load_program([FLOWS])[0]
BY_HAND = load_program([FLOWS.parent / "docs" / "flows" / "push_by_hand.flow.yaml"])[0]
"""Push wake-up step by step; as one step it is held by `test_waking_orders`."""
QUIET = 45.0
"""Longer than 64*T1 and than every timer of the flows: after that nothing may be left."""


FS1 = ("10.254.0.1", 5080)


def world(seed: int = 1, program: Program = PROGRAM) -> World:
    w = World(
        program,
        seed=seed,
        secrets={"PUSH_URL": "https://push.example.com/", "PUSH_KEY": "k"},
        freeswitch={"fs1": "sip:10.254.0.1:5080"},
        trust=(SWITCHES,),
    )
    switch = VirtualFreeSwitch.in_world(w, "fs1", FS1)
    w.on_job = lambda job: None if isinstance(job.effect, Resolve) else switch.perform(job)
    return w


def freeswitch(w: World) -> VirtualFreeSwitch:
    switch = w.phones[FS1]
    assert isinstance(switch, VirtualFreeSwitch)
    return switch


def press(w: World, call: PhoneCall, digit: str) -> None:
    """A key of a phone: heard by FreeSWITCH where the media go through it, else a SIP INFO."""
    channel = freeswitch(w).channel_of(call)
    if channel is not None:
        channel.press(digit)
    else:
        call.press(digit)


def invites(phone: Phone) -> int:
    """How many different INVITEs reached a phone."""
    branches = {request.via.branch for request in phone.requests if request.method == b"INVITE"}
    return len(branches)


def finals(call: PhoneCall) -> list[int]:
    return [status for status in call.statuses if status >= 200]


def assert_all_over(world: World) -> None:
    """No orphan branch, no leaked subscription, exactly one final response for every call."""
    world.run(QUIET)
    assert world.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}
    assert freeswitch(world).channels == {}
    assert len(world.engine.steps.detectors) == 0
    for phone in world.phones.values():
        for call in phone.calls:
            assert call.state == "ended", f"{call} is an orphan"
            if not call.incoming:
                assert len(finals(call)) == 1, call.statuses


# --- push wake-up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(["register", "invite", "again"])))
def test_a_phone_that_registers_before_during_or_after_the_invite_rings_once(order: tuple[str, ...]) -> None:
    w = world(program=BY_HAND)
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3")
    calls: list[PhoneCall] = []
    acts: dict[str, Callable[[], object]] = {
        "register": bob.register,
        "again": bob.register,
        "invite": lambda: calls.append(alice.invite("bob@example.com")),
    }
    for act in order:
        acts[act]()
        w.run(1.0)
    assert invites(bob) == 1
    bob.calls[0].answer()
    w.run()
    assert (calls[0].state, bob.calls[0].acknowledged) == ("answered", True)
    calls[0].hangup()
    assert_all_over(w)


@pytest.mark.parametrize("after, rings", [(0.0, 1), (19.9, 1), (20.5, 0), (60.0, 0)])
def test_a_phone_is_awaited_for_twenty_seconds(after: float, rings: int) -> None:
    w = world(program=BY_HAND)
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3")
    call = alice.invite("bob@example.com")
    w.run(after)
    bob.register()
    w.run(0.1)
    assert invites(bob) == rings
    if not rings:
        assert finals(call) == [480]
    call.hangup()
    assert_all_over(w)


def test_a_push_tells_who_is_called_by_whom() -> None:
    w = world(program=BY_HAND)
    w.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    w.run()
    (job,) = [job for job in w.jobs if isinstance(job.effect, Http)]
    assert isinstance(job.effect, Http)
    assert job.effect.json["to"] == "bob@example.com"
    assert job.effect.json["from"] == "alice@example.com"
    assert job.effect.headers == {"Authorization": "Bearer k"}


def test_a_stranger_who_calls_a_wildcard_wakes_nobody() -> None:
    w = world(program=BY_HAND)
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3")
    alice.invite("*@example.com")
    w.run(1)
    bob.register()
    w.run(1)
    assert invites(bob) == 0


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 19.9, 20.0, 20.1])
def test_cancel_at_every_step_is_answered_487_and_leaves_nothing(at: float) -> None:
    """0 s: INVITE; 1 s: the desk phone rings; 2 s: the mobile registers and rings; 20 s: the wait is over."""
    w = world(program=BY_HAND)
    alice, desk = w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3")
    mobile = w.phone("bob@example.com", "10.0.0.4")
    desk.on_invite = lambda call: None
    desk.register()
    w.run()
    began = w.now
    call = alice.invite("bob@example.com")
    w.run()
    script = [(1.0, desk.calls[0].ring if desk.calls else w.run), (2.0, mobile.register), (at, call.hangup)]
    for when, act in sorted(script, key=lambda entry: entry[0]):
        w.run(max(0.0, began + when - w.now))
        act()
        w.run()
        if act == call.hangup and at < 20:
            assert finals(call) == [487]
    assert_all_over(w)
    assert all(phone_call.cancelled for phone in (desk, mobile) for phone_call in phone.calls)


# --- pickup ----------------------------------------------------------------------------------------------------------


def pickup_world() -> tuple[World, dict[str, Phone]]:
    w = world()
    names = {"alice": 2, "dave": 3, "charlie": 4, "101": 5}
    phones = {name: w.phone(f"{name}@example.com", f"10.0.0.{n}") for name, n in names.items()}
    for phone in phones.values():
        phone.register()
    w.run()
    return w, phones


@pytest.mark.parametrize("number", ["*8", "*8dave"])
def test_a_picker_takes_the_call(number: str) -> None:
    w, phones = pickup_world()
    call = phones["alice"].invite("dave@example.com")
    w.run(1)
    pick = phones["charlie"].invite(f"{number}@example.com")
    w.run(0.1)
    (taken,) = [c for c in phones["charlie"].calls if c.incoming]
    assert phones["dave"].calls[0].cancelled
    assert finals(pick) == [480]
    taken.answer()
    w.run(1)
    assert (call.state, taken.acknowledged) == ("answered", True)
    call.hangup()
    assert_all_over(w)


def test_of_two_pickers_one_wins_and_the_other_is_told_there_is_nothing() -> None:
    w, phones = pickup_world()
    call = phones["alice"].invite("dave@example.com")
    w.run(1)
    picks = [phones[name].invite("*8@example.com") for name in ("charlie", "101")]
    w.run(0.1)
    assert sorted(finals(pick)[0] for pick in picks) == [404, 480]
    rung = [c for name in ("charlie", "101") for c in phones[name].calls if c.incoming]
    assert len(rung) == 1
    call.hangup()
    assert_all_over(w)


def test_the_ringing_phone_is_cancelled_only_after_the_new_one_was_sent_to() -> None:
    w, phones = pickup_world()
    phones["alice"].invite("dave@example.com")
    w.run(1)
    w.sent.clear()
    phones["charlie"].invite("*8@example.com")
    w.run(0.1)
    lines = [(to[0], data.split(b" ", 1)[0]) for _, _, to, data in w.sent]
    assert lines.index(("10.0.0.4", b"INVITE")) < lines.index(("10.0.0.3", b"CANCEL"))


def test_a_picker_who_cannot_be_reached_leaves_the_call_where_it_rings() -> None:
    w, phones = pickup_world()
    call = phones["alice"].invite("dave@example.com")
    w.run(1)
    phones["charlie"].register(expires=0)
    phones["charlie"].register(contact=b"<sip:charlie@255.255.255.255>")
    w.run()
    phones["charlie"].invite("*8@example.com")
    w.run(1)
    assert not phones["dave"].calls[0].cancelled
    phones["dave"].calls[0].answer()
    w.run()
    assert call.state == "answered"
    call.hangup()
    assert_all_over(w)


def test_without_a_ringing_call_there_is_nothing_to_pick_up() -> None:
    w, phones = pickup_world()
    pick = phones["charlie"].invite("*8@example.com")
    w.run()
    assert finals(pick) == [404]
    assert_all_over(w)


# --- screening -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "presses, ended_by",
    [
        ([("bob", "2")], None),
        ([("bob", "5")], "callee pressed 5"),
        ([("alice", "5"), ("bob", "2")], None),
        ([("bob", "2"), ("bob", "5")], None),
        ([], "nobody pressed a key"),
    ],
)
def test_the_answering_side_has_to_press_two(presses: list[tuple[str, str]], ended_by: str | None) -> None:
    w = world()
    phones = {"alice": w.phone("alice@example.com", "10.0.0.2"), "bob": w.phone("bob@example.com", "10.0.0.3")}
    phones["bob"].register()
    w.run()
    call = phones["alice"].invite("88bob@example.com")
    w.run(1)
    phones["bob"].calls[0].answer()
    w.run(1)
    for who, digit in presses:
        press(w, call if who == "alice" else phones["bob"].calls[0], digit)
        w.run(0.1)
    w.run(20)
    if ended_by is None:
        assert (call.state, phones["bob"].calls[0].state) == ("answered", "answered")
        call.hangup()
    else:
        byes = [[r for r in phone.requests if r.method == b"BYE"] for phone in phones.values()]
        assert [len(requests) for requests in byes] == [1, 1]
        assert ended_by.encode() in (byes[0][0].get(b"reason") or b"")
        call.state = "ended"
    assert_all_over(w)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
def test_a_caller_may_give_up_at_every_step_of_a_screened_call(at: float) -> None:
    """1 s: the phone rings; 2 s: somebody answers and is asked; 3 s: a key is pressed."""
    w = world()
    alice, bob = w.phone("alice@example.com", "10.0.0.2"), w.phone("bob@example.com", "10.0.0.3")
    bob.on_invite = lambda call: None
    bob.register()
    w.run()
    call = alice.invite("88bob@example.com")
    w.run()
    (rung,) = bob.calls
    acts = [(1.0, rung.ring), (2.0, rung.answer), (3.0, lambda: press(w, rung, "2")), (at, call.hangup)]
    for when, act in sorted(acts, key=lambda entry: entry[0]):
        w.run(max(0.0, when - w.now))
        if act == call.hangup or rung.state != "ended":
            act()
        w.run()
    assert finals(call) == ([487] if at < 2.0 else [200])
    assert rung.cancelled is (at < 2.0)
    assert_all_over(w)


# --- everything at once ----------------------------------------------------------------------------------------------


ACTS = ["register", "register", "unregister", "call", "call", "answer", "answer", "reject", "hangup", "press"]
ACTS += ["sound", "place"]
NUMBERS = ["bob", "dave", "bobby", "88bob", "99bob", "99nobody", "*8", "*8dave", "101", "200", "nobody"]


@pytest.mark.parametrize("seed", range(1_000))
def test_no_ordering_leaves_an_orphan(seed: int) -> None:
    """Random acts of random people at random times, the same ones for the same seed."""
    rng = random.Random(seed)
    w = world(seed)
    names = ["alice", "bob", "charlie", "101", "bobby", "dave"]
    phones = [w.phone(f"{name}@example.com", f"10.0.0.{n}") for n, name in enumerate(names, 2)]
    phones += [w.phone("bobby@example.com", "10.0.0.20"), w.phone("bob@example.com", "10.0.0.21")]

    def ringing(phone: Phone) -> list[PhoneCall]:
        return [call for call in phone.calls if call.incoming and call.state == "ringing"]

    def act() -> None:
        phone = rng.choice(phones)
        what = rng.choice(ACTS)
        if what == "register":
            phone.register()
        elif what == "unregister":
            phone.register(expires=0)
        elif what == "call":
            phone.invite(rng.choice(NUMBERS) + "@example.com")
        elif what in ("answer", "reject") and ringing(phone):
            call = ringing(phone)[0]
            call.answer() if what == "answer" else call.reject(rng.choice([486, 603, 404, 500]))
        elif what in ("hangup", "press"):
            live = [
                call
                for call in phone.calls
                if call.state == "answered" or (not call.incoming and call.state != "ended")
            ]
            if live:
                if what == "hangup" or live[-1].state != "answered":
                    live[-1].hangup()
                else:
                    press(w, live[-1], rng.choice("25"))
        elif what == "sound" and freeswitch(w).channels:
            channel = rng.choice(list(freeswitch(w).channels.values()))
            channel.talk(rng.choice([0.5, 2.0, 8.0])) if rng.random() < 0.6 else channel.sound(rng.choice(TONES))
        elif what == "place":
            data = {"to": f"{rng.choice(names)}@example.com", "from": "clinic@example.com", "file": "/tmp/a.tif"}
            w.engine.bus.publish(Event(rng.choice(["message_due", "fax_due"]), data, time=w.now))
            w.engine.flows.drain()

    for _ in range(rng.randint(10, 40)):
        act()
        w.run(rng.choice([0.0, 0.0, 0.05, 1.0, 5.0]))
    w.run(25)
    for call in [*(call for phone in phones for call in phone.calls), *freeswitch(w).placed]:
        if call.state == "answered" or (not call.incoming and call.state != "ended"):
            call.hangup()
    w.run()
    try:
        assert_all_over(w)
    except AssertionError:
        for trace in w.engine.flows.traces:
            print("\n".join(render(trace)))  # noqa: T201
        raise
