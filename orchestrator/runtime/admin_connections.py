"""Connections of the admin interface: who may hold how many of them, and for how long.

A connection *waits* until the head of a request has come; then the request is *served*, or it becomes a *stream* that
goes on for long (JSON lines, server-sent events). Each has a bound of its own, so that no kind eats the others:

    waiting   WAITING in all, OF_ONE of one client: one more cuts the oldest of the client that has most. A connection
              whose first head has not come costs a watcher, no greenlet; after HEAD seconds it is cut.
    served    `connections` at a time, `per_client` of one client; more wait for their turn, at most TURN seconds
    streams   `streams` at a time, three quarters of one client; more are refused

Requests to `quick` paths wait for nobody: whoever looks whether we are alive has an answer, whatever others do.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from io import BufferedReader, RawIOBase
from typing import Any, Final

import gevent
from gevent import Timeout, socket
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from orchestrator.sip.admission import source_name

HEAD = 5.0
"""Seconds a client has for the head of a request, however it spreads its octets, and for which an idle one is kept."""

PATIENCE = 30.0
"""Seconds a connection may stay silent: a client that never ends its request must not keep one of the connections."""

LONGEST = 60.0
"""Seconds for a request that is no stream, and for the client to read the answer."""

TURN = 10.0
"""Seconds that a request waits for its turn."""

WAITING: Final = 512
OF_ONE: Final = 256
"""Connections whose request has not come yet: of all, and of one client."""

UNREAD = 262_144
"""Octets of a body that nobody has read, most often of a request that was refused, which are read to use the connection
again. A client that has more to say, or takes longer than HEAD, is cut."""

_READ: Final = 16_384
_MOST_HEAD: Final = 65_536
"""Octets of a head; what is longer is refused by whoever reads it."""

STREAM: Final = "orchestrator.stream"
"""Where the environment of a request holds what makes a stream of it: called, it says whether there is room."""

_BAD = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Waiting:
    """Connections that have sent no whole request yet, by client, the oldest first."""

    def __init__(self) -> None:
        self.refused = 0
        """Connections cut to make room."""
        self._clients: dict[str, OrderedDict[int, Callable[[], None]]] = {}
        self._total = 0
        self._last = 0

    def __len__(self) -> int:
        return self._total

    def add(self, client: str, end: Callable[[], None]) -> int:
        """One more; `end()` cuts it. Returns a number for `discard`."""
        held = self._clients.get(client, ())
        if len(held) >= OF_ONE:
            self._cut(client)
        elif self._total >= WAITING:
            self._cut(max(self._clients, key=lambda name: len(self._clients[name])))
        self._last += 1
        self._clients.setdefault(client, OrderedDict())[self._last] = end
        self._total += 1
        return self._last

    def _cut(self, client: str) -> None:
        number, end = next(iter(self._clients[client].items()))
        self.discard(client, number)
        self.refused += 1
        end()

    def discard(self, client: str, number: int) -> None:
        """It waits no more. Idempotent."""
        held = self._clients.get(client)
        if held is not None and held.pop(number, None) is not None:
            self._total -= 1
            if not held:
                del self._clients[client]


class Turns:
    """Requests that are served at a time, of all and of one client."""

    def __init__(self, most: int, of_one: int) -> None:
        self._all = BoundedSemaphore(most)
        self._most_of_one = of_one
        self._of_one: dict[str, BoundedSemaphore] = {}
        self._users: Counter[str] = Counter()

    def take(self, client: str) -> bool:
        """Wait for a turn; False when none has come in time."""
        self._users[client] += 1
        own = self._of_one.setdefault(client, BoundedSemaphore(self._most_of_one))
        if own.acquire(timeout=TURN):
            if self._all.acquire(timeout=TURN):
                return True
            own.release()
        self._forget(client)
        return False

    def give_back(self, client: str) -> None:
        """The turn is over."""
        self._all.release()
        self._of_one[client].release()
        self._forget(client)

    def _forget(self, client: str) -> None:
        self._users[client] -= 1
        if not self._users[client]:
            del self._users[client], self._of_one[client]


class Streams:
    """Answers that go on."""

    def __init__(self, most: int) -> None:
        self.refused = 0
        self._most = most
        self._of_one = max(1, most * 3 // 4)
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._held.total()

    def take(self, client: str) -> bool:
        """Whether there is room for one more."""
        if self._held.total() >= self._most or self._held[client] >= self._of_one:
            self._held += Counter()  # without those that are 0
            self.refused += 1
            return False
        self._held[client] += 1
        return True

    def give_back(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]


class _Rest:
    """What is left of the body of a request. gevent would read all of it, a terabyte or an octet a minute."""

    def __init__(self, handler: _Handler, body: Any) -> None:
        self._handler = handler
        self._body = body

    def _discard(self) -> None:
        """Called by gevent when the answer has been sent."""
        body = self._body
        body.send_100_continue_enabled = False
        over = Timeout.start_new(HEAD)
        try:
            left = UNREAD
            while left > 0 and not body._chunked_input_error:
                if not (octets := body.read(16_384)):
                    return
                left -= len(octets)
        except Timeout as timeout:
            if timeout is not over:
                raise
        finally:
            over.close()
        self._handler.close_connection = True


class _Handler(WSGIHandler):
    """Gives up on connections that stay silent, and on those that take too long over the head of a request."""

    def __init__(self, sock: Any, address: Any, server: AdminServer, stream: Any) -> None:
        sock.settimeout(PATIENCE)
        self._client = source_name(address[0])
        self._admin = server
        self._head = Timeout(HEAD)
        self._longest = Timeout(LONGEST)
        self._waits = 0
        self._has_turn = self._streams = False
        super().__init__(sock, address, server)
        self.rfile.close()
        self.rfile = stream

    def handle(self) -> None:
        """Serve the connection to its end. Nothing then refers to itself: the collector of cycles seldom runs."""
        try:
            super().handle()
        finally:
            self.environ = None

    def handle_one_request(self) -> Any:
        """None closes the connection."""
        head = self._head = Timeout.start_new(HEAD)
        self._waits = self._admin.waiting.add(self._client, self._cut)
        try:
            return super().handle_one_request()
        except Timeout as over:
            if over is not head:
                raise
            return None
        finally:
            head.close()
            self._admin.waiting.discard(self._client, self._waits)

    def _cut(self) -> None:
        """Somebody else needs the room: reading ends at once."""
        sock = getattr(self.socket, "_sock", None)  # gevent's own shutdown would raise in whoever reads
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def get_environ(self) -> Any:
        environ = super().get_environ()
        environ[STREAM] = self._become_stream
        # `environ` has the body itself.
        self.wsgi_input = _Rest(self, self.wsgi_input)  # type: ignore[assignment]
        return environ

    def handle_one_response(self) -> None:
        self._head.close()  # the head has been read; an answer may be a stream of minutes
        self._admin.waiting.discard(self._client, self._waits)
        if self.environ is not None and self.environ["PATH_INFO"] in self._admin.quick:
            super().handle_one_response()
            return
        if not self._admin.turns.take(self._client):
            self._refuse()
            return
        self._has_turn = True
        longest = self._longest = Timeout.start_new(LONGEST)
        try:
            super().handle_one_response()
        except Timeout as over:
            if over is not longest:
                raise
            self.close_connection = True
        finally:
            longest.close()
            self._give_back()

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """A client that takes too long is no bug."""
        if error is self._longest:
            self.close_connection = True
            return
        super().handle_error(kind, error, trace)

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        """What is no HTTP is answered 400 and counted: gevent would write a line and a traceback for each."""
        self._admin.malformed += 1
        return "400", _BAD

    def _refuse(self) -> None:
        self._admin.refused += 1
        self.close_connection = True
        self.status = "503 Service Unavailable"
        try:
            self.socket.sendall(_BUSY)
        except OSError:
            pass

    def _become_stream(self) -> bool:
        """Whether there is room for one more stream; then the turn is for others, and time has no bound."""
        if self._streams:
            return True
        if not self._admin.streams.take(self._client):
            return False
        self._streams = True
        self._longest.close()
        if self._has_turn:
            self._has_turn = False
            self._admin.turns.give_back(self._client)
        return True

    def _give_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._admin.turns.give_back(self._client)
        if self._streams:
            self._streams = False
            self._admin.streams.give_back(self._client)


class _Begun(RawIOBase):
    """What has come of a connection already, then what comes."""

    def __init__(self, begun: bytes, sock: Any) -> None:
        self._begun = begun
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begun = self._begun
        if not begun:
            return int(self._sock.recv_into(buffer))
        size = min(len(begun), len(buffer))
        buffer[:size] = begun[:size]
        self._begun = begun[size:]
        return size


class _Arriving:
    """A connection whose first head has not come as a whole: a watcher, a timer of the loop, and no greenlet."""

    __slots__ = ("_address", "_begun", "_client", "_number", "_server", "_sock", "_timer", "_watcher")

    def __init__(self, server: AdminServer, sock: Any, address: Any) -> None:
        self._server = server
        self._sock = sock
        self._address = address
        self._begun = b""
        self._client = source_name(address[0])
        loop = gevent.get_hub().loop
        self._watcher = loop.io(sock.fileno(), 1)
        self._timer = loop.timer(HEAD)
        self._number = server.waiting.add(self._client, self.end)
        server.arriving.add(self)
        self._watcher.start(self._read)
        self._timer.start(self.end)

    def _let_go(self) -> None:
        self._server.arriving.discard(self)
        self._server.waiting.discard(self._client, self._number)
        for watcher in (self._watcher, self._timer):
            watcher.stop()
            watcher.close()

    def _read(self) -> None:
        """It is readable."""
        try:
            octets = self._sock._sock.recv(_READ)  # in the loop: gevent's own would wait
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.end()
            return
        seen = max(0, len(self._begun) - 3)
        self._begun += octets
        if b"\r\n\r\n" in self._begun[seen:] or b"\n\n" in self._begun[seen:] or len(self._begun) >= _MOST_HEAD:
            self._let_go()
            self._server.speaks(self._sock, self._address, self._begun)

    def end(self) -> None:
        """Close it."""
        self._let_go()
        self._sock.close()


class AdminServer(WSGIServer):
    """The HTTP server with these bounds; `quick` paths wait for nobody."""

    max_accept = 200
    """Connections accepted in one go: some milliseconds."""

    def __init__(
        self, listener: socket.socket, app: Any, connections: int, per_client: int, streams: int, quick: Collection[str]
    ) -> None:
        self.refused = 0
        """Requests refused because their turn did not come."""
        self.malformed = 0
        """Requests that are no HTTP."""
        self.waiting = Waiting()
        self.arriving: set[_Arriving] = set()
        self.turns = Turns(connections, per_client)
        self.streams = Streams(streams)
        self.quick = quick
        errors = logging.getLogger("orchestrator.admin")
        super().__init__(listener, app, log=None, error_log=errors, spawn=Pool(), handler_class=_Handler)

    def do_handle(self, sock: Any, address: Any) -> None:
        """Called for each accepted connection, in the loop: nothing here may wait."""
        _Arriving(self, sock, address)

    def speaks(self, sock: Any, address: Any, begun: bytes) -> None:
        """The head of a request has come: from now on the connection has a greenlet."""
        super().do_handle(sock, address, begun)  # type: ignore[call-arg]  # all of it goes to `handle`

    def handle(self, sock: Any, address: Any, begun: bytes = b"") -> None:
        _Handler(sock, address, self, BufferedReader(_Begun(begun, sock))).handle()

    def stop(self, timeout: float | None = None) -> None:
        for arriving in list(self.arriving):
            arriving.end()
        super().stop(timeout)
