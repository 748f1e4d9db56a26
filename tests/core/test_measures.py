"""What is measured of calls: how long until it rings and is answered, how they end, what gateways answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import pytest

from orchestrator.flow.loader import Source, load_sources
from orchestrator.measures import MOST, OTHER, Histogram, Histograms, Reading, Tally
from orchestrator.runtime.gauges import export_engine
from orchestrator.runtime.metrics import Metrics
from orchestrator.testing.world import World

FLOW = """flowlang: 1
gateways: {carrier: {uri: 'sip:10.0.0.5'}}
flows:
  home:
    on: invite
    when: call.to.user == 'bob'
    do: [relay: registered]
  out:
    on: invite
    do: [relay: {gateways: [carrier]}]
"""


def build() -> tuple[World, Metrics]:
    program, _ = load_sources([Source("f.flow.yaml", FLOW)])
    world = World(program)
    metrics = Metrics()
    export_engine(metrics, world.engine)
    return world, metrics


def samples(metrics: Metrics, name: str) -> dict[str, float]:
    """Labels as text → value."""
    lines = metrics.exposition().decode().splitlines()
    found = (line.removeprefix(f"orchestrator_{name}").rsplit(" ", 1) for line in lines if f"_{name}" in line[:60])
    return {labels: float(value) for labels, value in found if not labels.startswith(("#", " "))}


def count_up_to(readings: Mapping[str, Reading], label: str) -> dict[float, int]:
    bounds, counts, _ = readings[label]
    return dict(zip(bounds, accumulate(counts), strict=False))


def test_a_call_that_rings_and_is_answered() -> None:
    world, metrics = build()
    bob = world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    world.run(0.1)
    bob.on_invite = lambda call: None
    call = world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(1.5)
    bob.calls[0].ring()
    world.run(4.0)
    bob.calls[0].answer()
    world.run(1)
    call.hangup()
    world.run(40)
    measures = world.engine.measures
    rang, answered = measures.post_dial_delay.readings, measures.setup_time.readings
    assert {bound: n for bound, n in count_up_to(rang, "home").items() if bound in (1.0, 2.0)} == {1.0: 0, 2.0: 1}
    assert {bound: n for bound, n in count_up_to(answered, "home").items() if bound in (5.0, 8.0)} == {5.0: 0, 8.0: 1}
    assert rang["home"][2] == pytest.approx(1.5, abs=0.1) and answered["home"][2] == pytest.approx(5.5, abs=0.1)
    assert samples(metrics, "calls_ended_total") == {'{code="200",flow="home"}': 1.0}
    assert samples(metrics, "post_dial_delay_seconds")['_bucket{flow="home",le="2.0"}'] == 1
    assert samples(metrics, "call_setup_seconds")['_count{flow="home"}'] == 1
    answers = samples(metrics, "requests_answered_total")
    assert answers['{code="200",method="INVITE"}'] == 1 and answers['{code="200",method="REGISTER"}'] == 1
    assert answers['{code="200",method="BYE"}'] == 1


def test_what_a_gateway_answers() -> None:
    world, metrics = build()
    alice = world.phone("alice@example.com", "10.0.0.2")
    carrier = world.phone("carrier@example.com", "10.0.0.5")
    carrier.on_invite = lambda call: call.reject(486)
    for _ in range(2):
        alice.invite("123@example.com")
        world.run(1)
    carrier.on_invite = lambda call: call.answer()
    alice.invite("123@example.com")
    world.run(1)
    found = {'{code="486",gateway="carrier"}': 2.0, '{code="200",gateway="carrier"}': 1.0}
    assert samples(metrics, "gateway_branches_total") == found
    assert samples(metrics, "calls_ended_total") == {'{code="486",flow="out"}': 2.0}


def test_unknown_methods_and_codes_make_no_labels_of_their_own() -> None:
    world, metrics = build()
    for number in range(5):
        world.engine.layer.answers[b"other", 400 + number] += 1
        world.engine.layer.answers[b"INVITE", 690 + number] += 1
    answers = samples(metrics, "requests_answered_total")
    assert answers['{code="6xx",method="INVITE"}'] == 5
    phone = world.phone("alice@example.com", "10.0.0.2")
    for number in range(3):
        octets = (
            f"FISH{number} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{number}\r\n"
            f"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: f{number}\r\n"
            f"CSeq: 1 FISH{number}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        phone.send(octets, ("10.0.0.1", 5060))
        world.run(40)
    assert not any("FISH" in labels for labels in samples(metrics, "requests_answered_total"))


def test_a_value_falls_into_the_bucket_of_its_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)
    assert histogram.reading == ((1.0, 2.0), (2, 2, 1), 104.0)


def test_labels_are_bounded() -> None:
    histograms, tally = Histograms((1.0,)), Tally()
    for number in range(3 * MOST):
        histograms.observe(f"flow{number}", 0.5)
        tally.count(f"flow{number}", "200")
    assert len(histograms.readings) == len(tally.counts) == MOST + 1
    assert tally.counts[OTHER, OTHER] == 2 * MOST
    assert histograms.readings[OTHER][1] == (2 * MOST, 0)
