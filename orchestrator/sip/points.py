"""Where octets leave from and go to: points of ours, and hops.

A *point* is one address and port of ours over one transport, and how others name it. A socket bound to all addresses
of the machine has one for each address it was asked at: an answer leaves from where the question went to (RFC 3581 §4),
and Via and Record-Route name what the receiver can reach (RFC 5658).

A *hop* is a peer as seen from a point: address and port, and over a reliable transport the connection. Two networks may
have the same private addresses; what is kept about a peer is therefore kept with its point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

RELIABLE: Final = frozenset(("tcp", "tls", "ws", "wss"))
"""Transports that lose nothing: no retransmission (RFC 3261 §17, RFC 7118)."""

SECURE: Final = frozenset(("tls", "wss"))
"""Transports that `sips:` may go by (RFC 3261 §26.2.2)."""

ACCEPTED_ONLY: Final = frozenset(("ws", "wss"))
"""Transports whose connections browsers open and nobody else: who is behind one is reached over it (RFC 7118 §5)."""

DEFAULT_PORT: Final = 5060
DEFAULT_PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
"""Port of a URI that names none, by transport (RFC 3261 §19.1.2, RFC 7118 §5.4). Those of further transports have
5060."""


@dataclass(frozen=True, slots=True)
class ListenPoint:
    """One socket the runtime listens on; its index in `CoreSettings.points` is that of its points."""

    host: str
    """What we call ourselves in Via and Record-Route: an address or name others can reach."""
    port: int
    transport: str = "UDP"
    bound: str = ""
    """The address the socket is bound to, when it differs from `host`."""
    aliases: tuple[str, ...] = ()
    """Further addresses it is reached by: those of this machine, when it is bound to all of them."""
    bound_port: int = 0
    """The port the socket is bound to, when it differs from `port`."""
    everywhere: bool = False
    """It is bound to all addresses of this machine and answers from the one it was asked at."""
    advertised: bool = False
    """`host` is what we are told to call ourselves, whatever address we are asked at."""
    reliable: bool | None = None
    """Whether it loses nothing; None: as its transport is known to (`RELIABLE`)."""
    secure: bool | None = None
    """Whether `sips:` may go by it; None: as its transport is known to (`SECURE`)."""
    default_port: int = 0
    """Port of a URI that names none, 0: as its transport is known to (`DEFAULT_PORTS`)."""


_SIPS_PARAMETER = {"tls": b"", "wss": b";transport=ws"}


class Point:
    """One of ours. `index` is the transport of the runtime that carries it; `host` and `port` are what others call it,
    `local` the address it is bound to or was asked at, '' where the system chooses. Compared by identity: a point is
    made once."""

    __slots__ = (
        "index", "transport", "host", "port", "local", "local_port", "reliable", "secure", "is_v6", "network", "name",
        "sent_by", "via", "uri", "route_end", "secure_route_end",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        transport: str,
        host: str,
        port: int,
        *,
        local: str = "",
        local_port: int = 0,
        reliable: bool | None = None,
        secure: bool | None = None,
        is_v6: bool | None = None,
        network: str = "",
    ) -> None:
        transport = transport.lower()
        self.index = index
        self.transport = transport
        self.host = host
        self.port = port
        self.local = local
        self.local_port = local_port or port
        self.reliable = transport in RELIABLE if reliable is None else reliable
        self.secure = transport in SECURE if secure is None else secure
        self.is_v6 = ":" in (local or host) if is_v6 is None else is_v6
        self.network = network or local or host
        """Private addresses mean the same at all points of a network, and only there."""
        self.name = f"{transport}:{bracketed(local or host)}:{self.local_port}"
        """What a binding remembers: the same after a restart."""
        self.sent_by = f"{bracketed(host)}:{port}".encode()
        self.via = b"Via: SIP/2.0/%b %b;branch=" % (transport.upper().encode(), self.sent_by)
        """Our Via header line for what leaves from here; the branch follows."""
        parameter = b"" if transport == "udp" else b";transport=" + transport.encode()
        self.uri = b"sip:%b%b" % (self.sent_by, parameter)
        self.route_end = b"%b%b;lr>" % (self.sent_by, parameter)
        """What follows the token and its `@` in our Record-Route values."""
        self.secure_route_end = b""
        """The same in one with `sips:`, which means TLS by itself (RFC 3261 §19.1.2); b'' where that cannot be."""
        if self.secure:
            self.secure_route_end = b"%b%b;lr>" % (self.sent_by, _SIPS_PARAMETER.get(transport, parameter))

    def __repr__(self) -> str:
        return f"<Point {self.name}>"


class Hop(NamedTuple):
    """A peer: the point of ours it is reached from, its IP address and port, and the connection, 0 where there is none
    or it does not matter which.

    `name` is what a peer must prove to be when we connect to it over TLS: the host part of the URI that led to it, in
    small letters, before any look-up (RFC 5922 §4); '' where nobody asks for a proof.
    """

    point: Point
    host: str
    port: int
    connection: int = 0
    name: str = ""


def bracketed(host: str) -> str:
    """An address as it stands in a URI: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
