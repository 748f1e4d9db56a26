"""Effects of packages outside the turn: a bounded pool each, with a timeout and counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from gevent.event import Event

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.pool import Pool


@dataclass(slots=True)
class Ask(PoolEffect):
    name = "ask"
    size = 1
    backlog = 2
    timeout = 0.05
    work: Callable[[], Any]

    def perform(self) -> Any:
        return self.work()


@dataclass(slots=True)
class Namesake(Ask):
    """Of another package, which chose the same name."""


class Desk:
    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.jobs = Jobs(self.answers.__setitem__, HttpClient(), {})

    def do(self, *effects: PoolEffect) -> list[Any]:
        for number, effect in enumerate(effects):
            self.jobs.start(Job(number, effect))
        wait_until(lambda: len(self.answers) == len(effects))
        return [self.answers[number] for number in range(len(effects))]

    def pool(self, name: str) -> Pool:
        return next(pool for pool in self.jobs.pools if pool.name == name)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.jobs.close()


def raises(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


def test_what_it_returns_is_the_result(desk: Desk) -> None:
    assert desk.do(Ask(lambda: 42)) == [42]
    assert desk.pool("ask").done == 1


def test_one_that_hangs_is_broken_off_in_its_time(desk: Desk) -> None:
    late, fine = desk.do(Ask(Event().wait), Ask(lambda: 1))
    assert (late.type, fine) == ("ask.timeout", 1)


def test_one_beyond_its_backlog_is_refused_and_counted(desk: Desk) -> None:
    answers = desk.do(*(Ask(lambda: gevent.sleep(0.01)) for _ in range(4)))
    assert [getattr(answer, "type", answer) for answer in answers].count("flow.limit") == desk.pool("ask").refused > 0


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (StepError("ask.denied", "no"), "ask.denied"),
        (RuntimeError("a bug"), "ask.failed"),
        (SystemExit(1), "ask.failed"),
        (gevent.Timeout(), "ask.failed"),
        (OSError("no route"), "ask.failed"),
    ],
)
def test_what_it_raises_is_an_error_of_its_step(desk: Desk, error: BaseException, type: str) -> None:
    (answer,) = desk.do(Ask(raises(error)))
    assert answer.type == type
    assert desk.do(Ask(lambda: 1), Ask(lambda: 2))[0] == 1


def test_a_service_may_perform_them_instead(desk: Desk) -> None:
    desk.jobs.add(Ask, lambda effect: ("service", effect.work()))
    assert desk.do(Ask(lambda: 1)) == [("service", 1)]
    with pytest.raises(ValueError, match="effects Ask are performed already"):
        desk.jobs.add(Ask, lambda effect: None)


def test_two_packages_with_one_name_have_a_pool_each(desk: Desk) -> None:
    desk.do(Ask(lambda: 1), Namesake(lambda: 2))
    assert desk.pool("ask").done == 1
    assert desk.pool(f"{__name__}.Namesake").done == 1
