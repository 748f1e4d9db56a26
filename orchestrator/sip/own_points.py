"""Our points: those of the sockets, those of the addresses a socket was asked at, and which of them leads where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.sip.points import ACCEPTED_ONLY, DEFAULT_PORT, DEFAULT_PORTS, Hop, ListenPoint, Point, bracketed
from orchestrator.sip.routing import port_of, transport_of, unicast
from orchestrator.sip.uri import Uri
from orchestrator.timers import Timers

WAY_LASTS: Final = 30.0
"""Seconds for which the system's routes are believed to stay."""
_MOST = 10_000
"""Addresses of ours, and ways, that are remembered."""


class OwnPoints:
    """Those of one engine. `source_of(address)` is the address of ours that the system would send from, None where
    nobody can be asked; `learned(point)` is told a point of an address that was not known."""

    def __init__(
        self,
        listens: Sequence[ListenPoint],
        source_of: Callable[[str], str] | None,
        timers: Timers,
        learned: Callable[[Point], None],
    ) -> None:
        self.all = [_point_of(index, listen) for index, listen in enumerate(listens)]
        """First one for each socket, then those of further addresses."""
        self.by_route_end: dict[bytes, Point | None] = {}
        """What follows the token and its `@` in the Route values that our Record-Route makes, and the point it names,
        None where it names several; most in-dialog requests bring them back to the letter."""
        self._named: dict[tuple[str, bytes, int], Point | None] = {}
        self._called: dict[str, Point] = {}
        self._listens = listens
        self._everywhere = [index for index, listen in enumerate(listens) if listen.everywhere]
        self._at: dict[tuple[int, str], Point] = {}
        self.transports: tuple[str, ...] = tuple(dict.fromkeys(point.transport for point in self.all))
        """What we send by, in the order of the sockets."""
        self.opened = tuple(transport for transport in self.transports if transport not in ACCEPTED_ONLY)
        """Those by which we can begin: browsers take no connection."""
        self.default_ports = {
            listen.transport.lower(): listen.default_port or DEFAULT_PORTS.get(listen.transport.lower(), DEFAULT_PORT)
            for listen in listens
        }
        """Port of a URI that names none, by transport."""
        self._chooses = {
            (transport, is_v6): self._has_choice(transport, is_v6)
            for transport in self.transports
            for is_v6 in (False, True)
        }
        self._source_of = source_of
        self._timers = timers
        self._ways: dict[str, tuple[str, float]] = {}
        self._learned = learned
        for point in self.all:
            self._add(point)

    def _has_choice(self, transport: str, is_v6: bool) -> bool:
        """Whether an address of that family can be reached from more than one of ours."""
        same = [point.index for point in self.all if point.is_v6 == is_v6 and point.transport == transport]
        return len(same) > 1 or any(index in self._everywhere for index in same)

    def _add(self, point: Point) -> None:
        self._called.setdefault(point.name, point)
        if self._listens[point.index].everywhere and point.local:
            self._at[point.index, point.local] = point
        end, name = point.route_end, (point.transport, bracketed(point.host).lower().encode(), point.port)
        self.by_route_end[end] = _one_of(self.by_route_end.get(end, point), point)
        self._named[name] = _one_of(self._named.get(name, point), point)

    # --- which one --------------------------------------------------------------------------------------------------

    def at(self, index: int, local: str) -> Point:
        """The point of a socket bound to all addresses for one of them, numeric; made when it is first asked for: the
        machine may get addresses at any time."""
        point = self._at.get((index, local))
        if point is not None:
            return point
        base, listen = self.all[index], self._listens[index]
        if not listen.everywhere or len(self._at) >= _MOST or unicast(local.encode()) is None:
            return base
        shown = base.host if listen.advertised else local
        point = Point(
            index,
            base.transport,
            shown,
            base.port,
            local=local,
            local_port=base.local_port,
            reliable=listen.reliable,
            secure=listen.secure,
        )
        self.all.append(point)
        self._add(point)
        self._learned(point)
        return point

    def named(self, uri: Uri) -> Point | None:
        """The point that a URI of ours names; None where it names several, or none in particular."""
        transport, host, port = transport_of(uri) or "udp", uri.host.lower(), port_of(uri)
        point = self._named.get((transport, host, port))
        if point is None and host[:1] == b"[":
            address = unicast(host)
            point = None if address is None else self._named.get((transport, bracketed(address).encode(), port))
        return point

    def called(self, name: str) -> Point | None:
        """The point with this name (`Point.name`), perhaps of before a restart; None when there is none any more."""
        point = self._called.get(name)
        if point is not None or not name:
            return point
        transport, _, rest = name.partition(":")
        local, _, port = rest.rpartition(":")
        for index in self._everywhere:
            base = self.all[index]
            same = base.transport == transport and str(base.local_port) == port
            if same and base.is_v6 == (local[:1] == "["):
                return self.at(index, local.strip("[]"))
        return None

    def toward(self, address: str, transport: str, here: Point, by: Point | None = None) -> Point | None:
        """The point that leads to an address by a transport: `by` where that is known, else the one with the address
        that the system would send from, else `here` or the first of that family. None when there is none of that family
        and transport."""
        is_v6 = ":" in address
        if by is not None:
            if by.is_v6 == is_v6 and by.transport == transport:
                return by
            here = by  # of another transport: its address still leads there
        if self._chooses.get((transport, is_v6), False):
            local = self._local_toward(address) or (here.local if here.is_v6 == is_v6 else "")
            found = self._with_address(local, transport, here) if local else None
            if found is not None:
                return found
        if here.is_v6 == is_v6 and here.transport == transport:
            return here
        return next((point for point in self.all if point.is_v6 == is_v6 and point.transport == transport), None)

    def leads_to(self, address: str) -> bool:
        """Whether the system has a way to an address, as far as it can be asked."""
        return self._source_of is None or bool(self._local_toward(address))

    def _with_address(self, local: str, transport: str, here: Point) -> Point | None:
        """Our point with this local address, the socket of `here` first."""
        is_v6 = ":" in local
        if here.transport == transport:
            if here.local == local:
                return here
            if here.index in self._everywhere and here.is_v6 == is_v6:
                return self.at(here.index, local)
        for point in self.all:
            if point.local == local and point.transport == transport:
                return point
        for index in self._everywhere:
            if self.all[index].is_v6 == is_v6 and self.all[index].transport == transport:
                return self.at(index, local)
        return None

    def _local_toward(self, address: str) -> str:
        """The address of ours that the system sends from, '' where nobody knows. Asked once in a while."""
        if self._source_of is None:
            return ""
        known, now = self._ways.get(address), self._timers.now
        if known is not None and known[1] > now:
            return known[0]
        if len(self._ways) >= _MOST:
            self._ways.clear()
        local = self._source_of(address)
        self._ways[address] = (local, now + WAY_LASTS)
        return local

    def hop(self, address: str, port: int, connection: int, by: Point | None) -> Hop | None:
        """The hop to where the receiver of a request in a dialog was seen; `by` is the point that our Route names."""
        point = self.toward(address, (by or self.all[0]).transport, by or self.all[0], by)
        return None if point is None else Hop(point, address, port, connection)


def _one_of(first: Point | None, other: Point) -> Point | None:
    """The point that a name means which both have. Octets that go by a connection leave where that ends: one point of a
    stream socket does for all."""
    return first if first is other or (first is not None and first.reliable and first.index == other.index) else None


def _point_of(index: int, listen: ListenPoint) -> Point:
    """The point of a socket. One that is bound to all addresses and says which one it is sends from that."""
    bound = listen.bound or listen.host
    local = ("" if listen.advertised else listen.host) if listen.everywhere else bound
    return Point(
        index,
        listen.transport,
        listen.host,
        listen.port,
        local=local,
        local_port=listen.bound_port,
        reliable=listen.reliable,
        secure=listen.secure,
        is_v6=":" in bound,
    )
