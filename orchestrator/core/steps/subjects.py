"""What each run serves: its call, SIP's or the dialplan's, its REGISTER or another request."""

from __future__ import annotations

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.calls.views import CallView
from orchestrator.core.node import Node
from orchestrator.core.registrations import Registration
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.errors import StepError
from orchestrator.flow.run.run import Run
from orchestrator.sip.message import Request


class Subjects:
    """Run id → subject, for the runs of one engine."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.handed: dict[int, SocketCall] = {}
        """Calls that FreeSWITCH's dialplan has handed over."""
        self.registrations: dict[int, Registration] = {}
        self.others: dict[int, OtherRequest] = {}
        """Requests that begin no call."""

    def forget(self, run: Run) -> None:
        """The run is done."""
        call = self.calls.pop(run.id, None)
        handed = self.handed.pop(run.id, None)
        registration = self.registrations.pop(run.id, None)
        self.others.pop(run.id, None)
        if call is not None and call.over:
            call.part()
        if handed is not None and handed.over:
            handed.run = None
        if registration is not None:
            registration.run = None

    def adopt(self, node: Node, run: Run, call: Call, request: Request, source: tuple[str, int]) -> None:
        """Give a run the call it has placed: from now on it is a run with a call."""
        view = CallView(node, request, source)
        view.bind(call)
        call.run = run
        run.call, run.call_id = view, call.id
        self.calls[run.id] = call

    def served_by(self, run: Run) -> Call | SocketCall | Registration | OtherRequest | None:
        """Whatever a run owes an answer or an end."""
        return self.calls.get(run.id) or self.handed.get(run.id) or self.request(run)

    def request(self, run: Run) -> Registration | OtherRequest | None:
        """The request of a run that is no call's, None for a run without one."""
        return self.registrations.get(run.id) or self.others.get(run.id)

    def unaware(self) -> list[Call]:
        """Calls that are over though their runs were not told: a bug has struck in between."""
        return [call for call in self.calls.values() if call.over and call.run is not None and not call.run.bounded]

    def call(self, run: Run) -> Call:
        """The SIP call of a run, over or not. Raises StepError `call.state`."""
        call = self.calls.get(run.id)
        if call is None:
            known = "FreeSWITCH has handed over this call: there is no SIP here" if run.id in self.handed else ""
            raise StepError("call.state", known or "this run has no call")
        return call

    def live_call(self, run: Run) -> Call:
        """The call of a run. Raises StepError `call.state` when there is none, or it is over."""
        call = self.call(run)
        if call.over:
            raise StepError("call.state", "the call is over")
        return call

    def media_call(self, run: Run) -> Call | SocketCall:
        """The call of a run, whether SIP or FreeSWITCH's dialplan brought it. Raises as `live_call` does."""
        call = self.handed.get(run.id)
        if call is None:
            return self.live_call(run)
        if call.over:
            raise StepError("call.state", "the call is over")
        return call

    def carried_call(self, run: Run) -> Call | SocketCall | None:
        """The same, over or not; None for a run without one."""
        return self.handed.get(run.id) or self.calls.get(run.id)
