"""What tasks wait for in steps that wait for no event: time, FreeSWITCH, a web service, phones, other tasks (FLOWLANG
§9.4).

Events have subscriptions, which explain lists with their filters. A step that waits for anything else is shown as
written, so that no secret that was filled in comes out, with what it asked for in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket
from orchestrator.flow.run.traits import Effect, WaitsFor


def waiting_steps(run: Run, now: float, events: frozenset[Ticket]) -> Iterator[dict[str, Any]]:
    """The steps of a run in which a task waits, one JSON object each. `events` are the tickets of armed waits, which
    have entries of their own."""
    for task in run.tasks:
        ticket, step = task.ticket, task.step
        if ticket is None or step is None or step.action is None or ticket in events:
            continue
        what, bound = waits_for(ticket.effect, step.action.name)
        due = ticket.due if bound is None else task.since + bound
        yield {
            "name": f"{run.name}/{step.id or step.action.name}",
            "kind": "step",
            "run": run.name,
            "id": step.id or "",
            "step": step.source,
            "file": step.place.file,
            "line": step.place.line,
            "task": task.label,
            "waits_for": what,
            "since": round(max(0.0, now - task.since), 3),
            "expires_in": None if due is None else round(max(0.0, due - now), 3),
        }


def waiting_lines(waiting: Mapping[str, Any]) -> Iterator[str]:
    """One of them for people."""
    yield f"{waiting['name']}  waits for {waiting['waits_for']}  ({waiting['file']}:{waiting['line']})"
    left = waiting["expires_in"]
    bound = "" if left is None else f", {left:.1f}s more at most"
    yield f"    since {waiting['since']:.1f}s{bound}, in  {waiting['step']}"


def waits_for(effect: Effect | None, action: str) -> WaitsFor:
    """What a step waits for: as its effect says, where it has asked the host for one."""
    told = effect.waits_for() if effect is not None else None
    return told if told is not None else (_OTHERS.get(action, f"the answer to {action}"), None)


_OTHERS = {
    "sleep": "the end of the pause",
    "repeat": "the next pass",
    "first_of": "the time of after:",
    "parallel": "its branches",
    "wait": "what runs meanwhile",
}
"""Steps that ask the host for nothing."""
