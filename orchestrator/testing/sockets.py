"""Phones on real sockets: each has a UDP port of its own on loopback and a greenlet that reads it."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent import socket

from orchestrator.testing.phone import Address, Phone


class SocketPhone(Phone):
    """A `Phone` whose datagrams really travel. Close it when it is no longer needed."""

    def __init__(self, aor: str, proxy: Address, host: str = "127.0.0.1", parameters: str = "") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        super().__init__(aor, self._socket.getsockname(), proxy, self._transmit, parameters)
        self.on_message: Callable[[SocketPhone, bytes, bool], None] | None = None
        """Told every datagram, `True` for one we sent."""
        self._reader = gevent.spawn(self._read)

    def _transmit(self, data: bytes, to: Address) -> None:
        if self.on_message is not None:
            self.on_message(self, data, True)
        self._socket.sendto(data, to)

    def _read(self) -> None:
        while True:
            data, source = self._socket.recvfrom(65_535)
            if self.on_message is not None:
                self.on_message(self, data, False)
            self.receive(data, source)

    def close(self) -> None:
        self._reader.kill()
        self._socket.close()


def wait_until(condition: Callable[[], object], timeout: float = 5.0) -> bool:
    """Let other greenlets run until the condition holds; False when it does not by `timeout` seconds."""
    with gevent.Timeout(timeout, False):
        while not condition():
            gevent.sleep(0.002)
        return True
    return bool(condition())
