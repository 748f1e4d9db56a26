"""How runs begin that serve a request: a call, a channel of the dialplan, a REGISTER, another request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.node import Node
from orchestrator.core.registrations import Registration
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.flow.language.program import Flow, Program
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run


class Starts:
    """Begins runs of one engine; `on_done(run)` is told when one of them is over."""

    def __init__(self, node: Node, flows: FlowEngine, on_done: Callable[[Run], object]) -> None:
        self.triggers: frozenset[str] = frozenset()
        """Kinds of trigger in the loaded program: a request that no flow can take costs no look at the flows."""
        self._node = node
        self._flows = flows
        self._on_done = on_done

    def load(self, program: Program) -> None:
        """Take a program."""
        self.triggers = frozenset(flow.trigger.kind for flow in program.flows)

    def call(self, flow: Flow, call: Call, chain: tuple[str, ...]) -> None:
        """`chain` names the flows that have led to this call, `flow` the last."""
        run = self._create(flow, {"call": call})
        run.chain = chain
        if call.invite.max_forwards is not None:
            run.max_forwards = call.invite.max_forwards
        call.run = run
        run.subject = call
        self._tell_begin(run, call)
        self._begin(run)

    def socket(self, flow: Flow, call: SocketCall) -> None:
        run = self._create(flow, {"call": call.view})
        call.run = run
        run.subject = call
        self._tell_begin(run, call.view)
        self._begin(run)
        call.begun()

    def registration(self, flow: Flow, registration: Registration) -> None:
        run = registration.run = self._create(flow, {"request": registration.view})
        run.subject = run.request = registration
        self._begin(run)

    def other(
        self, flow: Flow, request: OtherRequest, chain: tuple[str, ...], names: Mapping[str, Any] | None = None
    ) -> None:
        """`chain` as for a call; `names` is what the flow knows where that is more than the request. A call among them
        is another run's: this one does not end with it."""
        run = request.run = self._create(flow, {"request": request.view})
        for name, value in (names or {}).items():
            run.env = run.env.bind(name, value)
        run.chain = chain
        if request.request.max_forwards is not None:
            run.max_forwards = request.request.max_forwards
        run.subject = run.request = request
        self._begin(run)

    def _tell_begin(self, run: Run, view: Any) -> None:
        if self._node.on_news is not None:
            ends = {"from": lambda: view["from"]["aor"], "to": lambda: view["target"]["aor"]}
            id, name, source = lambda: view["sip_call_id"], lambda: run.name, view["source_ip"]
            self._node.tell("call_begun", call=id, **ends, source=source, flow=run.flow.name, run=name)

    def _create(self, flow: Flow, names: Mapping[str, Any]) -> Run:
        flows = self._flows
        run = flows.create(flow, flows.program, names)
        run.on_done = self._on_done
        return run

    def _begin(self, run: Run) -> None:
        run.begin()
        self._flows.drain()
