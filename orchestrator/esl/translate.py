"""FreeSWITCH events to the typed events of the flow language (FLOWLANG §4.4).

What FreeSWITCH says about a channel becomes what a flow says about a call: `DTMF` on a channel becomes `dtmf` with a
leg. The channel table supplies what the event leaves out. The result is a `Translation`: the typed event with an
empty `call`, and everything known about whose call it is. Which engine call that is only the core can say, so it
fills in `event.call`: by the SIP Call-ID of this leg, by that of the other leg (FreeSWITCH is a B2BUA, each leg has
its own), and last by the X-Orchestrator-Call header, which is only a hint.

The leg follows the direction: FreeSWITCH hears the caller on a channel whose INVITE it received and the callee on one
whose INVITE it sent.

Only what the catalogue assigns to FreeSWITCH is raised here. `ringing`, `answered` and `hangup` of a call are SIP's
to say: the proxy sees them earlier, and FreeSWITCH's would double them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.esl.codec import EslEvent, integer, number
from orchestrator.esl.commands import EVENT_NAMES, esl_name
from orchestrator.events.event import Event, EventSpec
from orchestrator.events.outside import typed_event
from orchestrator.events.registry import BUILTIN_EVENTS

CHANNEL_EVENTS = ("CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_UUID", "CHANNEL_DESTROY")
"""What the channel table lives on, one event each for birth (uuid, direction, inbound Call-ID, other leg), the
outbound leg's Call-ID, re-bridging after a pickup, a change of uuid, and the end with its cause. Left out because
another one of these says the same soon enough, at 5-9 KB each: ORIGINATE, PROGRESS and PROGRESS_MEDIA (before the
answer an outbound leg is found through its other leg), HANGUP and HANGUP_COMPLETE (DESTROY follows, also where
HANGUP_COMPLETE does not come)."""

LINK_EVENTS = ("BACKGROUND_JOB", "HEARTBEAT")
"""What the link lives on: answers of bgapi, and the proof that FreeSWITCH still delivers events."""

_BUILT_IN = {spec.name: spec for spec in BUILTIN_EVENTS}


def needed(events: Iterable[str], fs: Iterable[str] = (), specs: Mapping[str, EventSpec] = _BUILT_IN) -> frozenset[str]:
    """All Event Socket names for flows that use these events, as their specs say; `fs`: names given to `fs` (Event-Name
    or CUSTOM subclass). An event may also be given by its Event-Name.
    """
    names = {*CHANNEL_EVENTS, *LINK_EVENTS}
    for event in events:
        spec = specs.get(event) or _BUILT_IN.get(event)
        names.update(spec.esl if spec is not None else (event,) if event in EVENT_NAMES else ())
    return frozenset(names.union(esl_name(name) for name in fs))


class Headers(Mapping[str, str]):
    """The headers of an event as a mapping, each decoded when it is looked up."""

    __slots__ = ("_event",)

    def __init__(self, event: EslEvent) -> None:
        self._event = event

    def __getitem__(self, name: str) -> str:
        value = self._event.find(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._event.headers)

    def __len__(self) -> int:
        return len(self._event.headers)

    def __repr__(self) -> str:
        return f"<Headers of {self._event!r}>"


@dataclass(slots=True)
class Translation:
    """A typed event and whose it may be. `event.call` is '' and stays so for events of global scope."""

    event: Event
    server: str
    uuid: str
    """The channel, '' when there is none."""
    sip_call_id: str
    """Call-ID of the channel's own SIP dialog; its uuid where only that is known, '' for no channel."""
    other_call_id: str
    """The same of the other leg, or ''."""
    x_call: str
    """X-Orchestrator-Call of this leg, else of the other one."""


class Translator:
    """Takes every event of every server, keeps the channel table up to date and raises what flows know.

    `fs` holds the names that flows subscribe to through `fs` (Event-Name or CUSTOM subclass): those events are also
    raised as they are. Counters: `duplicates`, and `orphans`, events of a call without a channel that could be found.
    """

    def __init__(self, table: ChannelTable, fs: Collection[str] = ()) -> None:
        self.table = table
        self.fs = frozenset(fs)
        self.readers: Mapping[str, Sequence[EventSpec]] = {}
        """Event-Name or CUSTOM subclass → events of packages that read it."""
        self.on_fault: Callable[[EventSpec, Exception], object] | None = None
        """Told what the code of such a package raises; its event is not raised."""
        self.duplicates = 0
        self.orphans = 0

    def translate(self, server: str, event: EslEvent, now: float) -> list[Translation]:
        """The typed events of one FreeSWITCH event, mostly none or one, in the order they are to be published; none of
        an event that came before."""
        if self.repeated(server, event):
            return []
        return self.events_of(server, event, self.table.observe(server, event, now), now)

    def repeated(self, server: str, event: EslEvent) -> bool:
        """Whether this event came before. Asked once for each."""
        if self.table.duplicate(server, event):
            self.duplicates += 1
            return True
        return False

    def events_of(self, server: str, event: EslEvent, channel: Channel | None, now: float) -> list[Translation]:
        """`translate` for an event that is not repeated; `channel` is what the table has observed."""
        result = []
        key = event.key
        translation = _TRANSLATIONS.get(key)
        if translation is not None:
            name, attributes_of, of_call = translation
            attributes = attributes_of(event, channel)
            if attributes is not None and of_call and (channel is None or not channel.leg):
                self.orphans += 1
            elif attributes is not None:
                result.append(self._about(Event(name, attributes, "", now), server, channel))
        for spec in self.readers.get(key, ()):
            made = self._read(spec, event, channel, now)
            if made is not None:
                result.append(self._about(made, server, channel))
        if key in self.fs:
            attributes = {"name": key, "uuid": event.uuid or None, "headers": Headers(event), "body": event.body}
            result.append(self._about(Event("fs", attributes, "", now), server, channel))
        return result

    def load(self, specs: Iterable[EventSpec], fs: Collection[str]) -> None:
        """Take the events of a program, and the names it gives to `fs`."""
        readers: dict[str, list[EventSpec]] = {}
        for spec in specs:
            for name in spec.esl if spec.read is not None else ():
                readers.setdefault(name.removeprefix("CUSTOM "), []).append(spec)
        self.readers, self.fs = readers, frozenset(fs)

    def _read(self, spec: EventSpec, event: EslEvent, channel: Channel | None, now: float) -> Event | None:
        assert spec.read is not None
        try:
            attributes = spec.read(Headers(event), event.body, channel.leg if channel is not None else "")
            return None if attributes is None else typed_event(spec, attributes, "", now)
        except Exception as bug:
            if self.on_fault is None:
                raise
            self.on_fault(spec, bug)
            return None

    def _about(self, event: Event, server: str, channel: Channel | None) -> Translation:
        if channel is None:
            return Translation(event, server, "", "", "", "")
        other = self.table.other(channel) if channel.other_uuid else None
        other_call_id = (other.sip_call_id or other.uuid) if other is not None else channel.other_uuid
        x_call = channel.x_call or (other.x_call if other is not None else "")
        return Translation(event, server, channel.uuid, channel.sip_call_id or channel.uuid, other_call_id, x_call)


def _dtmf(event: EslEvent, channel: Channel | None) -> dict[str, Any] | None:
    """DTMF-Duration counts samples at 8 kHz (switch_types.h:116), so 8 of them are a millisecond."""
    digit = event.get("DTMF-Digit")
    if not digit:
        return None
    return {
        "digit": digit,
        "ms": integer(event.get("DTMF-Duration")) // 8,
        "leg": channel.leg if channel is not None else "",
        "source": event.get("DTMF-Source"),
        "uuid": event.uuid or None,
    }


def _fax_tone(event: EslEvent, channel: Channel | None) -> dict[str, Any] | None:
    """Only spandsp's (mod_spandsp_fax.c:2413); DETECTED_TONE of tone_detect names no channel and any tone one likes.

    The event does not say which tone was heard: it is what the detector was started for, else what that side would
    send, CNG a calling fax and CED a called one (ITU-T T.30).
    """
    if event.get("Detected-Fax-Tone") != "true":
        return None
    leg = channel.leg if channel is not None else ""
    tone = channel.fax_tone if channel is not None else ""
    return {"tone": tone or ("ced" if leg == "callee" else "cng"), "leg": leg}


def _beep(event: EslEvent, channel: Channel | None) -> dict[str, Any]:
    """mod_avmd: Frequency in Hz, Detection-time in microseconds since the detector was started."""
    return {
        "frequency": number(event.get("Frequency")),
        "ms": integer(event.get("Detection-time")) // 1000,
        "leg": channel.leg if channel is not None else "",
    }


def _execute_done(event: EslEvent, channel: Channel | None) -> dict[str, Any]:
    """`uuid` is Application-UUID: the Event-UUID we gave when we started the application, or FreeSWITCH's own."""
    response = event.get("Application-Response")
    return {
        "app": event.get("Application"),
        "response": "" if response == "_none_" else response,
        "uuid": event.get("Application-UUID"),
    }


def _registered(event: EslEvent, channel: Channel | None) -> dict[str, Any]:
    """CUSTOM sofia::register. The names are swapped: the To user is in from-user (sofia_reg.c:2061); update-reg: a
    refresh.

    At the end of the Contact's URI FreeSWITCH has added parameters of its own (fs_nat, fs_path). They are cut off;
    fs_path, the last of them, is the way back to a phone behind a proxy.
    """
    contact = event.get("contact")
    uri = contact[contact.find("<") + 1 : contact.rfind(">")] if ">" in contact else contact.strip()
    uri, _, added = uri.partition(";fs_")
    user, at, rest = uri.rpartition("@")
    host, *parameters = rest.split(";")
    mobile = any(parameter.lower().startswith(("pn-provider", "pn-prid", "pn-tok")) for parameter in parameters)
    return {
        "aor": f"{event.get('from-user')}@{event.get('from-host')}",
        "contact": user + at + host,
        "uri": uri,
        "expires": integer(event.get("expires")),
        "user_agent": event.get("user-agent"),
        "source_ip": event.get("network-ip"),
        "path": unquote(added.partition("path=")[2]) or None,
        "mobile": mobile,
        "is_new": event.get("update-reg") != "true",
        "instance": None,
    }


_TRANSLATIONS: Mapping[str, tuple[str, Callable[[EslEvent, Channel | None], dict[str, Any] | None], bool]] = {
    "DTMF": ("dtmf", _dtmf, True),
    "DETECTED_TONE": ("fax_tone", _fax_tone, True),
    "avmd::beep": ("beep", _beep, True),
    "CHANNEL_EXECUTE_COMPLETE": ("execute_done", _execute_done, True),
    "sofia::register": ("registered", _registered, False),
}
