"""The wording of type errors: what is wrong in plain words, then one thing to write instead (FLOWLANG §8).

Everything here makes an `ExprError` from nodes and the source text; whether something is wrong is decided by the
checker.
"""

from __future__ import annotations

from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.nodes import Literal, Node, Number
from orchestrator.flow.expr.spelling import did_you_mean
from orchestrator.flow.expr.types import Type

_LONGEST_QUOTE = 60
"""Characters of an expression that a message repeats; what is longer is called 'this', its place is underlined anyway.
"""

_LONGEST_LIST = 12
"""Names that a help line lists."""

_ADVICE_FOR_BOOL = {
    "text": "to test for non-empty text write {x} != ''",
    "number": "to test for a number other than 0 write {x} != 0",
    "duration": "to test for a duration other than 0 write {x} != 0s",
    "list": "to test for a non-empty list write size({x}) > 0",
    "map": "to test for a key write 'key' in {x}",
}
_DEFAULTS = {"number": "0", "bool": "false", "duration": "0s", "list": "[]"}


def source_of(source: str, node: Node) -> str:
    """What stands in the source for a node."""
    return source[node.start : node.end]


def quoted(source: str, node: Node) -> str:
    """The source of a node in quotes, or 'this' when it is too long to repeat."""
    text = source_of(source, node)
    return f"'{text}'" if len(text) <= _LONGEST_QUOTE and "\n" not in text else "this"


def at(node: Node, code: str, message: str, help: str = "") -> ExprError:
    """An error that underlines a node."""
    return ExprError(code, message, help, node.start, node.end - node.start)


def mismatch(source: str, node: Node, wanted: Type) -> ExprError:
    """E203: a value of one type stands where another is needed."""
    if wanted.kind == "enum" and isinstance(node, Literal) and isinstance(node.value, str):
        return never(node, f"this is {wanted},", node.value, wanted.values)
    message = f"expected {wanted} here, but {quoted(source, node)} is {node.type}"
    return at(node, "E203", message, _advice(source_of(source, node), node, wanted))


def missing(source: str, node: Node, *, whole: bool = False, interpolated: bool = False) -> ExprError:
    """E208: a value that may be null is used. `whole`: it is all there is, so the help can show the finished line."""
    text = source_of(source, node)
    default = f"{text} ?? " + _DEFAULTS.get(node.type.kind, "'...'")
    if node.type.name == "call":  # a whole call has no default that could be written
        help = f"test {text} != null first, or write {text}?. for {text}."
    elif whole:
        help = f"give a default: ${{{default}}}" if interpolated else f"give a default: {default}"
    else:
        help = f"give a default with {default}, or test {text} != null first"
    return at(node, "E208", f"{quoted(source, node)} may be missing here", help)


def never(node: Node, what: str, value: str, values: tuple[str, ...]) -> ExprError:
    """E204: a value that an enum does not have. `what` begins the sentence: `'event.leg' is`."""
    possible = f"possible values: {', '.join(values)}"
    suggestion = did_you_mean(value, values)
    return at(node, "E204", f"{what} never '{value}'", f"{suggestion} {possible}" if suggestion else possible)


def unlike(source: str, node: Node, op: str, left: Node, right: Node) -> ExprError:
    """E203: two values that cannot be compared, or whose comparison has only one result."""
    one, two = left.type.required, right.type.required
    if op in ("==", "!="):
        message = f"this compares {one} with {two}, so it is always {'false' if op == '==' else 'true'}"
    else:
        message = f"cannot compare {one} with {two}"
    return at(node, "E203", message, _advice_to_compare(source, left, right) or _advice_to_compare(source, right, left))


def known_names(names: list[str]) -> str:
    """A help line that lists what there is."""
    shown = ", ".join(sorted(names)[:_LONGEST_LIST])
    more = ", …" if len(names) > _LONGEST_LIST else ""
    return f"known: {shown}{more}" if names else ""


def _advice(text: str, node: Node, wanted: Type) -> str:
    if wanted.kind == "bool":
        if node.type.optional:
            return f"to test whether it is there write {text} != null"
        kind = "text" if node.type.textual else node.type.kind
        return _ADVICE_FOR_BOOL.get(kind, "").format(x=text)
    if wanted.kind == "duration" and node.type.kind == "number":
        return _write_duration(node)
    if wanted.kind == "number" and node.type.textual:
        return f"write int({text})"
    if wanted.textual:
        if node.type.kind in ("number", "bool", "duration", "time"):
            return f"write string({text})"
        if node.type.kind == "list":
            return f"write {text}.join(', ')"
        if "uri" in node.type.fields:
            return f"write {text}.uri"
    return ""


def _advice_to_compare(source: str, one: Node, other: Node) -> str:
    """What to write when `one` and `other` are unlike, seen from one side; empty when this side is not the odd one."""
    kind, text = one.type.kind, source_of(source, one)
    if kind == "duration" and other.type.kind == "number":
        return _write_duration(other)
    if kind == "digits" and other.type.kind == "number":
        return f"write int({text}) to compare as numbers"
    if one.type.textual and isinstance(other, Number):
        return f"write '{other.source}' (in quotes) to compare with text"
    if one.type.textual and other.type.kind in ("number", "bool", "duration", "time"):
        return f"write string({source_of(source, other)}) to compare with text"
    if kind == "contact" or kind == "record":
        return f"compare an attribute, such as {text}.{next(iter(one.type.fields))}" if one.type.fields else ""
    if kind == "bool":
        return f"true/false needs no comparison: write {text} or not {text}"
    return ""


def _write_duration(node: Node) -> str:
    return f"write a duration such as {node.source if isinstance(node, Number) else '30'}s"
