"""Timers for a core without a clock: a bucketed heap driven by whoever knows the time.

SIP arms and cancels several timers per message, nearly all of a few equal durations, and almost none of them fires. So
a timer is one small object in a bucket of its 10 ms tick; the heap orders ticks, not timers, and a cancelled timer is
just a hole.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Any

TICK = 0.010
"""Resolution in seconds: fine against T1 = 500 ms, coarse enough that equal timers share a bucket."""
_TICKS = 100.0
"""Ticks per second."""
_NOISE = 1e-8
"""Seconds by which sums of decimal fractions may miss a tick: 0.1 + 0.2 is due at 0.3, not a tick later."""


class Timer:
    """One armed timer; `when` is in seconds of the caller's monotonic clock. `cancel()` is idempotent."""

    __slots__ = ("when", "_callback", "_argument")

    def __init__(self, when: float, callback: Callable[[Any], None], argument: Any) -> None:
        self.when = when
        self._callback: Callable[[Any], None] | None = callback
        self._argument = argument

    @property
    def armed(self) -> bool:
        return self._callback is not None

    def cancel(self) -> None:
        self._callback = None
        self._argument = None

    def __repr__(self) -> str:
        return f"<Timer {self.when:.3f} {'armed' if self.armed else 'done'}>"


class Timers:
    """All timers of one engine. `now` is moved only by `run_due`; callbacks may arm and cancel freely."""

    __slots__ = ("now", "_buckets", "_ticks")

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._buckets: dict[int, list[Timer]] = {}
        self._ticks: list[int] = []

    def after(self, delay: float, callback: Callable[[Any], None], argument: Any = None) -> Timer:
        """Arm a timer `delay` seconds from `now`; `callback(argument)` runs in the `run_due` that reaches it."""
        when = self.now + delay
        timer = Timer(when, callback, argument)
        tick = ceil((when - _NOISE) * _TICKS)  # never early
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [timer]
            heappush(self._ticks, tick)
        else:
            bucket.append(timer)
        return timer

    def next_due(self) -> float | None:
        """When `run_due` should be called next, or None. Buckets that hold only cancelled timers are dropped on the
        way."""
        while self._ticks:
            tick = self._ticks[0]
            bucket = self._buckets[tick]
            for position, timer in enumerate(bucket):
                if timer._callback is not None:
                    del bucket[:position]  # so that the next call does not pass over the holes again
                    return tick * TICK
            heappop(self._ticks)
            del self._buckets[tick]
        return None

    def run_due(self, now: float) -> int:
        """Move the clock to `now` and run what is due, in order of ticks, then of arming. Returns how many ran.

        What a callback raises goes to the caller; the timers behind it stay due.
        """
        ran = 0
        ticks, buckets = self._ticks, self._buckets
        while ticks and ticks[0] * TICK <= now:
            tick = heappop(ticks)
            self.now = max(self.now, tick * TICK)
            bucket = iter(buckets.pop(tick))
            try:
                for timer in bucket:
                    callback = timer._callback
                    if callback is not None:
                        argument = timer._argument
                        timer.cancel()
                        callback(argument)
                        ran += 1
            except BaseException:
                self._put_back(tick, list(bucket))
                raise
        if now > self.now:
            self.now = now
        return ran

    def _put_back(self, tick: int, rest: list[Timer]) -> None:
        """A callback raised: the timers of its tick that it kept from running are due again, before newer ones."""
        newer = self._buckets.get(tick)
        if newer is not None:
            newer[:0] = rest
        elif rest:
            self._buckets[tick] = rest
            heappush(self._ticks, tick)

    def __len__(self) -> int:
        """Armed timers; linear, for tests and gauges."""
        return sum(timer.armed for bucket in self._buckets.values() for timer in bucket)
