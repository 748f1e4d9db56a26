"""Overload: who is turned away at which age of the inputs, and who never is; bounds of messages and subscriptions."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from orchestrator.core import wire
from orchestrator.core.overload import Refusals
from orchestrator.core.settings import CoreLimits
from orchestrator.flow.loader import Source, load_sources
from orchestrator.sip.admission import SourceLimits
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import PROXY, World

BOB = "sip:bob@example.com"


class Stage:
    """alice and bob, who is registered; `age` is what the reactor would say."""

    def __init__(self, flows: str = "flowlang: 1", **limits: int) -> None:
        self.age = 0.0
        program, _ = load_sources([Source("o.flow.yaml", flows)])
        trust = (ip_network("10.0.0.0/24"),)
        self.world = World(program, trust=trust, age=lambda: self.age, limits=CoreLimits(**limits))
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bob = self.world.peer("bob", "10.0.0.3")
        self.do(self.bob.register("bob@example.com"))
        self.bob.received.clear()

    def do(self, ask: Ask) -> Ask:
        self.world.run()
        return ask

    def try_out(self, method: str, age: float, tries: int = 200) -> int:
        """How many of so many requests are refused."""
        self.age = age
        asks = [self.do(self.alice.ask(method, BOB)) for _ in range(tries)]
        refused = [ask for ask in asks if ask.statuses == [503]]
        for ask in refused:
            assert 1 <= int(ask.final.get(b"retry-after") or b"0") <= 8
        return len(refused)


@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "MESSAGE"])
@pytest.mark.parametrize(("age", "least", "most"), [(0.0, 0, 0), (0.05, 0, 0), (0.1, 40, 95), (0.2, 200, 200)])
def test_new_work_is_refused_in_a_share_that_grows_with_age(method: str, age: float, least: int, most: int) -> None:
    assert least <= Stage().try_out(method, age) <= most


def test_the_moment_to_come_back_is_not_the_same_for_all() -> None:
    stage = Stage()
    stage.age = 1.0
    asks = [stage.do(stage.alice.ask("INVITE", BOB)) for _ in range(50)]
    assert len({ask.final.get(b"retry-after") for ask in asks}) > 3


def test_a_refusal_leaves_nothing_behind() -> None:
    stage = Stage()
    left = stage.world.leftovers()
    assert stage.try_out("INVITE", 0.3) == 200
    assert stage.world.leftovers() == left
    assert stage.world.engine.counters["overload.INVITE"] == 200
    assert stage.bob.heard == []


@pytest.mark.parametrize(
    ("age", "refresh", "first"),
    [(0.1, 200, 200), (0.199, 200, 200), (0.3, 200, 503), (0.499, 200, 503), (0.6, 503, 503)],
)  # fmt: skip
def test_who_is_registered_stays_so_for_longer(age: float, refresh: int, first: int) -> None:
    stage = Stage()
    stage.age = age
    assert stage.do(stage.bob.register("bob@example.com", cseq=2)).statuses == [refresh]
    assert stage.do(stage.alice.register("alice@example.com")).statuses == [first]


def test_what_is_in_progress_goes_on() -> None:
    stage = Stage()
    call = stage.do(stage.alice.ask("INVITE", BOB, call_id="c"))
    stage.bob.answer(stage.bob.requests("INVITE")[0], 180)
    other = stage.do(stage.alice.ask("INVITE", BOB, call_id="d"))
    stage.age = 5.0
    stage.bob.answer(stage.bob.requests("INVITE")[0], 200)
    stage.world.run()
    assert call.statuses == [100, 180, 200]
    route, to = "Route: <sip:10.0.0.1:5060;lr>", "<sip:bob@example.com>;tag=bob"
    stage.do(stage.alice.ask("ACK", "sip:bob@10.0.0.3", route, to=to, call_id="c"))
    stage.do(stage.alice.ask("INVITE", "sip:bob@10.0.0.3", route, to=to, call_id="c", cseq=2))
    stage.do(stage.alice.ask("BYE", "sip:bob@10.0.0.3", route, to=to, call_id="c", cseq=3))
    stage.do(other.cancel())
    assert stage.bob.heard == ["INVITE", "INVITE", "ACK", "INVITE", "BYE"]
    assert other.statuses == [100, 487]
    call.again()
    stage.world.run()
    assert call.statuses == [100, 180, 200], "a repetition is nothing new"


def test_a_call_that_freeswitch_sends_on_is_in_progress() -> None:
    stage = Stage()
    stage.age = 5.0
    stage.world.engine.draining = True
    sent_on = stage.do(stage.bob.ask("INVITE", BOB, "X-Orchestrator-Call: some-call"))
    assert 503 not in sent_on.statuses
    assert stage.do(stage.alice.ask("INVITE", BOB)).statuses == [503]


def test_it_ends_when_the_load_does() -> None:
    stage = Stage()
    assert stage.try_out("INVITE", 1.0, tries=5) == 5
    assert stage.try_out("INVITE", 0.01, tries=5) == 0
    engine = stage.world.engine
    for age, share in ((0.0, 0.0), (0.125, 0.5), (9.0, 1.0)):
        stage.age = age
        assert engine.overload.share == pytest.approx(share)


# --- a request refused is refused for its repetitions, too ------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_a_share_that_falls_serves_no_repetition_of_what_was_refused(method: str) -> None:
    stage = Stage()
    stage.age = 0.125
    asks = [stage.do(stage.alice.ask(method, BOB)) for _ in range(100)]
    refused = [ask for ask in asks if ask.statuses == [503]]
    assert 30 <= len(refused) <= 70
    rang = len(stage.bob.heard)
    for age, pause in ((0.1, 0.5), (0.06, 1.0), (0.0, 2.0), (0.0, 28.0)):  # timer A, up to 64*T1
        stage.age = age
        stage.world.run(pause)
        for ask in refused:
            ask.again()
        stage.world.run()
    assert [set(ask.statuses) for ask in refused] == [{503}] * len(refused)
    assert rang == 100 - len(refused) and len({m.call_id for m in stage.bob.requests(method)}) == rang
    told = [{answer.get(b"retry-after") for answer in ask.responses} for ask in refused]
    assert all(len(one) == 1 for one in told), "the same answer each time (RFC 3261 section 8.2.7)"
    assert stage.try_out(method, 0.0) == 0


def test_the_same_request_is_in_the_share_or_out_of_it() -> None:
    """No coin: as long as the share does not rise, a repetition gets what the request got."""
    stage = Stage()
    stage.age = 0.125
    asks = [stage.do(stage.alice.ask("MESSAGE", "sip:nobody@example.com")) for _ in range(60)]
    first = [ask.statuses[-1] for ask in asks]
    assert {503} < set(first)
    for ask in asks:
        ask.again()
    stage.world.run()
    assert [set(ask.statuses) for ask in asks] == [{status} for status in first]


def test_what_a_full_table_refuses_stays_refused() -> None:
    stage = Stage(transactions=1)
    held = stage.do(stage.alice.ask("INVITE", BOB))
    refused = stage.do(stage.alice.ask("INVITE", BOB))
    stage.do(held.cancel())
    stage.bob.answer(stage.bob.requests("INVITE")[0], 487)
    stage.world.run()
    refused.again()
    stage.world.run()
    assert refused.statuses == [503, 503]
    assert stage.bob.heard.count("INVITE") == 1
    assert 503 not in stage.do(stage.alice.ask("INVITE", BOB)).statuses


def test_what_a_server_that_stops_refuses_stays_refused() -> None:
    stage = Stage()
    stage.world.engine.draining = True
    refused = stage.do(stage.alice.ask("INVITE", BOB))
    stage.world.engine.draining = False
    refused.again()
    stage.world.run()
    assert refused.statuses == [503, 503]


def test_the_memory_of_refusals_ends_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.core.overload.MOST_REFUSED", 50)
    stage = Stage()
    assert stage.try_out("INVITE", 1.0, tries=200) == 200
    refusals = stage.world.engine.overload.refusals
    assert len(refusals) <= 100
    last = stage.do(stage.alice.ask("INVITE", BOB, call_id="last"))
    stage.age = 0.0
    stage.world.run(65)
    last.again()
    stage.world.run()
    assert last.statuses == [503, 100]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_message_longer_than_allowed_is_refused_with_513() -> None:
    stage = Stage(message=1300)
    assert stage.do(stage.alice.ask("MESSAGE", BOB, body=b"x" * 1300)).statuses == [513]
    assert stage.bob.heard == []
    stage.do(stage.alice.ask("MESSAGE", BOB, body=b"x" * 100))
    assert stage.bob.heard == ["MESSAGE"]


LISTENING = """\
flowlang: 1
flows:
  f:
    on: invite
    do:
      - subscribe: registered
        do: [log: x]
      - wait: registered
        for: 60s
        any_call: true
        on_timeout: []
      - reply: 486
"""


def test_subscriptions_of_all_calls_together_are_bounded() -> None:
    stage = Stage(LISTENING, subscriptions=5)
    calls = [stage.do(stage.alice.ask("INVITE", BOB)) for _ in range(4)]
    assert [call.statuses for call in calls] == [[100], [100], [100, 500], [100, 500]]
    (trace,) = {trace.error for trace in stage.world.engine.flows.traces}
    assert trace == "flow.limit"
    assert len(stage.world.engine.bus) <= 5
    stage.world.run(61)
    assert [call.final.status for call in calls[:2]] == [486, 486]
    assert len(stage.world.engine.bus) == 0


def acknowledge(stage: Stage, ask: Ask) -> None:
    """RFC 3261 §17.1.1.3: on the branch of the INVITE, with the To of the answer."""
    to = (ask.final.get(b"to") or b"").decode()
    via = b"Via: " + (ask.final.get(b"via") or b"").partition(b";rport")[0]
    octets = b"\r\n".join(
        [
            b"ACK sip:bob@example.com SIP/2.0",
            via,
            b"Max-Forwards: 70",
            b"From: " + (ask.final.get(b"from") or b""),
            b"To: " + to.encode(),
            b"Call-ID: " + ask.final.call_id,
            b"CSeq: %d ACK" % ask.final.cseq,
            b"Content-Length: 0\r\n\r\n",
        ]
    )
    stage.world.post_from(stage.alice.address)(octets, PROXY)
    stage.world.run()


@pytest.mark.plain("replaces a function of the core")
def test_the_ack_of_a_refusal_costs_no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what a refusal costs was its ACK: with it 2× overload left 70 % of the calls, without it 85 %."""
    stage = Stage()
    stage.age = 1.0
    ask = stage.do(stage.alice.ask("INVITE", BOB))
    assert ask.statuses == [503]
    parsed: list[bytes] = []
    monkeypatch.setattr(wire, "parse_message", lambda data, most: parsed.append(data))
    acknowledge(stage, ask)
    assert parsed == []
    assert stage.world.engine.counters["ack.unmatched"] == 1
    assert stage.bob.heard == []


def test_the_ack_of_a_refusal_proves_a_stranger() -> None:
    stage = Stage()
    stage.world = World(age=lambda: 1.0, sources=SourceLimits())
    stage.alice = stage.world.peer("alice", "10.0.0.2")
    ask = stage.do(stage.alice.ask("INVITE", BOB))
    admission = stage.world.engine.admission
    source = admission.source_of("10.0.0.2", 0.0)
    assert ask.statuses == [503]
    assert not admission.is_proved(source, 0.0)
    acknowledge(stage, ask)
    assert admission.is_proved(source, 0.0)


def test_refusals_of_two_servers_have_different_marks() -> None:
    assert len({Refusals(32.0, bytes([number]) * 16).mark for number in range(4)}) == 4
