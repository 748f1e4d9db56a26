"""Calls through a FreeSWITCH in memory, and at some instant somebody dies: the server, its Event Socket, a phone, the
caller. Whatever the order was, in the end no transaction, run or call is left, and nobody who is alive talks to nobody
(issue: no transaction without an end, whatever dies).

Times are taken from a coarse grid that has the instants at which something else happens, too.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import pytest
from reliable import Agent, Callee, Caller, Plan

from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_sources
from orchestrator.history import CallRecord
from orchestrator.sip.location import Binding
from orchestrator.testing.phone import Address
from orchestrator.testing.switch.server import SWITCHES, VirtualFreeSwitch
from orchestrator.testing.world import World

SEEDS = 600
GROUPS = 12

SWITCH: Address = ("10.254.0.1", 5080)
GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 31.5, 60.0)
VICTIMS = ("server", "server", "stall", "link", "phone", "caller", "nobody")

FLOWS = """flowlang: 1
freeswitch: {fs1: {host: 10.254.0.1, password: x, sip: 'sip:10.254.0.1:5080'}}
flows:
  through:
    on: invite
    when: call.target.user == 'bob'
    do:
      - relay: {to: registered, via: fs1, ring: 30s}
        on: {else: [reply: 480]}
  menu:
    on: invite
    when: call.target.user == 'menu'
    do:
      - media: {server: fs1, answer: true}
      - collect: {max: 4, timeout: 100s}
        as: keys
      - hangup: 'no more'
  moved:
    on: invite
    when: call.target.user == 'moved'
    do:
      - media: {server: fs1, answer: true}
      - transfer: {to: 'sip:bob@example.com'}
  early:
    on: invite
    when: call.target.user == 'early'
    do:
      - media: {server: fs1}
      - play: 'hello.wav'
      - relay: {to: 'sip:bob@10.0.2.1', ring: 30s}
        on: {else: [reply: 480]}
"""


@cache
def program() -> Program:
    return load_sources([Source("orders.flow.yaml", FLOWS)])[0]


@dataclass
class Story:
    """One seed: who calls whom, what the phones will do, who dies when, and who comes back."""

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        r = self.random = random.Random(self.seed)
        self.world = World(program(), freeswitch={"fs1": "sip:10.254.0.1:5080"}, trust=(SWITCHES,), seed=self.seed)
        self.switch = VirtualFreeSwitch.in_world(self.world, "fs1", SWITCH)
        self.world.on_job = self.switch.perform
        self.faults: list[Exception] = []
        self.records: list[CallRecord] = []
        self.world.engine.history.listen(CallRecord, self.records.append)
        self.world.engine.flows.on_fault = lambda run, bug: self.faults.append(bug)
        self.phones = [self.phone(number) for number in range(r.choice((1, 1, 2)))]
        self.dialled = r.choice(("bob", "bob", "menu", "moved", "early"))
        self.caller = Caller(self.world, "alice", "10.0.1.1")
        self.at(0.0, lambda: self.caller.call(f"{self.dialled}@example.com".encode()))
        if r.random() < 0.3:
            self.at(r.choice(GRID), self.caller.cancel)
        self.victims = [r.choice(VICTIMS) for _ in range(r.choice((1, 1, 2)))]
        for victim in self.victims:
            self.at(r.choice(GRID) + r.choice((0.001, 0.01)), partial(self.dies, victim))
        self.dead: list[Agent] = []

    def at(self, delay: float, act: Callable[[], object]) -> None:
        self.world.call_at(delay, act)

    def phone(self, number: int) -> Callee:
        phone = Callee(self.world, f"bob{number}", f"10.0.2.{number + 1}", self.plan(number))
        bob = "bob@example.com"
        self.world.location.save(bob, [Binding(bob, phone.uri, self.world.engine.wall + 86400)], 0)
        return phone

    def plan(self, number: int) -> Plan:
        """Two phones do not answer at once: the FreeSWITCH in memory does not end the second dialog."""
        r = self.random
        steps = [(r.choice(GRID[:4]), 180)] if r.random() < 0.9 else []
        if r.random() < 0.8:
            steps.append((r.choice(GRID[2:8]) + number / 100, r.choice((200, 200, 200, 486, 603))))
        return Plan(sorted(steps))

    def dies(self, victim: str) -> None:
        r = self.random
        if victim == "server":
            self.switch.kill()
        elif victim == "stall":
            self.switch.kill(link_after=15.0)
        elif victim == "link":
            self.switch.drop_link()
        elif victim != "nobody":
            agent = self.caller if victim == "caller" else r.choice(self.phones)
            self.dead.append(agent)
            self.world.attach(agent.address, lambda data, source: None)
            agent.layer.send = lambda data, to: None
        if victim in ("server", "stall", "link") and r.random() < 0.5:
            back = self.switch.raise_link if victim == "link" else self.switch.start
            self.world.call_at(self.world.now + r.choice((0.5, 5.0, 20.0, 60.0)), back)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Agent]:
        return [agent for agent in (self.caller, *self.phones) if agent not in self.dead]

    def play(self) -> None:
        self.world.run(200.0)

    def check(self) -> None:
        assert self.faults == []
        if "server" in self.victims or "stall" in self.victims:
            for agent in self.alive:
                left = [dialog for dialog in agent.up if any(tag.startswith(b"freeswitch") for tag in dialog[1])]
                assert not left, f"{agent.name!r} talks to a dead FreeSWITCH"
        if self.caller not in self.dead:
            assert len(set(self.caller.finals)) == 1, "an INVITE gets exactly one final answer"
        for agent in self.alive:
            for dialog in agent.dialogs.values():
                dialog.hang_up()
        self.world.run(900.0)
        assert self.world.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}
        assert self.world.engine.layer.unanswered == 0
        assert not any(agent.up for agent in self.alive)
        if self.switch.linked:
            assert self.switch.channels == {}
        assert len(self.records) == 1


@pytest.mark.parametrize("group", range(GROUPS))
def test_whoever_dies_nothing_is_left_behind(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        story = Story(seed)
        try:
            story.play()
            story.check()
        except Exception as error:
            plans = [phone.plan.steps for phone in story.phones]
            error.add_note(f"seed {seed}: {story.dialled} {story.victims=} {plans}")
            raise


def test_the_stories_are_worth_telling() -> None:
    seen: Counter[str] = Counter()
    for seed in range(0, SEEDS, 2):
        story = Story(seed)
        story.play()
        seen.update(f"{victim} {story.dialled}" for victim in story.victims)
        seen["answered"] += 200 in story.caller.finals
        seen["refused"] += any(status >= 300 for status in story.caller.finals)
    assert all(seen[f"{victim} {dialled}"] for victim in VICTIMS for dialled in ("bob", "menu", "moved", "early"))
    assert seen["answered"] and seen["refused"]
