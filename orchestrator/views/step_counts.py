"""How many runs have come by each step of a flow, and how many failed there.

Counted when somebody asks, from the traces that are kept and the runs that go on: calls pay nothing for it. Runs of
another version of the flows do not count, since their lines are others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from orchestrator.core.engine import Engine
from orchestrator.flow.language.program import Flow, Step
from orchestrator.flow.run.run_facts import BackgroundFailed, Failed, FilterFailed, StepFailed
from orchestrator.flow.run.trace import TraceLine
from orchestrator.views.listing import nothing

MOST: Final = 2_000
"""Runs that are looked at, those that are over first."""
STRETCH: Final = 50
"""Runs between two breaths."""
_FAILURES: Final = (StepFailed, BackgroundFailed, FilterFailed)


@dataclass(frozen=True, slots=True)
class StepCount:
    """Runs, each counted once."""

    ran: int
    failed: int


@dataclass(frozen=True, slots=True)
class StepCounts:
    """`runs` have been looked at; `lines`: line of the file of the flow → how many of them came by."""

    runs: int
    lines: dict[int, StepCount]


def step_counts(engine: Engine, flow: Flow, breathe: Callable[[], object] = nothing) -> StepCounts:
    """Those of one flow of the program that new runs get. `breathe()` is called between some runs."""
    wanted, file = engine.flows.program.hash, flow.place.file
    over = (trace.records for trace in list(engine.flows.traces) if trace.hash == wanted)
    live = (run.records for run in list(engine.flows.runs.values()) if run.program.hash == wanted)
    ran: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    runs = 0
    for number, records in enumerate(islice(chain(over, live), MOST)):
        if number % STRETCH == STRETCH - 1:
            breathe()
        came_by, failed_at = _lines(records, file)
        runs += bool(came_by)
        ran.update(came_by)
        failed.update(failed_at)
    return StepCounts(runs, {line: StepCount(count, failed[line]) for line, count in ran.items()})


def _lines(records: Iterable[TraceLine], file: str) -> tuple[set[int], set[int]]:
    """Lines of this file that one run came by, and where it failed."""
    came_by: set[int] = set()
    failed_at: set[int] = set()
    kept = tuple(records)
    own = bool(kept) and kept[0].step is not None and kept[0].step.place.file == file
    for record in kept:
        step, fact = record.step, record.fact
        if isinstance(fact, Failed) and own and fact.at:  # what has ended the flow names the line alone
            came_by.add(fact.at)
            failed_at.add(fact.at)
        elif isinstance(step, Step) and step.place.file == file:
            came_by.add(step.place.line)
            if isinstance(fact, _FAILURES):
                failed_at.add(step.place.line)
    return came_by, failed_at
