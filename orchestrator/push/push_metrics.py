"""What /metrics says about push services."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.push.supervisor import BOUNDS, Pushes, Supervisor
from orchestrator.runtime.metrics import Histogram, Metrics


def export_pushes(metrics: Metrics, pushes: Pushes) -> None:
    """Pushes and what became of them, by service."""

    def each(read: Callable[[Supervisor], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {name: read(supervisor) for name, supervisor in pushes.supervisors.items()}

    def outcomes() -> Mapping[tuple[str, ...], float]:
        return {
            (name, outcome): supervisor.outcomes[outcome]
            for name, supervisor in pushes.supervisors.items()
            for outcome in ("sent", "failed", "dead")
        }

    def latencies() -> Mapping[str, Histogram]:
        return {
            name: (BOUNDS, supervisor.latency.counts, supervisor.latency.total)
            for name, supervisor in pushes.supervisors.items()
        }

    metrics.counter(
        "pushes",
        "Pushes by service and outcome: sent; failed; dead, the service will never reach the phone at this address.",
        outcomes,
        ("service", "outcome"),
    )
    metrics.counter("push_retries", "Further tries of pushes.", each(lambda s: s.retries), ("service",))
    metrics.gauge(
        "push_servers_down", "Servers that get no pushes because they fail.", each(lambda s: s.down), ("service",)
    )
    metrics.histogram(
        "push_seconds", "Time from when a push was asked for to the answer of the service.", latencies, "service"
    )
