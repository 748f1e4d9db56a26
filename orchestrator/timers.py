"""Timers for a core without a clock: a bucketed heap driven by whoever knows the time.

SIP arms and cancels several timers per message, nearly all of a few equal durations, and almost none of them fires. So
a timer is one small object in a bucket of its 10 ms tick; the heap orders ticks, not timers, and a cancelled timer is
just a hole. Holes whose tick is far away (the 12 hours a call may last) are swept out when they are a third.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Any, Final

from orchestrator.native import mypyc_attr

TICK: Final = 0.010
"""Resolution in seconds: fine against T1 = 500 ms, coarse enough that equal timers share a bucket."""
_TICKS: Final = 100.0
"""Ticks per second."""
_NOISE: Final = 1e-8
"""Seconds by which sums of decimal fractions may miss a tick: 0.1 + 0.2 is due at 0.3, not a tick later."""
_FEW: Final = 1_000
"""Holes that are never worth a sweep: a quarter of a megabyte."""


@mypyc_attr(acyclic=True)
class Timer:
    """One armed timer; `when` is in seconds of the caller's monotonic clock, within its tick. `cancel()` is
    idempotent.

    Compiled, it is none of what the collector of cycles looks at. That frees nothing later: an armed timer is held by
    its `Timers`, one that is not holds nothing.
    """

    __slots__ = ("when", "_timers", "_callback", "_argument")

    def __init__(self, timers: Timers, when: float, callback: Callable[[Any], None], argument: Any) -> None:
        self.when = when
        self._timers = timers
        self._callback: Callable[[Any], None] | None = callback
        self._argument = argument

    @property
    def armed(self) -> bool:
        return self._callback is not None

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None
            self._argument = None
            timers = self._timers
            timers._holes += 1
            if timers._holes > _FEW and timers._holes * 3 > timers.held:
                timers._sweep()

    def __repr__(self) -> str:
        return f"<Timer {self.when:.3f} {'armed' if self.armed else 'done'}>"


class Timers:
    """All timers of one engine. `now` is moved only by `run_due`; callbacks may arm and cancel freely."""

    __slots__ = ("now", "held", "on_fault", "_holes", "_buckets", "_ticks", "_tick")

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.held = 0
        """Timers in memory: the armed ones and the holes."""
        self.on_fault: Callable[[Callable[[Any], None], Any, Exception], None] | None = None
        """Given the callback, its argument and what it raised; what this raises goes to the caller of `run_due`."""
        self._holes = 0
        self._buckets: dict[int, list[Timer]] = {}
        self._ticks: list[int] = []
        self._tick = -1
        """The tick that ran last, or runs now."""

    def after(self, delay: float, callback: Callable[[Any], None], argument: Any = None) -> Timer:
        """Arm a timer `delay` seconds from `now`; `callback(argument)` runs in the `run_due` that reaches it.

        No delay but 0 ends in the tick that runs: a callback that arms itself for what is left of a time, be it 1e-13
        seconds, would never come to an end.
        """
        when = self.now + delay
        self.held += 1
        tick = ceil((when - _NOISE) * _TICKS)  # never early
        if tick <= self._tick and delay > 0.0:
            tick = self._tick + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            timer = Timer(self, when, callback, argument)
            self._buckets[tick] = [timer]
            heappush(self._ticks, tick)
        else:  # thousands that wait share a number
            timer = Timer(self, bucket[0].when, callback, argument)
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
                    self._let_go(position)
                    return tick * TICK
            heappop(self._ticks)
            del self._buckets[tick]
            self._let_go(len(bucket))
        return None

    def run_due(self, now: float) -> int:
        """Move the clock to `now` and run what is due, in order of ticks, then of arming. Returns how many ran.

        What a callback raises goes to `on_fault`, to the caller where there is none; the timers behind it stay due.
        """
        ran = 0
        ticks, buckets = self._ticks, self._buckets
        while ticks and ticks[0] * TICK <= now:
            self._tick = tick = heappop(ticks)
            self.now = max(self.now, tick * TICK)
            bucket = iter(buckets.pop(tick))
            try:
                for timer in bucket:
                    self.held -= 1
                    callback = timer._callback
                    if callback is None:
                        self._holes -= 1
                    else:
                        argument = timer._argument
                        timer._callback = timer._argument = None
                        ran += 1
                        try:
                            callback(argument)
                        except Exception as bug:
                            if self.on_fault is None:
                                raise
                            self.on_fault(callback, argument, bug)
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

    def _sweep(self) -> None:
        """A third are cancelled: drop the holes of all buckets but that which `run_due` is in. Buckets and heap
        stay the same objects."""
        pairs = ((tick, [t for t in bucket if t._callback is not None]) for tick, bucket in self._buckets.items())
        kept = {tick: left for tick, left in pairs if left}
        self._let_go(sum(map(len, self._buckets.values())) - sum(map(len, kept.values())))
        self._buckets.clear()
        self._buckets.update(kept)
        self._ticks[:] = kept
        heapify(self._ticks)

    def _let_go(self, holes: int) -> None:
        self.held -= holes
        self._holes -= holes

    def __len__(self) -> int:
        """Armed timers; linear, for tests and gauges."""
        return sum(timer.armed for bucket in self._buckets.values() for timer in bucket)
