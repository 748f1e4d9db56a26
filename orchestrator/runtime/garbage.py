"""When Python may look for unreachable cycles.

A full collection walks every object: with 15,000 waiting calls it stops all others for a quarter of a second. What
exists at start (code, modules, registrations) is therefore frozen out of its sight. Young objects are looked at once,
ten thousand at a time, some 4 ms; those that are older only in a full collection. That runs while hardly anything comes
in and little is held, or at last after a while: what the core lets go of is in no cycle (a test says so), so hardly
anything waits for it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 10_000
"""Net allocations between two looks at the youngest objects."""

NEVER = 1_000_000

QUIET = 10.0
"""Inputs per second below which a pause of some milliseconds meets nobody."""

MUCH = 100_000
"""Blocks of memory beyond those at the start, from which on a full collection would take longer than 20 ms: a thousand
waiting calls."""

AT_LAST = 600.0
AT_LAST_OF_MUCH = 3600.0
"""Seconds after which a full collection runs whatever the load, so that cycles do not pile up."""


@contextmanager
def making_what_stays() -> Iterator[None]:
    """For the registrations of the start: the collector would walk a growing heap again and again, for 100,000 of them
    a quarter of the whole start. What exists afterwards is out of its sight."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def freeze() -> None:
    """Take everything that exists now out of the collector's sight, and make it look seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, NEVER, NEVER)


class FullCollections:
    """Decides when a full collection is due; asked now and then with the time, the number of inputs so far, and how
    many blocks of memory are held (`sys.getallocatedblocks`)."""

    def __init__(self, now: float, blocks: int) -> None:
        self._collected_at = now
        self._asked_at = now
        self._inputs = 0
        self._at_start = blocks

    def due(self, now: float, inputs: int, blocks: int) -> bool:
        """Whether to collect now; when it says so, it takes it as done."""
        elapsed = max(now - self._asked_at, 1e-9)
        quiet = (inputs - self._inputs) / elapsed < QUIET
        self._asked_at, self._inputs = now, inputs
        much = blocks - self._at_start > MUCH
        if (much or not quiet) and now - self._collected_at < (AT_LAST_OF_MUCH if much else AT_LAST):
            return False
        self._collected_at = now
        return True
