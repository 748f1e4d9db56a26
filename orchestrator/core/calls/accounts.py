"""Our account at the gateway that a request inside a call goes to: it may challenge any request (RFC 3261 §22.2)."""

from __future__ import annotations

from orchestrator.core.calls.call import Call
from orchestrator.sip.digest import Account
from orchestrator.sip.message import Request
from orchestrator.sip.uri import Uri


def account_beyond(call: Call, request: Request, toward: Uri) -> Account | None:
    """The account at a gateway that has answered, or that rings and is at the host of `toward`; None for other
    destinations and for requests of the called side."""
    dialogs = call.dialogs
    found = dialogs.account_beyond(request, toward)
    if found is None and dialogs.is_early(request) and dialogs.side_of(request) == "caller":
        rung = (branch.target for branch in call.pending if branch.target.account is not None)
        same = call.node.network.are_at_one_address
        found = next((target.account for target in rung if same(target.parsed, toward)), None)
    return found
