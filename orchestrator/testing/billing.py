"""A CGRateS in memory: accounts with seconds of balance, for stories with charged calls (`given: cgrates:`).

A session that is opened takes what is asked for off the account, or all there is; what was not used comes back when it
is closed. Whether it does as the real one does is held by the stub of tests/e2e, which OpenSIPS has spoken to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.run.charging import Authorise, Report


@dataclass(slots=True)
class Billing:
    """`accounts`: seconds of balance, None for no limit. `down`: it does not answer. `delay`: seconds until it does.
    `portion`: what `update:` of the service says."""

    accounts: dict[str, float | None] = field(default_factory=dict)
    down: bool = False
    delay: float = 0.0
    portion: float | None = None
    open: dict[str, float] = field(default_factory=dict)
    """Sessions, and the seconds each has been granted."""

    def delay_of(self, effect: Authorise | Report) -> float:
        """Seconds until the answer, or until nobody waits for it any more."""
        limit = effect.limit if isinstance(effect, Authorise) else None
        return self.delay if limit is None else min(self.delay, limit)

    def answer(self, effect: Authorise | Report) -> Any:
        """The result, or the error."""
        charged = effect.charged
        if self.down:
            return StepError("charge.down", "CGRateS is away, as the test says", {"sent": False})
        if charged.account not in self.accounts:
            return StepError("charge.refused", "ACCOUNT_NOT_FOUND")
        if isinstance(effect, Authorise):
            if effect.limit is not None and self.delay > effect.limit:
                return StepError("charge.down", "no answer in time")
            left = self.accounts[charged.account]
            most = left if left is None or effect.usage is None else min(left, effect.usage)
            return {"max_usage": most, "portion": self.portion}
        return self._report(effect)

    def _report(self, effect: Report) -> Mapping[str, Any]:
        account, session = effect.charged.account, effect.charged.session
        left = self.accounts[account]
        if effect.what in ("open", "update"):
            granted = 0.0 if left is None else left if effect.usage is None else min(left, effect.usage)
            self.open[session] = self.open.get(session, 0.0) + granted
            if left is None:
                return {"max_usage": None}
            self.accounts[account] = left - granted
            return {"max_usage": granted}
        if effect.what == "close":
            granted = self.open.pop(session, 0.0)
            if left is not None:
                self.accounts[account] = left + granted - (effect.usage or 0.0)
        return {"max_usage": None}
