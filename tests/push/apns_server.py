"""A server that speaks as Apple's push service does: HTTP/2 over TLS, in greenlets, on this machine.

`say(request)` answers: a `Reply`, `STALL` for no answer, `RESET` for a stream that is reset, `REFUSE` for one that was
not taken, `DROP` for a connection that breaks off.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent import socket, ssl
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings


@dataclass
class Request:
    """One push, as it came."""

    headers: dict[str, str]
    connection: Connection
    stream: int
    body: bytearray = field(default_factory=bytearray)

    @property
    def token(self) -> str:
        return self.headers[":path"].removeprefix("/3/device/")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


STALL, RESET, REFUSE, DROP = object(), object(), object(), object()
Say = Callable[[Request], Any]


def reason(status: int, reason: str, *headers: tuple[str, str], **more: Any) -> Reply:
    return Reply(status, json.dumps({"reason": reason, **more}).encode(), headers)


class Connection:
    """One that a client has made. `frozen`: it reads nothing and answers no PING, as behind a path that is lost."""

    def __init__(self, server: ApnsServer, sock: Any) -> None:
        self.server = server
        self.number = len(server.connections) + 1
        self.pings = self.requests = self.resets = self.most = 0
        self.frozen = self.closed = False
        self.open: dict[int, Request] = {}
        self.peer = ""
        self._socket = sock
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: server.streams,
                SettingCodes.INITIAL_WINDOW_SIZE: server.window,
            },
        )

    def run(self) -> None:
        try:
            self._socket.do_handshake()
            if (certificate := self._socket.getpeercert()) is not None:
                self.peer = str(certificate.get("subject", ""))
            if self.server.silent:
                gevent.sleep(60)
            if self.server.says_first:
                self._socket.sendall(self.server.says_first)
            self.h2.initiate_connection()
            self._flush()
            while data := self._socket.recv(65_536):
                while self.frozen:
                    gevent.sleep(0.01)
                for event in self.h2.receive_data(data):
                    self._take(event)
                self._flush()
        except (OSError, ProtocolError):
            pass
        self.closed = True
        self._socket.close()

    def _take(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.requests += 1
            self.open[event.stream_id] = Request(dict(event.headers), self, event.stream_id)
            self.most = max(self.most, len(self.open))
        elif isinstance(event, DataReceived):
            if self.server.consume:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.open:
                self.open[event.stream_id].body += event.data
        elif isinstance(event, PingReceived):
            self.pings += 1
        elif isinstance(event, StreamReset):
            self.resets += 1
            self.open.pop(event.stream_id, None)
        if isinstance(event, StreamEnded) and event.stream_id in self.open:
            self._asked(self.open[event.stream_id])

    def _asked(self, request: Request) -> None:
        self.server.requests.append(request)
        said = self.server.say(request)
        if callable(said):
            gevent.spawn(lambda: (self.answer(request, said()), self._flush()))
        else:
            self.answer(request, said)

    def answer(self, request: Request, said: Any) -> None:
        stream = request.stream
        if said is STALL:
            return
        self.open.pop(stream, None)
        if said is DROP:
            raise OSError("dropped")
        if said is RESET or said is REFUSE:
            self.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM if said is REFUSE else ErrorCodes.INTERNAL_ERROR)
            return
        headers = [(":status", str(said.status)), ("apns-id", request.headers["apns-id"]), *said.headers]
        self.h2.send_headers(stream, headers, end_stream=not said.body)
        for at in range(0, len(said.body), 16_384):
            self.h2.send_data(stream, said.body[at : at + 16_384], end_stream=at + 16_384 >= len(said.body))

    def reply(self, request: Request, said: Any) -> None:
        """Answer one that was stalled."""
        self.answer(request, said)
        self._flush()

    def go_away(
        self, last: int, why: bytes = b"", error: ErrorCodes = ErrorCodes.NO_ERROR, *, close: bool = False
    ) -> None:
        """GOAWAY as an octet string: h2 itself answers nothing any more after one."""
        payload = last.to_bytes(4) + int(error).to_bytes(4) + why
        self._flush()
        self._socket.sendall(len(payload).to_bytes(3) + b"\x07\x00" + bytes(4) + payload)
        if close:
            self.close()

    def more_streams(self, count: int) -> None:
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: count})
        self._flush()

    def give_window(self, request: Request, octets: int) -> None:
        self.h2.increment_flow_control_window(octets)
        self.h2.increment_flow_control_window(octets, request.stream)
        self._flush()

    def close(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        if data := self.h2.data_to_send():
            self._socket.sendall(data)


class ApnsServer:
    """Listens on a port of 127.0.0.1. `pair`: its certificate and key; `ca`: whom clients need a certificate of."""

    def __init__(self, pair: tuple[Path, Path], ca: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.say: Say = lambda request: Reply()
        self.streams = 1000
        self.window = 65_535
        self.consume = True
        self.silent = False
        self.says_first = b""
        """Octets sent in place of HTTP/2."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        context.set_alpn_protocols(["h2"])
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)
        self.context = context
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(100)
        self.port = int(self._listener.getsockname()[1])
        self._greenlets = [gevent.spawn(self._accept)]

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = Connection(self, wrapped)
            self.connections.append(connection)
            self._greenlets.append(gevent.spawn(connection.run))

    def close(self) -> None:
        gevent.killall(self._greenlets)
        self._listener.close()
        for connection in self.connections:
            connection.close()
