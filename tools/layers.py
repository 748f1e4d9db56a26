"""The import graph of the project: rooms, arrows between them, circles, arrows that run upward.

    python -m tools.layers [package]

A *room* is a row of `LAYERS`: a package, or a part of one, that stands for all modules in it. An *arrow* says that a
module of one room imports one of another. Imports under `if TYPE_CHECKING` and inside functions count like all others:
they hide a circle and do not undo it. The exit status is 1 when there is a circle or an arrow that `LAYERS` forbids.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

FLOW = ("flow.language", "flow.run")
"""What those who run flows may know of them: the program and what runs it, not how it came about."""

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "history": set(),
    "measures": set(),
    "native": set(),
    "timers": {"native"},
    "sip": {"errors", "native", "timers"},
    "esl": {"errors", "events", "native"},
    "events": {"errors", "timers"},
    "packages": {"events", "sip", "flow.expr", "errors"},
    "flow.expr": {"errors"},
    "flow.language": {"flow.expr", "events", "packages", "errors"},
    "flow.run": {"history", "flow.language", "events", "errors", "timers"},
    "flow.actions": {"flow.run", "flow.language", "events", "errors"},
    "flow.check": {"flow.language", "flow.expr", "events"},
    "flow": {"flow.actions", "flow.check", "flow.language", "events", "errors"},
    "flow.tools": {"flow.actions", "flow.check", "flow.expr", "flow.language", "flow.run", "events", "errors"},
    "store": {"packages", "sip", "errors"},
    "core.node": {"history", "measures", "sip", "esl", "events", *FLOW, "errors", "timers"},
    "core.switches": {"history", "core.node", "sip", "esl", "events", *FLOW, "errors", "timers"},
    "core.push": {"history", "measures", "core.node", "sip", "events", "errors", "timers"},
    "core.calls": {
        "history", "measures", "core.node", "core.push", "core.switches", "sip", "esl", "events", *FLOW, "errors",
        "timers",
    },
    "core.steps": {
        "history", "core.node", "core.push", "core.switches", "core.calls", "sip", "esl", "events", *FLOW, "errors",
        "timers",
    },
    "core": {
        "history", "core.node", "core.push", "core.switches", "core.calls", "core.steps", "sip", "esl", "events", *FLOW,
        "errors", "timers",
    },
    "integrations.sinks": {"history", "packages", "errors"},
    "integrations.webhook": {"packages", "errors"},
    "integrations.jsonl": {"packages", "errors"},
    "integrations.amqp": {"packages", "events", "errors"},
    "integrations.kafka": {"packages", "errors"},
    "runtime": {
        "history", "measures", "core", "core.node", "core.push", "core.calls", "sip", "esl", "events", "flow.run",
        "flow.tools", "native", "packages", "store", "errors", "timers",
    },
    "console": {
        "api", "archive", "views", "runtime", "history", "core", "events", *FLOW, "flow.tools", "errors",
    },
    "views": {
        "measures", "history", "core", "core.node", "core.push", "core.calls", "core.switches", "sip", "esl", "events",
        *FLOW, "flow.tools", "packages", "errors", "native", "timers",
    },
    "api": {
        "views", "archive", "runtime", "history", "core", "core.node", "sip", "events", *FLOW, "flow.tools", "errors",
    },
    "archive": {"views", "history", *FLOW, "errors"},
    "integrations.cgrates": {"packages", "flow.run", "errors"},
    "push": {"packages", "runtime", "sip", *FLOW, "errors"},
    "fact_kinds": {"flow.run", "history"},
    "integrations.otel": {"fact_kinds", "packages", "errors"},
    "integrations.hep": {"errors", "fact_kinds", "packages", "sip"},
}  # fmt: skip
"""Room → the rooms it may import besides itself. Rows are dotted names below `orchestrator`; the longest one that fits
a module is its room."""

MEMBERS = {
    "core.node": {
        "delay", "gateways", "history", "jobs", "keepalive", "location_writes", "moves", "node", "overload", "peers",
        "phones", "probes", "refer_view", "registrations", "request_routes", "request_view", "sender", "served_request",
        "settings", "user_addresses", "user_cache", "users",
    },
}  # fmt: skip
"""Rooms that have no folder of their own, and the modules of the folder above that belong to them."""

GLUE = {
    "__init__",
    "__main__",
    "admin_access",
    "app",
    "cli",
    "core_settings",
    "event_choice",
    "freeswitch_links",
    "guards",
    "listening",
    "reloading",
    "resources",
    "server_log",
    "settings",
    "site",
    "testing",
}
"""Parts that put the others together or read files for them: they may import anything."""

Graph = Mapping[str, Mapping[str, int]]
"""Module → each module it imports, with the line of the first import."""


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name → file of every module of a package; a package itself stands for its `__init__.py`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports. A name taken from a module gives that module's name and the
    name in it, for it may be a module itself.

    Raises ValueError for a relative import.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import")
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def graph_of(package: Path) -> dict[str, dict[str, int]]:
    """Which modules of the package import which others of it."""
    known = modules_of(package)
    graph: dict[str, dict[str, int]] = {name: {} for name in known}
    for name, path in known.items():
        for line, imported in imports_of(path):
            while imported and imported not in known:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                graph[name].setdefault(imported, line)
    return graph


def circles_of(graph: Graph) -> list[list[str]]:
    """Modules that import each other in a circle: strongly connected components of two and more (Tarjan), the largest
    first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found, key=lambda circle: (-len(circle), circle))


def room_of(module: str) -> str:
    """The room of a module; for glue the part it belongs to, '' for the package itself."""
    name = module.partition(".")[2]
    folder, _, last = name.rpartition(".")
    for room, members in MEMBERS.items():
        if room.rpartition(".")[0] == folder and last in members:
            return room
    while name and name not in LAYERS:
        shorter = name.rpartition(".")[0]
        if not shorter:
            break
        name = shorter
    return name


def arrows_of(graph: Graph) -> dict[tuple[str, str], list[str]]:
    """Room and room it imports → `module:line imports module` of each import."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for module, imported in graph.items():
        for other, line in imported.items():
            ends = room_of(module), room_of(other)
            if ends[0] != ends[1]:
                arrows.setdefault(ends, []).append(f"{module}:{line} imports {other}")
    return arrows


def upward(arrows: Mapping[tuple[str, str], Sequence[str]]) -> dict[tuple[str, str], Sequence[str]]:
    """The arrows that no row of LAYERS allows. The version of the program is everybody's to know."""
    return {
        (room, other): imports
        for (room, other), imports in arrows.items()
        if room in LAYERS and other not in LAYERS[room] and other
    }


def sizes_of(package: Path) -> tuple[tuple[int, str], tuple[int, str]]:
    """The largest module and the longest function, in lines."""
    modules: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    for name, path in modules_of(package).items():
        text = path.read_text(encoding="utf-8")
        modules.append((text.count("\n"), name))
        functions += [
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}.{node.name}")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return max(modules), max(functions)


def main(package: str = "orchestrator") -> int:
    """Print the graph; returns the exit status."""
    graph = graph_of(Path(package))
    arrows, circles = arrows_of(graph), circles_of(graph)
    wrong = upward(arrows)
    rooms = sorted({room_of(module) for module in graph} - {""})
    print(f"rooms {len(rooms)}, modules {len(graph)}")
    for room in rooms:
        below = sorted(other for one, other in arrows if one == room and other)
        print(f"  {room:12} → {', '.join(below) or 'nothing'}")
    print(f"arrows {len(arrows)}, upward {len(wrong)}")
    for imports in wrong.values():
        print("  " + "\n  ".join(imports))
    print(f"circles {len(circles)}, modules in them {sum(map(len, circles))}")
    for circle in circles:
        print(f"  {len(circle)}: {', '.join(name.partition('.')[2] for name in circle)}")
    (lines, module), (length, function) = sizes_of(Path(package))
    print(f"largest module {lines} lines ({module}), longest function {length} ({function})")
    return 1 if circles or wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
