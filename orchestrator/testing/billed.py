"""What CGRateS must have had and said, by the facts of a trace: `given: cgrates:`, and what it was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.flow.run.step_facts import Stepped
from orchestrator.history import Note
from orchestrator.testing.case_text import quoted, seconds_of

Fact = Mapping[str, Any]

_AUTHORISED = re.compile(r"(?P<account>.*) -> (?P<outcome>granted|denied|error)(?:: (?P<reason>.*))?", re.DOTALL)
_ASKED = re.compile(r"charge (?P<what>open|update|close) (?P<account>.*?)(?:, (?P<usage>[0-9.e+]+)s)?", re.DOTALL)
_LATE = 0.001
"""Seconds below which CGRateS has answered at once."""


class Billed:
    """Reads the facts about charging; `act(text)` is told what has to happen now, `expect(text)` what is expected."""

    def __init__(self, act: Callable[[str], None], expect: Callable[[str], None]) -> None:
        self._act = act
        self._expect = expect
        self._asked = False
        self._accounts: dict[str, float | None] = {}
        self._used: tuple[str, float] = "", 0.0
        self._down = False
        self._delay = 0.0
        self._portion = self._first = 0.0
        """Seconds asked for at a time, and when the session was opened."""

    @property
    def given(self) -> str:
        """`given: cgrates:`, '' for a run that was not charged."""
        if not self._asked:
            return ""
        balances = (
            f"{quoted(name)}: {'unlimited' if left is None else seconds_of(left)}"
            for name, left in self._accounts.items()
        )
        parts = [f"accounts: {{{', '.join(balances)}}}"]
        parts += ["down: true"] if self._down else []
        parts += [f"delay: {seconds_of(self._delay)}"] if self._delay else []
        parts += [f"update: {seconds_of(self._portion)}"] if self._portion else []
        return f"{{{', '.join(parts)}}}"

    def read(self, fact: Fact, since: float) -> bool:
        """Whether a fact was about charging. `since`: seconds since the fact before it."""
        if fact["kind"] == Stepped.__name__ and fact["action"] == "charge":
            found = _AUTHORISED.fullmatch(fact["what"])
            if found is not None:
                self._authorised(found["account"], found["outcome"], found["reason"] or "", since)
            return found is not None
        asked = _ASKED.fullmatch(fact["text"]) if fact["kind"] == Note.__name__ else None
        if asked is not None:
            self._reported(asked["what"], asked["account"], float(asked["usage"] or 0.0))
        return asked is not None

    def brings(self, event: str, attributes: Mapping[str, Any]) -> bool:
        """Whether an event that was taken comes from CGRateS; what makes it happen."""
        if event == "limit_reached":  # the balance does
            account, _ = self._used
            self._accounts[account] = float(attributes["usage"])
        elif event == "low_balance":
            self._act("cgrates: low_balance")
        elif event == "charge_stop":
            self._act(f"cgrates: {{disconnect: {quoted(attributes['reason'])}}}")
        else:
            return False
        return True

    def ended(self, reason: str) -> None:
        """The call has ended, and why."""
        if reason == "limit reached" and self._used[0]:
            self._accounts[self._used[0]] = self._used[1]

    def _authorised(self, account: str, outcome: str, reason: str, since: float) -> None:
        self._asked = True
        self._delay = round(since, 3) if since >= _LATE else 0.0
        self._expect("sent: {cgrates: authorise}")
        if outcome == "error":
            self._down = True
        elif outcome == "granted":
            self._accounts[account] = None
            self._used = account, 0.0
        elif reason == "no usage left":
            self._accounts[account] = 0.0

    def _reported(self, what: str, account: str, usage: float) -> None:
        if what == "open":
            self._first = usage
        elif what == "update":
            self._portion = self._first
        elif what == "close":
            self._used = account, usage
        self._expect(f"sent: {{cgrates: {what}}}")
