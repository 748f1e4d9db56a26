"""Values of keys: a YAML node and the `Kind` of its key become something the engine evaluates (or a plain name).

Each kind has one method here. Kinds that are made of steps, and filters, are compiled where names are followed
(`steps`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

from orchestrator.flow.check.key_rules import CHECKS, RULES
from orchestrator.flow.check.values import Values, type_of
from orchestrator.flow.expr import Expression
from orchestrator.flow.expr.lexer import meant_duration, seconds
from orchestrator.flow.expr.scope import Scope
from orchestrator.flow.expr.spelling import closest
from orchestrator.flow.expr.types import (
    BOOL,
    DIGITS,
    DURATION,
    NUMBER,
    TEXT,
    Type,
    list_of,
    mixed,
    origin_of,
)
from orchestrator.flow.language.declarations import Declarations
from orchestrator.flow.language.evaluables import AsList, Constant, ListValue
from orchestrator.flow.language.freeswitch_places import variable
from orchestrator.flow.language.literals import number
from orchestrator.flow.language.places import Place, Rule
from orchestrator.flow.language.program import Evaluable
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.written import OVER_TRANSPORTS, Flaw, destination_help, filled_flaw, server_uri_flaw
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

_HEADER_NAME = re.compile(r"[A-Za-z0-9!%*_+`'~.-]+")

ENGINE_HEADERS = frozenset(
    ("via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "route", "record-route", "content-length")
)
"""Header fields that belong to the transaction and dialog; a flow that sets one would break the call."""

_PHRASES = {
    "trying": 100,
    "ringing": 180,
    "sessionprogress": 183,
    "progress": 183,
    "ok": 200,
    "badrequest": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "notfound": 404,
    "requesttimeout": 408,
    "timeout": 408,
    "temporarily": 480,
    "unavailable": 480,
    "busy": 486,
    "notacceptable": 488,
    "servererror": 500,
    "serverinternal": 500,
    "serviceunavailable": 503,
    "decline": 603,
    "reject": 603,
}
"""How people call a status code → the code (RFC 3261 §21)."""

Compiled = Any
"""What `Program` says about `Step.args`; None after an error."""


class Kinds(Values):
    """Compiles the values of one file's keys."""

    def __init__(self, report: Report, names: Declarations) -> None:
        super().__init__(report, names)
        self.rule: Rule | None = None
        """What the place of the key that is being compiled does with text from outside."""
        self._by_kind: Mapping[Kind, Callable[[Field, Node, Scope], Compiled]] = {
            Kind.TEXT: self._text,
            Kind.CONDITION: self._condition,
            Kind.EXPRESSION: self._expression,
            Kind.VALUE: self._value,
            Kind.NUMBER: self._number,
            Kind.BOOLEAN: self._boolean,
            Kind.DURATION: self._duration,
            Kind.STATUS: self._status,
            Kind.ENUM: self._enum,
            Kind.DESTINATION: self._destination,
            Kind.FAILOVER: self._failover,
            Kind.MAP: self._map,
            Kind.LIST: self._list,
            Kind.NAME: self._name,
            Kind.GATEWAYS: self._gateways,
            Kind.SERVER: self._server,
            Kind.USERS: self._users,
            Kind.ENDPOINT: self._endpoint,
        }

    def compile(self, field: Field, node: Node, scope: Scope, rule: Rule | None = None) -> Compiled:
        """The value of a key, None after an error. The scope of a field that takes secrets is opened for them.

        `rule` is what its place does with text from outside, where other keys of the step have a say in that.
        """
        if field.secret and not scope.secrets:
            scope = with_secrets(scope)
        self.rule = rule or RULES.get(field.place)
        self.check = CHECKS.get(self.rule)
        try:
            value = self._by_kind[field.kind](field, node, scope)
        finally:
            self.rule = self.check = None
        if value is None or field.check is None or not isinstance(node, Scalar):
            return value
        return value if self.usable(node, field.check) else None

    def usable(self, node: Scalar, check: Callable[[str], Flaw | None]) -> bool:
        """Whether an address as written can be used; E106 otherwise."""
        if check in OVER_TRANSPORTS:
            check = partial(check, transports=self.names.known.transports)
        flaw = filled_flaw(node.text, check)
        if flaw is not None:
            self.report.error("E106", flaw.message, node, flaw.help)
        return flaw is None

    def takes(self, kind: Kind) -> bool:
        """Whether values of this kind are compiled here."""
        return kind in self._by_kind

    def _text(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, "a text")
        if scalar is None:
            return None
        if "${" not in scalar.text:
            self.plain_text(scalar)
            return Constant(scalar.text, TEXT, scalar.text)
        return self.template(scalar, scope, TEXT, self.rule)

    def items(self, node: Node, scope: Scope) -> Evaluable | None:
        """What a loop runs over: an expression, or a list that is written out; its items are text, `007` and all."""
        field = Field("in", Kind.LIST, "")
        if not isinstance(node, Items):
            found: Evaluable | None = self._expression(field, node, scope)
            return found
        texts = [self._text(field, item, scope) for item in node]
        held = reduce(lambda held, text: mixed(held, origin_of(type_of(text))), texts, DIGITS)
        return None if None in texts else ListValue(texts, list_of(held))

    def _condition(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, "a condition")
        return self.expression(scalar, scope, BOOL) if scalar else None

    def _expression(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, "an expression")
        return self.expression(scalar, scope) if scalar else None

    def _value(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self.any_value(node, scope, durations=False)

    # --- fixed forms ------------------------------------------------------------------------------------------------

    def _number(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self._fixed(node, scope, NUMBER, _count, "a number", "")

    def _boolean(self, field: Field, node: Node, scope: Scope) -> Compiled:
        """true or false; a field may have words of its own beside them."""
        known = {"true": True, "false": False, **{word: word for word in field.values}}
        words = f", {' or '.join(field.values)}" if field.values else ""
        return self._fixed(node, scope, BOOL, known.get, f"true or false{words}", "")

    def _duration(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self._fixed(
            node, scope, DURATION, seconds, "a duration", "write a number and a unit: 500ms, 30s, 10m, 2h"
        )

    def _fixed(
        self, node: Node, scope: Scope, type: Type, read: Callable[[str], Any], what: str, help: str
    ) -> Compiled:
        scalar = self.scalar(node, what)
        if scalar is None:
            return None
        if "${" in scalar.text:
            return self.template(scalar, scope, type)
        value = read(scalar.text)
        if value is None:
            if type is DURATION:
                bare = re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", scalar.text)
                help = f"write {scalar.text}s" if bare else meant_duration(scalar.text) or help
            self.report.error("E106", f"{scalar.text!r} is not {what}", scalar, help)
            return None
        return Constant(value, type, scalar.text)

    def _status(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, "a status code")
        if scalar is None:
            return None
        if "${" in scalar.text:
            return self.template(scalar, scope, NUMBER)
        code = number(scalar.text)
        if code is None or not 100 <= code <= 699:
            shown = scalar.text if code is not None else repr(scalar.text)
            help = status_help(scalar.text, field.name == "code")
            self.report.error("E106", f"{shown} is not a SIP status code (100-699)", scalar, help)
            return None
        return Constant(code, NUMBER, scalar.text)

    def _enum(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, f"one of {', '.join(field.values)}")
        if scalar is None:
            return None
        if scalar.text not in field.values:
            best = closest(scalar.text, field.values)
            possible = f"possible values: {', '.join(field.values)}"
            help = f"did you mean {best!r}? {possible}" if best else possible
            self.report.error("E106", f"unknown value for {field.name}: {scalar.text!r}", scalar, help)
            return None
        return scalar.text

    def _destination(self, field: Field, node: Node, scope: Scope) -> Compiled:
        if isinstance(node, Items):
            items = [self._destination(field, item, scope) for item in node]
            return None if None in items else ListValue(items)
        scalar = self.scalar(node, "a destination")
        if scalar is None:
            return None
        if "${" in scalar.text:
            return self._destination_expression(scalar, scope)
        words = ("registered", "original") if field.name == "to" else ()
        if scalar.text in words:
            return Constant(scalar.text, TEXT, scalar.text)
        if not scalar.text.lower().startswith(("sip:", "sips:")):
            best = closest(scalar.text, words)
            help = f"did you mean {best!r}?" if best else destination_help(scalar.text, words)
            self.report.error("E106", f"{scalar.text!r} is not a destination", scalar, help)
            return None
        if not self.usable(scalar, server_uri_flaw):
            return None
        return Constant(scalar.text, TEXT, scalar.text)

    def _destination_expression(self, scalar: Scalar, scope: Scope) -> Expression | None:
        if scalar.text.lower().startswith(("sip:", "sips:")) and not self.usable(scalar, server_uri_flaw):
            return None
        value = self.template(scalar, scope, rule=self.rule)
        if value is None:
            return None
        found = value.type.items if value.type.kind == "list" else value.type
        if value.type.optional or found.optional:
            self.report.error("E208", "the destination may be missing here", scalar, "give a default with ??")
        elif not (found.textual or found.kind in ("contact", "any", "nothing")):
            self.report.error("E203", f"{found} is not a destination", scalar, "use a sip: URI or a contact")
        else:
            return value
        return None

    def _failover(self, field: Field, node: Node, scope: Scope) -> Compiled:
        found = []
        for item in node if isinstance(node, Items) else (node,):
            scalar = self.scalar(item, "a status code")
            if scalar is None:
                return None
            if not re.fullmatch(r"[1-6]([0-9]{2}|xx)", scalar.text) and scalar.text not in field.values:
                known = ", ".join(("408", "5xx", *field.values))
                self.report.error("E106", f"{scalar.text!r} is not a status code", scalar, f"write for example {known}")
                return None
            found.append(scalar.text)
        return tuple(found)

    # --- lists and maps ---------------------------------------------------------------------------------------------

    def _map(self, field: Field, node: Node, scope: Scope) -> Compiled:
        """Name → value; `${…}` alone may not stand for the whole map, since its keys could not be checked."""
        if not isinstance(node, Entries):
            self.report.error("E103", f"{field.name}: takes a map here", node, "write  {name: value}")
            return None
        header = field.name == "headers"
        values: dict[str, Any] = {}
        for key, item in node:
            if header and not self._header_name(key, sip=not field.secret):
                values[key.text] = None
            elif header:
                values[key.text] = self._text(field, item, scope)
            elif field.place is Place.VARIABLE and isinstance(item, Scalar) and "${" in item.text:
                values[key.text] = self.template(item, scope, rule=variable(key.text))
            else:
                values[key.text] = self._value(field, item, scope)
        return None if None in values.values() else values

    def _header_name(self, key: Scalar, sip: bool) -> bool:
        if not _HEADER_NAME.fullmatch(key.text):
            self.report.error("E106", f"{key.text!r} is not the name of a header field", key)
            return False
        if sip and key.text.lower() in ENGINE_HEADERS:
            help = "who is shown as caller is said with from:" if key.text.lower() == "from" else ""
            self.report.error("E106", f"the header field {key.text!r} is written by the engine", key, help)
            return False
        return True

    def _list(self, field: Field, node: Node, scope: Scope) -> Compiled:
        if isinstance(node, Entries):
            self.report.error("E103", f"{field.name}: takes a list here", node, "write  [one, two]")
            return None
        if isinstance(node, Items):
            items = [self._text(field, item, scope) for item in node]
            return None if None in items else ListValue(items)
        scalar = self.scalar(node, "a list")
        if scalar is None:
            return None
        if "${" not in scalar.text:
            return Constant([scalar.text], list_of(TEXT), scalar.text)
        value = self.template(scalar, scope, rule=self.rule)
        return AsList(value) if value is not None else None

    # --- names ------------------------------------------------------------------------------------------------------

    def _name(self, field: Field, node: Node, scope: Scope) -> Compiled:
        scalar = self.scalar(node, "a name")
        if scalar is None:
            return None
        if "${" in scalar.text:
            self.report.error("E106", f"{field.name}: takes a fixed name, not ${{...}}", scalar)
            return None
        return scalar.text

    def _gateways(self, field: Field, node: Node, scope: Scope) -> Compiled:
        found = []
        for item in node if isinstance(node, Items) else (node,):
            scalar = self.scalar(item, "the name of a gateway")
            name = self.known(scalar, "gateway", self.names.resources["gateways"]) if scalar else None
            if name is None:
                return None
            found.append(name)
        return tuple(found)

    def _server(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self._resource(node, "FreeSWITCH server", "freeswitch")

    def _users(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self._resource(node, "user table", "users")

    def _endpoint(self, field: Field, node: Node, scope: Scope) -> Compiled:
        return self._resource(node, "endpoint", "endpoints")

    def _resource(self, node: Node, word: str, section: str) -> str | None:
        scalar = self.scalar(node, f"the name of a {word}")
        return self.known(scalar, word, self.names.resources[section]) if scalar else None


def _count(text: str) -> int | None:
    """A written number; all keys of this kind count something."""
    found = number(text)
    return found if found is not None and found >= 0 else None


def status_help(text: str, with_reason: bool) -> str:
    """What to write instead of a status line (`486 Busy Here`) or a reason phrase (`busy`)."""
    line = re.fullmatch(r"(?:SIP/2\.0\s+)?([1-6][0-9]{2})\b[\s,:;-]*(.*)", text, re.IGNORECASE)
    if line is not None and with_reason and line[2]:
        return f"write {{code: {line[1]}, reason: {line[2]}}}"
    if line is not None:
        return f"write {line[1]}"
    word = re.sub(r"[^a-z]", "", text.lower())
    code = next((code for start, code in _PHRASES.items() if word.startswith(start)), 0)
    return f"write {code}" if code else "write a number, for example 486"


def with_secrets(scope: Scope) -> Scope:
    """The same scope where secrets may be read."""
    return Scope(scope.names, scope.hints, scope.known, True, scope.volatile)


def check_credentials(report: Report, node: Node) -> None:
    """`auth:` of a request is user and password."""
    for key, _ in node if isinstance(node, Entries) else ():
        if key.text not in ("user", "password"):
            report.error("E114", f"unknown key for auth: {key.text!r}", key, "known: password, user")
