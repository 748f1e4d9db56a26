"""Calls that are over, wherever they are kept: the last ones in memory, and those of the archive where there is one.

With an archive, a list is the archive's, behind those that wait to be written; without one it is what memory has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from orchestrator.archive.archive_file import Search
from orchestrator.archive.call_archive import CallArchive
from orchestrator.history import CallRecord
from orchestrator.views.call_history import CallHistory
from orchestrator.views.call_list import shown_record
from orchestrator.views.kept_call import KeptCall
from orchestrator.views.listing import Listing, Page, nothing


class EndedCalls:
    """Those of one server."""

    def __init__(self, history: CallHistory, archive: CallArchive | None = None) -> None:
        self._history = history
        self._archive = archive

    def page(self, asked: Search, limit: int, cursor: str = "", breathe: Callable[[], object] = nothing) -> Page:
        """Records (`CallRecord.facts`), the call that ended last first. May wait for the archive.

        Raises:
            ValueError: no such cursor.
            OSError: the archive cannot be read.
        """
        if self._archive is None:
            return self._in_memory(asked, limit, cursor, breathe)
        waiting = [shown_record(record) for record in self._archive.pending if fits(record, asked)]
        told, total, after = self._archive.search(asked, limit, cursor)
        return Page([*([] if cursor else waiting), *told], total + len(waiting), after)

    def _in_memory(self, asked: Search, limit: int, cursor: str, breathe: Callable[[], object]) -> Page:
        def match(kept: KeptCall) -> bool:
            record = kept.record
            return record is not None and fits(record, asked)

        return Listing(list(self._history.ended()), _row, lambda kept: kept.id, match).page(limit, cursor, breathe)

    def find(self, call: str) -> tuple[CallRecord, dict[str, Any]] | None:
        """A call that is in the archive: its record, and its history as `CallHistory.facts` has it ({} for none). None
        where it is not there. May wait. Raises OSError."""
        found = None if self._archive is None else self._archive.find(call)
        return None if found is None else (_record(found["record"]), found["history"] or {})


def fits(record: CallRecord, asked: Search) -> bool:
    """Whether a search means this call. In memory a part of an address is enough."""
    of = asked.of.lower()
    return (
        asked.flow in ("", record.flow)
        and (asked.codes is None or (record.code is not None and asked.codes[0] <= record.code <= asked.codes[1]))
        and (asked.since is None or record.ended >= asked.since)
        and (asked.until is None or record.ended < asked.until)
        and (not of or any(of in text.lower() for text in _names(record)))
    )


def _names(record: CallRecord) -> Iterator[str]:
    yield from (record.caller, record.called, record.user or "", record.contact or "", record.id, record.sip_call_id)


def _row(kept: KeptCall) -> dict[str, Any]:
    return {} if kept.record is None else shown_record(kept.record)


def _record(facts: Mapping[str, Any]) -> CallRecord:
    """What `CallRecord.facts` has made a dict of."""
    renamed = {**facts, "caller": facts["from"], "called": facts["to"]}
    times = {name: _seconds(facts[name]) for name in ("started", "answered", "ended")}
    return CallRecord(**{field.name: renamed[field.name] for field in fields(CallRecord)} | times)


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()
