"""Pushes to phones that sleep while their registration runs out, so that they register again in time (RFC 8599 §5.5).

A phone that does not wake by itself (`+sip.pnsreg`) is pushed `refresh` seconds before its binding ends, once more when
half of that is left, and so on: a phone without a network gets the push when it comes back, or not at all. A REGISTER
ends that; a binding that has ended is pushed no more (§5.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from orchestrator.core.node import Node
from orchestrator.core.push.pusher import Pusher
from orchestrator.core.registrations import Registrations
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.push import asks_for_push
from orchestrator.timers import Timer

LAST: Final = 15.0
"""Seconds before the end of a binding after which a push would come too late."""
SETTLE: Final = 10.0
"""Seconds that a phone has to register after another push: for a call, or for its other binding (§4.1.3)."""
BATCH: Final = 20
"""Phones that one turn pushes at most."""
TICK: Final = 0.02
"""Seconds between two turns that are behind: 1,000 phones a second, which is many after a long stop."""


class Refreshes:
    """Those of one engine."""

    def __init__(self, node: Node, pusher: Pusher, registrations: Registrations) -> None:
        """What is registered at the start is taken as well."""
        self._node = node
        self._pusher = pusher
        self._registrations = registrations
        self._due: list[tuple[float, float, str]] = []
        """Heap of (time of the push, end of the binding, address); those of bindings refreshed since are holes."""
        self._timer: Timer | None = None
        if pusher.policy.services and pusher.policy.refresh:
            self._due = [entry for binding in registrations.location if (entry := self._first(binding)) is not None]
            heapify(self._due)
            registrations.hearers.append(self.heard)
            self._arm()

    def heard(self, changes: Sequence[Change]) -> None:
        """What has been registered."""
        for change in changes:
            entry = self._first(change.binding) if change.stands else None
            if entry is not None:
                heappush(self._due, entry)
        self._arm()

    def __len__(self) -> int:
        """Pushes to come, those included that turn out to be needless."""
        return len(self._due)

    def _first(self, binding: Binding) -> tuple[float, float, str] | None:
        """Its first push; None for a phone that needs none. Whether a service serves it is looked at then."""
        if not asks_for_push(binding.contact) or binding.wakes_itself or binding.woken_upstream:
            return None
        if binding.expires_at - binding.registered_at <= self._pusher.policy.refresh or not self._registrations.is_ours(
            binding
        ):
            return None  # too short for it to be woken in time: it was promised nothing
        return binding.expires_at - self._pusher.policy.refresh, binding.expires_at, binding.aor

    def _arm(self) -> None:
        if not self._due:
            return
        timers = self._node.timers
        delay = max(TICK, self._due[0][0] - self._node.wall)
        timer = self._timer
        if timer is None or not timer.armed or timer.when > timers.now + delay:
            if timer is not None:
                timer.cancel()
            self._timer = timers.after(delay, Refreshes._turn, self)

    def _turn(self) -> None:
        """What is due, a few phones at a time."""
        wall, left = self._node.wall, BATCH
        while self._due and self._due[0][0] <= wall and left > 0:
            _, end, aor = heappop(self._due)
            left -= sum(
                self._push(binding, end - wall)
                for binding in self._registrations.bindings_of(aor)
                if binding.expires_at == end
            )
        self._arm()

    def _push(self, binding: Binding, left: float) -> bool:
        """Push to a phone whose binding ends in `left` seconds. False for one that is not to be pushed any more."""
        pusher = self._pusher
        if left < LAST or self._first(binding) is None or pusher.service_of(binding) is None:
            return False
        heappush(self._due, (binding.expires_at - left / 2, binding.expires_at, binding.aor))
        if self._node.draining or pusher.pushed_lately(binding, SETTLE):
            return False
        if pusher.send(binding, "refresh", ttl=left, collapse="refresh"):
            self._node.count("push.refresh")
        return True
