"""Recordings of a real FreeSWITCH, read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from orchestrator.testing.recordings import Recording

FIXTURES = Path(__file__).parent.parent / "fixtures" / "esl"

Load = Callable[[str], Recording]


@cache
def _load(name: str) -> Recording:
    path = FIXTURES / name
    return Recording.load(path if path.suffix else path.with_suffix(".esl"))


@pytest.fixture
def recording() -> Load:
    """`recording("dtmf")`: tests/fixtures/esl/dtmf.esl; a name with a suffix is taken as it is."""
    return _load
