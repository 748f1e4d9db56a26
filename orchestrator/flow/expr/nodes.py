"""The tree of an expression. The parser makes it; the checker sets `type` and puts conversions in; the generator reads
it.

`start` and `end` are offsets in the source. `depth` bounds every recursion over the tree: it counts the longest way
down, so a chain of a thousand additions is as deep as a thousand parentheses (E202).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.flow.expr.scope import Path
from orchestrator.flow.expr.types import ANY, Type


@dataclass(slots=True, kw_only=True)
class Node:
    start: int
    end: int
    type: Type = ANY
    depth: int = 1
    chained: bool = False
    """Null only where a target further left, reached with `?.`, is null: what follows need not say `?.` again."""

    def children(self) -> Iterator[Node]:
        return iter(())


@dataclass(slots=True)
class Literal(Node):
    """Text, true/false, null, or a duration in seconds."""

    value: str | float | bool | None


@dataclass(slots=True)
class Number(Node):
    """A number literal; `source` is kept because digits compare with it as written."""

    source: str


@dataclass(slots=True)
class ListOf(Node):
    items: list[Node]

    def children(self) -> Iterator[Node]:
        return iter(self.items)


@dataclass(slots=True)
class Name(Node):
    """A root name, or a variable of a list macro (`local` is then its name in the generated code)."""

    name: str
    local: str = ""


@dataclass(slots=True)
class Attribute(Node):
    """`target.name`, or `target?.name` when `safe`. `at` is the offset of the name."""

    target: Node
    name: str
    safe: bool
    at: int

    def children(self) -> Iterator[Node]:
        yield self.target


@dataclass(slots=True)
class Index(Node):
    """`target[key]`, or `target?.[key]` when `safe`."""

    target: Node
    key: Node
    safe: bool

    def children(self) -> Iterator[Node]:
        yield self.target
        yield self.key


@dataclass(slots=True)
class Call(Node):
    """`name(a, b)` or `target.name(b)`; the target is the first argument. `constant` is a compiled pattern."""

    name: str
    arguments: list[Node]
    method: bool
    safe: bool
    at: int
    constant: object = None

    def children(self) -> Iterator[Node]:
        return iter(self.arguments)


@dataclass(slots=True)
class Macro(Node):
    """`target.name(variable, body)` for exists, all, filter, map."""

    name: str
    target: Node
    variable: str
    body: Node
    local: str = ""

    def children(self) -> Iterator[Node]:
        yield self.target
        yield self.body


@dataclass(slots=True)
class Unary(Node):
    """`-` or `not`."""

    op: str
    operand: Node

    def children(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Binary(Node):
    """Arithmetic, comparison, `in` and `??`. `helper` is the run-time function the checker chose, '' for Python's own
    operator.
    """

    op: str
    left: Node
    right: Node
    helper: str = ""

    def children(self) -> Iterator[Node]:
        yield self.left
        yield self.right


@dataclass(slots=True)
class Logic(Node):
    """`and` or `or` over two or more operands; one node however many there are."""

    op: str
    operands: list[Node]

    def children(self) -> Iterator[Node]:
        return iter(self.operands)


@dataclass(slots=True)
class Conditional(Node):
    test: Node
    then: Node
    other: Node

    def children(self) -> Iterator[Node]:
        yield self.test
        yield self.then
        yield self.other


@dataclass(slots=True)
class Convert(Node):
    """Put in by the checker: the value of `operand`, checked at run time to be of `type` (its own type is anything)."""

    operand: Node

    def children(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Join(Node):
    """Text with `${…}`: literal pieces and expressions, written one after the other."""

    parts: list[Node] = field(default_factory=list)

    def children(self) -> Iterator[Node]:
        return iter(self.parts)


@dataclass(slots=True)
class Encode(Node):
    """Text from outside, encoded for the place it is put into: `encoder` takes text and gives text."""

    operand: Node
    encoder: Callable[[str], str]

    def children(self) -> Iterator[Node]:
        yield self.operand


@dataclass(slots=True)
class Glob(Node):
    """Whether `target` fits a pattern made of `*`, `?` (Wildcard nodes) and text that stands for itself."""

    target: Node
    pieces: list[Node]

    def children(self) -> Iterator[Node]:
        yield self.target
        yield from self.pieces


@dataclass(slots=True)
class Wildcard(Node):
    char: str


def path_of(node: Node) -> Path | None:
    """The path a node reads (`call.headers["X-Id"]`), or None when it is no plain path."""
    names: list[str] = []
    while not isinstance(node, Name):
        if isinstance(node, Attribute):
            names.append(node.name)
            node = node.target
        elif isinstance(node, Index) and isinstance(node.key, Literal) and isinstance(node.key.value, str):
            names.append(node.key.value)
            node = node.target
        elif isinstance(node, Index) and isinstance(node.key, Number):
            names.append(f"[{node.key.source}]")
            node = node.target
        else:
            return None
    names.append(node.name)
    return tuple(reversed(names))


def constant_text(node: Node) -> str | None:
    """Text literals, also several put together with +."""
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    parts = [constant_text(child) for child in node.children()] if getattr(node, "op", "") == "+" else []
    texts = [part for part in parts if part is not None]
    return "".join(texts) if parts and len(texts) == len(parts) else None


def calls_of(node: Node, name: str) -> Iterator[Node]:
    """Every call of a function in a tree."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, Call) and node.name == name:
            yield node
        stack.extend(node.children())


def value_key(node: Node) -> Path | None:
    """The path of a value of which a test may speak: a plain path, or a function of one (`x.drop(2)`)."""
    if not isinstance(node, Call):
        return path_of(node)
    given = [argument.value for argument in node.arguments[1:] if isinstance(argument, Literal)]
    numbers = [argument.source for argument in node.arguments[1:] if isinstance(argument, Number)]
    path = value_key(node.arguments[0])
    if path is None or len(given) + len(numbers) != len(node.arguments) - 1:
        return None
    return (*path, f"{node.name}({given},{numbers})")


def paths_read(node: Node) -> Iterator[Path]:
    """Every path from a root name that the expression reads, as far as it is written out."""
    stack = [node]
    while stack:
        node = stack.pop()
        path = path_of(node)
        if path is None:
            stack.extend(node.children())
            continue
        if not _root(node).local:
            yield path


def _root(node: Node) -> Name:
    while not isinstance(node, Name):
        node = next(node.children())
    return node
