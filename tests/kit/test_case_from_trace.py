"""A test out of a call: it is written from the trace alone, and comes true when it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.run_facts import Decided, EventTaken, KeyIgnored, RunBegan, RunEnded, StepFailed
from orchestrator.flow.run.step_facts import (
    CollectBegan,
    CollectEnded,
    ContactsSaved,
    HttpAnswered,
    HttpAsked,
    MediaBegan,
    PlayBegan,
    RecordBegan,
    RecordEnded,
    RelayBegan,
    Replied,
    Stepped,
)
from orchestrator.flow.run.trace import Trace, facts, summary
from orchestrator.history import BY_OPERATOR, RequestSent, ResponseReceived, ResponseSent, RunFact
from orchestrator.testing.case_files import Case, find_cases, load_cases
from orchestrator.testing.case_from_trace import case_from_trace
from orchestrator.testing.case_text import quoted
from orchestrator.testing.facts import PushRule
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.world import WALL

ROOT = Path(__file__).parents[2]
SHIPPED = find_cases([ROOT / "tests" / "flows"])

UNTOLD = ("was taken by other runs", "not in the trace")
"""What a test says that cannot come true as it is written."""

OF_FREESWITCH = {
    "fax_detect: a fax that breaks off says why": "rxfax at 2s may have ended otherwise",
    "fax_detect: a fax is sent to the machine that answers": "fs at 35s came from FreeSWITCH",
    "fax_detect: a fax of which nothing is heard": "txfax at 3.02s may have ended otherwise",
}
"""Runs that depend on what only FreeSWITCH knows, and how the test says so."""


def as_json(trace: Trace, wall: float = WALL, running: bool = False) -> dict[str, Any]:
    """What the admin interface says about a run, through JSON."""
    told = {**summary(trace, running, wall), "dropped": trace.dropped, "records": list(facts(trace))}
    return dict(json.loads(json.dumps(told)))


def shipped() -> Iterator[Any]:
    for file in SHIPPED:
        for case in load_cases(file):
            yield pytest.param(case, id=f"{file.stem.split('.')[0]}: {case.name}")


def lines(trace: Trace) -> list[tuple[float, int, str]]:
    """Time since the beginning, line of the file and text of each line, whatever the Call-ID."""
    begin = trace.records[0].time
    return [
        (round(line.time - begin, 2), line.line, line.text.replace(trace.call or "-", "CALL")) for line in trace.records
    ]


@pytest.mark.parametrize("case", list(shipped()))
def test_each_run_of_the_shipped_tests_becomes_a_test_with_the_same_trace(
    case: Case, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wall = case.wall or WALL
    story = case.run().story
    begun = {trace.run: trace for trace in story.traces()}
    assert begun
    for trace in begun.values():
        written = tmp_path / "one.test.yaml"
        written.write_text(case_from_trace(as_json(trace, wall), tmp_path))
        said = OF_FREESWITCH.get(request.node.callspec.id)
        if said is not None:
            assert said in written.read_text()
            continue
        if any(said in written.read_text() for said in UNTOLD):
            continue  # it cannot come true alone, and says so
        (made,) = load_cases(written)
        assert made.wall == pytest.approx(wall + trace.records[0].time)
        outcome = made.run()
        assert outcome.passed, [*map(str, outcome.failures), written.read_text()]
        (again,) = [run for run in outcome.story.traces() if run.flow == trace.flow]
        assert lines(again) == lines(trace), written.read_text()


def test_a_key_and_a_recording_stand_where_the_run_had_them() -> None:
    lines = [START, (1.0, RecordBegan("caller", "/tmp/a.wav", silence=3.0)), (9.0, RecordEnded(8.0))]
    lines += [
        (9.0, KeyIgnored("7", "caller", "no step takes it now")),
        (10.0, PlayBegan("a.wav", "caller")),
        (12.0, Stepped("stop")),
    ]
    trace = told(lines)
    trace["records"][5]["line"] = 9
    test = written(trace)
    assert test["when"][1:] == [
        {"at": "1s", "speaks": {"leg": "caller", "for": "5s"}},
        {"at": "9s", "dtmf": {"leg": "caller", "digit": 7}},
    ]
    assert test["given"]["sounds"] == {"a.wav": "2s"}


def test_a_request_is_sent_again() -> None:
    lines = [(0.0, RunBegan("main", "bob@example.org", "bob@example.org", "REGISTER")), (0.0, ContactsSaved())]
    test = written(told(lines, {0: {"request.contact": "sip:bob@10.0.0.5;x=1"}}))
    assert test["when"] == [{"at": "0s", "register": {"aor": "bob@example.org", "contact": "bob@10.0.0.5;x=1"}}]
    assert test["expect"] == [{"register": {"code": 200, "at": "0s"}}]
    lines = [(0.0, RunBegan("main", "bob@example.org", "7@example.org", "MESSAGE")), (0.0, Replied(404, "Nobody"))]
    test = written(told(lines))
    assert test["when"][0]["send"] == {"method": "message", "from": "bob@example.org", "to": "7@example.org"}
    assert test["expect"] == [{"reply": {"code": 404, "reason": "Nobody", "at": "0s"}}]


def test_a_run_that_goes_on_for_long_is_waited_for() -> None:
    test = written(told([START, (100.0, Stepped("sleep", "200s")), (300.0, Stepped("stop"))]))
    assert test["when"][-1] == {"at": "300s"}


def told(
    records: Sequence[tuple[float, RunFact]], read: dict[int, dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """A trace as JSON from (time, fact)."""
    lines = [
        {
            "time": 100.0 + time,
            "text": str(fact),
            "line": 0,
            "step": "",
            "read": (read or {}).get(number, {}),
            "fact": fact.facts(),
        }
        for number, (time, fact) in enumerate(records)
    ]
    facts = {"run": "main#1", "flow": "main", "file": "nowhere.flow.yaml", "hash": "abc", "call": "c1", "error": ""}
    return {**facts, "about": str(records[0][1]), "running": False, "dropped": 0, "records": lines, **more}


START: tuple[float, RunFact] = (0.0, RunBegan("main", "alice@example.org", "*8@example.org"))


def written(trace: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(case_from_trace(trace, Path()))["tests"][0])


def test_an_event_of_the_flow_is_raised_again() -> None:
    taken = EventTaken("pickup", "handler", 1)
    test = written(told([START, (2.5, taken)], {1: {"event.picker": "o'hara", "event.group": "sales"}}))
    assert test["when"] == [
        {"at": "0s", "invite": {"from": "alice@example.org", "to": "*8@example.org"}},
        {"at": "2.5s", "raise": {"event": "pickup", "data": {"picker": "o'hara", "group": "sales"}}},
    ]
    assert test["given"]["domains"] == ["example.org"]


def test_what_only_freeswitch_can_cause_is_a_comment() -> None:
    text = case_from_trace(
        told([START, (4.0, EventTaken("execute_done", "first_of"))], {1: {"event.app": "rxfax"}}), Path()
    )
    assert "# execute_done at 4s came from FreeSWITCH" in text
    assert len(yaml.safe_load(text)["tests"][0]["when"]) == 1


@pytest.mark.parametrize(
    ("event", "read", "act"),
    [
        ("beep", {"event.leg": "callee"}, {"at": "4s", "tone": {"leg": "callee", "tone": "beep"}}),
        (
            "fax_tone",
            {"event.leg": "caller", "event.tone": "cng"},
            {"at": "4s", "tone": {"leg": "caller", "tone": "cng"}},
        ),
        (
            "decision",
            {"event.leg": "callee", "event.verdict": "fax", "event.ms": 500},
            {"at": "4s", "tone": {"leg": "callee", "tone": "ced"}},
        ),
        (
            "decision",
            {"event.leg": "callee", "event.verdict": "human", "event.ms": 2000},
            {"at": "2.1s", "speaks": {"leg": "callee", "for": "1.1s"}},
        ),
        (
            "decision",
            {"event.leg": "callee", "event.verdict": "human", "event.ms": 500},
            {"at": "4s", "dtmf": {"leg": "callee", "digit": "1"}},
        ),
    ],
)
def test_what_freeswitch_heard_is_heard_again(event: str, read: dict[str, Any], act: dict[str, Any]) -> None:
    test = written(told([START, (4.0, EventTaken(event, "wait"))], {1: read}))
    assert as_text(test["when"][1]) == act


def as_text(act: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {name: str(value) for name, value in item.items()} if isinstance(item, dict) else item
        for key, item in act.items()
    }


def test_collected_keys_are_those_a_condition_looked_at() -> None:
    lines = [START, (1.0, CollectBegan(4, "callee", 5.0)), (3.0, CollectEnded(2))]
    test = written(told([*lines, (3.0, Decided("pin == '47'", True))], {3: {"pin": "47"}}))
    assert [act["dtmf"]["digit"] for act in test["when"][1:]] == [4, 7]
    text = case_from_trace(told(lines), Path())
    assert "# 2 keys of the callee at 2.98s are not in the trace" in text


def test_freeswitch_is_no_phone_of_the_test() -> None:
    lines = [START, (0.0, MediaBegan("fs1", True)), (0.0, RequestSent("INVITE", "sip:park@10.0.0.9:5080"))]
    lines += [
        (0.1, ResponseReceived(200, "sip:park@10.0.0.9:5080")),
        (5.0, RequestSent("BYE", "caller")),
        (5.0, RequestSent("BYE", "callee")),
    ]
    test = written(told(lines))
    assert test["expect"] == [{"reply": 200}, {"sent": {"BYE": "*"}}]
    assert "registered" not in test["given"] and len(test["when"]) == 1


def test_a_branch_that_goes_to_its_next_hop_is_expected_once() -> None:
    bob = "sip:bob@10.0.0.5"
    records = [START, (0.0, RelayBegan("registered")), (0.0, RequestSent("INVITE", bob))]
    records += [(0.1, RequestSent("INVITE", bob)), (1.0, ResponseReceived(486, bob))]
    records += [(1.0, RelayBegan("registered")), (1.0, RequestSent("INVITE", bob)), (2.0, ResponseReceived(200, bob))]
    test = written(told(records))
    assert [act["sent"]["INVITE"] for act in test["expect"] if "sent" in act] == [bob, bob]


def test_an_operator_who_hung_up_is_a_comment() -> None:
    text = case_from_trace(told([START, (8.0, RunEnded("engine", BY_OPERATOR, of_call=True))]), Path())
    assert "# an operator hung up at 8s: nothing in a test does that" in text


def test_one_event_that_two_handlers_took_happens_once() -> None:
    read = {"event.leg": "callee", "event.digit": "#"}
    test = written(
        told([START, (1.0, EventTaken("dtmf", "handler", 1)), (1.0, EventTaken("dtmf", "wait"))], {1: read, 2: read})
    )
    assert test["when"][1:] == [{"at": "1s", "dtmf": {"leg": "callee", "digit": "#"}}]


def test_a_branch_we_cancelled_has_said_nothing_of_its_own() -> None:
    records = [START, (0.0, RelayBegan("registered")), (0.0, RequestSent("INVITE", "sip:bob@10.0.0.5;x=1"))]
    records += [
        (0.1, ResponseReceived(180, "sip:bob@10.0.0.5;x=1")),
        (3.0, RequestSent("CANCEL", "sip:bob@10.0.0.5;x=1")),
    ]
    records += [(3.0, ResponseReceived(487, "sip:bob@10.0.0.5;x=1")), (3.0, RunEnded("caller", "cancelled"))]
    test = written(told(records))
    assert test["given"]["registered"] == {"*8@example.org": ["bob@10.0.0.5;x=1"]}
    assert [list(act)[1] for act in test["when"]] == ["invite", "hangup"]
    assert {"reply": 487} in test["expect"]


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ([HttpAsked("POST", True)], {"url": "*", "status": 200}),
        ([HttpAsked("POST"), HttpAnswered(202)], {"url": "*", "status": 202}),
        ([HttpAsked("POST"), StepFailed("http.timeout", "too slow", "on_error")], {"url": "*", "error": "timeout"}),
    ],
)
def test_web_services_answer_as_they_did(facts: list[RunFact], rule: dict[str, Any]) -> None:
    assert written(told([START, *((1.0, fact) for fact in facts)]))["given"]["http"] == [rule]


def test_services_that_answered_differently_are_told_of() -> None:
    text = case_from_trace(told([START, (1.0, HttpAnswered(200)), (2.0, HttpAnswered(503))]), Path())
    assert "# they answered differently" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"error": "http.status"}, "allow: [http.status]"),
        ({"running": True}, "the trace is not whole"),
        ({"dropped": 3}, "the trace is not whole"),
        ({}, "the flow file was not here"),
    ],
)
def test_what_the_reader_has_to_know_stands_on_top(more: dict[str, Any], said: str) -> None:
    lines = case_from_trace(told([START], **more), Path()).splitlines()
    assert any(said in line for line in lines if line.startswith("#"))


def test_paths_are_relative_to_the_test(tmp_path: Path) -> None:
    file = ROOT / "docs" / "flows" / "push_by_hand.flow.yaml"
    text = case_from_trace(told([START], file=str(file)), ROOT / "tests" / "flows")
    test = yaml.safe_load(text)
    assert test["flows"] == "../../docs/flows/push_by_hand.flow.yaml"
    program: Program = load_program([file])[0]
    assert set(test["tests"][0]["given"]["secrets"]) == set(program.resources.secrets)


@pytest.mark.parametrize(
    "value", ["bob", "*8", "#", "it's", "a: b", "x\ny", "\x00", "0049", "", " ", "[::1]", "{a}", "ü", "yes", "- x"]
)
def test_every_text_comes_back_as_it_was(value: str) -> None:
    read = yaml.load(f"a: {quoted(value)}", Loader=yaml.BaseLoader)
    assert read == {"a": value}


def test_schedules_see_the_time_of_day_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text("flowlang: 1\nflows: {a: {on: invite, do: [reply: 404]}}\n")
    path = tmp_path / "a.test.yaml"
    started = 1_800_000_000.25  # 2027-01-15 08:00:00.25 UTC
    path.write_text(
        case_from_trace(
            told([START, (0.0, ResponseSent(404, "Not Found"))], started=started, file=str(tmp_path / "a.flow.yaml")),
            tmp_path,
        )
    )
    assert "time: '2027-01-15T08:00:00.250000+00:00'" in path.read_text()
    assert load_cases(path)[0].wall == started


PUSHES = """\
flowlang: 1
events: {ding: {to: aor}}
flows:
  tell:
    on: ding
    do:
      - push: {to: '${event.to}', data: {x: y}}
        as: pushed
      - log: '${pushed.sent} ${pushed.failed} ${pushed.dead}'
  ring:
    on: invite
    do:
      - relay: {to: registered, wake: 20s}
"""
SLEEPERS = [
    f"bob@10.0.0.{n}:5062;pn-provider=apns;pn-param=T.x.voip;pn-prid={name}" for n, name in enumerate("abcd", 5)
]


def told_again(story: Scenario, folder: Path) -> None:
    """The one run of a story becomes a test with the same trace."""
    (trace,) = story.traces()
    written = folder / "one.test.yaml"
    written.write_text(case_from_trace(as_json(trace), folder))
    (made,) = load_cases(written)
    outcome = made.run()
    assert outcome.passed, [*map(str, outcome.failures), written.read_text()]
    (again,) = outcome.story.traces()
    assert lines(again) == lines(trace), written.read_text()


@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_a_run_that_pushes(delay: float, tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text(PUSHES)
    rules = [PushRule(token="a", outcome="dead", delay=delay), PushRule(token="b", outcome="failed")]
    story = Scenario(load_program([tmp_path])[0], registered={"bob@example.com": SLEEPERS}, push=rules)
    story.at(0.0, lambda: story.raise_event("ding", {"to": "bob@example.com"}))
    story.finish()
    told_again(story, tmp_path)


def test_a_call_that_wakes_phones(tmp_path: Path) -> None:
    """One comes back elsewhere and answers, one as it was, one is gone, one sleeps on and is told."""
    (tmp_path / "a.flow.yaml").write_text(PUSHES)
    rules = [
        PushRule(token="a", wakes=2.0, contact="bob@10.0.0.20:5070"),
        PushRule(token="b", wakes=3.0),
        PushRule(token="c", outcome="dead", reason="Unregistered", delay=0.5),
    ]
    story = Scenario(load_program([tmp_path])[0], registered={"bob@example.com": SLEEPERS}, push=rules)
    story.at(0.0, lambda: story.invite("alice@example.com", "bob@example.com"))
    story.at(4.0, lambda: story.respond("bob@10.0.0.20*", 200))
    story.at(9.0, story.hangup)
    story.finish()
    told_again(story, tmp_path)


def test_a_phone_that_registers_while_others_are_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text(PUSHES)
    story = Scenario(load_program([tmp_path])[0], registered={"bob@example.com": SLEEPERS[:1]})
    story.at(0.0, lambda: story.invite("alice@example.com", "bob@example.com"))
    story.at(3.0, lambda: story.register("bob@example.com", "bob@10.0.0.30"))
    story.at(5.0, lambda: story.respond("bob@10.0.0.30", 486))
    story.finish()
    told_again(story, tmp_path)
