"""A web server for tests that does what real ones do on a bad day, on real loopback sockets in this very loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.server import StreamServer


@dataclass
class Exchange:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Web:
    """`behave(exchange, sock)` answers each request; requests and connections are written down."""

    behave: Callable[[Exchange, Any], None]
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle(self, sock: Any, address: Any) -> None:
        self.connections += 1
        stream = sock.makefile("rb")
        number = self.connections
        try:
            while (exchange := self._read(stream, number)) is not None:
                self.exchanges.append(exchange)
                self.behave(exchange, sock)
        except OSError:
            pass  # the client has had enough
        finally:
            stream.close()

    def _read(self, stream: Any, connection: int) -> Exchange | None:
        line = stream.readline().decode()
        if not line:
            return None
        method, target, _ = line.split()
        headers = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        return Exchange(method, target, headers, body, connection)


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[Exchange, Any], None]:
    """A well-behaved answer; headers are written with underscores: content_type="text/plain"."""

    def behave(exchange: Exchange, sock: Any) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


def in_turn(*behaviours: Callable[[Exchange, Any], None]) -> Callable[[Exchange, Any], None]:
    """The first for the first request and so on; the last for all further ones."""
    left = list(behaviours)

    def behave(exchange: Exchange, sock: Any) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(exchange, sock)

    return behave


def hang(exchange: Exchange, sock: Any) -> None:
    """Takes the request and says nothing."""
    gevent.sleep(30)


def drip(exchange: Exchange, sock: Any) -> None:
    """One octet at a time, each well before any read timeout."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        sock.sendall(b"x")
        gevent.sleep(0.02)


def drop(exchange: Exchange, sock: Any) -> None:
    """Closes without a word."""
    sock.close()
    raise OSError


@contextmanager
def web(behave: Callable[[Exchange, Any], None]) -> Iterator[Web]:
    served = Web(behave)
    server = StreamServer(("127.0.0.1", 0), served.handle)
    server.start()
    served.port = server.server_port
    yield served
    server.stop(timeout=0)
