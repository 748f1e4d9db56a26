"""`make run` with nothing set: any two phones register and call each other, whatever their names (README)."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.settings import load_settings
from orchestrator.sip.points import ListenPoint
from orchestrator.site import read_site
from orchestrator.testing.world import World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site() -> object:
    """The shipped configuration and flows in an empty environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return read_site(load_settings(Path("config/orchestrator.yml"), {}), {})


NAMES = ["alice", "bob", "charlie", "dave", "101", "200", "201", "8801", "88bob", "99bob", "1000", "+4930123456", "77"]


@pytest.mark.parametrize("domain", ["example.com", "10.0.0.1", "10.0.0.1:5070"])
@pytest.mark.parametrize("one", NAMES)
def test_two_phones_call_each_other(site: object, one: str, domain: str) -> None:
    other = NAMES[NAMES.index(one) - 1]
    world = World(site.program, points=(ListenPoint("10.0.0.1", 5070),))  # type: ignore[attr-defined]
    first, second = world.phone(f"{one}@{domain}", "10.0.0.2"), world.phone(f"{other}@{domain}", "10.0.0.3")
    for phone in (first, second):
        phone.proxy = ("10.0.0.1", 5070)
        phone.register()
    world.run()
    for caller, callee, name in ((first, second, other), (second, first, one)):
        call = caller.invite(f"{name}@{domain}")
        world.run(1)
        assert 180 in call.statuses, call.statuses
        callee.calls[-1].answer()
        world.run(1)
        assert call.state == "answered"
        call.hangup()
        world.run()
    assert world.engine.flows.stats.failed == 0


def test_nothing_is_left_out_and_what_lacks_a_value_is_named(site: object) -> None:
    assert site.left_out == []  # type: ignore[attr-defined]
    problems = " ".join(site.resolved.problems)  # type: ignore[attr-defined]
    assert "ESL_PASSWORD" in problems
