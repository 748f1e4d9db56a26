"""A FreeSWITCH in memory for the flows of one World: a SIP phone with the dialplan of config/freeswitch, and the
answers to what the Event Socket is asked. Its CHANNEL_* events are recorded ones under other uuids.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.effects import EslCommand, EslExecute
from orchestrator.flow.loader import load_program
from orchestrator.sip.message import Request, Response
from orchestrator.testing.phone import SDP, Phone, PhoneCall
from orchestrator.testing.recordings import Recording, block_of, rewrite
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


class Switch(Phone):
    """`ran` are the applications, `commands` the API commands; both end at once unless the application's name is in
    `slow`. `say_channels = False` keeps CHANNEL_CREATE back until `report()`."""

    def setup(self, world: World) -> Switch:
        self.world = world
        self.ran: list[EslExecute] = []
        self.commands: list[str] = []
        self.slow: set[str] = set()
        self.answers: dict[str, Any] = {}
        """Name of an application, or beginning of a command, to its result."""
        self.say_channels = True
        self.refuses = 0
        self.sequence = 0
        self.bridged: dict[PhoneCall, PhoneCall] = {}
        self.placed: dict[PhoneCall, int] = {}
        self.running: list[Job] = []
        self._unsaid: list[tuple[str, str]] = []
        self.on_invite = self._dialplan
        world.on_job = self.do
        return self

    # --- SIP ----------------------------------------------------------------------------------------------------------

    def _dialplan(self, call: PhoneCall) -> None:
        assert call.invite is not None
        media = call.invite.get(b"x-orchestrator-media")
        if self.refuses:
            call.reject(self.refuses)
            return
        self.create(call.call_id.decode(), "inbound")
        if media == b"answer":
            call.answer()
        elif media == b"early":
            call._respond(183, SDP)
        else:
            self.bridge(call, call.invite.get(b"x-orchestrator-call") or b"")

    def bridge(self, front: PhoneCall, id: bytes) -> None:
        back = self.invite("call@10.0.0.1:5060", [b"X-Orchestrator-Call: " + id])
        self.create(back.call_id.decode(), "outbound")
        self.bridged[back], self.bridged[front] = front, back

    def _on_invite_response(self, call: PhoneCall, response: Response) -> None:
        super()._on_invite_response(call, response)
        job = self.placed.get(call)
        if job is not None and response.status >= 200:
            text = "+OK\n" if response.status < 300 else "-ERR USER_BUSY\n"
            result = {"ok": response.status < 300, "text": text}
            self.world.call_at(self.world.now + 0.02, lambda: self.complete(job, result))
        front = self.bridged.get(call)
        if front is None or front.state != "ringing":
            return
        if response.status == 180:
            front.ring()
        elif 200 <= response.status < 300:
            front.answer()
        elif response.status >= 300 and not front.acknowledged:
            front.reject(response.status)

    def _on_request(self, request: Request) -> None:
        super()._on_request(request)
        call = self._call_of(request)
        other = self.bridged.get(call) if call is not None else None
        if other is not None and request.method in (b"BYE", b"CANCEL") and other.state != "ended":
            other.hangup()

    # --- Event Socket -------------------------------------------------------------------------------------------------

    def create(self, uuid: str, direction: str) -> None:
        if self.say_channels:
            event = recorded("via_bridge", "CHANNEL_CREATE", Call_Direction=direction)
            self.emit(event, uuid, **{"variable_sip_call_id": uuid, "Other-Leg-Unique-ID": None})
        else:
            self._unsaid.append((uuid, direction))

    def report(self) -> None:
        """Say which channels there are by now."""
        self.say_channels = True
        unsaid, self._unsaid = self._unsaid, []
        for uuid, direction in unsaid:
            self.create(uuid, direction)
        self.world.run()

    def emit(self, event: EslEvent, uuid: str, **headers: str | None) -> None:
        self.sequence += 1
        given = {"Unique-ID": uuid, "Event-Sequence": str(self.sequence), "Core-UUID": "core", **headers}
        changed = EslEvent.plain(rewrite(block_of(event), given))
        self.world.engine.receive_esl("fs1", changed, self.world.now)

    def do(self, job: Job) -> Any:
        """A job of the engine: its result, or World.LATER."""
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
        verb, _, rest = effect.command.partition(" ")
        return getattr(self, f"_do_{verb}", lambda job, rest: OK)(job, rest)

    def complete(self, job: int, result: Any) -> None:
        self.world.engine.complete(job, result, self.world.now)
        self.world.run()

    def finish(self, result: Any = PLAYED) -> EslExecute:
        """The application that has run longest ends."""
        job = self.running.pop(0)
        self.complete(job.id, result)
        assert isinstance(job.effect, EslExecute)
        return job.effect

    def call_with(self, uuid: str) -> PhoneCall:
        return next(call for call in self.calls if call.call_id.decode() == uuid)

    def _do_uuid_answer(self, job: Job, rest: str) -> Any:
        self.call_with(rest).answer()
        return OK

    def _do_uuid_break(self, job: Job, rest: str) -> Any:
        for running in [r for r in self.running if r.effect.uuid == rest]:  # type: ignore[union-attr]
            self.running.remove(running)
            self.world.call_at(self.world.now + 0.02, lambda id=running.id: self.complete(id, PLAYED))  # type: ignore[misc]
        return OK

    def _do_uuid_transfer(self, job: Job, rest: str) -> Any:
        uuid, where = rest.split(" ", 1)
        id = re.search(r"X-Orchestrator-Call=([0-9a-f]+)\}", where)
        if id is not None:
            front = self.call_with(uuid)
            former = self.bridged.pop(front, None)
            if former is not None:
                del self.bridged[former]
                former.hangup()
            self.bridge(front, id[1].encode())
        return OK

    def _do_originate(self, job: Job, rest: str) -> Any:
        variables = dict(pair.split("=", 1) for pair in rest[1 : rest.index("}")].split(","))
        header = b"X-Orchestrator-Call: " + variables["sip_h_X-Orchestrator-Call"].encode()
        uuid = variables["origination_uuid"]
        call = self.invite("call@10.0.0.1:5060", [header], call_id=uuid.encode())
        self.create(uuid, "outbound")
        self.placed[call] = job.id
        return World.LATER


class Stage:
    """A World with one Switch, a caller alice and two phones, and what the flow has logged."""

    def __init__(self, flow: str, tmp_path: Path) -> None:
        path = tmp_path / "media.flow.yaml"
        path.write_text(HEADER + flow)
        program, warnings = load_program([path])
        assert warnings == []
        self.world = World(program, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=(ip_network("10.0.0.9/32"),))
        post = self.world.phone("fs", *ADDRESS).send
        self.switch = Switch("fs@example.com", ADDRESS, ("10.0.0.1", 5060), post).setup(self.world)
        self.world.phones[ADDRESS] = self.switch
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
