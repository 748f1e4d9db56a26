"""Text with `${…}` (FLOWLANG §3): pieces of text and expressions.

`${x}` alone keeps the type of x, so that `json: {n: '${vars.n}'}` sends a number; anything around it makes it text.
`$${` is a literal `${`, for FreeSWITCH to fill in. The end of `${` is the first `}` outside of quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.check import check
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.expression import Expression, finish, guarded
from orchestrator.flow.expr.nodes import Join, Literal, Node
from orchestrator.flow.expr.origin import mingled
from orchestrator.flow.expr.parser import parse
from orchestrator.flow.expr.scope import Scope
from orchestrator.flow.expr.types import TEXT, Type, mixed

_OPEN = re.compile(r"\$?\$\{")
_CLOSE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[}'"]""", re.DOTALL)
_PRINTED = frozenset({"number", "bool", "duration", "time", "any"})


@dataclass(frozen=True, slots=True, repr=False)
class Template(Expression):
    """A compiled text. `alone` says that it is nothing but one `${…}`, whose type it has."""

    alone: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a text: an expression when `code`, else text that stands for itself. `start`, `end` include `${` and
    `}`.
    """

    text: str
    code: bool
    start: int
    end: int


def parts_of(text: str) -> list[Part]:
    """Take a text apart at its `${…}`; a text without any is one part.

    Raises:
        ExprError: E210 when a `${` is not closed.
    """
    parts: list[Part] = []
    plain, start, at = "", 0, 0
    while found := _OPEN.search(text, at):
        plain += text[at : found.start()]
        at = found.end()
        if found.group() == "$${":
            plain += "${"
            continue
        if plain:
            parts.append(Part(plain, False, start, found.start()))
        end = _closing(text, found.start())
        parts.append(Part(text[at:end], True, found.start(), end + 1))
        plain, start, at = "", end + 1, end + 1
    plain += text[at:]
    return [*parts, Part(plain, False, start, len(text))] if plain or not parts else parts


def compile_template(
    text: str, scope: Scope, expected: Type | None = None, place: Callable[[Node], Node] | None = None
) -> Template:
    """Compile text with `${…}`. Where text is expected, numbers, durations, times and true/false are written as text.

    `place` puts an `Encode` around what comes from outside, or refuses it, for the place the text is meant for.

    Raises:
        ExprError: E201-E212, offset and length within `text`.
    """

    def make() -> Template:
        node = template_node(text, scope, expected)
        return finish_template(text, place(node) if place is not None else node, parts_of(text))

    return guarded(make)


def finish_template(text: str, node: Node, parts: list[Part]) -> Template:
    """The template of a checked tree."""
    made = finish(text, node)
    values = {field.name: getattr(made, field.name) for field in fields(Expression)}
    return Template(**values, alone=len(parts) == 1 and parts[0].code)


def template_node(text: str, scope: Scope, expected: Type | None = None) -> Node:
    """The checked tree of a text, fit for the type expected. Raises ExprError."""
    parts = parts_of(text)
    if len(parts) == 1 and parts[0].code:
        return _alone(parts[0], scope, expected)
    if len(parts) == 1:
        plain = Literal(parts[0].text, start=0, end=len(text), type=TEXT)
        return check(text, plain, scope, expected)
    joined = Join([part_node(part, scope) for part in parts], start=0, end=len(text), type=TEXT)
    for part in joined.parts:
        joined.type = mixed(joined.type, mingled(part.type.origin) if len(parts) > 1 else part.type.origin)
    if expected is not None and not (expected.kind == "any" or expected.textual):
        message = f"expected {expected} here, but text around ${{ }} makes it text"
        raise complaints.at(joined, "E203", message, "write ${ } alone to keep the type of what is inside")
    return joined


def part_node(part: Part, scope: Scope) -> Node:
    """The checked tree of one piece of a longer text. Raises ExprError."""
    if not part.code:
        return Literal(part.text, start=part.start, end=part.end, type=TEXT)
    node = _checked(part, scope, None, printed=True)
    if node.type.textual:
        return node
    return Join([node], start=part.start, end=part.end, type=mixed(TEXT, node.type.origin))


def _alone(part: Part, scope: Scope, expected: Type | None) -> Node:
    if expected is not None and expected.textual and expected.kind != "enum" and not expected.optional:
        return part_node(part, scope)
    return _checked(part, scope, expected)


def _checked(part: Part, scope: Scope, expected: Type | None, *, printed: bool = False) -> Node:
    """Parse and check `${…}`; when `printed` it has to be something that can be written as text."""
    try:
        if not part.text.strip():
            raise ExprError("E201", "there is nothing between ${ and }", "write a name, or $${ for a literal ${", 0, 1)
        node = check(part.text, parse(part.text), scope, expected, interpolated=True)
        if printed:
            _printable(part.text, node)
    except ExprError as error:
        error.offset += part.start + 2
        if error.code == "E211":
            error.offset, error.length = part.start, part.end - part.start
        raise
    _move(node, part.start + 2)
    return node


def _printable(source: str, node: Node) -> None:
    if not (node.type.textual or node.type.kind in _PRINTED):
        raise complaints.mismatch(source, node, TEXT)
    if node.type.optional:
        raise complaints.missing(source, node, whole=True, interpolated=True)


def _move(node: Node, offset: int) -> None:
    """Make offsets of a part count from the start of the whole text."""
    node.start += offset
    node.end += offset
    for child in node.children():
        _move(child, offset)


def _closing(text: str, opened: int) -> int:
    """Offset of the `}` that belongs to the `${` at `opened`."""
    at = opened + 2
    while found := _CLOSE.search(text, at):
        if found.group() == "}":
            return found.start()
        if found.group() in ("'", '"'):
            break
        at = found.end()
    quote = " and the quotes inside it" if found else ""
    raise ExprError("E210", "this ${ is not closed", f"add }}{quote}, or write $${{ for a literal ${{", opened, 2)
