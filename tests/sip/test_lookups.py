"""Look-ups of host names: shared, bounded for callers and each of them, never for names of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.core.jobs import Job, Resolve
from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.locate import MISSED_LASTS, Found, Goal, found_at
from orchestrator.sip.lookups import MOST_OF_SOURCE, MOST_UNDER_WAY, LookUps
from orchestrator.testing.world import World
from orchestrator.timers import Timers

TTL = 60.0


class Desk:
    """Look-ups that the test answers."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.asked: dict[str, Callable[[Found | None], None]] = {}
        self.names = LookUps(self.timers, lambda goal, told: self.asked.__setitem__(goal.name, told), lambda text: text)
        self.told: list[tuple[str, str | None]] = []

    def find(self, host: str, source: str = "10.0.0.9") -> None:
        self.names.find(Goal(host), source, lambda found: self.told.append((host, self._first(host, found))))

    def _first(self, host: str, found: Found) -> str | None:
        return next(iter(found.addresses.get(host, ())), None)

    def answer(self, host: str, address: str | None) -> None:
        self.asked.pop(host)(None if address is None else found_at(Goal(host), address, ttl=TTL))


def test_one_look_up_serves_all_who_wait_for_the_name() -> None:
    desk = Desk()
    for number in range(30):
        desk.find("a.example", f"10.0.0.{number}")
    assert list(desk.asked) == ["a.example"]
    desk.answer("a.example", "192.0.2.1")
    assert desk.told == [("a.example", "192.0.2.1")] * 30
    assert len(desk.names) == 0


def test_one_who_raises_does_not_keep_the_answer_from_the_others() -> None:
    desk = Desk()

    def bug(_: Found) -> None:
        raise RuntimeError("a bug")

    desk.names.find(Goal("a.example"), "", bug)
    desk.find("a.example")
    with pytest.raises(RuntimeError):
        desk.answer("a.example", "192.0.2.1")
    assert desk.told == [("a.example", "192.0.2.1")]


@pytest.mark.parametrize(("address", "lasts"), [("192.0.2.1", TTL), (None, MISSED_LASTS)])
def test_answers_and_failures_are_kept(address: str | None, lasts: float) -> None:
    desk = Desk()
    desk.find("a.example")
    desk.answer("a.example", address)
    desk.timers.run_due(lasts - 0.1)
    desk.find("a.example")
    assert desk.told == [("a.example", address)] * 2 and not desk.asked
    desk.timers.run_due(lasts + 0.1)
    desk.find("a.example")
    assert list(desk.asked) == ["a.example"]


def test_a_source_has_a_bound_and_gets_its_part_back() -> None:
    desk = Desk()
    for number in range(MOST_OF_SOURCE + 5):
        desk.find(f"dead{number}.example")
    assert len(desk.asked) == MOST_OF_SOURCE
    assert [address for _, address in desk.told] == [None] * 5
    desk.find("good.example", "10.0.0.1")
    assert "good.example" in desk.asked
    desk.answer("dead0.example", None)
    desk.find("more.example")
    assert "more.example" in desk.asked
    for host in list(desk.asked):
        desk.answer(host, None)
    assert not desk.names._of_source and desk.names._of_callers == 0


def test_all_callers_together_have_a_bound_and_the_configuration_none() -> None:
    desk = Desk()
    desk.names.configure(frozenset(f"gw{number}.example" for number in range(20)))
    for number in range(MOST_UNDER_WAY + 50):
        desk.find(f"dead{number}.example", f"10.0.1.{number}")
    assert len(desk.asked) == MOST_UNDER_WAY and desk.names.refused == 50
    for number in range(20):
        desk.find(f"gw{number}.example")
    assert len(desk.asked) == MOST_UNDER_WAY + 20


def test_a_name_of_the_configuration_keeps_its_last_good_address() -> None:
    desk = Desk()
    desk.names.configure(frozenset(("gw.example",)))
    desk.find("gw.example")
    desk.answer("gw.example", "192.0.2.1")
    for round in (1, 2):
        desk.timers.run_due(round * 100.0)
        desk.find("gw.example")
        desk.answer("gw.example", None)
    assert desk.told == [("gw.example", "192.0.2.1")] * 3
    desk.timers.run_due(300.0)
    desk.find("gw.example")
    desk.answer("gw.example", "192.0.2.2")
    assert desk.told[-1] == ("gw.example", "192.0.2.2") and desk.names.known("gw.example") == {"192.0.2.2"}


def test_a_question_for_another_port_takes_nothing_from_the_peers() -> None:
    desk, servers, web = Desk(), Goal("gw.example"), Goal("gw.example", addressed=True)
    desk.names.configure(frozenset(("gw.example",)))
    for goal, address in ((servers, "192.0.2.1"), (web, "192.0.2.80")):
        desk.names.find(goal, "", lambda found: None)
        desk.answer("gw.example", address)
    assert desk.names.peers == desk.names.known("gw.example") == {"192.0.2.1", "192.0.2.80"}
    desk.timers.run_due(TTL + 1)
    desk.names.find(servers, "", lambda found: None)
    desk.answer("gw.example", "192.0.2.2")
    assert desk.names.peers == {"192.0.2.2", "192.0.2.80"}


def test_a_name_that_becomes_one_of_the_configuration_is_known_already() -> None:
    desk = Desk()
    desk.find("gw.example")
    desk.answer("gw.example", "192.0.2.1")
    desk.names.configure(frozenset(("gw.example", "other.example")))
    assert desk.names.peers == desk.names.known("gw.example") == {"192.0.2.1"}
    desk.names.configure(frozenset(("other.example",)))
    assert desk.names.peers == frozenset()


def test_strangers_names_push_out_the_one_used_least_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sip.lookups.MOST_KEPT", 100)
    desk = Desk()
    desk.find("used.example")
    desk.answer("used.example", "192.0.2.1")
    for number in range(300):
        desk.find(f"n{number}.example")
        desk.answer(f"n{number}.example", None)
        desk.find("used.example")
    assert len(desk.names._kept) == 100 and not desk.asked


# --- through the engine ----------------------------------------------------------------------------------------------

GATEWAY = """\
flowlang: 1
gateways:
  carrier: {uri: 'sip:gw.carrier.example'}
flows:
  out:
    on: invite
    when: call.target.user == '030'
    do:
      - relay: {gateways: carrier, ring: 30s}
"""


def test_eighty_datagrams_with_dead_names_do_not_delay_a_gateway_by_name() -> None:
    program, diagnostics = load_sources([Source("o.flow.yaml", GATEWAY)])
    assert not diagnostics, diagnostics
    world = World(program, sources=SourceLimits())
    jobs: list[Any] = []

    def later(job: Job) -> object:
        jobs.append(job)
        return World.LATER

    world.on_job = later
    mallory, alice = world.peer("mallory", "10.0.0.66"), world.peer("alice", "10.0.0.2")
    carrier = world.peer("carrier", "10.0.0.3")
    for number in range(80):
        contact = f"<sip:x@dead{number}.example>"
        world_aor = f"m{number}@example.com"
        mallory.register(world_aor, contact)
        world.run()
        mallory.ask("INVITE", f"sip:{world_aor}")
        world.run()
    dead = [job.effect for job in jobs if isinstance(job.effect, Resolve)]
    assert 0 < len(dead) <= MOST_OF_SOURCE and not any(effect.configured for effect in dead)
    alice.ask("INVITE", "sip:030@example.com")
    world.run()
    [job] = [job for job in jobs if isinstance(job.effect, Resolve) and job.effect.host == "gw.carrier.example"]
    assert job.effect.configured
    world.engine.complete(job.id, "10.0.0.3", world.engine.timers.now)
    world.run()
    assert carrier.heard == ["INVITE"]
