"""Effects of other packages: done in the turn or in a pool of their own, with the traits that they declare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.outside import typed_event
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.program import Place, Step
from orchestrator.flow.language.registry import ACTIONS, Action, Actions, Field, Kind
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.task import Steps, Task
from orchestrator.flow.run.traits import Effect, PoolEffect, Turn, TurnEffect
from orchestrator.flow.run.waits import waiting_steps
from orchestrator.flow.tools.graph import WAIT, graph_of
from orchestrator.testing.case_files import load_cases
from orchestrator.testing.expectations import Expectation, judge
from orchestrator.testing.facts import EffectRule
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.world import World

SEEN = EventSpec("seen", "Somebody was looked up.", "global", {"number": Attribute("number", "digits")})


@dataclass(slots=True)
class LookUp(PoolEffect):
    name = "lookup_name"
    timeout = 3.0
    number: str

    def perform(self) -> str:
        return f"name of {self.number}"


@dataclass(slots=True)
class Tally(TurnEffect):
    number: str

    def perform(self, turn: Turn) -> int:
        if self.number == "bad":
            raise StepError("tally.bad", "not this one")
        if self.number == "exit":
            raise SystemExit(1)
        if self.number == "bug":
            raise KeyError("a bug of the package")
        turn.count("tally")
        return turn.publish("seen", {"number": self.number})


@dataclass(slots=True)
class OnCall(TurnEffect):
    needs_call = True

    def perform(self, turn: Turn) -> str:
        return turn.call


@dataclass(slots=True)
class Nobodys(Effect):
    """Neither of the two, and nobody was added who performs it."""


def actions_with(made: dict[str, type[Any]]) -> Actions:
    actions = Actions()
    for known in ACTIONS:
        actions.add(known)
    for name, effect in made.items():
        number = (Field("number", Kind.TEXT, "Whom.", required=True),) if effect is not OnCall else ()
        action = Action(name, "Of a package.", fields=number, result="anything", waits=True, in_on_end=True)
        if number:
            action.short = "number"

        @action.performs
        def handler(task: Task, step: Step, effect: type[Any] = effect) -> Steps:
            value = task.value(step, "number") if "number" in step.args else None
            return (yield effect(value) if value is not None and effect not in (Nobodys, dict) else effect())

        actions.add(action)
    return actions


def world_of(steps: str) -> World:
    made = {"find": LookUp, "tally": Tally, "on_call": OnCall, "nobody": Nobodys, "strange": dict}
    text = "flowlang: 1\nflows:\n  f:\n    on: invite\n    do:\n" + steps
    program, _ = load_sources([Source("f.flow.yaml", text)], None, actions_with(made), (*BUILTIN_EVENTS, SEEN))
    return World(program)


def run(steps: str, answer: Any = None) -> tuple[World, list[str]]:
    world = world_of(steps)
    texts: list[str] = []
    world.engine.host.on_log = lambda run, effect: texts.append(effect.text)

    def answered(job: Job) -> Any:
        effect: Any = job.effect
        return effect.perform() if answer is None else answer

    world.on_job = answered
    world.peer("alice", "10.0.0.2").ask("INVITE", "sip:301@example.com")
    world.run(1)
    return world, texts


def test_an_effect_of_a_pool_is_a_job_whose_result_the_step_gets() -> None:
    world, texts = run("      - find: '${call.to.user}'\n        as: who\n      - log: 'it is ${string(who)}'\n")
    assert texts == ["it is name of 301"]
    assert [type(job.effect) for job in world.jobs] == [LookUp]


def test_its_errors_are_those_of_the_step() -> None:
    steps = "      - find: '1'\n        on_error: [log: '${error.type}']\n"
    assert run(steps, StepError("lookup_name.timeout", "late"))[1] == ["lookup_name.timeout"]


def test_it_is_shown_while_it_waits() -> None:
    world, _ = run("      - find: '1'\n", World.LATER)
    (waiting,) = [w for run in world.engine.flows.runs.values() for w in waiting_steps(run, world.now, frozenset())]
    assert waiting["waits_for"] == "the answer to lookup_name"
    assert waiting["expires_in"] == pytest.approx(2.0, abs=0.1)


def test_the_graph_draws_a_waiting_action_as_one() -> None:
    (flow,) = world_of("      - find: '1'\n").engine.flows.program.flows
    assert any(node.kind == WAIT and "find" in node.text for node in graph_of(flow).nodes)


def test_an_effect_of_the_turn_uses_the_engine() -> None:
    steps = """      - subscribe: seen
        do: [log: 'seen ${event.number}']
      - tally: '302'
        as: took
      - log: 'took ${string(took)}'
"""
    world, texts = run(steps)
    assert sorted(texts) == ["seen 302", "took 1"]
    assert world.engine.counters["tally"] == 1


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("tally: bad", "tally.bad"),
        ("tally: bug", "flow.fault"),
        ("tally: exit", "flow.fault"),
        ("nobody: x", "flow.fault"),
        ("strange: x", "flow.fault"),
    ],
)
def test_what_goes_wrong_in_a_package_costs_the_step_only(step: str, error: str) -> None:
    world, texts = run(f"      - {step}\n        on_error: [log: '${{error.type}}']\n      - log: on\n")
    assert texts == [error, "on"]
    assert world.engine.faults.count == 0


def test_an_effect_on_the_call_is_refused_when_it_has_ended() -> None:
    steps = """      - reply: 486
    on_end:
      - on_call: {}
        on_error: [log: '${error.type}']
      - tally: '1'
      - log: done
"""
    assert run(steps)[1] == ["call.state", "done"]


def test_an_action_that_hears_an_event_of_freeswitch_has_it_subscribed() -> None:
    program, _ = load_sources(
        [Source("f.flow.yaml", "flowlang: 1\nflows:\n  f:\n    on: invite\n    do:\n      - catch_event: dtmf\n")],
        None,
        _with_listener(),
        BUILTIN_EVENTS,
    )
    assert "dtmf" in usage_of(program).events


def _with_listener() -> Actions:
    actions = Actions()
    fields = (Field("event", Kind.EVENT, "Which.", required=True),)
    actions.add(Action("catch_event", "Listen.", short="event", fields=fields, hears=True))
    return actions


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"number": 301}, "int is not of type digits"),
        ({"number": b"301"}, "bytes is not of type digits"),
        ({}, "needs attribute 'number'"),
        ({"number": "1", "extra": 1}, "has no attribute 'extra'"),
        ({"number": "1", "level": "high"}, "'high' is none of low, mid"),
        ({"number": "1", "count": True}, "bool is not of type number"),
        ({"number": "1", "count": float("nan")}, "nan is not a number of the language"),
        ({"number": "1", "lasts": -1}, "a duration is not negative"),
        ({"number": "1", "data": {1: 2}}, "dict is not a value of the language"),
        ({"number": "1", "data": {"a": [object()]}}, "object is not a value of the language"),
        ({"number": "1", "who": "nobody"}, "is not an address of the form user@domain"),
    ],
)
def test_events_of_packages_are_checked(attributes: dict[str, Any], complaint: str) -> None:
    optional = {
        "level": Attribute("level", "text", values=("low", "mid"), optional=True),
        "count": Attribute("count", "number", optional=True),
        "lasts": Attribute("lasts", "duration", optional=True),
        "data": Attribute("data", "map", optional=True),
        "who": Attribute("who", "aor", optional=True),
    }
    spec = EventSpec("seen", "", "global", {"number": Attribute("number", "digits"), **optional})
    with pytest.raises(ValueError, match=complaint):
        typed_event(spec, attributes)


def test_values_of_an_event_are_copied() -> None:
    spec = EventSpec("seen", "", "global", {"data": Attribute("data", "list")})
    mine = [1, [2]]
    event = typed_event(spec, {"data": mine})
    mine.append(3)
    assert event.attributes["data"] == [1, [2]]


def test_a_list_inside_itself_is_refused() -> None:
    spec = EventSpec("seen", "", "global", {"data": Attribute("data", "list")})
    mine: list[Any] = []
    mine.append(mine)
    with pytest.raises(ValueError, match="nested too deep"):
        typed_event(spec, {"data": mine})


# --- in stories -------------------------------------------------------------------------------------------------------


def story_of(steps: str, *rules: EffectRule) -> Scenario:
    program = world_of(steps).engine.flows.program
    story = Scenario(program, effects=rules)
    story.at(0, lambda: story.invite("alice@example.com", "301@example.com"))
    story.finish()
    return story


FIND = """      - find: '${call.to.user}'
        as: who
        on_error: [reply: 480, log: '${error.type}', stop]
      - log: '${string(who)}'
      - reply: 486
"""


@pytest.mark.parametrize(
    ("rule", "logged"),
    [
        (EffectRule("lookup_name", {"number": "30*"}, result="Bob"), "Bob"),
        (EffectRule("lookup_*", error="lookup_name.denied"), "lookup_name.denied"),
        (EffectRule("lookup_name", delay=2.0, result="slow"), "slow"),
        (EffectRule("lookup_name", delay=4.0, result="slow"), "lookup_name.timeout"),
    ],
)
def test_a_story_says_what_becomes_of_an_effect(rule: EffectRule, logged: str) -> None:
    story = story_of(FIND, rule)
    assert [text for _, _, text in story.logs] == [logged]
    place = Place("t", 1, 1)
    wanted = {"what": "lookup_name", "with": {"number": "301"}, "at": 0.0}
    assert judge(story, [Expectation("effect", wanted, place)]) == []
    assert judge(story, [Expectation("effect", wanted, place, never=True)]) != []
    assert judge(story, [Expectation("effect", {**wanted, "with": {"number": "302"}}, place)]) != []


def test_an_effect_that_no_rule_fits_is_a_failure_of_the_story() -> None:
    story = story_of(FIND, EffectRule("lookup_name", {"number": "4*"}))
    assert [text for _, _, text in story.logs] == ["lookup_name.failed"]
    assert "no effects: rule fits lookup_name number='301'" in str(judge(story, []))


def test_a_test_file_gives_and_expects_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ACTIONS, "_by_name", actions_with({"find": LookUp})._by_name)
    (tmp_path / "f.flow.yaml").write_text("flowlang: 1\nflows:\n  f:\n    on: invite\n    do:\n" + FIND)
    (tmp_path / "f.test.yaml").write_text("""flowlang_test: 1
flows: f.flow.yaml
tests:
  - name: found
    given:
      effects:
        - {name: lookup_name, with: {number: '30?'}, result: Bob}
    when: [invite: {from: alice@example.com, to: 301@example.com}]
    expect:
      - effect: {name: lookup_name, with: {number: '301'}, at: 0s}
      - effect: lookup_name
      - log: Bob
""")
    (case,) = load_cases(tmp_path / "f.test.yaml")
    (failure,) = case.run().failures  # it was asked for once
    assert "expected effect what: lookup_name (it came earlier" in str(failure)


def test_events_of_a_package_that_start_each_other_in_a_circle_end() -> None:
    """The bound of `raise` holds for what a package raises in the turn, too."""
    text = """flowlang: 1
flows:
  f:
    on: {event: seen}
    do:
      - sleep: 1ms
      - tally: '1'
"""
    program, _ = load_sources(
        [Source("f.flow.yaml", text)], None, actions_with({"tally": Tally}), (*BUILTIN_EVENTS, SEEN)
    )
    world = World(program)
    world.engine.flows.launch()
    world.engine.bus.publish(typed_event(SEEN, {"number": "1"}))
    world.run(10)
    assert world.engine.flows.stats.circles == 1
    assert world.leftovers()["runs"] == 0
