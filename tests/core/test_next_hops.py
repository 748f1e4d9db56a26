"""Servers of a domain one after the other (RFC 3263 §4.3), in a world in memory: silence, refusals, 503, cut
connections, races. The caller gets one final answer always, and nothing is left."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.locate import Srv
from orchestrator.sip.points import ListenPoint
from orchestrator.testing.invariants import without_end
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import PROXY, World
from orchestrator.testing.zone import Zone

TCP, TLS = ListenPoint("10.0.0.1", 5060, "tcp"), ListenPoint("10.0.0.1", 5061, "tls")
CALL = "sip:030@carrier.example"
BACKUP: dict[tuple[str, str], tuple[Any, ...]] = {
    ("_sip._udp.carrier.example", "SRV"): (Srv(1, 0, 5060, "a.carrier.example"), Srv(2, 0, 5062, "b.carrier.example")),
    ("a.carrier.example", "A"): ("10.0.1.1",),
    ("b.carrier.example", "A"): ("10.0.1.2",),
}
FIRST, SECOND = ("10.0.1.1", 5060), ("10.0.1.2", 5062)


ALL = (ip_network("10.0.0.0/8"),)
Records = dict[tuple[str, str], tuple[Any, ...]]


class Stage:
    """alice, who is trusted, and a domain with two servers, `first` and `second`."""

    def __init__(self, records: Records | None = None, flows: str = "", **more: Any) -> None:
        program = None
        if flows:
            program, diagnostics = load_sources([Source("x.flow.yaml", flows)])
            assert not diagnostics, diagnostics
        more.setdefault("points", (ListenPoint(*PROXY), TCP, TLS))
        more.setdefault("trust", ALL)
        self.world = World(program, **more)
        self.zone = Zone(BACKUP if records is None else records)
        self.world.on_job = lambda job: self.zone.find(job.effect.goal)  # type: ignore[union-attr]
        self.alice = self.world.peer("alice", "10.0.0.2")

    def server(self, place: tuple[str, int], transport: str = "udp", listens: bool = True) -> Peer:
        return self.world.peer(f"s{place[0][-1]}", *place, transport, listens)

    def call(self, uri: str = CALL, body: bytes = b"", seconds: float = 0.0) -> Ask:
        ask = self.alice.ask("INVITE", uri, body=body)
        self.world.run(seconds)
        assert without_end(self.world.engine) == []
        return ask

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)
        assert without_end(self.world.engine) == []

    def over(self, ask: Ask) -> list[int]:
        """The final answers that the caller has had, but for repetitions, when everything has ended."""
        finals = list(dict.fromkeys(status for status in ask.statuses if status >= 200))
        ask.acknowledge()
        self.world.run(70.0)
        assert not any(self.world.leftovers().values()), self.world.leftovers()
        assert self.world.engine.layer.unanswered == 0 and not self.world.engine.layer.by_connection
        return finals


def test_the_configuration_says_how_long_a_server_has_and_is_avoided() -> None:
    stage = Stage(failover_after=1.0, avoid=300.0)
    first, second = stage.server(FIRST), stage.server(SECOND)
    ask = stage.call(seconds=1.1)
    second.answer(second.requests("INVITE")[0], 486)
    stage.run()
    assert stage.over(ask) == [486]
    stage.run(200.0)
    asked = len(first.requests("INVITE"))
    again = stage.call()
    assert len(first.requests("INVITE")) == asked
    second.answer(second.requests("INVITE")[-1], 486)
    stage.run()
    assert stage.over(again) == [486]


def test_the_first_server_is_asked_and_no_other_while_it_answers() -> None:
    stage = Stage()
    first, second = stage.server(FIRST), stage.server(SECOND)
    ask = stage.call()
    first.answer(first.requests("INVITE")[0], 180)
    stage.run(60.0)
    assert (ask.statuses, second.heard) == ([100, 180], [])
    first.answer(first.requests("INVITE")[0], 200)
    stage.run()
    assert stage.over(ask) == [200]


def test_a_dead_primary_costs_four_seconds_once() -> None:
    stage = Stage()
    second = stage.server(SECOND)
    ask = stage.call()
    stage.run(3.9)
    assert second.heard == []
    stage.run(0.2)
    assert second.heard == ["INVITE"]
    second.answer(second.requests("INVITE")[0], 200)
    stage.run()
    ask.acknowledge()
    again = stage.call(seconds=1.0)
    sent_on = [target for _, source, target, data in stage.world.sent if source == PROXY and data[:6] == b"INVITE"]
    assert sent_on[-1] == SECOND, "the dead one is not asked first for a while"
    second.answer(second.requests("INVITE")[-1], 486)
    stage.run()
    assert stage.over(again) == [486]


def test_all_servers_dead_is_one_408() -> None:
    stage = Stage()
    ask = stage.call()
    stage.run(3.0)
    assert ask.statuses == [100]
    stage.run(40.0)
    assert stage.over(ask) == [408]


@pytest.mark.parametrize("status", [503, 486, 600])
def test_only_503_leads_to_the_next_server(status: int) -> None:
    """RFC 3263 §4.3."""
    stage = Stage()
    first, second = stage.server(FIRST), stage.server(SECOND)
    ask = stage.call()
    first.answer(first.requests("INVITE")[0], status)
    stage.run()
    assert second.heard == (["INVITE"] if status == 503 else [])
    if status == 503:
        assert ask.statuses == [100]
        second.answer(second.requests("INVITE")[0], 503)
        stage.run()
        assert second.requests("INVITE")[0].via.branch != first.requests("INVITE")[0].via.branch
    assert stage.over(ask) == [500 if status == 503 else status], "503 is not passed on (RFC 3261 §16.7 step 6)"


def test_retry_after_keeps_a_server_out_for_that_time() -> None:
    stage = Stage()
    first, second = stage.server(FIRST), stage.server(SECOND)
    for round, seconds in enumerate((0.0, 100.0, 30.0)):
        stage.run(seconds)
        ask = stage.call()
        if round != 1:
            first.answer(first.requests("INVITE")[-1], 503, "Retry-After: 120 (resting)")
            stage.run()
        second.answer(second.requests("INVITE")[-1], 486)
        stage.run()
        assert [status for status in ask.statuses if status >= 200] == [486]
        ask.acknowledge()
    assert len(first.requests("INVITE")) == 2


def test_a_refused_datagram_leads_on_at_once() -> None:
    stage = Stage()
    second = stage.server(SECOND)
    stage.world.refusing.add(FIRST)
    ask = stage.call()
    assert second.heard == ["INVITE"]
    second.answer(second.requests("INVITE")[0], 200)
    stage.run()
    assert stage.over(ask) == [200]


@pytest.mark.parametrize("late", [180, 200, 486])
@pytest.mark.parametrize("winner", [200, 486, 0])
def test_what_a_server_says_that_was_too_slow_leaves_nobody_ringing(late: int, winner: int) -> None:
    stage = Stage()
    second, slow = stage.server(SECOND), stage.server(FIRST)
    ask = stage.call()
    stage.run(5.0)
    invite = slow.requests("INVITE")[0]
    if winner:
        second.answer(second.requests("INVITE")[0], winner)
        stage.run()
    slow.answer(invite, late)
    stage.run()
    if late == 180:
        assert slow.heard[-1] == "CANCEL"
        slow.answer(slow.requests("CANCEL")[0], 200)
        slow.answer(invite, 487)
        stage.run()
    elif late == 200:
        assert slow.heard[-2:] == ["ACK", "BYE"]
        slow.answer(slow.requests("BYE")[0], 200)
    if not winner:
        second.answer(second.requests("INVITE")[0], 200)
        stage.run()
    assert stage.over(ask) == [winner or 200]
    assert slow.heard[-1] in ("ACK", "BYE")


def test_a_caller_who_gives_up_stops_the_search() -> None:
    stage = Stage()
    second = stage.server(SECOND)
    ask = stage.call(seconds=2.0)
    ask.cancel()
    stage.run(60.0)
    assert second.heard == []
    assert stage.over(ask) == [487]


def test_requests_that_are_no_invite_go_on_too() -> None:
    stage = Stage()
    second = stage.server(SECOND)
    ask = stage.alice.ask("MESSAGE", CALL)
    stage.run(5.0)
    assert second.heard[0] == "MESSAGE" and len({request.via.branch for request in second.requests()}) == 1
    second.answer(second.requests("MESSAGE")[0], 200)
    stage.run()
    assert stage.over(ask) == [200]


RING = """\
flowlang: 1
gateways:
  carrier: {uri: 'sip:carrier.example', probe: 0s}
flows:
  out:
    on: invite
    do:
      - relay: {gateways: carrier, ring: 6s}
        on: {no_answer: [reply: 480], else: [reply: 404]}
"""


def test_the_ring_time_counts_over_all_servers() -> None:
    stage = Stage(flows=RING)
    second = stage.server(SECOND)
    ask = stage.call("sip:030@example.com")
    stage.run(5.0)
    second.answer(second.requests("INVITE")[0], 180)
    stage.run(0.5)
    assert ask.statuses == [100, 180]
    stage.run(1.0)
    assert ask.statuses[:3] == [100, 180, 480] and list(dict.fromkeys(second.heard)) == ["INVITE", "CANCEL"]
    second.answer(second.requests("INVITE")[0], 487)
    stage.run()
    assert stage.over(ask) == [480]


PROBED = RING.replace("probe: 0s", "probe: 10s")


def test_a_probe_brings_the_primary_back() -> None:
    stage = Stage(flows=PROBED)
    first, second = stage.server(FIRST), stage.server(SECOND)
    silent = {FIRST}
    stage.world.fate = lambda data, source, target: () if target in silent else (0.0,)

    def answer_probes(seconds: float) -> None:
        for _ in range(round(seconds)):
            for peer in (first, second):
                for probe in peer.requests("OPTIONS"):
                    peer.answer(probe, 200)
                peer.received.clear()
            stage.run(1.0)

    answer_probes(20.0)
    assert stage.world.engine.gateways.prober.is_up("carrier"), "one of its servers answers"
    ask = stage.call("sip:030@example.com")
    assert second.heard[-1] == "INVITE", "at once: the probe has found the first one dead"
    second.answer(second.requests("INVITE")[0], 486)
    stage.run()
    ask.acknowledge()
    silent.clear()
    answer_probes(20.0)
    ask = stage.call("sip:030@example.com")
    assert first.heard[-1] == "INVITE"
    first.answer(first.requests("INVITE")[0], 486)
    stage.run()
    assert [status for status in ask.statuses if status >= 200] == [404]


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_refused_leads_on_and_nothing_is_repeated_on_one_that_stands() -> None:
    records = {
        ("_sip._tcp.carrier.example", "SRV"): BACKUP["_sip._udp.carrier.example", "SRV"],
        **{key: value for key, value in BACKUP.items() if key[1] == "A"},
    }
    stage = Stage(records)
    second = stage.server(SECOND, "tcp")
    ask = stage.call()
    stage.run(20.0)
    assert second.heard == ["INVITE"], "refused at once, and timer A does not run"
    assert second.requests("INVITE")[0].via.transport == b"TCP"
    second.answer(second.requests("INVITE")[0], 200)
    stage.run()
    assert stage.over(ask) == [200]
