"""Calls whose phones are both gone without a BYE: OPTIONS inside the dialogs finds them, and they are ended.

A phone that has the dialog answers, whatever it says; 481 says that it has not (RFC 3261 §12.2.2), 408 and silence that
nobody is there. The number of the request is that of the last one on this side: the phones count theirs themselves, and
one of ours in between would make the next of theirs come too late (§12.2.2: lower is out of order, equal is not).

A call ends when one phone says that it does not know the dialog, or when none of its phones answers. One that is
silent may be a phone that ignores OPTIONS; its user hangs up when the other one is gone. FreeSWITCH is not asked:
whether it is there, `core.switches.servers` knows.
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


class AnsweredCall(Protocol):
    """The call that is asked about."""

    node: Node
    dialogs: Dialogs
    carried: bool
    placed: bool
    watch_timer: Timer | None

    @property
    def duration(self) -> float: ...
    def hangup(self, reason: str, code: int | None) -> None: ...


def look_after(call: AnsweredCall) -> None:
    """Look at an answered call from time to time: whether it lasts too long, whether its phones are there."""
    limits = call.node.settings.limits
    left = limits.call_duration - call.duration
    if left <= 0:
        call.hangup("maximum call duration", None)
        return
    if call.watch_timer is not None:
        Ping(call).ask(call.dialogs.phones(call.carried, call.placed))
    call.watch_timer = call.node.timers.after(min(left, limits.dialog_ping or left), look_after, call)


class Ping:
    """One round of questions to the phones of a call."""

    __slots__ = ("call", "silent", "waiting")

    def __init__(self, call: AnsweredCall) -> None:
        self.call = call
        self.waiting = 0
        self.silent = True

    def ask(self, legs: list[Leg]) -> None:
        self.waiting = len(legs)
        for leg in legs:
            self.call.node.send_in_dialog(leg, b"OPTIONS", user=self, counted=False)

    def _heard(self, alive: bool, certain: bool = False) -> None:
        self.waiting -= 1
        self.silent = self.silent and not alive
        if certain or (self.silent and not self.waiting):
            self.call.node.count("call.phones_gone")
            self.call.hangup(GONE, None)

    # --- transaction user ---------------------------------------------------------------------------------------------

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status >= 200:
            self._heard(response.status not in (408, 481), response.status == 481)

    def on_timeout(self, client: ClientTransaction) -> None:
        self._heard(False)

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._heard(False)
