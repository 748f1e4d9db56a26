"""Messages without their secrets, for traces and captures: credentials, nonces, push tokens, keys of SRTP and ICE."""

from __future__ import annotations

import re
from collections.abc import Callable

_LINES = re.IGNORECASE | re.MULTILINE
_CREDENTIALS = re.compile(rb"^((?:Proxy-)?Authorization[ \t]*:[ \t]*)(\w+)([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", _LINES)
_CHALLENGE = re.compile(
    rb"^((?:WWW|Proxy)-Authenticate|(?:Proxy-)?Authentication-Info)[ \t]*:.*(?:\r?\n[ \t].*)*",
    _LINES,
)
_PARAMETER = re.compile(
    rb'\b(response|cnonce|nonce|nextnonce|rspauth|opaque|password)(\s*=\s*)("[^"]*"|[^,;\s]+)', re.IGNORECASE
)
_TOKEN = re.compile(rb"\b((?:pn-prid|pn-param|pn-purr|pn-tok|pn-auth)=|pnspurr=\")([^;>,\s\"]+)", re.IGNORECASE)
_KEYS = re.compile(rb"^(a=crypto:\S+ \S+ inline:|a=ice-pwd:|k=)(\S+)", _LINES)

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

    def of_parameter(match: re.Match[bytes]) -> bytes:
        value = match[3]
        return match[1] + match[2] + (b'"%b"' % stars(value[1:-1]) if value[:1] == b'"' else stars(value))

    def of_credentials(match: re.Match[bytes]) -> bytes:
        if match[2].lower() != b"digest":
            return b"%b%b %b" % (match[1], match[2], stars(match[3][1:]))
        return match[1] + match[2] + _PARAMETER.sub(of_parameter, match[3])

    message = _CREDENTIALS.sub(of_credentials, message)
    message = _CHALLENGE.sub(lambda match: _PARAMETER.sub(of_parameter, match[0]), message)
    message = _TOKEN.sub(lambda match: match[1] + stars(match[2]), message)
    return _KEYS.sub(lambda match: match[1] + stars(match[2]), message)
