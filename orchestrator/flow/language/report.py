"""Where the checks of one file put what they find: a node of the YAML tree plus words become a `Diagnostic`."""

from __future__ import annotations

import re

from orchestrator.errors import Diagnostic
from orchestrator.flow.expr import ExprError
from orchestrator.flow.expr.blanks import ORDINARY_SPACE, odd_blank
from orchestrator.flow.language.program import Place
from orchestrator.flow.language.yaml import Document, Node, Scalar

_COMMENT = re.compile(r"[^\S\r\n]*#")

COMMENT_HELP = "what follows # is a comment in YAML: put the whole value in quotes"


class Report:
    """Diagnostics of one document; they stay in the document."""

    __slots__ = ("diagnostics", "document")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.diagnostics = document.diagnostics

    def error(
        self, code: str, message: str, at: Node, help: str = "", *, length: int = 0, notes: tuple[str, ...] = ()
    ) -> None:
        """One mistake at a node. `length` is the number of characters underlined, by default the whole scalar."""
        found = odd_blank(at.text) if isinstance(at, Scalar) else None
        if found is not None:
            help = f"there is a {found[1]} in it: {ORDINARY_SPACE}"
        self.add(code, message, self.place(at), help, length=length or self.width(at), notes=notes)

    def warning(self, code: str, message: str, at: Node, help: str = "") -> None:
        """The same for something that can be meant."""
        place = self.place(at)
        self.diagnostics.append(
            Diagnostic(place.file, place.line, place.column, code, message, "warning", help=help, length=self.width(at))
        )

    def add(
        self, code: str, message: str, place: Place, help: str = "", *, length: int = 1, notes: tuple[str, ...] = ()
    ) -> None:
        """The same for a place that was kept without its node; the code says whether it is an error or a warning."""
        where = (place.file, place.line, place.column)
        warning = code.startswith("W")
        self.diagnostics.append(
            Diagnostic(*where, code, message, "warning" if warning else "error", help, length, notes)
        )

    def expression(self, error: ExprError, at: Scalar) -> None:
        """A mistake inside an expression or a text with `${…}`."""
        line, column = self.document.position(at, error.offset)
        help = COMMENT_HELP if error.code == "E201" and self.cut_by_comment(at) else error.help
        self.diagnostics.append(
            Diagnostic(
                self.document.name, line, column, error.code, error.message, help=help, length=max(1, error.length)
            )
        )

    def cut_by_comment(self, at: Scalar) -> bool:
        """Whether a ` #` ends this plain value, so that a part of what was written is a comment."""
        return at.plain and _COMMENT.match(self.document.text, at.end) is not None

    def place(self, at: Node) -> Place:
        return Place(self.document.name, at.line, at.column)

    def width(self, at: Node) -> int:
        """Characters of a scalar on its first line, quotes included; 1 for lists and maps."""
        if not isinstance(at, Scalar):
            return 1
        return max(1, len(self.document.text[at.start : at.end].split("\n", 1)[0].rstrip()))
