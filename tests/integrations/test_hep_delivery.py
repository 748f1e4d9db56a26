"""The way to the receiver: nothing waits for it, what is lost is counted, and it may be slow, gone and back."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket, ssl
from gevent.server import StreamServer
from hepkit import packets

from orchestrator.cli.certificate import self_signed
from orchestrator.integrations.hep import delivery
from orchestrator.integrations.hep.delivery import Sender, open_tcp, open_tls, open_udp, tls_context
from orchestrator.integrations.hep.packet import LOG, UDP, Encoder
from orchestrator.testing.sockets import wait_until

ENCODER = Encoder(1)


def packet(number: int, size: int = 100) -> bytes:
    text = b"%06d" % number
    return ENCODER.packet(LOG, text.ljust(size, b"."), ("192.0.2.1", 1), ("192.0.2.2", 2), UDP, 1e9)


def numbers(stream: bytes) -> list[int]:
    """Of the packets in it."""
    return [int(found[found.index(b"\0\x0f") + 4 :][:6]) for found in packets(stream)]


class Receiver:
    """A TCP server that keeps what each connection has brought."""

    def __init__(self, **tls: Any) -> None:
        self.streams: list[bytearray] = []
        self.reads = True
        self._connections: list[Any] = []
        self._tls = tls
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = StreamServer(("127.0.0.1", self.port), self._take, **self._tls)
        self._server.start()
        self.port = self._server.server_port

    def _take(self, connection: Any, address: Any) -> None:
        octets = bytearray()
        self.streams.append(octets)
        self._connections.append(connection)
        try:
            while True:
                while not self.reads:
                    gevent.sleep(0.01)
                found = connection.recv(65_536)
                if not found:
                    return
                octets += found
        except OSError:
            pass

    def stop(self) -> None:
        self._server.stop(timeout=0)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    @property
    def numbers(self) -> list[int]:
        return [number for stream in self.streams for number in numbers(bytes(stream))]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


class Way:
    """A sender at work."""

    def __init__(self, open: Any, stream: bool = True, room: int = 1_000_000) -> None:
        self.told: list[str] = []
        self.sender = Sender(open, stream, room, self.told.append)
        self.greenlet = gevent.spawn(self.sender.run)

    def close(self) -> None:
        self.greenlet.kill()
        self.sender.finish(5)


def test_over_tcp_packets_follow_each_other(receiver: Receiver) -> None:
    way = Way(partial(open_tcp, "127.0.0.1", receiver.port))
    for number in range(3000):
        way.sender.put(packet(number))
    assert wait_until(lambda: len(receiver.numbers) == 3000)
    assert receiver.numbers == list(range(3000)) and way.sender.sent == 3000
    assert way.sender.waiting == 0 and way.told == [""]
    way.sender.put(packet(3000))
    way.close()
    assert wait_until(lambda: receiver.numbers[-1:] == [3000]), "what is left is sent at the end"


def test_one_that_is_gone_and_back_gets_what_waits(receiver: Receiver) -> None:
    way = Way(partial(open_tcp, "127.0.0.1", receiver.port))
    way.sender.put(packet(0))
    assert wait_until(lambda: receiver.numbers == [0])
    receiver.stop()
    assert wait_until(lambda: way.sender.put(packet(1)) or "refused" in way.sender.trouble)
    for number in range(2, 50):
        way.sender.put(packet(number))
    gevent.sleep(0.05)
    receiver.start()
    assert wait_until(lambda: receiver.numbers[-1] == 49)
    assert receiver.numbers[-48:] == list(range(2, 50)), "each once, in order"
    assert way.sender.connects == 2 and way.sender.trouble == "" and way.sender.lost == way.sender.dropped == 0
    way.close()


def test_one_that_reads_nothing_costs_memory_up_to_the_bound(receiver: Receiver) -> None:
    receiver.reads = False
    way = Way(partial(open_tcp, "127.0.0.1", receiver.port), room=200_000)
    for number in range(20_000):
        way.sender.put(packet(number, 1000))
        assert way.sender.waiting <= 200_000
        if not number % 100:
            gevent.sleep(0)
    assert way.sender.dropped > 1000
    receiver.reads = True
    assert wait_until(lambda: way.sender.waiting == 0)
    assert wait_until(lambda: len(receiver.numbers) == way.sender.sent)
    assert way.sender.sent + way.sender.dropped == 20_000
    assert receiver.numbers == sorted(set(receiver.numbers)), "each at most once, in order"
    way.close()


def test_one_that_takes_nothing_for_long_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SEND_TIME", 0.05)
    receiver.reads = False
    way = Way(partial(open_tcp, "127.0.0.1", receiver.port), room=30_000_000)
    for number in range(20_000):
        way.sender.put(packet(number, 1000))
    assert wait_until(lambda: way.sender.connects > 1)
    assert any("takes nothing" in text for text in way.told)
    monkeypatch.setattr(delivery, "SEND_TIME", 30.0)
    receiver.reads = True
    assert wait_until(lambda: way.sender.waiting == 0)
    way.close()
    assert wait_until(lambda: receiver.numbers[-1:] == [19_999])
    for stream in receiver.streams:
        assert numbers(bytes(stream)) == sorted(numbers(bytes(stream)))


def test_tls_with_a_certificate_that_is_checked(tmp_path: Path) -> None:
    certificate, key = self_signed(["127.0.0.1"], 3, datetime.now(UTC))
    for name, octets in (("certificate.pem", certificate), ("key.pem", key)):
        (tmp_path / name).write_bytes(octets)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    receiver = Receiver(ssl_context=server)
    way = Way(partial(open_tls, "127.0.0.1", receiver.port, tls_context(tmp_path / "certificate.pem", True)))
    careless = Way(partial(open_tls, "127.0.0.1", receiver.port, tls_context(None, False)))
    doubting = Way(partial(open_tls, "127.0.0.1", receiver.port, tls_context(None, True)))
    for number in range(500):
        way.sender.put(packet(number))
    assert wait_until(lambda: receiver.numbers == list(range(500)))
    assert wait_until(lambda: "certificate" in doubting.sender.trouble.lower())
    assert doubting.sender.connects == 0
    assert wait_until(lambda: careless.sender.trouble == "")
    for each in (way, careless, doubting):
        each.greenlet.kill()
        each.sender.finish(0.1)
    receiver.stop()
    with warnings.catch_warnings():  # gevent leaves the socket of a handshake that failed to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_udp_to_nobody_is_counted_and_somebody_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SOONEST", 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    way = Way(partial(open_udp, "127.0.0.1", port), stream=False)
    assert wait_until(lambda: way.sender.put(packet(0)) or way.sender.lost > 2)
    assert "refused" in "".join(way.told) and way.sender.connects > 1
    assert len(way.told) == 2, "it is told once, not for each packet"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)
        found: list[int] = []

        def comes() -> bool:
            way.sender.put(packet(7))
            try:
                found.extend(numbers(sock.recv(65_536)))
            except BlockingIOError:
                pass
            return 7 in found

        assert wait_until(comes)
        monkeypatch.setattr(delivery, "CALM", 0.0)
        assert wait_until(lambda: comes() and way.sender.trouble == "")
    way.close()


def test_a_name_that_nobody_has_is_tried_again() -> None:
    tries: list[int] = []

    def unknown() -> Any:
        tries.append(1)
        raise socket.gaierror(-2, "Name or service not known")

    way = Way(unknown, stream=False)
    way.sender.put(packet(0))
    assert wait_until(lambda: len(tries) > 2)
    assert "not known" in way.sender.trouble and way.sender.waiting
    way.close()
    assert way.sender.dropped == 1


def test_a_name_that_cannot_be_one_is_a_trouble() -> None:
    sender = Sender(partial(open_udp, "a..b", 9060), stream=False, room=1000)
    greenlet = gevent.spawn(sender.run)
    assert wait_until(lambda: greenlet.dead or sender.trouble != "not connected yet")
    assert not greenlet.dead
    greenlet.kill()
    sender.put(b"x")
    sender.finish(1.0)
    assert sender.dropped == 1
