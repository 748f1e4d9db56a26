"""Header values: comma lists, Via, addresses (RFC 3261 §7.3.1, §20).

A header that may be repeated may also put several values in one line with commas between them, and a comma inside quotes or angle
brackets is none. So lists are cut by one scanner that knows quotes and brackets, and each piece goes to the parser of its header.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import HOST, PARAMS, PORT, QUOTED, TOKEN, parse_params
from orchestrator.sip.uri import NameAddr, parse_name_addr

__all__ = ["NameAddr", "Via", "parse_contacts", "parse_name_addr", "parse_name_addrs", "parse_via", "split_commas", "split_first"]

_piece = re.compile(rb'(?:[^",<]++|' + QUOTED + rb"|<[^>]*+>)*+", re.DOTALL)
_via = re.compile(
    rb"[ \t]*+("
    + TOKEN
    + rb"++[ \t]*+/[ \t]*+"
    + TOKEN
    + rb"++)[ \t]*+/[ \t]*+("
    + TOKEN
    + rb"++)[ \t]++("
    + HOST
    + rb")[ \t]*+(?::[ \t]*+("
    + PORT
    + rb")[ \t]*+)?+("
    + PARAMS
    + rb")(?:,|$)"
).match
_branch = re.compile(rb";[ \t]*+[Bb][Rr][Aa][Nn][Cc][Hh][ \t]*+=[ \t]*+(" + TOKEN + rb"++)").search

MAGIC_COOKIE: Final = b"z9hG4bK"
"""Begin of a branch that is unique by itself (§8.1.1.7); others are matched the RFC 2543 way (§17.2.3)."""


def _cut(value: bytes, start: int) -> int:
    """End of the list value that begins at `start`: position of its comma, or the length."""
    match = _piece.match(value, start)
    end = match.end() if match is not None else start
    if end < len(value) and value[end] != 0x2C:
        raise MalformedMessage("Unbalanced Quotes or Brackets")
    return end


def split_commas(value: bytes) -> list[bytes]:
    """Values of a comma list, stripped. Commas in quoted strings and <> do not count; empty elements are refused.

    Raises:
        MalformedMessage: an unbalanced quote or bracket, or nothing between two commas.
    """
    if b"," not in value:
        return [value]
    pieces: list[bytes] = []
    start = 0
    while True:
        end = _cut(value, start)
        piece = value[start:end].strip()
        if not piece:
            raise MalformedMessage("Empty List Element")
        pieces.append(piece)
        if end == len(value):
            return pieces
        start = end + 1


def split_first(value: bytes) -> tuple[bytes, bytes]:
    """First value of a comma list and the rest behind its comma (empty when there is none)."""
    if b"," not in value:
        return value, b""
    end = _cut(value, 0)
    return value[:end].strip(), value[end + 1 :].strip()


class Via:
    """One Via value (§20.42). `transport` is upper-case; `branch` None where absent (RFC 2543); `params` names lower-case."""

    __slots__ = ("protocol", "transport", "host", "port", "branch", "_tail", "_params")

    def __init__(self, protocol: bytes, transport: bytes, host: bytes, port: int | None, tail: bytes) -> None:
        self.protocol = protocol
        self.transport = transport
        self.host = host
        self.port = port
        self._tail = tail
        self._params: dict[bytes, bytes | None] | None = None
        found = _branch(tail)
        self.branch: bytes | None = found[1] if found is not None else None

    @property
    def params(self) -> dict[bytes, bytes | None]:
        params = self._params
        if params is None:
            params = self._params = parse_params(self._tail)
        return params

    @property
    def received(self) -> bytes | None:
        """Source address noted by the receiver (§18.2.1), without the brackets some put around IPv6 (RFC 5118 §4.5)."""
        if b"received" not in self._tail.lower():
            return None
        value = self.params.get(b"received")
        return value.strip(b"[]") if value else None

    @property
    def rport(self) -> int | None:
        """Source port noted by the receiver (RFC 3581); None when absent, empty or no port."""
        value = self.params.get(b"rport") if b"rport" in self._tail.lower() else None
        return int(value) if value and value.isdigit() and len(value) <= 5 and 0 < int(value) < 65536 else None

    @property
    def wants_rport(self) -> bool:
        """Whether the sender asked for its source port (RFC 3581 §3), answered or not."""
        return b"rport" in self._tail.lower() and b"rport" in self.params

    def __repr__(self) -> str:
        return f"<Via {self.protocol!r}/{self.transport!r} {self.host!r}:{self.port} {self._tail!r}>"


def parse_via(value: bytes) -> Via:
    """The first Via value of an unfolded line value; what follows its comma is left alone.

    Raises:
        MalformedMessage: syntax, port, or a parameter twice.
    """
    match = _via(value)
    if match is None:
        raise MalformedMessage("Malformed Via")
    protocol, transport, host, port, tail = match.groups()
    via = Via(protocol, transport.upper(), host, int(port) if port is not None else None, tail)
    if tail.count(b";") > 1:
        via._params = parse_params(tail)  # only here can a name stand twice
    return via


def parse_name_addrs(lines: list[bytes]) -> list[NameAddr]:
    """All addresses of the given line values, comma lists split."""
    return [parse_name_addr(piece) for line in lines for piece in split_commas(line)]


def parse_contacts(lines: list[bytes]) -> list[NameAddr]:
    """Contacts; `*` alone gives one address with `star` set (§10.2.2).

    Raises:
        MalformedMessage: also for `*` beside other contacts.
    """
    if lines == [b"*"]:
        return [NameAddr(b"", None, b"")]
    return parse_name_addrs(lines)
