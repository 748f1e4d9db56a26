"""Sequence numbers of dialogs in which we have sent requests of our own that use one up: the NOTIFYs of a transfer.

The other party counts for itself and knows nothing of ours: its next request would come with a number that the receiver
has had (RFC 3261 §12.2.2) and be refused. So from then on its requests go on with a higher number, and the responses
get back the one it has written. Most dialogs are in no need of this, and cost nothing here.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.node import Node
from orchestrator.sip.dialog import Leg
from orchestrator.sip.message import Request
from orchestrator.sip.points import Hop
from orchestrator.sip.target import Renumbering

Dialog = tuple[bytes, bytes | None]
"""Call-ID, and the tag of the side that we have spoken to."""


class Subscription(Protocol):
    """News that are promised in a dialog (`core.steps.referred`)."""

    def asked_again(self, request: Request, destination: Hop) -> None:
        """A SUBSCRIBE for it (RFC 6665 §4.2.1): one with Expires 0 ends it."""


class Numbering:
    """The renumbered sides of all dialogs of one engine."""

    def __init__(self, node: Node) -> None:
        self._timers = node.timers
        self._longest = node.settings.limits.call_duration
        self._linger = node.settings.times.timeout
        self._legs: dict[Dialog, Leg] = {}
        self.subscriptions: dict[tuple[bytes, bytes | None, bytes | None], Subscription] = {}
        """Call-ID, tag of who gets the news, tag that we speak with → what is promised there now."""

    def begin(self, leg: Leg, tag: bytes | None) -> None:
        """Requests of our own go to this side, which has this tag, or may."""
        dialog = (leg.call_id, tag)
        if dialog not in self._legs:
            self._legs[dialog] = leg
            self._timers.after(self._longest, self._forget, (dialog, leg))

    def subscription(self, request: Request) -> Subscription | None:
        """The one that a SUBSCRIBE of a dialog is about, if it is ours."""
        if not self.subscriptions or (request.get(b"event") or b"").partition(b";")[0].strip().lower() != b"refer":
            return None
        return self.subscriptions.get((request.call_id, request.from_tag, request.to_tag))

    def of(self, request: Request) -> Renumbering | None:
        """How a request that is on its way through us is numbered for its receiver; None for as it is."""
        if not self._legs:
            return None
        dialog = (request.call_id, request.to_tag)
        leg = self._legs.get(dialog)
        if leg is None:
            return self._watch_end(request)
        found = Renumbering(leg.own, leg.own_before_invite)
        if request.method == b"ACK":
            return Renumbering(leg.own_before_invite, leg.own_before_invite)
        if request.method == b"INVITE":
            leg.own_before_invite = leg.own
        leg.cseq = max(leg.cseq, request.cseq + leg.own)
        self._watch_end(request)
        return found if leg.own else None

    def _watch_end(self, request: Request) -> Renumbering | None:
        """A BYE ends the dialog; its repetitions, and what crosses it, are renumbered all the same."""
        if request.method == b"BYE":
            for tag in (request.to_tag, request.from_tag):
                leg = self._legs.get((request.call_id, tag))
                if leg is not None:
                    self._timers.after(2 * self._linger, self._forget, ((request.call_id, tag), leg))
        return None

    def _forget(self, known: tuple[Dialog, Leg]) -> None:
        dialog, leg = known
        if self._legs.get(dialog) is leg:
            del self._legs[dialog]

    def __len__(self) -> int:
        return len(self._legs)
