"""What flows wait for now: events, and steps that wait for others."""

from __future__ import annotations

from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.flow.tools.explain import waiting
from orchestrator.views.listing import Listing


def subscriptions(engine: Engine, of: str, now: float) -> Listing[dict[str, Any]]:
    """Of a run, a subscription by its id, a flow, or of all ('')."""
    return Listing(waiting(engine.flows, of, now), lambda found: found, lambda found: str(found["name"]))
