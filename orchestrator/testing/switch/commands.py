"""The API commands of a FreeSWITCH in memory, as far as they change what becomes of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from orchestrator.sip.claims import CALL_HEADER
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.switch.channel import Done, Switch, SwitchChannel, Told

SOON = 0.02
"""Seconds until the thread of a channel has heard of a command: a frame."""

_ADDRESS = re.compile(rb"sip:([A-Za-z0-9.+*_-]+@[A-Za-z0-9.-]+)")
_DIAL = re.compile(r"(?:\{(?P<settings>.*)\})?sofia/[^/]+/(?P<to>\S+)(?: .*)?")
_SETTING = re.compile(r"([^=,]+)=('[^']*'|[^,]*)")


class Exchange(Switch, Protocol):
    """The FreeSWITCH that runs a command: it has channels, and places calls."""

    channels: dict[str, SwitchChannel]
    placed: dict[PhoneCall, Callable[[str], None] | None]
    on_placed: Callable[[PhoneCall], object]
    domain: str

    def channel_of(self, call: PhoneCall) -> SwitchChannel | None:
        """The channel of a dialog."""

    def open(self, call: PhoneCall, direction: str, tie: bytes, peer: SwitchChannel | None = None) -> SwitchChannel:
        """A channel for a dialog."""

    def call_out(self, to: str, tie: bytes, sender: str, called: str, uuid: str = "") -> PhoneCall:
        """An INVITE of its own."""

    def execute(self, uuid: str, app: str, arguments: str, id: str, done: Done, told: Told | None = None) -> None:
        """Run an application on a channel."""


def dialled(dial: str) -> tuple[dict[str, str], str]:
    """`{a=1,b='x y'}sofia/profile/user@host` → variables, destination."""
    found = _DIAL.fullmatch(dial)
    if found is None:
        return {}, "unknown@invalid"
    return {name: value.strip("'") for name, value in _SETTING.findall(found["settings"] or "")}, found["to"]


def address_in(header: bytes) -> str:
    """user@host of a header or URI, where the dialplan would take it: nothing in it may be read as anything else."""
    found = _ADDRESS.search(header)
    return found[1].decode() if found is not None else ""


def originate(switch: Exchange, arguments: str, done: Callable[[str], None]) -> None:
    """`originate {variables}sofia/profile/user@host &park()`; the output comes when the call is answered or failed."""
    settings, to = dialled(arguments)
    number = settings.get("origination_caller_id_number", "")
    sender = f"{number}@{settings.get('sip_invite_domain', switch.domain)}" if number else ""
    tie = settings.get(f"sip_h_{CALL_HEADER.decode()}", "").encode()
    called = address_in(settings.get("sip_invite_to_uri", "").encode())
    call = switch.call_out(to, tie, sender, called, settings.get("origination_uuid", ""))
    switch.placed[call] = done
    switch.open(call, "outbound", tie).variables |= settings
    switch.on_placed(call)
    switch.after(float(settings.get("originate_timeout", "60")), lambda: _give_up(switch, call))


def _give_up(switch: Exchange, call: PhoneCall) -> None:
    channel = switch.channel_of(call)
    if switch.placed[call] is not None and channel is not None:
        switch.hang_up(channel, "NO_ANSWER")


def _answer(switch: Exchange, channel: SwitchChannel, _: str) -> None:
    switch.answer(channel)


def _kill(switch: Exchange, channel: SwitchChannel, cause: str) -> None:
    switch.hang_up(channel, cause or "NORMAL_CLEARING")


def _break(switch: Exchange, channel: SwitchChannel, _: str) -> None:
    """The application that runs ends; one that it runs inside goes on."""
    for running in channel.running[-1:]:
        switch.after(SOON, running.broken)


def _set(switch: Exchange, channel: SwitchChannel, arguments: str) -> None:
    name, _, value = arguments.partition(" ")
    channel.variables[name] = value


def _record(switch: Exchange, channel: SwitchChannel, arguments: str) -> None:
    verb, _, path = arguments.partition(" ")
    for recording in list(channel.recordings):
        if verb == "stop" and path in (recording.path, "all"):
            recording.stop()


def _transfer(switch: Exchange, channel: SwitchChannel, where: str) -> None:
    """`m:^:app:data^app:data inline` or `intercept:uuid inline`. An extension of another dialplan takes the leg away,
    and that is all there is to see of it."""
    for running in list(channel.running):
        running.broken()
    former, channel.peer = channel.peer, None
    if former is not None:
        former.peer = None
        switch.hang_up(former)
    steps, _, dialplan = where.rpartition(" ")
    if dialplan != "inline":
        return
    if steps.startswith("intercept:"):
        _intercept(switch, channel, steps.removeprefix("intercept:"))
        return
    mark, steps = (steps[2], steps[4:]) if steps.startswith("m:") else (",", steps)
    _inline(switch, channel, steps.split(mark))


def _inline(switch: Exchange, channel: SwitchChannel, steps: Sequence[str], failed: int = 0) -> None:
    """Run an inline dialplan; the steps behind a bridge are for one that has failed (continue_on_fail)."""
    for number, step in enumerate(steps):
        app, _, data = step.partition(":")
        if app == "bridge":
            switch.bridge(channel, data, partial(_inline, switch, channel, steps[number + 1 :]))
            return
        switch.execute(channel.uuid, app, data, "", lambda response: None)


def _intercept(switch: Exchange, channel: SwitchChannel, uuid: str) -> None:
    """The channel takes the place of the leg that rings for another one, which is answered with that."""
    other = switch.channels.get(uuid)
    if other is None:
        return
    rung, other.peer, channel.peer = other.peer, channel, other
    if rung is not None:
        rung.peer = None
        switch.hang_up(rung)
    switch.answer(other)


def _bridge(switch: Exchange, channel: SwitchChannel, uuid: str) -> None:
    """Two legs hear each other; those who were connected with them before are hung up (hangup_after_bridge)."""
    other = switch.channels.get(uuid)
    if other is None:
        return
    former = [leg.peer for leg in (channel, other) if leg.peer is not None]
    channel.peer, other.peer = other, channel
    for leg in former:
        leg.peer = None
        switch.hang_up(leg)


COMMANDS: Mapping[str, Callable[[Exchange, SwitchChannel, str], None]] = {
    "uuid_answer": _answer,
    "uuid_break": _break,
    "uuid_bridge": _bridge,
    "uuid_kill": _kill,
    "uuid_record": _record,
    "uuid_setvar": _set,
    "uuid_transfer": _transfer,
}
"""Commands about one channel."""
