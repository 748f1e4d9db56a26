"""Sections of a flow file other than flows: constants, secrets, events, groups, schedules, servers and their like.

Their values are fixed: `${…}` may stand in endpoints only, where secrets and constants fill it in at the request.
What comes out are plain values (`Resources` says which), with secrets as references: nothing here reads an
environment variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.events.event import EventSpec
from orchestrator.events.registry import ATTRIBUTE_TYPES, custom_event
from orchestrator.flow.check.kinds import Kinds, check_credentials
from orchestrator.flow.check.values import type_of
from orchestrator.flow.expr import ANY, TEXT, Scope, closest
from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.language.declarations import TRIGGERS, Declarations, as_entries
from orchestrator.flow.language.evaluables import Constant
from orchestrator.flow.language.literals import number
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.schedules import Hours, Schedule, parse_dates, parse_days, parse_hours, parse_zone
from orchestrator.flow.language.sections import DEFAULT_FIELDS, LIMIT_NAMES, RESOURCES, SCHEDULE_KEYS, Resource
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.written import environment_reference
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar


class ResourceReader:
    """Reads one file's sections into the declarations of the set."""

    def __init__(self, report: Report, names: Declarations) -> None:
        self.report = report
        self.names = names
        self.values = Kinds(report, names)
        self._sections: Mapping[str, Callable[[str, Node], None]] = {
            "const": self._const,
            "secrets": self._secrets,
            "events": self._events,
            "groups": self._groups,
            "schedules": self._schedules,
            "defaults": self._defaults,
            **dict.fromkeys(RESOURCES, self._resources),
        }

    def read(self, section: str, node: Node) -> None:
        """One section; what is wrong is reported and left out."""
        reader = self._sections.get(section)
        if reader is not None:
            reader(section, node)

    def _named(self, section: str, node: Node) -> list[tuple[Scalar, Node]]:
        """The entries of a section whose names are still free. One that says what another file has said is left out."""
        entries = as_entries(self.report, node, f"{section}:")
        return [(key, value) for key, value in entries or () if self.names.claim(self.report, section, key, value)]

    # --- values -----------------------------------------------------------------------------------------------------

    def _const(self, section: str, node: Node) -> None:
        for key, item in self._named(section, node):
            value = self.values.any_value(item, Scope({}), durations=True)
            self.names.resources["const"][key.text] = value.evaluate({}) if value is not None else None
            self.names.const_types[key.text] = type_of(value) if value is not None else ANY

    def _secrets(self, section: str, node: Node) -> None:
        """A list of names (each an environment variable of that name), or name → {env: …} or {file: …}."""
        if isinstance(node, Items):
            for item in node:
                name = self.values.scalar(item, "the name of a secret")
                if name is not None and self.names.claim(self.report, section, name, name):
                    self.names.resources["secrets"][name.text] = {"env": name.text}
            return
        for key, item in self._named(section, node):
            source = self._secret(item, key.text)
            self.names.resources["secrets"][key.text] = source or {"env": key.text}

    def _secret(self, node: Node, name: str = "") -> Any:
        """`{env: NAME}`, `{file: path}`, or for a password the text itself; a secret with a `name` is never that."""
        if isinstance(node, Scalar) and not name:
            scalar = self.values.scalar(node, "a password")
            if scalar is None or not (meant := environment_reference(scalar.text, scalar.plain)):
                return scalar.text if scalar else None
            message = f"{scalar.text!r} is taken as it is, nothing is filled in here"
            self.report.error("E106", message, node, f"write {meant}")
            return None
        if isinstance(node, Scalar):
            meant = environment_reference(node.text, node.plain)
            help = f"write {meant}" if meant else f"write  {{env: {name}}}, and put the value into that variable"
            self.report.error("E103", "a secret is read from {env: NAME} or {file: path}, not written here", node, help)
            return None
        if not isinstance(node, Entries) or not len(node):
            help = f"write  {{env: {name or 'NAME'}}}"
            self.report.error("E103", "a secret is read from {env: NAME} or {file: path}", node, help)
            return None
        for key, _ in node:
            if key.text not in SOURCES:
                message = f"unknown key of a secret: {key.text!r}"
                self.report.error("E101", message, key, meant_source(key.text, node))
                return None
        (key, item), *others = node
        if others:
            self.report.error(
                "E103", "a secret has one source", others[0][0], f"remove {key.text} or {others[0][0].text}"
            )
            return None
        scalar = self.values.scalar(item, "a name")
        return {key.text: scalar.text} if scalar else None

    def _events(self, section: str, node: Node) -> None:
        for key, item in self._named(section, node):
            if key.text in TRIGGERS:
                self.report.error("E110", f"{key.text!r} is a trigger", key, "choose another name for your event")
                continue
            if key.text in self.names.events:
                message = f"{key.text!r} is a built-in event"
                self.report.error("E110", message, key, "choose another name for your event")
                continue
            entries = as_entries(self.report, item, f"event {key.text!r}")
            spec = self._event(key, entries)
            self.names.events.add(spec)

    def _event(self, key: Scalar, entries: Entries | None) -> EventSpec:
        words: dict[str, str] = {}
        for attribute, item in entries or ():
            self.values.declared(attribute, "an attribute")
            scalar = self.values.scalar(item, "the type of an attribute")
            word = scalar.text if scalar else "any"
            kind = word.removeprefix("optional ")
            if kind not in ATTRIBUTE_TYPES:
                best = closest(kind, ATTRIBUTE_TYPES)
                help = f"did you mean {best!r}?" if best else f"known: {', '.join(ATTRIBUTE_TYPES)}, optional ..."
                self.report.error("E102", f"unknown type {word!r}", item, help)
                word = "any"
            words[attribute.text] = word
        return custom_event(key.text, words)

    def _groups(self, section: str, node: Node) -> None:
        for key, item in self._named(section, node):
            if not isinstance(item, Items):
                self.report.error("E103", f"group {key.text!r} takes a list", item, "write  [101, 102]")
                continue
            members = [self._fixed_text(member, "an extension") for member in item]
            self.names.resources["groups"][key.text] = tuple(member.text for member in members if member is not None)

    # --- named resources --------------------------------------------------------------------------------------------

    def _resources(self, section: str, node: Node) -> None:
        for key, item in self._named(section, node):
            resource = RESOURCES[section]
            before = len(self.report.diagnostics)
            entries = as_entries(self.report, item, f"{resource.word} {key.text!r}")
            found: dict[str, Any] = {}
            for name, value in entries or ():
                field = next((f for f in resource.fields if f.name == name.text), None)
                if field is None:
                    known = [f.name for f in resource.fields]
                    message = f"unknown key of {resource.word} {key.text!r}: {name.text!r}"
                    self.report.error("E101", message, name, meant(name.text, known))
                elif field.planned:
                    message = f"{name.text}: is not built yet, this version cannot use it"
                    self.report.error("E119", message, name, meant_instead(resource))
                else:
                    found[name.text] = self._field(field, value, Scope(resource.scope))
                if name.text == "auth":
                    check_credentials(self.report, value)
            if len(self.report.diagnostics) == before:  # a misspelt key is one mistake, not two
                self._complete(resource, key, entries)
            self.names.resources[section][key.text] = found

    def _complete(self, resource: Resource, key: Scalar, entries: Entries | None) -> None:
        there = {name.text for name, _ in entries or ()}
        missing = [field.name for field in resource.fields if field.required and field.name not in there]
        if missing:
            self.report.error("E115", f"{resource.word} {key.text!r} needs {' and '.join(missing)}", key)
        alone, others = resource.apart
        for other in others:
            if alone in there and other in there and entries is not None:
                message = f"{resource.word} {key.text!r}: {other}: cannot stand beside {alone}:"
                self.report.error("E114", message, entries.key(other), f"do it in the expression of {alone}:")
        if resource.one_of and len(there & set(resource.one_of)) != 1:
            message = f"{resource.word} {key.text!r} needs one of {', '.join(resource.one_of)}"
            self.report.error("E115", message, key)

    def _field(self, field: Field, node: Node, scope: Scope | None = None) -> Any:
        """The value of a key: compiled where `${…}` may stand (endpoints) and for expressions, else plain."""
        if field.kind is Kind.EXPRESSION:
            return self._rule(field, node, scope or Scope({}))
        if field.kind is Kind.SECRET:
            return self._secret(node)
        if field.secret or field.kind is Kind.MAP:
            return self.values.compile(field, node, Scope(self.names.names()))
        if isinstance(node, Scalar) and "${" in node.text:
            self.report.error("E106", f"{field.name}: takes a fixed value, not ${{...}}", node, FIXED_HELP)
            return None
        value = self.values.compile(field, node, Scope({}))
        return value.value if isinstance(value, Constant) else value

    def _rule(self, field: Field, node: Node, scope: Scope) -> Any:
        """An expression that gives text."""
        scalar = self.values.scalar(node, "an expression")
        if scalar is not None and "${" in scalar.text:
            message = f"{field.name}: is an expression already"
            self.report.error("E106", message, node, "write it without ${...}")
            return None
        return self.values.expression(scalar, scope, TEXT) if scalar is not None else None

    def _fixed_text(self, node: Node, what: str) -> Scalar | None:
        scalar = self.values.scalar(node, what)
        if scalar is not None and "${" in scalar.text:
            self.report.error("E106", f"{what} is a fixed value here, not ${{...}}", node)
            return None
        return scalar

    # --- schedules --------------------------------------------------------------------------------------------------

    def _schedules(self, section: str, node: Node) -> None:
        for key, item in self._named(section, node):
            before = len(self.report.diagnostics)
            entries = as_entries(self.report, item, f"schedule {key.text!r}")
            for name, _ in entries or ():
                if name.text not in SCHEDULE_KEYS:
                    message = f"unknown key of schedule {key.text!r}: {name.text!r}"
                    self.report.error("E101", message, name, meant(name.text, SCHEDULE_KEYS))
            if (entries is None or "open" not in entries) and len(self.report.diagnostics) == before:
                self.report.error("E115", f"schedule {key.text!r} needs open", key)
            entries = entries or Entries.nothing(key)
            zone = self._read(entries.get("timezone"), parse_zone, "write for example Europe/Berlin") or parse_zone(
                "UTC"
            )
            closed = [self._read(date, parse_dates, "write 2026-12-24 or 2026-12-24..2026-12-26")
                      for date in _each(entries.get("closed"))]  # fmt: skip
            hours = self._hours(entries.get("open"))
            self.names.resources["schedules"][key.text] = Schedule(zone, hours, tuple(d for d in closed if d))

    def _hours(self, node: Node | None) -> dict[int, list[Hours]]:
        """Weekday → opening hours."""
        hours: dict[int, list[Hours]] = {}
        entries = as_entries(self.report, node, "open:") if node is not None else None
        for key, item in entries or ():
            days = self._read(key, parse_days, "write for example mon-thu, sat or daily") or ()
            for part in _each(item):
                found = self._read(part, parse_hours, "write for example 09:00-17:30") or ()
                for day in days:
                    hours.setdefault(day, []).extend(found)
        return hours

    def _read(self, node: Node | None, parse: Callable[[str], Any], help: str) -> Any:
        """A written value through a parser; E106 with the parser's words when it refuses."""
        if node is None:
            return None
        scalar = self.values.scalar(node, "a value")
        try:
            return parse(scalar.text) if scalar else None
        except ValueError as error:
            self.report.error("E106", str(error), node, help)
            return None

    # --- defaults ---------------------------------------------------------------------------------------------------

    def _defaults(self, section: str, node: Node) -> None:
        """`ring` and `http_timeout` in seconds; `replies` error type → status; `limits` name → number or seconds."""
        fields = {field.name: field for field in DEFAULT_FIELDS}
        for key, item in self._named(section, node):
            if key.text not in fields:
                self.report.error("E101", f"unknown key of defaults: {key.text!r}", key, meant(key.text, fields))
            elif key.text == "replies":
                self.names.defaults["replies"] = self._replies(item)
            elif key.text == "limits":
                self.names.defaults["limits"] = self._limits(item)
            else:
                self.names.defaults[key.text] = self._field(fields[key.text], item)

    def _replies(self, node: Node) -> dict[str, int]:
        found: dict[str, int] = {}
        status = Field("replies", Kind.STATUS, "")
        for key, item in as_entries(self.report, node, "replies:") or ():
            code = self._field(status, item)
            if isinstance(code, int) and code < 300:
                self.report.error("E106", f"{code} is not a failure", item, "write a final failure, 300-699")
            elif isinstance(code, int):
                found[key.text] = code
        return found

    def _limits(self, node: Node) -> dict[str, float]:
        found: dict[str, float] = {}
        for key, item in as_entries(self.report, node, "limits:") or ():
            scalar = self.values.scalar(item, "a number")
            value = (number(scalar.text) if key.text != "grace" else seconds(scalar.text)) if scalar else None
            if key.text not in LIMIT_NAMES:
                self.report.error("E101", f"unknown limit: {key.text!r}", key, meant(key.text, LIMIT_NAMES))
            elif value is None or value < 0:
                what = "a duration" if key.text == "grace" else "a number"
                self.report.error("E106", f"limit {key.text}: takes {what}", item)
            else:
                found[key.text] = value
        return found


FIXED_HELP = "write the value itself; what differs from site to site stands in the configuration, {env: NAME} there"

SOURCES = ("env", "file")
"""Where a secret is read from."""


def meant_source(word: str, node: Entries) -> str:
    """The help for a key that `{env: NAME}` does not have."""
    best = closest(word.lower(), SOURCES)
    if best is not None and best not in node:
        return f"did you mean {best!r}?"
    if (best := closest(word.lower(), ("default",))) is not None:
        return "a secret in a flow file has no default: give it in the configuration"
    return "write {env: NAME} or {file: path}, one of them"


def meant_instead(resource: Resource) -> str:
    """Help for a key that is planned: what there is."""
    built = [field.name for field in resource.fields if field.name in resource.one_of and not field.planned]
    return f"use {' or '.join(built)}" if built else ""


def _each(node: Node | None) -> tuple[Node, ...]:
    """The items of a list, or the one value that stands for a list of one."""
    if node is None:
        return ()
    return tuple(node) if isinstance(node, Items) else (node,)
