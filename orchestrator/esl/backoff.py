"""When to try a lost link again: full jitter (delay uniform between almost nothing and a growing bound), in two phases.

A FreeSWITCH that has gone is most often being restarted, and a connect attempt to a port nobody listens on costs
nothing. So for the first minute the bound stays under a second, which has us back within a second of the server. What
is still away then doubles up to half a minute. A refusal (wrong password, access list) will not mend itself: those
tries are slow from the start.

No clock and no randomness of its own: `now` and `rng` are given.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.5
NEAR = 0.8
NEAR_FOR = 60.0
MOST = 30.0
FLOOR = 0.05
"""Seconds: bound of the first try, of the others in the first minute, that minute, the largest bound, the least
delay.
"""

STABLE = 5.0
"""Seconds a link has to stay up before its next loss counts as a new outage."""


class Backoff:
    """Delays for one link. `rng()` gives floats in [0, 1)."""

    def __init__(self, rng: Callable[[], float], floor: float = FLOOR) -> None:
        self._rng = rng
        self._floor = floor
        self._since: float | None = None
        self._up_at: float | None = None
        self._doublings = 0

    def up(self, now: float) -> None:
        """The link has come up."""
        self._up_at = now

    def failed(self, now: float) -> float:
        """The link was lost or could not be made: seconds until the next try."""
        if self._up_at is not None and now - self._up_at >= STABLE:
            self._since = None
        self._up_at = None
        if self._since is None:
            self._since, self._doublings = now, 0
            return self._jitter(FIRST)
        if now - self._since < NEAR_FOR:
            return self._jitter(NEAR)
        self._doublings = min(self._doublings + 1, 10)
        return self._jitter(min(MOST, NEAR * 2.0**self._doublings))

    def refused(self) -> float:
        """FreeSWITCH will not have us: seconds until the next try, between half of the largest bound and all of it."""
        return MOST * (1 + self._rng()) / 2

    def _jitter(self, bound: float) -> float:
        return max(self._floor, self._rng() * bound)
