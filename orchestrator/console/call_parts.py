"""What the page of a call shows, drawn piece by piece: of a call that lives, of one that has ended, of one in the
archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup

from orchestrator.api.reads import from_archive
from orchestrator.console.console_page import Desk, breathe, fragment
from orchestrator.flow.language.program import Flow, Program
from orchestrator.flow.run.run import Run
from orchestrator.views.call_list import call_details, find_call, shown_record
from orchestrator.views.flow_graph import graph_of_run
from orchestrator.views.kept_call import KeptCall, facts_of, message_fact
from orchestrator.views.ladder import Peers, ladder, messages_of
from orchestrator.views.ladder_svg import ladder_svg
from orchestrator.views.run_list import find_run
from orchestrator.views.shown_values import iso
from orchestrator.views.unfired import unfired

ITEMS: Final = 300
"""Steps and events that the page shows, the last ones."""
FAILURES: Final = frozenset(
    ("Failed", "StepFailed", "BackgroundFailed", "FilterFailed", "ReplyRefused", "WaitTimedOut")
)
"""Facts that a person looks for first."""
CLOCKS: Final = ("call-head", "call-why")
"""Pieces that change with the time."""
_NONE: Final[Mapping[str, Markup]] = {}
_NOTHING: Final[Mapping[str, Any]] = {}
_NO_CALL: Final[Mapping[str, Any]] = {
    "from_name": "",
    "user_agent": "",
    "waits_for": None,
    "legs": [],
    "branches": [],
    "channels": [],
}


class CallParts:
    """One call as its page shows it now."""

    def __init__(
        self,
        desk: Desk,
        call: Mapping[str, Any],
        live: bool,
        kept: KeptCall | None,
        archived: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """`archived` is the history of a call that only the archive has (`CallHistory.facts`)."""
        self._desk = desk
        self._archived = archived
        self.call = call
        """As `views.call_list.call_details` has it."""
        self.live = live
        self._kept = kept
        found = find_run(desk.engine, call["run"]) if call["run"] else None
        self._run = found
        self._program, self._flow = _version(desk, call["flow"], found) if not archived else (None, None)

    def drawn(self, before: Mapping[str, Markup] = _NONE) -> dict[str, Markup]:
        """Id of an element → what stands in it. What is in `before` is drawn no more."""
        parts = {}
        for name, draw in (
            ("call-head", self._head),
            ("call-ladder", self._ladder),
            ("call-waits", self._waits),
            ("call-graph", self._graph),
            ("call-source", self._source),
            ("call-events", self._events),
            ("call-why", self._why),
        ):
            if name in before:
                parts[name] = before[name]
            else:
                parts[name] = draw()
                breathe()
        return parts

    @property
    def mark(self) -> object:
        """What changes when anything but the clock has."""
        kept = self._kept
        entries = (kept.number, kept.dropped, len(kept.records), kept.left_out) if kept is not None else ()
        return entries, self.live, self.call["state"], self.call["waits_for"], self.call["run"]

    def message(self, id: str) -> dict[str, Any] | None:
        """One SIP message, by the id of its fact; None where it is not kept."""
        kept = self._kept
        for fact in self._archived.get("items", ()):
            if fact["id"] == id and fact["kind"] == "message":
                return dict(fact)
        for found, message in kept.messages if kept is not None else ():
            if found == id:
                return {**message_fact(message), "time": iso(message.time + self._offset)}
        return None

    # --- pieces -------------------------------------------------------------------------------------------------------

    @property
    def _offset(self) -> float:
        return self._desk.engine.settings.wall_offset

    def _head(self) -> Markup:
        state = self.call["state"] if self.live else "ended"
        return fragment("call_head.html", call=self.call, state=state, record=self.call["record"])

    def _ladder(self) -> Markup:
        peers = Peers.of(self._desk.engine, self.call["server"] or "")
        if self._archived:
            found = ladder(messages_of(self._archived.get("items", ())), 0.0, peers)
        elif self._kept is not None:
            found = ladder(self._kept.messages, self._offset, peers)
        else:
            return Markup('<p class="empty">Nothing is kept of its messages: no flow has taken it.</p>')
        if not found["arrows"]:
            return Markup('<p class="empty">No message is kept.</p>')
        drawn = ladder_svg(found, f"SIP of {self.call['id']}")
        return Markup(drawn.replace('<g class="arrow ', '<g role="button" tabindex="0" class="arrow '))  # noqa: S704

    def _waits(self) -> Markup:
        return fragment("call_waits.html", waits_for=self.call["waits_for"], live=self.live)

    def _graph(self) -> Markup:
        if self._flow is None:
            return Markup('<p class="empty">No flow, or one that has changed since.</p>')
        waits = self.call["waits_for"]
        here = waits is not None and waits["file"] == self._flow.place.file
        drawn = graph_of_run(self._flow, waits["line"] if here else 0, self._passed(self._flow.place.file))
        return Markup(drawn)  # noqa: S704 - texts in it are escaped

    def _source(self) -> Markup:
        waits = self.call["waits_for"]
        file = waits["file"] if waits else self._flow.place.file if self._flow is not None else ""
        lines = self._program.sources.get(file, "").splitlines() if self._program is not None else []
        if not lines:
            return Markup('<p class="empty">The source is not there.</p>')
        lit = waits["line"] if waits else 0
        return fragment("call_source.html", lines=lines, lit=lit, ran=self._passed(file), file=file)

    def _passed(self, file: str) -> set[int]:
        """Lines of a file that its run has come by."""
        records = self._kept.records if self._kept is not None else ()
        return {record.line for record in records if record.step is not None and record.step.place.file == file}

    def _events(self) -> Markup:
        kept = self._kept
        if self._archived:
            facts, dropped = self._archived.get("items", ()), self._archived.get("dropped", 0)
        elif kept is not None:
            facts, dropped = facts_of(kept, self._offset), kept.dropped + kept.left_out
        else:
            return Markup('<p class="empty">Nothing is kept of it.</p>')
        items = [fact for fact in facts if fact["kind"] != "message"]
        left_out = max(0, len(items) - ITEMS)
        items = [{**_EMPTY, **item, "bad": _is_bad(item)} for item in items[left_out:]]
        return fragment("call_events.html", items=items, dropped=dropped + left_out)

    def _why(self) -> Markup:
        desk, run = self._desk, self._run
        waits = unfired(desk.engine, desk.history, run, desk.now) if isinstance(run, Run) else []
        here = (self.call["waits_for"] or {}).get("line")
        waits.sort(key=lambda wait: wait["line"] != here)  # first what holds the call up
        return fragment("call_why.html", waits=waits, live=self.live)


_EMPTY: Final[Mapping[str, Any]] = {"line": 0, "attributes": None, "error": "", "seconds": None}


def _is_bad(item: Mapping[str, Any]) -> bool:
    return bool(item.get("error")) or item.get("fact", {}).get("kind") in FAILURES


def _version(desk: Desk, name: str | None, found: Any) -> tuple[Program | None, Flow | None]:
    """The program that a call runs, and its flow there; None where it has been replaced since."""
    program: Program = getattr(found, "program", desk.engine.flows.program)
    if getattr(found, "hash", program.hash) != program.hash:
        return None, None
    return program, next((flow for flow in program.flows if flow.name == name), None)


class Follower:
    """Draws a call again and again; what has not changed is drawn once."""

    def __init__(self, desk: Desk, id: str) -> None:
        self._desk = desk
        self._id = id
        self._mark: object = None
        self._drawn: dict[str, Markup] = {}

    def draw(self) -> dict[str, Markup] | None:
        """As `live.Render`."""
        parts = parts_of(self._desk, self._id)
        if parts is None:
            return None
        mark = parts.mark
        if mark != self._mark:
            self._drawn = parts.drawn()
        elif parts.live:
            self._drawn = parts.drawn({name: text for name, text in self._drawn.items() if name not in CLOCKS})
        self._mark = mark
        return self._drawn


def parts_of(desk: Desk, id: str) -> CallParts | None:
    """A call by its id; None where nothing is known of it."""
    engine, history = desk.engine, desk.history
    live = find_call(engine, id)
    kept = history.find(id)
    if live is not None:
        return CallParts(desk, call_details(engine, live, desk.now), True, kept)
    if kept is not None and kept.record is not None:
        record, archived = kept.record, _NOTHING
    else:
        found = from_archive(desk.shown.ended, id)
        if found is None:
            return None
        record, archived = found[0], found[1] or {"items": ()}
    facts = shown_record(record)
    return CallParts(desk, {**_NO_CALL, **facts, "state": "ended", "record": facts}, False, kept, archived)
