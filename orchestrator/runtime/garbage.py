"""When Python may look for unreachable cycles.

A full collection walks every object: with 15,000 waiting calls it stops all others for a quarter of a second. What
exists at start (code, modules, registrations) is therefore frozen out of its sight. Young objects are looked at once,
ten thousand at a time, some 4 ms. Older ones are collected while little is held and hardly anything comes in, or at
last after a while: what the core lets go of is in no cycle (a test says so), so hardly anything waits for it.

While much is held, no collection may walk over all of it. Objects that have survived the look at the youngest are
collected once more some seconds later and then frozen, so that the next collection walks only over newer ones; when
there are too many for that, they are frozen without it. Cycles among frozen objects wait until little is held and
hardly anything comes in, or for a day.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

YOUNG = 10_000
"""Net allocations between two looks at the youngest objects."""

NEVER = 1_000_000

QUIET = 10.0
"""Inputs per second below which a pause of some milliseconds meets nobody."""

MUCH = 100_000
"""Blocks of memory beyond those at the start, from which on a full collection would take longer than 20 ms: a thousand
waiting calls."""

FEW_LOOKS = 2
"""Looks at the youngest, the survivors of which together are looked at in less than 20 ms."""

AT_LAST = 600.0
"""Seconds after which, while little is held, what is not frozen is collected whatever the load, so that cycles do not
pile up."""
DAY = 86_400.0
"""Seconds after which what has been frozen since the start is collected whatever the load."""


class Look(Enum):
    """What is to be done about cycles."""

    NONE = "none"
    FULL = "full"
    """Collect what is not frozen."""
    FREEZE = "freeze"
    """The same, and freeze what survives."""
    ASIDE = "aside"
    """Freeze what is not frozen without a collection, which would take too long."""
    EVERYTHING = "everything"
    """Collect what has been frozen, too."""


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


def perform(look: Look) -> None:
    """Do what `FullCollections.due` says."""
    if look is Look.EVERYTHING:
        gc.unfreeze()
    if look is not Look.NONE and look is not Look.ASIDE:
        gc.collect()
    if look is not Look.NONE and look is not Look.FULL:
        gc.freeze()


class FullCollections:
    """Decides when what kind of collection is due. Asked now and then with the time, the number of inputs so far, how
    many blocks of memory are held (`sys.getallocatedblocks`), and how often the youngest objects were looked at since
    the last collection (`gc.get_count()[1]`)."""

    def __init__(self, now: float, blocks: int) -> None:
        self._collected_at = now
        self._asked_at = now
        self._frozen_at: float | None = None
        """When something was frozen first since the start, or since everything was collected."""
        self._inputs = 0
        self._at_start = blocks

    def due(self, now: float, inputs: int, blocks: int, looks: int) -> Look:
        """What to do now; what it says, it takes as done."""
        elapsed = max(now - self._asked_at, 1e-9)
        quiet = (inputs - self._inputs) / elapsed < QUIET
        self._asked_at, self._inputs = now, inputs
        if self._frozen_at is not None and now - self._frozen_at >= DAY:
            look = Look.EVERYTHING
        elif blocks - self._at_start > MUCH:
            look = self._much(looks)
        else:
            look = self._little(now, quiet)
        if look is not Look.NONE:
            self._collected_at = now
        if look is Look.EVERYTHING:
            self._frozen_at = None
        elif self._frozen_at is None and look in (Look.FREEZE, Look.ASIDE):
            self._frozen_at = now
        return look

    def _little(self, now: float, quiet: bool) -> Look:
        if quiet:
            return Look.FULL if self._frozen_at is None else Look.EVERYTHING
        return Look.FULL if now - self._collected_at >= AT_LAST else Look.NONE

    def _much(self, looks: int) -> Look:
        if looks > FEW_LOOKS:
            return Look.ASIDE
        return Look.FREEZE if looks else Look.NONE
