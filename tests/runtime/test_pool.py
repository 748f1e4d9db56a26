"""Worker pools: bounded both ways, each job answered exactly once."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from echo_core import wait_until
from gevent.event import Event
from loguru import logger

from orchestrator.errors import StepError
from orchestrator.runtime.pool import Pool


class Work:
    """Blocks every job until `gate` opens, and watches how many are at it."""

    def __init__(self) -> None:
        self.gate = Event()
        self.at_once = self.most = 0
        self.answers: list[tuple[int, Any]] = []

    def perform(self, effect: Any) -> Any:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.gate.wait()
        self.at_once -= 1
        if isinstance(effect, BaseException):
            raise effect
        return f"did {effect}"

    def answer(self, job: int, result: Any) -> None:
        self.answers.append((job, result))


def make(work: Work, size: int = 3, backlog: int = 5) -> Pool:
    return Pool("http", work.perform, work.answer, size=size, backlog=backlog)


def test_no_more_than_size_work_at_once_and_all_are_answered() -> None:
    work = Work()
    pool = make(work)
    for job in range(8):
        pool.submit(job, job)
        gevent.sleep(0)
    assert (pool.running, pool.waiting, pool.idle) == (3, 5, False)
    work.gate.set()
    wait_until(lambda: pool.idle)
    assert work.most == 3
    assert sorted(work.answers) == [(job, f"did {job}") for job in range(8)]
    assert pool.done == 8
    pool.close()


def test_beyond_the_backlog_the_answer_is_no() -> None:
    work = Work()
    pool = make(work, size=1, backlog=2)
    pool.submit(1, "a")
    gevent.sleep(0)
    for job in (2, 3, 4):
        pool.submit(job, "b")
    (job, error) = work.answers[0]
    assert job == 4 and isinstance(error, StepError)
    assert (error.type, error.message) == ("flow.limit", "2 http requests are waiting already")
    assert pool.refused == 1
    work.gate.set()
    wait_until(lambda: len(work.answers) == 4)
    pool.close()


def test_workers_are_reused() -> None:
    work = Work()
    work.gate.set()
    pool = make(work, size=10)
    for job in range(20):
        pool.submit(job, job)
        wait_until(lambda: pool.idle)
    assert len(pool._workers) == 1
    pool.close()


def test_step_error_is_the_answer() -> None:
    work = Work()
    work.gate.set()
    pool = make(work)
    pool.submit(1, StepError("http.status", "answered 500"))
    wait_until(lambda: work.answers)
    assert work.answers[0][1].type == "http.status"
    assert pool.crashed == 0
    pool.close()


@pytest.mark.parametrize("failure", [ZeroDivisionError("oops"), gevent.Timeout(1), SystemExit(1)])
def test_work_that_crashes_is_answered_and_the_worker_lives(failure: BaseException) -> None:
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="ERROR")
    work = Work()
    work.gate.set()
    pool = make(work, size=1)
    pool.submit(1, failure)
    pool.submit(2, "next")
    wait_until(lambda: len(work.answers) == 2)
    logger.remove(sink)
    assert isinstance(work.answers[0][1], StepError)
    assert type(failure).__name__ in work.answers[0][1].message
    assert work.answers[1] == (2, "did next")
    assert pool.crashed == 1
    assert lines == ["job_fault"]
    pool.close()


def test_submit_may_be_called_by_the_loop_itself() -> None:
    work = Work()
    work.gate.set()
    pool = make(work)
    gevent.get_hub().loop.run_callback(pool.submit, 1, "a")
    wait_until(lambda: work.answers == [(1, "did a")])
    pool.close()


def test_close_stops_workers_where_they_wait() -> None:
    work = Work()
    pool = make(work)
    pool.submit(1, "a")
    gevent.sleep(0)
    workers = list(pool._workers)
    pool.close()
    wait_until(lambda: all(worker.dead for worker in workers))
    assert work.answers == []
