"""Values in YAML: expressions, texts, literals, and values that have to fit a declared type.

Everything here reports what is wrong and then answers None; nothing that comes out is None otherwise.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import reduce
from typing import Any

from orchestrator.events.checked import CHECKED, WrongValue
from orchestrator.flow.expr import ExprError, Expression, compile_expression, compile_template
from orchestrator.flow.expr.notation import foreign_notation
from orchestrator.flow.expr.scope import Scope
from orchestrator.flow.expr.types import (
    ANY,
    TEXT,
    Type,
    assignable,
    list_of,
    map_of,
    mixed,
    origin_of,
    unify,
)
from orchestrator.flow.language.declarations import Declarations
from orchestrator.flow.language.encoders import Encoder
from orchestrator.flow.language.evaluables import Checked, Constant, ListValue, MapValue
from orchestrator.flow.language.literals import typed
from orchestrator.flow.language.places import Rule, placer
from orchestrator.flow.language.program import Evaluable, Place
from orchestrator.flow.language.report import COMMENT_HELP, Report
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


WORDS = frozenset(("true", "false", "null", "and", "or", "not", "in"))
"""Words of the expression language: no name may be one of them."""


class Values:
    """Compiles values of one file."""

    def __init__(self, report: Report, names: Declarations) -> None:
        self.report = report
        self.names = names
        self.reads: set[str] = set()
        """Root names that expressions of this file's flow have read."""
        self.check: Encoder | None = None
        """What looks at the whole text that is being compiled, see `key_rules.CHECKS`."""

    def expression(self, node: Scalar, scope: Scope, expected: Type | None = None) -> Expression | None:
        """A bare expression."""
        try:
            found = compile_expression(node.text, scope, expected)
        except ExprError as error:
            self.report.expression(error, node)
            return None
        return self._noted(found, node)

    def template(
        self, node: Scalar, scope: Scope, expected: Type | None = None, rule: Rule | None = None
    ) -> Expression | None:
        """Text with `${…}`; `rule` is that of the place it is put into, for what comes from outside."""
        self.plain_text(node)
        place = None if rule is None else placer(rule, node.text, self.check)
        try:
            found = compile_template(node.text, scope, expected, place)
        except ExprError as error:
            self.report.expression(error, node)
            return None
        return self._noted(found, node)

    def _noted(self, found: Expression, node: Scalar) -> Expression:
        """Keep what the whole set is judged by: the names read, and where `unsafe(…)` stands."""
        self.reads |= found.roots
        for offset in found.unsafe:
            line, column = self.report.document.position(node, offset)
            self.names.unsafe.append((Place(self.report.document.name, line, column), node.text))
        return found

    def plain_text(self, node: Scalar) -> None:
        """W306 for each piece of another system's notation, which nothing would fill in."""
        for found in foreign_notation(node.text):
            line, column = self.report.document.position(node, found.start)
            place = Place(self.report.document.name, line, column)
            message = f"{found.text} is not filled in, it stays as it is"
            self.report.add("W306", message, place, found.help, length=len(found.text))

    def scalar(self, node: Node, what: str) -> Scalar | None:
        """The node as a single value that is not empty; None with E105 reported."""
        if isinstance(node, Scalar) and (node.text or not node.plain):
            return node
        help = COMMENT_HELP if isinstance(node, Scalar) and self.report.cut_by_comment(node) else ""
        self.report.error("E105", f"{what} is expected here", node, help)
        return None

    def typed_value(self, node: Node, expected: Type, scope: Scope, what: str) -> Evaluable | None:
        """A value that has to fit a declared type: a variable, an attribute of an event, a parameter.

        `what` names the place for the message: `variable 'n' holds`.
        """
        value: Evaluable | None
        if isinstance(node, Scalar) and "${" in node.text:
            value = self.template(node, scope)
        elif isinstance(node, Scalar):
            value = self._literal_of(node, expected)
        else:
            value = self.any_value(node, scope, durations=True)
        if value is None:
            return None
        found = type_of(value)
        if found.optional and not expected.optional:
            self.report.error(
                "E208", f"this may be missing here, but {what} {expected}", node, "give a default with ??"
            )
            return None
        if not assignable(found, expected):
            self.report.error("E203", f"{what} {expected}, but this is {found}", node, _literal_help(found, expected))
            return None
        return self._checked(value, expected, node) if expected.kind in CHECKED else value

    def _checked(self, value: Evaluable, expected: Type, node: Node) -> Evaluable | None:
        """A value of a type that is checked where it enters; one that is written out is checked now."""
        read = CHECKED[expected.kind]
        if isinstance(value, Constant) and isinstance(value.value, str):
            try:
                return Constant(read(value.value), expected, value.source)
            except WrongValue as wrong:
                self.report.error("E106", str(wrong), node)
                return None
        known = type_of(value)
        if known.kind == expected.kind and not known.origin.outside:
            return value
        return Checked(value, read, expected, getattr(value, "source", ""))

    def _literal_of(self, node: Scalar, expected: Type) -> Constant:
        """A written value, read as text where text is declared: there `0`, `no` and `007` are what they look like."""
        if expected.textual and not (node.plain and node.text in ("", "null", "~")):
            return Constant(node.text, expected if expected.kind != "enum" else TEXT, node.text)
        found, value = typed(node)
        return Constant(value, found, node.text)

    def any_value(self, node: Node, scope: Scope, durations: bool) -> Evaluable | None:
        """A value without a declared type: written scalars are what they look like, lists and maps are kept."""
        if isinstance(node, Items):
            items = [item for child in node if (item := self.any_value(child, scope, durations)) is not None]
            return ListValue(items, list_of(_common(items))) if len(items) == len(node.items) else None
        if isinstance(node, Entries):
            entries = {
                key.text: value for key, child in node if (value := self.any_value(child, scope, durations)) is not None
            }
            return MapValue(entries, map_of(_common(list(entries.values())))) if len(entries) == len(node) else None
        if "${" in node.text:
            return self.template(node, scope)
        if node.plain and not node.text and self.report.cut_by_comment(node):
            self.scalar(node, "a value")
            return None
        self.plain_text(node)
        found, value = typed(node, durations)
        return Constant(value, found, node.text)

    def identifier(self, node: Node, what: str) -> str | None:
        """A name that expressions can use."""
        scalar = self.scalar(node, "a name")
        if scalar is None:
            return None
        if not _IDENTIFIER.fullmatch(scalar.text):
            help = "a name starts with a letter and goes on with letters, digits and _"
            self.report.error("E106", f"{scalar.text!r} cannot be {what}", scalar, help)
            return None
        return scalar.text

    def declared(self, key: Scalar, what: str, reserved: Collection[str] = WORDS) -> bool:
        """Whether expressions can reach a name that is declared here; E106 or E116 otherwise."""
        if not _IDENTIFIER.fullmatch(key.text):
            latin = unicodedata.normalize("NFKD", key.text.replace("ß", "ss")).encode("ascii", "ignore").decode()
            meant = re.sub(r"[^A-Za-z0-9_]+", "_", latin).strip("_")
            meant = meant if _IDENTIFIER.fullmatch(meant) and meant not in reserved else ""
            help = "a name starts with a letter and goes on with the letters a to z, digits and _"
            self.report.error(
                "E106", f"{key.text!r} cannot be the name of {what}", key, help + (f": write {meant}" if meant else "")
            )
            return False
        if key.text in reserved:
            why = "a word of the expression language" if key.text in WORDS else "a name of the engine"
            message = f"{key.text!r} cannot be the name of {what}: it is {why}"
            self.report.error("E116", message, key, f"choose another name, for example my_{key.text}")
            return False
        return True

    def known(self, scalar: Scalar, word: str, names: Mapping[str, Any]) -> str | None:
        """A name that is declared; E118 with a suggestion otherwise."""
        if scalar.text in names:
            return scalar.text
        self.report.error("E118", f"unknown {word} {scalar.text!r}", scalar, meant(scalar.text, names))
        return None


def type_of(value: Any) -> Type:
    """Static type of something compiled."""
    found = getattr(value, "type", ANY)
    return found if isinstance(found, Type) else ANY


def _common(values: list[Any]) -> Type:
    """The type all items have, anything when they differ."""
    types = [type_of(value) for value in values]
    common = types[0] if types else ANY
    for type in types[1:]:
        unified = unify(common, type)
        if unified is None:
            return reduce(lambda whole, each: mixed(whole, origin_of(each)), types, ANY)
        common = unified
    return common


def _literal_help(found: Type, expected: Type) -> str:
    if expected.kind == "duration" and found.kind == "number":
        return "write a duration such as 30s"
    if expected.textual and found.kind in ("number", "duration", "bool"):
        return "make it a text with string(...)"
    return ""
