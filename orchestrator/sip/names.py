"""Header names: compact forms and the spelling table (RFC 3261 §7.3.3, §20).

Names compare without case, and a compact form is the long one. Looking a name up in a table of the spellings phones
really use is far cheaper than lower-casing it; a spelling that is not in the table is folded, and checked to be a
token, each time.
"""

from __future__ import annotations

from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import is_token

_COMPACT: Final = (
    b"a Accept-Contact b Referred-By c Content-Type d Request-Disposition e Content-Encoding f From i Call-ID "
    b"j Reject-Contact k Supported l Content-Length m Contact n Identity-Info o Event r Refer-To s Subject t To "
    b"u Allow-Events v Via x Session-Expires y Identity"
).split()
"""The IANA registry of compact forms, each followed by its name."""

_KNOWN: Final = (
    b"Accept Accept-Contact Accept-Encoding Accept-Language Alert-Info Allow Allow-Events Authentication-Info "
    b"Authorization Call-ID Call-Info Contact Content-Disposition Content-Encoding Content-Language Content-Length "
    b"Content-Type CSeq Date Diversion Error-Info Event Expires From History-Info Identity Identity-Info In-Reply-To "
    b"Join Max-Breadth Max-Forwards MIME-Version Min-Expires Min-SE Organization P-Access-Network-Info "
    b"P-Asserted-Identity P-Associated-URI P-Called-Party-ID P-Charging-Vector P-Preferred-Identity Path Priority "
    b"Privacy Proxy-Authenticate Proxy-Authorization Proxy-Require RAck Reason Record-Route Refer-To Referred-By "
    b"Reject-Contact Remote-Party-ID Replaces Reply-To Request-Disposition Require Retry-After Route RSeq "
    b"Security-Client Security-Server Security-Verify Server Service-Route Session-Expires Session-ID SIP-ETag "
    b"SIP-If-Match Subject Subscription-State Supported Timestamp To Unsupported User-Agent Via Warning "
    b"WWW-Authenticate X-FS-Support"
).split()

LONG_NAMES: Final = {name.lower(): name.decode() for name in _KNOWN}
"""Canonical name → as RFC 3261 writes it, for messages to humans."""
_EXPANDED: Final = {short: name.lower() for short, name in zip(_COMPACT[::2], _COMPACT[1::2], strict=True)}


def _spellings() -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    for name in _KNOWN:
        low = name.lower()
        table |= {name: low, low: low, name.upper(): low, name.title(): low}
    for short, low in _EXPANDED.items():
        table |= {short: low, short.upper(): low}
    return table


SPELLINGS: Final = _spellings()
"""Spelling → canonical name, for the spellings seen in the field."""


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
    return _EXPANDED.get(low, low)
