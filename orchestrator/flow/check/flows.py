"""One flow as a whole: its head, which others have to know before any step is read, and its body."""

from __future__ import annotations

from typing import Any

from orchestrator.events.checked import CHECKED
from orchestrator.events.event import EventSpec
from orchestrator.flow.check import filters
from orchestrator.flow.check.compilers import compile_action
from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.steps import Around, StepChecker
from orchestrator.flow.check.values import WORDS, type_of
from orchestrator.flow.expr import (
    ANY,
    TEXT,
    TYPE_WORDS,
    Scope,
    Type,
    closest,
    optional,
    parse_type,
    record,
)
from orchestrator.flow.expr.types import with_origin
from orchestrator.flow.language.context import CALL, ERROR, REFER, REQUEST, ROOTS, event_type
from orchestrator.flow.language.declarations import TRIGGERS, Declarations, FlowHead, as_entries
from orchestrator.flow.language.evaluables import Constant, constant_of
from orchestrator.flow.language.program import REQUESTS, Block, Flow, Trigger
from orchestrator.flow.language.registry import Actions, Field, Kind
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.sections import FLOW_FIELDS
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

FIELDS = {field.name: field for field in FLOW_FIELDS}

TRIGGER_HELP = "write  on: {event: name}  or  on: {every: 30s}  or  on: {socket: '*'}"

SHORTEST_PERIOD = 0.1
"""Seconds between two runs of a timer flow: below, it would be a loop."""


# --- heads ----------------------------------------------------------------------------------------------------------


def read_head(report: Report, key: Scalar, node: Node, names: Declarations) -> FlowHead | None:
    """What others need to know of a flow; None when it is no flow at all."""
    entries = as_entries(report, node, f"flow {key.text!r}")
    if entries is None:
        if isinstance(node, Scalar) and not node.text:
            report.error("E115", f"flow {key.text!r} needs do", key)
        return None
    head = FlowHead(key.text, key, entries, report)
    before = len(report.diagnostics)
    for name, _ in entries:
        if name.text not in FIELDS:
            report.error("E101", f"unknown key of flow {key.text!r}: {name.text!r}", name, meant(name.text, FIELDS))
    if "do" not in entries and len(report.diagnostics) == before:
        report.error("E115", f"flow {key.text!r} needs do", key)
    trigger = entries.get("on")
    if trigger is not None:
        head.kind, head.event = _trigger(report, trigger, names)
    _parameters(head)
    _misplaced(head)
    return head


def _trigger(report: Report, node: Node, names: Declarations) -> tuple[str, EventSpec | None]:
    if isinstance(node, Scalar):
        return _trigger_word(report, node, names)
    entries = as_entries(report, node, "on:")
    if entries is None:
        return "", None
    kinds = [key for key in ("event", "every", "socket") if key in entries]
    for key, _ in entries:
        if key.text not in ("event", "where", "every", "socket"):
            report.error("E101", f"unknown key of a trigger: {key.text!r}", key, "known: event, every, socket, where")
    if len(kinds) != 1:
        report.error("E103", "on: has one of event:, every: and socket:", node, TRIGGER_HELP)
        return "", None
    value = entries.entries[kinds[0]][1]
    if kinds[0] != "event":
        return kinds[0], None
    return _trigger_word(report, value, names) if isinstance(value, Scalar) else ("", None)


def _trigger_word(report: Report, node: Scalar, names: Declarations) -> tuple[str, EventSpec | None]:
    if node.text in TRIGGERS:
        return node.text, None
    spec = names.events.get(node.text)
    if spec is not None:
        return "event", spec
    best = closest(node.text, (*TRIGGERS, *names.events.specs))
    help = f"did you mean {best!r}?" if best else "use invite, register, start, {every: 30s}, {socket: '*'} or an event"
    report.error("E112", f"unknown trigger {node.text!r}", node, help)
    return "", None


def _parameters(head: FlowHead) -> None:
    node = head.node.get("params")
    entries = as_entries(head.report, node, "params:") if node is not None else None
    if entries is not None and head.kind != "call":
        message = "params: belongs to flows that are started by call:, and this one has on:"
        head.report.error("E111", message, head.node.key("params"), "remove on: or params:")
    for key, item in entries or ():
        type = declared_type(head.report, item)
        head.params[key.text] = type
        head.param_words[key.text] = item.text if isinstance(item, Scalar) else "any"
    returns = head.node.get("returns")
    if returns is not None:
        head.returns = declared_type(head.report, returns)


def declared_type(report: Report, node: Node) -> Type:
    """The type a declaration names; anything, with E102 reported, when there is none."""
    if not isinstance(node, Scalar):
        report.error("E102", "the name of a type is expected here", node, f"known: {', '.join(TYPE_WORDS)}")
        return ANY
    try:
        return parse_type(node.text)
    except ValueError as error:
        word = str(error)
        best = closest(word, TYPE_WORDS)
        help = f"did you mean {best!r}?" if best else f"known: {', '.join(TYPE_WORDS)}"
        report.error("E102", f"unknown type {word!r}", node, help)
        return ANY


def _misplaced(head: FlowHead) -> None:
    """Keys that do not go with the trigger."""
    runs = "flows that are started by an event or a timer"
    rules: tuple[tuple[str, tuple[str, ...], str], ...] = (
        (
            "when",
            ("invite", "register", *REQUESTS, "socket"),
            "flows on a request or socket; for an event write  on: {event: …, where: …}",
        ),
        ("mode", ("event", "every"), runs),
        ("max", ("event", "every"), runs),
        ("key", ("event",), "flows that are started by an event"),
        ("returns", ("call",), "flows that are started by call:"),
        ("on_end", ("invite", "socket", "refer", "event", "every", "start"), "flows that have a call"),
        ("max_duration", ("invite", "socket", "refer", "event", "every", "start"), "flows that have a call"),
    )
    for name, kinds, where in rules:
        if name in head.node and head.kind and head.kind not in kinds:
            head.report.error("E101", f"{name}: belongs to {where}", head.node.key(name))


# --- bodies ---------------------------------------------------------------------------------------------------------


class FlowChecker:
    """Checks and compiles one flow; `steps` keeps what the set as a whole is judged by."""

    def __init__(self, head: FlowHead, names: Declarations, actions: Actions) -> None:
        self.head = head
        self.names = names
        self.steps = StepChecker(head, names, actions, compile_action)
        self.values = self.steps.values

    def check(self) -> Flow:
        """The flow as the engine runs it; diagnostics stand in the report."""
        head, node = self.head, self.head.node
        scope = self._scope()
        key = self.values.compile(FIELDS["key"], node.entries["key"][1], scope) if "key" in node else None
        when = self.values.compile(FIELDS["when"], node.entries["when"][1], scope) if "when" in node else None
        trigger = self._trigger()
        variables = self._variables(scope)
        for name, _ in as_entries(head.report, node.entries["params"][1], "params:") or () if "params" in node else ():
            self.values.declared(name, "a parameter", (*WORDS, *ROOTS))
        scope = scope.extend({"vars": record("vars", self._kinds(variables))})
        if when is not None:
            scope = scope.narrow(when.when_true)
        has_call = head.kind in ("invite", "socket", "")
        path = Path(scope, call=has_call, request=head.kind in ("invite", "register", *REQUESTS, ""))
        do = self.steps.block(node.entries["do"][1], path, Around()) if "do" in node else ()
        if head.kind == "call":
            self._demand_what_is_read()
        after = scope.extend({name: optional(type) for name, type in self.steps.results.items()})
        return Flow(
            name=head.name,
            trigger=trigger,
            do=do,
            place=head.place,
            when=when,
            vars=variables,
            params=head.param_words,
            on_error=self._block("on_error", Path(after.extend({"error": ERROR}), call=has_call), Around()),
            on_end=self._block("on_end", self._end_path(after), Around(on_end=True)),
            mode=self._text("mode", scope) or "parallel",
            max=constant_of(self._value("max", scope)) or 0,
            key=key,
            max_duration=self._value("max_duration", scope),
            description=constant_of(self._value("description", scope)) or "",
        )

    def _kinds(self, variables: dict[str, Any]) -> dict[str, Type]:
        """Types of variables, with the origin of whatever any step of the flow puts into them."""
        names, flow = self.names, self.head.name
        return {name: names.assumed(("vars", flow, name), _kept(type_of(v))) for name, v in variables.items()}

    def _demand_what_is_read(self) -> None:
        """A flow that is called and reads `call` needs one, unless it originates it."""
        for root in {"call", "request", "refer"} & self.values.reads:
            if root not in self.steps.provided:
                self.steps.demands.needs.setdefault(root, f"{root}.…")

    def _scope(self) -> Scope:
        """Root names at the start of the flow, without its variables."""
        head, names = self.head, dict(self.names.names())
        match head.kind:
            case "invite" | "socket":
                names["call"] = CALL
            case kind if kind == "register" or kind in REQUESTS:
                names["request"] = REQUEST
                if kind == "refer":
                    names |= {"refer": REFER, "call": optional(CALL)}
            case "event" if head.event is not None:
                names["event"] = event_type(head.event)
            case "call":
                given = {n: self.names.assumed(("params", head.name, n), t) for n, t in head.params.items()}
                names |= {"call": CALL, "request": REQUEST, "refer": REFER, "params": record("params", given)}
            case "":
                names |= dict.fromkeys(("call", "request", "refer", "event"), ANY)
        return Scope(names, hints=self._hint, flow=head.name)

    def _hint(self, name: str) -> str | None:
        """Why a name of the language is not known here."""
        if name == "call":
            return f"this flow runs on {self.head.runs_on}: there is no call before originate:"
        if name == "request":
            return "request is known in flows on: register, message and other requests but invite"
        if name == "event":
            return "event is known under do: of subscribe, in branches of first_of, and in flows started by an event"
        if name == "refer":
            return "refer is known in flows on: refer"
        if name in _kept_names(self.head.node):
            return f"{name} is set by as: on another way through the flow, or further down"
        return None

    def _trigger(self) -> Trigger:
        node, head = self.head.node.get("on"), self.head
        if head.kind == "every" and isinstance(node, Entries):
            return Trigger("every", every=self._period(node.entries["every"][1]))
        if head.kind == "socket" and isinstance(node, Entries):
            return Trigger("socket", pattern=self._pattern(node.entries["socket"][1]))
        if node is None or head.event is None:
            return Trigger(head.kind or "call")
        where = node.get("where") if isinstance(node, Entries) else None
        outer = Scope(self.names.names(), hints=self._hint, flow=head.name)
        found = filters.where(self.values, where, head.event, outer) if where is not None else None
        if head.event.name == "fs" and constant_of(found.equals.get("name") if found else None) is None:
            help = "write  on: {event: fs, where: {name: HEARTBEAT}}"
            self.head.report.error("E115", "on: fs needs the name of the FreeSWITCH event", node, help)
        return Trigger("event", head.event.name, found)

    def _pattern(self, node: Node) -> str:
        """Which dialled numbers a socket flow takes: a glob, `*` for all."""
        if isinstance(node, Scalar) and node.text:
            return node.text
        help = "write  on: {socket: '*'}  or a number with * and ?, in quotes"
        self.head.report.error("E103", "socket: takes a pattern of dialled numbers", node, help)
        return ""

    def _period(self, node: Node) -> float:
        """Seconds of a timer."""
        period = self.values.compile(Field("every", Kind.DURATION, ""), node, Scope({}))
        seconds = constant_of(period)
        if seconds is not None and seconds < SHORTEST_PERIOD:
            help = f"the shortest period is {SHORTEST_PERIOD * 1000:g}ms"
            self.head.report.error("E106", "this timer would run all the time", node, help)
        return seconds or 0.0

    def _variables(self, scope: Scope) -> dict[str, Any]:
        """First values; each fixes the type of its variable."""
        node = self.head.node.get("vars")
        entries = as_entries(self.head.report, node, "vars:") if node is not None else None
        found: dict[str, Any] = {}
        for key, item in entries or ():
            usable = self.values.declared(key, "a variable", (*WORDS, *ROOTS))
            value = self.values.any_value(item, scope, durations=True)
            if value is None or not usable:
                found[key.text] = Constant(None, ANY)  # so that nothing follows from this mistake
                continue
            type = type_of(value)
            if type.kind == "null":
                help = "a variable keeps the type of its first value: write '' or 0 or false"
                self.head.report.error("E106", f"variable {key.text!r} needs a first value", key, help)
                found[key.text] = Constant(None, ANY)
            elif type.optional:
                help = "give a default with ??"
                self.head.report.error("E208", f"the first value of {key.text!r} may be missing", item, help)
                found[key.text] = Constant(None, ANY)
            else:
                found[key.text] = value
        return found

    def _end_path(self, scope: Scope) -> Path:
        """`on_end`: a flow that originates its call has one then."""
        if "call" not in scope.names:
            scope = scope.extend({"call": CALL})
        return Path(scope, call=True)

    def _block(self, name: str, path: Path, around: Around) -> Block | None:
        node = self.head.node.get(name)
        return self.steps.block(node, path, around) if node is not None else None

    def _value(self, name: str, scope: Scope) -> Any:
        node = self.head.node.get(name)
        return self.values.compile(FIELDS[name], node, scope) if node is not None else None

    def _text(self, name: str, scope: Scope) -> str:
        found = self._value(name, scope)
        return found if isinstance(found, str) else ""


def _kept_names(node: Node) -> set[str]:
    """Every name that some `as:` gives, wherever it stands."""
    found: set[str] = set()
    todo: list[Node] = [node]
    while todo:
        node = todo.pop()
        if isinstance(node, Entries):
            kept = node.get("as")
            found |= {kept.text} if isinstance(kept, Scalar) else set()
            todo += [value for _, value in node]
        elif isinstance(node, Items):
            todo += node.items
    return found


def _kept(type: Type) -> Type:
    """The type of a variable: one value of an enum does not bind it to the enum."""
    return with_origin(TEXT, type.origin) if type.kind in ("enum", *CHECKED) else type
