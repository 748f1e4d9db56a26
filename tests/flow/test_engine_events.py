"""Listening, waiting, raising (FLOWLANG §5): what is armed when, who hears what in which order, what is left."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import Value, World, after, flow, if_, missing, on_wait, step, steps, where

from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import Limits


def log(text: Any, **keys: Any) -> Any:
    return step("log", text, **keys)


def digit(env: Any) -> str:
    """The digit of the event, as text of a log line."""
    return str(env["event"]["digit"])


def called(*do: Any, limits: Limits | None = None, **keys: Any) -> tuple[World, Any]:
    """A world with one call whose flow has these steps."""
    world = World(flow(*do, **keys), limits=limits)
    return world, world.invite()


# --- subscribe -------------------------------------------------------------------------------------------------------


def test_subscribe_is_armed_when_it_returns() -> None:
    """Arm before act: the very next step may cause the event."""
    world, run = called(step("subscribe", "ping", do=steps(log("heard"))), step("raise", "ping", data={}, as_="told"))
    assert world.logs == ["heard"]
    assert run.env["told"] == {"delivered": 1}


def test_call_scoped_events_are_those_of_this_call() -> None:
    world = World(flow(step("subscribe", "dtmf", do=steps(log(lambda env: env["call"]["id"])))))
    first, second = world.invite(), world.invite()
    assert world.event("dtmf", second) == 1
    assert world.logs == ["c2"]
    world.hang_up(first)
    world.hang_up(second)
    assert world.event("dtmf", second) == 0
    world.assert_idle()


def test_any_call_hears_all() -> None:
    world = World(flow(step("subscribe", "dtmf", any_call=True, do=steps(log("x"))), name="watch", on="start"), flow())
    world.engine.launch()
    world.event("dtmf", world.invite())
    world.event("dtmf", world.invite())
    assert world.logs == ["x", "x"]


def test_where_equal_values_are_those_of_the_moment_of_arming() -> None:
    world, _ = called(
        step("subscribe", "ping", where=where(n=lambda env: env["vars"]["n"]), do=steps(log("x"))),
        step("set", {"n": 2}),
        vars={"n": 1},
    )
    assert world.event("ping", n=2) == 0
    assert world.event("ping", n=1) == 1


def test_where_condition_sees_event_and_variables() -> None:
    world, _ = called(
        step("subscribe", "ping", where=where(lambda env: env["event"]["n"] > env["vars"]["n"]), do=steps(log("x"))),
        vars={"n": 1},
    )
    assert [world.event("ping", n=n) for n in (1, 2)] == [0, 1]


def test_where_condition_that_fails_means_no_and_ends_nothing() -> None:
    world, run = called(step("subscribe", "ping", where=where(missing), do=steps(log("x"))))
    assert world.event("ping") == 0
    assert world.engine.stats.filter_errors == 1
    assert "where: failed, expr.missing" in world.trace(run)[-1]
    assert len(run.listeners) == 1


def test_fs_events_by_name() -> None:
    world, _ = called(step("subscribe", "fs", name="HEARTBEAT", do=steps(log("x"))))
    body: dict[str, Any] = {"uuid": None, "headers": {}, "body": ""}
    assert world.event("fs", name="HEARTBEAT", **body) == 1
    assert world.event("fs", name="RE_SCHEDULE", **body) == 0


def test_for_and_on_expire() -> None:
    world, run = called(
        step("subscribe", "ping", for_=20.0, id="late", do=steps(log("x")), on_expire=steps(log("over")))
    )
    world.at(19.9)
    assert world.event("ping") == 1
    world.at(20.0)
    assert world.event("ping") == 0
    assert world.logs == ["x", "over"]
    assert "subscription late expired after 1 events" in world.trace(run)
    assert run.listeners == ()


@pytest.mark.parametrize("busy", [False, True])
def test_an_error_in_on_expire_ends_nothing_else(busy: bool) -> None:
    """It may fail, or find no room among the tasks of its run."""
    world, run = called(
        step("subscribe", "ping", for_=5.0, on_expire=steps(step("fail", "x")), do=steps(log("x"))),
        step("sleep", 9.0),
        log("on"),
        limits=Limits(tasks=1 if busy else 5),
    )
    world.at(5.0)
    assert run.error == ("flow.limit" if busy else "user.error")
    assert run.listeners == ()
    world.at(9.0)
    assert world.logs == ["on"]


def test_limit_ends_it_without_on_expire() -> None:
    world, run = called(step("subscribe", "ping", for_=20.0, limit=2, do=steps(log("x")), on_expire=steps(log("over"))))
    assert [world.event("ping") for _ in range(3)] == [1, 1, 0]
    world.at(30.0)
    assert world.logs == ["x", "x"]
    assert run.listeners == ()


def test_unique_by_runs_once_per_value() -> None:
    world, run = called(
        step(
            "subscribe",
            "registered",
            id="late",
            unique_by=Value(lambda env: env["event"]["contact"], "event.contact"),
            limit=2,
            do=steps(log(lambda env: env["event"]["contact"])),
        )
    )
    assert [world.event("registered", contact=c) for c in "aabab"] == [1, 0, 1, 0, 0]
    assert world.logs == ["a", "b"]
    assert run.handlers == {"late": [2, 1]}  # what comes after the limit is nobody's
    assert "  skipped, event.contact = 'a' was seen before" in world.trace(run)


def test_unique_by_remembers_a_bounded_number() -> None:
    world, _ = called(
        step("subscribe", "ping", unique_by=lambda env: env["event"]["n"], do=steps(log("x"))), limits=Limits(seen=2)
    )
    assert [world.event("ping", n=n) for n in (1, 2, 3, 3, 1)] == [1, 1, 1, 0, 1]


@pytest.mark.parametrize("value", [["a"], {"k": 1}])
def test_unique_by_a_list_or_map(value: Any) -> None:
    world, _ = called(step("subscribe", "ping", unique_by=lambda env: env["event"]["n"], do=steps(log("x"))))
    assert [world.event("ping", n=n) for n in (value, type(value)(value), None)] == [1, 0, 1]


def test_unique_by_that_fails_skips_the_event() -> None:
    world, _ = called(step("subscribe", "ping", unique_by=missing, do=steps(log("x"))))
    assert world.event("ping") == 0
    assert world.engine.stats.filter_errors == 1


BUSY = steps(log(digit), step("sleep", 5.0), log(lambda env: digit(env) + " done"))


@pytest.mark.parametrize(
    ("mode", "taken", "logs"),
    [
        ("queue", [1, 1, 1], ["1", "1 done", "2", "2 done", "3", "3 done"]),
        ("parallel", [1, 1, 1], ["1", "2", "3", "1 done", "2 done", "3 done"]),
        ("drop", [1, 0, 0], ["1", "1 done"]),
        ("restart", [1, 1, 1], ["1", "2", "3", "3 done"]),
    ],
)
def test_what_happens_to_events_while_the_handler_is_busy(mode: str, taken: list[int], logs: list[str]) -> None:
    world, run = called(step("subscribe", "dtmf", run=mode, do=BUSY))
    assert [world.event("dtmf", run, digit=str(n)) for n in (1, 2, 3)] == taken
    world.at(30.0)
    for _ in range(3):
        world.at(world.timers.now + 5.0)
    assert world.logs == logs
    world.hang_up(run)
    world.assert_idle()


def test_the_queue_is_bounded() -> None:
    world, run = called(step("subscribe", "dtmf", do=BUSY), limits=Limits(queue=3))
    assert [world.event("dtmf", run) for _ in range(6)] == [1, 1, 1, 1, 0, 0]
    assert world.engine.stats.dropped == 2


def test_parallel_handlers_are_bounded() -> None:
    world, run = called(step("subscribe", "dtmf", run="parallel", do=BUSY), limits=Limits(tasks=3))
    assert [world.event("dtmf", run) for _ in range(6)] == [1, 1, 1, 0, 0, 0]
    assert world.engine.stats.dropped == 3


def test_restart_unwinds_the_old_handler_before_the_new_one_begins() -> None:
    body = step("try", steps(log(digit), step("sleep", 5.0)), finally_=steps(log("unwound")))
    world, run = called(step("subscribe", "dtmf", run="restart", do=steps(body)))
    for n in (1, 2):
        world.event("dtmf", run, digit=str(n))
    assert world.logs == ["1", "unwound", "2"]


def test_events_taken_before_the_limit_are_all_handled() -> None:
    world, run = called(step("subscribe", "dtmf", limit=3, do=BUSY))
    for n in (1, 2, 3):
        world.event("dtmf", run, digit=str(n))
    for second in (5.0, 10.0, 15.0):
        world.at(second)
    assert world.logs[-1] == "3 done"
    assert run.listeners == ()


def test_an_error_ends_one_handler_only() -> None:
    world, run = called(step("subscribe", "dtmf", line=8, do=steps(log(digit), step("fail", "x", line=9))))
    world.event("dtmf", run, digit="1")
    world.event("dtmf", run, digit="2")
    assert world.logs == ["1", "2"]
    assert world.engine.stats.handler_errors == 2 and world.engine.stats.failed == 0
    assert "handler of dtmf failed, user.error: x (line 9)" in world.trace(run)
    assert run.error == "user.error"


def test_stop_in_a_handler_ends_the_handler() -> None:
    world, run = called(step("subscribe", "dtmf", do=steps(step("stop"), log("never"))), step("sleep", 9.0), log("on"))
    world.event("dtmf", run)
    world.at(9.0)
    assert world.logs == ["on"]


def test_a_handler_has_the_names_from_before_the_subscribe_and_shares_variables() -> None:
    world, run = called(
        step("raise", "ping", data={}, as_="before"),
        step(
            "subscribe",
            "dtmf",
            do=steps(
                step("set", {"n": lambda env: env["vars"]["n"] + 1}),
                log(lambda env: f"{env['before']} {env['after']} {env['vars']['n']}"),
                step("raise", "ping", data={}, as_="mine"),
            ),
        ),
        step("raise", "ping", data={}, as_="after"),
        step("sleep", 5.0),
        log(lambda env: f"{env['vars']['n']} {env['mine']} {env['event']}"),
        vars={"n": 0},
    )
    world.event("dtmf", run)
    world.at(5.0)
    assert world.logs == ["{'delivered': 0} None 1", "1 None None"]


def test_unsubscribe_by_id_also_forgets_what_waits() -> None:
    world, run = called(
        step("subscribe", "dtmf", id="keys", do=BUSY), step("sleep", 2.0), step("unsubscribe", id="keys")
    )
    world.event("dtmf", run, digit="1")
    world.event("dtmf", run, digit="2")
    world.at(2.0)
    assert world.event("dtmf", run) == 0
    world.at(20.0)
    assert world.logs == ["1", "1 done"]
    assert run.listeners == ()


def test_unsubscribe_twice_and_from_inside_the_handler() -> None:
    off = step("unsubscribe", id="keys")
    world, run = called(step("subscribe", "dtmf", id="keys", do=steps(off, off, log(digit))))
    assert [world.event("dtmf", run) for _ in range(2)] == [1, 0]
    assert world.logs == ["1"]


def test_too_many_subscriptions() -> None:
    world, run = called(
        step("repeat", 10, do=steps(step("subscribe", "ping", do=steps(log("x"))))), limits=Limits(subscriptions=4)
    )
    assert run.error == "flow.limit"
    assert world.event("ping") == 4


def test_a_run_without_a_call_lives_as_long_as_it_listens() -> None:
    world = World(flow(step("subscribe", "ping", limit=2, do=steps(step("sleep", 1.0), log("x"))), on="start"))
    world.engine.launch()
    world.event("ping")
    world.event("ping")
    world.at(1.0)
    assert world.engine.live()["runs"] == 1
    world.at(2.0)
    assert world.logs == ["x", "x"]
    world.assert_idle()


# --- wait ------------------------------------------------------------------------------------------------------------


def test_wait_gives_the_event() -> None:
    world, run = called(step("wait", "dtmf", as_="key"), log(lambda env: env["key"]["digit"]))
    assert world.event("dtmf", run, digit="7") == 1
    assert world.event("dtmf", run, digit="8") == 0
    assert world.logs == ["7"]


def test_wait_arms_before_meanwhile() -> None:
    world, _ = called(step("wait", "ping", for_=20.0, meanwhile=steps(step("raise", "ping", data={}))), log("on"))
    assert world.logs == ["on"]
    assert world.engine.live() == {"runs": 1, "tasks": 0, "subscriptions": 0, "timers": 0}


def test_an_event_before_the_wait_is_not_remembered() -> None:
    world, run = called(step("sleep", 1.0), step("wait", "dtmf"), log("on"))
    assert world.event("dtmf", run) == 0
    world.at(1.0)
    assert world.logs == []


def test_wait_that_times_out_fails() -> None:
    world, _ = called(step("wait", "dtmf", for_=8.0, on_error=steps(log(lambda env: env["error"]["type"]))))
    world.at(8.0)
    assert world.logs == ["wait.timeout"]


def test_on_timeout_falls_through_with_null() -> None:
    world, _ = called(
        step("wait", "dtmf", for_=8.0, as_="key", on_timeout=steps(log("nobody"))), log(lambda env: repr(env["key"]))
    )
    world.at(8.0)
    assert world.logs == ["nobody", "None"]


def test_an_error_in_meanwhile_fails_the_wait_at_once() -> None:
    """A refused push need not cost 20 seconds."""
    push = step("http", url="https://push.example.com")
    world, run = called(
        step(
            "wait",
            "registered",
            for_=20.0,
            meanwhile=steps(push),
            on_error=steps(log(lambda env: env["error"]["type"])),
        )
    )
    world.answered(effects.Http, StepError("http.status", "410"))
    assert world.logs == ["http.status"]
    assert world.engine.live()["subscriptions"] == 0 and run.tasks == ()


def test_meanwhile_that_ends_leaves_the_wait_waiting() -> None:
    world, run = called(step("wait", "dtmf", meanwhile=steps(log("pushed"))), log("on"))
    assert world.logs == ["pushed"]
    world.event("dtmf", run)
    assert world.logs == ["pushed", "on"]


def test_meanwhile_is_cancelled_when_the_event_comes() -> None:
    body = step("try", steps(step("http", url="x"), log("never")), finally_=steps(log("unwound")))
    world, run = called(step("wait", "dtmf", meanwhile=steps(body)), log("on"))
    world.event("dtmf", run)
    assert world.logs == ["unwound", "on"]
    assert len(world.host.abandoned) == 1


def test_stop_in_meanwhile_stops_the_flow() -> None:
    world, run = called(step("wait", "dtmf", meanwhile=steps(step("sleep", 1.0), step("stop"))), log("never"))
    world.at(1.0)
    assert world.logs == [] and run.tasks == ()
    assert world.replies == [480]


def test_timeout_of_a_wait_does_not_lose_its_subscription() -> None:
    world, run = called(step("wait", "dtmf", timeout=3.0, on_error=()), log("on"))
    world.at(3.0)
    assert world.logs == ["on"]
    assert world.event("dtmf", run) == 0


# --- first_of --------------------------------------------------------------------------------------------------------


def test_first_of_runs_exactly_one_branch() -> None:
    world, run = called(
        step(
            "first_of",
            (
                on_wait("dtmf", log(lambda env: f"key {digit(env)}")),
                on_wait("fax_tone", log("fax"), where=where(tone="cng")),
                after(8.0, log("nobody")),
            ),
        ),
        log(lambda env: f"on {env['event']}"),
    )
    assert world.event("fax_tone", run, tone="ced", leg="caller") == 0
    assert world.event("fax_tone", run, tone="cng", leg="caller") == 1
    assert world.event("dtmf", run) == 0
    world.at(8.0)
    assert world.logs == ["fax", "on None"]
    assert world.engine.live()["timers"] == 0


def test_first_of_after() -> None:
    world, run = called(step("first_of", (on_wait("dtmf", log("key")), after(8.0))), log("on"))
    world.at(8.0)
    assert world.event("dtmf", run) == 0
    assert world.logs == ["on"]


def test_two_events_in_one_tick_are_taken_in_order() -> None:
    """Both come before the flow runs again; the second one is nobody's."""
    told = steps(
        step("raise", "ping", data={}, as_="a"),
        step("raise", "pong", data={}, as_="b"),
        log(lambda env: f"{env['a']['delivered']}{env['b']['delivered']}"),
    )
    world = World(
        flow(step("first_of", (on_wait("pong", log("pong")), on_wait("ping", log("ping"))))),
        flow(*told, name="told", on="start"),
    )
    world.invite()
    world.engine.launch()
    assert world.logs == ["10", "ping"]


def test_branches_keep_their_event_under_as() -> None:
    world, run = called(
        step("first_of", (on_wait("dtmf", log(lambda env: env["key"]["digit"]), as_="key"), after(8.0))),
        log(lambda env: env["key"]["digit"]),
    )
    world.event("dtmf", run, digit="5")
    assert world.logs == ["5", "5"]


def test_others_are_disarmed_before_the_winner_runs() -> None:
    world, _ = called(
        step(
            "first_of",
            (
                on_wait(
                    "ping", step("raise", "pong", data={}, as_="told"), log(lambda env: str(env["told"]["delivered"]))
                ),
                on_wait("pong", log("never")),
            ),
        )
    )
    world.event("ping")
    assert world.logs == ["0"]


# --- raise -----------------------------------------------------------------------------------------------------------


def test_raise_counts_flows_that_took_it_in_order() -> None:
    listens = flow(
        step("subscribe", "pickup", limit=1, do=steps(log(lambda env: env["call"]["id"]))), step("sleep", 99.0)
    )
    raises = flow(
        step("raise", "pickup", data={"picker": "103"}, as_="told"),
        log(lambda env: f"told {env['told']['delivered']}"),
        name="picker",
        on="call",
    )
    world = World(listens, raises, flow(log("flow"), name="third", on="pickup"))
    world.invite()
    world.invite()
    world.invite("picker")
    assert world.logs == ["told 3", "flow", "c1", "c2"]
    world.invite("picker")
    assert world.logs[4:] == ["told 1", "flow"]


def test_raise_fills_in_what_is_optional() -> None:
    world, _ = called(
        step("subscribe", "pickup", do=steps(log(lambda env: str(env["event"])))),
        step("raise", "pickup", data={"picker": "103"}),
    )
    assert world.logs == ["{'group': None, 'picker': '103'}"]


def test_raise_without_a_needed_attribute_fails() -> None:
    _, run = called(step("raise", "pickup", data={"group": "sales"}))
    assert run.error == "expr.missing"


def test_a_call_scoped_event_is_raised_for_this_call() -> None:
    world = World(
        flow(step("subscribe", "charge_stop", do=steps(log(lambda env: env["call"]["id"]))), name="one"),
        flow(step("raise", "charge_stop", data={"reason": "x"}), name="two", on="call"),
    )
    world.invite()
    world.invite("two")
    assert world.logs == []
    world.event("charge_stop", world.invite(), reason="y")
    assert world.logs == ["c3"]


def test_events_that_raise_each_other_are_cut_at_eight() -> None:
    echo = [("ping", "pong"), ("pong", "ping")]
    flows = [flow(step("raise", to, data={}), log(on), name=on, on=on) for on, to in echo]
    world = World(*flows)
    assert world.event("ping") == 1
    assert len(world.logs) == 7  # the eighth cannot raise and fails
    assert [trace.error for trace in world.engine.traces if trace.error] == ["flow.limit"]
    world.assert_idle()


@pytest.mark.parametrize("mode", ["queue", "restart", "parallel"])
def test_an_event_that_waited_its_turn_is_as_deep_as_it_was_raised(mode: str) -> None:
    """A handler that raises its own event does not run for ever one behind the other."""
    world, run = called(step("subscribe", "ping", run=mode, do=steps(step("raise", "ping", data={}), log("x"))))
    world.event("ping")
    assert len(world.logs) == 7
    assert run.error == "flow.limit"


def test_one_event_causes_a_bounded_number() -> None:
    """Each run raises four: without a bound these were 4^8."""
    four = step("repeat", 4, do=steps(step("raise", "ping", data={})))
    world = World(flow(four, on="ping"), limits=Limits(raises=50))
    world.event("ping")
    assert world.bus.published == 51
    world.event("ping")
    assert world.bus.published == 102
    world.assert_idle()


def test_flows_that_start_each_other_without_a_pause_let_go_of_the_clock() -> None:
    world = World(flow(step("sleep", 0.0), step("raise", "ping", data={}), log("x"), on="ping"))
    world.engine.chain = 1_000  # it is a circle, which ends much earlier
    world.event("ping")
    world.at(1.0)
    assert len(world.logs) == 100


def test_a_pause_between_events_is_no_nesting() -> None:
    flows = (
        flow(step("sleep", 1.0), step("raise", "pong", data={}), log("x"), name="a", on="ping"),
        flow(step("raise", "ping", data={}), log("x"), name="b", on="pong"),
    )
    world = World(*flows)
    world.engine.chain = 1_000  # a circle all the same, see tests/core/test_run_bounds.py
    world.event("ping")
    for second in range(1, 31):
        world.at(float(second))
    assert world.engine.stats.failed == 0
    assert len(world.logs) == 60


def test_causes_come_before_effects() -> None:
    """Whoever hears both events hears the one that caused the other first."""
    causes = flow(step("raise", "pong", data={}), name="causes", on="ping")
    hears = flow(
        step("subscribe", "pong", do=steps(log("pong"))), step("subscribe", "ping", do=steps(log("ping"))), name="hears"
    )
    world = World(causes, hears)
    world.invite()
    world.event("ping")
    assert world.logs == ["ping", "pong"]


def test_handlers_run_after_the_raiser_waits() -> None:
    world, _ = called(
        step("subscribe", "ping", do=steps(log("handler"))),
        step("raise", "ping", data={}),
        log("raiser"),
        step("sleep", 1.0),
    )
    assert world.logs == ["raiser", "handler"]


# --- explain ---------------------------------------------------------------------------------------------------------


def test_nothing_is_explained_unless_asked() -> None:
    world, run = called(step("wait", "ping", where=where(n=1)), if_(lambda env: True, [log("x")]))
    before = world.trace(run)
    world.event("ping", n=2)
    assert world.trace(run) == before
