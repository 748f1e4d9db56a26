"""Gateways: which take calls, what their probes have shown, how calls to them have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from orchestrator.core.engine import Engine


def gateways(engine: Engine) -> list[dict[str, Any]]:
    """All of them, by name."""
    ended: dict[str, Counter[str]] = {}
    for (name, code), count in engine.measures.gateway_branches.counts.items():
        ended.setdefault(name, Counter())[code] += count
    known = engine.flows.program.resources.gateways
    return [gateway(engine, name, known[name], ended.get(name, {})) for name in known]


def gateway(engine: Engine, name: str, said: Mapping[str, Any], ended: Mapping[str, int]) -> dict[str, Any]:
    """One gateway; `said` is what the configuration says of it, `ended` its branches by final status."""
    gateways = engine.gateways
    prober, disabled = gateways.prober, name in gateways.disabled
    return {
        "name": name,
        "uri": str(said["uri"]),
        "up": gateways.is_up(name),
        "disabled": disabled,
        "state": "disabled" if disabled else prober.state(name) or "untried",
        "reason": gateways.reason(name) or None,
        "probe": float(said.get("probe") or 0.0) or None,
        "account": bool(said.get("user")),
        "branches": dict(ended),
    }
