"""The entry points that other packages may have, and how they are loaded.

    [project.entry-points."orchestrator.actions"]
    sms = "orchestrator_sms:SEND"

A package that cannot be loaded, or is not what its group asks for, is named in one `OrchestratorError`: nothing is
started without something that the files of a site may need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from orchestrator.errors import OrchestratorError

ACTION_GROUP = "orchestrator.actions"
"""An `Action` of flows, or several (flow.language.registry); docs/extending/action.md."""
EVENT_GROUP = "orchestrator.events"
"""An `EventSpec`, or several (events.event); docs/extending/event_source.md."""
PUSH_GROUP = "orchestrator.push"
"""A `PushServiceKind` (packages.push_service), under its own name; docs/extending/push_service.md."""
SERVICE_GROUP = "orchestrator.services"
"""A `Service` (packages.service), under its own name; docs/extending/service.md."""
SINK_GROUP = "orchestrator.sinks"
"""A `SinkKind` (packages.sink), under its own name; docs/extending/sink.md."""
STORE_GROUP = "orchestrator.location_stores"
"""A `StoreKind` (packages.location_store), under its own name; docs/extending/location_store.md."""
TRANSPORT_GROUP = "orchestrator.transports"
"""A `TransportKind` (packages.transport), under its own name; docs/extending/transport.md."""
USER_GROUP = "orchestrator.user_sources"
"""A `UserSourceKind` (packages.user_source), under its own name; docs/extending/user_source.md."""

T = TypeVar("T")


class EntryPoint(Protocol):
    """As `importlib.metadata` has it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    def load(self) -> Any: ...


class Declaration(Protocol):
    """What an entry point of its own name stands for."""

    @property
    def name(self) -> str: ...


D = TypeVar("D", bound=Declaration)
Find = Callable[[str], Iterable[EntryPoint]]
"""Group → its entry points."""


def installed(group: str) -> Iterable[EntryPoint]:
    """The entry points of a group, in order of their names."""
    from importlib.metadata import entry_points  # it loads what reads the network: for those who look for packages only

    return sorted(entry_points(group=group), key=lambda entry: entry.name)


def load_entry(entry: EntryPoint, group: str) -> Any:
    """What an entry point stands for. Raises OrchestratorError, whatever the package raises."""
    try:
        return entry.load()
    except Exception as error:
        raise unusable(entry, group, f"{type(error).__name__}: {error}") from error


def load_group(find: Find, group: str, kind: type[T]) -> Iterator[tuple[EntryPoint, T]]:
    """Everything the entry points of a group stand for, one `kind` or a list of them each. Raises OrchestratorError."""
    for entry in sorted(find(group), key=lambda entry: entry.name):
        found = load_entry(entry, group)
        for item in (found,) if isinstance(found, kind) else found if isinstance(found, list | tuple) else (None,):
            if not isinstance(item, kind):
                raise unusable(entry, group, f"it is no {kind.__name__}")
            yield entry, item


def load_named(find: Find, group: str, name: str, kind: type[D], what: str) -> D | None:
    """What the one entry point of that name stands for; `what` says what it is in errors. None when there is none.
    Raises OrchestratorError: it cannot be used."""
    entries = [entry for entry in find(group) if entry.name == name]
    if not entries:
        return None
    if len(entries) > 1:
        raise unusable(entries[1], group, f"{entries[0].value} has a {what} {name!r}, too")
    found = load_entry(entries[0], group)
    if not isinstance(found, kind):
        raise unusable(entries[0], group, f"it is no {kind.__name__}")
    if found.name != name:
        raise unusable(entries[0], group, f"the {what} is named {found.name!r}")
    return found


def check_name(name: str, what: str) -> None:
    """Raises ValueError: it cannot be the name of an entry point that the configuration names."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise ValueError(f"{name!r} cannot be the name of a {what}: use small letters, digits and _")


def check_settings(own: Collection[str], ours: Iterable[str], what: str, section: str) -> None:
    """Raises ValueError: a setting of a package has the name of a key that its section has for all packages."""
    for key in ours:
        if key in own:
            raise ValueError(f"the {what} cannot have a setting {key!r}: {section}: has its own")


def names_of(find: Find, group: str) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return [entry.name for entry in find(group)]


def unusable(entry: EntryPoint, group: str, reason: str) -> OrchestratorError:
    """The one message about a package that cannot be used."""
    return OrchestratorError(f"the package behind {entry.name} = {entry.value} ({group}) cannot be used: {reason}")
