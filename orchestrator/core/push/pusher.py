"""Pushes to phones (RFC 8599 §5.3): which phones sleep, how many pushes one gets, and what becomes of the answers.

A push is a job; its result says whether the push service has taken it. What cannot be reached at this address any more
is not registered any more (`dead`), unless it has registered since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from orchestrator.core.node import Node
from orchestrator.core.push.room import MINUTE, PushRoom
from orchestrator.sip.contact import Contact
from orchestrator.sip.location import Binding
from orchestrator.sip.push import Push, Pushed, PushKind, PushPolicy, PushService

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

Done = Callable[[Pushed], object]


class Sending:
    """One push under way: whom the result of its job is for."""

    __slots__ = ("binding", "push", "at", "_done", "_pusher")

    def __init__(self, pusher: Pusher, binding: Binding, push: Push, at: float, done: Done | None) -> None:
        self.binding = binding
        self.push = push
        self.at = at
        """When it was sent, in seconds since the epoch."""
        self._done = done
        self._pusher = pusher

    def __call__(self, result: Any) -> None:
        pushed = result if isinstance(result, Pushed) else Pushed("failed", str(result))
        self._pusher.ended(self, pushed)
        if self._done is not None:
            self._done(pushed)


class Pusher:
    """The pushes of one engine."""

    def __init__(self, node: Node, policy: PushPolicy, dead: Callable[[Binding, float], object]) -> None:
        """`dead(binding, since)` removes whoever is registered at the push address of this binding and has not
        registered after `since`, in seconds since the epoch."""
        self.policy = policy
        self._node = node
        self._dead = dead
        self.room = PushRoom(policy.per_phone)

    # --- who sleeps ---------------------------------------------------------------------------------------------------

    def service_of(self, binding: Binding) -> PushService | None:
        """Who pushes to this phone; None for nobody."""
        return self.policy.service_of(binding.push_address) if self.policy.services else None

    def sleeps(self, binding: Binding) -> bool:
        """Whether a phone is to be woken before it is sent anything: a push service serves it, and it is not awake. One
        that has registered over a connection sleeps when that has ended."""
        if self.service_of(binding) is None:
            return False
        return self.is_cut_off(binding) or self._node.wall - binding.registered_at >= self.policy.awake

    def is_cut_off(self, binding: Binding) -> bool:
        """Whether nothing reaches a phone but a push: it registered over a connection, and that has ended."""
        point = self._node.network.point_called(binding.point)
        return point is not None and point.reliable and not binding.path and not binding.connection

    # --- pushes -------------------------------------------------------------------------------------------------------

    def send(
        self,
        binding: Binding,
        kind: PushKind,
        done: Done | None = None,
        *,
        ttl: float,
        call: str = "",
        collapse: str = "",
        data: Mapping[str, Any] = NOTHING,
        options: Mapping[str, Mapping[str, Any]] = NOTHING,
    ) -> bool:
        """Push to a phone; `done(result)` is told in a later turn. False when nobody serves it or it has had
        `per_phone` pushes in the last minute: then nothing is sent, and `done` is not told.

        `options` are what a step says to push services, by their names in the configuration. For the others see `Push`.
        """
        address = binding.push_address
        service = self.policy.service_of(address)
        if address is None or service is None:
            return False
        push = Push(
            service.name, address, kind, ttl, binding.aor, call, collapse, data, options.get(service.name, NOTHING)
        )
        if not self.room.take(address, binding.aor, self._node.now):
            self._node.count("push.limited")
            self._tell_failure(binding, push, Pushed("failed", "too many pushes to this phone (push: per_phone)"))
            return False
        self._node.job(push, Sending(self, binding, push, self._node.wall, done))
        return True

    def ended(self, sending: Sending, pushed: Pushed) -> None:
        """The push service has answered, or cannot."""
        push, binding = sending.push, sending.binding
        self._node.count(f"push.{pushed.outcome}")
        if pushed.outcome == "sent":
            contact = Contact(binding, short=True)
            self._node.tell(
                "push_sent",
                call=push.call,
                aor=push.aor,
                contact=contact,
                service=push.service,
                kind=push.kind,
                id=pushed.id,
            )
            return
        self._tell_failure(binding, push, pushed)
        if pushed.outcome == "dead":
            self._dead(binding, sending.at if pushed.since is None else pushed.since)

    def pushed_lately(self, binding: Binding, seconds: float) -> bool:
        """Whether a push was sent to this phone in the last `seconds`, of a minute at most."""
        address = binding.push_address
        last = self.room.last(address) if address is not None else None
        return last is not None and self._node.now - last <= min(seconds, MINUTE)

    def _tell_failure(self, binding: Binding, push: Push, pushed: Pushed) -> None:
        dead = pushed.outcome == "dead"
        contact = Contact(binding, short=True)
        facts = {"aor": push.aor, "contact": contact, "service": push.service, "reason": pushed.reason, "dead": dead}
        self._node.tell("push_failed", call=push.call, kind=push.kind, **facts)
        self._node.publish("push_failed", facts)
