"""Retry-After (RFC 3261 §20.33)."""

from __future__ import annotations

import re
from typing import Final

from orchestrator.sip.grammar import read_number
from orchestrator.sip.message import Response

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds; what a longer Retry-After is cut to."""

_digits = re.compile(rb"[0-9]+").match


def retry_after_of(response: Response) -> float | None:
    """Seconds of the Retry-After of a response, None without one or with an unreadable one."""
    found = _digits(response.get(b"retry-after") or b"")
    seconds = read_number(found[0]) if found is not None else None
    return None if seconds is None else float(seconds)
