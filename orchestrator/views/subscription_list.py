"""What flows wait for now: events, and steps that wait for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.flow.tools.explain import waiting
from orchestrator.views.listing import Listing, nothing


def subscriptions(
    engine: Engine, of: str, now: float, breathe: Callable[[], object] = nothing
) -> Listing[dict[str, Any]]:
    """Of a run, a subscription by its id, a flow, or of all (''). They are made while this looks for them."""
    found = waiting(engine.flows, of, now, breathe)
    return Listing(found, lambda found: found, lambda found: str(found["name"]))
