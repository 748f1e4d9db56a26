"""What is over is freed at once, without the collector of cycles: that one walks all old objects, which stops every
call, so it runs seldom, and until then rings of references pile up (RSS 70 → 230 MB at 50 calls/s)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reliable import Callee, Caller, Plan

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding
from orchestrator.testing.world import World
from tools.journeys import RELAY

WAKE = """flowlang: 1
flows:
  call:
    on: invite
    do:
      - subscribe: registered
        where: {aor: '${call.to.aor}'}
        for: 20s
        unique_by: event.contact
        do: [inject: '${event.uri}']
      - subscribe: branch_failed
        limit: 1
        do: [log: '${event.code}']
      - relay: {to: registered, ring: 60s, keep_open: 10s}
        on: {else: [reply: 480]}
  phones:
    on: register
    do:
      - log: '${request.from.aor}'
      - register: {}
"""
WAITS = """flowlang: 1
flows:
  call:
    on: invite
    do:
      - first_of:
          - wait: registered
          - after: 1s
      - wait: registered
        where: {aor: nobody@example.com}
        for: 1s
        on_timeout: [log: nobody]
      - http: 'http://web.example.com/'
        on_error: [log: '${error.type}']
      - relay: {to: registered, ring: 60s, mode: serial, each: 1s}
        as: result
        on: {else: [sleep: 1s]}
    on_end:
      - log: '${call.from.user}'
"""

ROUNDS = 3


class Stage:
    """A world with one phone, used for some calls one after the other."""

    def __init__(self, program: Program | None, steps: list[tuple[float, int]]) -> None:
        self.world = World(program)
        self.world.on_job = lambda job: StepError("http.timeout", "no answer")
        self.phone = Callee(self.world, "bob", "10.0.2.1", Plan(steps))
        aor = "bob@example.com"
        self.world.location.save(aor, [Binding(aor, self.phone.uri, self.world.engine.wall + 99999)], 0)
        self.callers = [Caller(self.world, f"c{n}", f"10.0.1.{n + 1}") for n in range(2 * ROUNDS)]
        self.number = 0

    def play(self, give_up: bool) -> None:
        """A call that ends in whatever way, and a REGISTER."""
        caller, world = self.callers[self.number], self.world
        self.number += 1
        caller.call(b"bob@example.com")
        world.run(0.5 if give_up else 40.0)
        caller.cancel()
        for dialog in list(caller.dialogs.values()):
            dialog.hang_up()
        register = self.world.registered_phone(f"carol{self.number}@example.com", "10.0.3.1")
        register.register()
        world.run(120.0)
        assert caller.finals
        assert not any(world.leftovers().values())
        world.sent.clear()
        world.jobs.clear()
        for table in (self.phone.open, self.phone.invites, self.phone.dialogs):
            table.clear()


@pytest.fixture(scope="module", autouse=True)
def _what_was_there_before() -> Iterator[None]:
    """Is looked through once: `in_rings` takes it out of the collector's sight."""
    yield
    gc.unfreeze()


def in_rings(act: Callable[[], object]) -> dict[str, int]:
    """Types of ours, with numbers, of what only the collector frees of what `act` leaves behind."""
    gc.collect()
    gc.freeze()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        act()
        gc.collect()
        names = Counter(f"{type(o).__module__}.{type(o).__name__}" for o in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    return {name: number for name, number in names.items() if name.startswith("orchestrator.")}


@pytest.mark.parametrize("give_up", [False, True], ids=["to the end", "given up"])
@pytest.mark.parametrize("steps", [[(0.1, 180), (1.0, 200)], [(0.1, 180), (1.0, 486)], [(0.1, 302)], [(0.1, 180)]])
@pytest.mark.parametrize("flow", ["", RELAY, WAKE, WAITS], ids=["no flow", "relay", "wake", "waits"])
def test_calls_that_are_over_leave_no_rings(
    flow: str, steps: list[tuple[float, int]], give_up: bool, tmp_path: Path
) -> None:
    program = None
    if flow:
        path = tmp_path / "f.flow.yaml"
        path.write_text(flow, encoding="utf-8")
        program = load_program([path])[0]
        assert program is not None
    stage = Stage(program, steps)
    for _ in range(ROUNDS):
        stage.play(give_up)  # what is made once, and kept
    assert in_rings(lambda: [stage.play(give_up) for _ in range(ROUNDS)]) == {}


BUSY = """flowlang: 1
flows:
  message:
    on: message
    do:
      - relay: registered
        on: {else: [reply: 480]}
"""
SLOW = """flowlang: 1
flows:
  message:
    on: message
    do:
      - relay: registered
        on: {else: [sleep: 60s]}
"""


@pytest.mark.parametrize("status", [0, 486])
@pytest.mark.parametrize("flow", ["", BUSY, SLOW], ids=["no flow", "answers", "ends late"])
def test_messages_that_fail_leave_no_rings(flow: str, status: int, tmp_path: Path) -> None:
    program = None
    if flow:
        path = tmp_path / "f.flow.yaml"
        path.write_text(flow, encoding="utf-8")
        program = load_program([path])[0]
        assert program is not None
    world = World(program)
    alice, bob = world.peer("alice", "10.0.1.1"), world.peer("bob", "10.0.2.1")
    alice.register("alice@example.com")
    bob.register("bob@example.com")
    world.run()

    def play() -> None:
        bob.received.clear()
        alice.ask("MESSAGE", "sip:bob@example.com")
        world.run()
        if status:
            bob.answer(bob.requests("MESSAGE")[-1], status)
        assert bob.requests("MESSAGE")
        world.run(120.0)
        assert not any(world.leftovers().values())
        for peer in (alice, bob):
            peer.received.clear()
        world.sent.clear()

    play()
    assert in_rings(play) == {}
