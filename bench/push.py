"""A push service for benchmarks: takes POSTs over kept-open connections and says 200, in one thread, with no parsing.

It runs in the load generator's process, so it costs the server under test nothing but the exchange itself; and the
benchmarks wait until all pushes are through before they measure what comes next.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class PushService:
    """Listens on `url` while it is entered; `pushes` counts."""

    def __init__(self, host: str, answer: bytes = _ANSWER) -> None:
        self._answer = answer
        self._listener = socket.create_server((host, 0), backlog=256)
        self.url = "http://{}:{}/push".format(*self._listener.getsockname())
        self.pushes = 0
        self._selector = selectors.DefaultSelector()
        self._unread: dict[socket.socket, bytes] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._thread.join(5)
        for connection in self._unread:
            connection.close()
        self._listener.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(0.2):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._unread[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        """Answer every request that is complete."""
        try:
            octets = connection.recv(65_536)
        except ConnectionError:
            octets = b""
        if not octets:
            self._selector.unregister(connection)
            del self._unread[connection]
            connection.close()
            return
        unread = self._unread[connection] + octets
        while (end := unread.find(_END)) >= 0:
            length = _LENGTH.search(unread, 0, end + 2)
            whole = end + len(_END) + (int(length[1]) if length is not None else 0)
            if len(unread) < whole:
                break
            unread = unread[whole:]
            self.pushes += 1
            connection.sendall(self._answer)
        self._unread[connection] = unread
