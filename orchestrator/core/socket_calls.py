"""Channels that the dialplan has handed over, by the name of their connection; see `core.calls.dialplan_call`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.core.calls.call import Exchange
from orchestrator.core.calls.dialplan_call import SocketCall, SocketView
from orchestrator.core.node import Node
from orchestrator.core.steps.starts import Starts
from orchestrator.errors import EslInjection
from orchestrator.esl.channels import ENDS
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.commands import safe_uuid


class SocketCalls:
    """The channels of one engine that came over a socket, by the name of their connection."""

    __slots__ = ("_node", "_exchange", "_channels", "_flows", "_starts", "_calls")

    def __init__(self, node: Node, exchange: Exchange, starts: Starts) -> None:
        self._node = node
        self._exchange = exchange
        self._channels = exchange.channels
        self._flows = exchange.flows
        self._starts = starts
        self._calls: dict[str, SocketCall] = {}

    def open(self, server: str, event: EslEvent, refuse: Callable[[], None]) -> None:
        """A new channel; `refuse()` when no flow takes it or has room, or we stop: the dialplan goes on by itself."""
        node, channels = self._node, self._channels
        view = SocketView(node, event)
        flow = None
        if "socket" in self._starts.triggers and not node.draining:
            flow = self._flows.choose("socket", {"call": view}, view.dialled)
            if flow is not None and not self._flows.has_room(flow):
                flow = None
        channel = channels.observe(server, event, node.timers.now) if flow is not None else None
        if flow is None or channel is None or not _is_safe(channel.uuid):
            node.count("socket.refused")
            channels.forget(server)
            refuse()
            return
        call = SocketCall(node, self._exchange, server, channel, view)
        self._calls[server] = call
        self._starts.socket(flow, call)

    def of(self, server: str) -> SocketCall | None:
        """The call of a connection, until the connection has ended."""
        return self._calls.get(server)

    def observe(self, server: str, event: EslEvent) -> None:
        """An event of a connection: the answer and the end are the call's to know."""
        call = self._calls.get(server)
        if call is None or event.uuid != call.channel.uuid:
            return
        if event.name == "CHANNEL_ANSWER":
            call.on_answered()
        elif event.name in ENDS:
            call.end_by(call.channel.leg, event.get("Hangup-Cause") or "normal")

    def closed(self, server: str, reason: str) -> None:
        """The connection has ended, and with it all that we can do for the channel."""
        call = self._calls.pop(server, None)
        if call is not None:
            call.closed(reason)
        self._channels.forget(server)

    def __iter__(self) -> Iterator[SocketCall]:
        return iter(list(self._calls.values()))

    def __len__(self) -> int:
        return len(self._calls)


def _is_safe(uuid: str) -> bool:
    """Whether commands may name this channel: a uuid may be the Call-ID of a stranger."""
    try:
        return bool(safe_uuid(uuid))
    except EslInjection:
        return False
