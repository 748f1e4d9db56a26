"""What lies between the octets of a socket and SIP messages: a cipher, where there is one, and a framing. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import MalformedMessage


class Layer(Protocol):
    """What both have in common. Whatever comes, a layer never raises: it comes to an end."""

    @property
    def open(self) -> bool:
        """Its handshake is done: messages may be sent."""

    @property
    def ended(self) -> bool:
        """Nothing more is to be read: the connection is closed when what `take` gives has been sent."""

    @property
    def why(self) -> str:
        """What ended it, in a word or two; '' when the peer closed it as it should."""

    def take(self) -> bytes:
        """Octets for the peer that the layer sends by itself, since the last time: handshake, keep-alive, farewell."""

    def send(self, message: bytes) -> bytes:
        """The octets that carry this; asked only while `open`."""

    def close(self) -> None:
        """End it from our side; `take` gives the farewell."""


class Cipher(Layer, Protocol):
    """Octets to octets."""

    def receive(self, octets: bytes) -> bytes:
        """The plain octets in what the peer has sent."""

    def admits(self, name: str) -> str:
        """Why the peer is not the one with this name, once it is open; '' when it is (RFC 5922)."""

    @property
    def proved(self) -> bool:
        """The peer has shown who it is: a certificate that we trust."""


class Framing(Layer, Protocol):
    """Octets to messages."""

    @property
    def malformed(self) -> tuple[bytes, MalformedMessage] | None:
        """What it ended with, when that may be a request that is owed an answer."""

    @property
    def unfinished(self) -> bool:
        """A message has begun and has not come to its end."""

    @property
    def read_size(self) -> int:
        """Octets to read at a time: what they may cost is bounded by it."""

    @property
    def ping_every(self) -> float:
        """Seconds of silence after which the peer is to be asked for a sign of life; 0 where it cannot be."""

    def ping(self) -> bytes:
        """The octets that ask for one."""

    @property
    def held(self) -> int:
        """Octets kept of it."""

    def give_up(self) -> None:
        """The rest of the message that has begun does not come."""

    def receive(self, octets: bytes) -> list[bytes]:
        """The messages that are whole with what the peer has sent."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What connections of one kind are made of."""

    framing: Callable[[bool], Framing]
    """Given whether we have connected; makes one for a connection."""
    cipher: Callable[[str | None], Cipher] | None = None
    """Given the name we have connected to, None where the peer has connected to us."""
    connects: bool = True
    """We may open connections, too."""
