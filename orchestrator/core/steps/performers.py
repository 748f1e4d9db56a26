"""What flows ask for, done: the `Host` of the flow engine (FLOWLANG §4.3, §5).

An effect that touches SIP is carried out inside the turn. One that has to wait for a network answer becomes a job, and
its ticket is resumed when the job is complete. Errors are StepErrors with the dotted types of the language.

Who performs an effect is added by type: nothing here knows one but `log`. An effect of a package that nobody was added
for performs itself, inside the turn or as a job (`flow.run.traits`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.calls.works import Works
from orchestrator.core.node import Node
from orchestrator.core.steps.program_names import ProgramNames
from orchestrator.errors import StepError
from orchestrator.events.outside import typed_event
from orchestrator.flow.language.program import Program
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket
from orchestrator.flow.run.task import Task
from orchestrator.flow.run.traits import CallWork, Effect, PoolEffect, TurnEffect

Perform = Callable[[Run, Ticket, Any], Any]
"""Does what an effect says; the result, or PENDING. Raises StepError."""
Performs = Mapping[type, Perform]


@dataclass(frozen=True, slots=True)
class TurnOf:
    """The `Turn` of one step of a run."""

    _node: Node
    _run: Run
    _task: Task
    _works: Works

    @property
    def now(self) -> float:
        return self._node.now

    @property
    def wall(self) -> float:
        return self._node.wall

    @property
    def call(self) -> str:
        return self._run.call_id

    @property
    def run(self) -> str:
        return self._run.name

    def count(self, name: str) -> None:
        self._node.count(name)

    def publish(self, event: str, attributes: Mapping[str, Any]) -> int:
        run = self._run
        spec = run.program.events.get(event)
        if spec is None:
            raise ValueError(f"there is no event {event!r}")
        made = typed_event(spec, attributes, run.call_id if spec.scope == "call" else "", self._node.now)
        return self._task.raise_event(made)

    def bind(self, work: CallWork) -> None:
        self._works.bind(self._run.subject, work)


class Performers:
    """Performs effects for the runs of one engine."""

    def __init__(self, node: Node) -> None:
        self.on_log: Callable[[Run, effects.Log], None] | None = None
        """Told every `log:` step."""
        self._node = node
        self.works = Works(node)
        self._perform: dict[type, Perform] = {effects.Log: self._log}
        self.as_job: Callable[[Ticket, PoolEffect], Any] | None = None
        """Hands an effect of a package out as a job and returns PENDING."""

    def add(self, performs: Performs) -> None:
        """Effects by type and who performs them. What a step has begun stands in its ticket (`Ticket.work`)."""
        self._perform.update(performs)

    # --- the Host protocol --------------------------------------------------------------------------------------------

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        """The result, or PENDING. Raises StepError."""
        perform = self._perform.get(type(effect))
        return perform(run, ticket, effect) if perform is not None else self._of_package(run, ticket, effect)

    def _of_package(self, run: Run, ticket: Ticket, effect: Effect) -> Any:
        if isinstance(effect, TurnEffect) and isinstance(ticket.task, Task):
            try:
                return effect.perform(TurnOf(self._node, run, ticket.task, self.works))
            except SystemExit as error:  # in a turn it would end the server
                raise RuntimeError(f"it called sys.exit({error.code!r})") from error
        if isinstance(effect, PoolEffect) and self.as_job is not None:
            return self.as_job(ticket, effect)
        raise StepError("flow.fault", f"nothing here performs the effect {type(effect).__name__}")

    def names(self, program: Program) -> Mapping[str, Any]:
        """Called whenever a program is loaded: what its expressions know besides the run."""
        return ProgramNames(program, lambda: self._node.wall, self._node.site.secrets)

    def _log(self, run: Run, ticket: Ticket, effect: effects.Log) -> None:
        if self.on_log is not None:
            self.on_log(run, effect)
