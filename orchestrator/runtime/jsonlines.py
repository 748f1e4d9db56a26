"""An answer of the admin interface that goes on: one JSON object on each line, for as long as was asked.

The connection is what keeps the source of the lines open: when the client goes away, or its time is over, events cost
what they did before. There is nothing to switch off and nothing to forget.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import falcon
from gevent.queue import Empty, Full, Queue

from orchestrator.errors import TooManyWatchersError
from orchestrator.runtime.query import Query

BEAT = 1.0
"""Seconds between two empty lines: that is how a client that has gone away is noticed."""
BACKLOG = 1000
"""Lines that may wait for a slow client; later ones are dropped and counted in the last line."""

Sink = Callable[[dict[str, Any]], None]
Key = TypeVar("Key")


class JsonLines(Generic[Key]):
    """The body: objects as they come, an empty line when there is none for a while, a last line with their number.

    `open(sink)` begins to tell `sink` the objects and returns what `close` needs to end it. The web server calls
    `close` here, also when the client has gone before the first line.
    """

    def __init__(self, open: Callable[[Sink], Key], close: Callable[[Key], object], seconds: float) -> None:
        self._queue: Queue[dict[str, Any]] = Queue(BACKLOG)
        self._end = monotonic() + seconds
        self._told = self._dropped = 0
        self._began = self._ended = False
        self._close = close
        self._key = open(self._take)

    def _take(self, told: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(told)
        except Full:
            self._dropped += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._began:
            self._began = True
            return b"\n"  # so that the client sees that it is served
        if self._ended:
            raise StopIteration
        left = self._end - monotonic()
        if left <= 0 and not self._queue.qsize():
            self._ended = True
            return json.dumps({"end": True, "told": self._told, "dropped": self._dropped}).encode() + b"\n"
        try:
            told = self._queue.get(timeout=max(0.0, min(BEAT, left)))
        except Empty:
            return b"\n"
        self._told += 1
        return json.dumps(told).encode() + b"\n"

    def close(self) -> None:
        self._close(self._key)


class Watchable(Protocol[Key]):
    """What tells about a target for as long as somebody looks."""

    def open(self, target: str, sink: Sink, /) -> Key:
        """Begin; returns what `close` needs. Raises TooManyWatchersError."""

    def close(self, key: Key, /) -> object:
        """End."""


def answer_lines(
    request: falcon.Request, response: falcon.Response, source: Watchable[Key], seconds: float, longest: float
) -> None:
    """Answer `?of=TARGET&seconds=N` with what a source tells of the target; without `seconds` for so many."""
    query = Query(request, "of", "seconds")
    target, seconds = query.text("of"), query.seconds("seconds", seconds, longest)
    try:
        response.stream = JsonLines(lambda sink: source.open(target, sink), source.close, seconds)
    except TooManyWatchersError as error:
        raise falcon.HTTPServiceUnavailable(
            title=str(error), description="others are being shown already", retry_after=30
        ) from None
    response.content_type = "application/x-ndjson"
