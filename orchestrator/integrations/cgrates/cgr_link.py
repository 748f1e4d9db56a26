"""The connection to CGRateS: requests out, their answers in, and what CGRateS asks of us.

One connection at a time, to the first server of the list that takes one; requests keep their order on it. Nobody waits
for a server that is away: a request fails at once when there is no connection, and after its own time when no answer
comes. When many in a row got none, the server counts as silent, and one request a second is let through to see.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.event import AsyncResult, Event
from gevent.queue import SimpleQueue

from orchestrator.errors import reason_of
from orchestrator.integrations.cgrates.cgr_json import Garbage, Objects, answer, request

CONNECT_TIME = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds before the next attempt to connect; twice as many each time."""
SILENT_AFTER = 20
"""Requests in a row without an answer in their time."""
LOOK_AGAIN = 1.0
"""Seconds between requests to a server that is silent."""
MOST_OUT = 20_000
"""Requests that may wait for an answer."""
AT_ONCE = 100
"""Requests that leave together, when so many wait."""
READ = 8_192
"""Octets read at once: some dozens of objects."""
BREATH = 0.001
"""Seconds that others have when there is more to read at once: 8 MB/s are more than CGRateS has to say."""
LOOK = 0.02
"""Seconds at least between two looks for requests whose time is over."""
DEAD_AFTER = 60.0
"""Seconds without a word while requests wait: the connection is dead, whatever TCP says."""


class NotSent(Exception):
    """A request has not left: no connection, a server that is silent, no room."""


class NotAnswered(Exception):
    """It has, or may have, and no answer came."""


class Refused(Exception):
    """The answer is an error."""


Failure = NotSent | NotAnswered | Refused
Done = Callable[[Any], None]
"""`done(result or Failure)`, called once."""


class Pending:
    """A request, or an answer of ours (`done` is None then)."""

    __slots__ = ("data", "done", "given_up", "limit", "method", "sent", "until")

    def __init__(self, data: bytes, method: str = "", limit: float = 0.0, done: Done | None = None) -> None:
        self.data = data
        self.method = method
        self.limit = limit
        self.until = monotonic() + limit
        self.done = done
        self.sent = self.given_up = False

    def end(self, result: Any) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(result)


class Link:
    """The connection; `run` keeps it up."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        called: Callable[[str, Any], tuple[Any, str | None]],
        on_change: Callable[[bool, str], None],
    ) -> None:
        """`called(method, params)` answers what CGRateS asks: result and error; `on_change(up, what)` is told of each
        connection that came or went."""
        self.up = False
        self.counts: Counter[str] = Counter()
        """connects, losses, garbage, stray (answers that nobody waits for any more), silent."""
        self._addresses = list(addresses)
        self._called = called
        self._on_change = on_change
        self._number = 0
        self._out: dict[int, Pending] = {}
        self._queue: SimpleQueue[Pending] = SimpleQueue()
        self._missed = 0
        self._looked = 0.0
        self._heard = 0.0
        self._socket: Any = None
        self._timer: Any = None
        self._timer_due = 0.0
        self._leave = Event()
        self._tried = Event()
        """The first attempt to connect is over."""

    # --- requests -----------------------------------------------------------------------------------------------------

    @property
    def tried(self) -> bool:
        """The first attempt to connect is over."""
        return self._tried.is_set()

    def begun(self, limit: float) -> None:
        """Wait until the first attempt to connect is over: calls come as soon as the server listens."""
        self._tried.wait(limit)

    def ask(self, method: str, params: Any, limit: float) -> Any:
        """The result of a request, in a greenlet that waits for it. Raises NotSent, NotAnswered, Refused."""
        result: AsyncResult[Any] = AsyncResult()
        self.begin(method, params, limit, result.set)
        found = result.get()
        if isinstance(found, NotSent | NotAnswered | Refused):
            raise found
        return found

    def begin(self, method: str, params: Any, limit: float, done: Done) -> None:
        """Send a request. `done` is given its result or why there is none, within `limit` seconds; it waits for
        nothing, and may be called at once."""
        trouble = self._no_admission()
        if trouble:
            done(NotSent(trouble))
            return
        if not (self._out or self._missed):
            self._heard = monotonic()
        self._number = number = self._number + 1
        pending = self._out[number] = Pending(request(number, method, params), method, limit, done)
        self._queue.put(pending)
        if self._timer is None or pending.until < self._timer_due:
            self._wait_until(pending.until)

    def _no_admission(self) -> str:
        """Why a request is not sent; '' when it is."""
        if not self.up:
            return "there is no connection to CGRateS"
        if len(self._out) >= MOST_OUT:
            return "too many requests wait for CGRateS"
        if self._missed >= SILENT_AFTER:
            now = monotonic()
            if now - self._looked < LOOK_AGAIN:
                self.counts["silent"] += 1
                return "CGRateS does not answer"
            self._looked = now
        return ""

    def _wait_until(self, due: float) -> None:
        """Have the timer look for requests whose time is over: one timer for all of them."""
        self._stop_timer()
        self._timer_due = due
        self._timer = gevent.get_hub().loop.timer(max(0.001, due - monotonic()), ref=False)
        self._timer.start(self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _expire(self) -> None:
        self._stop_timer()
        now = monotonic()
        for number in [number for number, pending in self._out.items() if pending.until <= now]:
            pending = self._out.pop(number)
            pending.given_up = True
            self._missed += 1
            if pending.sent:
                pending.end(NotAnswered(f"no answer to {pending.method} within {pending.limit:g} s"))
            else:
                pending.end(NotSent("the connection is jammed"))
        if self._out:
            self._wait_until(max(now + LOOK, min(pending.until for pending in self._out.values())))

    @property
    def silent(self) -> bool:
        """It is connected and does not answer."""
        return self.up and self._missed >= SILENT_AFTER

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._out)

    # --- the connection -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep a connection up, for ever."""
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            if any(self._connect(host, port) for host, port in self._addresses):
                why = "the server stops"
                try:
                    why = self._serve()
                finally:
                    self._lose(why)
                if monotonic() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
            self._tried.set()
            gevent.sleep(pause * (0.75 + random.random() / 2))  # noqa: S311  # nodes do not come back all at once
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """End the connection; `run` begins another one."""
        self._leave.set()

    def _connect(self, host: str, port: int) -> bool:
        try:
            with gevent.Timeout(CONNECT_TIME):
                made = socket.create_connection((host, port))
        except (OSError, UnicodeError, gevent.Timeout):  # UnicodeError: a name that cannot be one
            self.counts["connect_failed"] += 1
            return False
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = made
        self._queue = SimpleQueue()
        self._leave.clear()
        self._missed = 0
        self._heard = monotonic()
        self.up = True
        self._tried.set()
        self.counts["connects"] += 1
        self._on_change(True, f"{host}:{port}")
        return True

    def _serve(self) -> str:
        """Read and write until the connection ends; why it did."""
        ended: AsyncResult[str] = AsyncResult()
        work = (self._read, self._write, self._watch)
        parts = [gevent.spawn(part, self._socket, self._queue, ended) for part in work]
        try:
            return str(ended.get())
        finally:
            gevent.killall(parts)

    def _lose(self, why: str) -> None:
        self.up = False
        made, self._socket = self._socket, None
        made.close()
        self.counts["losses"] += 1
        out, self._out = self._out, {}
        for pending in out.values():
            pending.end(NotAnswered(f"the connection was lost: {why}") if pending.sent else NotSent(f"not sent: {why}"))
        self._on_change(False, why)

    def _watch(self, made: Any, queue: SimpleQueue[Pending], ended: AsyncResult[str]) -> None:
        """Somebody wants it to end, or it is dead."""
        while not self._leave.wait(5.0):
            if (self._out or self._missed) and monotonic() - self._heard > DEAD_AFTER:
                ended.set(f"no word for {DEAD_AFTER:g} s")
                return
        ended.set("CGRateS asked for it")

    def _write(self, made: Any, queue: SimpleQueue[Pending], ended: AsyncResult[str]) -> None:
        try:
            while True:
                wanted = [queue.get()]
                while len(wanted) < AT_ONCE and not queue.empty():
                    wanted.append(queue.get())
                leaving = [pending for pending in wanted if not pending.given_up]
                for pending in leaving:
                    pending.sent = True
                octets = b"".join(pending.data for pending in leaving)
                while octets:
                    octets = octets[made.send(octets) :]
        except OSError as error:
            ended.set(reason_of(error))

    def _read(self, made: Any, queue: SimpleQueue[Pending], ended: AsyncResult[str]) -> None:
        objects = Objects()
        try:
            while data := made.recv(READ):
                if len(data) == READ:
                    gevent.sleep(BREATH)  # a peer that never stops lets nobody else run
                for found in objects.feed(data):
                    self._heard = monotonic()
                    if isinstance(found.get("method"), str):
                        result, error = self._called(found["method"], found.get("params"))
                        queue.put(Pending(answer(found.get("id"), result, error)))
                        if queue.qsize() > MOST_OUT:
                            raise OSError("CGRateS asks and does not read")
                    else:
                        self._take(found)
            ended.set("CGRateS closed it")
        except Garbage as error:
            self.counts["garbage"] += 1
            ended.set(f"not JSON-RPC: {error}")
        except OSError as error:
            ended.set(reason_of(error))
        except Exception as bug:  # else nobody would read on, and the connection would seem to be up
            ended.set_exception(bug)

    def _take(self, found: dict[str, Any]) -> None:
        number = found.get("id")
        pending = self._out.pop(number, None) if isinstance(number, int) else None
        if pending is None:  # too late, or never asked: no sign that it answers in time
            self.counts["stray"] += 1
            return
        self._missed = 0
        if found.get("error") is not None:
            pending.end(Refused(str(found["error"])[:300]))
        else:
            pending.end(found.get("result"))
