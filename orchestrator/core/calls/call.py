"""A call under a flow: the INVITE, where it is being relayed to, the two sides once it is answered, and how it ended.

Calls that no flow takes have no `Call`; they are a `ResponseContext` and nothing else.

A call has a *front*: the caller's INVITE. With `relay … via: fs1` the front leads to FreeSWITCH, and the INVITE that
FreeSWITCH sends back is its *back*: a second SIP dialog of the same call, known by the header `X-Orchestrator-Call`.
Destinations ring from the back then.

FreeSWITCH may also hold the call (`media`, a `Hold`), and it may be the one that calls (`originate`): its INVITE is
the front then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.core.calls.attempts import CallHold, CallRelay
from orchestrator.core.calls.cdr import CallRecords
from orchestrator.core.calls.liveness import Ping
from orchestrator.core.calls.reason_texts import cause_of, failure_of, reason_header
from orchestrator.core.node import Node
from orchestrator.core.request_view import text
from orchestrator.core.switches.executions import kill_channels
from orchestrator.core.switches.servers import Servers
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.history import ByeHeld, CallFact, RequestSent, ResponseReceived, ResponseSent
from orchestrator.sip.ack_wait import Handshake
from orchestrator.sip.branch import NOBODY, Branch, Context
from orchestrator.sip.dialog import Leg, callee_leg, caller_leg
from orchestrator.sip.digest import Account
from orchestrator.sip.dtmf import dtmf_of_info
from orchestrator.sip.message import Request, Response
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri
from orchestrator.timers import Timer

CHANNEL_LOST = "channel lost"
"""Reason of the end of a call whose channels are gone."""
NO_ANSWERS: Mapping[bytes, bytes | None] = {}


OUTLIVE = 1.0
"""Seconds that a channel may outlive its call: what FreeSWITCH does by itself takes some milliseconds."""


class CallTable(Protocol):
    """Where calls are found (`core.calls.table.Calls`)."""

    def add(self, call: Call) -> None: ...
    def by_id(self, id: str) -> Call | None: ...
    def by_call_id(self, call_id: bytes) -> Call | None: ...
    def add_call_id(self, call_id: bytes, call: Call) -> None: ...
    def drop_call_id(self, call_id: bytes, call: Call) -> None: ...
    def discard(self, call: Call) -> None: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the calls of one engine share besides the node: where they are found, what FreeSWITCH has of them, and who
    hears of their end."""

    calls: CallTable
    channels: ChannelTable
    servers: Servers
    records: CallRecords
    flows: FlowEngine


class Call:
    """One INVITE that a flow has taken; the listener of its response contexts.

    `state` goes new → ringing → answered → ended. Everything a flow may ask for checks it first, so that a call that is
    over stays over whatever still arrives.
    """

    __slots__ = (
        "node", "exchange", "id", "sip_call_id", "invite", "source", "front", "back", "run", "relay", "hold", "carried",
        "server", "placed", "lost", "waiting", "state",
        "started_at", "answered_at", "ended_at", "ended_by", "end_reason", "contact", "user", "caller", "callee", "far",
        "_caller_tag", "_back_tag", "_back_call_id", "_answers", "_watch_timer",
        "_handshake", "_farewell",
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
        self.node = node
        self.exchange = exchange
        self.id: str = id
        self.sip_call_id = request.call_id
        self.invite = request
        self.source = source
        self.front = ResponseContext(node.network, server, request, self)
        self.back: ResponseContext | None = None
        server.user = self
        self.run: Run | None = None
        self.relay: CallRelay | None = None
        self.hold: CallHold | None = None
        """The branch to FreeSWITCH that holds the caller, while it lasts."""
        self.carried = False
        """The media go through FreeSWITCH, which hears the digits."""
        self.server = ""
        """The FreeSWITCH server the call was sent to or comes from."""
        self.placed = False
        """FreeSWITCH is the caller: it calls for us (`originate`)."""
        self.lost: tuple[Channel, ...] = ()
        """Channels of the call that have gone without a word: they are in no table any more."""
        self.waiting: tuple[Target, ...] = ()
        """Destinations injected before the relay has started."""
        self.state: str = "new"
        self.started_at = node.timers.now
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.ended_by: str = ""
        self.end_reason: str = ""
        self.contact: str | None = None
        """Contact URI of whoever has answered."""
        self.user: str | None = node.network.user_of(request, source[0])
        """Who the caller is: by digest, or as a trusted source says; None as long as nobody knows."""
        self.caller: Leg | None = None
        self.callee: Leg | None = None
        self.far: Leg | None = None
        """The called phone behind FreeSWITCH, which ends that dialog itself as long as it lives."""
        self._caller_tag = request.from_tag
        self._back_tag: bytes | None = None
        self._back_call_id = b""
        self._answers: Mapping[bytes, bytes | None] = NO_ANSWERS
        """To tag of the answer by Call-ID: what makes the dialogs that passed through us ours."""
        self._watch_timer: Timer | None = None
        self._handshake: Handshake | None = None
        """The answer to the caller, while its ACK has not passed."""
        self._farewell: tuple[tuple[bytes, ...], str] | None = None
        """Headers and receivers of the BYE that waits for that ACK; all else about the call is over by then."""

    @property
    def over(self) -> bool:
        return self.state == "ended"

    @property
    def replied(self) -> bool:
        """A final reply to the INVITE is out."""
        return self.front.server.answered

    @property
    def request(self) -> Request:
        """The INVITE."""
        return self.invite

    @property
    def transport(self) -> int:
        """The listening point the INVITE came in by."""
        return self.front.server.destination[0]

    @property
    def call_ids(self) -> tuple[bytes, ...]:
        """SIP Call-IDs of the front and, where there is one, of the back."""
        return (self.sip_call_id, self._back_call_id) if self._back_call_id else (self.sip_call_id,)

    @property
    def duration(self) -> float:
        """Seconds from the answer to the end or now; 0 for a call that was not answered."""
        if self.answered_at is None:
            return 0.0
        return (self.node.timers.now if self.ended_at is None else self.ended_at) - self.answered_at

    @property
    def held(self) -> bool:
        """FreeSWITCH holds the one party this call has, the caller or the one it has called for us; nobody else is
        there."""
        return self.carried and self.back is None

    @property
    def pending(self) -> Sequence[Branch]:
        """The destinations that ring now."""
        return (self.back or self.front).pending

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
        self._back_call_id, self._back_tag = request.call_id, request.from_tag
        self.carried = True
        self.exchange.calls.add_call_id(request.call_id, self)
        relay.back_arrived(self.back)
        return True

    def lose_hold(self) -> None:
        """FreeSWITCH holds the caller no longer: somebody else has answered, or it gave up."""
        if self.hold is not None:
            self.hold, self.carried = None, self.back is not None

    def drop_back(self) -> None:
        """FreeSWITCH's second leg is about to go elsewhere: its end is not the end of the call."""
        if self._back_call_id:
            self.exchange.calls.drop_call_id(self._back_call_id, self)
        self.back, self._back_call_id, self._back_tag, self.far = None, b"", None, None

    # --- what the branches report (sip.branch.Listener) --------------------------------------------------------------

    def on_sent(self, branch: Branch) -> None:
        self.note(RequestSent("INVITE", branch.target.contact))
        if branch.round is not None:
            branch.round.sent(branch)

    def on_cancelled(self, branch: Branch) -> None:
        self.note(RequestSent("CANCEL", branch.target.contact))

    def on_ringing(self, branch: Branch, response: Response) -> None:
        if self.over:
            return
        hold = self._hold_of(branch)
        if hold is not None:
            hold.progressed(response.status)
            return
        if branch.context is self._inner_front:
            return
        if self.state == "new":
            self.state = "ringing"
        self.note(ResponseReceived(response.status, branch.target.contact))
        if branch.round is not None:
            branch.round.rang(branch)
        self.publish("ringing", branch=str(branch.number), code=response.status, contact=branch.target.contact)

    def on_answered(self, branch: Branch, response: Response) -> None:
        if self.over:
            return
        self.note(ResponseReceived(response.status, branch.target.contact))
        self._answers = {**self._answers, response.call_id: response.to_tag}
        if branch.context is self.front:
            self._on_front_answered(branch, response)
        else:
            self.far = self._callee_of(branch, response)
            if self.relay is not None:
                self.relay.answered_by(branch)

    def _caller_for(self, response: Response) -> Leg | None:
        """Who has called, for the dialog of this answer; None where the INVITE does not say how to reach him."""
        try:
            seen = self.node.network.seen_elsewhere(self.invite, self.front.server.destination)
            return caller_leg(self.invite, response, seen)
        except MalformedMessage:
            self.node.count("call.answer.malformed")
            return None

    def _callee_of(self, branch: Branch, response: Response) -> Leg | None:
        """Who has answered; None where the answer does not say how to reach him."""
        try:
            leg = callee_leg(response, self.node.network.is_own, branch.target.hop)
            if leg is not None:
                leg.account = branch.target.account
            return leg
        except MalformedMessage:
            self.node.count("call.answer.malformed")
            return None

    def _on_front_answered(self, branch: Branch, response: Response) -> None:
        self.state = "answered"
        self.answered_at = self.node.timers.now
        self.caller, self.callee = self._caller_for(response), self._callee_of(branch, response)
        self._handshake = self.node.handshakes.begin((self.sip_call_id, self._caller_tag, response.to_tag), self)
        self._watch()
        hold, relay = self._hold_of(branch), self.relay
        if hold is not None:
            hold.progressed(response.status)
            return
        self.lose_hold()
        self.contact = relay.answering_contact(branch) if relay is not None else branch.target.contact
        self.publish("answered", contact=self.contact, leg="callee")
        if relay is not None:
            relay.finish_answered(branch, response.status)

    def _watch(self) -> None:
        """Look at the answered call from time to time: whether it lasts too long, whether its phones are there."""
        limits = self.node.settings.limits
        left = limits.call_duration - self.duration
        if left <= 0:
            self.hangup("maximum call duration", None, "both")
            return
        if self._watch_timer is not None:
            Ping(self).ask(self._phones())
        self._watch_timer = self.node.timers.after(min(left, limits.dialog_ping or left), Call._watch, self)

    def _phones(self) -> list[Leg]:
        """The dialogs with somebody else than FreeSWITCH."""
        near, inner = (self.callee, self.caller) if self.placed else (self.caller, self.callee)
        return [leg for leg in (near, self.far if self.carried else inner) if leg is not None]

    def on_branch_failed(self, branch: Branch) -> None:
        if self.over:
            return
        self.note(failure_of(branch))
        if branch.context is not self._inner_front and self._hold_of(branch) is None:
            self.publish(
                "branch_failed",
                branch=str(branch.number),
                code=branch.status,
                reason=branch.reason,
                contact=branch.target.contact,
            )
        if branch.round is not None:
            branch.round.branch_failed(branch)

    def on_settled(self, context: Context) -> None:
        """The relay counts its own branches: one that was cancelled long ago may still be pending here."""

    def _hold_of(self, branch: Branch) -> CallHold | None:
        """The hold, when this is its branch: FreeSWITCH is no destination, flows hear nothing of it."""
        return self.hold if branch.round is self.hold else None

    @property
    def _inner_front(self) -> ResponseContext | None:
        """The front while it only leads to FreeSWITCH: what happens on it is not news about destinations."""
        return self.front if self.relay is not None and self.relay.via else None

    # --- what passes inside the dialog --------------------------------------------------------------------------------

    def holds(self, request: Request) -> bool:
        """Whether a request is of a dialog of this call: not that of a phone that lost the race, not a forged one."""
        id = request.call_id
        opener = self._back_tag if id == self._back_call_id else self._caller_tag
        return id in self._answers and {request.from_tag, request.to_tag} == {opener, self._answers[id]}

    def account_beyond(self, request: Request, toward: Uri) -> Account | None:
        """Our account at the gateway that a request of the caller's side goes to (§22.2): it may challenge any. None
        where `toward`, the URI of the next hop, is somebody else's than the gateway has said."""
        if not self.holds(request) or self.side_of(request) != "caller":
            return None
        leg = self.callee if request.call_id == self.sip_call_id else self.far
        if leg is None or leg.account is None:
            return None
        try:
            return leg.account if leg.first_hop().host.lower() == toward.host.lower() else None
        except MalformedMessage:  # of a Contact that a later request brought
            return None

    def side_of(self, request: Request) -> str:
        """Which side sent an in-dialog request. On the back FreeSWITCH stands for the caller."""
        opener = self._back_tag if request.call_id == self._back_call_id else self._caller_tag
        return "caller" if request.from_tag == opener else "callee"

    def passes(self, request: Request) -> None:
        """A request with our Call-ID is on its way through us: follow sequence numbers, hear digits and the end."""
        if not self.holds(request):
            return
        side = self.side_of(request)
        if request.call_id == self.sip_call_id:
            self._follow(request, side)
        elif self.far is not None:
            self._follow_far(request, side)
        if request.method == b"BYE":
            self.end_by(side, cause_of(request))
        elif request.method == b"INFO" and not self.carried:  # FreeSWITCH reports the digits of a call it carries
            self._hear_info(request, side)

    def _follow(self, request: Request, side: str) -> None:
        sender, receiver = (self.caller, self.callee) if side == "caller" else (self.callee, self.caller)
        if receiver is not None:
            receiver.cseq = max(receiver.cseq, request.cseq)
        if sender is not None:
            sender.refresh(request)

    def _follow_far(self, request: Request, side: str) -> None:
        """The same for the dialog that FreeSWITCH has with the called phone."""
        assert self.far is not None
        if side == "caller":
            self.far.cseq = max(self.far.cseq, request.cseq)
        else:
            self.far.refresh(request)

    def _hear_info(self, request: Request, side: str) -> None:
        heard = dtmf_of_info(request)
        if heard is not None:
            digit, ms = heard
            taken = self.publish("dtmf", digit=digit, ms=ms, leg=side, source="INFO", uuid=None)
            if not taken and self.run is not None:
                self.run.ignored_key(digit, side)

    # --- ending -------------------------------------------------------------------------------------------------------

    def cancel(self, headers: tuple[bytes, ...] = ()) -> None:
        """The caller sent CANCEL: 487 at once, whatever the branches are doing; then the flow hears of it."""
        if self.over or self.replied:
            return
        self.front.cancel(headers)  # first: what the end of a branch makes a flow do must find the 487 on its way
        self.note(ResponseSent(self.front.server.status))
        self._stop_ringing(headers)
        self.end_by("caller", "cancelled")

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer the INVITE ourselves. A failure ends the call for SIP; its flow goes on with its next steps.

        Raises StepError `call.state` when a final reply has gone out.
        """
        if self.replied:
            raise StepError("call.state", f"the call already has a final reply ({self.front.server.status})")
        self.front.reply(code, reason, headers)
        self.note(ResponseSent(code, reason))
        if code >= 300:
            self._close("engine", f"{code} {reason}".strip())
            self._give_up_relay()
        elif code >= 200:
            self.state = "answered"
            self.answered_at = self.node.timers.now

    def reply_best(self) -> bool:
        """Answer with the best failure of the branches (RFC 3261 §16.7). False when no branch gave one."""
        best = self.front.best if self.back is None else self.back.best
        if best is None or self.replied:
            return False
        if best.context is not self.front or not self.front.send_best():
            self.front.reply(best.status)
        status = self.front.server.status  # a 503 is not passed on
        self.note(ResponseSent(status))
        self._close("engine", f"{status}")
        self._give_up_relay()
        return True

    def hangup(self, reason: str, code: int | None, leg: str) -> None:
        """End the call by what fits its state. The flow ends with it."""
        if self.over:
            return
        header = (reason_header(reason, code),) if reason else ()
        if self.replied:
            if self.freeswitch_is_gone:
                self._end_behind("caller", header)
            self._send_bye(header, leg)
        else:
            self._stop_ringing(header, code or 480)
            self.front.reply(code or 480, "", header)
            self.note(ResponseSent(code or 480))
        self._close("engine", reason or "hangup")
        self._tell_flow()

    @property
    def attended(self) -> bool:
        """Its flow goes on: some step of it is at work, and a relay it waits for will end."""
        if self.over or self.run is None or not self.run.attended:
            return False
        return self.relay is None or self.relay.attended

    def fail(self) -> None:
        """A bug has struck, or nothing is left that could answer: 500, or BYE where it has been answered."""
        try:
            self.hangup("internal error", 500, "both")
        finally:
            owed = not self.front.server.answered
            for context in (self.front, self.back):
                if context is not None:
                    context.server.fail()
            if owed:
                self.note(ResponseSent(self.front.server.status))

    def lose_freeswitch(self, channels: Sequence[Channel] = (), reason: str = CHANNEL_LOST) -> None:
        """Its channels are gone without a word, or their server is: the call is over, and we tell the phone behind
        them."""
        if not self.over:
            self.lost = tuple(channels)
            self._end_behind("caller", (reason_header(reason, None),))
            self.hangup(reason, None, "both")

    def _end_behind(self, side: str, headers: tuple[bytes, ...] = ()) -> None:
        """`side` has hung up, and FreeSWITCH, which stands in between, does not tell the other one."""
        leg, name = (self.far, "callee") if side == "caller" else (self.caller, "caller")
        if leg is not None and self.back is not None:
            self.note(RequestSent("BYE", name, "FreeSWITCH is away"))
            self.node.send_in_dialog(leg, b"BYE", self.transport, headers)
            self.far = None  # once

    @property
    def freeswitch_is_gone(self) -> bool:
        """The call goes through a server that is away, as far as we can see."""
        return self.carried and self.exchange.servers.is_gone(self.server)

    def _send_bye(self, headers: tuple[bytes, ...], which: str) -> None:
        """BYE to one side or both; not before the caller's ACK has passed (§15, see `sip.ack_wait`)."""
        if self._handshake is not None:
            self.note(ByeHeld())
            self._farewell = headers, which
            self._handshake.hold()
            return
        for side, leg in (("caller", self.caller), ("callee", self.callee)):
            if leg is not None and which in (side, "both"):
                self.note(RequestSent("BYE", side))
                self.node.send_in_dialog(leg, b"BYE", self.transport, headers)

    def on_confirmed(self) -> None:
        """The ACK has passed, or none will come: what was held back goes out now."""
        self._handshake = None
        if self._farewell is not None:
            self._send_bye(*self._farewell)
            self._let_go()

    def on_unconfirmed_request(self, request: Request, from_caller: bool) -> None:
        """A party speaks in the dialog that we are about to end: we go on behind its number, or it has ended it
        itself."""
        if request.method == b"BYE":
            self._let_go()
        else:
            self._follow(request, "caller" if from_caller else "callee")

    def _let_go(self) -> None:
        """The dialog is not ours to end any more: it has been ended."""
        self.caller = self.callee = self.far = self._farewell = None
        if self.carried:
            self.node.timers.after(OUTLIVE, Call._end_channels, self)
        if self._handshake is not None:
            self._handshake.drop()
            self._handshake = None

    def _end_channels(self) -> None:
        """The call is over; see to it that its channels are, too. BYE does it, and carries the reason; so that came
        first."""
        kill_channels(self.node, self)

    def end_by(self, side: str, cause: str, code: int | None = None) -> None:
        """A party has hung up."""
        if self.over:
            return
        self.publish("hangup", leg=side, cause=cause, code=code)
        if self.state != "ended":  # unless a handler of that very event has ended it
            if self.freeswitch_is_gone:
                self._end_behind(side)
            self._close(side, cause)
            self._tell_flow()

    def _give_up_relay(self) -> None:
        """A step answered while another still relays: that one ends as cancelled, and its flow goes on."""
        relay = self.relay
        if relay is not None:
            relay.stop(("all",))
        self._stop_ringing(())

    def _stop_ringing(self, headers: tuple[bytes, ...], code: int = 487) -> None:
        """Nobody rings any more. FreeSWITCH's second INVITE is answered, too: a FreeSWITCH that has died in between
        sends no CANCEL for it."""
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.abandon()
        self.front.cancel_pending(headers)
        if self.back is not None:
            self.back.reply(code)
            self.back.cancel_pending(headers)

    def _close(self, by: str, reason: str) -> None:
        self.state = "ended"
        self.ended_at = self.node.timers.now
        self.ended_by, self.end_reason = by, reason
        self.waiting = ()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self.exchange.calls.discard(self)
        if self.answered_at is None:  # the phone behind FreeSWITCH has answered, and FreeSWITCH has not passed it on
            self._end_behind("caller", (reason_header(reason, None),))
        if self._farewell is None:
            self._let_go()
        self.node.tell(
            "call_ended",
            call=text(self.invite.call_id),
            by=by,
            reason=reason,
            code=self.front.server.status,
            seconds=0.0 if self.answered_at is None else round(self.ended_at - self.answered_at, 1),
        )
        if self.run is not None:
            self.exchange.records.add(self, self.run, self.front.server.status, self.contact)

    def part(self) -> None:
        """The call is over and its run is done: they let go of each other, and the contexts of the call. What nothing
        refers to any more is freed at once; rings of references stay until the collector walks all that is old."""
        self.run = None
        self.front.listener = NOBODY
        if self.back is not None:
            self.back.listener = NOBODY

    def _tell_flow(self) -> None:
        if self.run is not None:
            self.exchange.flows.call_ended(self.run, self.ended_by, self.end_reason)

    # --- telling ------------------------------------------------------------------------------------------------------

    def publish(self, name: str, **attributes: Any) -> int:
        """Raise an event of this call; returns how many took it."""
        try:
            return self.node.publish(name, attributes, self.id)
        except StepError:  # a nest of events too deep (flow.limit): the call goes on without it
            self.node.count("event.too_deep")
            return 0

    def note(self, fact: CallFact | str) -> None:
        """One fact of the call for the trace of the run."""
        if self.run is not None:
            self.run.trace(None, "{}", fact)

    def __repr__(self) -> str:
        return f"<Call {self.id} {self.state}>"
