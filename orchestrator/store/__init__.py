"""Location stores: where registrations survive a restart.

Imports `sip` (what a binding is) and `errors`. Begin with `open_store`; `memory` is the shortest one.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.packages.location_store import ChosenStore
from orchestrator.sip.stores import LocationStore
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore

SQLITE = "sqlite:///"


def open_store(location: str | ChosenStore) -> LocationStore:
    """The store named by `location:` in the configuration: `memory:`, `sqlite:///path`, or that of a package.

    The path is relative to the working directory, absolute with a fourth slash. Raises StoreError when the file cannot
    be used and ValueError for any other URL.
    """
    if isinstance(location, ChosenStore):
        return _open(location)
    if location == "memory:":
        return MemoryStore()
    if location.startswith(SQLITE) and len(location) > len(SQLITE):
        return SqliteStore(Path(location.removeprefix(SQLITE)))
    raise ValueError(f"not a location store: {location}")


def _open(chosen: ChosenStore) -> LocationStore:
    try:
        return chosen.kind.open(chosen.settings)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{chosen.kind.name}: {type(error).__name__}: {error}") from error
