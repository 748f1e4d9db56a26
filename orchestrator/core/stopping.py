"""The end of a stop: who still waits for an answer gets one, as we shall not be there to give it later; then flows end.

A caller who hears it ring may wait for as long as the configuration says; one whom nobody has told anything yet is
better served by another server, at once. Answered calls go on without us: the phones and FreeSWITCH have their dialogs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.flow_call import AnyCall
from orchestrator.core.faults import Fault, Faults
from orchestrator.core.node import Node
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.sip.message import build_response
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction

REASON = "server stops"


def give_up(node: Node, faults: Faults, ringing: bool, now: float) -> None:
    """Answer 503 to every request without a final answer and cancel its branches; with `ringing` also to INVITEs whose
    caller has been told that it rings (a provisional response other than 100)."""
    node.timers.run_due(now)
    for server in list(node.layer.servers.values()):
        if not server.answered and (ringing or server.method != b"INVITE" or server.status <= 100):
            _attempt(partial(_refuse, node, server), faults, server)


def end_flows(flows: FlowEngine, calls: Iterable[AnyCall], faults: Faults, now: float) -> None:
    """End every run, after `give_up`: its call gets its record, and its `finally` and `on_end` steps each get the time
    `limits: grace` says. The flows are at their end when `flows.runs` is empty."""
    flows.timers.run_due(now)
    for call in calls:
        _attempt(partial(call.leave, REASON), faults, call)
    _attempt(partial(flows.stop, REASON), faults)


def _attempt(act: Callable[[], object], faults: Faults, *about: Any) -> None:
    try:
        act()
    except Exception as bug:
        faults.struck(Fault("stop", bug), *about)


def _refuse(node: Node, server: ServerTransaction) -> None:
    user: object = server.user
    if isinstance(user, Call):
        user.hangup(REASON, 503, "both")
    elif isinstance(user, ResponseContext):
        user.reply(503)
        user.cancel_pending()
    if not server.answered and server.request is not None:
        tag = node.network.tokens.token()
        server.respond(503, build_response(server.request, 503, reason_phrase(503), tag))
