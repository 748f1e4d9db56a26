"""Phones that dial the server's address instead of its domain mean the same people (RFC 3261 §10.3, §16.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.flow.loader import load_program
from orchestrator.testing.world import World

FLOW = """flowlang: 1
flows:
  behind_a_prefix:
    on: invite
    do:
      - lookup: '${call.target.user.drop(2)}@${call.target.host}'
        as: found
      - log: 'registered: ${found.size()}'
      - relay: {aor: '${call.target.user.drop(2)}@${call.target.host}', ring: 30s, mode: MODE}
        on:
          else: [reply: 480]
"""


@pytest.mark.parametrize("mode", ["parallel", "by_q"])
@pytest.mark.parametrize("registered", ["bob@example.com", "bob@10.0.0.1"])
@pytest.mark.parametrize("dialled", ["88bob@example.com", "88bob@10.0.0.1", "88bob@10.0.0.1:5060", "88bob@EXAMPLE.com"])
def test_an_address_put_together_by_a_flow(tmp_path: Path, dialled: str, registered: str, mode: str) -> None:
    (tmp_path / "a.flow.yaml").write_text(FLOW.replace("MODE", mode))
    world = World(load_program([tmp_path])[0])
    said: list[str] = []
    world.engine.host.on_log = lambda run, effect: said.append(effect.text)
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone(registered, "10.0.0.3")
    bob.register()
    world.run()
    call = alice.invite(dialled)
    world.run(1)
    assert said == ["registered: 1"]
    assert call.statuses == [100, 180]
    assert len(bob.calls) == 1


def test_other_hosts_are_others(tmp_path: Path) -> None:
    network = World().engine.network
    assert network.home_aor("bob@10.0.0.1") == "bob@example.com"
    for aor in ("bob@10.0.0.2", "bob@example.com", "bob@sub.example.com", "bob", "", "@", "bob@"):
        assert network.home_aor(aor) == aor
