"""What installed packages add to the language: actions and events, through entry points.

    [project.entry-points."orchestrator.actions"]
    sms = "orchestrator_sms:SEND"              # an Action, or several
    [project.entry-points."orchestrator.events"]
    sms = "orchestrator_sms:EVENTS"            # an EventSpec, or several

They are loaded once, when the first flow file is, and are then like those built in: checked, completed by the editor,
run. An action's handler yields effects (`orchestrator.flow.run.effects`); an event is published on the engine's bus by
whoever makes it. A package that cannot be loaded, or takes a name that is there, is named and nothing is started:
flows that need it could not be checked.
"""

from __future__ import annotations

from functools import cache

from orchestrator.events.event import EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.registry import ACTIONS, Action, Actions, Kind
from orchestrator.packages.groups import ACTION_GROUP, EVENT_GROUP, Find, installed, load_group, unusable

_BUILT_IN = frozenset(
    (Kind.BRANCHES, Kind.CASES, Kind.CATCHES, Kind.ASSIGN, Kind.DATA, Kind.FLOW, Kind.SUBSCRIPTION, Kind.SECRET)
)
"""Kinds of keys that only control structures of the language have: nothing would compile them for a package."""


@cache
def known_events() -> tuple[EventSpec, ...]:
    """The events built in and those of packages; the actions of packages are in `ACTIONS` from then on.

    Raises:
        OrchestratorError: a package cannot be used.
    """
    return load_packages(installed, ACTIONS)


def load_packages(find: Find, actions: Actions) -> tuple[EventSpec, ...]:
    """Add the actions of packages to `actions`; returns all events. Raises OrchestratorError."""
    for entry, action in load_group(find, ACTION_GROUP, Action):
        if flaw := _flaw(action):
            raise unusable(entry, ACTION_GROUP, flaw)
        if actions.get(action.name) is not action:  # a module may have added it when it was imported
            try:
                actions.add(action)
            except ValueError as error:
                raise unusable(entry, ACTION_GROUP, str(error)) from None
    events = {spec.name: spec for spec in BUILTIN_EVENTS}
    for entry, spec in load_group(find, EVENT_GROUP, EventSpec):
        if spec.name in events:
            raise unusable(entry, EVENT_GROUP, f"event {spec.name!r} is defined twice")
        events[spec.name] = spec
    return tuple(events.values())


def _flaw(action: Action) -> str:
    """Why an action of a package would not work, '' when it would."""
    for field in (*action.fields, *action.beside):
        if field.kind in _BUILT_IN or (field.kind in (Kind.EVENT, Kind.WHERE) and not action.hears):
            needs = "hears=True" if field.kind in (Kind.EVENT, Kind.WHERE) else "another kind"
            return f"key {field.name!r} of action {action.name!r} is of kind {field.kind.value!r}: it needs {needs}"
    return ""
