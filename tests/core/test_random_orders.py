"""A thousand random calls: forks, answers, failures, callers who give up, wires that lose, double and delay. Whatever
the order was, in the end both sides agree, nobody talks to nobody, and nothing is left (reliability plan F6, F7).

Times are taken from a coarse grid, so that things often happen at the same instant; that is where races are.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from reliable import Callee, Caller, Plan

from orchestrator.sip.location import Binding
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import InviteServer
from orchestrator.sip.target import Target
from orchestrator.testing.phone import Address
from orchestrator.testing.world import World

SEEDS = 1000
GROUPS = 20

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0, 31.5, 32.0, 40.0)
FAILURES = (302, 401, 404, 408, 480, 486, 488, 500, 503, 600, 603)


@dataclass
class Story:
    """One seed: the cast, what it will do, and the network between."""

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        r = self.random = random.Random(self.seed)
        self.world = World(seed=self.seed)
        self.loss = r.choice((0.0, 0.0, 0.05, 0.15))
        self.jitter = r.choice((0.0, 0.0, 0.05))
        self.world.fate = self.fate
        self.phones = [self.phone(number) for number in range(r.choice((1, 1, 2, 3, 4)))]
        self.callers = [Caller(self.world, f"caller{n}", f"10.0.1.{n + 1}") for n in range(r.choice((1, 1, 2)))]
        for caller in self.callers:
            begin = r.choice(GRID[:4])
            self.at(begin, caller.call, b"bob@example.com")
            if r.random() < 0.4:
                self.at(begin + r.choice(GRID), Caller.cancel, caller)
        self.late = [self.phone(9)] if r.random() < 0.3 else []
        for phone in self.late:
            self.at(r.choice(GRID), self.inject, phone)

    def at(self, delay: float, callback: object, argument: object) -> None:
        self.world.engine.timers.after(delay, callback, argument)  # type: ignore[arg-type]

    def phone(self, number: int) -> Callee:
        phone = Callee(self.world, f"bob{number}", f"10.0.2.{number + 1}", self.plan())
        aor = "bob@example.com" if number < 9 else "late@example.com"
        self.world.location.save(aor, [Binding(aor, phone.uri, self.world.engine.wall + 86400)], 0)
        return phone

    def inject(self, phone: Callee) -> None:
        """A phone that comes late joins every call that still rings, as an `inject` of a flow makes it."""
        for server in list(self.world.engine.layer.servers.values()):
            if isinstance(server, InviteServer) and isinstance(server.user, ResponseContext):
                server.user.add(Target(phone.uri))

    def plan(self) -> Plan:
        """Silent, ringing for ever, or ringing and answering, or just answering."""
        r = self.random
        steps: list[tuple[float, int]] = []
        if r.random() < 0.8:
            steps.append((r.choice(GRID[:5]), r.choice((100, 180, 180, 183))))
        if r.random() < 0.8:
            steps.append((r.choice(GRID), 200 if r.random() < 0.5 else r.choice(FAILURES)))
        return Plan(sorted(steps))

    def fate(self, data: bytes, source: Address, target: Address) -> tuple[float, ...]:
        r = self.random
        if self.loss and r.random() < self.loss:
            return ()
        delay = r.random() * self.jitter if self.jitter else 0.0
        return (delay, delay + 0.01) if self.loss and r.random() < 0.02 else (delay,)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Long enough for every phone that will ever answer, for timer C and for what follows it."""
        self.world.run(100.0)
        self.nobody_rings_for_a_call_that_is_over()
        self.world.run(180.0 + 3 * 32.0)

    def check(self) -> None:
        self.both_sides_agree()
        self.finals_are_of_one_kind()
        self.every_phone_was_rung_once_and_none_rings()
        self.hang_up()
        self.nothing_is_left()

    def nobody_rings_for_a_call_that_is_over(self) -> None:
        """A minute behind everybody's last word the CANCELs have arrived; timer C has nothing to do with it."""
        over = {caller.call_id for caller in self.callers if caller.finals}
        assert not over & {call_id for phone in self.phones + self.late for call_id in phone.ringing}

    def both_sides_agree(self) -> None:
        calls = set().union(*(caller.up for caller in self.callers))
        phones = self.phones + self.late
        assert calls == set().union(*(phone.up for phone in phones))
        assert all(dialog.state != "waiting" for phone in phones for dialog in phone.dialogs.values())
        assert all(len(caller.up) <= 1 for caller in self.callers)

    def finals_are_of_one_kind(self) -> None:
        """A caller hears 2xx, of one phone or several, or one failure: never both, never two."""
        for caller in self.callers:
            heard = set(caller.finals)
            assert heard <= {200} or len(heard) == 1
            assert 503 not in heard, "a 503 of a phone says nothing about us"
            assert heard or self.loss, "every call ends with an answer"

    def every_phone_was_rung_once_and_none_rings(self) -> None:
        for phone in self.phones + self.late:
            assert not phone.ringing
            assert len(phone.invites) == len(set(phone.invites))
            assert len(phone.invites) == len(self.callers) or self.loss or phone in self.late

    def hang_up(self) -> None:
        for caller in self.callers:
            for dialog in caller.dialogs.values():
                dialog.hang_up()
        self.world.run(80.0)
        assert not any(agent.up for agent in (*self.callers, *self.phones, *self.late))

    def nothing_is_left(self) -> None:
        engine = self.world.engine
        assert not any(self.world.leftovers().values())
        assert engine.layer.unanswered == 0
        assert len(engine.timers) <= 1, "the expiry of the registrations"
        for caller in self.callers:
            assert len(caller.layer) == 0


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_orders_leave_nobody_behind(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        story = Story(seed)
        try:
            story.play()
            story.check()
        except Exception as error:
            error.add_note(f"seed {seed}: {story.loss=} {story.jitter=} {[phone.plan for phone in story.phones]}")
            raise


def made_by_us(data: bytes) -> bool:
    """A request that begins at the proxy: its Via is the only one."""
    return data.count(b"\nVia:") == 1 and b"\r\nVia: SIP/2.0/UDP 10.0.0.1:5060" in data


def test_the_stories_are_worth_telling() -> None:
    """They hold what they are for: plain calls, forks, cancels that cross answers, phones released by us, long
    ringing."""
    seen: Counter[str] = Counter()
    for seed in range(0, SEEDS, 2):
        story = Story(seed)
        story.play()
        ours = [(at, data[:6]) for at, _, _, data in story.world.sent if made_by_us(data)]
        seen["released"] += b"BYE si" in (word for _, word in ours)
        seen["joined late"] += any(dialog.was_up for phone in story.late for dialog in phone.dialogs.values())
        seen["timer C"] += any(at >= 180.0 and word == b"CANCEL" for at, word in ours)
        for caller in story.callers:
            seen["crossed"] += caller.gave_up and 200 in caller.finals
            seen["cancelled"] += caller.gave_up and 487 in caller.finals
            seen["two answers"] += len(caller.dialogs) > 1
            seen["refused"] += any(status >= 300 for status in caller.finals)
            seen["answered"] += len(caller.up)
    assert all(seen.values()), seen
    assert len(seen) == 8


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = Story(4), Story(4)
    first.play()
    second.play()
    assert first.world.sent == second.world.sent
