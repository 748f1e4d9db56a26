"""Text put into the parts of a SIP URI, escaped by the grammar of the part (RFC 3261 §19.1.2, §25.1)."""

from __future__ import annotations

import re

_USER = re.compile(rb"[^A-Za-z0-9\-_.!~*'()&=+$,/]")
"""What may not stand in a user part as it is. `;` and `?` may by the RFC, but some readers end the user there."""


def escape_user(text: str) -> bytes:
    """`text` as the user part of a SIP URI; it names the same user to every reader of the URI."""
    return _USER.sub(lambda match: b"%%%02X" % match[0][0], text.encode("utf-8", "surrogateescape"))
