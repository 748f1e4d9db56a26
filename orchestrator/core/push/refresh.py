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
        self._room = 0
        """Entries before the holes are taken out."""
        if pusher.policy.services and pusher.policy.refresh:
            self._rebuild()
            registrations.hearers.append(self.heard)
            self._arm()

    def heard(self, changes: Sequence[Change]) -> None:
        """What has been registered."""
        for change in changes:
            if change.stands:
                self._enter(change.binding)
        if len(self._due) > self._room:  # phones that register long before they have to leave holes
            self._rebuild()
        self._arm()

    def __len__(self) -> int:
        """Pushes to come, those included that turn out to be needless."""
        return len(self._due)

    def _rebuild(self) -> None:
        found = map(self._entry, self._registrations.location)
        self._due = [entry for entry in found if entry is not None]
        self._room = 2 * len(self._due) + 1_000
        heapify(self._due)

    def _enter(self, binding: Binding) -> None:
        entry = self._entry(binding)
        if entry is not None:
            heappush(self._due, entry)

    def _entry(self, binding: Binding) -> tuple[float, float, str] | None:
        """The next push of a binding; None for one that needs none any more. Whether a service serves it is looked at
        then."""
        refresh, end = self._pusher.policy.refresh, binding.expires_at
        if not asks_for_push(binding.contact) or binding.wakes_itself or binding.woken_upstream:
            return None
        if end - binding.registered_at <= refresh or not self._registrations.is_ours(binding):
            return None  # too short for it to be woken in time: it was promised nothing
        left, wall = refresh, self._node.wall
        while left >= LAST and end - left <= wall:
            left /= 2
        return (end - left, end, binding.aor) if left >= LAST else None

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
        wall, left, bindings_of = self._node.wall, BATCH, self._registrations.bindings_of
        while self._due and self._due[0][0] <= wall and left > 0:
            _, end, aor = heappop(self._due)
            left -= sum(self._push(binding, end - wall) for binding in bindings_of(aor) if binding.expires_at == end)
        self._arm()

    def _push(self, binding: Binding, left: float) -> bool:
        """Push to a phone whose binding ends in `left` seconds. False for one that is not to be pushed now."""
        pusher = self._pusher
        if pusher.service_of(binding) is None:
            return False
        self._enter(binding)
        if self._node.draining or pusher.pushed_lately(binding, SETTLE):
            return False
        if pusher.send(binding, "refresh", ttl=left, collapse="refresh"):
            self._node.count("push.refresh")
        return True
