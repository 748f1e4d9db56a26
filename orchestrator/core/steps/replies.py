"""`reply` and `hangup` at work, and what becomes of a caller whose flow has failed."""

from __future__ import annotations

from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.steps import subjects
from orchestrator.core.steps.header_lines import header_lines
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.core.steps.performers import Performs
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket


class Replies:
    """Answers and ends what the runs of one engine serve."""

    def __init__(self) -> None:
        self.performs: Performs = {
            effects.Reply: self._reply,
            effects.Serve: self._serve,
            effects.Hangup: self._hangup,
            effects.Release: self._release,
        }

    def _reply(self, run: Run, ticket: Ticket, effect: effects.Reply) -> None:
        headers = header_lines(effect.headers)
        if any(mark in effect.reason for mark in "\r\n\0"):
            raise StepError("call.state", "reply: the reason phrase holds a line break")
        served = subjects.request_of(run) or subjects.call_of(run)
        if not (effect.implicit and served.reply_best()):
            served.reply(effect.code, effect.reason, headers)

    def _serve(self, run: Run, ticket: Ticket, effect: effects.Serve) -> None:
        if isinstance(run.request, OtherRequest):
            run.request.serve()

    def _hangup(self, run: Run, ticket: Ticket, effect: effects.Hangup) -> None:
        call = subjects.carried_call(run) or subjects.call_of(run)
        call.hangup(effect.reason, effect.code, effect.leg)

    def _release(self, run: Run, ticket: Ticket, effect: effects.Release) -> None:
        """A caller whom FreeSWITCH holds would hear silence until he gives up; one who talks to somebody goes on."""
        call = subjects.carried_call(run)
        if call is not None and call.held:
            code = 503 if isinstance(call, SocketCall) else None  # it says so by a cause, not by BYE
            call.hangup(f"flow failed: {effect.reason}", code, "both")
