"""What thousands of waiting requests have in common, kept once.

A request that waits, for a phone to wake up, for a digit, is kept whole, because it may yet be sent on. Half of its
lines say what model of phone it came from and are the same, octet for octet, in every request of that model; for the
names of its headers see `sip.header_shapes`.
"""

from __future__ import annotations

from typing import Final

from orchestrator.sip.header_shapes import Shape
from orchestrator.sip.model import SAID, Fold, Request, said_again

_ALIKE: Final = frozenset(
    b"accept accept-encoding accept-language allow allow-events content-type max-forwards min-se session-expires "
    b"supported user-agent x-fs-support".split()
)
_MOST: Final = 2_000
"""Folds remembered: some hundred models of phones, with some kinds of requests each. The table starts afresh when
full, so strangers cannot grow it."""


def _said(request: Request, name: bytes, line: bytes) -> bytes | None:
    return SAID if said_again(request, name) == line else None


class Folds:
    """Those of the requests seen so far."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[Shape | bytes | None, ...], Fold] = {}

    def fold(self, request: Request) -> None:
        """Fold a request that waits. What it says stays the same."""
        shape = request.shape
        pairs = zip(shape.names, request.lines, strict=True)
        alike = tuple([line if name in _ALIKE else _said(request, name, line) for name, line in pairs])
        key = (shape, *alike)
        fold = self._known.get(key)
        if fold is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            fold = self._known[key] = Fold(alike)
        request.fold(fold)

    def __len__(self) -> int:
        return len(self._known)
