"""What the host is asked for: the effect of each action, from its keys (FLOWLANG §4.3)."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import World, flow, missing, step, steps, where

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Step
from orchestrator.flow.run import effects


def asked(action: Step, **resources: Any) -> Any:
    """The first effect of a call whose flow begins with this step."""
    world = World(flow(action), **resources)
    world.invite()
    return world.host.done[0]


def test_relay_with_every_key() -> None:
    effect = asked(
        step(
            "relay",
            gateways=("telco_a", "telco_b"),
            mode="serial",
            ring=40.0,
            each=8.0,
            keep_open=20.0,
            failover_on=("408", "5xx"),
            via="fs1",
            headers={"X-Max": "60"},
            from_="sip:100@example.com",
        )
    )
    assert effect == effects.Relay(
        gateways=("telco_a", "telco_b"),
        mode="serial",
        ring=40.0,
        each=8.0,
        keep_open=20.0,
        failover_on=("408", "5xx"),
        via="fs1",
        headers={"X-Max": "60"},
        from_="sip:100@example.com",
    )


CONTACT = {"uri": "sip:bob@10.0.0.5", "contact": "bob"}


@pytest.mark.parametrize(
    ("keys", "effect"),
    [
        ({"to": "registered"}, effects.Relay(registered=True)),
        ({"to": "original"}, effects.Relay(original=True)),
        ({"to": "sip:a@h"}, effects.Relay(to=("sip:a@h",))),
        ({"to": ["sip:a@h", "sip:b@h"]}, effects.Relay(to=("sip:a@h", "sip:b@h"))),
        ({"to": lambda env: CONTACT}, effects.Relay(to=(CONTACT,))),
        ({"to": lambda env: [CONTACT]}, effects.Relay(to=(CONTACT,))),
        ({"aor": "bob@example.com"}, effects.Relay(aor="bob@example.com")),
    ],
)
def test_relay_destinations(keys: dict[str, Any], effect: effects.Relay) -> None:
    assert asked(step("relay", **keys)) == effect


def test_ring_time_of_the_defaults() -> None:
    assert asked(step("relay", "registered"), defaults={"ring": 25.0}).ring == 25.0
    assert asked(step("relay", "registered", ring=9.0), defaults={"ring": 25.0}).ring == 9.0


def test_inject_and_its_result() -> None:
    inject = step("inject", "sip:bob@h", cancel_others=True, last=True, ring=9.0, headers={"X": "1"}, as_="added")
    world = World(flow(inject, step("log", lambda env: str(env["added"]["added"]))))
    run = world.invite()
    assert world.host.done[0] == effects.Inject(
        to=("sip:bob@h",), cancel_others=True, last=True, ring=9.0, headers={"X": "1"}
    )
    assert world.logs == ["1"]
    assert "inject 1 branch(es)" in world.trace(run)
    assert asked(step("inject", aor="bob@example.com")) == effects.Inject(aor="bob@example.com")


def test_cancel_hangup_reply() -> None:
    assert asked(step("cancel", ["all"])) == effects.Cancel(("all",))
    assert asked(step("hangup", "busy", code=486, leg="callee")) == effects.Hangup("busy", 486, "callee")
    assert asked(step("hangup")) == effects.Hangup()
    assert asked(step("reply", 404, reason="Nothing", headers={"X": "1"})) == effects.Reply(404, "Nothing", {"X": "1"})


def test_register() -> None:
    world = World(flow(step("register", min_expires=60.0, max_expires=3600.0, max_contacts=5), on="register"))
    bob = {"aor": "bob@example.com"}
    world.engine.start(world.program.flows[0], request={**bob, "from": bob, "to": bob, "contacts": []})
    assert world.host.done == [effects.SaveContact(60.0, 3600.0, 5)]
    assert world.replies == []


def test_lookup_with_where() -> None:
    filters = [
        (None, 2),
        (where(mobile=True), 1),
        (where(lambda env: env["contact"]["uri"].endswith("1")), 1),
        (where(lambda env: env["contact"]["mobile"], contact="bob1"), 0),
    ]
    for filter, count in filters:
        keys = {} if filter is None else {"where": filter}
        world = World(
            flow(
                step("lookup", "bob@example.com", as_="found", **keys), step("log", lambda env: str(len(env["found"])))
            )
        )
        world.invite()
        assert world.host.done[0] == effects.Lookup("bob@example.com")
        assert world.logs == [str(count)]


def test_lookup_filter_that_fails_is_the_steps_error() -> None:
    world = World(flow(step("lookup", "bob@example.com", where=where(missing))))
    assert world.invite().error == "expr.missing"


def test_log() -> None:
    assert asked(step("log", "x", level="warning", data={"n": 1})) == effects.Log("x", "warning", {"n": 1})


# --- http ------------------------------------------------------------------------------------------------------------


def test_http_with_every_key() -> None:
    effect = asked(
        step(
            "http",
            "https://crm.example.com/calls",
            method="PUT",
            json={"n": 1, "deep": [True, None]},
            query={"a": 1, "b": True},
            headers={"X": "1"},
            auth={"user": "u", "password": "p"},
            timeout=2.0,
            retries=3,
            backoff=0.5,
            expect=("404", "5xx"),
            background=True,
        )
    )
    assert effect == effects.Http(
        method="PUT",
        url="https://crm.example.com/calls",
        json={"n": 1, "deep": [True, None]},
        query={"a": "1", "b": "true"},
        headers={"X": "1"},
        auth=("u", "p"),
        timeout=2.0,
        retries=3,
        backoff=0.5,
        expect=("404", "5xx"),
        background=True,
    )


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({}, "GET"),
        ({"json": {}}, "POST"),
        ({"form": {"a": "b"}}, "POST"),
        ({"body": "x"}, "POST"),
        ({"body": "x", "method": "PUT"}, "PUT"),
    ],
)
def test_http_method(keys: dict[str, Any], method: str) -> None:
    assert asked(step("http", "https://h/", **keys)).method == method


def test_http_defaults() -> None:
    effect = asked(step("http", "https://h/"))
    assert (effect.timeout, effect.retries, effect.backoff, effect.expect) == (5.0, 0, 0.2, ())
    assert asked(step("http", "https://h/"), defaults={"http_timeout": 2.0}).timeout == 2.0


def test_http_endpoint() -> None:
    written = step(
        "http",
        "https://push.example.com/v1",
        headers={"Authorization": lambda env: "key=" + env["const"]["key"], "X": "endpoint"},
        query={"app": "pbx"},
        auth={"user": "u", "password": "p"},
    )
    endpoint = {**written.args, "timeout": 2.0, "retries": 2}
    effect = asked(
        step("http", "/send", endpoint="push", headers={"X": "step"}, retries=1, method="POST"),
        endpoints={"push": endpoint},
        const={"key": "K"},
    )
    assert effect.url == "https://push.example.com/v1/send"
    assert effect.headers == {"Authorization": "key=K", "X": "step"}
    assert (effect.query, effect.auth, effect.timeout, effect.retries) == ({"app": "pbx"}, ("u", "p"), 2.0, 1)
    alone = asked(step("http", endpoint="push"), endpoints={"push": endpoint}, const={"key": "K"})
    assert (alone.url, alone.retries) == ("https://push.example.com/v1", 2)


def test_http_waits_for_its_result_and_traces_no_secret() -> None:
    world = World(
        flow(
            step("http", "https://h/?key=SECRET", headers={"A": "SECRET"}, as_="answer"),
            step("log", lambda env: str(env["answer"]["json"])),
        )
    )
    run = world.invite()
    world.answered(effects.Http, {"status": 200, "text": "{}", "json": {"n": 1}, "headers": {}})
    assert world.logs == ["{'n': 1}"]
    assert "http -> 200" in world.trace(run)
    assert "SECRET" not in "".join(world.trace(run))


def test_http_in_the_background_does_not_wait() -> None:
    world = World(flow(step("http", "https://h/", background=True, as_="x"), step("log", lambda env: repr(env["x"]))))
    run = world.invite()
    assert world.logs == ["None"]
    assert "http in the background" in world.trace(run)


def test_http_error() -> None:
    world = World(flow(step("http", "https://h/", on_error=steps(step("log", lambda env: env["error"]["type"])))))
    world.invite()
    world.answered(effects.Http, StepError("http.connect", "refused"))
    assert world.logs == ["http.connect"]


# --- FreeSWITCH ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["api", "bgapi"])
def test_fs_commands(kind: str) -> None:
    world = World(flow(step(f"fs.{kind}", "status", server="fs1", as_="x"), step("log", lambda env: env["x"]["text"])))
    world.invite()
    assert world.host.done[0] == effects.EslCommand(kind, "status", "fs1")
    world.answered(effects.EslCommand, {"ok": True, "text": "UP 0 years"})
    assert world.logs == ["UP 0 years"]


@pytest.mark.parametrize(("expect", "error"), [("+OK*", ""), ("-ERR*", "esl.command"), ("+OK", "esl.command")])
def test_fs_expect(expect: str, error: str) -> None:
    world = World(flow(step("fs.api", "uuid_kill x", expect=expect)))
    run = world.invite()
    world.answered(effects.EslCommand, {"ok": True, "text": "+OK done\n"})
    assert run.error == error


def test_fs_execute() -> None:
    assert asked(step("fs.execute", "set", args="a=b")) == effects.EslExecute("set", "a=b", "caller", False)
    world = World(
        flow(
            step("fs.execute", "rxfax", args="/tmp/x", leg="callee", wait=True, as_="x"),
            step("log", lambda env: env["x"]["response"]),
        )
    )
    world.invite()
    assert world.host.done[0] == effects.EslExecute("rxfax", "/tmp/x", "callee", True)
    world.answered(effects.EslExecute, {"response": "done"})
    assert world.logs == ["done"]
