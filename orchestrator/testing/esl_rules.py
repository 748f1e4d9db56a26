"""Commands a fake FreeSWITCH has received, how to wait for them, and rules that say what to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Protocol, Self

import gevent
from gevent.event import Event

from orchestrator.esl.codec import EslEvent
from orchestrator.testing.recordings import Recording

WAIT = 5.0
"""Seconds a `wait_…` gives the thing to happen."""


def wait_until(done: Callable[[], bool], changed: Event, timeout: float, what: Callable[[], str]) -> None:
    """Wait until `done()`, looking again at each `changed`; AssertionError naming `what()` after `timeout` seconds."""
    deadline = monotonic() + timeout
    while not done():
        changed.clear()
        left = deadline - monotonic()
        if left <= 0:
            raise AssertionError(f"waited {timeout:g} s for {what()}")
        changed.wait(left)


@dataclass(frozen=True, slots=True)
class Command:
    """One command received. `text` is what patterns are matched against: the line, and for an execute `… app args`."""

    line: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    connection: int = 0

    @property
    def text(self) -> str:
        parts = [self.line, self.headers.get("call-command", ""), self.headers.get("execute-app-name", "")]
        return " ".join(part for part in [*parts, self.headers.get("execute-app-arg", "")] if part)

    def __str__(self) -> str:
        return self.text


class CommandLog(list[Command]):
    """The commands received, in order; those of the connection's own life (auth, exit) included."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = Event()

    def append(self, command: Command) -> None:
        super().append(command)
        self._changed.set()

    def matching(self, pattern: str) -> list[Command]:
        """Those whose text fits the glob."""
        return [command for command in self if fnmatchcase(command.text, pattern)]

    def wait_for(self, pattern: str, count: int = 1, timeout: float = WAIT) -> Command:
        """The `count`th command that fits, waiting for it; AssertionError when it does not come."""
        wait_until(
            lambda: len(self.matching(pattern)) >= count, self._changed, timeout, lambda: f"{pattern!r} in {self.texts}"
        )
        return self.matching(pattern)[count - 1]

    @property
    def texts(self) -> list[str]:
        return [command.text for command in self]


class Sender(Protocol):
    """The fake FreeSWITCH of a rule, as far as it says something."""

    def emit(self, event: EslEvent, headers: Mapping[str, str | None] | None = None) -> int:
        """Send an event; to how many connections."""

    def play(self, recording: Recording, speed: float = 0, substitute: Mapping[str, str] | None = None) -> int:
        """Send the events of a recording; how many."""


class Rule:
    """What to do when a command comes. Made by `FakeFreeSwitch.on`; the methods can be chained."""

    def __init__(self, pattern: str, server: Sender) -> None:
        self.pattern = pattern
        self.hits = 0
        self.text: str | None = None
        self.raw: bytes | None = None
        self.answers = True
        self.actions: list[Callable[[], object]] = []
        self._server = server
        self._limit: int | None = None
        self._gate: Event | None = None

    def reply(self, text: str) -> Self:
        """Output of an api (or of the job of a bgapi), Reply-Text of any other command."""
        self.text = text
        return self

    def reply_raw(self, octets: bytes) -> Self:
        """These octets instead of a reply."""
        self.raw = octets
        return self

    def silent(self) -> Self:
        """No reply at all."""
        self.answers = False
        return self

    def held(self) -> Self:
        """Reply only after `release()`; as in FreeSWITCH, nothing else is answered on that connection meanwhile."""
        self._gate = Event()
        return self

    def release(self) -> None:
        if self._gate is not None:
            self._gate.set()

    def times(self, count: int) -> Self:
        """Only for the first `count` commands that fit; then older rules and the ordinary answer apply."""
        self._limit = count
        return self

    def then(self, action: Callable[[], object]) -> Self:
        """Call something after the reply was sent."""
        self.actions.append(action)
        return self

    def then_emit(self, event: EslEvent, headers: Mapping[str, str | None] | None = None) -> Self:
        """Send an event after the reply."""
        return self.then(lambda: self._server.emit(event, headers))

    def then_play(self, recording: Recording, speed: float = 0, substitute: Mapping[str, str] | None = None) -> Self:
        """Play a recording after the reply."""
        return self.then(lambda: gevent.spawn(self._server.play, recording, speed, substitute))

    def takes(self, command: Command) -> bool:
        return (self._limit is None or self.hits < self._limit) and fnmatchcase(command.text, self.pattern)

    def wait(self) -> None:
        """Wait for `release` when the rule is held."""
        if self._gate is not None:
            self._gate.wait()
