"""Calls as traces, taken by a collector of the test that reads OTLP with OpenTelemetry's own messages."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from pydantic import ValidationError

from orchestrator.errors import StepError
from orchestrator.fact_kinds import CallLeg, CallRecord, JobDone, TraceWritten
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import Http
from orchestrator.integrations.otel import spans as spans_module
from orchestrator.integrations.otel.otlp import Collector
from orchestrator.integrations.otel.spans import CallTraces, Span, span_of, trace_of
from orchestrator.integrations.otel.telemetry import OtelSettings, Telemetry
from orchestrator.testing.services import FakeServer
from orchestrator.testing.switch.server import VirtualFreeSwitch
from orchestrator.testing.world import World

FLOW = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}
flows:
  main:
    on: invite
    do:
      - http: {url: 'https://user:geheim@api.example.com/token/t0p?key=s3cret', method: POST}
        on_error: []
      - fs.api: {command: status, server: fs1}
      - relay: {to: registered, ring: 30s}
        on: {else: [reply: 480]}
"""


class Web(BaseHTTPRequestHandler):
    """A collector: what it is sent, and the answers it gives, those of `answers` first."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        server: Any = self.server
        server.requests.append((self.path, dict(self.headers), body))
        status, headers, content = server.answers.pop(0) if server.answers else (200, {}, b"")
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.requests, server.answers, server.daemon_threads = [], [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def decoded(web: Any) -> list[Any]:
    """The spans of all requests."""
    found = []
    for path, headers, body in web.requests:
        assert path == "/v1/traces" and headers["content-type"] == "application/x-protobuf"
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert [(each.key, each.value.string_value) for each in group.resource.attributes] == [
                ("service.name", "sbc")
            ]
            found += [span for scope in group.scope_spans for span in scope.spans]
    return found


class Stage:
    def __init__(self, endpoint: str = "http://127.0.0.1:9", **settings: Any) -> None:
        program, _ = load_sources([Source("f.flow.yaml", FLOW)])
        trust = (ip_network("10.0.0.9/32"),)
        self.world = World(program, freeswitch={"fs1": "sip:10.0.0.9:5080"}, trust=trust, wall=1_700_000_000.0)
        self.switch = VirtualFreeSwitch.in_world(self.world, "fs1", ("10.0.0.9", 5080))
        self.requests: list[Http] = []
        self.world.on_job = self.perform
        self.server = FakeServer("otel")
        self.server.wall_offset = self.world.settings.wall_offset
        given = {"endpoint": endpoint, "service_name": "sbc", **settings}
        self.otel = Telemetry(self.server, OtelSettings.model_validate(given))
        self.otel.start()
        self.world.engine.request_marks = tuple(self.server.request_marks.items())
        for kind in (CallLeg, TraceWritten, JobDone, CallRecord):
            self.world.engine.history.listen(kind, lambda fact: self.otel.take([fact]))

    def perform(self, job: Any) -> Any:
        if isinstance(job.effect, Http):
            self.requests.append(job.effect)
            done = (job.id, StepError("http.timeout", "no answer"))
            self.switch.after(0.2, lambda: self.world.engine.complete(*done, self.world.now))
            return World.LATER
        return self.switch.perform(job)

    def call(self) -> str:
        """One that is answered after a second and lasts two."""
        world = self.world
        bob = world.phone("bob@example.com", "10.0.0.3")
        bob.on_invite = lambda call: call.ring()
        bob.register()
        world.run(0.1)
        call = world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
        world.run(1)
        bob.calls[-1].answer()
        world.run(2)
        call.hangup()
        world.run(40)
        return call.call_id.decode()


def test_a_call_is_one_trace_with_its_steps_and_the_work_outside(web: Any) -> None:
    stage = Stage(web.url)
    call_id = stage.call()
    stage.otel.stop()
    found = {span.name: span for span in decoded(web)}
    assert list(found) == ["http POST", "fs.api status", "relay", "call main"]
    root = found["call main"]
    assert len({span.trace_id for span in found.values()}) == 1 and len({span.span_id for span in found.values()}) == 4
    assert {span.parent_span_id for name, span in found.items() if name != "call main"} == {root.span_id}
    assert root.parent_span_id == b""
    told = {each.key: each.value for each in root.attributes}
    assert told["sip.call_id"].string_value == call_id and told["flow"].string_value == "main"
    assert told["sip.code"].int_value == 200 and told["ended_by"].string_value == "caller"
    assert told["answered"].bool_value and told["duration"].double_value == pytest.approx(2, abs=0.1)
    seconds = {name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for name, span in found.items()}
    assert seconds["http POST"] == pytest.approx(0.2, abs=0.05) and seconds["relay"] == pytest.approx(0.8, abs=0.3)
    assert seconds["call main"] == pytest.approx(3, abs=0.3)
    assert 1_700_000_000 < root.start_time_unix_nano / 1e9 < 1_700_000_100
    assert found["http POST"].status.code == 2 and found["http POST"].status.message == "http.timeout"
    assert root.status.code == 0
    assert any("relay to" in event.name for event in root.events)
    assert stage.server.read("spans_sent") == 4


def test_no_secret_leaves(web: Any) -> None:
    stage = Stage(web.url)
    stage.call()
    stage.otel.stop()
    everything = b"".join(body for _, _, body in web.requests)
    assert b"api.example.com" in everything
    for secret in (b"geheim", b"t0p", b"s3cret"):
        assert secret not in everything


def test_web_requests_say_which_trace_they_belong_to(web: Any) -> None:
    stage = Stage(web.url)
    stage.call()
    stage.otel.stop()
    (span,) = (span for span in decoded(web) if span.name == "http POST")
    (request,) = stage.requests
    assert request.headers == {"traceparent": f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"}
    silent = Stage(web.url, propagate="off")
    silent.call()
    assert silent.requests[0].headers == {}


def test_a_header_of_the_flow_wins_and_a_bug_costs_no_request() -> None:
    stage = Stage()
    bugs: list[Exception] = []
    stage.world.engine.history.on_fault = bugs.append
    stage.world.engine.request_marks = (("traceparent", lambda call, number: str(1 // 0)),)
    stage.call()
    assert stage.requests[0].headers == {} and [type(bug) for bug in bugs] == [ZeroDivisionError]


def test_a_sample_is_whole_calls() -> None:
    taken = [call for call in map(str, range(2000)) if CallTraces(0.1, float, [].append).takes(call)]
    assert 130 < len(taken) < 280
    traces = CallTraces(0.1, float, list[Span]().append)
    for call in map(str, range(2000)):
        traces.leg(CallLeg(call, call.encode(), call.encode()))
        assert bool(traces.traceparent(call, 1)) == (call in taken)
    assert len(traces) == len(taken)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "MOST_CALLS", 3)
    monkeypatch.setattr(spans_module, "MOST_SPANS", 5)
    done: list[Span] = []
    traces = CallTraces(1, float, done.append)
    for number in range(5):
        traces.leg(CallLeg(str(number), b"c%d" % number, b"c%d" % number))
    assert len(traces) == 3 and traces.left_out == 2
    for number in range(20):
        traces.job(JobDone(number, "c0", "fs.execute playback", {}, 1.0, 2.0, ""))
    assert len(done) == 5
    assert {span.trace for span in done} == {trace_of("0")} and done[3].id == span_of("0", 3)


def test_a_collector_that_is_busy_gone_and_back(web: Any) -> None:
    stage = Stage(web.url)
    collector = stage.otel.collector
    web.answers += [(503, {"retry-after": "7"}, b""), (429, {}, b""), (200, {}, b"")]
    collector.put(Span(b"t" * 16, b"s" * 8, b"", "call", 2, 1.0, 2.0))
    assert not collector.send() and (collector.pause, collector.trouble) == (7.0, "it answers 503")
    assert not collector.send() and collector.pause == 14.0
    assert stage.server.complaints() == [f"{web.url}/v1/traces: it answers 429"]
    assert collector.send() and collector.trouble == "" and collector.waiting == 0 and collector.sent == 1
    assert len({body for _, _, body in web.requests}) == 1, "the same each time"
    assert [text for _, text, _ in stage.server.lines] == ["otel_down", "otel_down", "otel_up"]


def test_what_a_collector_refuses_is_counted_and_not_sent_again(web: Any) -> None:
    stage = Stage(web.url)
    collector = stage.otel.collector
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    web.answers += [(400, {}, b"no"), (200, {}, partial.SerializeToString())]
    for _ in range(2):
        for number in range(3):
            collector.put(Span(b"t" * 16, bytes([number] * 8), b"", "call", 2, 1.0, 2.0))
        assert collector.send()
    assert (collector.refused, collector.sent, collector.waiting) == (5, 1, 0)


def test_one_that_nobody_takes_costs_memory_up_to_the_bound() -> None:
    stage = Stage("http://127.0.0.1:9", queue=100)
    for number in range(300):
        stage.otel.collector.put(Span(b"t" * 16, number.to_bytes(8), b"", "call", 2, 1.0))
    assert not stage.otel.collector.send() and "refused" in stage.otel.collector.trouble
    assert stage.server.read("spans_waiting") == 100 and stage.server.read("spans_dropped") == 200


def test_text_that_is_none_is_written_all_the_same(web: Any) -> None:
    stage = Stage(web.url)
    stage.otel.collector.put(Span(b"t" * 16, b"s" * 8, b"", "a\udcff", 2, 1.0, 2.0, {"from": "\udcff", "n": 1.5}))
    assert stage.otel.collector.send()
    assert decoded(web)[0].name == "a?"


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://c", "http://", "http://c/?x", ""])
def test_a_wrong_endpoint_is_told(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="not the address of a collector"):
        OtelSettings.model_validate({"endpoint": endpoint})


def test_an_endpoint_may_have_a_path_of_its_own() -> None:
    settings = OtelSettings.model_validate({"endpoint": "https://c/otlp/v1/traces", "headers": {"api-key": "geheim"}})
    assert settings.endpoint == "https://c/otlp/v1/traces" and "geheim" not in repr(settings)


def test_without_the_extra_one_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ValidationError, match="the library opentelemetry-proto is not installed") as refused:
        OtelSettings.model_validate({"endpoint": "http://127.0.0.1:4318"})
    assert refused.value.errors()[0]["ctx"]["error"].help == "pip install 'orchestrator[otel]'"


def test_an_answer_without_end_is_not_read() -> None:
    server, sent = socket.create_server(("127.0.0.1", 0)), 0

    def answer() -> None:
        nonlocal sent
        made, _ = server.accept()
        with made:
            made.recv(65_536)
            made.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
            try:
                while sent < 200_000_000:
                    made.sendall(b"x" * 1_000_000)
                    sent += 1_000_000
            except OSError:
                pass

    thread = threading.Thread(target=answer)
    thread.start()
    told: list[str] = []
    collector = Collector(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces", "sbc", {}, 30.0, 100, told.append)
    collector.put(Span(b"t" * 16, b"s" * 8, b"", "call", 1, 0.0))
    assert collector.send()
    thread.join()
    server.close()
    assert sent < 200_000_000
    assert (collector.sent, collector.waiting) == (1, 0)
