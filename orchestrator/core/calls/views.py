"""What flows see of calls and requests: mappings with the fields of `language.context`, each made when it is asked for.

Nothing that can be read again from the request is kept: a call that waits for its phone waits for long, and a flow
asks for a field once or twice. Octets become text here, as UTF-8 with replacement characters, so that nothing a
stranger sends can fail in a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.core.node import Node
from orchestrator.core.request_view import RequestView
from orchestrator.esl.channels import Channel
from orchestrator.sip.branch import Branch
from orchestrator.sip.message import Request


class Shown(Protocol):
    """A call as its view shows it (`core.calls.call.Call`)."""

    id: str
    node: Node
    invite: Request
    started_at: float
    answered_at: float | None
    user: str | None
    server: str
    lost: tuple[Channel, ...]

    @property
    def source(self) -> tuple[str, int]: ...
    @property
    def ended_by(self) -> str: ...
    @property
    def end_reason(self) -> str: ...
    @property
    def shown(self) -> str: ...
    @property
    def duration(self) -> float: ...
    @property
    def pending(self) -> Sequence[Branch]: ...
    def channels(self) -> Iterable[Channel]: ...


class NewCallView(RequestView):
    """`call` while a flow is being chosen: the INVITE alone, there is no call yet."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return _BEFORE[name] if name in _BEFORE else super().__getitem__(name)


def field_of(call: Shown, name: str) -> Any:
    """`call` of an `on: invite` flow: the state of the call as it is now, and its INVITE."""
    live = _LIVE.get(name)
    return live(call) if live is not None else _Invite(call)[name]


class _Invite(RequestView):
    """The INVITE of a call."""

    __slots__ = ()

    def __init__(self, call: Shown) -> None:
        node = call.node
        self._network = node.network
        self._request = call.invite
        self._source = call.source
        self._began = call.started_at + node.settings.wall_offset
        self.user = call.user


class VariableView(Mapping[str, str]):
    """Variables of a call's channels as FreeSWITCH last told them: the caller's, and those that only the callee's
    has."""

    __slots__ = ("_channels",)

    def __init__(self, channels: Iterable[Channel]) -> None:
        self._channels = sorted(channels, key=lambda channel: channel.leg != "caller")

    def __getitem__(self, name: str) -> str:
        for channel in self._channels:
            value = channel.variable(name)
            if value is not None:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        told = (channel.told for channel in self._channels if channel.told is not None)
        names = (name.removeprefix(_VARIABLE) for event in told for name in event.headers if name.startswith(_VARIABLE))
        return iter(dict.fromkeys(names))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<VariableView of {len(self._channels)} channels>"


_VARIABLE = "variable_"


def _branches(call: Shown) -> list[dict[str, Any]]:
    """The destinations that ring now."""
    states = {"resolving": "calling", "trying": "calling", "ringing": "ringing"}
    return [
        {
            "name": str(b.number),
            "contact": b.target.contact,
            "state": states.get(b.state, "failed"),
            "code": b.status,
        }
        for b in call.pending
    ]


def _freeswitch_side(call: Shown) -> dict[str, Any]:
    """Server, channel uuids and channel variables of a call, where FreeSWITCH carries it."""
    channels = list(call.channels()) or list(call.lost)
    found: dict[str, Any] = {
        "server": call.server or None,
        "caller": None,
        "callee": None,
        "vars": VariableView(channels),
    }
    for channel in channels:
        found["server"] = channel.server
        if channel.leg:
            found[channel.leg] = channel.uuid
    return found


_LIVE: Mapping[str, Callable[[Shown], Any]] = {
    "id": lambda call: call.id,
    "state": lambda call: call.shown,
    "answered": lambda call: call.answered_at is not None,
    "duration": lambda call: call.duration,
    "user": lambda call: call.user,
    "ended_by": lambda call: call.ended_by or None,
    "end_reason": lambda call: call.end_reason or None,
    "branches": lambda call: _branches(call),
    "fs": lambda call: _freeswitch_side(call),
}

_BEFORE: Mapping[str, Any] = {
    "state": "new",
    "answered": False,
    "duration": 0.0,
    "ended_by": None,
    "end_reason": None,
    "branches": [],
    "fs": {"server": None, "caller": None, "callee": None, "vars": {}},
}
"""The same fields while a flow is still being chosen."""
