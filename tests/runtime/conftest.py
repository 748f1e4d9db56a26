"""Reactor, transport and peer around an echo core, on real loopback sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from echo_core import EchoCore

from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.udp import UdpTransport


@pytest.fixture
def core() -> EchoCore:
    return EchoCore()


@pytest.fixture
def reactor(core: EchoCore) -> Iterator[Reactor]:
    reactor = Reactor(core, lambda job: None)
    yield reactor
    reactor.close()


@pytest.fixture
def transport(reactor: Reactor) -> Iterator[UdpTransport]:
    transport = UdpTransport("127.0.0.1", 0)
    transport.start(reactor)
    yield transport
    transport.close()


@pytest.fixture
def phone() -> Iterator[socket.socket]:
    """A peer with a plain socket; it never blocks, ask with `wait_until(lambda: received(phone))`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock
