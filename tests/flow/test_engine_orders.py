"""Every order of things: random flows, random inputs in random order, and what must hold whatever happens.

A generated flow nests the steps that wait, fail, jump and listen; generated inputs are events, answers good and bad,
time, and the end of the call at any point. Afterwards: each INVITE has got exactly one final reply, nothing of any
run is left (task, subscription, timer, ticket), no bug was swallowed, and the same seed tells the same story.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from flowkit import World, after, catch, flow, if_, missing, on_wait, step, steps, where

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Branch, Flow, Step
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import Limits, Run
from orchestrator.flow.run.run import Phase

ROUNDS = 10
SEEDS = 100  # per round
EVENTS = ("ping", "pong", "dtmf")
ANSWERS: tuple[tuple[type, Any], ...] = (
    (effects.Http, {"status": 200, "text": "", "json": None, "headers": {}}),
    (effects.Http, StepError("http.timeout", "no answer")),
    (effects.EslCommand, {"ok": True, "text": "+OK"}),
    (effects.EslExecute, StepError("esl.down", "no link")),
)


class Author:
    """Writes random flows. `loop` says whether a break is legal where it writes."""

    def __init__(self, choice: random.Random) -> None:
        self.choice = choice
        self.leaves: tuple[Callable[[], Step], ...] = (
            lambda: step("log", "x"),
            lambda: step("log", missing),
            lambda: step("set", {"n": lambda env: env["vars"]["n"] + 1}),
            lambda: step("sleep", self.seconds()),
            lambda: step("wait", self.event(), for_=self.seconds(), as_="got"),
            lambda: step("wait", "dtmf"),
            lambda: step("raise", self.choice.choice(("ping", "pong")), data={"n": self.choice.randrange(3)}),
            lambda: step("http", "https://h/", background=self.choice.random() < 0.3),
            lambda: step("fs.api", "status"),
            lambda: step("fs.execute", "echo", wait=True),
            lambda: step("relay", "registered"),
            lambda: step("inject", "sip:late@h"),
            lambda: step("reply", self.choice.choice((180, 183, 404, 486))),
            lambda: step("fail", "x"),
            lambda: step("stop"),
            lambda: step("hangup", "enough"),
            lambda: step("unsubscribe", id="s"),
        )
        self.nests: tuple[Callable[[int, bool], Step], ...] = (
            lambda depth, loop: if_(
                lambda env: env["vars"]["n"] % 2 == 0, self.block(depth, loop), self.block(depth, loop)
            ),
            lambda depth, loop: step("repeat", 3, do=self.block(depth, True)),
            lambda depth, loop: step("try", self.block(depth, loop), **self.rescue(depth, loop)),
            lambda depth, loop: step("parallel", (self.block(depth, loop), self.block(depth, loop)), **self.wait_for()),
            lambda depth, loop: step("first_of", tuple(self.branch(depth, loop) for _ in range(3))),
            lambda depth, loop: step(
                "wait", self.event(), for_=3.0, meanwhile=self.block(depth, loop), on_timeout=self.block(depth, loop)
            ),
            lambda depth, loop: step("subscribe", self.event(), id="s", **self.listening(depth)),
            lambda depth, loop: step(
                "relay", "registered", on={"answered": self.block(depth, loop), "else": self.block(depth, loop)}
            ),
            lambda depth, loop: step("call", "sub", timeout=self.seconds(), on_error=self.block(depth, loop)),
        )

    def seconds(self) -> float:
        return self.choice.choice((0.0, 0.5, 1.0, 2.0))

    def event(self) -> str:
        return self.choice.choice(EVENTS)

    def wait_for(self) -> dict[str, Any]:
        return {"wait_for": self.choice.choice(("all", "first"))}

    def rescue(self, depth: int, loop: bool) -> dict[str, Any]:
        catches = (catch(self.choice.choice(("*", "http.*", "user.*")), *self.block(depth, loop)),)
        return {"catch": catches, "finally_": self.block(depth, loop)}

    def branch(self, depth: int, loop: bool) -> Branch:
        if self.choice.random() < 0.4:
            return after(self.seconds(), *self.block(depth, loop))
        return on_wait(self.event(), *self.block(depth, loop), as_="got")

    def listening(self, depth: int) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "do": self.block(depth, False),
            "run": self.choice.choice(("queue", "parallel", "drop", "restart")),
        }
        if self.choice.random() < 0.5:
            keys |= {"for_": self.seconds(), "on_expire": self.block(depth, False)}
        if self.choice.random() < 0.5:
            keys["limit"] = self.choice.choice((1, 2))
        if self.choice.random() < 0.3:
            keys["unique_by"] = lambda env: str(env["event"])
        if self.choice.random() < 0.3:
            keys["where"] = where(lambda env: env["vars"]["n"] < 5)
        return keys

    def step(self, depth: int, loop: bool) -> Step:
        if depth and self.choice.random() < 0.5:
            return self.choice.choice(self.nests)(depth - 1, loop)
        if loop and self.choice.random() < 0.1:
            return step("break")
        return self.choice.choice(self.leaves)()

    def block(self, depth: int, loop: bool) -> tuple[Step, ...]:
        return tuple(self.step(depth, loop) for _ in range(self.choice.randrange(3)))

    def flow(self) -> Flow:
        keys: dict[str, Any] = {"vars": {"n": 0}}
        if self.choice.random() < 0.3:
            keys["on_error"] = self.block(2, False)
        if self.choice.random() < 0.5:
            keys["on_end"] = steps(step("log", "end"), step("http", "https://h/"), step("raise", "ping", data={}))
        return flow(*(self.step(3, False) for _ in range(3)), **keys)

    def program(self) -> tuple[Flow, ...]:
        mode = self.choice.choice(("parallel", "single", "restart", "queued"))
        return (
            self.flow(),
            flow(*self.block(2, False), name="sub", on="call", vars={"n": 0}),
            flow(
                *self.block(1, False), name="listens", on="pong", mode=mode, max=self.choice.randrange(3), vars={"n": 0}
            ),
        )


class Play:
    """One story: calls come, things happen, all calls end."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.world = World(*Author(self.choice).program(), limits=Limits(steps=300, tasks=30))
        self.calls: list[Run] = []

    def act(self) -> None:
        world, choice = self.world, self.choice
        match choice.randrange(8):
            case 0:
                self.calls.append(world.invite("main"))
            case 1 | 2 if self.calls:
                call = choice.choice(self.calls)
                world.event("dtmf", call)
            case 3:
                world.event(choice.choice(("ping", "pong")), n=choice.randrange(3))
            case 4:
                world.at(world.timers.now + choice.choice((0.1, 0.5, 1.0)))
            case 5:
                outcome, code = choice.choice((("answered", 200), ("busy", 486), ("rejected", 603)))
                world.relayed(outcome, code)
            case 6:
                world.answered(*choice.choice(ANSWERS))
            case 7 if self.calls:
                world.hang_up(choice.choice(self.calls), choice.choice(("caller", "callee")))

    def tell(self) -> list[str]:
        """Run it; returns the whole story."""
        self.calls.append(self.world.invite("main"))
        for _ in range(self.choice.randrange(1, 25)):
            self.act()
        for call in self.calls:
            self.world.hang_up(call)
        self.world.engine.stop("server stops")
        for _ in range(3):
            self.world.at(self.world.timers.now + 6.0)
        return [f"{record.time} {record.text}" for trace in self.world.engine.traces for record in trace.records]

    def check(self) -> None:
        world = self.world
        assert world.engine.stats.faults == 0
        assert all(run.phase is Phase.DONE for run in self.calls)
        assert {run.id: len(world.host.finals[run.id]) for run in self.calls} == {run.id: 1 for run in self.calls}
        if world.program.flow("main").on_end:
            assert world.logs.count("end") == len(self.calls)
        world.assert_idle()
        assert len(world.bus) == 0 and len(world.timers) == 0


@pytest.mark.parametrize("part", range(ROUNDS))
def test_whatever_happens(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        play = Play(seed)
        play.tell()
        try:
            play.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("seed", range(0, 1000, 100))
def test_the_same_seed_tells_the_same_story(seed: int) -> None:
    assert Play(seed).tell() == Play(seed).tell()


# --- the end of the call at every point of one flow ------------------------------------------------------------------


def full() -> tuple[Flow, ...]:
    """A flow that passes through every kind of wait."""
    main = flow(
        step("subscribe", "dtmf", run="parallel", do=steps(step("sleep", 1.0), step("log", "handled"))),
        step(
            "wait", "ping", for_=5.0, meanwhile=steps(step("http", "https://h/")), on_timeout=steps(step("log", "late"))
        ),
        step("first_of", (on_wait("pong", step("sleep", 1.0)), after(2.0))),
        step("parallel", (steps(step("sleep", 1.0)), steps(step("fs.api", "status", on_error=())))),
        step(
            "try", steps(step("call", "sub", timeout=3.0)), finally_=steps(step("sleep", 0.5), step("log", "finally"))
        ),
        step("relay", "registered", on={"else": steps(step("reply", 480))}),
        on_end=steps(step("log", "end")),
    )
    return main, flow(step("sleep", 9.0), name="sub", on="call")


INPUTS: tuple[Callable[[World, Run], Any], ...] = (
    lambda world, run: world.event("dtmf", run),
    lambda world, run: world.event("ping"),
    lambda world, run: world.answered(*ANSWERS[0]),
    lambda world, run: world.event("pong"),
    lambda world, run: world.at(1.0),
    lambda world, run: world.answered(*ANSWERS[2]),
    lambda world, run: world.at(2.0),
    lambda world, run: world.at(5.0),
    lambda world, run: world.at(5.5),
    lambda world, run: world.relayed("busy", 486),
)


@pytest.mark.parametrize("by", ["caller", "callee"])
@pytest.mark.parametrize("cut", range(len(INPUTS) + 1))
def test_the_call_ends_at_every_point(cut: int, by: str) -> None:
    world = World(*full())
    run = world.invite()
    for act in INPUTS[:cut]:
        act(world, run)
    world.hang_up(run, by)
    for act in INPUTS[cut:]:
        act(world, run)
    world.at(20.0)
    assert len(world.host.finals[run.id]) == 1
    assert world.logs.count("end") == 1 and world.logs[-1] == "end"
    world.assert_idle()


@pytest.mark.parametrize("order", range(24))
def test_event_before_during_and_after_a_wait(order: int) -> None:
    """A relay, an event and a timer race in every order; whichever wins, one reply and nothing left."""
    moves: list[Callable[[World, Run], Any]] = [
        lambda world, run: world.event("dtmf", run),
        lambda world, run: world.at(world.timers.now + 2.0),
        lambda world, run: world.relayed(),
        lambda world, run: world.hang_up(run),
    ]
    choice = order
    sequence = []
    for size in (4, 3, 2, 1):
        sequence.append(moves.pop(choice % size))
        choice //= size
    race = step("first_of", (on_wait("dtmf", step("hangup", "key")), after(2.0, step("log", "nobody"))))
    world = World(flow(step("parallel", (steps(race), steps(step("relay", "registered"))))))
    run = world.invite()
    for act in sequence:
        act(world, run)
    world.at(20.0)
    assert len(world.host.finals[run.id]) == 1
    world.assert_idle()
