"""What a benchmark hands in: figures with their targets, or the reason why it could not run here.

Figures are ratios to something measured in the same run wherever one can be had: a shared machine drifts by a third
between minutes, and a microsecond of today says nothing about one of last week.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Skipped(Exception):
    """This benchmark needs something that is not installed."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. Without `most` and `least` it is for orientation and cannot be missed."""

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

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


def shown(value: float) -> str:
    """Three significant digits, and no more than the noise allows."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def render(rows: Iterable[tuple[str, Sequence[Figure]]]) -> str:
    """A table of the figures by benchmark."""
    lines = [("", "figure", "value", "unit", "target", "")]
    for benchmark, figures in rows:
        label = benchmark
        for figure in figures:
            lines.append((label, figure.name, shown(figure.value), figure.unit, figure.target, figure.verdict))
            label = ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column == 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
