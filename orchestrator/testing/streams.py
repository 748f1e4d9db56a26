"""Connections in memory: what a stream transport does for the engine, without a network.

A peer of a stream transport connects when it first speaks, from a port of its own, and listens at its address.
`Streams` opens connections for the engine to those who listen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.sip.points import ListenPoint, Point
from orchestrator.testing.phone import Address

FIRST_PORT = 40_000
"""Of the ports that peers connect from."""


@dataclass(eq=False, slots=True)
class Connection:
    """One connection, `number` of the engine's; `remote` is where the engine sees its other end, `home` the address
    of the peer that has it."""

    number: int
    point: Point
    remote: Address
    home: Address
    open: bool = True


class Streams:
    """All connections of one world."""

    def __init__(self, listens: Sequence[ListenPoint]) -> None:
        self.connections: list[Connection] = []
        """Those that were ever opened, in order."""
        self.listening: dict[tuple[str, Address], Address] = {}
        """Transport and address where a peer takes connections → its home."""
        self._listens = tuple(listens)

    def dial(self, home: Address, transport: str, points: Callable[[int], Point]) -> Connection:
        """The open connection of a peer to us, a new one if it has none."""
        for connection in self.connections:
            if connection.open and connection.home == home and connection.point.transport == transport:
                return connection
        index = next(n for n, listen in enumerate(self._listens) if listen.transport.lower() == transport)
        return self._add(points(index), (home[0], FIRST_PORT + len(self.connections)), home)

    def toward(self, point: Point, place: Address) -> Connection | None:
        """An open connection to a place, a new one where somebody takes it; None: refused."""
        for connection in self.connections:
            if connection.open and connection.point.index == point.index and connection.remote == place:
                return connection
        home = self.listening.get((point.transport, place))
        return None if home is None else self._add(point, place, home)

    def numbered(self, number: int) -> Connection | None:
        """The connection of this number, while it is open."""
        found = self.connections[number - 1] if 0 < number <= len(self.connections) else None
        return found if found is not None and found.open else None

    def open_of(self, home: Address) -> list[Connection]:
        """The open connections of a peer."""
        return [connection for connection in self.connections if connection.open and connection.home == home]

    def _add(self, point: Point, remote: Address, home: Address) -> Connection:
        connection = Connection(len(self.connections) + 1, point, remote, home)
        self.connections.append(connection)
        return connection
