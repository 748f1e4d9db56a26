"""Actions on events: `subscribe`, `wait`, `first_of`, `raise` and `unsubscribe`, as the checker sees them.

What is known about the event is handed on: `event` in the steps and filters, the record of `as:`, and that `as:` may
be null where a time limit can fall through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.events.event import EventSpec
from orchestrator.flow.check import filters
from orchestrator.flow.check.actions import generic, list_of, result_of
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import Shape
from orchestrator.flow.check.steps import Around, Compiled, Compiler, StepChecker
from orchestrator.flow.expr import ANY, Type, closest, optional
from orchestrator.flow.language.context import event_type
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import Branch, Step
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.yaml import Entries, Node

NOT_IN_FIRST_OF = ("for", "on_timeout", "meanwhile", "if", "on_error", "timeout")
"""Keys of a wait that make no sense where several are waited for: time limits are branches of their own there."""


def _event(checker: StepChecker, shape: Shape) -> tuple[str, EventSpec | None]:
    """The event an action names; E112 when it is not known, and then nothing more is said about it."""
    scalar = checker.values.scalar(shape.fields["event"].value, "the name of an event")
    if scalar is None:
        return "", None
    spec = checker.names.events.get(scalar.text)
    if spec is None:
        known = checker.names.events.specs
        help = f"did you mean {best!r}?" if (best := closest(scalar.text, known)) else "declare it under events:"
        checker.report.error("E112", f"unknown event {scalar.text!r}", scalar, help)
    return scalar.text, spec


def listen(checker: StepChecker, shape: Shape, path: Path) -> tuple[dict[str, Any], EventSpec | None]:
    """What subscribe and wait have in common: event, filter, and whether the event can reach this flow."""
    name, spec = _event(checker, shape)
    args = {"event": name, **checker.plain(shape, path, skip=("unique_by",))}
    if "where" in shape.fields:
        args["where"] = filters.where(checker.values, shape.fields["where"].value, spec, path.scope)
    action = shape.action.name if shape.action else ""
    if spec is None:
        return args, None
    if spec.name == "fs" and "name" not in shape.fields:
        help = "write  name: HEARTBEAT  or the subclass of a CUSTOM event beside it"
        checker.report.error("E115", f"{action}: fs needs name", shape.key, help)
    elif spec.name != "fs" and "name" in shape.fields:
        checker.report.error("E114", "name: belongs to the event fs only", shape.fields["name"].key)
    if spec.scope == "call" and constant_of(args.get("any_call")) is not True:
        checker.need("call", f"{action}: {spec.name}", shape.key, path)
    return args, spec


def hearing(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    """An action of a package that listens to an event."""
    args, _ = listen(checker, shape, path)
    more, result = generic(checker, shape, path, around)
    return {**more, **args}, result


def _needs_for(checker: StepChecker, shape: Shape, name: str) -> None:
    if name in shape.fields and "for" not in shape.fields:
        checker.report.error("E115", f"{name}: needs for", shape.fields[name].key, "it runs when for: is over")


def _subscribe(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args, spec = listen(checker, shape, path)
    _needs_for(checker, shape, "on_expire")
    event = {"event": event_type(spec) if spec else ANY}
    outside = frozenset(path.scope.names)
    handler = replace(around, exits=None, read_only=outside)
    inner = path.fork()
    inner.scope = inner.scope.extend(event)
    if "unique_by" in shape.fields:
        given = shape.fields["unique_by"]
        key = checker.values.compile(Field("unique_by", Kind.EXPRESSION, ""), given.value, inner.scope)
        if key is not None:
            args["unique_by"] = key
    args["do"] = checker.block(shape.fields["do"].value, inner, handler)
    if "on_expire" in shape.fields:
        args["on_expire"] = checker.block(shape.fields["on_expire"].value, path.fork(), handler)
    return args, None


def _unsubscribe(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    scalar = checker.values.scalar(shape.fields["id"].value, "the id of a subscription")
    if scalar is None:
        return {}, None
    checker.ended.append(scalar)
    return {"id": scalar.text}, None


def _wait(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args, spec = listen(checker, shape, path)
    _needs_for(checker, shape, "on_timeout")
    if spec is not None and spec.scope == "global" and "for" not in shape.fields and not _has_call(checker, path):
        message = "this wait has no end: nothing but the event itself can end it"
        checker.report.warning("W304", message, shape.key, "add  for: 60s  (and on_timeout:)")
    if "meanwhile" in shape.fields:
        args["meanwhile"] = checker.block(shape.fields["meanwhile"].value, path.fork(), replace(around, exits=None))
    if "on_timeout" in shape.fields:
        late = path.fork()
        args["on_timeout"] = checker.block(shape.fields["on_timeout"].value, late, around)
        return args, _late_result(checker, shape, path, late, spec, around)
    return args, event_type(spec) if spec else ANY


def _late_result(
    checker: StepChecker, shape: Shape, path: Path, late: Path, spec: EventSpec | None, around: Around
) -> Type:
    """After a wait with on_timeout its result is null when on_timeout falls through."""
    found = event_type(spec) if spec else ANY
    path.join(path.fork(), late)
    return optional(found) if late.alive else found


def _has_call(checker: StepChecker, path: Path) -> bool:
    """Whether the end of a call bounds what is waited for here; a sub-flow may have one."""
    return path.call or checker.head.kind in ("", "call", "invite", "socket")


def _first_of(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    branches: list[Branch] = []
    ways: list[Path] = []
    endless = not _has_call(checker, path)
    for node in list_of(checker, shape.fields["branches"].value, "entries of wait: or after:"):
        way = path.fork()
        branch, bounded = _branch(checker, node, way, around)
        ways.append(way)
        branches.append(branch)
        endless = endless and not bounded
    if endless and branches:
        message = "this first_of has no end: nothing but its events can end it"
        checker.report.warning("W304", message, shape.key, "add a branch  - after: 60s")
    if ways:
        path.join(*ways)
    return {"branches": tuple(branches)}, None


def _branch(checker: StepChecker, node: Node, path: Path, around: Around) -> tuple[Branch, bool]:
    """One entry of first_of, and whether it ends by itself (a timer, an event of the call)."""
    if not isinstance(node, Entries) or ("wait" in node) == ("after" in node):
        checker.report.error("E103", "a branch of first_of has either wait: or after:", node)
        return Branch(None, None, ()), True
    do = node.get("do")
    if "after" in node:
        for key, _ in node:
            if key.text not in ("after", "do"):
                checker.report.error("E114", f"unknown key for after: {key.text!r}", key, "known: after, do")
        after = checker.values.compile(Field("after", Kind.DURATION, ""), node.entries["after"][1], path.scope)
        return Branch(None, after, checker.block(do, path, around) if do else ()), True
    for name in NOT_IN_FIRST_OF:
        if name in node:
            message = f"{name}: cannot stand beside wait: inside first_of"
            checker.report.error("E114", message, node.key(name), "give first_of a branch  - after: 8s")
    return _wait_branch(checker, node, path, around)


def _listening(checker: StepChecker, node: Node, path: Path, around: Around) -> tuple[Step | None, EventSpec | None]:
    """The wait of a first_of branch: what it listens to; `as:` is known in the branch."""
    shape = checker.shapes.read(node)
    if shape is None:
        return None, None
    args, spec = listen(checker, shape, path)
    result = checker.result(shape, event_type(spec) if spec else ANY, path, around)
    place = checker.report.place(shape.key)
    return Step(shape.action, args, place, None, result, checker.id(shape), source=checker.source(shape)), spec


def _wait_branch(checker: StepChecker, node: Entries, path: Path, around: Around) -> tuple[Branch, bool]:
    step, spec = _listening(checker, node.without("do", *NOT_IN_FIRST_OF), path, around)
    do = node.get("do")
    event = {"event": event_type(spec) if spec else ANY}
    block = checker.inside(do, path, around, event) if do else ()
    bounded = spec is None or spec.scope == "call"
    return Branch(step, None, block), bounded


def _raise(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    name, spec = _event(checker, shape)
    if spec is None:
        return {"event": name}, result_of(shape)
    if spec.source != "custom":
        message = f"{name!r} is raised by the engine and cannot be raised by a flow"
        checker.report.error("E112", message, shape.fields["event"].value, "declare an event of your own under events:")
        return {"event": name}, result_of(shape)
    given = shape.fields.get("data")
    data = filters.event_data(checker.values, given.value if given else None, spec, shape.key, path.scope)
    return {"event": name, "data": data or {}}, result_of(shape)


COMPILERS: Mapping[str, Compiler] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "wait": _wait,
    "first_of": _first_of,
    "raise": _raise,
}
