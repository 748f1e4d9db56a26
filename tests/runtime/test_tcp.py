"""TCP on real loopback sockets: what only sockets show. States, time-outs and limits are in test_stream_states.py."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from echo_core import EchoCore, wait_until

from orchestrator.errors import ListenError
from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.transports import Context, transport_kind
from orchestrator.sip.points import Hop, Point

OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"
Make = Callable[..., StreamTransport]


@pytest.fixture
def connections() -> Iterator[Connections]:
    connections = Connections(StreamLimits())
    yield connections
    connections.close()
    assert not connections.ended["fault"] and not connections.unopened["fault"]


@pytest.fixture
def tcp(reactor: Reactor, connections: Connections) -> Iterator[StreamTransport]:
    transport = transport_kind("tcp").open("127.0.0.1", 0, Context(connections))
    assert isinstance(transport, StreamTransport)
    transport.start(reactor, Point(0, "tcp", *transport.address))
    yield transport
    transport.close()


@pytest.fixture
def client(tcp: StreamTransport) -> Iterator[socket.socket]:
    with socket.create_connection(tcp.address) as sock:
        sock.setblocking(False)
        yield sock


def read(sock: socket.socket, octets: int) -> bytes:
    """So many octets, or what comes before the end."""
    found = b""

    def whole() -> bool:
        nonlocal found
        try:
            more = sock.recv(65_536)
        except BlockingIOError:
            return False
        found += more
        return not more or len(found) >= octets

    wait_until(whole)
    return found


def has_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(65_536) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def at(tcp: StreamTransport, address: tuple[str, int], connection: int = 0) -> Hop:
    return Hop(tcp._point, *address, connection)


def test_messages_are_answered_on_their_connection(core: EchoCore, client: socket.socket) -> None:
    client.send(OPTIONS * 2 + OPTIONS[:20])
    assert read(client, 2 * len(OPTIONS)) == OPTIONS * 2
    client.send(OPTIONS[20:])
    assert read(client, len(OPTIONS)) == OPTIONS
    assert [seen[:3] for seen in core.seen("datagram")] == [(OPTIONS, *client.getsockname())] * 3


def test_octet_at_a_time(core: EchoCore, client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(len(OPTIONS)):
        client.send(OPTIONS[position : position + 1])
    assert read(client, len(OPTIONS)) == OPTIONS


def test_keep_alive_is_answered(client: socket.socket) -> None:
    client.send(b"\r\n\r\n")
    assert read(client, 2) == b"\r\n"


def test_a_connection_is_opened_and_used_again(core: EchoCore, reactor: Reactor, tcp: StreamTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        hop = at(tcp, server.getsockname()[:2])
        core.datagrams += [(OPTIONS, hop), (OPTIONS, hop)]
        reactor.flush()
        peer, _ = wait_until(lambda: accepted(server))
        with peer:
            peer.setblocking(False)
            assert read(peer, 2 * len(OPTIONS)) == 2 * OPTIONS
            peer.send(OPTIONS)  # the echo goes back over the same connection
            assert read(peer, len(OPTIONS)) == OPTIONS
            core.datagrams.append((OPTIONS, hop))
            reactor.flush()
            assert read(peer, len(OPTIONS)) == OPTIONS
    assert accepted(server) is None


def accepted(server: socket.socket) -> tuple[socket.socket, object] | None:
    try:
        return server.accept()
    except (BlockingIOError, OSError):
        return None


def test_a_refused_connection_is_news_for_the_core(core: EchoCore, reactor: Reactor, tcp: StreamTransport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hop = at(tcp, unused.getsockname())
        core.datagrams.append((OPTIONS, hop))
        reactor.flush()
        assert wait_until(lambda: core.seen("failed")) == [(hop, OPTIONS)]
    assert not core.seen("lost")


def test_what_is_meant_for_a_connection_that_has_ended_fails(
    core: EchoCore, reactor: Reactor, tcp: StreamTransport
) -> None:
    hop = at(tcp, ("127.0.0.1", 5060), connection=4711)
    core.datagrams.append((OPTIONS, hop))
    reactor.flush()
    assert wait_until(lambda: core.seen("failed")) == [(hop, OPTIONS)]


def test_the_end_of_a_connection_is_news_for_the_core(core: EchoCore, client: socket.socket) -> None:
    client.send(OPTIONS)
    read(client, len(OPTIONS))
    client.close()
    ((hop,),) = wait_until(lambda: core.seen("lost"))
    assert hop.connection


def test_a_peer_that_has_said_all_still_gets_its_answer(
    core: EchoCore, reactor: Reactor, client: socket.socket
) -> None:
    core.on_datagram = lambda data, hop: None
    client.send(OPTIONS)
    client.shutdown(socket.SHUT_WR)
    ((hop,),) = wait_until(lambda: core.seen("lost"))
    core.datagrams.append((OPTIONS, hop))
    reactor.flush()
    assert read(client, len(OPTIONS)) == OPTIONS


def test_without_content_length_the_connection_ends_behind_the_answer(core: EchoCore, client: socket.socket) -> None:
    refusal = core.on_malformed = b"SIP/2.0 400 Content-Length is missing\r\nContent-Length: 0\r\n\r\n"
    client.send(OPTIONS + OPTIONS.replace(b"Content-Length", b"Content-Size") + OPTIONS)
    assert read(client, len(OPTIONS + refusal)) == OPTIONS + refusal
    wait_until(lambda: has_ended(client))
    assert len(core.seen("datagram")) == 1


@pytest.mark.parametrize("sent", [OPTIONS[:-1], OPTIONS[:40], OPTIONS.replace(b"Content-Length", b"Content-Size")])
def test_who_stops_in_a_message_is_answered(
    sent: bytes, core: EchoCore, client: socket.socket, connections: Connections
) -> None:
    """RFC 4475 clerr: the Content-Length is larger than what comes."""
    refusal = core.on_malformed = b"SIP/2.0 400 Incomplete Message\r\nContent-Length: 0\r\n\r\n"
    client.send(sent)
    client.shutdown(socket.SHUT_WR)
    assert read(client, len(refusal)) == refusal
    wait_until(lambda: has_ended(client))
    wait_until(lambda: not connections.by_number)
    assert [data for data, _, _ in core.seen("malformed")] == [sent if b"Size" not in sent else sent[:-3]]


def test_a_second_server_is_refused_the_port(tcp: StreamTransport, connections: Connections) -> None:
    with pytest.raises(ListenError, match="in use"):
        transport_kind("tcp").open(*tcp.address, Context(connections))


def test_who_has_too_many_connections_is_refused_one_more(
    core: EchoCore, reactor: Reactor, tcp: StreamTransport, connections: Connections
) -> None:
    connections.limits = StreamLimits(connections_per_source=2)
    socks = [socket.create_connection(tcp.address) for _ in range(3)]
    try:
        for sock in socks:
            sock.setblocking(False)
        wait_until(lambda: connections.refused)
        assert connections.refused == {"connections_per_source": 1}
        wait_until(lambda: has_ended(socks[2]))
        socks[0].close()
        wait_until(lambda: len(connections.by_number) == 1)
        with socket.create_connection(tcp.address) as again:
            again.setblocking(False)
            again.send(OPTIONS)
            assert read(again, len(OPTIONS)) == OPTIONS
    finally:
        for sock in socks:
            sock.close()
