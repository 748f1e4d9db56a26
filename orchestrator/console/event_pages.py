"""Events: the catalogue, what happens now, and one raised by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import falcon

from orchestrator.api.problems import Problem
from orchestrator.console.console_page import ConsolePage, Desk, fragment
from orchestrator.console.forms import Form
from orchestrator.console.inputs import parse_number
from orchestrator.console.live import Fragments
from orchestrator.core.engine import Engine
from orchestrator.events.event import Event
from orchestrator.flow.run.trace import masked
from orchestrator.views.event_catalogue import event_catalogue
from orchestrator.views.shown_values import iso

SHOWN = 50
"""Events that the page shows."""
CALL = ":call"
"""The field for the call an event belongs to: no attribute has such a name."""
NUMBERS = ("number", "int", "duration", "time")


class EventLog:
    """The last events, while somebody looks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: deque[Event] = deque(maxlen=SHOWN)

    def watch(self, touch: Callable[[], None]) -> Callable[[], object]:
        """Keep what happens from now on, until the returned function is called."""

        def keep(event: Event) -> None:
            self._kept.append(event)
            touch()

        names = tuple(self._engine.flows.program.events)
        for name in names:  # an event is made only where somebody hears it
            self._engine.bus.tap(name, keep)

        def stop() -> None:
            for name in names:
                self._engine.bus.untap(name, keep)
            self._kept.clear()

        return stop

    def newest(self) -> list[dict[str, Any]]:
        """As the page shows them."""
        offset = self._engine.settings.wall_offset
        return [
            {
                "name": event.name,
                "call": event.call,
                "time": iso(event.time + offset),
                "attributes": masked(dict(event.attributes)),
            }
            for event in reversed(tuple(self._kept))
        ]


class Catalogue(ConsolePage):
    """`/catalogue`, `/catalogue/live` and `/catalogue/raise`."""

    here = "/catalogue"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._log = EventLog(desk.engine)

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        self._show(request, response, request.get_param("event", default="") or "")

    def on_get_live(self, request: falcon.Request, response: falcon.Response) -> None:
        self.follow(request, response, "events", self._draw, self._log.watch)

    def on_post_raise(self, request: falcon.Request, response: falcon.Response) -> None:
        form = Form(request)
        name = form.text("event")
        spec = next((found for found in event_catalogue(self.desk.engine) if found["name"] == name), None)
        try:
            self.do(request, response, "POST", "events", body=_body(name, spec, form))
        except (ValueError, Problem) as error:
            wrong = str(error.description) if isinstance(error, Problem) else str(error)
            response.status = error.status if isinstance(error, Problem) else falcon.HTTP_400
            self._show(request, response, name, wrong, form.fields)
            return
        self.done(response, f"/catalogue?event={name}", "raised")

    def _show(
        self,
        request: falcon.Request,
        response: falcon.Response,
        name: str,
        wrong: str = "",
        values: Mapping[str, str] | None = None,
    ) -> None:
        catalogue = event_catalogue(self.desk.engine)
        raisable = [spec for spec in catalogue if spec["may_be_raised"]]
        chosen = next((spec for spec in raisable if spec["name"] == name), raisable[0] if raisable else None)
        self.show(
            request,
            response,
            "catalogue.html",
            catalogue=catalogue,
            raisable=raisable,
            chosen=chosen,
            wrong=wrong,
            values=values or {},
            log=self._drawn_log(),
        )

    def _drawn_log(self) -> Any:
        return fragment("events_log.html", events=self._log.newest())

    def _draw(self) -> Fragments:
        return {"events-log": self._drawn_log()}


def _body(name: str, spec: Mapping[str, Any] | None, form: Form) -> dict[str, Any]:
    """The event of a form, as `events.received` reads it. Raises ValueError."""
    attributes: Sequence[Mapping[str, Any]] = spec["attributes"] if spec is not None else ()
    written: dict[str, str | None] = {}
    for attribute in attributes:
        text = form.text(attribute["name"])
        if attribute["type"] == "bool":
            text = "true" if text else "false"
        elif not text and attribute["optional"]:
            continue
        elif attribute["type"] in NUMBERS:
            text = _number(attribute["name"], text)
        written[attribute["name"]] = text
    told: dict[str, Any] = {"name": name, "written": written}
    if form.text(CALL):
        told["call"] = form.text(CALL)
    return told


def _number(name: str, text: str) -> str:
    try:
        return f"{parse_number(text):.15g}"
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
