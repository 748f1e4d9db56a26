"""What the answers of push services over HTTP have in common."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that `Retry-After` asks for (RFC 9110 §10.2.3), a number or a date; None where it says nothing that can
    be read. `now`: seconds since the epoch."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
