"""`from:` of `relay` and `originate`: the calling party that a flow shows instead of the caller."""

from __future__ import annotations

from orchestrator.errors import MalformedMessage, StepError
from orchestrator.sip.grammar import quote
from orchestrator.sip.uri import NameAddr, parse_name_addr


def calling_party(written: str) -> NameAddr:
    """`user@host`, a SIP URI, or either in `Name <…>`.

    Raises StepError: it is no address of a SIP user.
    """
    name, opened, rest = written.strip().rpartition("<")
    uri = rest.strip() if not opened else rest.removesuffix(">").strip()
    if not uri.lower().startswith(("sip:", "sips:")) and "@" in uri:
        uri = "sip:" + uri
    try:
        found = parse_name_addr(f"{name.strip()} <{uri}>".strip().encode())
        if found.parsed.is_sip and found.parsed.host:
            return found
    except MalformedMessage:
        pass
    raise StepError("call.state", f"from: {written[:80]!r} is not an address; write user@host or Name <sip:user@host>")


def from_value(written: str) -> bytes:
    """The value of a From header field without its tag; b'' for no `from:`. Raises StepError."""
    if not written:
        return b""
    party = calling_party(written)
    address = b"<" + (party.uri or b"") + b">"
    return quote(party.display) + b" " + address if party.display else address
