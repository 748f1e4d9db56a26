"""What a flow is told of an attempt to reach somebody: the outcome in its words, and the result (FLOWLANG §5 relay)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.sip.branch import Branch
from orchestrator.sip.reasons import reason_phrase

_OUTCOMES = {
    486: "busy", 600: "busy",
    408: "no_answer", 487: "no_answer",
    404: "unavailable", 410: "unavailable", 480: "unavailable", 604: "unavailable",
    401: "rejected", 403: "rejected", 407: "rejected", 433: "rejected", 603: "rejected", 606: "rejected",
}  # fmt: skip


def outcome_of(status: int) -> str:
    """The flow's word for a failure status."""
    return _OUTCOMES.get(status, "failed")


def result_of(outcome: str, code: int, branch: Branch | None, tried: Sequence[str]) -> dict[str, Any]:
    """The `relay result`; `branch` is the one that answered, or the best of those that failed."""
    known = branch is not None and branch.status == code
    return {
        "outcome": outcome,
        "code": code,
        "reason": branch.reason if branch is not None and known else reason_phrase(code),
        "contact": branch.target.contact if branch is not None else None,
        "gateway": (branch.target.label or None) if branch is not None else None,
        "tried": list(tried),
    }
