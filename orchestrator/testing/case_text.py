"""Values as the text of a `*.test.yaml`."""

from __future__ import annotations

import json
import re
from typing import Any

_SIMPLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")


def seconds_of(seconds: float) -> str:
    return f"{round(max(0.0, seconds), 3):g}s"


def bare(uri: str) -> str:
    """A contact as tests write it, without its scheme."""
    return uri.removeprefix("sip:")


def pattern_of(text: str) -> str:
    """Text as a pattern that fits it: what would be a wildcard becomes one for a single character."""
    return re.sub(r"[*?\[]", "?", text)


def quoted(value: Any) -> str:
    """A value as YAML that reads back as this text, whatever a caller put into it."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if _SIMPLE.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)
