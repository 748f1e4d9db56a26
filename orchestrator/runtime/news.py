"""What the core says to the log: calls, registrations, runs that failed, messages that were dropped.

A line is `event key=value …`; the names of events are stable. Whoever sends many messages must not fill the disk, nor
may many senders together: each event has a bound for one source and one for all of them, looked at before anything is
formatted. How many lines were left out is said on the next one, as `suppressed`. Values are cut to `LONGEST`
characters; the renderer escapes control characters. A fact that costs something to find out is given as a function
without arguments, called only for a line that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from orchestrator.runtime.log import tell

PER_SOURCE = 10
"""Lines of one event a second for one source."""
PER_EVENT = 100
"""Lines of one event a second for all sources."""
LONGEST = 200
"""Characters of one value."""

WARNINGS = frozenset(
    {"run_failed", "freeswitch_full", "freeswitch_takes_no_calls", "malformed", "source_banned", "push_failed"}
)
"""Events somebody should look at; the others are for information."""


class News:
    """Give `tell` to the engine as `on_news`. `quiet` keeps what is not a warning out of the log."""

    def __init__(self, quiet: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self.quiet = quiet
        self._clock = clock
        self._second = -1
        self._lines: dict[str | tuple[str, str], int] = {}
        """Lines written this second, by event, and by event and source."""
        self._suppressed: dict[str, int] = {}

    def tell(self, event: str, facts: Mapping[str, Any]) -> None:
        """One line, if there is room for it."""
        warning = event in WARNINGS
        if (self.quiet and not warning) or not self._room(event, str(facts.get("source", ""))):
            return
        told: dict[str, Any] = {}
        for name, value in facts.items():
            if callable(value):
                value = value()
            if value not in (None, ""):
                # written as `address`: `source` would be bounded once more by the renderer's own filter
                told["address" if name == "source" else name] = _cut(value)
        left_out = self._suppressed.pop(event, 0)
        if left_out:
            told["suppressed"] = left_out
        tell("warning" if warning else "info", event, told)

    def _room(self, event: str, source: str) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._lines.clear()
        lines, key = self._lines, (event, source)
        of_all, of_one = lines.get(event, 0), lines.get(key, 0)
        if of_all >= PER_EVENT or (source and of_one >= PER_SOURCE):
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return False
        lines[event], lines[key] = of_all + 1, of_one + 1
        return True


def _cut(value: Any) -> Any:
    return value[:LONGEST] + "…" if isinstance(value, str) and len(value) > LONGEST else value
