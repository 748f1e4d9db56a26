"""Actions whose keys hold steps or names that are declared elsewhere: one function each.

A function compiles the keys of its action, moves the path as running the action would, and gives the type of the
result (None: nothing to keep). Actions of packages that hold steps are served by `generic`: such steps may or may not
run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network

from orchestrator.flow.check import filters, push_steps
from orchestrator.flow.check.kinds import check_credentials
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import Given, Shape
from orchestrator.flow.check.steps import Around, Compiled, Compiler, StepChecker
from orchestrator.flow.check.values import type_of
from orchestrator.flow.expr import ANY, Type, closest
from orchestrator.flow.language.context import RESULTS
from orchestrator.flow.language.declarations import FlowHead
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import REQUESTS, Block
from orchestrator.flow.language.registry import Field, Kind
from orchestrator.flow.language.written import number_flaw, path_flaw, server_uri_flaw, trust_flaw, web_flaw
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar


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


_OF_CALLS = ("via", "ring", "each", "keep_open", "failover_on")
"""Keys of relay that say how long something rings, or who holds the media."""


def _with_outcomes(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    given = shape.fields.get("on")
    assert shape.action is not None
    known = shape.action.field("on")
    if "number" in args and "gateways" not in shape.fields:
        key, help = shape.fields["number"].key, "for another destination write  to: 'sip:...'"
        checker.report.error("E115", "number: needs gateways:", key, help)
    if args.get("failover_on") and args.get("mode", "parallel") == "parallel":
        help = "write  mode: serial: destinations that all ring at once leave nobody to be tried next"
        checker.report.error("E115", "failover_on: needs mode: serial", shape.fields["failover_on"].key, help)
    push_steps.check_wake(checker, shape, args)
    for name in _OF_CALLS if checker.head.kind in REQUESTS else ():
        if name in shape.fields:
            message = f"relay: {name}: needs a call, but this flow runs on {checker.head.runs_on}"
            checker.report.error("E303", message, shape.fields[name].key, f"remove {name}:")
    if given is not None and known is not None:
        args["on"] = _outcomes(checker, shape, known, given, path, around)
    return args, result_of(shape)


def _outcomes(
    checker: StepChecker, shape: Shape, known: Field, given: Given, path: Path, around: Around
) -> dict[str, Block]:
    """Steps by outcome; the result is known in them under the action's name. Other outcomes go on behind the step."""
    assert shape.action is not None
    found: dict[str, Block] = {}
    lines: dict[str, int] = {}
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
                notes = (f"first defined at line {lines[outcome]}",)
                message = f"outcome {outcome!r} is written twice"
                checker.report.error("E104", message, key, "remove one of them", notes=notes)
            else:
                found[outcome], lines[outcome] = block, key.line
    if _all_covered(known, found):
        ways = ways[1:]
    path.join(*ways)
    return found


def _all_covered(known: Field, found: dict[str, Block]) -> bool:
    """Whether some entry runs whatever happens. `else` is any failure, never the good outcome, which comes first."""
    rest = known.values[1:]
    return known.values[0] in found and ("else" in found or all(outcome in found for outcome in rest))


def _auth(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    _only_table(checker, shape)
    for node in _items(shape.fields["trust"].value) if "trust" in shape.fields else ():
        _network(checker, node)
    if "on_fail" in shape.fields:
        # the flow ends behind these steps, so nothing of them comes back
        args["on_fail"] = checker.block(shape.fields["on_fail"].value, path.fork(), replace(around, exits=None))
    return args, result_of(shape)


def _only_table(checker: StepChecker, shape: Shape) -> None:
    """Without `users:` the only table is meant; which one it is has to be clear."""
    tables = checker.names.resources["users"]
    if "users" not in shape.fields and len(tables) != 1:
        known = f"write users: with one of {', '.join(tables)}" if tables else "declare one under users:"
        checker.report.error("E115", "auth: needs users", shape.key, known)


def _items(node: Node) -> tuple[Node, ...]:
    return tuple(node) if isinstance(node, Items) else (node,)


def _network(checker: StepChecker, node: Node) -> None:
    """An entry of `trust:` that is written out."""
    if isinstance(node, Scalar) and "${" not in node.text:
        try:
            network = ip_network(node.text)
        except ValueError:
            try:
                help = f"write {ip_network(node.text, strict=False)}"
            except ValueError:
                help = "write for example 10.0.0.5, 192.168.0.0/16 or '::1'"
            checker.report.error("E106", f"{node.text!r} is neither an address nor a network", node, help)
        else:
            flaw = trust_flaw(network)
            if flaw is not None:
                checker.report.warning("W307", flaw.message, node, flaw.help)


def _lookup(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    if "where" in shape.fields:
        args["where"] = filters.contact_where(checker.values, shape.fields["where"].value, path.scope)
    return args, result_of(shape)


def _http(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    if "url" not in shape.fields and "endpoint" not in shape.fields:
        checker.report.error("E115", "http: needs url or endpoint", shape.key)
    url = shape.fields["url"].value if "url" in args else None
    if isinstance(url, Scalar):
        checker.values.usable(url, path_flaw if "endpoint" in shape.fields else web_flaw)
    if "auth" in shape.fields:
        check_credentials(checker.report, shape.fields["auth"].value)
    return args, None if constant_of(args.get("background")) is True else result_of(shape)


def _originate(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    target = shape.fields["to"].value if "to" in args else None
    if isinstance(target, Scalar) and "gateway" in shape.fields:
        checker.values.usable(target, number_flaw)
    elif isinstance(target, Scalar) and target.text.lower().startswith(("sip:", "sips:")):
        checker.values.usable(target, server_uri_flaw)
    elif isinstance(target, Scalar) and "${" not in target.text:
        help = "use a sip: URI, or say through which gateway:"
        checker.report.error("E106", f"{target.text!r} is not a destination", target, help)
    return args, result_of(shape)


def _transfer(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    """In a flow on: refer it is the other party of the call that moves, and FreeSWITCH calls through us."""
    args, result = generic(checker, shape, path, around)
    for name in ("leg", "context") if checker.head.kind == "refer" and not path.call else ():
        if name in shape.fields:
            message = f"transfer: {name}: has no meaning in a flow on: refer: the party that did not ask is transferred"
            checker.report.error("E303", message, shape.fields[name].key, f"remove {name}:")
    return args, result


def _hangup(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args, result = generic(checker, shape, path, around)
    reason = constant_of(args.get("reason"))
    status = (
        re.fullmatch(r"\s*(?:SIP/2\.0 )?([3-6]\d\d)\b[\s,]*(.*)", reason, re.DOTALL)
        if isinstance(reason, str)
        else None
    )
    if status is not None and "code" not in args:
        help = f"write  hangup: {{code: {status[1]}}}"
        if status[2].strip():
            help = f"write  hangup: {{code: {status[1]}, reason: {status[2].strip()}}}"
        message = f"{reason!r} is the reason of this hangup, its status code is another key"
        checker.report.warning("W309", message, shape.fields["reason"].value, help)
    return args, result


def _set(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    values = filters.assignments(checker.values, shape.fields["values"].value, path.scope, checker.head)
    return {"values": values or {}}, None


def _call(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    scalar = checker.values.scalar(shape.fields["flow"].value, "the name of a flow")
    if scalar is None:
        return {}, ANY
    callee = checker.names.flows.get(scalar.text)
    if callee is None or callee.kind != "call":
        _not_callable(checker, scalar, callee)
        return {}, ANY
    given = shape.fields.get("with")
    data = filters.parameters(checker.values, given.value if given else None, callee, path.scope)
    missing = filters.missing(callee.params, given.value if given else None)
    checker.called(callee, shape.key, scalar, missing, path, around)
    returns = callee.returns
    if returns is not None:
        returns = checker.names.assumed(("returns", callee.name, ""), returns)
    return {"flow": callee.name, "with": data or {}}, returns


def _not_callable(checker: StepChecker, scalar: Scalar, callee: FlowHead | None) -> None:
    if callee is None:
        callable_flows = {name: flow for name, flow in checker.names.flows.items() if flow.kind == "call"}
        checker.values.known(scalar, "flow", callable_flows)
    elif callee.kind:
        message = f"flow {callee.name!r} is started by {callee.runs_on} and cannot be called"
        help = "remove its on:, or move the steps that both need to a flow without on:"
        checker.report.error("E118", message, scalar, help)


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
    checker.names.learn(("returns", checker.head.name, ""), type_of(value), returns)
    return ({"value": value} if value is not None else {}), None


def _ends(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    path.alive = False
    return args, None


def _break(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    if around.exits is not None:
        around.exits.append(path.fork())
        path.alive = False
    return {}, None


_TUNES = {"silence": ("silence", "decision"), "greeting": ("decision",), "level": ("silence", "decision")}
"""Keys of `detect` that only some detectors have."""


def _detect(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args, result = generic(checker, shape, path, around)
    for key, detectors in _TUNES.items():
        if key in shape.fields and args.get("what", detectors[0]) not in detectors:
            message = f"{key}: belongs to detect: {' and '.join(detectors)} only"
            checker.report.error("E114", message, shape.fields[key].key, "remove it; how long to listen is  for:")
    return args, result


def list_of(checker: StepChecker, node: Node, what: str) -> tuple[Node, ...]:
    """The items of a list that is not empty; () with E103 reported."""
    if isinstance(node, Items) and node.items:
        return tuple(node)
    checker.report.error("E103", f"a list of {what} is expected here", node)
    return ()


COMPILERS: Mapping[str, Compiler] = {
    "relay": _with_outcomes,
    "charge": _with_outcomes,
    "auth": _auth,
    "originate": _originate,
    "hangup": _hangup,
    "transfer": _transfer,
    "lookup": _lookup,
    "push": push_steps.push,
    "http": _http,
    "set": _set,
    "call": _call,
    "return": _return,
    "stop": _ends,
    "fail": _ends,
    "break": _break,
    "detect": _detect,
}
