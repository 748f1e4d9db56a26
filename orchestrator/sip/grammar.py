"""The lexical ground of SIP: character classes, parameters, numbers, escapes and the limits we set.

RFC 3261 §25.1 builds everything from a few classes. They stand here once, as pieces of regular expressions over bytes, and
every other module composes them. Two rules keep the parser linear on hostile input: repeats are possessive (`++`, `*+`: what
was taken is never given back, so nothing is tried twice), and no two neighbouring repeats can take the same octet.

The grammar is read with some tolerance where phones are known to be sloppy and nothing can be smuggled by it (an underscore in a
host name, UTF-8 in an unquoted display name), and to the letter where two readers could disagree about where a value ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from orchestrator.errors import MalformedMessage

MAX_MESSAGE: Final = 65_535
"""Octets of one message: what a UDP datagram can carry, and plenty for a stream."""
MAX_HEADERS: Final = 128
"""Header lines of one message; a call through 30 proxies stays far below, a bomb of empty headers does not."""
MAX_HEADER: Final = 8_192
"""Octets of one header line, folds included; the longest honest ones (Identity, Geolocation) stay under 4 KiB."""
MAX_URI: Final = 2_048
"""Octets of a Request-URI (§21.4.13 answers 414); GRUUs and push parameters need some 600."""
MAX_NUMBER: Final = 2**32 - 1
"""CSeq, Expires and Content-Length are 32-bit (§8.1.1.5, §20.19): more is answered 400, never wrapped around."""

TOKEN: Final = rb"[A-Za-z0-9\-.!%*_+`'~]"
HEX: Final = rb"[0-9A-Fa-f]"
QUOTED: Final = rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+"'
"""quoted-string of an unfolded value. A quoted pair may hold any octet but CR and LF, NUL included (RFC 4475 intmeth)."""
HOST: Final = rb"(?:[A-Za-z0-9][A-Za-z0-9\-._]*+|\[[0-9A-Fa-f:.]++\])"
"""Host name (with the underscore of container networks), IPv4 or a bracketed IPv6 reference; `:::` passes (RFC 5118 §4.10)."""
PORT: Final = rb"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|0*+[1-5][0-9]{4}|0*+[1-9][0-9]{0,3})(?![0-9])"
"""1-65535. Port 0 and 65536 must fail here: a socket would raise on them, long after the message was taken."""
PARAM_VALUE: Final = rb'[^\x00-\x20\x7f;,"<>?=\\][^\x00-\x20\x7f;,"<>?\\]*+'
PARAM: Final = rb";[ \t]*+(" + TOKEN + rb"++)[ \t]*+(?:(=)[ \t]*+(" + PARAM_VALUE + rb"|" + QUOTED + rb")[ \t]*+)?+"
PARAMS: Final = rb"(?:;[ \t]*+" + TOKEN + rb"++[ \t]*+(?:=[ \t]*+(?:" + PARAM_VALUE + rb"|" + QUOTED + rb")[ \t]*+)?+)*+"

_is_params = re.compile(PARAMS).fullmatch
_find_params = re.compile(PARAM).findall
_is_token = re.compile(TOKEN + rb"++").fullmatch
_escape = re.compile(rb"%(" + HEX + rb"{2})")
_quoted_pair = re.compile(rb"\\(.)", re.DOTALL)
_OCTETS: Final = {b"%02x" % code: bytes([code]) for code in range(256)}


def is_token(text: bytes) -> bool:
    """Whether `text` is a token of RFC 3261 §25.1 (method, header name, option tag …)."""
    return _is_token(text) is not None


def parse_number(text: bytes, what: str, maximum: int = MAX_NUMBER) -> int:
    """1*DIGIT, ASCII only, not above `maximum`. `int()` alone would take '+0', '1_0', ' 5 ' and Arabic digits.

    Raises:
        MalformedMessage: naming `what`.
    """
    if not text.isdigit() or len(text) > 20:
        raise MalformedMessage(f"Malformed {what}")
    number = int(text)
    if number > maximum:
        raise MalformedMessage(f"{what} Out of Range")
    return number


def unquote(text: bytes) -> bytes:
    """Contents of a quoted string, quoted pairs resolved; anything else as it is."""
    if text[:1] != b'"':
        return text
    inner = text[1:-1]
    return _quoted_pair.sub(rb"\1", inner) if b"\\" in inner else inner


def unescape(text: bytes) -> bytes:
    """%HH resolved exactly once; a '%' that begins no escape stays (RFC 4475 esc02)."""
    return _escape.sub(lambda match: _OCTETS[match[1].lower()], text) if b"%" in text else text


def parse_params(tail: bytes, fold: Callable[[bytes], bytes] = unquote) -> dict[bytes, bytes | None]:
    """`;name=value;flag` → {name lower-case: value, flag: None}; values pass through `fold`, by default unquoted.

    Raises:
        MalformedMessage: not a list of parameters, or a name twice (§7.3.1: two readers could pick different ones).
    """
    if not tail:
        return {}
    if _is_params(tail) is None:
        raise MalformedMessage("Malformed Parameters")
    found = _find_params(tail)
    params = {name.lower(): fold(value) if equals else None for name, equals, value in found}
    if len(params) != len(found):
        raise MalformedMessage("Duplicate Parameter")
    return params
