"""What a benchmark hands in: figures with their spread and targets, what was not there to compare with, or the reason
why it could not run here at all.

Figures are ratios to something measured in the same run wherever one can be had, round by round: a shared machine
drifts by a third between minutes, and a microsecond of today says nothing about one of last week.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


class Skipped(Exception):
    """This benchmark needs something that is not installed."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A peer, or a part of a benchmark, that this machine cannot run: what, and how to get it."""

    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what} ({self.cure})"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: the median of its rounds, and the least and the greatest of them.

    Without `most` and `least` it is for orientation and cannot be missed. A figure of one measurement has no spread.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool:
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    @property
    def target(self) -> str:
        """The target in words, '' where there is none."""
        if self.most is not None:
            return f"at most {shown(self.most)}"
        return "" if self.least is None else f"at least {shown(self.least)}"

    @property
    def verdict(self) -> str:
        return "" if not self.target else "met" if self.met else "MISSED"

    @property
    def spread(self) -> str:
        """`least–greatest`, '' for a single measurement."""
        return "" if self.low is None or self.high is None else f"{shown(self.low)}–{shown(self.high)}"


def middle(
    name: str, values: Iterable[float], unit: str = "", most: float | None = None, least: float | None = None
) -> Figure:
    """The figure of some rounds."""
    found = sorted(values)
    spread = (found[0], found[-1]) if len(found) > 1 else (None, None)
    return Figure(name, statistics.median(found), unit, most, least, *spread)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def shown(value: float) -> str:
    """Three significant digits, and no more than the noise allows."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def render(rows: Iterable[tuple[str, Iterable[Figure | Absent]]]) -> str:
    """A table of the figures by benchmark, and below it what was missing."""
    lines = [("", "figure", "median", "min–max", "unit", "target", "")]
    missing = []
    for label, name, figure in _labelled(rows):
        if isinstance(figure, Absent):
            missing.append(f"missing: {name}: {figure}")
            continue
        lines.append(
            (label, figure.name, shown(figure.value), figure.spread, figure.unit, figure.target, figure.verdict)
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        "  ".join(
            cell.rjust(width) if column == 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(table + missing)


def _labelled(rows: Iterable[tuple[str, Iterable[Figure | Absent]]]) -> Iterator[tuple[str, str, Figure | Absent]]:
    """Each with its benchmark's name, which stands before the first one only."""
    for name, figures in rows:
        label = name
        for figure in figures:
            yield label, name, figure
            if isinstance(figure, Figure):
                label = ""
