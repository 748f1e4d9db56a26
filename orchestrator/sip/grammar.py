"""The lexical ground of SIP: character classes, parameters, numbers, escapes, and the limits we set.

RFC 3261 §25.1 builds everything from a few classes. They stand here once, as pieces of regular expressions over
bytes, and every other module composes them. Two rules keep the parser linear on hostile input: repeats are possessive
(`++`, `*+`: what was taken is never given back, so nothing is tried twice), and no two neighbouring repeats can take
the same octet.

The grammar is read with tolerance where phones are known to be sloppy and nothing can be smuggled by it (an underscore
in a host name, UTF-8 in an unquoted display name), and to the letter where two readers could disagree about where a
value ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from orchestrator.errors import MalformedMessage

MAX_MESSAGE: Final = 65_535
"""Octets of one message: what a UDP datagram can carry, and plenty for a stream."""
MAX_HEADERS: Final = 128
"""Lines of a head; a call through 30 proxies stays below it, a bomb of empty headers does not."""
MAX_HEADER: Final = 8_192
"""Octets of one header, its folds included; the longest honest ones (Identity, Geolocation) stay under 4 KiB."""
MAX_URI: Final = 2_048
"""Octets of a Request-URI (§21.4.13 answers 414); GRUUs and push parameters need some 600."""
MAX_NUMBER: Final = 2**32 - 1
"""CSeq, Expires and Content-Length are 32-bit (§8.1.1.5, §20.19): more is answered 400, never wrapped around."""
_MAX_DIGITS: Final = 20
"""Digits looked at; leading zeros are legal (RFC 4475 wsinv), ten thousand of them are not sent in good faith."""

CR: Final = 0x0D
LF: Final = 0x0A
NUL: Final = 0x00
QUOTE: Final = 0x22
PERCENT: Final = 0x25
COMMA: Final = 0x2C
QUESTION: Final = 0x3F
BACKSLASH: Final = 0x5C
"""Octets to look for: `COMMA in value`. CPython takes the `b","` of `b"," in value` for a number first, fails, and only
then searches, which is ten times as dear; longer strings are found with `find` for the same reason."""

BLANKS: Final = b" \t"
"""What an unfolded value is stripped of; `strip()` alone would also take form feeds, which are no white space here."""
TOKEN: Final = rb"[A-Za-z0-9\-.!%*_+`'~]"
HEX: Final = rb"[0-9A-Fa-f]"
QUOTED: Final = rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+"'
"""quoted-string. A quoted pair may hold any octet but CR and LF, NUL included (RFC 4475 intmeth)."""
HOST: Final = rb"(?:[A-Za-z0-9][A-Za-z0-9\-._]*+|\[[0-9A-Fa-f:.]++\])"
"""Name (with the underscore of container networks), IPv4, or IPv6 in brackets; `:::` passes (RFC 5118 §4.10)."""
PORT: Final = rb"(?:[1-9][0-9]{0,3}+|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])(?![0-9])"
"""1-65535. Port 0 and 65536 must fail here: a socket would raise on them, long after the message was taken."""

_WS: Final = rb"[ \t]*+"
_VALUE: Final = rb'(?:[^\x00-\x20\x7f;,"<>?=\\][^\x00-\x20\x7f;,"<>?\\]*+|' + QUOTED + rb'|<[^\x00-\x20\x7f"<>]*+>)'
"""With `<urn:…>`, as some phones write their +sip.instance."""
PARAM: Final = (
    rb";" + _WS + rb"(" + TOKEN + rb"++)" + _WS + rb"(?:(=)" + _WS + rb"((?:" + _VALUE + rb")?+)" + _WS + rb")?+"
)  # fmt: skip
"""One `;name=value`; groups: name, '=', value as written, perhaps nothing."""
PARAMS: Final = (
    rb"(?:;" + _WS + TOKEN + rb"++" + _WS + rb"(?:=" + _WS + rb"(?:" + _VALUE + rb")?+" + _WS + rb")?+)*+(?:;[ \t]*+)?+"
)
"""Any number of them, without groups. One `;` may be left over at the end (`sip.tolerance`)."""

_is_params = re.compile(PARAMS).fullmatch
_find_params = re.compile(PARAM).findall
_each_param = re.compile(PARAM).finditer
_is_token = re.compile(TOKEN + rb"++").fullmatch
_escape = re.compile(rb"%(" + HEX + rb"{2})")
_quoted_pair = re.compile(rb"\\(.)", re.DOTALL)


def is_token(text: bytes) -> bool:
    """Whether `text` is a token of RFC 3261 §25.1 (method, header name, option tag …)."""
    return _is_token(text) is not None


def read_number(text: bytes | None) -> int | None:
    """A header's delta-seconds, capped at 2**32-1; None when absent or unreadable, which §10.2.1.1 treats alike."""
    return min(int(text), MAX_NUMBER) if text and text.isdigit() and len(text) <= _MAX_DIGITS else None


def parse_number(text: bytes, what: str, maximum: int = MAX_NUMBER) -> int:
    """1*DIGIT, ASCII only, not above `maximum`. `int()` alone would take '+0', '1_0', ' 5 ' and Arabic digits.

    Raises:
        MalformedMessage: naming `what`.
    """
    if not text.isdigit() or len(text) > _MAX_DIGITS:
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
    return _quoted_pair.sub(rb"\1", inner) if BACKSLASH in inner else inner


def quote(text: bytes) -> bytes:
    """A quoted string with these contents (RFC 3261 §25.1)."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def unescape(text: bytes) -> bytes:
    """%HH resolved exactly once; a '%' that begins no escape stays (RFC 4475 esc02)."""
    return _escape.sub(lambda match: bytes([int(match[1], 16)]), text) if PERCENT in text else text


def parse_params(tail: bytes) -> dict[bytes, bytes | None]:
    """`;name=value;flag` → {name in lower case: value without quotes, flag: None}.

    Raises:
        MalformedMessage: not a list of parameters, or a name twice (§7.3.1: two readers could pick different ones).
    """
    if not tail:
        return {}
    if _is_params(tail) is None:
        raise MalformedMessage("Malformed Parameters")
    found = _find_params(tail)
    params = {name.lower(): value if equals else None for name, equals, value in found}
    if len(params) != len(found):
        raise MalformedMessage("Duplicate Parameter")
    if QUOTE in tail:
        return {name: unquote(value) if value else value for name, value in params.items()}
    return params


def drop_params(tail: bytes, names: Collection[bytes]) -> bytes:
    """A list of parameters without those of the given lower-case names."""
    return b"".join(match[0] for match in _each_param(tail) if match[1].lower() not in names)
