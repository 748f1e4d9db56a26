"""The table of calls, held against expectations written by hand, for every state and every input.

A real call is brought into the state by what phones and FreeSWITCH send, fed the input the same way, and what can be
seen from outside is compared: its state, what each side got, what its flow heard. What the table does not list must
change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_socket_calls import Handed
from test_socket_calls import program as socket_program

from orchestrator.core.calls.flow_call import CALL, ENDED, AnyCall, Ending
from orchestrator.flow.loader import load_program
from orchestrator.history import CallRecord
from orchestrator.sip.message import Request
from orchestrator.testing.invariants import without_end
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"
FLOW = """flowlang: 1
flows:
  main:
    on: invite
    do:
      - subscribe: hangup
        do: [{log: '${event.leg} hung up'}]
      - relay: {to: registered, ring: 60s}
        as: result
    on_end:
      - log: 'ended by ${call.ended_by ?? ""}'
"""


@dataclass(frozen=True)
class Then:
    """What an input leads to: next state, what each side got, what the flow heard."""

    state: str
    sent: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()


CALLER, ENGINE = ("caller hung up", "ended by caller"), ("ended by engine",)

SIP: Mapping[str, Mapping[str, Then]] = {
    "new": {
        "ringing": Then("ringing", ("alice 180",)),
        "answered": Then("answered", ("alice 200",)),
        "refused": Then(ENDED, ("alice 486",), ENGINE),
        "hangup": Then(ENDED, ("alice 480",), ENGINE),
        "hung up": Then(ENDED, ("alice 200", "alice 487"), CALLER),
        "left": Then(ENDED, ("alice 503",), ENGINE),
    },
    "ringing": {
        "answered": Then("answered", ("alice 200",)),
        "refused": Then(ENDED, ("alice 486", "bob CANCEL"), ENGINE),
        "hangup": Then(ENDED, ("alice 480", "bob CANCEL"), ENGINE),
        "hung up": Then(ENDED, ("alice 200", "alice 487", "bob CANCEL"), CALLER),
        "left": Then(ENDED, ("alice 503", "bob CANCEL"), ENGINE),
    },
    "answered": {
        "confirmed": Then("confirmed", ("bob ACK",)),
        "hangup": Then("parting", (), ENGINE),
        "hung up": Then(ENDED, ("bob BYE",), CALLER),
        "left": Then(ENDED, (), ENGINE),
    },
    "confirmed": {
        "hangup": Then(ENDED, ("alice BYE", "bob BYE"), ENGINE),
        "hung up": Then(ENDED, ("bob BYE",), CALLER),
        "left": Then(ENDED, (), ENGINE),
    },
    "parting": {
        "confirmed": Then(ENDED, ("alice BYE", "bob ACK", "bob BYE")),
        "hung up": Then(ENDED, ("bob BYE",)),
    },
    ENDED: {},
}
"""A SIP call. RFC 3261: 480 is what a caller is told whom nobody else answers (§21.4.18), 487 answers the INVITE of a
CANCEL and 200 the CANCEL itself (§9.2), CANCEL goes to a phone that has sent a provisional response (§9.1), BYE waits
for the ACK (§15)."""

SOCKET: Mapping[str, Mapping[str, Then]] = {
    "new": {
        "answered": Then("confirmed"),
        "hangup": Then(ENDED, ("uuid_kill NO_USER_RESPONSE",), ENGINE),
        "hung up": Then(ENDED, (), CALLER),
        "left": Then(ENDED, (), ENGINE),
    },
    "confirmed": {
        "hangup": Then(ENDED, ("uuid_kill NO_USER_RESPONSE",), ENGINE),
        "hung up": Then(ENDED, (), CALLER),
        "left": Then(ENDED, (), ENGINE),
    },
    ENDED: {},
}
"""A channel of the dialplan: nothing rings, nothing is refused, and the ACK is FreeSWITCH's affair."""

INPUTS = ("ringing", "answered", "confirmed", "refused", "hangup", "hung up", "left")
WAYS: Mapping[str, tuple[str, ...]] = {
    "new": (), "ringing": ("ringing",), "answered": ("answered",), "confirmed": ("answered", "confirmed"),
    "parting": ("answered", "hangup"), ENDED: ("hangup",),
}  # fmt: skip


class SipStage:
    """alice calls bob, through a flow."""

    expected = SIP

    def __init__(self, tmp_path: Path) -> None:
        path = tmp_path / "main.flow.yaml"
        path.write_text(FLOW, encoding="utf-8")
        self.world = World(load_program([path])[0])
        self.heard: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.heard.append(effect.text)
        self.alice, self.bob = self.world.peer("alice", "10.0.0.2"), self.world.peer("bob", "10.0.0.11")
        self.bob.register("bob@example.com")
        self.world.run()
        self.ask = self.alice.ask("INVITE", BOB, call_id="one")
        self.world.run()
        self.call: AnyCall
        (self.call,) = self.world.engine.calls
        self.forget()

    def forget(self) -> None:
        self.heard.clear()
        self.before = {peer.name: len(peer.received) for peer in (self.alice, self.bob)}

    def feed(self, what: str) -> None:
        {
            "ringing": lambda: self.bob.answer(self.invite, 180),
            "answered": lambda: self.bob.answer(self.invite, 200),
            "confirmed": lambda: self._in_dialog("ACK", 1),
            "refused": lambda: self.call.reply(486),  # type: ignore[attr-defined]
            "hangup": lambda: self.call.hangup("over", None),
            "hung up": self._hang_up,
            "left": lambda: self.call.leave("server stops"),
        }[what]()
        self.world.run()

    @property
    def invite(self) -> Request:
        return self.bob.requests("INVITE")[0]

    def _hang_up(self) -> None:
        if self.call.answered_at is None:
            self.ask.cancel()
        else:
            self._in_dialog("BYE", 2)

    def _in_dialog(self, method: str, cseq: int) -> None:
        route = f"Route: {(self.ask.final.get(b'record-route') or b'').decode()}"
        to = f"<{BOB}>;tag={(self.ask.final.to_tag or b'').decode()}"
        self.alice.ask(method, "sip:bob@10.0.0.11", route, to=to, call_id="one", cseq=cseq)

    def seen(self) -> Then:
        sent = []
        for peer in (self.alice, self.bob):
            for message in peer.received[self.before[peer.name] :]:
                what = message.method.decode() if isinstance(message, Request) else str(message.status)
                sent.append(f"{peer.name} {what}")
        return Then(self.call.state, tuple(sorted(sent)), tuple(self.heard))


class SocketStage:
    """A channel that the dialplan has handed over."""

    expected = SOCKET
    steps = """
- subscribe: hangup
  do: [{log: '${event.leg} hung up'}]
"""

    def __init__(self, tmp_path: Path) -> None:
        more = "on_end:\n  - log: 'ended by ${call.ended_by ?? \"\"}'\n"
        self.handed = Handed(socket_program(self.steps, more=more))
        self.world = self.handed.world
        self.heard = self.handed.logs
        self.call: AnyCall
        (self.call,) = self.world.engine.sockets
        self.forget()

    def forget(self) -> None:
        self.handed.logs.clear()
        self.handed.jobs.clear()

    def feed(self, what: str) -> None:
        {
            "answered": lambda: self.handed.hear("CHANNEL_ANSWER"),
            "hangup": lambda: self.call.hangup("over", 480),
            "hung up": lambda: self.handed.hear("CHANNEL_HANGUP"),
            "left": lambda: self.call.leave("server stops"),
        }[what]()
        self.world.run()

    def seen(self) -> Then:
        sent = tuple(f"{text.split()[0]} {text.split()[-1]}" for text in self.handed.did)
        return Then(self.call.state, sent, tuple(self.heard))


Stages = Callable[[Path], Any]
STAGES: tuple[Any, ...] = (SipStage, SocketStage)


def ways(stage: Any, state: str) -> tuple[str, ...]:
    return ("answered",) if stage is SocketStage and state == "confirmed" else WAYS[state]


def in_state(kind: Any, state: str, tmp_path: Path) -> Any:
    stage = kind(tmp_path)
    for what in ways(kind, state):
        stage.feed(what)
    stage.forget()
    assert stage.call.state == state
    return stage


PAIRS = [
    pytest.param(kind, state, what, id=f"{kind.__name__} {state}, {what}")
    for kind in STAGES
    for state in kind.expected
    for what in INPUTS
]
STATES = [pytest.param(kind, state, id=f"{kind.__name__} {state}") for kind in STAGES for state in kind.expected]


def test_the_table_lists_what_is_expected_and_nothing_else() -> None:
    listed = {state: {what: move.state for what, move in row.items()} for state, row in CALL.items()}
    assert listed == {state: {what: then.state for what, then in row.items()} for state, row in SIP.items()}


@pytest.mark.parametrize(("kind", "state", "what"), PAIRS)
def test_every_state_takes_every_input(kind: Any, state: str, what: str, tmp_path: Path) -> None:
    stage = in_state(kind, state, tmp_path)
    expected = kind.expected[state].get(what)
    if expected is not None:
        stage.feed(what)
        assert stage.seen() == expected
    elif what not in CALL[state]:
        assert stage.call.step(what, Ending("engine", "")) is False
        assert stage.seen() == Then(state)
    assert stage.call.shown == {"confirmed": "answered", "parting": ENDED}.get(stage.call.state, stage.call.state)
    assert stage.call.over is (stage.call.state in ("parting", ENDED))
    assert without_end(stage.world.engine) == []


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_no_state_is_without_an_end(kind: Any, state: str, tmp_path: Path) -> None:
    """Nobody says another word: time ends every call, and nothing is left of it."""
    stage = in_state(kind, state, tmp_path)
    assert without_end(stage.world.engine) == []
    stage.world.run(stage.world.engine.settings.limits.call_duration + 200.0)
    assert stage.call.state == ENDED
    assert not stage.world.engine.flows.runs
    assert len(stage.world.engine.handshakes) == 0


def test_from_every_state_the_end_can_be_reached() -> None:
    reached = {ENDED}
    for _ in CALL:
        reached |= {state for state, row in CALL.items() if any(move.state in reached for move in row.values())}
    assert reached == set(CALL)
    assert all("hung up" in row for state, row in CALL.items() if state != ENDED)


def test_a_call_that_a_handler_ends_while_it_is_being_ended_has_one_record(tmp_path: Path) -> None:
    """The branch whose name is still looked up fails inside of the hang-up; a handler of that hangs up, too."""
    path = tmp_path / "main.flow.yaml"
    handler = "      - subscribe: branch_failed\n        do: [{hangup: again}]\n"
    end = "    on_end:\n      - sleep: 1s\n"  # its run outlives the call
    text = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n" + handler
    path.write_text(text + "      - relay: {to: ['sip:bob@phone.example.net']}\n" + end, encoding="utf-8")
    world = World(load_program([path])[0])
    world.on_job = lambda job: world.LATER
    records: list[CallRecord] = []
    world.engine.history.listen(CallRecord, records.append)
    ask = world.peer("alice", "10.0.0.2").ask("INVITE", BOB)
    world.run()
    (call,) = world.engine.calls
    call.hangup("over", None)
    world.engine.flows.drain()
    world.run()
    assert [status for status in ask.statuses if status >= 200] == [480]
    assert [record.reason for record in records] == ["again"]
    world.run(5.0)
    assert without_end(world.engine) == []
