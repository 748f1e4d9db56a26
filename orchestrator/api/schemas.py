"""What the API answers, as JSON Schema (the dialect of OpenAPI 3.1): `api.openapi` publishes it, and the tests hold
each answer against it."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]


def obj(doc: str = "", /, **properties: Schema) -> Schema:
    """An object with these members and no others."""
    made: Schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"description": doc, **made} if doc else made


def of(schema: Schema, doc: str) -> Schema:
    """The same with a description."""
    return {**schema, "description": doc}


def maybe(schema: Schema) -> Schema:
    """Or null."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """An object whose members have names of the site."""
    return {"type": "object", "additionalProperties": schema}


def ref(name: str) -> Schema:
    """One of COMPONENTS."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
WHOLE: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC, milliseconds."}
SECONDS: Final[Schema] = {"type": "number", "description": "Seconds."}
ANY: Final[Schema] = {"type": "object"}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


_WAITS = obj("The step that the call waits in.", file=TEXT, line=WHOLE, step=TEXT, text=of(TEXT, "What for, in words."))
_CALL: dict[str, Schema] = {
    "id": TEXT,
    "state": one_of("ringing", "answered", "held", "ended"),
    "from": of(TEXT, "Address of record in From."),
    "from_name": of(maybe(TEXT), "Display name in From, as the caller wrote it."),
    "to": of(TEXT, "What was dialled."),
    "user": of(maybe(TEXT), "Who the caller has proved to be."),
    "source": of(TEXT, "Address and port that the INVITE came from."),
    "flow": of(maybe(TEXT), "null: no flow has taken it."),
    "run": maybe(TEXT),
    "started": maybe(TIME),
    "answered": maybe(TIME),
    "duration": of(NUMBER, "Seconds since the answer."),
    "waits_for": maybe(ref("Waits")),
    "contact": of(maybe(TEXT), "Contact URI of whoever has answered."),
    "server": of(maybe(TEXT), "FreeSWITCH server that it goes through."),
}
_RECORD = obj(
    "The record of a call that is over (docs/cdr.md).",
    id=TEXT,
    sip_call_id=TEXT,
    flow=TEXT,
    run=TEXT,
    **{"from": TEXT},
    to=TEXT,
    user=maybe(TEXT),
    source=TEXT,
    started=TIME,
    answered=maybe(TIME),
    ended=TIME,
    setup=SECONDS,
    duration=SECONDS,
    code=maybe(WHOLE),
    contact=maybe(TEXT),
    ended_by=TEXT,
    reason=TEXT,
    server=maybe(TEXT),
    caller_uuid=maybe(TEXT),
    callee_uuid=maybe(TEXT),
    pushed=WHOLE,
    woken=WHOLE,
)
_RUN: dict[str, Schema] = {
    "run": TEXT,
    "flow": TEXT,
    "file": TEXT,
    "hash": of(TEXT, "Version of the flows it runs."),
    "call": of(TEXT, "Id of its call, '' for none."),
    "about": TEXT,
    "error": of(TEXT, "Type of the error it ended in, '' for none."),
    "running": FLAG,
    "started": maybe(TIME),
    "seconds": SECONDS,
    "lines": of(WHOLE, "Lines of its trace, those that are not kept included."),
}
_FLOW: dict[str, Schema] = {
    "name": TEXT,
    "trigger": of(TEXT, "What begins it."),
    "file": TEXT,
    "line": WHOLE,
    "runs": of(WHOLE, "Runs that go on."),
}

COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": {
        "type": "object",
        "description": "Why a request was refused (RFC 9457).",
        "properties": {
            "title": TEXT,
            "status": WHOLE,
            "code": of(TEXT, "For programs; it never changes."),
            "detail": TEXT,
            "cure": of(TEXT, "How to mend it."),
            "diagnostics": many(ref("Diagnostic")),
        },
        "required": ["title", "status", "code"],
    },
    "Diagnostic": obj(
        "A mistake in a file.",
        file=TEXT,
        line=WHOLE,
        col=WHOLE,
        length=of(WHOLE, "Characters that are meant."),
        code=TEXT,
        severity=one_of("error", "warning"),
        message=TEXT,
        help=maybe(TEXT),
        notes=many(TEXT),
    ),
    "Waits": _WAITS,
    "Call": obj("A call that lives.", **_CALL),
    "Record": _RECORD,
    "CallDetails": obj(
        "A call that lives, or is over.",
        **_CALL,
        sip_call_id=TEXT,
        user_agent=maybe(TEXT),
        transport=maybe(TEXT),
        legs=many(
            obj(side=one_of("caller", "callee", "phone"), sip_call_id=TEXT, contact=maybe(TEXT), seen=maybe(TEXT),
                transport=TEXT)
        ),
        branches=many(
            obj(number=WHOLE, contact=maybe(TEXT), gateway=maybe(TEXT), state=one_of("calling", "ringing"),
                code=maybe(WHOLE))
        ),
        channels=many(obj(server=TEXT, uuid=TEXT, leg=maybe(TEXT), direction=maybe(TEXT), answered=FLAG)),
        record=maybe(ref("Record")),
        messages=of(WHOLE, "SIP messages that are kept of it."),
    ),
    "Fact": {
        "type": "object",
        "description": "Something that has happened in a call.",
        "properties": {
            "id": TEXT,
            "kind": one_of("message", "step", "event", "job"),
            "text": TEXT,
            "time": TIME,
            "at": of(NUMBER, "Seconds since the call began."),
        },
        "required": ["id", "kind", "text", "time", "at"],
    },
    "Contact": obj(
        "A contact that is registered.",
        id=TEXT,
        contact=of(TEXT, "Its URI without push tokens."),
        expires=TIME,
        expires_in=SECONDS,
        registered=TIME,
        q=NUMBER,
        user_agent=maybe(TEXT),
        received=of(maybe(TEXT), "Where it was seen, if that is not where it says."),
        transport=TEXT,
        path=many(TEXT),
        instance=maybe(TEXT),
        reg_id=maybe(WHOLE),
        source=maybe(TEXT),
        push=maybe(obj(service=TEXT, app=TEXT, token=of(TEXT, "Masked."), asleep=FLAG)),
    ),
    "Registration": obj("An address of record.", aor=TEXT, contacts=many(ref("Contact"))),
    "Gateway": obj(
        "A gateway.",
        name=TEXT,
        uri=TEXT,
        up=FLAG,
        disabled=FLAG,
        state=one_of("untried", "unknown", "up", "doubtful", "down", "unavailable", "refusing", "disabled"),
        reason=maybe(TEXT),
        probe=of(maybe(NUMBER), "Seconds between two OPTIONS; null: judged by calls alone."),
        account=of(FLAG, "We have an account there."),
        branches=of(by_name(WHOLE), "Calls sent there, by final status."),
    ),
    "Server": obj(
        "A FreeSWITCH server.",
        name=TEXT,
        link=of(TEXT, "State of its Event Socket."),
        sip=maybe(TEXT),
        state=of(maybe(TEXT), "What its SIP side shows."),
        takes_calls=FLAG,
        reason=maybe(TEXT),
        load=of(maybe(NUMBER), "Share of its sessions in use."),
        channels=WHOLE,
    ),
    "Flow": obj("A flow.", **_FLOW),
    "Step": {
        "type": "object",
        "properties": {
            "line": WHOLE,
            "depth": of(WHOLE, "How deep it stands in others."),
            "action": TEXT,
            "text": of(TEXT, "As written."),
            "id": maybe(TEXT),
            "ran": of(WHOLE, "Runs that have come by, of those looked at."),
            "failed": of(WHOLE, "Of them, those that failed there."),
        },
        "required": ["line", "depth", "action", "text", "id", "ran", "failed"],
    },
    "FlowDetails": obj("A flow with its steps.", **_FLOW, steps=many(ref("Step")), source=many(TEXT),
                       runs_counted=of(WHOLE, "Runs that `ran` and `failed` are of.")),
    "Run": obj("A run of a flow.", **_RUN),
    "TraceLine": obj(
        "A line of a trace.",
        run=TEXT,
        hash=TEXT,
        call=TEXT,
        time=of(NUMBER, "Seconds of the server's clock."),
        line=WHOLE,
        step=TEXT,
        text=TEXT,
        read=of(ANY, "What a condition has looked at, or the attributes of an event."),
        fact=ANY,
    ),
    "Waiting": {
        "type": "object",
        "description": "A subscription, or a step that waits for something else.",
        "properties": {"name": TEXT, "kind": TEXT, "run": TEXT, "file": TEXT, "line": WHOLE,
                       "expires_in": maybe(NUMBER),
                       "seen": of(many(ANY), "Of one run: the last events of that name, and why each did not fit.")},
        "required": ["name", "kind", "run", "file", "line", "expires_in"],
    },
    "RunDetails": obj(
        "A run with its trace.",
        **_RUN,
        dropped=WHOLE,
        left_out=WHOLE,
        records=many(ref("TraceLine")),
        waiting=many(ref("Waiting")),
    ),
    "EventSpec": obj(
        "An event that flows know.",
        name=TEXT,
        doc=TEXT,
        scope=one_of("call", "global"),
        source=TEXT,
        may_be_raised=FLAG,
        attributes=many(obj(name=TEXT, type=TEXT, doc=TEXT, values=many(TEXT), optional=FLAG)),
    ),
    "Ban": obj("A source that is not listened to.", source=TEXT, **{"class": one_of("proved", "stranger")}, reason=TEXT,
               since=TIME, until=TIME),
    "Ladder": obj("SIP messages as a ladder.", lifelines=many(ANY), arrows=many(ANY)),
}  # fmt: skip
"""By name."""

STATUS: Final = obj(
    version=TEXT,
    build=one_of("plain", "compiled"),
    started=TIME,
    uptime=SECONDS,
    state=one_of("ready", "degraded", "not_ready", "draining"),
    reasons=of(by_name(TEXT), "What is wrong, by check."),
    counts=obj(calls=WHOLE, runs=WHOLE, registrations=WHOLE, subscriptions=WHOLE, transactions=WHOLE),
    rates=obj(calls=of(NUMBER, "Calls of flows a second, over the last ten seconds.")),
    setup_time=of(obj(p50=maybe(NUMBER), p95=maybe(NUMBER)), "Seconds from the INVITE to the answer, since the start."),
    links=of(by_name(TEXT), "Event Socket of each FreeSWITCH server."),
    flows=obj(version=TEXT, count=WHOLE),
)
HISTORY: Final = obj(
    call=TEXT, run=TEXT, live=FLAG, call_ids=many(TEXT), items=many(ref("Fact")), dropped=of(WHOLE, "Facts not kept.")
)
