"""Circuits and supervisors of push services: tries, pauses, what is left alone, what is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import StepError
from orchestrator.packages.push_service import ChosenPush, PushDown, PushServiceKind
from orchestrator.push.circuit import FIRST_REST, LONGEST_REST, TRIP_AFTER, Circuit
from orchestrator.push.push_metrics import export_pushes
from orchestrator.push.supervisor import TRIES, Pushes, Supervisor, account_problems
from orchestrator.runtime.metrics import Metrics
from orchestrator.sip.push import Push, PushAddress, Pushed, PushService

SENT = Pushed("sent", id="1")
Say = Callable[[Push], Pushed]


def push(ttl: float = 20.0, service: str = "acme", prid: str = "t") -> Push:
    address = PushAddress("acme", "app", prid, app="app", tokens={"": prid})
    return Push(service, address, "call", ttl, "sip:bob@example.com")


class Clock:
    """Time that only passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Sender:
    """Says what it is told to: values are returned, exceptions raised; the last one again and again."""

    def __init__(self, *says: Any, problems: Sequence[str] = ()) -> None:
        self.says = list(says)
        self.asked: list[Push] = []
        self.problems = problems
        self.calls: list[str] = []

    def server_of(self, push: Push) -> str:
        return push.address.prid if push.address.prid.startswith("server") else ""

    def check(self) -> Sequence[str]:
        return self.problems

    def start(self) -> None:
        self.calls.append("start")

    def send(self, push: Push) -> Pushed:
        self.asked.append(push)
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, BaseException):
            raise said
        result: Pushed = said(push) if callable(said) else said
        return result

    def stop(self) -> None:
        self.calls.append("stop")


class Bench:
    """A supervisor with its answers."""

    def __init__(self, *says: Any, timeout: float = 5.0, concurrency: int = 10) -> None:
        self.clock, self.sender, self.answers = Clock(), Sender(*says), dict[int, Any]()
        kind = PushServiceKind("acme", "Acme.", lambda settings: self.sender)
        self.chosen = ChosenPush(kind, PushService("acme", "acme"), None, timeout, concurrency)
        self.supervisor = Supervisor(
            self.chosen,
            self.sender,
            self.answers.__setitem__,
            clock=self.clock,
            sleep=self.clock.sleep,
            chance=lambda: 0.0,
        )
        self.jobs = 0

    def push(self, **how: Any) -> Pushed:
        self.jobs += 1
        self.supervisor.submit(self.jobs, push(**how))
        while self.jobs not in self.answers:
            gevent.sleep(0)
        answer: Pushed = self.answers[self.jobs]
        return answer


# --- circuits ---------------------------------------------------------------------------------------------------------


def test_a_circuit_opens_after_failures_in_a_row() -> None:
    circuit = Circuit()
    for _ in range(TRIP_AFTER - 1):
        assert not circuit.failed("x", None, 0.0, 0.0)
    assert not circuit.passed(), "an answer in between begins anew"
    assert [circuit.failed("x", None, 0.0, 0.0) for _ in range(TRIP_AFTER)] == [False] * (TRIP_AFTER - 1) + [True]
    assert circuit.open
    assert not circuit.admits(0.5 * FIRST_REST)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(TRIP_AFTER):
        circuit.failed("down", None, now, now)
    return circuit


def test_after_its_rest_one_probe_goes_out() -> None:
    circuit = opened()
    assert circuit.admits(FIRST_REST)
    assert not circuit.admits(FIRST_REST), "one at a time"
    assert circuit.passed()
    assert circuit.admits(FIRST_REST)
    assert circuit.admits(FIRST_REST)
    assert circuit.reason == ""


def test_a_probe_that_fails_doubles_the_rest_up_to_its_bound() -> None:
    circuit, now, rests = opened(), FIRST_REST, []
    for _ in range(8):
        assert circuit.admits(now)
        circuit.failed("down", None, now, now)
        rests.append(circuit.wait(now))
        now += circuit.wait(now)
    assert rests[:3] == [2 * FIRST_REST, 4 * FIRST_REST, 8 * FIRST_REST]
    assert max(rests) == rests[-1] == LONGEST_REST


def test_failures_of_those_that_were_under_way_do_not_prolong_the_rest() -> None:
    circuit = opened()
    for _ in range(100):
        assert not circuit.failed("down", None, 0.1, 0.05)
    assert circuit.admits(FIRST_REST)


def test_a_connection_that_breaks_off_is_one_failure() -> None:
    circuit = Circuit()
    assert not any(circuit.failed("reset", None, 10.0, 9.0 + part / 100) for part in range(100))
    assert circuit.failures == 1


def test_a_probe_of_which_nothing_was_heard_leaves_room_for_another() -> None:
    circuit = opened()
    assert circuit.admits(FIRST_REST)
    circuit.gave_up()
    assert circuit.admits(FIRST_REST)


def test_what_a_server_asks_for_is_kept_within_bounds() -> None:
    circuit = Circuit()
    circuit.failed("busy", 7.0, 100.0, 100.0)
    assert (circuit.open, circuit.wait(100.0), circuit.admits(106.9), circuit.admits(107.0)) == (
        False,
        7.0,
        False,
        True,
    )
    circuit.failed("busy", 1e9, 107.0, 107.0)
    assert circuit.wait(107.0) == 3600.0


@given(st.lists(st.sampled_from(["ask", "pass", "fail", "busy", "lost", "time"]), max_size=200))
def test_a_circuit_always_comes_back(steps: list[str]) -> None:
    """Whatever has happened: once all that went out is over, and its time has come, a push goes out."""
    circuit, now = Circuit(), 0.0
    for step in steps:
        if step == "ask":
            circuit.admits(now)
        elif step == "pass":
            circuit.passed()
        elif step == "lost":
            circuit.gave_up()
        elif step == "time":
            now += 1.0
        else:
            circuit.failed("x", 3.0 if step == "busy" else None, now, now)
    circuit.gave_up()
    assert circuit.admits(now + circuit.wait(now))


# --- supervisors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [SENT, Pushed("failed", "BadTopic"), Pushed("dead", "Unregistered", 5.0)])
def test_what_the_service_says_is_the_answer(said: Pushed) -> None:
    bench = Bench(said)
    assert bench.push() == said
    assert (len(bench.sender.asked), bench.clock.slept) == (1, [])
    assert bench.supervisor.outcomes == {said.outcome: 1}


def test_a_service_that_is_at_fault_is_tried_again_after_growing_pauses() -> None:
    bench = Bench(PushDown("503"), PushDown("reset"), SENT)
    assert bench.push() == SENT
    assert bench.clock.slept == [0.2, 0.4]
    assert bench.supervisor.retries == 2
    assert bench.supervisor.trouble == ""


def test_a_push_fails_after_its_last_try() -> None:
    bench = Bench(PushDown("no way"))
    assert bench.push() == Pushed("failed", "no way")
    assert len(bench.sender.asked) == TRIES


def test_a_push_that_may_have_been_taken_or_never_will_is_not_tried_again() -> None:
    bench = Bench(PushDown("InvalidProviderToken", final=True))
    assert bench.push() == Pushed("failed", "InvalidProviderToken")
    assert len(bench.sender.asked) == 1


def test_a_dead_service_costs_failed_pushes_at_once() -> None:
    bench = Bench(PushDown("refused"))
    bench.push()
    asked, slept = len(bench.sender.asked), len(bench.clock.slept)
    assert asked == TRIP_AFTER
    assert [bench.push() for _ in range(100)] == [Pushed("failed", "refused")] * 100
    assert (len(bench.sender.asked), len(bench.clock.slept)) == (asked, slept)
    assert bench.supervisor.trouble == "refused"
    assert bench.supervisor.down == 1
    bench.clock.now += FIRST_REST
    bench.sender.says = [SENT]
    assert bench.push() == SENT
    assert bench.push() == SENT
    assert bench.supervisor.trouble == ""


def test_one_server_that_is_down_holds_up_no_other() -> None:
    def say(one: Push) -> Pushed:
        if one.address.prid == "server1":
            raise PushDown("refused")
        return SENT

    bench = Bench(say)
    for _ in range(3):
        assert bench.push(prid="server1").outcome == "failed"
    assert bench.push(prid="server2") == SENT
    assert bench.supervisor.down == 1


def test_a_push_waits_as_long_as_the_service_asks_where_it_has_the_time() -> None:
    bench = Bench(PushDown("429", retry_after=3.0), SENT)
    assert bench.push(ttl=20.0) == SENT
    assert sum(bench.clock.slept) == pytest.approx(3.0)


def test_a_push_without_the_time_for_that_fails_at_once() -> None:
    bench = Bench(PushDown("429", retry_after=60.0), SENT)
    assert bench.push(ttl=20.0) == Pushed("failed", "429")
    assert bench.push(ttl=20.0) == Pushed("failed", "429"), "so does the next one, without a try"
    assert len(bench.sender.asked) == 1
    bench.clock.now += 60.0
    assert bench.push() == SENT


def test_a_server_that_wants_no_pushes_for_an_hour_is_told_as_down() -> None:
    """Pushes fail meanwhile, so /readyz may not say that all is well."""
    bench = Bench(PushDown("429 QUOTA_EXCEEDED", retry_after=3600.0), SENT)
    bench.push()
    assert (bench.supervisor.trouble, bench.supervisor.down) == ("429 QUOTA_EXCEEDED", 1)
    bench.clock.now += 3600.0
    assert (bench.supervisor.trouble, bench.supervisor.down) == ("", 0)


def test_a_push_is_not_tried_beyond_its_time_to_live() -> None:
    bench = Bench(PushDown("503"))
    began = bench.clock.now
    assert bench.push(ttl=1.0).outcome == "failed"
    assert bench.clock.now - began <= 1.0


def test_an_exception_fails_its_push_only() -> None:
    bench = Bench(ZeroDivisionError("x"), SENT)
    assert bench.push() == Pushed("failed", "push acme failed: ZeroDivisionError")
    assert bench.push() == SENT
    assert bench.supervisor.trouble == ""


def test_something_else_than_a_result_is_a_fault() -> None:
    assert Bench(lambda push: "sent").push() == Pushed("failed", "push acme failed: TypeError")


def test_a_try_has_its_time() -> None:
    bench = Bench(lambda push: gevent.sleep(30), SENT, timeout=0.05)
    assert bench.push() == SENT
    assert bench.supervisor.retries == 1


def test_what_had_too_little_time_says_nothing_about_the_service() -> None:
    bench = Bench(lambda push: gevent.sleep(30), timeout=60.0)
    assert bench.push(ttl=1.0) == Pushed("failed", "no answer in time")
    assert not bench.supervisor._circuit("").failures


def test_what_a_service_says_is_cut_short() -> None:
    assert len(Bench(Pushed("failed", "x" * 5000)).push().reason) == 200


def test_a_full_queue_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.push.supervisor.BACKLOG", 2)
    bench = Bench(lambda push: gevent.sleep(30), concurrency=1)
    for job in range(4):
        bench.supervisor.submit(job, push())
        gevent.sleep(0)
    assert bench.answers == {3: Pushed("failed", "2 push acme requests are waiting already")}
    bench.supervisor.close()


def test_problems_of_the_account_are_told_and_keep_nobody_from_trying() -> None:
    bench = Bench(SENT)
    bench.sender.problems = ["the certificate has expired"]
    bench.supervisor.start()
    assert bench.supervisor.trouble == "the certificate has expired"
    assert bench.push() == SENT
    bench.supervisor.close()
    assert bench.sender.calls == ["start", "stop"]


def test_a_check_that_fails_is_a_problem() -> None:
    bench = Bench(SENT)
    bench.sender.check = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert account_problems(bench.chosen) == ["ZeroDivisionError: division by zero"]


# --- all of them ------------------------------------------------------------------------------------------------------


def test_pushes_go_to_the_service_they_name() -> None:
    answers: dict[int, Any] = {}
    one, two = Bench(SENT), Bench(Pushed("failed", "no"))
    chosen = [
        ChosenPush(each.chosen.kind, PushService(name, "acme"), None, 5.0, 2) for name, each in (("a", one), ("b", two))
    ]
    pushes = Pushes(chosen, answers.__setitem__)
    pushes.start()
    for job, service in enumerate(("a", "b", "c")):
        pushes.submit(job, push(service=service))
    while len(answers) < 3:
        gevent.sleep(0)
    assert answers == {0: SENT, 1: Pushed("failed", "no"), 2: Pushed("failed", "there is no push service 'c'")}
    assert [pool.name for pool in pushes.pools] == ["push a", "push b"]
    assert pushes.trouble == ""
    metrics = Metrics()
    export_pushes(metrics, pushes)
    text = metrics.exposition().decode()
    assert 'orchestrator_pushes_total{outcome="sent",service="a"} 1.0' in text
    assert 'orchestrator_pushes_total{outcome="dead",service="b"} 0.0' in text
    assert 'orchestrator_push_seconds_bucket{le="+Inf",service="a"} 1.0' in text
    assert 'orchestrator_push_seconds_count{service="b"} 1.0' in text
    pushes.close()


def test_a_step_error_is_a_failed_push() -> None:
    bench = Bench(StepError("x.y", "told so"))
    assert bench.push() == Pushed("failed", "told so")
