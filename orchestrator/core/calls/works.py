"""What packages do while a call lasts: works bound to calls (`flow.run.traits.CallWork`).

A work is told of the answer and of the end of its call from the table of the call (`core.calls.flow_call`), where no
end can be missed. It may outlive its call, to finish what it has begun, and is kept until it lets go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestrator.core.calls.flow_call import AnyCall, FlowCall
from orchestrator.core.node import Node
from orchestrator.errors import StepError
from orchestrator.flow.run.traits import CallWork, PoolEffect
from orchestrator.history import Note
from orchestrator.timers import Timer

MOST_LEFT = 10_000
"""Works that may outlive their calls: a kilobyte each. Beyond them, what cannot be done at once is given up."""


class Works:
    """The works of one engine."""

    def __init__(self, node: Node) -> None:
        self.left = 0
        """Works whose calls are over."""
        self._node = node
        self._of_call: dict[str, list[Life]] = {}

    def bind(self, call: object, work: CallWork) -> None:
        """Bind a work to a call. Raises StepError `call.state` where there is none, or it is over."""
        if not isinstance(call, FlowCall):
            raise StepError("call.state", "this run has no call")
        if call.over:
            raise StepError("call.state", "the call is over")
        life = Life(self, self._node, call, work)
        call.works = (*call.works, life)
        self._of_call.setdefault(call.id, []).append(life)
        work.bound(life)
        if call.answered_at is not None:
            life.call_answered()

    def receive(self, call: str, kind: type[CallWork], message: Any, now: float) -> None:
        """An input: a service has a message for the works of a kind that are bound to a call, or outlive it. It is
        counted where there are none."""
        timers = self._node.timers
        timers.run_due(now)
        lives = [life for life in self._of_call.get(call, ()) if isinstance(life.work, kind)]
        for life in lives:
            timers.after(0.0, life.tell, message)  # what it raises is a fault of its call
        if not lives:
            self._node.count("work.untold")
        timers.run_due(now)

    def drop(self, life: Life) -> None:
        """A work lets go."""
        lives = self._of_call.get(life.call, [])
        if life in lives:
            lives.remove(life)
            self.left -= life.over
            if not lives:
                del self._of_call[life.call]

    @property
    def idle(self) -> bool:
        """No work has anything left to finish after its call."""
        return not self.left

    def __len__(self) -> int:
        return sum(map(len, self._of_call.values()))


class Life:
    """The `CallLife` of one work."""

    __slots__ = ("_call", "_node", "_works", "over", "work")

    def __init__(self, works: Works, node: Node, call: AnyCall, work: CallWork) -> None:
        self.work = work
        self.over = False
        """The call has ended, as far as the work knows."""
        self._works = works
        self._node = node
        self._call = call

    # --- what the call says -------------------------------------------------------------------------------------------

    @property
    def keeps_call(self) -> bool:
        return self.work.keeps_call

    def call_answered(self) -> None:
        if not self.over:
            self.work.answered(self)

    def call_ended(self) -> None:
        self.over = True
        self._works.left += 1
        self.work.ended(self)

    def tell(self, message: Any) -> None:
        self.work.told(self, message)

    # --- what the work uses -------------------------------------------------------------------------------------------

    @property
    def call(self) -> str:
        return self._call.id

    @property
    def now(self) -> float:
        return self._node.now

    @property
    def wall(self) -> float:
        return self._node.wall

    @property
    def answered_at(self) -> float | None:
        return self._call.answered_at

    @property
    def ended_at(self) -> float | None:
        return self._call.ended_at

    @property
    def end_reason(self) -> str:
        return self._call.end_reason

    @property
    def crowded(self) -> bool:
        return self._works.left > MOST_LEFT

    def job(self, effect: PoolEffect, done: Callable[[Any], None]) -> None:
        self._node.job(effect, partial(self._done, done))

    def _done(self, done: Callable[[Any], None], result: Any) -> None:
        done(result)

    def after(self, seconds: float, due: Callable[[Any], object]) -> Timer:
        return self._node.timers.after(seconds, self._due, due)

    def _due(self, due: Callable[[Any], object]) -> None:
        due(None)

    def publish(self, event: str, attributes: Mapping[str, Any]) -> int:
        return 0 if self._call.over else self._call.publish(event, **attributes)

    def hangup(self, reason: str, code: int | None = None) -> None:
        self._call.hangup(reason, code)

    def note(self, text: str) -> None:
        self._call.note(Note(text))

    def count(self, name: str) -> None:
        self._node.count(name)

    def let_go(self) -> None:
        self._works.drop(self)

    def __repr__(self) -> str:
        return f"<Life of {type(self.work).__name__} in {self._call!r}>"
