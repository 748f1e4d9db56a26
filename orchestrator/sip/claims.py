"""Headers that only those we trust may say something with."""

from __future__ import annotations

from typing import Final

CALL_HEADER: Final = b"X-Orchestrator-Call"
"""Ties the two legs of a call that goes through FreeSWITCH. Between it and us only: a phone must neither see nor say
which call is meant."""

MEDIA_HEADER: Final = b"X-Orchestrator-Media"
"""Tells FreeSWITCH to hold the call for us instead of sending it back: `answer` or `early`."""

CLAIMS: Final = frozenset(
    (
        b"p-asserted-identity", b"p-preferred-identity", b"remote-party-id", b"diversion", b"p-charge-info",
        b"p-asserted-service", b"p-served-user", CALL_HEADER.lower(), MEDIA_HEADER.lower(),
    )
)  # fmt: skip
"""What only those we trust may say about a caller, and to us: from all others it is removed (RFC 3325 §5)."""

OURS: Final = frozenset((CALL_HEADER.lower(), MEDIA_HEADER.lower()))
"""Those of them that are between FreeSWITCH and us."""
