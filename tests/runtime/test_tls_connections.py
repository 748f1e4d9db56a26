"""TLS on real loopback sockets; handshakes, names and files as octets are in test_tls.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from echo_core import EchoCore, wait_until
from tls_files import write_authority, write_pair

from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.streams.tls import Certificates, TlsCipher, TlsFiles
from orchestrator.runtime.transports import Context, transport_kind
from orchestrator.sip.points import Hop, Point

OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    certificate, key = write_pair(tmp_path, "example.com")
    return TlsFiles(certificate, key, write_authority(tmp_path / "ca.pem"))


@pytest.fixture
def certificates(files: TlsFiles) -> Certificates:
    return Certificates(files)


@pytest.fixture
def tls(reactor: Reactor, certificates: Certificates) -> Iterator[StreamTransport]:
    connections = Connections(StreamLimits())
    transport = transport_kind("tls").open("127.0.0.1", 0, Context(connections, certificates))
    assert isinstance(transport, StreamTransport)
    transport.start(reactor, Point(0, "tls", *transport.address))
    yield transport
    transport.close()
    connections.close()


class Peer:
    """The other end of a connection, which speaks TLS."""

    def __init__(self, sock: socket.socket, cipher: TlsCipher) -> None:
        self.sock, self.cipher = sock, cipher
        self.heard = b""
        self.ended = False
        sock.setblocking(False)

    def look(self) -> bool:
        """Take what has come; True, so that it can stand in a condition."""
        try:
            octets = self.sock.recv(65_536)
            self.ended = self.ended or not octets
            self.heard += self.cipher.receive(octets) if octets else b""
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True
        if answer := self.cipher.take():
            self.sock.send(answer)
        return True

    def send(self, message: bytes) -> None:
        wait_until(lambda: self.look() and self.cipher.open)
        self.sock.send(self.cipher.send(message))

    def hear(self, message: bytes) -> None:
        wait_until(lambda: self.look() and len(self.heard) >= len(message))
        heard, self.heard = self.heard, b""
        assert heard == message


def call(tls: StreamTransport, certificates: Certificates) -> Peer:
    return Peer(socket.create_connection(tls.address), certificates.cipher("example.com"))


def test_messages_are_answered_on_their_connection(tls: StreamTransport, certificates: Certificates) -> None:
    peer = call(tls, certificates)
    peer.send(OPTIONS * 2)
    peer.hear(OPTIONS * 2)
    peer.sock.close()


@pytest.mark.parametrize(("name", "reached"), [("example.com", True), ("", True), ("example.net", False)])
def test_whom_we_connect_to_must_prove_its_name(
    name: str, reached: bool, core: EchoCore, reactor: Reactor, tls: StreamTransport, certificates: Certificates
) -> None:
    core.on_datagram = lambda data, hop: None
    with socket.create_server(("127.0.0.1", 0)) as server:
        hop = Hop(tls._point, *server.getsockname(), name=name)
        core.datagrams.append((OPTIONS, hop))
        reactor.flush()
        sock, _ = server.accept()
        with sock:
            peer = Peer(sock, certificates.cipher(None))
            if reached:
                peer.hear(OPTIONS)
                assert not core.seen("failed")
            else:
                wait_until(lambda: peer.look() and core.seen("failed"))
                assert core.seen("failed") == [(hop, OPTIONS)] and peer.heard == b""
                peer.sock.send(peer.cipher.send(OPTIONS) if peer.cipher.open else b"")
                wait_until(lambda: peer.look() and peer.ended)
                assert not core.seen("datagram")


def test_a_new_certificate_leaves_standing_connections_alone(
    tls: StreamTransport, certificates: Certificates, tmp_path: Path
) -> None:
    before = call(tls, certificates)
    before.send(OPTIONS)
    write_pair(tmp_path, "new.example")
    assert certificates.look()
    after = Peer(socket.create_connection(tls.address), certificates.cipher("new.example"))
    after.send(OPTIONS)
    assert after.cipher.admits("new.example") == "" and before.cipher.admits("example.com") == ""
    before.send(OPTIONS)
    before.hear(OPTIONS * 2)
    after.hear(OPTIONS)
    before.sock.close()
    after.sock.close()


def test_who_speaks_no_tls_costs_nobody_else(tls: StreamTransport, certificates: Certificates) -> None:
    with socket.create_connection(tls.address) as stranger:
        stranger.send(OPTIONS)
        stranger.setblocking(False)
        stranger_peer = Peer(stranger, certificates.cipher("example.com"))
        peer = call(tls, certificates)
        peer.send(OPTIONS)
        peer.hear(OPTIONS)
        wait_until(lambda: stranger_peer.look() and stranger_peer.ended)
        peer.sock.close()
    wait_until(lambda: tls._connections.unopened["tls wrong version number"] == 1)


# --- RFC 5923 ---------------------------------------------------------------------------------------------------------

ASKED = (
    b"OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:%d;branch=z9hG4bK1%b\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("verify", "alias", "name", "used"),
    [
        ("required", b";alias", "example.com", True),
        ("required", b";alias", "", True),
        ("required", b"", "example.com", False),
        ("required", b";alias", "example.net", False),
        ("none", b";alias", "example.com", False),
    ],
)
def test_a_connection_is_used_for_the_port_it_is_an_alias_of(
    verify: str, alias: bytes, name: str, used: bool, core: EchoCore, reactor: Reactor, files: TlsFiles
) -> None:
    """Only where the peer has proved who it is, and only for that name (§9)."""
    certificates = Certificates(TlsFiles(files.certificate, files.key, files.ca, verify=verify))
    connections = Connections(StreamLimits())
    transport = transport_kind("tls").open("127.0.0.1", 0, Context(connections, certificates))
    assert isinstance(transport, StreamTransport)
    transport.start(reactor, Point(0, "tls", *transport.address))
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            peer = call(transport, certificates)
            asked = ASKED % (server.getsockname()[1], alias)
            peer.send(asked)
            peer.hear(asked)
            core.datagrams.append((OPTIONS, Hop(transport._point, *server.getsockname(), name=name)))
            reactor.flush()
            if used:
                peer.hear(OPTIONS)
            else:
                wait_until(lambda: _accepts(server))
                assert peer.look() and peer.heard == b""
            peer.sock.close()
    finally:
        transport.close()
        connections.close()


def _accepts(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True
