"""`reply` and `hangup` at work, and what becomes of a caller whose flow has failed."""

from __future__ import annotations

from orchestrator.core.steps.header_lines import header_lines
from orchestrator.core.steps.performers import Performs
from orchestrator.core.steps.subjects import Subjects
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket


class Replies:
    """Answers and ends what the runs of one engine serve."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
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
        request, other = self._subjects.request(run), self._subjects.others.get(run.id)
        if request is not None:
            if not (effect.implicit and other is not None and other.reply_best()):
                request.reply(effect.code, effect.reason, headers)
        else:
            call = self._subjects.call(run)
            if not (effect.implicit and call.reply_best()):
                call.reply(effect.code, effect.reason, headers)
        if effect.code >= 200:
            run.replied = True

    def _serve(self, run: Run, ticket: Ticket, effect: effects.Serve) -> None:
        other = self._subjects.others.get(run.id)
        if other is not None:
            other.serve()

    def _hangup(self, run: Run, ticket: Ticket, effect: effects.Hangup) -> None:
        handed = self._subjects.handed.get(run.id)
        if handed is not None:
            handed.hangup(effect.reason, effect.code)
        else:
            self._subjects.call(run).hangup(effect.reason, effect.code, effect.leg)

    def _release(self, run: Run, ticket: Ticket, effect: effects.Release) -> None:
        """A caller whom FreeSWITCH holds would hear silence until he gives up; one who talks to somebody goes on."""
        handed = self._subjects.handed.get(run.id)
        if handed is not None:
            handed.hangup(f"flow failed: {effect.reason}", 503)
        call = self._subjects.calls.get(run.id)
        if call is not None and call.held:
            call.hangup(f"flow failed: {effect.reason}", None, "both")
