"""SIP URIs to hops: by which transport, from which point of ours, to which of its servers, in order (RFC 3263 §4).

A server that gave no answer is left for the end of the order for a while (`avoid`): calls do not wait for it again. A
probe of a gateway asks its servers in the order of the DNS all the same, and an answer of one brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.sip.locate import Found, Goal, candidates
from orchestrator.sip.lookups import LookUps
from orchestrator.sip.own_points import OwnPoints
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.routing import Addresses, is_literal, transport_of
from orchestrator.sip.uri import Uri
from orchestrator.timers import Timers

HopsFound = Callable[..., None]
"""`found(hop or None)`, or `found(hop, further hops)` where there is more than one."""

_MOST_AVOIDED = 10_000
_MOST_KNOWN = 10_000
_DRAWN: Final = 4
"""Octets of a number that is drawn."""

_IPV4, _ULA = 35, 3
_IPV6: Final = 40
"""Precedence of addresses (RFC 6724 §2.1)."""


class NextHops:
    """Finds them for one engine. `entropy` draws among servers with weights; `avoided` are seconds that a server
    without an answer is avoided."""

    def __init__(
        self,
        points: OwnPoints,
        names: LookUps,
        addresses: Addresses,
        timers: Timers,
        entropy: Callable[[int], bytes],
        avoided: float,
    ) -> None:
        self._points = points
        self._names = names
        self._addresses = addresses
        self._timers = timers
        self._entropy = entropy
        self._lasts = avoided
        families = {point.is_v6 for point in points.all}
        self._kinds = tuple(kind for kind, is_v6 in (("AAAA", True), ("A", False)) if is_v6 in families)
        self._plain = "udp" if "udp" in points.opened else next(iter(points.opened), "udp")
        """By which we go where nobody says."""
        self._known: dict[tuple[Point, str, int], Hop] = {}
        self._avoided: dict[tuple[str, str, int], float] = {}
        """Servers that gave no answer, and until when they are avoided."""

    # --- finding ------------------------------------------------------------------------------------------------------

    def resolve(
        self,
        uri: Uri,
        here: Point,
        found: HopsFound,
        source: str = "",
        by: Point | None = None,
        in_order: bool = False,
    ) -> None:
        """Hops of a SIP URI, wanted by a request of `source`; see `sip.proxy_network`. `in_order`: as the DNS has them,
        avoided or not."""
        transport = transport_of(uri)
        if transport is None or (transport and transport not in self._points.opened):
            found(None)
            return
        address = self._addresses.numeric(uri.host)
        if address is not None:
            transport = transport or (self._plain if by is None else self._otherwise(by))
            point = self._points.toward(address, transport, here, by)
            port = uri.port or self._points.default_ports[transport]
            if point is None:
                found(None)
            elif point.secure:
                found(Hop(point, address, port, 0, _name_of(uri)))
            else:
                found(self._hop(point, address, port))
        elif is_literal(uri.host):
            found(None)
        else:
            goal, port = self._goal(uri, transport), uri.port or 0
            self._names.find(goal, source, lambda seen: _tell(found, self._hops(goal, seen, port, here, by, in_order)))

    def _hop(self, point: Point, address: str, port: int) -> Hop:
        """The same one for all that goes there."""
        key = point, address, port
        hop = self._known.get(key)
        if hop is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            hop = self._known[key] = Hop(point, address, port)
        return hop

    def _goal(self, uri: Uri, transport: str) -> Goal:
        return Goal(
            _name_of(uri), uri.port is not None, transport, uri.scheme == b"sips", self._points.opened, self._kinds
        )

    def _otherwise(self, by: Point | None) -> str:
        """The transport of a URI that names none: of the point that is known to lead there, else ours."""
        return by.transport if by is not None and by.transport in self._points.opened else self._plain

    def _hops(self, goal: Goal, seen: Found, port: int, here: Point, by: Point | None, in_order: bool) -> list[Hop]:
        hops, otherwise = [], self._otherwise(by)
        ports = dict.fromkeys(self._points.opened, port) if port else self._points.default_ports
        for candidate in candidates(goal, seen, self._draw, self._by_precedence, ports, otherwise):
            point = self._points.toward(candidate.address, candidate.transport, here, by)
            if point is not None:
                name = goal.name if point.secure else ""  # of the domain, not of its server (RFC 5922 §4)
                hops.append(Hop(point, candidate.address, candidate.port, 0, name))
        if self._avoided and not in_order and len(hops) > 1:
            hops.sort(key=self.is_avoided)
        return hops

    def _draw(self, most: int) -> int:
        return int.from_bytes(self._entropy(_DRAWN), "big") % (most + 1)

    def _by_precedence(self, addresses: Sequence[str]) -> Sequence[str]:
        """Those of one host, as RFC 6724 §6 orders them: first those that there is a way to, IPv6 before IPv4."""
        return addresses if len(addresses) < 2 else sorted(addresses, key=self._precedence)

    def _precedence(self, address: str) -> tuple[bool, int]:
        precedence = _IPV4 if ":" not in address else _ULA if address[:2] in ("fc", "fd") else _IPV6
        return not self._points.leads_to(address), -precedence

    # --- who answers --------------------------------------------------------------------------------------------------

    def avoid(self, hop: Hop, seconds: float | None = None) -> None:
        """A server gave no answer, or wants no requests for some seconds."""
        if len(self._avoided) >= _MOST_AVOIDED:
            self._avoided.clear()
        lasts = self._lasts if seconds is None else seconds
        self._avoided[hop.point.transport, hop.host, hop.port] = self._timers.now + lasts

    def is_avoided(self, hop: Hop) -> bool:
        """Whether others are to be tried before it."""
        key = (hop.point.transport, hop.host, hop.port)
        until = self._avoided.get(key)
        if until is None:
            return False
        if until > self._timers.now:
            return True
        del self._avoided[key]
        return False

    def answers(self, hop: Hop) -> None:
        """A server has answered."""
        if self._avoided:
            self._avoided.pop((hop.point.transport, hop.host, hop.port), None)

    # --- long requests ------------------------------------------------------------------------------------------------

    def for_long(self, uri: Uri, hop: Hop, further: Sequence[Hop]) -> tuple[Hop, ...]:
        """Hops for a request that is too long for the datagram to `hop` (RFC 3261 §18.1.1): over a stream first, where
        the receiver may take one. `further` are what else there is."""
        streams = [other for other in further if other.point.reliable]
        if not streams and uri.transport is None and not self._is_for_datagrams(uri):
            point = self._points.toward(hop.host, "tcp", hop.point) if "tcp" in self._points.opened else None
            streams = [] if point is None else [Hop(point, hop.host, hop.port)]
        streams = [other for other in streams if not self.is_avoided(other)]
        return (*streams, hop, *(other for other in further if other not in streams))

    def _is_for_datagrams(self, uri: Uri) -> bool:
        """Whether the domain of a URI says by which transports it is reached; a stream is among its hops then, or
        none is served."""
        return not (uri.port or is_literal(uri.host)) and self._names.has_services(self._goal(uri, ""))


def _name_of(uri: Uri) -> str:
    return uri.host.strip(b"[].").decode("ascii", "replace").lower()


def _tell(found: HopsFound, hops: Sequence[Hop]) -> None:
    if len(hops) > 1:
        found(hops[0], tuple(hops[1:]))
    else:
        found(hops[0] if hops else None)
