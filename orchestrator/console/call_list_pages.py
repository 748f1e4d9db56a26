"""Calls: those that live, with what they wait for, and those that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import falcon
from markupsafe import Markup

from orchestrator.archive.archive_file import Search
from orchestrator.console.console_page import ROWS, ConsolePage, Desk, ListQuery, breathe, fragment
from orchestrator.console.inputs import parse_whole
from orchestrator.console.live import Fragments
from orchestrator.console.rendering import render
from orchestrator.history import CallLeg, CallRecord
from orchestrator.views.call_list import STATES, live_calls
from orchestrator.views.listing import Listing, Page

ALL, SEARCHED = 0.15, 1.0
"""Seconds between two drawings at least: of the whole list, of which only a page is looked at; of one for which all
calls are."""
REMEMBERED = 2_000
"""Rows that are kept as they were drawn."""


class LiveCalls(ConsolePage):
    """`/calls` and `/calls/live`: one page of the list, newest first, searched; drawn once a second for all who search
    alike."""

    here = "/calls"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._rows: dict[str, tuple[object, Markup]] = {}
        """Id of a call → what its row shows, and the row."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        query = self._query(request)
        page = self._page(query)
        flows = [flow.name for flow in self.desk.engine.flows.program.flows]
        self.show(
            request, response, "calls.html", query=query, page=page, rows=self._drawn(page), states=STATES, flows=flows
        )

    def on_get_live(self, request: falcon.Request, response: falcon.Response) -> None:
        query = self._query(request)

        def draw() -> Fragments:
            page = self._page(query)
            return {"calls-total": render("calls_total.html", page=page), "calls-rows": self._drawn(page)}

        throttle = SEARCHED if query["of"] or query["state"] or query["flow"] else ALL
        self.follow(request, response, f"calls {query.all}", draw, self._watch, throttle=throttle)

    def _watch(self, touch: Callable[[], None]) -> Callable[[], object]:
        """Draw again, soon, when a call begins or ends."""
        history = self.desk.engine.history

        def told(_: object) -> None:
            touch()

        for kind in (CallLeg, CallRecord):
            history.listen(kind, told)

        def stop() -> None:
            for kind in (CallLeg, CallRecord):
                history.ignore(kind, told)

        return stop

    def _drawn(self, page: Page) -> Markup:
        """The rows. One that shows what it did is not drawn again."""
        if not page.items:
            return Markup('<tr><td colspan="7" class="empty">No call is live here now.</td></tr>')
        if len(self._rows) > REMEMBERED:
            self._rows.clear()
        rows = []
        for number, call in enumerate(page.items):
            shown = {**call, "duration": 0.0}  # the page counts by itself
            before = self._rows.get(call["id"])
            if before is None or before[0] != shown:
                before = self._rows[call["id"]] = shown, fragment("calls_row.html", call=call)
                if number % 10 == 9:
                    breathe()
            rows.append(before[1])
        return Markup("").join(rows)

    def _query(self, request: falcon.Request) -> ListQuery:
        query = ListQuery.read(request, "of", "state", "flow")
        if query["state"] not in STATES:
            query["state"] = ""
        return query

    def _page(self, query: ListQuery) -> Page:
        found: Any = live_calls(self.desk.engine, self.desk.now, query["state"], query["of"], query["flow"])
        newest_first: Listing[Any] = replace(found, objects=found.objects[::-1])
        try:
            return newest_first.page(ROWS, query["cursor"], breathe)
        except ValueError:  # an old address: the list begins anew
            query["cursor"] = ""
            return newest_first.page(ROWS, "", breathe)


class EndedCalls(ConsolePage):
    """`/archive`: calls that have ended, the latest first."""

    here = "/archive"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        query = ListQuery.read(request, "of", "flow", "code", "from", "to")
        flows = [flow.name for flow in self.desk.engine.flows.program.flows]
        wrong, page = "", Page([], 0, None)
        try:
            page = self._page(query)
        except ValueError as error:
            wrong = str(error)
        self.show(request, response, "archive.html", query=query, page=page, flows=flows, wrong=wrong)

    def _page(self, query: ListQuery) -> Page:
        """Raises ValueError, with a sentence for the person who searches."""
        code = parse_whole(query["code"]) if query["code"] else 0
        codes = (code, code) if code else None
        asked = Search(query["of"], query["flow"], codes, _moment(query["from"]), _moment(query["to"]))
        try:
            return self.desk.shown.ended.page(asked, ROWS, query["cursor"], breathe)
        except OSError as error:
            raise ValueError(str(error)) from None


def _moment(text: str) -> float | None:
    """Of a field for date and time, UTC, in seconds since 1970; None for an empty one. Raises ValueError."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no date and time; write 2026-11-30T18:00") from None
