"""Phones on real sockets: each has a UDP port of its own on loopback and a greenlet that reads it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic

import gevent
from gevent import socket

from orchestrator.testing.phone import Address, Phone

_SO_TIMESTAMPNS = 35
"""Linux: the kernel notes when a datagram came, in nanoseconds. Two sockets are read in any order, these are the order
they were sent in."""

Take = Callable[[bytes, Address], None]


class Wire:
    """A UDP port for an endpoint that takes octets and gives some; `take` gets what comes. Close it when it is no
    longer needed."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((host, 0))
        self.address: Address = self._socket.getsockname()
        self.take: Take = lambda data, source: None
        self.on_message: Callable[[Wire, bytes, bool], None] | None = None
        """Told every datagram, `True` for one we sent."""
        self.arrivals: list[tuple[int, bytes]] = []
        """Every datagram received with the time the kernel gave it, in nanoseconds."""
        self._reader = gevent.spawn(self._read)

    def send(self, data: bytes, to: Address) -> None:
        if self.on_message is not None:
            self.on_message(self, data, True)
        self._socket.sendto(data, to)

    def _read(self) -> None:
        while True:
            data, notes, _, source = self._socket.recvmsg(65_535, 64)
            self.arrivals += [(_nanoseconds(note), data) for level, kind, note in notes if kind == _SO_TIMESTAMPNS]
            if self.on_message is not None:
                self.on_message(self, data, False)
            self.take(data, source)

    def close(self) -> None:
        self._reader.kill()
        self._socket.close()


class SocketPhone(Phone):
    """A `Phone` whose datagrams really travel. Close it when it is no longer needed."""

    def __init__(self, aor: str, proxy: Address, host: str = "127.0.0.1", parameters: str = "") -> None:
        self.wire = Wire(host)
        super().__init__(aor, self.wire.address, proxy, self.wire.send, parameters)
        self.wire.take = self.receive

    @property
    def arrivals(self) -> list[tuple[int, bytes]]:
        """Every datagram received with the time the kernel gave it, in nanoseconds."""
        return self.wire.arrivals

    def close(self) -> None:
        self.wire.close()


def _nanoseconds(timespec: bytes) -> int:
    seconds, nanoseconds = struct.unpack("qq", timespec)
    return int(seconds * 1_000_000_000 + nanoseconds)


def wait_until(condition: Callable[[], object], timeout: float = 20.0) -> bool:
    """Let other greenlets run until the condition holds; False when it does not by `timeout` seconds."""
    deadline = monotonic() + timeout
    while not condition():
        if monotonic() > deadline:
            return False
        gevent.sleep(0.002)
    return True
