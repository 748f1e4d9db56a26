"""The events that flows know, with the attributes they have."""

from __future__ import annotations

from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.events.event import EventSpec
from orchestrator.events.received import may_be_raised


def event_catalogue(engine: Engine) -> list[dict[str, Any]]:
    """Those of the program, by name."""
    events = engine.flows.program.events
    return [_event(events[name]) for name in sorted(events)]


def _event(spec: EventSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "doc": spec.doc,
        "scope": spec.scope,
        "source": spec.source,
        "may_be_raised": may_be_raised(spec),
        "attributes": [
            {
                "name": attribute.name,
                "type": attribute.type,
                "doc": attribute.doc,
                "values": list(attribute.values),
                "optional": attribute.optional,
            }
            for attribute in spec.attributes.values()
        ],
    }
