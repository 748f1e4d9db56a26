"""A connection: the socket of a `Stream`. Everything it does is done in callbacks of the loop, which never wait and
never raise."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from loguru import logger

from orchestrator.errors import MalformedMessage
from orchestrator.runtime.reactor import READ
from orchestrator.runtime.streams.limits import FEW
from orchestrator.runtime.streams.pace import Pace
from orchestrator.runtime.streams.stream import (
    CLOSED,
    CONNECTING,
    HANDSHAKING,
    OPEN,
    Stream,
)
from orchestrator.sip.points import Hop
from orchestrator.timers import Timer

WRITE = 2
"""libev's EV_WRITE."""


class Counts(Protocol):
    """The transport it belongs to."""

    kind: str
    received: int


class Owner(Protocol):
    """Whose connection it is (`connections.Connections`)."""

    pace: Pace
    loop: Any
    clock: Callable[[], float]

    def deliver(self, connection: Connection, message: bytes, now: float) -> None:
        """One message has come."""

    def deliver_malformed(self, connection: Connection, data: bytes, error: MalformedMessage, now: float) -> None: ...
    def settle(self) -> None:
        """After the last message of a wake-up."""

    def wake(self, connection: Connection, due: float) -> Timer:
        """Call `connection.time_out()` at `due`, in place of its timer."""

    def is_banned(self, host: str) -> bool:
        """Nothing is read from this address for some time."""

    def stands(self, connection: Connection) -> None:
        """Its handshakes are done."""

    def gone(self, connection: Connection) -> None:
        """It takes no more messages, or only answers; called once it has been open."""

    def failed(self, hop: Hop, message: bytes) -> None:
        """This message was not sent."""

    def keep(self, octets: int) -> None:
        """A connection keeps so many octets more than before."""

    @property
    def is_full(self) -> bool:
        """Whether all connections keep more than they may together."""

    def closed(self, connection: Connection) -> None:
        """Its socket is closed."""


class Connection:
    """One of them; `stream` is what it thinks, `hop` what the core calls it, `owner` is told everything."""

    __slots__ = (
        "asked", "hop", "keys", "opened", "source", "stream", "timer", "transport",
        "_heard_all", "_held", "_owner", "_reader", "_shut", "_socket", "_told", "_writer",
    )  # fmt: skip

    def __init__(self, owner: Owner, sock: socket.socket, stream: Stream, transport: Counts, source: str) -> None:
        self.stream = stream
        self.hop = stream.hop
        self.transport = transport
        self.source = source
        """Whose share it counts for, '' for one of our own."""
        self.keys: tuple[Any, ...] = ()
        """By which it is found for what has no connection yet."""
        self.asked = stream.name is not None
        """The first request has been looked at for what its sender wants of the connection; not asked of our own."""
        self.opened = False
        """Its handshakes were done."""
        self.timer: Timer | None = None
        self._owner = owner
        self._socket: socket.socket | None = sock
        self._reader = owner.loop.io(sock.fileno(), READ)
        self._writer: Any = None
        self._held = 0
        """Octets that it is counted with."""
        self._heard_all = False
        """The peer has said that it sends nothing more."""
        self._shut = self._told = False

    def start(self) -> None:
        """Begin: to wait for the connection we have asked for, or for what the peer says."""
        stream = self.stream
        if stream.state is CONNECTING:
            self._watch_writable()
        else:
            self._reader.start(self._readable)
            stream.step("connected", self._owner.clock())
        self._settle()

    def send(self, message: bytes, hop: Hop) -> None:
        """One message; what cannot be sent goes back to the owner."""
        try:
            octets = self.stream.octets_of(message)
            if octets:
                self._write(octets, message, hop)
            else:
                self.stream.send(message, hop, self._owner.clock())
                self._settle()
        except Exception:
            self._fault()

    def _write(self, octets: bytes, message: bytes, hop: Hop) -> None:
        """The usual case: the kernel takes all of it."""
        assert self._socket is not None
        try:
            count = self._socket.send(octets)
        except BlockingIOError:
            count = 0
        except OSError:
            self.stream.keep(octets, message, hop, self._owner.clock())
            self.stream.step("write error", self._owner.clock())
            self._settle()
            return
        if count < len(octets):
            self.stream.keep(octets[count:], message, hop, self._owner.clock())
            self._settle()

    def time_out(self) -> None:
        """A deadline may have passed."""
        if self._socket is not None:
            self.timer = None
            self._feed(self._time_out)

    def _time_out(self, now: float) -> None:
        self.stream.time_out(now)
        self._deliver(now)

    def close(self, what: str = "close") -> None:
        """End it from our side: with a farewell, or at once (`abort`)."""
        self._feed(lambda now: self.stream.step(what, now))

    # --- callbacks of the loop ----------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self.source and self._owner.is_banned(self.hop.host):
            self._feed(self._ban)
            return
        if self.stream.state is HANDSHAKING:
            if not self._owner.pace.may_shake_hands():
                self._pause()
                self._owner.pace.later_handshake(self._resume)
                return
        elif not self._owner.pace.may():
            self._pause()
            self._owner.pace.later(self._resume)
            return
        self._feed(self._receive)

    def _ban(self, now: float) -> None:
        """Whoever is banned is not read: the connection ends."""
        self.stream.why = "banned"
        self.stream.step("abort", now)

    def _pause(self) -> None:
        if self._socket is not None:
            self._reader.stop()

    def _resume(self) -> None:
        """It is our turn again."""
        if self._socket is None:
            return
        if not self._reader.active and not self._heard_all:
            self._reader.start(self._readable)
        self._feed(self._deliver if self.stream.messages or self._heard_all else self._receive)

    def _receive(self, now: float) -> None:
        stream, sock = self.stream, self._socket
        assert sock is not None
        try:
            octets = sock.recv(stream.read_size)
        except BlockingIOError:
            return
        except OSError:
            stream.step("reset", now)
            return
        if octets:
            stream.receive(octets, now)
            self._deliver(now)
        else:
            self._heard_all = True
            self._pause()
            stream.hear_end(now)
            self._deliver(now)

    def _deliver(self, now: float) -> None:
        """Carry messages to the core while there is time."""
        stream, owner = self.stream, self._owner
        if stream.state is OPEN and not self.opened:
            self._note_open()
        messages = stream.messages
        while messages:
            self.transport.received += 1
            owner.deliver(self, messages.pop(0), now)
            if messages and not owner.pace.may():
                self._pause()
                owner.pace.later(self._resume)
                break
            now = owner.clock()
        if not messages:
            malformed = stream.malformed
            if malformed is not None and malformed[1].sip_status:
                owner.deliver_malformed(self, *malformed, now)
            stream.finish(now)
        owner.settle()

    def _writable(self) -> None:
        if self.stream.state is CONNECTING:
            self._feed(self._note_connected)
        else:
            self._feed(lambda now: None)

    def _note_connected(self, now: float) -> None:
        assert self._socket is not None
        self._stop_writer()
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.stream.step("refused", now)
            return
        self._reader.start(self._readable)
        self.stream.step("connected", now)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def _feed(self, work: Callable[[float], object]) -> None:
        """Do something with the stream, then what follows from it."""
        if self._socket is None:
            return
        try:
            work(self._owner.clock())
            self._settle()
        except Exception:
            self._fault()

    def _fault(self) -> None:
        """A bug of ours costs this connection."""
        logger.bind(peer=f"{self.hop.host}:{self.hop.port}").exception("connection_fault")
        self.stream.why = "fault"
        self.stream.step("abort", self._owner.clock())
        self._finish()

    def _settle(self) -> None:
        """Write what there is to write, and take the consequences of what has happened."""
        stream = self.stream
        if stream.outbox:
            self._flush(stream)
        held = stream.held
        if held != self._held:
            self._owner.keep(held - self._held)
            self._held = held
            if held > FEW and self._owner.is_full:
                stream.step("memory", self._owner.clock())
        state = stream.state
        if state is OPEN and not self.opened:
            self._note_open()
            if stream.outbox:
                self._flush(stream)
        if state is not OPEN and self.opened and not self._told:
            self._told = True
            self._owner.gone(self)
        if stream.unsent:
            unsent, stream.unsent = stream.unsent, []
            for piece in unsent:
                if piece.hop is not None:
                    self._owner.failed(piece.hop, piece.message)
        if stream.state is CLOSED:
            self._finish()
            return
        if stream.farewell_due and not stream.outbox and not self._shut:
            self._shut = True
            self._shut_down()
            if self._socket is None:
                return
        if self.timer is None or not stream.at_ease:
            due = stream.deadline
            if self.timer is None or self.timer.when > due:
                self.timer = self._owner.wake(self, due)

    def _note_open(self) -> None:
        self.opened = True
        self._owner.stands(self)

    def _flush(self, stream: Stream) -> None:
        if stream.state is CONNECTING or self._socket is None:
            return
        send, clock = self._socket.send, self._owner.clock
        try:
            while stream.outbox:
                octets = stream.outbox[0].octets
                count = send(octets)
                stream.written(count, clock())
                if count < len(octets):
                    break
        except BlockingIOError:
            pass
        except OSError:
            stream.step("write error", clock())
        if stream.outbox:
            self._watch_writable()
        else:
            self._stop_writer()

    def _shut_down(self) -> None:
        """We send nothing more; the peer's end is awaited, so that what we have sent last is not lost in a reset."""
        assert self._socket is not None
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.stream.step("reset", self._owner.clock())
            self._finish()
            return
        if self._heard_all:
            self.stream.step("end", self._owner.clock())
            self._finish()

    def _watch_writable(self) -> None:
        if self._writer is None and self._socket is not None:
            self._writer = self._owner.loop.io(self._socket.fileno(), WRITE)
            self._writer.start(self._writable)

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None

    def _finish(self) -> None:
        """Let go of the socket."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._stop_writer()
        self._reader.stop()
        self._reader.close()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        sock.close()
        self._owner.keep(-self._held)
        self._owner.closed(self)

    def __repr__(self) -> str:
        return f"<Connection {self.hop.connection} {self.stream.state} {self.hop.host}:{self.hop.port}>"
