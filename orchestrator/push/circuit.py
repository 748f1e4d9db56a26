"""Whether a server that failed is asked again: pure, with the clock of its caller.

Closed: all pushes go out. Open: the server has failed several times in a row, and pushes fail at once instead of
waiting for it. When its rest is over one push goes out as a probe; what comes of it closes the circuit, or opens it for
twice as long. A server that names a time itself (Retry-After) gets that time: pushes that can wait for it do.
"""

from __future__ import annotations

from typing import Final

TRIP_AFTER: Final = 4
"""Failures in a row that open the circuit, each of a push that went out after the one before: a connection that breaks
off fails many at once, and is one failure."""
FIRST_REST, LONGEST_REST = 1.0, 30.0
"""Seconds until the probe; twice as many each time."""
LONGEST_WISH: Final = 3600.0
"""Seconds that a server may ask us to wait, at most."""


class Circuit:
    """How one server is doing."""

    __slots__ = ("_latest", "_probing", "_rest", "_until", "failures", "open", "reason")

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.open = False
        self.reason = ""
        """Of the latest failure."""
        self._latest = float("-inf")
        """When it was."""
        self._until = 0.0
        self._rest = FIRST_REST
        self._probing = False

    def wait(self, now: float) -> float:
        """Seconds until the server wants pushes again; 0 for now."""
        return max(0.0, self._until - now)

    def admits(self, now: float) -> bool:
        """Whether a push may go out. While the circuit is open this is asked once for each probe."""
        if now < self._until or (self.open and self._probing):
            return False
        self._probing = self.open
        return True

    def passed(self) -> bool:
        """The server has answered. Returns whether that closes the circuit."""
        reopened = self.open
        self.failures, self.open, self.reason, self._probing = 0, False, "", False
        self._until, self._rest = 0.0, FIRST_REST
        return reopened

    def failed(self, reason: str, retry_after: float | None, now: float, began: float) -> bool:
        """A push that went out at `began` has failed for the server. Returns whether that opens the circuit."""
        probe, self._probing = self._probing, False
        self.reason = reason
        if began >= self._latest:
            self.failures += 1
            self._latest = now
        if retry_after is not None:
            self._until = max(self._until, now + min(retry_after, LONGEST_WISH))
        if self.open and probe:
            self._rest = min(2 * self._rest, LONGEST_REST)
            self._until = max(self._until, now + self._rest)
        if self.open or self.failures < TRIP_AFTER:
            return False
        self.open = True
        self._until = max(self._until, now + self._rest)
        return True

    def gave_up(self) -> None:
        """A push that was let out is over, and nothing was heard of the server: the next one may be the probe."""
        self._probing = False

    def __repr__(self) -> str:
        return (
            f"<Circuit {'open' if self.open else 'closed'} {self.failures} failures{self.reason and ': '}{self.reason}>"
        )
