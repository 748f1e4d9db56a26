"""Header lines that thousands of waiting requests have in common, kept once.

A request that waits, for a phone to wake up, for a digit, is kept whole, because it may yet be sent on. Half of its
lines say what model of phone it came from and are the same, octet for octet, in every request of that model; so is the
order of its headers.
"""

from __future__ import annotations

from typing import Final

from orchestrator.sip.model import Request

_ALIKE: Final = frozenset(
    b"accept accept-encoding accept-language allow allow-events content-length content-type max-forwards min-se "
    b"session-expires supported user-agent x-fs-support".split()
)
_MAX_LINES: Final = 4_096
"""Lines remembered: some hundred models of phones. The table starts afresh when full, so strangers cannot grow it."""


_MAX_NAMES: Final = 1_024
"""The same for lists of names: a model has one for each kind of request."""


class SharedLines:
    """Lines seen so far; `share` makes a request use those instead of its own."""

    __slots__ = ("_known", "_names")

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._names: dict[tuple[bytes, ...], list[bytes]] = {}

    def share(self, request: Request) -> None:
        """Let go of this request's own copies of lines already known. What it says stays the same."""
        known, names, lines = self._known, request.names, request.lines
        if len(known) > _MAX_LINES:
            known.clear()
        for name in _ALIKE.intersection(names):
            position = names.index(name)
            line = lines[position]
            lines[position] = known.setdefault(line, line)
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        request.names = self._names.setdefault(tuple(names), names)

    def __len__(self) -> int:
        return len(self._known)
