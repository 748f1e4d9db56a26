"""The catalogue of events: what may be subscribed to, waited for and raised, and with which attributes (FLOWLANG §4.4).

An event is a promise about names and types. The checker reads it to refuse `where: {aorr: …}` before any call is
made, the schema to offer completions, the Event Socket link to know which FreeSWITCH events it has to ask for, and
the engine to hold every raised event against it. Built-in events come from SIP, from FreeSWITCH or from the engine
itself; custom ones are declared under `events:` of a flow file and are always global; packages add theirs with
`EventRegistry.add`.

The FreeSWITCH side of each entry (Event-Name or CUSTOM subclass) was checked in its source, the file stands in
`source`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestrator.events.checked import CHECKED, WrongValue
from orchestrator.events.event import Attribute, Event, EventSpec, Reach

ATTRIBUTE_TYPES = (
    "text",
    "digits",
    "number",
    "int",
    "bool",
    "duration",
    "time",
    "list",
    "map",
    "contact",
    "contacts",
    "aor",
    "uri",
    "tel",
    "any",
)
"""The words a custom event may use, each also as `optional T`."""


def _attribute(text: str) -> Attribute:
    """`name: [optional] type` or `name: a/b/c` (an enum), the notation of FLOWLANG §4.4."""
    name, _, word = text.partition(": ")
    optional = word.startswith("optional ")
    word = word.removeprefix("optional ")
    if "/" in word:
        return Attribute(name, "text", values=tuple(word.split("/")), optional=optional)
    return Attribute(name, word, optional=optional)


def _spec(name: str, scope: Reach, doc: str, attributes: str, source: str = "", esl: tuple[str, ...] = ()) -> EventSpec:
    fields = [_attribute(text) for text in attributes.split(", ")]
    return EventSpec(name, doc, scope, {field.name: field for field in fields}, source, esl)


BUILTIN_EVENTS: tuple[EventSpec, ...] = (
    _spec(
        "registered",
        "global",
        "A phone registered a contact (new or refreshed).",
        "aor: text, contact: text, uri: text, expires: number, user_agent: text, source_ip: text, path: optional text, "
        "mobile: bool, is_new: bool, instance: optional text",
        source="our registrar; FreeSWITCH sofia_reg.c:2061 when it is the registrar",
        esl=("CUSTOM sofia::register",),
    ),
    _spec(
        "unregistered",
        "global",
        "A contact was removed or expired.",
        "aor: text, contact: text, reason: removed/expired/replaced",
        source="our registrar",
    ),
    _spec(
        "push_failed",
        "global",
        "A push service has not taken a push to a phone. dead: it will never reach this phone again; the contact is "
        "removed unless the phone has registered since.",
        "aor: text, contact: text, service: text, reason: text, dead: bool",
        source="the answer of the push service; or the phone has had too many pushes (push: per_phone)",
    ),
    _spec(
        "dtmf",
        "call",
        "A key was pressed (FreeSWITCH DTMF event or SIP INFO).",
        "digit: digits, ms: number, leg: caller/callee, source: text, uuid: optional text",
        source="FreeSWITCH switch_channel.c:678; not fired for sensitive DTMF",
        esl=("DTMF",),
    ),
    _spec(
        "ringing",
        "call",
        "A branch started ringing.",
        "branch: text, code: number, contact: text",
        source="18x of a branch",
    ),
    _spec("answered", "call", "The call was answered.", "contact: text, leg: caller/callee", source="2xx of a branch"),
    _spec(
        "branch_failed",
        "call",
        "A branch ended with a failure.",
        "branch: text, code: number, reason: text, contact: text",
        source="3xx-6xx or timeout of a branch",
    ),
    _spec(
        "hangup",
        "call",
        "A party hung up.",
        "leg: caller/callee, cause: text, code: optional number",
        source="CANCEL, BYE",
    ),
    _spec(
        "fax_tone",
        "call",
        "A fax tone was heard (spandsp).",
        "tone: cng/ced, leg: caller/callee",
        source="FreeSWITCH mod_spandsp_fax.c:2413; that of tone_detect carries no Unique-ID",
        esl=("DETECTED_TONE", "CHANNEL_EXECUTE_COMPLETE"),  # the second says which tone was listened for
    ),
    _spec(
        "beep",
        "call",
        "An answering machine beep was heard (mod_avmd).",
        "frequency: number, ms: number, leg: caller/callee",
        source="FreeSWITCH mod_avmd; avmd.conf.xml listens on outbound legs only by default",
        esl=("CUSTOM avmd::beep",),
    ),
    _spec(
        "silence",
        "call",
        "Nobody has spoken for the time given to detect: silence.",
        "ms: number, leg: caller/callee",
        source="FreeSWITCH switch_ivr_async.c, the end of a recording session that is not kept",
        esl=("RECORD_STOP",),
    ),
    _spec(
        "decision",
        "call",
        "detect: decision knows who has answered; comes once, at the latest when its time is over.",
        "verdict: human/machine/beep/fax/silence/timeout, ms: number, leg: caller/callee",
        source="speech, beep, fax tone and keys of that leg, whatever comes first",
        esl=("RECORD_STOP", "CUSTOM avmd::beep", "DETECTED_TONE", "DTMF"),
    ),
    _spec(
        "execute_done",
        "call",
        "A FreeSWITCH application finished.",
        "app: text, response: text, uuid: text",
        source="FreeSWITCH switch_core_session.c, matched by our Event-UUID",
        esl=("CHANNEL_EXECUTE_COMPLETE",),
    ),
    _spec(
        "fs",
        "global",
        "Any FreeSWITCH event; set name: to its Event-Name or CUSTOM subclass.",
        "name: text, uuid: optional text, headers: map, body: text",
        source="the Event Socket subscription follows the name: of each flow",
    ),
    _spec(
        "fs.link",
        "global",
        "The connection to a FreeSWITCH server came up, or went down.",
        "server: text, state: up/down, reason: optional text",
        source="the Event Socket link of each server; once per outage, however often it is tried again",
    ),
    _spec(
        "gateway_down",
        "global",
        "A gateway takes no calls: it answers neither OPTIONS nor calls, or said so.",
        "gateway: text, reason: text",
        source="our probes (OPTIONS) and the calls sent there",
    ),
    _spec(
        "gateway_up",
        "global",
        "A gateway that was down takes calls again.",
        "gateway: text, reason: text",
        source="our probes (OPTIONS) and the calls sent there",
    ),
    _spec(
        "charge_stop",
        "call",
        "CGRateS asks to end the call (balance used up), or its session could not be opened; it is about to be cut.",
        "reason: text",
        source="CGRateS DisconnectSession; the end of the call follows",
    ),
    _spec(
        "limit_reached",
        "call",
        "A charged call has lasted as long as its account, or max: of charge, allows; it is about to be cut.",
        "usage: duration",
        source="the session of charge",
    ),
    _spec(
        "low_balance",
        "call",
        "CGRateS says that little balance is left.",
        "usage: duration",
        source="CGRateS WarnDisconnect",
    ),
)


def custom_event(name: str, attributes: Mapping[str, str], doc: str = "") -> EventSpec:
    """The spec of an event declared under `events:`; `attributes` maps names to type words (`digits`, `optional text`).

    Raises:
        ValueError: a type word is not one of `ATTRIBUTE_TYPES`.
    """
    fields = {}
    for attribute, word in attributes.items():
        fields[attribute] = field = _attribute(f"{attribute}: {word}")
        if field.type not in ATTRIBUTE_TYPES or field.values:
            raise ValueError(f"unknown type {word!r} of attribute {attribute!r}")
    return EventSpec(name, doc, "global", fields, source="custom")


def build_event(spec: EventSpec, attributes: Mapping[str, Any], call: str = "", time: float = 0.0) -> Event:
    """An event with every declared attribute present, the optional ones null unless given.

    Raises:
        ValueError: an attribute is unknown, or one that is not optional is missing.
        WrongValue: an aor, uri or tel is none.
    """
    unknown = attributes.keys() - spec.attributes.keys()
    if unknown:
        raise ValueError(f"event {spec.name!r} has no attribute {min(unknown)!r}")
    values = {key: attributes.get(key) for key in spec.attributes}
    for key, attribute in spec.attributes.items():
        if values[key] is None and not attribute.optional:
            raise ValueError(f"event {spec.name!r} needs attribute {key!r}")
        if attribute.type in CHECKED and values[key] is not None:
            values[key] = _checked(spec, attribute, values[key])
    return Event(spec.name, values, call, time)


def _checked(spec: EventSpec, attribute: Attribute, value: Any) -> str:
    try:
        return CHECKED[attribute.type](str(value))
    except WrongValue as wrong:
        raise WrongValue(f"attribute {attribute.name!r} of event {spec.name!r}: {wrong}") from None


class EventRegistry:
    """All events one installation knows. A program gets its own, so a reload cannot leak names."""

    def __init__(self, specs: Iterable[EventSpec] = BUILTIN_EVENTS) -> None:
        self._by_name: dict[str, EventSpec] = {}
        for spec in specs:
            self.add(spec)

    def add(self, spec: EventSpec) -> EventSpec:
        """Make an event known; raises ValueError when the name is taken."""
        if spec.name in self._by_name:
            raise ValueError(f"event {spec.name!r} is defined twice")
        self._by_name[spec.name] = spec
        return spec

    @property
    def specs(self) -> Mapping[str, EventSpec]:
        """Name → spec, in order of definition."""
        return self._by_name

    def __getitem__(self, name: str) -> EventSpec:
        return self._by_name[name]

    def get(self, name: str) -> EventSpec | None:
        return self._by_name.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[EventSpec]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)
