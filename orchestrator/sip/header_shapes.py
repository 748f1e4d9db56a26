"""Which headers a message has, in which order: its *shape*, made once for all messages that have the same.

A model of phone writes the headers of each kind of message in one order. So what is asked of the names of a message
again and again (is there a Route, where does To stand, which lines does an answer copy) is found out once for each
shape, and messages share the list of their names.
"""

from __future__ import annotations

from typing import Final

from orchestrator.sip.claims import CLAIMS

_COPIED: Final = frozenset((b"via", b"from", b"to", b"call-id", b"cseq"))
_MOST: Final = 1_024
"""Shapes remembered: some hundred models of phones. The table starts afresh when full, so strangers cannot grow it."""
_LONGEST: Final = 2_048
"""Octets of the names of one that is remembered: those of a phone are some hundred, a message may have 64 KB."""


class Shape:
    """The canonical names of the header lines of a message, and what follows from them. Never changes.

    The positions are those of the first line of a name, -1 where there is none.
    """

    __slots__ = (
        "names", "first", "known", "claims", "via", "to", "hops", "length", "route", "vias", "routes",
        "copied", "copied_dialog", "copied_trying",
    )  # fmt: skip

    def __init__(self, names: tuple[bytes, ...]) -> None:
        first: dict[bytes, int] = {}
        for position, name in enumerate(names):
            first.setdefault(name, position)
        self.names = names
        self.first = first
        """Name → position."""
        self.known = frozenset(first)
        self.claims = not CLAIMS.isdisjoint(self.known)
        """There is something that only those we trust may say."""
        self.via = first.get(b"via", -1)
        self.to = first.get(b"to", -1)
        self.hops = first.get(b"max-forwards", -1)
        self.length = first.get(b"content-length", -1)
        self.route = first.get(b"route", -1)
        self.vias = names.count(b"via")
        self.routes = names.count(b"route")
        """Lines of the two."""
        self.copied = self._positions(b"")
        """Lines that an answer copies (RFC 3261 §8.2.6.2)."""
        self.copied_dialog = self._positions(b"record-route")
        """Those of an answer that may begin a dialog (§12.1.1)."""
        self.copied_trying = self._positions(b"timestamp")
        """Those of a 100 (§8.2.6.1)."""

    def _positions(self, besides: bytes) -> tuple[int, ...]:
        return tuple(at for at, name in enumerate(self.names) if name in _COPIED or name == besides)


_known: dict[tuple[bytes, ...], Shape] = {}


def shape_of(names: tuple[bytes, ...]) -> Shape:
    """The shape of a message with these header lines."""
    shape = _known.get(names)
    if shape is None:
        shape = Shape(names)
        if sum(map(len, names)) <= _LONGEST:
            if len(_known) >= _MOST:
                _known.clear()
            _known[names] = shape
    return shape


NO_SHAPE: Final = Shape(())
