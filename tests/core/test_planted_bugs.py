"""A bug of ours costs the input it struck and nothing else: every method of the core raises once, somewhere in calls,
registrations and messages, and afterwards every request has had one final answer and nothing is left."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialogs import Dialogs
from orchestrator.core.calls.flow_call import FlowCall
from orchestrator.core.calls.table import Calls
from orchestrator.core.faults import Fault
from orchestrator.core.jobs import Job
from orchestrator.core.registrations import Registration, Registrations
from orchestrator.core.request_routes import Routes
from orchestrator.core.request_view import RequestView
from orchestrator.core.requests import Requests
from orchestrator.core.steps import subjects
from orchestrator.core.steps.destinations import Destinations
from orchestrator.core.steps.performers import Performers
from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.core.steps.relaying import Relaying
from orchestrator.core.steps.replies import Replies
from orchestrator.core.steps.starts import Starts
from orchestrator.events.bus import Bus
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import Http
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.task import Task
from orchestrator.sip.ack_wait import Handshakes
from orchestrator.sip.branch import Branch
from orchestrator.sip.location import Binding, Location
from orchestrator.sip.registrar import Registrar
from orchestrator.sip.response_context import ResponseContext
from orchestrator.testing.invariants import without_end
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"

FLOW = """\
flowlang: 1
flows:
  calls:
    on: invite
    do:
      - subscribe: ringing
        do: [{log: '${event.code}'}]
      - subscribe: hangup
        do: [{log: '${event.cause}'}]
      - relay: {to: registered, ring: 20s}
        as: result
  phones:
    on: register
    do:
      - wait: dtmf
        for: 1s
        any_call: true
        on_timeout: []
      - register: {}
  heard:
    on: {event: registered}
    do: [{log: '${event.aor}'}]
"""


class Stage:
    """alice and two phones of bob; `faults` is what the engine was told."""

    def __init__(self, flows: bool) -> None:
        program = load_sources([Source("f.flow.yaml", FLOW)])[0] if flows else None
        self.world = World(program)
        self.faults: list[Fault] = []
        self.world.engine.faults.told = self.faults.append
        self.world.engine.flows.on_fault = lambda run, bug: None
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.phones = [self.world.peer(f"bob{n}", f"10.0.0.{n + 3}") for n in range(2)]
        self.asks: list[Ask] = []
        self.call_id = b""

    def ask(self, peer: Any, *arguments: Any, **given: Any) -> Ask:
        ask: Ask = peer.ask(*arguments, **given)
        self.asks.append(ask)
        self.run()
        return ask

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)
        assert without_end(self.world.engine) == []

    def register(self) -> None:
        for phone in self.phones:
            self.asks.append(phone.register("bob@example.com"))
            self.run(2)

    def answer(self, number: int, status: int) -> None:
        requests = [r for r in self.phones[number].requests("INVITE") if r.call_id == self.call_id]
        if requests:
            self.phones[number].answer(requests[-1], status)
        self.run()

    def call(self, call_id: str) -> Ask:
        self.call_id = call_id.encode()
        return self.ask(self.alice, "INVITE", BOB, call_id=call_id)

    def play(self) -> None:
        """Registrations, a call answered and ended, one refused by both, one nobody answers, one cancelled."""
        self.register()
        answered = self.call("one")
        self.answer(0, 180)
        self.answer(1, 180)
        self.answer(0, 200)
        if 200 in answered.statuses:
            to = "<sip:bob@example.com>;tag=bob0"
            route = f"Route: {(answered.final.get(b'record-route') or b'').decode()}"
            self.ask_in_dialog("ACK", route, to)
            self.ask_in_dialog("BYE", route, to)
        refused = self.call("two")
        self.answer(0, 486)
        self.answer(1, 603)
        self.call("three")
        self.answer(0, 180)
        self.run(25)
        cancelled = self.call("four")
        self.answer(0, 180)
        self.world.run()
        if not any(status >= 200 for status in cancelled.statuses):
            cancelled.cancel()
            self.run()
            self.answer(0, 487)
        self.run(5)
        assert refused.statuses
        self.run(600)

    def ask_in_dialog(self, method: str, route: str, to: str) -> None:
        self.alice.ask(method, "sip:bob@10.0.0.3", route, to=to, call_id="one", cseq=2 if method == "BYE" else 1)
        self.run()
        byes = self.phones[0].requests("BYE")
        if byes:
            self.phones[0].answer(byes[-1], 200)
            self.run()


CLASSES = (
    Requests, Call, Calls, RelayAttempt, ResponseContext, Branch, Registration, Registrations, Registrar, Location,
    RequestView, Performers, subjects, Starts, Relaying, Destinations, Replies, Routes, FlowEngine,
    Run, Task, Bus, Handshakes, FlowCall, Dialogs,
)  # fmt: skip
SELF_DEFENCE = {
    "struck", "fail", "abort", "forget", "_finish", "_disarm", "discard", "collapse", "served_by", "sweep", "begin",
    "part", "__repr__", "__iter__", "__len__",
}  # fmt: skip
"""What a fault is answered with: a second bug there is covered by the timers, after 64*T1."""


def methods() -> list[tuple[Any, str]]:
    found = []
    for kind in CLASSES:
        for name, function in vars(kind).items():
            if inspect.isfunction(function) and name not in SELF_DEFENCE and not inspect.isgeneratorfunction(function):
                found.append((kind, name))
    return found


class BugError(RuntimeError):
    pass


def plant(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, nth: int) -> Callable[[], int]:
    """The method raises at its nth call; returns how often it has been called."""
    original = vars(kind)[name]
    called = 0

    def broken(*arguments: Any, **named: Any) -> Any:
        nonlocal called
        called += 1
        if called == nth:
            raise BugError(f"{kind.__name__}.{name}")
        return original(*arguments, **named)

    monkeypatch.setattr(kind, name, broken)
    return lambda: called


def reached() -> Iterator[Any]:
    """Each method that the play calls, with and without flows; once more, to strike later, where it calls it again."""
    for flows, way in ((False, "default"), (True, "flows")):
        stage = Stage(flows)
        with pytest.MonkeyPatch.context() as monkeypatch:
            called = {at: plant(monkeypatch, *at, nth=0) for at in methods()}
            stage.play()
        for (kind, name), count in called.items():
            for nth in range(1, min(count(), 2) + 1):
                yield pytest.param(kind, name, flows, nth, id=f"{kind.__name__}-{name}-{way}-{nth}")


@pytest.mark.parametrize("flows", [False, True], ids=["default", "flows"])
def test_without_a_bug_all_goes_well(flows: bool) -> None:
    stage = Stage(flows)
    stage.play()
    assert stage.faults == []
    assert [ask.final.status for ask in stage.asks] == [200, 200, 200, 603, 408, 487]
    assert not any(stage.world.leftovers().values())


@pytest.mark.parametrize(("kind", "name", "flows", "nth"), list(reached()))
def test_a_bug_anywhere_leaves_every_request_answered_once_and_nothing_else(
    kind: type, name: str, flows: bool, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(flows)
    called = plant(monkeypatch, kind, name, nth)
    stage.play()
    assert called() >= nth
    for ask in stage.asks:  # a final answer is repeated, for nobody sends an ACK
        assert len({status for status in ask.statuses if status >= 200}) == 1, ask.statuses
    assert not any(stage.world.leftovers().values()), stage.world.leftovers()
    assert stage.world.engine.layer.unanswered == 0


@pytest.mark.plain("replaces a method of the core")
@pytest.mark.parametrize(
    ("kind", "name"), [(Call, "on_answered"), (RelayAttempt, "_finish"), (Run, "trace"), (Branch, "on_response")]
)
def test_a_bug_that_strikes_each_time_still_ends_every_call(
    kind: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(flows=True)
    stage.register()

    def broken(*arguments: Any, **named: Any) -> Any:
        raise BugError(name)

    monkeypatch.setattr(kind, name, broken)
    for number in range(5):
        call = stage.call(f"c{number}")
        stage.answer(0, 180)
        stage.answer(0, 200)
        stage.run(200)
        assert len({status for status in call.statuses if status >= 200}) == 1
    assert stage.faults or kind is Run
    assert not any(stage.world.leftovers().values())


# --- what strangers can send ------------------------------------------------------------------------------------------

NUL = "a\x00b"


@pytest.mark.parametrize("flows", [False, True], ids=["default", "flows"])
@pytest.mark.parametrize(
    ("method", "header", "status"),
    [
        ("REGISTER", f"Require: {NUL}", 400),
        ("REGISTER", f'Require: "{NUL}"', 400),
        ("REGISTER", f"Proxy-Require: {NUL}", 400),
        ("REGISTER", f'Supported: path\r\nPath: <sip:p.example.com;lr>;x="{NUL}"', 400),
        ("REGISTER", f'Supported: path\r\nPath: "{NUL}" <sip:p.example.com;lr>', 400),
        ("REGISTER", f"Supported: path\r\nPath: <sip:p.example.com;lr>;x={NUL}", 400),
        ("REGISTER", f"Supported: path, {NUL}", 400),
        ("REGISTER", f'Supported: path, "{NUL}"', 200),
        ("INVITE", f"Proxy-Require: {NUL}", 400),
        ("INVITE", f'Proxy-Require: "{NUL}"', 400),
        ("INVITE", 'Proxy-Require: a"b', 400),
        ("MESSAGE", f"Reason: {NUL}", 400),
        ("INVITE", f"Subject: {NUL}", 400),
        ("OPTIONS", f"Proxy-Require: {NUL}", 400),
    ],
)
def test_control_characters_reach_no_builder(method: str, header: str, status: int, flows: bool) -> None:
    stage = Stage(flows)
    uri = "sip:example.com" if method in ("REGISTER", "OPTIONS") else BOB
    lines = header.split("\r\n")
    ask = stage.ask(stage.alice, method, uri, "Contact: <sip:alice@10.0.0.2>", *lines, to="<sip:alice@example.com>")
    stage.run(2)
    assert ask.statuses[-1] == status
    assert stage.faults == []
    assert stage.world.engine.layer.unanswered == 0


def test_a_binding_that_no_message_can_hold_fails_its_branch_only() -> None:
    """One stored by an older version, say."""
    stage = Stage(flows=False)
    stage.register()
    aor, wall = "bob@example.com", stage.world.engine.wall
    bad = Binding(aor, b"sip:bob@10.0.0.9", wall + 600, call_id=b"x", cseq=1, path=(b'<sip:10.0.0.8;lr>;x="\0"',))
    stage.world.location.save(aor, [bad], wall)
    call = stage.call("c")
    stage.answer(0, 486)
    stage.answer(1, 486)
    assert call.statuses[-1] == 486
    assert stage.faults == []


HTTP_FLOW = """\
flowlang: 1
flows:
  ask:
    on: invite
    do:
      - http: https://example.net/x
        timeout: 5s
      - reply: 486
"""


def http_job() -> tuple[Stage, Ask, Job]:
    stage = Stage(flows=False)
    stage.world.engine.load(load_sources([Source("f.flow.yaml", HTTP_FLOW)])[0], stage.world.site)
    call = stage.call("c")
    (job,) = [job for job in stage.world.jobs if isinstance(job.effect, Http)]
    return stage, call, job


@pytest.mark.plain("replaces a method of the core")
def test_the_call_of_a_job_whose_completion_raises_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, call, job = http_job()

    def broken(*arguments: Any) -> None:
        raise BugError

    monkeypatch.setattr(FlowEngine, "resume", broken)
    stage.world.engine.complete(job.id, {"status": 200}, stage.world.now)
    monkeypatch.undo()
    stage.run()
    assert call.statuses == [100, 500]
    assert [fault.where for fault in stage.faults] == ["job"]
    stage.run(100)
    assert not any(stage.world.leftovers().values())


def test_the_run_is_found_that_a_function_inside_another_is_for() -> None:
    """In the compiled build such a function has no cells."""
    stage, call, job = http_job()
    done = stage.world.engine.done_of(job.id)
    stage.world.engine.faults.struck(Fault("job", BugError()), done)
    stage.run()
    assert call.statuses == [100, 500]


@pytest.mark.plain("replaces a method of the core")
def test_a_fault_says_whose_input_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(flows=False)

    def broken(*arguments: Any) -> None:
        raise BugError

    monkeypatch.setattr(Routes, "problem_of", broken)
    ask = stage.call("who")
    assert ask.statuses == [500]
    (fault,) = stage.faults
    assert (fault.where, fault.source, fault.call_id) == ("datagram", "10.0.0.2:5060", "who")
    assert isinstance(fault.error, BugError)


@pytest.mark.plain("replaces a method of the core")
def test_without_anybody_to_be_told_a_fault_is_raised_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(flows=False)
    stage.world.engine.faults.told = None

    def broken(*arguments: Any) -> None:
        raise BugError

    monkeypatch.setattr(Routes, "problem_of", broken)
    stage.alice.ask("INVITE", BOB)
    with pytest.raises(BugError):
        stage.world.run()
    assert stage.world.engine.datagrams[0][0].startswith(b"SIP/2.0 500 ")
