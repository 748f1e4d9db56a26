"""`relay`, `inject` and `cancel` at work: from what a flow names to a running relay of its call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.gateways import Gateways
from orchestrator.core.phones import leads_to
from orchestrator.core.push.waking import Waiter, Wakers, Waking
from orchestrator.core.steps import subjects
from orchestrator.core.steps.calling_party import from_value
from orchestrator.core.steps.destinations import Destinations
from orchestrator.core.steps.header_lines import header_lines
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.core.steps.performers import Performs
from orchestrator.core.steps.referred import Referred
from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.core.switches.servers import Servers
from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip.message import Request
from orchestrator.sip.target import Target


class RelayStep:
    """Who hears of the result of a relay that has no call: the step that waits for it."""

    __slots__ = ("flows", "ticket")

    def __init__(self, flows: FlowEngine, ticket: Ticket) -> None:
        self.flows = flows
        self.ticket = ticket

    def __call__(self, result: Mapping[str, Any]) -> None:
        self.flows.resume(self.ticket, result)


class Relaying:
    """Performs the relays of one engine's flows."""

    def __init__(
        self,
        flows: FlowEngine,
        destinations: Destinations,
        gateways: Gateways,
        servers: Servers,
        consume: Callable[[Request], None],
        wakers: Wakers,
    ) -> None:
        """`consume` takes credentials for us out of a request that is going on."""
        self._flows = flows
        self._destinations = destinations
        self._gateways = gateways
        self._servers = servers
        self._consume = consume
        self._wakers = wakers
        self.performs: Performs = {
            effects.Relay: self._relay,
            effects.Inject: self._inject,
            effects.Cancel: self._cancel,
        }

    def _relay(self, run: Run, ticket: Ticket, effect: effects.Relay) -> Any:
        if isinstance(run.request, OtherRequest):
            return self._relay_other(run, ticket, run.request, effect)
        call = subjects.live_call(run)
        if call.replied:
            raise StepError("call.state", "relay: the call already has a final reply")
        if call.relay is not None:
            raise StepError("call.state", "relay: another relay of this call is still running")
        groups, asleep = self._destinations.groups(run, call.invite, effect), list[Target]()
        if effect.wake:
            groups, asleep = self._wakers.split(groups)
        relay = RelayAttempt(
            call,
            effect,
            groups,
            ticket,
            self._gateways,
            self._front(call, effect),
        )
        call.relay = ticket.work = relay
        waiting, call.waiting = call.waiting, ()
        for target in waiting:  # injected before there was a relay to take this from
            target.headers, target.sender = (*relay.headers, *target.headers), from_value(effect.from_)
        if asleep:
            relay.waking = self._wake(relay, call.invite, effect, asleep, groups)
            call.pushed += len(asleep)
        relay.start(waiting)
        return PENDING

    def _wake(
        self,
        waiter: Waiter,
        request: Request,
        effect: effects.Relay,
        asleep: Sequence[Target],
        groups: Sequence[Sequence[Target]],
    ) -> Waking:
        """Push to those that sleep; who wakes up joins those of `groups`."""
        effect.sleepers = waking = self._wakers.wake(
            waiter,
            request,
            asleep,
            [target for group in groups for target in group],
            effect.wake or 0.0,
            others=(effect.registered or bool(effect.aor)) and self._destinations.is_for_all(request),
            headers=header_lines(effect.headers),
            sender=from_value(effect.from_),
        )
        return waking

    def _relay_other(self, run: Run, ticket: Ticket, other: OtherRequest, effect: effects.Relay) -> Any:
        """One that begins no call: sent on, but not back to the phone it comes from."""
        other.check_open()
        if isinstance(other, Referred) and other.inside is not None:
            if not effect.original:
                raise StepError("call.state", "relay: a REFER inside a call goes to its other party: to: original")
            groups = other.onward(header_lines(effect.headers))
        else:
            groups = self._destinations.groups(run, other.request, effect)
        if effect.registered or effect.aor:
            groups = [[target for target in group if not leads_to(target, other.hop)] for group in groups]
        self._consume(other.request)
        asleep: list[Target] = []
        if effect.wake:
            groups, asleep = self._wakers.split(groups)
        waking = self._wake(other, other.request, effect, asleep, groups) if asleep else None
        other.relay(groups, RelayStep(self._flows, ticket), waking)
        ticket.work = other if other.running else None
        return PENDING

    def _front(self, call: Call, effect: effects.Relay) -> Target | None:
        """The way to FreeSWITCH of `relay … via:`: the called user at the server, with our call's id for the way
        back."""
        if not effect.via:
            return None
        uri = self._servers.sip_uri_of(effect.via)
        call.server = effect.via
        host = uri.split(":", 1)[1].rpartition("@")[2]
        user = call.invite.parsed_uri.user or b"call"
        return Target(
            b"sip:%b@%b" % (user, host.encode()),
            headers=(*call.node.network.ties(call.id, call.sip_call_id), *header_lines(effect.headers)),
            sender=from_value(effect.from_),
        )

    def _inject(self, run: Run, ticket: Ticket, effect: effects.Inject) -> dict[str, Any]:
        call = subjects.call_of(run)
        if call.over or call.replied:
            return {"added": 0, "reason": "the call is over" if call.over else "the call is already answered"}
        targets = self._destinations.named(effect.aor, effect.to)
        headers = header_lines(effect.headers)
        relay = call.relay
        for target in targets:
            target.headers = (*target.headers, *(relay.headers if relay is not None else ()), *headers)
            target.sender = from_value(relay.effect.from_) if relay is not None else b""
            target.ring = effect.ring
        if relay is None:
            call.waiting += tuple(targets)
            return {"added": len(targets), "reason": "waits for the relay"}
        added = relay.inject(targets, effect.cancel_others, effect.last)
        return {"added": added, "reason": "" if added else "nothing new to ring"}

    def _cancel(self, run: Run, ticket: Ticket, effect: effects.Cancel) -> None:
        relay = subjects.live_call(run).relay
        if relay is not None:
            relay.stop(effect.branches)
