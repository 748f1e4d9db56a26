"""The JSON Schema of flow files, for editors: completion and hover while typing (FLOWLANG §7).

Keys are offered where they fit: the actions as long as a step has none, then the keys that go with its action. The
server offers what any applicable part suggests, so each `if` also asks for `type: object`: a step that is still empty
would else fulfil all of them.

It is made from the registries that loader and checker read, so it cannot know a key they do not. It is draft-07,
because yaml-language-server reads no newer one, and its form follows what that server makes of a schema: no `oneOf`
and no `anyOf` (it answers them with "matches multiple schemas"), but `type: [string, object]` with `properties`
beside it; `propertyNames` together with `if`/`then`, so that the keys offered depend on the action; `examples` where
names may also be the user's own.

A schema cannot say what the checker says (types, names, call state): it finds about a quarter of the mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.registry import ATTRIBUTE_TYPES, BUILTIN_EVENTS
from orchestrator.flow import actions as _actions  # noqa: F401  # fills the registry
from orchestrator.flow.check.events import NOT_IN_FIRST_OF
from orchestrator.flow.expr.lexer import UNITS
from orchestrator.flow.language.declarations import TRIGGERS
from orchestrator.flow.language.registry import ACTIONS, Action, Actions, Field, Kind
from orchestrator.flow.language.sections import (
    BLOCK_FIELDS,
    COMMON_FIELDS,
    DEFAULT_FIELDS,
    FLOW_FIELDS,
    LIMIT_NAMES,
    RESOURCES,
    SCHEDULE_KEYS,
    SECTIONS,
    Resource,
)

Schema = dict[str, Any]

SCHEMA_ID = "flowlang-1.schema.json"

_COMPUTED = r"\$\{"
"""A text with `${…}`, where a number, a duration … may be computed."""

_TEXT: Schema = {"type": ["string", "number", "boolean"]}
_STATUS: Schema = {"type": ["integer", "string"], "minimum": 100, "maximum": 699, "pattern": _COMPUTED}
_STEPS: Schema = {"type": ["array", "object"], "items": {"$ref": "#/definitions/step"}}
_SECRET: Schema = {
    "type": ["string", "number", "object"],
    "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
    "additionalProperties": False,
}

BRANCH_ITEMS: Mapping[str, Schema] = {"first_of": {"$ref": "#/definitions/branch"}, "parallel": _STEPS}
"""What the items of a list of branches are, by action."""


def flow_schema(actions: Actions = ACTIONS, events: Iterable[EventSpec] = BUILTIN_EVENTS) -> Schema:
    """The schema for these actions and events, ready for `json.dumps`."""
    maker = _Maker(actions, tuple(events))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": SCHEMA_ID,
        "title": "FlowLang",
        "type": "object",
        "required": ["flowlang"],
        "additionalProperties": False,
        "properties": {name: {"description": doc, **maker.section(name)} for name, doc in SECTIONS.items()},
        "definitions": {"flow": maker.flow(), "step": maker.step(), "branch": maker.branch()},
    }


class _Maker:
    def __init__(self, actions: Actions, events: tuple[EventSpec, ...]) -> None:
        self.actions = actions
        self.events = events
        pattern = f"^([0-9]+([.][0-9]+)?({'|'.join(UNITS)})|.*{_COMPUTED}.*)$"
        event_names = [event.name for event in events]
        self._kinds: Mapping[Kind, Callable[[Field], Schema]] = {
            Kind.TEXT: lambda field: dict(_TEXT),
            Kind.CONDITION: lambda field: {"type": ["string", "boolean"]},
            Kind.EXPRESSION: lambda field: {
                **_TEXT,
                "type": [*_TEXT["type"], *(["array"] if field.name == "in" else [])],
            },
            Kind.VALUE: lambda field: {},
            Kind.NUMBER: lambda field: {"type": ["integer", "string"], "pattern": _COMPUTED},
            Kind.BOOLEAN: lambda field: {
                "type": ["boolean", "string"],
                "pattern": "|".join((_COMPUTED, *field.values)),
            },
            Kind.DURATION: lambda field: {"type": "string", "pattern": pattern},
            Kind.STATUS: lambda field: dict(_STATUS),
            Kind.ENUM: lambda field: {"type": "string", "enum": list(field.values)},
            Kind.DESTINATION: _destination,
            Kind.FAILOVER: _codes,
            Kind.STEPS: lambda field: dict(_STEPS),
            Kind.OUTCOMES: _outcomes,
            Kind.BRANCHES: lambda field: {"type": "array", "items": {"type": ["array", "object"]}},
            Kind.CASES: lambda field: {"type": "object", "additionalProperties": _STEPS},
            Kind.CATCHES: lambda field: {"type": "array", "items": _closed({"error": _TEXT, "do": _STEPS}, ["do"])},
            Kind.EVENT: lambda field: {"type": "string", "examples": event_names},
            Kind.WHERE: lambda field: {"type": ["string", "object"]},
            Kind.DATA: lambda field: {"type": "object"},
            Kind.ASSIGN: lambda field: {"type": "object"},
            Kind.MAP: lambda field: {"type": "object"},
            Kind.LIST: lambda field: {"type": ["string", "array"], "items": _TEXT},
            Kind.GATEWAYS: lambda field: {"type": ["string", "array"], "items": {"type": "string"}},
            Kind.NAME: lambda field: {"type": ["string", "number"]},
            Kind.NOTHING: lambda field: {"type": "null"},
            Kind.SECRET: lambda field: dict(_SECRET),
        }

    def value(self, field: Field) -> Schema:
        """The schema of a key's value."""
        made = self._kinds.get(field.kind)
        return {"description": field.doc, **(made(field) if made else {"type": "string"})}

    def _properties(self, fields: Iterable[Field]) -> dict[str, Schema]:
        return {field.name: self.value(field) for field in fields}

    # --- steps ------------------------------------------------------------------------------------------------------

    def step(self) -> Schema:
        """A step: the keys it may have at all, and for each action those that go with it."""
        beside: dict[str, Schema] = {field.name: _unsuggested({}) for action in self.actions for field in action.beside}
        common = self._properties((*COMMON_FIELDS, *BLOCK_FIELDS))
        common["on_error"] = {**common["on_error"], "type": ["array", "object", "string"], "pattern": "^continue$"}
        made = {action.name: _unsuggested(self.action(action)) for action in self.actions}
        block = {field.name: _unsuggested(common[field.name]) for field in BLOCK_FIELDS}
        properties = {**made, **beside, **common, **block}
        return {
            "type": ["object", "string"],
            "pattern": f"^({'|'.join(re.escape(name) for name in self._bare())})$",
            "propertyNames": {"enum": list(properties)},
            "properties": properties,
            "allOf": [
                self._any_action(list(common)),
                *(self._keys_of(action) for action in self.actions),
                *(filter for name in ("subscribe", "wait") for filter in self._filters(name)),
            ],
        }

    def _any_action(self, common: Sequence[str]) -> Schema:
        """As long as no action is there, any may come: only then are they offered."""
        described = {action.name: {"description": action.doc} for action in self.actions}
        block = {field.name: {"description": field.doc} for field in BLOCK_FIELDS}
        return {"if": {"propertyNames": {"enum": common}}, "then": {"properties": {**described, **block}}}

    def branch(self) -> Schema:
        """One entry of first_of."""
        wait = self.actions.get("wait")
        keys = [f for f in (wait.beside if wait else ()) if f.name not in NOT_IN_FIRST_OF]
        event, after = Field("wait", Kind.EVENT, "Event to wait for."), Field("after", Kind.DURATION, "Time limit.")
        common = [field for field in COMMON_FIELDS if field.name in ("as", "id", "note")]
        do = Field("do", Kind.STEPS, "Steps when this came first.")
        made = _closed(self._properties((event, after, *keys, *common, do)), [])
        return {**made, "allOf": list(self._filters("wait"))}

    def _bare(self) -> list[str]:
        """Actions that may be written as a word."""
        return [a.name for a in self.actions if not any(field.required for field in (*a.fields, *a.beside))]

    def action(self, action: Action) -> Schema:
        """The value of an action's key: what its short field takes, or a map of all its fields."""
        described = {"description": action.doc}
        if any(field.kind is Kind.ASSIGN for field in action.fields):
            return {**described, "type": "object"}
        if not action.fields:
            return {**described, "type": "null"}
        short = action.field(action.short) if action.short else None
        made = self.value(short) if short else {}
        if short is not None and short.kind is Kind.VALUE:
            return {**made, **described}
        if "enum" in made:  # an enum would refuse the map
            made = {**made, "pattern": f"^({'|'.join(made['enum'])})$", "examples": made["enum"]}
            del made["enum"]
        if action.name in BRANCH_ITEMS:
            made["items"] = BRANCH_ITEMS[action.name]
        types = made.get("type", [])
        wanted = [types] if isinstance(types, str) else types
        properties = self._properties((*action.fields, *action.beside))
        nothing = ["null"] if action.name in self._bare() else []  # `answer:` says all there is to say
        form = {
            "type": list(dict.fromkeys((*wanted, "object", *nothing))),
            "properties": properties,
            "additionalProperties": False,
        }
        return {**made, **described, **form}

    def _keys_of(self, action: Action) -> Schema:
        """The keys that may stand beside one action."""
        names = [action.name, *(f.name for f in action.beside), *(f.name for f in COMMON_FIELDS)]
        then = {"propertyNames": {"enum": names}, "properties": self._properties(action.beside)}
        return {"if": {"type": "object", "required": [action.name]}, "then": then}

    def _filters(self, action: str) -> Iterator[Schema]:
        """`where:` by event: which attributes there are, and the values of choices."""
        for event in self.events:
            chosen = {"type": "object", "required": [action], "properties": {action: {"const": event.name}}}
            yield {"if": chosen, "then": {"properties": {"where": _unsuggested(_attributes(event))}}}

    # --- flows and sections -----------------------------------------------------------------------------------------

    def flow(self) -> Schema:
        properties = self._properties(FLOW_FIELDS)
        events = [event.name for event in self.events]
        keys = {"event": {"type": "string", "examples": events}, "where": {"type": ["string", "object"]}}
        every = self.value(Field("every", Kind.DURATION, "Period of a timer."))
        properties["on"] |= {
            "type": ["string", "object"],
            "examples": [*TRIGGERS, *events],
            "properties": {**keys, "every": every, "socket": {"type": ["string", "integer"], "examples": ["*"]}},
            "additionalProperties": False,
        }
        properties["params"]["additionalProperties"] = {"type": "string", "examples": list(ATTRIBUTE_TYPES)}
        return _closed(properties, [field.name for field in FLOW_FIELDS if field.required])

    def section(self, name: str) -> Schema:
        """The schema of a top-level section."""
        if name in RESOURCES:
            return _named(self._resource(RESOURCES[name]))
        event = {"type": "object", "additionalProperties": {"type": "string", "examples": list(ATTRIBUTE_TYPES)}}
        made: dict[str, Schema] = {
            "flowlang": {"const": 1},
            "description": {"type": "string"},
            "const": {"type": "object"},
            "secrets": {"type": ["array", "object"], "items": {"type": "string"}, "additionalProperties": _SECRET},
            "events": _named(event),
            "groups": _named({"type": "array", "items": _TEXT}),
            "schedules": _named(_SCHEDULE),
            "defaults": self._defaults(),
            "flows": _named({"$ref": "#/definitions/flow"}),
        }
        return made[name]

    def _resource(self, resource: Resource) -> Schema:
        required = [field.name for field in resource.fields if field.required]
        return _closed(self._properties(resource.fields), required)

    def _defaults(self) -> Schema:
        made = _closed(self._properties(DEFAULT_FIELDS), [])
        number = {"type": ["number", "string"]}
        made["properties"]["limits"] |= _closed(dict.fromkeys(LIMIT_NAMES, number), [])
        made["properties"]["replies"]["additionalProperties"] = {"type": "integer", "minimum": 300, "maximum": 699}
        return made


_SCHEDULE: Schema = {
    "type": "object",
    "properties": {
        "timezone": {"description": SCHEDULE_KEYS["timezone"], "type": "string"},
        "open": {"description": SCHEDULE_KEYS["open"], "type": "object"},
        "closed": {"description": SCHEDULE_KEYS["closed"], "type": ["array", "string"], "items": {"type": "string"}},
    },
    "required": ["open"],
    "additionalProperties": False,
}


def _closed(properties: Mapping[str, Any], required: Sequence[str]) -> Schema:
    """A map with these keys only."""
    made: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _unsuggested(schema: Schema) -> Schema:
    """A key that is right here but offered by another part of the schema (a word of yaml-language-server)."""
    return {**schema, "doNotSuggest": True}


def _named(item: Schema) -> Schema:
    """A map of names that users choose."""
    return {"type": "object", "additionalProperties": item}


def _destination(field: Field) -> Schema:
    words = ["registered", "original"] if field.name == "to" else []
    return {"type": ["string", "array"], "items": {"type": "string"}, "examples": words}


def _codes(field: Field) -> Schema:
    return {"type": ["array", "string", "integer"], "items": {"type": ["integer", "string"]}}


def _outcomes(field: Field) -> Schema:
    """One key for each outcome; several may share an entry: `busy, rejected`."""
    names = [*field.values, "else"]
    word = f"({'|'.join(names)})"
    shared = {f"^{word}( *, *{word})+$": _STEPS}
    return {**_closed(dict.fromkeys(names, _STEPS), []), "patternProperties": shared}


def _attributes(event: EventSpec) -> Schema:
    """A filter of one event: its attributes as keys, or a condition."""
    properties = {name: _attribute(attribute) for name, attribute in event.attributes.items()}
    return {"type": ["string", "object"], "properties": properties, "additionalProperties": False}


def _attribute(attribute: Attribute) -> Schema:
    described = {"description": attribute.doc} if attribute.doc else {}
    return {**described, "enum": list(attribute.values)} if attribute.values else described
