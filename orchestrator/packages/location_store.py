"""Location stores of other packages: where registrations are kept.

    STORE = StoreKind("jsonlog", "A log of JSON lines.", JsonLog, JsonLogSettings)

    [project.entry-points."orchestrator.location_stores"]
    jsonlog = "orchestrator_jsonlog:STORE"

The configuration names one and has its settings beside: `location: {store: jsonlog, path: /var/lib/phones.jsonl}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from orchestrator.packages.groups import STORE_GROUP, Find, check_name, check_settings, installed, load_named, names_of
from orchestrator.packages.service import NoSettings
from orchestrator.sip.stores import LocationStore

OURS = ("store", "timeout")
"""Keys of `location:` that are not the store's own."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """The declaration of a kind of store, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: in `location:`, and of the entry point."""
    doc: str
    open: Callable[[Any], LocationStore]
    """Mostly a class: it is given an instance of `settings`. Raises StoreError when it cannot be used."""
    settings: type[BaseModel] = NoSettings

    def __post_init__(self) -> None:
        check_name(self.name, "store")
        check_settings(self.settings.model_fields, OURS, f"store {self.name!r}", "location")


@dataclass(frozen=True, slots=True)
class ChosenStore:
    """What `location:` says of a store of a package."""

    kind: StoreKind
    settings: BaseModel
    timeout: float
    """Seconds that it may take for a write."""


def find_store(name: str, find: Find = installed) -> StoreKind | None:
    """The installed store of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, STORE_GROUP, name, StoreKind, "store")


def store_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, STORE_GROUP)
