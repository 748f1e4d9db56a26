"""Calls that live: those of flows, those that FreeSWITCH's dialplan has handed over, and INVITEs that are relayed
without a flow while they ring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.engine import Engine
from orchestrator.core.request_view import RequestView
from orchestrator.esl.channels import Channel
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.waits import waits_for
from orchestrator.history import CallRecord
from orchestrator.sip.branch import Branch
from orchestrator.sip.dialog import Leg
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction
from orchestrator.views.listing import Listing
from orchestrator.views.shown_values import iso, length, opaque, shown_contact

LiveCall = Call | SocketCall | ServerTransaction
"""A server transaction stands for an INVITE without a flow."""

STATES = ("ringing", "answered", "held")
"""`held`: FreeSWITCH has the one party of the call, and nobody else is there."""


def live_calls(engine: Engine, now: float, state: str = "", of: str = "", flow: str = "") -> Listing[LiveCall]:
    """Those in this state, of an address or number (a part of From, To, the dialled one or the user), of a flow; ''
    for any."""
    objects: list[LiveCall] = [*engine.calls, *engine.sockets]
    plain = relays_without_flow(engine) and not flow
    if plain:
        objects.extend(engine.layer.servers.values())
    wanted = of.lower()

    def match(call: LiveCall) -> bool:
        if isinstance(call, ServerTransaction):
            return is_relayed(call) and _fits(engine, call, state, wanted)
        if flow and (call.run is None or call.run.flow.name != flow):
            return False
        return _fits(engine, call, state, wanted)

    return Listing(
        objects, lambda call: shown_call(engine, call, now), id_of, match if plain or state or of or flow else None
    )


def relays_without_flow(engine: Engine) -> bool:
    """Whether any INVITE may ring that no flow has taken."""
    unanswered = sum(not call.replied for call in engine.calls)
    return engine.layer.unanswered > unanswered


def find_call(engine: Engine, id: str) -> LiveCall | None:
    """A call that lives, by its id."""
    call = engine.calls.by_id(id)
    if call is not None:
        return call
    for socket_call in engine.sockets:
        if socket_call.id == id:
            return socket_call
    if not relays_without_flow(engine):
        return None
    return next((server for server in list(engine.layer.servers.values()) if _is_named(server, id)), None)


def _is_named(server: ServerTransaction, id: str) -> bool:
    return is_relayed(server) and id_of(server) == id


def is_relayed(server: ServerTransaction) -> bool:
    """It is an INVITE without a flow that begins a call and has no final answer yet."""
    if server.method != b"INVITE" or server.answered or server.request is None or server.request.to_tag is not None:
        return False
    user = getattr(server, "user", None)
    return isinstance(user, ResponseContext) and user.listener is None


def id_of(call: LiveCall) -> str:
    """What names it in the API."""
    return opaque(call.key) if isinstance(call, ServerTransaction) else call.id


def state_of(call: LiveCall) -> str:
    """One of STATES."""
    if isinstance(call, ServerTransaction):
        return "ringing"
    if call.held and not isinstance(call, SocketCall):
        return "held"
    return "answered" if call.answered_at is not None else "ringing"


def run_of(call: LiveCall) -> Run | None:
    """The run of its flow."""
    return None if isinstance(call, ServerTransaction) else call.run


def _view(engine: Engine, call: LiveCall) -> Any:
    """Its fields as flows know them."""
    if isinstance(call, SocketCall):
        return call.view
    if isinstance(call, Call):
        return call
    assert call.request is not None
    return RequestView(engine, call.request, (call.destination.host, call.destination.port))


def _fits(engine: Engine, call: LiveCall, state: str, wanted: str) -> bool:
    if state and state_of(call) != state:
        return False
    if not wanted:
        return True
    view = _view(engine, call)
    texts = (view["from"]["aor"], view["to"]["aor"], view["target"]["aor"], view["user"] or "", id_of(call))
    return any(wanted in text.lower() for text in texts)


def shown_call(engine: Engine, call: LiveCall, now: float) -> dict[str, Any]:
    """One row of the list."""
    view, run = _view(engine, call), run_of(call)
    offset = engine.settings.wall_offset
    told = {
        "id": id_of(call),
        "state": state_of(call),
        "from": view["from"]["aor"],
        "from_name": view["from"]["display"],
        "to": view["target"]["aor"],
        "user": view["user"],
        "source": f"{view['source_ip']}:{view['source_port']}",
        "flow": None if run is None else run.flow.name,
        "run": None if run is None else run.name,
        "started": None,
        "answered": None,
        "duration": 0.0,
        "waits_for": None if run is None else where_it_waits(run),
        "contact": None,
        "server": None,
    }
    if isinstance(call, ServerTransaction):
        return told
    told["started"] = iso(call.started_at + offset)
    told["answered"] = None if call.answered_at is None else iso(call.answered_at + offset)
    told["duration"] = 0.0 if call.answered_at is None else length(max(0.0, now - call.answered_at))
    told["contact"] = shown_contact(call.contact) if isinstance(call, Call) else None
    told["server"] = call.server or None
    return told


def call_details(engine: Engine, call: LiveCall, now: float) -> dict[str, Any]:
    """All that is known of one call that lives."""
    told = shown_call(engine, call, now)
    view = _view(engine, call)
    told["sip_call_id"] = view["sip_call_id"]
    told["user_agent"] = view["user_agent"]
    told["transport"] = view["transport"]
    told["legs"] = list(_legs(call))
    told["branches"] = [_branch(branch) for branch in _pending(call)]
    told["channels"] = [] if isinstance(call, ServerTransaction) else [_channel(found) for found in call.channels()]
    told["record"] = None
    return told


def ended_details(record: CallRecord) -> dict[str, Any]:
    """The same of a call that is over, from its record."""
    facts = record.facts()
    return {
        "id": record.id,
        "state": "ended",
        "from": record.caller,
        "from_name": None,
        "to": record.called,
        "user": record.user,
        "source": record.source,
        "flow": record.flow,
        "run": record.run,
        "started": facts["started"],
        "answered": facts["answered"],
        "duration": facts["duration"],
        "waits_for": None,
        "contact": shown_contact(record.contact),
        "server": record.server,
        "sip_call_id": record.sip_call_id,
        "user_agent": None,
        "transport": None,
        "legs": [],
        "branches": [],
        "channels": [],
        "record": shown_record(record),
    }


def shown_record(record: CallRecord) -> dict[str, Any]:
    """A record without push tokens."""
    return {**record.facts(), "contact": shown_contact(record.contact)}


def where_it_waits(run: Run) -> dict[str, Any] | None:
    """The step that the main steps of a run wait in, or else another task of it: its file and line, the step as
    written, and what it waits for in words."""
    for task in sorted(run.tasks, key=lambda task: task.label != "main"):
        ticket, step = task.ticket, task.step
        if ticket is None or step is None:
            continue
        action = step.action.name if step.action is not None else "if"
        text = f"event {step.args['event']}" if action == "wait" else waits_for(ticket.effect, action)[0]
        return {"file": step.place.file, "line": step.place.line, "step": step.source, "text": text}
    return None


def _pending(call: LiveCall) -> list[Branch]:
    if isinstance(call, SocketCall):
        return []
    if isinstance(call, Call):
        return list(call.pending)
    user = getattr(call, "user", None)
    return list(user.pending) if isinstance(user, ResponseContext) else []


def _branch(branch: Branch) -> dict[str, Any]:
    return {
        "number": branch.number,
        "contact": shown_contact(branch.target.contact),
        "gateway": branch.target.label or None,
        "state": "ringing" if branch.state == "ringing" else "calling",
        "code": branch.status or None,
    }


def _legs(call: LiveCall) -> Iterator[dict[str, Any]]:
    """The dialogs of an answered call."""
    if not isinstance(call, Call):
        return
    dialogs = call.dialogs
    for side, leg in (("caller", dialogs.caller), ("callee", dialogs.callee), ("phone", dialogs.far)):
        if leg is not None:
            yield _leg(side, leg)


def _leg(side: str, leg: Leg) -> dict[str, Any]:
    return {
        "side": side,
        "sip_call_id": leg.call_id.decode("utf-8", "replace"),
        "contact": shown_contact(leg.target.decode("utf-8", "replace")),
        "seen": None if leg.seen is None else f"{leg.seen.host}:{leg.seen.port}",
        "transport": leg.point.transport,
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "server": channel.server,
        "uuid": channel.uuid,
        "leg": channel.leg or None,
        "direction": channel.direction or None,
        "answered": channel.answered,
    }
