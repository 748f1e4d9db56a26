"""One connection's trouble is never another's: floods, dribble, silence, no descriptors. On real loopback sockets."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import monotonic

import pytest
from echo_core import EchoCore, wait_until

from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.streams import listener
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.limits import StreamLimits
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.streams.pace import SLICE, Pace
from orchestrator.runtime.transports import Context, transport_kind
from orchestrator.sip.admission import Source
from orchestrator.sip.points import Hop, Point

OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"
Open = Callable[..., StreamTransport]


@pytest.fixture
def listen(reactor: Reactor, request: pytest.FixtureRequest) -> Iterator[Open]:
    """A TCP transport with these limits."""
    opened: list[StreamTransport] = []
    planted = request.node.name == "test_a_bug_costs_one_connection"

    def listen(**limits: float) -> StreamTransport:
        connections = Connections(StreamLimits(**limits))  # type: ignore[arg-type]
        transport = transport_kind("tcp").open("127.0.0.1", 0, Context(connections))
        assert isinstance(transport, StreamTransport)
        transport.start(reactor, Point(0, "tcp", *transport.address))
        opened.append(transport)
        return transport

    yield listen
    for transport in opened:
        transport.close()
        transport._connections.close()
        ended, unopened = transport._connections.ended, transport._connections.unopened
        assert ended["fault"] + unopened["fault"] == planted


def call(transport: StreamTransport) -> socket.socket:
    sock = socket.create_connection(transport.address)
    sock.setblocking(False)
    return sock


def hears(sock: socket.socket, message: bytes = OPTIONS) -> bool:
    try:
        return sock.recv(65_536) == message
    except BlockingIOError:
        return False


def has_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(65_536) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_who_does_not_read_costs_only_himself(core: EchoCore, reactor: Reactor, listen: Open) -> None:
    transport = listen(write_queue=200_000)
    with call(transport) as greedy, call(transport) as other:
        core.on_datagram = lambda data, hop: core.datagrams.extend([(OPTIONS * 500, hop)] * 200)
        greedy.send(OPTIONS)
        wait_until(lambda: transport._connections.ended)
        assert transport._connections.ended == {"write queue full": 1}
        assert core.seen("lost") and core.seen("failed")
        core.on_datagram = None
        other.send(OPTIONS)
        wait_until(lambda: hears(other))


def test_pongs_that_nobody_reads_have_their_bound(listen: Open) -> None:
    """What the layers say counts like messages do (RFC 5626 §3.5.1: a pong for each ping)."""
    transport = listen(write_queue=200_000)
    connections, most = transport._connections, 0
    with call(transport) as greedy:

        def pings() -> bool:
            nonlocal most
            most = max(most, connections.octets)
            try:
                greedy.send(b"\r\n\r\n" * 10_000)
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            return most > 2_000_000

        wait_until(pings)
    assert connections.ended == {"write queue full": 1} and most <= 200_000
    assert connections.octets == 0


def test_all_connections_together_keep_so_much(core: EchoCore, listen: Open) -> None:
    """Half messages of many peers: who adds to them goes, who has little stays."""
    transport = listen(buffered=100_000)
    connections = transport._connections
    socks = [call(transport) for _ in range(5)]
    try:
        large = OPTIONS[:40].replace(b"a@", b"a" * 29_000 + b"@")
        for number, sock in enumerate(socks[:3], 1):
            sock.send(large)
            wait_until(lambda number=number: connections.octets == number * len(large))  # type: ignore[misc]
        socks[3].send(large)
        wait_until(lambda: connections.ended)
        assert connections.ended == {"no memory left": 1} and len(connections.by_number) == 4
        socks[4].send(OPTIONS[:10])
        socks[4].send(OPTIONS[10:])
        wait_until(lambda: hears(socks[4]))
    finally:
        for sock in socks:
            sock.close()
    wait_until(lambda: connections.octets == 0)


def test_half_a_message_and_silence_are_cut_in_their_time(core: EchoCore, listen: Open) -> None:
    transport = listen(message=0.05, handshake=0.3)
    with call(transport) as half, call(transport) as silent:
        half.send(OPTIONS[:20])
        wait_until(lambda: has_ended(half))
        wait_until(lambda: has_ended(silent))
        wait_until(lambda: len(transport._connections.ended) == 2)
    assert transport._connections.ended == {"message time-out": 1, "idle": 1}
    assert not transport._connections.by_number and not transport._connections.by_source


def test_a_flood_of_messages_leaves_the_loop_to_others(core: EchoCore, reactor: Reactor, listen: Open) -> None:
    """However much one connection brings, a timer of the loop fires in between."""
    transport = listen()
    clock, late = reactor.clock, []
    due = clock()

    def tick() -> None:
        nonlocal due
        late.append(clock() - due)
        due = clock()

    def work(data: bytes, hop: Hop) -> None:
        until = monotonic() + 0.001
        while monotonic() < until:
            pass

    core.on_datagram = work
    timer = reactor.loop.timer(0.001, 0.001)
    timer.start(tick)
    try:
        with call(transport) as flood:
            flood.setblocking(True)
            flood.sendall(OPTIONS * 300)
            wait_until(lambda: len(core.inputs) == 300)
        assert len(late) > 300 * 0.001 / SLICE / 2, "the loop came round, again and again"
    finally:
        timer.stop()
        timer.close()


def test_connections_take_turns(core: EchoCore, reactor: Reactor, listen: Open) -> None:
    """Who has much waits behind who has little."""
    transport = listen()

    def work(data: bytes, hop: Hop) -> None:
        until = monotonic() + 0.001
        while monotonic() < until:
            pass

    core.on_datagram = work
    with call(transport) as flood, call(transport) as modest:
        wait_until(lambda: len(transport._connections.by_number) == 2)
        flood.setblocking(True)
        flood.sendall(OPTIONS * 400)
        modest.send(OPTIONS)
        port = modest.getsockname()[1]
        wait_until(lambda: any(seen[2] == port for seen in core.seen("datagram")))
        assert len(core.inputs) < 400


def test_without_descriptors_the_loop_does_not_spin(core: EchoCore, listen: Open) -> None:
    transport = listen()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket()
    try:
        with call(transport) as before:
            before.send(OPTIONS)
            wait_until(lambda: hears(before))
            resource.setrlimit(resource.RLIMIT_NOFILE, (before.fileno() + 1, hard))
            waiting.setblocking(False)
            assert waiting.connect_ex(transport.address) == errno.EINPROGRESS
            wait_until(lambda: transport.errors["EMFILE"])
            assert not transport._watcher.active and not transport.revive()
            before.send(OPTIONS)
            wait_until(lambda: hears(before))
            assert transport.errors["EMFILE"] == 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            waiting.send(OPTIONS)
            wait_until(lambda: hears(waiting))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.close()


def test_each_pause_of_the_listener_has_its_time(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as there are no descriptors, not just once."""
    monkeypatch.setattr(listener, "PAUSE", 0.1)
    transport, failures = listen(), []

    def accept() -> None:
        failures.append(monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(transport, "_accept", accept)
    with call(transport):
        wait_until(lambda: len(failures) >= 4)
    assert all(later - earlier >= 0.09 for earlier, later in pairwise(failures))


def test_banned_sources_are_not_accepted_and_trusted_ones_have_no_share(core: EchoCore, listen: Open) -> None:
    transport = listen(connections_per_source=1, connections=2)
    connections = transport._connections
    banned, trusted = Source("127.0.0.1", 0.0, 0.0), Source("", 0.0, 0.0, exempt=True)
    banned.banned_until = connections.clock() + 1000.0
    connections.source_of = lambda host: banned
    with call(transport) as refused:
        wait_until(lambda: has_ended(refused))
    connections.source_of = lambda host: trusted
    socks = [call(transport) for _ in range(2)]
    wait_until(lambda: len(connections.by_number) == 2)
    connections.source_of = None
    with call(transport) as one_more:
        wait_until(lambda: has_ended(one_more))
    assert connections.refused == {"banned": 1, "connections": 1}
    for sock in socks:
        sock.close()


def test_a_bug_costs_one_connection(core: EchoCore, listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = listen()
    with call(transport) as struck, call(transport) as other:
        wait_until(lambda: len(transport._connections.by_number) == 2)
        port = struck.getsockname()[1]
        (stream,) = (c.stream for c in transport._connections.by_number.values() if c.hop.port == port)
        stream._framing = None  # type: ignore[assignment]
        struck.send(OPTIONS)
        wait_until(lambda: has_ended(struck))
        other.send(OPTIONS)
        wait_until(lambda: hears(other))
    assert transport._connections.ended["fault"] == 1


# --- the pace ---------------------------------------------------------------------------------------------------------


class Loop:
    """A loop that goes round when it is told to."""

    class Watcher:
        def __init__(self) -> None:
            self.callback: Callable[[], None] | None = None

        def start(self, callback: Callable[[], None], update: bool = True) -> None:
            self.callback = callback

        def stop(self) -> None:
            self.callback = None

        close = stop

        @property
        def active(self) -> bool:
            return self.callback is not None

    def __init__(self) -> None:
        self.next, self.end = self.Watcher(), self.Watcher()

    def timer(self, seconds: float) -> Watcher:
        return self.next

    def prepare(self) -> Watcher:
        return self.end

    def turn(self) -> None:
        """One pass: sockets have been served, now timers; then the loop looks again."""
        callback, self.next.callback = self.next.callback, None
        if callback is not None:
            callback()
        if self.end.callback is not None:
            self.end.callback()


def test_work_waits_for_its_pass_in_turn() -> None:
    loop, now, done = Loop(), 0.0, list[int]()
    pace = Pace(loop, lambda: now)

    def work(number: int) -> Callable[[], None]:
        def work() -> None:
            nonlocal now
            now += SLICE * 0.4
            done.append(number)

        return work

    for number in range(7):
        pace.later(work(number))
    loop.turn()
    assert done == [0, 1, 2]
    pace.later(work(7))
    loop.turn()
    loop.turn()
    assert done == list(range(8))
    assert pace.may() and not loop.next.active


def test_handshakes_have_a_number_per_pass_and_the_last_place() -> None:
    loop, done = Loop(), list[str]()
    pace = Pace(loop, lambda: 0.0)
    for _ in range(10):
        pace.later_handshake(lambda: done.append("handshake"))
    pace.later(lambda: done.append("call"))
    loop.turn()
    assert done == ["call"] + ["handshake"] * 4
    loop.turn()
    assert done[5:] == ["handshake"] * 4
    assert not pace.may_shake_hands() or len(pace.handshakes) == 2


def test_a_pass_that_is_full_still_shakes_hands() -> None:
    """Eight connections that have something in each pass kept all others out."""
    loop, now, done = Loop(), 0.0, list[str]()
    pace = Pace(loop, lambda: now)

    def flood() -> None:
        nonlocal now
        now += SLICE * 2
        done.append("flood")
        pace.later(flood)

    pace.later(flood)
    for _ in range(6):
        pace.later_handshake(lambda: done.append("handshake"))
    loop.turn()
    loop.turn()
    assert done == ["flood", *["handshake"] * 4, "flood", *["handshake"] * 2]


def test_connections_that_flood_keep_nobody_out(core: EchoCore, listen: Open) -> None:
    transport = listen()
    connections = transport._connections
    connections.pace.may = lambda: False  # type: ignore[method-assign]  # no pass has any time left
    with call(transport):
        wait_until(lambda: len(connections.by_number) == 1)


def test_a_ban_ends_the_connections_of_its_source(core: EchoCore, listen: Open) -> None:
    transport = listen()
    connections = transport._connections
    source = Source("127.0.0.1", 0.0, 0.0)
    connections.source_of = lambda host: source
    with call(transport) as sock:
        sock.send(OPTIONS)
        wait_until(lambda: hears(sock))
        source.banned_until = connections.clock() + 1000.0
        sock.send(OPTIONS)
        wait_until(lambda: has_ended(sock))
    wait_until(lambda: not connections.by_number)
    assert connections.ended == {"banned": 1}
