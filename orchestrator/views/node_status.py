"""How one node is: how many calls it has, how fast they come and are set up, whether its links are up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import BUILD, __version__
from orchestrator.core.engine import Engine
from orchestrator.measures import Reading
from orchestrator.views.shown_values import iso, length

RATE_OVER: Final = 10
"""Seconds that rates are taken over."""
KEPT: Final = 600
"""Samples that are kept, one a second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a node counted at one moment."""

    time: float
    """Seconds since 1970."""
    begun: int
    """Calls of flows since the start."""
    calls: int
    runs: int
    registrations: int
    transactions: int
    unanswered: int
    setup: tuple[int, ...] = ()
    """Calls answered since the start, by the bounds of their setup times."""


class Samples:
    """The last ten minutes, one sample a second, the oldest first."""

    def __init__(self) -> None:
        self.kept: deque[Sample] = deque(maxlen=KEPT)

    def take(self, engine: Engine, now: float) -> None:
        """Add one."""
        layer = engine.layer
        self.kept.append(
            Sample(
                now + engine.settings.wall_offset,
                calls_begun(engine),
                len(engine.calls) + len(engine.sockets),
                len(engine.flows.runs),
                len(engine.location),
                len(layer),
                layer.unanswered,
                tuple(setup[1]) if (setup := summed(engine.measures.setup_time.readings.values())) else (),
            )
        )

    @property
    def rate(self) -> float:
        """Calls of flows that began, a second, over the last ten seconds."""
        if len(self.kept) < 2:
            return 0.0
        last = self.kept[-1]
        first = self.kept[max(0, len(self.kept) - 1 - RATE_OVER)]
        return round((last.begun - first.begun) / max(1e-3, last.time - first.time), 3)


def calls_begun(engine: Engine) -> int:
    """Calls of flows since the start: those that live, and those that have ended."""
    return len(engine.calls) + len(engine.sockets) + sum(engine.measures.calls_ended.counts.values())


@dataclass(frozen=True, slots=True)
class Identity:
    """Which node this is: its name, and when it started (seconds since 1970)."""

    node: str
    started: float


def status(
    engine: Engine,
    identity: Identity,
    samples: Samples,
    now: float,
    complaints: Mapping[str, str],
    degradations: Mapping[str, str],
) -> dict[str, Any]:
    """What a node says of itself; `complaints` keep it from getting calls, `degradations` do not."""
    setup = summed(engine.measures.setup_time.readings.values())
    known = engine.servers
    return {
        "version": __version__,
        "build": BUILD,
        "started": iso(identity.started),
        "uptime": length(max(0.0, now + engine.settings.wall_offset - identity.started)),
        "state": state_of_node(engine, complaints, degradations),
        "reasons": {**complaints, **degradations},
        "counts": {
            "calls": len(engine.calls) + len(engine.sockets),
            "runs": len(engine.flows.runs),
            "registrations": len(engine.location),
            "subscriptions": len(engine.bus),
            "transactions": len(engine.layer),
        },
        "rates": {"calls": samples.rate},
        "setup_time": {"p50": quantile(setup, 0.5), "p95": quantile(setup, 0.95)},
        "links": {name: known.states.get(name, "down") for name in engine.site.freeswitch},
        "flows": {"version": engine.flows.program.hash, "count": len(engine.flows.program.flows)},
    }


def state_of_node(engine: Engine, complaints: Mapping[str, str], degradations: Mapping[str, str]) -> str:
    """ready, degraded, not_ready or draining."""
    if engine.draining:
        return "draining"
    return "not_ready" if complaints else "degraded" if degradations else "ready"


def summed(readings: Iterable[Reading]) -> Reading | None:
    """The distribution of all labels together; None for none."""
    found = list(readings)
    if not found:
        return None
    counts = [sum(column) for column in zip(*(reading[1] for reading in found), strict=True)]
    return found[0][0], counts, sum(reading[2] for reading in found)


def quantile(reading: Reading | None, share: float) -> float | None:
    """The value that this share of a distribution does not exceed, between two bounds in proportion; None where there
    is nothing, the last bound where it lies beyond."""
    if reading is None:
        return None
    bounds, counts, _ = reading
    wanted = share * sum(counts)
    if not wanted:
        return None
    return _within(bounds, counts, wanted)


def _within(bounds: Sequence[float], counts: Sequence[int], wanted: float) -> float:
    before, low = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and before + count >= wanted:
            return round(low + (bound - low) * (wanted - before) / count, 4)
        before, low = before + count, bound
    return bounds[-1]
