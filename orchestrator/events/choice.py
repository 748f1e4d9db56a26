"""Events chosen by a name or a glob, by those who listen beside the flows: sinks and services."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALONE = frozenset({"fs"})
"""Events that no glob stands for: every event of FreeSWITCH there is."""


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern stands for: itself, or what `*` (any text) and `?` (one character) fit."""
    if "*" not in pattern and "?" not in pattern:
        return [pattern] if pattern in names else []
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    fits = re.compile("".join(parts))
    return [name for name in names if name not in ALONE and fits.fullmatch(name)]
