"""What state the call can be in at each step: the analysis behind "the call may already be answered".

A flow is walked once more, abstractly: instead of one state there is the set of all states a call can have when a
step begins. `new` has no final reply yet, `answered` a 2xx, `closed` a final failure or its end; `unknown` stands for
handlers and for calls we placed ourselves, where nothing is claimed. An empty set means that the step is never
reached (E301). Where ways meet sets are united, loops are walked until nothing new comes in, flows that are called
are walked with the states of their callers. Messages are given only for what holds on the walked ways: definite
mistakes are errors, possible ones warnings. A condition that stands twice holds both times or neither (conditions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.flow.check.conditions import (
    CLOSED,
    NEVER,
    NEW,
    UNKNOWN,
    States,
    asked_again,
    become,
    by_facts,
    calls,
    forget,
    names_set,
    only,
    part,
    with_facts,
    without_facts,
)
from orchestrator.flow.language.declarations import FlowHead
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import REQUESTS, Block, Catch, Flow, Place, Step
from orchestrator.flow.language.registry import CallChange

_OUTCOME = re.compile(r"(?:(not )?call\.answered|(?:\w+\.outcome|call\.state) *(==|!=) *'(\w+)')")
"""Conditions that say whether the call is answered."""


@dataclass(slots=True)
class _Frame:
    """What ends early inside one flow."""

    exits: States = NEVER
    """At stop and return."""
    breaks: list[States] = field(default_factory=list)
    """At break, per loop, the innermost last."""
    seen: list[States] = field(default_factory=list)
    """Every state met inside, per try."""


class StateChecker:
    """Walks the flows of one set."""

    def __init__(
        self, flows: Mapping[str, Flow], heads: Mapping[str, FlowHead], misplaced: Collection[Place] = ()
    ) -> None:
        self.flows = flows
        self.heads = heads
        self.misplaced = misplaced
        """Steps that were refused for their place already; nothing follows from them."""
        self._stack: list[tuple[str, Step]] = []
        """Flows being called, with the call step."""
        self._frame = _Frame()
        self._head: FlowHead | None = None
        self._asked: frozenset[str] = frozenset()
        """Conditions of this flow that stand in it more than once."""
        self._quiet = 0
        self._told: set[tuple[str, int, int, str]] = set()
        self._walked: dict[tuple[str, States, bool], States] = {}
        """States after a called flow, by those before; a quiet walk has said nothing yet."""
        self._rules: dict[str, Callable[[Step, States], States]] = {
            "auth": self._auth,
            "transfer": self._transfer,
            "subscribe": self._subscribe,
            "wait": self._wait,
            "first_of": self._first_of,
            "charge": self._outcomes,
            "switch": self._switch,
            "foreach": self._loop,
            "repeat": self._loop,
            "parallel": self._parallel,
            "try": self._try,
            "call": self._call,
        }

    def check(self) -> None:
        """Walk every flow that something starts, then those nobody calls; none whose trigger is not known."""
        kinds = {name: head.kind if "do" in head.node else "" for name, head in self.heads.items()}
        for name, flow in self.flows.items():
            if kinds[name] not in ("call", ""):
                self._flow(flow, NEW if kinds[name] in ("invite", "register", *REQUESTS) else UNKNOWN)
        for name, flow in self.flows.items():
            if kinds[name] == "call" and not any(walked == name for walked, _, _ in self._walked):
                self._flow(flow, UNKNOWN)

    def _flow(self, flow: Flow, start: States) -> None:
        self._head, self._frame, self._asked = self.heads[flow.name], _Frame(), _asked(flow)
        end = self._block(flow.do, start) | self._frame.exits
        if flow.trigger.kind == "register" and "new" in calls(end):
            help = "end every way with register: or reply:"
            message = f"flow {flow.name!r} can end without answering the REGISTER"
            self._head.report.add("W302", message, flow.place, help, length=len(flow.name))
        if flow.on_error:
            self._block(flow.on_error, UNKNOWN)
        if flow.on_end:
            self._block(flow.on_end, end or UNKNOWN)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _block(self, block: Block, states: States) -> States:
        """The states after these steps."""
        before: Step | None = None
        for step in block:
            if not states:
                if before is not None:
                    self._unreachable(step, before)
                return NEVER
            states = self._step(step, states)
            self._frame.seen = [seen | states for seen in self._frame.seen]
            before = step
        return states

    def _unreachable(self, step: Step, before: Step) -> None:
        effect = before.action.effect if before.action else CallChange.NONE
        help = {
            CallChange.ENDS_FLOW: "the step before it always ends the flow",
            CallChange.LEAVES_LOOP: "the step before it always leaves the loop",
        }.get(effect, "no way through the step before it leads here")
        self._tell("E301", "this step can never run", step, help, len(step.source))

    def _step(self, step: Step, states: States) -> States:
        source = getattr(step.condition, "source", "")
        taken, skipped = (states, NEVER) if step.condition is None else self._split(source, states)
        if step.action is None:
            after = self._block(step.args["then"], taken) | self._block(step.args.get("else", ()), skipped)
        else:
            after = (self._act(step, taken) if taken else NEVER) | skipped
        if step.on_error is not None:
            failed = taken if step.action is not None and step.action.effect is CallChange.ANSWERS else taken | after
            after |= self._block(step.on_error, failed)
        return forget(after, names_set(step))

    def _split(self, source: str, states: States) -> tuple[States, States]:
        """States where a condition is true, and where it is false."""
        yes, no = part(states, source, self._asked)
        return _by_source(source, yes)[0], _by_source(source, no)[1]

    def _act(self, step: Step, states: States) -> States:
        assert step.action is not None
        if step.place in self.misplaced:
            return states
        rule = self._rules.get(step.action.name)
        if rule is not None:
            return rule(step, states)
        match step.action.effect:
            case CallChange.REPLIES:
                return self._reply(step, states)
            case CallChange.RELAYS:
                return self._outcomes(step, states) if self._may_reply(step, states) else states
            case CallChange.ANSWERS:
                return self._answer(step, states)
            case CallChange.ENDS_CALL:
                return become(states, "closed")
            case CallChange.ENDS_FLOW:
                if step.action.name != "fail":
                    self._frame.exits |= states
                return NEVER
            case CallChange.LEAVES_LOOP:
                if not self._frame.breaks:
                    return states
                self._frame.breaks[-1] |= states
                return NEVER
        if step.action.provides == "call":
            return forget(become(states, "unknown"), ("call",))
        return states.union(*(self._block(block, states) for block in _blocks(step.args)))

    # --- replies ----------------------------------------------------------------------------------------------------

    def _may_reply(self, step: Step, states: States) -> bool:
        """Whether a final reply, or what may lead to one, is possible; says so when it is not, or not surely."""
        assert step.action is not None
        name = step.action.name
        known = calls(states)
        if known <= {"closed"} or known <= {"answered"}:
            help = "transfer: answers the REFER, too" if self._answered_by_transfer else ""
            self._tell("E302", "the request was already answered with a final reply", step, help, len(name))
            return False
        if "answered" in known and self._takes_calls:
            help = "put it under on: of the relay above (for example  on: {else: [...]}), or stop after an answer"
            self._tell("W301", f"the call may already be answered when this {name}: runs", step, help, len(name))
        elif not known.isdisjoint(("closed", "answered")):
            message = f"the request may already be answered when this {name}: runs"
            help = f"stop after the {'transfer or reply' if self._answered_by_transfer else 'reply'} above"
            self._tell("W301", message, step, help, len(name))
        return True

    def _reply(self, step: Step, states: States) -> States:
        """`reply`, and `register`, which has no code and is final."""
        code = constant_of(step.args.get("code"))
        if step.action is not None and step.action.field("code") is None:
            code = 200
        if not isinstance(code, int):
            return states | become(states, "unknown")
        if code < 200 and not self._takes_calls:
            message = f"reply: {code} is provisional, and only an INVITE has provisional replies"
            self._tell("E303", message, step, "write a final code, 200 to 699", len("reply"))
            return states
        if not self._may_reply(step, states) or code < 200:
            return states
        answered = code < 300 and "new" in calls(states) and self._takes_calls
        return become(states, "answered" if answered else "closed")

    @property
    def _takes_calls(self) -> bool:
        return self._head is not None and self._head.kind not in ("register", *REQUESTS)

    def _answer(self, step: Step, states: States) -> States:
        """`answer`, and `media`, which answers when it says so. Both do nothing new on an answered call."""
        wanted = step.args.get("answer")
        always = step.action is not None and step.action.field("answer") is None
        if calls(states) <= {"closed"}:
            self._may_reply(step, states)
            return states
        if always or constant_of(wanted) is True:
            return become(states, "answered")
        return states | become(states, "answered") if wanted is not None and constant_of(wanted) is None else states

    # --- ways that part ---------------------------------------------------------------------------------------------

    def _outcomes(self, step: Step, states: States) -> States:
        """`relay` and `charge`: one outcome of those the action has; the first one is the good one.

        A call that was cancelled meanwhile has ended: nothing runs after it but what says `cancelled:` itself.
        """
        assert step.action is not None
        field = step.action.field("on")
        entries: Mapping[str, Block] = step.args.get("on", {})
        relays = step.action.effect is CallChange.RELAYS
        after = NEVER
        for outcome in field.values if field else ():
            start = become(states, _AFTER_RELAY.get(outcome, "new")) if relays else states
            block = entries.get(outcome)
            good = field is not None and outcome == field.values[0]
            if block is None and not good and outcome != "cancelled":
                block = entries.get("else")
            if block is not None and outcome == "cancelled":
                self._block(block, start)  # the call is over: nothing runs behind these steps
            elif block is not None:
                after |= self._block(block, start)
            elif good or (relays and outcome != "cancelled"):
                after |= start
        return after

    @property
    def _answered_by_transfer(self) -> bool:
        """In a flow on: refer, transfer: accepts the REFER."""
        return self._head is not None and self._head.kind == "refer"

    def _transfer(self, step: Step, states: States) -> States:
        return become(states, "closed") if self._answered_by_transfer else states

    def _auth(self, step: Step, states: States) -> States:
        self._aside(step.args.get("on_fail", ()), CLOSED)
        return states

    def _subscribe(self, step: Step, states: States) -> States:
        self._aside(step.args.get("do", ()), UNKNOWN)
        self._aside(step.args.get("on_expire", ()), UNKNOWN)
        return states

    def _aside(self, block: Block, states: States) -> None:
        """Steps that the flow does not continue behind."""
        frame, self._frame = self._frame, _Frame()
        self._block(block, states)
        self._frame = frame

    def _wait(self, step: Step, states: States) -> States:
        states = self._block(step.args.get("meanwhile", ()), states) or states
        late = step.args.get("on_timeout")
        return states if late is None else states | self._block(late, states)

    def _first_of(self, step: Step, states: States) -> States:
        if not step.args["branches"]:
            return states
        return NEVER.union(*(self._block(branch.do, states) for branch in step.args["branches"]))

    def _switch(self, step: Step, states: States) -> States:
        after, rest = NEVER, states
        source = getattr(step.args.get("value"), "source", "")
        for value, block in step.args.get("cases", {}).items():
            taken, rest = self._split(f"{source} == '{value}'", rest)
            after |= self._block(block, taken)
        return after | self._block(step.args.get("default", ()), rest)

    def _loop(self, step: Step, states: States) -> States:
        """Any number of passes: states at the head grow until a pass adds none, then messages are given."""
        head = states
        self._quiet += 1
        while True:
            grown = head | self._pass(step, head)[0]
            if grown == head:
                break
            head = grown
        self._quiet -= 1
        after, broken = self._pass(step, head)
        return head | after | broken

    def _pass(self, step: Step, states: States) -> tuple[States, States]:
        """States after one pass, and those of its breaks."""
        states = forget(states, {step.args.get("item", "item")})
        self._frame.breaks.append(NEVER)
        after = self._block(step.args["do"], states)
        return after, self._frame.breaks.pop()

    def _parallel(self, step: Step, states: States) -> States:
        ends = [self._block(block, states) for block in step.args["branches"]] or [states]
        if step.args.get("wait_for") != "first" and not all(ends):
            return NEVER
        return NEVER.union(*ends)

    def _try(self, step: Step, states: States) -> States:
        self._frame.seen.append(states)
        after = self._block(step.args["do"], states)
        seen = self._frame.seen.pop()
        catches: tuple[Catch, ...] = step.args.get("catch", ())
        after = after.union(*(self._block(catch.do, seen) for catch in catches))
        if "finally" in step.args:
            last = self._block(step.args["finally"], after or seen)
            return last if after else NEVER
        return after

    def _call(self, step: Step, states: States) -> States:
        """Walk the other flow with the states of here; a circle is reported elsewhere."""
        name = step.args.get("flow", "")
        flow = self.flows.get(name)
        if flow is None or any(name == called for called, _ in self._stack):
            return states
        after = self._called(flow, step, without_facts(states))
        ways = by_facts(states)
        if len(ways) == 1:
            return with_facts(after, *ways)
        self._quiet += 1  # everything has been said; what each way leads to is still to be known
        ends = [with_facts(self._called(flow, step, without_facts(way)), facts) for facts, way in ways.items()]
        self._quiet -= 1
        return NEVER.union(*ends)

    def _called(self, flow: Flow, step: Step, states: States) -> States:
        key = (flow.name, states, self._quiet > 0)
        if (known := self._walked.get(key)) is not None:
            return known
        self._stack.append((flow.name, step))
        outside = self._head, self._frame, self._asked
        self._head, self._frame, self._asked = self.heads[flow.name], _Frame(), _asked(flow)
        after = self._block(flow.do, states) | self._frame.exits
        if flow.on_error:
            after |= self._block(flow.on_error, UNKNOWN)
        self._head, self._frame, self._asked = outside
        self._stack.pop()
        self._walked[key] = without_facts(after)
        return self._walked[key]

    # --- messages ---------------------------------------------------------------------------------------------------

    def _tell(self, code: str, message: str, step: Step, help: str, length: int) -> None:
        place = step.place
        key = (place.file, place.line, place.column, code)
        if self._quiet or self._head is None or key in self._told:
            return
        self._told.add(key)
        notes = (f"in the call at {self._stack[-1][1].place}",) if self._stack else ()
        self._head.report.add(code, message, place, help, length=length, notes=notes)


_AFTER_RELAY = {"answered": "answered", "cancelled": "closed"}
"""State of the call after an outcome; every other one leaves it without a final reply."""


def _asked(flow: Flow) -> frozenset[str]:
    return asked_again(flow.do, flow.on_error or (), flow.on_end or ())


def _by_source(source: str, states: States) -> tuple[States, States]:
    """States where a condition about the outcome is true, and where it is false."""
    match = _OUTCOME.fullmatch(source.strip())
    if match is None or not states:
        return states, states
    negated, operator, value = match.groups()
    no = only(states, ("new", "closed", "unknown")) or states  # what looks impossible is not held against the author
    if value is not None and value != "answered":
        return (no, states) if operator == "==" else (states, no)
    yes = only(states, ("answered", "unknown")) or become(states, "answered")
    return (no, yes) if negated or operator == "!=" else (yes, no)


def _blocks(args: Mapping[str, Any]) -> Iterator[Block]:
    """Step lists among the arguments of an action this version does not know."""
    for value in args.values():
        if isinstance(value, tuple) and value and isinstance(value[0], Step):
            yield value
