"""Which build runs: `plain` Python, or the same source `compiled` (setup.py)."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final


def _build() -> str:
    """Told by where one compiled module comes from, without loading it."""
    found = find_spec("orchestrator.timers")
    origin = (found.origin if found is not None else None) or ""
    return "compiled" if origin.endswith(tuple(EXTENSION_SUFFIXES)) else "plain"


BUILD: Final = _build()
