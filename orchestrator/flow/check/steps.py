"""Steps of one flow: each becomes a `Step` of the program while names and their types are followed along the way.

What is common to all actions is here: condition, keys by kind, where an action may stand, `as:`, `on_error`. Actions
whose keys hold steps, or mean names, have a function of their own (`compilers`), which is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.flow.check.key_rules import rule_of
from orchestrator.flow.check.kinds import Kinds
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import COMMON, Shape, Shapes
from orchestrator.flow.expr import BOOL, Scope, Type, freeswitch_hint
from orchestrator.flow.expr.facts import NO_FACTS
from orchestrator.flow.language.context import CALL, ERROR, RESERVED
from orchestrator.flow.language.declarations import Declarations, FlowHead
from orchestrator.flow.language.evaluables import Constant
from orchestrator.flow.language.program import REQUESTS, Block, Evaluable, Place, Step
from orchestrator.flow.language.registry import Action, Actions, Kind
from orchestrator.flow.language.yaml import Items, Node, Scalar

IN_ON_END = "use http, log, raise, set or call"

_A_CALL = ("a call", "start the flow with on: invite, or originate: a call first")

NEEDS: dict[str, tuple[str, str]] = {
    "call": _A_CALL,
    "relay": _A_CALL,
    "transfer": ("a call", "start the flow with on: invite or on: refer, or originate: a call first"),
    "request": ("a request to answer", "start the flow with on: invite or on: register"),
    "register": ("a REGISTER", "start the flow with on: register"),
    "refer": ("a REFER", "start the flow with on: refer"),
    "sip": ("a SIP call", "FreeSWITCH has this call: use answer, play, collect, hangup or fs.execute"),
}
"""`Action.needs` → how messages name it, and the help."""

SUITABLE: dict[str, tuple[str, ...]] = {
    "call": ("invite", "socket"),
    "relay": ("invite", "socket", *REQUESTS),
    "transfer": ("invite", "socket", "refer"),
    "request": ("invite", "register", *REQUESTS),
    "register": ("register",),
    "refer": ("refer",),
    "sip": ("invite", "register", *REQUESTS, "start", "every", "event"),
}
"""`Action.needs` → triggers that give it."""

OF_A_CALL = ("call", "relay", "transfer")
"""What whoever has a call can give."""

SIP_STEPS = frozenset({"relay", "inject", "cancel", "media", "transfer", "originate"})
"""Actions on a call that refuse one which FreeSWITCH's dialplan has handed over: there is no SIP dialog of ours."""

TO_FREESWITCH = frozenset({"fs.api", "fs.bgapi", "fs.execute", "originate", "play", "record", "collect"})
"""Actions whose texts FreeSWITCH expands, too: an unknown `${name}` there may be meant for it."""


_WITH_STEPS = frozenset({Kind.STEPS, Kind.OUTCOMES, Kind.BRANCHES, Kind.CASES, Kind.CATCHES})


def _changes_values(action: Action) -> bool:
    """Whether variables, and what is known of the call, may be others after it."""
    return action.waits or action.name == "set" or any(f.kind in _WITH_STEPS for f in (*action.fields, *action.beside))


@dataclass(frozen=True, slots=True)
class Around:
    """What a step stands in."""

    on_end: bool = False
    exits: list[Path] | None = None
    """Ways that `break` takes out of the innermost loop, None outside of loops."""
    loops: int = 0
    """Loops around, in this flow."""
    read_only: frozenset[str] = frozenset()
    """Names of `as:` that belong to the steps around a handler."""


@dataclass(slots=True)
class CallSite:
    """A `call:` step, judged when all flows are known."""

    caller: FlowHead
    callee: FlowHead
    key: Scalar
    target: Scalar
    missing: str
    call: bool
    request: bool
    on_end: bool


@dataclass(slots=True)
class Demands:
    """What a sub-flow takes for granted: 'call', 'request', 'register', 'sip' → the action or name that needs it."""

    needs: dict[str, str] = field(default_factory=dict)
    not_in_on_end: str = ""
    """The first action in it that on_end may not use."""


Compiled = tuple[dict[str, Any], Type | None]
"""The arguments of an action and the type of its result, None when it has none."""
Compiler = Callable[["StepChecker", Shape, Path, Around], Compiled]
"""Compiles what stands under and beside an action, and moves the path as running it would."""


class StepChecker:
    """Checks and compiles the steps of one flow."""

    def __init__(self, head: FlowHead, names: Declarations, actions: Actions, compiler: Compiler) -> None:
        self._compiler = compiler
        self.head = head
        self.names = names
        self.report = head.report
        self.values = Kinds(head.report, names)
        self.shapes = Shapes(head.report, actions)
        self.ids: dict[str, Scalar] = {}
        self.subscriptions: dict[str, Scalar] = {}
        self.sites: list[CallSite] = []
        self.results: dict[str, Type] = {}
        """All names of `as:` with their types."""
        self.ended: list[Scalar] = []
        """What `unsubscribe` names; judged when all subscriptions are known."""
        self.demands = Demands()
        self.provided: set[str] = set()
        """'call' when some step of the flow originates one."""
        self.misplaced: set[Place] = set()
        """Steps that E303 refused."""

    # --- blocks -----------------------------------------------------------------------------------------------------

    def block(self, node: Node, path: Path, around: Around, guarded: bool = False) -> Block:
        """A list of steps (or one step); `path` is moved to its end.

        Other steps may run before these, and change what a test has shown of a variable, unless the block is `guarded`
        by that test.
        """
        path.scope = path.scope if guarded else path.scope.steady()
        items: Sequence[Node] = node.items if isinstance(node, Items) else (node,)
        if isinstance(node, Scalar):
            self.report.error("E103", "a list of steps is expected here", node, self.shapes.as_list(node.text))
            return ()
        steps = (self.step(item, path, around) for item in items)
        return tuple(step for step in steps if step is not None)

    def inside(self, node: Node, path: Path, around: Around, names: dict[str, Type]) -> Block:
        """A block with names of its own (`event`, `error`, an item), which end with it."""
        before = path.scope
        path.scope = before.extend(names)
        block = self.block(node, path, around)
        path.leave(before, names)
        return block

    def step(self, node: Node, path: Path, around: Around) -> Step | None:
        """One step, None when its shape cannot be told."""
        shape = self.shapes.read(node)
        if shape is None:
            return None
        condition = self._condition(shape, path)
        timeout = self._common(shape, "timeout", path)
        before, skipped = path.fork(), None
        if condition is not None:
            before = path.fork(getattr(condition, "when_true", NO_FACTS))
            skipped = path.fork(getattr(condition, "when_false", NO_FACTS))
        inner = before.fork()
        result = None
        if shape.action is None:
            args = self._branches(shape, inner, skipped or path.fork(), around)
        else:
            self._permit(shape.action, shape.key, inner, around)
            args, type = self._compile(shape, inner, around)
            result = self.result(shape, type, inner, around)
            if _changes_values(shape.action):
                inner.scope = inner.scope.steady()
        on_error = self._on_error(shape, before, inner, around)
        path.join(*((inner, skipped) if skipped else (inner,)))
        place, source = self.report.place(shape.key), self.source(shape)
        note = getattr(self._common(shape, "note", path), "source", "")
        return Step(shape.action, args, place, condition, result, self.id(shape), on_error, timeout, note, source)

    def _condition(self, shape: Shape, path: Path) -> Evaluable | None:
        """The condition of a step. One that is wrong is kept as one of which nothing is known."""
        if "if" not in shape.common:
            return None
        return self._common(shape, "if", path) or Constant(False, BOOL)

    def _common(self, shape: Shape, name: str, path: Path) -> Any:
        """The value of a key that may stand beside any action."""
        given = shape.common.get(name)
        return self.values.compile(COMMON[name], given.value, path.scope) if given else None

    def _branches(self, shape: Shape, inner: Path, skipped: Path, around: Around) -> dict[str, Any]:
        """`then` and `else` of the block form."""
        args: dict[str, Any] = {"then": ()}
        if "then" in shape.fields:
            args["then"] = self.block(shape.fields["then"].value, inner, around, guarded=True)
        if "else" in shape.fields:
            args["else"] = self.block(shape.fields["else"].value, skipped, around, guarded=True)
        return args

    def _compile(self, shape: Shape, path: Path, around: Around) -> tuple[dict[str, Any], Type | None]:
        """The arguments of an action and the type of its result, None when it has none."""
        action = shape.action
        assert action is not None
        hints = path.scope.hints
        if action.name in TO_FREESWITCH:
            path.scope = replace(path.scope, hints=freeswitch_hint)
        args, type = self._compiler(self, shape, path, around)
        path.scope = replace(path.scope, hints=hints)
        if action.provides == "call":
            path.scope = path.scope.extend({"call": CALL})
            path.call = True
            self.provided.add("call")
        return args, type

    def called(self, callee: FlowHead, key: Scalar, target: Scalar, missing: str, path: Path, around: Around) -> None:
        """Remember a call of another flow."""
        request = path.request or (path.call and self.head.kind == "invite")
        site = CallSite(self.head, callee, key, target, missing, path.call, request, around.on_end)
        self.sites.append(site)

    def _permit(self, action: Action, key: Scalar, path: Path, around: Around) -> None:
        """Whether the action may stand here: in on_end, with or without a call, inside a loop."""
        if not action.in_on_end:
            self.demands.not_in_on_end = self.demands.not_in_on_end or action.name
        if around.on_end and not action.in_on_end:
            message = f"{action.name}: cannot be used in on_end, the call is already over"
            self.report.error("E304", message, key, IN_ON_END)
        elif action.needs == "loop":
            if around.exits is None:
                self.report.error("E303", f"{action.name}: stands outside of foreach: and repeat:", key)
                self.misplaced.add(self.report.place(key))
        elif action.needs:
            self.need(action.needs, f"{action.name}:", key, path)
        if action.name in SIP_STEPS:
            self.need("sip", f"{action.name}:", key, path)

    def need(self, what: str, who: str, key: Scalar, path: Path) -> None:
        """E303 unless the flow has a call (or request) here; a sub-flow demands it of its callers.

        `who` is how the message begins: `relay:`, `wait: dtmf`.
        """
        kind = self.head.kind
        called = path.call or (kind not in ("call", "refer") and "call" in path.scope.names)
        if (what in OF_A_CALL and called) or not kind:
            return
        if kind == "call":
            self.demands.needs.setdefault(what, who.rstrip(":"))
        elif kind not in SUITABLE[what]:
            word, help = NEEDS[what]
            message = f"{who} needs {word}, but this flow runs on {self.head.runs_on}"
            self.report.error("E303", message, key, help)
            self.misplaced.add(self.report.place(key))

    # --- keys of any step -------------------------------------------------------------------------------------------

    def plain(self, shape: Shape, path: Path, skip: Sequence[str] = ()) -> dict[str, Any]:
        """The keys of the action that hold no steps, compiled after their kind."""
        assert shape.action is not None
        args: dict[str, Any] = {}
        for known in (*shape.action.fields, *shape.action.beside):
            given = shape.fields.get(known.name)
            if given is None or known.name in skip or not self.values.takes(known.kind):
                continue
            rule = rule_of(known, shape, self.names.resources["endpoints"])
            value = self.values.compile(known, given.value, path.scope, rule)
            if value is not None:
                args[known.name] = value
        return args

    def result(self, shape: Shape, type: Type | None, path: Path, around: Around) -> str | None:
        """Take the name of `as:` into the scope; `type` is None when there is nothing to keep."""
        given = shape.common.get("as")
        if given is None or shape.action is None:
            return None
        if type is None:
            self.report.error("E117", f"{shape.action.name}: has no result to keep", given.key)
            return None
        name = self.new_name(given.value, path, around, type)
        if name is not None:
            key = ("as", self.head.name, name)
            self.names.learn(key, type, type)
            path.scope = path.scope.extend({name: self.names.assumed(key, type)})
        return name

    def new_name(self, node: Node, path: Path, around: Around, type: Type | None = None) -> str | None:
        """A name for a result or an item. It may be given again by another step when its type stays the same."""
        name = self.values.identifier(node, "a name")
        if name is None:
            return None
        taken = path.scope.names.get(name)
        if name in RESERVED:
            self.report.error("E116", f"{name!r} is already a name here (built in)", node, "choose another name")
        elif name in around.read_only:
            message = f"{name!r} is already a name here, and outside of this handler"
            self.report.error("E116", message, node, "choose another name; names from outside can only be read")
        elif taken is not None and (type is None or taken.required != type.required):
            self.report.error("E116", f"{name!r} is already a name here ({taken})", node, "choose another name")
        else:
            if type is not None:
                self.results[name] = type
            return name
        return None

    def _on_error(self, shape: Shape, before: Path, inner: Path, around: Around) -> Block | None:
        given = shape.common.get("on_error")
        if given is None:
            return None
        failed = before.fork()
        block: Block = ()
        if not (isinstance(given.value, Scalar) and given.value.text == "continue"):
            block = self.inside(given.value, failed, around, {"error": ERROR})
        inner.join(inner, failed)
        return block

    def id(self, shape: Shape) -> str | None:
        """The `id:` of a step; E104 when it stands twice in the flow."""
        given = shape.common.get("id")
        name = self.values.compile(COMMON["id"], given.value, Scope({})) if given else None
        if given is None or name is None:
            return None
        assert isinstance(given.value, Scalar)
        first = self.ids.setdefault(name, given.value)
        if first is not given.value:
            notes = (f"first defined at line {first.line}",)
            self.report.error("E104", f"id {name!r} is used twice in this flow", given.value, notes=notes)
        elif shape.action is not None and shape.action.name == "subscribe":
            self.subscriptions[name] = given.value
        return str(name)

    def source(self, shape: Shape) -> str:
        """The action and its value as written, as far as it stands on the first line."""
        text = self.report.document.text[shape.key.start : shape.end]
        return text.split("\n", 1)[0].rstrip()
