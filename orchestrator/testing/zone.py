"""A name server in memory: records by name and kind, for look-ups of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.sip.locate import Answer, Found, Goal, survey

NEGATIVE = 30.0
"""Seconds that nothing is kept for."""


class Zone:
    """`records[name, kind]` are those of NAPTR, SRV, A or AAAA as `sip.locate` has them; a name that is not there has
    none, and one in `silent` is not answered."""

    def __init__(self, records: Mapping[tuple[str, str], tuple[Any, ...]], ttl: float = 60.0) -> None:
        self.records = dict(records)
        self.ttl = ttl
        self.silent: set[str] = set()

    def find(self, goal: Goal) -> Found:
        """What a resolver would find."""
        steps = survey(goal)
        questions = next(steps)
        while True:
            answers = {question: self._answer(*question) for question in questions}
            try:
                questions = steps.send(answers)
            except StopIteration as end:
                found: Found = end.value
                return found

    def _answer(self, name: str, kind: str) -> Answer | None:
        if name in self.silent:
            return None
        records = self.records.get((name, kind), ())
        return Answer(records, self.ttl if records else NEGATIVE)
