"""All connections of the server: by number, by where they lead, and what they may take in all."""

from __future__ import annotations

import errno
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from gevent import monkey
from loguru import logger

from orchestrator.errors import MalformedMessage
from orchestrator.packages.transport import Inputs
from orchestrator.runtime.streams.connection import Connection, Counts
from orchestrator.runtime.streams.layers import Layers
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.pace import Pace
from orchestrator.runtime.streams.stream import Stream
from orchestrator.sip.admission import Source, source_name
from orchestrator.sip.headers import Via, parse_via
from orchestrator.sip.points import DEFAULT_PORT, Hop, Point
from orchestrator.sip.routing import unicast
from orchestrator.timers import Timer, Timers

LOOK = 0.1
"""Seconds between two looks at what has timed out."""
RESERVE = 1.1
"""Connections of ours, and of those we trust, may exceed `limits.connections` by this factor: strangers must not keep
us from calling."""

_IP_BIND_ADDRESS_NO_PORT = 24

_first_via = re.compile(rb"\r\n(?:[Vv][Ii][Aa]|[Vv])[ \t]*+:([^\r\n]++)\r\n").search

Key = tuple[Point, str, int, str]


class Connections:
    """Of one server. Before `start` it only holds limits; `source_of(address)` is the share that an address has."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.by_number: dict[int, Connection] = {}
        self.by_source: Counter[str] = Counter()
        self.octets = 0
        """Kept by all of them: unfinished messages, and what waits to be written."""
        self.standing: Counter[str] = Counter()
        """Connections there are, by transport."""
        self.opened: Counter[str] = Counter()
        """Connections that have come to stand, by who has opened them."""
        self.refused: Counter[str] = Counter()
        """Connections not taken, by reason."""
        self.ended: Counter[str] = Counter()
        """Connections that have ended, by why; '' stands for those that ended as they should."""
        self.unopened: Counter[str] = Counter()
        """The same of those that never came to stand."""
        self.source_of: Callable[[str], Source] | None = None
        self.pace: Pace
        self.loop: Any = None
        self.clock: Callable[[], float]
        self._toward: dict[Key, Connection] = {}
        self._numbers: Iterator[int] = count(1)
        self._inputs: Inputs
        self._timers: Timers
        self._look: Any = None

    def number(self) -> int:
        """A connection number that was never given before."""
        return next(self._numbers)

    def start(self, inputs: Inputs) -> None:
        """Join the loop; called by each transport, once is enough."""
        if self.loop is not None:
            return
        self.loop, self.clock, self._inputs = inputs.loop, inputs.clock, inputs
        self.pace = Pace(self.loop, self.clock)
        self._timers = Timers(self.clock())
        self._look = self.loop.timer(LOOK, LOOK)
        self._look.start(self._look_at_timers)

    def revive(self) -> bool:
        """Go on, should the loop have let go of us. True when it had."""
        if self.loop is None or self._look is None:
            return False
        if not self._look.active:
            self._look.start(self._look_at_timers)
            return True
        return self.pace.revive()

    def close(self) -> None:
        """End everything at once."""
        if self._look is None:
            return
        self._look.stop()
        self._look.close()
        self._look = None
        for connection in tuple(self.by_number.values()):
            connection.close("abort")
        self.pace.close()

    # --- new ones -----------------------------------------------------------------------------------------------------

    def refusal(self, host: str) -> str:
        """Why nobody from this address may connect now; '' when he may. Who is trusted may when strangers may not."""
        source = self.source_of(host) if self.source_of is not None else None
        if source is not None and source.exempt:
            return "" if len(self.by_number) < self.limits.connections * RESERVE else "connections"
        if len(self.by_number) >= self.limits.connections:
            return "connections"
        if self.is_banned(host):
            return "banned"
        if self.by_source[source_name(host)] >= self.limits.connections_per_source:
            return "connections_per_source"
        return ""

    def is_banned(self, host: str) -> bool:
        source = self.source_of(host) if self.source_of is not None else None
        return source is not None and not source.exempt and source.banned_until > self.clock()

    def accept(self, sock: socket.socket, layers: Layers, hop: Hop, transport: Counts) -> None:
        """Serve a connection that has been accepted; `hop` has the number it gets."""
        cipher = layers.cipher(None) if layers.cipher is not None else None
        stream = Stream(self.limits, layers.framing(False), cipher, hop, self.clock())
        source = source_name(hop.host)
        self.by_source[source] += 1
        self._add(Connection(self, sock, stream, transport, source), (hop.point, hop.host, hop.port, ""))

    def toward(self, hop: Hop, layers: Layers) -> Connection | None:
        """The connection for a hop: its own, else one that leads there; None when there is none."""
        if hop.connection:
            return self.by_number.get(hop.connection)
        found = self._toward.get(_key_of(hop, layers))
        if found is not None and found.stream.usable:
            return found
        if hop.name and layers.cipher is not None:  # a peer that has connected to us and proved to be the one asked for
            found = self._toward.get((hop.point, hop.host, hop.port, ""))
            if found is not None and found.stream.is_peer(hop.name):
                return found
        return None

    def connect(self, hop: Hop, layers: Layers, transport: Counts) -> Connection | None:
        """A new connection to where a hop leads; None, and why is counted, when there cannot be one."""
        if len(self.by_number) >= self.limits.connections * RESERVE:
            self.refused["connections"] += 1
            return None
        address = address_of(hop.host, hop.port)
        if address is None:
            self.unopened["no address"] += 1
            return None
        sock = _begin_to_connect(hop.point, address)
        if isinstance(sock, OSError):
            self.unopened[errno.errorcode.get(sock.errno or 0, "EIO").lower()] += 1
            return None
        cipher = layers.cipher(hop.name) if layers.cipher is not None else None
        ours = hop._replace(connection=self.number(), name="")
        stream = Stream(self.limits, layers.framing(True), cipher, ours, self.clock(), hop.name)
        connection = Connection(self, sock, stream, transport, "")
        self._add(connection, _key_of(hop, layers))
        return connection

    def _add(self, connection: Connection, key: Key) -> None:
        self.by_number[connection.hop.connection] = connection
        self.standing[connection.transport.kind] += 1
        self._lead(key, connection)
        connection.start()

    def _lead(self, key: Key, connection: Connection) -> None:
        """Have the connection found by this key."""
        connection.keys += (key,)
        self._toward[key] = connection

    def _note_alias(self, connection: Connection, message: bytes) -> None:
        """The sender of a connection's first request may want to be sent requests over it that are meant for the port
        in its Via (RFC 5923 §5). Whoever shares an address with him could steal his calls that way, so he must have
        proved who he is by a certificate (§9), or be trusted."""
        connection.asked = True
        via = _top_via(message)
        if via is None or b"alias" not in via.params:
            return
        hop = connection.hop
        source = self.source_of(hop.host) if self.source_of is not None else None
        if not connection.stream.proved and (source is None or not source.exempt):
            return
        key = hop.point, hop.host, via.port or (5061 if via.transport == b"TLS" else DEFAULT_PORT), ""
        there = self._toward.get(key)
        if there is None or not there.stream.usable:
            self._lead(key, connection)

    # --- for connections ----------------------------------------------------------------------------------------------

    def deliver(self, connection: Connection, message: bytes, now: float) -> None:
        if not connection.asked:
            self._note_alias(connection, message)
        self._inputs.receive(message, connection.hop, now)

    def deliver_malformed(self, connection: Connection, data: bytes, error: MalformedMessage, now: float) -> None:
        self._inputs.receive_malformed(data, error, connection.hop, now)

    def settle(self) -> None:
        self._inputs.settle()

    def stands(self, connection: Connection) -> None:
        self.opened["we" if connection.stream.name is not None else "peer"] += 1

    def gone(self, connection: Connection) -> None:
        self._lead_nowhere(connection)
        self._inputs.lost(connection.hop)

    def _lead_nowhere(self, connection: Connection) -> None:
        for key in connection.keys:
            if self._toward.get(key) is connection:
                del self._toward[key]

    def failed(self, hop: Hop, message: bytes) -> None:
        self._inputs.failed(hop, message)

    def keep(self, octets: int) -> None:
        self.octets += octets

    @property
    def is_full(self) -> bool:
        return self.octets > self.limits.buffered

    def closed(self, connection: Connection) -> None:
        (self.ended if connection.opened else self.unopened)[connection.stream.why] += 1
        self.by_number.pop(connection.hop.connection, None)
        self.standing[connection.transport.kind] -= 1
        self._lead_nowhere(connection)
        if connection.source:
            self.by_source[connection.source] -= 1
            if self.by_source[connection.source] <= 0:
                del self.by_source[connection.source]

    def wake(self, connection: Connection, due: float) -> Timer:
        if connection.timer is not None:
            connection.timer.cancel()
        timers = self._timers
        return timers.after(max(0.0, due - timers.now), self._due, connection)

    def _due(self, connection: Connection) -> None:
        self.pace.later(connection.time_out)

    def _look_at_timers(self) -> None:
        """Loop callback."""
        try:
            self._timers.run_due(self.clock())
        except Exception:
            logger.exception("connection_fault")


def _key_of(hop: Hop, layers: Layers) -> Key:
    """By which a connection to a hop is found: with the name that the peer has proved, where it has to."""
    return hop.point, hop.host, hop.port, hop.name if layers.cipher is not None else ""


def _top_via(message: bytes) -> Via | None:
    """That of a request, None of a response and of one that cannot be read: the core says so."""
    found = None if message.startswith(b"SIP/2.0 ") else _first_via(message)
    try:
        return parse_via(found[1].strip()) if found is not None else None
    except MalformedMessage:
        return None


def address_of(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int] | None:
    """The socket address of a hop; None for a name (a look-up would block), broadcast and multicast."""
    bare, _, interface = host.partition("%")  # link-local IPv6: the interface is an item of its own
    found = unicast(bare.encode(errors="replace"))
    if found is None or not 0 < port < 65_536:
        return None
    if not interface:
        return found, port
    try:
        scope = int(interface) if interface.isdigit() else socket.if_nametoindex(interface)
    except OSError:
        return None
    return found, port, 0, scope


def _begin_to_connect(point: Point, address: tuple[str, int] | tuple[str, int, int, int]) -> socket.socket | OSError:
    """A socket that connects to an address, from the address of a point where it has one."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        sock: socket.socket = monkey.get_original("socket", "socket")(family, socket.SOCK_STREAM)
    except OSError as error:
        return error
    try:
        tune(sock)
        if point.local and (":" in point.local) == (family == socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((point.local, 0))
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "")
    except OSError as error:
        sock.close()
        return error
    return sock


def tune(sock: socket.socket) -> None:
    """What every connection wants: no waiting, no collecting of small writes, a probe of a peer that is silent."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
