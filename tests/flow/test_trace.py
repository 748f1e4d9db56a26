"""Traces: what a run did, as text like FLOWLANG §9.4 and as facts; how many are kept."""

from __future__ import annotations

import json

from flowkit import Value, World, flow, step, steps, where

from orchestrator.flow.run.engine import Limits
from orchestrator.flow.run.trace import Trace, Traces, facts, render
from orchestrator.flow.tools.explain import Explainer
from orchestrator.history import RequestSent
from orchestrator.sip.contact import Contact
from orchestrator.sip.location import Binding

PUSH_WAKEUP = """
   0.000  ring_user#1   L16   flow ring_user starts for alice@example.com -> bob@example.com
   0.000  ring_user#1   L22   subscribe registered for 20s
   0.000  ring_user#1   L34   http in the background
   0.000  ring_user#1   L40   relay to registered, open for 20s
   0.000  ring_user#1           SIP >> INVITE to=sip:bob@10.0.0.5:5060
   4.000  ring_user#1   L22   handler of registered runs (1)
   4.000  ring_user#1   L28   if event.mobile -> true
   4.000  ring_user#1   L28   inject 1 branch(es)
   4.100  ring_user#1   L22     skipped, event.contact = 'sip:bob@10.0.0.5' was seen before
   5.000  ring_user#1   L22     subscription late_phone not for us: aor is 'carol@example.com', wanted 'bob@example.com'
   6.000  ring_user#1   L40   relay -> answered 200
  20.000  ring_user#1   L22   subscription late_phone expired after 1 events
  30.000  ring_user#1           call ended by caller: normal
"""


def push_wakeup() -> World:
    """The trace of FLOWLANG §9.4, as far as no SIP is in it."""
    mobile = Value(lambda env: env["event"]["mobile"], "event.mobile", frozenset({("event", "mobile")}))
    inject = step(
        "inject",
        lambda env: env["event"]["uri"],
        if_=mobile,
        line=28,
    )
    world = World(
        flow(
            step(
                "subscribe",
                "registered",
                id="late_phone",
                where=where(aor=lambda env: env["call"]["to"]["aor"]),
                for_=20.0,
                unique_by=Value(lambda env: env["event"]["contact"], "event.contact"),
                do=steps(inject),
                line=22,
            ),
            step("http", "https://push.example.com", background=True, line=34),
            step("relay", "registered", keep_open=20.0, line=40),
            name="ring_user",
            line=16,
        )
    )
    world.at(100.0)
    run = world.invite()
    run.trace(None, RequestSent("INVITE", "sip:bob@10.0.0.5:5060"))
    Explainer(world.engine).open("", lambda told: None)
    for seconds, aor in [(104.0, "bob@example.com"), (104.1, "bob@example.com"), (105.0, "carol@example.com")]:
        world.at(seconds)
        world.event("registered", aor=aor)
    world.at(106.0)
    world.relayed()
    world.at(120.0)
    world.at(130.0)
    world.hang_up(run)
    return world


def test_render() -> None:
    (trace,) = push_wakeup().engine.traces
    assert list(render(trace)) == PUSH_WAKEUP.strip("\n").splitlines()


def test_facts_are_json_with_the_values_read() -> None:
    (trace,) = push_wakeup().engine.traces
    lines = [json.loads(json.dumps(fact)) for fact in facts(trace)]
    assert lines[6] == {
        "run": "ring_user#1",
        "hash": "v1",
        "call": "c1",
        "time": 104.0,
        "line": 28,
        "step": "inject",
        "text": "if event.mobile -> true",
        "read": {"event.mobile": True},
        "fact": {"kind": "Decided", "source": "event.mobile", "held": True},
    }
    assert lines[-1]["line"] == 0 and lines[-1]["step"] == ""


def test_only_plain_values_that_are_there_are_noted() -> None:
    paths = frozenset({("event",), ("event", "n"), ("event", "x"), ("event", "n", "y"), ("vars", "a")})
    read = Value(lambda env: True, "x", paths)
    world = World(flow(step("log", "x", if_=read), on="ping", vars={"a": None}))
    world.event("ping", n=5)
    (trace,) = world.engine.traces
    assert dict(trace.records[1].read) == {"event.n": 5, "vars.a": None}


def test_braces_in_values_are_text() -> None:
    world = World(flow(step("log", "{0} {x}"), on="start"))
    world.engine.launch()
    (trace,) = world.engine.traces
    assert trace.records[-1].text == "log: {0} {x}"


def test_the_last_runs_and_all_failed_ones_are_kept() -> None:
    fails = step("fail", "x", if_=lambda env: env["event"]["n"] % 10 == 0)
    world = World(flow(fails, on="ping"), limits=Limits(traces=5, failures=3))
    for number in range(1, 51):
        world.event("ping", n=number)
    assert [trace.run for trace in world.engine.traces] == [f"main#{n}" for n in (30, 40, 50, 45, 46, 47, 48, 49)]
    found = world.engine.traces.find("main#30")
    assert found is not None and found.error == "user.error"
    assert world.engine.traces.find("main#1") is None
    assert len(world.engine.traces) == 8


def test_an_error_of_a_handler_keeps_the_trace_too() -> None:
    world = World(flow(step("subscribe", "dtmf", do=steps(step("fail", "x")))), limits=Limits(traces=0))
    run = world.invite()
    world.event("dtmf", run)
    world.hang_up(run)
    assert [trace.error for trace in world.engine.traces] == ["user.error"]


def test_a_trace_is_bounded() -> None:
    world = World(flow(step("repeat", 100, do=steps(step("log", "x"))), on="start"), limits=Limits(records=10))
    world.engine.launch()
    (trace,) = world.engine.traces
    assert len(trace.records) == 10 and trace.dropped == 91
    assert list(render(trace))[-1].endswith("… 91 more lines were not kept")


def test_what_a_phone_has_registered_is_weighed() -> None:
    contact = Contact(Binding("bob@example.com", b"sip:bob@10.0.0.2;x=" + b"y" * 1000, 0.0))
    assert RequestSent("INVITE", contact).octets == len("INVITE") + len(contact)


def test_a_running_call_can_be_traced() -> None:
    world = World(flow(step("relay", "registered")))
    run = world.invite()
    assert [record.text for record in Trace.of(run).records][-1] == "relay to registered"


def test_a_program_may_change_how_many_are_kept() -> None:
    world = World(flow(on="ping"), defaults={"limits": {"traces": 2}})
    for _ in range(5):
        world.event("ping")
    assert len(world.engine.traces) == 2


def test_a_kept_trace_holds_nothing_of_the_run() -> None:
    """Only texts and plain values stay: not the call, not the generators."""
    world = push_wakeup()
    (trace,) = world.engine.traces
    kept = [value for record in trace.records for value in record.fact.facts().values()]
    assert all(isinstance(value, str | int | float | None) for value in kept)


def test_many_runs_of_one_flow_do_not_push_those_of_another_out() -> None:
    traces = Traces(10, 5)
    for number in range(3):
        traces.keep(Trace(f"call#{number}", "call", "", "", "", ()))
    for number in range(500):
        traces.keep(Trace(f"register#{number}", "register", "", "", "", ()))
    assert [trace.run for trace in traces] == [
        *(f"call#{number}" for number in range(3)),
        *(f"register#{number}" for number in range(493, 500)),
    ]
    traces.bound(4, 5)
    assert len(traces) == 4 and traces.find("call#2") is not None
