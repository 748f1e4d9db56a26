"""Runs of flows: those that go on, and the last ones that are over, with their traces."""

from __future__ import annotations

from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import Trace, facts, summary
from orchestrator.views.listing import Listing
from orchestrator.views.shown_values import iso


def runs(engine: Engine, failed: bool = False, flow: str = "") -> Listing[Run | Trace]:
    """The newest first, those that go on before; `failed`: those that ended in an error."""
    live = [run for _, run in sorted(engine.flows.runs.items(), reverse=True)]
    kept = [trace for trace in engine.flows.traces if trace.records]
    kept.sort(key=lambda trace: -trace.records[0].time)

    def match(found: Run | Trace) -> bool:
        name = found.flow.name if isinstance(found, Run) else found.flow
        return bool(found.error or not failed) and flow in ("", name)

    return Listing([*live, *kept], lambda found: _row(engine, found), _name, match if failed or flow else None)


def find_run(engine: Engine, name: str) -> Run | Trace | None:
    """The run of this name, as long as anything is kept of it."""
    number = name.rpartition("#")[2]
    run = engine.flows.runs.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 19 else None
    return run if run is not None and run.name == name else engine.flows.traces.find(name)


def run_details(engine: Engine, found: Run | Trace) -> dict[str, Any]:
    """One run with the lines of its trace. `waiting` is empty: `unfired` says what a run waits for."""
    trace = _trace(found)
    return {
        **_row(engine, found),
        "dropped": trace.dropped,
        "left_out": trace.left_out,
        "records": list(facts(trace)),
        "waiting": [],
    }


def _row(engine: Engine, found: Run | Trace) -> dict[str, Any]:
    told = summary(_trace(found), isinstance(found, Run), engine.settings.wall_offset)
    return {**told, "started": iso(told["started"])}


def _trace(found: Run | Trace) -> Trace:
    return Trace.of(found) if isinstance(found, Run) else found


def _name(found: Run | Trace) -> str:
    """A run that has ended stands further down: for a cursor it is another one."""
    return f"{found.name} goes on" if isinstance(found, Run) else found.run
