"""Steps that wait for an answer from outside: `http`, the commands of `fs`, and what packages do in pools."""

from __future__ import annotations

from typing import Any

from orchestrator.core.jobs import JobEffect
from orchestrator.core.node import Node
from orchestrator.core.steps import subjects
from orchestrator.core.steps.performers import Performs
from orchestrator.core.switches.servers import Servers
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.run_facts import BackgroundFailed
from orchestrator.flow.run.signals import PENDING, Ticket


class JobSteps:
    """Hands out the work of one engine's flows."""

    def __init__(self, node: Node, flows: FlowEngine, servers: Servers) -> None:
        self._node = node
        self._flows = flows
        self._servers = servers
        self.performs: Performs = {effects.Http: self._http, effects.EslCommand: self._esl_command}

    def _http(self, run: Run, ticket: Ticket, effect: effects.Http) -> Any:
        node = self._node
        if node.request_marks and run.call_id:
            effect.headers = {**self._marks(run.call_id), **effect.headers}
        if effect.background:
            node.job(effect, lambda result: self._background_done(run, result), run.call_id)
            return None
        return self.as_job(ticket, effect)

    def _marks(self, call: str) -> dict[str, str]:
        """What packages add to the next web request."""
        node = self._node
        try:
            marks = {name: make(call, node.next_job) for name, make in node.request_marks}
        except Exception as bug:
            if node.history.on_fault is None:
                raise
            node.history.on_fault(bug)
            return {}
        return {name: value for name, value in marks.items() if value}

    def _background_done(self, run: Run, result: Any) -> None:
        """It may outlive its run, and never fails it; what went wrong is counted and stands in the trace."""
        if isinstance(result, StepError):
            self._node.count("http.background.failed")
            run.trace(None, BackgroundFailed("http", result.type, result.message))

    def _esl_command(self, run: Run, ticket: Ticket, effect: effects.EslCommand) -> Any:
        effect.server = self._servers.server_for(effect.server, subjects.carried_call(run))
        return self.as_job(ticket, effect)

    def as_job(self, ticket: Ticket, effect: JobEffect) -> Any:
        """Work for outside, whose result the ticket gets in a later turn."""
        flows = self._flows

        def done(result: Any) -> None:
            if isinstance(result, StepError):
                flows.throw(ticket, result)
            else:
                flows.resume(ticket, result)

        task = ticket.task
        self._node.job(effect, done, task.run.call_id if task is not None else "")
        return PENDING
