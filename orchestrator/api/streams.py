"""Answers that go on: server-sent events (SSE), and the room there is for them.

A stream waits for news, writes what is new since it last wrote, and has no queue: who reads slowly gets less often what
is kept, who does not read at all is cut by the server (`runtime.admin_connections.PATIENCE`). A comment line every BEAT
seconds shows that it lives, and finds out that its client is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import falcon
import gevent
from gevent.event import Event

from orchestrator.api.problems import Problem
from orchestrator.runtime.admin_connections import STREAM

BEAT: Final = 15.0
"""Seconds between two signs of life."""
GATHER: Final = 0.05
"""Seconds in which what is new is gathered, so that a flood is told in some parts."""
RETRY: Final = 2000
"""Milliseconds after which a browser connects again."""
MEDIA_TYPE: Final = "text/event-stream"

News = Callable[[], tuple[list[bytes], bool]]
"""Returns what has come since it was last asked, as parts of the stream, and whether that is the end."""


def begin_stream(request: falcon.Request) -> None:
    """Make a stream of the answer to this request: its time has no bound, and it takes nobody's turn. Raises
    Problem."""
    has_room = request.env.get(STREAM)
    if has_room is not None and not has_room():
        raise Problem(
            503,
            "streams.full",
            "too many streams",
            "as many streams are open as may be (admin: streams)",
            "end some, or try again in a moment",
            headers={"Retry-After": "10"},
        )


class EventStream:
    """The body of a stream. `open(wake)` begins: `wake()` is to be called when something is new, from within a turn; it
    returns what ends that. The web server calls `close`, also when the client has gone before the first octet.
    `allowed()` is asked at each sign of life: who has signed out is told nothing more."""

    def __init__(
        self,
        open: Callable[[Callable[[], None]], Callable[[], object]],
        news: News,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._wake = Event()
        self._news = news
        self._allowed = allowed
        self._waiting: list[bytes] = [f"retry: {RETRY}\n\n".encode()]
        self._over = False
        self._end = open(self._wake.set)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            return b"".join(waiting)
        if self._over or not self._allowed():
            raise StopIteration
        self._wake.clear()
        told, self._over = self._news()
        if told:
            return b"".join(told)
        if self._over:
            raise StopIteration
        if not self._wake.wait(BEAT):
            return b":\n\n"
        gevent.sleep(GATHER)
        return b""

    def close(self) -> None:
        """Nobody reads any more."""
        self._end()


def begin_events(request: falcon.Request, response: falcon.Response, stream: EventStream) -> None:
    """Answer with a stream that has room (`begin_stream`)."""
    response.content_type = MEDIA_TYPE
    response.cache_control = ("no-store",)
    response.set_header("X-Accel-Buffering", "no")
    response.stream = stream


def wants_events(request: falcon.Request) -> bool:
    """Whether the client asks for a stream of events."""
    return MEDIA_TYPE in (request.accept or "")


def last_id(request: falcon.Request) -> str:
    """The last event that a browser has seen, when it connects again; '' for none."""
    found = request.get_header("Last-Event-ID") or ""
    return found if len(found) <= 100 and found.isascii() and found.isprintable() else ""


def sse(name: str, data: Mapping[str, Any], id: str = "") -> bytes:
    """One event of a stream."""
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
