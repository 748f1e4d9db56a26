"""The third step of an INVITE: which answered dialogs still wait for their ACK (RFC 3261 §13.2.2.4, §13.3.1.4, §15).

A 2xx travels without a transaction's help: the callee repeats it until the ACK comes, and nobody else does. Who ends
the call in between breaks that off. §15 forbids it to the callee's side, for a BYE may reach a caller who has not got
his 2xx: he answers 481, the callee, who has got one too, is silent, and the caller waits for ever. A proxy that hangs
up speaks for both sides and so has to wait as the callee does: until the ACK has passed, or until 64*T1 after the 2xx,
when no ACK will come any more.

Here stands who waits. A dialog is known by its Call-ID, the caller's tag and the callee's. Two calls may have the same
one (a spiral): the one ACK is for both.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.sip.message import Request
from orchestrator.timers import Timer, Timers

Dialog = tuple[bytes, bytes | None, bytes | None]
"""Call-ID, tag of the caller, tag of the callee."""


class Party(Protocol):
    """Who has an interest in a dialog whose ACK is awaited."""

    def on_confirmed(self) -> None:
        """The ACK has passed, or its time is over."""

    def on_unconfirmed_request(self, request: Request, from_caller: bool) -> None:
        """Another request of the dialog is passing, from that side, while something is held back."""


class Handshake:
    """One answered INVITE whose ACK has not been seen. It costs no timer as long as nobody waits for it."""

    __slots__ = ("dialog", "party", "_ends", "_timer", "_table")

    def __init__(self, table: Handshakes, dialog: Dialog, party: Party, ends: float) -> None:
        self.dialog = dialog
        self.party = party
        self._table = table
        self._ends = ends
        self._timer: Timer | None = None

    @property
    def held(self) -> bool:
        """Something waits for the ACK."""
        return self._timer is not None

    def hold(self) -> None:
        """Have the party told at 64*T1 after the 2xx, should no ACK come before."""
        if self._timer is None:
            timers = self._table.timers
            self._timer = timers.after(max(0.0, self._ends - timers.now), Handshake._over, self)
            self._table.held += 1

    def drop(self) -> None:
        """Nobody is interested any more. Idempotent."""
        self._table.forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._table.held -= 1

    def _over(self) -> None:
        self.drop()
        self.party.on_confirmed()

    def __repr__(self) -> str:
        return f"<Handshake {self.dialog[0]!r} {'held' if self.held else 'open'}>"


class Handshakes:
    """All of one engine; `patience` is 64*T1."""

    __slots__ = ("timers", "held", "_patience", "_open")

    def __init__(self, timers: Timers, patience: float) -> None:
        self.timers = timers
        self.held = 0
        """Dialogs for which something is held back."""
        self._patience = patience
        self._open: dict[Dialog, list[Handshake]] = {}

    def begin(self, dialog: Dialog, party: Party) -> Handshake:
        """A 2xx has gone to the caller just now."""
        handshake = Handshake(self, dialog, party, self.timers.now + self._patience)
        self._open.setdefault(dialog, []).append(handshake)
        return handshake

    def acknowledged(self, ack: Request) -> None:
        """The ACK to a 2xx is on its way to the callee."""
        for handshake in self._open.get((ack.call_id, ack.from_tag, ack.to_tag), ())[:]:
            handshake._over()

    def passes(self, request: Request) -> None:
        """Any other request of a dialog is on its way: whoever holds something back has to know of it."""
        if not self.held:
            return
        call_id, sender, receiver = request.call_id, request.from_tag, request.to_tag
        for dialog, from_caller in (((call_id, sender, receiver), True), ((call_id, receiver, sender), False)):
            for handshake in self._open.get(dialog, ())[:]:
                if handshake.held:
                    handshake.party.on_unconfirmed_request(request, from_caller)

    def forget(self, handshake: Handshake) -> None:
        found = self._open.get(handshake.dialog)
        if found is not None and handshake in found:
            found.remove(handshake)
            if not found:
                del self._open[handshake.dialog]

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))
