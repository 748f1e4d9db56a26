"""Spans on their way to a collector: OTLP over HTTP, in protobuf (opentelemetry-proto, otlp/http specification).

A batch that the collector cannot take now (no connection, 429, 502, 503, 504) is sent again after a pause, the one that
it asks for or a longer one each time. Another failure says that it never will: the batch is counted and dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from orchestrator.errors import reason_of
from orchestrator.integrations.otel.spans import Span

BATCH = 100
"""Spans of one request: encoding them takes a millisecond or two."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
MOST_READ = 65_536
"""Octets of an answer that are read: what a collector says is short."""
LATER = frozenset((429, 502, 503, 504))
"""Status codes after which the same may be sent again (OTLP §failures)."""


class Collector:
    """`put` never waits; `send` is for a greenlet."""

    def __init__(
        self,
        endpoint: str,
        service: str,
        headers: Mapping[str, str],
        timeout: float,
        room: int,
        told: Callable[[str], object],
    ) -> None:
        """`room`: spans that may wait. `told` hears why the collector takes nothing, '' when it does again."""
        self._endpoint = endpoint
        self._service = service
        self._headers = {**headers, "content-type": "application/x-protobuf"}
        self._room = room
        self._timeout = timeout
        self._told = told
        self._spans: deque[Span] = deque()
        self._http = urllib3.PoolManager(1, timeout=urllib3.Timeout(timeout), retries=False, maxsize=1)
        self.sent = 0
        self.dropped = 0
        self.refused = 0
        self.trouble = ""
        self.pause = FIRST_PAUSE
        """Seconds until the next try after a failure."""

    @property
    def waiting(self) -> int:
        """Spans that wait."""
        return len(self._spans)

    def put(self, span: Span) -> None:
        """Leave a span."""
        if len(self._spans) >= self._room:
            self.dropped += 1
        else:
            self._spans.append(span)

    def send(self) -> bool:
        """Send a batch. False when there is none, or it could not be sent."""
        batch = [self._spans[at] for at in range(min(BATCH, len(self._spans)))]
        if not batch:
            return False
        try:
            with gevent.Timeout(2 * self._timeout, TimeoutError("its answer does not end")):
                answer, content = self._ask(encoded(self._service, batch))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return self._failed(reason_of(error), None)
        if answer.status in LATER:
            return self._failed(f"it answers {answer.status}", answer.headers.get("retry-after"))
        for _ in batch:
            self._spans.popleft()
        if 200 <= answer.status < 300:
            rejected = min(len(batch), _rejected(content))
            self.sent += len(batch) - rejected
            self.refused += rejected
            self._note("")
        else:
            self.refused += len(batch)
            self._note(f"it answers {answer.status}")
        self.pause = FIRST_PAUSE
        return True

    def _ask(self, body: bytes) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        """The answer and the begin of its content."""
        answer = self._http.request(
            "POST", self._endpoint, body=body, headers=self._headers, redirect=False, preload_content=False
        )
        finished = False
        try:
            content = answer.read(MOST_READ)
            finished = len(content) < MOST_READ
        finally:
            if finished:
                answer.release_conn()
            else:
                answer.close()
        return answer, content

    def _failed(self, trouble: str, after: str | None) -> bool:
        self._note(trouble)
        if after is not None and after.isascii() and after.isdigit() and len(after) < 6:
            self.pause = max(FIRST_PAUSE, min(float(after), LONGEST_PAUSE))
        else:
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return False

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._told(trouble)


def encoded(service: str, spans: list[Span]) -> bytes:
    """The body of an export request."""
    group = ResourceSpans()
    _attribute(group.resource.attributes.add(), "service.name", service)
    scope = group.scope_spans.add()
    scope.scope.name = "orchestrator"
    scope.spans.extend(_wire(span) for span in spans)
    return bytes(ExportTraceServiceRequest(resource_spans=[group]).SerializeToString())


def _wire(span: Span) -> WireSpan:
    made = WireSpan(
        trace_id=span.trace,
        span_id=span.id,
        parent_span_id=span.parent,
        name=_clean(span.name),
        kind=span.kind,  # type: ignore[arg-type]  # a number of theirs
        start_time_unix_nano=_nanoseconds(span.start),
        end_time_unix_nano=_nanoseconds(max(span.start, span.end)),
        dropped_events_count=span.dropped,
        flags=0x101,  # sampled (W3C), and it is known that the parent is not remote
    )
    for name, value in span.attributes.items():
        _attribute(made.attributes.add(), name, value)
    for time, text in span.events:
        event = made.events.add()
        event.time_unix_nano, event.name = _nanoseconds(time), _clean(text)
    if span.error:
        made.status.code, made.status.message = Status.STATUS_CODE_ERROR, _clean(span.error)
    return made


def _attribute(made: KeyValue, name: str, value: Any) -> None:
    made.key = name
    if isinstance(value, bool):
        made.value.bool_value = value
    elif isinstance(value, int):
        made.value.int_value = value
    elif isinstance(value, float):
        made.value.double_value = value
    else:
        made.value.string_value = _clean(str(value))


def _clean(text: str) -> str:
    """What protobuf takes: UTF-8, without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _nanoseconds(time: float) -> int:
    return round(time * 1_000_000) * 1000


def _rejected(body: bytes) -> int:
    """Spans of an accepted batch that the collector has not taken (partial success)."""
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except Exception:  # an answer in another format
        return 0
