"""The reactor: brings inputs to the core one at a time and carries its outputs away.

One *turn* hands one input (a datagram, an event, a job's result, the passing of time) to the core, which runs it to
completion and leaves octets to send and jobs to start in two lists. Turns run inside callbacks of the event loop,
never inside a greenlet. That is what makes them atomic: the loop's own greenlet cannot wait, gevent refuses a
blocking call there, so nothing else can see the core between the first and the last line of a turn, and two racing
inputs are always one after the other.

Three sources wake the reactor:

* a socket that has become readable: its transport reads datagrams until there are no more and calls `receive` for each;
* the one timer watcher, armed for the earliest of the core's timers. A cancelled timer leaves it armed: one needless
  wake-up costs less than stopping and starting a watcher per message;
* the *inbox*, where greenlets leave what they have (`post`, `offer`, `put`) for the next pass of the loop.

Each source gives the loop back after `SLICE` seconds, so that none starves the others: datagrams that pour in cannot
hold up timers, nor a burst of Event Socket events the datagrams. How long the oldest input had been waiting when it
was taken up, its *age*, is the measure of overload (RFC 7339 asks for one; queue lengths say nothing about time).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent.event import Event as Signal
from loguru import logger

from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.sip.transaction import Destination
from orchestrator.timers import Timers

SLICE = 0.005
"""Seconds one source may keep the loop: well under T1 = 500 ms and the 10 ms tick, enough for some dozens of turns."""

BATCH = 64
"""Datagrams one wake-up may read: with small turns the count ends the batch before the clock does."""

INBOX = 2000
"""Inputs that may wait from sources that can be held back or refused."""

SLOW_TURN = 0.050
"""A turn longer than this, in seconds, delays every call noticeably; it is counted."""

READ = 1
"""libev's EV_READ, for `loop.io`."""

NEVER = float("inf")


class Job(Protocol):
    """Work the core cannot do itself because it waits; answered through `Core.complete(id, …)`."""

    @property
    def id(self) -> int: ...
    @property
    def effect(self) -> Any: ...


class Core(Protocol):
    """What the reactor drives (orchestrator.core.engine.Engine). `now` is in seconds of one monotonic clock."""

    @property
    def timers(self) -> Timers: ...
    @property
    def datagrams(self) -> list[tuple[bytes, Destination]]: ...
    @property
    def jobs(self) -> list[Any]:
        """Of `Job`; a list of a concrete class would not match a list of the protocol."""

    def receive_datagram(self, data: bytes, host: str, port: int, transport: int, now: float) -> None: ...
    def receive_esl(self, server: str, event: EslEvent, now: float) -> None: ...
    def link_changed(self, server: str, state: str, reason: str, now: float) -> None: ...
    def complete(self, job: int, result: Any | StepError, now: float) -> None: ...
    def transport_failed(self, destination: Destination, data: bytes, now: float) -> None: ...
    def run_timers(self, now: float) -> None: ...


class Transport(Protocol):
    """Sends octets; what cannot be sent comes back through `Reactor.failed`, never as an exception."""

    def send(self, data: bytes, destination: Destination) -> None: ...


class Reactor:
    """Drives one core on one event loop. All methods but `put` may be called from greenlets and loop callbacks alike.

    `start_job(job)` is called for each job the core leaves; it must not wait. `age` is the age in seconds of the
    input taken up last; `late_50ms` and `late_200ms` count inputs older than that.
    """

    def __init__(
        self,
        core: Core,
        start_job: Callable[[Any], None],
        *,
        inbox: int = INBOX,
        clock: Callable[[], float] = monotonic,
        loop: Any = None,
    ) -> None:
        self.core = core
        self.clock = clock
        self.loop = loop if loop is not None else gevent.get_hub().loop
        self.capacity = inbox
        self.age = 0.0
        self.late_50ms = self.late_200ms = 0
        self.slow_turns = self.failed_turns = self.refused = 0
        self._start_job = start_job
        self._senders: list[Callable[[bytes, Destination], None]] = []
        self._inbox: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()
        self._inbox_wakes = False
        self._waiting: deque[Signal] = deque()
        self._due = NEVER
        self._timer = self._again = self.loop.timer(0)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> int:
        """Add a transport; returns its id, the first item of every `Destination` that is to leave through it."""
        self._senders.append(transport.send)
        return len(self._senders) - 1

    def receive(self, data: bytes, host: str, port: int, transport: int, now: float) -> None:
        """One turn for one datagram. Called by transports from loop callbacks, followed by one `settle` per wake-up."""
        core = self.core
        try:
            core.receive_datagram(data, host, port, transport, now)
        except Exception:
            self._turn_failed("datagram")
        if core.datagrams or core.jobs:
            self.flush()

    def post(self, receive: Callable[..., None], *arguments: Any) -> None:
        """Leave an input for the next pass of the loop: `receive(*arguments, now)` is its turn.

        Never refused: for inputs whose number is bounded where they come from, such as results of jobs and signals.
        """
        self._inbox.append((self.clock(), receive, arguments))
        if not self._inbox_wakes:
            self._inbox_wakes = True
            self.loop.run_callback(self._run_inbox)

    def offer(self, receive: Callable[..., None], *arguments: Any) -> bool:
        """`post` where there is room; False (and counted) when the inbox is full."""
        if len(self._inbox) >= self.capacity:
            self.refused += 1
            return False
        self.post(receive, *arguments)
        return True

    def put(self, receive: Callable[..., None], *arguments: Any) -> None:
        """`post`, waiting for room: a greenlet that reads a stream is slowed down to the pace of the core.

        In turn: who floods goes behind who waits, so one server's flood costs another no more than the way through
        the inbox.
        """
        if self._waiting or len(self._inbox) >= self.capacity:
            turn = Signal()
            self._waiting.append(turn)
            try:
                turn.wait()
            except BaseException:  # killed: the next one moves up
                if turn in self._waiting:
                    self._waiting.remove(turn)
                elif self._waiting:
                    self._waiting.popleft().set()
                raise
        self.post(receive, *arguments)

    def failed(self, destination: Destination, data: bytes) -> None:
        """A transport could not send `data`, or the network said so later: an input of its own, after this turn."""
        self.offer(self.core.transport_failed, destination, data)

    def run(self, receive: Callable[..., None], *arguments: Any) -> None:
        """One turn at once, for the composition root before it serves and while it stops."""
        self._turn(receive, arguments, self.clock())
        self.settle()

    # --- outputs ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """After the last turn of a wake-up: have the loop wake for the earliest timer."""
        due = self.core.timers.next_due()
        if due is not None and due < self._due:
            self._timer.stop()
            self._timer.close()
            self._due = due
            self._timer = self.loop.timer(max(0.0, due - self.clock()))
            self._timer.start(self._run_timers, update=True)

    def flush(self) -> None:
        """Carry away what the core left. Failures go through the inbox, so the lists do not grow meanwhile."""
        core, senders = self.core, self._senders
        if core.datagrams:
            for data, destination in core.datagrams:
                try:
                    send = senders[destination[0]]
                except IndexError:
                    self.failed(destination, data)
                else:
                    send(data, destination)
            core.datagrams.clear()
        if core.jobs:
            for job in core.jobs:
                self._start_job(job)
            core.jobs.clear()

    # --- turns --------------------------------------------------------------------------------------------------------

    def _turn(self, receive: Callable[..., None], arguments: tuple[Any, ...], now: float) -> None:
        """One turn, at a `now` that may lie in the past where time is caught up."""
        try:
            receive(*arguments, now)
        except Exception:
            self._turn_failed(getattr(receive, "__name__", "input"))
        self.flush()

    def _turn_failed(self, source: str) -> None:
        """A turn raised: a bug of ours. That input is lost, everything else goes on."""
        self.failed_turns += 1
        logger.bind(source=source).exception("an input could not be handled")

    def _run_inbox(self) -> None:
        inbox, clock = self._inbox, self.clock
        now = clock()
        stop = now + SLICE
        if inbox:
            self.note_age(now - inbox[0][0])
        while inbox and now < stop:
            _, receive, arguments = inbox.popleft()
            self._turn(receive, arguments, now)
            now = self.note_turn(now)
        for _ in range(min(len(self._waiting), self.capacity - len(inbox))):
            self._waiting.popleft().set()
        if inbox:
            # A callback that schedules itself runs again before the loop polls its sockets; a timer comes after them.
            self._again.start(self._run_inbox, update=False)
        else:
            self._inbox_wakes = False
        self.settle()

    def _run_timers(self) -> None:
        """Time has passed: one turn per due tick, oldest first, so that a stall is not followed by another one."""
        timers, run_timers = self.core.timers, self.core.run_timers
        now = self.clock()
        stop = now + SLICE
        self.note_age(max(0.0, now - self._due))
        self._due = NEVER
        while now < stop:
            due = timers.next_due()
            if due is None or due > now:
                break
            self._turn(run_timers, (), due)
            now = self.note_turn(now)
        self.settle()

    def note_turn(self, began: float) -> float:
        """Returns the time; a turn that began at `began` and took too long is counted."""
        now = self.clock()
        if now - began > SLOW_TURN:
            self.slow_turns += 1
        return now

    def note_age(self, age: float) -> None:
        """Record how long the input about to be taken up has waited, in seconds."""
        self.age = age
        if age > 0.05:
            self.late_50ms += 1
            if age > 0.2:
                self.late_200ms += 1

    @property
    def waiting(self) -> int:
        """Inputs in the inbox."""
        return len(self._inbox)

    def close(self) -> None:
        """Stop waking up. Transports are closed by whoever opened them."""
        self._timer.stop()
        self._again.stop()
        self._due = -NEVER
        self._inbox.clear()

    def __repr__(self) -> str:
        return f"<Reactor {len(self._senders)} transports, {len(self._inbox)} waiting, age {self.age * 1000:.0f} ms>"
