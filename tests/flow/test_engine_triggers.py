"""Flows that events, timers and the start begin; how many at a time; reload (FLOWLANG §4.2, §5)."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import EVENTS, World, flow, missing, step, steps, where

from orchestrator.flow.language.program import Flow, Program
from orchestrator.flow.run.engine import Limits


def log(text: Any, **keys: Any) -> Any:
    return step("log", text, **keys)


def n(env: Any) -> str:
    return str(env["event"]["n"])


SLOW = steps(log(n), step("sleep", 5.0), log(lambda env: n(env) + " done"))


@pytest.mark.parametrize(
    ("keys", "taken", "logs"),
    [
        ({}, [1, 1, 1], ["1", "2", "3", "1 done", "2 done", "3 done"]),
        ({"max": 2}, [1, 1, 0], ["1", "2", "1 done", "2 done"]),
        ({"mode": "single"}, [1, 0, 0], ["1", "1 done"]),
        ({"mode": "restart"}, [1, 1, 1], ["1", "2", "3", "3 done"]),
        ({"mode": "queued"}, [1, 1, 1], ["1", "1 done", "2", "2 done", "3", "3 done"]),
        ({"mode": "queued", "max": 1}, [1, 1, 0], ["1", "1 done", "2", "2 done"]),
    ],
    ids=["parallel", "parallel max 2", "single", "restart", "queued", "queued max 1"],
)
def test_modes(keys: dict[str, Any], taken: list[int], logs: list[str]) -> None:
    world = World(flow(*SLOW, on="ping", **keys))
    assert [world.event("ping", n=number) for number in (1, 2, 3)] == taken
    for second in (5.0, 10.0, 15.0):
        world.at(second)
    assert world.logs == logs
    assert world.engine.stats.dropped == taken.count(0)
    world.assert_idle()


def test_restart_runs_finally_and_on_end_of_the_old_one() -> None:
    body = step("try", steps(step("sleep", 5.0)), finally_=steps(log(lambda env: "finally " + n(env))))
    world = World(flow(body, on="ping", mode="restart", on_end=steps(log(lambda env: "end " + n(env)))))
    for number in (1, 2):
        world.event("ping", n=number)
    assert world.logs == ["finally 1", "end 1"]


def test_restart_of_a_run_that_only_listens() -> None:
    world = World(flow(step("subscribe", "pong", do=steps(log(n))), on="ping", mode="restart"))
    for number in (1, 2, 3):
        world.event("ping", n=number)
    assert world.event("pong", n=9) == 1
    world.engine.stop("server stops")
    world.assert_idle()


@pytest.mark.parametrize("mode", ["queued", "restart"])
def test_a_flow_that_raises_its_own_event_is_cut(mode: str) -> None:
    world = World(flow(step("raise", "ping", data={}), log("x"), on="ping", mode=mode))
    world.event("ping")
    assert len(world.logs) <= 7
    assert world.engine.stats.runs == 8
    world.assert_idle()


def test_stop_forgets_what_is_queued() -> None:
    world = World(flow(*SLOW, on="ping", mode="queued"))
    for number in (1, 2, 3):
        world.event("ping", n=number)
    world.engine.stop("server stops")
    assert world.logs == ["1"]
    world.assert_idle()


def test_mode_counts_per_key() -> None:
    world = World(flow(*SLOW, on="ping", mode="single", key=lambda env: env["event"]["n"]))
    assert [world.event("ping", n=number) for number in (1, 2, 1, 2, 3)] == [1, 1, 0, 0, 1]
    world.at(5.0)
    assert world.event("ping", n=1) == 1


def test_a_key_may_be_a_list() -> None:
    world = World(flow(*SLOW, on="ping", mode="single", key=lambda env: [env["event"]["n"]]))
    assert [world.event("ping", n=number) for number in (1, 1, 2)] == [1, 0, 1]


def test_a_key_that_fails_takes_nothing() -> None:
    world = World(flow(*SLOW, on="ping", key=missing))
    assert world.event("ping") == 0
    assert world.engine.stats.filter_errors == 1


def test_where_of_a_trigger() -> None:
    equal = where(n=lambda env: env["const"]["n"])
    less = where(lambda env: env["event"]["n"] < 3)
    failing = where(missing)
    world = World(
        *(flow(log(n), on="ping", name=f"f{i}", where=w) for i, w in enumerate((equal, less, failing))), const={"n": 2}
    )
    assert [world.event("ping", n=number) for number in (1, 2, 3)] == [1, 2, 0]


def test_lockout_counts_failures_of_one_address() -> None:
    """FLOWLANG §6.6: the flow's own waits take what follows the event that started it."""
    again = step(
        "wait", "ping", where=where(n=lambda env: env["event"]["n"]), for_=60.0, on_timeout=steps(step("stop"))
    )
    count = step("set", {"count": lambda env: env["vars"]["count"] + 1})
    world = World(
        flow(
            step("set", {"count": 1}),
            step("repeat", 2, do=steps(again, count)),
            log(lambda env: f"{env['event']['n']}: {env['vars']['count']}"),
            on="ping",
            mode="single",
            key=lambda env: env["event"]["n"],
            vars={"count": 0},
        )
    )
    for number in (1, 2, 1, 1, 2):
        world.event("ping", n=number)
    assert world.logs == ["1: 3"]
    world.at(60.0)
    assert world.logs == ["1: 3"]
    world.assert_idle()


def test_a_hundred_queued_events_that_all_fail() -> None:
    """The next run begins when the last one has ended, not inside it."""
    world = World(
        flow(
            step("sleep", 1.0, if_=lambda env: env["event"]["n"] == 0),
            step("fail", "x"),
            on="ping",
            mode="queued",
            vars={"a": 1},
        ),
        flow(log("x"), name="broken", on="pong", mode="queued", vars={"a": missing}),
        limits=Limits(queue=500),
    )
    for number in range(400):
        world.event("ping", n=number)
        world.event("pong", n=number)
    world.at(1.0)
    assert world.engine.stats.failed == 800
    assert world.engine.stats.faults == 0
    world.assert_idle()


def test_start_flows_run_once() -> None:
    world = World(flow(log("up"), on="start"))
    assert world.logs == []
    world.engine.launch()
    world.engine.load(world.program)
    assert world.logs == ["up"]
    world.assert_idle()


def test_every_keeps_its_rhythm() -> None:
    world = World(flow(log("tick"), every=30.0))
    world.at(29.9)
    assert world.logs == []
    seen = []
    for second in range(30, 300, 7):  # the reactor comes late each time
        world.at(float(second))
        seen.append(len(world.logs))
    assert seen[-1] == 9
    world.assert_idle()


def test_every_respects_its_mode() -> None:
    world = World(flow(log("tick"), step("sleep", 100.0), every=30.0, mode="single"))
    for second in (30.0, 60.0, 90.0, 120.0, 150.0):
        world.at(second)
    assert len(world.logs) == 2
    assert world.engine.live()["timers"] == 1  # the sleep; the rhythm is not a run's


def test_queued_ticks_run_one_after_the_other() -> None:
    world = World(flow(log("tick"), step("sleep", 45.0), log("done"), every=30.0, mode="queued", max=1))
    for second in (30.0, 60.0, 75.0, 90.0, 120.0):
        world.at(second)
    assert world.logs == ["tick", "done", "tick", "done", "tick"]
    world.engine.stop("server stops")
    world.at(200.0)
    assert len(world.logs) == 5
    world.assert_idle()


# --- reload ----------------------------------------------------------------------------------------------------------


def reload(world: World, *flows: Flow, hash: str = "v2") -> None:
    world.program = Program(flows, EVENTS, hash=hash)
    world.engine.load(world.program)


def test_running_calls_keep_their_version() -> None:
    old = (flow(step("sleep", 5.0), step("call", "say")), flow(log("old"), name="say", on="call"))
    new = (flow(step("sleep", 5.0), step("call", "say")), flow(log("new"), name="say", on="call"))
    world = World(*old)
    first = world.invite()
    reload(world, *new)
    second = world.invite()
    world.at(5.0)
    assert world.logs == ["old", "new"]
    assert (first.program.hash, second.program.hash) == ("v1", "v2")
    world.hang_up(first)
    world.hang_up(second)
    assert [trace.hash for trace in world.engine.traces] == ["v1", "v2"]
    world.assert_idle()


def test_event_and_timer_flows_are_replaced() -> None:
    world = World(flow(log("old"), name="a", on="ping"), flow(log("old tick"), name="b", every=10.0))
    reload(world, flow(log("new"), name="a", on="ping"), flow(log("new tick"), name="b", every=10.0))
    assert world.event("ping") == 1
    world.at(10.0)
    assert world.logs == ["new", "new tick"]
    reload(world)
    assert world.event("ping") == 0 and len(world.timers) == 0 and len(world.bus) == 0


def test_what_was_queued_before_a_reload_still_runs_in_the_old_version() -> None:
    world = World(flow(step("sleep", 1.0), log(lambda env: "old " + n(env)), on="ping", mode="queued"))
    world.event("ping", n=1)
    world.event("ping", n=2)
    reload(world, flow(log("new"), on="pong"))
    reload(world, flow(log("newer"), on="pong"), hash="v3")
    world.at(1.0)
    world.at(2.0)
    assert world.logs == ["old 1", "old 2"]
    assert world.event("ping") == 0
    assert len(world.engine._versions) == 2
    reload(world)
    assert len(world.engine._versions) == 1
