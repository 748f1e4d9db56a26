"""Calls that FreeSWITCH makes for a flow: `transfer` and `originate` (FLOWLANG §4.3, §6.4).

Both go through us. FreeSWITCH is told to call our own address, with the header X-Orchestrator-Call, and what its INVITE
really rings is decided here: registered phones, gateways, a URI. So these legs are ordinary SIP: they ring, fork, fail
and hang up as every other call, and no destination a flow names ever becomes part of a dial string.

`originate` is done when the callee has answered *and* FreeSWITCH has said so: from then on its channel takes commands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from orchestrator.core.calls.call import Call, Exchange
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.steps import subjects
from orchestrator.core.steps.calling_party import calling_party
from orchestrator.core.steps.destinations import Destinations
from orchestrator.core.steps.performers import Performs
from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.core.steps.taking import Takings
from orchestrator.core.steps.transfer import TransferAttempt
from orchestrator.core.switches.executions import channel_of, command, ignore
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.commands import originate_variables, safe_argument, safe_uuid
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip.claims import CALL_HEADER
from orchestrator.sip.message import Request
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

PROFILE = "orchestrator"
"""Name of FreeSWITCH's SIP profile towards us, as in config/freeswitch."""
RING = 60.0
"""Seconds an originated call rings where neither the step nor `defaults:` says."""
GRACE = 15
"""Seconds FreeSWITCH waits longer than we do, so that it is always we who give up."""
INVITE_WITHIN = 10.0
"""Seconds FreeSWITCH has to send the INVITE; its answer to `originate` itself comes only when all is over."""

_PLAIN_CALL_ID = re.compile(rb"[A-Za-z0-9.@:_+~-]+")
_ADDRESS = re.compile(r"([A-Za-z0-9.+*_-]+)@([A-Za-z0-9.-]+)")
_CAUSES = {
    "USER_BUSY": ("busy", 486),
    "NO_ANSWER": ("no_answer", 408),
    "NO_USER_RESPONSE": ("no_answer", 408),
    "CALL_REJECTED": ("rejected", 603),
    "ORIGINATOR_CANCEL": ("cancelled", 487),
}


class PlacedCall(Protocol):
    """A call that FreeSWITCH has been told to place."""

    def arrived(self, request: Request, server: ServerTransaction, source: tuple[str, int]) -> None:
        """Its INVITE."""


class OutboundCalls:
    """Performs `transfer` and `originate` for one engine's flows."""

    def __init__(
        self,
        node: Node,
        exchange: Exchange,
        destinations: Destinations,
        gateways: Gateways,
    ) -> None:
        self.node = node
        self.exchange = exchange
        self.flows = exchange.flows
        self.calls = exchange.calls
        self.gateways = gateways
        self._destinations = destinations
        self.performs: Performs = {effects.Transfer: self._transfer, effects.Originate: self._originate}
        self._placed: dict[str, PlacedCall] = {}
        self._takings = Takings(node, exchange, destinations, gateways, self._way_through_us, self._placed)

    def take(self, id: str) -> PlacedCall | None:
        """The call FreeSWITCH places under this id, once its INVITE is here."""
        return self._placed.pop(id, None)

    # --- transfer -----------------------------------------------------------------------------------------------------

    def _transfer(self, run: Run, ticket: Ticket, effect: effects.Transfer) -> Any:
        refer = subjects.refer_of(run)
        if refer is not None and run.subject is refer:
            return self._takings.take(run, ticket, refer, effect)
        call = subjects.live_call(run)
        channel = channel_of(call, effect.leg)
        if channel is None:
            raise StepError("call.state", f"transfer: FreeSWITCH does not have the {effect.leg} (media: or via: first)")
        if call.relay is not None:
            raise StepError("call.state", "transfer: a relay of this call is still running")
        target = self._destinations.target_of(effect.to)
        uuid = _safe(safe_uuid, channel.uuid, "transfer")
        if effect.context:
            user = _safe(safe_argument, (target.uri.split(b":", 1)[1].partition(b"@")[0]).decode(), "transfer")
            where = f"{user} XML {_safe(safe_argument, effect.context, 'transfer')}"
        else:
            who = call.invite.from_ if effect.leg == "caller" else call.invite.to
            where = f"{self._way_through_us(call.id, who.parsed, target)} inline"
        call.drop_back()
        if effect.context or effect.leg != "caller":
            return self._hand_over(ticket, command(channel.server, f"uuid_transfer {uuid} {where}"))
        return self._onward(call, ticket, effect, target, command(channel.server, f"uuid_transfer {uuid} {where}"))

    def _way_through_us(self, id: str, who: Uri, target: Target) -> str:
        """An inline dialplan: call us, with the call's id; hang up behind a call that was answered, park behind one
        that was not. The delimiter is a caret because dial strings are full of commas.

        `who` is transferred, to `target`: without being told FreeSWITCH writes its own address into From and ours into
        To.
        """
        own = _ADDRESS.fullmatch(who.aor)
        domain = {"sip_invite_domain": own[2]} if own is not None else {}
        variables = originate_variables({f"sip_h_{CALL_HEADER.decode()}": id, **self._marks(id), **domain})
        variables = _with_to(variables, parse_uri(target.uri).aor)
        steps = (
            "set:continue_on_fail=true",
            "set:hangup_after_bridge=true",
            f"bridge:{variables}sofia/{PROFILE}/{self._here()}",
            "park:",
        )
        return "m:^:" + "^".join(steps)

    def _marks(self, id: str) -> dict[str, str]:
        """What marks the INVITE that FreeSWITCH will send as one of this call; not a Call-ID that a dial string could
        take for more."""
        call = self.exchange.calls.by_id(id)
        if call is None or _PLAIN_CALL_ID.fullmatch(call.sip_call_id) is None:
            return {}
        return {f"sip_h_{mark.decode()}": call.sip_call_id.decode() for mark in self.node.network.call_marks}

    def _here(self) -> str:
        """Our address, as a dial string of FreeSWITCH."""
        points = self.node.network.points
        point = next((point for point in points if point.transport == "udp"), points[0])
        return f"call@{point.uri.partition(b':')[2].decode()}"

    def _hand_over(self, ticket: Ticket, job: effects.EslCommand) -> Any:
        """The leg is FreeSWITCH's from now on, or another call's: the flow hears only whether it was taken."""
        flows = self.flows

        def told(result: Any) -> None:
            error = _refusal(result, "transfer")
            if error is not None:
                flows.throw(ticket, error)
            else:
                flows.resume(ticket, None)

        self.node.job(job, told)
        return PENDING

    def _onward(
        self, call: Call, ticket: Ticket, effect: effects.Transfer, target: Target, job: effects.EslCommand
    ) -> Any:
        flows = self.flows
        failure: list[StepError] = []

        def done(result: dict[str, Any]) -> None:
            if result["outcome"] == "answered":
                flows.resume(ticket, None)
                return
            what = f"transfer to {effect.to}: {result['code']} {result['reason']}"
            flows.throw(ticket, failure[0] if failure else StepError("esl.command", what))

        def told(result: Any) -> None:
            error = _refusal(result, "transfer")
            if error is not None and onward.running:
                failure.append(error)
                onward.refused(503)

        onward = TransferAttempt(call, effects.Relay(), [self._destinations.rung_by(target)], done, self.gateways)
        call.relay = ticket.work = onward
        onward.start(())
        self.node.job(job, told)
        return PENDING

    # --- originate ----------------------------------------------------------------------------------------------------

    def _originate(self, run: Run, ticket: Ticket, effect: effects.Originate) -> Any:
        if isinstance(run.subject, Call) and not run.subject.over:
            raise StepError("call.state", "originate: this flow has a call already")
        if run.max_forwards <= 1:
            raise StepError("flow.limit", "originate: the call that led to this one has gone round too often")
        server = self.exchange.servers.server_for(effect.via, None)
        groups = [[target] for target in self._groups_of(run, effect)]
        placed = OutboundCall(self, run, ticket, effect, groups, server)
        self._placed[placed.id] = ticket.work = placed
        try:
            placed.start()
        except EslInjection as error:
            self.forget(placed)
            raise StepError("esl.command", f"originate: {error}") from None
        return PENDING

    def _groups_of(self, run: Run, effect: effects.Originate) -> Sequence[Target]:
        destinations = self._destinations
        if not effect.gateways:
            return destinations.rung_by(destinations.target_of(effect.to))
        number = effect.to.removeprefix("sip:").partition("@")[0]
        return destinations.gateway_targets(effect.gateways, number, run)

    def dial_string(self, placed: OutboundCall, effect: effects.Originate, ring: float) -> str:
        """What `originate` calls. Raises EslInjection for values no dial string may hold."""
        variables = {
            "origination_uuid": placed.uuid,
            f"sip_h_{CALL_HEADER.decode()}": placed.id,
            "originate_timeout": str(round(ring) + GRACE),
            "max_forwards": str(placed.run.max_forwards - 1),
            "ignore_early_media": "true",
            "hangup_after_bridge": "true",
            "playback_terminators": "none",
            **_from(effect.from_),
            **{name: str(value) for name, value in effect.vars.items()},
        }
        quoted = _with_to(originate_variables(variables), placed.called)
        return f"{quoted}sofia/{PROFILE}/{self._here()}"

    def forget(self, placed: OutboundCall) -> None:
        self._placed.pop(placed.id, None)


class OutboundCall:
    """A call FreeSWITCH has been told to place, until it is answered or has failed.

    Two things are awaited: what SIP says (the relay of FreeSWITCH's INVITE) and what FreeSWITCH says (the result of
    `originate`). A failure of either is the result; an answer needs both.
    """

    __slots__ = (
        "id", "uuid", "run", "ticket", "call", "_outbound", "_effect", "_groups", "_server", "_result", "_confirmed",
        "_over", "_timer",
    )  # fmt: skip

    def __init__(
        self,
        outbound: OutboundCalls,
        run: Run,
        ticket: Ticket,
        effect: effects.Originate,
        groups: Sequence[Sequence[Target]],
        server: str,
    ) -> None:
        node = outbound.node
        self.id = node.tokens.token().decode()
        self.uuid = str(UUID(bytes=node.settings.entropy(16), version=4))
        """Of FreeSWITCH's channel, and so the Call-ID of its INVITE."""
        self.run = run
        self.ticket = ticket
        self.call: Call | None = None
        self._outbound = outbound
        self._effect = effect
        self._groups = groups
        self._server = server
        self._result: dict[str, Any] | None = None
        self._confirmed = False
        self._over = False
        self._timer = node.timers.after(INVITE_WITHIN, OutboundCall._no_invite, self)

    @property
    def called(self) -> str:
        """user@host of the first destination, for the To of FreeSWITCH's INVITE."""
        to = self._effect.to.removeprefix("sip:").partition(";")[0]
        if "@" in to:
            return re.sub(r":\d+$", "", to)  # an address of record has no port
        return f"{to}@{parse_uri(self._groups[0][0].uri).host.decode('ascii', 'replace')}"

    @property
    def _ring(self) -> float:
        return RING if self._effect.ring is None else self._effect.ring

    def start(self) -> None:
        """Tell FreeSWITCH. Raises EslInjection."""
        text = f"originate {self._outbound.dial_string(self, self._effect, self._ring)} &park()"
        limit = self._ring + 2 * GRACE
        self._outbound.node.job(effects.EslCommand("bgapi", text, self._server, limit), self._told)

    def arrived(self, request: Request, server: ServerTransaction, source: tuple[str, int]) -> None:
        """FreeSWITCH's INVITE: now there is a call, and it is the run's."""
        outbound = self._outbound
        self._timer.cancel()
        call = self.call = Call(outbound.node, outbound.exchange, self.id, request, server, source)
        call.carried, call.placed, call.server = True, True, self._server
        outbound.calls.add(call)
        if self._over:
            call.hangup("nobody waits for this call", None, "both")
            return
        subjects.adopt(self.run, call)
        effect = effects.Relay(ring=self._ring, gateways=self._effect.gateways)
        relay = RelayAttempt(call, effect, self._groups, self._rung, outbound.gateways)
        call.relay = relay
        relay.start(())

    def undo(self) -> None:
        """The step was cut off."""
        self._over = True
        self._timer.cancel()
        if self.call is not None:
            self.call.hangup("cancelled", None, "both")
        else:
            kill = f"uuid_kill {self.uuid} ORIGINATOR_CANCEL"
            self._outbound.node.job(command(self._server, kill), ignore)
            self._outbound.forget(self)

    # --- what comes back ----------------------------------------------------------------------------------------------

    def _rung(self, result: dict[str, Any]) -> None:
        """SIP's outcome."""
        self._result = result
        call = self.call
        assert call is not None
        if result["outcome"] != "answered" and not call.over and not call.reply_best():
            call.reply(result["code"])
        self._settle()

    def _told(self, result: Any) -> None:
        """FreeSWITCH's outcome: `+OK uuid`, or `-ERR CAUSE`."""
        if self._over:
            return
        if isinstance(result, StepError):
            self._fail(result)
        elif result["ok"]:
            self._confirmed = True
            self._settle()
        elif self._result is None or self._result["outcome"] == "answered":
            cause = result["text"].replace("-ERR", "").strip()
            outcome, code = _CAUSES.get(cause, ("failed", 503))
            self._result = {
                "outcome": outcome, "code": code, "reason": cause or reason_phrase(code),
                "contact": None, "gateway": None, "tried": [],
            }  # fmt: skip
            self._settle()

    def _settle(self) -> None:
        result = self._result
        if result is None or self._over or (result["outcome"] == "answered" and not self._confirmed):
            return
        self._end()
        refer = subjects.refer_of(self.run)
        if refer is not None:
            refer.tell(200 if result["outcome"] == "answered" else result["code"])
        self._outbound.flows.resume(self.ticket, result)

    def _no_invite(self) -> None:
        text = f"originate: FreeSWITCH {self._server} has sent no INVITE within {INVITE_WITHIN:g} s"
        self._fail(StepError("esl.timeout", text))

    def _fail(self, error: StepError) -> None:
        if self.call is not None and not self.call.over:
            self.call.hangup(error.message, None, "both")
        self._end()
        self._outbound.flows.throw(self.ticket, error)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._outbound.forget(self)


def _from(address: str) -> dict[str, str]:
    """Variables for the From of an originated call; a missing address is fine. Raises EslInjection, StepError."""
    if not address:  # RFC 3323 §4.1.1.3
        return {
            "origination_caller_id_name": "Anonymous",
            "origination_caller_id_number": "anonymous",
            "sip_invite_domain": "anonymous.invalid",
        }
    party = calling_party(address)
    found = _ADDRESS.fullmatch(party.parsed.aor)
    if found is None:
        raise EslInjection(f"from: {address[:80]!r} is not user@host")
    user, host = found.groups()
    name = party.display.decode("utf-8", "replace") or user
    return {"origination_caller_id_name": name, "origination_caller_id_number": user, "sip_invite_domain": host}


def _with_to(variables: str, called: str) -> str:
    """The variables of a dial string with the To of the INVITE: only what cannot be read as anything but user and
    host."""
    return variables if _ADDRESS.fullmatch(called) is None else f"{variables[:-1]},sip_invite_to_uri=<sip:{called}>}}"


def _safe(check: Any, value: str, action: str) -> str:
    try:
        return str(check(value))
    except EslInjection as error:
        raise StepError("esl.command", f"{action}: {error}") from None


def _refusal(result: Any, action: str) -> StepError | None:
    if isinstance(result, StepError):
        return result
    if not result["ok"]:
        return StepError("esl.command", f"{action}: {result['text'].strip()}")
    return None
