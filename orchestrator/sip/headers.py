"""Header values: comma lists, Via, addresses (RFC 3261 §7.3.1, §20).

A header that may be repeated may also put several values in one line with commas between them, and a comma inside
quotes or angle brackets is none. So lists are cut by one scanner that knows quotes and brackets, and each piece goes
to the parser of its header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import (
    BLANKS,
    COMMA,
    HOST,
    PARAMS,
    PORT,
    QUOTE,
    QUOTED,
    TOKEN,
    drop_params,
    is_token,
    parse_params,
)
from orchestrator.sip.uri import NameAddr, parse_name_addr

__all__ = [
    "MAGIC_COOKIE",
    "NameAddr",
    "Via",
    "parse_contacts",
    "parse_name_addr",
    "parse_name_addrs",
    "parse_via",
    "split_commas",
    "split_first",
]

_piece = re.compile(rb'(?:[^",<]++|' + QUOTED + rb"|<[^>]*+>)*+").match


def _end_of_piece(value: bytes, start: int) -> int:
    """Position of the comma that ends the list element at `start`, or the length."""
    match = _piece(value, start)
    end = match.end() if match is not None else start
    if end < len(value) and value[end] != COMMA:
        raise MalformedMessage("Unbalanced Quotes or Brackets")
    return end


def split_commas(value: bytes) -> list[bytes]:
    """Elements of a comma list, stripped. Commas in quoted strings and <> do not count.

    Raises:
        MalformedMessage: an unbalanced quote or bracket, or nothing between two commas.
    """
    if COMMA not in value:
        return [value]
    pieces: list[bytes] = []
    start = 0
    while True:
        end = _end_of_piece(value, start)
        piece = value[start:end].strip(BLANKS)
        if not piece:
            raise MalformedMessage("Empty List Element")
        pieces.append(piece)
        if end == len(value):
            return pieces
        start = end + 1


def split_first(value: bytes) -> tuple[bytes, bytes]:
    """First element of a comma list and the rest behind its comma, stripped; the rest is empty when there is none.

    Raises:
        MalformedMessage: an unbalanced quote or bracket in the first element.
    """
    if COMMA not in value:
        return value, b""
    end = _end_of_piece(value, 0)
    return value[:end].strip(BLANKS), value[end + 1 :].strip(BLANKS)


# --- Via ------------------------------------------------------------------------------------------------------------

MAGIC_COOKIE: Final = b"z9hG4bK"
"""Begin of a branch that is unique by itself (§8.1.1.7); others are matched the RFC 2543 way (§17.2.3)."""
_SOURCE_PARAMS: Final = (b"received", b"rport")
_ASKS_FIRST: Final = b";rport;branch="
_via = re.compile(
    TOKEN + rb"++[ \t]*+/[ \t]*+" + TOKEN + rb"++[ \t]*+/[ \t]*+(" + TOKEN + rb"++)[ \t]++"
    rb"(" + HOST + rb")[ \t]*+(?::[ \t]*+(" + PORT + rb")[ \t]*+)?+(" + PARAMS + rb")(?:,|\Z)"
).match  # fmt: skip
_bare_rport = re.compile(rb"(?:;branch=" + TOKEN + rb"++)?+;rport(?:;branch=" + TOKEN + rb"++)?+").fullmatch
_has_rport = re.compile(rb";[ \t]*+rport[ \t]*+(?:[;=]|\Z)", re.IGNORECASE).search
_is_port = re.compile(PORT).fullmatch


class Via:
    """One Via value (§20.42). `transport` is upper-case, `branch` None where absent (RFC 2543)."""

    __slots__ = ("transport", "host", "port", "branch", "tail", "_params")

    def __init__(self, transport: bytes, host: bytes, port: int | None, branch: bytes | None, tail: bytes) -> None:
        """`tail` is the raw list of parameters, known to be well-formed."""
        self.transport = transport
        self.host = host
        self.port = port
        self.branch = branch
        self.tail = tail
        self._params: dict[bytes, bytes | None] | None = None

    @property
    def params(self) -> dict[bytes, bytes | None]:
        """Parameters: name in lower case → value without quotes, None for a flag."""
        params = self._params
        if params is None:
            params = self._params = parse_params(self.tail)
        return params

    @property
    def has_cookie(self) -> bool:
        """Whether the branch alone names the transaction. A bare cookie does not (RFC 4475 badbranch)."""
        branch = self.branch
        return branch is not None and len(branch) > len(MAGIC_COOKIE) and branch.startswith(MAGIC_COOKIE)

    @property
    def received(self) -> bytes | None:
        """Source address noted by the receiver (§18.2.1), without the brackets some put around IPv6 (RFC 5118 §4.5)."""
        value = self.params.get(b"received")
        return value.strip(b"[]") if value else None

    @property
    def rport(self) -> int | None:
        """Source port noted by the receiver (RFC 3581); None when absent, empty or no port."""
        value = self.params.get(b"rport")
        return int(value) if value and _is_port(value) else None

    @property
    def wants_rport(self) -> bool:
        """Whether the sender asked for its source port (RFC 3581 §3), answered or not."""
        tail = self.tail
        if tail.lower().find(b"rport") < 0:
            return False
        return b"rport" in self.params if QUOTE in tail else _has_rport(tail) is not None

    def stamped(self, host: bytes, port: int) -> Via:
        """This Via with the source it came from: `received` (§18.2.1) and, when asked for, `rport` (RFC 3581 §4).

        `host` is an IP address in text, IPv6 without brackets. What the sender itself wrote into the two is replaced.
        Returns self when there is nothing to note.
        """
        tail = self.tail
        if tail.startswith(_ASKS_FIRST) and tail.find(b";", len(_ASKS_FIRST)) < 0:  # as most write it
            tail = b";rport=%d;received=%s%s" % (port, host, tail[len(b";rport") :])
            return Via(self.transport, self.host, self.port, self.branch, tail)
        if tail.find(b"rport") >= 0 and _bare_rport(tail) is not None:
            tail = tail.replace(b";rport", b";rport=%d;received=%s" % (port, host), 1)
            return Via(self.transport, self.host, self.port, self.branch, tail)
        rport = b";rport=%d" % port if self.wants_rport else b""
        if not rport and self.host.strip(b"[]") == host and tail.lower().find(b"received") < 0:
            return self
        tail = b"%s%s;received=%s" % (drop_params(tail, _SOURCE_PARAMS).rstrip(BLANKS), rport, host)
        return Via(self.transport, self.host, self.port, self.branch, tail)

    def __repr__(self) -> str:
        return f"<Via {self.transport!r} {self.host!r}:{self.port} {self.tail!r}>"


def parse_via(value: bytes) -> Via:
    """The first Via of a line's unfolded, stripped value; what follows its comma is left alone.

    Raises:
        MalformedMessage: syntax, port, or a parameter twice.
    """
    match = _via(value)
    if match is None:
        raise MalformedMessage("Malformed Via")
    transport, host, port, tail = match.groups()
    params = parse_params(tail)
    branch = params.get(b"branch")
    if branch is not None and not is_token(branch):
        raise MalformedMessage("Malformed Branch")
    via = Via(transport.upper(), host, int(port) if port is not None else None, branch, tail)
    via._params = params
    return via


# --- addresses ------------------------------------------------------------------------------------------------------


def parse_name_addrs(values: Iterable[bytes]) -> list[NameAddr]:
    """All addresses of the given line values, comma lists split.

    Raises:
        MalformedMessage: any of them is malformed.
    """
    return [parse_name_addr(piece) for value in values for piece in split_commas(value)]


def parse_contacts(values: list[bytes]) -> list[NameAddr]:
    """Contacts of the given line values; `*` alone gives one address with `star` set (§10.2.2).

    Raises:
        MalformedMessage: any is malformed, `*` beside other contacts included.
    """
    return [NameAddr(b"", None, None, {})] if values == [b"*"] else parse_name_addrs(values)
