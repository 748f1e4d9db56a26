"""A WebSocket client (RFC 6455), and phones that speak SIP through it (RFC 7118), as phones in browsers do."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

import gevent
from gevent import socket, ssl
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from orchestrator.testing.phone import Address, Phone

PATIENCE = 30.0
"""Seconds a connection and its handshake may take, on a busy machine."""


class HandshakeRefused(Exception):
    """The server does not speak WebSocket with us: HTTP `status` and the text that came with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class WebSocketClient:
    """One open connection. `take` gets each message; `close_code` is the code the server closed with, 1006 where it
    only hung up, None as long as it has not. `pings` counts its pings.

    Args:
        server: its address.
        take: called with each message, text as UTF-8.
        path: `/path` of the address.
        ca: file with the certificates to trust: TLS is spoken then; None for plain TCP.
        name: host name in the certificate and in Host; '' for the address.
        subprotocols: what we offer.
        origin: the page we claim to be of; '' for none, as programs that are no browsers.

    Raises:
        HandshakeRefused: the server has answered with something else than 101.
        OSError: it cannot be reached, has ended the connection, or its certificate is not trusted.
    """

    def __init__(
        self,
        server: Address,
        take: Callable[[bytes], None],
        *,
        path: str = "/",
        ca: str | None = None,
        name: str = "",
        subprotocols: tuple[str, ...] = ("sip",),
        origin: str = "",
    ) -> None:
        self.take = take
        self.close_code: int | None = None
        self.subprotocol = ""
        self.pings = 0
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._partial = b""
        self._socket = socket.create_connection(server, timeout=PATIENCE)
        try:
            if ca is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context makes one that blocks
                context.load_verify_locations(ca)
                self._socket = context.wrap_socket(self._socket, server_hostname=name or server[0])
            self.address: Address = self._socket.getsockname()[:2]
            headers = [(b"Origin", origin.encode())] if origin else []
            host = f"{name or server[0]}:{server[1]}"
            offer = Request(host=host, target=path, subprotocols=list(subprotocols), extra_headers=headers)
            self._socket.sendall(self._protocol.send(offer))
            self._shake_hands()
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(None)
        self._reader = gevent.spawn(self._read)

    def _shake_hands(self) -> None:
        status, text = 0, b""
        while True:
            octets = self._socket.recv(65_536)
            self._protocol.receive_data(octets or None)
            for event in self._protocol.events():
                if isinstance(event, AcceptConnection):
                    self.subprotocol = event.subprotocol or ""
                    self._take_events()
                    return
                if isinstance(event, RejectConnection):
                    status = event.status_code
                elif isinstance(event, RejectData):
                    text += event.data
                    if event.body_finished:
                        raise HandshakeRefused(status, text.decode(errors="replace"))
            if not octets:
                raise ConnectionAbortedError("the server ended the connection before the handshake was done")

    def _read(self) -> None:
        while self.close_code is None:
            try:
                octets = self._socket.recv(65_536)
            except OSError:
                octets = b""
            self._protocol.receive_data(octets or None)
            self._take_events()

    def _take_events(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, Message):
                self._partial += event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
                if event.message_finished:
                    message, self._partial = self._partial, b""
                    self.take(message)
            elif isinstance(event, Ping):
                self.pings += 1
                self.send_raw(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.close_code = int(event.code)
                return

    def send(self, message: bytes, *, binary: bool = False) -> None:
        """One message: text, which has to be UTF-8, or binary. What is sent on a connection that has ended is lost."""
        event = BytesMessage(message) if binary else TextMessage(message.decode())
        if self.close_code is None:
            self.send_raw(self._protocol.send(event))

    def send_raw(self, octets: bytes) -> None:
        """Octets as they are: no frame is made of them."""
        try:
            self._socket.sendall(octets)
        except OSError:
            pass  # the reader sees it, too

    def close(self) -> None:
        """End it as one should, with a Close frame; no answer is waited for."""
        if self.close_code is None:
            self.send_raw(self._protocol.send(CloseConnection(code=1000)))
        self.cut()

    def cut(self) -> None:
        """End it as a network does that is gone: without a word on the level of WebSocket."""
        self._reader.kill()
        self._socket.close()


class WebSocketPhone(Phone):
    """A `Phone` on a WebSocket connection of its own. Its address is a name that leads nowhere (RFC 7118 §5.2): it is
    reached over its connection only. Raises as `WebSocketClient`, whose arguments it takes. Close it when it is no
    longer needed."""

    def __init__(
        self, aor: str, server: Address, *, path: str = "/", ca: str | None = None, name: str = "", origin: str = ""
    ) -> None:
        self.connection = WebSocketClient(server, self._take, path=path, ca=ca, name=name, origin=origin)
        super().__init__(
            aor,
            self.connection.address,
            server,
            lambda data, to: self.connection.send(data),
            ";transport=ws",
            transport="WS" if ca is None else "WSS",
            here=f"{token_hex(6)}.invalid",
        )

    def _take(self, message: bytes) -> None:
        self.receive(message, self.proxy)

    def close(self) -> None:
        self.connection.close()
