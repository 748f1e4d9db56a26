"""Digits that a phone sends as SIP INFO instead of RTP events (RFC 2976 practice; no standard has them)."""

from __future__ import annotations

from orchestrator.sip.grammar import read_number
from orchestrator.sip.message import Request


def dtmf_of_info(request: Request) -> tuple[str, int] | None:
    """Digit and milliseconds of an INFO with `application/dtmf-relay` (Signal=, Duration=) or `application/dtmf` (the
    bare digit)."""
    kind = (request.get(b"content-type") or b"").split(b";")[0].strip().lower()
    if kind not in (b"application/dtmf-relay", b"application/dtmf"):
        return None
    digit, ms = b"", 250
    for line in request.body.splitlines():
        key, equals, value = line.partition(b"=")
        if not equals and line.strip():
            digit = digit or line.strip()
        elif key.strip().lower() == b"signal":
            digit = value.strip()
        elif key.strip().lower() == b"duration":
            length = read_number(value.strip())
            ms = ms if length is None else min(length, 60_000)
    name = _DIGITS.get(digit.upper())
    return (name, ms) if name is not None else None


_DIGITS = {symbol.encode(): symbol for symbol in "0123456789*#ABCDF"} | {b"10": "*", b"11": "#"}
"""What Signal= may say (RFC 2976 practice: 10 and 11 stand for * and #), as flows see it."""
