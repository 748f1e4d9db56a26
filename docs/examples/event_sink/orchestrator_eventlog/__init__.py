"""An event sink: events, and calls that have ended, as lines of JSON in a file.

services:
  eventlog: {file: events.jsonl, events: [registered, gateway_down]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.history import CallRecord
from orchestrator.packages.service import Raised, ServerContext, Service


class EventLogSettings(BaseModel):
    """What stands under `services: {eventlog: {...}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Path
    events: tuple[str, ...] = Field(("registered", "unregistered"), min_length=1)
    calls: bool = True
    """Whether calls that have ended are written, too."""


class EventLog:
    """Handlers run in greenlets of their own, one event after the other: what they wait for holds up no call."""

    def __init__(self, server: ServerContext, settings: EventLogSettings) -> None:
        self.server = server
        self.settings = settings
        self.stream = settings.file.open("a", encoding="utf-8")  # fails at the start when it cannot be written

    def start(self) -> None:
        self.server.listen(self.settings.events, self.write_event)
        if self.settings.calls:
            self.server.listen_facts(CallRecord, self.write_call)

    def write_event(self, event: Raised) -> None:
        self.write({"event": event.name, "time": event.time, "call": event.call, **event.attributes})

    def write_call(self, record: CallRecord) -> None:
        self.write({"event": "call_ended", "call": record.id, "flow": record.flow, "code": record.code})

    def write(self, line: Mapping[str, Any]) -> None:
        """What cannot be written raises: it is logged, counted, and the next one is tried."""
        self.stream.write(json.dumps(line, default=str) + "\n")
        self.stream.flush()

    def stop(self) -> None:
        """What waited has been handled when this is called."""
        self.stream.close()


SERVICE = Service("eventlog", "Writes events and ended calls into a file.", EventLog, EventLogSettings)
