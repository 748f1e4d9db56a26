"""Distributions and counts with labels, cheap enough for the message path.

A value costs a look at the bounds below it and two additions; nothing is locked or formatted. `runtime.gauges` exports
them. Labels come from the configuration (flows, gateways, push services) or from short lists (methods, codes), and each
set of them has a bound: what comes beyond is counted under `other`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MOST: Final = 500
"""Different labels of one measure."""
OTHER: Final = "other"

TURN: Final[tuple[float, ...]] = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
RING: Final[tuple[float, ...]] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)
ANSWER: Final[tuple[float, ...]] = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0)
WAKE: Final[tuple[float, ...]] = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
"""Upper bounds of buckets, in seconds."""


Reading = tuple[Sequence[float], Sequence[int], float]
"""Bounds; how many were at most as large as each bound and larger than that before it, and then how many were larger
than all; their sum."""


class Histogram:
    """How often values were at most as large as each bound, and their sum."""

    __slots__ = ("bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        place = 0
        for bound in self.bounds:  # most turns are among the shortest: no bisection is quicker
            if value <= bound:
                break
            place += 1
        self._counts[place] += 1
        self._sum += value

    @property
    def reading(self) -> Reading:
        return self.bounds, tuple(self._counts), self._sum


class Histograms:
    """One for each label."""

    __slots__ = ("_bounds", "_found")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._found: dict[str, Histogram] = {}

    def observe(self, label: str, value: float) -> None:
        found = self._found.get(label)
        if found is None:
            if len(self._found) >= MOST:
                label = OTHER
            found = self._found.setdefault(label, Histogram(self._bounds))
        found.observe(value)

    @property
    def readings(self) -> dict[str, Reading]:
        return {label: found.reading for label, found in self._found.items()}


class Tally:
    """Counts by several labels."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}

    def count(self, *labels: str) -> None:
        counts = self._counts
        if labels not in counts and len(counts) >= MOST:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + 1

    @property
    def counts(self) -> dict[tuple[str, ...], int]:
        return dict(self._counts)


class Measures:
    """Those of one core."""

    __slots__ = ("post_dial_delay", "setup_time", "wakeup_time", "calls_ended", "gateway_branches")

    def __init__(self) -> None:
        self.post_dial_delay = Histograms(RING)
        """From the INVITE to the first provisional response that rings, by flow."""
        self.setup_time = Histograms(ANSWER)
        """From the INVITE to the answer, by flow."""
        self.wakeup_time = Histograms(WAKE)
        """From a push to the registration of the phone, by push service."""
        self.calls_ended = Tally()
        """By flow and final status."""
        self.gateway_branches = Tally()
        """By gateway and final status."""
