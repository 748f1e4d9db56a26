"""Call detail records: one for each call of a flow, made when the call is over.

A call is what a flow sees: the caller's INVITE, the legs behind FreeSWITCH, late branches and a picker's phone are one
call and give one record. A flow may go on after that (`on_end`); what it does then is not part of the call.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from orchestrator.flow.run.run import Run
from orchestrator.history import CallRecord, History


class EndedCall(Protocol):
    """A call that is over. Times are those of the monotonic clock."""

    id: str
    started_at: float
    answered_at: float | None
    ended_at: float | None
    pushed: int
    woken: int

    @property
    def ended_by(self) -> str: ...
    @property
    def end_reason(self) -> str: ...


class CallOver(NamedTuple):
    """A call of a flow has just ended: what its record is made of. The history of calls keeps less of it, for it costs
    a call more to be put on record than to ring."""

    call: Any
    """An `EndedCall`, here with all it knows: a `Call` or a `SocketCall`."""
    run: Run
    code: int | None
    contact: str | None
    offset: float

    def record(self) -> CallRecord:
        """Its record; to be asked for within the turn."""
        return record_of(self.call, self.run, self.code, self.contact, self.offset)


class CallRecords:
    """Writes the records of one engine into its history. `wall_offset` is the wall clock minus the monotonic clock, in
    seconds."""

    __slots__ = ("_history", "_offset")

    def __init__(self, history: History, wall_offset: float) -> None:
        self._history = history
        self._offset = wall_offset

    def add(self, call: EndedCall, run: Run, code: int | None, contact: str | None) -> None:
        """Tell of a call that has just ended, as its flow sees it."""
        if self._history.hears(CallOver):
            self._history.tell(CallOver(call, run, code, contact, self._offset))
        if self._history.hears(CallRecord):
            self._history.tell(record_of(call, run, code, contact, self._offset))


def record_of(call: EndedCall, run: Run, code: int | None, contact: str | None, offset: float) -> CallRecord:
    """The record of a call that has just ended; `offset` makes wall clock times of its times."""
    view = run.call
    side = view["fs"]
    return CallRecord(
        id=call.id,
        sip_call_id=view["sip_call_id"],
        flow=run.flow.name,
        run=run.name,
        caller=view["from"]["aor"],
        called=view["target"]["aor"],
        user=view["user"],
        source=f"{view['source_ip']}:{view['source_port']}",
        started=call.started_at + offset,
        answered=None if call.answered_at is None else call.answered_at + offset,
        ended=(call.started_at if call.ended_at is None else call.ended_at) + offset,
        code=code,
        contact=contact,
        ended_by=call.ended_by,
        reason=call.end_reason,
        server=side["server"],
        caller_uuid=side["caller"],
        callee_uuid=side["callee"],
        pushed=call.pushed,
        woken=call.woken,
    )
