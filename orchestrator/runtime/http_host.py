"""One web server as a client sees it: addresses that may be connected to, connections kept open, how it is doing.

urllib3 speaks HTTP; the socket below it is made here, because the address has to be looked at between the look-up of
the name and the connection (a check before that is undone by a name that changes its mind). A try is bounded as a
whole by one gevent Timeout: urllib3's own timeouts start anew with every octet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from ssl import SSLContext
from typing import Any

import gevent
from gevent import socket
from gevent.local import local
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

MAX_ANSWER = 64 * 1024
"""Octets of an answer's body; a web service that a call waits for says less, and a flow's text ends there anyway."""

IDLE_CONNECTIONS = 8
"""Connections kept open for the next exchange."""

TRIP_AFTER = 5
REST = 10.0
"""Failures in a row that open a host's circuit, and seconds until it is tried again."""

IpAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ExchangeFailed(Exception):
    """A try without a usable answer. `type` is the flow's error type; `sent`: the request may have arrived."""

    def __init__(self, type: str, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.sent = sent


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is sent: `target` is path and query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case, several of one name joined by commas (RFC 9110 §5.3)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True
    """False: the body went on after MAX_ANSWER octets."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses may be connected to.

    Never link-local ones (169.254.169.254 hands out a cloud machine's credentials), multicast and the like; loopback
    only when the URL says `localhost` or the address itself, not when a name in the DNS happens to lead there. A
    non-empty `allow` is the whole list of what is permitted.
    """

    allow: tuple[Network, ...] = ()
    public: bool = False
    """Only addresses of the public Internet, whatever the URL says."""

    def refusal(self, host: str, address: IpAddress) -> str:
        """Why `address`, which `host` led to, is not connected to; '' when it is."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if self.allow:
            return "" if any(address in network for network in self.allow) else "is not in an allowed network"
        if self.public:
            return "" if _is_public(address) else "is not an address of the Internet"
        if address.is_loopback:
            return "" if host == "localhost" or _is_address(host) else "is this machine, where no other name may lead"
        if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
            return "is not the address of a web service"
        return ""


class Circuit:
    """Failures of one host in a row. Open, it refuses; every `REST` seconds one exchange may try."""

    __slots__ = ("failures", "_try_at")

    def __init__(self) -> None:
        self.failures = 0
        self._try_at = 0.0

    @property
    def open(self) -> bool:
        return self.failures >= TRIP_AFTER

    def refuses(self, now: float) -> bool:
        if not self.open:
            return False
        if now < self._try_at:
            return True
        self._try_at = now + REST  # this exchange decides; the others wait for what it finds
        return False

    def failed(self, now: float) -> None:
        self.failures += 1
        self._try_at = now + REST

    def succeeded(self) -> None:
        self.failures = 0


class HttpHost:
    """One scheme, host and port, with its connections and its circuit."""

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        guard: Guard,
        *,
        context: SSLContext | None = None,
        idle: int = IDLE_CONNECTIONS,
    ) -> None:
        """`context`, for https: whom TLS believes, the system's authorities unless given; `idle`: connections kept."""
        self.name = f"{host}:{port}"
        self.circuit = Circuit()
        self._phase = _Phase()
        kind = _SecurePool if scheme == "https" else _Pool
        settings: dict[str, Any] = {"ssl_context": context} if context is not None else {}
        self._pool: HTTPConnectionPool = kind(
            host, port, maxsize=idle, block=False, guard=guard, phase=self._phase, **settings
        )

    def exchange(self, request: HttpRequest, seconds: float) -> Answer:
        """Send a request and read its answer within `seconds`. Raises ExchangeFailed."""
        phase = self._phase
        phase.connected = False
        timeout = gevent.Timeout(seconds)
        timeout.start()
        try:
            try:
                return self._exchange(request)
            except _StaleConnection:
                return self._exchange(request)
        except gevent.Timeout as fired:
            if fired is not timeout:
                raise
            if phase.connected:
                message = f"no answer from {self.name} within {seconds:g}s"
                raise ExchangeFailed("http.timeout", message, sent=True) from None
            message = f"no connection to {self.name} within {seconds:g}s"
            raise ExchangeFailed("http.connect", message, sent=False) from None
        except (HTTPError, OSError, ValueError) as error:
            raise ExchangeFailed("http.connect", f"{self.name}: {_reason(error)}", sent=phase.connected) from None
        finally:
            timeout.close()

    def close(self) -> None:
        self._pool.close()

    def _exchange(self, request: HttpRequest) -> Answer:
        octets: Any = {name: value.encode() for name, value in request.headers.items()}  # text would go as Latin-1
        response = self._pool.urlopen(
            request.method,
            request.target,
            body=request.body,
            headers=octets,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            return self._read(response)
        except BaseException:
            response.close()  # what is left of the answer must not be taken for the next one
            raise

    def _read(self, response: BaseHTTPResponse) -> Answer:
        body = b""
        while len(body) <= MAX_ANSWER and (octets := response.read(MAX_ANSWER + 1 - len(body))):
            body += octets  # the last, empty read is where urllib3 notices a body that ends too early
        whole = len(body) <= MAX_ANSWER
        if whole:
            response.release_conn()
        else:
            response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, body[:MAX_ANSWER], whole)


# --- below urllib3 ----------------------------------------------------------------------------------------------------


class _StaleConnection(Exception):
    """A connection kept open turned out to be closed before an octet of the answer came: the request was not served."""


class _Phase(local):
    """How far the exchange of this greenlet has come; one host serves several workers."""

    connected = False


class _Response(HTTPResponse):
    """An answer with one length that is one (RFC 9112 §6.3), and chunks that have sizes (§7.1): the library takes `-1`
    for all that may come."""

    def begin(self) -> None:
        super().begin()
        lengths = {length.strip() for line in self.msg.get_all("content-length", ()) for length in line.split(",")}
        if len(lengths) > 1 or not all(
            length.isascii() and length.isdigit() and len(length) < 19 for length in lengths
        ):
            raise HTTPException("the length is none")

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise IncompleteRead(b"")
        return size


class _Connection(HTTPConnection):
    """A connection that looks at the address before it connects, and knows whether it has been used."""

    response_class = _Response

    def __init__(self, *args: Any, guard: Guard, phase: _Phase, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._guard = guard
        self._phase = phase
        self._exchanges = 0

    def connect(self) -> None:
        self._exchanges = 0
        super().connect()
        self._phase.connected = True

    def request(self, *args: Any, **settings: Any) -> None:
        self._phase.connected = self.sock is not None
        super().request(*args, **settings)

    def getresponse(self) -> Any:
        self._exchanges += 1
        try:
            return super().getresponse()
        except (RemoteDisconnected, ConnectionResetError):
            if self._exchanges > 1:
                raise _StaleConnection from None
            raise

    def _new_conn(self) -> Any:
        """urllib3's place to make the socket; its own SOCKS support does it here, too."""
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameResolutionError(host, self, socket.gaierror(str(error))) from None
        failure = "has no address"
        for family, _, _, _, name in found:
            refusal = self._guard.refusal(host, ip_address(name[0]))
            if refusal:
                failure = f"{name[0]} {refusal}"
                continue
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(name)
            except OSError as error:
                sock.close()
                failure = (error.strerror or str(error)).lower()
            except gevent.Timeout:
                sock.close()
                raise
            else:
                return sock
        raise NewConnectionError(self, failure)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same under TLS: HTTPSConnection wraps the socket that `_new_conn` gives it."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_NAT64 = IPv6Network("64:ff9b::/96")
"""Behind it is the IPv4 address of its last 32 bits (RFC 6052 §2.1)."""


_NOT_PUBLIC = (IPv6Network("::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
"""IPv4 addresses as they were written into IPv6 once (RFC 4291 §2.5.5.1), NAT64 within a network (RFC 8215), and
networks of a site (RFC 3879): `ipaddress` takes them for the Internet's."""


def _is_public(address: IpAddress) -> bool:
    """Whether it leads to the Internet, also where an IPv4 address is written into it."""
    if isinstance(address, IPv6Address):
        inner = address.sixtofour or (IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return inner.is_global
        if any(address in network for network in _NOT_PUBLIC):
            return False
    return address.is_global and not address.is_multicast


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without the URL."""
    if isinstance(error, NameResolutionError):
        return "the name cannot be looked up"
    if isinstance(error, NewConnectionError):
        return str(error).rpartition(": ")[2]
    if isinstance(error, SSLError):
        return f"TLS failed: {str(error)[:200]}"
    if isinstance(error, ValueError):
        return "the request cannot be written: " + str(error)[:80]
    return "the connection broke before the answer was complete"
