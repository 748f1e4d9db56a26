"""The reactor: one input per turn, outputs carried away, nobody starved."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import Any

import gevent
import pytest
from echo_core import EchoCore, wait_until
from loguru import logger

from orchestrator.errors import StepError
from orchestrator.runtime.reactor import PATROL, SLICE, Reactor
from orchestrator.sip.points import Hop, Point


def hop(index: int, host: str, port: int) -> Hop:
    """A peer as seen from the only point of a transport."""
    return Hop(POINTS.setdefault(index, Point(index, "udp", "127.0.0.1", 5060 + index)), host, port)


POINTS: dict[int, Point] = {}


@dataclass
class Job:
    id: int
    effect: object


class Wire:
    """A transport that remembers what it was given."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def send(self, data: bytes, destination: Any) -> None:
        self.sent.append((data, destination))

    def revive(self) -> bool:
        return False


@pytest.fixture
def log_lines() -> Any:
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="ERROR")
    yield lines
    logger.remove(sink)


def spin(seconds: float) -> None:
    until = monotonic() + seconds
    while monotonic() < until:
        pass


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_outputs_leave_by_the_transport_they_name(core: EchoCore, reactor: Reactor) -> None:
    first, second = Wire(), Wire()
    assert (reactor.attach(first), reactor.attach(second)) == (0, 1)
    reactor.receive(b"a", hop(1, "192.0.2.1", 5060), 1.0)
    reactor.receive(b"b", hop(0, "192.0.2.2", 5070), 2.0)
    assert second.sent == [(b"a", hop(1, "192.0.2.1", 5060))]
    assert first.sent == [(b"b", hop(0, "192.0.2.2", 5070))]
    assert core.datagrams == []


def test_every_job_is_started_once(core: EchoCore) -> None:
    started: list[Job] = []
    reactor = Reactor(core, started.append)
    core.on_datagram = lambda data, source: core.jobs.extend([Job(1, "x"), Job(2, "y")])
    reactor.receive(b"a", hop(0, "192.0.2.1", 5060), 1.0)
    core.on_datagram = lambda data, source: None
    reactor.receive(b"a", hop(0, "192.0.2.1", 5060), 2.0)
    assert [job.id for job in started] == [1, 2]
    assert core.jobs == []


def test_unknown_transport_is_a_failure_reported_after_the_turn(core: EchoCore, reactor: Reactor) -> None:
    core.on_datagram = lambda data, source: core.datagrams.append((b"lost", hop(7, "192.0.2.1", 5060)))
    reactor.receive(b"a", hop(0, "192.0.2.1", 5060), 1.0)
    assert core.seen("failed") == []
    wait_until(lambda: core.seen("failed") == [(hop(7, "192.0.2.1", 5060), b"lost")])


# --- turns ------------------------------------------------------------------------------------------------------------


def test_turn_that_raises_costs_its_input_only(core: EchoCore, reactor: Reactor, log_lines: list[Any]) -> None:
    wire = Wire()
    reactor.attach(wire)

    def broken(data: bytes, source: Any) -> None:
        core.datagrams.append((b"half done", source))
        raise KeyError(data)

    core.on_datagram = broken
    reactor.receive(b"bad", hop(0, "192.0.2.1", 5060), 1.0)
    core.on_datagram = None
    reactor.receive(b"good", hop(0, "192.0.2.1", 5060), 1.0)
    assert [data for data, _ in wire.sent] == [b"half done", b"good"]
    assert reactor.failed_turns == 1
    assert [line["message"] for line in log_lines] == ["input_fault"]


def test_posted_inputs_run_in_order_with_the_time(core: EchoCore, reactor: Reactor) -> None:
    seen: list[tuple[str, float]] = []
    before = monotonic()
    reactor.post(lambda name, now: seen.append((name, now)), "first")
    reactor.post(lambda name, now: seen.append((name, now)), "second")
    assert seen == []  # not in the middle of what posts
    wait_until(lambda: len(seen) == 2)
    assert [name for name, _ in seen] == ["first", "second"]
    assert before <= seen[0][1] <= seen[1][1] <= monotonic()


def test_a_turn_cannot_wait(reactor: Reactor, log_lines: list[Any]) -> None:
    others: list[str] = []
    gevent.spawn(others.append, "switched")

    def turn(now: float) -> None:
        gevent.sleep(0.001)

    reactor.post(turn)
    wait_until(lambda: reactor.failed_turns == 1)
    assert "BlockingSwitchOutError" in log_lines[0]["exception"].type.__name__


def test_input_posted_by_a_turn_is_a_turn_of_its_own(reactor: Reactor) -> None:
    order: list[str] = []

    def outer(now: float) -> None:
        reactor.post(lambda now: order.append("inner"))
        order.append("outer")

    reactor.post(outer)
    wait_until(lambda: len(order) == 2)
    assert order == ["outer", "inner"]


def test_slow_turns_are_counted(reactor: Reactor) -> None:
    reactor.post(lambda now: spin(0.06))
    reactor.post(lambda now: None)
    wait_until(lambda: not reactor.waiting)
    assert reactor.slow_turns == 1


def test_run_is_a_turn_at_once(core: EchoCore, reactor: Reactor) -> None:
    reactor.run(core.link_changed, "fs1", "up", "")
    assert core.seen("link") == [("fs1", "up")]


# --- the inbox's bound ------------------------------------------------------------------------------------------------


def test_full_inbox_refuses_offers_and_never_posts(core: EchoCore) -> None:
    reactor = Reactor(core, lambda job: None, inbox=3)
    taken = [reactor.offer(core.receive_esl, "fs1", number) for number in range(5)]
    assert taken == [True, True, True, False, False]
    assert reactor.refused == 2
    reactor.post(core.complete, 1, "result")
    wait_until(lambda: core.seen("complete") == [(1, "result")])
    assert core.seen("esl") == [("fs1", 0), ("fs1", 1), ("fs1", 2)]
    assert reactor.offer(core.receive_esl, "fs1", 5)


def test_put_waits_for_room_and_loses_nothing(core: EchoCore) -> None:
    reactor = Reactor(core, lambda job: None, inbox=4)
    deepest = 0

    def read() -> None:
        nonlocal deepest
        for number in range(50):
            reactor.put(core.receive_esl, "fs1", number)
            deepest = max(deepest, reactor.waiting)

    gevent.spawn(read).join(30)
    wait_until(lambda: not reactor.waiting)
    assert [number for _, number in core.seen("esl")] == list(range(50))
    assert deepest == 4


def test_put_takes_turns_so_that_a_flood_of_one_server_does_not_keep_out_another(core: EchoCore) -> None:
    reactor = Reactor(core, lambda job: None, inbox=4)

    def read(server: str, count: int) -> None:
        for number in range(count):
            reactor.put(core.receive_esl, server, number)

    flood = gevent.spawn(read, "fs1", 400)
    wait_until(lambda: len(core.seen("esl")) > 20)
    began = len(core.seen("esl"))
    gevent.spawn(read, "fs2", 10).join(30)
    flood.join(30)
    wait_until(lambda: not reactor.waiting)
    order = [server for server, _ in core.seen("esl")]
    assert order.count("fs1") == 400 and order.count("fs2") == 10
    assert order[began:].index("fs2") <= 12, "through the inbox and the batch of those let in with it"
    last = len(order) - order[::-1].index("fs2")
    assert last - began <= 12 + 10 * 6, "one place of a full inbox at a time, not after the flood"


def test_a_greenlet_killed_while_it_waits_gives_its_turn_away(core: EchoCore) -> None:
    reactor = Reactor(core, lambda job: None, inbox=1)
    reactor.post(core.receive_esl, "fs1", 0)
    waiting = [gevent.spawn(reactor.put, core.receive_esl, "fs1", number) for number in (1, 2, 3)]
    gevent.sleep(0)
    gevent.killall(waiting[:2], block=False)
    gevent.joinall(waiting, timeout=30)
    wait_until(lambda: not reactor.waiting)
    assert [number for _, number in core.seen("esl")][-1] == 3
    assert waiting[2].successful()


# --- timers -----------------------------------------------------------------------------------------------------------


def test_timer_fires_on_time_and_one_armed_earlier_comes_first(core: EchoCore, reactor: Reactor) -> None:
    fired: list[tuple[str, float]] = []

    def arm(delay: float, name: str) -> None:
        core.timers.run_due(monotonic())
        core.timers.after(delay, lambda name: fired.append((name, monotonic())), name)
        reactor.settle()

    began = monotonic()
    arm(0.08, "late")
    arm(0.03, "early")
    wait_until(lambda: len(fired) == 2)
    (first, early), (second, late) = fired
    assert (first, second) == ("early", "late")
    assert early - began >= 0.03
    assert late - began >= 0.08


def test_cancelled_timer_does_not_keep_the_next_one_from_firing(core: EchoCore, reactor: Reactor) -> None:
    fired: list[str] = []
    core.timers.run_due(monotonic())
    core.timers.after(0.02, fired.append, "cancelled").cancel()
    reactor.settle()
    core.timers.after(0.05, fired.append, "stands")
    reactor.settle()
    wait_until(lambda: fired == ["stands"])


def test_after_a_stall_due_ticks_are_separate_turns_in_order(core: EchoCore, reactor: Reactor) -> None:
    fired: list[int] = []
    core.timers.run_due(monotonic())
    for number in range(6):
        core.timers.after(0.02 * (number + 1), fired.append, number)
    reactor.settle()
    spin(0.2)
    wait_until(lambda: len(fired) == 6)
    assert fired == [0, 1, 2, 3, 4, 5]
    turns = [now for (now,) in core.seen("timers")]
    assert len(turns) == 6 and turns == sorted(turns)
    assert reactor.late_50ms >= 1


def test_long_inbox_starves_neither_timers_nor_greenlets(core: EchoCore, reactor: Reactor) -> None:
    """300 turns of 1 ms are 60 slices: between them timers run."""
    turns = 0
    seen = [0]

    def tick(_: object) -> None:
        seen.append(turns)
        core.timers.after(0.01, tick)

    def turn(_: float) -> None:
        nonlocal turns
        turns += 1
        spin(0.001)

    core.timers.run_due(monotonic())
    core.timers.after(0.01, tick)
    reactor.settle()
    for _ in range(300):
        reactor.post(turn)
    wait_until(lambda: not reactor.waiting)
    between = [after - before for before, after in pairwise([*seen, 300])]
    assert max(between) < 100, "a busy machine makes it fewer, not more"
    assert SLICE < 0.01


# --- overload signal --------------------------------------------------------------------------------------------------


def test_age_is_that_of_the_oldest_input(reactor: Reactor) -> None:
    ages: list[float] = []
    reactor.post(lambda now: ages.append(reactor.age))
    spin(0.07)
    wait_until(lambda: ages)
    assert ages[0] >= 0.07
    assert (reactor.late_50ms, reactor.late_200ms) == (1, ages[0] >= 0.2)


def test_closed_reactor_does_nothing_any_more(core: EchoCore) -> None:
    reactor = Reactor(core, lambda job: None)
    fired: list[str] = []
    core.timers.run_due(monotonic())
    core.timers.after(0.01, fired.append, "timer")
    reactor.settle()
    reactor.post(core.complete, 1, "result")
    reactor.close()
    gevent.sleep(0.03)
    assert fired == [] and core.inputs == []


# --- nothing stands still ---------------------------------------------------------------------------------------------


def test_a_timer_armed_while_the_inbox_waits_for_its_next_slice_does_not_stop_it(
    core: EchoCore, reactor: Reactor
) -> None:
    """The first timer of a fresh server is armed between two slices of a burst."""
    done: list[int] = []

    def turn(number: int, now: float) -> None:
        spin(SLICE)  # a slice each
        done.append(number)
        core.timers.after(5.0, lambda _: None)

    core.timers.run_due(monotonic())
    for number in range(10):
        reactor.post(turn, number)
    wait_until(lambda: len(done) == 10)


class Manual:
    """A loop and a clock moved by hand: callbacks run when the test says so, and can be lost."""

    class Watcher:
        def __init__(self, after: float, repeat: float = 0.0) -> None:
            self.callback: Any = None
            self.active = False

        def start(self, callback: Any, update: bool = True) -> None:
            self.callback, self.active = callback, True

        def stop(self) -> None:
            self.active = False

        def close(self) -> None:
            self.active = False

    def __init__(self) -> None:
        self.now = 0.0
        self.callbacks: list[Any] = []
        self.watchers: list[Any] = []

    def timer(self, after: float, repeat: float = 0.0) -> Any:
        self.watchers.append(self.Watcher(after, repeat))
        return self.watchers[-1]

    def run_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


@pytest.fixture
def manual() -> Any:
    return Manual()


@pytest.fixture
def still(core: EchoCore, manual: Any) -> Any:
    core.timers.run_due(0.0)
    core.timers.now = 0.0
    reactor = Reactor(core, lambda job: None, clock=lambda: manual.now, loop=manual, inbox=2)
    yield reactor
    reactor.close()


def patrol(reactor: Reactor, manual: Any, times: int = 1) -> None:
    for _ in range(times):
        manual.now += PATROL
        reactor._patrol()


def test_the_watchdog_wakes_an_inbox_whose_callback_was_lost(still: Reactor, manual: Any, log_lines: list[Any]) -> None:
    seen: list[float] = []
    still.post(seen.append)
    manual.callbacks.clear()
    patrol(still, manual)
    assert (still.stalls, still.stalled) == (0, "")
    manual.now += 0.5
    assert still.stalled == "the inbox has not moved for 2 s"
    patrol(still, manual)
    assert still.stalls == 1
    manual.turn()
    assert seen and still.stalled == ""
    assert [line["message"] for line in log_lines] == ["input_stalled"]
    still.post(seen.append)
    manual.turn()
    assert len(seen) == 2, "and it goes on by itself"


def test_the_watchdog_wakes_timers_that_nothing_will_fire(still: Reactor, core: EchoCore, manual: Any) -> None:
    core.timers = type(core.timers)(0.0)
    core.timers.after(0.5, lambda _: None)
    patrol(still, manual, 1)
    assert still.stalls == 1, "never armed: no turn had settled"
    still._timer.active = False  # lost
    patrol(still, manual, 2)
    assert still.stalls >= 2
    assert still.stalled.startswith("timers have not run for ")
    still._timer.callback()
    assert core.seen("timers")
    assert still.stalled == ""


def test_a_process_that_was_stopped_is_not_a_stall(still: Reactor, manual: Any) -> None:
    still.post(lambda now: None)
    manual.now += 30.0
    still._patrol()
    assert still.stalls == 0
    manual.turn()
    patrol(still, manual, 3)
    assert still.stalls == 0


def test_the_watchdog_lets_those_in_who_were_not_woken(core: EchoCore, manual: Any) -> None:
    reactor = Reactor(core, lambda job: None, clock=lambda: manual.now, loop=manual, inbox=1)
    done: list[float] = []
    reactor.post(done.append)
    greenlet = gevent.spawn(reactor.put, done.append)
    wait_until(lambda: reactor._waiting)
    reactor._inbox.clear()
    reactor._inbox_wakes = False
    patrol(reactor, manual)
    assert reactor.stalls == 1
    greenlet.join(30)
    manual.turn()
    assert done
    reactor.close()


def test_the_watchdog_reads_on_where_the_loop_has_let_go_of_a_socket(still: Reactor, manual: Any) -> None:
    class LetGo(Wire):
        def revive(self) -> bool:
            return True

    still.attach(LetGo())
    patrol(still, manual)
    assert still.stalls == 1


def test_a_job_that_cannot_be_started_fails_and_keeps_none_behind_it(core: EchoCore, log_lines: list[Any]) -> None:
    started: list[Any] = []

    def start(job: Job) -> None:
        if job.id == 1:
            raise KeyError(job.id)
        started.append(job.id)

    reactor = Reactor(core, start)
    core.on_datagram = lambda data, source: core.jobs.extend([Job(1, "x"), Job(2, "y")])
    reactor.receive(b"a", hop(0, "192.0.2.1", 5060), 1.0)
    assert started == [2] and core.jobs == []
    ((job, error),) = wait_until(lambda: core.seen("complete"))
    assert job == 1 and isinstance(error, StepError)
    reactor.close()


def test_a_sender_that_raises_fails_its_datagram_and_keeps_none_behind_it(
    core: EchoCore, reactor: Reactor, log_lines: list[Any]
) -> None:
    class Broken(Wire):
        def send(self, data: bytes, destination: Any) -> None:
            if data == b"one":
                raise ValueError(data)
            super().send(data, destination)

    wire = Broken()
    reactor.attach(wire)
    core.on_datagram = lambda data, source: core.datagrams.extend([(b"one", source), (b"two", source)])
    reactor.receive(b"a", hop(0, "192.0.2.1", 5060), 1.0)
    assert [data for data, _ in wire.sent] == [b"two"] and core.datagrams == []
    assert wait_until(lambda: core.seen("failed")) == [(hop(0, "192.0.2.1", 5060), b"one")]


def test_an_inbox_goes_on_behind_whatever_a_turn_does(core: EchoCore, reactor: Reactor, log_lines: list[Any]) -> None:
    seen: list[float] = []

    def recurse(now: float) -> None:
        recurse(now)

    for receive in (recurse, seen.append, lambda now: reactor.note_age(None), seen.append):  # type: ignore[arg-type]
        reactor.post(receive)
    wait_until(lambda: len(seen) == 2)
    assert reactor.failed_turns == 2
