"""Location stores: where registrations survive a restart.

Imports `sip` (what a binding is) and `errors`. Begin with `open_store`; `memory` is the shortest one.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.sip.location import LocationStore
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore

SQLITE = "sqlite:///"


def open_store(url: str) -> LocationStore:
    """The store named by `location:` in the configuration: `memory:` or `sqlite:///path`.

    The path is relative to the working directory, absolute with a fourth slash. Raises StoreError when the file cannot
    be used and ValueError for any other URL.
    """
    if url == "memory:":
        return MemoryStore()
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)))
    raise ValueError(f"not a location store: {url}")
