"""The top-level sections of a flow file and the keys of what stands in them (FLOWLANG §4.1).

Like the registry of actions this is read by loader and schema alike, so that neither knows a key the other does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from orchestrator.flow.expr import TEXT, Type
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.written import gateway_uri_flaw, host_flaw, port_flaw, server_uri_flaw, web_flaw

SECTIONS: dict[str, str] = {
    "flowlang": "Version of the language: 1.",
    "description": "What these flows are for.",
    "const": "Fixed values: const.<name> in expressions.",
    "secrets": "Values from environment or file; they can reach http requests only.",
    "events": "Events of your own: name, then attribute and type.",
    "freeswitch": "FreeSWITCH servers, by name.",
    "gateways": "Gateways, by name.",
    "users": "User tables for auth:, by name.",
    "groups": "Lists of extensions: groups.<name> in expressions.",
    "schedules": "Opening hours: schedules.<name>.open in expressions.",
    "endpoints": "Named targets of http:.",
    "defaults": "Ring time, http timeout, replies for errors, limits.",
    "flows": "The flows, by name. The first one whose trigger and when: fit takes the request.",
}
"""Section → what stands in it, in the order in which they are read."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of named resource. `word` is what messages call it; of `one_of` exactly one key has to be given."""

    word: str
    fields: tuple[Field, ...]
    one_of: tuple[str, ...] = ()
    apart: tuple[str, tuple[str, ...]] = ("", ())
    """A key, and those that may not stand beside it."""
    scope: Mapping[str, Type] = field(default_factory=dict)
    """What its expressions know."""


FREESWITCH = Resource(
    "FreeSWITCH server",
    (
        Field("host", Kind.TEXT, "Host name or address of its Event Socket.", required=True, check=host_flaw),
        Field("port", Kind.NUMBER, "Port of its Event Socket, default 8021.", check=port_flaw),
        Field("user", Kind.TEXT, "Directory user name@domain to log in as, with the rights FreeSWITCH gives it."),
        Field("password", Kind.SECRET, "Event Socket password, or that of user.", required=True),
        Field("sip", Kind.TEXT, "SIP URI that calls are sent to.", check=server_uri_flaw),
    ),
)

GATEWAY = Resource(
    "gateway",
    (
        Field("uri", Kind.TEXT, "SIP URI of the gateway.", required=True, check=gateway_uri_flaw),
        Field("user", Kind.TEXT, "User name for digest authentication."),
        Field("password", Kind.SECRET, "Password for digest authentication."),
        Field("realm", Kind.TEXT, "Realm for digest authentication, default the one it asks with."),
        Field("strip", Kind.NUMBER, "Characters to remove from the front of the dialled number."),
        Field("prefix", Kind.TEXT, "What to put in front of the number, after strip."),
        Field("number", Kind.EXPRESSION, "The number to call there, from the dialled one: '+49' + number.drop(1)."),
        Field("probe", Kind.DURATION, "Time between two OPTIONS probes, default 30s; 0s for none."),
    ),
    apart=("number", ("strip", "prefix")),
    scope={"number": TEXT},
)

USERS = Resource(
    "user table",
    (
        Field("file", Kind.TEXT, "YAML file of users."),
        Field(
            "http",
            Kind.TEXT,
            "URL that answers with a user: GET url?user=...&realm=... gives password or ha1.",
            check=web_flaw,
        ),
        Field("sql", Kind.TEXT, "URL of a database with a table `subscriber`."),
    ),
    one_of=("file", "http", "sql"),
)

ENDPOINT = Resource(
    "endpoint",
    (
        Field(
            "url",
            Kind.TEXT,
            "The address; url: of the http step is put behind it.",
            required=True,
            secret=True,
            check=web_flaw,
        ),
        Field("headers", Kind.MAP, "Header fields of every request.", secret=True),
        Field("query", Kind.MAP, "Query parameters of every request.", secret=True),
        Field("auth", Kind.MAP, "Basic authentication: {user: …, password: …}.", secret=True),
        Field("timeout", Kind.DURATION, "Longest wait for each try."),
        Field("retries", Kind.NUMBER, "Further tries after a connect error, 429 or 5xx."),
        Field("backoff", Kind.DURATION, "Pause before the first retry, doubled each time."),
    ),
)

RESOURCES: dict[str, Resource] = {
    "freeswitch": FREESWITCH,
    "gateways": GATEWAY,
    "users": USERS,
    "endpoints": ENDPOINT,
}

SCHEDULE_KEYS: dict[str, str] = {
    "timezone": "Time zone, for example Europe/Berlin; default UTC.",
    "open": "Days (mon-thu, sat, daily) and times (09:00-17:30).",
    "closed": "Dates (2027-01-01) and ranges of dates (2026-12-24..2026-12-26).",
}

DEFAULT_FIELDS = (
    Field("ring", Kind.DURATION, "How long a relay may ring when it does not say."),
    Field("http_timeout", Kind.DURATION, "Longest wait of http: when it does not say."),
    Field("replies", Kind.MAP, "Final reply for an error nobody catches: error type (* is a wildcard), status code."),
    Field("limits", Kind.MAP, "Bounds of a run."),
)

LIMIT_NAMES = tuple(field.name for field in fields(Limits))

FLOW_FIELDS = (
    Field("description", Kind.TEXT, "What the flow is for."),
    Field("on", Kind.EVENT, "What starts it: invite, register, start, an event, {every: 30s}; absent for call: only."),
    Field("when", Kind.CONDITION, "Takes the request only when this is true."),
    Field("params", Kind.DATA, "Parameters of a flow that is started by call:, name and type."),
    Field("returns", Kind.NAME, "Type of the value it hands back."),
    Field("vars", Kind.MAP, "Variables with their first values, which fix their types."),
    Field("mode", Kind.ENUM, "Event and timer flows: what happens when one runs already.",
          values=("parallel", "single", "restart", "queued")),
    Field("max", Kind.NUMBER, "Event and timer flows: most runs at a time."),
    Field("key", Kind.EXPRESSION, "mode: and max: count for each value of this expression."),
    Field("max_duration", Kind.DURATION, "Longest time from the answer of the call to its end; then it is hung up."),
    Field("do", Kind.STEPS, "The steps.", required=True),
    Field("on_error", Kind.STEPS, "Steps for an error that nobody caught; error is known in them."),
    Field("on_end", Kind.STEPS, "Steps to run when the call has ended."),
)  # fmt: skip

COMMON_FIELDS = (
    Field("if", Kind.CONDITION, "Do this step only when this is true."),
    Field("as", Kind.NAME, "Keep the result under this name."),
    Field("id", Kind.NAME, "Name of this step, for unsubscribe, trace and tests."),
    Field("on_error", Kind.STEPS, "Steps for an error of this step, or continue."),
    Field("timeout", Kind.DURATION, "Longest time for this step; then it fails with step.timeout."),
    Field("note", Kind.TEXT, "A remark for the trace."),
)
"""Keys that may stand beside any action."""

BLOCK_FIELDS = (
    Field("then", Kind.STEPS, "Steps when the condition of if: is true."),
    Field("else", Kind.STEPS, "Steps when it is not."),
)
"""Keys of the block form: `if` without an action."""
