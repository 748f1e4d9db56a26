"""Charged calls: the session as a table, and with the real engine, every way a call can end."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.core.jobs import Job
from orchestrator.core.stopping import end_flows
from orchestrator.errors import StepError
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.charging import (
    SESSION,
    Alter,
    Authorise,
    Charged,
    ChargedCall,
    Disconnect,
    LowBalance,
    Report,
)
from orchestrator.flow.run.traits import CallLife, CallWork
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.world import World

CHARGE = "charge: {account: alice, destination: '301'}"
DOWN = StepError("charge.down", "no answer")
UNSENT = StepError("charge.down", "no connection", {"sent": False})
REFUSED = StepError("charge.refused", "INSUFFICIENT_CREDIT")


class Billing:
    """A billing server of a test: what was asked of it, and what it says by the kind of request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[float, str, float | None]] = []
        self.says: dict[str, Any] = {}
        world.on_job = self.answer

    def answer(self, job: Job) -> Any:
        effect = job.effect
        if isinstance(effect, Authorise):
            what = "authorise"
        elif isinstance(effect, Report):
            what = effect.what
        else:
            return World._answer_job(self.world, job)
        self.asked.append((self.world.now, what, effect.usage))
        said = self.says.get(what, {"max_usage": None})
        if callable(said):
            said = said(effect)
        if isinstance(said, tuple):  # later
            later, result = said
            world = self.world
            world.call_at(world.now + later, lambda: world.engine.complete(job.id, result, world.now))
            return World.LATER
        return said

    @property
    def kinds(self) -> list[str]:
        return [what for _, what, _ in self.asked]


class Stage:
    def __init__(self, steps: str = f"- {CHARGE}\n- relay: registered", **settings: Any) -> None:
        body = "\n".join(f"      {line}" for line in steps.splitlines())
        text = f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n{body}\n"
        self.world = World(load_sources([Source("a.flow.yaml", text)])[0], **settings)
        self.billing = Billing(self.world)
        self.said: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.registered_phone("bob@example.com", "10.0.0.3")

    def call(self, talk: float = 0.0) -> PhoneCall:
        call = self.alice.invite("bob@example.com")
        self.world.run(1)
        if talk:
            self.bob.calls[0].answer()
            self.world.run(talk)
        return call

    def tell(self, make: Callable[[str], Any]) -> None:
        (id,) = {life.call for lives in self.world.engine.host.works._of_call.values() for life in lives}
        self.world.engine.host.works.receive(id, ChargedCall, make(id), self.world.now)
        self.world.run()

    def over(self) -> None:
        """Everything has ended, both phones know, and nothing is left."""
        self.world.run(64)
        assert {call.state for phone in (self.alice, self.bob) for call in phone.calls} <= {"ended"}
        assert not any(self.world.leftovers().values()), self.world.leftovers()
        assert len(self.world.engine.host.works) == 0 and self.world.engine.host.works.idle


# --- a call, told ----------------------------------------------------------------------------------------------------


def test_a_call_is_authorised_opened_closed_and_recorded() -> None:
    s = Stage()
    call = s.call(talk=30)
    assert s.billing.asked == [(0.0, "authorise", None), (1.0, "open", None)]
    call.hangup()
    s.world.run(1)
    assert s.billing.asked[2:] == [(31.0, "close", 30.0), (31.0, "record", 30.0)]
    s.over()


def test_a_call_that_nobody_answers_opens_nothing() -> None:
    s = Stage()
    s.call().hangup()
    s.over()
    assert s.billing.kinds == ["authorise"]


def test_the_limit_cuts_both_sides_and_flows_hear_of_it_first() -> None:
    s = Stage(f"- subscribe: limit_reached\n  do: [log: 'cut after ${{event.usage}}']\n- {CHARGE}\n- relay: registered")
    s.billing.says |= {"authorise": {"max_usage": 90.0}, "open": {"max_usage": 45.0}}
    call = s.call(talk=44)
    assert call.state == "answered" and s.said == []
    s.world.run(2)
    assert s.said == ["cut after 45"]
    assert (call.state, s.bob.calls[0].state) == ("ended", "ended")
    assert s.billing.asked[2:] == [(46.0, "close", 45.0), (46.0, "record", 45.0)]
    s.over()


def test_max_of_the_step_is_asked_for_and_holds() -> None:
    s = Stage("- charge: {account: alice, max: 20s}\n- relay: registered")
    s.call(talk=21)
    assert s.billing.asked == [
        (0.0, "authorise", 20.0), (1.0, "open", 20.0), (21.0, "close", 20.0), (21.0, "record", 20.0),
    ]  # fmt: skip
    s.over()


def test_portions_are_asked_for_until_no_more_is_left() -> None:
    s = Stage()
    left = [60.0, 60.0, 15.0]
    s.billing.says |= {
        "authorise": {"max_usage": 135.0, "portion": 60.0},
        "open": lambda effect: {"max_usage": left.pop(0)},
        "update": lambda effect: {"max_usage": left.pop(0)},
    }
    s.call(talk=140)
    assert s.billing.asked[1:] == [
        (1.0, "open", 60.0), (56.0, "update", 60.0), (116.0, "update", 60.0), (136.0, "close", 135.0),
        (136.0, "record", 135.0),
    ]  # fmt: skip
    s.over()


def test_a_portion_that_is_not_granted_ends_the_call_when_the_last_is_used_up() -> None:
    for said in (REFUSED, DOWN, UNSENT, (30.0, {"max_usage": 60.0})):
        s = Stage()
        s.billing.says |= {"authorise": {"max_usage": None, "portion": 60.0}, "update": said}
        s.billing.says["open"] = {"max_usage": 60.0}
        s.call(talk=61)
        assert s.bob.calls[0].state == "ended"
        s.world.run(40)
        assert s.billing.kinds == ["authorise", "open", "update", "close", "record"]
        s.over()


def test_no_limit_goes_on_with_portions() -> None:
    s = Stage()
    s.billing.says |= {"authorise": {"max_usage": None, "portion": 60.0}}
    call = s.call(talk=200)
    assert s.billing.kinds.count("update") == 3 and call.state == "answered"
    call.hangup()
    s.over()


def test_a_disconnect_ends_the_call_and_flows_hear_of_it_first() -> None:
    s = Stage(f"- subscribe: charge_stop\n  do: [log: '${{event.reason}}']\n- {CHARGE}\n- relay: registered")
    s.call(talk=10)
    s.tell(lambda id: Disconnect("another", "not this one"))
    assert s.bob.calls[0].state == "answered"
    s.tell(lambda id: Disconnect(id, "INSUFFICIENT_CREDIT"))
    assert s.said == ["INSUFFICIENT_CREDIT"] and s.bob.calls[0].state == "ended"
    assert s.billing.kinds == ["authorise", "open", "close", "record"]
    s.over()


def test_a_flow_that_hangs_up_itself_closes_once() -> None:
    s = Stage(f"- subscribe: charge_stop\n  do: [hangup: {{code: 402, reason: gone}}]\n- {CHARGE}\n- relay: registered")
    s.call(talk=10)
    s.tell(lambda id: Disconnect(id, "x"))
    assert s.billing.kinds == ["authorise", "open", "close", "record"]
    s.over()


def test_low_balance_is_an_event_of_the_call() -> None:
    s = Stage(f"- subscribe: low_balance\n  do: [log: 'low after ${{event.usage}}']\n- {CHARGE}\n- relay: registered")
    call = s.call(talk=10)
    s.tell(LowBalance)
    assert s.said == ["low after 10"] and call.state == "answered"
    call.hangup()
    s.over()


def test_alter_moves_the_limit() -> None:
    s = Stage()
    s.billing.says["open"] = {"max_usage": 100.0}
    s.call(talk=10)
    s.tell(lambda id: Alter(id, 5.0))
    s.world.run(6)
    assert s.bob.calls[0].state == "ended" and s.billing.asked[-1][0] == 16.0
    s.over()


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (REFUSED, ["authorise", "open"]),
        (UNSENT, ["authorise", "open"]),
        (DOWN, ["authorise", "open", "close", "record"]),
        ({"max_usage": 0.0}, ["authorise", "open", "close", "record"]),
    ],
)
def test_a_session_that_cannot_be_opened_ends_the_call(said: Any, kinds: list[str]) -> None:
    s = Stage()
    s.billing.says["open"] = said
    s.call(talk=1)
    assert s.bob.calls[0].state == "ended"
    assert s.billing.kinds == kinds
    s.over()


def test_the_end_while_the_session_is_being_opened_waits_for_it() -> None:
    s = Stage()
    s.billing.says["open"] = (5.0, {"max_usage": 60.0})
    s.call(talk=2).hangup()
    s.world.run(2)
    assert s.billing.kinds == ["authorise", "open"]
    s.world.run(2)
    assert s.billing.asked[2:] == [(6.0, "close", 2.0), (6.0, "record", 2.0)]
    s.over()


def test_what_nobody_takes_is_sent_again_until_somebody_does() -> None:
    s = Stage()
    s.billing.says["close"] = UNSENT
    s.call(talk=10).hangup()
    s.world.run(100)
    times = [time for time, what, _ in s.billing.asked if what == "close"]
    assert [b - a for a, b in pairwise(times)] == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0]
    assert len(s.world.engine.host.works) == 1 and not s.world.engine.host.works.idle
    s.billing.says["close"] = {}
    s.world.run(100)
    assert s.billing.kinds.count("record") == 1
    assert {usage for _, what, usage in s.billing.asked if what == "close"} == {10.0}
    s.over()


def test_it_is_given_up_after_an_hour() -> None:
    s = Stage()
    s.billing.says["close"] = DOWN
    s.call(talk=10).hangup()
    s.world.run(4000)
    assert s.billing.kinds[-1] == "drop"
    assert s.world.engine.counters["charge.lost"] == 1
    s.over()


def test_a_record_that_nobody_takes_is_sent_again() -> None:
    s = Stage()
    s.billing.says["record"] = DOWN
    s.call(talk=10).hangup()
    s.world.run(4)
    s.billing.says["record"] = {}
    s.over()
    assert s.billing.kinds.count("close") == 1 and s.billing.kinds.count("record") == 4


def test_a_close_that_is_refused_is_no_reason_to_go_on() -> None:
    s = Stage()
    s.billing.says["close"] = StepError("charge.refused", "SESSION_NOT_FOUND")
    s.call(talk=10).hangup()
    s.over()
    assert s.billing.kinds == ["authorise", "open", "close", "record"]


def test_the_stop_of_the_node_ends_charged_calls() -> None:
    s = Stage()
    call = s.call(talk=10)
    engine = s.world.engine
    end_flows(engine.flows, list(engine.calls), engine.faults, s.world.now)
    s.world.run(1)
    assert (call.state, s.bob.calls[0].state) == ("ended", "ended")
    assert s.billing.kinds == ["authorise", "open", "close", "record"]
    s.over()


def test_a_fault_of_the_engine_closes_the_session() -> None:
    s = Stage()
    s.call(talk=10)
    (call,) = s.world.engine.calls
    s.world.engine.faults.end(call)
    s.world.run(1)
    assert s.billing.kinds == ["authorise", "open", "close", "record"]
    s.over()


def test_a_reload_changes_nothing_for_calls_that_are_up() -> None:
    s = Stage()
    s.billing.says["open"] = {"max_usage": 30.0}
    s.call(talk=10)
    s.world.engine.load(load_sources([Source("b.flow.yaml", "flowlang: 1\nflows: {}\n")])[0], s.world.site)
    s.world.run(30)
    assert s.billing.kinds == ["authorise", "open", "close", "record"]
    s.over()


def test_two_sessions_of_one_call() -> None:
    s = Stage(f"- {CHARGE}\n- charge: {{account: reseller}}\n- relay: registered")
    sessions = []
    s.billing.says["close"] = lambda effect: sessions.append((effect.charged.session, effect.charged.account)) or {}
    s.call(talk=10).hangup()
    s.over()
    (first, alice), (second, reseller) = sessions
    assert (alice, reseller) == ("alice", "reseller") and second == f"{first}-2"


# --- what the step says ----------------------------------------------------------------------------------------------

OUTCOMES = """\
- charge: {account: alice}
  on:
    granted: [log: 'granted ${charge.max_usage}']
    denied: [{log: 'denied ${charge.reason}'}, {reply: 402}]
    error: [{log: 'error ${charge.reason}'}, {reply: 503}]
"""


@pytest.mark.parametrize(
    ("said", "log", "status"),
    [
        ({"max_usage": 30.0}, "granted 30", 480),
        ({"max_usage": None}, "granted 86400", 480),
        ({"max_usage": 0.0}, "denied no usage left", 402),
        (REFUSED, "denied INSUFFICIENT_CREDIT", 402),
        (DOWN, "error no answer", 503),
        (StepError("flow.limit", "too many"), "error too many", 503),
    ],
)
def test_outcomes(said: Any, log: str, status: int) -> None:
    s = Stage(OUTCOMES)
    s.billing.says["authorise"] = said
    call = s.call()
    assert s.said == [log] and call.statuses[-1] == status
    s.over()


@pytest.mark.parametrize(("said", "type"), [(REFUSED, "charge.refused"), (DOWN, "charge.down")])
def test_an_outcome_without_steps_is_an_error(said: Any, type: str) -> None:
    s = Stage(f"- try: [{{{CHARGE}}}]\n  catch: [{{error: charge.*, do: [log: '${{error.type}}']}}]\n- reply: 404")
    s.billing.says["authorise"] = said
    s.call()
    assert s.said == [type]


# --- the table -------------------------------------------------------------------------------------------------------

INPUTS = ("answered", "ended", "granted", "refused", "down", "unsent", "due", "limit", "stop", "alter", "warn", "again",
          "tired")  # fmt: skip


def test_every_state_can_come_to_an_end() -> None:
    assert {name for moves in SESSION.values() for name in moves} == set(INPUTS)
    assert {step.state for moves in SESSION.values() for step in moves.values()} <= set(SESSION)
    for state in SESSION:
        reached, new = {state}, {state}
        while new:
            new = {step.state for name in new for step in SESSION[name].values()} - reached
            reached |= new
        assert "done" in reached, state
    for state in ("ringing", "opening", "refused", "talking", "updating"):
        assert "ended" in SESSION[state], f"{state}: the end of the call must lead on"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_what_was_opened_is_closed_once(seed: int) -> None:
    """Orders at random: answers of all kinds, late ones too; disconnects, hang-ups, a stop."""
    rng = random.Random(seed)
    answers_known = (REFUSED, DOWN, UNSENT, {}, {"max_usage": 9.0})
    s = Stage()
    s.billing.says = {
        "authorise": {"max_usage": rng.choice((None, 40.0)), "portion": rng.choice((None, 10.0))},
        **{
            what: lambda effect: (rng.choice((0.0, 0.5, 3.0)), rng.choice(answers_known))
            for what in ("open", "update", "close", "record")
        },
    }  # fmt: skip
    opened: list[Report] = []
    say = s.billing.says["open"]
    answers: list[Any] = []

    def open_it(effect: Report) -> Any:
        opened.append(effect)
        said = say(effect)
        answers.append(said[1])
        return said

    s.billing.says["open"] = open_it
    call = s.call()
    acts: list[Callable[[], object]] = [
        lambda: s.bob.calls[0].answer() if s.bob.calls[0].state == "ringing" else None,
        lambda: call.hangup() if call.state != "ended" else None,
        lambda: s.tell(lambda id: Disconnect(id, "x")) if len(s.world.engine.host.works) else None,
        lambda: s.tell(lambda id: Alter(id, rng.choice((None, 5.0)))) if len(s.world.engine.host.works) else None,
    ]
    for _ in range(6):
        rng.choice(acts[: rng.choice((1, 4))])()
        s.world.run(rng.choice((0.0, 0.7, 4.0, 20.0)))
    if call.state != "ended":
        call.hangup()
    s.world.run(4000)
    taken = s.billing.kinds.count("record")
    assert len(opened) <= 1
    if opened:
        may_be_open = answers[0] not in (REFUSED, UNSENT)
        assert ("close" in s.billing.kinds) == may_be_open and bool(taken) == may_be_open
    s.over()


def test_the_session_shows_its_state() -> None:
    charged = Charged("1", "1", "c", "alice", "301", "", "example.com", "prepaid", 0.0)
    assert "ringing" in repr(ChargedCall(charged, 30.0))


def test_a_bug_in_the_work_of_a_call_ends_that_call_only() -> None:
    class Buggy(CallWork):
        def bound(self, life: CallLife) -> None:
            life.after(5.0, self.due)

        def due(self, _: object) -> None:
            raise RuntimeError("a bug of a package")

        def answered(self, life: CallLife) -> None: ...

        def ended(self, life: CallLife) -> None:
            life.let_go()

        def told(self, life: CallLife, message: Any) -> None: ...

    s = Stage("- relay: registered")
    struck: list[Any] = []
    s.world.engine.faults.told = struck.append
    s.call(talk=1)
    (call,) = s.world.engine.calls
    s.world.engine.host.works.bind(call, Buggy())
    s.world.run(6)
    assert len(struck) == 1 and s.bob.calls[0].state == "ended"
    s.over()
