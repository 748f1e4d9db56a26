"""What a FreeSWITCH event does: the channel table learns, servers and steps hear of it, flows get typed events."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.calls.table import Calls
from orchestrator.core.node import Node
from orchestrator.core.registrations import Registrations
from orchestrator.core.socket_calls import SocketCalls
from orchestrator.core.steps.steps import Steps
from orchestrator.core.switches.resync import Resync
from orchestrator.core.switches.servers import Servers
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import Translation, Translator
from orchestrator.flow.language.program import Program
from orchestrator.flow.run.run import Run


class EslEvents:
    """Takes the events of one engine's servers and connections."""

    def __init__(
        self,
        node: Node,
        channels: ChannelTable,
        calls: Calls,
        sockets: SocketCalls,
        servers: Servers,
        resync: Resync,
        steps: Steps,
        registrations: Registrations,
    ) -> None:
        self.translator = Translator(channels)
        self._node = node
        self._channels = channels
        self._calls = calls
        self._sockets = sockets
        self._servers = servers
        self._resync = resync
        self._steps = steps
        self._registrations = registrations
        self._of_a_call: frozenset[str] = frozenset()

    def load(self, program: Program, fs: frozenset[str]) -> None:
        """Take a program; `fs` names the events of FreeSWITCH it asks for by their own names."""
        self.translator.load(program.events.values(), fs)
        self._of_a_call = frozenset(name for name, spec in program.events.items() if spec.scope == "call")

    def receive(self, server: str, event: EslEvent, now: float) -> None:
        """One event, in the order of its connection."""
        if self.translator.repeated(server, event):
            return
        channel = self._channels.observe(server, event, now)
        translations = self.translator.events_of(server, event, channel, now)
        if self._channels.lost:  # the first event of a restarted server
            lost, self._channels.lost = self._channels.lost, []
            self._resync.end_calls(lost)
        if self._channels.unidentified:
            unidentified, self._channels.unidentified = self._channels.unidentified, []
            self._resync.ask(server, unidentified)
        self._servers.observe(server, event)
        key_taken = channel is not None and self._heard(channel, event)
        for translation in translations:
            if translation.event.name == "registered":
                port = event.get("network-port")
                if not self._registrations.heard(translation.event, int(port) if port.isdigit() else 5060):
                    continue
            self._publish_translated(translation, key_taken)
        self._sockets.observe(server, event)

    def _heard(self, channel: Channel, event: EslEvent) -> bool:
        """What is under way on a channel hears of its event, and steps that wait for a channel look again. Returns
        whether it is a key that a step has taken, or has said why not."""
        if event.name.startswith("CHANNEL_"):
            self.reported(channel)
        return channel.hear(event) if channel.listeners else False

    def reported(self, channel: Channel) -> None:
        """FreeSWITCH has told something about a channel: steps that wait for it look again."""
        found = self._sockets.of(channel.server) or self._calls.by_call_id(channel.sip_call_id.encode())
        self._steps.look(found or self._calls.by_call_id(channel.uuid.encode()))

    def carried_by(self, server: str, uuid: str) -> Iterator[Call | SocketCall | None]:
        """The calls that a channel belongs to."""
        yield self._sockets.of(server)
        channel = self._channels.get(server, uuid)
        for call_id in (channel.sip_call_id, channel.uuid) if channel is not None else (uuid,):
            yield self._calls.by_call_id(call_id.encode())

    def _publish_translated(self, translation: Translation, key_taken: bool) -> None:
        """Give a FreeSWITCH event its call. An event that belongs to no flow's call is ignored.

        `key_taken` says that it is a key that a step has taken already, so that it may be for nobody else.
        """
        event = translation.event
        run: Run | None = None
        if event.name in self._of_a_call:
            call = self._sockets.of(translation.server) or self._call_of(translation)
            if call is None:
                self._node.count("esl.event.without_call")
                return
            event.call, run = call.id, call.run
        bus = self._node.bus
        taken = bus.publish(event) if bus.hears(event.name) else 0
        if event.name == "dtmf" and not taken and not key_taken and run is not None:
            run.ignored_key(event.attributes["digit"], event.attributes["leg"])

    def _call_of(self, translation: Translation) -> Call | None:
        for call_id in (translation.sip_call_id, translation.other_call_id):
            call = self._calls.by_call_id(call_id.encode()) if call_id else None
            if call is not None:
                return call
        return self._calls.by_id(translation.x_call)
