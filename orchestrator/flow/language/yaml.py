"""YAML as the language reads it: text to nodes with places, and nothing else.

YAML's own typing destroys telephony: `on:` is True, 0100 is 64, 8:00 is 480, 1:30 is 90, +4930… an integer. So no
resolver runs here: every scalar stays the text that was written, and the key it stands under says what it is. The
tree is built from libyaml's event stream rather than by its composer, because the stream can be bounded: depth, size,
and how far aliases multiply it (nine lines of nine aliases each are 3 billion nodes). Duplicate keys, which YAML
libraries merge silently, are reported with both places. Tags, merge keys and further documents are refused: nothing
here needs them, and a stray `!` or `*8` is far more often an unquoted value than a wish.

Lines and columns count from 1 and from code points, as editors show them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import yaml

from orchestrator.errors import Diagnostic
from orchestrator.flow.language.diagnostics import LINE_BREAK
from orchestrator.flow.language.yaml_causes import likely_cause

MAX_DEPTH = 64
"""Maps and lists inside each other; the deepest of our example flows has 14."""

MAX_NODES = 200_000
"""Nodes of one file with all aliases followed; a file of 10,000 lines has about 50,000."""

MAX_OCTETS = 4 * 1024 * 1024
"""Size of one file."""


class Spot(NamedTuple):
    """A place in a file: line and column from 1, index of the character from 0."""

    line: int
    column: int
    offset: int


START = Spot(1, 1, 0)


class Scalar:
    """A value as written: `text` after YAML's quoting, `style` one of '' ' " | >."""

    __slots__ = ("end", "line", "column", "start", "style", "text")

    def __init__(self, text: str, style: str, spot: Spot, end: int) -> None:
        self.text = text
        self.style = style
        self.line, self.column, self.start = spot
        self.end = end

    @property
    def plain(self) -> bool:
        """Not quoted: only then may it be a number, true/false or null."""
        return not self.style

    @classmethod
    def nothing(cls) -> Scalar:
        """An empty value at the start of a file, for what is said about a file without any."""
        return cls("", "", START, 0)

    def __repr__(self) -> str:
        return f"<Scalar {self.text!r} {self.line}:{self.column}>"


class Items:
    """A list."""

    __slots__ = ("column", "end", "items", "line")

    def __init__(self, spot: Spot) -> None:
        self.items: list[Node] = []
        self.line, self.column, self.end = spot

    def __iter__(self) -> Iterator[Node]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"<Items {self.items!r}>"


class Entries:
    """A map: keys in order of writing, each once."""

    __slots__ = ("column", "end", "entries", "line")

    def __init__(self, spot: Spot) -> None:
        self.entries: dict[str, tuple[Scalar, Node]] = {}
        self.line, self.column, self.end = spot

    @classmethod
    def nothing(cls, near: Scalar) -> Entries:
        """An empty map, for a key that should have had one."""
        return cls(Spot(near.line, near.column, near.end))

    def without(self, *keys: str) -> Entries:
        """The same map without some keys."""
        fewer = Entries(Spot(self.line, self.column, self.end))
        fewer.entries = {key: entry for key, entry in self.entries.items() if key not in keys}
        return fewer

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry[1] if entry else None

    def key(self, key: str) -> Scalar:
        """The node of a key that is there."""
        return self.entries[key][0]

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[tuple[Scalar, Node]]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<Entries {list(self.entries.values())!r}>"


Node: TypeAlias = Scalar | Items | Entries


class Document:
    """One file: its name as diagnostics show it, its text, the root node, and what is wrong with it as YAML.

    `broken` says that the tree is not whole, so that further checks would only repeat the mistake.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.root: Node | None = None
        self.diagnostics: list[Diagnostic] = []
        self.broken = False

    def line(self, number: int) -> str:
        """Source line, counted from 1; '' past the end."""
        lines = LINE_BREAK.split(self.text)
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def position(self, scalar: Scalar, offset: int) -> tuple[int, int]:
        """Line and column of character `offset` of a scalar's text, through quotes, escapes, folds and indents."""
        index = _source_index(self.text, scalar, offset)
        before = LINE_BREAK.split(self.text[:index])
        return len(before), len(before[-1]) + 1


def parse(name: str, text: str) -> Document:
    """Read one file. Never raises: what is wrong stands in `diagnostics` of the document."""
    document = Document(name, text)
    try:
        _Builder(document).run()
    except _Refused as refused:
        document.broken = True
        document.diagnostics.append(refused.diagnostic(document))
    except yaml.MarkedYAMLError as error:
        document.broken = True
        document.diagnostics.append(_syntax_error(document, error))
    except (yaml.reader.ReaderError, UnicodeEncodeError) as error:
        document.broken = True
        document.diagnostics.append(_unreadable(document, error))
    return document


class _Refused(Exception):
    """Valid YAML that the language does not take."""

    def __init__(self, spot: Spot, message: str, help: str = "", length: int = 1) -> None:
        super().__init__(message)
        self.spot, self.message, self.help, self.length = spot, message, help, length

    def diagnostic(self, document: Document) -> Diagnostic:
        place = (document.name, self.spot.line, self.spot.column)
        return Diagnostic(*place, "E001", self.message, help=self.help, length=self.length)


def _too_deep(spot: Spot) -> _Refused:
    return _Refused(spot, f"maps and lists are nested deeper than {MAX_DEPTH}", "use call: to split the flow")


class _Builder:
    """Events to nodes with a stack of its own, so that depth costs neither recursion nor trust."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.stack: list[Items | Entries] = []
        self.keys: list[Scalar | None] = []  # the key that waits for its value, per level
        self.anchors: dict[str, tuple[Node, int]] = {}  # with the number of nodes below
        self.open_anchors: list[tuple[str | None, int]] = []
        self.nodes = 0

    def run(self) -> None:
        if len(self.document.text) > MAX_OCTETS:
            raise _Refused(START, f"the file is larger than {MAX_OCTETS >> 20} MiB")
        for event in yaml.parse(self.document.text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent) and self.document.root is not None:
                help = "one file holds one set of flows: remove the --- line or use two files"
                raise _Refused(_spot(event), "a second YAML document starts here", help, 3)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        spot = _spot(event)
        if event.tag is not None:
            raise self._tag(event, spot)
        end = event.end_mark.index if event.end_mark else spot.offset
        scalar = Scalar(event.value, event.style or "", spot, end)
        self._count(spot, 1)
        if event.anchor:
            self.anchors[event.anchor] = (scalar, 1)
        self._place(scalar, spot)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        spot = _spot(event)
        if event.tag is not None:
            raise self._tag(event, spot)
        if len(self.stack) >= MAX_DEPTH:
            raise _too_deep(spot)
        self._count(spot, 1)
        node: Items | Entries = Entries(spot) if isinstance(event, yaml.MappingStartEvent) else Items(spot)
        self._place(node, spot)
        self.stack.append(node)
        self.keys.append(None)
        self.open_anchors.append((event.anchor, self.nodes))

    def _close(self, event: yaml.MappingEndEvent | yaml.SequenceEndEvent) -> None:
        node = self.stack.pop()
        node.end = event.end_mark.index if event.end_mark else node.end
        self.keys.pop()
        anchor, before = self.open_anchors.pop()
        if anchor:
            self.anchors[anchor] = (node, self.nodes - before + 1)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name, spot = str(event.anchor), _spot(event)
        known = self.anchors.get(name)
        if known is None:
            help = f"a value that starts with * needs quotes: '*{name}'"
            raise _Refused(spot, f"unknown alias *{name}", help, len(name) + 1)
        self._count(spot, known[1])
        self._place(known[0], spot)

    def _count(self, spot: Spot, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Refused(spot, f"the file has more than {MAX_NODES:,} values once its aliases are followed")

    def _place(self, node: Node, spot: Spot) -> None:
        """Put a finished scalar or a fresh container where the parser stands."""
        if not self.stack:
            self.document.root = node
            return
        parent = self.stack[-1]
        if isinstance(parent, Items):
            parent.items.append(node)
            return
        key = self.keys[-1]
        if key is None:
            self.keys[-1] = self._key(node, spot)
        else:
            self.keys[-1] = None
            self._entry(parent, key, node)

    def _key(self, node: Node, spot: Spot) -> Scalar:
        if not isinstance(node, Scalar):
            text = self.document.text[spot.offset]
            help = "write '${...}' instead of {{...}}" if text == "{" else ""
            raise _Refused(spot, "a map or list cannot be a key", help)
        if node.text == "<<" and node.plain:
            raise _Refused(spot, "<<: is not supported", "write the keys out; steps are shared with call:", 2)
        return node

    def _entry(self, parent: Entries, key: Scalar, node: Node) -> None:
        first = parent.entries.get(key.text)
        if first is None:
            parent.entries[key.text] = (key, node)
            return
        self.document.diagnostics.append(
            Diagnostic(
                self.document.name,
                key.line,
                key.column,
                "E104",
                f"{key.text!r} is written twice",
                help="YAML would silently keep only the last one; rename or merge them",
                length=max(1, key.end - key.start),
                notes=(f"first defined at line {first[0].line}",),
            )
        )

    def _tag(self, event: yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent, spot: Spot) -> _Refused:
        written = re.match(r"!\S*", self.document.text[spot.offset :])
        tag = written.group() if written else str(event.tag)
        help = "a value that starts with ! needs quotes; in a condition write not instead of !"
        return _Refused(spot, f"{tag} is a YAML tag, and tags are not supported", help, len(tag))


def _spot(event: yaml.Event) -> Spot:
    mark = event.start_mark
    return Spot(mark.line + 1, mark.column + 1, mark.index) if mark else START


# --- what libyaml refused -------------------------------------------------------------------------------------------


def _syntax_error(document: Document, error: yaml.MarkedYAMLError) -> Diagnostic:
    mark = error.problem_mark
    problem = error.problem or "unreadable"
    if problem == "found unexpected end of stream" and error.context_mark is not None:
        mark = error.context_mark  # where the quote was opened, not the end of the file
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "nesting depth" in problem:  # a bound of libyaml's own, 1,000 levels: its scanner reads ahead of our events
        return _too_deep(Spot(line, column, 0)).diagnostic(document)
    help = likely_cause(problem, error.context or "", document.line(line), column - 1, document.line(line - 1))
    return Diagnostic(document.name, line, column, "E001", f"this is not valid YAML: {problem}", help=help)


def _unreadable(document: Document, error: yaml.reader.ReaderError | UnicodeEncodeError) -> Diagnostic:
    index = error.start if isinstance(error, UnicodeEncodeError) else error.position
    before = LINE_BREAK.split(document.text[:index])
    character = ord(document.text[index]) if index < len(document.text) else 0
    message = f"this is not valid YAML: character U+{character:04X} is not allowed"
    return Diagnostic(document.name, len(before), len(before[-1]) + 1, "E001", message)


# --- offsets in a value to places in the file -----------------------------------------------------------------------

_PLAIN_UNIT = re.compile(r"\S")
_UNITS = {
    "'": re.compile(r"''|\S"),
    '"': re.compile(r"\\[^xuUtnrvfNLP_ \t\r\n]|\\x..|\\u.{4}|\\U.{8}|(?<!\\)[^\s\\]", re.DOTALL),
}
"""Per style, what stands for one non-blank character of the value; escapes for blanks are no unit."""


def _source_index(text: str, scalar: Scalar, offset: int) -> int:
    """Index in the file of character `offset` of a scalar.

    Folding and block indentation change blanks only, so the n-th non-blank character of the value is the n-th
    non-blank unit of the source. A blank is found from the unit before it, which is exact unless a fold lies between.
    """
    start = scalar.start
    if scalar.style in ("|", ">"):
        start = _next_line(text, start)
    elif scalar.style:
        start += 1
    unit = _UNITS.get(scalar.style, _PLAIN_UNIT)
    on_blank = offset >= len(scalar.text) or scalar.text[offset].isspace()
    wanted = sum(not c.isspace() for c in scalar.text[:offset])
    found = islice(unit.finditer(text, start, scalar.end), max(0, wanted - on_blank), None)
    match = next(found, None)
    if match is None:
        return scalar.end
    if not on_blank or wanted == 0:
        return match.start()
    before = scalar.text[:offset]
    return match.end() + len(before) - len(before.rstrip())


def _next_line(text: str, index: int) -> int:
    found = LINE_BREAK.search(text, index)
    return found.end() if found else len(text)
