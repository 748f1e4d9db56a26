"""Who waits for the ACK to a 2xx, and for how long (RFC 3261 §15)."""

from __future__ import annotations

import pytest

from orchestrator.sip.ack_wait import Handshakes
from orchestrator.sip.message import Request, parse_message
from orchestrator.timers import Timers

PATIENCE = 32.0
DIALOG = (b"c1", b"a", b"b")


class Waiting:
    """A party that keeps what it is told."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.heard: list[tuple[bytes, bool]] = []

    def on_confirmed(self) -> None:
        self.confirmed += 1

    def on_unconfirmed_request(self, request: Request, from_caller: bool) -> None:
        self.heard.append((request.method, from_caller))


def request(method: str, sender: str = "a", receiver: str = "b", call_id: str = "c1") -> Request:
    lines = [
        f"{method} sip:bob@10.0.0.3 SIP/2.0",
        "Via: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1",
        "Max-Forwards: 70",
        f"From: <sip:x@example.com>;tag={sender}",
        f"To: <sip:y@example.com>;tag={receiver}",
        f"Call-ID: {call_id}",
        f"CSeq: 1 {method}",
        "Content-Length: 0\r\n\r\n",
    ]
    message = parse_message("\r\n".join(lines).encode())
    assert isinstance(message, Request)
    return message


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def table(timers: Timers) -> Handshakes:
    return Handshakes(timers, PATIENCE)


def test_the_ack_ends_it_and_no_timer_was_needed(table: Handshakes, timers: Timers) -> None:
    party = Waiting()
    table.begin(DIALOG, party)
    assert (len(table), table.held, len(timers)) == (1, 0, 0)
    table.acknowledged(request("ACK"))
    table.acknowledged(request("ACK"))
    assert (party.confirmed, len(table)) == (1, 0)


@pytest.mark.parametrize("other", [("b", "a", "c1"), ("a", "x", "c1"), ("x", "b", "c1"), ("a", "b", "c2")])
def test_another_dialogs_ack_is_not_it(table: Handshakes, other: tuple[str, str, str]) -> None:
    """Not that of the callee to a re-INVITE of his, nor that of a phone that lost the race, nor of another call."""
    party = Waiting()
    table.begin(DIALOG, party)
    table.acknowledged(request("ACK", *other))
    assert (party.confirmed, len(table)) == (0, 1)


@pytest.mark.parametrize("later", [0.0, 10.0, 31.9, 40.0])
def test_without_an_ack_it_is_over_64_t1_after_the_answer(table: Handshakes, timers: Timers, later: float) -> None:
    party = Waiting()
    handshake = table.begin(DIALOG, party)
    timers.run_due(later)
    handshake.hold()
    handshake.hold()
    assert table.held == 1
    timers.run_due(31.99)
    assert party.confirmed == 0
    timers.run_due(max(later, PATIENCE))
    assert (party.confirmed, len(table), table.held, len(timers)) == (1, 0, 0, 0)


def test_one_ack_is_for_every_call_that_has_the_dialog(table: Handshakes) -> None:
    parties = [Waiting(), Waiting()]
    for party in parties:
        table.begin(DIALOG, party).hold()
    table.acknowledged(request("ACK"))
    assert [party.confirmed for party in parties] == [1, 1]
    assert len(table) == table.held == 0


def test_what_passes_meanwhile_is_told_to_whoever_holds_something_back(table: Handshakes) -> None:
    idle, holding = Waiting(), Waiting()
    table.begin(DIALOG, idle)
    table.passes(request("INFO"))
    handshake = table.begin(DIALOG, holding)
    handshake.hold()
    table.passes(request("INFO"))
    table.passes(request("BYE", "b", "a"))
    table.passes(request("BYE", "x", "a"))
    assert holding.heard == [(b"INFO", True), (b"BYE", False)]
    assert idle.heard == []


def test_what_was_dropped_is_told_nothing(table: Handshakes, timers: Timers) -> None:
    party = Waiting()
    handshake = table.begin(DIALOG, party)
    handshake.hold()
    handshake.drop()
    handshake.drop()
    table.acknowledged(request("ACK"))
    timers.run_due(100.0)
    assert (party.confirmed, len(table), table.held, len(timers)) == (0, 0, 0, 0)
