"""Why a subscription has not fired: what it waits for, and the events that nearly were it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from historykit import RELAY, Kept

from orchestrator.views.unfired import NEAR, unfired

FLOW = RELAY.replace(
    "- relay",
    "- subscribe: registered\n        where: {aor: '${call.to.aor}'}\n        id: late\n        do: []\n      - relay",
)
WAITS = RELAY.replace(
    "- relay: registered", "- wait: registered\n        where: event.aor == 'carol@example.com'\n        for: 60s"
)
FIRST = RELAY.replace(
    "- relay: registered",
    "- first_of:\n          - wait: registered\n            where: {aor: 'carol@example.com'}\n            do: []\n"
    "          - after: 60s\n            do: []",
)


def told(kept: Kept) -> list[dict[str, Any]]:
    (run,) = kept.world.engine.flows.runs.values()
    return unfired(kept.world.engine, kept.history, run, kept.world.now)


def test_near_misses_of_a_subscription_and_why(tmp_path: Path) -> None:
    kept = Kept(tmp_path, FLOW)
    kept.call()
    kept.world.phone("carol@example.com", "10.0.0.4").register()
    kept.world.run(0.1)
    late, relay = told(kept)
    assert late["name"] == "main#1/late" and late["wanted"] == {"aor": "bob@example.com"} and late["taken"] == 0
    (seen,) = late["seen"]
    assert seen["fits"] is False and seen["why"] == "aor is 'carol@example.com', wanted 'bob@example.com'"
    assert seen["missed"] == {"aor": {"is": "carol@example.com", "wanted": "bob@example.com"}}
    assert relay["kind"] == "step" and "seen" not in relay


def test_an_event_before_it_was_armed_was_too_early(tmp_path: Path) -> None:
    kept = Kept(tmp_path, FLOW.replace("- subscribe", "- sleep: 1s\n      - subscribe"))
    kept.call()
    kept.world.engine.bus.tap("registered", lambda event: None)
    kept.bob.register()
    kept.world.run(1.5)
    late, _ = told(kept)
    assert [seen["why"] for seen in late["seen"]] == ["it came before this was armed"]


def test_the_newest_first_and_no_more_than_some(tmp_path: Path) -> None:
    kept = Kept(tmp_path, FLOW)
    kept.call()
    for number in range(NEAR + 5):
        kept.world.phone(f"u{number}@example.com", f"10.0.1.{number + 1}").register()
        kept.world.run(0.1)
    seen = told(kept)[0]["seen"]
    assert len(seen) == NEAR and f"u{NEAR + 4}@" in seen[0]["why"]


def test_a_wait_and_the_condition_that_was_false(tmp_path: Path) -> None:
    kept = Kept(tmp_path, WAITS)
    kept.call()
    kept.world.phone("dave@example.com", "10.0.0.5").register()
    kept.world.run(0.1)
    (wait,) = told(kept)
    assert wait["kind"] == "wait" and "dave@example.com" in wait["seen"][0]["why"]


def test_branches_of_first_of(tmp_path: Path) -> None:
    kept = Kept(tmp_path, FIRST)
    kept.call()
    kept.world.phone("dave@example.com", "10.0.0.5").register()
    kept.world.run(0.1)
    (wait,) = told(kept)
    assert wait["event"] == "registered" and len(wait["seen"]) == 1
