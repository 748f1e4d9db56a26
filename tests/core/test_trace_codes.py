"""The trace says which final status the caller was sent, however the call ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest

from orchestrator.core.stopping import give_up
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.trace import TraceLine
from orchestrator.history import ResponseSent
from orchestrator.sip.points import Hop
from orchestrator.sip.response_context import ResponseContext
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.world import PROXY, World

Act = Callable[[World, PhoneCall], object]

FLOW = """\
flowlang: 1
freeswitch:
  fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}
flows:
  main:
    on: invite
    do:
"""


def rejects(status: int) -> Act:
    def act(world: World, call: PhoneCall) -> None:
        next(phone for phone in world.phones.values() if phone.user == "bob").calls[0].reject(status)

    return act


def nothing(world: World, call: PhoneCall) -> None:
    """Time passes."""


def cancels(world: World, call: PhoneCall) -> None:
    call.hangup()


def stops(world: World, call: PhoneCall) -> None:
    give_up(world.engine, world.engine.faults, True, world.now)


def cannot_be_reached(world: World, call: PhoneCall) -> None:
    """ICMP: nobody listens there."""
    data, *_ = [
        data for _, source, _, data in world.sent if source == PROXY and data.startswith(b"INVITE sip:bob@10.0.0.3")
    ]
    world.engine.transport_failed(Hop(world.engine.network.points[0], "10.0.0.3", 5060), data, world.now)


RELAY = "relay: registered"

ENDS: list[tuple[str, Act, int]] = [
    *((RELAY, rejects(status), status) for status in (302, 401, 404, 407, 408, 480, 486, 487, 500, 504, 600, 603)),
    (RELAY, rejects(503), 500),  # RFC 3261 §16.7 step 6: we are not the one who cannot serve
    ("relay: {to: registered, on: {else: [reply: {code: 486, reason: Not now}]}}", rejects(503), 486),
    ("relay: {to: registered, on: {busy: [reply: 302]}}",
     rejects(486), 302),
    ("relay: {to: registered, on: {else: [stop]}}", rejects(503), 500),
    ("relay: {to: registered, on: {else: [hangup: {reason: no, code: 603}]}}", rejects(503), 603),
    ("relay: {to: registered, on: {else: [fail: so it is]}}", rejects(503), 500),
    ("relay: {to: registered, ring: 10s}", nothing, 408),
    ("relay: {to: 'sip:bob@nowhere.invalid'}", nothing, 500),
    (RELAY, cannot_be_reached, 480),
    ("relay: {aor: nobody@example.com}", nothing, 480),
    ("relay: {to: registered, via: fs1}", nothing, 504),
    (RELAY, cancels, 487),
    (RELAY, stops, 503),
    ("sleep: 1m", cancels, 487),
    ("sleep: 1m", stops, 503),
    ("reply: 404", nothing, 404),
    ("reply: {code: 606, reason: Not like this}", nothing, 606),
    ("hangup: over", nothing, 480),
    ("stop", nothing, 480),
    ("log: so it is", nothing, 480),
    ("fail: by design", nothing, 500),
    ("{wait: registered, for: 5s}", nothing, 480),
]  # fmt: skip


def statuses(records: Sequence[TraceLine]) -> list[int]:
    """The failures that were sent, by the trace."""
    sent = [line.fact for line in records if isinstance(line.fact, ResponseSent)]
    return [fact.code for fact in sent if fact.code >= 300]


def told(tmp_path: Path, step: str, act: Act) -> tuple[list[int], list[int]]:
    """The final statuses by the trace, and those the caller got."""
    path = tmp_path / "a.flow.yaml"
    path.write_text(FLOW + f"      - {step}\n")
    world = World(load_program([path])[0], freeswitch={"fs1": "sip:10.0.0.9:5080"})
    bob = world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    if act is cannot_be_reached:
        bob.on_invite = lambda call: None
    world.run()
    call = world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(0.5)
    (run,) = world.engine.flows.traces or world.engine.flows.runs.values()
    act(world, call)
    world.run(40)
    return statuses(run.records), [status for status in call.statuses if status >= 300]


@pytest.mark.parametrize(("step", "act", "code"), ENDS, ids=lambda value: str(getattr(value, "__name__", value)))
def test_the_trace_says_what_the_caller_was_sent(tmp_path: Path, step: str, act: Act, code: int) -> None:
    assert told(tmp_path, step, act) == ([code], [code])


VIA = """\
flowlang: 1
freeswitch:
  fs1: {host: 127.0.0.1, password: x}
flows:
  ring:
    on: invite
    when: call.target.user == 'bob'
    do: [relay: {to: registered, via: fs1, ring: 20s}]
  hold:
    on: invite
    do: [media: fs1, transfer: 'sip:bob@example.com']
"""


@pytest.mark.parametrize("status", [302, 401, 480, 486, 503, 603, 0])
@pytest.mark.parametrize("user", ["bob", "operator"])
def test_also_through_freeswitch(tmp_path: Path, user: str, status: int) -> None:
    """bob answers with this status, or the caller gives up."""
    path = tmp_path / "a.flow.yaml"
    path.write_text(VIA)
    story = Scenario(load_program([path])[0], registered={"bob@example.com": ["bob@10.0.0.5"]})
    call = story.invite("alice@example.com", f"{user}@example.com")
    story.at(2, lambda: story.respond("bob@10.0.0.5", status) if status else call.phone_call.hangup())
    story.finish()
    (trace,) = story.traces()
    (got,) = [code for code in call.phone_call.statuses if code >= 300]
    assert statuses(trace.records) == [got]
    assert status or got == 487


@pytest.mark.plain("replaces a method of the core")
def test_also_when_our_own_answer_strikes_a_bug(tmp_path: Path) -> None:
    def breaks(world: World, call: PhoneCall) -> None:
        (own,) = world.engine.calls
        with patch.object(ResponseContext, "reply", side_effect=ValueError("a bug")), pytest.raises(ValueError):
            own.fail()

    assert told(tmp_path, "sleep: 1m", breaks) == ([500], [500])
