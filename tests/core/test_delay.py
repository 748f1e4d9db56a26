"""Delay that lasts: what a stall leaves behind is none, load beyond what can be served is.

A model of a server stands in for the real one: datagrams come at a rate, each takes its time, the controller is asked
at each batch as the socket does. The clock is a number.
"""

from __future__ import annotations

from orchestrator.core.delay import CALM, LATE, NORMAL, WINDOW, LastingDelay
from orchestrator.core.overload import FULL


class Server:
    """Serves a queue of calls in the order they came; a refusal takes a tenth of the time a call takes."""

    def __init__(self, seconds_a_call: float) -> None:
        self.cost = seconds_a_call
        self.delay = LastingDelay()
        self.now = self.came = 0.0
        self.served = self.refused = 0
        self.refused_at: list[float] = []
        self._behind = False
        self._tenths = 0.0

    def run(self, until: float, rate: float, stalls: bool = False) -> None:
        """Calls come at `rate`; with `stalls` the process stands still for 150 ms once a second."""
        while self.now < until:
            if stalls and self.now % 1.0 < 0.005:
                self.now += 0.150
            if self.came > self.now:
                self.now, self._behind = self.came, False
            self._batch(rate)

    def _batch(self, rate: float) -> None:
        age = self.now - self.came if self._behind else 0.0
        delay = self.delay.note(age, self.now)
        stop = self.now + 0.005
        while self.came <= self.now < stop:
            self.came += 1 / rate
            self._tenths = (self._tenths + 0.618034) % 1.0  # spread evenly, as a hash is
            if self._tenths < (delay - NORMAL) / (FULL - NORMAL):
                self.refused += 1
                self.refused_at.append(self.now)
                self.now += self.cost / 10
            else:
                self.served += 1
                self.now += self.cost
        self._behind = self.came <= self.now


def test_a_stall_once_a_second_refuses_nobody() -> None:
    server = Server(seconds_a_call=1 / 600)
    server.run(60.0, rate=400, stalls=True)
    assert (server.served, server.refused) == (server.served, 0)
    assert server.served >= 23_900


def test_a_single_stall_of_almost_a_second_refuses_nobody() -> None:
    server = Server(seconds_a_call=1 / 1000)
    server.run(5.0, rate=100)
    server.now += 0.8
    server.run(10.0, rate=100)
    assert server.refused == 0


def test_twice_the_load_that_can_be_served() -> None:
    """Capacity 500 calls/s, 1,000 offered: 90 % of what could be served is, and callers do not wait for long."""
    server = Server(seconds_a_call=1 / 500)
    server.run(30.0, rate=1000)
    assert server.served >= 0.9 * 0.88 * 500 * 30, "refusing as many takes a tenth of the time each"
    assert server.refused > 0
    assert server.now - server.came < 0.5
    server.run(60.0, rate=100)
    assert max(server.refused_at) < 32.0, "nothing is refused two seconds after it"


def test_stalls_after_an_overload_do_not_make_it_last() -> None:
    """Who stalls once a second is not kept in the overload that has been."""
    server = Server(seconds_a_call=1 / 600)
    server.run(10.0, rate=1500)
    server.run(60.0, rate=400, stalls=True)
    assert max(server.refused_at) < 14.0


def test_a_delay_lasts_after_as_many_windows_as_said_and_not_before() -> None:
    delay = LastingDelay()
    steps = [delay.note(0.3, number * WINDOW / 4) for number in range(4 * (LATE + 3))]
    first = next(number for number, step in enumerate(steps) if step)
    assert LATE * 4 <= first <= (LATE + 2) * 4
    assert set(steps[first:]) == {0.3}


def test_one_prompt_input_in_a_window_ends_the_count() -> None:
    delay = LastingDelay()
    for number in range(1000):
        delay.note(0.0 if number % 16 == 0 else 0.4, number * WINDOW / 4)
        assert not delay.lasts


def test_it_ends_by_calm_and_by_silence() -> None:
    for pause in (WINDOW / 2, CALM * WINDOW * 2):
        delay = LastingDelay()
        now = 0.0
        while not delay.lasts:
            now += WINDOW / 4
            delay.note(0.3, now)
        began = now
        while delay.lasts:
            now += pause
            delay.note(0.0, now)
        assert now - began <= max(pause, (CALM + 2) * WINDOW)
