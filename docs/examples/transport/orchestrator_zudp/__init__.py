"""SIP over UDP, each datagram compressed: for links where octets are dear and both ends are ours.

    sip:
      listen: [udp:0.0.0.0:5060, zudp:0.0.0.0:5070]
      transports: {zudp: {level: 9}}

A URI with `;transport=zudp` is reached by it. There is no standard for this; RFC 3486 has one that hardly anybody has
built.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from gevent import monkey
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import ListenError
from orchestrator.packages.transport import Inputs, TransportContext, TransportKind
from orchestrator.sip.points import Hop, Point

_socket: Any = monkey.get_original("socket", "socket")
"""The operating system's own socket, not gevent's: it never waits."""
READ = 1
BATCH = 32
"""Datagrams read in one callback: then it is the turn of others."""


class ZudpSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    level: int = Field(default=6, ge=1, le=9)
    """How hard it tries: 1 is fast, 9 is small."""


class Zudp:
    """One socket."""

    def __init__(self, host: str, port: int, context: TransportContext) -> None:
        self.name = f"zudp:{host}:{port}"
        self.received = self.sent = 0
        self.errors: Counter[str] = Counter()
        self._level = context.settings.level
        self._message = context.message
        self._socket = _socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise ListenError(self.name, (error.strerror or str(error)).lower()) from None
        self.address: tuple[str, int] = self._socket.getsockname()
        self._watcher: Any = None

    def start(self, inputs: Inputs, point: Point, at: Callable[[str], Point] | None) -> None:
        inputs.attach(self)
        self._inputs, self._point = inputs, point
        self._watcher = inputs.loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._readable)

    def send(self, data: bytes, hop: Hop) -> None:
        try:
            self._socket.sendto(zlib.compress(data, self._level), (hop.host, hop.port))
        except OSError as error:
            self._count(error)
            self._inputs.failed(hop, data)
        else:
            self.sent += 1

    def revive(self) -> bool:
        if self._watcher is None or self._watcher.active:
            return False
        self._watcher.start(self._readable)
        return True

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._socket.close()

    def _readable(self) -> None:
        """Callback of the loop: it must neither wait nor raise."""
        try:
            for _ in range(BATCH):
                self._read()
        except BlockingIOError:
            pass
        except OSError as error:  # what the network said about a datagram sent before
            self._count(error)
        self._inputs.settle()

    def _read(self) -> None:
        data, source = self._socket.recvfrom(65_535)
        unpack = zlib.decompressobj()
        try:
            message = unpack.decompress(data, self._message)
        except zlib.error:
            self.errors["EBADMSG"] += 1
            return
        if unpack.unconsumed_tail:  # more than a message may have: somebody wants our memory
            self.errors["EMSGSIZE"] += 1
            return
        self.received += 1
        self._inputs.receive(message, Hop(self._point, *source), self._inputs.clock())

    def _count(self, error: OSError) -> None:
        self.errors[errno.errorcode.get(error.errno or 0, "EIO")] += 1


TRANSPORT = TransportKind(
    "zudp",
    "SIP over UDP, each datagram compressed.",
    Zudp,
    reliable=False,
    secure=False,
    default_port=5070,
    settings=ZudpSettings,
)
