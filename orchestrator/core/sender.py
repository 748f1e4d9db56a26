"""Who has sent the datagram of this turn, and what it costs him; see `sip.admission`."""

from __future__ import annotations

from orchestrator.core.node import Node
from orchestrator.sip.admission import FULL, NOBODY, Admission, Source
from orchestrator.sip.fitting import fit, room_for
from orchestrator.sip.message import Request
from orchestrator.sip.points import Hop
from orchestrator.sip.server import ServerTransaction


class Sender:
    """One for an engine, another source in each turn."""

    def __init__(self, node: Node, admission: Admission) -> None:
        self.source = NOBODY
        """The source of the datagram of this turn."""
        self.octets = 0
        """Size of that datagram."""
        self.admission = admission
        admission.on_ban = self._tell_ban
        self._tell = node.tell
        self._timers = node.timers
        self._layer = node.layer
        self._most = node.settings.limits.transactions

    def _tell_ban(self, source: Source) -> None:
        self._tell(
            "source_banned",
            source=source.name,
            reason=source.banned_for,
            seconds=round(source.banned_until - source.banned_since),
            proved=self.admission.is_proved(source, self._timers.now),
        )

    def charge(self, points: float) -> None:
        """Take points from the source."""
        self.admission.charge(self.source, points, self._timers.now)

    def prove(self) -> None:
        """The source has shown that it gets what we send to its address."""
        self.admission.prove(self.source, self._timers.now)

    @property
    def is_proved(self) -> bool:
        return self.admission.is_proved(self.source, self._timers.now)

    @property
    def room(self) -> int:
        """Octets that an answer to a source that has not proved itself may have."""
        return room_for(self.octets)

    def fitting(self, answer: bytes) -> bytes:
        """An answer to the datagram of this turn, made small for a source that has not proved itself."""
        return answer if self.is_proved else fit(answer, self.room)

    def refused(self, status: int) -> None:
        """A request of the source was refused without a transaction."""
        self.admission.refused(self.source, status, self._timers.now)

    def open(self, request: Request, destination: Hop) -> ServerTransaction:
        """A transaction for a request that begins something, counted for its source."""
        server = self._layer.open_server(request, destination)
        if not self.source.exempt:
            server.charge_to(self.admission, self.source, self.room)
        return server

    def has_too_much(self, request: Request) -> bool:
        """Whether the source has as many requests under way as its share allows; a new one costs it points."""
        source, now = self.source, self._timers.now
        if source.exempt:
            return False
        self.admission.asked(source, request.method, now)
        full = self.admission.is_full(source, self._most, now)
        if full:
            self.charge(FULL)
        return full
