"""A YAML text as an editor's language server hands it to the JSON schema: typed by YAML 1.2's core schema."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.flow.language.yaml import Entries, Items, Node, parse


def as_editor_reads(text: str) -> Any:
    """Plain Python values."""
    root = parse("editor", text).root
    assert root is not None
    return _plain(root)


def _plain(node: Node) -> Any:
    if isinstance(node, Items):
        return [_plain(item) for item in node]
    if isinstance(node, Entries):
        return {key.text: _plain(value) for key, value in node}
    if not node.plain:
        return node.text
    if re.fullmatch(r"[-+]?[0-9]+", node.text):
        return int(node.text)
    if re.fullmatch(r"[-+]?[0-9]+\.[0-9]+", node.text):
        return float(node.text)
    return {"": None, "~": None, "null": None, "true": True, "false": False}.get(node.text, node.text)
