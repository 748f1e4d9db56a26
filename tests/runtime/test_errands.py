"""Jobs that nobody waits for: bounded, each answered exactly once and within its time."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from echo_core import wait_until

from orchestrator.errors import StepError
from orchestrator.runtime.errands import Done, Errands


class Work:
    def __init__(self) -> None:
        self.out: dict[str, Done] = {}
        self.answers: list[tuple[int, Any]] = []

    def begin(self, effect: Any, done: Done) -> None:
        if isinstance(effect, Exception):
            raise effect
        if effect == "at once":
            done("did it")
        self.out[effect] = done

    def answer(self, job: int, result: Any) -> None:
        self.answers.append((job, result if not isinstance(result, StepError) else result.type))


def make(work: Work, most: int = 3, timeout: float = 60.0) -> Errands:
    return Errands("charge", work.begin, work.answer, most=most, timeout=timeout, error="charge.failed")


def test_each_is_answered_once_in_the_order_of_the_answers() -> None:
    work = Work()
    errands = make(work)
    for job, effect in enumerate(["a", "b", "at once"]):
        errands.submit(job, effect)
    assert (errands.running, errands.waiting, errands.idle) == (2, 0, False)
    work.out["b"](5)
    work.out["b"](6)
    work.out["a"](StepError("charge.down", "away"))
    assert work.answers == [(2, "did it"), (1, 5), (0, "charge.down")]
    assert errands.idle and errands.done == 3
    errands.close()


def test_beyond_the_bound_the_answer_is_no() -> None:
    work = Work()
    errands = make(work, most=1)
    errands.submit(1, "a")
    errands.submit(2, "b")
    assert work.answers == [(2, "flow.limit")] and errands.refused == 1
    errands.close()


@pytest.mark.parametrize(
    ("error", "told", "crashed"), [(StepError("charge.down", ""), "charge.down", 0), (KeyError(), "charge.failed", 1)]
)
def test_a_fault_fails_its_job_only(error: Exception, told: str, crashed: int) -> None:
    work = Work()
    errands = make(work)
    errands.submit(1, error)
    errands.submit(2, "at once")
    assert work.answers == [(1, told), (2, "did it")] and errands.crashed == crashed
    errands.close()


def test_what_waits_is_no_beginning() -> None:
    """The event loop itself begins jobs: who would wait there fails his job, not the server."""
    answers: list[Any] = []
    errands = Errands(
        "charge", lambda effect, done: gevent.sleep(1), lambda job, result: answers.append(result.type),
        most=3, timeout=9.0, error="charge.failed",
    )  # fmt: skip
    gevent.get_hub().loop.run_callback(errands.submit, 1, "a")
    wait_until(lambda: answers == ["charge.failed"])
    errands.close()


def test_each_has_its_time() -> None:
    work = Work()
    errands = make(work, timeout=0.02)
    errands.submit(1, "a")
    wait_until(lambda: work.answers == [(1, "charge.timeout")])
    work.out["a"](5)
    errands.submit(2, "b")
    wait_until(lambda: work.answers[1:] == [(2, "charge.timeout")])
    assert errands.idle
    errands.close()
