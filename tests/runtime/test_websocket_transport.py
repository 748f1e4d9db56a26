"""WebSocket on real loopback sockets: phones of the test kit at the transport, around an echo core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from echo_core import EchoCore, wait_until

from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.streams.websocket import WebSocketRules
from orchestrator.runtime.transports import Context, transport_kind
from orchestrator.sip.points import Hop, Point
from orchestrator.testing.websocket import HandshakeRefused, WebSocketClient

OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture
def connections() -> Iterator[Connections]:
    connections = Connections(StreamLimits())
    yield connections
    connections.close()


@pytest.fixture
def ws(reactor: Reactor, connections: Connections) -> Iterator[StreamTransport]:
    transport = transport_kind("ws").open(
        "127.0.0.1", 0, Context(connections, websocket=WebSocketRules("/ws", message=1000))
    )
    assert isinstance(transport, StreamTransport)
    transport.start(reactor, Point(0, "ws", *transport.address))
    yield transport
    transport.close()


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def client(ws: StreamTransport, heard: list[bytes]) -> Iterator[WebSocketClient]:
    client = WebSocketClient(ws.address, heard.append, path="/ws")
    yield client
    client.cut()


def test_messages_are_answered_on_their_connection(core: EchoCore, client: WebSocketClient, heard: list[bytes]) -> None:
    assert client.subprotocol == "sip"
    client.send(OPTIONS)
    client.send(OPTIONS, binary=True)
    wait_until(lambda: heard == [OPTIONS, OPTIONS])
    assert [found[1:3] for found in core.seen("datagram")] == [client.address] * 2


def test_a_ping_and_a_keepalive_are_answered(client: WebSocketClient, heard: list[bytes]) -> None:
    client.send(b"\r\n\r\n")
    wait_until(lambda: heard == [b"\r\n"])


def test_who_may_not_connect_is_told_why(ws: StreamTransport, connections: Connections) -> None:
    with pytest.raises(HandshakeRefused, match="404: This port speaks SIP over WebSocket"):
        WebSocketClient(ws.address, print, path="/")
    with pytest.raises(HandshakeRefused) as refused:
        WebSocketClient(ws.address, print, path="/ws", origin="https://elsewhere.example")
    assert refused.value.status == 403
    wait_until(lambda: connections.unopened == {"http 404": 1, "http 403": 1})
    assert not connections.opened and not connections.ended


def test_a_message_that_is_too_large_ends_the_connection(
    client: WebSocketClient, connections: Connections, core: EchoCore
) -> None:
    client.send(bytes(1001), binary=True)
    wait_until(lambda: client.close_code == 1009)
    wait_until(lambda: connections.ended == {"websocket 1009": 1})
    assert [hop.connection for (hop,) in core.seen("lost")] == [1]


def test_a_phone_that_says_good_bye_is_gone_at_once(
    client: WebSocketClient, connections: Connections, core: EchoCore
) -> None:
    client.send(OPTIONS)
    wait_until(lambda: core.seen("datagram"))
    client.close()
    wait_until(lambda: connections.ended == {"closed": 1})
    assert [hop.connection for (hop,) in core.seen("lost")] == [1]
    assert connections.by_number == {}


def test_nobody_is_connected_to(ws: StreamTransport, core: EchoCore, client: WebSocketClient) -> None:
    """A browser accepts no connections: whose is gone cannot be reached (RFC 7118 §5)."""
    hop = Hop(ws._point, "127.0.0.1", 9)
    ws.send(OPTIONS, hop)
    wait_until(lambda: core.seen("failed") == [(hop, OPTIONS)])
