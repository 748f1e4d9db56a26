"""Flows as users write them, loaded and run: what the checker promises is what the engine finds."""

from __future__ import annotations

from typing import Any

import pytest
from flowcheck import load
from flowkit import World

from orchestrator.flow.run import effects

CALL: dict[str, Any] = {
    "to": {"aor": "bob@example.com", "user": "bob", "host": "example.com"},
    "from": {"aor": "alice@example.com", "user": "101"},
    "target": {"user": "bob", "host": "example.com"},
    "user": None,
    "answered": False,
    "headers": {},
}


def world(text: str) -> World:
    return World(program=load(text))


PUSH = """
    flowlang: 1
    secrets: [KEY]
    endpoints: {push: {url: 'https://push.example.com/', headers: {A: 'k=${secrets.KEY}'}, timeout: 2s}}
    flows:
      ring:
        on: invite
        when: call.to.host == 'example.com'
        vars: {woken: 0}
        do:
          - subscribe: registered
            where: {aor: '${call.to.aor}'}
            for: 20s
            unique_by: event.contact
            do:
              - inject: ${event.uri}
                if: event.mobile
                as: added
              - set: {woken: '${vars.woken + added.added}'}
                if: added != null
          - http: {endpoint: push, json: {to: '${call.to.aor}', n: '${vars.woken}'}, background: true}
          - relay: {to: registered, ring: 40s, keep_open: 20s}
            on:
              answered: [log: 'woken ${vars.woken}']
              busy, rejected: [reply: 486]
              else: [reply: {code: 480, reason: Nobody home}]
    """


def test_push_wakeup() -> None:
    it = world(PUSH)
    run = it.invite(**CALL)
    it.event("registered", aor="carol@example.com")
    it.event("registered")
    it.event("registered")
    it.event("registered", contact="sip:bob@desk", mobile=False)
    assert [effect.to for effect in it.host.asked(effects.Inject)] == [("sip:bob@10.0.0.5:5060",)]
    (sent,) = it.host.asked(effects.Http)
    assert (sent.url, sent.headers, sent.timeout) == ("https://push.example.com/", {"A": "k=test"}, 2.0)
    assert sent.json == {"to": "bob@example.com", "n": 0}
    (relay,) = it.host.asked(effects.Relay)
    assert (relay.registered, relay.ring, relay.keep_open) == (True, 40.0, 20.0)
    it.relayed("answered")
    assert it.logs == ["woken 1"]
    assert run.vars == {"woken": 1}


@pytest.mark.parametrize(("outcome", "reply"), [("busy", 486), ("rejected", 486), ("no_answer", 480)])
def test_outcomes_find_their_steps(outcome: str, reply: int) -> None:
    it = world(PUSH)
    it.invite(**CALL)
    it.relayed(outcome, 486)
    assert it.replies == [reply]


def test_flow_condition_is_asked() -> None:
    it = world(PUSH)
    assert it.engine.choose("invite", {"call": {"to": {"host": "elsewhere.example"}}}) is None


def test_first_of_and_digits() -> None:
    it = world(
        """
        flowlang: 1
        flows:
          main:
            on: invite
            do:
              - relay: registered
              - first_of:
                  - wait: dtmf
                    where: event.leg == 'callee'
                    do:
                      - if: event.digit == 2
                        then: [log: accepted]
                        else: [hangup: 'pressed ${event.digit}']
                  - after: 8s
                    do: [hangup: silence]
        """
    )
    one, two = it.invite(**CALL), it.invite(**CALL)
    it.relayed("answered")
    it.event("dtmf", one, digit="2", leg="caller")
    it.event("dtmf", one, digit="2")
    it.event("dtmf", two, digit="02")
    assert it.logs == ["accepted"]
    assert [effect.reason for effect in it.host.asked(effects.Hangup)] == ["pressed 02"]


def test_pickup_by_raise_switch_and_sub_flow() -> None:
    it = world(
        """
        flowlang: 1
        events: {pickup: {group: optional digits, picker: digits}}
        groups: {sales: [101, 102]}
        flows:
          pick:
            on: invite
            when: call.target.user == '*8' and call.from.user in groups.sales
            do:
              - call: offer
                with: {group: sales, who: '${call.from.user}'}
                as: told
              - switch: told
                cases: {'0': [reply: {code: 404, reason: Nothing to pick up}]}
                default: [reply: 480]
          ring:
            on: invite
            do:
              - subscribe: pickup
                where: (event.group ?? '') == 'sales'
                limit: 1
                do:
                  - inject: {aor: '${event.picker}@${call.target.host}', cancel_others: true, last: true}
              - relay: registered
          offer:
            params: {group: text, who: digits}
            returns: number
            do:
              - raise: pickup
                data: {group: '${params.group}', picker: '${params.who}'}
                as: told
              - return: ${told.delivered}
        """
    )
    star = {**CALL, "target": {"user": "*8", "host": "example.com"}}
    it.invite(**star)
    assert it.replies == [404]
    it.invite(**CALL)
    it.invite(**star)
    assert it.replies == [404, 480]
    (injected,) = it.host.asked(effects.Inject)
    assert (injected.aor, injected.cancel_others, injected.last) == ("101@example.com", True, True)


def test_lockout_waits_for_the_same_address() -> None:
    it = world(
        """
        flowlang: 1
        events: {failed: {ip: text}}
        flows:
          lockout:
            on: failed
            mode: single
            key: event.ip
            vars: {n: 1}
            do:
              - repeat:
                  times: 2
                  do:
                    - wait: failed
                      where: {ip: '${event.ip}'}
                      for: 60s
                      on_timeout: [stop]
                    - set: {n: '${vars.n + 1}'}
              - log: '${event.ip} failed ${vars.n} times'
        """
    )
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1"):
        it.event("failed", ip=ip)
    assert it.logs == ["10.0.0.1 failed 3 times"]
    it.at(61.0)
    assert it.logs == ["10.0.0.1 failed 3 times"]
    assert it.engine.runs == {}


def test_hunting_over_a_group() -> None:
    it = world(
        """
        flowlang: 1
        groups: {desk: [201, 0202]}
        flows:
          main:
            on: invite
            vars: {tried: 0}
            do:
              - foreach: groups.desk
                item: ext
                do:
                  - set: {tried: '${vars.tried + 1}'}
                  - relay: {aor: '${ext}@example.com', ring: 12s}
                    on: {answered: [stop], else: [log: '${ext}: ${relay.outcome}']}
              - reply: {code: 480, headers: {X-Tried: '${vars.tried}'}}
        """
    )
    it.invite(**CALL)
    it.relayed("no_answer", 408)
    it.relayed("busy", 486)
    assert [relay.aor for relay in it.host.asked(effects.Relay)] == ["201@example.com", "0202@example.com"]
    assert it.logs == ["201: no_answer", "0202: busy"]
    (reply,) = it.host.asked(effects.Reply)
    assert (reply.code, dict(reply.headers)) == (480, {"X-Tried": "2"})


def test_errors_find_their_catch_and_results_are_null_after_them() -> None:
    it = world(
        """
        flowlang: 1
        flows:
          main:
            on: invite
            do:
              - try:
                  - http: {url: 'https://a.example/', expect: [404]}
                    as: answer
                  - fail: {message: 'got ${answer.status}', type: odd}
                catch:
                  - {error: user.odd, do: [log: '${error.message}']}
                  - {error: http.*, do: [log: '${error.type}']}
              - log: '${answer?.status ?? 0}'
        """
    )
    it.invite(**CALL)
    it.answered(effects.Http, {"status": 404, "text": "", "json": None, "headers": {}})
    assert it.logs == ["got 404", "404"]


def test_lookup_filters_what_it_finds() -> None:
    it = world(
        """
        flowlang: 1
        flows:
          main:
            on: invite
            do:
              - lookup: ${call.to.aor}
                where: {mobile: true, uri: 'sip:*'}
                as: phones
              - foreach: phones
                item: phone
                do: [inject: '${phone.uri}']
              - relay: registered
        """
    )
    it.invite(**CALL)
    assert [effect.to for effect in it.host.asked(effects.Inject)] == [("sip:bob@10.0.0.2",)]
