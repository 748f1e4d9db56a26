"""What only all flows of a set together show: circles of calls, demands of called flows, flows never reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from orchestrator.flow.check.flows import FlowChecker
from orchestrator.flow.check.overlap import Condition, Groups
from orchestrator.flow.check.steps import IN_ON_END, NEEDS, OF_A_CALL, SUITABLE, CallSite, StepChecker
from orchestrator.flow.language.declarations import FlowHead
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.language.yaml import Scalar

MAX_CALLS = 16
"""Flows inside flows (FLOWLANG §5), which the engine counts as well."""

FIRST_FIT = {kind: kind.upper() for kind in ("invite", "register", *REQUESTS)}
"""Triggers of which the first fitting flow takes the request."""


def check_reach(heads: Iterable[FlowHead], groups: Groups) -> None:
    """W305: flows whose requests, all or some of them, are taken by a flow above."""
    above: dict[str, list[tuple[FlowHead, Condition | None]]] = {}
    for head in heads:
        if head.kind not in FIRST_FIT:
            continue
        node = head.node.get("when")
        condition = Condition(node.text, groups) if isinstance(node, Scalar) else None
        others = above.setdefault(head.kind, [])
        if node is None or condition is not None:
            _judge_reach(head, condition, others)
            others.append((head, condition))


def _judge_reach(
    head: FlowHead, condition: Condition | None, others: Iterable[tuple[FlowHead, Condition | None]]
) -> None:
    for first, when in others:
        if when is None or (condition is not None and condition.implies(when)):
            what = f"every {FIRST_FIT[head.kind]}" if when is None else "what it would take"
            message = f"flow {head.name!r} is never reached: {first.name!r} above takes {what}"
            cure = "a when:" if when is None else "another when:"
            help = f"move {head.name!r} above {first.name!r}, or give {first.name!r} {cure}"
            head.report.warning("W305", message, head.key, help)
            return
    for first, when in others:
        taken = condition.taken(when) if condition is not None and when is not None else []
        if taken:
            message = f"flow {head.name!r} is never reached for {', '.join(taken)}: {first.name!r} above takes it"
            help = f"move {head.name!r} above {first.name!r}, or let only one of them name it"
            head.report.warning("W305", message, head.key, help)
            return


def check_calls(checkers: Mapping[str, FlowChecker]) -> None:
    """E305, and what flows that are called demand of their callers."""
    sites = [site for checker in checkers.values() for site in checker.steps.sites]
    circular = _circles(checkers, sites)
    for site in sites:
        if site.missing and (site.caller.name, site.callee.name) not in circular:
            site.caller.report.error("E115", f"call: needs {site.missing}", site.key)
    _spread(checkers, sites)
    for site in sites:
        _judge(checkers[site.caller.name].steps, checkers[site.callee.name].steps, site)


def _circles(checkers: Mapping[str, FlowChecker], sites: list[CallSite]) -> set[tuple[str, str]]:
    """Report each call that closes a circle; gives the calls (caller, callee) that are part of one."""
    calls: dict[str, list[CallSite]] = {name: [] for name in checkers}
    for site in sites:
        calls[site.caller.name].append(site)
    circular: set[tuple[str, str]] = set()
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if len(way) > MAX_CALLS:
            message = f"flows call each other more than {MAX_CALLS} deep, from {way[0]!r} to {name!r}"
            checkers[name].head.report.error("E202", message, checkers[name].head.key, "call them one after the other")
            done.add(name)
            return
        for site in calls[name]:
            callee = site.callee.name
            if callee in way:
                circle = [*way[way.index(callee) :], callee]
                circular.update(pairwise(circle))
                message = f"flows call each other in a circle: {' -> '.join(circle)}"
                site.caller.report.error("E305", message, site.target, "break the circle; use repeat: for loops")
            elif callee not in done:
                visit(callee, [*way, callee])
        done.add(name)

    for name in checkers:
        if name not in done:
            visit(name, [name])
    return circular


def _spread(checkers: Mapping[str, FlowChecker], sites: list[CallSite]) -> None:
    """What a called flow demands, its caller demands too, unless it has it to give."""
    changed = True
    while changed:
        changed = False
        for site in sites:
            if site.caller.kind != "call":
                continue
            mine, theirs = checkers[site.caller.name].steps.demands, checkers[site.callee.name].steps.demands
            for need, who in theirs.needs.items():
                if need not in mine.needs and not (need in OF_A_CALL and site.call):
                    mine.needs[need] = who
                    changed = True
            if theirs.not_in_on_end and not mine.not_in_on_end:
                mine.not_in_on_end = theirs.not_in_on_end
                changed = True


def _judge(callers: StepChecker, callee: StepChecker, site: CallSite) -> None:
    """Whether the flow that is called can work where the call stands."""
    caller, name = site.caller, site.callee.name
    if not caller.kind:
        return
    if site.on_end and callee.demands.not_in_on_end:
        who = callee.demands.not_in_on_end
        message = f"call: flow {name!r} uses {who}:, which cannot be used in on_end, the call is already over"
        caller.report.error("E304", message, site.key, IN_ON_END)
        return
    for need, who in callee.demands.needs.items():
        given = (need in OF_A_CALL and site.call) or (need != "call" and caller.kind in SUITABLE[need])
        if caller.kind != "call" and not given:
            word, help = NEEDS[need]
            message = f"call: flow {name!r} needs {word} ({who}), but this flow runs on {caller.runs_on}"
            caller.report.error("E303", message, site.key, help)
            callers.misplaced.add(caller.report.place(site.key))


def check_subscriptions(checkers: Mapping[str, FlowChecker]) -> None:
    """E118: `unsubscribe` of an id that no subscribe step has. A called flow may name those of its callers."""
    everywhere: dict[str, Scalar] = {}
    for checker in checkers.values():
        everywhere |= checker.steps.subscriptions
    for checker in checkers.values():
        known = everywhere if checker.head.kind == "call" else _with_called(checkers, checker)
        for scalar in checker.steps.ended:
            checker.values.known(scalar, "subscription", known)


def _with_called(checkers: Mapping[str, FlowChecker], checker: FlowChecker) -> dict[str, Scalar]:
    """Ids of a flow and of the flows it calls, however deep."""
    found: dict[str, Scalar] = {}
    todo, seen = [checker], set[str]()
    while todo:
        each = todo.pop()
        if each.head.name not in seen:
            seen.add(each.head.name)
            found |= each.steps.subscriptions
            todo += [checkers[site.callee.name] for site in each.steps.sites]
    return found
