"""FreeSWITCH servers: their Event Socket links, whether they take calls, how busy they are."""

from __future__ import annotations

from typing import Any

from orchestrator.core.engine import Engine


def servers(engine: Engine) -> list[dict[str, Any]]:
    """Those of the configuration, by name."""
    channels = engine.channels.standing()
    return [_server(engine, name, uri, channels.get(name, 0)) for name, uri in engine.site.freeswitch.items()]


def _server(engine: Engine, name: str, uri: str, channels: int) -> dict[str, Any]:
    known = engine.servers
    load = known.loads.get(name)
    return {
        "name": name,
        "link": known.states.get(name, "down"),
        "sip": uri or None,
        "state": known.acceptance.prober.state(name) or None,
        "takes_calls": known.acceptance.takes_calls(name),
        "reason": known.complaint(name) or None,
        "load": None if load is None else round(load, 4),
        "channels": channels,
    }
