"""Secrets without a value: a background step is skipped, a flow that needs one is not started."""

from __future__ import annotations

import pytest

from orchestrator.flow.language.program import Program
from orchestrator.flow.language.unset import leave_out
from orchestrator.flow.loader import Source, load_sources
from orchestrator.testing.world import World

HEAD = """flowlang: 1
secrets: {KEY: {env: KEY}, URL: {env: URL}}
endpoints: {push: {url: '${secrets.URL}', headers: {Authorization: 'Bearer ${secrets.KEY}'}}}
flows:
"""


def program(flows: str) -> Program:
    return load_sources([Source("a.flow.yaml", HEAD + flows)])[0]


def left_out(flows: str, secrets: tuple[str, ...] = ()) -> list[str]:
    return [f"{left.flow.name}: {' '.join(left.secrets)}" for left in leave_out(program(flows), secrets)[1]]


@pytest.mark.parametrize(
    "step",
    [
        "http: {url: '${secrets.URL}', background: true}",
        "http: {endpoint: push, background: true}",
        "http: {url: 'http://10.0.0.9/', headers: {A: '${secrets.KEY}'}, background: true}",
        "http: {url: 'http://10.0.0.9/', json: {k: '${secrets.KEY}'}, background: true}",
        "http: {url: 'http://10.0.0.9/', auth: {user: a, password: '${secrets.KEY}'}, background: true}",
        "http: {url: 'http://10.0.0.9/', query: {k: '${string(1 / size(call.to.display))}'}, background: true}",
        "play: {file: x.wav, background: true}",
    ],
)
def test_a_background_step_never_fails_its_flow(step: str) -> None:
    flows = f"  main:\n    on: invite\n    do:\n      - {step}\n      - relay: registered\n"
    loaded, out = leave_out(program(flows), ())
    assert out == []
    world = World(loaded)
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    world.run()
    call = alice.invite("bob@example.com")
    world.run(1)
    assert call.statuses == [100, 180]
    assert world.engine.flows.stats.background_failed == 1
    assert world.engine.flows.stats.failed == 0


def test_a_flow_that_would_fail_each_time_is_not_started() -> None:
    direct = "  x:\n    on: invite\n    do: [{http: {endpoint: push}}]\n"
    assert left_out(direct) == ["x: KEY URL"]
    assert left_out(direct, ("URL",)) == ["x: KEY"]
    assert left_out(direct, ("URL", "KEY")) == []
    nested = "  x:\n    on: invite\n    do: [{if: 'call.id == \"a\"', then: [{http: '${secrets.URL}'}]}]\n"
    assert left_out(nested) == ["x: URL"]
    called = "  x:\n    on: invite\n    do: [{call: y}]\n  y:\n    do: [{http: '${secrets.URL}'}]\n"
    assert left_out(called) == ["x: URL"]


def test_what_is_handled_or_guards_registration_stays() -> None:
    assert left_out("  x:\n    on: invite\n    do: [{http: {endpoint: push}, on_error: continue}]\n") == []
    assert left_out("  x:\n    on: register\n    do: [{http: {endpoint: push}}, register]\n") == []
    handled = "  x:\n    on: invite\n    do: [{http: {endpoint: push}}]\n    on_error: [{reply: 503}]\n"
    assert left_out(handled) == []


def test_the_next_flow_that_fits_takes_its_calls() -> None:
    flows = "  x:\n    on: invite\n    when: call.target.user == 'bob'\n    do: [{http: {endpoint: push}}]\n"
    flows += "  y:\n    on: invite\n    do: [{reply: 486}]\n"
    loaded, _ = leave_out(program(flows), ())
    world = World(loaded)
    call = world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(1)
    assert call.statuses == [100, 486]
