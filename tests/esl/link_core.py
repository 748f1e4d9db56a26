"""The other side of a link in tests: a core that keeps what it is told, and a backoff that does not wait."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent.event import Event

from orchestrator.esl.backoff import Backoff
from orchestrator.esl.codec import EslEvent
from orchestrator.runtime.esl_link import LinkState, Snapshot


class Soon(Backoff):
    """Tries again after some milliseconds."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, floor=0.005)

    def refused(self) -> float:
        return 0.005


class Core:
    """Keeps what a link tells it, in order, and lets tests wait for it."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.states: list[str] = []
        self.held: Event | None = None
        self._more = Event()

    def event(self, server: str, event: EslEvent) -> None:
        if self.held is not None:
            self.held.wait()
        self._add(event)

    def state(self, server: str, state: LinkState) -> None:
        self.states.append(state)
        self._add(state)

    def snapshot(self, server: str, snapshot: Snapshot) -> None:
        self._add(snapshot)

    def _add(self, what: object) -> None:
        self.heard.append(what)
        self._more.set()

    @property
    def events(self) -> list[EslEvent]:
        return [one for one in self.heard if isinstance(one, EslEvent)]

    @property
    def snapshots(self) -> list[Snapshot]:
        return [one for one in self.heard if isinstance(one, Snapshot)]

    def wait(self, done: Callable[[], bool], timeout: float = 5.0) -> None:
        end = monotonic() + timeout
        while not done():
            self._more.clear()
            assert monotonic() < end, f"heard {self.heard[-20:]}"
            self._more.wait(0.5)

    def wait_state(self, state: str, count: int = 1) -> None:
        self.wait(lambda: self.states.count(state) >= count)
