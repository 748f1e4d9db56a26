"""One call: its SIP as a ladder, its flow with the line it waits at, what has happened, and why nothing has.

A call that lives is followed: its history says when there is something new, and the fragments that differ are drawn
once for all who look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import quote

import falcon

from orchestrator.api.problems import unknown
from orchestrator.console.call_parts import CallParts, Follower, parts_of
from orchestrator.console.console_page import ConsolePage, fragment
from orchestrator.console.forms import Form


class OneCall(ConsolePage):
    """`/calls/{id}`, `/calls/{id}/live`, `/calls/{id}/messages/{message}` and `/calls/{id}/hang-up`."""

    here = "/calls"

    def on_get(self, request: falcon.Request, response: falcon.Response, id: str) -> None:
        parts = self._parts(id)
        here = "/calls" if parts.live else "/archive"
        self.show(request, response, "call.html", here=here, call=parts.call, live=parts.live, parts=parts.drawn())

    def on_get_live(self, request: falcon.Request, response: falcon.Response, id: str) -> None:
        id = self._parts(id).call["id"]
        self.follow(request, response, f"call {id}", Follower(self.desk, id).draw, partial(self._watch, id))

    def on_get_message(self, request: falcon.Request, response: falcon.Response, id: str, message: str) -> None:
        found = self._parts(id).message(message)
        if found is None:
            raise unknown("message", message, "of long calls the middle is not kept")
        response.content_type = falcon.MEDIA_HTML
        response.cache_control = ("no-store",)
        response.text = fragment("call_message.html", message=found)

    def on_post_hang_up(self, request: falcon.Request, response: falcon.Response, id: str) -> None:
        self.do(request, response, "DELETE", "calls", id, query={"reason": Form(request).text("reason")})
        self.done(response, f"/calls/{quote(id, safe='')}", "hung_up")

    def _parts(self, id: str) -> CallParts:
        found = parts_of(self.desk, id)
        if found is None:
            raise unknown("call", id, "it may have ended: /archive has those that are kept")
        return found

    def _watch(self, id: str, touch: Callable[[], None]) -> Callable[[], object]:
        history = self.desk.history
        number = history.follow(id, touch)

        def stop() -> None:
            if number is not None:
                history.unfollow(number)

        return stop
