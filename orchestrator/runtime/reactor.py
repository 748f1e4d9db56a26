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

A source that no longer wakes would never be heard of again: an exception in a callback makes the loop forget its
watcher, and what waits behind it waits for ever. So callbacks catch everything, outputs are handed over one by one,
and a watchdog, a timer of its own, looks at all three: what is overdue without having moved is counted, logged, taken
up again, and said in /readyz.

Each source gives the loop back after `SLICE` seconds, so that none starves the others: datagrams that pour in cannot
hold up timers, nor a burst of Event Socket events the datagrams. How long the oldest input had been waiting when it
was taken up, its *age*, is the measure of overload (RFC 7339 asks for one; queue lengths say nothing about time), where
datagrams stay old: their *delay*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, Protocol

import gevent
from gevent.event import Event as Signal
from loguru import logger

from orchestrator.errors import MalformedMessage, StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.history import History, MessageIn, MessageOut
from orchestrator.measures import TURN, Histogram
from orchestrator.packages.transport import Transport
from orchestrator.sip.points import Hop
from orchestrator.timers import Timers

SLICE: Final = 0.005
"""Seconds one source may keep the loop: well under T1 = 500 ms and the 10 ms tick, enough for some dozens of turns."""

BATCH: Final = 64
"""Datagrams one wake-up may read: with small turns the count ends the batch before the clock does."""

INBOX: Final = 2000
"""Inputs that may wait from sources that can be held back or refused."""

SLOW_TURN: Final = 0.050
"""A turn longer than this, in seconds, delays every call noticeably; it is counted."""

PATROL: Final = 1.0
"""Seconds between two looks of the watchdog, and how long an input may wait untouched until it is called stalled."""

READ: Final = 1
"""libev's EV_READ, for `loop.io`."""

NEVER: Final = float("inf")


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
    def datagrams(self) -> list[tuple[bytes, Hop]]: ...
    @property
    def history(self) -> History: ...
    @property
    def jobs(self) -> list[Any]:
        """Of `Job`; a list of a concrete class would not match a list of the protocol."""

    def receive(self, data: bytes, hop: Hop, now: float) -> None: ...
    def receive_esl(self, server: str, event: EslEvent, now: float) -> None: ...
    def link_changed(self, server: str, state: str, reason: str, now: float) -> None: ...
    def complete(self, job: int, result: Any | StepError, now: float) -> None: ...
    def transport_failed(self, hop: Hop, data: bytes, now: float) -> None: ...
    def connection_lost(self, hop: Hop, now: float) -> None: ...
    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None: ...
    def run_timers(self, now: float) -> None: ...


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
        self._history = core.history
        self._told = core.history.told
        self._datagrams = core.datagrams
        self._jobs = core.jobs
        self.capacity = inbox
        self.age = 0.0
        self.delay = 0.0
        """The age of the oldest datagram where datagrams have been waiting for too long for some time
        (`core.delay`)."""
        self.late_50ms = self.late_200ms = 0
        self.turns = Histogram(TURN)
        """Seconds that turns take: a message and what comes of it, an input of the inbox, a tick of timers."""
        self.slow_turns = self.failed_turns = self.refused = 0
        self.stalls = 0
        """How often the watchdog had to wake a source that should have woken by itself."""
        self._start_job = start_job
        self._transports: list[Transport] = []
        self._send_all: dict[int, Callable[[Sequence[tuple[bytes, Hop]]], None]] = {}
        """By index, of the transports that send many messages at once."""
        self._inbox: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()
        self._inbox_wakes = False
        self._waiting: deque[Signal] = deque()
        self._due = NEVER
        self._timer: Any = self.loop.timer(0)
        self._again = self.loop.timer(0)
        self._watchdog = self.loop.timer(PATROL, PATROL)
        self._watchdog.start(self._patrol)
        self._inbox_moved = self._timers_moved = self._looked = self.clock()
        """When the inbox and the timers were last taken up, and when the watchdog last looked."""
        self._closed = False

    # --- inputs -------------------------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> int:
        """Add a transport; returns its id, the `index` of its points: what goes to a hop at one of them
        leaves through it."""
        self._transports.append(transport)
        index = len(self._transports) - 1
        send_all = getattr(transport, "send_all", None)
        if send_all is not None:
            self._send_all[index] = send_all
        return index

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        """One turn for one datagram. Called by transports from loop callbacks, followed by one `settle` per wake-up."""
        if MessageIn in self._told:
            self._history.tell(MessageIn.at(data, hop, now))
        wire = self._history.wire
        if wire is not None:
            wire(True, data, hop, now)
        try:
            self.core.receive(data, hop, now)
        except Exception:
            self._turn_failed("datagram")
        self.flush()
        self.turns.observe(self.clock() - now)

    def receive_all(self, messages: list[tuple[bytes, Hop]], now: float) -> float:
        """One turn for each, and what they leave is carried away behind the last one; returns the time. Otherwise as
        `receive`. Whoever listens to messages hears of each answer before the next message."""
        clock, turns, receive = self.clock, self.turns, self.core.receive
        told, history = self._told, self._history
        coming, leaving = MessageIn, MessageOut
        for data, hop in messages:
            if coming in told or leaving in told:
                self.flush()
                if coming in told:
                    history.tell(MessageIn.at(data, hop, now))
            wire = history.wire
            if wire is not None:
                wire(True, data, hop, now)
            try:
                receive(data, hop, now)
            except Exception:
                self._turn_failed("datagram")
            began, now = now, clock()
            took = now - began
            turns.observe(took)
            if took > SLOW_TURN:
                self.slow_turns += 1
        self.flush()
        return now

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        """The same for octets of a connection that are no message, or one that is refused without reading on."""
        self._turn(self.core.receive_malformed, (data, error, hop), now)

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

    def failed(self, destination: Hop, data: bytes) -> None:
        """A transport could not send `data`, or the network said so later: an input of its own, after this turn."""
        self.offer(self.core.transport_failed, destination, data)

    def lost(self, hop: Hop) -> None:
        """A connection has ended: an input of its own that nothing may drop."""
        self.post(self.core.connection_lost, hop)

    def run(self, receive: Callable[..., None], *arguments: Any) -> None:
        """One turn at once, for the composition root before it serves and while it stops."""
        self._turn(receive, arguments, self.clock())
        self.settle()

    # --- outputs ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """After the last turn of a wake-up: have the loop wake for the earliest timer."""
        timers = self.core.timers
        due = timers.next_due()
        if due is not None and due < self._due and not self._closed:
            self._arm(due)

    def _arm(self, due: float) -> None:
        """gevent has no timer whose time could be set anew. A new one takes some 2 µs, once in a tick at most."""
        self._timer.close()
        self._due = due
        self._timer = self.loop.timer(max(0.0, due - self.clock()))
        self._timer.start(self._run_timers, update=True)

    def flush(self) -> None:
        """Carry away what the core left. Failures go through the inbox, so the lists do not grow meanwhile; one output
        that cannot be handed over keeps none behind it."""
        datagrams = self._datagrams
        if datagrams:
            self._tell_sent(datagrams)
            if len(datagrams) == 1 or not self._send_together(datagrams):
                for data, destination in datagrams:
                    self._send(data, destination)
            datagrams.clear()
        if self._jobs:
            self._start_jobs()

    def _send(self, data: bytes, destination: Hop) -> None:
        try:
            self._transports[destination.point.index].send(data, destination)
        except IndexError:
            self.failed(destination, data)
        except Exception:
            self._turn_failed("send")
            self.failed(destination, data)

    def _start_jobs(self) -> None:
        for job in self._jobs:
            try:
                self._start_job(job)
            except Exception as bug:
                self._turn_failed("job")
                self.post(self.core.complete, job.id, StepError("flow.fault", f"{type(bug).__name__}: {bug}"))
        self._jobs.clear()

    def _tell_sent(self, datagrams: list[tuple[bytes, Hop]]) -> None:
        history, listened = self._history, MessageOut in self._told
        if history.wire is None and not listened:
            return
        now = self.clock()
        for data, destination in datagrams:
            if listened:
                history.tell(MessageOut.at(data, destination, now))
            if history.wire is not None:
                history.wire(False, data, destination, now)

    def _send_together(self, datagrams: list[tuple[bytes, Hop]]) -> bool:
        """Hand all of them to the one transport they leave through, where it takes many at once."""
        index = datagrams[0][1].point.index
        send_all = self._send_all.get(index)
        if send_all is None:
            return False
        for _, hop in datagrams:
            if hop.point.index != index:
                return False
        try:
            send_all(datagrams)
        except Exception:
            self._turn_failed("send")
            for data, destination in datagrams:
                self.failed(destination, data)
        return True

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
        logger.bind(source=source).exception("input_fault")

    def _run_inbox(self) -> None:
        try:
            self._take_inputs()
        finally:
            if self._closed:
                self._inbox.clear()
            if self._inbox:
                # A callback that schedules itself runs again before the loop polls its sockets; a timer comes after.
                self._again.start(self._run_inbox, update=False)
            else:
                self._inbox_wakes = False
            self.settle()

    def _take_inputs(self) -> None:
        inbox, clock = self._inbox, self.clock
        now = clock()
        stop = now + SLICE
        if inbox:
            self.note_age(now - inbox[0][0])
        while inbox and now < stop:
            _, receive, arguments = inbox.popleft()
            self._inbox_moved = now
            self._turn(receive, arguments, now)
            now = self.note_turn(now)
        self._admit()

    def _admit(self) -> None:
        """Wake as many of those who wait in `put` as there is room for."""
        for _ in range(min(len(self._waiting), self.capacity - len(self._inbox))):
            self._waiting.popleft().set()

    def _run_timers(self) -> None:
        """Time has passed: one turn per due tick, oldest first, so that a stall is not followed by another one."""
        timers, run_timers = self.core.timers, self.core.run_timers
        now = self.clock()
        stop = now + SLICE
        self.note_age(max(0.0, now - self._due))
        self._timers_moved = now
        self._due = NEVER
        try:
            while now < stop:
                due = timers.next_due()
                if due is None or due > now:
                    break
                self._turn(run_timers, (), due)
                now = self.note_turn(now)
        finally:
            self.settle()

    # --- the watchdog -------------------------------------------------------------------------------------------------

    @property
    def stalled(self) -> str:
        """What has waited for longer than the watchdog allows while nothing of its kind was taken up; '' for
        nothing."""
        found = []
        inbox, timers = self._inbox_stands(), self._timers_stand()
        if inbox > PATROL:
            found.append(f"the inbox has not moved for {inbox:.0f} s")
        if timers > PATROL:
            found.append(f"timers have not run for {timers:.0f} s")
        return ", ".join(found)

    def _inbox_stands(self) -> float:
        """Seconds for which something has been waiting in an inbox that did not move."""
        return self.clock() - max(self._inbox[0][0], self._inbox_moved) if self._inbox else 0.0

    def _timers_stand(self) -> float:
        """The same for what is due."""
        due = self.core.timers.next_due()
        return self.clock() - max(due, self._timers_moved) if due is not None else 0.0

    def _patrol(self) -> None:
        """Loop callback of the watchdog's own timer: look whether each source that has something is going to wake.

        It never raises: the loop would let go of it. When it comes late itself, everything else stood still as well
        (the process was stopped), and nothing is to be concluded from that.
        """
        self.delay = 0.0  # should no datagram come any more; each batch says it anew
        now = self.clock()
        late, self._looked = now - self._looked > 2 * PATROL, now
        try:
            if not late:
                self._look_at_inbox()
                self._look_at_timers()
            for transport in self._transports:
                if transport.revive():
                    self._stalled("socket")
        except Exception:
            self._turn_failed("watchdog")

    def _look_at_inbox(self) -> None:
        if self._inbox_stands() > PATROL:
            self._stalled("inbox")
            self._again.stop()
            self._inbox_wakes = True
            self.loop.run_callback(self._run_inbox)
        elif self._waiting and len(self._inbox) < self.capacity and not self._inbox_wakes:
            self._stalled("waiters")
            self._admit()

    def _look_at_timers(self) -> None:
        due = self.core.timers.next_due()
        if due is not None and (due < self._due or self._timers_stand() > PATROL):
            self._stalled("timers")
            self._arm(due)

    def _stalled(self, what: str) -> None:
        self.stalls += 1
        logger.bind(source=what).error("input_stalled")

    def note_turn(self, began: float) -> float:
        """Returns the time; a turn that began at `began` and took too long is counted."""
        now = self.clock()
        self.turns.observe(now - began)
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
        self._closed = True
        for watcher in (self._timer, self._again, self._watchdog):
            watcher.stop()
            watcher.close()
        self._inbox.clear()

    def __repr__(self) -> str:
        return f"<Reactor {len(self._transports)} transports, {len(self._inbox)} waiting, age {self.age * 1000:.0f} ms>"
