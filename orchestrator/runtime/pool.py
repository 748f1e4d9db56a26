"""Bounded pools of greenlets for what has to wait: HTTP exchanges, Event Socket commands, look-ups.

A flow's task is a generator and costs half a kilobyte while it waits; a greenlet costs seven and, on CPython 3.11, 25
µs to start. So greenlets are kept where something really blocks, and there they are few and reused: a worker takes the
next job off the queue and parks when there is none.

Both bounds matter. `size` bounds what is asked of the other side at once; `backlog` bounds how many flows may wait
behind a peer that hangs. A job beyond it is answered at once with `flow.limit`, because a flow that waits for ever is
worse than one that is told no. Each job is answered exactly once, whatever its work does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import SimpleQueue
from loguru import logger

from orchestrator.errors import StepError


class Pool:
    """At most `size` jobs at work and `backlog` waiting.

    `perform(effect)` does the work in a worker greenlet: it returns the job's result or raises StepError. `answer(job,
    result)` gets the result, or the StepError, exactly once per job; it is called from workers, and from `submit` for
    a refused job. `error` is the type of the StepError for a job that crashed.
    """

    def __init__(
        self,
        name: str,
        perform: Callable[[Any], Any],
        answer: Callable[[int, Any | StepError], None],
        *,
        size: int,
        backlog: int,
        error: str = "flow.fault",
    ) -> None:
        self.name = name
        self.size = size
        self.backlog = backlog
        self.running = 0
        self.done = self.refused = self.crashed = 0
        self._perform = perform
        self._answer = answer
        self._error = error
        self._queue: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._workers: list[gevent.Greenlet[..., None]] = []

    def submit(self, job: int, effect: Any) -> None:
        """Queue a job; never waits, so the event loop itself may call it."""
        if self.waiting >= self.backlog:
            self.refused += 1
            self._answer(job, StepError("flow.limit", f"{self.backlog} {self.name} requests are waiting already"))
            return
        self._queue.put((job, effect))
        busy = self.running + self.waiting
        if busy > len(self._workers) and len(self._workers) < self.size:
            self._workers.append(gevent.spawn(self._work))

    @property
    def waiting(self) -> int:
        """Jobs no worker has taken yet."""
        return int(self._queue.qsize())

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def close(self) -> None:
        """Stop all workers where they wait; what they were doing is not answered any more."""
        gevent.killall(self._workers, block=False)
        self._workers.clear()

    def _work(self) -> None:
        while True:
            job, effect = self._queue.get()
            self.running += 1
            try:
                self._answer(job, self._attempt(effect))
            finally:
                self.running -= 1
                self.done += 1

    def _attempt(self, effect: Any) -> Any | StepError:
        try:
            return self._perform(effect)
        except StepError as error:
            return error
        except (Exception, gevent.Timeout, SystemExit) as error:  # SystemExit in a greenlet would end the server
            self.crashed += 1
            logger.bind(source=self.name, effect=type(effect).__name__).exception("job_fault")
            return StepError(self._error, f"{self.name} failed: {type(error).__name__}")

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.running} of {self.size} at work, {self.waiting} of {self.backlog} waiting>"
