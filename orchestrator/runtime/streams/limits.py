"""What connections may take: their number, their time, their memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Of all connections of the server; times are in seconds, sizes in octets."""

    connections: int = 15_000
    """In all. Ours to others have a tenth of it on top."""
    connections_per_source: int = 1_000
    """From one address (IPv6: one /64) that is not exempt."""
    connect: float = 4.0
    """Until a connection of ours stands: less than a phone takes to be called elsewhere."""
    handshake: float = 10.0
    """Until a new connection has brought its first message, handshakes of TLS and WebSocket included."""
    message: float = 10.0
    """From the first to the last octet of a message."""
    idle: float = 3900.0
    """Without a word: longer than phones take until they register again."""
    write: float = 20.0
    """Until the peer has taken a message."""
    buffered: int = 64_000_000
    """Of unfinished messages and of what waits to be written, of all connections: beyond it a connection that has more
    than `FEW` is ended."""
    write_queue: int = 1_000_000
    """That the peer has not taken yet: messages, pongs."""


FEW = 4_096
"""Octets that a connection may keep in any case: an ordinary message."""
LINGER = 2.0
"""Seconds that a peer has to take our farewell and to say its own."""
ANSWER_TIME = 32.0
"""Seconds since a peer's last word for which it may still be answered when it sends nothing more: as long as its
transactions last."""
