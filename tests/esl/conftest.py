"""Recordings of a real FreeSWITCH, read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from loguru import logger

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


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Lines logged during the test, `LEVEL message`. Nothing on the network may log an error, so none may be here."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)
    errors = [line for line in lines if line.startswith(("ERROR", "CRITICAL"))]
    assert errors == []
