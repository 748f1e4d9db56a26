"""What the core knows of FreeSWITCH servers as such: whether their links are up, and what became of their channels
while nobody was listening.

A link that comes up brings a snapshot, the channels the server has now. Channels of ours that it lacks are lost, and
their calls end. Channels that we do not know, because they began while we were away or their CHANNEL_CREATE was lost,
are asked about one by one (`uuid_dump`): neither the list nor a DTMF says which SIP call they belong to. Asking goes
`AT_A_TIME` channels at a time, so that a thousand of them do not stand in front of the commands of the flows.

The other way round a channel may outlive its call: FreeSWITCH ends a bridge only when the application that one of its
legs runs meanwhile (a prompt, rxfax) has come to its end. A second after the end of a call what is left is killed.

A server that was restarted answers with another Core-UUID, in the snapshot or in any event. Every channel it had is
lost then, whatever uuids it uses now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.core.executions import ignore
from orchestrator.core.faults import Fault
from orchestrator.core.settings import SERVER_TIMES, ServerTimes
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent, integer
from orchestrator.esl.commands import safe_uuid
from orchestrator.events.event import Event
from orchestrator.flow.run.effects import EslCommand
from orchestrator.timers import Timer

if TYPE_CHECKING:
    from orchestrator.core.call import Call
    from orchestrator.core.engine import Engine

OUTLIVE = 1.0
"""Seconds that a channel may outlive its call: what FreeSWITCH does by itself takes some milliseconds."""
AT_A_TIME = 4
"""Questions under way at one server: FreeSWITCH answers the commands of a connection one after the other anyway."""


class Servers:
    """The FreeSWITCH servers of one engine, by name."""

    def __init__(self, engine: Engine) -> None:
        self.states: dict[str, str] = {}
        """State of each link: down, connecting, … up."""
        self.loads: dict[str, float] = {}
        """Share of its sessions that a server has in use, as its last HEARTBEAT says."""
        self._engine = engine
        self._told: dict[str, str] = {}  # what flows were told last
        self._lost_after: dict[str, Timer] = {}  # by server that is down: when its calls are given up
        self._unknown: dict[str, deque[str]] = {}  # channels still to be asked about
        self._asking: dict[str, int] = {}

    def link_changed(self, server: str, state: str, reason: str) -> None:
        """Flows hear of `up`, and of the first `down` of an outage; the tries in between are nobody's business."""
        self.states[server] = state
        if state != "up":
            self._unknown.pop(server, None)
        self._watch_over(server)
        if state in ("up", "down") and self._told.get(server) != state:
            self._told[server] = state
            if self._engine.bus.hears("fs.link"):
                attributes = {"server": server, "state": state, "reason": reason or None}
                self._engine.bus.publish(Event("fs.link", attributes, "", self._engine.timers.now))

    def _watch_over(self, server: str) -> None:
        """A server that stays down has lost its calls; one that comes back says itself which ones it has."""
        if self.is_up(server):
            timer = self._lost_after.pop(server, None)
            if timer is not None:
                timer.cancel()
        elif server not in self._lost_after:
            seconds = self._times(server).lost_after
            self._lost_after[server] = self._engine.timers.after(seconds, self._give_up, server)

    def _give_up(self, server: str) -> None:
        """End the calls of a server that has been down for long: all, or where its SIP side still answers those that
        have nobody but it to talk to, and wait for commands that do not come."""
        self._lost_after[server] = self._engine.timers.after(self._times(server).lost_after, self._give_up, server)
        reason = f"FreeSWITCH {server} is down"
        for call in self._engine.calls:
            if call.carried and call.server == server and (call.held or self.is_gone(server)):
                self._engine.count("call.server_down")
                call.lose_freeswitch(reason=reason)

    def _times(self, server: str) -> ServerTimes:
        return self._engine.settings.server_times.get(server, SERVER_TIMES)

    def observe(self, server: str, event: EslEvent) -> None:
        """Every FreeSWITCH event."""
        if event.name == "HEARTBEAT":
            before = self.loads.get(server, 0.0)
            sessions, most = integer(event.get("Session-Count")), max(1, integer(event.get("Max-Sessions")))
            load = self.loads[server] = sessions / most
            if load >= 1.0 > before:
                self._engine.tell("freeswitch_full", server=server, sessions=sessions, most=most)
            elif load < 1.0 <= before:
                self._engine.tell("freeswitch_has_room", server=server, sessions=sessions, most=most)

    def is_up(self, server: str) -> bool:
        """Whether its link is up, as far as anybody has said."""
        return self.states.get(server, "up") == "up"

    def is_gone(self, server: str) -> bool:
        """Nothing is heard from it: its link is down, and its SIP side is not known to answer."""
        return self.states.get(server, "up") != "up"

    def choose(self, names: Iterable[str]) -> str | None:
        """A server for something new: of those whose link is up the one that has least to do, the first among equals;
        one that is down only where none is up, so that the flow hears that it is."""
        known = list(names)
        up = [name for name in known if self.is_up(name)]
        return min(up or known, key=lambda name: self.loads.get(name, 0.0), default=None)

    def compare(self, server: str, rows: Iterable[Mapping[str, Any]], since: float, core_uuid: str) -> None:
        """Bring the channel table in line with a snapshot."""
        engine = self._engine
        changes = engine.channels.resync(server, rows, engine.timers.now, since, core_uuid)
        self.end_calls(changes.lost)
        self._unknown[server] = deque()
        self.ask(server, changes.found)

    def ask(self, server: str, channels: Iterable[Channel]) -> None:
        """Have FreeSWITCH say whose channels these are."""
        self._unknown.setdefault(server, deque()).extend(channel.uuid for channel in channels)
        for _ in range(AT_A_TIME - self._asking.get(server, 0)):
            self._ask_next(server)

    def end_channels(self, call: Call) -> None:
        """The call is over; see to it that its channels are, too. BYE does it, and carries the reason; so that comes
        first."""
        self._engine.timers.after(OUTLIVE, self._kill_channels, call)

    def _kill_channels(self, call: Call) -> None:
        for channel in list(self._engine.channels_of(call)):
            try:
                text = f"uuid_kill {safe_uuid(channel.uuid)}"
            except EslInjection:
                continue  # a stranger's Call-ID: FreeSWITCH does what it can
            if not channel.destroyed:
                self._engine.count("esl.channel.outlived")
                self._engine.job(EslCommand("api", text, channel.server), ignore)

    def end_calls(self, lost: list[Channel]) -> None:
        """End the calls of channels that are gone without a word."""
        found: dict[Call, list[Channel]] = {}
        for channel in lost:
            for call_id in (channel.sip_call_id, channel.uuid):
                call = self._engine.calls.by_call_id(call_id.encode()) if call_id else None
                if call is not None and channel not in found.setdefault(call, []):
                    found[call].append(channel)
        for call, channels in found.items():
            self._lose(call, channels)

    def _lose(self, call: Call, channels: list[Channel]) -> None:
        """One of many: a bug that ends one call must not keep the others from ending."""
        try:
            call.lose_freeswitch(channels)
        except Exception as bug:
            call_id = call.sip_call_id.decode("utf-8", "replace")
            self._engine.faults.struck(Fault("channel lost", bug, call_id=call_id), call)

    def _ask_next(self, server: str) -> None:
        """Ask about the next unknown channel. Its uuid may be a Call-ID that no command may hold: that one is left."""
        waiting = self._unknown.get(server)
        while waiting:
            try:
                uuid = safe_uuid(waiting.popleft())
            except EslInjection:
                self._engine.count("esl.channel.unaskable")
                continue
            self._asking[server] = self._asking.get(server, 0) + 1
            effect = EslCommand("api", f"uuid_dump {uuid} json", server)
            self._engine.job(effect, partial(self._answered, server, uuid))
            return

    def _answered(self, server: str, uuid: str, result: Any) -> None:
        """What FreeSWITCH knows of a channel. No answer is one, too: the channel has ended, or the link."""
        self._asking[server] -= 1
        event = None if isinstance(result, StepError) else EslEvent.json(result["text"])
        table = self._engine.channels
        if event is not None and event.uuid == uuid and event.core_uuid == table.core_uuid(server):
            table.observe(server, event, self._engine.timers.now)
            self._engine.host.observe(server, event)  # whoever waits for the channel
        else:
            self._engine.count("esl.channel.unexplained")
        self._ask_next(server)
