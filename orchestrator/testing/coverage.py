"""Which lines of the flows no test has run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.flow.language.program import Branch, Program, Step
from orchestrator.flow.language.usage import steps_of


def _branches(step: Step) -> Iterator[Branch]:
    """The branches of a first_of."""
    for value in step.args.values():
        if isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Branch))


class FlowCoverage:
    """Collects, over many stories, the steps there are and the steps that ran; both as (file, line)."""

    def __init__(self) -> None:
        self._steps: dict[str, set[int]] = {}
        self._ran: dict[str, set[int]] = {}

    def add(self, program: Program, ran: Iterable[tuple[str, int]]) -> None:
        for flow in program.flows:
            steps = list(steps_of((flow.do, flow.on_error or (), flow.on_end or ())))
            waits = {id(branch.wait) for step in steps for branch in _branches(step)}  # armed, not run
            for step in steps:
                if id(step) not in waits:
                    self._steps.setdefault(step.place.file, set()).add(step.place.line)
        for file, line in ran:
            self._ran.setdefault(file, set()).add(line)

    @property
    def untested(self) -> Mapping[str, list[int]]:
        """File → lines with a step that no test has run."""
        return {file: sorted(lines - self._ran.get(file, set())) for file, lines in sorted(self._steps.items())}

    def report(self) -> Iterator[str]:
        """One line a file: steps, share that ran, the lines that did not."""
        for file, missing in self.untested.items():
            total = len(self._steps[file])
            share = 100 * (total - len(missing)) // total if total else 100
            lines = ", ".join(map(str, missing))
            yield f"{file}: {total} steps, {share} % tested" + (f", not tested: line {lines}" if missing else "")
