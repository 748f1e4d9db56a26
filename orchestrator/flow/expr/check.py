"""The type checker of expressions: every name known, every type fitting, nothing null that is used (FLOWLANG §3).

`Checker.check(node, known)` returns the node with its type set; it may be another node than it was given, because
number literals beside digits become text and values declared as anything get a conversion around them. `known` holds
the paths that are not null at this place; it grows to the right of `and`, behind `or` and inside `? :`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.flow.expr import calls, complaints, operators
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.facts import facts
from orchestrator.flow.expr.functions import FUNCTIONS
from orchestrator.flow.expr.nodes import (
    Attribute,
    Binary,
    Call,
    Conditional,
    Index,
    ListOf,
    Literal,
    Logic,
    Macro,
    Name,
    Node,
    Number,
    Unary,
    path_of,
    value_key,
)
from orchestrator.flow.expr.notation import foreign_name
from orchestrator.flow.expr.origin import mingled, narrowed
from orchestrator.flow.expr.scope import Facts, Scope
from orchestrator.flow.expr.spelling import did_you_mean
from orchestrator.flow.expr.types import (
    ANY,
    BOOL,
    NOTHING,
    NUMBER,
    TEXT,
    Type,
    assignable,
    list_of,
    mixed,
    optional,
    origin_of,
    unify,
    with_origin,
)

VARIABLES = "vars"
"""The root whose attributes are called variables in messages."""

SECRETS = "secrets"

_ENVIRONMENT = "flows do not read the environment: declare  secrets: {NAME: {env: NAME}}  for http steps"
_FOREIGN_NAMES = dict.fromkeys(("env", "ENV", "environ", "process"), _ENVIRONMENT)


class Checker:
    """Checks one expression; `source` is its text, offsets count in it."""

    def __init__(self, source: str, scope: Scope) -> None:
        self.source = source
        self.scope = scope
        self._locals: dict[str, tuple[str, Type]] = {}
        self._macros = 0
        self._rules: dict[type[Node], Callable[[Any, Facts], Node]] = {
            Literal: self._constant,
            Number: self._constant,
            Name: self._name,
            Attribute: self._attribute,
            Index: self._index,
            ListOf: self._list,
            Call: self._call,
            Macro: self._macro,
            Unary: self._unary,
            Binary: self._binary,
            Logic: self._logic,
            Conditional: self._conditional,
        }

    def check(self, node: Node, known: Facts) -> Node:
        """The checked node. Raises ExprError E203-E208, E211."""
        return self._rules[type(node)](node, known)

    def expect(self, node: Node, wanted: Type, *, beside: Type | None = None) -> Node:
        """A checked node, fit for a place that needs a type. Raises ExprError E203, E204, E208."""
        if wanted.textual:
            node = operators.as_written(node, beside)
        found = node.type
        if wanted.kind == "enum" and isinstance(node, Literal) and node.value in wanted.values:
            return node
        if found.kind == "any":
            return node if wanted.kind == "any" else operators.convert(node, wanted)
        if assignable(found, wanted):
            return node
        if found.optional and assignable(found.required, wanted):
            raise complaints.missing(self.source, node)
        raise complaints.mismatch(self.source, node, wanted)

    # --- names --------------------------------------------------------------------------------------------------------

    def _constant(self, node: Node, known: Facts) -> Node:
        return node

    def _name(self, node: Name, known: Facts) -> Node:
        if node.name in self._locals:
            node.local, node.type = self._locals[node.name]
            return self._narrowed(node, known)
        if node.name == SECRETS and not self.scope.secrets:
            message = "secrets may only be used in http requests (url, headers, auth, body)"
            help = "the value would end up in logs, traces or SIP messages"
            raise complaints.at(node, "E211", message, help)
        found = self.scope.names.get(node.name)
        if found is None:
            raise self._unknown_name(node)
        node.type = found
        return self._narrowed(node, known)

    def _attribute(self, node: Attribute, known: Facts) -> Node:
        target = self._target(node, known)
        node.type = self._field(node, target)
        return self._narrowed(self._reached(node, target), known)

    def _target(self, node: Attribute | Index, known: Facts) -> Type:
        """The type of what an attribute or index is read from, which is not null unless `?.` allows it."""
        node.target = self.check(node.target, known)
        node.safe = node.safe or node.target.chained
        if node.target.type.optional and not node.safe:
            raise complaints.missing(self.source, node.target)
        return node.target.type

    @staticmethod
    def _reached(node: Attribute | Index, target: Type) -> Node:
        """Pass on the null of a target that is optional, or that is anything and was reached with `?.`."""
        if target.optional:
            node.chained = not node.type.optional
            node.type = optional(node.type)
        elif target.kind == "any":
            node.chained = node.safe
        return node

    def _field(self, node: Attribute, target: Type) -> Type:
        if target.kind == "any":
            return mixed(ANY, target.origin)
        if target.kind == "map":
            return optional(target.items)
        found = target.fields.get(node.name)
        if found is None:
            raise self._unknown_attribute(node, target)
        return mixed(found, target.origin)

    def _index(self, node: Index, known: Facts) -> Node:
        target = self._target(node, known)
        node.key = self.check(node.key, known)
        result: Attribute | Index = node
        if target.fields and isinstance(node.key, Literal) and isinstance(node.key.value, str):
            result = self._attribute_in_brackets(node, node.key.value, target)
        else:
            node.type = self._element(node, target)
        return self._narrowed(self._reached(result, target), known)

    def _attribute_in_brackets(self, node: Index, name: str, target: Type) -> Attribute:
        """`groups['front-desk']`: the way to write an attribute that is no plain word."""
        start, end, at = node.start, node.end, node.key.start
        attribute = Attribute(node.target, name, node.safe, at, start=start, end=end, depth=node.depth)
        attribute.type = self._field(attribute, target)
        return attribute

    def _element(self, node: Index, target: Type) -> Type:
        if target.kind == "list":
            node.key = self.expect(node.key, NUMBER)
            if isinstance(node.key, Unary) and isinstance(node.key.operand, Number):
                raise complaints.at(node.key, "E203", "a list is counted from 0", "the first item is [0]")
            return optional(target.items)
        if target.kind == "map":
            node.key = self.expect(node.key, TEXT)
            return optional(target.items)
        if target.kind == "any":
            return mixed(ANY, target.origin)
        if target.fields:
            raise complaints.at(node.key, "E206", "attributes are named by a text in quotes", "write ['name'] or .name")
        message = f"only lists and maps have [ ], but {complaints.quoted(self.source, node.target)} is {target}"
        raise complaints.at(node, "E206", message)

    @staticmethod
    def _narrowed(node: Node, known: Facts) -> Node:
        if not known or not (node.type.optional or node.type.origin.outside):
            return node
        path = path_of(node)
        if path is not None and path in known:
            node.type = node.type.required
        return _narrowed_origin(node, known)

    # --- operators ----------------------------------------------------------------------------------------------------

    def _list(self, node: ListOf, known: Facts) -> Node:
        node.items = [self.check(item, known) for item in node.items]
        held: Type | None = NOTHING
        for item in node.items:
            both = unify(held or NOTHING, item.type)
            if both is None:
                message = f"a list holds values of one type, but this mixes {held} with {item.type}"
                raise complaints.at(item, "E203", message)
            held = both
        node.type = list_of(held or NOTHING)
        return node

    def _unary(self, node: Unary, known: Facts) -> Node:
        operand = self.check(node.operand, known)
        if node.op == "not":
            node.operand, node.type = self.expect(operand, BOOL), BOOL
        else:
            node.operand = operators.negate(self.source, operand)
            node.type = node.operand.type
        return node

    def _binary(self, node: Binary, known: Facts) -> Node:
        node.left = self.check(node.left, known)
        if node.op == "in" and isinstance(node.right, ListOf):
            node.right.items = [operators.as_written(item, node.left.type) for item in node.right.items]
        node.right = self.check(node.right, known)
        if node.op == "??":
            return self._default(node)
        if node.op == "in":
            return operators.contain(self.source, node)
        if node.op in ("+", "-", "*", "/", "%"):
            operators.calculate(self.source, node)
            for side in (node.left, node.right):
                node.type = mixed(node.type, mingled(origin_of(side.type)))
            return node
        return operators.compare(self.source, node)

    def _default(self, node: Binary) -> Node:
        node.right = operators.as_written(node.right, node.left.type)
        left = node.left.type.required
        both = node.right.type if left.kind == "null" else unify(left, node.right.type)
        if both is None:
            message = f"the default is {node.right.type}, but {complaints.quoted(self.source, node.left)} is {left}"
            raise complaints.at(node.right, "E203", message, "both sides of ?? have one type")
        node.type = both
        return node

    def _logic(self, node: Logic, known: Facts) -> Node:
        operands = []
        for operand in node.operands:
            checked = self.expect(self.check(operand, known), BOOL)
            known |= facts(checked)[0 if node.op == "and" else 1]
            operands.append(checked)
        node.operands, node.type = operands, BOOL
        return node

    def _conditional(self, node: Conditional, known: Facts) -> Node:
        node.test = self.expect(self.check(node.test, known), BOOL)
        true, false = facts(node.test)
        then, other = self.check(node.then, known | true), self.check(node.other, known | false)
        node.then, node.other = operators.as_written(then, other.type), operators.as_written(other, then.type)
        both = unify(node.then.type, node.other.type)
        if both is None:
            message = f"the two results of ? : differ: {then.type} and {other.type}"
            raise complaints.at(node, "E203", message, "give both the same type")
        node.type = both
        return node

    # --- functions ----------------------------------------------------------------------------------------------------

    def _call(self, node: Call, known: Facts) -> Node:
        calls.check_form(node)
        node.arguments = [self.check(argument, known) for argument in node.arguments]
        return _narrowed_origin(calls.check_call(self, node), known)

    def _macro(self, node: Macro, known: Facts) -> Node:
        if node.variable in self._locals or node.variable in self.scope.names:
            message = f"'{node.variable}' is already a name here"
            raise complaints.at(node, "E207", message, f"choose another name for the items of {node.name}")
        node.target = calls.macro_target(self, node.name, self.check(node.target, known))
        self._macros += 1
        node.local = f"v{self._macros}"
        self._locals[node.variable] = (node.local, node.target.type.items)
        body = self.check(node.body, known)
        del self._locals[node.variable]
        node.body = body if node.name == "map" else self.expect(body, BOOL)
        if node.name in ("exists", "all"):
            node.type = BOOL
        else:
            node.type = list_of(body.type) if node.name == "map" else node.target.type
        return node

    # --- unknown names ------------------------------------------------------------------------------------------------

    def _unknown_name(self, node: Name) -> ExprError:
        known = [*self._locals, *self.scope.names]
        help = _FOREIGN_NAMES.get(node.name) or foreign_name(node.name)
        help = help or did_you_mean(node.name, known) or self._hint(node.name) or self._owner(node.name)
        return complaints.at(node, "E205", f"unknown name '{node.name}'", help or complaints.known_names(known))

    def _owner(self, name: str) -> str:
        """`tries` alone where `vars.tries` is meant."""
        for root, type in self.scope.names.items():
            if name in type.fields:
                return f"did you mean '{root}.{name}'?"
        return ""

    def _hint(self, name: str) -> str:
        return (self.scope.hints(name) if self.scope.hints else None) or ""

    def _unknown_attribute(self, node: Attribute, target: Type) -> ExprError:
        owner = complaints.source_of(self.source, node.target)
        help = did_you_mean(node.name, target.fields)
        if owner == VARIABLES:
            flow = f" of flow '{self.scope.flow}'" if self.scope.flow else ""
            help = help or f"declare it first: add  {node.name}:  under vars:{flow}"
            return ExprError("E205", f"unknown variable '{node.name}'", help, node.at, len(node.name))
        if not target.fields:
            help = f"write {owner}.{node.name}()" if node.name in FUNCTIONS else ""
            help = f"write size({owner})" if node.name in ("length", "len", "count") else help
            message = f"{owner} is {target.required} and has no attribute '{node.name}'"
        else:
            longer = [
                name for name in target.fields if name.startswith((f"{node.name}-", f"{node.name}.", f"{node.name} "))
            ]
            help = f"write {owner}['{longer[0]}']" if longer else help or complaints.known_names(list(target.fields))
            message = f"{owner} has no attribute '{node.name}'"
        return ExprError("E206", message, help, node.at, len(node.name))


def _narrowed_origin(node: Node, known: Facts) -> Node:
    """What tests have shown about text from outside."""
    if known and node.type.origin.outside:
        key = value_key(node)
        if key is not None:
            node.type = with_origin(node.type, narrowed(node.type.origin, key, known))
    return node


def check(source: str, node: Node, scope: Scope, expected: Type | None = None, *, interpolated: bool = False) -> Node:
    """Check a parsed expression, and that it fits the place it stands in; `interpolated` when that is inside `${…}`.

    Raises:
        ExprError: E203-E208, E211.
    """
    checker = Checker(source, scope)
    node = checker.check(node, scope.known)
    if expected is None:
        return node
    if node.type.optional and assignable(node.type.required, expected) and not expected.optional:
        raise complaints.missing(source, node, whole=True, interpolated=interpolated)
    return checker.expect(node, expected)


__all__ = ["Checker", "check"]
