"""What runs in C where it was built (`_fast.c`, a part of the compiled build), for who has the same in Python.

With ORCHESTRATOR_PLAIN=1 in the environment it is left alone: to find out whether a fault is its own.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any


def _fast() -> Any:
    if os.environ.get("ORCHESTRATOR_PLAIN", "") not in ("", "0"):
        return None
    try:
        return import_module("orchestrator._fast")
    except ImportError:
        return None


FAST: Any = _fast()
"""The extension; None where there is none."""
