"""The engine on flows as users write them: loaded, checked and run on virtual time."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from flowkit import World

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_program, load_sources
from orchestrator.flow.run import effects

CASES = Path(__file__).parent / "specification" / "flows"
FLOWS = Path(__file__).parents[2] / "flows"
ALICE: dict[str, Any] = {
    "user": "alice",
    "host": "example.com",
    "aor": "alice@example.com",
    "uri": "sip:alice@example.com",
    "display": "",
    "port": None,
    "scheme": "sip",
}


def address(user: str) -> dict[str, Any]:
    return {**ALICE, "user": user, "aor": f"{user}@example.com", "uri": f"sip:{user}@example.com"}


def call(caller: str = "alice", callee: str = "bob") -> dict[str, Any]:
    """What a host shows of a call, as far as these flows look."""
    return {
        "from": address(caller),
        "to": address(callee),
        "target": address(callee),
        "domain": "example.com",
        "user": None,
        "headers": {},
        "duration": 0.0,
        "end_reason": None,
    }


def loaded(text: str, odd: tuple[str, ...] = ()) -> World:
    """A world with the flows of this file body, which must be without complaint but for the codes in `odd`."""
    program, warnings = load_sources([Source("test.flow.yaml", "flowlang: 1" + dedent(text))])
    assert tuple(warning.code for warning in warnings) == odd
    return World(program=program)


def case(name: str) -> Program:
    file = CASES / name
    program, warnings = load_program([file])
    assert warnings == []
    return program


# --- the flows of the specification ----------------------------------------------------------------------------------


def test_push_wakeup() -> None:
    """Two registrations of one contact and one of a stranger: one late branch; the push goes out with its secret."""
    world = World(program=case("1_push_wakeup.flow.yaml"))
    run = world.invite(**call())
    (push,) = world.host.asked(effects.Http)
    assert push.url == "https://push.example.com/v1/send" and push.background
    assert push.json == {"to": "bob@example.com", "call": "c1", "from": "alice"}
    assert push.headers == {"Authorization": "key=test"}
    assert (push.timeout, push.retries, push.method) == (2.0, 2, "POST")
    (relay,) = world.host.asked(effects.Relay)
    assert (relay.registered, relay.mode, relay.ring, relay.keep_open) == (True, "parallel", 40.0, 20.0)
    world.at(4.0)
    assert world.event("registered", aor="eve@example.com") == 0
    assert [world.event("registered") for _ in range(2)] == [1, 0]
    assert world.event("registered", contact="sip:desk", uri="sip:desk", mobile=False) == 1
    assert [effect.to for effect in world.host.asked(effects.Inject)] == [("sip:bob@10.0.0.5:5060",)]
    world.relayed(contact="sip:bob@10.0.0.5:5060")
    assert world.logs == ["answered by sip:bob@10.0.0.5:5060, mobiles woken: 1"]
    assert run.handlers == {"late_phone": [2, 1]}
    world.at(20.0)
    world.hang_up(run)
    world.assert_idle()


@pytest.mark.parametrize(("outcome", "code", "reply"), [("busy", 486, 486), ("no_answer", 408, 480)])
def test_push_wakeup_without_an_answer(outcome: str, code: int, reply: int) -> None:
    world = World(program=case("1_push_wakeup.flow.yaml"))
    run = world.invite(**call())
    world.relayed(outcome, code)
    assert world.host.finals[run.id] == [reply]


@pytest.mark.parametrize(("digit", "ended"), [("1", True), ("2", False), ("*", True)])
def test_dtmf_screening(digit: str, ended: bool) -> None:
    """The seed's line, `event.digit != 2`: true for every other key and false for 2."""
    world = World(program=case("2_dtmf_screening.flow.yaml"))
    run = world.invite(**call())
    world.relayed()
    assert world.event("dtmf", run, digit="9", leg="caller") == 0
    assert world.event("dtmf", run, digit=digit) == 1
    assert world.event("dtmf", run, digit="1") == 0
    reasons = [effect.reason for effect in world.host.asked(effects.Hangup)]
    assert reasons == ([f"callee pressed {digit}"] if ended else [])
    world.hang_up(run)
    world.assert_idle()


@pytest.mark.parametrize(("digit", "end"), [("2", ["accepted"]), ("3", "declined"), (None, "nobody pressed a key")])
def test_dtmf_screening_with_a_time_limit(digit: str | None, end: Any) -> None:
    world = World(program=case("2_dtmf_screening.flow.yaml"))
    run = world.invite(**call(callee="80123"))
    world.relayed()
    if digit is not None:
        world.event("dtmf", run, digit=digit)
    world.at(8.0)
    assert world.logs + [effect.reason for effect in world.host.asked(effects.Hangup)] == (
        end if isinstance(end, list) else [end]
    )
    world.hang_up(run)
    world.assert_idle()


def test_group_pickup() -> None:
    """Both ringing calls of the group are told; each picks the picker up; one who has nothing to pick up gets a 404."""
    world = World(program=case("5_pickup.flow.yaml"))
    ringing = world.invite(**call("alice", "101"))
    picker = world.invite(**call("103", "*8"))
    (inject,) = world.host.asked(effects.Inject)
    assert inject == effects.Inject(aor="103@example.com", cancel_others=True, last=True)
    assert world.host.finals[picker.id] == [480]
    late = world.invite(**call("103", "*8"))
    assert world.host.finals[late.id] == [404]
    for run in (ringing, picker, late):
        world.hang_up(run)
    world.assert_idle()


@pytest.mark.parametrize(("dialled", "code"), [("*8101", 480), ("*8102", 404)])
def test_directed_pickup(dialled: str, code: int) -> None:
    world = World(program=case("5_pickup.flow.yaml"))
    world.invite(**call("alice", "101"))
    picker = world.invite(**call("stranger", dialled))
    assert world.host.finals[picker.id] == [code]
    assert len(world.host.asked(effects.Inject)) == (1 if code == 480 else 0)


def test_lockout() -> None:
    world = World(program=case("6_register.flow.yaml"))
    for _ in range(10):
        world.event("login_failed", aor="bob@example.com", ip="10.9.9.9")
    world.event("login_failed", aor="bob@example.com", ip="10.1.1.1")
    assert world.logs == ["10.9.9.9 failed 10 times in a row"]
    world.at(60.0)
    world.assert_idle()


def test_the_flows_of_the_repository_load_and_end_cleanly() -> None:
    program, warnings = load_program([FLOWS])
    assert warnings == []
    world = World(program=program)
    for caller, callee in (("alice", "bob"), ("alice", "dave"), ("101", "*8"), ("alice", "101")):
        run = world.invite(**call(caller, callee))
        world.event("registered", aor=f"{callee}@example.com")
        world.event("dtmf", run)
        world.hang_up(run)
        assert len(world.host.finals[run.id]) == 1
    world.at(60.0)
    world.assert_idle()


# --- details that hand-built steps do not show -----------------------------------------------------------------------


def test_wildcards_are_what_is_written_never_what_is_filled_in() -> None:
    world = loaded("""
        flows:
          main:
            on: invite
            do:
              - subscribe: registered
                where: {aor: '${call.to.aor}'}
                do: [log: own]
              - subscribe: registered
                where: {aor: '*@example.com', user_agent: 'Desk ${call.to.user}*'}
                do: [log: desk]
              - relay: registered
        """)
    run = world.invite(**call(callee="*"))
    assert world.event("registered", aor="eve@example.com") == 0
    assert world.event("registered", aor="*@example.com") == 1
    assert world.event("registered", aor="eve@example.com", user_agent="Desk eve 1") == 0
    assert world.event("registered", aor="eve@example.com", user_agent="Desk *1") == 1
    assert world.logs == ["own", "desk"]
    world.hang_up(run)
    world.assert_idle()


def test_what_an_equality_reads_is_looked_up_not_evaluated() -> None:
    """A filter with equalities costs an event nothing for all the calls it does not fit."""
    world = loaded("""
        flows:
          main:
            on: invite
            do:
              - subscribe: registered
                where: event.aor == call.to.aor and event.expires > 60
                do: [log: x]
              - relay: registered
        """)
    runs = [world.invite(**call(callee=f"u{n}")) for n in range(50)]
    (wanted,) = {tuple(subscription.wanted) for subscription in world.bus}
    assert wanted == ("aor",)
    assert world.event("registered", aor="u7@example.com") == 1
    assert world.event("registered", aor="u7@example.com", expires=60) == 0
    assert len(runs) == 50


def test_errors_name_file_places() -> None:
    world = loaded("""
        flows:
          main:
            on: invite
            do:
              - try:
                  - fs.api: status
                catch:
                  - error: esl.*
                    do:
                      - log: '${error.type} at ${error.line}: ${error.message}'
                finally:
                  - log: finally
              - reply: 480
        """)
    world.invite(**call())
    world.answered(effects.EslCommand, StepError("esl.down", "no link"))
    assert world.logs == ["esl.down at 7: no link", "finally"]


def test_loops_switches_sub_flows_and_variables() -> None:
    world = loaded(
        """
        groups:
          desk: [201, 202, 203]
        flows:
          main:
            on: invite
            vars: {tried: 0}
            do:
              - foreach: groups.desk
                item: ext
                do:
                  - set: {tried: '${vars.tried + 1}'}
                  - if: vars.tried == 3
                    then: [break]
                  - call: ring
                    with: {ext: '${ext}'}
                    as: outcome
                  - switch: outcome
                    cases:
                      busy, rejected: [log: '${ext} is busy']
                    default: [log: '${ext}: ${outcome}']
              - log: 'tried ${vars.tried}'
          ring:
            params: {ext: digits}
            returns: text
            do:
              - relay: {aor: '${params.ext}@example.com', ring: 12s}
                as: out
              - return: ${out.outcome}
        """,
        odd=("W301",),  # that a sub-flow answered is not known where it was called
    )
    run = world.invite(**call())
    world.relayed("busy", 486)
    world.relayed("no_answer", 408)
    assert world.logs == ["201 is busy", "202: no_answer", "tried 3"]
    assert world.host.finals[run.id] == [408]
    world.hang_up(run)
    world.assert_idle()


def test_parallel_wait_and_lookup() -> None:
    world = loaded("""
        flows:
          main:
            on: invite
            do:
              - parallel:
                  - - lookup: ${call.to.aor}
                      where: contact.mobile
                      as: phones
                  - - wait: dtmf
                      for: 5s
                      as: key
                      on_timeout: [log: no key]
              - log: '${size(phones)} ${key?.digit ?? "none"}'
              - reply: 480
        """)
    run = world.invite(**call())
    world.at(5.0)
    assert world.logs == ["no key", "1 none"]
    world.hang_up(run)
    world.assert_idle()


def test_defaults_of_the_file() -> None:
    world = loaded("""
        defaults:
          ring: 25s
          http_timeout: 2s
          replies: {user.*: 486}
          limits: {steps: 30, grace: 2s}
        flows:
          main:
            on: invite
            do:
              - http: {url: https://example.com/, background: true}
              - relay: registered
              - fail: {message: no, type: luck}
        """)
    run = world.invite(**call())
    assert world.host.asked(effects.Http)[0].timeout == 2.0
    assert world.host.asked(effects.Relay)[0].ring == 25.0
    assert (world.engine.limits.steps, world.engine.limits.grace) == (30, 2.0)
    world.relayed("busy", 486)
    assert world.host.finals[run.id] == [486]


def test_event_and_timer_flows() -> None:
    world = loaded("""
        events:
          alarm: {zone: digits, level: number}
        flows:
          raise_it:
            on: {every: 10s}
            vars: {told: 0}
            do:
              - raise: alarm
                data: {zone: '007', level: 3}
                as: told
              - log: 'told ${told.delivered}'
          hear_it:
            on: {event: alarm, where: {zone: 007}}
            mode: single
            key: event.zone
            do:
              - log: 'zone ${event.zone} level ${event.level}'
              - sleep: 25s
        """)
    for second in (10.0, 20.0, 40.0):
        world.at(second)
    assert world.logs == ["told 1", "zone 007 level 3", "told 0", "told 0", "told 1", "zone 007 level 3"]
    world.at(70.0)
    world.engine.stop("server stops")
    world.assert_idle()
