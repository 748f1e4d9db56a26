"""The admin interface's view of banned sources.

    GET /bans                      those whose ban lasts: {"bans": [{"source", "class", "reason", "since", "until"}]}
    DELETE /bans?source=ADDRESS    end the ban of one

A browser asks before it sends a DELETE for a page of somebody else, and is not told that it may.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import falcon
from loguru import logger

from orchestrator.runtime.query import Query
from orchestrator.sip.admission import Admission


class BansRoute:
    """/bans; `wall_offset()` is what the monotonic clock lacks to the time of day."""

    def __init__(self, admission: Admission, wall_offset: Callable[[], float]) -> None:
        self._admission = admission
        self._wall_offset = wall_offset

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        Query(request)
        now, offset = monotonic(), self._wall_offset()
        response.media = {
            "bans": [
                {
                    "source": source.name,
                    "class": "proved" if self._admission.is_proved(source, now) else "stranger",
                    "reason": source.banned_for,
                    "since": round(source.banned_since + offset, 3),
                    "until": round(source.banned_until + offset, 3),
                }
                for source in self._admission.banned(now)
            ]
        }

    def on_delete(self, request: falcon.Request, response: falcon.Response) -> None:
        source = Query(request, "source").text("source")
        if not self._admission.lift(source, monotonic()):
            raise falcon.HTTPNotFound(title="no ban", description=f"{source} is not banned")
        logger.bind(address=source).info("source_ban_lifted")
        response.status = falcon.HTTP_204
