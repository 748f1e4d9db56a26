"""The end of a stop: who still waits for an answer gets one, for we shall not be there to give it later.

A caller who hears it ring may wait for as long as the configuration says; one whom nobody has told anything yet is
better served by another server, at once.
"""

from __future__ import annotations

from orchestrator.core.calls.call import Call
from orchestrator.core.engine import Engine
from orchestrator.core.faults import Fault
from orchestrator.sip.message import build_response
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction

REASON = "server stops"


def give_up(engine: Engine, ringing: bool, now: float) -> None:
    """Answer 503 to every request without a final answer and cancel its branches; with `ringing` also to INVITEs whose
    caller has been told that it rings (a provisional response other than 100)."""
    engine.timers.run_due(now)
    for server in list(engine.layer.servers.values()):
        if not server.answered and (ringing or server.method != b"INVITE" or server.status <= 100):
            try:
                _refuse(engine, server)
            except Exception as bug:
                engine.faults.struck(Fault("stop", bug), server)


def _refuse(engine: Engine, server: ServerTransaction) -> None:
    user: object = server.user
    if isinstance(user, Call):
        user.hangup(REASON, 503, "both")
    elif isinstance(user, ResponseContext):
        user.reply(503)
        user.cancel_pending()
    if not server.answered and server.request is not None:
        tag = engine.network.tokens.token()
        server.respond(503, build_response(server.request, 503, reason_phrase(503), tag))
