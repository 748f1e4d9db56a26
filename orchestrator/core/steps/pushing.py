"""`push` at work: a push to each phone of an address that sleeps, and how many of them were sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.push.pusher import Pusher
from orchestrator.core.push.waking import collapse_of, is_same_phone, kind_of, told_of
from orchestrator.core.registrations import Registrations
from orchestrator.core.steps import subjects
from orchestrator.core.steps.performers import Performs
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.push import Pushed, PushKind

KINDS: Mapping[str, PushKind] = {"call": "call", "message": "message", "request": "request"}
WAKE = 20.0
"""Seconds that a push is worth something where nobody says so."""


class Tally:
    """What has become of the pushes of one step; it goes on when all are answered."""

    __slots__ = ("flows", "ticket", "_left", "_of")

    def __init__(self, flows: FlowEngine, ticket: Ticket) -> None:
        self.flows = flows
        self.ticket = ticket
        self._left = 0
        self._of = {"sent": 0, "failed": 0, "dead": 0}

    def __call__(self, pushed: Pushed) -> None:
        self._left -= 1
        self._of[pushed.outcome] += 1
        if not self._left:
            self.flows.resume(self.ticket, self.result)

    def begun(self, sent: bool) -> None:
        """A push is under way, or the phone gets no more."""
        if sent:
            self._left += 1
        else:
            self._of["failed"] += 1

    @property
    def waits(self) -> bool:
        """Some have not been answered."""
        return self._left > 0

    @property
    def result(self) -> dict[str, int]:
        """The `push result`."""
        return dict(self._of)


class Pushing:
    """Performs the pushes of one engine's flows."""

    def __init__(self, network: SipNetwork, flows: FlowEngine, registrations: Registrations, pusher: Pusher) -> None:
        self._network = network
        self._flows = flows
        self._registrations = registrations
        self._pusher = pusher
        self.performs: Performs = {effects.PushTo: self._push}

    def _push(self, run: Run, ticket: Ticket, effect: effects.PushTo) -> Any:
        request, pusher, tally = _request_of(run), self._pusher, Tally(self._flows, ticket)
        told: Mapping[str, Any] = told_of(self._network, request) if request is not None else {}
        kind = KINDS.get(effect.kind) or (kind_of(request) if request is not None else "request")
        ttl = pusher.policy.wake or WAKE if effect.ttl is None else effect.ttl
        options = {name: said for name, said in effect.services.items() if isinstance(said, Mapping)}
        for binding in self._asleep(effect.aor):
            sent = pusher.send(
                binding,
                kind,
                tally,
                ttl=ttl,
                call=told.get("call", ""),
                collapse=collapse_of(request) if request is not None and kind == "call" else "",
                data={**told, **effect.data},
                options=options,
            )
            tally.begun(sent)
        return PENDING if tally.waits else tally.result

    def _asleep(self, aor: str) -> list[Binding]:
        """One contact of each phone that sleeps."""
        found: list[Binding] = []
        for binding in self._registrations.bindings_of(aor):
            if self._pusher.sleeps(binding) and not any(is_same_phone(binding, known) for known in found):
                found.append(binding)
        return found


def _request_of(run: Run) -> Request | None:
    """What the run serves; None where it began on an event, or on a channel of FreeSWITCH."""
    if isinstance(run.subject, Call):
        return run.subject.invite
    served = subjects.request_of(run)
    return None if served is None else served.request
