"""Bindings kept for as long as the process lives: for tests, and for a proxy whose phones may register anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.sip.location import Binding, Change


class MemoryStore:
    """A LocationStore without a file. It keeps its rows, so that two tables made on it one after the other agree."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, tuple[bytes, str]], Binding] = {}
        self._route_key = b""

    def load(self, now: float) -> Iterable[Binding]:
        self._rows = {key: binding for key, binding in self._rows.items() if binding.expires_at > now}
        return list(self._rows.values())

    def route_key(self, fresh: bytes) -> bytes:
        self._route_key = self._route_key or fresh
        return self._route_key

    def write(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._rows.pop((change.binding.aor, change.binding.key), None)
        for change in changes:
            if change.stands:
                self._rows[change.binding.aor, change.binding.key] = change.binding

    def close(self) -> None:
        """Nothing to let go of."""
