"""A transport of connections: it listens at one address, accepts, and sends over those there are."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from gevent import monkey
from loguru import logger

from orchestrator.errors import ListenError
from orchestrator.packages.transport import Inputs
from orchestrator.runtime.reactor import READ
from orchestrator.runtime.streams.connections import Connections, tune
from orchestrator.runtime.streams.layers import Layers
from orchestrator.runtime.udp import bind_reason
from orchestrator.sip.points import Hop, Point

BACKLOG = 1024
"""Connections that the kernel keeps for us until we accept them."""
ACCEPTS = 16
"""Connections accepted in one wake-up."""
PAUSE = 0.5
"""Seconds without accepting when the system has no more descriptors: the loop would spin."""

_socket: Any = monkey.get_original("socket", "socket")
"""The operating system's own, not gevent's."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamTransport:
    """One listening socket, bound at once, and the connections of its transport; from `start` on it accepts.

    Raises:
        ListenError: no IP address, or the system does not let us have it.
    """

    def __init__(self, transport: str, host: str, port: int, connections: Connections, layers: Layers) -> None:
        self.name = f"{transport}:[{host}]:{port}" if ":" in host else f"{transport}:{host}:{port}"
        self.kind = transport
        self.index = -1
        self.received = self.sent = 0
        self.errors: Counter[str] = Counter()
        self._connections = connections
        self._layers = layers
        self._socket = self._open(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._everywhere = ip_address(self.address[0]).is_unspecified
        self._inputs: Inputs
        self._point: Point
        self._point_at: Callable[[str], Point] | None = None
        self._watcher: Any = None
        self._pause: Any = None

    def start(self, inputs: Inputs, point: Point, at: Callable[[str], Point] | None = None) -> None:
        """Join a reactor and begin to accept; until then connections wait in the kernel."""
        self.index = inputs.attach(self)
        self._inputs, self._point = inputs, point
        self._point_at = at if self._everywhere else None
        self._connections.start(inputs)
        self._watcher = inputs.loop.io(self._socket.fileno(), READ)
        self._pause = inputs.loop.timer(PAUSE)
        self._watcher.start(self._acceptable)

    def revive(self) -> bool:
        """Accept on, should the loop have let go of the socket. True when it had."""
        revived = self._connections.revive()
        if self._watcher is None or self._watcher.active or self._pause.active:
            return revived
        self._watcher.start(self._acceptable)
        return True

    def close(self) -> None:
        if self._watcher is not None:
            for watcher in (self._watcher, self._pause):
                watcher.stop()
                watcher.close()
            self._watcher = None
        self._socket.close()

    def send(self, data: bytes, hop: Hop) -> None:
        """Send over the connection of the hop, over one that leads there, or over a new one where we open any."""
        connection = self._connections.toward(hop, self._layers)
        if connection is None and not hop.connection and self._layers.connects:
            connection = self._connections.connect(hop, self._layers, self)
        if connection is None:
            self._inputs.failed(hop, data)
        else:
            self.sent += 1
            connection.send(data, hop)

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _open(self, host: str, port: int) -> socket.socket:
        try:
            address = ip_address(host)
        except ValueError:
            raise ListenError(self.name, f"{host!r} is not an IP address") from None
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock: socket.socket = _socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before a restart do not matter
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            sock.close()
            raise ListenError(self.name, bind_reason(error)) from None
        return sock

    def _acceptable(self) -> None:
        """Loop callback: some of those who wait."""
        try:
            for number in range(ACCEPTS):
                if number and not self._connections.pace.may():
                    return  # who is left makes it wake again at the loop's next pass; one is let in at each
                self._accept()
        except BlockingIOError:
            pass
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, "EIO")] += 1
            if error.errno in _EXHAUSTED:
                logger.bind(listen=self.name, error=error.strerror).error("accept_failed")
                self._hold_off()
        except Exception:
            logger.bind(source=self.name).exception("socket_fault")
            self.errors["EIO"] += 1

    def _hold_off(self) -> None:
        self._watcher.stop()
        self._pause.close()
        self._pause = self._inputs.loop.timer(PAUSE)  # libev's timer fires at once when it is started again
        self._pause.start(self._go_on)

    def _go_on(self) -> None:
        self._watcher.start(self._acceptable)

    def _accept(self) -> None:
        descriptor, source = self._socket._accept()  # type: ignore[attr-defined]  # accept() makes one of gevent's
        sock: socket.socket = _socket(fileno=descriptor)
        host, port = source[:2]
        if len(source) == 4 and source[3]:
            host = f"{host}%{source[3]}"
        reason = self._connections.refusal(host)
        if reason:
            self._connections.refused[reason] += 1
            sock.close()
            return
        try:
            tune(sock)
            local = sock.getsockname()[0] if self._point_at is not None else ""
        except OSError:  # it has gone already
            sock.close()
            return
        point = self._point_at(local) if self._point_at is not None else self._point
        self._connections.accept(sock, self._layers, Hop(point, host, port, self._connections.number()), self)

    def __repr__(self) -> str:
        return f"<StreamTransport {self.index} {self.name} received {self.received} sent {self.sent}>"
