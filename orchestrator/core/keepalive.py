"""Keeps the way to registered phones open, and finds those that are gone: OPTIONS to each contact in turn.

A NAT forgets a phone that nothing is sent to; mostly after half a minute over UDP. So each contact that is reached
where it was seen, not where it says (`sip.routing.is_elsewhere`), is sent an OPTIONS every `every` seconds, from the
point it registered at and over its connection. They are spread over that time, one contact a moment.

Any final answer shows that the phone is there. One that has answered before and then leaves `missed` in a row without
one is gone: its contact is removed, which is the event `unregistered`. One that is woken by push may sleep: it gets
none. One that has never answered may ignore OPTIONS, or be somebody whose address was forged in a REGISTER over UDP:
its pings are not repeated, and after `TRIES` of them it is left alone until it registers again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.core.node import Node
from orchestrator.core.probes import options
from orchestrator.core.settings import PingPolicy
from orchestrator.errors import MalformedMessage
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.sip.target import Target
from orchestrator.timers import Timer

BATCH: Final = 20
"""Contacts that one turn pings at most."""
TRIES: Final = 3
"""Pings without an answer to a phone that has never answered one."""
TICK: Final = 0.02
"""Seconds between two turns that are behind."""


class Pinged:
    """One contact, as long as it is registered: the transaction user of its pings."""

    __slots__ = ("aor", "contact", "due", "has_answered", "missed", "under_way")

    def __init__(self, aor: str, contact: bytes, due: float) -> None:
        self.aor = aor
        self.contact = contact
        self.due = due
        self.has_answered = False
        self.missed = 0
        self.under_way: ClientTransaction | None = None

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status >= 200:
            self.under_way = None
            self.has_answered = True
            self.missed = 0

    def on_timeout(self, client: ClientTransaction) -> None:
        self.miss()

    def on_unreachable(self, client: ClientTransaction) -> None:
        self.miss()

    def miss(self) -> None:
        self.under_way = None
        self.missed += 1


class Keepalive:
    """The pings of one engine. `bindings_of(aor)` are the live bindings of an address, `target_of` gives the way to
    one, `lost(binding)` removes it."""

    def __init__(
        self,
        node: Node,
        policy: PingPolicy,
        bindings_of: Callable[[str], Sequence[Binding]],
        target_of: Callable[[Binding], Target],
        lost: Callable[[Binding], None],
    ) -> None:
        self._node = node
        self._policy = policy
        self._bindings_of = bindings_of
        self._target_of = target_of
        self._lost = lost
        self._known: dict[tuple[str, bytes], Pinged] = {}
        self._queue: deque[Pinged] = deque()
        """By the time they are due: each waits the same time, so whoever comes last is due last."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Contacts that are pinged."""
        return len(self._known)

    def begin(self, bindings: Sequence[Binding]) -> None:
        """Take what is registered at the start, spread over the time between two pings."""
        if self._policy.phones == "none":
            return
        wanted = [binding for binding in bindings if self._wants(binding)]
        for number, binding in enumerate(wanted):
            self._add(binding, self._policy.every * number / len(wanted))
        self._arm()

    def heard(self, changes: Sequence[Change]) -> None:
        """What has been registered. A contact that has been heard has answered nothing, but it is there."""
        if self._policy.phones == "none":
            return
        for change in changes:
            pinged = self._known.get((change.binding.aor, change.binding.contact))
            if not change.stands:
                continue  # it is found gone when its turn comes
            if pinged is not None:
                pinged.missed = 0
            elif self._wants(change.binding):
                self._add(change.binding, self._policy.every)
                self._arm()

    def _wants(self, binding: Binding) -> bool:
        phones = self._policy.phones
        if phones == "none" or (phones != "all" and binding.received is None):
            return False
        return not (binding.path or binding.mobile)  # an edge proxy looks after its own

    def _add(self, binding: Binding, delay: float) -> None:
        pinged = Pinged(binding.aor, binding.contact, self._node.timers.now + delay)
        if self._queue and pinged.due < self._queue[-1].due:
            pinged.due = self._queue[-1].due
        self._known[binding.aor, binding.contact] = pinged
        self._queue.append(pinged)

    def _arm(self) -> None:
        if self._queue and (self._timer is None or not self._timer.armed):
            delay = max(TICK, self._queue[0].due - self._node.timers.now)
            self._timer = self._node.timers.after(delay, Keepalive._turn, self)

    def _turn(self) -> None:
        """The next ones, a few at a time."""
        now, queue = self._node.timers.now, self._queue
        for _ in range(BATCH):
            if not queue or queue[0].due > now:
                break
            pinged = queue.popleft()
            if self._goes_on(pinged):
                pinged.due = now + self._policy.every
                queue.append(pinged)
            else:
                del self._known[pinged.aor, pinged.contact]
        self._arm()

    def _goes_on(self, pinged: Pinged) -> bool:
        """Ping it once more, unless it is not registered any more or gone."""
        client = pinged.under_way
        if client is not None:  # it has had all the time between two pings
            client.end()
            pinged.miss()
        found = (b for b in self._bindings_of(pinged.aor) if b.contact == pinged.contact)
        binding = next(found, None)
        if binding is None or not self._wants(binding):
            return False
        if not pinged.has_answered and pinged.missed >= TRIES:
            return False
        missed = self._policy.missed
        if missed and pinged.has_answered and pinged.missed >= missed:
            self._node.count("registration.lost")
            self._lost(binding)
            return False
        self._ping(pinged, self._target_of(binding))
        return True

    def _ping(self, pinged: Pinged, target: Target) -> None:
        network = self._node.network

        def send(hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
            if hop is None or pinged.under_way is not None:
                return
            branch = network.tokens.branch()
            octets = options(target.uri, hop.point.via + branch, hop.point.uri, network.tokens)
            self._node.count("registration.ping")
            client = pinged.under_way = self._node.layer.open_client(branch, b"OPTIONS", octets, hop, pinged)
            if not pinged.has_answered:
                client.stop_timers()
                client.start_end_timer(self._policy.every, client.end_timer)

        if target.hop is not None:
            send(target.hop)
            return
        try:
            toward = target.first_hop()
        except MalformedMessage:  # only a damaged store holds one
            return
        network.resolve(toward, network.points[0], send, by=target.point)
