"""Jobs that nobody waits for here: `begin` starts the work, and whoever does it calls back when it is done.

A worker of a `Pool` is woken twice for each job and has a timer for each. Where one connection carries many requests
at a time, the reader of its answers can end the jobs itself. What a pool promises holds here, too: so many at a time,
each answered exactly once, within its time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from loguru import logger

from orchestrator.errors import StepError

Done = Callable[[Any], None]
"""`done(result or StepError)`; only the first call counts."""
Begin = Callable[[Any, Done], None]


class Errands:
    """At most `most` jobs at a time. `begin(effect, done)` must not wait; it may call `done` at once.

    `error` is the type of the StepError for a job whose `begin` raised something, `name.timeout` that of one that was
    not answered within `timeout` seconds.
    """

    size = 0
    """Workers: there are none."""

    def __init__(
        self, name: str, begin: Begin, answer: Callable[[int, Any], None], *, most: int, timeout: float, error: str
    ) -> None:
        self.name = name
        self.backlog = most
        self.done = self.refused = self.crashed = 0
        self._begin = begin
        self._answer = answer
        self._timeout = timeout
        self._error = error
        self._out: dict[int, float] = {}
        """Job → when its time is over; the first one first."""
        self._timer: Any = None

    def submit(self, job: int, effect: Any) -> None:
        """Begin a job; never waits."""
        if len(self._out) >= self.backlog:
            self.refused += 1
            self._answer(job, StepError("flow.limit", f"{self.backlog} {self.name} requests are waiting already"))
            return
        self._out[job] = monotonic() + self._timeout
        if self._timer is None:
            self._wait_for(self._timeout)
        try:
            self._begin(effect, lambda result: self._end(job, result))
        except StepError as error:
            self._end(job, error)
        except Exception as error:
            self.crashed += 1
            logger.bind(source=self.name, effect=type(effect).__name__).exception("job_fault")
            self._end(job, StepError(self._error, f"{self.name} failed: {type(error).__name__}"))

    @property
    def running(self) -> int:
        """Jobs that are not answered yet."""
        return len(self._out)

    @property
    def waiting(self) -> int:
        """None waits: each is begun at once."""
        return 0

    @property
    def idle(self) -> bool:
        return not self._out

    def close(self) -> None:
        """What is out is not answered any more."""
        self._out.clear()
        self._stop_timer()

    def _end(self, job: int, result: Any) -> None:
        if self._out.pop(job, None) is not None:
            self.done += 1
            self._answer(job, result)

    def _wait_for(self, seconds: float) -> None:
        self._timer = gevent.get_hub().loop.timer(seconds, ref=False)
        self._timer.start(self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _expire(self) -> None:
        self._stop_timer()
        now = monotonic()
        for job, until in list(self._out.items()):
            if until > now:
                self._wait_for(until - now)
                return
            self._end(job, StepError(f"{self.name}.timeout", f"no result within {self._timeout:g} s"))
