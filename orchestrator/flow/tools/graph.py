"""A flow as a graph: what a person draws on a whiteboard to explain it (`orchestrator graph`).

Nodes are steps and decisions, edges what happens next. The walk carries the *open ends*: edges that wait for the next
node to lead to. A step takes the open ends that come to it and returns those that go on; an outcome, a branch, a case
adds its own; `stop` returns none. What runs beside the main steps (handlers, `meanwhile:`) hangs on a dashed edge and
joins nothing.

How a key's steps hang on their action follows from its `Kind`, so an action added by a package is drawn as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.flow.language.program import Block, Branch, Flow, Step, Where
from orchestrator.flow.language.registry import CallChange, Kind

WIDTH = 38
"""Characters in a line of a node: a phone number, a URI or a short condition fits."""

ROWS = 4
"""Lines of a node; what is longer is cut."""

STEP, DECISION, WAIT, CALL, BEGIN, END = "step", "decision", "wait", "call", "begin", "end"


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is step, decision, wait (the flow pauses or listens), call (another flow), begin or end; `text` may have
    several lines, `line` is where it stands in the file, 0 for what stands nowhere."""

    id: str
    text: str
    kind: str = STEP
    line: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """`dashed` is what happens beside the main steps, or when a step fails."""

    source: str
    target: str
    text: str = ""
    dashed: bool = False


@dataclass(slots=True)
class Graph:
    """Nodes in the order of the file, so that a drawing reads like it."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _End:
    """An edge that does not know yet where it leads."""

    source: str
    text: str = ""
    dashed: bool = False


_Ends = list[_End]

BESIDE = ("where", "for", "limit", "unique_by")
"""Keys that get a line of their own."""


def graph_of(flow: Flow) -> Graph:
    """The graph of one flow; a flow it calls is a single node."""
    return _Drawer(flow).draw()


class _Drawer:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._graph = Graph(flow.name)
        self._loops: list[_Ends] = []
        self._parts: Mapping[Kind, Callable[[str, Step, str], _Ends]] = {
            Kind.STEPS: self._steps,
            Kind.OUTCOMES: self._choices,
            Kind.CASES: self._choices,
            Kind.BRANCHES: self._branches,
            Kind.CATCHES: self._catches,
        }

    def draw(self) -> Graph:
        flow = self._flow
        begin = self._add(_announcement(flow), BEGIN, flow.place.line)
        ends = self._block(flow.do, [_End(begin)])
        if ends:
            self._connect(ends, self._add("end of steps", END))
        for title, block in (("an error nobody caught", flow.on_error), ("the call has ended", flow.on_end)):
            if block:
                self._block(block, [_End(self._add(title, BEGIN))])
        return self._graph

    # --- building ----------------------------------------------------------------------------------------------------

    def _add(self, text: str, kind: str, line: int = 0) -> str:
        id = f"n{len(self._graph.nodes) + 1}"
        rows = [row for part in text.split("\n") for row in textwrap.wrap(part, WIDTH)]
        if len(rows) > ROWS:
            rows[ROWS - 1 :] = [rows[ROWS - 1][: WIDTH - 2] + " …"]
        self._graph.nodes.append(Node(id, "\n".join(rows), kind, line))
        return id

    def _connect(self, ends: Iterable[_End], target: str) -> None:
        """Edges that would lie on each other become one with all their texts."""
        together: dict[tuple[str, bool], list[str]] = {}
        for end in ends:
            together.setdefault((end.source, end.dashed), []).append(end.text)
        for (source, dashed), texts in together.items():
            self._graph.edges.append(Edge(source, target, "\n".join(text for text in texts if text), dashed))

    def _block(self, block: Block, ends: _Ends) -> _Ends:
        for number, step in enumerate(block, 1):
            ends = self._step(step, ends, last=number == len(block))
        return ends

    def _step(self, step: Step, ends: _Ends, last: bool) -> _Ends:
        passed: _Ends = []
        if step.condition is not None:
            decision = self._add(f"{getattr(step.condition, 'source', '…')} ?", DECISION, step.place.line)
            self._connect(ends, decision)
            ends, passed = [_End(decision, "yes")], [_End(decision, "no")]
        if step.action is None:
            out = self._block(step.args["then"], ends)
            return out + self._block(step.args.get("else", ()), passed)
        node = self._add(_text(step), _kind(step), step.place.line)
        self._connect(ends, node)
        out = self._after(node, step, last)
        if step.on_error is not None:
            out += self._block(step.on_error, [_End(node, "error", dashed=True)]) if step.on_error else []
        return out + passed

    def _after(self, node: str, step: Step, last: bool) -> _Ends:
        """The open ends of a step, what hangs on it drawn."""
        assert step.action is not None
        if step.action.name in ("foreach", "repeat"):
            return self._loop(node, step)
        if step.action.name == "try":
            return self._try(node, step)
        fields = [f for f in (*step.action.fields, *step.action.beside) if f.kind in self._parts]
        given = [f for f in fields if f.name in step.args]
        joining = [end for f in given for end in self._parts[f.kind](node, step, f.name)]
        if step.action.effect is CallChange.LEAVES_LOOP and self._loops:
            self._loops[-1].append(_End(node))
        if _ends(step, last) or any(f.kind is Kind.BRANCHES for f in given):
            return joining
        passing = [_happened(step)]
        for f in given:
            if f.kind is Kind.OUTCOMES:
                passing = _unlisted(f.values, step.args[f.name])
            elif f.kind is Kind.CASES:
                passing = [] if "default" in step.args else ["otherwise"]
        return [*(_End(node, text) for text in passing), *joining]

    # --- what hangs on a step ----------------------------------------------------------------------------------------

    def _steps(self, node: str, step: Step, name: str) -> _Ends:
        """Steps under a key: those of a handler run beside and join nothing."""
        text, dashed, joins = _KEYS.get(name, (name.replace("_", " "), True, False))
        text = text.format(event=step.args.get("event", ""), after=_source(step.args.get("for")))
        ends = self._block(step.args[name], [_End(node, text.strip(), dashed)])
        return ends if joins else []

    def _choices(self, node: str, step: Step, name: str) -> _Ends:
        ends: _Ends = []
        for names, block in _shared(step.args[name]):
            ends += self._block(block, [_End(node, names)])
        return ends

    def _branches(self, node: str, step: Step, name: str) -> _Ends:
        ends: _Ends = []
        for branch in step.args[name]:
            if isinstance(branch, Branch):
                ends += self._block(branch.do, [_End(node, _branch_text(branch))])
            else:
                ends += self._block(branch, [_End(node)])
        return ends

    def _catches(self, node: str, step: Step, name: str) -> _Ends:
        ends: _Ends = []
        for catch in step.args[name]:
            ends += self._block(catch.do, [_End(node, f"error {catch.error}", dashed=True)])
        return ends

    def _loop(self, node: str, step: Step) -> _Ends:
        self._loops.append([])
        item = step.args.get("item")
        back = self._block(step.args["do"], [_End(node, f"each {item}" if item else "again")])
        self._connect(back, node)
        return [_End(node, "done"), *self._loops.pop()]

    def _try(self, node: str, step: Step) -> _Ends:
        ends = self._block(step.args["do"], [_End(node)])
        if "catch" in step.args:
            ends += self._catches(node, step, "catch")
        return self._block(step.args["finally"], ends) if "finally" in step.args else ends


_KEYS: Mapping[str, tuple[str, bool, bool]] = {
    "do": ("each {event}", True, False),
    "on_expire": ("after {after}", True, False),
    "on_timeout": ("nothing for {after}", False, True),
    "meanwhile": ("meanwhile", True, False),
    "on_fail": ("refused", False, False),
    "default": ("otherwise", False, True),
}
"""Key of an action → (text of its edge, dashed, whether the flow goes on behind its steps)."""


def _ends(step: Step, last: bool) -> bool:
    """Whether nothing follows a step. A `hangup` with steps behind it lets them run."""
    assert step.action is not None
    effect = step.action.effect
    return effect in (CallChange.ENDS_FLOW, CallChange.LEAVES_LOOP) or (effect is CallChange.ENDS_CALL and last)


def _happened(step: Step) -> str:
    """The edge on which a `wait` that has a time limit goes on."""
    return step.args["event"] if "on_timeout" in step.args else ""


def _unlisted(outcomes: Sequence[str], choices: Mapping[str, Block]) -> list[str]:
    """The outcomes after which the flow simply goes on. `else` takes all that are not listed, except success."""
    success = [outcomes[0]] if outcomes[0] not in choices else []
    if "else" in choices:
        return success
    return ["otherwise"] if any(name not in choices for name in outcomes) else []


def _shared(choices: Mapping[str, Block]) -> Iterator[tuple[str, Block]]:
    """Choices that were written as one entry, under their names together."""
    names: dict[int, list[str]] = {}
    for name, block in choices.items():
        names.setdefault(id(block), []).append(name)
    for together in names.values():
        yield ", ".join(together), choices[together[0]]


def _branch_text(branch: Branch) -> str:
    if branch.wait is None:
        return f"after {_source(branch.after)}"
    where = filter_text(branch.wait.args.get("where"))
    return f"{branch.wait.args['event']}" + (f"\n{where}" if where else "")


def _announcement(flow: Flow) -> str:
    trigger = flow.trigger
    text = {"call": "called", "event": f"on {trigger.event}", "every": f"every {trigger.every:g}s"}.get(
        trigger.kind, f"on {trigger.kind}"
    )
    conditions = [getattr(flow.when, "source", ""), filter_text(trigger.where)]
    return "\n".join([f"{flow.name}: {text}", *(f"when {condition}" for condition in conditions if condition)])


def _text(step: Step) -> str:
    """A step in a few lines: as written, with what stands beside it that decides when it goes on."""
    first = step.source
    if first.endswith(":"):
        simple = ((key, _source(value)) for key, value in step.args.items() if key not in BESIDE)
        first = f"{first} {', '.join(f'{key} {text}' for key, text in simple if text)}"
    rows = [first.rstrip(": ")]
    if where := filter_text(step.args.get("where")):
        rows.append(f"where {where}")
    if step.action is not None and step.action.hears:
        rows += [f"{key} {_source(step.args[key])}" for key in BESIDE[1:] if key in step.args]
    return "\n".join(rows)


def _kind(step: Step) -> str:
    assert step.action is not None
    if step.action.name == "call":
        return CALL
    return WAIT if step.action.waits or step.action.hears else STEP


def _source(value: Any) -> str:
    """What the user wrote, as far as it is one value."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return getattr(value, "source", "")


def filter_text(where: Any) -> str:
    """A `where:` in one line: `aor = ${call.to.aor}`, then the condition that is left."""
    if not isinstance(where, Where):
        return _source(where)
    tests = [f"{name} = {_source(value)}" for name, value in where.equals.items()]
    return " and ".join([*tests, *([_source(where.rest)] if where.rest is not None else [])])


# --- Mermaid ----------------------------------------------------------------------------------------------------------

_SHAPES = {
    STEP: ("[", "]"),
    DECISION: ("{{", "}}"),
    WAIT: ("[/", "/]"),
    CALL: ("[[", "]]"),
    BEGIN: ("([", "])"),
    END: ("([", "])"),
}


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, with a final line feed. Texts are quoted: nothing in a flow can end a node."""
    rows = ["flowchart TD"]
    for node in graph.nodes:
        before, after = _SHAPES[node.kind]
        rows.append(f'    {node.id}{before}"{_quoted(node.text)}"{after}')
    for edge in graph.edges:
        arrow = "-.->" if edge.dashed else "-->"
        text = f'|"{_quoted(edge.text)}"|' if edge.text else ""
        rows.append(f"    {edge.source} {arrow}{text} {edge.target}")
    return "\n".join(rows) + "\n"


def _quoted(text: str) -> str:
    """Mermaid's entity codes for what means something inside a quoted text."""
    codes = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\n": "<br/>"}
    return "".join(codes.get(character, character) for character in text)
