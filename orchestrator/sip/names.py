"""Header names: compact forms and the spelling table (RFC 3261 §7.3.3, §20).

Names compare without case and a compact form is the long one. Looking a name up in a table of the spellings phones really use is far
cheaper than lower-casing it; a spelling that is not in the table is folded, and checked to be a token, each time.
"""

from __future__ import annotations

from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import is_token

COMPACT: Final = {
    b"a": b"accept-contact", b"b": b"referred-by", b"c": b"content-type", b"d": b"request-disposition", b"e": b"content-encoding",
    b"f": b"from", b"i": b"call-id", b"j": b"reject-contact", b"k": b"supported", b"l": b"content-length", b"m": b"contact",
    b"n": b"identity-info", b"o": b"event", b"r": b"refer-to", b"s": b"subject", b"t": b"to", b"u": b"allow-events", b"v": b"via",
    b"x": b"session-expires", b"y": b"identity",
}  # fmt: skip
"""The IANA registry of compact forms."""

_KNOWN: Final = (
    b"Accept Accept-Contact Accept-Encoding Accept-Language Alert-Info Allow Allow-Events Authentication-Info Authorization Call-ID "
    b"Call-Info Contact Content-Disposition Content-Encoding Content-Language Content-Length Content-Type CSeq Date Diversion "
    b"Error-Info Event Expires From History-Info Identity Identity-Info In-Reply-To Join Max-Breadth Max-Forwards MIME-Version Min-Expires Min-SE "
    b"Organization P-Access-Network-Info P-Asserted-Identity P-Associated-URI P-Called-Party-ID P-Charging-Vector "
    b"P-Preferred-Identity Path Priority Privacy Proxy-Authenticate Proxy-Authorization Proxy-Require RAck Reason "
    b"Record-Route Refer-To Referred-By Reject-Contact Remote-Party-ID Replaces Reply-To Request-Disposition Require Retry-After "
    b"Route RSeq Security-Client Security-Server Security-Verify Server Service-Route Session-Expires Session-ID SIP-ETag SIP-If-Match "
    b"Subject Subscription-State Supported Timestamp To Unsupported User-Agent Via Warning WWW-Authenticate X-FS-Support"
).split()


def _spellings() -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    for name in _KNOWN:
        low = name.lower()
        table |= {name: low, low: low, name.upper(): low, name.title(): low}
    for short, low in COMPACT.items():
        table |= {short: low, short.upper(): low}
    return table


SPELLINGS: Final = _spellings()
"""Spelling → canonical name."""


def canonical_name(raw: bytes) -> bytes:
    """Canonical name of what stands before a colon; blanks before the colon do not count (RFC 4475 wsinv).

    Raises:
        MalformedMessage: not a token.
    """
    known = SPELLINGS.get(raw)
    if known is not None:
        return known
    name = raw.rstrip(b" \t")
    if not is_token(name):
        raise MalformedMessage("Malformed Header Name")
    low = name.lower()
    return SPELLINGS.get(low, low)
