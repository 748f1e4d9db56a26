"""The overview: how the node is, and the last ten minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import falcon

from orchestrator.console.console_page import ConsolePage, Desk
from orchestrator.console.live import Fragments
from orchestrator.console.rendering import render
from orchestrator.views.gateway_list import gateways
from orchestrator.views.node_status import RATE_OVER, Sample, quantile, status
from orchestrator.views.server_list import servers


class Overview(ConsolePage):
    """`/`, `/overview/live`, `/overview/samples`."""

    here = "/"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        self.show(request, response, "overview.html", **self._state(), **self._peers())

    def on_get_live(self, request: falcon.Request, response: falcon.Response) -> None:
        self.follow(request, response, "overview", self._draw)

    def on_get_samples(self, request: falcon.Request, response: falcon.Response) -> None:
        kept = list(self.desk.shown.samples.kept)
        response.media = {"columns": columns(kept, self._bounds)}
        response.cache_control = ("no-store",)

    def _draw(self) -> Fragments:
        found = {"state": render("overview_state.html", **self._state())}
        found["peers"] = render("overview_peers.html", **self._peers())
        kept = self.desk.shown.samples.kept
        if kept:
            found["@sample"] = json.dumps(
                {name: values[-1] for name, values in columns(list(kept)[-RATE_OVER - 1 :], self._bounds).items()}
            )
        return found

    @property
    def _bounds(self) -> Sequence[float]:
        reading = next(iter(self.desk.engine.measures.setup_time.readings.values()), None)
        return reading[0] if reading is not None else ()

    def _state(self) -> dict[str, Any]:
        return {"status": status_of(self.desk)}

    def _peers(self) -> dict[str, Any]:
        engine = self.desk.engine
        return {"servers": servers(engine), "gateways": gateways(engine), "queues": self.desk.queues()}


def status_of(desk: Desk) -> dict[str, Any]:
    """What the node says of itself."""
    shown = desk.shown
    health = shown.health
    return status(desk.engine, shown.identity, shown.samples, desk.now, health.complaints(), health.degradations())


def _between(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Calls that were answered in between, by the bounds of their setup times."""
    return [count - earlier for count, earlier in zip(after, before or [0] * len(after), strict=True)]


def columns(samples: Sequence[Sample], bounds: Sequence[float]) -> dict[str, list[float | None]]:
    """Name → values, the oldest first, as the charts want them; `bounds` are those of setup times."""
    names = ("time", "rate", "calls", "registrations", "p50", "p95")
    found: dict[str, list[float | None]] = {name: [] for name in names}
    before: Sample | None = None
    for number, sample in enumerate(samples):
        answered = _between(samples[max(0, number - RATE_OVER)].setup, sample.setup)
        found["p50"].append(quantile((bounds, answered, 0.0), 0.5))
        found["p95"].append(quantile((bounds, answered, 0.0), 0.95))
        found["time"].append(round(sample.time, 3))
        since = sample.time - before.time if before is not None else 0.0
        begun = sample.begun - before.begun if before is not None else 0
        found["rate"].append(round(begun / since, 2) if since > 0 else None)
        found["calls"].append(sample.calls)
        found["registrations"].append(sample.registrations)
        before = sample
    return found
