"""Typing of function calls and list macros."""

from __future__ import annotations

from typing import Protocol

import re2

from orchestrator.flow.expr import complaints, operators
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.functions import FUNCTIONS, UNSAFE, Function, group_of
from orchestrator.flow.expr.glob import Pattern, pieces
from orchestrator.flow.expr.nodes import Call, Node, constant_text
from orchestrator.flow.expr.origin import OURS, Origin, mingled
from orchestrator.flow.expr.parser import MACROS
from orchestrator.flow.expr.spelling import did_you_mean
from orchestrator.flow.expr.types import ANY, TEXT, Type, list_of, mixed, optional, origin_of, with_origin

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 20
"""1 MB for one pattern and its automaton: far above any dial plan's, small enough for thousands of patterns."""


class Expecting(Protocol):
    """The checker of the expression, as far as arguments go."""

    source: str

    def expect(self, node: Node, wanted: Type, *, beside: Type | None = None) -> Node:
        """A checked node, fit for a place that needs a type. Raises ExprError E203, E204, E208."""


def check_form(node: Call) -> None:
    """The function exists, is written the way it is called, and has its number of arguments.

    Raises:
        ExprError: E207.
    """
    function = FUNCTIONS.get(node.name)
    if function is None:
        raise _unknown(node)
    if not node.method and not (function.prefix and node.arguments):
        raise _at_name(node, f"{node.name} needs a value to work on", f"write {_form(function)}")
    given, most = len(node.arguments) - 1, len(function.parameters)
    if not most - function.optional <= given <= most:
        least = most - function.optional
        takes = f"{least} to {most} arguments" if least != most else f"{most} argument{'s' if most != 1 else ''}"
        message = (
            f"{node.name} takes {takes if most else 'no argument'}, but {given} {'is' if given == 1 else 'are'} given"
        )
        raise _at_name(node, message, f"write {_form(function)}")


def check_call(checker: Expecting, node: Call) -> Node:
    """The value and the arguments, already checked, have the types the function takes.

    Raises:
        ExprError: E203, E207, E208.
    """
    function = FUNCTIONS[node.name]
    value = _value(checker, node, function)
    node.arguments[1:] = [
        checker.expect(argument, wanted, beside=value.type)
        for argument, wanted in zip(node.arguments[1:], function.parameters, strict=False)
    ]
    node.type = _with_origins(node, function.result_for(value.type.required))
    if value.type.optional or (node.safe and value.type.kind == "any"):
        node.type, node.chained = optional(node.type), True
    if function.pattern:
        node.constant = _compiled(function, node.arguments[1])
    return node


def _with_origins(node: Call, type: Type) -> Type:
    """A result has the origin of what it is made of; `unsafe(x)` says that it is ours."""
    if node.name == UNSAFE:
        return with_origin(type, OURS)
    for argument in node.arguments:
        type = mixed(type, _changed(node.name, origin_of(argument.type)))
    if node.name in _PUTS_IN and type.origin.alphabet is not None:
        put = [constant_text(argument) for argument in node.arguments[_PUTS_IN[node.name] :]]
        known = None if None in put else type.origin.alphabet.union(*(text or "" for text in put))
        type = with_origin(type, type.origin._replace(alphabet=known))
    return type


_PUTS_IN = {"replace": 2, "join": 1}
"""Functions that put another text into theirs, and which argument that is: its characters come in besides."""
_KEEPS = ("lower", "upper", "trim", "string")
"""Functions that leave an address one; a part of it is none."""


def _changed(function: str, origin: Origin) -> Origin:
    """A function gives characters its text did not have: upper and lower do. A contact that is changed is only text."""
    if function not in _KEEPS:
        origin = mingled(origin)
    elif function != "string":
        origin = origin._replace(registered=False)
    if origin.alphabet is None or function not in ("upper", "lower"):
        return origin
    text = "".join(origin.alphabet)
    return origin._replace(alphabet=frozenset(text + text.upper() + text.lower()))


def macro_target(checker: Expecting, name: str, node: Node) -> Node:
    """The list a macro goes over. Raises ExprError E203, E208."""
    if node.type.kind == "any":
        return operators.convert(node, list_of(ANY))
    if node.type.kind != "list":
        message = f"{name} works on lists, but {complaints.quoted(checker.source, node)} is {node.type}"
        raise complaints.at(node, "E203", message)
    if node.type.optional:
        raise complaints.missing(checker.source, node)
    return node


def _value(checker: Expecting, node: Call, function: Function) -> Node:
    value = node.arguments[0]
    found = value.type
    node.safe = node.safe or value.chained
    if found.kind == "any":
        node.arguments[0] = _convert(node, function)
        return node.arguments[0]
    if group_of(found) not in function.takes:
        raise _wrong_value(checker.source, node, function, value)
    if found.optional and not node.safe:
        raise complaints.missing(checker.source, value)
    if node.name == "join" and not (found.items.textual or found.items.kind in ("any", "nothing", "number", "bool")):
        message = f"join puts texts together, but {complaints.quoted(checker.source, value)} is {found}"
        raise complaints.at(value, "E203", message, "choose an attribute with .map(x, x.name) first")
    return value


def _convert(node: Call, function: Function) -> Node:
    """A value declared as anything, checked at run time where the function does not look at it itself."""
    value = node.arguments[0]
    if len(function.takes) > 1:
        return value
    wanted = TEXT if function.takes == ("text",) else list_of(ANY)
    return operators.convert(value, optional(wanted) if node.safe else wanted)


def _compiled(function: Function, argument: Node) -> object:
    text = constant_text(argument)
    if text is None:
        message = f"the pattern of {function.name} has to be a constant"
        raise complaints.at(argument, "E207", message, "write it as text in quotes; to look for a value use contains")
    if function.name == "like":
        return Pattern(pieces(text))
    try:
        return re2.compile(text, _OPTIONS).search
    except (re2.error, UnicodeEncodeError) as wrong:
        message = f"this is not a regular expression: {_reason(wrong)}"
        help = "patterns are RE2's: no look-ahead, no back references" if "(?" in text or "\\" in text else ""
        raise complaints.at(argument, "E207", message, help) from None


def _reason(wrong: Exception) -> str:
    text = wrong.args[0] if wrong.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _wrong_value(source: str, node: Call, function: Function, value: Node) -> ExprError:
    kinds = [{"time": "durations", "bool": "true/false"}.get(kind, kind) for kind in function.takes]
    taken = " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
    message = f"{node.name} works on {taken}, but {complaints.quoted(source, value)} is {value.type}"
    text = complaints.source_of(source, value)
    help = ""
    if node.name == "contains" and value.type.kind in ("list", "map"):
        help = f"write {complaints.source_of(source, node.arguments[1])} in {text}"
    elif function.takes == ("text",) and value.type.kind in ("number", "duration", "time", "bool"):
        help = f"write string({text}) first"
    return complaints.at(value, "E203", message, help)


def _unknown(node: Call) -> ExprError:
    if node.name in MACROS:
        return _at_name(node, f"{node.name} needs a list to work on", f"write list.{node.name}(x, condition over x)")
    help = did_you_mean(node.name, [*FUNCTIONS, *MACROS]) or complaints.known_names([*FUNCTIONS, *MACROS])
    return _at_name(node, f"unknown function '{node.name}'", help)


def _form(function: Function) -> str:
    if function.prefix:
        return f"{function.name}(x)"
    names = ("a", "b")[: len(function.parameters)]
    return f"x.{function.name}({', '.join(names)})"


def _at_name(node: Call, message: str, help: str) -> ExprError:
    return ExprError("E207", message, help, node.at, len(node.name))
