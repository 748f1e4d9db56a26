"""`media` and `answer` at work: FreeSWITCH takes the caller's leg and answers it; see `core.steps.hold`."""

from __future__ import annotations

from typing import Any

from orchestrator.core.calls.call import Call, Exchange
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.steps import subjects
from orchestrator.core.steps.hold import Hold, answer_headers
from orchestrator.core.steps.media import Applications
from orchestrator.core.steps.performers import Performs
from orchestrator.core.switches.executions import channel_of
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket


class Holding:
    """Performs `media` and `answer` for one engine's flows."""

    def __init__(
        self,
        exchange: Exchange,
        applications: Applications,
    ) -> None:
        self._flows = exchange.flows
        self._servers = exchange.servers
        self._applications = applications
        self.performs: Performs = {effects.Media: self._media, effects.Answer: self._answer}

    def _media(self, run: Run, ticket: Ticket, effect: effects.Media) -> Any:
        """Have FreeSWITCH hold the call; where it does already, at most have it answer."""
        call = subjects.live_call(run)
        if channel_of(call, "caller") is not None:
            return self._answer(run, ticket, effects.Answer()) if effect.answer else None
        if call.replied:
            raise StepError("call.state", "media: the call is answered already, and not by FreeSWITCH")
        return self._hold(run, call, ticket, effect)

    def _hold(self, run: Run, call: Call, ticket: Ticket, effect: effects.Media) -> Any:
        if call.relay is not None or call.hold is not None:
            raise StepError("call.state", "media: a relay or another media: of this call is still under way")
        server = self._servers.server_for(effect.server, call)
        if not self._servers.is_up(server):
            raise StepError("esl.down", f"media: FreeSWITCH {server} is not connected")
        silence = self._servers.acceptance.silence(server)
        if silence:
            raise StepError("esl.down", f"media: FreeSWITCH {server} takes no calls: {silence}")
        hold = call.hold = ticket.work = Hold(call, server, self._servers.sip_uri_of(server))
        call.carried, call.server = True, server
        hold.begin(effect.answer, lambda error: self._held(ticket, error))
        return PENDING

    def _held(self, ticket: Ticket, error: StepError | None) -> None:
        if error is not None:
            self._flows.throw(ticket, error)
        else:
            self._flows.resume(ticket, None)

    def _answer(self, run: Run, ticket: Ticket, effect: effects.Answer) -> Any:
        """Answer from FreeSWITCH, which takes the call first where it does not have it."""
        if isinstance(run.subject, SocketCall):
            return self._answer_handed(run, ticket, run.subject, effect)
        call = subjects.live_call(run)
        if call.replied:
            return None
        if call.hold is None:
            if effect.headers:
                raise StepError("call.state", "answer: headers need media: before it")
            return self._hold(run, call, ticket, effects.Media(answer=True))
        channel = channel_of(call, "caller")
        headers = answer_headers(effect.headers, channel.uuid) if channel is not None else ()
        ticket.work = call.hold
        call.hold.answer(headers, lambda error: self._held(ticket, error))
        return PENDING

    def _answer_handed(self, run: Run, ticket: Ticket, call: SocketCall, effect: effects.Answer) -> Any:
        """The application `answer`, which FreeSWITCH finishes at once on a channel that is answered."""
        if effect.headers:
            raise StepError("call.state", "answer: headers are SIP, and this call is FreeSWITCH's")
        return self._applications.answer(run, ticket, call.channel)
