"""Phones that sleep, push services that answer when they are told to, and callers; for tests of calls that wait."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.jobs import Job, Write
from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Request
from orchestrator.sip.push import Push, Pushed, PushPolicy, PushService
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World, perform_write

AOR, BOB = "bob@example.com", "sip:bob@example.com"
APNS = PushService("apns", "apns")
FCM = PushService("fcm", "fcm", cancels=False)


def push_parameters(token: str, service: str = "apns") -> str:
    return f"pn-provider={service};pn-param=DEF123GHIJ.com.example.app;pn-prid={token}"


class Night:
    """alice calls bob, whose phones sleep. `answer` is what push services say at once; None: when they are told to."""

    def __init__(self, program: Any = None, *, wake: float = 20.0, per_phone: int = 100, **settings: Any) -> None:
        policy = PushPolicy((APNS, FCM), wake=wake, per_phone=per_phone)
        self.world = World(program, push=policy, **settings)
        self.engine = self.world.engine
        self.world.on_job = self._on_job
        self.answer: Pushed | None = Pushed("sent")
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.said: list[str] = []
        self.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.cseq = 0
        self.writes_wait = False
        """A location store that answers later does so when it is told to."""

    def _on_job(self, job: Job) -> Any:
        if isinstance(job.effect, Push):
            return self.answer or self.world.LATER
        if isinstance(job.effect, Write):
            return self.world.LATER if self.writes_wait else perform_write(job.effect)
        return None

    def store_now(self, error: Exception | None = None) -> None:
        """The location store does what it was asked for last, or fails."""
        job = [job for job in self.world.jobs if isinstance(job.effect, Write)][-1]
        if error is None and isinstance(job.effect, Write):
            job.effect.work()
        self.engine.complete(job.id, error, self.world.now)
        self.world.run()

    # --- phones -----------------------------------------------------------------------------------------------------

    def register(self, peer: Peer, token: str = "", *, service: str = "apns", aor: str = AOR, more: str = "") -> Ask:
        """A REGISTER of a phone, from where it is, with its push token if it has one."""
        self.cseq += 1
        uri = peer.contact.strip("<>") + (f";{push_parameters(token, service)}" if token else "")
        ask = peer.register(aor, f"<{uri}>{more}", cseq=self.cseq)
        self.world.run()
        assert ask.statuses == [200]
        return ask

    def phone(self, name: str, host: str, token: str = "", **more: Any) -> Peer:
        """A phone that has registered a moment ago."""
        peer = self.world.peer(name, host)
        self.register(peer, token, **more)
        peer.received.clear()
        return peer

    def stored(self, name: str, host: str, token: str = "") -> Peer:
        """The same, without a word on the wires."""
        peer, wall = self.world.peer(name, host), self.engine.wall
        uri = peer.contact.strip("<>") + (f";{push_parameters(token)}" if token else "")
        call_id = f"register-{AOR}-{name}".encode()
        binding = Binding(AOR, uri.encode(), wall + 3600, call_id=call_id, registered_at=wall)
        self.world.location.save(AOR, [binding], wall)
        return peer

    def sleeper(self, name: str = "bob", host: str = "10.0.0.11", token: str = "T1", **more: Any) -> Peer:
        """A phone that has registered, and sleeps."""
        peer = self.phone(name, host, token, **more)
        self.world.run(31)
        return peer

    # --- pushes -----------------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> Sequence[Job]:
        return [job for job in self.world.jobs if isinstance(job.effect, Push)]

    @property
    def pushes(self) -> list[tuple[str, str]]:
        """Kind and token of each."""
        return [(job.effect.kind, job.effect.address.token) for job in self.jobs if isinstance(job.effect, Push)]

    def told(self, number: int = -1, outcome: Any = "sent", reason: str = "") -> None:
        """A push service answers."""
        self.engine.complete(self.jobs[number].id, Pushed(outcome, reason), self.world.now)
        self.world.run()

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, uri: str = BOB, *headers: str, method: str = "INVITE", peer: Peer | None = None) -> Ask:
        ask = (peer or self.alice).ask(method, uri, *headers)
        self.world.run()
        return ask

    def rung(self, *peers: Peer, method: str = "INVITE") -> list[int]:
        """How many copies of requests each has got."""
        return [len({request.via.branch for request in peer.requests(method)}) for peer in peers]

    def reply(self, peer: Peer, status: int, method: str = "INVITE", number: int = -1) -> Request:
        request = peer.requests(method)[number]
        peer.answer(request, status)
        self.world.run()
        return request

    def quiet(self, *calls: Ask) -> None:
        """Nothing is left of it all."""
        for call in calls:
            if call.final.status >= 300 and call.method == b"INVITE":
                call.acknowledge()
        self.world.run(70)
        left = self.world.leftovers()
        assert not any(left.values()), left
        assert len(self.engine.wakers) == 0
        assert self.engine.layer.unanswered == 0
        assert self.engine.faults.count == 0
        assert self.engine.flows.stats.faults == 0


def program(folder: Path, steps: str, on: str = "invite", top: str = "") -> Any:
    path = folder / "main.flow.yaml"
    path.write_text(f"flowlang: 1\n{top}flows:\n  main:\n    on: {on}\n    do:\n{steps}", encoding="utf-8")
    return load_program([path])[0]
