"""How long connections may keep the loop: each pass of it has its slice, however many of them have something.

A datagram socket is one source and has a slice of its own; a thousand connections are a thousand sources. So they
share one slice for each pass of the loop. What does not fit in waits in line and goes on in the next pass, after the
loop has looked at everything else. TLS handshakes cost as much as several calls, and strangers can ask for them: they
have a line of their own and a number per pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

SLICE = 0.005
"""Seconds of a pass."""
HANDSHAKES = 4
"""Steps of handshakes in a pass: some 2 ms."""

Work = Callable[[], None]


class Pace:
    """Of all connections of one server."""

    def __init__(self, loop: Any, clock: Callable[[], float]) -> None:
        self.waiting: deque[Work] = deque()
        self.handshakes: deque[Work] = deque()
        self._clock = clock
        self._until = 0.0
        """End of the slice of this pass, 0 while nothing has used it."""
        self._shaken = 0
        self._next = loop.timer(0)
        self._pass = loop.prepare()
        self._runs = False

    def may(self) -> bool:
        """Whether there is time left in this pass; whoever is told no leaves what it has with `later`."""
        now = self._clock()
        if not self._until:
            self._begin(now)
        return now < self._until

    def may_shake_hands(self) -> bool:
        """The same for a step of a handshake, which is counted: these have a share of each pass of their own, however
        much the connections that stand have to say."""
        self.may()
        if self._shaken >= HANDSHAKES:
            return False
        self._shaken += 1
        return True

    def later(self, work: Work) -> None:
        """Do this in one of the next passes, after what waits already."""
        self.waiting.append(work)
        self._wake()

    def later_handshake(self, work: Work) -> None:
        self.handshakes.append(work)
        self._wake()

    def revive(self) -> bool:
        """Go on, should the loop have let go of us. True when it had."""
        if not (self.waiting or self.handshakes) or self._next.active:
            return False
        self._next.start(self._run, update=False)
        return True

    def close(self) -> None:
        for watcher in (self._next, self._pass):
            watcher.stop()
            watcher.close()
        self.waiting.clear()
        self.handshakes.clear()

    def _begin(self, now: float) -> None:
        self._until = now + SLICE
        self._shaken = 0
        self._pass.start(self._end)

    def _end(self) -> None:
        """The loop is about to look for what is ready: a new pass."""
        self._until = 0.0
        self._pass.stop()

    def _wake(self) -> None:
        if not self._runs and not self._next.active:
            self._next.start(self._run, update=False)  # a timer: the loop looks at its sockets first

    def _run(self) -> None:
        """Loop callback. Work does not raise."""
        self._runs = True
        try:
            waiting, handshakes = self.waiting, self.handshakes
            while waiting and self.may():
                waiting.popleft()()
            while handshakes and self.may_shake_hands():
                handshakes.popleft()()
        finally:
            self._runs = False
            if self.waiting or self.handshakes:
                self._next.start(self._run, update=False)
