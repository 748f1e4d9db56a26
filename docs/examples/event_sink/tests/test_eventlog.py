"""What stands in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from orchestrator_eventlog import EventLog, EventLogSettings

from orchestrator.testing.services import FakeServer


def test_an_event_is_a_line(tmp_path: Path) -> None:
    server = FakeServer("eventlog")
    log = EventLog(server, EventLogSettings(file=tmp_path / "events", events=("gateway_up",), calls=False))
    log.start()
    server.raise_event("gateway_up", {"gateway": "telco", "reason": "OPTIONS"}, time=5.0)
    log.stop()
    (line,) = (tmp_path / "events").read_text().splitlines()
    said = {"event": "gateway_up", "time": 5.0, "call": "", "gateway": "telco", "reason": "OPTIONS"}
    assert json.loads(line) == said


def test_an_unknown_event_keeps_the_server_from_starting(tmp_path: Path) -> None:
    settings = EventLogSettings(file=tmp_path / "events", events=("gateway_upp",))
    log = EventLog(FakeServer("eventlog"), settings)
    with pytest.raises(ValueError, match="there is no event 'gateway_upp'"):
        log.start()
    log.stop()
