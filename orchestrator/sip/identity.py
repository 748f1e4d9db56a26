"""Whom a request says its sender to be (RFC 3325). Whether that is believed, `SipNetwork` knows."""

from __future__ import annotations

from orchestrator.errors import MalformedMessage
from orchestrator.sip.headers import parse_name_addrs
from orchestrator.sip.message import Request


def asserted_user(request: Request) -> str | None:
    """User part of the P-Asserted-Identity; None when there is none that can be read."""
    if not request.has(b"p-asserted-identity"):
        return None
    try:
        addresses = parse_name_addrs(request.get_all(b"p-asserted-identity"))
        return next((address.parsed.username for address in addresses if address.parsed.is_sip), None) or None
    except MalformedMessage:
        return None
