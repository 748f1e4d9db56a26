"""The types of the names that the engine puts in front of an expression: call, request, event, error, results.

This is the promise the checker works with and the host keeps: for each record here the engine or the host provides a
mapping with exactly these keys. A field that may be null is optional here, and then no flow can read it without
saying what else.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.events.event import Attribute, EventSpec
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

BRANCH = record(
    "branch", {"name": TEXT, "contact": TEXT, "state": enum("calling", "ringing", "failed"), "code": NUMBER}
)

FREESWITCH_VIEW = record(
    "FreeSWITCH side",
    {
        "server": optional(TEXT),  # the one that has channels of this call
        "caller": optional(TEXT),  # channel uuids of the legs
        "callee": optional(TEXT),
        "vars": map_of(TEXT),  # channel variables as of the last event
    },
)

CALL = record(
    "call",
    {
        "id": TEXT,  # the engine's name for the call: in traces, logs and events
        "sip_call_id": TEXT,  # Call-ID of the caller's dialog
        "state": enum("new", "ringing", "answered", "ended"),
        "from": ADDRESS,
        "to": ADDRESS,
        "target": ADDRESS,  # the request URI
        "domain": TEXT,  # host of the request URI
        "user": optional(TEXT),  # whom auth: has found the caller to be, or a trusted source says he is
        "headers": map_of(TEXT),  # of the INVITE, by name in any case
        "user_agent": optional(TEXT),
        "source_ip": TEXT,
        "source_port": NUMBER,
        "transport": TEXT,
        "answered": BOOL,
        "duration": DURATION,  # since the answer; 0 before it
        "started_at": TIME,
        "ended_by": optional(enum("caller", "callee", "engine")),
        "end_reason": optional(TEXT),
        "branches": list_of(BRANCH),
        "fs": FREESWITCH_VIEW,
    },
)
"""The call of an `on: invite` flow and of what runs inside it; after `originate:` the call that was placed."""

REQUEST = record(
    "request",
    {
        "id": TEXT,  # Call-ID
        "method": TEXT,
        "aor": TEXT,  # of the To header: whose contacts these are
        "from": ADDRESS,
        "to": ADDRESS,
        "domain": TEXT,
        "user": optional(TEXT),
        "headers": map_of(TEXT),
        "user_agent": optional(TEXT),
        "expires": optional(NUMBER),  # Expires header, null when there is none
        "contacts": list_of(TEXT),
        "source_ip": TEXT,
        "source_port": NUMBER,
        "transport": TEXT,
    },
)
"""The REGISTER of an `on: register` flow."""

ERROR = record("error", {"type": TEXT, "message": TEXT, "step": TEXT, "line": NUMBER, "data": map_of(ANY)})
"""What `catch` and `on_error` see."""

RELAY_RESULT = record(
    "relay result",
    {
        "outcome": enum("answered", "busy", "no_answer", "rejected", "unavailable", "failed", "cancelled"),
        "code": NUMBER,
        "reason": TEXT,
        "contact": optional(TEXT),  # who answered
        "gateway": optional(TEXT),
        "tried": list_of(TEXT),
    },
)

RESULTS: Mapping[str, Type] = {
    "relay result": RELAY_RESULT,
    "inject result": record("inject result", {"added": NUMBER, "reason": TEXT}),
    "recording": record("recording", {"file": TEXT, "duration": DURATION}),
    "digits": DIGITS,
    "esl result": record("esl result", {"ok": BOOL, "text": TEXT}),
    "execute result": record("execute result", {"response": TEXT}),
    "raise result": record("raise result", {"delivered": NUMBER}),
    "http result": record("http result", {"status": NUMBER, "text": TEXT, "json": ANY, "headers": map_of(TEXT)}),
    "charge result": record(
        "charge result", {"outcome": enum("granted", "denied", "error"), "max_usage": DURATION, "reason": TEXT}
    ),
    "auth result": record("auth result", {"user": TEXT, "realm": TEXT, "trusted": BOOL}),
    "contacts": list_of(CONTACT),
}
"""Types of `as:` by `Action.result`. The event of a wait and the value of a sub-flow depend on the step."""

SCHEDULE = record("schedule", {"open": BOOL})

ROOTS = ("call", "request", "event", "error", "vars", "params", "const", "groups", "schedules", "secrets", "now")

RESERVED = frozenset((*ROOTS, "relay", "charge", "contact", "true", "false", "null", "and", "or", "not", "in"))
"""Names that `as:` and `item:` may not take: root names of the engine and words of the expression language."""


def event_type(spec: EventSpec) -> Type:
    """The record `event` is inside a handler of this event."""
    return record("event", {name: attribute_type(attribute) for name, attribute in spec.attributes.items()})


def attribute_type(attribute: Attribute) -> Type:
    type = enum(*attribute.values) if attribute.values else parse_type(attribute.type)
    return optional(type) if attribute.optional else type
