"""HTTP/2 to one server: requests of many greenlets over one connection, which is made anew when it ends.

`h2` keeps the states of the protocol, octets in and out. Here are the socket, and what a client owes a server that goes
away: requests it says it has not taken (GOAWAY above its last stream, REFUSED_STREAM) go out again over a new
connection, the others are answered on the old one, or fail. A connection on which nothing is heard is asked with a PING
and given up without an answer, as is one on which PINGs are answered and requests are not; one that was idle is asked
together with the next request, so that a path that was lost meanwhile costs two seconds, not the time of a push.

One greenlet reads, one writes: what several requests have to say leaves in one record of TLS, and a request that is
given up never stops in the middle of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import gevent
from gevent import socket, ssl
from gevent.event import AsyncResult, Event
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

CONNECT: Final = 4.0
"""Seconds until a connection is there: name, TCP, TLS, and the server's SETTINGS."""
CONNECT_ONE: Final = 1.5
"""Of these, for one of several addresses."""
STALL: Final = 2.0
"""Seconds without an octet, while there are requests, after which a PING asks whether the server is there; and for its
answer."""
QUIET: Final = 30.0
"""Seconds without an octet after which a request takes a PING with it."""
IDLE: Final = 60.0
"""Seconds between PINGs while there is nothing to do: they keep the way open."""
STREAMS: Final = 1_000
"""Requests at one time on a connection, whatever the server allows."""
LAST_STREAM: Final = 2**31 - 1_000
"""A connection that has come so far gets no more requests."""
MAX_ANSWER: Final = 4_096
"""Octets of an answer's body that are kept."""
AGAIN: Final = 3
"""Connections that a request is given, one after the other, while servers say they have not taken it."""

NOISE: Final = 5_000
"""Frames without an answer among them after which a server is left (RFC 9113 §10.5); one of SETTINGS counts for 50."""

_FRAME: Final = 9
_SETTINGS: Final = 4
_GOAWAY: Final = 7
_MAX_FRAME: Final = 16_384
"""What we let servers send (RFC 9113 §6.5.2)."""

Headers = Sequence[tuple[Any, Any]]


class LinkDown(Exception):
    """No answer: the server is not reached, or broke off."""


class NotTaken(LinkDown):
    """The server says that it has not looked at the request, or cannot have: it may be sent again."""


@dataclass(frozen=True, slots=True)
class H2Answer:
    """`headers` with names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True, eq=False)
class _Exchange:
    headers: Headers
    body: bytes
    result: AsyncResult[H2Answer] = field(default_factory=AsyncResult)
    stream: int = 0
    began: float = 0.0
    sent: int = 0
    """Octets of the body."""
    status: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    answer: bytearray = field(default_factory=bytearray)


class H2Client:
    """One server, and the connection to it."""

    def __init__(
        self, host: str, port: int, context: Callable[[], ssl.SSLContext], *, one_first: Callable[[int], bool]
    ) -> None:
        """`context()` is asked for each connection; it raises OSError or ValueError. Only one request at a time goes
        over a new connection until `one_first(status)` is false for an answer."""
        bare = f"[{host}]" if ":" in host else host
        self.name = f"{bare}:{port}"
        self.authority = bare if port == 443 else self.name
        self.connections = 0
        """That were begun."""
        self._address = host, port
        self._context = context
        self._one_first = one_first
        self._link: Link | None = None
        self._links: set[Link] = set()

    def request(self, headers: Headers, body: bytes) -> H2Answer:
        """Send a request and wait for its answer, as long as the caller lets us (gevent.Timeout).

        Raises:
            LinkDown: no answer.
        """
        for _ in range(AGAIN - 1):
            try:
                return self._usable().exchange(headers, body)
            except NotTaken:
                continue
        return self._usable().exchange(headers, body)

    def close(self) -> None:
        """End all connections; who waits for an answer gets LinkDown."""
        for link in list(self._links):
            link.end("closed", LinkDown)

    def _usable(self) -> Link:
        link = self._link
        if link is None or not link.usable:
            self.connections += 1
            link = self._link = Link(self._address, self._context, self._one_first, self._links.discard)
            self._links.add(link)
        return link


class Link:
    """One connection."""

    def __init__(
        self,
        address: tuple[str, int],
        context: Callable[[], ssl.SSLContext],
        one_first: Callable[[int], bool],
        ended: Callable[[Link], object],
    ) -> None:
        """Begins at once; `ended(self)` is told when it is over."""
        self.usable = True
        """It takes requests: not after GOAWAY, nor at its end."""
        self._context = context
        self._one_first: Callable[[int], bool] | None = one_first
        self._ended = ended
        self._over = False
        self._ready = False
        self._waiting: deque[_Exchange] = deque()
        self._streams: dict[int, _Exchange] = {}
        self._blocked: set[_Exchange] = set()
        """Those with a part of their body left that no flow control window was open for."""
        self._shut = False
        """The window of the connection is closed: no stream can send."""
        self._noise = 0
        self._inbound = bytearray()
        self._heard = self._answered_at = monotonic()
        self._pinged: float | None = None
        self._dirty = Event()
        self._busy = Event()
        self._socket: Any = None
        config = H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = H2Connection(config)
        self._h2.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
        self._greenlets: list[gevent.Greenlet[..., Any]] = [gevent.spawn(self._run, address)]

    # --- requests -----------------------------------------------------------------------------------------------------

    def exchange(self, headers: Headers, body: bytes) -> H2Answer:
        """Send a request and wait for its answer. Raises LinkDown."""
        one = _Exchange(headers, body)
        self._waiting.append(one)
        self._pump()
        try:
            answer = one.result.get()
            assert answer is not None
            return answer
        except LinkDown:
            raise
        except BaseException:
            self._forget(one)
            raise

    def _pump(self) -> None:
        """Send what waits, as far as the server lets us."""
        if not self._ready:
            return
        while self._waiting and self.usable and len(self._streams) < self._room:
            self._send(self._waiting.popleft())
        self._flush()

    @property
    def _room(self) -> int:
        if self._one_first is not None:
            return 1
        return min(STREAMS, self._h2.remote_settings.max_concurrent_streams)

    def _send(self, one: _Exchange) -> None:
        if not self._streams:
            self._busy.set()
        stream = one.stream = self._h2.get_next_available_stream_id()
        self._streams[stream] = one
        one.began = monotonic()
        self._h2.send_headers(stream, one.headers, end_stream=not one.body)
        self._send_body(one)
        if self._pinged is None and monotonic() - self._heard >= QUIET:
            self._ping()
        if stream >= LAST_STREAM:
            self._retire("the connection has no more streams")

    def _send_body(self, one: _Exchange) -> None:
        """As much of it as the windows let us (RFC 9113 §5.2)."""
        h2, stream, body = self._h2, one.stream, one.body
        while one.sent < len(body):
            size = min(h2.local_flow_control_window(stream), h2.max_outbound_frame_size, len(body) - one.sent)
            if size <= 0:
                self._shut = h2.outbound_flow_control_window <= 0
                self._blocked.add(one)
                return
            one.sent += size
            h2.send_data(stream, body[one.sent - size : one.sent], end_stream=one.sent == len(body))
        self._blocked.discard(one)

    def _forget(self, one: _Exchange) -> None:
        """Nobody waits for this answer any more."""
        if one in self._waiting:
            self._waiting.remove(one)
        elif self._streams.get(one.stream) is one and not self._over:
            try:
                self._h2.reset_stream(one.stream, ErrorCodes.CANCEL)
            except H2Error:  # it is over for h2
                pass
            self._finish(one)
            if self._answered_at < one.began <= monotonic() - STALL:
                self._retire("the server answers no requests")
            else:
                self._pump()

    def _finish(self, one: _Exchange) -> None:
        del self._streams[one.stream]
        self._blocked.discard(one)
        if not self.usable and not self._streams:
            self.end("the connection is over", NotTaken)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        """Hand whole frames to h2, but for GOAWAY: after that one h2 takes no more frames, and answers are to come."""
        buffer = self._inbound
        buffer += data
        start = at = 0
        while len(buffer) - at >= _FRAME:
            size = int.from_bytes(buffer[at : at + 3])
            if size > _MAX_FRAME:
                raise H2Error(f"a frame of {size} octets")
            self._noise += 50 if buffer[at + 3] == _SETTINGS else 1
            if self._noise > NOISE:
                raise H2Error("the server sends frames and no answers")
            end = at + _FRAME + size
            if len(buffer) < end:
                break
            if buffer[at + 3] == _GOAWAY:
                self._take(bytes(buffer[start:at]))
                self._go_away(bytes(buffer[at + _FRAME : end]))
                start = end
            at = end
        self._take(bytes(buffer[start:at]))
        del buffer[:at]
        if not self._over:
            self._pump()

    def _take(self, frames: bytes) -> None:
        if not frames or self._over:
            return
        for event in self._h2.receive_data(frames):
            if isinstance(event, ResponseReceived):
                self._begin_answer(event)
            elif isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if (one := self._streams.get(event.stream_id)) is not None and len(one.answer) < MAX_ANSWER:
                    one.answer += event.data
            elif isinstance(event, StreamEnded):
                self._answered(event.stream_id)
            elif isinstance(event, StreamReset):
                self._reset(event)
            elif isinstance(event, WindowUpdated):
                self._opened(event.stream_id or 0)
            elif isinstance(event, RemoteSettingsChanged):
                self._ready = True
                if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    self._unblock()
            elif isinstance(event, PingAckReceived):
                self._pinged = None

    def _begin_answer(self, event: ResponseReceived) -> None:
        one = self._streams.get(event.stream_id)
        if one is None:
            return
        named = {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in event.headers or ()}
        one.status = int(named.pop(":status"))
        one.answered = named

    def _answered(self, stream: int) -> None:
        one = self._streams.get(stream)
        if one is None:
            return
        self._answered_at = monotonic()
        self._noise = 0
        if self._one_first is not None and not self._one_first(one.status):
            self._one_first = None
        one.result.set(H2Answer(one.status, one.answered, bytes(one.answer[:MAX_ANSWER])))
        self._finish(one)

    def _reset(self, event: StreamReset) -> None:
        one = self._streams.get(event.stream_id)
        if one is None:
            return
        code = _code(event.error_code)
        kind = NotTaken if event.error_code == ErrorCodes.REFUSED_STREAM else LinkDown
        one.result.set_exception(kind(f"the server reset the stream: {code}"))
        self._finish(one)

    def _opened(self, stream: int) -> None:
        """A window has opened: of one stream, or (0) of the connection, which matters when it was closed."""
        if stream:
            if (one := self._streams.get(stream)) in self._blocked and one is not None:
                self._send_body(one)
        elif self._shut:
            self._unblock()

    def _unblock(self) -> None:
        """What of the bodies fits into the windows now. Those that wait may be many, and windows small."""
        self._shut = False
        for one in list(self._blocked):
            self._send_body(one)
            if self._shut:
                return

    def _go_away(self, payload: bytes) -> None:
        """RFC 9113 §6.8: streams above the last one it names were not taken."""
        last, code = int.from_bytes(payload[:4]) & 0x7FFFFFFF, int.from_bytes(payload[4:8])
        said = payload[8:200].decode("utf-8", "replace")
        reason = " ".join(filter(None, ("the server closes the connection:", _code(code), said)))
        for one in [one for stream, one in self._streams.items() if stream > last]:
            one.result.set_exception(NotTaken(reason))
            del self._streams[one.stream]
            self._blocked.discard(one)
        self._retire(reason)

    def _retire(self, reason: str) -> None:
        """No more requests: those that wait go elsewhere, those under way are waited for."""
        self.usable = False
        while self._waiting:
            self._waiting.popleft().result.set_exception(NotTaken(reason))
        if not self._streams:
            self.end(reason, NotTaken)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _run(self, address: tuple[str, int]) -> None:
        limit = gevent.Timeout(CONNECT)
        try:
            with limit:
                self._connect(address)
                while not self._ready:
                    self._read()
        except gevent.Timeout as over:
            if over is not limit:
                raise
            return self.end(f"no connection within {CONNECT:g} s", LinkDown)
        except Exception as error:
            return self.end(_reason(error), LinkDown)
        try:
            while not self._over:
                self._read()
        except Exception as error:
            self.end(_reason(error), NotTaken)
        return None

    def _connect(self, address: tuple[str, int]) -> None:
        context = self._context()
        plain = socket.create_connection(address, timeout=CONNECT_ONE)
        plain.settimeout(None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        self._socket = context.wrap_socket(plain, server_hostname=address[0])
        if self._socket.selected_alpn_protocol() != "h2":
            raise OSError("the server does not speak HTTP/2")
        self._h2.initiate_connection()
        self._greenlets.append(gevent.spawn(self._write))
        self._greenlets.append(gevent.spawn(self._watch))
        self._flush()

    def _read(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise OSError("the server has closed the connection")
        self._heard = monotonic()
        self._receive(data)
        self._flush()

    def _flush(self) -> None:
        self._dirty.set()

    def _write(self) -> None:
        try:
            while not self._over:
                self._dirty.wait()
                self._dirty.clear()
                if data := self._h2.data_to_send():
                    self._socket.sendall(data)
        except OSError as error:
            self.end(_reason(error), NotTaken)

    def _ping(self) -> None:
        self._pinged = monotonic()
        self._h2.ping(b"\0" * 8)
        self._busy.set()
        self._flush()

    def _watch(self) -> None:
        """Ask whether the server is there: often while there are requests, seldom while there are none."""
        while not self._over:
            if not self._busy.wait(IDLE):
                self._ping()
            gevent.sleep(STALL / 2)
            now = monotonic()
            if self._pinged is not None:
                if now - self._pinged >= STALL and self._unanswered():
                    return self.end("the server does not answer", NotTaken)
            elif self._streams and now - self._heard >= STALL:
                self._ping()
            elif not self._streams:
                self._busy.clear()
        return None

    def _unanswered(self) -> bool:
        """Whether nothing was heard since the PING; what has come while this process was held up is read first."""
        gevent.sleep(0.01)
        return self._pinged is not None and self._heard < self._pinged

    def end(self, reason: str, waiting: type[LinkDown]) -> None:
        """Close it. Requests under way fail; those that wait get an error of the kind `waiting`."""
        if self._over:
            return
        self._over, self.usable = True, False
        self._ended(self)
        for one in self._streams.values():
            one.result.set_exception(LinkDown(reason))
        while self._waiting:
            self._waiting.popleft().result.set_exception(waiting(reason))
        self._streams.clear()
        self._blocked.clear()
        current = gevent.getcurrent()
        gevent.killall([each for each in self._greenlets if each is not current], block=False)
        if self._socket is not None:
            self._socket.close()


def _code(code: int | ErrorCodes | None) -> str:
    """The name of an error code (RFC 9113 §7)."""
    try:
        return ErrorCodes(code).name if code is not None else ""
    except ValueError:
        return hex(code or 0)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0]
