"""The record of an ended call, made when somebody asks for it.

A record says who called whom in words that have to be read from the INVITE; most records nobody ever looks at. Where
FreeSWITCH had no part in the call, the INVITE and a few numbers beside it are enough to make it later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.cdr import CallOver
from orchestrator.core.engine import Engine
from orchestrator.core.request_view import RequestView
from orchestrator.history import CallRecord
from orchestrator.sip.message import Request


def record_later(engine: Engine, over: CallOver) -> Callable[[], CallRecord] | None:
    """What makes the record of a call that is just over, at any time; None where it has to be made now."""
    call = over.call
    if not isinstance(call, Call) or call.server or call.lost or next(call.channels(), None) is not None:
        return None
    ended = call.started_at if call.ended_at is None else call.ended_at
    times = (call.started_at, call.answered_at, ended)
    how = (over.code, over.contact, call.ended_by, call.end_reason, call.pushed, call.woken)
    who = (call.id, over.run.flow.name, over.run.name, call.user)
    return partial(_record, engine, call.invite, call.source, who, times, how)


def _record(
    engine: Engine,
    invite: Request,
    source: tuple[str, int],
    who: tuple[str, str, str, str | None],
    times: tuple[float, float | None, float],
    how: tuple[Any, ...],
) -> CallRecord:
    view, offset = RequestView(engine, invite, source), engine.settings.wall_offset
    id, flow, run, user = who
    code, contact, ended_by, reason, pushed, woken = how
    started, answered, ended = times
    return CallRecord(
        id=id,
        sip_call_id=view["sip_call_id"],
        flow=flow,
        run=run,
        caller=view["from"]["aor"],
        called=view["target"]["aor"],
        user=user,
        source=f"{source[0]}:{source[1]}",
        started=started + offset,
        answered=None if answered is None else answered + offset,
        ended=ended + offset,
        code=code,
        contact=contact,
        ended_by=ended_by,
        reason=reason,
        server=None,
        caller_uuid=None,
        callee_uuid=None,
        pushed=pushed,
        woken=woken,
    )
