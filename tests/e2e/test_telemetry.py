"""The server with a collector beside it: a call arrives there as a trace, and its web request names that trace."""

from __future__ import annotations

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

FLOW = """flowlang: 1
flows:
  all:
    on: invite
    do:
      - http: '%s/who'
      - relay: registered
"""


class Web(BaseHTTPRequestHandler):
    """A collector and a web service in one."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        found = ExportTraceServiceRequest.FromString(body).resource_spans
        self._answer([span for group in found for scope in group.scope_spans for span in scope.spans])

    def do_GET(self) -> None:
        self._answer([self.headers["traceparent"]])

    def _answer(self, heard: list[Any]) -> None:
        server: Any = self.server
        server.heard += heard
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        pass


def test_a_call_arrives_as_a_trace(serve: Any, tmp_path: Any) -> None:
    web: Any = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    web.heard, web.daemon_threads = [], True
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://127.0.0.1:{web.server_port}"
    flow = tmp_path / "all.flow.yaml"
    flow.write_text(FLOW % url)
    server = serve(flows=[str(flow)], services={"otel": {"endpoint": url, "every": "200ms"}})
    alice, bob = (SocketPhone(f"{name}@example.com", server.sip) for name in ("alice", "bob"))
    bob.on_invite = PhoneCall.answer
    try:
        assert wait_until(lambda: [bob.register()] and wait_until(lambda: bob.registered, 1), 60)
        call = alice.invite("bob@example.com")
        assert wait_until(lambda: call.state == "answered", 30)
        call.hangup()
        spans: dict[str, Any] = {}
        assert wait_until(
            lambda: (
                spans.update({one.name: one for one in web.heard if not isinstance(one, str)}) or "call all" in spans
            ),
            60,
        )
        assert spans.keys() == {"http GET", "relay", "call all"}
        (parent,) = (one for one in web.heard if isinstance(one, str))
        http = spans["http GET"]
        assert parent == f"00-{http.trace_id.hex()}-{http.span_id.hex()}-01"
        assert http.parent_span_id == spans["relay"].parent_span_id == spans["call all"].span_id
        with urllib.request.urlopen("http://{}:{}/metrics".format(*server.admin), timeout=30) as answer:
            assert b"orchestrator_service_otel_spans_sent_total 3.0" in answer.read()
    finally:
        for each in (alice, bob):
            each.close()
        web.shutdown()
        thread.join()
        web.server_close()
