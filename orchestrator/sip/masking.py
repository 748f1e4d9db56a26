"""Messages without their secrets, for traces and captures: credentials, nonces, push tokens, keys of SRTP and ICE."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

_CREDENTIALS = re.compile(
    rb"\n(?:(?:proxy-)?authorization[ \t]*:[ \t]*(\w+)"
    rb"|(?:(?:www|proxy)-authenticate|(?:proxy-)?authentication-info)[ \t]*:)"
)
_FIELD_END = re.compile(rb"\r?\n(?![ \t])")
_PARAMETER = re.compile(rb'\b(?:response|cnonce|nonce|nextnonce|rspauth|opaque|password)\s*=\s*("[^"]*"|[^,;\s]+)')
_TOKEN = re.compile(rb"pn(?:-(?:prid|param|purr|tok|auth)=|spurr=\")([^;>,\s\"]+)")
_KEYS = re.compile(rb"\n(?:a=crypto:\S+ \S+ inline:|a=ice-pwd:|k=)(\S+)")
"""All read small letters, and a line feed before the first line: expressions that begin with an octet are found many
times as fast, and a message may have 64 KB."""
_QUOTE = 0x22
MOST = 200
"""Secrets of one message. One that has more was made to cost time: all behind its start line is taken for secret."""

Stars = Callable[[bytes], bytes]


def three_stars(secret: bytes) -> bytes:
    """Tells nothing of its length."""
    return b"***"


def as_long(secret: bytes) -> bytes:
    """A star for each octet: Content-Length stays true."""
    return b"*" * len(secret)


def _may_hold_one(small: bytes) -> bool:
    """Whether something stands in a message, in small letters, that all with a secret have. Most have none, and an
    expression takes 60 µs to say so."""
    return (
        b"auth" in small
        or b"pn-p" in small
        or b"pn-tok" in small
        or b"pnspurr" in small
        or b"a=crypto" in small
        or b"ice-pwd" in small
        or b"\nk=" in small
    )


def masked(message: bytes, stars: Stars = three_stars) -> bytes:
    """The message without its secrets; `stars` says what stands in their place."""
    if not _may_hold_one(message.lower()):
        return message

    found = sorted(islice(_secrets(b"\n" + message.lower()), MOST + 1))
    if len(found) > MOST:
        found = [(message.find(b"\n") + 2, len(message) + 1)]
    pieces: list[bytes] = []
    at = 0
    for start, end in found:
        start, end = max(start - 1, at), end - 1
        if start < end:
            pieces += (message[at:start], stars(message[start:end]))
            at = end
    return b"".join((*pieces, message[at:]))


def _secrets(small: bytes) -> Iterator[tuple[int, int]]:
    """Where secrets stand in a message that is written so, from and to."""
    for found in _CREDENTIALS.finditer(small):
        over = _FIELD_END.search(small, found.end())
        start, end = found.end(), len(small) if over is None else over.start()
        if found[1] is not None and found[1] != b"digest":
            yield start + 1, end
            continue
        for parameter in _PARAMETER.finditer(small, start, end):
            quoted = parameter.end(1) - parameter.start(1) > 1 and small[parameter.start(1)] == _QUOTE
            yield parameter.start(1) + quoted, parameter.end(1) - quoted
    for pattern in (_TOKEN, _KEYS):
        for found in pattern.finditer(small):
            yield found.span(1)
