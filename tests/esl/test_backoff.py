"""When a lost link is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.esl.backoff import FIRST, FLOOR, MOST, NEAR, NEAR_FOR, STABLE, Backoff


def delays(backoff: Backoff, count: int, now: float = 0.0) -> list[float]:
    """What `count` failures in a row give, each tried after the delay before."""
    result = []
    for _ in range(count):
        result.append(backoff.failed(now))
        now += result[-1]
    return result


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=100))
def test_in_the_first_minute_we_are_back_within_a_second(randoms: list[float]) -> None:
    numbers = iter(randoms)
    backoff, now = Backoff(lambda: next(numbers)), 0.0
    for _ in randoms:
        delay = backoff.failed(now)
        assert FLOOR <= delay <= NEAR < 1.0 or now >= NEAR_FOR
        now += delay


def test_the_first_try_comes_soonest() -> None:
    assert delays(Backoff(lambda: 0.999), 2)[0] < FIRST
    assert delays(Backoff(lambda: 0.0), 3) == [FLOOR] * 3


def test_after_a_minute_the_bound_doubles_up_to_half_a_minute() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(0.0)
    bounds = [backoff.failed(NEAR_FOR + number) for number in range(8)]
    assert bounds == [1.6, 3.2, 6.4, 12.8, 25.6, MOST, MOST, MOST]


def test_jitter_is_full() -> None:
    backoff = Backoff(lambda: 0.01)
    backoff.failed(0.0)
    late = [backoff.failed(1000.0) for _ in range(20)]
    assert max(late) <= MOST * 0.01 + FLOOR


def test_a_link_that_stayed_up_starts_a_new_outage() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(0.0)
    assert backoff.failed(NEAR_FOR + 1) > NEAR
    backoff.up(100.0)
    assert backoff.failed(100.0 + STABLE) == FIRST


def test_a_link_that_flaps_does_not() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(0.0)
    now = NEAR_FOR
    for _ in range(4):
        before = backoff.failed(now)
        backoff.up(now + 1)
        now += 2
    assert backoff.failed(now) > before > NEAR


def test_a_refusal_is_tried_slowly() -> None:
    assert Backoff(lambda: 0.0).refused() == MOST / 2
    assert Backoff(lambda: 1.0).refused() == MOST
