"""A FreeSWITCH in memory, for flows whose media go through one: no process, no sound, no time.

It is a SIP phone with the dialplan of config/freeswitch: a call with X-Orchestrator-Call goes back to where it came
from as a second leg, one with X-Orchestrator-Media stays, parked, answered or with early media; any other is refused.
And it is the other end of an Event Socket: `api` runs a command, `execute` an application on a channel (`apps`),
what it has to say are recorded events of a real one (`events`). What the parties of its channels do - talk, press
keys, beep - it is told: `channel_of(call).talk(1.5)`.

    world = World(program, freeswitch={"fs1": "sip:10.254.0.1:5080"}, trust=(SWITCHES,))
    fs1 = VirtualFreeSwitch.in_world(world, "fs1", ("10.254.0.1", 5080))
    world.on_job = fs1.perform

In place of a World there may be anything that has wires, a clock and a place for events: see `on_sockets`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from math import inf
from typing import Any, Self

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.run.effects import EslCommand, EslExecute
from orchestrator.sip.claims import CALL_HEADER, MEDIA_HEADER
from orchestrator.sip.message import Response
from orchestrator.testing.phone import Address, Phone, PhoneCall, Send
from orchestrator.testing.recordings import block_of, rewrite
from orchestrator.testing.switch.apps import APPLICATIONS
from orchestrator.testing.switch.channel import Done, Running, SwitchChannel, Told
from orchestrator.testing.switch.commands import COMMANDS, SOON, address_in, dialled, originate
from orchestrator.testing.world import PROXY, World

SWITCHES = IPv4Network("10.254.0.0/16")
"""Where the FreeSWITCH servers of a test live; a World has to trust it."""

CORE_UUID = "7a2e5358-095d-414c-97c6-f2fcdae9e88e"
FIRST_SEQUENCE = 1_000_000_000
"""Event-Sequences of recordings that are played beside are far below it."""
OK = "+OK\n"
NO_CHANNEL = "-ERR No such channel!\n"

_ENDLESS = ("loops=-1", "silence_stream://-1")
_TIE = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_STATUS_OF = {"USER_BUSY": 486, "CALL_REJECTED": 603, "NO_ROUTE_DESTINATION": 404, "UNALLOCATED_NUMBER": 404}
_CAUSE_OF = {404: "UNALLOCATED_NUMBER", 408: "RECOVERY_ON_TIMER_EXPIRE", 480: "NO_USER_RESPONSE", 486: "USER_BUSY",
             487: "ORIGINATOR_CANCEL", 503: "NORMAL_TEMPORARY_FAILURE", 603: "CALL_REJECTED"}  # fmt: skip


class VirtualFreeSwitch(Phone):
    """`tell(event)` takes what it has to say, `later(seconds, act)` does something then, `now()` is its clock.

    `lengths`: seconds that sounds play, by a glob over their names; what is not in it takes no time, or for ever where
    the name says so. `variables` are FreeSWITCH's global ones.
    """

    def __init__(
        self,
        address: Address,
        proxy: Address,
        send: Send,
        tell: Callable[[EslEvent], object],
        later: Callable[[float, Callable[[], object]], object],
        now: Callable[[], float],
    ) -> None:
        super().__init__(f"freeswitch@{address[0]}", address, proxy, self._speak)
        self.alive = True
        """False from `kill` to `start`: it hears nothing and says nothing, and its Event Socket is closed."""
        self.core_uuid = CORE_UUID
        """Another one after each `start`."""
        self.channels: dict[str, SwitchChannel] = {}
        """Those that are there, by uuid, which is the Call-ID of their SIP dialog."""
        self.placed: dict[PhoneCall, Callable[[str], None] | None] = {}
        """Calls of `originate`, and who waits to hear what has become of them."""
        self.on_placed: Callable[[PhoneCall], object] = lambda call: None
        """Told every call of `originate`."""
        self.lengths: dict[str, float] = {}
        self.variables = {"temp_dir": "/tmp"}  # noqa: S108  # a name in what is said; nothing is written
        self.now = now
        self._wire = send
        self._lives = 1
        self._under_way: set[int] = set()  # jobs of the engine
        self._tell = tell
        self._later = later
        self._sequence = FIRST_SEQUENCE
        self.on_invite = self.dialplan

    @classmethod
    def in_world(cls, world: World, server: str, address: Address) -> Self:
        """One on the wires of a World, whose engine knows it by `server`."""

        def tell(event: EslEvent) -> None:
            world.engine.receive_esl(server, event, world.now)

        def later(seconds: float, act: Callable[[], object]) -> None:
            world.call_at(world.now + seconds, act)

        switch = cls(address, PROXY, world.post_from(address), tell, later, lambda: world.now)
        switch._complete = lambda job, result: world.engine.complete(job, result, world.now)
        switch._connect = lambda: world.engine.receive_snapshot(
            server, switch.rows(), world.now, switch.core_uuid, world.now
        )
        switch._link = lambda state, reason: world.engine.link_changed(server, state, reason, world.now)
        world.phones[address] = switch
        return switch

    # --- for those who tell a story -----------------------------------------------------------------------------------

    def channel_of(self, call: PhoneCall) -> SwitchChannel | None:
        """The channel of a dialog: of one of its own calls, or of a phone's call to or from it."""
        return self.channels.get(call.call_id.decode())

    def play(self, event: EslEvent, channel: SwitchChannel | None = None) -> None:
        """A recorded event is said: as it is, or as one of this channel, whose applications then hear of it, too."""
        if channel is None:
            self._tell(self.restated(event))
        elif event.name == "DTMF":
            channel.press(event.get("DTMF-Digit"), event)
        else:
            channel.say(event)

    def length_of(self, sound: str) -> float:
        """Seconds a sound plays."""
        told = next((length for name, length in self.lengths.items() if fnmatchcase(sound, name)), None)
        if told is not None:
            return told
        return inf if sound.endswith(_ENDLESS) else 0.0

    def kill(self, link_after: float = 0.0) -> None:
        """It dies without a word: channels, calls and what is under way are gone. Its link is down at once, as it is
        when the process ends, or `link_after` seconds later, as it is when it only says nothing any more (SIGSTOP)."""
        self.alive = False
        self._lives += 1
        self.channels.clear()
        self.calls.clear()
        self.placed.clear()
        if link_after:
            self._later(link_after, self.drop_link)
        else:
            self.drop_link()

    def drop_link(self, reason: str = "connection closed") -> None:
        """The Event Socket connection breaks: commands and applications that somebody waits for have failed."""
        if self.linked:
            self.linked = False
            self._link("down", reason)
            for job in sorted(self._under_way):
                self._complete(job, StepError("esl.down", f"link {reason}"))
            self._under_way.clear()

    def start(self) -> None:
        """It is there again, as another core without a channel, and the link comes up."""
        if not self.alive:
            self.alive = True
            self.core_uuid = f"{self._lives:08x}{CORE_UUID[8:]}"
        self.raise_link()

    def raise_link(self) -> None:
        """The Event Socket is connected again; the snapshot says which channels are there."""
        if self.alive and not self.linked:
            self.linked = True
            self._link("up", "")
            self._connect()

    def rows(self) -> list[dict[str, str]]:
        """What `show channels as json` answers."""
        return [{"uuid": channel.uuid, "direction": channel.direction} for channel in self.channels.values()]

    # --- what it does -------------------------------------------------------------------------------------------------

    def _speak(self, data: bytes, to: Address) -> None:
        if self.alive:
            self._wire(data, to)

    def tell(self, event: EslEvent) -> None:
        """Say an event, as the next one of this core."""
        if not self.linked:
            return
        self._sequence += 1
        given = {"Core-UUID": self.core_uuid, "Event-Sequence": str(self._sequence)}
        self._tell(EslEvent.plain(rewrite(block_of(event), given)))

    def restated(self, event: EslEvent) -> EslEvent:
        """A recorded event as one of this core: two are told apart by Core-UUID, and a new one would be a restart."""
        return EslEvent.plain(rewrite(block_of(event), {"Core-UUID": self.core_uuid}))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        life = self._lives

        def due() -> None:
            if life == self._lives:
                act()
                self.look()

        self._later(max(0.0, seconds), due)

    def look(self) -> None:
        """Say what has become of the channels: what SIP does to them is seen here."""
        news = True
        while news:  # what is done for one channel may be news of another
            news = False
            for channel in list(self.channels.values()):
                state = channel.call.state
                if state == "ended" and not channel.ended:
                    self._end(channel)
                    news = True
                elif state == "answered" and not channel.answered:
                    self._answered(channel)
                    news = True

    def open(self, call: PhoneCall, direction: str, tie: bytes, peer: SwitchChannel | None = None) -> SwitchChannel:
        """A channel for a dialog."""
        channel = self._channel(call, direction)
        if tie:
            channel.variables[f"sip_h_{CALL_HEADER.decode()}"] = tie.decode("ascii", "replace")
        channel.peer = peer
        if peer is not None:
            peer.peer = channel
        self.channels[channel.uuid] = channel
        own = channel.uuid if direction == "inbound" else None  # of an outbound leg it is known with the first reply
        channel.say("CHANNEL_CREATE", {"variable_sip_call_id": own})
        channel.variables["sip_call_id"] = channel.uuid
        return channel

    def _channel(self, call: PhoneCall, direction: str) -> SwitchChannel:
        other = call.remote if direction == "inbound" else call.remote_uri
        return SwitchChannel(self, call, direction, (address_in(other) or "unknown"))

    def answer(self, channel: SwitchChannel) -> None:
        if channel.call.incoming and channel.call.state == "ringing":
            channel.call.answer()

    def hang_up(self, channel: SwitchChannel, cause: str = "NORMAL_CLEARING") -> None:
        """By what fits: BYE, CANCEL, or a final reply."""
        call, channel.cause = channel.call, cause
        if call.state == "ended" or channel.unwanted:
            return
        if call.incoming and call.state == "ringing":
            call.reject(_STATUS_OF.get(cause, 480))
        else:
            channel.unwanted = call.state != "answered"  # until the CANCEL has its answer
            call.hangup()

    def bridge(self, channel: SwitchChannel, dial: str, otherwise: Callable[[int], None]) -> None:
        """Call a dial string, and connect the two when that is answered."""
        settings, to = dialled(dial)
        front = channel.call
        invite = front.invite
        tie = settings.get(f"sip_h_{CALL_HEADER.decode()}", channel.variables.get(f"sip_h_{CALL_HEADER.decode()}", ""))
        sender = address_in(front.remote if front.incoming else front.local)
        called = address_in(invite.get(b"to") or b"") if invite is not None else ""
        back = self.call_out(to, tie.encode(), sender, called, self.uuid_behind(channel))
        channel.otherwise = otherwise
        self.open(back, "outbound", tie.encode(), channel)

    def uuid_behind(self, channel: SwitchChannel) -> str:
        """The uuid of the leg that is called for this one; '' for one of its own making."""
        return ""

    def call_out(self, to: str, tie: bytes, sender: str, called: str, uuid: str = "") -> PhoneCall:
        """An INVITE of ours: tied to a call of the orchestrator, with the caller's From and the called party's To."""
        header = CALL_HEADER + b": " + tie
        call_id = uuid.encode() or None
        return self.invite(to, [header] if tie else [], call_id=call_id, sender=sender, called=called)

    def _answered(self, channel: SwitchChannel) -> None:
        """The first leg is answered when the second is; two legs that are answered hear each other."""
        channel.answered = True
        channel.say("CHANNEL_ANSWER")
        peer = channel.peer
        if peer is None:
            return
        if channel.direction == "outbound":
            self.answer(peer)
        if peer.answered:
            front, back = (peer, channel) if channel.direction == "outbound" else (channel, peer)
            front.say("CHANNEL_BRIDGE", {"Bridge-A-Unique-ID": front.uuid, "Bridge-B-Unique-ID": back.uuid})

    def _end(self, channel: SwitchChannel) -> None:
        """A channel is gone, and with it whatever ran on it, and the leg behind it."""
        channel.ended = True
        for recording in list(channel.recordings):
            recording.stop()
        for running in list(channel.running):
            self.lost(running)
        channel.say("CHANNEL_DESTROY", {"Hangup-Cause": channel.cause, "variable_hangup_cause": channel.cause})
        del self.channels[channel.uuid]
        peer, channel.peer = channel.peer, None
        if peer is not None and peer.peer is channel:
            peer.peer = None
            self._left(peer, channel)

    def lost(self, running: Running) -> None:
        """The channel of an application has ended."""
        running.lost()

    def _left(self, channel: SwitchChannel, gone: SwitchChannel) -> None:
        """The other leg has ended: one that was never answered has failed; else hangup_after_bridge."""
        failed = next((status for status in reversed(gone.call.statuses) if status >= 300), 0)
        if failed and not gone.answered:
            channel.otherwise(failed)
        else:
            self.hang_up(channel, gone.cause)

    # --- SIP ----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address) -> None:
        if self.alive:
            super().receive(data, source)
            self.look()

    def dialplan(self, call: PhoneCall) -> None:
        """config/freeswitch/dialplan/orchestrator.xml."""
        assert call.invite is not None
        tie = call.invite.get(CALL_HEADER.lower()) or b""
        if not _TIE.fullmatch(tie):
            call.reject(603)
            return
        channel = self.open(call, "inbound", tie)
        media = call.invite.get(MEDIA_HEADER.lower())
        if media == b"answer":
            call.answer()
        elif media == b"early":
            call.early()
        else:
            user = (call.invite.parsed_uri.user or b"call").decode("utf-8", "replace")
            back = f"sofia/orchestrator/{user}@{self.proxy[0]}:{self.proxy[1]}"
            self.bridge(channel, back, lambda status: self.refuse(channel, status))

    def refuse(self, channel: SwitchChannel, status: int) -> None:
        """The second leg's code goes back as it is; a call that is answered is hung up."""
        if channel.call.state == "ringing":
            channel.call.reject(status)
        else:
            self.hang_up(channel, _CAUSE_OF.get(status, "NORMAL_UNSPECIFIED"))

    def _on_invite_response(self, call: PhoneCall, response: Response) -> None:
        super()._on_invite_response(call, response)
        channel = self.channel_of(call)
        if channel is None:
            return
        if response.status >= 200:
            self._settle(call, response.status)
        if response.status >= 300:
            channel.cause = _CAUSE_OF.get(response.status, "NORMAL_UNSPECIFIED")
        elif response.status >= 200 and channel.unwanted:
            call.hangup()
        elif response.status == 180 and channel.peer is not None and channel.peer.call.state == "ringing":
            channel.peer.call.ring()

    def _settle(self, call: PhoneCall, status: int) -> None:
        """`originate` knows what has become of its call."""
        done = self.placed.get(call)
        if done is not None:
            self.placed[call] = None
            text = f"+OK {call.call_id.decode()}\n" if status < 300 else f"-ERR {_CAUSE_OF.get(status, 'USER_BUSY')}\n"
            self.after(SOON, lambda: done(text))

    # --- the Event Socket ---------------------------------------------------------------------------------------------

    def execute(self, uuid: str, app: str, arguments: str, id: str, done: Done, told: Told | None = None) -> None:
        """Run an application on a channel; `done(response)` when it has ended, `done(None)` when the channel has.
        `told`: it does nothing, and comes to this."""
        channel = self.channels.get(uuid)
        if channel is None:
            done(None)
            return
        kind = APPLICATIONS.get(app, Running) if told is None else Running
        kind(channel, app, arguments, id, done).start(told)
        self.look()

    def api(self, command: str, done: Callable[[str], None]) -> None:
        """Run an API command; `done(output)` at once, of `originate` when the call is answered or has failed."""
        verb, _, rest = command.partition(" ")
        uuid, _, arguments = rest.partition(" ")
        if verb == "originate":
            originate(self, rest, done)
        elif verb not in COMMANDS:
            done(OK)
        elif uuid in self.channels:
            COMMANDS[verb](self, self.channels[uuid], arguments)
            done(OK)
        else:
            done(NO_CHANNEL)
        self.look()

    # --- for the engine of a World ------------------------------------------------------------------------------------

    linked = True
    """Its Event Socket is connected to the engine."""
    _complete: Callable[[int, Any], None]
    _link: Callable[[str, str], None] = staticmethod(lambda state, reason: None)
    _connect: Callable[[], None] = staticmethod(lambda: None)

    def perform(self, job: Job, told: Told | None = None) -> Any:
        """Do a job of the engine; for `World.on_job`. `told`: what an application is to come to."""
        effect = job.effect
        if isinstance(effect, EslExecute | EslCommand) and not self.linked:
            return StepError("esl.down", "link down")
        if isinstance(effect, EslExecute):
            self._under_way.add(job.id)
            self._perform_application(job.id, effect, told)
        elif isinstance(effect, EslCommand):
            self._under_way.add(job.id)
            self.api(effect.command, lambda text: self._done(job.id, result_of(text)))
        return World.LATER

    def _done(self, job: int, result: Any) -> None:
        if job in self._under_way:
            self._under_way.discard(job)
            self._complete(job, result)

    def _perform_application(self, job: int, effect: EslExecute, told: Told | None) -> None:
        channel = self.channels.get(effect.uuid)

        def done(response: str | None) -> None:
            if response is None or channel is None:
                self._done(job, StepError("esl.command", "the channel has ended"))
            else:
                variables = {name: channel.variables.get(name, "") for name in effect.variables}
                self._done(job, {"response": response, "variables": variables})

        if effect.wait:
            self.execute(effect.uuid, effect.app, effect.args, f"job-{job}", done, told)
        else:
            self._done(job, {"response": "", "variables": {}})
            self.execute(effect.uuid, effect.app, effect.args, "", lambda response: None, told)


def result_of(text: str) -> dict[str, Any]:
    """An `esl result` of a command's output."""
    return {"ok": not text.startswith(("-ERR", "-USAGE")), "text": text}
