"""SIP over WebSocket (RFC 6455, RFC 7118), the server's side: octets in, SIP messages and octets out. No I/O, no clock.

A browser asks with HTTP to speak WebSocket and names the subprotocol `sip`; from then on each WebSocket message is one
SIP message (RFC 7118 §5), text or binary, in one frame or in several. h11 reads the request, wsproto the frames.

Whatever comes, the layer gives messages or comes to a clean end: a refusal in HTTP before the handshake is done, a
Close frame with a code after it. Then `ended` is true, and who holds the connection calls `close`, sends what `take`
gives and closes it. A message that takes for ever is not our business: `unfinished` says that one has begun, the
connection has a clock. `why` is one of few words, since it becomes the label of a counter: `http 403`, `websocket
1009`, and `closed` for a phone that has said good-bye.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import h11
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from orchestrator.errors import MalformedMessage
from orchestrator.sip.framing import PING, PONG

SUBPROTOCOL: Final = "sip"
ANY_ORIGIN: Final = "*"

MAX_HEAD: Final = 16_384
"""Octets of the HTTP request: cookies of the page's site come with it."""

MOST_IDLE: Final = 200
"""Frames that bring no message to its end, in one read: honest phones send one in half a minute."""

_VERSION: Final = b"13"
_content_length = re.compile(
    rb"\r\n(?:Content-Length|l)[ \t]*+:[ \t]*+([0-9]{1,9})[ \t]*+(?=\r\n|\Z)", re.IGNORECASE
).search

_HINT: Final = "This port speaks SIP over WebSocket (RFC 7118), subprotocol sip."


@dataclass(frozen=True, slots=True)
class WebSocketRules:
    """Who may connect, and how much one message may be."""

    path: str = ""
    """The path of the address, as in `wss://host/path`; '' for any."""
    origins: frozenset[str] = frozenset()
    """Whose pages may connect besides those of the host they connect to: `https://phone.example.com`, in small
    letters; `*` for all. A program that is no browser names none and may connect."""
    message: int = 65_535
    """Octets of a message, headers and body."""
    ping: float = 0.0
    """Seconds of silence after which a phone gets a Ping; 0 for none."""

    def allows(self, origin: str, host: str) -> bool:
        """May a page of this origin connect to us under this name (the Host header)? RFC 6455 §10.2."""
        origin = origin.lower()
        if origin in self.origins or ANY_ORIGIN in self.origins:
            return True
        try:
            own, asked = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return own is not None and own == asked


class _Refused(Exception):
    """The answer to a request that does not become a WebSocket."""

    def __init__(self, status: int, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers


class WebSocketServer:
    """The framing of one connection that a phone has opened (`layers.Framing`)."""

    __slots__ = (
        "ended", "malformed", "open", "unfinished", "why",
        "_binary", "_farewell", "_frames", "_http", "_in_message", "_out", "_partial", "_rules", "_said",
    )  # fmt: skip

    def __init__(self, rules: WebSocketRules) -> None:
        self.open = False
        self.ended = False
        self.why = ""
        self.malformed: tuple[bytes, MalformedMessage] | None = None
        self.unfinished = False
        self._rules = rules
        self._http: h11.Connection | None = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._frames = Connection(ConnectionType.SERVER)
        self._out = bytearray()
        self._partial = bytearray()
        self._in_message = False
        self._binary = False
        """The last message of the phone was."""
        self._farewell = (int(CloseReason.GOING_AWAY), "")
        """Code and reason of the Close frame that `close` sends."""
        self._said = False
        """It has been sent."""

    @property
    def read_size(self) -> int:
        """Little: a frame may have two octets, and each costs some ten microseconds."""
        return 4_096

    @property
    def ping_every(self) -> float:
        """Seconds of silence after which `ping` is due."""
        return self._rules.ping

    def take(self) -> bytes:
        """Octets for the peer since the last time."""
        octets = bytes(self._out)
        self._out.clear()
        return octets

    def receive(self, octets: bytes) -> list[bytes]:
        """Octets of the peer, however they were cut. Returns the SIP messages that are whole now."""
        if self.ended or not octets:
            return []
        if self._http is not None:
            octets = self._shake_hands(self._http, octets)
        return self._read_frames(octets) if octets else []

    # --- the handshake ------------------------------------------------------------------------------------------------

    def _shake_hands(self, http: h11.Connection, octets: bytes) -> bytes:
        """What comes behind the request: nothing from a browser, which waits for the answer."""
        try:
            http.receive_data(octets)
            request = http.next_event()
            if not isinstance(request, h11.Request):
                return b""
            key = _judge(request, self._rules)
        except h11.RemoteProtocolError as error:
            self._refuse(_Refused(error.error_status_hint, "this is no request of HTTP"))
            return b""
        except _Refused as refusal:
            self._refuse(refusal)
            return b""
        self._http = None
        self.open = True
        self._out += _head(
            HTTPStatus.SWITCHING_PROTOCOLS,
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(key).decode()),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
        )
        return http.trailing_data[0]

    def _refuse(self, refusal: _Refused) -> None:
        self.ended = True
        self.why = f"http {refusal.status}"
        body = f"{_HINT}\n{refusal}\n".encode()
        self._out += _head(
            HTTPStatus(refusal.status),
            *refusal.headers,
            ("Connection", "close"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        )
        self._out += body

    # --- frames -------------------------------------------------------------------------------------------------------

    def _read_frames(self, octets: bytes) -> list[bytes]:
        messages: list[bytes] = []
        self._frames.receive_data(octets)
        self.unfinished = True  # less than a frame; how much less, nobody says
        idle = 0
        for event in self._frames.events():
            self.unfinished = self._in_message
            if not getattr(event, "message_finished", False):
                idle += 1
                if idle > MOST_IDLE:
                    self._end(CloseReason.POLICY_VIOLATION, "too many frames without a message")
                    break
            if isinstance(event, TextMessage | BytesMessage):
                self._binary = isinstance(event, BytesMessage)
                self._partial += event.data.encode() if isinstance(event, TextMessage) else event.data
                if len(self._partial) > self._rules.message:
                    self._end(CloseReason.MESSAGE_TOO_BIG, f"a message has at most {self._rules.message} octets")
                    break
                self.unfinished = self._in_message = not event.message_finished
                if event.message_finished:
                    self._take_message(messages)
                    if self.ended:
                        break
            elif isinstance(event, Ping):
                self._out += self._frames.send(event.response())
            elif isinstance(event, CloseConnection):
                if self._frames.state is ConnectionState.REMOTE_CLOSING:
                    self._out += self._frames.send(event.response())
                    self.ended = self._said = True
                    self.why = "closed"
                else:  # what is no frame, or no UTF-8 where text was promised
                    self._end(event.code, event.reason or "")
                break
        if self.ended:
            self.unfinished = False
        return messages

    def _take_message(self, messages: list[bytes]) -> None:
        message = bytes(self._partial)
        self._partial.clear()
        found = message.lstrip(b"\r\n")  # RFC 3261 §7.5
        if found:
            if _is_longer(found):
                self.malformed = found, MalformedMessage("Content-Length Is Not That of the Body")
                self._end(CloseReason.POLICY_VIOLATION, "Content-Length is not that of the body")
            else:
                messages.append(found)
        elif message == PING:
            self._out += self.send(PONG)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> bytes:
        """The octets that carry a SIP message, of the kind the phone sends itself (RFC 7118 §5: either may be sent);
        what is no UTF-8 is always binary. Nothing before the handshake and after a Close frame."""
        if not self.open or self._said:
            return b""
        if not self._binary:
            try:
                return self._frames.send(TextMessage(message.decode()))
            except UnicodeDecodeError:
                pass
        return self._frames.send(BytesMessage(message))

    @property
    def held(self) -> int:
        """Octets kept of a message that has begun."""
        return len(self._partial)

    def give_up(self) -> None:
        """The rest of the message that has begun does not come: there is nobody to answer within a frame."""

    def ping(self) -> bytes:
        """A Ping frame: it keeps what lies between us from forgetting the connection. The peer's Pong is a sign of
        life (RFC 7118 §6)."""
        return self._frames.send(Ping()) if self.open and not self.ended else b""

    def close(self) -> None:
        """Say what is said at the end, if it has not been said; a phone whose handshake is not done hears nothing."""
        self.ended = True
        if self.open and not self._said:
            self._said = True
            self._out += self._frames.send(CloseConnection(*self._farewell))

    def _end(self, code: int, reason: str) -> None:
        self.ended = True
        self.why = f"websocket {int(code)}"
        self._farewell = code, reason
        self._partial.clear()


def _is_longer(message: bytes) -> bool:
    """Is this a request with more than its Content-Length announces? Too little is found by the parser, and what is
    wrong with a response is not its receiver's business to refuse."""
    head, _, body = message.partition(b"\r\n\r\n")
    if not body or head.startswith(b"SIP/"):
        return False
    found = _content_length(head)
    return found is not None and int(found[1]) < len(body)


def _judge(request: h11.Request, rules: WebSocketRules) -> bytes:
    """The key of a request that may become a WebSocket (RFC 6455 §4.2.1). Raises _Refused: it may not."""
    if request.method != b"GET":
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket begins with a GET.", ("Allow", "GET"))
    path = request.target.partition(b"?")[0]
    if rules.path and path != rules.path.encode():
        raise _Refused(HTTPStatus.NOT_FOUND, "There is nothing at this path.")
    if b"websocket" not in _items(request, b"upgrade") or b"upgrade" not in _items(request, b"connection"):
        raise _Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "Connect with a phone that speaks it, for example JsSIP or SIP.js.",
            ("Upgrade", "websocket"),
        )
    if _values(request, b"sec-websocket-version") != [_VERSION]:
        raise _Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "Version 13 of the WebSocket protocol is spoken here.",
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", _VERSION.decode()),
        )
    if _values(request, b"transfer-encoding") or any(_number(v) for v in _values(request, b"content-length")):
        raise _Refused(HTTPStatus.BAD_REQUEST, "The request of a WebSocket has no body.")
    keys, hosts = _values(request, b"sec-websocket-key"), _values(request, b"host")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _Refused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key: one of 16 octets in Base64 is needed.")
    if len(hosts) != 1:
        raise _Refused(HTTPStatus.BAD_REQUEST, "Host: one is needed.")
    origins = _values(request, b"origin")
    if len(origins) > 1 or not all(rules.allows(_text(origin), _text(hosts[0])) for origin in origins):
        raise _Refused(HTTPStatus.FORBIDDEN, "Pages of this origin may not connect: see sip.websocket.origins.")
    if SUBPROTOCOL.encode() not in _items(request, b"sec-websocket-protocol"):
        raise _Refused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Protocol: ask for the subprotocol sip.")
    return keys[0]


def _values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for found, value in request.headers if found == name]


def _items(request: h11.Request, name: bytes) -> set[bytes]:
    """The items of a list header, in small letters."""
    return {item.strip().lower() for value in _values(request, name) for item in value.split(b",")}


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _number(value: bytes) -> bool:
    """Is it anything but zero?"""
    return value.strip(b"0") != b""


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def _head(status: HTTPStatus, *headers: tuple[str, str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
