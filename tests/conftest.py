"""Tests of the messages of RFC 4475 and RFC 5118 are collected where those messages are: beside the repository."""

from __future__ import annotations

from pathlib import Path

RFC_MESSAGES = Path(__file__).resolve().parents[2] / "shared" / "torture"

collect_ignore = [] if RFC_MESSAGES.is_dir() else ["sip/test_torture.py", "core/test_torture_rfc.py"]
