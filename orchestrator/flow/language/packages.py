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

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Protocol, TypeVar

from orchestrator.errors import OrchestratorError
from orchestrator.events.event import EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.registry import ACTIONS, Action, Actions

ACTION_GROUP = "orchestrator.actions"
EVENT_GROUP = "orchestrator.events"

T = TypeVar("T")


class EntryPoint(Protocol):
    """As `importlib.metadata` has it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    def load(self) -> Any: ...


Find = Callable[[str], Iterable[EntryPoint]]
"""Group → its entry points."""


@cache
def known_events() -> tuple[EventSpec, ...]:
    """The events built in and those of packages; the actions of packages are in `ACTIONS` from then on.

    Raises:
        OrchestratorError: a package cannot be used.
    """
    return load_packages(_installed, ACTIONS)


def load_packages(find: Find, actions: Actions) -> tuple[EventSpec, ...]:
    """Add the actions of packages to `actions`; returns all events. Raises OrchestratorError."""
    for entry, action in _each(find, ACTION_GROUP, Action):
        if actions.get(action.name) is not action:  # a module may have added it when it was imported
            try:
                actions.add(action)
            except ValueError as error:
                raise _unusable(entry, ACTION_GROUP, str(error)) from None
    events = {spec.name: spec for spec in BUILTIN_EVENTS}
    for entry, spec in _each(find, EVENT_GROUP, EventSpec):
        if spec.name in events:
            raise _unusable(entry, EVENT_GROUP, f"event {spec.name!r} is defined twice")
        events[spec.name] = spec
    return tuple(events.values())


def _installed(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # it loads what reads the network: for those who load flows only

    return entry_points(group=group)


def _each(find: Find, group: str, kind: type[T]) -> Iterable[tuple[EntryPoint, T]]:
    """Everything the entry points of a group stand for, in order of their names."""
    for entry in sorted(find(group), key=lambda entry: entry.name):
        try:
            found = entry.load()
        except Exception as error:
            raise _unusable(entry, group, f"{type(error).__name__}: {error}") from error
        for item in (found,) if isinstance(found, kind) else found if isinstance(found, list | tuple) else (None,):
            if not isinstance(item, kind):
                raise _unusable(entry, group, f"it is no {kind.__name__}")
            yield entry, item


def _unusable(entry: EntryPoint, group: str, reason: str) -> OrchestratorError:
    return OrchestratorError(f"the package behind {entry.name} = {entry.value} ({group}) cannot be used: {reason}")
