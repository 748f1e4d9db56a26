"""Why something has ended, in the words of a trace and of a Reason header (RFC 3326)."""

from __future__ import annotations

from orchestrator.history import BranchEnded, ResponseReceived
from orchestrator.sip.branch import Branch
from orchestrator.sip.message import Request

CHANNEL_LOST = "channel lost"
"""Reason of the end of a call whose channels are gone."""


def failure_of(branch: Branch) -> ResponseReceived | BranchEnded:
    """What has become of a branch that has failed: what was received, or that nothing was."""
    contact = branch.target.contact
    if branch.response is not None:
        return ResponseReceived(branch.status, contact)
    if branch.cancelled:
        return BranchEnded(contact, "is given up")
    return BranchEnded(contact, "has not answered" if branch.status == 408 else branch.reason)


def reason_header(text: str, code: int | None) -> bytes:
    """A Reason header line (RFC 3326) with our text; what could end the line or the quotes is taken out."""
    clean = "".join(c for c in text if c.isprintable() and c not in '"\\')
    protocol = f"SIP;cause={code}" if code else "Q.850;cause=16"
    return f'Reason: {protocol};text="{clean}"'.encode()


def cause_of(request: Request) -> str:
    reasons = request.get_all(b"reason")
    return b", ".join(reasons).decode("utf-8", "replace") if reasons else "normal"
