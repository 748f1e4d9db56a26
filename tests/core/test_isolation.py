"""The layers: who may import whom, and that the core of the program can be loaded without an event loop, a socket or a
clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import orchestrator
from tools.layers import GLUE, LAYERS, arrows_of, circles_of, graph_of, imports_of, upward

ROOT = Path(orchestrator.__file__).parent

CIRCLES: set[str] = set()
"""Modules that still stand in a circle. This list only shrinks: one that stands in none any more is taken out."""

PURE = ("errors", "timers", "sip", "esl", "events", "flow", "core")
"""Parts that get octets, events and `now` and give octets, events and timers."""

OUTSIDE = {
    "asyncio", "concurrent", "gevent", "greenlet", "greenswitch", "http", "logging", "loguru", "multiprocessing", "os",
    "queue", "random", "requests", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib3", "_thread",
}  # fmt: skip
"""Modules that read the world. A pure part needs none of them."""

LOOKS_OUTSIDE = {"open", "print", "input", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


@cache
def graph() -> dict[str, dict[str, int]]:
    """Of the whole package; it takes its time."""
    return graph_of(ROOT)


def modules(part: str) -> Iterator[Path]:
    """The files of one part: a package or a single module."""
    single = ROOT / f"{part}.py"
    yield from [single] if single.exists() else sorted((ROOT / part).rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every call of a plain or once-dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.lineno, f"{node.func.value.id}.{node.func.attr}"


def test_every_part_is_in_a_layer_or_is_glue() -> None:
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {room.partition(".")[0] for room in LAYERS} <= GLUE


def test_a_room_imports_only_what_lies_below_it() -> None:
    assert upward(arrows_of(graph())) == {}


def test_no_module_imports_itself_through_others() -> None:
    found = {name.partition(".")[2] for circle in circles_of(graph()) for name in circle}
    assert found - CIRCLES == set(), "a new circle: `python -m tools.layers` shows it"
    assert CIRCLES - found == set(), "in no circle any more: take it out of CIRCLES"


def test_a_circle_hidden_from_the_interpreter_is_found(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").touch()
    (house / "a.py").write_text("from house import b\nfrom house.d import x\n")
    (house / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.c\n")
    (house / "c.py").write_text("def f():\n    from house.a import x\n")
    (house / "d.py").write_text("x = 1\n")
    assert circles_of(graph_of(house)) == [["house.a", "house.b", "house.c"]]


@pytest.mark.parametrize("part", PURE)
def test_a_pure_part_touches_nothing_outside(part: str) -> None:
    found = [
        (path, line, name) for path in modules(part) for line, name in imports_of(path) if name.split(".")[0] in OUTSIDE
    ]
    found += [(path, line, name) for path in modules(part) for line, name in calls(path) if name in LOOKS_OUTSIDE]
    assert [f"{path.relative_to(ROOT)}:{line} uses {name}" for path, line, name in found] == []


def test_the_layers_have_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(LAYERS):
        ready = [part for part, below in LAYERS.items() if part not in order and below <= set(order)]
        assert ready, f"a cycle behind {order}"
        order += ready


TWICE = {
    "actions": "of flows, checked; of an operator",
    "call": "the actions of a call, and a call",
    "cdr": "a record, and the file it goes to",
    "control": "the actions of control flow, and how they are checked",
    "engine": "the flow engine, and the engine",
    "errors": "those of expressions, and all",
    "events": "the actions about events, and how they are checked",
    "facts": "about null in expressions; seen by a test",
    "jobs": "what is handed out, and who does it",
    "limits": "of flows, of connections",
    "media": "the actions of media, and who performs them",
    "model": "of messages, of the configuration",
    "parser": "of expressions, of messages",
    "pushes": "checked, and sent by hand",
    "registry": "of actions, of events",
    "resources": "checked, and read for a site",
    "signals": "of flows, of the operating system",
    "steps": "checked, and performed",
    "users": "in the configuration, and in the core",
    "values": "of flows, of the configuration",
}
"""Names of modules that stand in two rooms, and what each is. A new one has to mislead nobody."""


def test_a_module_has_a_name_of_its_own() -> None:
    found: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parent
        if path.stem not in ("__init__", "__main__") and room.parts[:1] not in (("cli",), ("testing",)):
            found.setdefault(path.stem, set()).add(str(room))
    assert {name for name, rooms in found.items() if len(rooms) > 1} <= set(TWICE)
    assert all(len(rooms) <= 2 for rooms in found.values())


LOADED = """
import importlib, json, pkgutil, sys
names = json.loads(sys.argv[1])
for name in names:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        importlib.import_module(found.name)
feared = ("gevent", "greenlet", "greenswitch", "loguru")
print(json.dumps([name for name in sys.modules if name.split(".")[0] in feared]))
"""


def loaded_by(*names: str) -> list[str]:
    """Which of the modules we fear a fresh interpreter has loaded after importing these packages with all in them."""
    command = [sys.executable, "-c", LOADED, json.dumps([f"orchestrator.{name}" for name in names])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=ROOT.parent)
    modules: list[str] = json.loads(done.stdout)
    return modules


def test_the_engine_only_composes_and_takes_inputs() -> None:
    assert len((ROOT / "core" / "engine.py").read_text().splitlines()) <= 250


def test_the_core_loads_without_gevent() -> None:
    assert loaded_by("errors", "timers", "sip", "events", "flow", "core", "esl", "store") == []


def test_the_kit_for_tests_in_memory_loads_without_gevent() -> None:
    assert loaded_by("testing.world", "testing.phone", "testing.peer") == []
