"""The effect against a server that speaks Redis's protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from gevent import socket
from gevent.server import StreamServer
from orchestrator_redis import RedisGet

from orchestrator.errors import StepError

Serve = Callable[[bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers everything with these octets; returns its port."""
    servers: list[StreamServer] = []

    def start(answer: bytes) -> int:
        def handle(connection: socket.socket, address: object) -> None:
            assert connection.recv(1000) == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
            connection.sendall(answer)

        servers.append(StreamServer(("127.0.0.1", 0), handle))
        servers[-1].start()
        return int(servers[-1].server_port)

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize(("answer", "value"), [(b"$5\r\nhello\r\n", "hello"), (b"$-1\r\n", None), (b"$0\r\n\r\n", "")])
def test_a_value_is_read(serve: Serve, answer: bytes, value: str | None) -> None:
    assert RedisGet("k", "127.0.0.1", serve(answer)).perform() == value


@pytest.mark.parametrize("answer", [b"-NOAUTH Authentication required.\r\n", b"", b"$999999\r\n", b"rubbish\r\n"])
def test_anything_else_is_an_error_of_the_step(serve: Serve, answer: bytes) -> None:
    with pytest.raises(StepError) as caught:
        RedisGet("k", "127.0.0.1", serve(answer)).perform()
    assert caught.value.type == "redis_get.refused"


def test_no_server_is_an_error_of_the_step() -> None:
    with pytest.raises(StepError) as caught:
        RedisGet("k", "127.0.0.1", 1).perform()
    assert caught.value.type == "redis_get.connect"
