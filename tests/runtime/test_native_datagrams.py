"""Batches of datagrams in C: the UDP transport does with them what it does without, and its tests run again."""

from __future__ import annotations

import errno
import os
import socket
from types import ModuleType
from typing import Any

import pytest
from echo_core import EchoCore, received, wait_until
from native_build import extension
from test_udp import (  # noqa: F401  run here as well
    HAS_IPV6,
    closed_port,
    needs_ipv6,
    test_a_socket_bound_to_all_answers_from_where_it_was_asked,
    test_age_tells_how_long_datagrams_waited_in_the_kernel,
    test_an_ipv6_socket_bound_to_all_knows_where_it_was_asked,
    test_bad_destination_is_counted_and_told_to_the_core,
    test_burst_does_not_starve_timers,
    test_datagram_makes_the_round,
    test_datagrams_of_every_size_arrive_whole,
    test_ipv6_has_a_socket_of_its_own,
    test_listener_survives_errors,
    test_one_peer_is_answered_from_whichever_address_it_has_asked,
    test_unreachable_port_comes_back_as_a_transport_error,
    test_unreachable_port_does_not_cost_the_next_destination,
    test_unreachable_port_over_ipv6,
    test_what_came_before_start_is_not_lost,
)

from orchestrator import native
from orchestrator.history import MessageIn, MessageOut
from orchestrator.runtime import udp
from orchestrator.runtime.reactor import BATCH, Reactor
from orchestrator.runtime.udp import UdpTransport
from orchestrator.runtime.udp_places import place_of, read_place
from orchestrator.sip.points import Hop, Point


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = extension()
    monkeypatch.setattr(native, "FAST", module)
    return module


@pytest.mark.parametrize(
    ("address", "local", "asked"),
    [
        (("192.0.2.1", 5060), "", ("192.0.2.1", 5060, "")),
        (("192.0.2.1", 65_535), "10.0.0.7", ("192.0.2.1", 65_535, "10.0.0.7")),
        (("2001:db8::1", 1), "", ("2001:db8::1", 1, "")),
        (("fe80::1", 5060, 0, 3), "2001:db8::2", ("fe80::1%3", 5060, "2001:db8::2")),
    ],
)
def test_a_place_reads_as_it_was_written(address: Any, local: str, asked: tuple[str, int, str]) -> None:
    assert read_place(place_of(address, local)) == asked


def test_an_empty_socket_raises_nothing(transport: UdpTransport, fast: ModuleType) -> None:
    assert fast.receive(transport._socket.fileno(), False, {}, transport._meet_at) == (0.0, [])


def test_a_burst_is_echoed_whole_and_in_order(core: EchoCore, transport: UdpTransport, phone: socket.socket) -> None:
    sent = [b"%d" % number for number in range(100)]
    for data in sent:
        phone.sendto(data, transport.address)
    assert [wait_until(lambda: received(phone)) for _ in sent] == sent
    assert (transport.received, transport.sent) == (100, 100)


def test_one_wake_up_reads_a_bounded_batch(core: EchoCore, reactor: Reactor) -> None:
    transport = UdpTransport("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(BATCH * 2):
            peer.sendto(b"x", transport.address)
    core.on_datagram = lambda data, source: None
    transport.start(reactor)
    transport._batches_readable()
    assert 0 < transport.received <= BATCH
    assert transport._behind
    wait_until(lambda: transport.received == BATCH * 2)
    transport.close()


def test_places_are_remembered_up_to_a_bound(
    core: EchoCore, transport: UdpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "MAX_KNOWN", 3)
    hops: list[Hop] = []

    def twice(data: bytes, hop: Hop) -> None:
        hops.append(hop)
        core.datagrams += [(data, hop), (data, hop)]

    core.on_datagram = twice
    for number in range(10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"one", transport.address)
            peer.sendto(b"two", transport.address)
            assert wait_until(lambda count=2 * number + 2: len(hops) == count)
    assert all(hops[at] is hops[at + 1] for at in range(0, 20, 2))
    assert len(transport._from) <= 3
    assert len(transport._places) <= 3


def test_each_failure_of_a_batch_is_its_own(core: EchoCore, transport: UdpTransport, phone: socket.socket) -> None:
    point, (host, port) = transport._point, phone.getsockname()
    alive = Hop(point, host, port)
    transport.send(b"first", alive)
    assert wait_until(lambda: received(phone)) == b"first"
    bad = [(b"x", Hop(point, "a.name", 5060)), (b"y" * 70_000, alive), (b"z", Hop(point, "127.0.0.1", 0))]
    good = [(b"%d" % number, alive) for number in range(40)]
    transport.send_all([*good[:10], bad[0], *good[10:30], bad[1], *good[30:], bad[2]])
    assert [wait_until(lambda: received(phone)) for _ in good] == [data for data, _ in good]
    wait_until(lambda: len(core.seen("failed")) == 3)
    assert {data for _, data in core.seen("failed")} == {data for data, _ in bad}
    assert transport.errors == {"EADDRNOTAVAIL": 1, "EMSGSIZE": 1, "EINVAL": 1}
    assert transport.sent == 41


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH])
def test_what_the_kernel_refuses_in_a_batch_is_a_transport_error(
    core: EchoCore, transport: UdpTransport, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class Refusing:
        @staticmethod
        def send(descriptor: int, datagrams: list[bytes], places: list[bytes], first: int) -> int:
            if datagrams[first] == b"1":
                raise OSError(code, os.strerror(code))
            return 1

    def refuse(data: bytes, address: Any) -> int:
        raise OSError(code, os.strerror(code))

    transport._fast = Refusing
    transport._sendto = refuse  # type: ignore[assignment]
    hop = Hop(transport._point, "127.0.0.1", 5060)
    assert transport._check(hop)
    transport.send_all([(b"%d" % number, hop) for number in range(3)])
    wait_until(lambda: core.seen("failed") == [(hop, b"1")])
    assert transport.errors == {errno.errorcode[code]: 1}
    assert transport.sent == 2


def test_an_icmp_error_does_not_cost_the_rest_of_a_batch(
    core: EchoCore, transport: UdpTransport, phone: socket.socket
) -> None:
    dead = Hop(transport._point, "127.0.0.1", closed_port())
    alive = Hop(transport._point, *phone.getsockname())
    assert transport._check(dead)
    assert transport._check(alive)
    pairs = [(b"to nobody %d" % number, dead) for number in range(5)]
    others = [(b"to the phone %d" % number, alive) for number in range(5)]
    transport.send_all([each for pair in zip(pairs, others, strict=True) for each in pair])
    assert [wait_until(lambda: received(phone)) for _ in others] == [data for data, _ in others]
    wait_until(lambda: len(core.seen("failed")) == 5)
    assert {hop for hop, _ in core.seen("failed")} == {dead}


def test_who_listens_to_messages_hears_each_answer_before_the_next_message(
    core: EchoCore, reactor: Reactor, transport: UdpTransport, phone: socket.socket
) -> None:
    heard: list[tuple[type, bytes]] = []
    for kind in (MessageIn, MessageOut):
        core.history.listen(kind, lambda fact: heard.append((type(fact), fact.data)))
    for number in range(3):
        phone.sendto(b"%d" % number, transport.address)
    wait_until(lambda: len(heard) == 6)
    assert heard == [(kind, b"%d" % number) for number in range(3) for kind in (MessageIn, MessageOut)]


@pytest.mark.parametrize(
    ("datagrams", "places", "first", "error"),
    [
        ([b"x"], [b"short"], 0, TypeError),
        ([b"x"], [b""], 0, TypeError),
        (["x"], [b"123456"], 0, TypeError),
        ([b"x"], [b"123456"], 1, IndexError),
        ([b"x"], [b"123456"], -1, IndexError),
        ([b"x", b"y"], [b"123456"], 0, IndexError),
        ([], [], 0, IndexError),
    ],
)
def test_what_is_no_batch_is_refused(
    transport: UdpTransport, fast: ModuleType, datagrams: Any, places: Any, first: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fast.send(transport._socket.fileno(), datagrams, places, first)


@needs_ipv6
def test_an_ipv6_batch(core: EchoCore, reactor: Reactor) -> None:
    transport = UdpTransport("::1", 0)
    transport.start(reactor)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind(("::1", 0))
        hop = Hop(Point(transport.id, "udp", "::1", 5060), "::1", peer.getsockname()[1])
        assert transport._check(hop)
        transport.send_all([(b"one", hop), (b"two", hop)])
        assert [wait_until(lambda: received(peer)) for _ in range(2)] == [b"one", b"two"]
    transport.close()
