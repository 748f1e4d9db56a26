"""Packets on their way to the receiver: a bounded buffer, and one greenlet that empties it.

Who fills the buffer never waits. When it is full, new packets are dropped and counted. Over TCP and TLS the packets
follow each other; after a break the connection is made anew, after longer pauses each time, and what the kernel had not
taken is sent again from the beginning of its packet. UDP looks the name up again after an error, and from time to time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent import socket, ssl
from gevent.event import Event

from orchestrator.errors import reason_of

CONNECT_TIME = 5.0
SEND_TIME = 30.0
"""Seconds that a receiver may take nothing at all until the connection counts as dead."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the next try; twice as many each time."""
LOOK_UP = 60.0
"""Seconds that a UDP address is used until its name is looked up again, and at least between two errors."""
SOONEST = 1.0
CALM = 5.0
"""Seconds without a refusal after which datagrams are taken to arrive."""
BURST = 64
"""Packets sent until others have their turn."""
CHUNK = 65_536
"""Octets handed to the kernel at once."""
GATHER = 0.02
"""Seconds from one write to a stream to the next one, unless a whole chunk waits: half of the work of small ones."""


class Opens(Protocol):
    """What makes a connected socket. Raises OSError."""

    def __call__(self) -> Any: ...


class Sender:
    """`run` is the greenlet's; `put` may be called from anywhere in the server's thread."""

    def __init__(
        self, open: Opens, stream: bool, room: int, told: Callable[[str], object] = lambda reason: None
    ) -> None:
        """`open()` gives a connected socket; `stream`: TCP or TLS. `room` is the buffer's size in octets. `told` hears
        why there is no connection, '' when there is one."""
        self._open = open
        self._stream = stream
        self._room = room
        self._told = told
        self._packets: deque[bytes] = deque()
        self._work = Event()
        self._socket: Any = None
        self.waiting = 0
        """Octets in the buffer."""
        self.sent = 0
        """Packets the kernel has taken."""
        self.dropped = 0
        """Packets that did not fit into the buffer."""
        self.lost = 0
        """Packets that the network has refused (UDP)."""
        self.connects = 0
        self._refused_at = -CALM
        self.trouble = "not connected yet"
        """Why there is no connection, '' when there is one."""

    def put(self, packet: bytes) -> None:
        """Leave a packet; never waits."""
        if self.waiting + len(packet) > self._room:
            self.dropped += 1
            return
        if not self._packets:
            self._work.set()
        self.waiting += len(packet)
        self._packets.append(packet)

    def run(self) -> None:
        """Send until it is killed."""
        pause = FIRST_PAUSE
        while True:
            try:
                self._connect()
                pause = FIRST_PAUSE
                if self._stream:
                    self._send_stream()
                else:
                    self._send_datagrams()
                continue
            except (OSError, UnicodeError, gevent.Timeout) as error:  # UnicodeError: a name that cannot be one
                self._note(reason_of(error))
                self._disconnect()
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def finish(self, seconds: float) -> None:
        """The greenlet is gone: send what is left, for so long at most."""
        try:
            with gevent.Timeout(seconds):
                if self._socket is None and self._packets:
                    self._connect()
                while self._packets:
                    self._send_some()
        except (OSError, UnicodeError, gevent.Timeout):
            pass
        finally:
            self.dropped += len(self._packets)
            self._disconnect()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._disconnect()
        self._socket = self._open()
        self.connects += 1
        self._calm()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _calm(self) -> None:
        """All is well, unless the network has just refused datagrams: between two refusals some seem to be taken."""
        if monotonic() - self._refused_at > CALM:
            self._note("")

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._told(trouble)

    def _wait(self) -> None:
        if not self._packets:
            self._work.clear()
            self._work.wait()

    def _send_some(self) -> None:
        if self._stream:
            self._send_chunk()
        else:
            self._send_burst()

    def _send_stream(self) -> None:
        ended = gevent.spawn(self._hear_end, self._socket)
        try:
            while True:
                self._wait()
                if ended.dead:
                    raise ConnectionResetError("the receiver has closed the connection")
                self._send_chunk()
                gevent.sleep(0 if self.waiting >= CHUNK else GATHER)
        finally:
            ended.kill()

    def _send_chunk(self) -> None:
        """As many packets as the kernel takes at once, at least a part of one."""
        size, count = 0, 0
        for packet in self._packets:
            if size and size + len(packet) > CHUNK:
                break
            size += len(packet)
            count += 1
        octets = memoryview(b"".join(self._packets[at] for at in range(count)))
        done = 0
        try:
            while done < size:
                with gevent.Timeout(SEND_TIME, TimeoutError(f"the receiver takes nothing for {SEND_TIME:g} s")):
                    done += self._socket.send(octets[done:])
        finally:
            while self._packets and len(self._packets[0]) <= done:
                done -= len(self._packets[0])
                self.sent += 1
                self._pop()

    def _send_datagrams(self) -> None:
        """Until it is time to look the name up again."""
        opened = monotonic()
        while monotonic() - opened < LOOK_UP:
            self._wait()
            before = self.lost
            self._send_burst()
            if self.trouble:
                self._calm()
            gevent.sleep(0)
            if self.lost > before and monotonic() - opened > SOONEST:
                break

    def _send_burst(self) -> None:
        for _ in range(min(BURST, len(self._packets))):
            try:
                self._socket.send(self._packets[0])
            except OSError as error:  # an answer of the network to an earlier one, mostly
                self.lost += 1
                self._refused_at = monotonic()
                self._note(reason_of(error))
            else:
                self.sent += 1
            self._pop()

    def _pop(self) -> None:
        self.waiting -= len(self._packets.popleft())

    @staticmethod
    def _hear_end(connection: Any) -> None:
        """Returns when the receiver has closed the connection: it says nothing otherwise."""
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass
        # a sender that waits for room would wait for SEND_TIME
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def open_udp(host: str, port: int) -> Any:
    """A socket that sends there. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.connect(address)
    except BaseException:
        opened.close()
        raise
    return opened


def open_tcp(host: str, port: int) -> Any:
    """A connection to there. Raises OSError."""
    opened = socket.create_connection((host, port), CONNECT_TIME)
    opened.settimeout(None)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return opened


def tls_context(authorities: Path | None, verify: bool) -> ssl.SSLContext:
    """gevent's own, which waits in a process that is not patched, too. Raises OSError: that file cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities is not None:
        context.load_verify_locations(authorities)
    else:
        context.load_default_certs()
    return context


def open_tls(host: str, port: int, context: ssl.SSLContext) -> Any:
    """The same over TLS. Raises OSError."""
    opened = open_tcp(host, port)
    try:
        with gevent.Timeout(CONNECT_TIME, TimeoutError("no TLS handshake")):
            return context.wrap_socket(opened, server_hostname=host)
    except BaseException:
        opened.close()
        raise
