"""What flows ask for, done: the `Host` of the flow engine (FLOWLANG §4.3, §5).

An effect that touches SIP is carried out inside the turn. One that has to wait for a network answer becomes a job, and
its ticket is resumed when the job is complete. Errors are StepErrors with the dotted types of the language.

Who performs an effect is added by type: nothing here knows one but `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.steps.program_names import ProgramNames
from orchestrator.flow.language.program import Program
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket
from orchestrator.flow.run.trace import TraceLine, TraceWritten

Perform = Callable[[Run, Ticket, Any], Any]
"""Does what an effect says; the result, or PENDING. Raises StepError."""
Performs = Mapping[type, Perform]


class Performers:
    """Performs effects for the runs of one engine."""

    def __init__(self, node: Node) -> None:
        self.on_log: Callable[[Run, effects.Log], None] | None = None
        """Told every `log:` step."""
        self._node = node
        self._perform: dict[type, Perform] = {effects.Log: self._log}

    def add(self, performs: Performs) -> None:
        """Effects by type and who performs them. What a step has begun stands in its ticket (`Ticket.work`)."""
        self._perform.update(performs)

    # --- the Host protocol --------------------------------------------------------------------------------------------

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        """The result, or PENDING. Raises StepError."""
        return self._perform[type(effect)](run, ticket, effect)

    def names(self, program: Program) -> Mapping[str, Any]:
        """Called whenever a program is loaded: what its expressions know besides the run."""
        return ProgramNames(program, lambda: self._node.wall, self._node.site.secrets)

    def trace(self, run: Run, record: TraceLine) -> None:
        """A line of the trace of a run."""
        history = self._node.history
        if history.hears(TraceWritten):
            history.tell(TraceWritten(run, record))

    def _log(self, run: Run, ticket: Ticket, effect: effects.Log) -> None:
        if self.on_log is not None:
            self.on_log(run, effect)
