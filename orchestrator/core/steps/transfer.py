"""A `transfer` at work: a relay whose front FreeSWITCH has already."""

from __future__ import annotations

from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.sip.branch import Branch


class TransferAttempt(RelayAttempt):
    """A call that FreeSWITCH has and sends on to new destinations, through us. The back is all there is to see of
    it."""

    __slots__ = ()

    @property
    def _on_back(self) -> bool:
        return True

    def refused(self, status: int) -> None:
        """FreeSWITCH did not do as it was told."""
        self._finish("failed", status)

    def _open(self) -> None:
        self.await_back()

    def answered_by(self, branch: Branch) -> None:
        super().answered_by(branch)
        self.call.publish("answered", contact=branch.target.contact, leg="callee")
        self.finish_answered(branch, branch.status)

    def _end_back(self, code: int) -> None:
        if self._context is not None:
            self._context.reply(code)
            self.call.drop_back()  # FreeSWITCH has the caller again, and nobody else
