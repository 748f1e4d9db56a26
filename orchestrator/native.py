"""What runs in C where it was built (`_fast.c`, a part of the compiled build), for who has the same in Python.

With ORCHESTRATOR_PLAIN=1 in the environment it is left alone: to find out whether a fault is its own.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_):
        """What mypyc is told about a class; it reads that in the source, and the package is not needed to run."""
        return lambda kind: kind


def _fast() -> Any:
    if os.environ.get("ORCHESTRATOR_PLAIN", "") not in ("", "0"):
        return None
    try:
        return import_module("orchestrator._fast")
    except ImportError:
        return None


FAST: Any = _fast()
"""The extension; None where there is none."""
