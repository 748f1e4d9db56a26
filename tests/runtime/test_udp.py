"""The UDP transport on real loopback sockets: what arrives, what leaves, what goes wrong."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from itertools import pairwise
from time import monotonic
from typing import Any

import gevent
import pytest
from echo_core import EchoCore, received, wait_until

from orchestrator.errors import ListenError
from orchestrator.runtime import udp
from orchestrator.runtime.reactor import BATCH, Reactor
from orchestrator.runtime.udp import UdpTransport
from orchestrator.sip.points import Hop, Point

HAS_IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")  # noqa: PTH110
needs_addresses = pytest.mark.skipif(sys.platform != "linux", reason="IP_PKTINFO as Linux has it")
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


def spin(seconds: float) -> None:
    until = monotonic() + seconds
    while monotonic() < until:
        pass


# --- in and out -------------------------------------------------------------------------------------------------------


def test_datagram_makes_the_round(core: EchoCore, transport: UdpTransport, phone: socket.socket) -> None:
    phone.sendto(b"OPTIONS", transport.address)
    assert wait_until(lambda: received(phone)) == b"OPTIONS"
    host, port = phone.getsockname()
    assert core.seen("datagram") == [(b"OPTIONS", host, port, transport.id)]
    assert (transport.received, transport.sent) == (1, 1)


@pytest.mark.parametrize("octets", [0, 1, 8_192, 8_193, 65_507])
def test_datagrams_of_every_size_arrive_whole(transport: UdpTransport, core: EchoCore, octets: int) -> None:
    """gevent's own server cuts at 8,192; 65,507 octets are the most that fit into an IPv4 packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(os.urandom(octets), transport.address)
        wait_until(lambda: core.seen("datagram"))
        assert len(core.seen("datagram")[0][0]) == octets


@needs_addresses
@pytest.mark.parametrize("behind", [False, True])
def test_a_socket_bound_to_all_answers_from_where_it_was_asked(core: EchoCore, reactor: Reactor, behind: bool) -> None:
    """RFC 3581 §4; with a connected socket the peer hears nothing from anywhere else. `behind`: datagrams wait."""
    everywhere = UdpTransport("0.0.0.0", 0)
    points: dict[str, Point] = {}

    def at(local: str) -> Point:
        return points.setdefault(local, Point(everywhere.id, "udp", local, everywhere.address[1], local=local))

    everywhere.start(reactor, None, at)
    everywhere._behind = behind
    asked = ("127.0.0.1", "127.0.0.2", "127.8.8.8")
    peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in asked]
    for peer, address in zip(peers, asked, strict=True):
        peer.connect((address, everywhere.address[1]))
        peer.setblocking(False)
        peer.send(address.encode())
    for peer, address in zip(peers, asked, strict=True):
        assert wait_until(lambda peer=peer: received(peer)) == address.encode()  # type: ignore[misc]
        peer.close()
    assert set(points) == set(asked)
    assert everywhere.errors == {}
    everywhere.close()


@needs_addresses
def test_one_peer_is_answered_from_whichever_address_it_has_asked(core: EchoCore, reactor: Reactor) -> None:
    everywhere = UdpTransport("0.0.0.0", 0)
    points: dict[str, Point] = {}
    everywhere.start(
        reactor, None, lambda local: points.setdefault(local, Point(everywhere.id, "udp", local, 5060, local=local))
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.1"):
            peer.sendto(address.encode(), (address, everywhere.address[1]))
            assert wait_until(lambda: heard(peer)) == (address.encode(), (address, everywhere.address[1]))
    everywhere.close()


def heard(peer: socket.socket) -> Any:
    """The next datagram and who has sent it; None when there is none."""
    try:
        return peer.recvfrom(100)
    except BlockingIOError:
        return None


def test_peers_are_remembered_up_to_a_bound(
    core: EchoCore, transport: UdpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "MAX_KNOWN", 3)
    hops: list[Hop] = []
    core.on_datagram = lambda data, hop: hops.append(hop)
    for number in range(10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"one", transport.address)
            peer.sendto(b"two", transport.address)
            assert wait_until(lambda count=2 * number + 2: len(hops) == count)
    assert all(hops[at] is hops[at + 1] for at in range(0, 20, 2))
    assert len(transport._met) <= 3


@needs_ipv6
@needs_addresses
def test_an_ipv6_socket_bound_to_all_knows_where_it_was_asked(core: EchoCore, reactor: Reactor) -> None:
    everywhere = UdpTransport("::", 0)
    asked: list[str] = []

    def at(local: str) -> Point:
        asked.append(local)
        return Point(everywhere.id, "udp", local, everywhere.address[1], local=local)

    everywhere.start(reactor, None, at)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.connect(("::1", everywhere.address[1]))
        peer.setblocking(False)
        peer.send(b"hello")
        assert wait_until(lambda: received(peer)) == b"hello"
    assert asked == ["::1"]
    everywhere.close()


@needs_addresses
def test_an_address_the_machine_has_lost_is_a_transport_error(core: EchoCore, reactor: Reactor) -> None:
    everywhere = UdpTransport("0.0.0.0", 0)
    everywhere.start(reactor, None, lambda local: Point(everywhere.id, "udp", local, 5060, local=local))
    gone = Hop(Point(everywhere.id, "udp", "192.0.2.77", 5060, local="192.0.2.77"), "127.0.0.1", 5060)
    everywhere.send(b"INVITE", gone)
    wait_until(lambda: core.seen("failed") == [(gone, b"INVITE")])
    everywhere.close()


@needs_ipv6
def test_ipv6_has_a_socket_of_its_own(core: EchoCore, reactor: Reactor) -> None:
    four = UdpTransport("0.0.0.0", 0)
    six = UdpTransport("::", four.address[1])  # same port: the IPv6 socket leaves IPv4 alone
    four.start(reactor)
    six.start(reactor)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind(("::1", 0))
        peer.sendto(b"hello", ("::1", six.address[1]))
        assert wait_until(lambda: received(peer)) == b"hello"
        assert core.seen("datagram") == [(b"hello", "::1", peer.getsockname()[1], six.id)]
    four.close()
    six.close()


@needs_ipv6
def test_link_local_source_keeps_its_interface(core: EchoCore, reactor: Reactor) -> None:
    transport = UdpTransport("::1", 0)
    transport.start(reactor)
    core.on_datagram = lambda data, source: None
    waiting = [(b"x", ("fe80::1", 5060, 0, 3))]

    class Socket:
        def recvfrom(self, size: int) -> Any:
            if not waiting:
                raise BlockingIOError
            return waiting.pop()

    kept, transport._socket = transport._socket, Socket()  # type: ignore[assignment]
    transport._readable()
    transport._socket = kept
    assert core.seen("datagram") == [(b"x", "fe80::1%3", 5060, transport.id)]
    here = Point(0, "udp", "::1", 5060)
    assert transport._check(Hop(here, "fe80::1%3", 5060)) == ("fe80::1", 5060, 0, 3)
    assert transport._check(Hop(here, "fe80::1%lo", 5060)) == (
        "fe80::1",
        5060,
        0,
        socket.if_nametoindex("lo"),
    )
    transport.close()


def test_what_came_before_start_is_not_lost(core: EchoCore, reactor: Reactor, phone: socket.socket) -> None:
    transport = UdpTransport("127.0.0.1", 0)
    phone.sendto(b"early", transport.address)
    transport.start(reactor)
    wait_until(lambda: core.seen("datagram"))
    transport.close()


# --- opening ----------------------------------------------------------------------------------------------------------


def test_second_bind_is_refused_with_the_reason(transport: UdpTransport) -> None:
    host, port = transport.address
    with pytest.raises(ListenError) as caught:
        UdpTransport(host, port)
    assert str(caught.value) == f"cannot listen on udp:{host}:{port}: address in use; is another instance running?"
    with pytest.raises(ListenError, match="address in use"):
        UdpTransport("0.0.0.0", port)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("sip.example.com", 5060, "'sip.example.com' is not an IP address"),
        ("127.0.0.1", 70_000, "ports go from 0 to 65535"),
        ("192.0.2.1", 5060, "this machine has no such address"),
    ],
)
def test_what_cannot_be_bound_is_said_in_words(host: str, port: int, reason: str) -> None:
    with pytest.raises(ListenError) as caught:
        UdpTransport(host, port)
    assert caught.value.reason == reason


def test_the_socket_is_not_patched_with_the_rest() -> None:
    """In a process that is patched, ours is still the system's socket, which never switches greenlets."""
    script = """
from orchestrator.runtime.patch import patch
patch()
import socket, _socket
from orchestrator.runtime.udp import UdpTransport
ours = UdpTransport("127.0.0.1", 0)._socket
assert isinstance(ours, _socket.socket), type(ours)
assert not isinstance(ours, socket.socket)
assert not ours.getsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT)
assert not ours.getsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# --- many at once -----------------------------------------------------------------------------------------------------


def test_burst_does_not_starve_timers(core: EchoCore, reactor: Reactor, transport: UdpTransport) -> None:
    """1,000 datagrams of half a millisecond each are half a second of work; a 10 ms timer goes on firing meanwhile."""
    core.on_datagram = lambda data, source: spin(0.0005)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(1_000):
            peer.sendto(b"x" * 500, transport.address)
    served: list[int] = []

    def tick(_: object) -> None:
        served.append(transport.received)
        core.timers.after(0.01, tick)

    core.timers.run_due(monotonic())
    core.timers.after(0.01, tick)
    reactor.settle()
    wait_until(lambda: transport.received == 1_000)
    between = [after - before for before, after in pairwise([0, *served, 1_000])]
    assert max(between) < 120, "a busy machine makes it fewer, not more"


def test_age_tells_how_long_datagrams_waited_in_the_kernel(core: EchoCore, reactor: Reactor) -> None:
    """Measured only when behind: the first batch after a pause cannot know, the second does."""
    ages: list[float] = []

    def slow(data: bytes, source: Any) -> None:
        ages.append(reactor.age)
        spin(0.001)

    core.on_datagram = slow
    transport = UdpTransport("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(100):
            peer.sendto(b"x", transport.address)
    spin(0.08)
    transport.start(reactor)
    wait_until(lambda: transport.received == 100)
    assert ages[0] == 0.0
    behind = max(ages)
    assert behind > 0.08
    core.on_datagram = lambda data, source: ages.append(reactor.age)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", transport.address)
    wait_until(lambda: transport.received == 101)
    assert ages[-1] < behind  # no longer behind
    transport.close()


def test_one_wake_up_reads_a_bounded_batch(core: EchoCore, reactor: Reactor) -> None:
    transport = UdpTransport("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(BATCH * 2):
            peer.sendto(b"x", transport.address)
    core.on_datagram = lambda data, source: None
    transport.start(reactor)
    transport._readable()
    assert 0 < transport.received <= BATCH
    wait_until(lambda: transport.received == BATCH * 2)
    transport.close()


# --- what cannot be sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "error"),
    [
        ("phone.example.com", 5060, "EADDRNOTAVAIL"),  # a name: looking it up would stop all calls
        ("", 5060, "EADDRNOTAVAIL"),
        ("<broadcast>", 5060, "EADDRNOTAVAIL"),
        ("255.255.255.255", 5060, "EADDRNOTAVAIL"),
        ("224.0.0.1", 5060, "EADDRNOTAVAIL"),
        ("0.0.0.0", 5060, "EADDRNOTAVAIL"),
        ("127.0.0.1\0", 5060, "EADDRNOTAVAIL"),
        ("\udcff", 5060, "EADDRNOTAVAIL"),
        ("127.0.0.1", 0, "EINVAL"),
        ("127.0.0.1", 70_000, "EINVAL"),
        ("127.0.0.1", -1, "EINVAL"),
        ("::1", 5060, "EADDRNOTAVAIL"),  # the other family
    ],
)
def test_bad_destination_is_counted_and_told_to_the_core(
    core: EchoCore, transport: UdpTransport, host: str, port: int, error: str
) -> None:
    transport.send(b"INVITE", Hop(transport._point, host, port))
    wait_until(lambda: core.seen("failed") == [(Hop(transport._point, host, port), b"INVITE")])
    assert transport.errors == {error: 1}


def test_datagram_that_is_too_long_is_a_transport_error(core: EchoCore, transport: UdpTransport) -> None:
    transport.send(b"x" * 70_000, Hop(transport._point, "127.0.0.1", 5060))
    wait_until(lambda: core.seen("failed"))
    assert transport.errors["EMSGSIZE"] == 1


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH])
def test_refusal_by_the_kernel_is_a_transport_error(core: EchoCore, transport: UdpTransport, code: int) -> None:
    def refuse(data: bytes, address: Any) -> int:
        raise OSError(code, os.strerror(code))

    transport._sendto = refuse  # type: ignore[assignment]
    transport.send(b"INVITE", Hop(transport._point, "127.0.0.1", 5060))
    wait_until(lambda: core.seen("failed") == [(Hop(transport._point, "127.0.0.1", 5060), b"INVITE")])
    assert transport.errors == {errno.errorcode[code]: 1}
    assert transport.sent == 0


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_unreachable_port_comes_back_as_a_transport_error(core: EchoCore, transport: UdpTransport) -> None:
    """ICMP's word arrives after the send; it names the destination and quotes the request (RFC 3261 §18.4)."""
    destination = Hop(transport._point, "127.0.0.1", closed_port())
    transport.send(b"INVITE sip:bob@127.0.0.1", destination)
    wait_until(lambda: core.seen("failed"))
    assert core.seen("failed") == [(destination, b"INVITE sip:bob@127.0.0.1")]
    assert transport.errors["ECONNREFUSED"] == 1


def test_unreachable_port_does_not_cost_the_next_destination(
    core: EchoCore, transport: UdpTransport, phone: socket.socket
) -> None:
    """The kernel reports an ICMP error at the next call, whatever its destination; that one is sent all the same."""
    dead = Hop(transport._point, "127.0.0.1", closed_port())
    alive = Hop(transport._point, *phone.getsockname())
    for number in range(5):
        transport.send(b"to nobody %d" % number, dead)
        transport.send(b"to the phone %d" % number, alive)
    arrived = [wait_until(lambda: received(phone)) for _ in range(5)]
    assert arrived == [b"to the phone %d" % number for number in range(5)]
    wait_until(lambda: len(core.seen("failed")) == 5)
    assert {destination for destination, _ in core.seen("failed")} == {dead}
    gevent.sleep(0.01)
    assert transport.sent == 10


@needs_ipv6
def test_unreachable_port_over_ipv6(core: EchoCore, reactor: Reactor) -> None:
    transport = UdpTransport("::1", 0)
    transport.start(reactor)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        port = sock.getsockname()[1]
    transport.send(b"INVITE", Hop(transport._point, "::1", port))
    wait_until(lambda: core.seen("failed") == [(Hop(transport._point, "::1", port), b"INVITE")])
    transport.close()


def test_listener_survives_errors(core: EchoCore, transport: UdpTransport, phone: socket.socket) -> None:
    for port in (0, closed_port(), 70_000):
        transport.send(b"x", Hop(transport._point, "127.0.0.1", port))
    wait_until(lambda: len(core.seen("failed")) == 3)
    phone.sendto(b"still there?", transport.address)
    assert wait_until(lambda: received(phone)) == b"still there?"
