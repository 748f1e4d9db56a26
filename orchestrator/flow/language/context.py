"""The types of the names that the engine puts in front of an expression: call, request, event, error, results.

This is the promise the checker works with and the host keeps: for each record here the engine or the host provides a
mapping with exactly these keys. A field that may be null is optional here, and then no flow can read it without
saying what else.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.events.checked import CHECKED
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.flow.expr.origin import ADDRESSED, REGISTERED, THEIRS
from orchestrator.flow.expr.types import (
    ANY,
    BOOL,
    CONTACT,
    DIGITS,
    DURATION,
    NUMBER,
    TEXT,
    TIME,
    URI,
    Type,
    enum,
    list_of,
    map_of,
    optional,
    parse_type,
    record,
    theirs,
    with_origin,
)

ADDRESS = record(
    "address",
    {
        "uri": URI,  # as written, without display name and header parameters
        "scheme": TEXT,  # sip, sips, tel …
        "user": DIGITS,  # unescaped; '' when there is none
        "host": TEXT,  # lower case
        "port": optional(NUMBER),
        "aor": TEXT,  # user@host: what registrations are kept under
        "display": TEXT,  # '' when there is none
    },
)
"""An address of From, To or the request URI."""

FROM_OUTSIDE = theirs(ADDRESS)
TARGET = record(
    "address",
    {
        name: theirs(type, ADDRESSED if name in ("uri", "host", "aor") else THEIRS)
        for name, type in ADDRESS.fields.items()
    },
)
"""The request URI: a stranger has written it, and still it says where the call is to go."""

_DOMAIN = with_origin(TEXT, ADDRESSED)
_OUTSIDE = theirs(TEXT)

_CONTACT = with_origin(TEXT, REGISTERED)

BRANCH = record(
    "branch", {"name": TEXT, "contact": _CONTACT, "state": enum("calling", "ringing", "failed"), "code": NUMBER}
)

FREESWITCH_VIEW = record(
    "FreeSWITCH side",
    {
        "server": optional(TEXT),  # the one that has channels of this call
        "caller": theirs(optional(TEXT)),  # channel uuids of the legs, which may be Call-IDs of theirs
        "callee": theirs(optional(TEXT)),
        "vars": theirs(map_of(TEXT)),  # channel variables as of the last event
    },
)

CALL = record(
    "call",
    {
        "id": TEXT,  # the engine's name for the call: in traces, logs and events
        "sip_call_id": _OUTSIDE,  # Call-ID of the caller's dialog
        "state": enum("new", "ringing", "answered", "ended"),
        "from": FROM_OUTSIDE,
        "to": FROM_OUTSIDE,
        "target": TARGET,  # the request URI
        "domain": _DOMAIN,  # host of the request URI
        "user": optional(_OUTSIDE),  # whom auth: has found the caller to be, or a trusted source says he is
        "headers": theirs(map_of(TEXT)),  # of the INVITE, by name in any case
        "user_agent": optional(_OUTSIDE),
        "source_ip": _OUTSIDE,
        "source_port": NUMBER,
        "transport": TEXT,
        "answered": BOOL,
        "duration": DURATION,  # since the answer; 0 before it
        "started_at": TIME,
        "ended_by": optional(enum("caller", "callee", "engine")),
        "end_reason": optional(_OUTSIDE),
        "branches": list_of(BRANCH),
        "fs": FREESWITCH_VIEW,
    },
)
"""The call of an `on: invite` flow and of what runs inside it; after `originate:` the call that was placed."""

REQUEST = record(
    "request",
    {
        "id": _OUTSIDE,  # Call-ID
        "method": TEXT,
        "aor": with_origin(TEXT, ADDRESSED),  # of the To header: whose contacts these are
        "from": FROM_OUTSIDE,
        "to": FROM_OUTSIDE,
        "target": TARGET,  # the request URI
        "domain": _DOMAIN,
        "user": optional(_OUTSIDE),
        "headers": theirs(map_of(TEXT)),
        "content_type": optional(_OUTSIDE),  # of the body, null when there is none
        "body": _OUTSIDE,
        "user_agent": optional(_OUTSIDE),
        "expires": optional(NUMBER),  # Expires header, null when there is none
        "contacts": list_of(_OUTSIDE),
        "source_ip": _OUTSIDE,
        "source_port": NUMBER,
        "transport": TEXT,
    },
)
"""The request of a flow `on: register`, `on: message` and so on."""

REFER = record(
    "refer",
    {
        "to": TARGET,  # Refer-To without its headers: who is to be called
        "by": FROM_OUTSIDE,  # Referred-By, else From
        "replaces": optional(_OUTSIDE),  # the dialog that the new call takes the place of: an attended transfer
        "leg": enum("caller", "callee", "none"),  # the party of the call that asks; none outside of the calls of flows
    },
)
"""What the REFER of a flow `on: refer` asks for."""

ERROR = record(
    "error",
    {"type": _OUTSIDE, "message": _OUTSIDE, "step": TEXT, "line": NUMBER, "data": theirs(map_of(ANY))},
)
"""What `catch` and `on_error` see."""

RELAY_RESULT = record(
    "relay result",
    {
        "outcome": enum("answered", "busy", "no_answer", "rejected", "unavailable", "failed", "cancelled"),
        "code": NUMBER,
        "reason": _OUTSIDE,
        "contact": optional(_CONTACT),  # who answered
        "gateway": optional(TEXT),
        "tried": list_of(_CONTACT),
    },
)

RESULTS: Mapping[str, Type] = {
    "relay result": RELAY_RESULT,
    "push result": record("push result", {"sent": NUMBER, "failed": NUMBER, "dead": NUMBER}),
    "inject result": record("inject result", {"added": NUMBER, "reason": TEXT}),
    "recording": record("recording", {"file": TEXT, "duration": DURATION}),
    "digits": theirs(DIGITS),
    "esl result": record("esl result", {"ok": BOOL, "text": _OUTSIDE}),
    "execute result": record("execute result", {"response": _OUTSIDE}),
    "raise result": record("raise result", {"delivered": NUMBER}),
    "http result": record(
        "http result", {"status": NUMBER, "text": _OUTSIDE, "json": theirs(ANY), "headers": theirs(map_of(TEXT))}
    ),
    "charge result": record(
        "charge result", {"outcome": enum("granted", "denied", "error"), "max_usage": DURATION, "reason": _OUTSIDE}
    ),
    "auth result": record("auth result", {"user": _OUTSIDE, "realm": TEXT, "trusted": BOOL}),
    "contacts": list_of(CONTACT),
}
"""Types of `as:` by `Action.result`. The event of a wait and the value of a sub-flow depend on the step."""

SCHEDULE = record("schedule", {"open": BOOL})

ROOTS = (
    "call",
    "request",
    "refer",
    "event",
    "error",
    "vars",
    "params",
    "const",
    "groups",
    "schedules",
    "secrets",
    "now",
)

RESERVED = frozenset((*ROOTS, "relay", "charge", "contact", "true", "false", "null", "and", "or", "not", "in"))
"""Names that `as:` and `item:` may not take: root names of the engine and words of the expression language."""


OURS_IN_EVENTS: Mapping[str, tuple[str, ...]] = {
    "registered": ("aor", "contact", "uri"),
    "unregistered": ("aor", "contact"),
    "push_failed": ("aor", "contact", "service"),
    "ringing": ("branch", "contact"),
    "answered": ("contact",),
    "branch_failed": ("branch", "contact"),
}
"""Attributes of built-in events that the engine vouches for: what is registered, or was rung."""


def event_type(spec: EventSpec) -> Type:
    """The record `event` is inside a handler of this event."""
    return record("event", {name: _from(spec, attribute) for name, attribute in spec.attributes.items()})


def _from(spec: EventSpec, attribute: Attribute) -> Type:
    """The type of an attribute with its origin: a stranger may have written whatever text an event brings."""
    type = attribute_type(attribute)
    if type.kind in CHECKED or type.kind == "contact" or (type.kind == "list" and type.items.kind == "contact"):
        return type
    if spec.source != "custom" and attribute.name in OURS_IN_EVENTS.get(spec.name, ()):
        how = {"aor": ADDRESSED, "contact": REGISTERED, "uri": REGISTERED}.get(attribute.name)
        return type if how is None else with_origin(type, how)
    return theirs(type)


def attribute_type(attribute: Attribute) -> Type:
    type = enum(*attribute.values) if attribute.values else parse_type(attribute.type)
    return optional(type) if attribute.optional else type
