"""What the API lets an operator or a program change: the endpoints with the scope `full`."""

from __future__ import annotations

from typing import Any

from orchestrator.api.actions import EXPIRES, LEVELS, LONGEST, Actions
from orchestrator.api.endpoint import Asked, Endpoint, Parameter
from orchestrator.api.problems import Problem
from orchestrator.api.schemas import FLAG, TEXT, WHOLE, many, obj, ref
from orchestrator.events.received import MOST_OCTETS, read_event

MOST_PUSH = 16_384
"""Octets of the request of a push."""


def write_endpoints(actions: Actions) -> tuple[Endpoint, ...]:
    """Those of one server."""
    writes = _Writes(actions)
    reason = Parameter("reason", "What the Reason header of BYE or the answer says.")
    contact = Parameter("contact", "Only this one: its URI, or its `id`.")
    source = Parameter("source", "Its address (IPv6: its /64).", required=True)
    return (
        Endpoint(
            "DELETE", "calls/{id}", "Hang up a call.", writes.hang_up, (reason,), obj(id=TEXT, state=TEXT), status=202
        ),
        Endpoint("DELETE", AOR, "Remove contacts.", writes.unregister, (contact,), ref("Registration")),
        Endpoint(
            "POST",
            AOR,
            "Register a contact.",
            writes.register,
            answer=ref("Registration"),
            body=_CONTACT,
            status=201,
            refusals=((409, "The table does not take it (registration.refused)."),),
        ),
        Endpoint("POST", "gateways/{name}/enable", "Send calls there again.", writes.enable, answer=ref("Gateway")),
        Endpoint("POST", "gateways/{name}/disable", "Send no calls there.", writes.disable, answer=ref("Gateway")),
        Endpoint(
            "POST",
            "gateways/{name}/probe",
            "Send OPTIONS there now.",
            writes.probe,
            answer=ref("Gateway"),
            refusals=((409, "It is not probed (gateway.not_probed)."),),
        ),
        Endpoint("POST", "events", "Raise an event.", writes.raise_event, answer=obj(taken=WHOLE), body=_EVENT),
        Endpoint("POST", "push", "Push to the phones of an address.", writes.push, answer=_PUSHED, body=_PUSH),
        Endpoint("DELETE", "bans", "End the ban of a source.", writes.lift_ban, (source,), status=204),
        Endpoint(
            "POST",
            "reload",
            "Read configuration, users and flows again.",
            writes.reload,
            answer=obj(flows=WHOLE, version=TEXT, restart_needed=many(TEXT)),
            refusals=((422, "A file has mistakes: `diagnostics` (reload.refused)."),),
        ),
        Endpoint("GET", "loglevel", "From which level on the log is written.", writes.level, answer=_LEVEL),
        Endpoint("PUT", "loglevel", "Change that until the next start.", writes.set_level, answer=_LEVEL, body=_LEVEL),
        Endpoint("POST", "drain", "Take no new calls.", writes.drain, answer=obj(draining=FLAG)),
        Endpoint(
            "DELETE",
            "drain",
            "Take them again.",
            writes.undrain,
            answer=obj(draining=FLAG),
            refusals=((409, "The process has been told to end (server.stopping)."),),
        ),
    )


AOR = "registrations/{aor:path}"
_PUSHED = obj(
    to=TEXT,
    phones=many({"type": "object", "required": ["contact", "outcome", "reason", "id"], "properties": {}}),
)
_CONTACT = {
    "type": "object",
    "properties": {
        "contact": {"type": "string", "description": "A SIP URI."},
        "expires": {"type": "number", "minimum": 1, "maximum": LONGEST, "default": EXPIRES, "description": "Seconds."},
        "q": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
    },
    "required": ["contact"],
    "additionalProperties": False,
}
_EVENT = {
    "type": "object",
    "description": "An event, a CloudEvent, or a JSON-RPC request.",
    "properties": {
        "name": {"type": "string"},
        "attributes": {"type": "object"},
        "call": {"type": "string", "description": "The id of the call it belongs to."},
    },
}
_PUSH = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "description": "An address of record."},
        "kind": {"type": "string"},
        "ttl": {"type": "number"},
        "data": {"type": "object"},
    },
    "required": ["to"],
}
_LEVEL = obj(level={"enum": list(LEVELS)})


class _Writes:
    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    def hang_up(self, asked: Asked) -> dict[str, Any]:
        told = self._actions.hang_up(asked.path["id"], asked.text("reason"))
        return {"id": told["id"], "state": told["state"]}

    def unregister(self, asked: Asked) -> dict[str, Any]:
        return self._actions.remove_registration(asked.path["aor"], asked.text("contact"))

    def register(self, asked: Asked) -> dict[str, Any]:
        body = asked.body()
        for name in body:
            if name not in ("contact", "expires", "q"):
                raise Problem(400, "body.invalid", "unknown key", f"{name[:50]!r}; known: contact, expires, q")
        contact = body.get("contact")
        if not isinstance(contact, str):
            raise Problem(400, "body.invalid", "no contact", "contact has to be a SIP URI")
        expires = _number(body, "expires", EXPIRES, 1, LONGEST)
        return self._actions.add_registration(asked.path["aor"], contact, expires, _number(body, "q", 1.0, 0, 1))

    def enable(self, asked: Asked) -> dict[str, Any]:
        return self._actions.enable_gateway(asked.path["name"])

    def disable(self, asked: Asked) -> dict[str, Any]:
        return self._actions.disable_gateway(asked.path["name"])

    def probe(self, asked: Asked) -> dict[str, Any]:
        return self._actions.probe_gateway(asked.path["name"])

    def raise_event(self, asked: Asked) -> dict[str, Any]:
        octets = asked.octets(MOST_OCTETS)
        try:
            received = read_event(octets)
        except ValueError as error:
            raise Problem(400, "event.invalid", "not an event", str(error)) from None
        return {"taken": self._actions.raise_event(received)}

    def push(self, asked: Asked) -> dict[str, Any]:
        return self._actions.push(asked.body(MOST_PUSH))

    def lift_ban(self, asked: Asked) -> None:
        self._actions.lift_ban(asked.text("source"))

    def reload(self, asked: Asked) -> dict[str, Any]:
        return self._actions.reload()

    def level(self, asked: Asked) -> dict[str, Any]:
        return {"level": self._actions.log_level()}

    def set_level(self, asked: Asked) -> dict[str, Any]:
        body = asked.body()
        return {"level": self._actions.set_log_level(body.get("level"))}

    def drain(self, asked: Asked) -> dict[str, Any]:
        self._actions.drain()
        return {"draining": True}

    def undrain(self, asked: Asked) -> dict[str, Any]:
        self._actions.undrain()
        return {"draining": False}


def _number(body: Any, name: str, default: float, least: float, most: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Problem(400, "body.invalid", "no number", f"{name} has to be a number")
    if not least <= value <= most:  # NaN is out of range, too
        raise Problem(400, "body.invalid", "out of range", f"{name} has to be from {least:g} to {most:g}")
    return float(value)
