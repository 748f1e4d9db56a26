"""Answers to strangers are at most half as large again as what they sent: whoever forges a source must not find in us
somebody who shouts louder than he does.

A response is made smaller by leaving out what the caller can do without; what RFC 3261 §8.2.6 has it copy stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.sip.names import SPELLINGS

SHARE: Final = 1.5
"""Octets of an answer for each octet of the request."""

_COPIED: Final = frozenset((b"via", b"from", b"to", b"call-id", b"cseq", b"content-length"))
_NEEDED: Final = (b"retry-after", b"allow", b"contact", b"min-expires", b"unsupported", b"allow-events")
"""What says more than the status: left out in this order, the last line of each first."""
_CHALLENGES: Final = (b"www-authenticate", b"proxy-authenticate")


def room_for(octets: int) -> int:
    """Octets that the answer to a datagram of this size may have."""
    return int(octets * SHARE)


def fit(data: bytes, room: int) -> bytes:
    """The response as it is, or with as much left out as is needed to fit into `room` octets.

    May be longer still: then nothing is left that could be spared.
    """
    if len(data) <= room:
        return data
    start, *lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    rows = [(_name(line), line) for line in lines]
    kept = (*_COPIED, *_NEEDED, *_CHALLENGES)
    rows = [(n, b"Content-Length: 0" if n == b"content-length" else line) for n, line in rows if n in kept]
    for name in _NEEDED:
        while _size(start, rows) > room and any(n == name for n, _ in rows):
            del rows[_last(rows, name)]
    for name in _CHALLENGES:
        while _size(start, rows) > room and sum(n == name for n, _ in rows) > 1:
            del rows[_least_known(rows, name)]
    if _size(start, rows) > room:
        start = b" ".join(start.split(b" ", 2)[:2]) + b" "
    return b"\r\n".join((start, *(line for _, line in rows), b"", b""))


def _name(line: bytes) -> bytes:
    name = line.partition(b":")[0].strip(b" \t")
    return SPELLINGS.get(name) or name.lower()


def _size(start: bytes, rows: Sequence[tuple[bytes, bytes]]) -> int:
    return len(start) + sum(len(line) + 2 for _, line in rows) + 4


def _last(rows: Sequence[tuple[bytes, bytes]], name: bytes) -> int:
    return max(at for at, row in enumerate(rows) if row[0] == name)


def _least_known(rows: Sequence[tuple[bytes, bytes]], name: bytes) -> int:
    """The challenge that the fewest phones can answer: every phone speaks MD5."""

    def rarity(at: int) -> tuple[int, int]:
        line = rows[at][1]
        return (2 if b"=SHA-512-256" in line else 1 if b"=SHA-256" in line else 0), at

    return max((at for at, row in enumerate(rows) if row[0] == name), key=rarity)
