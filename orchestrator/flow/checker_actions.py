"""Actions whose keys hold steps or names that are declared elsewhere: one function each.

A function compiles the keys of its action, moves the path as running the action would, and gives the type of the
result (None: nothing to keep). Actions of packages that hold steps are served by `generic`: such steps may or may not
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.events.event import EventSpec
from orchestrator.flow import checker_filters as filters
from orchestrator.flow.checker_paths import Path
from orchestrator.flow.checker_shapes import Given, Shape
from orchestrator.flow.context import ERROR, RESULTS, event_type
from orchestrator.flow.evaluables import constant_of
from orchestrator.flow.expr import ANY, Type, closest, optional
from orchestrator.flow.literals import number
from orchestrator.flow.program import Block, Branch, Catch
from orchestrator.flow.registry import Field, Kind
from orchestrator.flow.suggest import meant
from orchestrator.flow.yaml import Entries, Items, Node, Scalar

if TYPE_CHECKING:
    from orchestrator.flow.checker_steps import Around, StepChecker

Compiled = tuple[dict[str, Any], "Type | None"]
Compiler = Callable[["StepChecker", Shape, Path, "Around"], Compiled]

COMPILERS: dict[str, Compiler] = {}

ERROR_FAMILIES = ("http", "esl", "wait", "step", "sip", "call", "charge", "expr", "flow", "user")
"""First words of error types (FLOWLANG §5); packages may add others, so only a near miss is an error."""

NOT_IN_FIRST_OF = ("for", "on_timeout", "meanwhile", "if", "on_error", "timeout")
"""Keys of a wait that make no sense where several are waited for: time limits are branches of their own there."""


def compiles(*names: str) -> Callable[[Compiler], Compiler]:
    """Decorator: this function compiles the actions named."""

    def register(compiler: Compiler) -> Compiler:
        COMPILERS.update(dict.fromkeys(names, compiler))
        return compiler

    return register


def result_of(shape: Shape) -> Type | None:
    """The type of `as:` by the registry; anything for a record this version does not know."""
    assert shape.action is not None
    return RESULTS.get(shape.action.result, ANY) if shape.action.result else None


def generic(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    """Keys after their kind; step lists, if there are any, may run or not."""
    assert shape.action is not None
    args = checker.plain(shape, path)
    for known in (*shape.action.fields, *shape.action.beside):
        given = shape.fields.get(known.name)
        if given is not None and known.kind is Kind.STEPS:
            taken = path.fork()
            args[known.name] = checker.block(given.value, taken, around)
            path.join(path.fork(), taken)
        elif given is not None and known.kind is Kind.OUTCOMES:
            args[known.name] = _outcomes(checker, shape, known, given, path, around)
    return args, result_of(shape)


# --- events ---------------------------------------------------------------------------------------------------------


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


def _needs_for(checker: StepChecker, shape: Shape, name: str) -> None:
    if name in shape.fields and "for" not in shape.fields:
        checker.report.error("E115", f"{name}: needs for", shape.fields[name].key, "it runs when for: is over")


@compiles("subscribe")
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


@compiles("unsubscribe")
def _unsubscribe(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    scalar = checker.values.scalar(shape.fields["id"].value, "the id of a subscription")
    if scalar is None:
        return {}, None
    checker.ended.append(scalar)
    return {"id": scalar.text}, None


@compiles("wait")
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
    return path.call or checker.head.kind in ("", "call", "invite")


@compiles("first_of")
def _first_of(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    branches: list[Branch] = []
    ways: list[Path] = []
    endless = not _has_call(checker, path)
    for node in _list_of(checker, shape.fields["branches"].value, "entries of wait: or after:"):
        way = path.fork()
        branch, bounded = _branch(checker, node, way, around)
        ways.append(way)
        endless = endless and not bounded
        if branch is not None:
            branches.append(branch)
    if endless and branches:
        message = "this first_of has no end: nothing but its events can end it"
        checker.report.warning("W304", message, shape.key, "add a branch  - after: 60s")
    path.join(*ways) if ways else None
    return {"branches": tuple(branches)}, None


def _branch(checker: StepChecker, node: Node, path: Path, around: Around) -> tuple[Branch | None, bool]:
    """One entry of first_of, and whether it ends by itself (a timer, an event of the call)."""
    if not isinstance(node, Entries) or ("wait" in node) == ("after" in node):
        checker.report.error("E103", "a branch of first_of has either wait: or after:", node)
        return None, True
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


def _wait_branch(checker: StepChecker, node: Entries, path: Path, around: Around) -> tuple[Branch | None, bool]:
    step, spec = checker.listening(node.without("do", *NOT_IN_FIRST_OF), path, around)
    do = node.get("do")
    event = {"event": event_type(spec) if spec else ANY}
    block = checker.inside(do, path, around, event) if do else ()
    bounded = spec is None or spec.scope == "call"
    return (Branch(step, None, block) if step else None), bounded


@compiles("raise")
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


# --- outcomes -------------------------------------------------------------------------------------------------------


@compiles("relay", "charge")
def _with_outcomes(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    given = shape.fields.get("on")
    assert shape.action is not None
    known = shape.action.field("on")
    if given is not None and known is not None:
        args["on"] = _outcomes(checker, shape, known, given, path, around)
    return args, result_of(shape)


def _outcomes(
    checker: StepChecker, shape: Shape, known: Field, given: Given, path: Path, around: Around
) -> dict[str, Block]:
    """Steps by outcome. The result is known in them under the action's name; what has no entry goes on behind the
    step.
    """
    assert shape.action is not None
    found: dict[str, Block] = {}
    ways = [path.fork()]
    names = {shape.action.name: result_of(shape) or ANY}
    if not isinstance(given.value, Entries):
        checker.report.error("E103", "on: takes a map of outcomes", given.value, "write  on: {else: [...]}")
        return found
    for key, node in given.value:
        way = path.fork()
        block = checker.inside(node, way, around, names)
        ways.append(way)
        for outcome in (part.strip() for part in key.text.split(",")):
            if outcome not in known.values and outcome != "else":
                best = closest(outcome, known.values)
                help = f"did you mean {best!r}?" if best else f"known: {', '.join(known.values)}, else"
                checker.report.error("E106", f"unknown outcome {outcome!r}", key, help)
            elif outcome in found:
                checker.report.error("E104", f"outcome {outcome!r} is written twice", key, "remove one of them")
            else:
                found[outcome] = block
    if _all_covered(known, found):
        ways = ways[1:]
    path.join(*ways)
    return found


def _all_covered(known: Field, found: dict[str, Block]) -> bool:
    """Whether some entry runs whatever happens. `else` is any failure, never the good outcome, which comes first."""
    rest = known.values[1:]
    return known.values[0] in found and ("else" in found or all(outcome in found for outcome in rest))


@compiles("auth")
def _auth(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    if "on_fail" in shape.fields:
        # the flow ends behind these steps, so nothing of them comes back
        args["on_fail"] = checker.block(shape.fields["on_fail"].value, path.fork(), replace(around, exits=None))
    return args, result_of(shape)


@compiles("lookup")
def _lookup(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    if "where" in shape.fields:
        args["where"] = filters.contact_where(checker.values, shape.fields["where"].value, path.scope)
    return args, result_of(shape)


@compiles("http")
def _http(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    if "url" not in shape.fields and "endpoint" not in shape.fields:
        checker.report.error("E115", "http: needs url or endpoint", shape.key)
    return args, None if constant_of(args.get("background")) is True else result_of(shape)


# --- variables and other flows --------------------------------------------------------------------------------------


@compiles("set")
def _set(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    values = filters.assignments(checker.values, shape.fields["values"].value, path.scope, checker.head)
    return {"values": values or {}}, None


@compiles("call")
def _call(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    scalar = checker.values.scalar(shape.fields["flow"].value, "the name of a flow")
    name = checker.values.known(scalar, "flow", checker.names.flows) if scalar else None
    if scalar is None or name is None:
        return {}, ANY
    callee = checker.names.flows[name]
    if callee.kind not in ("call", ""):
        message = f"flow {name!r} is started by {callee.runs_on} and cannot be called"
        help = "remove its on:, or move the steps that both need to a flow without on:"
        checker.report.error("E118", message, scalar, help)
        return {"flow": name}, ANY
    given = shape.fields.get("with")
    data = filters.parameters(checker.values, given.value if given else None, callee, path.scope)
    missing = filters.missing(callee.params, given.value if given else None)
    checker.called(callee, shape.key, scalar, missing, path, around)
    return {"flow": name, "with": data or {}}, callee.returns


@compiles("return")
def _return(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    path.alive = False
    given = shape.fields.get("value")
    returns = checker.head.returns
    if given is None:
        if returns is not None and not returns.optional:
            checker.report.error("E115", f"return: needs a value ({returns})", shape.key)
        return {}, None
    if returns is None:
        message = f"flow {checker.head.name!r} does not say what it returns"
        checker.report.error("E117", message, shape.key, "add  returns: text  (or another type) to the flow")
        return {}, None
    value = checker.values.typed_value(given.value, returns, path.scope, "the flow returns")
    return ({"value": value} if value is not None else {}), None


@compiles("stop", "fail")
def _ends(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    path.alive = False
    return args, None


@compiles("break")
def _break(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    if around.exits is not None:
        around.exits.append(path.fork())
    path.alive = False
    return {}, None


# --- choices and loops ----------------------------------------------------------------------------------------------


@compiles("switch")
def _switch(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    value = args.get("value")
    type: Type = value.type if value is not None else ANY
    given, cases, ways = shape.fields["cases"].value, {}, []
    if not isinstance(given, Entries):
        checker.report.error("E103", "cases: takes a map of values", given, "write  cases: {'1': [...]}")
        return args, None
    for key, node in given:
        way = path.fork()
        block = checker.block(node, way, around)
        ways.append(way)
        for text in _case_values(checker, key, type):
            if text in cases:
                checker.report.error("E104", f"case {text!r} is written twice", key, "remove one of them")
            cases[text] = block
    otherwise = path.fork()
    if "default" in shape.fields:
        args["default"] = checker.block(shape.fields["default"].value, otherwise, around)
    path.join(otherwise, *ways)
    return {**args, "cases": cases}, None


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


@compiles("foreach")
def _foreach(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path, skip=("item", "until"))
    items = args.get("in")
    type: Type = items.type if items is not None else ANY
    if type.kind not in ("list", "any"):
        checker.report.error("E203", f"foreach: needs a list, but this is {type}", shape.fields["in"].value)
    elif type.optional:
        checker.report.error("E208", "this list may be missing here", shape.fields["in"].value, "give a default: ?? []")
    given = shape.fields.get("item")
    name = checker.new_name(given.value, path, around) if given else "item"
    if given is not None and name is not None:
        args["item"] = name
    names = {name or "item": type.items if type.kind == "list" else ANY}
    args.update(_loop(checker, shape, path, around, names))
    return args, None


@compiles("repeat")
def _repeat(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path, skip=("until",))
    return {**args, **_loop(checker, shape, path, around, {})}, None


def _loop(checker: StepChecker, shape: Shape, path: Path, around: Around, names: dict[str, Type]) -> dict[str, Any]:
    """The steps of a loop and its `until`. They run any number of times, none included."""
    exits: list[Path] = []
    node = shape.fields["do"].value
    body = path.fork()
    body.scope = _at_head(checker, node, body).extend(names)
    args: dict[str, Any] = {"do": checker.block(node, body, replace(around, exits=exits))}
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


# --- parallel and errors --------------------------------------------------------------------------------------------


@compiles("parallel")
def _parallel(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    first = args.get("wait_for") == "first"
    blocks: list[Block] = []
    ways: list[Path] = []
    for node in _list_of(checker, shape.fields["branches"].value, "step lists"):
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


@compiles("try")
def _try(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    inner = path.fork()
    args: dict[str, Any] = {"do": checker.block(shape.fields["do"].value, inner, around)}
    broken = path.fork()
    broken.join(path.fork(), _going_on(inner))
    ways = [inner]
    if "catch" in shape.fields:
        catches = []
        for node in _list_of(checker, shape.fields["catch"].value, "entries of error: and do:"):
            way = broken.fork()
            catch = _catch(checker, node, way, around)
            ways.append(way)
            if catch is not None:
                catches.append(catch)
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


def _catch(checker: StepChecker, node: Node, path: Path, around: Around) -> Catch | None:
    if not isinstance(node, Entries) or node.get("do") is None:
        checker.report.error("E103", "an entry of catch: has error: and do:", node, "write  - error: http.*")
        return None
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


def _list_of(checker: StepChecker, node: Node, what: str) -> tuple[Node, ...]:
    if isinstance(node, Items) and node.items:
        return tuple(node)
    checker.report.error("E103", f"a list of {what} is expected here", node)
    return ()
