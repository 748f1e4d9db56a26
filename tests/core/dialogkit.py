"""A stage for what passes inside dialogs: alice calls bob, who has two phones; all are peers that do as told.

A `Side` is one party of a dialog, early or answered: it writes requests as RFC 3261 §12.2.1.1 says, with its own
numbers, and knows what the other side has to receive.
"""

from __future__ import annotations

from typing import Any

from orchestrator.flow.loader import Source, load_sources
from orchestrator.history import CallRecord
from orchestrator.sip.message import Request, Response
from orchestrator.sip.points import ListenPoint
from orchestrator.testing.invariants import without_end
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
BOB = "sip:bob@example.com"
RELAY = "  main:\n    on: invite\n    do: [{relay: {to: registered, ring: 60s}}]\n"


class Side:
    """One party of a dialog. `number` is the last CSeq it has used."""

    def __init__(
        self, stage: Stage, peer: Peer, local: str, remote: str, target: str, routes: list[str], number: int
    ) -> None:
        self.stage = stage
        self.peer = peer
        self.local = local
        self.remote = remote
        self.target = target
        self.routes = routes
        self.number = number

    def ask(self, method: str, *headers: str, **more: Any) -> Ask:
        """A request inside the dialog."""
        if method != "ACK":
            self.number += 1
        lines = [f"Route: {route}" for route in self.routes] + list(headers)
        number = more.pop("cseq", self.number)
        ask = self.peer.ask(
            method, self.target, *lines, sender=self.local, to=self.remote, call_id="one", cseq=number, **more
        )
        self.stage.world.run()
        return ask


def _values(message: Request | Response) -> list[str]:
    return [f"<{(route.uri or b'').decode()}>" for route in message.record_routes()]


class Stage:
    """`flows` are the flows; none for a call that no flow takes. `transports` are alice's and that of bob's phones."""

    def __init__(
        self, flows: str = RELAY, head: str = "", transports: tuple[str, str] = ("udp", "udp"), **settings: Any
    ) -> None:
        program = load_sources([Source("main.flow.yaml", f"flowlang: 1\n{head}flows:\n{flows}")])[0] if flows else None
        if transports != ("udp", "udp"):
            settings["points"] = [ListenPoint("10.0.0.1", 5060 + n, name) for n, name in enumerate(TRANSPORTS)]
        self.world = World(program, **settings)
        self.said: list[str] = []
        self.records: list[CallRecord] = []
        self.world.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.world.engine.history.listen(CallRecord, self.records.append)
        near, far = transports
        self.alice = self.world.peer("alice", "10.0.0.2", transport=near)
        self.bobs = [self.world.peer(f"bob{n}", f"10.0.0.1{n}", transport=far) for n in (1, 2)]
        for bob in self.bobs:
            bob.register("bob@example.com")
        self.alice.register("alice@example.com")
        self.world.run()
        for peer in (self.alice, *self.bobs):
            peer.received.clear()

    def call(self, *headers: str) -> Ask:
        """alice calls; both phones have the INVITE."""
        self.invite = self.alice.ask("INVITE", BOB, *headers, call_id="one")
        self.world.run()
        return self.invite

    def respond(self, bob: Peer, status: int, *headers: str) -> tuple[Side, Side]:
        """A phone responds to the INVITE; alice and he, as the dialog of that response makes them."""
        invite = bob.requests("INVITE")[0]
        if status < 200:
            headers = (f"Contact: {bob.contact}", *headers)
        bob.answer(invite, status, *headers)
        self.world.run()
        return self.dialog(bob, invite)

    def dialog(self, bob: Peer, invite: Request) -> tuple[Side, Side]:
        tag = bob.name.encode()
        response = [r for r in self.invite.responses if r.to_tag == tag][-1]
        sender, receiver = (response.get(b"from") or b"").decode(), (response.get(b"to") or b"").decode()
        alice = Side(self, self.alice, sender, receiver, bob.contact.strip("<>"), _values(response)[::-1], 1)
        there = Side(self, bob, receiver, sender, self.alice.contact.strip("<>"), _values(invite), 100)
        return alice, there

    def answered(self) -> tuple[Side, Side]:
        """The call between alice and the second phone, acknowledged."""
        self.call()
        for bob in self.bobs:
            bob.answer(bob.requests("INVITE")[0], 180)
        self.world.run()
        alice, bob2 = self.respond(self.bobs[1], 200)
        self.bobs[0].answer(self.bobs[0].requests("INVITE")[0], 487)
        alice.ask("ACK", cseq=1)
        self.world.run()
        return alice, bob2

    def got(self, peer: Peer, method: str) -> Request:
        """The last request of this method that has come to a peer."""
        return peer.requests(method)[-1]

    def over(self) -> None:
        """Nothing is left."""
        self.world.run(100)
        assert without_end(self.world.engine) == []
        assert not any(self.world.leftovers().values())
