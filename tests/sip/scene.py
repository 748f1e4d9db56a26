"""A call to bob, who has several phones: the stage for the proxy's tests. All of them are `Peer`s, told what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"


class Scene:
    """alice at 10.0.0.2, bob's phones at 10.0.0.11, .12, … registered with the q values given."""

    def __init__(self, phones: int = 1, **settings: Any) -> None:
        self.world = World(**settings)
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.phones = [self.add_phone() for _ in range(phones)]

    def add_phone(self, register: bool = True) -> Peer:
        number = sum(peer.name.startswith("bob") for peer in self.world.peers.values()) + 1
        phone = self.world.peer(f"bob{number}", f"10.0.0.{10 + number}")
        if register:
            assert self.do(phone.register("bob@example.com")).statuses == [200]
            phone.received.clear()
            phone.raw.clear()
            self.world.sent.clear()
        return phone

    def do(self, ask: Ask) -> Ask:
        """Let what was asked happen, without time passing."""
        self.run()
        return ask

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)

    def call(self, *headers: str, **more: Any) -> Ask:
        """alice's INVITE to bob, delivered."""
        return self.do(self.alice.ask("INVITE", BOB, *headers, **more))

    def answer(self, phone: Peer, status: int, *headers: str, **more: Any) -> bytes:
        """A response of this phone to the INVITE it got, delivered."""
        octets = phone.answer(phone.requests("INVITE")[0], status, *headers, **more)
        self.run()
        return octets

    def quiet(self, calls: Sequence[Ask] = ()) -> None:
        """Nothing is left when every timer had its turn; `calls` get their ACK first."""
        for call in calls:
            call.acknowledge()
        self.run(64.0)
        assert not any(self.world.leftovers().values()), self.world.leftovers()
        assert self.world.engine.layer.unanswered == 0
        timers = self.world.engine.timers
        assert len(timers) <= 1, "only the expiry of the registrations is still to come"
