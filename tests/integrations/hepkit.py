"""A HEP3 receiver's side: packets read as the specification says, by nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from struct import unpack_from


def chunks(packet: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each chunk."""
    assert packet[:4] == b"HEP3" and unpack_from(">H", packet, 4) == (len(packet),)
    at = 6
    while at < len(packet):
        vendor, kind, length = unpack_from(">HHH", packet, at)
        assert vendor == 0 and length >= 6
        yield kind, packet[at + 6 : at + length]
        at += length
    assert at == len(packet)


def packets(stream: bytes) -> Iterator[bytes]:
    """Packets that follow each other; an incomplete one at the end is left out."""
    at = 0
    while len(stream) >= at + 6:
        assert stream[at : at + 4] == b"HEP3", "a packet begins here"
        length = unpack_from(">H", stream, at + 4)[0]
        if at + length > len(stream):
            return
        yield stream[at : at + length]
        at += length


@dataclass
class Seen:
    """One packet."""

    kind: int
    source: tuple[str, int]
    destination: tuple[str, int]
    protocol: int
    time: float
    correlation: str
    text: str


def seen(packet: bytes) -> Seen:
    found = dict(chunks(packet))
    ends = (found[3], found[4]) if 3 in found else (found[5], found[6])
    source, destination = (str(ip_address(octets)) for octets in ends)
    return Seen(
        found[0x0B][0],
        (source, int.from_bytes(found[7])),
        (destination, int.from_bytes(found[8])),
        found[2][0],
        int.from_bytes(found[9]) + int.from_bytes(found[10]) / 1e6,
        found.get(0x11, b"").decode(),
        found[0x0F].decode(),
    )
