"""Orchestrator: an event-driven SIP routing engine programmed in YAML."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__version__ = "0.1.0"

_COMPILED = any(Path(__file__).with_name(f"timers{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
BUILD = "compiled" if _COMPILED else "plain"
"""Which build this is: plain Python, or the same source whose core is compiled (setup.py)."""
