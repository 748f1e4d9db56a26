"""One Event Socket connection: greenswitch's `InboundESL` with its reader, sender and dispatcher replaced.

The class and its names are greenswitch's, so that what people wrote for it runs (`register_handle`, `send`,
`connect`, `stop`, `connected`, `NotConnectedError`). Underneath, everything that touches bytes is ours, because
version 0.0.19 decodes an event before it splits it (a caller can forge events), hangs on EOF, waits for replies for
ever, and lets a burst of events keep every other greenlet from running.

Two greenlets serve a connection. The reader cuts frames, hands replies to who waits for them and queues events; the
dispatcher calls the handlers, in order, and may therefore itself send commands. Both give the loop back after `SLICE`
seconds of work, by a sleep of real time: `gevent.sleep(0)` only lets other callbacks run, up to 50 of them before the
loop looks at a clock (gevent/_ffi/loop.py), so timers would still starve.

The queue between the two is bounded by its octets. When it is full the reader stops reading, TCP passes that on, and
FreeSWITCH keeps the events (100,000 of them); only while a reply is awaited it reads on, up to a second, hard bound,
because a handler that waits for a reply is what keeps the queue from draining.

An object serves one connection and is then spent. It ends once, for one reason, whatever that is: every command that
waits fails at once, what was received is still delivered, and the handlers of `DISCONNECT` are called last.
"""

from __future__ import annotations

import socket as std_socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

import gevent
from gevent import socket
from gevent.event import AsyncResult, Event
from gevent.lock import RLock
from greenswitch.esl import InboundESL, NotConnectedError
from loguru import logger

from orchestrator.errors import EslDown, EslError, EslProtocolError, EslRefused, EslTimeout
from orchestrator.esl.codec import (
    API_RESPONSE,
    AUTH_REQUEST,
    COMMAND_REPLY,
    DISCONNECT_NOTICE,
    EVENT_JSON,
    EVENT_PLAIN,
    LOG_DATA,
    RUDE_REJECTION,
    EslEvent,
    Frame,
    FrameDecoder,
)
from orchestrator.esl.commands import encode

SLICE = 0.005
PAUSE = 0.0005
"""Seconds of work in one go, and of real sleep after it."""

RECEIVE = 64 * 1024
"""Octets asked of the socket at a time: some ten events."""

QUEUE = 4 * 1024 * 1024
"""Octets of undelivered events at which reading stops: some thousand events, half a second of work."""
QUEUE_HARD = 64 * 1024 * 1024
"""The same while a reply is awaited."""

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence, between probes, number of probes: a peer that has vanished is noticed within half a minute."""


class ConnectionDown(EslDown, NotConnectedError):  # type: ignore[misc]  # greenswitch has no types
    """Not connected, or not any more; both families of `except` catch it."""


class ConnectionRefused(EslRefused, NotConnectedError, ValueError):  # type: ignore[misc]
    """Wrong password or access list. greenswitch raises ValueError for the first and NotConnectedError for the
    second.
    """


@dataclass(slots=True)
class EslCounters:
    """What happened on the connections of one server since the start; all only grow."""

    connects: int = 0
    drops: int = 0
    refusals: int = 0
    octets: int = 0
    events: int = 0
    commands: int = 0
    timeouts: int = 0
    malformed: int = 0
    unsolicited: int = 0
    stalls: int = 0
    handler_errors: int = 0
    lost_events: int = 0
    """What FreeSWITCH says it has thrown away."""


class Slice:
    """Measures how long a greenlet has been working without giving the loop back."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE

    def restart(self) -> None:
        """The greenlet has just waited for something."""
        self._until = perf_counter() + SLICE

    def pause(self) -> None:
        """Sleep a moment when the time is up."""
        if perf_counter() >= self._until:
            gevent.sleep(PAUSE)
            self.restart()


Item = EslEvent | Frame | Callable[[], None]
Handler = Callable[[Any], None]


class SafeInboundESL(InboundESL):  # type: ignore[misc]
    """A client of mod_event_socket. `timeout` bounds connecting and authenticating, `command_timeout` a command,
    seconds.

    Handlers get an `EslEvent` (CUSTOM events by their subclass, `*` for every event besides the specific handlers),
    or the `Frame` of a log line (`log`) or of the end (`DISCONNECT`). `on_end(error)` is called once, at once, when
    it ends.
    """

    def __init__(
        self,
        host: str,
        port: int,
        password: str,
        timeout: float = 5.0,
        *,
        user: str = "",
        command_timeout: float = 5.0,
        counters: EslCounters | None = None,
        on_end: Callable[[EslError], None] | None = None,
    ) -> None:
        super().__init__(host, port, password, timeout)
        self.user = user
        self.command_timeout = command_timeout
        self.counters = counters if counters is not None else EslCounters()
        self.last_received = 0.0
        """When the last octets came, on the monotonic clock."""
        self.error: EslError | None = None
        """Why it ended."""
        self._on_end = on_end
        self._opened = False
        self._stopping = False
        self._greeted = Event()
        self._write_lock = RLock()
        self._pending: deque[tuple[AsyncResult[Frame], str]] = deque()
        self._queue: deque[tuple[Item, int]] = deque()
        self._queued = 0
        self._work = Event()
        self._room = Event()
        self._stalled = False
        self._before: Handler | None = getattr(self, "before_handle", None)  # hooks of greenswitch's subclasses
        self._after: Handler | None = getattr(self, "after_handle", None)

    # --- connecting ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect and authenticate. Raises ConnectionDown, or ConnectionRefused for a wrong password or access list."""
        self.open()
        self.authenticate()

    def open(self) -> None:
        """The TCP connection and its two greenlets; IPv4 or IPv6, as the name resolves."""
        if self._opened:
            raise ConnectionDown("this object has had its connection: make a new one")
        self._opened = True
        try:
            self.sock = socket.create_connection((self.host, self.port), self.timeout)
        except OSError as error:
            raise self.end(ConnectionDown(f"cannot connect to {self.host}:{self.port}: {error}")) from None
        self._begin()

    def adopt(self, accepted: socket.socket) -> None:
        """`open` for a connection that the peer has made."""
        self._opened = True
        self.sock = accepted
        try:
            self._begin()
        except OSError as error:
            raise self.end(ConnectionDown(f"connection lost: {error}")) from None

    def _begin(self) -> None:
        self.sock.settimeout(None)
        self.sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_KEEPALIVE, 1)
        self.sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(std_socket, option):
                self.sock.setsockopt(std_socket.IPPROTO_TCP, getattr(std_socket, option), value)
        self.connected = True
        self.last_received = monotonic()
        self.counters.connects += 1
        self.start_event_handlers()

    def authenticate(self) -> None:
        """Wait for the greeting and answer it: `auth`, or `userauth` for a directory user (`user@domain`)."""
        greeted = self._greeted.wait(self.timeout)
        if self.error is not None:
            raise self.error
        if not greeted:
            raise self.end(ConnectionDown(f"{self.host}:{self.port} says nothing: no greeting in {self.timeout:g} s"))
        line = f"userauth {self.user}:{self.password}" if self.user else f"auth {self.password}"
        try:
            reply = self._request(encode(line), "auth", self.timeout)
        except EslTimeout as error:
            raise self.end(ConnectionDown(str(error), "auth")) from None
        if not reply.text.startswith("+OK"):
            self.counters.refusals += 1
            refused = ConnectionRefused(f"{self.host}:{self.port} refused the password", "auth")
            self.end(refused)
            raise refused  # even if the notice behind the reply has ended it already

    # --- commands -----------------------------------------------------------------------------------------------------

    def send(
        self,
        data: str,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Frame:
        """Write one command and wait for its reply.

        Raises EslInjection for CR, LF or NUL in it (nothing is written; further lines go into `headers`),
        ConnectionDown, EslTimeout after `timeout` or `command_timeout` seconds. A late reply is dropped; those after
        it still fit.
        """
        label = "auth" if data.lstrip().lower().startswith(("auth", "userauth")) else data
        return self._request(encode(data, headers, body), label, timeout)

    def request(self, wire: bytes, label: str, timeout: float | None = None) -> Frame:
        """`send` for octets made by orchestrator.esl.commands; `label` names the command in errors."""
        return self._request(wire, label, timeout)

    def _request(self, wire: bytes, label: str, timeout: float | None) -> Frame:
        seconds = self.command_timeout if timeout is None else timeout
        reply: AsyncResult[Frame] = AsyncResult()
        writing = False
        try:
            with gevent.Timeout(seconds, EslTimeout(f"no reply within {seconds:g} s", label)):
                with self._write_lock:  # replies come in the order of writing, so both happen in one piece
                    if not self.connected:
                        raise ConnectionDown(str(self.error or "not connected"), label)
                    self._pending.append((reply, label))
                    self._room.set()
                    self.counters.commands += 1
                    writing = True
                    self.sock.sendall(wire)
                    writing = False
                frame = reply.get()
                assert frame is not None
                return frame
        except EslTimeout:
            self.counters.timeouts += 1
            if writing:  # half a command is on the wire: nothing can follow it
                self.end(ConnectionDown("the peer does not read"))
            raise
        except OSError as error:
            raise self.end(ConnectionDown(f"cannot write: {error}", label)) from None

    def _reply(self, frame: Frame) -> None:
        if self._pending:
            self._pending.popleft()[0].set(frame)
        else:
            self.counters.unsolicited += 1

    # --- reader -------------------------------------------------------------------------------------------------------

    def receive_events(self) -> None:
        """The reader greenlet."""
        decoder, turn, counters = FrameDecoder(), Slice(), self.counters
        try:
            while self.error is None:
                before = perf_counter()
                data = self.sock.recv(RECEIVE)
                if perf_counter() - before > PAUSE:
                    turn.restart()
                if not data:
                    raise ConnectionDown("FreeSWITCH closed the connection")
                counters.octets += len(data)
                self.last_received = monotonic()
                for frame in decoder.feed(data):
                    self.handle_event(frame)
                if decoder.error is not None:
                    raise decoder.error
                self._wait_for_room()
                turn.pause()
        except EslProtocolError as error:
            counters.malformed += 1
            self.end(ConnectionDown(f"not an Event Socket: {error}"))
        except EslError as error:
            self.end(error)
        except OSError as error:
            self.end(ConnectionDown(f"connection lost: {error}"))

    def handle_event(self, event: Frame) -> None:
        """One frame (greenswitch's name for it)."""
        kind = event.content_type
        if kind in (EVENT_PLAIN, EVENT_JSON):
            decoded = event.event()
            if decoded is None:
                self.counters.malformed += 1
            else:
                self.counters.events += 1
                self._enqueue(decoded, event.size)
        elif kind in (COMMAND_REPLY, API_RESPONSE):
            self._reply(event)
        elif kind == AUTH_REQUEST:
            self._greeted.set()
        elif kind == LOG_DATA:
            self._enqueue(event, event.size)
        elif kind == RUDE_REJECTION:
            self.counters.refusals += 1
            self.end(ConnectionRefused(f"{self.host}:{self.port}: {event.text.strip() or 'access denied'}"))
        elif kind == DISCONNECT_NOTICE:
            if event.get("Content-Disposition") != "linger":
                self.end(ConnectionDown(event.text.partition("\n")[0] or "disconnected"), event)
        else:
            self.counters.malformed += 1

    def _wait_for_room(self) -> None:
        while self._queued > QUEUE and self.error is None and (not self._pending or self._queued > QUEUE_HARD):
            self.counters.stalls += 1
            self._stalled = True
            self._room.clear()
            self._room.wait()
        self._stalled = False

    # --- dispatcher ---------------------------------------------------------------------------------------------------

    def defer(self, function: Callable[[], None]) -> None:
        """Have the dispatcher call `function` once everything received so far has been delivered."""
        self._enqueue(function, 0)

    @property
    def waiting(self) -> int:
        """Events received and not yet delivered."""
        return len(self._queue)

    def _enqueue(self, item: Item, octets: int) -> None:
        if not self._queue:
            self._work.set()
        self._queue.append((item, octets))
        self._queued += octets

    def process_events(self) -> None:
        """The dispatcher greenlet."""
        queue, turn = self._queue, Slice()
        while queue or self.error is None:
            if not queue:
                self._work.clear()
                self._work.wait()
                turn.restart()
                continue
            item, octets = queue.popleft()
            self._queued -= octets
            if self._stalled and self._queued <= QUEUE:
                self._room.set()
            self._deliver(item)
            turn.pause()

    def _deliver(self, item: Item) -> None:
        handlers = self.event_handlers
        if isinstance(item, EslEvent):
            chosen = (*handlers.get(item.key, ()), *handlers.get("*", ()))
        elif isinstance(item, Frame):
            chosen = tuple(handlers.get("log" if item.content_type == LOG_DATA else "DISCONNECT", ()))
        else:
            self._call(lambda _: item(), None)
            return
        if chosen:
            if self._before is not None:
                self._call(self._before, item)
            for handler in chosen:
                self._call(handler, item)
            if self._after is not None:
                self._call(self._after, item)

    def _call(self, handler: Handler, item: Any) -> None:
        """A handler that raises is its own problem: logged, counted, and the next one is called."""
        try:
            handler(item)
        except Exception:
            self.counters.handler_errors += 1
            logger.bind(handler=repr(handler)).exception("event_handler_fault")

    # --- the end ------------------------------------------------------------------------------------------------------

    def end(self, error: EslError, notice: Frame | None = None) -> EslError:
        """End the connection for this reason, unless it has ended already. Returns the error that counts."""
        if self.error is not None:
            return self.error
        self.error = error
        if self.connected and not self._stopping:
            self.counters.drops += 1
        self.connected = False
        pending, self._pending = self._pending, deque()
        for reply, label in pending:
            reply.set_exception(ConnectionDown(str(error), label))
        self._greeted.set()
        self._room.set()
        if hasattr(self, "sock"):
            self.sock.close()
        head = f"Content-Type: {DISCONNECT_NOTICE}\n".encode()
        self._enqueue(notice if notice is not None else Frame(DISCONNECT_NOTICE, head, str(error).encode()), 0)
        if self._on_end is not None:
            self._on_end(error)
        return error

    def join(self, timeout: float | None = None) -> bool:
        """Once it has ended: wait until everything received is delivered; False when it is not by then."""
        if self._process_events_greenlet is None:
            return True
        self._process_events_greenlet.join(timeout)
        return bool(self._process_events_greenlet.dead)

    def stop(self) -> None:
        """Say goodbye and end. May be called at any time, any number of times, also by a handler. No handler runs
        after it.
        """
        self._stopping = True
        if self.connected:
            try:
                self.send("exit", timeout=1.0)
            except EslError:
                pass  # it ends either way
        self.end(ConnectionDown("stopped"))
        self._queue.clear()
        for greenlet in (self._receive_events_greenlet, self._process_events_greenlet):
            if greenlet is not None and greenlet is not gevent.getcurrent():
                greenlet.join(timeout=1.0)
                greenlet.kill(block=False)

    def __repr__(self) -> str:
        state = "connected" if self.connected else f"ended: {self.error}" if self.error else "not connected"
        waiting = f"{len(self._queue)} events, {len(self._pending)} replies"
        return f"<SafeInboundESL {self.host}:{self.port} {state}, {waiting}>"
