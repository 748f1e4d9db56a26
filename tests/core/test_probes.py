"""Gateways are probed, held down and brought back; what a call shows counts, too."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from orchestrator.core.probes import HOLD, WATCH, Peer, Prober
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.message import Request
from orchestrator.testing.world import World

INPUTS = ("answered", "missed", "responded", "silent", "retry after", "hold over", "refused", "accepted")
FLOW = """\
flowlang: 1
gateways:
  a: {{uri: 'sip:10.0.1.1', probe: {probe}}}
  b: {{uri: 'sip:10.0.1.2', probe: 0s}}
flows:
  out:
    on: invite
    do:
      - relay: {{gateways: [a, b], mode: serial, each: 8s, failover_on: [5xx, timeout]}}
  down:
    on: gateway_down
    do: [log: 'down ${{event.gateway}}: ${{event.reason}}']
  up:
    on: gateway_up
    do: [log: 'up ${{event.gateway}}: ${{event.reason}}']
"""


class Stage:
    """Gateways `a`, probed, and `b`, which is not. `alive` is the status `a` answers OPTIONS with, 0 for silence."""

    def __init__(self, probe: str = "30s", alive: int = 200) -> None:
        program, warnings = load_sources([Source("f.flow.yaml", FLOW.format(probe=probe))])
        assert warnings == []
        self.world = World(program)
        self.told: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.told.append(effect.text)
        self.alive = alive
        self.times: list[float] = []
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.a = self.world.peer("a", "10.0.1.1")
        self.b = self.world.peer("b", "10.0.1.2")
        self.world.attach(self.a.address, self._hears)

    def _hears(self, data: bytes, source: Any) -> None:
        self.a.receive(data, source)
        message = self.a.received[-1]
        if isinstance(message, Request) and message.method == b"OPTIONS":
            self.times.append(self.world.now)
            if self.alive:
                self.a.answer(message, self.alive)

    def told_of(self, name: str) -> list[str]:
        return [text for text in self.told if f" {name}:" in text]

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)

    def call(self) -> str:
        """Place a call; the gateways that have an INVITE at once."""
        before = (len(self.a.requests("INVITE")), len(self.b.requests("INVITE")))
        self.alice.ask("INVITE", "sip:0049301@example.com")
        self.run()
        return "".join(
            name
            for name, peer, n in zip("ab", (self.a, self.b), before, strict=True)
            if len(peer.requests("INVITE")) > n
        )


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "what"), list(itertools.product(WATCH, INPUTS)))
def test_every_state_takes_every_input(state: str, what: str) -> None:
    """Nothing raises, and a peer that is down always has a way back that nobody has to take."""
    world = World(Program())
    told: list[tuple[str, bool, str]] = []
    prober = Prober(world.engine.network, lambda *fact: told.append(fact))
    prober.watch({"a": Peer(b"sip:10.0.1.1", 30.0)})
    watch = prober._watches["a"]
    watch.state = state
    was_up = watch.is_up
    watch.step(what, "why")
    assert watch.state in WATCH
    assert told == ([] if watch.is_up == was_up else [("a", watch.is_up, "why")])
    world.attach(("10.0.1.1", 5060), world.peer("a", "10.0.1.1").receive)
    if watch.state == "unavailable" and what == "retry after":
        world.run(HOLD + 1)
        assert watch.is_up


def test_the_table_by_hand() -> None:
    """The ways that the module's text promises, followed one after the other."""
    ways = {
        "untried missed missed": "untried",  # it may ignore OPTIONS
        "untried answered missed": "doubtful",
        "untried answered missed missed": "down",
        "untried answered missed answered": "up",
        "untried answered silent": "doubtful",  # one call may time out for reasons of its own
        "untried answered missed missed answered": "up",
        "untried silent": "down",
        "untried silent hold over": "untried",
        "untried answered missed missed responded": "untried",
        "up retry after answered": "unavailable",  # what it has said counts
        "up retry after hold over": "untried",
    }
    for way, end in ways.items():
        state, *inputs = way.replace("hold over", "hold_over").replace("retry after", "retry_after").split()
        for what in inputs:
            state = WATCH[state].get(what.replace("_", " "), (state, ()))[0]
        assert state == end, way


# --- probing ----------------------------------------------------------------------------------------------------------


def test_an_options_is_well_formed_and_comes_at_its_interval() -> None:
    stage = Stage()
    stage.run(95)
    assert stage.times == [0.0, 30.0, 60.0, 90.0]
    first = stage.a.requests("OPTIONS")[0]
    assert first.uri == b"sip:10.0.1.1"
    assert (first.max_forwards, first.to_tag, first.cseq) == (70, None, 1)
    assert first.from_.tag
    assert len({request.call_id for request in stage.a.requests("OPTIONS")}) == 4
    assert stage.b.requests("OPTIONS") == [], "0s sends none"


@pytest.mark.parametrize("status", [200, 401, 403, 404, 405, 501])
def test_any_answer_means_it_is_there(status: int) -> None:
    stage = Stage(alive=status)
    stage.run(40)
    assert stage.world.engine.gateways.prober.states()["a"]
    assert stage.call() == "a"


def test_a_gateway_that_stops_answering_is_passed_over_until_it_answers() -> None:
    """Up at 0 s. The probe of 30 s gets nothing until 34 s, the next one nothing until 38 s: down. Up at 64 s."""
    stage = Stage()
    stage.run(1)
    stage.alive = 0
    stage.run(36.5)
    assert stage.told_of("a") == []
    assert stage.call() == "a"
    stage.run(1)
    assert stage.told_of("a") == ["down a: no answer to OPTIONS"]
    assert stage.call() == "b", "at once, not after eight seconds"
    stage.alive = 200
    stage.run(26)
    assert stage.told_of("a")[1:] == ["up a: it answers OPTIONS"]
    assert stage.call() == "a"


def test_a_503_to_options_is_no_answer() -> None:
    stage = Stage()
    stage.run(1)
    stage.alive = 503
    stage.run(60)
    assert stage.told_of("a") == ["down a: it answers OPTIONS with 503 Service Unavailable"]


def test_a_gateway_that_never_answers_options_is_not_held_down_for_that() -> None:
    stage = Stage(alive=0)
    stage.run(300)
    assert stage.told_of("a") == [] and stage.call() == "a"


def test_a_gateway_that_ignores_options_and_calls_is_left_alone_for_a_minute() -> None:
    stage = Stage(alive=0)
    assert stage.call() == "a"
    stage.run(8.1)
    assert stage.told_of("a") == ["down a: no response to a call in 8 s"]
    assert stage.call() == "b"
    stage.run(HOLD)
    assert stage.told_of("a")[1:] == ["up a: it is tried again"]
    assert stage.call() == "a"


def test_ringing_for_eight_seconds_is_no_silence() -> None:
    stage = Stage(alive=0)
    stage.call()
    stage.a.answer(stage.a.requests("INVITE")[0], 100)
    stage.run(8.1)
    assert stage.told == []


def test_when_all_are_down_all_are_tried() -> None:
    stage = Stage(alive=0)
    assert stage.call() == "a"
    stage.run(16.2)
    assert [text.split(":")[0] for text in stage.told] == ["down a", "down b"]
    assert stage.call() == "a"
    stage.a.answer(stage.a.requests("INVITE")[-1], 486)
    stage.run()
    assert stage.told[2:] == ["up a: it answers calls again"]


def test_retry_after_is_believed() -> None:
    stage = Stage()
    stage.run(1)
    stage.call()
    stage.a.answer(stage.a.requests("INVITE")[0], 503, "Retry-After: 120 (maintenance)")
    stage.run()
    assert stage.told == ["down a: it takes no calls for 120 s"]
    stage.run(119)
    assert stage.call() == "b", "though it answers OPTIONS"
    stage.run(1.1)
    assert stage.told_of("a")[1:] == ["up a: it is tried again"]


def test_a_reload_keeps_what_is_known_and_forgets_gateways_that_are_gone() -> None:
    stage = Stage()
    stage.run(1)
    stage.alive = 0
    stage.run(40)
    engine = stage.world.engine
    same = load_sources([Source("f.flow.yaml", FLOW.format(probe="30s"))])[0]
    engine.load(same, stage.world.site)
    assert not engine.gateways.prober.is_up("a")
    engine.load(Program(), stage.world.site)
    assert engine.gateways.prober.states() == {}
    before = len(stage.times)
    stage.run(100)
    assert len(stage.times) == before
    assert stage.world.leftovers()["transactions"] == 0


def test_probes_of_many_gateways_are_spread() -> None:
    world = World(Program())
    prober = Prober(world.engine.network, lambda *fact: None)
    prober.watch({f"g{n}": Peer(b"sip:10.0.1.%d" % n, 30.0) for n in range(3)})
    world.run(29)
    sent = sorted(
        {target: at for at, source, target, _ in reversed(world.sent) if target[0].startswith("10.0.1")}.values()
    )
    assert sent == [0.0, 10.0, 20.0]
