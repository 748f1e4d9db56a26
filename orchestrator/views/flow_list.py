"""Flows: what begins them, where they stand, how many runs they have, and their steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from orchestrator.core.engine import Engine
from orchestrator.flow.language.program import Branch, Catch, Flow, Step, Trigger
from orchestrator.views.step_counts import StepCount, StepCounts

NEVER: Final = StepCount(0, 0)


def flows(engine: Engine) -> list[dict[str, Any]]:
    """Those of the program, in the order of choice."""
    live = Counter(run.flow.name for run in list(engine.flows.runs.values()))
    return [_row(flow, live[flow.name]) for flow in engine.flows.program.flows]


def find_flow(engine: Engine, name: str) -> Flow | None:
    """The flow of this name in the program that new runs get."""
    return next((flow for flow in engine.flows.program.flows if flow.name == name), None)


def flow_details(engine: Engine, flow: Flow, counts: StepCounts | None = None) -> dict[str, Any]:
    """One flow with its steps, and the lines of its file as they were read; with `counts` how many of the runs looked
    at have come by each step, and failed there."""
    source = engine.flows.program.sources.get(flow.place.file, "").splitlines()
    live = sum(run.flow.name == flow.name for run in list(engine.flows.runs.values()))
    return {
        **_row(flow, live),
        "steps": [_step(step, depth, counts) for step, depth in steps_of(flow)],
        "source": source,
    }


def steps_of(flow: Flow) -> Iterator[tuple[Step, int]]:
    """All steps in the order they are written, with how deep they stand."""
    found = [*_steps(flow.do, 0), *_steps(flow.on_error or (), 0), *_steps(flow.on_end or (), 0)]
    seen: set[int] = set()
    for step, depth in sorted(found, key=lambda entry: (entry[0].place.line, entry[0].place.column)):
        if id(step) not in seen:  # one case of several names
            seen.add(id(step))
            yield step, depth


def _steps(held: Any, depth: int) -> Iterator[tuple[Step, int]]:
    if isinstance(held, Step):
        yield held, depth
        for value in (*held.args.values(), held.on_error):
            yield from _steps(value, depth + 1)
    elif isinstance(held, Branch):
        yield from _steps(held.wait, depth)
        yield from _steps(held.do, depth + 1)
    elif isinstance(held, Catch):
        yield from _steps(held.do, depth)
    elif isinstance(held, dict):
        for value in held.values():
            yield from _steps(value, depth)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from _steps(value, depth)


def _row(flow: Flow, runs: int) -> dict[str, Any]:
    return {
        "name": flow.name,
        "trigger": trigger_text(flow.trigger),
        "file": flow.place.file,
        "line": flow.place.line,
        "runs": runs,
    }


def trigger_text(trigger: Trigger) -> str:
    """`invite`, `event registered`, `every 60s`, `call` for a flow that others call."""
    if trigger.kind == "event":
        return f"event {trigger.event}"
    if trigger.kind == "every":
        return f"every {trigger.every:g}s"
    return f"socket {trigger.pattern}" if trigger.kind == "socket" else trigger.kind


def _step(step: Step, depth: int, counts: StepCounts | None) -> dict[str, Any]:
    count = NEVER if counts is None else counts.lines.get(step.place.line, NEVER)
    counted = {} if counts is None else {"ran": count.ran, "failed": count.failed}
    return {
        **counted,
        "line": step.place.line,
        "depth": depth,
        "action": step.action.name if step.action is not None else "if",
        "text": step.source,
        "id": step.id,
    }
