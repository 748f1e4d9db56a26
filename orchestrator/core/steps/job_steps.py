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
        if effect.background:
            self._node.job(effect, lambda result: self._background_done(run, result))
            return None
        return self.as_job(ticket, effect)

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

        self._node.job(effect, done)
        return PENDING
