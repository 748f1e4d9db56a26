"""A bug of an action or of the host: one line in the log, with its traceback and the place of the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run import effects
from orchestrator.server_log import log_of_fault
from orchestrator.testing.world import World

FLOW = """\
flowlang: 1
flows:
  f:
    on: invite
    do:
      - log: first
      - try:
          do: [lookup: bob@example.com]
          catch: [{error: auth.*, do: [log: no]}, {error: flow.*, do: [log: caught]}]
"""


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    found: list[Any] = []
    sink = logger.add(lambda message: found.append(message.record), format="{message}")
    yield found
    logger.remove(sink)


def test_a_bug_is_logged_once_with_its_place(logged: list[Any]) -> None:
    world = World(load_sources([Source("f.flow.yaml", FLOW)])[0])
    engine = world.engine
    engine.flows.on_fault = log_of_fault
    texts: list[str] = []
    engine.host.on_log = lambda run, effect: texts.append(effect.text)

    def breaks(run: object, ticket: object, effect: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    engine.host._perform = {**engine.host._perform, effects.Lookup: breaks}
    world.peer("alice", "10.0.0.2").ask("INVITE", "sip:bob@example.com")
    world.run()
    assert texts == ["first", "caught"], "the flow can handle it as flow.fault"
    (first,) = logged
    assert first["level"].name == "ERROR" and first["exception"].type is ZeroDivisionError
    assert first["extra"]["flow"] == "f"
    assert first["extra"]["notes"] == ["in the step at f.flow.yaml:8:16: lookup: bob@example.com"]
