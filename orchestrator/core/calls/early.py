"""Early dialogs of a call: what its parties say in them before anybody has answered (RFC 3261 §12.1, RFC 3262, 3311).

An INVITE that forks makes an early dialog with each phone that rings. PRACK and UPDATE use up sequence numbers in it,
and an UPDATE of the caller says where he is reached from now on. Whoever answers has a dialog that goes on from there:
a BYE of ours with a number that the phone has had is out of order for it (§12.2.2), and the call would not end.
"""

from __future__ import annotations

from orchestrator.sip.dialog import Leg, refreshed_target
from orchestrator.sip.message import Request, Response

MOST = 60
"""Early dialogs that are followed, and reliable responses that are remembered, for one call: as many as it has
branches."""


class EarlyDialog:
    """One of them, followed: the last numbers of both sides, and where the opener is reached, if he has said so."""

    __slots__ = ("from_opener", "to_opener", "opener_target")

    def __init__(self) -> None:
        self.from_opener = 0
        self.to_opener = 0
        self.opener_target: bytes | None = None


class EarlyDialogs:
    """Those of one call, by Call-ID and tag of the called side."""

    __slots__ = ("_dialogs", "_reliable")

    def __init__(self) -> None:
        self._dialogs: dict[tuple[bytes, bytes | None], EarlyDialog] = {}
        self._reliable: set[tuple[bytes | None, bytes]] = set()

    def follow(self, request: Request, by_opener: bool) -> None:
        """A request of one of them is on its way through us."""
        dialog = self._of(request.call_id, request.to_tag if by_opener else request.from_tag)
        if dialog is None:
            return
        if by_opener:
            dialog.from_opener = max(dialog.from_opener, request.cseq)
            dialog.opener_target = refreshed_target(request) or dialog.opener_target
        else:
            dialog.to_opener = max(dialog.to_opener, request.cseq)

    def follow_answer(self, request: Request, response: Response, by_opener: bool) -> None:
        """A 2xx to an UPDATE of the called side, which the opener has sent: it refreshes his target, too."""
        dialog = None if by_opener else self._of(request.call_id, request.from_tag)
        if dialog is not None:
            dialog.opener_target = refreshed_target(response) or dialog.opener_target

    def _of(self, call_id: bytes, tag: bytes | None) -> EarlyDialog | None:
        found = self._dialogs.get((call_id, tag))
        if found is None and len(self._dialogs) < MOST:
            found = self._dialogs[call_id, tag] = EarlyDialog()
        return found

    def answered(self, call_id: bytes, tag: bytes | None, opener: Leg | None, answerer: Leg | None) -> None:
        """The phone with this tag has answered: its dialog goes on from what was said in the early one."""
        dialog = self._dialogs.get((call_id, tag))
        if dialog is None:
            return
        if opener is not None:
            opener.cseq = max(opener.cseq, dialog.to_opener)
            opener.target = dialog.opener_target or opener.target
        if answerer is not None:
            answerer.cseq = max(answerer.cseq, dialog.from_opener)

    def is_repetition(self, response: Response) -> bool:
        """Whether a reliable provisional response has come before: it is repeated until its PRACK comes (RFC 3262
        §3)."""
        number = response.get(b"rseq")
        if number is None:
            return False
        known = (response.to_tag, number)
        if known in self._reliable:
            return True
        if len(self._reliable) < MOST:
            self._reliable.add(known)
        return False
