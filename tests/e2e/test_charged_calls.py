"""Charged calls on real sockets: the server in a process of its own, phones, and a CGRateS that calls back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cgrates_stub import CgratesStub

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

FLOW = """\
flowlang: 1
flows:
  charged:
    on: invite
    do:
      - subscribe: limit_reached
        do: [log: 'limit reached']
      - subscribe: charge_stop
        do: [log: 'stopped: ${event.reason}']
      - subscribe: low_balance
        do: [log: 'low balance']
      - charge: {account: '${call.from.user}', destination: '${call.target.user}'}
        on:
          denied: [{reply: 402}, stop]
          error: [{reply: 503}, stop]
      - relay: registered
"""
ACCOUNTS = {"alice": 3600.0, "poor": 1.0, "broke": 0.0, "post": None}


class Stage:
    def __init__(self, folder: Path, serve: Any, stub: CgratesStub, **settings: Any) -> None:
        self.flow = folder / "charged.flow.yaml"
        self.flow.write_text(FLOW)
        self.stub = stub
        self.serve = serve
        self.settings = {"address": f"tcp://127.0.0.1:{stub.port}", "origin_host": "node1", **settings}
        self.server = self.begin()
        self.phones: list[SocketPhone] = []
        self.left = ""
        """The session that a killed server has left open."""
        self.bob = self.phone("bob@example.com")
        self.bob.register()
        assert wait_until(lambda: self.bob.registered == [200])

    def begin(self) -> Any:
        server = self.serve(flows=[str(self.flow)], services={"cgrates": self.settings})
        assert wait_until(lambda: self.stub.connections)
        return server

    def phone(self, aor: str) -> SocketPhone:
        phone = SocketPhone(aor, self.server.sip)
        self.phones.append(phone)
        return phone

    def talk(self, account: str = "alice") -> tuple[PhoneCall, PhoneCall, str]:
        """A call that is up, as both sides have it, and its session."""
        before = set(self.stub.sessions)
        caller = self.phone(f"{account}@example.com").invite("bob@example.com")
        assert wait_until(lambda: self.bob.calls and self.bob.calls[-1].state == "ringing")
        called = self.bob.calls[-1]
        called.answer()
        assert wait_until(lambda: set(self.stub.sessions) - before and caller.state == "answered")
        ((_, session),) = set(self.stub.sessions) - before
        return caller, called, session

    def over(self, caller: PhoneCall, called: PhoneCall, session: str) -> None:
        """BYE has reached both sides or one has sent it; the session was closed and recorded once."""
        stub = self.stub
        assert wait_until(lambda: caller.state == called.state == "ended")
        assert wait_until(lambda: session in [cdr["OriginID"] for cdr in stub.cdrs])
        assert [id for id, _ in stub.terminated].count(session) == 1
        assert session not in stub.unknown and ("node1", session) not in stub.sessions

    def away(self) -> None:
        """CGRateS goes away."""
        self.stub.stop()
        assert wait_until(lambda: not self.stub.connections)

    def back(self) -> None:
        """It comes back with what it knew."""
        self.stub.listen()

    def logged(self, text: str) -> bool:
        return wait_until(lambda: any(text in line for line in self.server.log))

    def close(self) -> None:
        for phone in self.phones:
            phone.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, serve_all: Any) -> Iterator[Stage]:
    stub = CgratesStub(ACCOUNTS)
    stage = Stage(tmp_path_factory.mktemp("flows"), serve_all, stub)
    yield stage
    stage.close()
    stub.stop()


@pytest.fixture(scope="module")
def successor(stage: Stage) -> Stage:
    """The same node, killed while a call was up, and begun again; it lets calls pass while CGRateS is away."""
    _, _, stage.left = stage.talk()
    stage.server.process.kill()
    assert wait_until(lambda: not stage.stub.connections)
    assert ("node1", stage.left) in stage.stub.sessions
    stage.settings["on_down"] = "allow"
    stage.server = stage.begin()
    stage.bob = stage.phone("bob@example.com")
    stage.bob.register()
    assert wait_until(lambda: stage.bob.registered == [200])
    return stage


def test_a_call_is_authorised_opened_closed_and_recorded(stage: Stage) -> None:
    caller, called, session = stage.talk()
    assert stage.stub.active() == {("node1", session)}
    caller.hangup()
    stage.over(caller, called, session)
    assert stage.stub.active() == set()
    events = [event["Event"] for _, event in stage.stub.heard if event.get("Event", {}).get("OriginID") == session]
    assert [event["RequestType"] for event in events] == ["*prepaid"] * 4
    assert all((event["Account"], event["Destination"]) == ("alice", "bob") for event in events)
    assert events[-1]["DisconnectCause"] and events[-1]["Usage"].endswith("s")


def test_a_call_is_cut_when_its_balance_is_used_up(stage: Stage) -> None:
    caller, called, session = stage.talk("poor")
    assert wait_until(lambda: called.bye is not None and caller.bye is not None)
    stage.over(caller, called, session)
    assert stage.logged("limit reached")
    assert [round(used) for id, used in stage.stub.terminated if id == session] == [1]


@pytest.mark.parametrize(("account", "status"), [("broke", 402), ("nobody", 402)])
def test_who_cannot_pay_is_refused(stage: Stage, account: str, status: int) -> None:
    before = len(stage.stub.sessions)
    call = stage.phone(f"{account}@example.com").invite("bob@example.com")
    assert wait_until(lambda: call.statuses and call.statuses[-1] == status)
    assert len(stage.stub.sessions) == before


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_cgrates_disconnects_a_call_in_each_generation(stage: Stage, generation: int) -> None:
    stage.stub.generation = generation
    caller, called, session = stage.talk("post")
    assert stage.stub.active() == {("node1", session)}
    answer = stage.stub.disconnect(session, f"INSUFFICIENT_CREDIT_{generation}")
    assert (answer["result"], answer["error"]) == ("OK", None)
    assert wait_until(lambda: called.bye is not None and caller.bye is not None)
    stage.over(caller, called, session)
    assert stage.logged(f"stopped: INSUFFICIENT_CREDIT_{generation}")
    stage.stub.generation = 2


def test_low_balance_and_a_new_limit(stage: Stage) -> None:
    caller, called, session = stage.talk()
    assert stage.stub.warn(session)["result"] == "OK"
    assert stage.logged("low balance")
    assert stage.stub.alter("another")["error"] == "NOT_FOUND"
    for wrong in ("nonsense", 10**400, float("inf")):
        assert stage.stub.alter(session, MaxUsage=wrong)["error"]
    assert stage.stub.alter(session, MaxUsage=-1)["result"] == "OK"
    for _ in range(50):  # a flow hears one of many warnings
        assert stage.stub.warn(session)["result"] == "OK"
    assert not wait_until(lambda: caller.state == "ended", 0.2)
    assert sum("low balance" in line for line in stage.server.log) == 1
    assert stage.stub.alter(session, MaxUsage="500ms")["result"] == "OK"
    stage.over(caller, called, session)


def test_what_it_does_not_know_is_answered(stage: Stage) -> None:
    connection = stage.stub.connections[-1]
    assert connection.call("AgentV1.Dance", {})["error"] == "NOT_IMPLEMENTED"
    assert connection.call("AgentV1.DisconnectSession", [1, None])["error"] == "NOT_FOUND"


def test_a_connection_that_is_lost_comes_back_and_calls_go_on(stage: Stage) -> None:
    caller, called, session = stage.talk()
    first = stage.stub.connections[-1]
    assert first.call("AgentV1.DisconnectPeer", {"DisconnectCause": 0})["result"] == "OK"
    assert wait_until(lambda: stage.stub.connections and stage.stub.connections[-1] is not first)
    assert stage.stub.active() == {("node1", session)}
    assert (caller.state, called.state) == ("answered", "answered")
    caller.hangup()
    stage.over(caller, called, session)


def test_while_cgrates_is_away_calls_are_refused_and_those_that_end_are_closed_later(stage: Stage) -> None:
    caller, called, session = stage.talk()
    stage.away()
    caller.hangup()
    assert wait_until(lambda: called.state == "ended")
    call = stage.phone("alice@example.com").invite("bob@example.com")
    assert wait_until(lambda: call.statuses and call.statuses[-1] == 503)
    stage.back()
    stage.over(caller, called, session)


def test_a_node_that_was_killed_leaves_no_session_open(successor: Stage) -> None:
    assert wait_until(lambda: not successor.stub.sessions)
    assert successor.stub.stale == [successor.left]


def test_a_call_that_is_allowed_while_cgrates_is_away_is_billed_later(successor: Stage) -> None:
    successor.away()
    call = successor.phone("alice@example.com").invite("bob@example.com")
    assert wait_until(lambda: successor.bob.calls and successor.bob.calls[-1].state == "ringing")
    successor.bob.calls[-1].answer()
    assert wait_until(lambda: call.state == "answered")
    call.hangup()
    cdrs = len(successor.stub.cdrs)
    successor.back()
    assert wait_until(lambda: len(successor.stub.cdrs) > cdrs)
    assert successor.stub.unknown == [successor.stub.cdrs[-1]["OriginID"]]


def test_a_node_that_is_told_to_stop_ends_its_charged_calls(successor: Stage) -> None:
    caller, called, session = successor.talk()
    successor.server.process.send_signal(signal.SIGTERM)
    successor.over(caller, called, session)
