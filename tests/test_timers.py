"""Timers: never early, at most one tick late, cancelled ones never, and all of it without a clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.timers import TICK, Timer, Timers

NOISE = 1e-8
"""A sum of decimal fractions may come out a little above its tick; that much counts as on time."""


def run_all(timers: Timers, until: float = float("inf")) -> None:
    """Drive the timers as the reactor does: from one due time to the next."""
    while (due := timers.next_due()) is not None and due <= until:
        timers.run_due(due)


def test_a_timer_fires_once_at_its_time_and_gets_its_argument() -> None:
    timers = Timers(100.0)
    fired: list[Any] = []
    timer = timers.after(0.5, lambda word: fired.append((word, timers.now)), "A")
    assert timers.next_due() == 100.5
    assert timers.run_due(100.49) == 0
    assert fired == []
    assert timers.run_due(100.5) == 1
    assert fired == [("A", 100.5)]
    assert not timer.armed
    assert timers.run_due(1000.0) == 0 and timers.next_due() is None


def test_the_clock_moves_with_run_due_only_and_never_backwards() -> None:
    timers = Timers(5.0)
    timers.run_due(7.25)
    timers.run_due(6.0)
    assert timers.now == 7.25


def test_a_callback_sees_the_time_of_its_own_tick_however_late_it_is_run() -> None:
    timers = Timers()
    seen: list[float] = []
    for delay in (3.0, 1.0, 2.0):
        timers.after(delay, lambda _: seen.append(timers.now))
    timers.run_due(60.0)
    assert seen == [1.0, 2.0, 3.0]
    assert timers.now == 60.0


@pytest.mark.parametrize("rest", [5e-324, 1e-13, 9e-9])
def test_a_callback_that_waits_for_the_rest_of_a_time_does_not_run_for_ever(rest: float) -> None:
    """What floats leave of 43,200 s is no whole tick, and still another one."""
    timers = Timers()
    times: list[float] = []

    def wait_on(_: object) -> None:
        times.append(timers.now)
        if len(times) < 1000:
            timers.after(rest, wait_on)

    timers.after(1.0, wait_on)
    timers.run_due(1.0)
    assert times == [1.0]
    assert timers.next_due() == 1.0 + TICK
    timers.run_due(1.02)
    assert times == pytest.approx([1.0, 1.01, 1.02])


def test_a_chain_of_timers_does_not_drift_when_it_is_run_late() -> None:
    """Timer A doubles from when it was due, not from when somebody came to look."""
    timers = Timers()
    sends: list[float] = []

    def resend(interval: float) -> None:
        sends.append(timers.now)
        timers.after(interval, resend, interval * 2)

    timers.after(0.5, resend, 1.0)
    timers.run_due(16.0)
    assert sends == [0.5, 1.5, 3.5, 7.5, 15.5]


@pytest.mark.parametrize("interval", [0.01, 0.07, 0.1, 0.3, 1.1])
def test_intervals_that_are_whole_ticks_keep_time(interval: float) -> None:
    """0.1 is no multiple of 0.01 in binary: rounding up without tolerance would lose a tick with each repetition."""
    timers = Timers()
    ticks: list[float] = []

    def tick(_: object) -> None:
        ticks.append(timers.now)
        timers.after(interval, tick)

    timers.after(interval, tick)
    timers.run_due(50 * interval + TICK / 2)
    assert ticks == pytest.approx([interval * n for n in range(1, 51)])


def test_timers_of_one_tick_run_in_the_order_they_were_armed() -> None:
    timers = Timers()
    order: list[str] = []
    timers.after(0.0099, order.append, "first")
    timers.after(0.0001, order.append, "second")
    timers.after(0.01, order.append, "third")
    assert timers.next_due() == TICK
    timers.run_due(TICK)
    assert order == ["first", "second", "third"]


def test_a_cancelled_timer_is_a_hole() -> None:
    timers = Timers()
    fired: list[Any] = []
    first, second = timers.after(1.0, fired.append, 1), timers.after(1.0, fired.append, 2)
    third = timers.after(2.0, fired.append, 3)
    first.cancel()
    first.cancel()
    assert len(timers) == 2
    assert timers.next_due() == 1.0, "the second one is behind the hole"
    second.cancel()
    assert timers.next_due() == 2.0
    third.cancel()
    assert timers.next_due() is None and len(timers) == 0
    assert timers.run_due(10.0) == 0 and fired == []


def test_a_cancelled_timer_holds_on_to_nothing() -> None:
    """Most timers are cancelled long before their bucket is reached: they must not keep their transaction till then."""
    timer = Timers().after(32.0, print, object())
    timer.cancel()
    assert timer._argument is None and timer._callback is None
    assert repr(timer) == "<Timer 32.000 done>"


def test_a_callback_may_cancel_a_timer_of_its_own_tick() -> None:
    timers = Timers()
    fired: list[Any] = []
    victims: list[Timer] = []
    timers.after(1.0, lambda _: victims[0].cancel())
    victims.append(timers.after(1.0, fired.append, "victim"))
    timers.after(1.0, fired.append, "bystander")
    assert timers.run_due(1.0) == 2
    assert fired == ["bystander"]


def test_a_callback_may_arm_a_timer_that_is_due_at_once() -> None:
    timers = Timers()
    fired: list[Any] = []

    def arm(word: str) -> None:
        timers.after(0.0, fired.append, word)

    timers.after(1.0, arm, "now")
    timers.run_due(1.0)
    assert fired == ["now"]


def test_next_due_finds_a_timer_armed_into_a_bucket_it_has_thinned_out() -> None:
    timers = Timers()
    fired: list[Any] = []
    for _ in range(3):
        timers.after(1.0, fired.append, "old").cancel()
    kept = timers.after(1.0, fired.append, "kept")
    assert timers.next_due() == 1.0
    kept.cancel()
    timers.after(1.0, fired.append, "new")
    assert timers.next_due() == 1.0
    timers.run_due(1.0)
    assert fired == ["new"]


def test_a_callback_that_raises_takes_nobody_with_it() -> None:
    """Two calls of one tick share a bucket; a bug in the first one's must not silence the second one's timer B."""
    timers = Timers()
    fired: list[Any] = []

    def bug(_: object) -> None:
        timers.after(0.0, fired.append, "armed by the bug")
        raise ZeroDivisionError

    timers.after(1.0, fired.append, "before")
    timers.after(1.0, bug)
    timers.after(1.0, fired.append, "behind")
    timers.after(2.0, fired.append, "later")
    with pytest.raises(ZeroDivisionError):
        timers.run_due(5.0)
    assert fired == ["before"]
    assert timers.next_due() == 1.0
    timers.run_due(5.0)
    assert fired == ["before", "behind", "armed by the bug", "later"]


def test_the_last_callback_of_a_tick_may_raise_too() -> None:
    timers = Timers()
    fired: list[Any] = []

    def bug(_: object) -> None:
        raise ZeroDivisionError

    timers.after(1.0, bug)
    timers.after(2.0, fired.append, "later")
    with pytest.raises(ZeroDivisionError):
        timers.run_due(2.0)
    assert timers.next_due() == 2.0
    timers.run_due(2.0)
    assert fired == ["later"]


@given(
    start=st.floats(0, 1e6),
    plan=st.lists(st.tuples(st.floats(0, 64), st.booleans()), max_size=20),
    step=st.floats(0.4, 50),
)
def test_never_early_at_most_a_tick_late_and_in_order(
    start: float, plan: list[tuple[float, bool]], step: float
) -> None:
    timers = Timers(start)
    fired: list[tuple[Timer, float]] = []
    armed = []
    for delay, cancelled in plan:
        timer = timers.after(delay, lambda box: fired.append((box[0], timers.now)), box := [])
        box.append(timer)
        if cancelled:
            timer.cancel()
        else:
            armed.append(timer)
    assert len(timers) == len(armed)
    now = start
    while timers.next_due() is not None:
        now += step
        timers.run_due(now)
        assert all(timer.when <= now + NOISE for timer, _ in fired)
        assert all(not timer.armed for timer in armed if timer.when + TICK < now)
    assert sorted(map(id, armed)) == sorted(id(timer) for timer, _ in fired)
    assert all(timer.when - NOISE <= at <= timer.when + TICK * 1.001 for timer, at in fired)
    ticks = [round(at / TICK) for _, at in fired]
    assert ticks == sorted(ticks)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_driven_from_due_to_due_every_timer_has_its_turn(delays: list[float]) -> None:
    timers = Timers()
    fired: list[Any] = []
    for delay in delays:
        timers.after(delay, fired.append, delay)
    run_all(timers)
    assert sorted(fired) == sorted(delays)


# --- cancelled timers leave memory ------------------------------------------------------------------------------------


def test_a_hundred_thousand_ended_calls_leave_next_to_nothing() -> None:
    """Each call arms 12 h; cancelled, it must not stay in memory until then, whatever else is armed."""
    timers = Timers()
    others = [timers.after(32.0 + number, lambda _: None) for number in range(100)]
    for number in range(100_000):
        timers.run_due(number * 0.01 % 30)
        timers.after(12 * 3600.0, lambda _: None).cancel()
    assert len(timers) == len(others)
    assert timers.held < 3_000
    for timer in others:
        timer.cancel()
    assert timers.next_due() is None and timers.held == 0


def test_calls_that_end_all_at_once_leave_nothing() -> None:
    timers = Timers()
    calls = [timers.after(12 * 3600.0 + number / 7, lambda _: None) for number in range(100_000)]
    for timer in calls:
        timer.cancel()
    assert timers.held < 3_000 and len(timers) == 0
    assert timers.next_due() is None and timers.held == 0


def test_a_sweep_while_timers_run_loses_none_and_runs_none_twice() -> None:
    timers = Timers()
    ran: list[int] = []
    doomed = [timers.after(9.0, lambda _: ran.append(-1)) for _ in range(5_000)]

    def cancel_all(_: Any) -> None:
        for timer in (*doomed, same_tick[1]):
            timer.cancel()
        timers.after(1.0, ran.append, 2)

    timers.after(1.0, cancel_all)
    same_tick = [timers.after(1.0, ran.append, 99) for _ in range(3)]
    timers.after(1.0, ran.append, 1)
    timers.after(3.0, ran.append, 3)
    run_all(timers)
    assert ran == [99, 99, 1, 2, 3]
    assert timers.held == 0 and timers.next_due() is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), st.integers(1, 30))
def test_the_account_of_what_is_held_is_right_after_any_order(moves: list[tuple[int, bool]], every: int) -> None:
    timers = Timers()
    armed: list[Timer] = []
    for number, (delay, cancels) in enumerate(moves):
        armed.append(timers.after(delay / 10, lambda _: None))
        if cancels:
            armed[number // 2].cancel()
        if number % every == 0:
            timers.run_due(timers.now + 0.1)
            timers.next_due()
    run_all(timers)
    assert timers.held == 0 and timers._holes == 0
