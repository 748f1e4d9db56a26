"""The SIP dialogs of one call: that of the caller, and behind FreeSWITCH that of the called phone.

On the *front* the caller talks to whoever has answered; with FreeSWITCH in between, that is FreeSWITCH, and on the
*back* it talks to the phone, whose dialog it ends itself as long as it lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.calls.early import EarlyDialogs
from orchestrator.core.node import Node
from orchestrator.errors import MalformedMessage
from orchestrator.sip.branch import Branch
from orchestrator.sip.dialog import Leg, callee_leg, caller_leg
from orchestrator.sip.digest import Account
from orchestrator.sip.message import Request, Response
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.uri import Uri

NO_ANSWERS: Mapping[bytes, bytes | None] = {}


@dataclass(frozen=True, slots=True)
class BackDialog:
    """The dialog behind FreeSWITCH, answered by a phone."""

    call_id: bytes
    opener_tag: bytes | None
    answerer_tag: bytes | None
    far: Leg


class Dialogs:
    """Who may speak in the dialogs of a call, and how we would end them."""

    __slots__ = ("caller", "callee", "far", "call_id", "caller_tag", "_back", "_answers", "_early")

    def __init__(self, request: Request) -> None:
        self.caller: Leg | None = None
        self.callee: Leg | None = None
        self.far: Leg | None = None
        """The called phone behind FreeSWITCH."""
        self.call_id = request.call_id
        self.caller_tag = request.from_tag
        self._back: tuple[bytes, bytes | None] | None = None
        """Call-ID and tag of FreeSWITCH's second INVITE."""
        self._answers: Mapping[bytes, bytes | None] = NO_ANSWERS
        """To tag of the answer by Call-ID: what makes the dialogs that passed through us ours."""
        self._early: EarlyDialogs | None = None
        """None while nobody has said a word in one."""

    @property
    def call_ids(self) -> tuple[bytes, ...]:
        """SIP Call-IDs of the front and, where there is one, of the back."""
        return (self.call_id,) if self._back is None else (self.call_id, self._back[0])

    def open_back(self, request: Request) -> None:
        """FreeSWITCH's second leg."""
        self._back = request.call_id, request.from_tag

    def drop_back(self) -> bytes:
        """It is about to go elsewhere; returns its Call-ID, b"" where there is none."""
        back, self._back, self.far = self._back, None, None
        return b"" if back is None else back[0]

    def back_dialog(self) -> BackDialog | None:
        """The answered one behind FreeSWITCH."""
        back = self._back
        if back is None or self.far is None or back[0] not in self._answers:
            return None
        return BackDialog(back[0], back[1], self._answers[back[0]], self.far)

    def take_back(self, back: BackDialog) -> None:
        """That of another call is this one's from now on."""
        self._back = back.call_id, back.opener_tag
        self._answers = {**self._answers, back.call_id: back.answerer_tag}
        self.far = back.far

    def party_with(self, call_id: bytes, tag: bytes, other_tag: bytes) -> str | None:
        """Which side of an answered dialog has this tag of its own and that one for the other side; FreeSWITCH stands
        for the party behind it. None where there is no such dialog."""
        if call_id not in self._answers:
            return None
        back = self._back
        opener = back[1] if back is not None and call_id == back[0] else self.caller_tag
        answerer = self._answers[call_id]
        if (tag, other_tag) == (opener, answerer):
            return "caller"
        return "callee" if (tag, other_tag) == (answerer, opener) else None

    def let_go(self) -> None:
        """They are not ours to end any more."""
        self.caller = self.callee = self.far = None

    def answered(self, response: Response) -> None:
        """A dialog is there."""
        self._answers = {**self._answers, response.call_id: response.to_tag}

    def phones(self, carried: bool, placed: bool) -> list[Leg]:
        """The dialogs with somebody else than FreeSWITCH, which carries the call or has placed it."""
        near, inner = (self.callee, self.caller) if placed else (self.caller, self.callee)
        return [leg for leg in (near, self.far if carried else inner) if leg is not None]

    def goes_on(self, response: Response) -> None:
        """The dialog of an answer is followed from now on, from where its early dialog was."""
        if self._early is not None:
            front = response.call_id == self.call_id
            opener, answerer = (self.caller, self.callee) if front else (None, self.far)
            self._early.answered(response.call_id, response.to_tag, opener, answerer)

    def is_repetition(self, response: Response) -> bool:
        """Whether a reliable provisional response has come before (RFC 3262 §3)."""
        if not response.has(b"rseq"):
            return False
        return self._early_ones().is_repetition(response)

    def _early_ones(self) -> EarlyDialogs:
        if self._early is None:
            self._early = EarlyDialogs()
        return self._early

    # --- what passes inside -------------------------------------------------------------------------------------------

    def holds(self, request: Request) -> bool:
        """Whether a request is of one of them: not of a phone that lost the race, not a forged one."""
        id = request.call_id
        opener = self._opener_of(request)
        return id in self._answers and {request.from_tag, request.to_tag} == {opener, self._answers[id]}

    def _opener_of(self, request: Request) -> bytes | None:
        """Tag of who has sent the INVITE of its dialog."""
        back = self._back
        return back[1] if back is not None and request.call_id == back[0] else self.caller_tag

    def account_beyond(self, request: Request, toward: Uri) -> Account | None:
        """Our account at the gateway that a request of the caller's side goes to (§22.2): it may challenge any. None
        where `toward`, the URI of the next hop, is somebody else's than the gateway has said."""
        if not self.holds(request) or self.side_of(request) != "caller":
            return None
        leg = self.callee if request.call_id == self.call_id else self.far
        if leg is None or leg.account is None:
            return None
        try:
            return leg.account if leg.first_hop().host.lower() == toward.host.lower() else None
        except MalformedMessage:  # of a Contact that a later request brought
            return None

    def side_of(self, request: Request) -> str:
        """Which side sent an in-dialog request. On the back FreeSWITCH stands for the caller."""
        return "caller" if request.from_tag == self._opener_of(request) else "callee"

    def phone_of(self, request: Request, carried: bool, placed: bool) -> Leg | None:
        """The phone that has sent a request of ours, as we speak to it; None where FreeSWITCH has."""
        return self.leg_at(request.call_id, self.side_of(request), carried, placed)

    def leg_at(self, call_id: bytes, side: str, carried: bool, placed: bool) -> Leg | None:
        """The phone on one side of one of the dialogs; None where FreeSWITCH is there."""
        front = call_id == self.call_id
        if side == "caller":
            return self.caller if front and not placed else None
        return (self.callee if placed or not carried else None) if front else self.far

    def is_early(self, request: Request) -> bool:
        """Whether it is of a dialog of ours that nobody has answered yet."""
        opener, id = self._opener_of(request), request.call_id
        return id in self.call_ids and id not in self._answers and opener in (request.from_tag, request.to_tag)

    def follow_answer(self, request: Request, response: Response) -> None:
        """A 2xx to a re-INVITE or UPDATE: who sends it says where he is reached."""
        side = self.side_of(request)
        if not self.holds(request):
            if self.is_early(request):
                self._early_ones().follow_answer(request, response, side == "caller")
            return
        if request.call_id == self.call_id:
            receiver = self.callee if side == "caller" else self.caller
        else:
            receiver = self.far if side == "caller" else None
        if receiver is not None:
            receiver.refresh(response)

    def follow(self, request: Request) -> str | None:
        """Follow sequence numbers and targets; the side that speaks, None where the dialog is not answered or not
        ours."""
        side = self.side_of(request)
        if not self.holds(request):
            if self.is_early(request):
                self._early_ones().follow(request, side == "caller")
            return None
        if request.call_id == self.call_id:
            self.follow_front(request, side)
        elif self.far is not None and side == "caller":
            self.far.cseq = max(self.far.cseq, request.cseq)
        elif self.far is not None:
            self.far.refresh(request)
        return side

    def follow_front(self, request: Request, side: str) -> None:
        sender, receiver = (self.caller, self.callee) if side == "caller" else (self.callee, self.caller)
        if receiver is not None:
            receiver.cseq = max(receiver.cseq, request.cseq)
        if sender is not None:
            sender.refresh(request)


def caller_of(node: Node, invite: Request, server: ServerTransaction, response: Response) -> Leg | None:
    """Who has called, for the dialog of this answer; None where the INVITE does not say how to reach him."""
    try:
        caller = server.destination
        return caller_leg(invite, response, caller.point, node.network.seen_elsewhere(invite, caller))
    except MalformedMessage:
        node.count("call.answer.malformed")
        return None


def callee_of(node: Node, branch: Branch, response: Response) -> Leg | None:
    """Who has answered; None where the answer does not say how to reach him."""
    try:
        by = (branch.client or branch.context.server).destination.point
        leg = callee_leg(response, node.network.is_own, by, branch.target.hop)
        if leg is not None:
            leg.account = branch.target.account
        return leg
    except MalformedMessage:
        node.count("call.answer.malformed")
        return None
