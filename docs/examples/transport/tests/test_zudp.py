from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator

import pytest
from orchestrator_zudp import TRANSPORT, Zudp, ZudpSettings

from orchestrator.errors import ListenError
from orchestrator.sip.points import Hop, Point
from orchestrator.testing.transports import FakeContext, FakeInputs

OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def inputs() -> FakeInputs:
    return FakeInputs()


@pytest.fixture
def transport(inputs: FakeInputs) -> Iterator[Zudp]:
    transport = Zudp("127.0.0.1", 0, FakeContext(ZudpSettings(), message=2_000))
    transport.start(inputs, Point(0, "zudp", *transport.address), None)
    yield transport
    transport.close()


@pytest.fixture
def phone() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(20)
        yield phone


def test_messages_come_and_go_compressed(inputs: FakeInputs, transport: Zudp, phone: socket.socket) -> None:
    phone.sendto(zlib.compress(OPTIONS), transport.address)
    inputs.wait(lambda: inputs.messages)
    ((message, hop),) = inputs.messages
    assert message == OPTIONS and (hop.host, hop.port) == phone.getsockname()
    transport.send(b"SIP/2.0 200 OK\r\n\r\n", hop)
    assert zlib.decompress(phone.recv(2_000)) == b"SIP/2.0 200 OK\r\n\r\n"
    assert (transport.received, transport.sent) == (1, 1)


@pytest.mark.parametrize(("data", "error"), [(OPTIONS, "EBADMSG"), (zlib.compress(bytes(10**7)), "EMSGSIZE")])
def test_what_cannot_be_unpacked_is_counted(
    data: bytes, error: str, inputs: FakeInputs, transport: Zudp, phone: socket.socket
) -> None:
    phone.sendto(data, transport.address)
    inputs.wait(lambda: transport.errors)
    assert transport.errors == {error: 1} and not inputs.messages


def test_what_cannot_be_sent_comes_back(inputs: FakeInputs, transport: Zudp) -> None:
    nowhere = Hop(transport._point, "127.0.0.1", 0)
    transport.send(OPTIONS, nowhere)
    assert inputs.unsent == [(OPTIONS, nowhere)]


def test_an_address_in_use_is_said_at_once(transport: Zudp) -> None:
    with pytest.raises(ListenError, match="in use"):
        Zudp(*transport.address, FakeContext(ZudpSettings()))


def test_it_is_declared() -> None:
    assert (TRANSPORT.name, TRANSPORT.reliable, TRANSPORT.secure) == ("zudp", False, False)
