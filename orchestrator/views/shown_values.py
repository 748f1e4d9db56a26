"""How values are shown: times in ISO 8601 (UTC, milliseconds), lengths in seconds, texts without push tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2s

from orchestrator.flow.run.trace import masked_text


def iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as `2026-11-30T18:00:00.123Z`; None for None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def length(seconds: float) -> float:
    """A length of time, to the millisecond."""
    return round(seconds, 3)


def shown_contact(uri: str | None) -> str | None:
    """A contact URI without its push token; None for None and ''."""
    return masked_text(uri) if uri else None


def opaque(*parts: object) -> str:
    """An identifier of these parts, for what has none that may be shown."""
    return blake2s(repr(parts).encode(), digest_size=10).hexdigest()
