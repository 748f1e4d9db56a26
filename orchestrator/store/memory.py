"""Bindings kept for as long as the process lives: for tests, and for a proxy whose phones may register anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.sip.location import Binding


class MemoryStore:
    """A LocationStore without a file. It keeps its rows, so that two tables made on it one after the other agree."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], Binding] = {}

    def load(self, now: float) -> Iterable[Binding]:
        self._rows = {key: binding for key, binding in self._rows.items() if binding.expires_at > now}
        return list(self._rows.values())

    def write(self, put: Sequence[Binding], delete: Sequence[tuple[str, bytes]]) -> None:
        for key in delete:
            self._rows.pop(key, None)
        for binding in put:
            self._rows[binding.aor, binding.contact] = binding

    def close(self) -> None:
        """Nothing to let go of."""
