"""Looking into a running server over HTTP: traces, live subscriptions, explanations. JSON, read only.

    GET /traces?failed=1&flow=NAME&limit=20      runs, the newest first, those that still go on included
    GET /traces/RUN                              one of them with its lines, and what it waits for while it goes on
    GET /subscriptions?of=TARGET                 what flows wait for now: events, and steps that wait for others
    GET /explain?of=TARGET&seconds=30            events that a target nearly took, as they happen: one JSON line each

The last one is an answer that goes on for as long as was asked (`runtime.jsonlines`).

Handlers run in greenlets and read the engine between two of its turns; what they return is copied, not shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import falcon

from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.trace import Trace, facts, summary
from orchestrator.flow.tools.explain import Explainer, waiting
from orchestrator.runtime.jsonlines import answer_lines
from orchestrator.runtime.query import Query

LISTED = 20
"""Runs in a list unless asked for more."""
MOST = 1000
"""Entries in any answer."""
SECONDS = 30.0
LONGEST = 600.0
"""Seconds an explanation may go on."""


def add_routes(app: falcon.App[Any, Any], engine: FlowEngine, wall_offset: Callable[[], float]) -> None:
    """Serve the above. `wall_offset()` is what the engine's clock lacks to the time of day."""
    app.add_route("/traces", _Runs(engine, wall_offset))
    app.add_route("/traces/{run}", _Run(engine, wall_offset))
    app.add_route("/subscriptions", _Subscriptions(engine))
    app.add_route("/explain", _Explanations(engine))


def _newest(engine: FlowEngine) -> Iterator[tuple[Trace, bool]]:
    """Traces with whether their run goes on; live ones first, then by when they began."""
    for run in sorted(engine.runs.values(), key=lambda run: -run.id):
        yield Trace.of(run), True
    kept = (trace for trace in engine.traces if trace.records)
    for trace in sorted(kept, key=lambda trace: -trace.records[0].time):
        yield trace, False


class _Runs:
    def __init__(self, engine: FlowEngine, wall_offset: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_offset = wall_offset

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        query = Query(request, "failed", "flow", "limit")
        failed, flow, limit = query.flag("failed"), query.text("flow", ""), query.whole("limit", LISTED, MOST)
        found = []
        for trace, running in _newest(self._engine):
            if (trace.error or not failed) and flow in ("", trace.flow):
                found.append(summary(trace, running, self._wall_offset()))
            if len(found) == limit:
                break
        response.media = {"runs": found}


class _Run:
    def __init__(self, engine: FlowEngine, wall_offset: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_offset = wall_offset

    def on_get(self, _: falcon.Request, response: falcon.Response, run: str) -> None:
        for trace, running in _newest(self._engine):
            if trace.run == run:
                told = summary(trace, running, self._wall_offset())
                waits = waiting(self._engine, run, monotonic()) if running else []
                left = {"dropped": trace.dropped, "left_out": trace.left_out}
                response.media = {**told, **left, "records": list(facts(trace)), "waiting": waits}
                return
        raise falcon.HTTPNotFound(title="unknown run", description=f"no trace of {run} is kept")


class _Subscriptions:
    def __init__(self, engine: FlowEngine) -> None:
        self._engine = engine

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        found = waiting(self._engine, Query(request, "of").text("of", ""), monotonic())
        response.media = {"total": len(found), "subscriptions": found[:MOST]}


class _Explanations:
    def __init__(self, engine: FlowEngine) -> None:
        self._explainer = Explainer(engine)

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        answer_lines(request, response, self._explainer, SECONDS, LONGEST)
