"""A world with calls of flows, and their history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.flow.loader import load_program
from orchestrator.testing.phone import Phone
from orchestrator.testing.world import World
from orchestrator.views.call_history import CallHistory, HistoryBounds

RELAY = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - relay: registered\n"
BOUNDS = HistoryBounds()


class Kept:
    """A world of one flow, its history, and two phones that are registered."""

    def __init__(self, folder: Path, flow: str = RELAY, bounds: HistoryBounds = BOUNDS, **settings: Any) -> None:
        path = folder / "a.flow.yaml"
        path.write_text(flow)
        self.world = World(load_program([path])[0], **settings)
        self.world.fate = lambda data, source, target: (0.001,)
        """A message is under way for a millisecond, so that each has a time of its own."""
        self.history = CallHistory(self.world.engine, bounds)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.phone("bob@example.com", "10.0.0.3")
        self.bob.register()
        self.world.run(0.1)

    def id(self) -> str:
        """Of the one call that lives."""
        (call,) = self.world.engine.calls
        return call.id

    def call(self, phone: Phone | None = None) -> Any:
        call = (phone or self.alice).invite("bob@example.com")
        self.world.run(0.1)
        return call

    def items(self, call: str, after: str = "") -> list[dict[str, Any]]:
        told = self.history.facts(call, after)
        assert told is not None
        items: list[dict[str, Any]] = told["items"]
        return items

    def whole(self) -> str:
        """A call from its INVITE to its BYE; returns its id."""
        call = self.call()
        id = self.id()
        self.bob.calls[-1].answer()
        self.world.run(2)
        call.hangup()
        self.world.run(1)
        return id


def texts(items: list[dict[str, Any]], kind: str = "") -> list[str]:
    return [item["text"] for item in items if kind in ("", item["kind"])]
