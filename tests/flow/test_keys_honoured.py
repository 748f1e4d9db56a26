"""No key of an action is read by the checker only: each one reaches the handler, and what the handler asks for is
read by the core."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import orchestrator
from orchestrator.flow.language.registry import ACTIONS, Action, Field
from orchestrator.flow.run import effects

ROOT = Path(orchestrator.__file__).parent


def texts(*folders: str) -> Iterator[str]:
    """Every text that stands by itself in the code of these folders, keys of actions declared by Field(…) left out."""
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        declared = {id(node.args[0]) for node in ast.walk(tree)
                    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Field"}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in declared:
                yield node.value


READ = frozenset(texts("flow/actions")) | frozenset(
    node.value
    for node in ast.walk(ast.parse((ROOT / "flow" / "run" / "listen.py").read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
)
KEYS = [
    pytest.param(action, field, id=f"{action.name} {field.name}")
    for action in ACTIONS
    if action.handler is not None
    for field in (*action.fields, *action.beside)
]


@pytest.mark.parametrize(("action", "field"), KEYS)
def test_a_key_reaches_the_handler_or_is_refused(action: Action, field: Field) -> None:
    assert field.planned or field.name in READ, f"{action.name}: {field.name} does nothing"


ATTRIBUTES = {
    node.attr
    for path in (*(ROOT / "core").rglob("*.py"), *(ROOT / "runtime").glob("*.py"), ROOT / "app.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Attribute)
}
EFFECTS = [
    (kind, part.name)
    for kind in vars(effects).values()
    if isinstance(kind, type) and is_dataclass(kind)
    for part in fields(kind)
]


@pytest.mark.parametrize(("effect", "part"), EFFECTS, ids=lambda value: getattr(value, "__name__", value))
def test_what_an_effect_says_is_read_by_its_performer(effect: type, part: str) -> None:
    assert part in ATTRIBUTES, f"{effect.__name__}.{part} is set and never looked at"
