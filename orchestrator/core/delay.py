"""Delay that lasts, told from a moment's lateness (after CoDel, RFC 8289 §3: the minimum over an interval counts).

A garbage collection, a busy neighbour or a stopped process makes inputs late once; the queue empties by itself, and
whoever refuses work for that refuses it for nothing. Load that cannot be served keeps even the luckiest input of an
interval waiting. So the delay counts when the *least* age of five windows in a row was too much, and until there has
been half a second of windows whose least age was not.
"""

from __future__ import annotations

from typing import Final

NORMAL: Final = 0.050
"""Seconds of age up to which everything is served; 64 datagrams of one wake-up take less."""
WINDOW: Final = 0.100
"""Seconds over which the least age is taken."""
LATE: Final = 5
"""Windows in a row above `NORMAL` that make a delay lasting. What a stall of 150 ms leaves behind is served in less
time up to four fifths of the load that can be borne."""
CALM: Final = 5
"""Windows in a row not above it that end the delay: a queue that is held short by refusals is empty now and then."""


class LastingDelay:
    """Watches one queue, such as a socket's. Pure: `now` is the caller's monotonic clock in seconds."""

    __slots__ = ("lasts", "_least", "_end", "_late", "_calm")

    def __init__(self) -> None:
        self.lasts = False
        self._least = 0.0
        self._end = 0.0
        self._late = self._calm = 0

    def note(self, age: float, now: float) -> float:
        """The oldest input of the queue has waited for `age` seconds. Returns that age while the delay lasts, else
        0."""
        if now >= self._end:
            self._close_window(now)
        if age < self._least:
            self._least = age
        return age if self.lasts else 0.0

    def _close_window(self, now: float) -> None:
        missed = int((now - self._end) / WINDOW)  # nothing came, or we stood still: neither is a delay that lasts
        if self._least > NORMAL and not missed:
            self._late += 1
            self._calm = 0
        else:
            self._late = 0
            self._calm += 1 + missed
        self.lasts = self._calm < CALM if self.lasts else self._late >= LATE
        self._least, self._end = float("inf"), now + WINDOW
