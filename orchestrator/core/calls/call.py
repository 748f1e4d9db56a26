"""A call under a flow: the INVITE, where it is being relayed to, the two sides once it is answered, and how it ended.

Calls that no flow takes have no `Call`; they are a `ResponseContext` and nothing else. A call has a *front*: the
caller's INVITE. With `relay … via: fs1` the front leads to FreeSWITCH, and the INVITE that FreeSWITCH sends back is its
*back*: a second SIP dialog of the same call, known by the header `X-Orchestrator-Call`. Destinations ring from the back
then. FreeSWITCH may also hold the call (`media`, a `Hold`), and it may be the one that calls (`originate`): its INVITE
is the front then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.core.calls.attempts import NOBODY, CallHold, CallRelay
from orchestrator.core.calls.dialogs import Dialogs, callee_of, caller_of
from orchestrator.core.calls.flow_call import Ending, FlowCall, Witnesses
from orchestrator.core.calls.info_keys import hear_key
from orchestrator.core.calls.liveness import look_after
from orchestrator.core.calls.reason_texts import CHANNEL_LOST, cause_of, failure_of, reason_header
from orchestrator.core.calls.views import field_of
from orchestrator.core.node import Node
from orchestrator.core.request_view import text
from orchestrator.core.switches.executions import kill_channels
from orchestrator.core.switches.servers import Servers
from orchestrator.errors import StepError
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.history import ByeHeld, RequestSent, ResponseReceived, ResponseSent
from orchestrator.sip.ack_wait import Handshake
from orchestrator.sip.branch import Attempt, Branch, Context
from orchestrator.sip.message import Request, Response
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target

OUTLIVE = 1.0
"""Seconds that a channel may outlive its call: FreeSWITCH needs some milliseconds."""


class CallTable(Protocol):
    """Where calls are found (`core.calls.table.Calls`)."""

    def add(self, call: Call) -> None: ...
    def by_id(self, id: str) -> Call | None: ...
    def by_call_id(self, call_id: bytes) -> Call | None: ...
    def add_call_id(self, call_id: bytes, call: Call) -> None: ...
    def drop_call_id(self, call_id: bytes, call: Call) -> None: ...
    def discard(self, call: Call) -> None: ...


@dataclass(frozen=True, slots=True)
class Exchange(Witnesses):
    """What the calls of one engine share besides the node: where they are found, and what FreeSWITCH has of them."""

    calls: CallTable
    channels: ChannelTable
    servers: Servers


class Call(FlowCall[Exchange]):
    """One INVITE that a flow has taken; the listener of its response contexts. Its states: `core.calls.flow_call`."""

    __slots__ = (
        "invite", "_source", "transaction", "back", "relay", "hold", "carried", "placed", "lost", "waiting",
        "contact", "user", "_front", "_dialogs", "_handshake",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        exchange: Exchange,
        id: str,
        request: Request,
        server: ServerTransaction,
        source: tuple[str, int],
    ) -> None:
        super().__init__(node, exchange, id)
        self.invite = request
        at = server.destination
        self._source = None if source == (at.host, at.port) else source
        self.transaction = server
        """That of the INVITE."""
        self._front: ResponseContext | None = None
        self.back: ResponseContext | None = None
        server.user = self
        self.relay: CallRelay | None = None
        self.hold: CallHold | None = None
        """The branch to FreeSWITCH that holds the caller, while it lasts."""
        self.carried = False
        """The media go through FreeSWITCH, which hears the digits."""
        self.placed = False
        """FreeSWITCH is the caller: it calls for us (`originate`)."""
        self.lost: tuple[Channel, ...] = ()
        """Channels of the call that have gone without a word: they are in no table any more."""
        self.waiting: tuple[Target, ...] = ()
        """Destinations injected before the relay has started."""
        self.contact: str | None = None
        """Contact URI of whoever has answered."""
        self.user: str | None = node.network.user_of(request, source[0])
        """Who the caller is: by digest, or as a trusted source says; None as long as nobody knows."""
        self._dialogs: Dialogs | None = None
        self._handshake: Handshake | None = None
        """The answer to the caller, while its ACK has not passed."""

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that the INVITE came from: where its answers go, as a rule."""
        at = self.transaction.destination
        return self._source or (at.host, at.port)

    def __getitem__(self, name: str) -> Any:
        """What flows see of it: the fields of `call` (FLOWLANG). A view of its own would be one more object for each
        call that waits."""
        return field_of(self, name)

    @property
    def front(self) -> ResponseContext:
        """The caller's INVITE as it is sent on; made when that begins, or when we answer. Thousands of calls wait."""
        front = self._front
        if front is None:
            transaction = self.transaction
            user = transaction.user  # we stay the one who is asked about it
            front = self._front = ResponseContext(self.node.network, transaction, self.invite, self)
            transaction.user = user
        return front

    @property
    def dialogs(self) -> Dialogs:
        """Its SIP dialogs."""
        dialogs = self._dialogs
        if dialogs is None:
            dialogs = self._dialogs = Dialogs(self.invite)
        return dialogs

    @property
    def call_ids(self) -> tuple[bytes, ...]:
        """SIP Call-IDs of its dialogs, that of the INVITE first."""
        return (self.sip_call_id,) if self._dialogs is None else self._dialogs.call_ids

    @property
    def closed(self) -> bool:
        """The INVITE cannot be sent on any more."""
        return self.transaction.answered if self._front is None else self._front.closed

    @property
    def replied(self) -> bool:
        """A final reply to the INVITE is out."""
        return self.transaction.answered

    @property
    def sip_call_id(self) -> bytes:
        """Call-ID of the INVITE."""
        return self.invite.call_id

    @property
    def request(self) -> Request:
        return self.invite

    @property
    def held(self) -> bool:
        """FreeSWITCH has the one party of this call, the caller or the one it has called for us."""
        return self.carried and self.back is None

    @property
    def pending(self) -> Sequence[Branch]:
        """The destinations that ring now."""
        context = self.back or self._front
        return () if context is None else context.pending

    @property
    def sent_on(self) -> Sequence[Branch]:
        """Where the INVITE itself has been sent on to and still is under way: to FreeSWITCH, where that is in the
        middle."""
        return () if self._front is None else self._front.pending

    def channels(self) -> Iterator[Channel]:
        """FreeSWITCH channels of the call, found by the Call-IDs of its dialogs."""
        for call_id in self.call_ids:
            yield from self.exchange.channels.by_call_id(text(call_id))

    # --- the back: FreeSWITCH's second leg ----------------------------------------------------------------------------

    def open_back(self, request: Request, server: ServerTransaction) -> bool:
        """FreeSWITCH has sent the call back to us. False when this call is not waiting for that."""
        relay = self.relay
        if relay is None or not relay.awaits_back or self.over:
            return False
        self.back = ResponseContext(self.node.network, server, request, self)
        self.dialogs.open_back(request)
        self.carried = True
        self.exchange.calls.add_call_id(request.call_id, self)
        relay.back_arrived(self.back)
        return True

    def forget_failures(self) -> None:
        """What failed before says nothing about the destinations tried next."""
        if self._front is not None:
            self._front.forget_failures()

    def lose_hold(self) -> None:
        """FreeSWITCH holds the caller no longer: somebody else has answered, or it gave up."""
        if self.hold is not None:
            self.hold, self.carried = None, self.back is not None

    def drop_back(self) -> None:
        """FreeSWITCH's second leg is about to go elsewhere: its end is not the end of the call."""
        self.back = None
        self.exchange.calls.drop_call_id(self.dialogs.drop_back(), self)

    # --- what the branches report (sip.branch.Listener) --------------------------------------------------------------

    def on_sent(self, branch: Branch) -> None:
        self.note(RequestSent("INVITE", branch.target.contact))
        _attempt(branch).sent(branch)

    def on_cancelled(self, branch: Branch) -> None:
        self.note(RequestSent("CANCEL", branch.target.contact))

    def on_ringing(self, branch: Branch, response: Response) -> None:
        if self.over or self.dialogs.is_repetition(response):
            return
        attempt = _attempt(branch)
        status, contact = response.status, branch.target.contact
        news = attempt.is_news(branch)
        if news:
            self.step("ringing")
            self.note(ResponseReceived(status, contact))
        attempt.rang(branch, status)
        if news:
            self.publish("ringing", branch=str(branch.number), code=status, contact=contact)

    def on_answered(self, branch: Branch, response: Response) -> None:
        if self.over:
            return
        self.note(ResponseReceived(response.status, branch.target.contact))
        self._count_gateway(branch, response.status)
        self.dialogs.answered(response)
        if branch.context is self._front:
            self._on_front_answered(branch, response)
        else:
            self.dialogs.far = callee_of(self.node, branch, response)
            self.dialogs.goes_on(response)
            if self.relay is not None:
                self.relay.answered_by(branch)

    def _on_front_answered(self, branch: Branch, response: Response) -> None:
        self.step("answered", (branch, response))
        hold, relay = self.hold, self.relay
        if hold is not None and branch.attempt is hold:
            hold.progressed(response.status)
            return
        self.lose_hold()
        self.contact = relay.answering_contact(branch) if relay is not None else branch.target.contact
        self.publish("answered", contact=self.contact, leg="callee")
        if relay is not None:
            relay.finish_answered(branch, response.status)

    def open_dialog(self, answer: tuple[Branch, Response] | None) -> None:
        """It is answered, by a destination or by us."""
        if answer is not None:
            branch, response = answer
            dialogs = self.dialogs
            dialogs.caller = caller_of(self.node, self.invite, self.transaction, response)
            dialogs.callee = callee_of(self.node, branch, response)
            dialogs.goes_on(response)
            dialog = (self.sip_call_id, dialogs.caller_tag, response.to_tag)
            self._handshake = self.node.handshakes.begin(dialog, self)
        look_after(self)

    def on_branch_failed(self, branch: Branch) -> None:
        if self.over:
            return
        self.note(failure_of(branch))
        self._count_gateway(branch, branch.status)
        attempt = _attempt(branch)
        if attempt.is_news(branch):
            number, contact = str(branch.number), branch.target.contact
            self.publish("branch_failed", branch=number, code=branch.status, reason=branch.reason, contact=contact)
        attempt.failed(branch)

    def _count_gateway(self, branch: Branch, status: int) -> None:
        if branch.target.label:
            self.node.measures.gateway_branches.count(branch.target.label, str(status))

    def on_settled(self, context: Context) -> None: ...  # the relay counts its own branches

    # --- what passes inside the dialog --------------------------------------------------------------------------------

    def passes(self, request: Request) -> None:
        """A request with our Call-ID is on its way through us: follow sequence numbers, hear digits and the end."""
        side = self.dialogs.follow(request)
        if side is not None and request.method == b"BYE":
            self.end_by(side, cause_of(request))
        elif side is not None and request.method == b"INFO" and not self.carried:
            hear_key(self, request, side)

    # --- ending -------------------------------------------------------------------------------------------------------

    def cancel(self, headers: tuple[bytes, ...] = ()) -> None:
        """The caller sent CANCEL: 487 at once, whatever the branches are doing; then the flow hears of it."""
        if self.over or self.replied:
            return
        self.front.cancel(headers)  # first: what the end of a branch makes a flow do must find the 487 on its way
        self.note(ResponseSent(self.transaction.status))
        self._stop_ringing(headers)
        self.end_by("caller", "cancelled")

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer the INVITE ourselves. A failure ends the call for SIP; its flow goes on with its next steps.

        Raises StepError `call.state` when a final reply has gone out.
        """
        if self.replied:
            raise StepError("call.state", f"the call already has a final reply ({self.transaction.status})")
        self.front.reply(code, reason, headers)
        self.note(ResponseSent(code, reason))
        if code >= 300:
            self.step("refused", Ending("engine", f"{code} {reason}".strip()))
            self._give_up_relay()
        elif code >= 200:
            self.step("answered")
            self.step("confirmed")  # no ACK of this one passes through us

    def reply_best(self) -> bool:
        """Answer with the best failure of the branches (RFC 3261 §16.7). False when no branch gave one."""
        context = self.back or self._front
        best = context.best if context is not None else None
        if best is None or self.replied:
            return False
        if best.context is not self.front or not self.front.send_best():
            self.front.reply(best.status)
        status = self.transaction.status  # a 503 is not passed on
        self.note(ResponseSent(status))
        self.step("refused", Ending("engine", f"{status}"))
        self._give_up_relay()
        return True

    def hangup(self, reason: str, code: int | None, leg: str = "both") -> None:
        """End the call by what fits its state. The flow ends with it."""
        if not self.over:
            header = (reason_header(reason, code),) if reason else ()
            self.step("hangup", Ending("engine", reason or "hangup", code, header, leg))

    def leave(self, reason: str) -> None:
        """We stop. A call that goes on is no longer ours to end."""
        goes_on = not self.needs_us
        super().leave(reason)
        if goes_on:
            self._drop_dialogs()

    @property
    def needs_us(self) -> bool:
        """Nobody has answered, or FreeSWITCH holds it for its flow: it has nobody but us."""
        return self.held or self.answered_at is None or super().needs_us

    @property
    def attended(self) -> bool:
        """Its flow goes on: some step of it is at work, and a relay it waits for will end."""
        if self.over or self.run is None or not self.run.attended:
            return False
        return self.relay is None or self.relay.attended

    def fail(self) -> None:
        """A bug has struck, or nothing is left that could answer: 500, or BYE where it has been answered."""
        try:
            super().fail()
        finally:
            owed = not self.transaction.answered
            self.transaction.fail()
            if self.back is not None:
                self.back.server.fail()
            if owed:
                self.note(ResponseSent(self.transaction.status))

    def lose_freeswitch(self, channels: Sequence[Channel] = (), reason: str = CHANNEL_LOST) -> None:
        """Its channels or their server are gone: the call is over, and we tell the phone behind them."""
        if not self.over:
            self.lost = tuple(channels)
            self._end_behind("caller", (reason_header(reason, None),))
            self.hangup(reason, None)

    def _end_behind(self, side: str, headers: tuple[bytes, ...] = ()) -> None:
        """`side` has hung up, and FreeSWITCH, which stands in between, does not tell the other one."""
        dialogs = self.dialogs
        leg, name = (dialogs.far, "callee") if side == "caller" else (dialogs.caller, "caller")
        if leg is not None and self.back is not None:
            self.note(RequestSent("BYE", name, "FreeSWITCH is away"))
            self.node.send_in_dialog(leg, b"BYE", headers)
            dialogs.far = None  # once

    @property
    def freeswitch_is_gone(self) -> bool:
        """The call goes through a server that is away, as far as we can see."""
        return self.carried and self.exchange.servers.is_gone(self.server)

    def on_confirmed(self) -> None:
        """The ACK has passed, or none will come."""
        self._handshake = None
        self.step("confirmed")

    def on_unconfirmed_request(self, request: Request, from_caller: bool) -> None:
        """A party speaks in the dialog that we are about to end: we count on from its number, or it has ended it."""
        if request.method == b"BYE":
            self.step("hung up")
        else:
            self.dialogs.follow_front(request, "caller" if from_caller else "callee")

    # --- reactions of the table (core.calls.flow_call) ----------------------------------------------------------------

    def turn_away(self, ending: Ending) -> None:
        """Refuse the caller, and stop whoever rings."""
        code = ending.code or 480
        self._stop_ringing(ending.headers, code)
        if not self.replied:
            self.front.reply(code, "", ending.headers)
            self.note(ResponseSent(code))

    def take_leave(self, ending: Ending) -> None:
        """BYE to one side or both."""
        if self.freeswitch_is_gone:
            self._end_behind("caller", ending.headers)
        self._send_bye(ending)

    def hold_farewell(self, ending: Ending) -> None:
        """The same, but not before the caller's ACK has passed (§15, see `sip.ack_wait`)."""
        if self.freeswitch_is_gone:
            self._end_behind("caller", ending.headers)
        self.note(ByeHeld())
        if self._handshake is not None:
            self._handshake.hold()

    def say_farewell(self) -> None:
        """The BYE that has waited."""
        if self.ending is not None:
            self._send_bye(self.ending)

    def left_by(self, ending: Ending) -> None:
        """A party has hung up, and FreeSWITCH may not be there to tell the other one."""
        if self.freeswitch_is_gone:
            self._end_behind(ending.by)

    def discard(self) -> None:
        """Leave the tables."""
        self.waiting = ()
        self.exchange.calls.discard(self)
        if self.relay is not None:
            self.relay.call_ended()

    def close(self, ending: Ending) -> None:
        """Tell and record the end."""
        if self.answered_at is None:  # the phone behind FreeSWITCH has answered, and FreeSWITCH has not passed it on
            self._end_behind("caller", (reason_header(ending.reason, None),))
        self.node.tell(
            "call_ended",
            call=text(self.invite.call_id),
            by=ending.by,
            reason=ending.reason,
            code=self.transaction.status,
            seconds=round(self.duration, 1),
        )
        self.record(self.transaction.status, self.contact)

    def let_go(self) -> None:
        """The dialog is not ours to end any more: it has been ended."""
        self._drop_dialogs()
        if self.carried:
            self.node.timers.after(OUTLIVE, Call._end_channels, self)

    def _drop_dialogs(self) -> None:
        if self._dialogs is not None:
            self._dialogs.let_go()
        if self._handshake is not None:
            self._handshake.drop()
            self._handshake = None

    def _send_bye(self, ending: Ending) -> None:
        for side, leg in (("caller", self.dialogs.caller), ("callee", self.dialogs.callee)):
            if leg is not None and ending.leg in (side, "both"):
                self.note(RequestSent("BYE", side))
                self.node.send_in_dialog(leg, b"BYE", ending.headers)

    def _end_channels(self) -> None:
        """Its channels may have outlived it. BYE ends them, and carries the reason; so that came first."""
        kill_channels(self.node, self)

    def _give_up_relay(self) -> None:
        """A step answered while another still relays: that one ends as cancelled, and its flow goes on."""
        if self.relay is not None:
            self.relay.undo()
        self._stop_ringing(())

    def _stop_ringing(self, headers: tuple[bytes, ...], code: int = 487) -> None:
        """Nobody rings any more. FreeSWITCH's second INVITE is answered, too: a FreeSWITCH that has died in between
        sends no CANCEL for it."""
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.abandon()
        if self._front is not None:
            self._front.cancel_pending(headers)
        if self.back is not None:
            self.back.reply(code)
            self.back.cancel_pending(headers)

    def part(self) -> None:
        """The call is over and its run is done: they let go of each other, and the contexts of the call. What nothing
        refers to any more is freed at once; rings of references stay until the collector walks all that is old."""
        super().part()
        if self._front is not None:
            self._front.listener = NOBODY
        if self.back is not None:
            self.back.listener = NOBODY


def _attempt(branch: Branch) -> Attempt:
    """Each branch of a call is added by a relay or a hold."""
    assert branch.attempt is not None
    return branch.attempt
