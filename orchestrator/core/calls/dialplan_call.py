"""Calls that FreeSWITCH's dialplan hands over: `<action application="socket" data="host:port async full"/>`.

FreeSWITCH opens a connection for one channel and says in its first word, CHANNEL_DATA, everything it knows of it. There
is no INVITE here: SIP is FreeSWITCH's affair, and what a flow does with such a call it does to the channel. So these
calls are not in the table of SIP calls, and steps that need SIP find none.

Each connection is a server of its own for the rest of the core: its name stands where the name of a FreeSWITCH server
stands in events and commands. The same channel may be reported by an Event Socket link as well, under that link's name;
what comes from there is about no call of ours, so nothing is heard twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.core.calls.flow_call import Ending, FlowCall, Witnesses
from orchestrator.core.calls.liveness import TOO_LONG
from orchestrator.core.calls.views import VariableView
from orchestrator.core.node import Node
from orchestrator.core.request_view import AddressView
from orchestrator.core.switches.executions import command, ignore
from orchestrator.errors import MalformedMessage
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent, integer
from orchestrator.sip.uri import parse_uri

CAUSES: Mapping[int, str] = {
    403: "CALL_REJECTED", 404: "UNALLOCATED_NUMBER", 408: "NO_USER_RESPONSE", 480: "NO_USER_RESPONSE",
    486: "USER_BUSY", 487: "ORIGINATOR_CANCEL", 503: "NORMAL_TEMPORARY_FAILURE", 600: "USER_BUSY",
    603: "CALL_REJECTED", 604: "NO_ROUTE_DESTINATION",
}  # fmt: skip
"""Status code of `hangup:` → the cause FreeSWITCH makes that code of again (RFC 3398 §8.1, sofia_glue.c)."""

_UNESCAPED = re.compile(r"[^A-Za-z0-9_.!~*'()&=+$,;?/-]")
"""What RFC 3261 §25.1 has escaped in the user part of a URI."""
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


class SocketCall(FlowCall[Witnesses]):
    """One channel under a flow. Its states: `core.calls.flow_call`."""

    __slots__ = ("channel", "view")

    carried = True
    held = True
    """FreeSWITCH has the call, and so its media; see Call.carried."""

    def __init__(self, node: Node, exchange: Witnesses, server: str, channel: Channel, view: SocketView) -> None:
        super().__init__(node, exchange, node.tokens.token().decode(), server)
        self.channel = channel
        self.view = view
        self.watch_timer = node.timers.after(node.settings.limits.call_duration, _too_long, self)
        if channel.answered:
            self._answered()
        view.bind(self)

    @property
    def replied(self) -> bool:
        """It has been answered, or is over."""
        return self.state != "new"

    def channels(self) -> Iterator[Channel]:
        """The one channel of this call."""
        yield self.channel

    def on_answered(self) -> None:
        """FreeSWITCH says that the call is answered."""
        if self._answered():
            self.publish("answered", contact=self.view.name, leg=self.channel.leg)

    def _answered(self) -> bool:
        return self.step("answered") and self.step("confirmed")  # the ACK is FreeSWITCH's affair

    def hangup(self, reason: str, code: int | None, leg: str = "both") -> None:
        """Hang the channel up. The flow ends with it."""
        self.step("hangup", Ending("engine", reason or "hangup", code))

    def closed(self, reason: str) -> None:
        """The connection has ended, and with it all that we can do for the channel."""
        self.step("hung up", Ending("engine", reason))

    # --- reactions of the table (core.calls.flow_call) ----------------------------------------------------------------

    def open_dialog(self, answer: None) -> None:
        """The dialog is FreeSWITCH's; how long it may last counts from now on."""
        self._watch()

    def begun(self) -> None:
        """Its flow has begun, of a call that may have been answered before."""
        if self.state == "confirmed":
            self.ask_longest()
            self._watch()

    def _watch(self) -> None:
        if self.watch_timer is not None:
            self.watch_timer.cancel()
        self.watch_timer = self.node.timers.after(max(0.0, self.longest - self.duration), _too_long, self)

    def turn_away(self, ending: Ending) -> None:
        """Kill the channel, answered or not."""
        cause = CAUSES.get(ending.code or 0, "NORMAL_CLEARING")
        self.node.job(command(self.server, f"uuid_kill {self.channel.uuid} {cause}"), ignore)

    def take_leave(self, ending: Ending) -> None:
        """As `turn_away`: there is one channel, answered or not."""
        self.turn_away(ending)

    def hold_farewell(self, ending: Ending) -> None:
        """FreeSWITCH waits for the ACK itself."""
        self.turn_away(ending)

    def say_farewell(self) -> None:
        """Nothing waits for an ACK."""

    def left_by(self, ending: Ending) -> None:
        """FreeSWITCH tells the other side."""

    def discard(self) -> None:
        """It stays in its table until the connection has ended."""

    def close(self, ending: Ending) -> None:
        """Tell and record the end."""
        if self.run is not None:
            self.node.tell("call_ended", call=self.run.call["sip_call_id"], by=ending.by, reason=ending.reason)
            self.record(None, None)

    def let_go(self) -> None:
        """The channel is gone or told to go."""


class SocketView:
    """`call` of an `on: {socket: …}` flow: CHANNEL_DATA, and the state of the call as it is now.

    The fields are those of `language.context.CALL`. Addresses are made of the numbers FreeSWITCH names; what no URI may
    hold is escaped, so nothing a caller sends can fail here.
    """

    __slots__ = ("_node", "_event", "_began", "_call")

    def __init__(self, node: Node, event: EslEvent) -> None:
        self._node = node
        self._event = event
        self._began = int(node.wall)
        self._call: SocketCall | None = None

    def bind(self, call: SocketCall) -> None:
        self._call = call

    @property
    def name(self) -> str:
        """The channel as FreeSWITCH names it: `sofia/internal/1000@example.com`."""
        return self._event.get("Channel-Name")

    @property
    def dialled(self) -> str:
        """The number the dialplan was asked for."""
        return self._event.get("Caller-Destination-Number")

    def __getitem__(self, name: str) -> Any:
        call, live = self._call, _LIVE.get(name)
        if live is not None:
            return live[0] if call is None else live[1](call)
        return _FIELDS[name](self, self._event)

    def address(self, user: str, host: str, display: str = "") -> AddressView:
        """An address of these parts; without a usable host that of our first domain, else of our own address."""
        network, settings = self._node.network, self._node.settings
        if not _HOST.fullmatch(host):
            host = settings.domains[0] if settings.domains else settings.points[0].host
        escaped = _UNESCAPED.sub(lambda found: "".join(f"%{octet:02X}" for octet in found[0].encode()), user)
        try:
            uri = parse_uri(f"sip:{escaped + '@' if escaped else ''}{host}".encode())
        except MalformedMessage:
            uri = parse_uri(b"sip:invalid.invalid")
        return AddressView(network, uri, display.encode())

    def freeswitch_side(self) -> dict[str, Any]:
        """Server and uuid of the channel, and its variables: as it came while a flow is chosen, then as they are."""
        call = self._call
        if call is None:
            channel = Channel("", self._event.uuid, told=self._event)
            return {"server": None, "caller": None, "callee": None, "vars": VariableView([channel])}
        legs: dict[str, Any] = {"caller": None, "callee": None, call.channel.leg or "caller": call.channel.uuid}
        return {"server": call.server, **legs, "vars": VariableView([call.channel])}

    def __repr__(self) -> str:
        return f"<SocketView {self.name}>"


class SocketHeaders(Mapping[str, str]):
    """Headers of the INVITE as far as FreeSWITCH keeps them (`sip_h_…`), by name in any case."""

    __slots__ = ("_values",)

    def __init__(self, event: EslEvent) -> None:
        prefix = "variable_sip_h_"
        self._values = {k.removeprefix(prefix).lower(): v for k, v in event.headers.items() if k.startswith(prefix)}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _from(view: SocketView, event: EslEvent) -> AddressView:
    host = event.get("variable_sip_from_host") or event.get("Caller-Network-Addr")
    return view.address(event.get("Caller-Caller-ID-Number"), host, event.get("Caller-Caller-ID-Name"))


def _to(view: SocketView, event: EslEvent) -> AddressView:
    return view.address(event.get("variable_sip_to_user") or view.dialled, event.get("variable_sip_to_host"))


def _target(view: SocketView, event: EslEvent) -> AddressView:
    return view.address(view.dialled, event.get("variable_sip_req_host"))


_FIELDS: Mapping[str, Callable[[SocketView, EslEvent], Any]] = {
    "id": lambda view, event: event.uuid if view._call is None else view._call.id,
    "sip_call_id": lambda view, event: event.get("variable_sip_call_id") or event.uuid,
    "from": _from,
    "to": _to,
    "target": _target,
    "domain": lambda view, event: _target(view, event)["host"],
    "user": lambda view, event: event.get("variable_user_name") or None,
    "headers": lambda view, event: SocketHeaders(event),
    "user_agent": lambda view, event: event.get("variable_sip_user_agent") or None,
    "source_ip": lambda view, event: event.get("Caller-Network-Addr"),
    "source_port": lambda view, event: integer(event.get("variable_sip_network_port")),
    "transport": lambda view, event: event.get("variable_sip_via_protocol").lower(),
    "started_at": lambda view, event: view._began,
    "branches": lambda view, event: [],
    "fs": lambda view, event: view.freeswitch_side(),
}

_LIVE: Mapping[str, tuple[Any, Callable[[SocketCall], Any]]] = {
    "state": ("new", lambda call: call.shown),
    "answered": (False, lambda call: call.answered_at is not None),
    "duration": (0.0, lambda call: call.duration),
    "ended_by": (None, lambda call: call.ended_by or None),
    "end_reason": (None, lambda call: call.end_reason or None),
}
"""Fields that change: what they are while a flow is being chosen, and then."""


def _too_long(call: SocketCall) -> None:
    call.hangup(TOO_LONG, None)
