"""How many calls get through when the wires lose datagrams (reliability plan §5 and F6).

RFC 3261's timers allow so much and no more; a proxy between caller and phone must not lose a call of its own. The
bounds are those of the plan: for 1,000 calls and a loss of p each way on each of the two hops.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from reliable import Callee, Caller, Plan

from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.location import Binding
from orchestrator.testing.phone import Address
from orchestrator.testing.world import World

CALLS = 1000


def play(loss: float, double: float = 0.0, swap: float = 0.0, **settings: Any) -> tuple[list[Caller], Callee, World]:
    """1,000 calls, one a second, to a phone that rings at once and answers a second later."""
    chance = random.Random(7)

    def fate(data: bytes, source: Address, target: Address) -> tuple[float, ...]:
        if chance.random() < loss:
            return ()
        delay = 0.06 if chance.random() < swap else 0.01
        return (delay, delay + 0.02) if chance.random() < double else (delay,)

    world = World(**settings)
    phone = Callee(world, "bob", "10.0.2.1", Plan([(0.0, 180), (1.0, 200)]))
    world.location.save("bob@example.com", [Binding("bob@example.com", phone.uri, world.engine.wall + 86400)], 0)
    callers = [Caller(world, f"c{number}", f"10.1.{number // 250}.{number % 250 + 1}") for number in range(CALLS)]
    world.fate = fate
    for caller in callers:
        caller.call(b"bob@example.com")
        world.run(1.0)
        world.sent.clear()
    world.run(70.0)
    return callers, phone, world


@pytest.mark.parametrize(("loss", "at_least"), [(0.1, 999), (0.2, 990), (0.3, 930)])
def test_as_many_calls_get_through_as_the_timers_allow(loss: float, at_least: int) -> None:
    callers, phone, world = play(loss)
    assert sum(len(caller.up) for caller in callers) >= at_least
    assert set().union(*(caller.up for caller in callers)) == phone.up
    assert len(phone.invites) == len(set(phone.invites))
    assert not any(world.leftovers().values())


@pytest.mark.parametrize(("loss", "at_least"), [(0.05, 1000), (0.1, 998), (0.2, 985)])
def test_the_first_calls_of_strangers_get_through(loss: float, at_least: int) -> None:
    """Each caller has an address of its own that has shown nothing yet: it is told less often, and still is told."""
    callers, phone, _ = play(loss, sources=SourceLimits())
    assert sum(len(caller.up) for caller in callers) >= at_least
    assert len(phone.invites) == len(set(phone.invites))


def test_doubled_and_reordered_datagrams_make_no_second_call() -> None:
    callers, phone, world = play(0.05, double=0.01, swap=0.02)
    assert sum(len(caller.up) for caller in callers) == CALLS
    assert len(phone.invites) == len(set(phone.invites)) == CALLS
    assert not any(world.leftovers().values())
