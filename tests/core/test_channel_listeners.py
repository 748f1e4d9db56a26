"""A FreeSWITCH event costs what it costs, however many other channels are listened to: calls are counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mediakit import recorded
from test_collect import Collecting

from orchestrator.core.switches.collector import Collector
from orchestrator.core.switches.detectors import Detectors
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.run import effects
from orchestrator.testing.recordings import rewrite


def calls_in(act: Callable[[], object]) -> int:
    """Python calls that are made while it acts."""
    made = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return made


class Busy:
    """One call that collects, and others beside it, each with a collector and a detector of a run of its own."""

    def __init__(self, tmp_path: Path, others: int) -> None:
        self.collecting = Collecting(tmp_path, "{max: 9, timeout: 60s}")
        self.world = self.collecting.stage.world
        engine = self.world.engine
        self.detectors: Detectors = engine.steps.detectors
        core = engine.channels.core_uuid("fs1")
        for number in range(others):
            self.create(f"other-{number}", core)
            channel = engine.channels.get("fs1", f"other-{number}")
            assert channel is not None
            self.listen(channel, 1000 + number)

    def create(self, uuid: str, core: str) -> None:
        headers: dict[str, str | None] = {
            "Unique-ID": uuid, "Core-UUID": core, "Event-Sequence": None, "variable_sip_call_id": uuid,
            "Call-Direction": "outbound",
        }  # fmt: skip
        event = EslEvent.plain(rewrite(recorded("via_bridge", "CHANNEL_CREATE").block, headers))
        self.world.engine.channels.observe("fs1", event, self.world.now)

    def listen(self, channel: Channel, run: int) -> None:
        node = self.world.engine
        collect = effects.Collect(max=4, timeout=60.0, end="#", prompt="", leg="callee")
        Collector(node, channel, collect, lambda _: None, lambda _: None, lambda _: None).start()
        call: Any = SimpleNamespace(id=str(run), run=SimpleNamespace(id=run), over=False)
        detect = effects.Detect(what="decision", leg="callee", seconds=60.0)
        self.detectors.add(self.detectors.make(call, channel, detect))

    def other_event(self) -> None:
        """A key on a channel that nobody listens to."""
        self.collecting.press("5", leg="nobody")


ACTS: dict[str, Callable[[Busy], object]] = {
    "a digit of a collect": lambda busy: busy.collecting.press("1"),
    "an event of another call": lambda busy: busy.other_event(),
    "the end of a run": lambda busy: busy.detectors.forget(SimpleNamespace(id=1001)),  # type: ignore[arg-type]
    "a channel comes": lambda busy: busy.create("new", busy.world.engine.channels.core_uuid("fs1")),
}


@pytest.mark.parametrize("act", ACTS, ids=str)
def test_the_cost_does_not_grow_with_what_else_is_under_way(tmp_path: Path, act: str) -> None:
    few, many = (Busy(tmp_path, others) for others in (10, 5_000))
    ACTS[act](few), ACTS[act](many)
    spent, spent_among_many = (calls_in(lambda busy=busy: ACTS[act](busy)) for busy in (few, many))
    assert spent_among_many <= spent + 5


def test_a_digit_is_heard_by_the_listener_of_its_channel_alone(tmp_path: Path) -> None:
    busy = Busy(tmp_path, 3)
    busy.collecting.press("1", "2", leg="other-1")
    heard = {uuid: busy.world.engine.channels.get("fs1", uuid) for uuid in ("other-0", "other-1", "other-2")}
    keys = {
        uuid: [listener.keys for listener in channel.listeners if isinstance(listener, Collector)]
        for uuid, channel in heard.items()
        if channel is not None
    }
    assert keys == {"other-0": [""], "other-1": ["12"], "other-2": [""]}


def test_what_has_ended_listens_no_more(tmp_path: Path) -> None:
    busy = Busy(tmp_path, 1)
    channel = busy.world.engine.channels.get("fs1", "other-0")
    assert channel is not None
    assert len(channel.listeners) == 2
    busy.collecting.press("5", leg="other-0")
    (collector,) = channel.listeners
    assert isinstance(collector, Collector) and collector.keys == "5"
    collector.undo()
    assert channel.listeners == ()
    assert len(busy.detectors) == 0
