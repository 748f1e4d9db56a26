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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from orchestrator.core.node import Node
from orchestrator.core.settings import SERVER_TIMES, ServerTimes
from orchestrator.core.switches.executions import command
from orchestrator.core.switches.servers import Servers
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.commands import safe_uuid
from orchestrator.timers import Timer

AT_A_TIME = 4
"""Questions under way at one server: FreeSWITCH answers the commands of a connection one after the other anyway."""


class CarriedCall(Protocol):
    """A call that FreeSWITCH may have (`core.calls.call.Call`)."""

    carried: bool
    server: str

    @property
    def sip_call_id(self) -> bytes: ...
    @property
    def held(self) -> bool: ...
    def lose_freeswitch(self, channels: Sequence[Channel] = (), reason: str = "") -> None: ...


class CarriedCalls(Protocol):
    """Where those calls are found (`core.calls.table.Calls`)."""

    def __iter__(self) -> Iterator[CarriedCall]: ...
    def by_call_id(self, call_id: bytes) -> CarriedCall | None: ...


class Resync:
    """Keeps channels and calls of one engine in line with what its servers say, and with their silence.

    `reported(server, event)` is told what FreeSWITCH says of a channel that was asked about, `struck(call_id, bug,
    call)` a bug that struck while the call was ended.
    """

    def __init__(
        self,
        node: Node,
        servers: Servers,
        channels: ChannelTable,
        calls: CarriedCalls,
        reported: Callable[[Channel], object],
        struck: Callable[[str, Exception, CarriedCall], object],
    ) -> None:
        self._node = node
        self._servers = servers
        self._channels = channels
        self._calls = calls
        self._reported = reported
        self._struck = struck
        self._lost_after: dict[str, Timer] = {}  # by server that is down: when its calls are given up
        self._unknown: dict[str, deque[str]] = {}  # channels still to be asked about
        self._asking: dict[str, int] = {}

    def link_changed(self, server: str, state: str) -> None:
        """The link of a server is up, or it is not."""
        if state != "up":
            self._unknown.pop(server, None)
        self._watch_over(server, state == "up")

    def _watch_over(self, server: str, up: bool) -> None:
        """A server that stays down has lost its calls; one that comes back says itself which ones it has."""
        if up:
            timer = self._lost_after.pop(server, None)
            if timer is not None:
                timer.cancel()
        elif server not in self._lost_after:
            seconds = self._times(server).lost_after
            self._lost_after[server] = self._node.timers.after(seconds, self._give_up, server)

    def _give_up(self, server: str) -> None:
        """End the calls of a server that has been down for long: all, or where its SIP side still answers those that
        have nobody but it to talk to, and wait for commands that do not come."""
        self._lost_after[server] = self._node.timers.after(self._times(server).lost_after, self._give_up, server)
        reason = f"FreeSWITCH {server} is down"
        for call in self._calls:
            gone = self._servers.is_gone(server) and not self._servers.acceptance.in_doubt(server)
            if call.carried and call.server == server and (call.held or gone):
                self._node.count("call.server_down")
                call.lose_freeswitch(reason=reason)

    def _times(self, server: str) -> ServerTimes:
        return self._node.site.server_times.get(server, SERVER_TIMES)

    def compare(self, server: str, rows: Iterable[Mapping[str, Any]], since: float, core_uuid: str) -> None:
        """Bring the channel table in line with a snapshot."""
        changes = self._channels.resync(server, rows, self._node.timers.now, since, core_uuid)
        self.end_calls(changes.lost)
        self._unknown[server] = deque()
        self.ask(server, changes.found)

    def ask(self, server: str, channels: Iterable[Channel]) -> None:
        """Have FreeSWITCH say whose channels these are."""
        self._unknown.setdefault(server, deque()).extend(channel.uuid for channel in channels)
        for _ in range(AT_A_TIME - self._asking.get(server, 0)):
            self._ask_next(server)

    def end_calls(self, lost: list[Channel]) -> None:
        """End the calls of channels that are gone without a word."""
        found: dict[CarriedCall, list[Channel]] = {}
        for channel in lost:
            for call_id in (channel.sip_call_id, channel.uuid):
                call = self._calls.by_call_id(call_id.encode()) if call_id else None
                if call is not None and channel not in found.setdefault(call, []):
                    found[call].append(channel)
        for call, channels in found.items():
            self._lose(call, channels)

    def _lose(self, call: CarriedCall, channels: list[Channel]) -> None:
        """One of many: a bug that ends one call must not keep the others from ending."""
        try:
            call.lose_freeswitch(channels)
        except Exception as bug:
            call_id = call.sip_call_id.decode("utf-8", "replace")
            self._struck(call_id, bug, call)

    def _ask_next(self, server: str) -> None:
        """Ask about the next unknown channel. Its uuid may be a Call-ID that no command may hold: that one is left."""
        waiting = self._unknown.get(server)
        while waiting:
            try:
                uuid = safe_uuid(waiting.popleft())
            except EslInjection:
                self._node.count("esl.channel.unaskable")
                continue
            self._asking[server] = self._asking.get(server, 0) + 1
            effect = command(server, f"uuid_dump {uuid} json")
            self._node.job(effect, partial(self._answered, server, uuid))
            return

    def _answered(self, server: str, uuid: str, result: Any) -> None:
        """What FreeSWITCH knows of a channel. No answer is one, too: the channel has ended, or the link."""
        self._asking[server] -= 1
        event = None if isinstance(result, StepError) else EslEvent.json(result["text"])
        table = self._channels
        if event is not None and event.uuid == uuid and event.core_uuid == table.core_uuid(server):
            channel = table.observe(server, event, self._node.timers.now)
            if channel is not None:
                self._reported(channel)
        else:
            self._node.count("esl.channel.unexplained")
        self._ask_next(server)
