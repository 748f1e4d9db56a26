"""Play a recorded Event Socket stream through the real engine, with the calls it speaks of happening beside it.

A recording has only FreeSWITCH's side. The SIP side is played by two phones: where a recording's call begins, the
caller calls; when it is answered the callee answers; when one of its legs hangs up that side does. Where a flow sends
the call through FreeSWITCH, or has it keep one, a FreeSWITCH in memory takes it: its dialogs have the Call-IDs of the
recorded channels, and what there is to say about them says the recording. Time is that of the recording, and takes
none. The Event Socket may be a bad one: `orchestrator.testing.faults`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.core.jobs import Job, Resolve
from orchestrator.errors import InputError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.language.program import Program
from orchestrator.flow.run.effects import EslCommand, EslExecute
from orchestrator.flow.run.trace import Trace, render
from orchestrator.testing.faults import Faults, Line
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.recordings import Recording
from orchestrator.testing.switch.channel import Running, SwitchChannel
from orchestrator.testing.switch.server import SWITCHES, VirtualFreeSwitch
from orchestrator.testing.world import World

SERVER = "recording"
"""Name of the FreeSWITCH server in a replay."""
HOME = ("10.254.0.1", 5080)
"""Its SIP address, whatever the flows call it."""


class UnusableRecording(Exception):
    """A recording that cannot be replayed; `parameter` is what is wrong of the command."""

    def __init__(self, why: str, parameter: str = "RECORDING") -> None:
        super().__init__(why)
        self.parameter = parameter


def recording_with(path: Path, legs: Mapping[str, str]) -> Recording:
    """The recording of a file, which has to hold events, and the channels of these legs (leg → uuid).

    Raises UnusableRecording.
    """
    try:
        stream = Recording.load(path)
    except (ValueError, KeyError) as error:
        raise UnusableRecording(str(error)) from None
    if not stream.events:
        raise UnusableRecording(f"{path} holds no FreeSWITCH events")
    known = {event.uuid for event in stream.events}
    for leg, uuid in legs.items():
        if uuid not in known:
            raise UnusableRecording(f"{leg}: the recording has no channel {uuid}", "--leg")
    return stream


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


class Mirror(VirtualFreeSwitch):
    """The SIP side of the FreeSWITCH that was recorded. `legs` are its second legs: Call-ID of the first to uuid."""

    legs: Mapping[str, str]

    def lost(self, running: Running) -> None:
        """What runs when its channel ends has no result here: a recording may know a channel as that of two calls,
        where FreeSWITCH has called itself, and its end is that of the first only."""

    def tell(self, event: EslEvent) -> None:
        """What there is to say, the recording says."""

    def uuid_behind(self, channel: SwitchChannel) -> str:
        return self.legs.get(channel.uuid, "")


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
        servers = dict.fromkeys((SERVER, *program.resources.freeswitch), f"sip:{HOME[0]}:{HOME[1]}")
        self.world = World(program, freeswitch=servers, trust=(SWITCHES,))
        self.world.on_job = self._answer_job
        self.mirror = Mirror.in_world(self.world, SERVER, HOME)
        self._dialogs = {event.uuid: _call_id(event) for event in recording.events if event.name == "CHANNEL_CREATE"}
        self.mirror.legs = {
            self._dialogs.get(other, other): event.uuid
            for event in recording.events
            if event.name == "CHANNEL_CREATE" and (other := event.get("Other-Leg-Unique-ID"))
        }
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
        elif event.name == "DTMF" and (channel := self._channel(uuid)) is not None:
            channel.press(event.get("DTMF-Digit"))

    def _place_call(self, event: EslEvent) -> PhoneCall:
        caller = self.caller or f"{event.get('Caller-Caller-ID-Number') or 'caller'}@example.com"
        called = self.called or f"{event.get('Caller-Destination-Number') or 'callee'}@example.com"
        number = len(self.calls) + 1
        for aor in self.registered or (called,):
            if aor not in self._phones:
                self._phones.add(aor)
                self.world.registered_phone(aor, f"10.1.0.{len(self._phones)}")
        phone = self.world.phone(caller, f"10.2.{number}.1")
        self.world.run()
        call = phone.invite(called, call_id=_call_id(event).encode())
        self.calls.append(call)
        self.world.run()
        return call

    def _rings(self) -> list[PhoneCall]:
        return self._called("ringing")

    def _called(self, state: str) -> list[PhoneCall]:
        """The called phones' calls in that state."""
        phones = [phone for phone in self.world.phones.values() if phone is not self.mirror]
        return [call for phone in phones for call in phone.calls if call.incoming and call.state == state]

    def _hang_up(self, call: PhoneCall, direction: str) -> None:
        """The channel FreeSWITCH received belongs to the caller, the one it made to the callee."""
        answered = self._called("answered")
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
        elif isinstance(effect, EslCommand | EslExecute) and (own := self._of_mirror(effect)) is not None:
            return self.mirror.perform(Job(job.id, own))
        return {"status": 200, "text": text, "json": None, "headers": {}, "ok": True, "response": ""}

    def _channel(self, uuid: str) -> SwitchChannel | None:
        """The mirror's channel for a recorded one, which may have another Call-ID than its uuid."""
        return self.mirror.channels.get(self._dialogs.get(uuid, uuid))

    def _of_mirror(self, effect: EslCommand | EslExecute) -> EslCommand | EslExecute | None:
        """A command about a channel that the mirror has, by the name it has there; None for any other."""
        if isinstance(effect, EslExecute):
            channel = self._channel(effect.uuid)
            return replace(effect, uuid=channel.uuid) if channel is not None else None
        verb, _, rest = effect.command.partition(" ")
        uuid, blank, arguments = rest.partition(" ")
        channel = self._channel(uuid)
        if channel is None:
            return effect if verb == "originate" else None
        return replace(effect, command=f"{verb} {channel.uuid}{blank}{arguments}")


def _call_id(event: EslEvent) -> str:
    """The Call-ID of a new channel; that of an outbound leg is its uuid, and not told yet."""
    return event.get("variable_sip_call_id") or event.uuid


_DIRECTIONS = {"caller": "inbound", "callee": "outbound"}
