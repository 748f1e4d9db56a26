"""The channel table: which FreeSWITCH channel belongs to which SIP call, and on which side of it the channel stands.

DTMF, DETECTED_TONE and avmd events name a channel and nothing else; the Call-ID, our own X-Orchestrator-Call header
and the other leg stand only in CHANNEL_* events. So the table watches those and answers for the rest. Where
FreeSWITCH is set up with `inbound-use-callid-as-uuid` and `outbound-use-uuid-as-callid` the uuid is the Call-ID, and
a channel is found under either.

A channel is known from CHANNEL_CREATE (or whichever event of it comes first: we may have connected in the middle of a
call) until some time after CHANNEL_DESTROY, because events of other threads may still be under way then. Three things
end it without a CHANNEL_DESTROY: FreeSWITCH was restarted, which a new Core-UUID shows; the channel is missing from a
snapshot taken after a reconnect; or another channel takes its uuid. What was lost that way is left in `lost` for the
caller.

FreeSWITCH sends some events twice with one Event-Sequence, first without and then with the channel (tone_detect on a
parked channel, avmd). `duplicate` lets the bare one pass, since nothing says that a fuller one will follow, but never
lets it shadow the fuller one.

No I/O and no clock: `now` is given, in seconds of any one monotonic clock.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from orchestrator.esl.codec import EslEvent, integer

TTL = 30.0
"""Seconds a destroyed channel is remembered: late events, and the answer of a job that was under way, come within
that.
"""

WINDOW = 1024
"""Event-Sequences remembered per server, at least: twins follow each other within a few events."""

CALL_ID = "variable_sip_call_id"
X_CALL = "variable_sip_h_X-Orchestrator-Call"

LOST = "LOST"
"""Hang-up cause of a channel that went without saying why."""

FAX_DETECTOR = "spandsp_start_fax_detect"

_IDENTIFYING = frozenset(
    f"CHANNEL_{kind}" for kind in ("CREATE", "ORIGINATE", "PROGRESS", "PROGRESS_MEDIA", "ANSWER", "UUID", "DATA")
)
"""Events that may know more about a channel than the one before: the Call-ID of an outbound leg comes with the first
reply.
"""

_WITH_VARIABLES = frozenset(
    f"CHANNEL_{kind}"
    for kind in (
        *("CREATE", "ORIGINATE", "UUID", "PROGRESS", "PROGRESS_MEDIA", "ANSWER", "DATA", "BRIDGE", "UNBRIDGE"),
        *("HOLD", "UNHOLD", "PARK", "UNPARK", "EXECUTE", "EXECUTE_COMPLETE", "HANGUP", "HANGUP_COMPLETE", "DESTROY"),
    )
).union(("CALL_UPDATE", "PLAYBACK_START", "PLAYBACK_STOP", "RECORD_START", "RECORD_STOP", "SESSION_HEARTBEAT"))
"""Events that come with all variables of their channel (switch_channel.c:2768); to look for one would cost more."""


ENDS = frozenset(("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"))
"""Any of them is the end of a channel; a connection may lose one. After CHANNEL_DESTROY nothing more comes."""


class ChannelListener(Protocol):
    """What is under way on one channel and hears its events: a `collect`, a detector, a recording."""

    def hear(self, event: EslEvent) -> bool:
        """An event of the channel. Returns whether it is a key, and this listener's."""


@dataclass(slots=True, eq=False)
class Channel:
    """One leg of a call on one FreeSWITCH."""

    server: str
    uuid: str
    direction: str = ""
    """`inbound`: FreeSWITCH received the INVITE; `outbound`: it sent it; '' as long as nothing told us."""
    sip_call_id: str = ""
    other_uuid: str = ""
    """The leg it was made by, made, or is bridged to."""
    x_call: str = ""
    """Value of the header X-Orchestrator-Call. A hint: whoever can send FreeSWITCH an INVITE can write it."""
    answered: bool = False
    hangup_cause: str = ""
    destroyed: bool = False
    fax_tone: str = ""
    """What spandsp was told to listen for on it, `cng` or `ced`; '' when we did not see it started."""
    seen: float = 0.0
    """When the last event of it was observed."""
    sequence: int = 0
    """The highest Event-Sequence of its events."""
    told: EslEvent | None = field(default=None, repr=False)
    """The last event that had its variables."""
    listeners: tuple[ChannelListener, ...] = field(default=(), repr=False)
    """Who hears the events of this channel, in the order they came."""

    def listen(self, listener: ChannelListener) -> None:
        """Tell it each event of this channel from now on."""
        self.listeners = (*self.listeners, listener)

    def ignore(self, listener: ChannelListener) -> None:
        """Tell it nothing any more."""
        self.listeners = tuple(other for other in self.listeners if other is not listener)

    def hear(self, event: EslEvent) -> bool:
        """Hand an event to those who listen now; returns whether it is a key that one of them takes."""
        taken = False
        for listener in self.listeners:
            if listener in self.listeners:  # not stopped by one before it
                taken |= listener.hear(event)
        return taken

    def variable(self, name: str) -> str | None:
        """A channel variable as FreeSWITCH last told it."""
        return self.told.find(f"variable_{name}") if self.told is not None else None

    @property
    def leg(self) -> str:
        """Who is heard on it. FreeSWITCH got an inbound channel's call from the caller and made an outbound one to the
        callee; '' when the direction is not known.
        """
        return {"inbound": "caller", "outbound": "callee"}.get(self.direction, "")


class Resync(NamedTuple):
    """What a snapshot changed: channels that are gone, and channels we did not know (maybe without their Call-ID)."""

    lost: list[Channel]
    found: list[Channel]


class _Server:
    """What is known of one FreeSWITCH."""

    __slots__ = ("channels", "core_uuid", "recent", "older")

    def __init__(self) -> None:
        self.core_uuid = ""
        self.channels: dict[str, Channel] = {}
        # Event-Sequence to "named its channel", in two generations so that forgetting costs nothing.
        self.recent: dict[str, bool] = {}
        self.older: dict[str, bool] = {}


class ChannelTable:
    """All channels of all servers. Feed it every event (`observe`), and a snapshot after each connect (`resync`)."""

    def __init__(self, ttl: float = TTL) -> None:
        self.lost: list[Channel] = []
        """Channels ended by a restart of FreeSWITCH; the caller takes them out."""
        self.unidentified: list[Channel] = []
        """Channels that were first heard of in the middle of their lives, by an event that does not say whose they are;
        the caller takes them out and asks (`uuid_dump`)."""
        self.reordered = 0
        """Events that came behind later ones of the same channel: FreeSWITCH dispatches with several threads when more
        than 10,000 wait (switch_event.c). Between channels the order means nothing: each has its thread, which takes
        the number first and queues the event afterwards. COMMAND has the thread of whoever commands."""
        self._ttl = ttl
        self._servers: dict[str, _Server] = {}
        self._index: dict[str, list[Channel]] = {}  # by Call-ID and by uuid
        self._dying: deque[tuple[float, Channel]] = deque()

    # --- input --------------------------------------------------------------------------------------------------------

    def duplicate(self, server: str, event: EslEvent) -> bool:
        """Whether this event came before, at least as complete. Remembers it otherwise."""
        node = self._server(server, event.core_uuid)
        sequence = event.order
        if not sequence:
            return False
        before = node.recent.get(sequence)
        if before is None:
            before = node.older.get(sequence)
        uuid = event.uuid
        named = bool(uuid)
        if before is not None and (before or not named):
            return True
        if len(node.recent) >= WINDOW:
            node.older, node.recent = node.recent, {}
        node.recent[sequence] = named
        channel = node.channels.get(uuid) if named else None
        if channel is not None and before is None and event.name != "COMMAND":
            number = integer(sequence)
            if 0 < number < channel.sequence:
                self.reordered += 1
            channel.sequence = max(channel.sequence, number)
        return False

    def observe(self, server: str, event: EslEvent, now: float) -> Channel | None:
        """Learn from an event; returns the channel it belongs to, None when it names none or too little to start one.

        `CHANNEL_DATA` (what `uuid_dump <uuid> json` answers, through `EslEvent.json`) teaches like a CHANNEL_* event.
        """
        node = self._server(server, event.core_uuid)
        self.expire(now)
        uuid = event.uuid
        if not uuid:
            return None
        name = event.name
        if name == "CHANNEL_UUID":
            self._rekey(node, event.get("Old-Unique-ID"), uuid)
        channel = node.channels.get(uuid)
        if channel is None or (channel.destroyed and name == "CHANNEL_CREATE"):
            direction = event.get("Call-Direction")
            if not direction:
                return None
            sequence = event.sequence
            channel = self._add(node, Channel(server, uuid, direction, sequence=sequence))
            self._identify(channel, event)
            if name not in _IDENTIFYING and not channel.sip_call_id and not channel.x_call:
                self.unidentified.append(channel)
        elif name in _IDENTIFYING:
            self._identify(channel, event)
        channel.seen = now
        if not channel.direction:
            channel.direction = event.get("Call-Direction")
        if name.startswith("CHANNEL_"):
            self._learn(node, channel, name, event, now)
        if name in _WITH_VARIABLES:
            channel.told = event
        return channel

    def resync(
        self, server: str, rows: Iterable[Mapping[str, Any]], now: float, since: float, core_uuid: str = ""
    ) -> Resync:
        """Compare with the rows of `show channels as json`, taken at `now` on a connection that receives since `since`.

        A channel is lost when no row has it and no event of it came since then: the list FreeSWITCH answers from runs
        some milliseconds behind its events, so a channel just created may be missing there, and a destroyed one
        present.
        """
        node = self._server(server, core_uuid)
        lost, self.lost = self.lost, []
        found = []
        alive = set()
        for row in rows:
            uuid = str(row.get("uuid") or "")
            alive.add(uuid)
            channel = node.channels.get(uuid)
            if uuid and channel is None:
                channel = Channel(server, uuid, str(row.get("direction") or ""), seen=now)
                channel.answered = row.get("callstate") in ("ACTIVE", "HELD")
                other = str(row.get("call_uuid") or "")
                channel.other_uuid = other if other != uuid else ""
                found.append(self._add(node, channel))
        for channel in list(node.channels.values()):
            if not channel.destroyed and channel.uuid not in alive and channel.seen < since:
                self._end(channel, LOST, now)
                lost.append(channel)
        return Resync(lost, found)

    def tie(self, server: str, uuid: str, sip_call_id: str, direction: str = "") -> None:
        """Say which SIP dialog a channel belongs to, for those who know it better than its events: a replayed recording
        stands for a call that it never saw.
        """
        channel = self.get(server, uuid)
        if channel is not None:
            self._unindex(channel)
            channel.sip_call_id = sip_call_id
            channel.direction = direction or channel.direction
            self._add(self._servers[server], channel)

    def expire(self, now: float) -> None:
        """Forget what was destroyed more than `ttl` seconds ago. `observe` does it too."""
        while self._dying and self._dying[0][0] <= now:
            _, channel = self._dying.popleft()
            node = self._servers.get(channel.server)
            if node is not None and node.channels.get(channel.uuid) is channel:
                del node.channels[channel.uuid]
                self._unindex(channel)

    def forget(self, server: str) -> None:
        """A server that does not come back: everything about it goes."""
        node = self._servers.pop(server, None)
        for channel in node.channels.values() if node is not None else ():
            channel.destroyed = True
            self._unindex(channel)

    # --- questions ----------------------------------------------------------------------------------------------------

    def get(self, server: str, uuid: str) -> Channel | None:
        """The channel, also for `ttl` seconds after its end."""
        node = self._servers.get(server)
        return node.channels.get(uuid) if node is not None else None

    def other(self, channel: Channel) -> Channel | None:
        """The other leg, when it is known."""
        return self.get(channel.server, channel.other_uuid)

    def by_call_id(self, call_id: str) -> list[Channel]:
        """Channels of one SIP dialog, or whose uuid is this Call-ID; several when servers were tried in turn."""
        return list(self._index.get(call_id, ()))

    def core_uuid(self, server: str) -> str:
        """Core-UUID seen last; '' before the first event."""
        node = self._servers.get(server)
        return node.core_uuid if node is not None else ""

    def standing(self) -> dict[str, int]:
        """Server → its channels that have not been destroyed."""
        return {
            name: sum(not channel.destroyed for channel in node.channels.values())
            for name, node in self._servers.items()
        }

    def __len__(self) -> int:
        return sum(len(node.channels) for node in self._servers.values())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _server(self, server: str, core_uuid: str) -> _Server:
        node = self._servers.get(server)
        if node is None:
            node = self._servers[server] = _Server()
        if core_uuid and core_uuid != node.core_uuid:
            if node.core_uuid:
                self._restarted(node)
            node.core_uuid = core_uuid
        return node

    def _restarted(self, node: _Server) -> None:
        """Another core answers: nothing of the former one is left."""
        for channel in node.channels.values():
            if not channel.destroyed:
                channel.destroyed, channel.hangup_cause = True, LOST
                self.lost.append(channel)
            self._unindex(channel)
        node.channels.clear()
        node.recent, node.older = {}, {}

    def _learn(self, node: _Server, channel: Channel, name: str, event: EslEvent, now: float) -> None:
        if name == "CHANNEL_EXECUTE_COMPLETE":
            if event.get("Application") == FAX_DETECTOR:
                channel.fax_tone = "ced" if event.get("Application-Data").split()[-1:] == ["ced"] else "cng"
        elif name == "CHANNEL_DESTROY":
            self._end(channel, event.get("Hangup-Cause"), now)
        elif name.startswith("CHANNEL_HANGUP"):
            channel.hangup_cause = event.get("Hangup-Cause")
        elif name == "CHANNEL_BRIDGE":
            self._bridge(node, event.get("Bridge-A-Unique-ID"), event.get("Bridge-B-Unique-ID"))
        if not channel.answered and event.get("Answer-State") == "answered":
            channel.answered = True

    def _identify(self, channel: Channel, event: EslEvent) -> None:
        """Call-ID, our header and the other leg, as far as this event has them and we had not."""
        if not channel.sip_call_id:
            channel.sip_call_id = event.get(CALL_ID)
            if channel.sip_call_id and channel.sip_call_id != channel.uuid:
                self._index.setdefault(channel.sip_call_id, []).append(channel)
        if not channel.x_call:
            channel.x_call = event.get(X_CALL)
        channel.other_uuid = event.get("Other-Leg-Unique-ID") or channel.other_uuid

    def _bridge(self, node: _Server, one: str, two: str) -> None:
        for uuid, other in ((one, two), (two, one)):
            channel = node.channels.get(uuid)
            if channel is not None and other:
                channel.other_uuid = other

    def _rekey(self, node: _Server, old: str, new: str) -> None:
        """CHANNEL_UUID: the same channel goes on under another uuid (uuid_setvar, attended transfer)."""
        channel = node.channels.pop(old, None)
        if channel is None:
            return
        self._unindex(channel)
        partner = node.channels.get(channel.other_uuid)
        if partner is not None and partner.other_uuid == old:
            partner.other_uuid = new
        channel.uuid = new
        self._add(node, channel)

    def _end(self, channel: Channel, cause: str, now: float) -> None:
        if not channel.destroyed:
            channel.destroyed = True
            self._dying.append((now + self._ttl, channel))
        channel.hangup_cause = cause or channel.hangup_cause

    def _add(self, node: _Server, channel: Channel) -> Channel:
        former = node.channels.get(channel.uuid)
        if former is not None:
            self._unindex(former)
        node.channels[channel.uuid] = channel
        for key in {channel.uuid, channel.sip_call_id} - {""}:
            self._index.setdefault(key, []).append(channel)
        return channel

    def _unindex(self, channel: Channel) -> None:
        for key in {channel.uuid, channel.sip_call_id} - {""}:
            _remove(self._index, key, channel)


def _remove(index: dict[str, list[Channel]], key: str, channel: Channel) -> None:
    channels = index.get(key, [])
    if channel in channels:
        channels.remove(channel)
    if not channels:
        index.pop(key, None)


def parse_channels(text: str) -> list[dict[str, Any]] | None:
    """Rows of `show channels as json`; [] when FreeSWITCH has no channels (it leaves `rows` out), None for no JSON."""
    try:
        answer = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    rows = answer.get("rows", []) if isinstance(answer, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None
