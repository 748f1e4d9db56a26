"""The admin interface's way to raise events.

    POST /events  {"name": "door_open", "attributes": {"door": "front"}}    →  {"taken": 1}

The request bears the token of `admin: token` and is JSON, so that no page in a browser can send it by a form. `taken`
is how many subscriptions of flows the event was delivered to, those that start a run among them. A CloudEvent is
understood, too.
"""

from __future__ import annotations

import falcon

from orchestrator.events.received import MOST_OCTETS, NoRoom, NoSuchCall, NoSuchEvent, read_event
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.token_guard import TokenGuard


class EventsRoute:
    """/events"""

    def __init__(self, incoming: Incoming, guard: TokenGuard) -> None:
        self._incoming = incoming
        self._guard = guard

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        self._guard.require(request)
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/cloudevents+json"):
            raise falcon.HTTPUnsupportedMediaType(
                title="JSON is expected", description="send Content-Type: application/json"
            )
        body = request.bounded_stream.read(MOST_OCTETS + 1)
        if len(body) > MOST_OCTETS:
            raise falcon.HTTPContentTooLarge(title=f"an event has at most {MOST_OCTETS} octets")
        try:
            taken = self._incoming.take(read_event(body))
        except NoSuchEvent as error:
            raise falcon.HTTPNotFound(title="no such event", description=str(error)) from None
        except ValueError as error:
            raise falcon.HTTPBadRequest(title="not an event", description=str(error)) from None
        except NoSuchCall as error:
            raise falcon.HTTPNotFound(title="no such call", description=str(error)) from None
        except NoRoom as error:
            raise falcon.HTTPServiceUnavailable(title="no room", description=str(error), retry_after=1) from None
        response.media = {"taken": taken}
