"""Actions with several ways through them: `switch`, loops, `parallel`, `try`, as the checker sees them.

Each walks its step lists on forks of the path and joins what comes out; what a list may or may not have set is
optional behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.flow.check.actions import list_of
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import Shape
from orchestrator.flow.check.steps import Around, Compiled, Compiler, StepChecker
from orchestrator.flow.check.values import type_of
from orchestrator.flow.expr import ANY, Type, closest, optional
from orchestrator.flow.expr.origin import OURS_HERE
from orchestrator.flow.expr.scope import Facts
from orchestrator.flow.language.context import ERROR
from orchestrator.flow.language.literals import number
from orchestrator.flow.language.program import Block, Catch
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

MAX_LOOPS = 8
"""Loops inside each other. States are found by walking a loop several times, so the work grows with a power of
this.
"""

ERROR_FAMILIES = ("http", "esl", "wait", "step", "sip", "call", "charge", "auth", "expr", "flow", "user")
"""First words of error types (FLOWLANG §5); packages may add others, so only a near miss is an error."""


def _switch(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    value = args.get("value")
    type: Type = value.type if value is not None else ANY
    given = shape.fields["cases"].value
    cases: dict[str, Block] = {}
    lines: dict[str, int] = {}
    ways: list[Path] = []
    if not isinstance(given, Entries):
        checker.report.error("E103", "cases: takes a map of values", given, "write  cases: {'1': [...]}")
        return args, None
    for key, node in given:
        way = path.fork(_equals_a_case(value, key))
        block = checker.block(node, way, around)
        ways.append(way)
        for text in _case_values(checker, key, type):
            if text in cases:
                notes = (f"first defined at line {lines[text]}",)
                checker.report.error("E104", f"case {text!r} is written twice", key, "remove one of them", notes=notes)
            else:
                cases[text], lines[text] = block, key.line
    otherwise = path.fork()
    if "default" in shape.fields:
        args["default"] = checker.block(shape.fields["default"].value, otherwise, around)
    path.join(otherwise, *ways)
    return {**args, "cases": cases}, None


def _equals_a_case(value: Any, key: Scalar) -> Facts:
    """In a case the value is one that the flow has written."""
    path = getattr(value, "path", None)
    return frozenset({(*path, OURS_HERE)}) if path and key.text != "null" else frozenset()


def _case_values(checker: StepChecker, key: Scalar, type: Type) -> Iterator[str]:
    """The values a key of `cases:` stands for, as the engine writes them: `a, b` is two, `'a, b'` is one."""
    for text in key.text.split(",") if key.plain else [key.text]:
        text = text.strip() if key.plain else text
        if type.optional and text == "null":
            yield text
        elif type.kind == "number":
            whole = number(text)
            if whole is None:
                checker.report.error("E203", f"the value is a number, and {text!r} is not", key)
            else:
                yield str(whole)
        elif type.kind == "bool" and text not in ("true", "false"):
            checker.report.error("E203", f"the value is true or false, never {text!r}", key)
        elif type.kind == "enum" and text not in type.values:
            checker.report.error("E204", f"the value is never {text!r}", key, meant(text, type.values))
        else:
            yield text


def _foreach(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path, skip=("in", "item", "until"))
    items = checker.values.items(shape.fields["in"].value, path.scope)
    if items is not None:
        args["in"] = items
    type = type_of(items)
    if type.kind not in ("list", "any"):
        checker.report.error("E203", f"foreach: needs a list, but this is {type}", shape.fields["in"].value)
    elif type.optional:
        checker.report.error("E208", "this list may be missing here", shape.fields["in"].value, "give a default: ?? []")
    given = shape.fields.get("item")
    name = checker.new_name(given.value, path, around) if given else "item"
    if given is None and "item" in path.scope.names:
        checker.report.error("E116", "'item' is already a name here", shape.key, "name the items: add  item: other")
    elif given is not None and name is not None:
        args["item"] = name
    names = {name or "item": type.items if type.kind == "list" else ANY}
    args.update(_loop(checker, shape, path, around, names))
    return args, None


def _repeat(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path, skip=("until",))
    return {**args, **_loop(checker, shape, path, around, {})}, None


def _loop(checker: StepChecker, shape: Shape, path: Path, around: Around, names: dict[str, Type]) -> dict[str, Any]:
    """The steps of a loop and its `until`. They run any number of times, none included."""
    if around.loops >= MAX_LOOPS:
        help = "put the inner ones into a flow of their own"
        checker.report.error("E202", f"more than {MAX_LOOPS} loops stand inside each other", shape.key, help)
        return {"do": ()}
    exits: list[Path] = []
    node = shape.fields["do"].value
    body = path.fork()
    body.scope = _at_head(checker, node, body).extend(names)
    args: dict[str, Any] = {"do": checker.block(node, body, replace(around, exits=exits, loops=around.loops + 1))}
    if "until" in shape.fields:
        until = Field("until", Kind.CONDITION, "")
        value = checker.values.compile(until, shape.fields["until"].value, body.scope)
        if value is not None:
            args["until"] = value
    before = path.scope
    path.join(path.fork(), body, *exits)
    path.leave(before, names)
    return args


def _at_head(checker: StepChecker, node: Node, path: Path) -> Any:
    """The scope at the head of a loop, where the pass before may have left a name without a value."""
    changed = {name: optional(type) for name in _may_lose(node) if (type := path.scope.names.get(name)) is not None}
    return path.scope.extend(changed) if changed else path.scope


def _may_lose(node: Node) -> Iterator[str]:
    """Names given by `as:` inside these steps, other than by a plain step of the first level."""
    stack: list[tuple[Node, int]] = [(node, 0)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, Items):
            stack.extend((item, depth + 1) for item in node)
        elif isinstance(node, Entries):
            kept = node.get("as")
            unsure = depth > 1 or any(key in node for key in ("if", "on_timeout", "on_error"))
            if isinstance(kept, Scalar) and unsure:
                yield kept.text
            stack.extend((value, depth + 1) for _, value in node)


def _parallel(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    first = args.get("wait_for") == "first"
    blocks: list[Block] = []
    ways: list[Path] = []
    for node in list_of(checker, shape.fields["branches"].value, "step lists"):
        way = path.fork()
        blocks.append(checker.block(node, way, replace(around, exits=None)))
        ways.append(way)
    if ways:
        _meet_all(path, ways, first)
    return {**args, "branches": tuple(blocks)}, None


def _meet_all(path: Path, ways: list[Path], first: bool) -> None:
    """After the first branch one way was gone; after all of them all were, so all names are there."""
    if first or not all(way.alive for way in ways):
        path.join(*ways)
        path.alive = all(way.alive for way in ways)
        return
    for way in ways:
        new = {name: type for name, type in way.scope.names.items() if name not in path.scope.names}
        path.scope = path.scope.extend(new)


def _try(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    inner = path.fork()
    args: dict[str, Any] = {"do": checker.block(shape.fields["do"].value, inner, around)}
    broken = path.fork()
    broken.join(path.fork(), _going_on(inner))
    ways = [inner]
    if "catch" in shape.fields:
        catches = []
        for node in list_of(checker, shape.fields["catch"].value, "entries of error: and do:"):
            way = broken.fork()
            catches.append(_catch(checker, node, way, around))
            ways.append(way)
        args["catch"] = tuple(catches)
    path.join(*ways)
    if "finally" in shape.fields:
        last = broken.fork()
        args["finally"] = checker.block(shape.fields["finally"].value, last, replace(around, exits=None))
        path.alive = path.alive and last.alive
    return args, None


def _going_on(path: Path) -> Path:
    """The same way taken as going on: an error may have ended it anywhere before its end."""
    again = path.fork()
    again.alive = True
    return again


def _catch(checker: StepChecker, node: Node, path: Path, around: Around) -> Catch:
    if not isinstance(node, Entries) or node.get("do") is None:
        checker.report.error("E103", "an entry of catch: has error: and do:", node, "write  - error: http.*")
        return Catch("*", ())
    for key, _ in node:
        if key.text not in ("error", "do"):
            checker.report.error("E114", f"unknown key for catch: {key.text!r}", key, "known: do, error")
    pattern = node.get("error")
    text = "*"
    if pattern is not None:
        scalar = checker.values.scalar(pattern, "a type of error")
        text = scalar.text if scalar else text
        family = text.split(".")[0]
        best = closest(family, ERROR_FAMILIES)
        if scalar is not None and family not in ERROR_FAMILIES and not set("*?") & set(family) and best:
            help = f"did you mean {text.replace(family, best, 1)!r}?"
            checker.report.error("E106", f"no error is called {text!r}", scalar, help)
    block = checker.inside(node.entries["do"][1], path, around, {"error": ERROR})
    return Catch(text, block)


COMPILERS: Mapping[str, Compiler] = {
    "switch": _switch,
    "foreach": _foreach,
    "repeat": _repeat,
    "parallel": _parallel,
    "try": _try,
}
