"""Keys that a phone reports in SIP INFO, of calls whose media do not go through FreeSWITCH."""

from __future__ import annotations

from orchestrator.core.calls.flow_call import AnyCall
from orchestrator.sip.dtmf import dtmf_of_info
from orchestrator.sip.message import Request


def hear_key(call: AnyCall, request: Request, side: str) -> None:
    """Raise `dtmf` for an INFO of a side, if it reports a key."""
    heard = dtmf_of_info(request)
    if heard is not None:
        digit, ms = heard
        taken = call.publish("dtmf", digit=digit, ms=ms, leg=side, source="INFO", uuid=None)
        if not taken and call.run is not None:
            call.run.ignored_key(digit, side)
