"""Steps that steer the flow itself: conditions, variables, loops, sub-flows, errors, timeouts (FLOWLANG §4.3, §5)."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import Value, World, after, catch, flow, if_, missing, on_wait, step, steps

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Flow
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import Limits
from orchestrator.flow.run.run import Phase


def log(text: Any, **keys: Any) -> Any:
    return step("log", text, **keys)


def started(*do: Any, **keys: Any) -> World:
    """A world in which a flow without a call has just been started."""
    others: tuple[Flow, ...] = keys.pop("others", ())
    limits = keys.pop("limits", None)
    world = World(flow(*do, on="start", **keys), *others, limits=limits)
    world.engine.launch()
    return world


# --- conditions and names --------------------------------------------------------------------------------------------


def test_condition_of_a_step() -> None:
    world = started(log("yes", if_=lambda env: True), log("no", if_=lambda env: False), log("always"))
    assert world.logs == ["yes", "always"]
    world.assert_idle()


def test_block_form() -> None:
    world = started(
        if_(lambda env: True, [log("then")], [log("else")]),
        if_(lambda env: False, [log("then 2")], [log("else 2")]),
        if_(lambda env: False, [log("then 3")]),
    )
    assert world.logs == ["then", "else 2"]


@pytest.mark.parametrize("given", [1, "true", None])
def test_a_condition_is_true_or_false_and_nothing_else(given: Any) -> None:
    world = started(log("x", if_=lambda env: given))
    assert world.logs == []
    assert [trace.error for trace in world.engine.traces] == ["expr.type"]


def test_a_result_is_kept_and_stays_after_its_block() -> None:
    world = started(
        if_(lambda env: True, [step("raise", "ping", as_="told", data={"n": 1})]),
        log(lambda env: str(env["told"]["delivered"])),
    )
    assert world.logs == ["0"]


def test_a_name_that_was_never_kept_is_null() -> None:
    world = started(
        step("raise", "ping", as_="told", data={}, if_=lambda env: False), log(lambda env: repr(env["told"]))
    )
    assert world.logs == ["None"]


def test_names_of_the_program_are_live() -> None:
    world = World(
        flow(log(lambda env: str(env["now"])), step("sleep", 5.0), log(lambda env: str(env["now"])), on="start")
    )
    world.host.names_["now"] = 100
    world.engine.launch()
    world.host.names_["now"] = 105
    world.at(5.0)
    assert world.logs == ["100", "105"]


# --- variables -------------------------------------------------------------------------------------------------------


def test_set_works_out_all_values_before_it_stores_one() -> None:
    swap = step("set", {"a": lambda env: env["vars"]["b"], "b": lambda env: env["vars"]["a"]})
    world = started(swap, log(lambda env: f"{env['vars']['a']} {env['vars']['b']}"), vars={"a": 1, "b": 2})
    assert world.logs == ["2 1"]


def test_set_stores_nothing_when_one_value_fails() -> None:
    world = started(
        step("set", {"a": 5, "b": missing}, on_error=()), log(lambda env: str(env["vars"]["a"])), vars={"a": 1, "b": 2}
    )
    assert world.logs == ["1"]


def test_a_first_value_that_fails_fails_the_flow() -> None:
    world = started(log("never"), vars={"a": missing})
    assert world.logs == []
    assert [trace.error for trace in world.engine.traces] == ["expr.missing"]
    world.assert_idle()


# --- loops -----------------------------------------------------------------------------------------------------------


def test_foreach_item_is_known_inside_only() -> None:
    world = started(
        step("foreach", lambda env: ["a", "b"], item="ext", do=steps(log(lambda env: env["ext"]))),
        log(lambda env: repr(env["ext"])),
    )
    assert world.logs == ["a", "b", "None"]


def test_foreach_until_and_break() -> None:
    at_b = {"until": lambda env: env["item"] == "b"}
    out = if_(lambda env: env["item"] == "b", [step("break")])
    world = started(
        step("foreach", lambda env: ["a", "b", "c"], do=steps(log(lambda env: env["item"])), **at_b),
        step("foreach", lambda env: ["a", "b", "c"], do=steps(out, log(lambda env: env["item"] + "!"))),
    )
    assert world.logs == ["a", "b", "a!"]


def test_foreach_runs_over_the_list_as_it_was() -> None:
    grow = step("set", {"items": lambda env: [*env["vars"]["items"], "more"]})
    world = started(
        step("foreach", lambda env: env["vars"]["items"], do=steps(log(lambda env: env["item"]), grow)),
        vars={"items": ["a", "b"]},
    )
    assert world.logs == ["a", "b"]


@pytest.mark.parametrize("given", [None, "text", 5])
def test_foreach_needs_a_list(given: Any) -> None:
    world = started(step("foreach", lambda env: given, do=steps(log("x"))))
    assert [trace.error for trace in world.engine.traces] == ["expr.value"]


def test_break_leaves_the_innermost_loop_only() -> None:
    inner = step("repeat", 3, do=steps(log("inner"), step("break")))
    world = started(step("repeat", 2, do=steps(inner, log("outer"))))
    assert world.logs == ["inner", "outer", "inner", "outer"]


def test_repeat_every_keeps_its_distance() -> None:
    slow = if_(lambda env: env["vars"]["n"] == 1, [step("sleep", 25.0)])
    count = step("set", {"n": lambda env: env["vars"]["n"] + 1})
    world = started(step("repeat", 4, every=10.0, do=steps(log("pass"), slow, count)), vars={"n": 0})
    begun: list[int] = []
    for second in range(60):
        world.at(float(second))
        begun += [second] * (len(world.logs) - len(begun))
    assert begun == [0, 10, 35, 35]  # the second pass took 25 s: the third begins at once, the fourth was due at 30
    world.assert_idle()


def test_repeat_until() -> None:
    count = step("set", {"n": lambda env: env["vars"]["n"] + 1})
    world = started(
        step("repeat", 10, until=lambda env: env["vars"]["n"] == 3, do=steps(count, log("x"))), vars={"n": 0}
    )
    assert len(world.logs) == 3


def test_switch_compares_with_what_is_written() -> None:
    cases = {"0": steps(log("zero")), "true": steps(log("yes")), "busy": steps(log("busy")), "2.5": steps(log("half"))}
    values = [0, True, "busy", 2.5, 7, None]
    world = started(*(step("switch", lambda env, v=v: v, cases=cases, default=steps(log("default"))) for v in values))
    assert world.logs == ["zero", "yes", "busy", "half", "default", "default"]


def test_switch_without_default_passes() -> None:
    world = started(step("switch", lambda env: 9, cases={"0": steps(log("zero"))}), log("on"))
    assert world.logs == ["on"]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_stop_ends_the_flow_from_deep_inside() -> None:
    world = started(step("repeat", 2, do=steps(if_(lambda env: True, [step("stop")]))), log("never"))
    assert world.logs == []
    assert world.engine.stats.failed == 0
    world.assert_idle()


SUB = flow(
    log(lambda env: f"{env['params']['box']} {env['vars']['n']} {env['call']}"),
    step("return", lambda env: env["params"]["box"] + "!"),
    log("never"),
    name="sub",
    on="call",
    params={"box": "text"},
    vars={"n": 7},
)


def test_call_has_names_of_its_own_and_returns() -> None:
    world = started(
        step("call", "sub", with_={"box": "main"}, as_="answer"),
        log(lambda env: f"{env['answer']} {env['vars']['n']} {env['params']}"),
        vars={"n": 1},
        others=(SUB,),
    )
    assert world.logs == ["main 7 None", "main! 1 None"]


def test_a_called_flow_sees_the_call_but_not_the_names_of_its_caller() -> None:
    seen = flow(log(lambda env: f"{env['call']['id']} {env['told']} {env['params']['box']}"), name="sub", on="call")
    seen.params["box"] = "optional text"  # type: ignore[index]
    world = World(flow(step("raise", "ping", data={}, as_="told"), step("call", "sub")), seen)
    world.invite()
    assert world.logs == ["c1 None None"]


def test_stop_ends_the_called_flow_only() -> None:
    world = started(
        step("call", "sub", as_="x"),
        log(lambda env: f"on {env['x']}"),
        others=(flow(step("stop"), name="sub", on="call"),),
    )
    assert world.logs == ["on None"]


def test_an_error_in_a_called_flow_is_its_callers_unless_it_has_on_error() -> None:
    failing = flow(step("fail", "no", type="broken"), name="plain", on="call")
    caring = flow(
        step("fail", "no"),
        name="caring",
        on="call",
        on_error=steps(log(lambda env: env["error"]["type"]), step("return", "mended")),
    )
    world = started(
        step("try", steps(step("call", "plain")), catch=(catch("user.broken", log("caught")),)),
        step("call", "caring", as_="x"),
        log(lambda env: env["x"]),
        others=(failing, caring),
    )
    assert world.logs == ["caught", "user.error", "mended"]


def test_calls_nest_sixteen_deep() -> None:
    endless = flow(step("set", {}), step("call", "again"), name="again", on="call")
    world = started(step("call", "again"), others=(endless,))
    assert [trace.error for trace in world.engine.traces] == ["flow.limit"]
    assert sum("call again" in record.text for trace in world.engine.traces for record in trace.records) == 16


# --- errors ----------------------------------------------------------------------------------------------------------


def test_error_of_a_step_is_known_in_its_on_error() -> None:
    world = started(
        step("fail", "no luck", type="luck", line=7, on_error=steps(log(lambda env: str(env["error"])))),
        log(lambda env: repr(env["error"])),
    )
    expected = {"type": "user.luck", "message": "no luck", "step": "fail: no luck", "line": 7, "data": {}}
    assert world.logs == [str(expected), "None"]


def test_on_error_continue_leaves_the_result_null() -> None:
    world = started(
        step("call", "sub", with_={"box": missing}, as_="x", on_error=()),
        log(lambda env: repr(env["x"])),
        others=(SUB,),
    )
    assert world.logs == ["None"]


def test_on_error_covers_the_condition() -> None:
    world = started(log("x", if_=missing, on_error=steps(log(lambda env: env["error"]["type"]))))
    assert world.logs == ["expr.missing"]


def test_the_innermost_step_names_the_error() -> None:
    inner = step("fail", "no", line=9)
    world = started(if_(lambda env: True, [inner]), on_error=steps(log(lambda env: str(env["error"]["line"]))))
    assert world.logs == ["9"]


def test_catch_takes_the_first_glob_that_fits() -> None:
    catches = (catch("http.*", log("http")), catch("user.*", log("user")), catch("*", log("any")))
    world = started(step("try", steps(step("fail", "x"), log("never")), catch=catches), log("on"))
    assert world.logs == ["user", "on"]


def test_an_error_no_catch_fits_goes_on() -> None:
    world = started(
        step("try", steps(step("fail", "x")), catch=(catch("http.*", log("http")),), finally_=steps(log("finally"))),
        on_error=steps(log("flow")),
    )
    assert world.logs == ["finally", "flow"]


@pytest.mark.parametrize("leave", ["stop", "break", "return"])
def test_finally_runs_for_every_way_out(leave: str) -> None:
    body = step("try", steps(step(leave)), catch=(catch("*", log("caught")),), finally_=steps(log("finally")))
    world = started(step("repeat", 1, do=steps(body, log("never"))), log("after"))
    assert world.logs == (["finally", "after"] if leave == "break" else ["finally"])


def test_an_error_in_catch_still_runs_finally() -> None:
    world = started(
        step("try", steps(step("fail", "x")), catch=(catch("*", step("fail", "y")),), finally_=steps(log("finally"))),
        on_error=steps(log(lambda env: env["error"]["message"])),
    )
    assert world.logs == ["finally", "y"]


def test_an_error_in_finally_replaces_the_first() -> None:
    world = started(
        step("try", steps(step("fail", "x")), finally_=steps(step("fail", "y"))),
        on_error=steps(log(lambda env: env["error"]["message"])),
    )
    assert world.logs == ["y"]


def test_an_uncaught_error_is_in_trace_and_counts() -> None:
    world = started(step("fail", "x", line=12))
    (trace,) = world.engine.traces
    assert trace.error == "user.error"
    assert trace.records[-1].text == "flow failed, user.error: x (line 12)"
    assert world.engine.stats.failed == 1


def test_an_error_in_on_error_of_the_flow_is_not_caught_again() -> None:
    world = started(step("fail", "x"), on_error=steps(log("once"), step("fail", "y")))
    assert world.logs == ["once"]
    assert [trace.error for trace in world.engine.traces] == ["user.error"]
    world.assert_idle()


def test_a_bug_in_an_action_ends_one_run_only() -> None:
    world = started(step("log", lambda env: [][0]))
    assert world.engine.stats.faults == 1
    assert [trace.error for trace in world.engine.traces] == ["flow.fault"]
    world.assert_idle()


def test_a_bug_in_a_host_ends_one_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(flow(step("hangup", "x")), flow(log("fine"), on="start", name="other"))
    monkeypatch.setattr(world.host, "end", lambda *_: [][0])
    told: list[Any] = []
    world.engine.on_fault = lambda run, bug: told.append((run.name, type(bug), bug.__traceback__ is not None))
    world.invite()
    assert told == [("main#1", IndexError, True)]
    world.engine.launch()
    assert world.engine.stats.faults == 1
    assert world.logs == ["fine"]
    assert world.replies == [500]


# --- time ------------------------------------------------------------------------------------------------------------


def test_sleep() -> None:
    world = started(step("sleep", 2.5), log("awake"))
    world.at(2.4)
    assert world.logs == [] and world.engine.live()["timers"] == 1
    world.at(2.5)
    assert world.logs == ["awake"]
    world.assert_idle()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_sleep_of_no_time_still_lets_others_run(seconds: float) -> None:
    world = started(step("sleep", seconds), log("awake"))
    world.at(0.02)
    assert world.logs == ["awake"]


def test_timeout_of_a_step() -> None:
    world = started(step("sleep", 9.0, timeout=2.0, on_error=steps(log(lambda env: env["error"]["type"]))), log("on"))
    world.at(2.0)
    assert world.logs == ["step.timeout", "on"]
    world.assert_idle()


def test_timeout_tells_the_host_to_stop() -> None:
    world = started(step("fs.api", "status", timeout=2.0, on_error=()), log("on"))
    world.at(2.0)
    assert [type(effect) for effect in world.host.abandoned] == [effects.EslCommand]
    assert world.logs == ["on"]
    world.assert_idle()


def test_timeout_in_time_leaves_no_timer() -> None:
    world = started(step("fs.api", "status", timeout=2.0, as_="x"), log(lambda env: env["x"]["text"]))
    world.answered(effects.EslCommand, {"ok": True, "text": "UP"})
    assert world.logs == ["UP"]
    world.assert_idle()


def test_a_timeout_is_not_caught_inside_its_own_step() -> None:
    """The steps under a timeout cannot outlive it by catching it; `finally` of theirs runs."""
    patient = step("sleep", 9.0, on_error=steps(log("never")))
    inside = step("try", steps(patient), catch=(catch("*", log("never")),), finally_=steps(log("finally")))
    world = started(
        step("call", "sub", timeout=1.0, on_error=()), log("on"), others=(flow(inside, name="sub", on="call"),)
    )
    world.at(1.0)
    assert world.logs == ["finally", "on"]
    world.at(20.0)
    assert world.logs == ["finally", "on"]
    world.assert_idle()


def test_the_outer_of_two_timeouts() -> None:
    inner = flow(step("sleep", 9.0, timeout=5.0, on_error=steps(log("inner"))), name="sub", on="call")
    world = started(step("call", "sub", timeout=1.0, on_error=steps(log("outer"))), others=(inner,))
    world.at(1.0)
    assert world.logs == ["outer"]
    world.assert_idle()


# --- parallel --------------------------------------------------------------------------------------------------------


def test_parallel_waits_for_all_and_keeps_their_names() -> None:
    def branch(seconds: float, name: str) -> tuple[Any, ...]:
        return steps(step("sleep", seconds), step("raise", "ping", data={}, as_=name), log(name))

    world = started(
        step("parallel", (branch(2.0, "a"), branch(1.0, "b"))),
        log(lambda env: f"{env['a']['delivered']}{env['b']['delivered']}"),
    )
    world.at(1.0)
    assert world.logs == ["b"]
    world.at(2.0)
    assert world.logs == ["b", "a", "00"]
    world.assert_idle()


def test_parallel_first_cancels_the_losers() -> None:
    slow = step("try", steps(step("sleep", 5.0), log("never")), finally_=steps(log("finally")))
    world = started(step("parallel", (steps(slow), steps(step("sleep", 1.0), log("won"))), wait_for="first"), log("on"))
    world.at(1.0)
    assert world.logs == ["won", "finally", "on"]
    world.assert_idle()


def test_parallel_first_error_cancels_the_rest() -> None:
    world = started(
        step("parallel", (steps(step("sleep", 5.0), log("never")), steps(step("sleep", 1.0), step("fail", "x")))),
        on_error=steps(log(lambda env: env["error"]["message"])),
    )
    world.at(1.0)
    assert world.logs == ["x"]
    world.assert_idle()


@pytest.mark.parametrize("leave", ["stop", "break"])
def test_stop_and_break_of_a_branch_are_the_steps(leave: str) -> None:
    both = step("parallel", (steps(step("sleep", 5.0), log("never")), steps(step(leave))))
    world = started(step("repeat", 1, do=steps(both)), log("after"))
    assert world.logs == (["after"] if leave == "break" else [])
    world.assert_idle()


def test_parallel_of_nothing() -> None:
    world = started(step("parallel", ()), step("parallel", ((), ()), wait_for="first"), log("on"))
    assert world.logs == ["on"]
    world.assert_idle()


def test_branches_share_variables() -> None:
    count = step("set", {"n": lambda env: env["vars"]["n"] + 1})
    world = started(
        step("parallel", ((count,), (count,), (count,))), log(lambda env: str(env["vars"]["n"])), vars={"n": 0}
    )
    assert world.logs == ["3"]


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_loop_without_a_wait_is_cut() -> None:
    world = started(step("repeat", 1_000_000, do=()), limits=Limits(steps=500))
    assert [trace.error for trace in world.engine.traces] == ["flow.limit"]
    world.assert_idle()


def test_steps_of_handlers_count_too() -> None:
    world = started(step("subscribe", "ping", do=steps(log("x"))), step("sleep", 5.0), limits=Limits(steps=10))
    for _ in range(20):
        world.event("ping")
    assert len(world.logs) == 8  # 10 less the subscribe and the sleep
    assert world.engine.stats.handler_errors == 12


def test_too_many_tasks() -> None:
    world = started(step("parallel", tuple(steps(step("sleep", 1.0)) for _ in range(10))), limits=Limits(tasks=5))
    assert [trace.error for trace in world.engine.traces] == ["flow.limit"]
    world.assert_idle()


def test_limits_of_the_program_count() -> None:
    world = World(flow(step("repeat", 50, do=()), on="start"), defaults={"limits": {"steps": 20}})
    world.engine.launch()
    assert [trace.error for trace in world.engine.traces] == ["flow.limit"]


# --- first_of with steps that fail -----------------------------------------------------------------------------------


def test_first_of_that_cannot_be_armed_leaves_nothing() -> None:
    broken = on_wait("ping", log("never"), where=None, for_=missing)
    world = started(step("first_of", (after(5.0), on_wait("pong"), broken), on_error=steps(log("failed"))))
    assert world.logs == ["failed"]
    world.assert_idle()


def test_state_is_told_by_repr() -> None:
    world = World(flow(step("sleep", 5.0)))
    run = world.invite()
    assert repr(run) == "<Run main#1 main, 1 tasks, 0 subscriptions>"
    assert repr(run.tasks[0]) == "<Task main#1 main waits>"
    world.at(5.0)
    assert run.phase is Phase.OPEN


def test_an_error_of_the_host_carries_its_data() -> None:
    world = started(
        step("fs.api", "status", on_error=steps(log(lambda env: f"{env['error']['type']} {env['error']['data']}")))
    )
    world.answered(effects.EslCommand, StepError("esl.down", "no link", {"server": "fs1"}))
    assert world.logs == ["esl.down {'server': 'fs1'}"]


def test_values_are_evaluated_when_the_step_runs() -> None:
    counted = Value(lambda env: env["vars"]["n"])
    world = started(
        step("set", {"n": 3}), step("repeat", counted, do=steps(log("x"), step("set", {"n": 9}))), vars={"n": 0}
    )
    assert len(world.logs) == 3
