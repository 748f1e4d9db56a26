"""Flows: what is loaded, one flow with how often each step ran, and runs."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Any

import falcon
from markupsafe import Markup

from orchestrator.api.problems import unknown
from orchestrator.console.console_page import ConsolePage, breathe, fragment
from orchestrator.console.live import Fragments
from orchestrator.flow.language.program import Flow
from orchestrator.flow.run.run import Run as LiveRun
from orchestrator.flow.tools.explain import waiting
from orchestrator.flow.tools.graph import graph_of
from orchestrator.flow.tools.svg import svg
from orchestrator.views.flow_graph import graph_with_counts
from orchestrator.views.flow_list import find_flow, flow_details, flows
from orchestrator.views.run_list import find_run, run_details, runs
from orchestrator.views.step_counts import step_counts

RUNS = 20
"""Shown on a page."""
EVERY = 3.0
"""Seconds between two drawings of a flow: all runs that are kept are looked at for it."""


class Flows(ConsolePage):
    """`/flows`"""

    here = "/flows"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        engine = self.desk.engine
        warnings = [
            {"place": f"{found.file}:{found.line}:{found.column}", "message": found.message, "file": found.file}
            for found in self.desk.warnings()
        ]
        by_file = Counter(found["file"] for found in warnings)
        rows = [{**flow, "warnings": by_file[flow["file"]]} for flow in flows(engine)]
        failed = runs(engine, failed=True).page(RUNS, "", breathe).items
        self.show(request, response, "flows.html", flows=rows, warnings=warnings, runs=failed)


class OneFlow(ConsolePage):
    """`/flows/{name}`, `/flows/{name}/live` and `/flows/{name}/graph.svg`."""

    here = "/flows"

    def on_get(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        flow = self._flow(name)
        self.show(request, response, "flow.html", flow=flow_details(self.desk.engine, flow), parts=self._draw(name))

    def on_get_live(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        self._flow(name)
        self.follow(request, response, f"flow {name}", lambda: self._draw(name), every=EVERY, throttle=EVERY)

    def on_get_graph(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        flow = self._flow(name)
        response.content_type = "image/svg+xml"
        response.text = svg(graph_of(flow))

    def _flow(self, name: str) -> Flow:
        found = find_flow(self.desk.engine, name)
        if found is None:
            raise unknown("flow", name, "flows are read again at a reload: this one may have gone")
        return found

    def _draw(self, name: str) -> Fragments | None:
        engine = self.desk.engine
        flow = find_flow(engine, name)
        if flow is None:
            return None
        details = flow_details(engine, flow)
        counts = step_counts(engine, flow, breathe)
        parts = {"flow-graph": Markup(graph_with_counts(flow, counts.lines))}  # noqa: S704 - texts in it are escaped
        breathe()
        parts["flow-source"] = fragment("flow_source.html", lines=details["source"], first=1, counts=counts.lines)
        breathe()
        newest = runs(engine, flow=name).page(RUNS, "", breathe).items
        parts["flow-runs"] = fragment("runs_table.html", runs=newest)
        return parts


class Run(ConsolePage):
    """`/runs/{run}`, `/runs/{run}/test` and `/runs/{run}/test.yaml`."""

    here = "/flows"

    def on_get(self, request: falcon.Request, response: falcon.Response, run: str) -> None:
        desk, found = self.desk, self._run(run)
        told = run_details(desk.engine, found)
        if isinstance(found, LiveRun):
            told["waiting"] = waiting(desk.engine.flows, found.name, desk.now, breathe)
        self.show(request, response, "run.html", run=told)

    def on_get_test(self, request: falcon.Request, response: falcon.Response, run: str) -> None:
        case, file = self._case(run)
        self.show(request, response, "run_test.html", run=run, case=case, file=file)

    def on_get_download(self, request: falcon.Request, response: falcon.Response, run: str) -> None:
        case, file = self._case(run)
        response.content_type = "text/yaml; charset=utf-8"
        response.downloadable_as = file
        response.text = case

    def _run(self, name: str) -> Any:
        found = find_run(self.desk.engine, name)
        if found is None:
            raise unknown("run", name, "the last few hundred runs are kept, and failed ones longer")
        return found

    def _case(self, run: str) -> tuple[str, str]:
        """The test, and the file it belongs in: beside that of the flow."""
        trace = run_details(self.desk.engine, self._run(run))
        stem = PurePath(str(trace["file"])).name.partition(".")[0] or "call"
        return self.desk.shown.case_of(trace), f"{stem}.test.yaml"
