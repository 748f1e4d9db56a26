"""A FreeSWITCH event costs what it costs, however many other channels are listened to: work is counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mediakit import recorded
from test_collect import Collecting
from test_socket_calls import channel_data

from orchestrator.core.switches.collector import Collector
from orchestrator.core.switches.detectors import Detectors
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run import effects
from orchestrator.testing.recordings import rewrite
from orchestrator.testing.world import World


def work_in(act: Callable[[], object]) -> int:
    """Calls and lines of Python that are run while it acts: a look through a list shows, whoever looks."""
    done = 0

    def count(frame: object, event: str, arg: object) -> Any:
        nonlocal done
        done += event in ("call", "line")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        act()
    finally:
        sys.settrace(before)
    return done


SLACK = 60
"""Lines by which the timer's heap is deeper; a look through 1,000 would show."""


class Busy:
    """One call that collects, and others beside it, each with a collector and a detector of a run of its own."""

    def __init__(self, tmp_path: Path, others: int) -> None:
        self.collecting = Collecting(tmp_path, "{max: 9, timeout: 60s}")
        self.world = self.collecting.stage.world
        engine = self.world.engine
        self.ended = 0
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

    def end_a_run(self) -> None:
        self.ended += 1
        self.detectors.forget(SimpleNamespace(id=1000 + self.ended))  # type: ignore[arg-type]

    def other_event(self) -> None:
        """A key on a channel that nobody listens to."""
        self.collecting.press("5", leg="nobody")


class Handed:
    """Channels of the dialplan whose flows wait for a key, each on a connection of its own."""

    FLOW = "flowlang: 1\nflows: {main: {on: {socket: '*'}, do: [{wait: dtmf, for: 1h}]}}\n"

    def __init__(self, calls: int) -> None:
        self.world = World(load_sources([Source("s.flow.yaml", self.FLOW)])[0])
        self.world.on_job = lambda job: {"ok": True, "text": "+OK"}
        self.number = 0
        for _ in range(calls):
            self.open()
        self.world.run()

    def open(self) -> None:
        self.number += 1
        data = channel_data(Unique__ID=f"uuid-{self.number}")
        self.world.engine.socket_opened(f"socket:{self.number}", data, lambda: None, self.world.now)

    def press(self, of: int) -> None:
        block = rewrite(recorded("dtmf", "DTMF").block, {"Unique-ID": f"uuid-{of}", "Event-Sequence": "900001"})
        self.world.engine.receive_esl(f"socket:{of}", EslEvent.plain(block), self.world.now)

    def close(self, of: int) -> None:
        self.world.engine.socket_closed(f"socket:{of}", "closed", self.world.now)


ACTS: dict[str, Callable[[Busy], object]] = {
    "a digit of a collect": lambda busy: busy.collecting.press("1"),
    "an event of another call": lambda busy: busy.other_event(),
    "the end of a run": lambda busy: busy.end_a_run(),
    "a channel comes": lambda busy: busy.create("new", busy.world.engine.channels.core_uuid("fs1")),
}
OF_THE_DIALPLAN: dict[str, Callable[[Handed], object]] = {
    "a digit": lambda handed: handed.press(2),
    "the end of a connection": lambda handed: handed.close(3),
    "a channel comes": lambda handed: handed.open(),
}
FEW, MANY = 10, 5_000


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Busy, Busy]:
    few, many = (Busy(tmp_path_factory.mktemp("busy"), others) for others in (FEW, MANY))
    return few, many


@pytest.mark.plain("counts lines of Python")
@pytest.mark.parametrize("act", ACTS, ids=str)
def test_the_cost_does_not_grow_with_what_else_is_under_way(busy: tuple[Busy, Busy], act: str) -> None:
    for each in busy:  # what is done for the first time may cost more
        ACTS[act](each)
    few, many = (work_in(lambda each=each: ACTS[act](each)) for each in busy)
    assert few > 20
    assert many <= few + SLACK


@pytest.fixture(scope="module")
def handed() -> tuple[Handed, Handed]:
    return Handed(FEW), Handed(1_000)


@pytest.mark.plain("counts lines of Python")
@pytest.mark.parametrize("act", OF_THE_DIALPLAN, ids=str)
def test_it_does_not_grow_with_other_channels_of_the_dialplan(handed: tuple[Handed, Handed], act: str) -> None:
    few, many = (work_in(lambda each=each: OF_THE_DIALPLAN[act](each)) for each in handed)
    assert few > 20
    assert many <= few + SLACK


@pytest.mark.plain("its calls have no run of a flow, only an id")
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


@pytest.mark.plain("its calls have no run of a flow, only an id")
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
