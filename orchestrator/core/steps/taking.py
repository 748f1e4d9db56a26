"""`transfer` in a flow `on: refer`: the transfer that a party of a call asks for, carried out by us (FLOWLANG §4.3).

FreeSWITCH has the media, so it moves the other party: to a new destination, which it calls through us (a blind
transfer), or to the party of the call that the REFER names (an attended one, RFC 3891): two legs that it has are joined
(`uuid_bridge`); a dialog that does not go through it is replaced by an INVITE with Replaces. The 202 goes out when
FreeSWITCH has taken the command: a phone may hang up on it, and its BYE must not come first.

The caller stays in his call, whose callee is another one then. A callee who is moved becomes a call of its own, which
the flow has from then on; so do two callees that are joined, but nobody has that call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.core.calls.call import OUTLIVE, Call, Exchange
from orchestrator.core.calls.handover import release_back, take_back
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.steps import subjects
from orchestrator.core.steps.destinations import Destinations
from orchestrator.core.steps.media import CHANNEL_WITHIN
from orchestrator.core.steps.referred import Referred
from orchestrator.core.steps.relay import BACK_WITHIN, RelayAttempt
from orchestrator.core.steps.transfer import TransferAttempt
from orchestrator.core.switches.executions import channel_of, command, ignore
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.channels import ENDS, Channel
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.commands import safe_uuid
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip.message import Request
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

LOOK_AGAIN = 0.05
"""Seconds between two looks for a channel that has not been reported."""
RING = 60.0
"""Seconds a destination rings where `defaults:` does not say."""

WayThroughUs = Callable[[str, Uri, Target], str]
"""(id of the call, who is moved, target) → the inline dialplan with which FreeSWITCH calls the target through us."""


class Takings:
    """Performs the transfers of one engine's flows on: refer."""

    def __init__(
        self,
        node: Node,
        exchange: Exchange,
        destinations: Destinations,
        gateways: Gateways,
        way: WayThroughUs,
        placed: dict[str, Any],
    ) -> None:
        """`placed` is where calls that FreeSWITCH is to place are found by id, when their INVITE comes."""
        self.node = node
        self.exchange = exchange
        self.flows = exchange.flows
        self.gateways = gateways
        self.placed = placed
        self._destinations = destinations
        self._way = way

    def take(self, run: Run, ticket: Ticket, refer: Referred, effect: effects.Transfer) -> Any:
        """Begin it; a little later where FreeSWITCH has not reported the channel yet: SIP is some milliseconds faster.
        Raises StepError."""
        try:
            return self.begin(run, ticket, refer, effect)
        except NoChannel as error:
            if not error.may_come:
                raise
            ticket.work = Unreported(self, run, ticket, refer, effect)
            return PENDING

    def begin(self, run: Run, ticket: Ticket, refer: Referred, effect: effects.Transfer) -> Any:
        """Begin it now. Raises StepError."""
        inside = refer.inside
        call = inside.call if inside is not None else None
        if inside is None or call is None:
            raise StepError("call.state", "transfer: the REFER belongs to no call that a flow has taken")
        if call.over:
            raise StepError("call.state", "transfer: the call is over")
        if call.relay is not None:
            raise StepError("call.state", "transfer: a relay of this call is still running")
        if effect.context:
            raise StepError("call.state", "transfer: context: has no meaning for a REFER")
        moved = "callee" if inside.side == "caller" else "caller"
        channel = self._channel(call, moved)
        target = self._destinations.target_of(effect.to)
        as_asked = target.uri == bytes(refer.asked.uri)
        partner = self._partner(refer) if as_asked else None
        if partner is not None:
            return self._join(ticket, refer, (call, moved, channel), partner)
        self._permit(refer, target)
        groups = [list(self._destinations.rung_by(target))]
        known = self._knows_other(refer)
        replaces, value = refer.asked.replaces, refer.asked.replaces_value
        if as_asked and replaces is not None and value is not None and (known is None or not known[0].carried):
            groups = [self._destinations.replaced.holders(replaces, groups[0])]
            for each in groups[0]:
                each.headers = (*each.headers, b"Replaces: " + value)
        if moved == "caller":
            return self._move_caller(ticket, refer, call, channel, target, groups)
        taken = MovedCallee(self, run, ticket, refer, channel, groups)
        taken.start(call, self._way(taken.id, call.invite.to.parsed, target))
        return PENDING

    def _channel(self, call: Call, leg: str) -> Channel:
        channel = channel_of(call, leg)
        if channel is None:
            what = f"transfer: FreeSWITCH does not have the {leg} of this call (media: or via: before)"
            raise NoChannel(what, call.carried)
        try:
            safe_uuid(channel.uuid)
        except EslInjection as error:
            raise StepError("esl.command", f"transfer: {error}") from None
        return channel

    def _permit(self, refer: Referred, target: Target) -> None:
        """A stranger may name foreign hosts in a REFER as little as in an INVITE."""
        network, host = self.node.network, parse_uri(target.uri).host.lower()
        foreign = host == refer.asked.uri.host.lower() and not network.is_local(refer.asked.uri)
        if foreign and not network.trusts(refer.source[0]):
            raise StepError("call.state", f"transfer: {host.decode('ascii', 'replace')} is not a domain that we serve")

    # --- attended -----------------------------------------------------------------------------------------------------

    def _knows_other(self, refer: Referred) -> tuple[Call, str] | None:
        """The call that the REFER names, and the side of it that is to be joined; None where it is none of ours."""
        replaces = refer.asked.replaces
        other = self.exchange.calls.by_call_id(replaces.call_id) if replaces is not None else None
        if replaces is None or other is None:
            return None
        side = other.dialogs.party_with(replaces.call_id, replaces.local_tag, replaces.remote_tag)
        return None if side is None else (other, side)

    def _partner(self, refer: Referred) -> tuple[Call, str, Channel] | None:
        """The party of the other call that FreeSWITCH has, and that is answered. Raises NoChannel where FreeSWITCH has
        not reported it yet: it would be called a second time, beside the call that it has."""
        known = self._knows_other(refer)
        if known is None or known[0].answered_at is None or known[0].over or not known[0].carried:
            return None
        return *known, self._channel(*known)

    def _join(
        self, ticket: Ticket, refer: Referred, one: tuple[Call, str, Channel], two: tuple[Call, str, Channel]
    ) -> Any:
        if one[2].server != two[2].server:
            raise StepError("call.state", "transfer: the two calls are on two FreeSWITCH servers")
        undo = _untie(one, two)

        def told(result: Any) -> None:
            error = _refusal(result)
            if error is not None:
                undo()
                self.flows.throw(ticket, error)
                return
            Joined(self.node, one[2], two[2])
            refer.accept()
            refer.tell(200)
            self.flows.resume(ticket, None)

        text = f"uuid_bridge {one[2].uuid} {safe_uuid(two[2].uuid)}"
        self.node.job(command(one[2].server, text), told)
        return PENDING

    # --- blind, or to a dialog that is replaced -----------------------------------------------------------------------

    def _move_caller(
        self,
        ticket: Ticket,
        refer: Referred,
        call: Call,
        channel: Channel,
        target: Target,
        groups: Sequence[Sequence[Target]],
    ) -> Any:
        flows = self.flows
        failure: list[StepError] = []

        def done(result: dict[str, Any]) -> None:
            if result["outcome"] == "answered":
                refer.accept()
                refer.tell(200)
                flows.resume(ticket, None)
                return
            refer.tell(result["code"], result["reason"])
            refer.stranded = call
            what = f"transfer to {target.contact}: {result['code']} {result['reason']}"
            flows.throw(ticket, failure[0] if failure else StepError("esl.command", what))

        def told(result: Any) -> None:
            error = _refusal(result)
            if error is None:
                refer.accept()
            elif attempt.running:
                failure.append(error)
                attempt.refused(503)

        where = self._way(call.id, call.invite.from_.parsed, target)
        call.drop_back()
        attempt = MovedCaller(call, effects.Relay(), groups, done, self.gateways)
        call.relay = ticket.work = attempt
        attempt.start(())
        self.node.job(command(channel.server, f"uuid_transfer {channel.uuid} {where} inline"), told)
        return PENDING


class NoChannel(StepError):
    """FreeSWITCH does not have the party, as far as its events have told us; they may still come."""

    def __init__(self, message: str, may_come: bool) -> None:
        super().__init__("call.state", message)
        self.may_come = may_come


class Unreported:
    """A transfer whose channel has not been reported yet."""

    __slots__ = ("_takings", "_step", "_until", "_timer")

    def __init__(self, takings: Takings, run: Run, ticket: Ticket, refer: Referred, effect: effects.Transfer) -> None:
        self._takings = takings
        self._step = run, ticket, refer, effect
        self._until = takings.node.now + CHANNEL_WITHIN
        self._timer = takings.node.timers.after(LOOK_AGAIN, Unreported._again, self)

    def undo(self) -> None:
        self._timer.cancel()

    def _again(self) -> None:
        takings, ticket = self._takings, self._step[1]
        ticket.work = None
        try:
            takings.begin(*self._step)
        except StepError as error:
            if isinstance(error, NoChannel) and error.may_come and takings.node.now < self._until:
                ticket.work = self
                self._timer = takings.node.timers.after(LOOK_AGAIN, Unreported._again, self)
            else:
                takings.flows.throw(ticket, error)


class Joined:
    """Two legs that FreeSWITCH has been told to join: where one ends before that is done, the other one is ended by
    us."""

    __slots__ = ("_node", "_channels")

    def __init__(self, node: Node, *channels: Channel) -> None:
        self._node = node
        self._channels = channels
        for channel in channels:
            channel.listen(self)

    def hear(self, event: EslEvent) -> bool:
        """An event of one of them."""
        if event.name in ENDS:
            for channel in self._channels:
                channel.ignore(self)
                self._node.timers.after(OUTLIVE, self._end, channel)
        return False

    def _end(self, channel: Channel) -> None:
        if not channel.destroyed:
            self._node.job(command(channel.server, f"uuid_kill {channel.uuid}"), ignore)


class MovedCaller(TransferAttempt):
    """A transfer that another run than that of the call waits for: the end of the call ends it with a result."""

    __slots__ = ()

    def call_ended(self) -> None:
        self.undo()


class MovedCallee:
    """A callee that FreeSWITCH has been told to send on, until its INVITE has come and somebody has answered it."""

    __slots__ = ("id", "_takings", "_run", "_ticket", "_refer", "_channel", "_groups", "_call", "_timer", "_over")

    def __init__(
        self,
        takings: Takings,
        run: Run,
        ticket: Ticket,
        refer: Referred,
        channel: Channel,
        groups: Sequence[Sequence[Target]],
    ) -> None:
        self.id = takings.node.tokens.token().decode()
        self._takings = takings
        self._run = run
        self._ticket = ticket
        self._refer = refer
        self._channel = channel
        self._groups = groups
        self._call: Call | None = None
        self._over = False
        self._timer = takings.node.timers.after(BACK_WITHIN, MovedCallee._no_invite, self)

    def start(self, call: Call, where: str) -> None:
        """Tell FreeSWITCH. The leg is no longer part of its call."""
        takings, channel = self._takings, self._channel
        takings.placed[self.id] = self._ticket.work = self
        call.drop_back()
        takings.node.job(command(channel.server, f"uuid_transfer {channel.uuid} {where} inline"), self._told)

    def arrived(self, request: Request, server: ServerTransaction, source: tuple[str, int]) -> None:
        """FreeSWITCH's INVITE: a call of the run."""
        self._timer.cancel()
        takings = self._takings
        node = takings.node
        call = self._call = Call(node, takings.exchange, self.id, request, server, source)
        call.carried, call.placed, call.server = True, True, self._channel.server
        takings.exchange.calls.add(call)
        if self._over:
            call.hangup("nobody waits for this call", None, "both")
            return
        subjects.adopt(self._run, call)
        self._refer.moved = self._channel
        ring = self._run.program.resources.defaults.get("ring", RING)
        call.relay = RelayAttempt(call, effects.Relay(ring=ring), self._groups, self._rung, takings.gateways)
        call.relay.start(())

    def undo(self) -> None:
        """The step was cut off."""
        self._end()
        self._refer.tell(487)
        if self._call is not None and not self._call.over:
            self._call.hangup("cancelled", None, "both")
        self._kill()

    def _rung(self, result: dict[str, Any]) -> None:
        call = self._call
        assert call is not None
        if result["outcome"] != "answered":
            if not call.over and not call.reply_best():
                call.reply(result["code"])
            self._fail(result["code"], result["reason"])
            return
        self._end()
        self._refer.accept()
        self._refer.tell(200)
        self._takings.flows.resume(self._ticket, None)

    def _told(self, result: Any) -> None:
        error = _refusal(result)
        if self._over:
            return
        if error is None:
            self._refer.accept()
        else:
            self._end()
            self._takings.flows.throw(self._ticket, error)

    def _no_invite(self) -> None:
        self._fail(504, "FreeSWITCH has sent no INVITE")

    def _fail(self, code: int, reason: str) -> None:
        if self._over:
            return
        self._end()
        self._refer.tell(code, reason)
        self._kill()
        self._takings.flows.throw(self._ticket, StepError("esl.command", f"transfer: {code} {reason}"))

    def _kill(self) -> None:
        """Nobody is left for it to talk to."""
        self._takings.node.job(command(self._channel.server, f"uuid_kill {self._channel.uuid}"), ignore)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._takings.placed.pop(self.id, None)


def _untie(one: tuple[Call, str, Channel], two: tuple[Call, str, Channel]) -> Callable[[], None]:
    """Two parties leave their calls for each other. A caller keeps his call, with the other one as callee; who has sent
    the REFER is in neither any more. Returns what ties them again as they were."""
    backs = [(call, release_back(call)) for call, _, _ in (one, two)]
    gained: list[Call] = []
    for (keeper, side, _), (_, other_side, _), (_, back) in ((one, two, backs[1]), (two, one, backs[0])):
        if side == "caller" and other_side == "callee" and back is not None:
            take_back(keeper, back)
            gained.append(keeper)

    def undo() -> None:
        for keeper in gained:
            keeper.drop_back()
        for call, back in backs:
            if back is not None and not call.over:
                take_back(call, back)

    return undo


def _refusal(result: Any) -> StepError | None:
    if isinstance(result, StepError):
        return result
    return None if result["ok"] else StepError("esl.command", f"transfer: {result['text'].strip()}")
