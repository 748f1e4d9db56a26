"""Calls that last too long, and calls whose phones have gone without a BYE: OPTIONS inside the dialogs finds them, and
they are ended.

A phone that has the dialog answers, whatever it says; 481 says that it has not (RFC 3261 §12.2.2), 408 and silence that
nobody is there. The number of the request is that of the last one on this side: the phones count theirs themselves, and
one of ours in between would make the next of theirs come too late (§12.2.2: lower is out of order, equal is not).

A call ends when one phone says that it does not know the dialog, when none of its phones answers, or when one has
missed so many pings in a row as `dialog_missed` says; whatever it sends inside the dialog meanwhile shows that it is
there. FreeSWITCH is not asked: whether it is there, `core.switches.servers` knows.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.calls.dialogs import Dialogs
from orchestrator.core.node import Node
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.dialog import Leg
from orchestrator.sip.message import Response
from orchestrator.timers import Timer

GONE = "the phones are gone"
"""Reason of the end of a call that nobody is in any more."""
ONE_GONE = "a phone is gone"
"""The same where only one of its phones has left."""
TOO_LONG = "maximum call duration"


class AnsweredCall(Protocol):
    """The call that is asked about."""

    node: Node
    carried: bool
    placed: bool
    longest: float
    watch_timer: Timer | None

    @property
    def dialogs(self) -> Dialogs: ...
    @property
    def duration(self) -> float: ...
    def hangup(self, reason: str, code: int | None) -> None: ...


def look_after(call: AnsweredCall) -> None:
    """Look at an answered call from time to time: whether it lasts too long, whether its phones are there."""
    left = call.longest - call.duration
    if call.watch_timer is not None:
        if left <= 0:
            call.hangup(TOO_LONG, None)
            return
        Round(call).ask(call.dialogs.phones(call.carried, call.placed))
    pause = call.node.settings.limits.dialog_ping or left
    call.watch_timer = call.node.timers.after(max(0.0, min(left, pause)), look_after, call)


class Round:
    """One round of questions to the phones of a call."""

    __slots__ = ("call", "silent", "waiting")

    def __init__(self, call: AnsweredCall) -> None:
        self.call = call
        self.waiting = 0
        self.silent = True

    def ask(self, legs: list[Leg]) -> None:
        self.waiting = len(legs)
        for leg in legs:
            self.call.node.send_in_dialog(leg, b"OPTIONS", user=Question(self, leg), counted=False)

    def heard(self, leg: Leg, alive: bool, certain: bool = False) -> None:
        """What has come of the question to one phone; `certain`: it has said that it does not know the call."""
        self.waiting -= 1
        self.silent = self.silent and not alive
        leg.missed = 0 if alive else leg.missed + 1
        most = self.call.node.settings.limits.dialog_missed
        if self.silent and not self.waiting:
            self._end(GONE)
        elif certain or (most and leg.missed >= most):
            self._end(ONE_GONE)

    def _end(self, reason: str) -> None:
        self.call.node.count("call.phones_gone")
        self.call.hangup(reason, None)


class Question:
    """The question to one phone: the user of its transaction."""

    __slots__ = ("_round", "_leg")

    def __init__(self, round: Round, leg: Leg) -> None:
        self._round = round
        self._leg = leg

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status >= 200:
            self._round.heard(self._leg, response.status not in (408, 481), response.status == 481)

    def on_timeout(self, client: ClientTransaction) -> None:
        self._round.heard(self._leg, False)

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._round.heard(self._leg, False)
