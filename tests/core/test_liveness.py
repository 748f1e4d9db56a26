"""Dead calls end: OPTIONS to both sides, the longest duration of the configuration and of the flow; BYE to both sides,
`on_end`, and a record that says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from dialogkit import Stage
from mediakit import stage as media_stage

from orchestrator.core.calls.liveness import GONE, ONE_GONE, TOO_LONG
from orchestrator.core.settings import CoreLimits
from orchestrator.errors import InputError
from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.message import Request
from orchestrator.testing.peer import Peer

EVERY = 60.0
END = '    on_end: [log: \'${call.ended_by ?? "?"}: ${call.end_reason ?? "?"}\']\n'
RELAY = "  main:\n    on: invite\n    do: [{relay: {to: registered, ring: 60s}}]\n" + END


class Answering:
    """Answers the OPTIONS that a peer gets with a status, or 0 for none."""

    def __init__(self, stage: Stage, peer: Peer, status: int = 200) -> None:
        self.peer, self.status = peer, status
        self.numbers: list[int] = []
        stage.world.attach(peer.address, self.receive)

    def receive(self, data: bytes, source: tuple[str, int]) -> None:
        self.peer.receive(data, source)
        last = self.peer.received[-1]
        if isinstance(last, Request) and last.method in (b"OPTIONS", b"BYE"):
            if last.method == b"OPTIONS":
                self.numbers.append(last.cseq)
            if self.status:
                self.peer.answer(last, self.status)


def called(
    flows: str = RELAY, missed: int = 3, transports: tuple[str, str] = ("udp", "udp")
) -> tuple[Stage, Answering, Answering]:
    stage = Stage(flows, transports=transports, limits=CoreLimits(dialog_ping=EVERY, dialog_missed=missed))
    stage.alice_side, stage.bob_side = stage.answered()  # type: ignore[attr-defined]
    return stage, Answering(stage, stage.alice), Answering(stage, stage.bobs[1])


def ended(stage: Stage, reason: str) -> None:
    assert len(stage.world.engine.calls) == 0
    assert stage.said == [f"engine: {reason}"]
    assert [(record.ended_by, record.reason, record.code) for record in stage.records] == [("engine", reason, 200)]
    for peer in (stage.alice, stage.bobs[1]):
        bye = stage.got(peer, "BYE")
        assert reason.encode() in (bye.get(b"reason") or b"")


def test_both_sides_are_asked_with_the_number_of_their_last_request() -> None:
    """Whoever counts strictly may refuse it; any answer is life."""
    stage, alice, bob = called()
    bob.status = 500
    stage.world.run(EVERY * 5 + 1)
    assert (alice.numbers, bob.numbers) == ([0] * 5, [1] * 5)
    for number in (2, 3):
        stage.alice_side.ask("INFO")  # type: ignore[attr-defined]
        assert stage.got(stage.bobs[1], "INFO").cseq == number, "ours use none up"
    assert len(stage.world.engine.calls) == 1


@pytest.mark.parametrize("transports", [("tcp", "tcp"), ("tls", "udp"), ("ws", "wss")])
def test_both_sides_are_asked_and_ended_over_every_transport(transports: tuple[str, str]) -> None:
    stage, alice, bob = called(transports=transports)
    stage.world.run(EVERY * 2 + 1)
    assert (alice.numbers, bob.numbers) == ([0, 0], [1, 1])
    bob.status = 481
    stage.world.run(EVERY)
    ended(stage, ONE_GONE)


@pytest.mark.parametrize("which", [0, 1])
def test_one_phone_that_does_not_know_the_call_ends_it(which: int) -> None:
    stage, *sides = called()
    sides[which].status = 481
    stage.world.run(EVERY + 1)
    ended(stage, ONE_GONE)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("status", [0, 408])
def test_one_silent_phone_ends_the_call_behind_some_misses(which: int, status: int) -> None:
    stage, *sides = called()
    sides[which].status = status
    stage.world.run(EVERY * 3 - 1)
    assert len(stage.world.engine.calls) == 1
    stage.world.run(34)
    ended(stage, ONE_GONE)


def test_two_silent_phones_end_it_at_once() -> None:
    stage, alice, bob = called()
    alice.status = bob.status = 0
    stage.world.run(EVERY + 34)
    ended(stage, GONE)


def test_a_phone_that_speaks_is_there_whatever_it_does_with_options() -> None:
    stage, _, bob = called()
    bob.status = 0
    for _ in range(8):
        stage.world.run(EVERY)
        stage.bob_side.ask("UPDATE")  # type: ignore[attr-defined]
    assert len(stage.world.engine.calls) == 1
    stage.world.run(EVERY * 3 + 34)
    ended(stage, ONE_GONE)


def test_one_phone_may_be_silent_for_ever_where_the_configuration_says_so() -> None:
    stage, _, bob = called(missed=0)
    bob.status = 0
    stage.world.run(EVERY * 20)
    assert len(stage.world.engine.calls) == 1


def test_a_phone_that_comes_back_in_time_has_missed_nothing() -> None:
    stage, alice, _ = called()
    for _ in range(3):
        alice.status = 0
        stage.world.run(EVERY * 2)
        alice.status = 200
        stage.world.run(EVERY)
    assert len(stage.world.engine.calls) == 1


# --- the longest duration ---------------------------------------------------------------------------------------------

LONGEST = (
    "  main:\n    on: invite\n    max_duration: {}\n    vars: {{credit: 90s}}\n    do:\n      - set: {{credit: 40s}}\n"
)
ON = "      - relay: {to: registered, ring: 60s}\n" + END


@pytest.mark.parametrize(("asked", "seconds"), [("2m", 120), ("'${vars.credit}'", 40), ("99h", 12 * 3600)])
def test_a_flow_says_how_long_its_calls_may_last(asked: str, seconds: int) -> None:
    """A fixed time, or what a variable says at the answer; never more than the configuration."""
    stage, _, _ = called(LONGEST.format(asked) + ON)
    stage.world.run(seconds - 1)
    assert len(stage.world.engine.calls) == 1
    stage.world.run(2)
    ended(stage, TOO_LONG)


def test_a_call_that_rings_has_not_begun_to_last() -> None:
    stage = Stage(LONGEST.format("5s") + ON)
    stage.call()
    stage.bobs[0].answer(stage.bobs[0].requests("INVITE")[0], 180)
    stage.world.run(30)
    alice, _ = stage.respond(stage.bobs[0], 200)
    alice.ask("ACK", cseq=1)
    assert len(stage.world.engine.calls) == 1
    stage.world.run(6)
    assert stage.said == [f"engine: {TOO_LONG}"]


@pytest.mark.parametrize("steps", [("media: {server: fs1, answer: true}",), ("relay: {to: registered, via: fs1}",)])
def test_a_call_that_freeswitch_has_is_ended_there_as_well(steps: tuple[str, ...], tmp_path: Path) -> None:
    s = media_stage(tmp_path, *steps, more="    max_duration: 1m\n" + END)
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    s.world.run(59)
    assert (call.state, len(s.switch.channels) > 0) == ("answered", True)
    s.world.run(2)
    assert (call.state, s.switch.channels) == ("ended", {})
    assert s.said == [f"engine: {TOO_LONG}"]
    s.over()


def test_only_flows_with_a_call_have_one() -> None:
    text = "flowlang: 1\nflows:\n  save: {on: register, max_duration: 1h, do: [register: 1h]}\n"
    with pytest.raises(InputError) as caught:
        load_sources([Source("x.flow.yaml", text)])
    assert "max_duration: belongs to flows that have a call" in str(caught.value)
