"""Requests that are no INVITE, given up by their senders (RFC 4320 §4.2) while a branch that began late is under way:
nothing is sent to them any more, and the flow goes on."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from wakekit import Night, program

from orchestrator.testing.peer import Peer

TRUST = (ip_network("10.0.0.0/8"),)


def stage(tmp_path: Path, relay: str) -> Night:
    steps = f"      - relay: {{to: registered, {relay}}}\n        as: sent\n"
    steps += "      - log: '${sent.outcome}'\n      - reply: 480\n"
    return Night(program(tmp_path, steps, on="message"), trust=TRUST)


def phones(night: Night) -> tuple[Peer, Peer]:
    return night.phone("one", "10.0.0.21"), night.phone("two", "10.0.0.22")


def test_nobody_answers_one_after_the_other(tmp_path: Path) -> None:
    night = stage(tmp_path, "mode: serial")
    one, two = phones(night)
    text = night.call(method="MESSAGE")
    night.world.run(80)
    assert night.rung(one, two, method="MESSAGE") == [1, 1]
    assert (night.said, text.statuses) == (["no_answer"], [])
    nothing_left(night)


@pytest.mark.parametrize(("status", "outcome"), [(200, "answered"), (404, "unavailable"), (603, "busy")])
def test_the_second_one_answers_too_late(tmp_path: Path, status: int, outcome: str) -> None:
    night = stage(tmp_path, "mode: serial")
    first, second = phones(night)
    text = night.call(method="MESSAGE")
    late = first if night.rung(second, method="MESSAGE") == [1] else second
    night.world.run(40)
    night.reply(late, status, "MESSAGE")
    assert len(night.said) == 1 and text.statuses == []
    assert night.said[0] == outcome or status != 200
    nothing_left(night)


@pytest.mark.parametrize("status", [0, 200, 480, 603])
def test_a_phone_that_wakes_up_late(tmp_path: Path, status: int) -> None:
    night = stage(tmp_path, "wake: 27s")
    phone = night.sleeper()
    text = night.call(method="MESSAGE")
    night.world.run(26)
    night.register(phone, "T1")
    night.world.run(8)
    if status:
        night.reply(phone, status, "MESSAGE")
    night.world.run(60)
    assert len(night.said) == 1 and text.statuses == []
    nothing_left(night)


@pytest.mark.parametrize("status", [0, 200, 480])
def test_without_a_flow(status: int) -> None:
    night = Night(trust=TRUST)
    phone = night.sleeper()
    text = night.call(method="MESSAGE")
    night.world.run(19)
    night.register(phone, "T1")
    night.world.run(15)
    if status:
        night.reply(phone, status, "MESSAGE")
    assert text.statuses == []
    nothing_left(night)


def nothing_left(night: Night) -> None:
    night.world.run(80)
    left = night.world.leftovers()
    assert not any(left.values()), left
    assert night.engine.faults.count == 0
    assert night.engine.flows.stats.faults == 0
    assert night.engine.layer.unanswered == 0
