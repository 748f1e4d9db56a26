"""How much one flow may take, each with its reason. Beyond any of them the step fails with `flow.limit`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a run and of what the engine keeps; counts, and seconds where said."""

    steps: int = 10_000
    """Steps of one run, those of its handlers and loops included: a loop without a wait would hold up every call."""
    nesting: int = 16
    """Flows called inside flows; the checker refuses circles, this bounds what packages add."""
    subscriptions: int = 200
    """Armed subscriptions of one run."""
    tasks: int = 200
    """Handlers, meanwhile steps and parallel branches of one run at the same time."""
    raises: int = 1_000
    """Events that flows raise because of one thing that happened: each may cause several, eight deep."""
    queue: int = 100
    """Events that wait for a busy handler, and for a `queued` flow without `max:`; later ones are not taken."""
    seen: int = 10_000
    """Values a `unique_by:` remembers; the oldest are forgotten."""
    grace: float = 5.0
    """Seconds for the `finally` steps after a call has ended, and again for `on_end`."""
    records: int = 1_000
    """Lines in the trace of one run."""
    traces: int = 200
    """Traces of finished runs that are kept."""
    failures: int = 1_000
    """Traces of failed runs that are kept."""
