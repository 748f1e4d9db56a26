"""Small pieces of work timed in turns: what disturbs the machine meanwhile disturbs all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from time import process_time


def in_turns(
    works: Mapping[str, Callable[[], object]], counts: Mapping[str, int] | int, rounds: int = 5
) -> dict[str, list[float]]:
    """Microseconds of CPU per call of each work in each round.

    `counts` are calls per round, of all or of each: so many that the clock's steps do not show. The garbage collector
    rests meanwhile.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, work in works.items():
                count = counts if isinstance(counts, int) else counts[name]
                begun = process_time()
                for _ in range(count):
                    work()
                found[name].append((process_time() - begun) / count * 1e6)
    finally:
        gc.enable()
    return found
