"""What has happened: the history of calls that live or are over, their ladders, and events as they come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from orchestrator.api.access import Access
from orchestrator.api.endpoint import Asked, Endpoint, Parameter, breathe
from orchestrator.api.event_feed import EventFeed
from orchestrator.api.problems import Problem, unknown
from orchestrator.api.reads import SVG, from_archive, unreadable
from orchestrator.api.schemas import HISTORY, ref
from orchestrator.api.streams import MEDIA_TYPE, EventStream, begin_events, begin_stream, last_id, sse, wants_events
from orchestrator.archive.archive_file import Search
from orchestrator.archive.ended_calls import EndedCalls
from orchestrator.core.engine import Engine
from orchestrator.errors import TooManyWatchersError
from orchestrator.views.call_history import CallHistory
from orchestrator.views.ladder import Peers, ladder, messages_of
from orchestrator.views.ladder_svg import ladder_svg
from orchestrator.views.listing import Page


def history_endpoints(engine: Engine, history: CallHistory, ended: EndedCalls, access: Access) -> tuple[Endpoint, ...]:
    """Those of one server."""
    found = _Histories(engine, history, ended, access)
    return (
        Endpoint(
            "GET",
            "calls/{id}/history",
            "What has happened in a call: messages, steps, events, jobs. As text/event-stream it follows the call.",
            found.history,
            answer=HISTORY,
        ),
        Endpoint("GET", "calls/{id}/ladder", "The SIP messages of a call.", found.ladder, answer=ref("Ladder")),
        Endpoint("GET", "calls/{id}/ladder.svg", "The ladder, drawn.", found.drawn, media=SVG),
        Endpoint(
            "GET",
            "archive/calls",
            "Calls that are over, the last one first.",
            found.ended,
            (
                Parameter("of", "An address, a number or a part of one."),
                Parameter("flow", "Name of a flow."),
                Parameter("from", "Ended at or after this time (ISO 8601)."),
                Parameter("to", "Ended before this time."),
                Parameter("code", "Final status, or a class of them: 486, 4."),
            ),
            ref("Record"),
            lists=True,
        ),
        Endpoint(
            "GET",
            "events/stream",
            "Events as they happen, as server-sent events.",
            found.events,
            (Parameter("name", "Only events of this name."), Parameter("call", "Only those of this call.")),
            media=MEDIA_TYPE,
        ),
    )


class _Histories:
    def __init__(self, engine: Engine, history: CallHistory, ended: EndedCalls, access: Access) -> None:
        self._engine = engine
        self._history = history
        self._ended = ended
        self._access = access
        self._feed = EventFeed(engine)

    # --- one call -----------------------------------------------------------------------------------------------------

    def history(self, asked: Asked) -> dict[str, Any] | None:
        call = asked.path["id"]
        if wants_events(asked.request):
            self._follow(asked, call)
            return None
        found = self._history.facts(call)
        return self._archived(call) if found is None else found

    def _archived(self, call: str) -> dict[str, Any]:
        """The history of a call on disk. Raises Problem."""
        found = from_archive(self._ended, call)
        if found is None:
            raise _unknown(call)
        return found[1]

    def _follow(self, asked: Asked, call: str) -> None:
        history, after = self._history, last_id(asked.request)
        if history.find(call) is None:
            raise _unknown(call)
        begin_stream(asked.request)

        def open(wake: Callable[[], None]) -> Callable[[], None]:
            number = history.follow(call, wake)
            return lambda: history.unfollow(number) if number is not None else None

        def news() -> tuple[list[bytes], bool]:
            nonlocal after
            found = history.facts(call, after)
            if found is None:
                return [], True
            told = [sse(fact["kind"], fact, fact["id"]) for fact in found["items"]]
            if found["items"]:
                after = found["items"][-1]["id"]
            if not found["live"]:
                told.append(sse("end", {"call": found["call"], "dropped": found["dropped"]}))
            return told, not found["live"]

        try:
            stream = EventStream(open, news, self._still(asked))
        except TooManyWatchersError as error:
            raise Problem(503, "streams.full", str(error), cure="end some, or try again in a moment") from None
        begin_events(asked.request, asked.response, stream)

    def ladder(self, asked: Asked) -> dict[str, Any]:
        call, peers = asked.path["id"], Peers.of(self._engine)
        kept = self._history.find(call)
        if kept is not None:
            return ladder(kept.messages, self._engine.settings.wall_offset, peers)
        return ladder(messages_of(self._archived(call).get("items", ())), 0.0, peers)

    def drawn(self, asked: Asked) -> str:
        found = self.ladder(asked)
        return ladder_svg(found, f"SIP of {asked.path['id']}") if found["arrows"] else _EMPTY

    # --- calls that are over ------------------------------------------------------------------------------------------

    def ended(self, asked: Asked) -> Page:
        of, flow, code = asked.text("of").lower(), asked.text("flow"), asked.text("code")
        begin, end = _time(asked, "from"), _time(asked, "to")
        if code and not (code.isascii() and code.isdigit() and len(code) <= 3):
            raise Problem(400, "query.invalid", "invalid parameter", "code: a status (486) or a class (4) is expected")

        codes = (int(code.ljust(3, "0")), int(code.ljust(3, "9"))) if code else None
        search = Search(of, flow, codes, begin, end)
        try:
            return self._ended.page(search, asked.values["limit"], asked.text("cursor"), breathe)
        except ValueError as error:
            cure = "begin anew without it"
            raise Problem(400, "query.invalid", "invalid parameter", f"cursor: {error}", cure) from None
        except OSError as error:
            raise unreadable(error) from None

    # --- events -------------------------------------------------------------------------------------------------------

    def events(self, asked: Asked) -> None:
        name, call, feed = asked.text("name"), asked.text("call"), self._feed
        if name and name not in self._engine.flows.program.events:
            raise unknown("event", name, "GET /api/v1/events/catalogue lists them")
        begin_stream(asked.request)
        seen, offset = last_id(asked.request), self._engine.settings.wall_offset
        number = int(seen) if seen.isdigit() and int(seen) <= feed.number else feed.number

        def news() -> tuple[list[bytes], bool]:
            nonlocal number
            feed.look()
            found, number, lost = feed.since(number, name, call)
            told = [sse("dropped", {"events": lost}, str(number))] if lost else []
            return [*told, *(sse("event", event.told(offset), str(event.number)) for event in found)], False

        stream = EventStream(lambda wake: feed.open(name, wake), news, self._still(asked))
        begin_events(asked.request, asked.response, stream)

    def _still(self, asked: Asked) -> Callable[[], bool]:
        """Whether whoever has begun a stream may still see it: a session may have ended."""
        session, request = asked.who.session, asked.request
        return lambda: session is None or self._access.session_of(request) is session


def _time(asked: Asked, name: str) -> float | None:
    """A time of the query, in seconds since 1970; None where it is not given. One without a zone is UTC."""
    text = asked.text(name)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Problem(
            400, "query.invalid", "invalid parameter", f"{name}: a time is expected", "write 2026-11-30T18:00:00Z"
        ) from None


def _unknown(call: str) -> Problem:
    return unknown("call", call, "GET /api/v1/calls lists those that live, GET /api/v1/archive/calls the last ones")


_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>\n'
