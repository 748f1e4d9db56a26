"""What the API tells of a running server: the endpoints that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from orchestrator.api.endpoint import Asked, Endpoint, Parameter, breathe
from orchestrator.api.problems import Problem, unknown
from orchestrator.api.schemas import STATUS, ref
from orchestrator.api.streams import begin_stream
from orchestrator.archive.ended_calls import EndedCalls
from orchestrator.core.engine import Engine
from orchestrator.flow.language.program import Flow
from orchestrator.flow.run.run import Run
from orchestrator.flow.tools.explain import Explainer
from orchestrator.history import CallRecord
from orchestrator.runtime.admin import Health
from orchestrator.runtime.jsonlines import Watchable, answer_lines
from orchestrator.runtime.siptrace import SipTrace
from orchestrator.sip.admission import Admission, Source
from orchestrator.views.call_history import CallHistory
from orchestrator.views.call_list import STATES, call_details, ended_details, find_call, live_calls
from orchestrator.views.event_catalogue import event_catalogue
from orchestrator.views.flow_graph import graph_with_counts
from orchestrator.views.flow_list import find_flow, flow_details, flows
from orchestrator.views.gateway_list import gateways
from orchestrator.views.listing import Listing, Page
from orchestrator.views.node_status import Identity, Samples, status
from orchestrator.views.registration_list import registration, registrations
from orchestrator.views.run_list import find_run, run_details, runs
from orchestrator.views.server_list import servers
from orchestrator.views.shown_values import iso
from orchestrator.views.step_counts import step_counts
from orchestrator.views.subscription_list import subscriptions
from orchestrator.views.unfired import unfired

SVG, LINES = "image/svg+xml", "application/x-ndjson"
EXPLAIN, LONGEST_EXPLAIN = 30.0, 600.0
TRACE, LONGEST_TRACE = 60.0, 3600.0
"""Seconds that an answer goes on unless asked otherwise, and at most."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown: one engine, and what stands around it."""

    engine: Engine
    identity: Identity
    health: Health
    samples: Samples
    siptrace: SipTrace
    case_of: Callable[[Mapping[str, Any]], str]
    """The test that a trace makes."""
    history: CallHistory
    ended: EndedCalls
    clock: Callable[[], float] = monotonic


def read_endpoints(shown: Shown) -> tuple[Endpoint, ...]:
    """Those of one server."""
    reads = _Reads(shown)
    of = Parameter("of", "An address, a number or a part of one.")
    flow = Parameter("flow", "Name of a flow.")
    state = Parameter("state", "State of the call.", choices=STATES)
    failed = Parameter("failed", "Only runs that ended in an error.", "flag")
    target = Parameter("of", "A run, a subscription by its id, or a flow.", required=True)
    seen = Parameter("of", "An address of record, a number, or a network address.", required=True)
    return (
        Endpoint("GET", "status", "How this node is.", reads.status, answer=STATUS),
        Endpoint("GET", "calls", "Calls that live.", reads.calls, (state, of, flow), ref("Call"), lists=True),
        Endpoint("GET", "calls/{id}", "One call.", reads.call, answer=ref("CallDetails")),
        Endpoint(
            "GET",
            "registrations",
            "Addresses of record with their contacts.",
            reads.registrations,
            (of,),
            ref("Registration"),
            lists=True,
        ),
        Endpoint(
            "GET",
            "registrations/{aor:path}",
            "The contacts of one address of record.",
            reads.registration,
            answer=ref("Registration"),
        ),
        Endpoint("GET", "flows", "The flows that new calls run.", reads.flows, answer=ref("Flow"), lists=True),
        Endpoint("GET", "flows/{name}", "One flow with its steps.", reads.flow, answer=ref("FlowDetails")),
        Endpoint("GET", "flows/{name}/graph.svg", "One flow, drawn.", reads.graph, media=SVG),
        Endpoint("GET", "runs", "Runs, the newest first.", reads.runs, (failed, flow), ref("Run"), lists=True),
        Endpoint("GET", "runs/{run}", "One run with its trace.", reads.run, answer=ref("RunDetails")),
        Endpoint("GET", "runs/{run}/test", "One run as a test.", reads.test, media="text/yaml; charset=utf-8"),
        Endpoint(
            "GET",
            "subscriptions",
            "What flows wait for now.",
            reads.subscriptions,
            (Parameter("of", target.doc),),
            ref("Waiting"),
            lists=True,
        ),
        Endpoint(
            "GET",
            "explain",
            "Events that a target nearly took, as they happen: one JSON object on each line.",
            reads.explain,
            (target, Parameter("seconds", "How long.", "seconds", default=EXPLAIN, most=LONGEST_EXPLAIN)),
            media=LINES,
        ),
        Endpoint(
            "GET",
            "siptrace",
            "SIP messages as they pass: one JSON object on each line.",
            reads.siptrace,
            (seen, Parameter("seconds", "How long.", "seconds", default=TRACE, most=LONGEST_TRACE)),
            media=LINES,
        ),
        Endpoint(
            "GET", "gateways", "Gateways, and which take calls.", reads.gateways, answer=ref("Gateway"), lists=True
        ),
        Endpoint("GET", "servers", "FreeSWITCH servers.", reads.servers, answer=ref("Server"), lists=True),
        Endpoint(
            "GET", "events/catalogue", "Events that flows know.", reads.catalogue, answer=ref("EventSpec"), lists=True
        ),
        Endpoint("GET", "bans", "Sources that are not listened to.", reads.bans, answer=ref("Ban"), lists=True),
    )


def from_archive(ended: EndedCalls, call: str) -> tuple[CallRecord, dict[str, Any]] | None:
    """Record and history of a call on disk. Raises Problem: the archive cannot be read."""
    try:
        return ended.find(call)
    except OSError as error:
        raise unreadable(error) from None


def unreadable(error: OSError) -> Problem:
    """The archive is there and cannot be read."""
    return Problem(
        503, "archive.unreadable", "the archive cannot be read", str(error), "look at /readyz and at the disk"
    )


class _Reads:
    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._engine = shown.engine
        self._now = shown.clock
        self._explainer = Explainer(shown.engine.flows)

    def status(self, asked: Asked) -> dict[str, Any]:
        shown = self._shown
        health = shown.health
        return status(
            self._engine, shown.identity, shown.samples, self._now(), health.complaints(), health.degradations()
        )

    def calls(self, asked: Asked) -> Page:
        state, of, flow = asked.text("state"), asked.text("of"), asked.text("flow")
        return asked.page(live_calls(self._engine, self._now(), state, of, flow))

    def call(self, asked: Asked) -> dict[str, Any]:
        id = asked.path["id"]
        found, kept = find_call(self._engine, id), self._shown.history.find(id)
        if found is not None:
            told = call_details(self._engine, found, self._now())
        elif kept is not None and kept.record is not None:
            told = ended_details(kept.record)
        elif (archived := from_archive(self._shown.ended, id)) is not None:
            items = archived[1].get("items", ())
            return {**ended_details(archived[0]), "messages": sum(item["kind"] == "message" for item in items)}
        else:
            cure = "GET /api/v1/calls lists those that live, GET /api/v1/archive/calls the last ones"
            raise unknown("call", id, cure)
        return {**told, "messages": 0 if kept is None else sum(1 for _ in kept.messages)}

    def registrations(self, asked: Asked) -> Page:
        return asked.page(registrations(self._engine, self._now(), asked.text("of")))

    def registration(self, asked: Asked) -> dict[str, Any]:
        aor = self._engine.network.home_aor(asked.path["aor"])
        told = registration(self._engine, aor, self._now())
        if not told["contacts"]:
            raise unknown("registration", aor, "GET /api/v1/registrations lists those that are there")
        return told

    def flows(self, asked: Asked) -> Page:
        return asked.page(_plain(flows(self._engine)))

    def flow(self, asked: Asked) -> dict[str, Any]:
        flow = self._found_flow(asked)
        counts = step_counts(self._engine, flow, breathe)
        return {**flow_details(self._engine, flow, counts), "runs_counted": counts.runs}

    def graph(self, asked: Asked) -> str:
        flow = self._found_flow(asked)
        return graph_with_counts(flow, step_counts(self._engine, flow, breathe).lines)

    def _found_flow(self, asked: Asked) -> Flow:
        found = find_flow(self._engine, asked.path["name"])
        if found is None:
            raise unknown("flow", asked.path["name"], "GET /api/v1/flows lists them")
        return found

    def runs(self, asked: Asked) -> Page:
        return asked.page(runs(self._engine, bool(asked.values["failed"]), asked.text("flow")))

    def run(self, asked: Asked) -> dict[str, Any]:
        found, engine = self._found_run(asked), self._engine
        told = run_details(engine, found)
        if isinstance(found, Run):
            told["waiting"] = unfired(engine, self._shown.history, found, self._now())
        return told

    def test(self, asked: Asked) -> str:
        return self._shown.case_of(run_details(self._engine, self._found_run(asked)))

    def _found_run(self, asked: Asked) -> Any:
        found = find_run(self._engine, asked.path["run"])
        if found is None:
            raise unknown("run", asked.path["run"], "the last runs are kept: GET /api/v1/runs lists them")
        return found

    def subscriptions(self, asked: Asked) -> Page:
        return asked.page(subscriptions(self._engine, asked.text("of"), self._now(), breathe))

    def explain(self, asked: Asked) -> None:
        _lines(asked, self._explainer, EXPLAIN, LONGEST_EXPLAIN)

    def siptrace(self, asked: Asked) -> None:
        _lines(asked, self._shown.siptrace, TRACE, LONGEST_TRACE)

    def gateways(self, asked: Asked) -> Page:
        return asked.page(_plain(gateways(self._engine)))

    def servers(self, asked: Asked) -> Page:
        return asked.page(_plain(servers(self._engine)))

    def catalogue(self, asked: Asked) -> Page:
        return asked.page(_plain(event_catalogue(self._engine)))

    def bans(self, asked: Asked) -> Page:
        admission, now = self._engine.admission, self._now()
        offset = self._engine.settings.wall_offset
        banned = list(admission.banned(now))
        return asked.page(
            Listing(banned, lambda source: _ban(admission, source, now, offset), lambda source: source.name)
        )


def _lines(asked: Asked, source: Watchable[Any], seconds: float, longest: float) -> None:
    begin_stream(asked.request)
    answer_lines(asked.request, asked.response, source, seconds, longest)


def _plain(found: Sequence[dict[str, Any]]) -> Listing[dict[str, Any]]:
    """A short list that is there already."""
    return Listing(found, lambda item: item, lambda item: str(item["name"]))


def _ban(admission: Admission, source: Source, now: float, offset: float) -> dict[str, Any]:
    return {
        "source": source.name,
        "class": "proved" if admission.is_proved(source, now) else "stranger",
        "reason": source.banned_for,
        "since": iso(source.banned_since + offset),
        "until": iso(source.banned_until + offset),
    }
