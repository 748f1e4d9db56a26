"""File descriptors are taken before the server runs, and too few are said in the log."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from loguru import logger

from orchestrator.runtime.descriptors import note_descriptors


@pytest.fixture
def warnings() -> Any:
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="WARNING")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "wanted"),
    [
        (1024, 4096, 3000, 0),  # 3,300 and 200 others fit into what we may take
        (1024, 4096, 4000, 4600),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10**9, 0),
    ],
)
def test_as_many_as_the_system_allows_are_taken(
    soft: int, hard: int, connections: int, wanted: int, warnings: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))
    note_descriptors(connections)
    assert limits[-1] == (hard, hard)
    said = [(line["message"], line["extra"]["descriptors"], line["extra"]["wanted"]) for line in warnings]
    assert said == ([("descriptors_few", hard, wanted)] if wanted else [])


def test_a_system_that_gives_no_more_is_no_reason_to_fail(warnings: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, pair: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    note_descriptors(1000)
    assert [line["extra"]["descriptors"] for line in warnings] == [256]
