"""An event as other programs send it: JSON of our own form, a CloudEvent, or a JSON-RPC request or notification.

    {"name": "door_open", "attributes": {"door": "front"}, "call": "..."}
    {"specversion": "1.0", "type": "door_open", "data": {"door": "front"}, "subject": "..."}
    {"jsonrpc": "2.0", "method": "door_open", "params": {"door": "front"}}

What it says is held against the catalogue later, by whoever raises it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS

MOST_OCTETS = 65_536
"""Of one event."""
_BUILT_IN = frozenset(spec.name for spec in BUILTIN_EVENTS)
_OURS = frozenset({"name", "attributes", "written", "call"})


class NoSuchEvent(ValueError):
    """There is none of that name that others may raise."""


class NoSuchCall(OrchestratorError):
    """The call that an event belongs to is over, or never was."""


class NoRoom(OrchestratorError):
    """The server has more to do than it can: try again."""


@dataclass(frozen=True, slots=True)
class Received:
    """What somebody wants to be raised."""

    name: str
    attributes: Mapping[str, Any]
    call: str = ""
    """The id of the call it belongs to, '' for none."""
    source: str = ""
    """Where a CloudEvent says it is from."""
    written: bool = False
    """The attributes are text that a person wrote: `5` is the number where a number is declared."""
    may_be_no_call: bool = False
    """`call` is the subject of a CloudEvent, which is something else for an event of no call."""


def read_event(body: bytes) -> Received:
    """Read one event. Raises ValueError, whose message says what is wrong."""
    if len(body) > MOST_OCTETS:
        raise ValueError(f"it has more than {MOST_OCTETS} octets")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(told, dict):
        raise ValueError("it is not a JSON object")
    if "specversion" in told:
        found = Received(
            _text(told, "type"), _map(told, "data"), _text(told, "subject", ""), _text(told, "source", ""),
            may_be_no_call=True,
        )  # fmt: skip
    elif "jsonrpc" in told:
        found = Received(_text(told, "method"), _map(told, "params"))
    else:
        if unknown := told.keys() - _OURS:
            raise ValueError(f"there is no key {min(unknown)[:40]!r}; known: name, attributes, call")
        if "written" in told and "attributes" in told:
            raise ValueError("attributes and written exclude each other")
        key = "written" if "written" in told else "attributes"
        found = Received(_text(told, "name"), _map(told, key), _text(told, "call", ""), written=key == "written")
    return found


def _text(told: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = told.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise ValueError(f"{key} is missing" if value is None else f"{key} must be text")
    return value


def _map(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = told.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be an object")
    return value


def may_be_raised(spec: EventSpec) -> bool:
    """Whether others may raise it, as `raise:` of a flow may: not what the server or FreeSWITCH vouches for."""
    return spec.source == "custom" or (spec.name not in _BUILT_IN and not spec.esl)


def values_of(spec: EventSpec, texts: Mapping[str, Any]) -> dict[str, Any]:
    """The values that texts stand for, by the types of the event. Raises ValueError."""
    return {name: _value(spec.attributes.get(name), name, text) for name, text in texts.items()}


def _value(attribute: Attribute | None, name: str, text: Any) -> Any:
    if attribute is None or not isinstance(text, str):
        return text  # told as unknown, or as of the wrong type
    try:
        if attribute.type in ("number", "int", "duration", "time"):
            return int(text) if text.lstrip("-").isdigit() else float(text)
        if attribute.type == "bool":
            return {"true": True, "false": False}[text.lower()]
        if attribute.type in ("list", "map", "contact", "contacts"):
            return json.loads(text)
    except (ValueError, KeyError, RecursionError):
        raise ValueError(f"attribute {name!r}: {text[:80]!r} is not of type {attribute.type}") from None
    return text
