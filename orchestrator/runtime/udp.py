"""SIP over UDP on one socket (RFC 3261 §18).

The socket is the operating system's own, not gevent's: it never waits. When the loop says that it is readable,
datagrams are read until there are no more, at most `BATCH` of them or for `SLICE` seconds, each a turn of the
reactor. gevent's `DatagramServer` would start a greenlet for each, cut them at 8,192 octets, and set SO_REUSEADDR,
with which a second server takes the port over without a word; ours is refused.

What cannot be sent is a counter and an input to the core. That includes what the network says later: IP_RECVERR makes
the kernel keep ICMP errors on a queue together with the destination and the octets they quote (§18.4). Until that
queue is read, the kernel reports the error at the *next* system call, whatever its destination, so a failed send is
tried once more after it.

Where `native` has its extension, datagrams are received and sent in batches by one system call each.

A batch that was cut short means that we may be falling behind. Then, and only then, the first datagram of the next
one is read together with the kernel's receive timestamp: the age of the oldest datagram waiting, which the core sheds
load by.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from time import time
from typing import Any, Final

from gevent import monkey
from loguru import logger

from orchestrator import native
from orchestrator.core.delay import LastingDelay
from orchestrator.errors import ListenError
from orchestrator.runtime.reactor import BATCH, READ, SLICE, SLOW_TURN, Reactor
from orchestrator.runtime.udp_places import place_of, read_place
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.routing import unicast

MAX_DATAGRAM: Final = 65_535
"""RFC 3261 §18.1.1: implementations MUST handle datagrams up to the maximum size."""

RECEIVE_BUFFER: Final = 8 * 2**20
"""Octets of kernel buffer asked for: 3,500 INVITEs, half a second of them. Longer queues only make answers late."""

SEND_BUFFER: Final = 2 * 2**20

MAX_KNOWN = 10_000
"""Destinations whose address has been checked, and peers; a table starts afresh when full, so strangers cannot grow
it."""

# Linux has these, other systems do without; the socket module does not name all of them.
_MSG_ERRQUEUE: Final[int] = getattr(socket, "MSG_ERRQUEUE", 0)
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_IP_PKTINFO: Final = 8
_IPV6_RECVPKTINFO: Final = 49
_IPV6_PKTINFO: Final = 50
_TOLD: Final = 128
"""Octets for what the kernel tells beside a datagram: the time, our address."""
_MOST_AT_ONCE: Final = 16
"""Datagrams of a batch in C."""
_TIMESPEC = struct.Struct("@qq")
_EXTENDED_ERROR = struct.Struct("@IBBB")  # struct sock_extended_err: errno, origin, ICMP type, ICMP code
_FROM_ICMP: Final = 2
_FROM_ICMP6: Final = 3
_ANCILLARY: Final = 512

Address = tuple[str, int] | tuple[str, int, int, int]


class UdpTransport:
    """One socket, bound at once; `address` is what it is bound to. From `start` on it reads, as transport `id`.

    Counters: `received`, `sent` (datagrams), `errors` (name of the error → times).

    Raises:
        ListenError: no IP address, or the system does not let us have it.
    """

    def __init__(self, host: str, port: int, *, receive_buffer: int = RECEIVE_BUFFER) -> None:
        self.name = f"udp:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"
        self.id = -1
        self.received = self.sent = 0
        self.errors: Counter[str] = Counter()
        self._socket: Any = self._open(host, port, receive_buffer)
        name = self._socket.getsockname()
        self.address: tuple[str, int] = name[:2]
        self._ipv6 = len(name) == 4
        self._recvfrom: Callable[[int], tuple[bytes, Any]] = self._recvfrom6 if self._ipv6 else self._socket.recvfrom
        self._descriptor: int = self._socket.fileno()
        self._sendto: Callable[[bytes, Address], object] = self._socket.sendto
        self._behind = False
        self._tells = _asks_for_addresses(self._socket, self.address[0])
        """The kernel tells which of our addresses a datagram was sent to, and lets us say which it is sent from."""
        self._asked_at: dict[bytes, Point] = {}
        self._origins: dict[Point, list[tuple[int, int, bytes]]] = {}
        self._lasting = LastingDelay()
        self._known: dict[Hop, Address] = {}
        self._met: dict[tuple[str, int], Hop] = {}
        """Hops by the address datagrams came from: a peer sends many."""
        self._fast: Any = native.FAST if hasattr(native.FAST, "receive") else None
        self._from: dict[bytes, Hop] = {}
        self._places: dict[Hop, bytes] = {}
        """The same for batches: hops by place, and the other way round."""
        self._reactor: Reactor
        self._watcher: Any = None

    def start(self, reactor: Reactor, point: Point | None = None, at: Callable[[str], Point] | None = None) -> None:
        """Join a reactor and begin to read; until then datagrams wait in the kernel's buffer. `point` is what the core
        calls this socket; with `at`, which gives the point of an address, a socket bound to all addresses tells which
        of them each datagram was sent to."""
        self.id = reactor.attach(self)
        self._point = point or Point(self.id, "udp", *self.address)
        if at is not None and self._tells:
            self._point_at = at
            self._recvfrom = self._receive_told
        else:
            self._tells = False
        self._asked = self._point
        self._reactor = reactor
        self._watcher = reactor.loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._readable if self._fast is None else self._batches_readable)

    def revive(self) -> bool:
        """Read on, should the loop have let go of the socket. True when it had."""
        if self._watcher is None or self._watcher.active:
            return False
        self._watcher.start(self._readable if self._fast is None else self._batches_readable)
        return True

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._socket.close()
        self._descriptor = -1  # the number may be another file's soon

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self, host: str, port: int, receive_buffer: int) -> socket.socket:
        try:
            address = ip_address(host)
        except ValueError:
            raise ListenError(self.name, f"{host!r} is not an IP address") from None
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock: socket.socket = monkey.get_original("socket", "socket")(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            sock.bind((host, port))
        except (OSError, OverflowError) as error:
            sock.close()
            raise ListenError(self.name, bind_reason(error)) from None
        self._tune(sock, family, receive_buffer)
        return sock

    def _tune(self, sock: socket.socket, family: int, receive_buffer: int) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if sys.platform == "linux":
            try:  # past net.core.rmem_max, where we may
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
            except PermissionError:
                pass
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it for its bookkeeping
        if granted < receive_buffer:
            logger.bind(
                listen=self.name, octets=granted, wanted=receive_buffer, help="raise net.core.rmem_max"
            ).warning("receive_buffer_small")

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Loop callback: one bounded batch. What is left makes the socket readable again at the loop's next pass."""
        reactor, recvfrom, met = self._reactor, self._recvfrom, self._met
        receive, clock = reactor.receive, reactor.clock
        reactor.age = 0.0
        count = 0
        now = clock()
        stop = now + SLICE
        try:
            data, source = self._receive_oldest() if self._behind else recvfrom(MAX_DATAGRAM)
            reactor.delay = self._lasting.note(reactor.age, now)
            self._behind = False
            while True:
                count += 1
                hop = met.get(source)
                if hop is None or hop.point is not self._asked:
                    hop = self._meet(source)
                receive(data, hop, now)
                began, now = now, clock()
                if now - began > SLOW_TURN:
                    reactor.slow_turns += 1
                if count == BATCH or now > stop:
                    self._behind = True
                    break
                data, source = recvfrom(MAX_DATAGRAM)
        except BlockingIOError:
            self._behind = False
            if not count:
                self._read_errors()  # they alone made the socket readable
        except OSError as error:
            if not self._read_errors():
                self._count(error)
        except Exception:  # what a callback raises makes the loop let go of the socket, for ever
            logger.bind(source=self.name).exception("socket_fault")
            self.errors["EIO"] += 1
        self.received += count
        reactor.settle()

    def _batches_readable(self) -> None:
        """The same with batches of datagrams."""
        reactor, receive, hops, meet = self._reactor, self._fast.receive, self._from, self._meet_at
        descriptor = self._descriptor
        reactor.age = 0.0
        count = 0
        now = reactor.clock()
        stop = now + SLICE
        try:
            while True:
                told: tuple[float, list[tuple[bytes, Hop]]] = receive(descriptor, self._tells, hops, meet)
                stamp, found = told
                if not count:
                    if self._behind and stamp:
                        reactor.note_age(max(0.0, time() - stamp))
                    reactor.delay = self._lasting.note(reactor.age, now)
                came = len(found)
                count += came
                now = reactor.receive_all(found, now)
                self._behind = came == _MOST_AT_ONCE and (count >= BATCH or now > stop)
                if self._behind or came < _MOST_AT_ONCE:
                    break
            if not count:
                self._read_errors()  # they alone made the socket readable
        except OSError as error:
            self._behind = False
            if not self._read_errors():
                self._count(error)
        except Exception:  # what a callback raises makes the loop let go of the socket, for ever
            logger.bind(source=self.name).exception("socket_fault")
            self.errors["EIO"] += 1
        self.received += count
        reactor.settle()

    def _meet_at(self, place: bytes) -> Hop:
        """The hop of a place that has not sent lately."""
        if len(self._from) >= MAX_KNOWN:
            self._from.clear()
        host, port, local = read_place(place)
        hop = self._from[place] = Hop(self._point_at(local) if self._tells else self._point, host, port)
        return hop

    def _meet(self, source: tuple[str, int]) -> Hop:
        """The hop of a peer that has not sent to this address of ours lately."""
        if len(self._met) >= MAX_KNOWN:
            self._met.clear()
        hop = self._met[source] = Hop(self._asked, source[0], source[1])
        return hop

    def _receive_oldest(self) -> tuple[bytes, Any]:
        """The oldest datagram waiting, and its age to the reactor."""
        data, ancillary, _, source = self._socket.recvmsg(MAX_DATAGRAM, _TOLD)
        for level, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS and level == socket.SOL_SOCKET:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                age = time() - seconds - nanoseconds * 1e-9
                self._reactor.note_age(max(0.0, age))  # the wall clock may be set back
            elif self._tells:
                self._note_asked(kind, value)
        return data, source if len(source) == 2 else _with_scope(source)

    def _receive_told(self, size: int) -> tuple[bytes, Any]:
        """One datagram, and in `_asked` where it was sent to."""
        data, ancillary, _, source = self._socket.recvmsg(size, _TOLD)
        for _, kind, value in ancillary:
            self._note_asked(kind, value)
        return data, source if len(source) == 2 else _with_scope(source)

    def _note_asked(self, kind: int, value: bytes) -> None:
        if kind == _IP_PKTINFO:
            octets, family = value[4:8], socket.AF_INET  # ipi_spec_dst: ours, also where it was sent to all
        elif kind == _IPV6_PKTINFO:
            octets, family = value[:16], socket.AF_INET6
        else:
            return
        point = self._asked_at.get(octets)
        if point is None:
            if len(self._asked_at) >= MAX_KNOWN:
                self._asked_at.clear()
            point = self._asked_at[octets] = self._point_at(socket.inet_ntop(family, octets))
        self._asked = point

    def _recvfrom6(self, size: int) -> tuple[bytes, Any]:
        data, source = self._socket.recvfrom(size)
        return data, _with_scope(source)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, data: bytes, hop: Hop) -> None:
        """Send one datagram to an IP address; a failure is counted and reported to the reactor."""
        address = self._known.get(hop) or self._check(hop)
        if address is None:
            self._reactor.failed(hop, data)
            return
        try:
            if self._tells:
                self._send_from(hop.point, data, address)
            else:
                self._sendto(data, address)
        except (OSError, OverflowError) as error:
            self._send_again(error, data, hop)
        else:
            self.sent += 1

    def send_all(self, datagrams: Sequence[tuple[bytes, Hop]]) -> None:
        """Send many; each failure is its own."""
        octets: list[bytes] = []
        places: list[bytes] = []
        hops: list[Hop] = []
        fast, known = self._fast, self._places
        for data, hop in datagrams:
            place = (known.get(hop) or self._place_of(hop)) if fast is not None else b""
            if place:
                octets.append(data)
                places.append(place)
                hops.append(hop)
            else:
                self.send(data, hop)
        done = 0
        while done < len(octets):
            try:
                sent: int = fast.send(self._descriptor, octets, places, done)
            except OSError as error:
                self._send_again(error, octets[done], hops[done])
                done += 1
            else:
                self.sent += sent
                done += sent

    def _place_of(self, hop: Hop) -> bytes:
        """Where `hop` is, in octets; b"" for one that `send` has not taken yet."""
        address = self._known.get(hop)
        if address is None or not 0 < hop.port < 65_536:
            return b""
        if len(self._places) >= MAX_KNOWN:
            self._places.clear()
        place = self._places[hop] = place_of(address, hop.point.local if self._tells else "")
        return place

    def _send_from(self, point: Point, data: bytes, address: Address) -> None:
        """Send from the address of this point, where it has one. Raises OSError and OverflowError."""
        origin = self._origins.get(point)
        if origin is None:
            if len(self._origins) >= MAX_KNOWN:
                self._origins.clear()
            origin = self._origins[point] = _origin(point.local)
        self._socket.sendmsg((data,), origin, 0, address)

    def _check(self, hop: Hop) -> Address | None:
        """The socket address of a hop; None for a name (a look-up would block), broadcast, multicast, and the
        other family."""
        host = unicast(hop.host.encode(errors="replace"))
        if host is None or (":" in host) != self._ipv6:
            self.errors["EADDRNOTAVAIL"] += 1
            return None
        address: Address = (host, hop.port)
        if "%" in host:  # link-local IPv6: the interface is an item of its own
            host, _, interface = host.partition("%")
            scope = int(interface) if interface.isdigit() else _interface_index(interface)
            address = (host, hop.port, 0, scope)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[hop] = address
        return address

    def _send_again(self, error: OSError | OverflowError, data: bytes, hop: Hop) -> None:
        """The error may be about an earlier datagram: once that has been read, this one has its own chance."""
        address = self._known.get(hop) or self._check(hop)
        if address is not None and self._read_errors():
            try:
                if self._tells:
                    self._send_from(hop.point, data, address)
                else:
                    self._sendto(data, address)
            except (OSError, OverflowError) as again:
                error = again
            else:
                self.sent += 1
                return
        self._count(error)
        self._reactor.failed(hop, data)

    # --- errors -------------------------------------------------------------------------------------------------------

    def _count(self, error: OSError | OverflowError) -> None:
        code = error.errno if isinstance(error, OSError) else errno.EINVAL  # OverflowError: no such port
        self.errors[errno.errorcode.get(code or 0, "EIO")] += 1

    def _read_errors(self) -> int:
        """Read what ICMP said about datagrams sent earlier; returns the number of messages read."""
        for count in range(BATCH if _MSG_ERRQUEUE else 0):
            try:
                data, ancillary, _, source = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY, _MSG_ERRQUEUE)
            except OSError:
                return count
            for level, kind, value in ancillary:
                if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                    code, origin, icmp_type, icmp_code = _EXTENDED_ERROR.unpack_from(value)
                    self.errors[errno.errorcode.get(code, "EIO")] += 1
                    if _unreachable(origin, icmp_type, icmp_code) and source:
                        host, port = source if len(source) == 2 else _with_scope(source)
                        self._reactor.failed(Hop(self._point, host, port), data)
        return BATCH if _MSG_ERRQUEUE else 0

    def __repr__(self) -> str:
        return f"<UdpTransport {self.id} {self.name} received {self.received} sent {self.sent}>"


def _asks_for_addresses(sock: socket.socket, address: str) -> bool:
    """Have the kernel tell where each datagram was sent to, at a socket bound to all addresses. False where it is not,
    or cannot."""
    if sys.platform != "linux" or not ip_address(address).is_unspecified:
        return False
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return True


def _origin(local: str) -> list[tuple[int, int, bytes]]:
    """What tells the kernel to send from this address; nothing for '' (struct in_pktinfo, RFC 3542 §6.1)."""
    if not local:
        return []
    if ":" in local:
        return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, local) + bytes(4))]
    return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + socket.inet_aton(local) + bytes(4))]


def _unreachable(origin: int, icmp_type: int, icmp_code: int) -> bool:
    """RFC 3261 §18.4: host, network, port or protocol unreachable, or a parameter problem, fails the request.

    Not so "fragmentation needed" (the kernel has learned the path's MTU, a retransmission will pass) and time exceeded.
    """
    if origin == _FROM_ICMP:
        return (icmp_type == 3 and icmp_code != 4) or icmp_type == 12
    return origin == _FROM_ICMP6 and icmp_type in (1, 4)


def bind_reason(error: OSError | OverflowError) -> str:
    """Why a socket cannot be bound, in words for who wrote the configuration."""
    if isinstance(error, OverflowError):
        return "ports go from 0 to 65535"
    if error.errno == errno.EADDRINUSE:
        return "address in use; is another instance running?"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE"
    return (error.strerror or str(error)).lower()


def _with_scope(source: tuple[str, int, int, int]) -> tuple[str, int]:
    """Host and port of an IPv6 socket address; a link-local one means nothing without its interface (RFC 4007 §11)."""
    host, port, _, scope = source
    return (f"{host}%{scope}" if scope else host), port


def _interface_index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
