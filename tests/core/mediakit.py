"""A stage for flows that use the media: a World with a FreeSWITCH whose applications come to what the test says."""

from __future__ import annotations

from functools import cache, partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.effects import EslCommand, EslExecute
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.recordings import Recording, block_of, rewrite
from orchestrator.testing.switch.channel import Told
from orchestrator.testing.switch.server import VirtualFreeSwitch
from orchestrator.testing.world import World

FIXTURES = Path(__file__).parents[1] / "fixtures" / "esl"
HEADER = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}
"""
ADDRESS = ("10.0.0.9", 5080)
CAUGHT = "on_error: [log: '${error.type} ${error.message}']"
"""Beside a step: its error is logged."""
PLAYED = {"response": "FILE PLAYED", "variables": {}}
OK = {"ok": True, "text": "+OK\n"}


@cache
def recorded(name: str, key: str, **headers: str) -> EslEvent:
    """An event of a recording in tests/fixtures/esl."""
    return Recording.load(FIXTURES / f"{name}.esl").find(key, 0, **headers)


class Switch(VirtualFreeSwitch):
    """One whose applications do nothing and end at once, unless the name is in `slow`: what they come to is the test's
    to say. `ran` are the applications, `commands` the API commands. `say_channels = False` keeps everything it has to
    say back until `report()`; `refuses` is a status it answers every call with."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.ran: list[EslExecute] = []
        self.commands: list[str] = []
        self.slow: set[str] = set()
        self.answers: dict[str, Any] = {}
        """Name of an application, or beginning of a command, to its result."""
        self.say_channels = True
        self.refuses = 0
        self.running: list[Job] = []
        self.world: World
        self._unsaid: list[EslEvent] = []

    def dialplan(self, call: PhoneCall) -> None:
        if self.refuses:
            call.reject(self.refuses)
        else:
            super().dialplan(call)

    def tell(self, event: EslEvent) -> None:
        if self.say_channels:
            super().tell(event)
        else:
            self._unsaid.append(event)

    def report(self) -> None:
        """Say what has been kept back."""
        self.say_channels = True
        unsaid, self._unsaid = self._unsaid, []
        for event in unsaid:
            self.tell(event)
        self.world.run()

    def emit(self, event: EslEvent, uuid: str, **headers: str | None) -> None:
        """A recorded event about a channel."""
        self.tell(EslEvent.plain(rewrite(block_of(event), {"Unique-ID": uuid, **headers})))

    def perform(self, job: Job, told: Told | None = None) -> Any:
        effect = job.effect
        if isinstance(effect, EslExecute):
            self.ran.append(effect)
            if effect.app in self.slow:
                self.running.append(job)
                return World.LATER
            return self.answers.get(effect.app, PLAYED)
        if not isinstance(effect, EslCommand):
            return World.LATER
        self.commands.append(effect.command)
        for beginning, answer in self.answers.items():
            if effect.command.startswith(beginning):
                return answer
        if effect.command.startswith("uuid_break "):
            self._break(effect.command.partition(" ")[2])
        return super().perform(job)

    def _break(self, uuid: str) -> None:
        for job in [job for job in self.running if isinstance(job.effect, EslExecute) and job.effect.uuid == uuid]:
            self.running.remove(job)
            self.after(0.02, partial(self.complete, job.id, PLAYED))

    def complete(self, job: int, result: Any) -> None:
        self.world.engine.complete(job, result, self.world.now)
        self.world.run()

    def finish(self, result: Any = PLAYED) -> EslExecute:
        """The application that has run longest ends."""
        job = self.running.pop(0)
        self.complete(job.id, result)
        assert isinstance(job.effect, EslExecute)
        return job.effect


class Stage:
    """A World with one Switch, a caller alice and two phones, and what the flow has logged."""

    def __init__(self, flow: str, tmp_path: Path) -> None:
        path = tmp_path / "media.flow.yaml"
        path.write_text(HEADER + flow)
        program, warnings = load_program([path])
        assert warnings == []
        self.world = World(program, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=(ip_network("10.0.0.9/32"),))
        self.switch = Switch.in_world(self.world, "fs1", ADDRESS)
        self.switch.world = self.world
        self.world.on_job = self.switch.perform
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.phone("bob@example.com", "10.0.0.3")
        self.carol = self.world.phone("carol@example.com", "10.0.0.4")
        self.said: list[str] = []
        self.faults: list[Exception] = []
        self.world.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.world.engine.flows.on_fault = lambda run, bug, *rest: self.faults.append(bug)
        for phone in (self.bob, self.carol):
            phone.register()
        self.world.run()

    def call(self, to: str = "ivr@example.com") -> PhoneCall:
        call = self.alice.invite(to)
        self.world.run()
        return call

    @property
    def apps(self) -> list[tuple[str, str, str]]:
        """Applications FreeSWITCH has been asked for: name, arguments, leg."""
        return [(effect.app, effect.args, effect.leg) for effect in self.switch.ran]

    def over(self) -> None:
        """Nothing is left of any call."""
        self.world.run(60)
        assert self.faults == []
        assert self.world.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}
        assert all(call.state == "ended" for phone in self.world.phones.values() for call in phone.calls)


def stage(tmp_path: Path, *steps: str, more: str = "") -> Stage:
    """A flow of these steps; lines of a step after its first are indented by one space."""
    body = "\n".join(f"      - {line}" for line in "\n".join(steps).split("\n"))
    body = body.replace("      -  ", "        ")
    return Stage(f"flows:\n  main:\n    on: invite\n    do:\n{body}\n{more}", tmp_path)


def media(tmp_path: Path, *steps: str) -> Stage:
    return stage(tmp_path, "media: {server: fs1, answer: true}", *steps)


def failed(type: str, message: str) -> StepError:
    return StepError(type, message)
