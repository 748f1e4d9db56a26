"""HEP version 3, the packets of Homer and sngrep: octets of one captured message.

    HEP3  length(2)  chunk…           chunk: vendor(2) = 0  type(2)  length(2), its six octets included  value

All numbers are big-endian (HEP3 network protocol specification, rev. 26). Nothing is compressed (chunk 0x10): receivers
do not agree on how.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from struct import Struct, pack

SIP, LOG = 1, 100
"""Payload types: 100 is plain text that belongs to a call."""
LARGEST = 65_507
"""Octets of a packet: what a UDP datagram over IPv4 can hold."""

UDP, TCP = 17, 6
"""IP protocols; TLS and WebSocket run over TCP."""
_INET, _INET6 = 2, 10

_HEAD = Struct(">4sH")
_CHUNK = Struct(">HHH")
_ENDS = Struct(">HHHB HHHB HHHH HHHH")
"""Chunks of fixed size that stand in every packet: family, protocol, ports."""
_MOMENT = Struct(">HHHI HHHI HHHB")
"""The same: seconds, microseconds, payload type."""


class Encoder:
    """Packets of one capture agent."""

    def __init__(self, agent: int, node: str = "", key: str = "") -> None:
        """`agent` is the capture id (chunk 0x0c), `node` our name (0x13), `key` the password (0x0e)."""
        self._agent = _chunk(0x0C, pack(">I", agent))
        if key:
            self._agent += _chunk(0x0E, key.encode())
        if node:
            self._agent += _chunk(0x13, node.encode())

    def packet(
        self,
        kind: int,
        payload: bytes,
        source: tuple[str, int],
        destination: tuple[str, int],
        protocol: int,
        time: float,
        correlation: bytes = b"",
    ) -> bytes:
        """One message, `time` in seconds since the epoch. A payload that makes the packet too large is cut.

        An address that is none, or of the other family than the peer's, is written as the unspecified one.
        """
        seconds, microseconds = divmod(round(time * 1_000_000), 1_000_000)
        ends, addresses = _between(source, destination, protocol)
        moment = _MOMENT.pack(0, 9, 10, seconds & 0xFFFFFFFF, 0, 10, 10, microseconds, 0, 11, 7, kind)
        about = _chunk(0x11, correlation) if correlation else b""
        head = b"".join((ends, moment, addresses, self._agent, about))
        payload = payload[: LARGEST - _HEAD.size - len(head) - _CHUNK.size]
        length = _HEAD.size + len(head) + _CHUNK.size + len(payload)
        return b"".join((_HEAD.pack(b"HEP3", length), head, _CHUNK.pack(0, 0x0F, _CHUNK.size + len(payload)), payload))


def _chunk(kind: int, value: bytes) -> bytes:
    return _CHUNK.pack(0, kind, _CHUNK.size + len(value)) + value


@lru_cache(10_000)
def _between(source: tuple[str, int], destination: tuple[str, int], protocol: int) -> tuple[bytes, bytes]:
    """The chunks that say who sends to whom: numbers, and addresses."""
    wide = ":" in source[0] or ":" in destination[0]
    family = _INET6 if wide else _INET
    numbers = _ENDS.pack(0, 1, 7, family, 0, 2, 7, protocol, 0, 7, 8, source[1], 0, 8, 8, destination[1])
    types = (5, 6) if wide else (3, 4)
    return numbers, _chunk(types[0], _octets(source[0], wide)) + _chunk(types[1], _octets(destination[0], wide))


def _octets(address: str, wide: bool) -> bytes:
    """An IP address in network order, without its zone."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # a name
        return bytes(16 if wide else 4)
    return found.packed if (found.version == 6) == wide else bytes(16 if wide else 4)
