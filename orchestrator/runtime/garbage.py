"""When Python may look for unreachable cycles.

A full collection walks every object: with 15,000 waiting calls it stops all others for a quarter of a second. What
exists at start (code, modules, registrations) is therefore frozen out of its sight. Young objects are looked at once,
ten thousand at a time, some 4 ms; those that are older while hardly anything comes in and little is held, or at last
after a while: what the core lets go of is in no cycle (a test says so), so hardly anything waits for it.

Where much is held, nothing may walk over all of it. What has survived the look at the youngest is looked at once more
some seconds later, if it is so little that nobody notices, and then it is frozen, too: the next look finds only what is
newer. Cycles of what was frozen so wait until little is held, or a day.
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
"""Seconds after which, where little is held, all is collected whatever the load, so that cycles do not pile up."""
DAY = 86_400.0
"""Seconds after which what has been frozen since the start is looked at whatever the load."""


class Look(Enum):
    """What is to be done about cycles."""

    NONE = "none"
    FULL = "full"
    """Collect what is not frozen."""
    FREEZE = "freeze"
    """The same, and freeze what survives."""
    ASIDE = "aside"
    """Freeze what is not frozen: it is too much to be looked at."""
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
        self._thawed_at = now
        self._frozen = False
        """Something was frozen since everything was looked at."""
        self._inputs = 0
        self._at_start = blocks

    def due(self, now: float, inputs: int, blocks: int, looks: int) -> Look:
        """What to do now; what it says, it takes as done."""
        elapsed = max(now - self._asked_at, 1e-9)
        quiet = (inputs - self._inputs) / elapsed < QUIET
        self._asked_at, self._inputs = now, inputs
        look = self._much(now, looks) if blocks - self._at_start > MUCH else self._little(now, quiet)
        if look is not Look.NONE:
            self._collected_at = now
        if look is Look.EVERYTHING:
            self._thawed_at = now
        self._frozen = look in (Look.FREEZE, Look.ASIDE) or (self._frozen and look is not Look.EVERYTHING)
        return look

    def _little(self, now: float, quiet: bool) -> Look:
        if not quiet and now - self._collected_at < AT_LAST:
            return Look.NONE
        return Look.EVERYTHING if self._frozen else Look.FULL

    def _much(self, now: float, looks: int) -> Look:
        if self._frozen and now - self._thawed_at >= DAY:
            return Look.EVERYTHING
        if looks > FEW_LOOKS:
            return Look.ASIDE
        return Look.FREEZE if looks else Look.NONE
