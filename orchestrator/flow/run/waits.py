"""What tasks wait for in steps that wait for no event: time, FreeSWITCH, a web service, phones, other tasks (FLOWLANG
§9.4).

Events have subscriptions, which explain lists with their filters. A step that waits for anything else is shown as
written, so that no secret that was filled in comes out, with what it asked for in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket


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


def waits_for(effect: Any, action: str) -> tuple[str, float | None]:
    """What a step waits for, in words, and after how many seconds at most it goes on, where it says so."""
    told = _TOLD.get(type(effect))
    return told(effect) if told is not None else (_OTHERS.get(action, f"the answer to {action}"), None)


def _relay(effect: effects.Relay) -> tuple[str, float | None]:
    where = f" through {effect.via}" if effect.via else ""
    ring = "" if effect.ring is None else f", who ring for {effect.ring:g}s"
    return f"an answer of those called{where}{ring}", None


def _collect(effect: effects.Collect) -> tuple[str, float | None]:
    end = f", {effect.end} ends it" if effect.end else ""
    return f"up to {effect.max} keys of the {effect.leg}, {effect.timeout:g}s for each{end}", None


def _detect(effect: effects.Detect) -> tuple[str, float | None]:
    return f"FreeSWITCH to start listening for {effect.what} on the {effect.leg}", None


def _play(effect: effects.Play) -> tuple[str, float | None]:
    times = f", {effect.repeat} times" if effect.repeat > 1 else ""
    return f"the end of what is played to the {effect.leg}{times}", None


def _record(effect: effects.Record) -> tuple[str, float | None]:
    return f"the end of the recording of {effect.leg}", effect.max


def _http(effect: effects.Http) -> tuple[str, float | None]:
    tries = f", {effect.timeout:g}s for each of {effect.retries + 1} tries" if effect.retries else ""
    return f"the answer to {effect.method}{tries}", None if effect.retries else effect.timeout


def _command(effect: effects.EslCommand) -> tuple[str, float | None]:
    return f"FreeSWITCH {effect.server}".rstrip() + f" to answer {effect.kind}", effect.timeout


def _execute(effect: effects.EslExecute) -> tuple[str, float | None]:
    return f"the end of {effect.app} on the {effect.leg}", effect.timeout


def _originate(effect: effects.Originate) -> tuple[str, float | None]:
    return f"an answer to the call placed through {effect.via or 'FreeSWITCH'}", effect.ring


_TOLD: Mapping[type, Callable[[Any], tuple[str, float | None]]] = {
    effects.Relay: _relay,
    effects.Collect: _collect,
    effects.Detect: _detect,
    effects.Play: _play,
    effects.Record: _record,
    effects.Http: _http,
    effects.EslCommand: _command,
    effects.EslExecute: _execute,
    effects.Originate: _originate,
    effects.Media: lambda effect: (f"FreeSWITCH {effect.server} to hold the caller".replace("  ", " "), None),
    effects.Answer: lambda effect: ("the 200 to the caller", None),
    effects.Transfer: lambda effect: (f"the transfer of the {effect.leg}", None),
}

_OTHERS = {
    "sleep": "the end of the pause",
    "repeat": "the next pass",
    "first_of": "the time of after:",
    "parallel": "its branches",
    "wait": "what runs meanwhile",
}
"""Steps that ask the host for nothing."""
