"""A call and its flow: replies that are never forgotten, relay outcomes, cancellation, on_end (FLOWLANG §5)."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import Served, World, catch, flow, if_, missing, step, steps

from orchestrator.errors import StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.engine import Limits
from orchestrator.flow.run.run import Phase


def log(text: Any, **keys: Any) -> Any:
    return step("log", text, **keys)


def called(
    *do: Any, limits: Limits | None = None, resources: dict[str, Any] | None = None, **keys: Any
) -> tuple[World, Any]:
    """A world with one call whose flow has these steps."""
    world = World(flow(*do, **keys), limits=limits, **(resources or {}))
    return world, world.invite()


# --- choice ----------------------------------------------------------------------------------------------------------


def test_the_first_flow_that_fits_takes_the_call() -> None:
    world = World(
        flow(log("register"), name="r", on="register"),
        flow(log("sub"), name="s", on="call"),
        flow(log("other"), name="a", when=lambda env: env["call"]["to"]["user"] == "carol"),
        flow(log("bob"), name="b", when=lambda env: env["call"]["to"]["user"] == "bob"),
        flow(log("any"), name="c"),
    )
    world.invite()
    world.invite(to={"user": "dave", "aor": "dave@example.com"})
    assert world.logs == ["bob", "any"]
    assert world.engine.choose("register", {"request": {}}) is world.program.flows[0]
    assert World(flow(on="start")).engine.choose("invite", {"call": {}}) is None


def test_a_condition_that_fails_does_not_fit() -> None:
    world = World(flow(log("broken"), name="a", when=missing), flow(log("next"), name="b"))
    world.invite()
    assert world.logs == ["next"]
    assert world.engine.stats.filter_errors == 1


# --- implicit final reply --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "code"),
    [
        (steps(), 480),
        (steps(step("stop"), log("x")), 480),
        (steps(step("reply", 183)), 480),
        (steps(step("fail", "x")), 500),
        (steps(step("wait", "dtmf", for_=5.0)), 480),
        (steps(step("fs.api", "status")), 503),
        (steps(log(missing)), 500),
        (steps(step("try", steps(step("fail", "x")), catch=(catch("*", log("x")),))), 480),
    ],
    ids=["empty", "stop", "only 1xx", "error", "wait.timeout", "charge.down", "expr.missing", "caught"],
)
def test_an_invite_is_never_left_without_a_final_reply(do: Any, code: int) -> None:
    world, run = called(*do)
    world.answered(effects.EslCommand, StepError("charge.down", "no answer"))
    world.at(5.0)
    assert world.host.finals[run.id] == [code]
    assert any(line.startswith(f"implicit reply {code}") for line in world.trace(run))
    world.hang_up(run)
    world.assert_idle()


def test_replies_for_errors_can_be_set() -> None:
    overrides = {"user.*": 486, "*": 501}
    for error, code in [(step("fail", "x"), 486), (log(missing), 501)]:
        world, _ = called(error, resources={"defaults": {"replies": overrides}})
        assert world.replies == [code]


def test_the_best_failure_of_the_last_relay_is_the_reply() -> None:
    world, _ = called(step("relay", "registered"), step("relay", "sip:carol@example.com"))
    world.relayed("busy", 486)
    world.relayed("rejected", 603, reason="Decline")
    (reply,) = world.host.asked(effects.Reply)
    assert (reply.code, reply.reason, reply.implicit) == (603, "Decline", True)


def test_a_reply_of_the_flow_is_the_only_one() -> None:
    world, _ = called(step("reply", 486, reason="Busy", headers={"X-Id": "7"}), log("on"))
    (reply,) = world.host.asked(effects.Reply)
    assert (reply.code, reply.reason, reply.headers, reply.implicit) == (486, "Busy", {"X-Id": "7"}, False)
    assert world.logs == ["on"]


def test_a_second_final_reply_is_an_error_of_its_step() -> None:
    world, _ = called(step("reply", 486), step("reply", 480, on_error=steps(log(lambda env: env["error"]["type"]))))
    assert world.logs == ["call.state"]
    assert world.replies == [486, 480]


def test_no_implicit_reply_after_an_answer() -> None:
    world, run = called(step("relay", "registered"))
    world.relayed()
    assert world.replies == []
    assert run.phase is Phase.OPEN


def test_an_error_after_the_answer_is_no_reply() -> None:
    world, run = called(step("relay", "registered"), step("fail", "x"))
    world.relayed()
    assert world.replies == [] and run.error == "user.error"


def test_no_implicit_reply_when_the_host_has_replied() -> None:
    world, run = called(step("sleep", 5.0))
    run.subject = Served(world.host, run.id)
    world.host.finals[run.id] = [408]
    world.at(5.0)
    assert world.replies == []


def test_an_implicit_reply_that_comes_too_late_is_no_error() -> None:
    """The host has replied on its own and not said so."""
    world, run = called(step("sleep", 5.0))
    world.host.finals[run.id] = [408]
    world.at(5.0)
    assert world.trace(run)[-1].startswith("implicit reply not sent")
    assert run.error == ""


def test_a_register_is_never_left_without_a_reply_either() -> None:
    world = World(flow(log("x"), on="register"))
    bob = {"aor": "bob@example.com"}
    run = world.engine.start(world.program.flows[0], request={**bob, "from": bob, "to": bob, "contacts": ["sip:b@h"]})
    assert world.replies == [403]
    assert world.trace(run)[0] == "flow main starts for REGISTER bob@example.com -> bob@example.com"
    world.assert_idle()


def test_flows_without_a_request_reply_nothing() -> None:
    world = World(flow(step("fail", "x"), on="start"))
    world.engine.launch()
    assert world.replies == []


def test_on_error_of_the_flow_may_reply() -> None:
    world, _ = called(step("fail", "x"), on_error=steps(step("reply", 488)))
    assert world.replies == [488]


# --- relay -----------------------------------------------------------------------------------------------------------

ON = {
    "answered": steps(log("answered")),
    "busy": steps(log("busy")),
    "rejected": steps(log("busy")),
    "else": steps(log(lambda env: f"else {env['relay']['outcome']} {env['relay']['code']}")),
}


@pytest.mark.parametrize(
    ("outcome", "code", "logged"),
    [
        ("answered", 200, "answered"),
        ("busy", 486, "busy"),
        ("rejected", 603, "busy"),
        ("no_answer", 408, "else no_answer 408"),
    ],
)
def test_steps_for_each_outcome(outcome: str, code: int, logged: str) -> None:
    world, _ = called(step("relay", "registered", on=ON), log(lambda env: repr(env["relay"])))
    world.relayed(outcome, code)
    assert world.logs == [logged, "None"]


def test_else_is_never_an_answer() -> None:
    world, _ = called(step("relay", "registered", on={"else": steps(step("reply", 480))}), log("on"))
    world.relayed()
    assert world.logs == ["on"] and world.replies == []


def test_result_is_kept_and_known_inside_already() -> None:
    world, _ = called(
        step("relay", "registered", as_="out", on={"else": steps(log(lambda env: env["out"]["outcome"]))}),
        log(lambda env: env["out"]["outcome"]),
    )
    world.relayed("busy", 486)
    assert world.logs == ["busy", "busy"]


def test_hunting_stops_at_the_answer() -> None:
    hunt = step(
        "foreach",
        lambda env: ["201", "202", "203"],
        item="ext",
        do=steps(step("relay", aor=lambda env: env["ext"], on={"answered": steps(step("stop"))})),
    )
    world, _ = called(hunt, step("reply", 480))
    world.relayed("busy", 486)
    world.relayed()
    assert [effect.aor for effect in world.host.asked(effects.Relay)] == ["201", "202"]
    assert world.replies == []


# --- cancellation ----------------------------------------------------------------------------------------------------


def test_the_end_of_the_call_reaches_everything() -> None:
    def guarded(name: str, *do: Any) -> Any:
        caught = (catch("*", log("never")),)
        return step("try", steps(*do, log("never"), on_error), catch=caught, finally_=steps(log(name)))

    on_error = step("sleep", 1.0, on_error=())
    wait = step("wait", "ping", meanwhile=steps(guarded("meanwhile", step("http", url="x"))), on_error=())
    world, run = called(
        step("subscribe", "dtmf", run="parallel", do=steps(guarded("handler", step("sleep", 99.0)))),
        step("subscribe", "registered", do=steps(log("never"))),
        step("parallel", (steps(guarded("relay", step("relay", "registered"))), steps(guarded("wait", wait)))),
        log("never"),
        on_end=steps(log("on_end")),
    )
    world.event("dtmf", run)
    assert world.engine.live() == {"runs": 1, "tasks": 5, "subscriptions": 3, "timers": 1}
    world.hang_up(run)
    assert sorted(world.logs[:-1]) == ["handler", "meanwhile", "relay", "wait"]
    assert world.logs[-1] == "on_end"
    assert sorted(type(effect).__name__ for effect in world.host.abandoned) == ["Http", "Relay"]
    assert run.phase is Phase.DONE
    world.assert_idle()


def test_catch_and_on_error_cannot_swallow_the_end_of_the_call() -> None:
    tough = step("try", steps(step("sleep", 9.0, on_error=())), catch=(catch("*", log("never")),), on_error=())
    world, run = called(step("repeat", 5, do=steps(tough)), log("never"), on_error=steps(log("never")))
    world.hang_up(run)
    assert world.logs == []
    world.assert_idle()


def test_no_error_in_finally_brings_the_flow_back() -> None:
    body = step("try", steps(step("sleep", 9.0)), finally_=steps(log("finally"), step("fail", "x")))
    stopping = step("try", steps(body), finally_=steps(step("stop")))
    world, run = called(step("try", steps(stopping), catch=(catch("*", log("never")),)), log("never"))
    world.hang_up(run)
    assert world.logs == ["finally"]
    assert run.error == "user.error"
    world.assert_idle()


def test_finally_may_wait_but_not_for_ever() -> None:
    body = step(
        "try", steps(step("sleep", 99.0)), finally_=steps(step("http", url="x"), log("told"), step("sleep", 60.0))
    )
    world, run = called(body, on_end=steps(log("on_end")))
    world.hang_up(run)
    world.at(1.0)
    world.answered(effects.Http, {"status": 200})
    assert world.logs == ["told"]
    world.at(5.0)
    assert world.logs == ["told", "on_end"]
    assert "finally steps cut after 5s" in world.trace(run)
    world.assert_idle()


def test_a_task_is_told_once_to_end() -> None:
    """Its parent unwinds as well and cancels it once more: that must not cut its `finally` short."""
    body = step("try", steps(step("sleep", 99.0)), finally_=steps(step("http", url="x"), log("told")))
    world, run = called(step("parallel", (steps(body), steps(step("relay", "registered")))), on_end=steps(log("end")))
    world.hang_up(run)
    assert world.logs == []
    world.answered(effects.Http, {"status": 200})
    assert world.logs == ["told", "end"]
    world.assert_idle()


def test_a_timeout_inside_finally_still_works() -> None:
    quick = step("http", url="x", on_error=steps(log("late")))
    limited = step("call", "sub", timeout=1.0, on_error=steps(log("timeout")))
    world = World(
        flow(step("try", steps(step("sleep", 99.0)), finally_=steps(limited, log("on")))),
        flow(quick, name="sub", on="call"),
    )
    run = world.invite("main")
    world.hang_up(run)
    world.at(1.0)
    assert world.logs == ["timeout", "on"]
    world.assert_idle()


def test_hangup_by_the_flow_ends_it_at_its_next_wait() -> None:
    world, run = called(
        step("hangup", "declined"), log("still"), step("sleep", 1.0), log("never"), on_end=steps(log("end"))
    )
    assert world.logs == ["still", "end"]
    assert "call ended by engine: declined" in world.trace(run)
    world.assert_idle()


def test_hangup_by_a_handler_ends_the_main_steps() -> None:
    world, run = called(
        step("subscribe", "dtmf", limit=1, do=steps(step("hangup", "x", if_=lambda env: env["event"]["digit"] != "2"))),
        step("relay", "registered"),
        log("never"),
    )
    world.event("dtmf", run, digit="1")
    assert world.logs == []
    assert world.host.finals[run.id] == [487]
    world.assert_idle()


def test_sip_actions_after_the_end_are_refused_before_the_host_sees_them() -> None:
    last = [
        step("inject", "sip:bob@10.0.0.9", on_error=steps(log(lambda env: env["error"]["type"]))),
        step("reply", 480, on_error=steps(log(lambda env: env["error"]["type"]))),
        step("cancel", ["all"]),
        step("hangup", "again"),
    ]
    world, _ = called(step("hangup", "x"), *last)
    assert world.logs == ["call.state", "call.state"]
    assert [type(effect).__name__ for effect in world.host.done if not isinstance(effect, effects.Log)] == ["Hangup"]


def test_nothing_is_subscribed_after_the_end() -> None:
    listen = step("subscribe", "ping", do=steps(log("never")))
    body = step("try", steps(step("sleep", 9.0)), finally_=steps(listen))
    world, run = called(step("parallel", (steps(body), steps(step("hangup", "x"), listen))))
    assert world.event("ping") == 0
    assert world.trace(run).count("subscribe ping: not armed, the run ends") == 2
    world.assert_idle()


def test_a_relay_after_the_end_is_not_begun() -> None:
    world, _ = called(step("hangup", "x"), step("relay", "registered"), log("never"))
    assert world.host.asked(effects.Relay) == []
    assert world.logs == []
    world.assert_idle()


@pytest.mark.parametrize(
    "action", [step("http", url="x"), step("fs.bgapi", "originate"), step("fs.execute", "echo", wait=True)]
)
def test_nothing_that_waits_is_begun_after_the_end(action: Any) -> None:
    world, _ = called(step("hangup", "x"), action, log("never"))
    assert len(world.host.done) == 1
    assert world.logs == []


def test_background_http_survives_and_is_still_sent() -> None:
    world, _ = called(
        step("http", url="x", background=True), step("hangup", "x"), step("http", url="y", background=True)
    )
    assert len(world.host.asked(effects.Http)) == 2
    assert world.host.abandoned == []
    world.assert_idle()


def test_a_handler_that_has_not_begun_never_begins() -> None:
    """Both events came in one turn; the first one's handler ends the call."""
    raises = flow(step("raise", "ping", data={"n": 1}), step("raise", "ping", data={"n": 2}), name="raises", on="call")
    world = World(
        flow(
            step("subscribe", "ping", run="parallel", do=steps(log("x"), step("hangup", "x"))),
            step("sleep", 99.0),
        ),
        raises,
    )
    world.invite()
    other = world.invite("raises")
    assert world.logs == ["x"]
    world.hang_up(other)
    world.assert_idle()


def test_a_cancel_before_the_flow_starts() -> None:
    """No ghost calls: not one step runs, on_end does."""
    world = World(flow(step("relay", "registered"), on_end=steps(log(lambda env: env["call"]["state"]))))
    world.invite("main", state="ended")
    assert world.host.asked(effects.Relay) == []
    assert world.logs == ["ended"]
    world.assert_idle()


def test_ending_a_call_twice_is_harmless() -> None:
    world, run = called(step("sleep", 9.0), on_end=steps(step("sleep", 1.0), log("end")))
    world.engine.call_ended(run, "caller", "normal")
    world.engine.call_ended(run, "callee", "normal")
    world.at(1.0)
    world.engine.call_ended(run, "callee", "normal")
    assert world.logs == ["end"]
    world.assert_idle()


def test_an_answer_after_the_end_is_counted_and_ignored() -> None:
    world, run = called(step("relay", "registered"), log("never"))
    ((ticket, _),) = world.host.waiting.items()
    world.hang_up(run)
    world.engine.resume(ticket, {"outcome": "answered"})
    world.engine.throw(ticket, StepError("sip.transport", "x"))
    assert world.logs == []
    assert world.engine.stats.stale == 2


def test_an_answer_inside_perform(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may know the result before it returns PENDING."""
    world = World(flow(step("relay", "registered", as_="out"), log(lambda env: env["out"]["outcome"])))
    perform = world.host.perform

    def at_once(run: Any, ticket: Any, effect: Any) -> Any:
        answer = perform(run, ticket, effect)
        if isinstance(effect, effects.Relay):
            world.relayed("busy", 486)
        return answer

    monkeypatch.setattr(world.host, "perform", at_once)
    run = world.invite()
    assert world.logs == ["busy"] and world.replies == [486]
    world.hang_up(run)
    world.assert_idle()


def test_the_call_may_end_inside_perform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host finds out while it sends: the relay is taken back and the flow unwinds."""
    world = World(flow(step("try", steps(step("relay", "registered")), finally_=steps(log("finally"))), log("never")))
    perform = world.host.perform

    def ends(run: Any, ticket: Any, effect: Any) -> Any:
        answer = perform(run, ticket, effect)
        if isinstance(effect, effects.Relay):
            world.hang_up(run)
        return answer

    monkeypatch.setattr(world.host, "perform", ends)
    world.invite()
    assert world.logs == ["finally"]
    assert len(world.host.abandoned) == 1
    world.assert_idle()


# --- on_end ----------------------------------------------------------------------------------------------------------


def test_on_end_has_call_variables_and_names() -> None:
    world, run = called(
        step("set", {"n": 5}),
        step("raise", "ping", data={}, as_="told"),
        vars={"n": 0},
        on_end=steps(log(lambda env: f"{env['call']['state']} {env['vars']['n']} {env['told']}")),
    )
    world.hang_up(run)
    assert world.logs == ["ended 5 {'delivered': 0}"]


def test_on_end_and_on_error_run_after_too_many_steps() -> None:
    world, run = called(
        step("repeat", 1_000, do=()), limits=Limits(steps=20), on_error=steps(log("error")), on_end=steps(log("end"))
    )
    world.hang_up(run)
    assert world.logs == ["error", "end"]


def test_on_end_runs_when_only_a_subscription_was_left() -> None:
    world, run = called(step("subscribe", "ping", do=steps(log("x"))), on_end=steps(log("end")))
    world.hang_up(run)
    assert world.logs == ["end"]
    world.assert_idle()


def test_on_end_waits_for_finally() -> None:
    body = step("try", steps(step("sleep", 99.0)), finally_=steps(step("http", url="x"), log("finally")))
    world, run = called(body, on_end=steps(log("end")))
    world.hang_up(run)
    assert world.logs == []
    world.answered(effects.Http, {"status": 200})
    assert world.logs == ["finally", "end"]
    world.assert_idle()


def test_on_end_has_five_seconds() -> None:
    world, run = called(on_end=steps(log("a"), step("http", url="x", on_error=steps(log("never"))), log("never")))
    world.hang_up(run)
    world.at(5.0)
    assert world.logs == ["a"]
    assert len(world.host.abandoned) == 1
    assert "on_end cut after 5s" in world.trace(run)
    world.assert_idle()


def test_an_error_in_on_end_is_traced_and_counted() -> None:
    world, run = called(on_end=steps(step("fail", "x"), log("never")))
    world.hang_up(run)
    assert run.error == "user.error" and world.engine.stats.failed == 1
    world.assert_idle()


def test_on_end_of_a_flow_without_a_call() -> None:
    world = World(flow(log("main"), on="ping", on_end=steps(log("end"))))
    world.event("ping")
    assert world.logs == ["main", "end"]
    world.assert_idle()


def test_branches_left_by_on_end_are_taken_down() -> None:
    race = step(
        "parallel",
        (steps(step("try", steps(step("sleep", 2.0)), finally_=steps(step("sleep", 4.0)))), steps()),
        wait_for="first",
    )
    world, run = called(on_end=steps(race, log("end")))
    world.hang_up(run)
    assert world.logs == ["end"]
    world.assert_idle()


# --- life of a run ---------------------------------------------------------------------------------------------------


def test_the_call_goes_on_when_the_main_steps_are_done() -> None:
    world, run = called(step("subscribe", "dtmf", do=steps(log("key"))), step("relay", "registered"))
    world.relayed()
    assert run.phase is Phase.OPEN
    world.event("dtmf", run)
    assert world.logs == ["key"]
    world.hang_up(run)
    world.assert_idle()


def test_stop_of_the_engine_ends_all_runs() -> None:
    world = World(
        flow(step("relay", "registered"), on_end=steps(log("call"))),
        flow(step("sleep", 9.0), name="s", on="start", on_end=steps(log("start"))),
        flow(log("never"), name="e", on="ping"),
    )
    world.engine.launch()
    world.invite()
    world.engine.stop("server stops")
    assert world.event("ping") == 0
    assert sorted(world.logs) == ["call", "start"]
    world.host.waiting.clear()
    world.assert_idle()


def test_vars_of_two_calls_are_their_own() -> None:
    count = step("set", {"n": lambda env: env["vars"]["n"] + 1})
    world = World(
        flow(step("subscribe", "dtmf", do=steps(count, log(lambda env: str(env["vars"]["n"])))), vars={"n": 0})
    )
    one, two = world.invite(), world.invite()
    for run in (one, one, two):
        world.event("dtmf", run)
    assert world.logs == ["1", "2", "1"]


def test_nested_conditions_and_handlers_do_not_share_names() -> None:
    inner = if_(lambda env: True, [step("raise", "ping", data={}, as_="x")])
    world, run = called(
        step(
            "subscribe",
            "dtmf",
            run="parallel",
            do=steps(inner, step("sleep", 1.0), log(lambda env: str(env["event"]["digit"]))),
        ),
        step("sleep", 9.0),
    )
    world.event("dtmf", run, digit="1")
    world.event("dtmf", run, digit="2")
    world.at(1.0)
    assert world.logs == ["1", "2"]
