"""Pushes, and the push services that they go to.

Each service has a pool of its own: what hangs holds up only its like. A worker has one push until something has come
of it: it tries again after a pause when the service is at fault and time is left, and gives up at once where the
service is known to be down (push.circuit). A push that could not be delivered in time has failed, which is told.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import gevent
from loguru import logger

from orchestrator.errors import StepError
from orchestrator.packages.push_service import ChosenPush, PushDown, PushSender
from orchestrator.push.circuit import Circuit
from orchestrator.runtime.pool import Pool
from orchestrator.sip.push import Push, Pushed

BACKLOG = 10_000
"""Pushes that may wait for a worker, for each service; about 1 KB each."""
TRIES = 4
FIRST_PAUSE = 0.2
"""Tries of one push, and seconds before the second one; twice as many each time, and by chance a little less."""
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds that a push is worked on, whatever its time to live."""
STOP_TIME = 5.0
SERVERS = 64
"""Of one service whose state is remembered; the longest unused one makes room."""
REASON = 200
"""Characters of what a service says that are passed on."""

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the histogram, in seconds."""

Answer = Callable[[int, Any], None]


class Latency:
    """A histogram of Prometheus."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many took no longer than each bound, and longer than that before it; the last one: than all."""
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        self.counts[next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1


@dataclass(frozen=True, slots=True)
class _Queued:
    push: Push
    began: float


class Supervisor:
    """One push service: its sender, its pool, how its servers are doing."""

    def __init__(
        self,
        chosen: ChosenPush,
        sender: PushSender,
        answer: Answer,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], object] = gevent.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`answer(job, Pushed)` ends each push."""
        self.name = chosen.service.name
        self.sender = sender
        self.outcomes: Counter[str] = Counter()
        self.retries = 0
        self.latency = Latency()
        """Of pushes that the service answered, from when they were asked for."""
        self.problems: tuple[str, ...] = ()
        """What was wrong with the account at the start."""
        self._timeout = chosen.timeout
        self._answer = answer
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()
        self._log = logger.bind(service=self.name)
        self.pool = Pool(f"push {self.name}", self._perform, self._done, size=chosen.concurrency, backlog=BACKLOG)

    def start(self) -> None:
        """Read the account, and let the sender begin."""
        self.problems = tuple(problems_of(self.sender))
        for problem in self.problems:
            self._log.bind(reason=problem).error("push_account")
        self.sender.start()

    def submit(self, job: int, push: Push) -> None:
        """Never waits."""
        self.pool.submit(job, _Queued(push, self._clock()))

    @property
    def trouble(self) -> str:
        """What is wrong, '' for nothing."""
        down = [circuit.reason for circuit in self._resting()]
        return "; ".join([*self.problems, *dict.fromkeys(down)])

    @property
    def down(self) -> int:
        """Servers that are left alone."""
        return len(self._resting())

    def _resting(self) -> list[Circuit]:
        """Those of servers that have failed several times, or want no pushes for a while (Retry-After)."""
        now = self._clock()
        return [circuit for circuit in self._circuits.values() if circuit.open or circuit.wait(now)]

    def close(self) -> None:
        self.pool.close()
        try:
            gevent.with_timeout(STOP_TIME, self.sender.stop, timeout_value=None)
        except Exception as error:
            self._log.bind(reason=repr(error)).warning("push_stop_failed")

    # --- one push -----------------------------------------------------------------------------------------------------

    def _done(self, job: int, result: Pushed | StepError) -> None:
        """The pool's answer: also for pushes that it has refused, or whose work has crashed."""
        pushed = Pushed("failed", result.message) if isinstance(result, StepError) else result
        self.outcomes[pushed.outcome] += 1
        self._answer(job, pushed)

    def _perform(self, queued: _Queued) -> Pushed:
        push = queued.push
        end = queued.began + min(max(push.ttl, SHORTEST), LONGEST)
        server = self.sender.server_of(push)
        circuit = self._circuit(server)
        reason = ""
        for number in range(TRIES):
            if not self._may_try(circuit, end):
                return Pushed("failed", circuit.reason or reason or "no answer in time")
            self.retries += number > 0
            went = self._clock()
            try:
                pushed = self._try(push, circuit, end)
                if pushed is None:
                    return Pushed("failed", reason or "no answer in time")
            except PushDown as down:
                reason = down.reason[:REASON]
                if circuit.failed(reason, down.retry_after, self._clock(), went):
                    self._log.bind(server=server, reason=reason).error("push_down")
                pause = FIRST_PAUSE * 2**number * (1 - self._chance() / 2)
                if down.final or number == TRIES - 1 or self._clock() + pause >= end:
                    break
                self._sleep(pause)
                continue
            if circuit.passed():
                self._log.bind(server=server).info("push_up")
            self.latency.add(self._clock() - queued.began)
            return Pushed(pushed.outcome, pushed.reason[:REASON], pushed.since, pushed.id)
        return Pushed("failed", reason)

    def _may_try(self, circuit: Circuit, end: float) -> bool:
        """Whether the push may go out now, or after the time that the server has asked for."""
        now = self._clock()
        if now >= end:
            return False
        if wait := circuit.wait(now):
            if circuit.open or now + wait >= end:
                return False
            self._sleep(wait)
        return circuit.admits(self._clock())

    def _try(self, push: Push, circuit: Circuit, end: float) -> Pushed | None:
        """One try, within its time; None when that was too short to say anything about the server. Raises PushDown."""
        left = end - self._clock()
        limit = gevent.Timeout(min(self._timeout, left))
        try:
            with limit:
                pushed = self.sender.send(push)
            if not isinstance(pushed, Pushed):
                raise TypeError(f"send() gave a {type(pushed).__name__}, not a Pushed")
            return pushed
        except gevent.Timeout as over:
            if over is limit and self._timeout <= left:
                raise PushDown(f"no answer within {self._timeout:g} s") from None
            circuit.gave_up()
            if over is not limit:
                raise
            return None
        except PushDown:
            raise
        except BaseException:
            circuit.gave_up()
            raise

    def _circuit(self, server: str) -> Circuit:
        circuit = self._circuits.get(server)
        if circuit is None:
            if len(self._circuits) >= SERVERS:
                self._circuits.popitem(last=False)
            circuit = self._circuits[server] = Circuit()
        else:
            self._circuits.move_to_end(server)
        return circuit


def problems_of(sender: PushSender) -> Sequence[str]:
    """What `check` says; when it fails itself, that."""
    try:
        return list(sender.check())
    except Exception as error:
        return [f"{type(error).__name__}: {str(error).partition(chr(10))[0][:REASON]}"]


def account_problems(chosen: ChosenPush) -> Sequence[str]:
    """What is wrong with the account of a service that does not run: for `orchestrator check`. Raises
    OrchestratorError: something has to be installed first."""
    return problems_of(chosen.kind.open(chosen.settings))


class Pushes:
    """All push services of a server. It is what does the core's `Push` jobs (runtime.jobs)."""

    def __init__(self, chosen: Iterable[ChosenPush], answer: Answer) -> None:
        """Raises OrchestratorError: a service needs something that is not installed."""
        self.supervisors = {
            each.service.name: Supervisor(each, each.kind.open(each.settings), answer) for each in chosen
        }
        self._answer = answer

    @property
    def pools(self) -> Sequence[Pool]:
        return [supervisor.pool for supervisor in self.supervisors.values()]

    @property
    def trouble(self) -> str:
        """Which services have something wrong with them, and what; '' for none."""
        found = ((name, supervisor.trouble) for name, supervisor in self.supervisors.items())
        return ", ".join(f"{name}: {trouble}" for name, trouble in found if trouble)

    def start(self) -> None:
        """Called before the server takes calls."""
        for supervisor in self.supervisors.values():
            supervisor.start()

    def submit(self, job: int, push: Push) -> None:
        """Begin a push; `answer` ends it. Never waits."""
        supervisor = self.supervisors.get(push.service)
        if supervisor is None:
            self._answer(job, Pushed("failed", f"there is no push service {push.service!r}"))
        else:
            supervisor.submit(job, push)

    def close(self) -> None:
        for supervisor in self.supervisors.values():
            supervisor.close()
