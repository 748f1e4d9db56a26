"""A flow under a bad Event Socket: one recorded call, every event of it as the moment at which something goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.esl.codec import EslEvent
from orchestrator.flow.loader import Source, load_sources
from orchestrator.testing.faults import UNNOTICED, Faults, Line
from orchestrator.testing.recordings import Recording
from orchestrator.testing.replay import Replay, only_flow

ROOT = Path(__file__).parents[2]
RECORDING = Recording.load(ROOT / "tests" / "fixtures" / "esl" / "via_bridge.esl")
EVENTS = len(RECORDING.events)
SCREENED = "callee pressed 5"

SCREENING = """flowlang: 1
flows:
  screened:
    on: invite
    do:
      - subscribe: dtmf
        where: event.leg == 'callee'
        limit: 1
        do:
          - hangup: 'callee pressed ${event.digit}'
            if: event.digit != 2
      - relay: {to: registered, ring: 60s}
"""
"""Events and nothing else: FreeSWITCH is never asked for anything that a fault could take away."""

LINKS = """flowlang: 1
flows:
  watched:
    on: invite
    do:
      - subscribe: fs.link
        do:
          - log: 'link ${event.state}'
          - fs.api: status
            as: said
            on_error:
              - log: 'asked: ${error.type}'
      - relay: {to: registered, ring: 60s}
"""


class Watched(Replay):
    """Keeps which digits arrived."""

    def __init__(self, *arguments: object, **keys: object) -> None:
        super().__init__(*arguments, **keys)  # type: ignore[arg-type]
        self.digits = ""
        self.line.carry = self._carry  # type: ignore[method-assign]

    def _carry(self, event: EslEvent) -> bool:
        arrived = Line.carry(self.line, event)
        self.digits += event.get("DTMF-Digit") if arrived else ""
        return arrived


def replayed(faults: Faults, text: str = SCREENING) -> Watched:
    program, _ = load_sources([Source("told.flow.yaml", text)])
    called = "bob@example.com"
    replay = Watched(
        RECORDING, only_flow(program, program.flows[0].name), called=called, registered=[called], faults=faults
    )
    replay.run()
    assert replay.world.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}
    assert all(call.state == "ended" for phone in replay.world.phones.values() for call in phone.calls)
    return replay


def ending(replay: Replay) -> str:
    """Who ended the call and why; '' when there was none."""
    assert not any(trace.error for trace in replay.traces())
    return next((line.partition("call ended by ")[2] for line in replay.report() if "call ended by" in line), "")


def test_nothing_goes_wrong_unless_told_to() -> None:
    replay = replayed(Faults())
    assert ending(replay) == f"engine: {SCREENED}"
    assert (replay.line.arrived, replay.line.lost, replay.line.notes) == (EVENTS, 0, [])


def test_events_that_come_twice_are_heard_once() -> None:
    assert ending(replayed(Faults(duplicate=True))) == f"engine: {SCREENED}"


@pytest.mark.parametrize("every", range(1, EVENTS + 1))
def test_the_link_is_cut_after_each_so_many_events(every: int) -> None:
    """The key counts exactly when it was pressed while the link was up: also when the channel's birth was missed, for
    then it is asked about."""
    replay = replayed(Faults(cut=every))
    assert ending(replay) == (f"engine: {SCREENED}" if "5" in replay.digits else "caller: normal")
    assert replay.line.arrived + replay.line.lost == EVENTS


@pytest.mark.parametrize("after", range(1, EVENTS + 1))
def test_the_server_falls_silent(after: int) -> None:
    """Whether or not the key is heard, the call and its flow end."""
    replay = replayed(Faults(silence=after))
    assert ending(replay) in (f"engine: {SCREENED}", "caller: normal")
    assert replay.line.arrived == after


@pytest.mark.parametrize("after", range(1, EVENTS + 1))
def test_the_server_is_restarted(after: int) -> None:
    """Every channel it had is lost, and the call with it, unless the flow had ended that before."""
    replay = replayed(Faults(restart=after))
    found = ending(replay)
    assert found in ("", "engine: channel lost", f"engine: {SCREENED}", "caller: normal")
    if found == "engine: channel lost":
        (call,) = replay.calls
        told = [request.method for request in call.phone.requests]
        assert b"BYE" in told or call.statuses[-1] == 480, "the phones hear of it"


def test_two_replays_are_the_same_to_the_letter() -> None:
    assert list(replayed(Faults(cut=7)).report()) == list(replayed(Faults(cut=7)).report())


def test_flows_hear_of_the_link_and_their_commands_fail_in_time() -> None:
    assert logged(replayed(Faults(cut=30), LINKS)) == ["link down", "asked: esl.down", "link up"]
    silent = replayed(Faults(silence=30), LINKS)
    assert logged(silent) == [], f"the call is over before the {UNNOTICED:g} s are"


def logged(replay: Replay) -> list[str]:
    return re.findall(r"log: (link \w+|asked: \S+)", "\n".join(replay.report()))


def test_what_is_answered_about_a_channel_is_what_was_said_of_it() -> None:
    replay = Replay(RECORDING, only_flow(load_sources([Source("told.flow.yaml", SCREENING)])[0], "screened"))
    create = RECORDING.find("CHANNEL_CREATE")
    replay.line.open(RECORDING.core_uuid)
    replay.line.carry(create)
    answer = EslEvent.json(replay.line.dump(f"uuid_dump {create.uuid} json"))
    assert answer is not None
    assert (answer.name, answer.uuid, answer.core_uuid) == ("CHANNEL_DATA", create.uuid, RECORDING.core_uuid)
    assert answer.get("Call-Direction") == create.get("Call-Direction")
    assert replay.line.dump("uuid_dump another json").startswith("-ERR")
