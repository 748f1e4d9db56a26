"""Header lines of what a flow gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import StepError
from orchestrator.sip.message import header_line


def header_lines(headers: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Header lines from names and values of a flow. Raises StepError when one would end the line and begin another
    header."""
    try:
        return tuple(header_line(str(name).encode(), str(value).encode()) for name, value in headers.items())
    except ValueError:
        raise StepError("call.state", "a header value holds a line break") from None
