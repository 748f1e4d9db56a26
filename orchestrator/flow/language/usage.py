"""What a program listens to: every event a trigger, `subscribe` or `wait` names, so that nobody has to list it a
second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import Branch, Catch, Program, Step, Trigger


@dataclass(frozen=True, slots=True)
class Usage:
    events: frozenset[str]
    """Names of the catalogue and of `events:`, and those the actions used `listen` for."""
    fs: frozenset[str]
    """What `name:` of the event `fs` asks for: an Event-Name or a CUSTOM subclass."""


def usage_of(program: Program) -> Usage:
    """All events the flows of a program can take."""
    events: set[str] = set()
    fs: set[str] = set()
    for flow in program.flows:
        if flow.trigger.kind == "event":
            events.add(flow.trigger.event)
            fs |= _fs_names(flow.trigger)
        for step in steps_of((flow.do, flow.on_error or (), flow.on_end or ())):
            event = step.args.get("event")
            events.update(step.action.listens if step.action is not None else ())
            if step.action is None or not isinstance(event, str) or not step.action.hears:
                continue
            events.add(event)
            name = step.args.get("name")
            if event == "fs" and isinstance(name, str):
                fs.add(name)
    return Usage(frozenset(events), frozenset(fs))


def _fs_names(trigger: Trigger) -> set[str]:
    """What `on: {event: fs, where: {name: …}}` asks for; the checker lets only a fixed name through."""
    if trigger.event != "fs" or trigger.where is None:
        return set()
    name = constant_of(trigger.where.equals.get("name"))
    return {name} if isinstance(name, str) else set()


def steps_of(value: Any) -> Iterator[Step]:
    """Every step inside a compiled value, depth first."""
    if isinstance(value, Step):
        yield value
        yield from steps_of((value.args, value.on_error or ()))
    elif isinstance(value, Branch):
        yield from steps_of((value.wait or (), value.do))
    elif isinstance(value, Catch):
        yield from steps_of(value.do)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from steps_of(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from steps_of(item)
