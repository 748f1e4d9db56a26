"""The graph of a flow with what has happened in it: where a run waits, which steps it has come by, how many runs have
come by each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestrator.flow.language.program import Flow
from orchestrator.flow.tools.graph import graph_of
from orchestrator.flow.tools.svg import Mark, svg
from orchestrator.views.step_counts import StepCount


def graph_of_run(flow: Flow, waits_at: int, passed: Collection[int]) -> str:
    """SVG: the step of the line `waits_at` (0 for none) is lit, those of the lines `passed` have a thick frame."""
    marks = {line: Mark(passed=True) for line in passed if line}
    if waits_at:
        marks[waits_at] = Mark(lit=True, passed=True)
    return svg(graph_of(flow), marks or _NO_LINE)


def graph_with_counts(flow: Flow, counts: Mapping[int, StepCount]) -> str:
    """SVG: at each step how many runs have come by, and how many failed there, in red."""
    marks = {
        line: Mark(note=f"{count.ran}", trouble=f"{count.failed}" if count.failed else "")
        for line, count in counts.items()
    }
    return svg(graph_of(flow), marks or _NO_LINE)


_NO_LINE: Mapping[int, Mark] = {-1: Mark()}
"""Marks of nothing: the drawing has its classes all the same."""
