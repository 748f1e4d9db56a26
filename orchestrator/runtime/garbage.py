"""When Python may look for unreachable cycles.

A full collection walks every object: with 100,000 waiting flows it stops all calls for some 75 ms. What exists at
start (code, modules, registrations) is therefore frozen out of its sight, young objects are looked at seldom, and a
full collection runs while hardly anything comes in, or at last after a while.
"""

from __future__ import annotations

import gc

YOUNG = 50_000
"""Net allocations between two looks at the youngest objects; the default of 700 is several times per call."""

MIDDLE = 20
NEVER = 1_000_000

QUIET = 10.0
"""Inputs per second below which a pause of some milliseconds meets nobody."""

AT_LAST = 600.0
"""Seconds after which a full collection runs whatever the load, so that cycles do not pile up for days."""


def freeze() -> None:
    """Take everything that exists now out of the collector's sight, and make it look seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


class FullCollections:
    """Decides when a full collection is due; asked now and then with the time and the number of inputs so far."""

    def __init__(self, now: float) -> None:
        self._collected_at = now
        self._asked_at = now
        self._inputs = 0

    def due(self, now: float, inputs: int) -> bool:
        """Whether to collect now; when it says so, it takes it as done."""
        elapsed = max(now - self._asked_at, 1e-9)
        quiet = (inputs - self._inputs) / elapsed < QUIET
        self._asked_at, self._inputs = now, inputs
        if not quiet and now - self._collected_at < AT_LAST:
            return False
        self._collected_at = now
        return True
