"""Transports: how SIP messages come to us and leave.

    TRANSPORT = TransportKind("zudp", "UDP, compressed.", Zudp, reliable=False, secure=False, default_port=5070)

    [project.entry-points."orchestrator.transports"]
    zudp = "orchestrator_zudp:TRANSPORT"

`sip: listen:` of the configuration names one with an address, `zudp:0.0.0.0:5070`; there is an instance for each. Those
that come with the server (`runtime.transports`) are kinds of the same type.

The code of a transport runs in callbacks of the event loop, which never wait: its sockets are the operating system's
own and do not block, each callback gives the loop back after some milliseconds, and raises nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from orchestrator.errors import MalformedMessage
from orchestrator.packages.groups import TRANSPORT_GROUP, Find, check_name, installed, load_named, names_of
from orchestrator.packages.service import NoSettings
from orchestrator.sip.points import Hop, Point


class Inputs(Protocol):
    """The server as a transport sees it (`runtime.reactor.Reactor`). Nothing of it waits or raises."""

    loop: Any
    """gevent's loop: `loop.io(descriptor, 1)` watches for something to read, `loop.timer(seconds)` for time."""
    clock: Callable[[], float]
    """Seconds of a monotonic clock."""

    def attach(self, transport: Transport) -> int:
        """Called in `start`, once; returns the index of the transport."""

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        """One message has come from this hop: the server does what there is to do with it."""

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        """Octets have come that are no message, or one to be refused without reading on."""

    def settle(self) -> None:
        """To be called once after the last `receive` of a callback."""

    def failed(self, destination: Hop, data: bytes) -> None:
        """This message could not be sent; not known by the time `send` returns, or known later."""

    def lost(self, hop: Hop) -> None:
        """The connection of this hop has ended, whoever has ended it."""


class Transport(Protocol):
    """What `TransportKind.open` returns: bound already, so that an address in use is known before anything runs."""

    name: str
    """`zudp:0.0.0.0:5070`, for logs."""
    address: tuple[str, int]
    """What it is bound to, with the port that the system chose where it was asked to."""
    received: int
    sent: int
    """Messages."""
    errors: Counter[str]
    """Name of the error (`ECONNREFUSED`) → how often."""

    def start(self, inputs: Any, point: Point, at: Callable[[str], Point] | None) -> None:
        """Begin to receive. `inputs` are `Inputs`, `point` stands in the hops of what is received; a transport that is
        bound to all addresses of the machine asks `at(address)` for the point of the one that a message came to."""

    def send(self, data: bytes, hop: Hop) -> None:
        """Send one message, from `hop.point` where there is a choice. Whatever hinders it goes to `Inputs.failed`."""

    def revive(self) -> bool:
        """Read on, should the loop have let go of a socket. True when it had."""

    def close(self) -> None:
        """End; called once."""


@dataclass(frozen=True, slots=True)
class TransportKind:
    """The declaration of a transport, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: in `listen:`, in the `transport` parameter of URIs and, in capitals, in
    Via (RFC 3261 §7.1)."""
    doc: str
    open: Callable[[str, int, Any], Transport]
    """Mostly a class: it is given host, port (0: the system chooses) and a `TransportContext`. Raises ListenError."""
    reliable: bool
    """It loses nothing, so nothing is repeated (RFC 3261 §17)."""
    secure: bool
    """Nobody reads along: a `sips:` URI may be reached by it (§26.2.2)."""
    default_port: int
    """Where a URI leads that names no port."""
    settings: type[BaseModel] = NoSettings

    def __post_init__(self) -> None:
        check_name(self.name, "transport")


class TransportContext(Protocol):
    """What a transport may use while it is opened."""

    settings: Any
    """An instance of `TransportKind.settings`: what `sip: transports: NAME:` says."""
    message: int
    """Octets that a message may have (`limits: message`)."""

    def number(self) -> int:
        """A connection number that no other connection has or will have: `Hop.connection`."""


def find_transport(name: str, find: Find = installed) -> TransportKind | None:
    """The installed transport of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, TRANSPORT_GROUP, name, TransportKind, "transport")


def transport_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, TRANSPORT_GROUP)
