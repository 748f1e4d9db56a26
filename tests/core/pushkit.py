"""For tests of push: a phone of bob that sends REGISTERs line by line, and whoever answers the pushes."""

from __future__ import annotations

from typing import Any

from orchestrator.core.jobs import Job
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Response
from orchestrator.sip.push import Push, Pushed, PushPolicy, PushService
from orchestrator.testing.world import World

AOR = "bob@example.com"
SERVICES = (PushService("apple", "apns"), PushService("google", "fcm"))
APNS = "pn-provider=apns;pn-param=ABCD1234EF.com.example.app.voip;pn-prid=t1"
FCM = "pn-provider=fcm;pn-param=project;pn-prid=t2"


class Desk:
    def __init__(self, policy: PushPolicy | None = None, **settings: Any) -> None:
        self.world = World(push=policy or PushPolicy(), **settings)
        self.phone = self.world.peer("bob", "10.0.0.11")
        self.cseq = 0

    def register(self, *headers: str, call_id: str = "r1", to: str = AOR) -> Response:
        self.cseq += 1
        ask = self.phone.ask("REGISTER", "sip:example.com", *headers, to=f"<sip:{to}>", call_id=call_id, cseq=self.cseq)
        self.world.run()
        return ask.final

    @property
    def bindings(self) -> list[Binding]:
        return list(self.world.location.bindings(AOR, self.world.engine.wall))


def contact(params: str, tail: str = "", host: str = "10.0.0.11") -> str:
    return f"Contact: <sip:bob@{host};{params}>{tail}"


class Pushes:
    """What is pushed, and what the services say to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answer: Any = Pushed("sent", id="1")
        self.sent: list[tuple[float, Push]] = []
        self._otherwise = world.on_job
        world.on_job = self._on_job

    def _on_job(self, job: Job) -> Any:
        if not isinstance(job.effect, Push):
            return self._otherwise(job)
        self.sent.append((round(self.world.now, 1), job.effect))
        return self.answer

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.sent]
