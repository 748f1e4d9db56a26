"""Where registrations survive a restart: what a location store does. `store/` has ours, packages may bring others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from orchestrator.sip.binding import Binding, Change

StoreWork = Callable[[], None]
"""A write that a store carries out later. It is called once, in a greenlet that may wait: for a socket, for a thread.

Durable on return; raises StoreError when it was not written, or nobody knows. When the time of a write is over,
`gevent.Timeout` is raised where it waits: it must not be carried out after a write that is begun later (close the
connection, or keep one queue for all). Writes of one address of record are begun one after the other.
"""


class LocationStore(Protocol):
    """Where bindings survive a restart."""

    def load(self, now: float) -> Iterable[Binding]:
        """All bindings that live after `now`; the others are forgotten. Called before the server serves, so it may
        wait. Raises StoreError."""

    def route_key(self, fresh: bytes) -> bytes:
        """The key of our Record-Routes (`sip.route_token`): the one that is kept, else `fresh`, which is kept from now
        on. Called once, after `load`, and may wait as well. Raises StoreError."""

    def write(self, changes: Sequence[Change]) -> StoreWork | None:
        """Keep the binding of each change that `stands`, keyed by address of record and `Binding.key`; remove the
        others. All or nothing.

        None: it is done, durable on return. That must be quick and must not wait, or all calls wait. A store that
        waits hands the rest over as `StoreWork`; phones get their 200 after it. Raises StoreError when nothing was
        written.
        """

    def close(self) -> None:
        """Let go of files and connections. Idempotent; not called while a `StoreWork` runs."""


@runtime_checkable
class SharedStore(LocationStore, Protocol):
    """One that others write to as well: further nodes, or whoever owns the data."""

    def watch(self, changed: Callable[[Sequence[Change]], object]) -> None:
        """Called once, when the server begins to serve: tell `changed(changes)` what others have written since `load`,
        in order. It waits while the server has no room for more inputs, and may be called from any greenlet of the
        server, from no other thread. What we wrote ourselves may be told, too, and what was told already."""
