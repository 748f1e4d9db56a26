"""Play a recorded Event Socket stream through the real engine, with the calls it speaks of happening beside it.

A recording has only FreeSWITCH's side. The SIP side is played by two phones: where a recording's call begins, the
caller calls; when it is answered the callee answers; when one of its legs hangs up that side does. Time is that of the
recording, and takes none. The Event Socket may be a bad one: `orchestrator.testing.faults`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.jobs import Job, Resolve
from orchestrator.errors import InputError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.effects import EslCommand
from orchestrator.flow.program import Program
from orchestrator.flow.trace import Trace, render
from orchestrator.testing.faults import Faults, Line
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.recordings import Recording
from orchestrator.testing.world import World

SERVER = "recording"
"""Name of the FreeSWITCH server in a replay."""


class UnknownFlow(InputError):
    """`--flow` names no flow that is started by a call."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(())
        self.args = (f"no flow {name!r} with on: invite; there is: {', '.join(known) or 'none'}",)


def only_flow(program: Program, name: str) -> Program:
    """The program with this one flow for calls, whatever its `when`; sub-flows and event flows stay."""
    calls = [flow for flow in program.flows if flow.trigger.kind == "invite"]
    chosen = [replace(flow, when=None) for flow in calls if flow.name == name]
    if not chosen:
        raise UnknownFlow(name, [flow.name for flow in calls])
    return replace(program, flows=(*chosen, *(flow for flow in program.flows if flow.trigger.kind != "invite")))


class Replay:
    """One recording, one program, and the phones of its calls.

    `legs` says which recorded channel is whose, for recordings of calls that did not go through us: {'callee': uuid}.
    """

    def __init__(
        self,
        recording: Recording,
        program: Program,
        *,
        caller: str = "",
        called: str = "",
        registered: Sequence[str] = (),
        legs: Mapping[str, str] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.recording = recording
        self.caller = caller
        self.called = called
        self.registered = tuple(registered)
        self.world = World(program, freeswitch={SERVER: ""})
        self.world.on_job = self._answer_job
        self.line = Line(self.world, SERVER, faults or Faults())
        self.jobs = self.world.jobs
        self.calls: list[PhoneCall] = []
        self._directions = {uuid: _DIRECTIONS[leg] for leg, uuid in (legs or {}).items()}
        self._phones: set[str] = set()
        self._call_of: dict[str, PhoneCall] = {}

    def run(self, after: float = 60.0) -> None:
        """Play it all, then let `after` seconds pass."""
        line = self.line
        line.open(self.recording.core_uuid)
        for item in self.recording:
            event = item.event
            if event is not None and not line.ended:
                line.advance(item.at)
                self._mirror(event)
                self.world.run()
                if line.carry(event):
                    self._name_leg(event)
                self.world.run()
                line.strike()
                self.world.run()
        line.advance(self.world.now + after)

    def traces(self) -> list[Trace]:
        """The traces of all runs, those that are not over included, in order of their beginning."""
        flows = self.world.engine.flows
        traces = [*flows.traces, *(Trace.of(run) for run in flows.runs.values())]
        return sorted(traces, key=lambda trace: trace.records[0].time if trace.records else 0.0)

    def report(self) -> Iterator[str]:
        """The traces for people, and a last line that counts."""
        counters = self.world.engine.counters
        for trace in self.traces():
            yield from render(trace)
            yield ""
        if self.line.notes:
            yield from (*self.line.notes, "")
        events = len(self.recording.events)
        unowned = counters["esl.event.without_call"]
        going = f", {len(self.world.engine.flows.runs)} not over" if self.world.engine.flows.runs else ""
        lost = f"; {self.line.lost} events lost" if self.line.lost else ""
        runs = f"{len(self.traces())} runs{going}"
        yield f"{events} events, {len(self.calls)} calls, {runs}; {unowned} events of no call{lost}"

    def _mirror(self, event: EslEvent) -> None:
        """Let the phones do what the event says has been done."""
        uuid = event.uuid
        if event.name == "CHANNEL_CREATE":
            other = event.get("Other-Leg-Unique-ID")
            known = self._call_of.get(other)
            self._call_of[uuid] = known if known is not None else self._place_call(event)
        call = self._call_of.get(uuid)
        if call is None:
            return
        if event.name == "CHANNEL_ANSWER":
            for ringing in self._rings():
                ringing.answer()
        elif event.name == "CHANNEL_HANGUP" and call.state != "ended":
            self._hang_up(call, event.get("Call-Direction"))

    def _place_call(self, event: EslEvent) -> PhoneCall:
        caller = self.caller or f"{event.get('Caller-Caller-ID-Number') or 'caller'}@example.com"
        called = self.called or f"{event.get('Caller-Destination-Number') or 'callee'}@example.com"
        number = len(self.calls) + 1
        for aor in self.registered or (called,):
            if aor not in self._phones:
                self._phones.add(aor)
                self.world.registered_phone(aor, f"10.1.0.{len(self._phones)}")
        phone = self.world.phone(caller, f"10.2.{number}.1")
        call_id = event.get("variable_sip_call_id") or event.uuid
        self.world.run()
        call = phone.invite(called, call_id=call_id.encode())
        self.calls.append(call)
        self.world.run()
        return call

    def _rings(self) -> list[PhoneCall]:
        return [c for p in self.world.phones.values() for c in p.calls if c.incoming and c.state == "ringing"]

    def _hang_up(self, call: PhoneCall, direction: str) -> None:
        """The channel FreeSWITCH received belongs to the caller, the one it made to the callee."""
        answered = [c for p in self.world.phones.values() for c in p.calls if c.incoming and c.state == "answered"]
        if direction == "outbound" and answered:
            answered[0].hangup()
        else:
            call.hangup()

    def _name_leg(self, event: EslEvent) -> None:
        direction, call = self._directions.get(event.uuid), self._call_of.get(event.uuid)
        if direction and call is not None:
            self.world.engine.channels.tie(SERVER, event.uuid, call.call_id.decode(), direction)

    def _answer_job(self, job: Job) -> object:
        """There is no network in a replay: no name resolves, and a web service or command succeeds with nothing to
        say, unless the Event Socket is in trouble."""
        if isinstance(job.effect, Resolve):
            return None
        if (trouble := self.line.trouble(job)) is not None:
            return trouble
        effect, text = job.effect, ""
        if isinstance(effect, EslCommand) and effect.command.startswith("uuid_dump "):
            text = self.line.dump(effect.command)
        return {"status": 200, "text": text, "json": None, "headers": {}, "ok": True, "response": ""}


_DIRECTIONS = {"caller": "inbound", "callee": "outbound"}
