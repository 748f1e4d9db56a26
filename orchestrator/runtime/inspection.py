"""Looking into a running server over HTTP: traces, live subscriptions, explanations. JSON, read only.

    GET /traces?failed=1&flow=NAME&limit=20      runs, the newest first, those that still go on included
    GET /traces/RUN                              one of them with its lines, and what it waits for while it goes on
    GET /subscriptions?of=TARGET                 what flows wait for now: events, and steps that wait for others
    GET /explain?of=TARGET&seconds=30            events that a target nearly took, as they happen: one JSON line each

The last one is an answer that goes on for as long as was asked. It is the connection that keeps the bus watched: when
the client goes away, or its time is over, events cost what they did before. There is nothing to switch off and nothing
to forget.

Handlers run in greenlets and read the engine between two of its turns; what they return is copied, not shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import isfinite
from time import monotonic
from typing import Any

import falcon
from gevent.queue import Empty, Full, Queue

from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.trace import Trace, facts, summary
from orchestrator.flow.tools.explain import Explainer, TooManyError, waiting

LISTED = 20
"""Runs in a list unless asked for more."""
MOST = 1000
"""Entries in any answer."""
SECONDS = 30.0
LONGEST = 600.0
"""Seconds an explanation may go on."""
BEAT = 1.0
"""Seconds between two empty lines of an explanation: that is how a client that has gone away is noticed."""
BACKLOG = 1000
"""Verdicts that may wait for a slow client; later ones are dropped and counted in the last line."""


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
        failed = request.get_param_as_bool("failed", default=False)
        flow = request.get_param("flow", default="")
        limit = request.get_param_as_int("limit", min_value=1, max_value=MOST, default=LISTED)
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
        found = waiting(self._engine, request.get_param("of", default=""), monotonic())
        response.media = {"total": len(found), "subscriptions": found[:MOST]}


class _Explanations:
    def __init__(self, engine: FlowEngine) -> None:
        self._explainer = Explainer(engine)

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        target = request.get_param("of", required=True)
        seconds = request.get_param_as_float("seconds", min_value=0.0, max_value=LONGEST, default=SECONDS)
        if not isfinite(seconds):
            raise falcon.HTTPInvalidParam("The value must be a number of seconds.", "seconds")
        try:
            response.stream = _Watch(self._explainer, target, seconds)
        except TooManyError:
            raise falcon.HTTPServiceUnavailable(
                title="too many explanations", description="others are being shown already", retry_after=30
            ) from None
        response.content_type = "application/x-ndjson"


class _Watch:
    """The body of an explanation: verdicts as they come, an empty line when there is none for a while, a last line with
    their number. The web server calls `close`, also when the client has gone before the first line."""

    def __init__(self, explainer: Explainer, target: str, seconds: float) -> None:
        self._verdicts: Queue[dict[str, Any]] = Queue(BACKLOG)
        self._explainer = explainer
        self._end = monotonic() + seconds
        self._told = self._dropped = 0
        self._state = "begins"
        self._number = explainer.open(target, self._tell)

    def _tell(self, verdict: dict[str, Any]) -> None:
        try:
            self._verdicts.put_nowait(verdict)
        except Full:
            self._dropped += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._state == "begins":
            self._state = "goes on"
            return b"\n"  # so that the client sees that it is being watched
        if self._state == "ended":
            raise StopIteration
        left = self._end - monotonic()
        if left <= 0 and not self._verdicts.qsize():
            self._state = "ended"
            return json.dumps({"end": True, "told": self._told, "dropped": self._dropped}).encode() + b"\n"
        try:
            verdict = self._verdicts.get(timeout=max(0.0, min(BEAT, left)))
        except Empty:
            return b"\n"
        self._told += 1
        return json.dumps(verdict).encode() + b"\n"

    def close(self) -> None:
        self._explainer.close(self._number)
