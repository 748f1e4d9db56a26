"""Push services and phones that sleep, in tests of flows: what `given: push` gives, and what `sent: {push}` sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.flow.loader import Source, load_program, load_sources
from orchestrator.flow.run.trace import render
from orchestrator.flow.tools.explain import waiting
from orchestrator.sip.push import Pushed
from orchestrator.testing.case_files import Case, load_cases
from orchestrator.testing.facts import PushRule
from orchestrator.testing.scenario import Scenario

NOTHING, _ = load_sources([Source("a.flow.yaml", "flowlang: 1\n")])
WAKES, _ = load_sources(
    [Source("a.flow.yaml", "flowlang: 1\nflows: {main: {on: invite, do: [relay: {to: registered, wake: 20s}]}}\n")]
)
TOKEN = "7d3f0000000000000000000000c2a1"
PUSH = f"pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid={TOKEN}"
PHONE = f"bob@10.0.0.7:5062;{PUSH}"


def story(*rules: PushRule, contact: str = PHONE) -> Scenario:
    return Scenario(NOTHING, registered={"bob@example.com": [contact]}, push=rules)


def push(told: Scenario, results: list[Pushed] | None = None, kind: str = "call") -> None:
    """Have all phones of bob's pushed to."""
    engine = told.world.engine
    for binding in engine.registrations.bindings_of("bob@example.com"):
        done = None if results is None else results.append
        assert engine.pusher.send(binding, kind, done, ttl=20.0, data={"from": "alice@example.com"})  # type: ignore[arg-type]


def test_a_phone_given_with_a_push_address_sleeps_until_it_registers() -> None:
    told = story()
    engine = told.world.engine
    [before] = engine.registrations.bindings_of("bob@example.com")
    told.register("bob@example.com", PHONE)
    told.world.run()
    [after] = engine.registrations.bindings_of("bob@example.com")
    assert (engine.pusher.sleeps(before), engine.pusher.sleeps(after)) == (True, False)
    assert before.expires_at > told.world.engine.wall + 3000


@pytest.mark.parametrize("parameters", ["", ";pn-provider=apns"])
def test_others_never_sleep(parameters: str) -> None:
    told = story(contact=f"bob@10.0.0.7:5062{parameters}")
    [binding] = told.world.engine.registrations.bindings_of("bob@example.com")
    assert not told.world.engine.pusher.sleeps(binding)


def test_a_service_that_a_registered_phone_names_is_there() -> None:
    told = story(contact="bob@10.0.0.7:5062;pn-provider=acme;pn-prid=x")
    [binding] = told.world.engine.registrations.bindings_of("bob@example.com")
    assert told.world.engine.pusher.sleeps(binding)


def test_without_a_rule_a_push_is_sent_and_nobody_wakes_up() -> None:
    told, results = story(), list[Pushed]()
    told.at(1.0, lambda: push(told, results))
    told.finish()
    [seen] = [fact for fact in told.facts if fact.kind == "push"]
    assert (seen.time, seen.what, seen.about, seen.data.address.token) == (1.0, "call", "bob@example.com", TOKEN)
    assert results == [Pushed("sent")] and not [fact for fact in told.facts if fact.kind == "register"]


def test_the_first_rule_that_fits_counts() -> None:
    rules = (
        PushRule(to="carol@*", outcome="dead"),
        PushRule(service="fcm", outcome="dead"),
        PushRule(kind="message", outcome="dead", reason="Unregistered"),
        PushRule(outcome="failed", reason="429 TooManyRequests", delay=2.0),
        PushRule(outcome="dead"),
    )
    told, results = story(*rules), list[Pushed]()
    told.at(1.0, lambda: push(told, results))
    told.run_until(2.9)
    assert results == []
    told.run_until(3.1)
    assert results == [Pushed("failed", "429 TooManyRequests")]
    push(told, results, "message")
    told.run_until(3.2)
    assert results[1:] == [Pushed("dead", "Unregistered")]
    assert told.world.engine.registrations.bindings_of("bob@example.com") == ()


def test_an_answer_later_than_the_ttl_is_a_failure_at_the_ttl() -> None:
    told, results = story(PushRule(delay=30.0)), list[Pushed]()
    push(told, results)
    told.run_until(20.1)
    assert [pushed.outcome for pushed in results] == ["failed"]


@pytest.mark.parametrize(
    ("contact", "comes_from"),
    [
        ("", f"sip:{PHONE}"),
        ("bob@10.0.0.9:5070", f"sip:bob@10.0.0.9:5070;{PUSH}"),
        ("bob@10.0.0.9;pn-provider=fcm;pn-prid=y", "sip:bob@10.0.0.9:5060;pn-provider=fcm;pn-prid=y"),
    ],
)
def test_a_phone_wakes_up_and_registers(contact: str, comes_from: str) -> None:
    told = story(PushRule(delay=0.5, wakes=2.0, contact=contact))
    told.at(1.0, lambda: push(told))
    told.run_until(3.6)
    found = told.world.engine.registrations.bindings_of("bob@example.com")
    awake = [binding.uri for binding in found if not told.world.engine.pusher.sleeps(binding)]
    assert awake == [comes_from]
    [registered] = [fact for fact in told.facts if fact.kind == "register"]
    assert registered.time == 3.5


@pytest.mark.parametrize("wakes", [True, False])
def test_a_phone_that_comes_back_at_another_address_is_the_one_that_was_pushed(wakes: bool) -> None:
    contact = f"bob@10.0.0.9:5062;{PUSH}"
    told = Scenario(
        WAKES,
        registered={"bob@example.com": [PHONE]},
        push=[PushRule(wakes=2.0, contact="bob@10.0.0.9:5062")] if wakes else [],
    )
    told.at(0.0, lambda: told.invite("alice@example.com", "bob@example.com"))
    if not wakes:
        told.at(2.0, lambda: told.register("bob@example.com", contact))
    told.run_until(3.0)
    assert [fact.about for fact in told.facts if fact.what == "INVITE"] == [f"sip:{contact}"]


@pytest.mark.parametrize("rule", [PushRule(outcome="failed", wakes=1.0), PushRule(kind="cancel", wakes=1.0)])
def test_nobody_wakes_by_a_push_that_is_not_there_or_ends_a_call(rule: PushRule) -> None:
    told = story(rule)
    push(told, kind=rule.kind if rule.kind != "*" else "call")
    told.run_until(5.0)
    assert not [fact for fact in told.facts if fact.kind == "register"]


# --- what people see of it --------------------------------------------------------------------------------------------


def test_explain_names_the_phones_that_are_waited_for() -> None:
    contacts = [PHONE, "bob@10.0.0.8;pn-provider=fcm;pn-prid=t2", "bob@10.0.0.5"]
    told = Scenario(WAKES, registered={"bob@example.com": contacts}, push=[PushRule(service="fcm", wakes=3.0)])
    told.at(0.0, lambda: told.invite("alice@example.com", "bob@example.com"))
    seen = []
    for at in (1, 4, 21):
        told.run_until(at)
        seen += [each["waits_for"] for each in waiting(told.world.engine.flows, "", told.world.now)]
    assert [each.partition("; ")[0] for each in seen] == [
        "2 phones to wake up: sip:bob@10.0.0.7:5062, sip:bob@10.0.0.8:5060",
        "1 phone to wake up: sip:bob@10.0.0.7:5062",
        "an answer of those called",
    ]


def test_the_trace_tells_who_was_pushed_and_who_woke_up_and_no_token() -> None:
    rules = [
        PushRule(service="apns", wakes=2.0, contact="bob@10.0.0.9"),
        PushRule(outcome="dead", reason="UNREGISTERED"),
    ]
    contacts = [PHONE, "bob@10.0.0.8;pn-provider=fcm;pn-prid=secret"]
    told = Scenario(WAKES, registered={"bob@example.com": contacts}, push=rules)
    told.at(0.0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.at(3.0, told.hangup)
    told.finish()
    [trace] = told.traces()
    lines = list(render(trace))
    assert [line.split("  ")[-1].strip() for line in lines if "wakes" in line or "push " in line] == [
        "relay to registered, wakes phones for 20s",
        "push >> call to=sip:bob@10.0.0.7:5062 by apns",
        "push >> call to=sip:bob@10.0.0.8:5060 by fcm",
        "push << dead for sip:bob@10.0.0.8:5060: UNREGISTERED",
        "push -- sip:bob@10.0.0.7:5062 has woken up as sip:bob@10.0.0.9:5060",
    ]
    assert TOKEN not in "".join(lines) and "secret" not in "".join(lines)


# --- in files ---------------------------------------------------------------------------------------------------------

FLOW = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do: [{reply: 404}]\n"


def case(folder: Path, given: str, expect: str = "[]") -> Case:
    (folder / "a.flow.yaml").write_text(FLOW)
    file = folder / "a.test.yaml"
    file.write_text(
        "flowlang_test: 1\nflows: a.flow.yaml\ntests:\n"
        f"  - name: x\n    given: {{push: {given}}}\n    when: []\n    expect: {expect}\n"
    )
    [found] = load_cases(file)
    return found


def test_rules_in_a_file(tmp_path: Path) -> None:
    first = "{to: 'bob@*', kind: call, wakes: 2s, contact: 'bob@10.0.0.9'}"
    text = f"[{first}, {{service: acme, outcome: dead, reason: Gone, delay: 500ms}}]"
    assert case(tmp_path, text).push == [
        PushRule(to="bob@*", kind="call", wakes=2.0, contact="bob@10.0.0.9"),
        PushRule(service="acme", outcome="dead", reason="Gone", delay=0.5),
    ]


def test_what_was_sent_in_a_file(tmp_path: Path) -> None:
    wanted = "{to: a@b, kind: call, ttl: 20s, token: '7d*', data: {from: x}}"
    text = f"[{{sent: {{push: 'bob@*', at: 1s}}}}, {{sent: {{push: {wanted}}}}}, {{never: {{sent: {{push: '*'}}}}}}]"
    first, second, third = case(tmp_path, "[]", text).expectations
    assert (first.kind, first.wanted) == ("push", {"about": "bob@*", "at": 1.0})
    assert second.wanted == {
        "about": "a@b",
        "what": "call",
        "with": {"ttl": 20.0, "token": "7d*", "data": {"from": "x"}},
    }
    assert (third.kind, third.never, third.wanted) == ("push", True, {"about": "*"})


@pytest.mark.parametrize(
    ("given", "expect", "message"),
    [
        ("[{outcom: dead}]", "[]", "unknown key for a push rule: 'outcom'"),
        ("[{outcome: gone}]", "[]", "'gone' is not a outcome"),
        ("[{kind: ring}]", "[]", "'ring' is not a kind"),
        ("[{wakes: 3}]", "[]", "'3' is not a duration"),
        ("[{contact: 'bob@10.0.0.9'}]", "[]", "contact: needs wakes:"),
        ("[{wakes: 2s, contact: 'bob@10.0.0.1'}]", "[]", "10.0.0.1 is the address of"),
        ("[{outcome: dead, wakes: 2s}]", "[]", "no phone wakes up by a push that is dead"),
        ("[]", "[{sent: {push: {kinds: call}}}]", "unknown key for push: 'kinds'"),
        ("[]", "[{sent: {push: {kind: ring}}}]", "'ring' is not a kind"),
        ("[]", "[{sent: {push: '*', call: a}}]", "no call is named 'a'"),
        ("[]", "[{push: '*'}]", "unknown key for an expectation: 'push'"),
    ],
)
def test_mistakes(tmp_path: Path, given: str, expect: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        case(tmp_path, given, expect)
    assert message in raised.value.diagnostics[0].message


# --- the step ---------------------------------------------------------------------------------------------------------

TELLS = """\
flowlang: 1
events:
  door_opened: {to: aor, door: text}
flows:
  tell_owner:
    on: door_opened
    do:
      - push: {to: '${event.to}', kind: message, ttl: 1h, data: {door: '${event.door}'}}
        as: pushed
      - log: '${pushed.sent} sent, ${pushed.failed} failed, ${pushed.dead} dead'
  watch:
    on: {event: push_failed, where: event.dead}
    do:
      - log: '${event.aor} lost a phone of ${event.service}: ${event.reason}'
"""

TOLD = """\
flowlang_test: 1
flows: a.flow.yaml
tests:
  - name: every phone that sleeps is told
    given:
      registered:
        bob@example.com:
          - bob@10.0.0.5
          - bob@10.0.0.6;pn-provider=fcm;pn-prid=awake
          - bob@10.0.0.7;pn-provider=fcm;pn-prid=good
          - bob@10.0.0.8;pn-provider=webpush;pn-prid=gone
          - bob@10.0.0.9;pn-provider=apns;pn-prid=slow
      push:
        - {token: gone, outcome: dead, reason: '410 Gone'}
        - {token: slow, outcome: failed, reason: '503', delay: 2s}
    when:
      - {at: 0s, register: {aor: bob@example.com, contact: 'bob@10.0.0.6;pn-provider=fcm;pn-prid=awake'}}
      - {at: 1s, raise: {event: door_opened, data: {to: bob@example.com, door: front}}}
    expect:
      - sent: {push: {token: good, kind: message, ttl: 1h, data: {door: front}}, at: 1s}
      - sent: {push: {token: gone}, at: 1s}
      - sent: {push: {token: slow}, at: 1s}
      - never: {sent: {push: {token: awake}}}
      - log: {text: '1 sent, 1 failed, 1 dead', at: 3s}
      - log: {text: 'bob@example.com lost a phone of webpush: 410 Gone', at: 1s}
"""


def test_the_step_push_and_the_event_push_failed(tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text(TELLS)
    (tmp_path / "a.test.yaml").write_text(TOLD)
    [found] = load_cases(tmp_path / "a.test.yaml")
    outcome = found.run()
    assert outcome.passed, outcome.failures
    trace = next(trace for trace in outcome.story.traces() if trace.flow == "tell_owner")
    assert [line.text for line in trace.records if "push" in line.text] == [
        "push to bob@example.com",
        "push -> 1 sent, 1 failed, 1 dead",
    ]


def test_text_from_outside_stays_that(tmp_path: Path) -> None:
    (tmp_path / "a.flow.yaml").write_text(TELLS.replace("log: '${event.aor}", "http: 'https://${event.reason}/"))
    with pytest.raises(InputError, match="E212"):
        load_program([tmp_path / "a.flow.yaml"])
