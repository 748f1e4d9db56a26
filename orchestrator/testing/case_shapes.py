"""The shapes of which a test file is made: maps, lists, texts, times. What does not have the right one is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.flow.expr import seconds
from orchestrator.flow.language.literals import typed
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar


class Shapes:
    """Nodes of YAML to plain values."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def entries(self, node: Node | None, known: Sequence[str], what: str) -> Entries | None:
        """A map with known keys only; None and a report otherwise."""
        if not isinstance(node, Entries):
            if node is not None:
                self.report.error("E103", f"{what} is a map", node)
            return None
        for key, _ in node:
            if known and key.text not in known:
                self.report.error("E101", f"unknown key for {what}: {key.text!r}", key, meant(key.text, known))
        return node

    def items(self, node: Node | None, what: str) -> list[Node]:
        if node is None:
            return []
        if not isinstance(node, Items):
            self.report.error("E103", f"{what} is a list", node)
            return []
        return list(node)

    def text(self, node: Node | None, what: str, default: str = "") -> str:
        if node is None:
            return default
        if isinstance(node, Scalar):
            return node.text
        self.report.error("E103", f"{what} is text", node)
        return default

    def number(self, node: Node | None, what: str, default: int) -> int:
        text = self.text(node, what, str(default))
        if text.isdigit():
            return int(text)
        if node is not None:
            self.report.error("E106", f"{text!r} is not a whole number", node)
        return default

    def duration(self, node: Node | None) -> float | None:
        if node is None:
            return None
        text = self.text(node, "a time")
        length = seconds(text)
        if length is None:
            self.report.error("E106", f"{text!r} is not a duration", node, f"write {text}s" if text.isdigit() else "")
        return length

    def value(self, node: Node | None) -> Any:
        """Any value, typed as a flow's constants are: 5 is a number, '5' and 0049 are text."""
        if isinstance(node, Entries):
            return {key.text: self.value(item) for key, item in node}
        if isinstance(node, Items):
            return [self.value(item) for item in node]
        return typed(node)[1] if isinstance(node, Scalar) else None

    def texts(self, node: Node | None, what: str) -> dict[str, str]:
        """A map of texts."""
        return {key.text: self.text(item, what) for key, item in self.entries(node, (), what) or ()}

    def choice(self, entries: Entries, what: str, known: Sequence[str], default: str = "") -> str | None:
        """The key of a map that is one of some words; None and a report otherwise."""
        node = entries.get(what)
        text = self.text(node, what, default)
        if text in known:
            return text
        listed = " or ".join([", ".join(known[:-1]), known[-1]])
        self.report.error("E106", f"{text!r} is not a {what}", node or entries, listed)
        return None
