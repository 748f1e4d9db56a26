"""Tasks that a step starts and waits for: the branches of `parallel` (FLOWLANG §4.3)."""

from __future__ import annotations

from collections import deque

from orchestrator.flow.language.program import Block
from orchestrator.flow.run.signals import Cancelled, Ticket
from orchestrator.flow.run.task import Steps, Task


class Children:
    """Children of one waiting step, taken in the order in which they end."""

    def __init__(self, parent: Task) -> None:
        self._parent = parent
        self._running: list[Task] = []
        self._ended: deque[tuple[Task, BaseException | None]] = deque()
        self._ticket: Ticket | None = None

    def start(self, block: Block, label: str) -> None:
        """Start a child; it runs when the parent waits. Raises StepError `flow.limit`."""
        self._running.append(self._parent.spawn(block, label, self._done))

    def _done(self, task: Task, result: object, failure: BaseException | None) -> None:
        self._running.remove(task)
        self._ended.append((task, failure))
        if self._ticket is not None and self._ticket.task is not None:
            self._parent.run.engine.resume(self._ticket, None)

    def next(self) -> Steps:
        """Wait for the next child to end and return its Task; raises what ended it."""
        while not self._ended:
            self._ticket = Ticket(self._parent)
            yield self._ticket
        task, failure = self._ended.popleft()
        if failure is not None:
            raise failure
        return task

    def cancel(self) -> bool:
        """End those that still run, at their next waiting point; whether there were any."""
        self._ticket = None
        running = list(self._running)
        for task in running:
            task.interrupt(Cancelled())
        return bool(running)
