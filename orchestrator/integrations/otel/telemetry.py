"""The service `otel`: calls as traces, to a collector by OTLP over HTTP.

services:
  otel: {endpoint: 'http://collector.example.com:4318'}
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import gevent
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SecretStr, model_validator

from orchestrator.fact_kinds import CallLeg, CallRecord, JobDone, TraceWritten
from orchestrator.integrations.otel.spans import CallTraces
from orchestrator.packages.service import ServerContext, Service
from orchestrator.packages.setting_types import Duration, InvalidValue, Switch, parse_text

S = TypeVar("S", bound="OtelSettings")

QUEUE = 20_000
"""Facts that may wait."""
TURN = 100
"""Facts taken until others have their turn."""
FINISH = 2.0
"""Seconds that a stop may take to send what waits."""


def parse_endpoint(value: Any) -> str:
    """The address of a collector, with the path of traces."""
    text = parse_text(value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidValue(f"{text!r} is not the address of a collector", "write http://collector.example.com:4318")
    return text if parts.path.strip("/") else f"{text.rstrip('/')}/v1/traces"


class OtelSettings(BaseModel):
    """What stands under `services: {otel: {...}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    endpoint: Annotated[str, PlainValidator(parse_endpoint)]
    service_name: str = Field("orchestrator", min_length=1, max_length=100)
    sample: float = Field(1.0, gt=0, le=1)
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)
    propagate: Switch = True
    every: Duration = 2.0
    timeout: Duration = 10.0
    queue: int = Field(20_000, ge=100, le=1_000_000)

    @model_validator(mode="after")
    def _installed(self: S) -> S:
        try:
            import opentelemetry.proto.trace.v1.trace_pb2  # noqa: F401 - an optional dependency
        except ModuleNotFoundError:
            message = "the library opentelemetry-proto is not installed"
            raise InvalidValue(message, "pip install 'orchestrator[otel]'") from None
        return self


class Telemetry:
    """Facts become spans in one greenlet, another one sends them."""

    def __init__(self, server: ServerContext, settings: OtelSettings) -> None:
        from orchestrator.integrations.otel.otlp import Collector

        self._server = server
        self._settings = settings
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self.collector = Collector(
            settings.endpoint, settings.service_name, headers, settings.timeout, settings.queue, self._told
        )
        self.traces = CallTraces(settings.sample, server.wall, self.collector.put)

    def start(self) -> None:
        server, collector = self._server, self.collector
        if self._settings.propagate:
            server.mark_requests("traceparent", self.traces.traceparent)
        server.follow((CallLeg, TraceWritten, JobDone, CallRecord), self.take, QUEUE)
        server.spawn(self._send)
        server.counter("spans_sent", "Spans that the collector has taken.", lambda: collector.sent)
        server.counter("spans_dropped", "Spans dropped because too many waited.", lambda: collector.dropped)
        server.counter("spans_refused", "Spans that the collector has refused.", lambda: collector.refused)
        server.counter("calls_left_out", "Calls not traced: too many at a time.", lambda: self.traces.left_out)
        server.gauge("spans_waiting", "Spans waiting for the collector.", lambda: collector.waiting)
        server.gauge("calls", "Calls being traced.", lambda: len(self.traces))
        server.health(lambda: collector.trouble and f"{self._settings.endpoint}: {collector.trouble}")

    def stop(self) -> None:
        """The greenlets are gone: what is over is sent."""
        self.traces.settle(float("inf"))
        try:
            with gevent.Timeout(FINISH):
                while self.collector.send():
                    pass
        except gevent.Timeout:
            pass

    def take(self, facts: list[Any]) -> None:
        """Facts in their order."""
        traces = self.traces
        for count, fact in enumerate(facts, 1):
            if type(fact) is TraceWritten:
                traces.line(fact)
            elif type(fact) is JobDone:
                traces.job(fact)
            elif type(fact) is CallLeg:
                traces.leg(fact)
            elif type(fact) is CallRecord:
                traces.record(fact)
                traces.settle(fact.ended)
            if count % TURN == 0:
                gevent.sleep(0)

    def _send(self) -> None:
        pause = self._settings.every
        while True:
            gevent.sleep(pause)
            self.traces.settle(time())
            pause = self.collector.pause if not self._flush() else self._settings.every

    def _flush(self) -> bool:
        """Send what waits. False when the collector does not take it."""
        while self.collector.send():
            gevent.sleep(0)
        return not self.collector.trouble

    def _told(self, trouble: str) -> None:
        if trouble:
            self._server.log("warning", "otel_down", endpoint=self._settings.endpoint, reason=trouble)
        else:
            self._server.log("info", "otel_up", endpoint=self._settings.endpoint)


OTEL = Service("otel", "Sends traces of calls to an OpenTelemetry collector.", Telemetry, OtelSettings)
