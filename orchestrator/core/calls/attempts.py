"""Attempts of a call to get somebody: relays and holds at work, as their call sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Relay
from orchestrator.flow.run.signals import Work
from orchestrator.sip.branch import Attempt, Branch
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.target import Target


class CallRelay(Attempt, Work, Protocol):
    """A relay at work (`core.steps.relay.RelayAttempt`)."""

    effect: Relay
    headers: tuple[bytes, ...]

    @property
    def attended(self) -> bool: ...
    @property
    def awaits_back(self) -> bool: ...
    def back_arrived(self, context: ResponseContext) -> None: ...
    def inject(self, targets: Sequence[Target], cancel_others: bool | str, last: bool) -> int: ...
    def answered_by(self, branch: Branch) -> None: ...
    def answering_contact(self, branch: Branch) -> str: ...
    def finish_answered(self, branch: Branch, status: int) -> None: ...
    def stop(self, wanted: Sequence[str]) -> None: ...
    def abandon(self) -> None: ...


class CallHold(Attempt, Work, Protocol):
    """The branch to FreeSWITCH that holds the caller (`core.steps.hold.Hold`)."""

    def answer(self, headers: Sequence[tuple[str, str]], done: Callable[[StepError | None], None]) -> None: ...
    def progressed(self, status: int) -> None: ...
    def look(self) -> None: ...
