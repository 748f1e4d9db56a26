"""`inject … cancel_others`: who rings loses the call to the new phone when that rings or answers, not before."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import Stage

from orchestrator.events.event import Event
from orchestrator.testing.phone import PhoneCall

FLOW = """
events: {{pickup: {{}}}}
flows:
  main:
    on: invite
    do:
      - subscribe: pickup
        limit: 1
        do: [inject: {{aor: carol@example.com, cancel_others: {when}, last: true}}]
      - relay: {{to: ['sip:bob@10.0.0.3:5060', 'sip:dora@10.0.0.5:5060'], mode: {mode}, each: 20s, ring: 40s{via}}}
        on: {{busy: [reply: 486], else: [reply: 480]}}
"""
WAYS = ("", ", via: fs1")


class Pickup(Stage):
    """Bob rings, and carol picks the call up; she does nothing by herself."""

    def __init__(self, tmp_path: Path, when: str = "true", via: str = "", mode: str = "serial") -> None:
        super().__init__(FLOW.format(when=when, via=via, mode=mode), tmp_path)
        self.dora = self.world.phone("dora@example.com", "10.0.0.5")
        self.carol.on_invite = lambda call: None
        self.caller = self.call("bob@example.com")
        assert [c.state for c in self.bob.calls] == ["ringing"]
        self.world.engine.bus.publish(Event("pickup", {}))
        self.world.engine.flows.drain()
        self.world.run(0.1)

    @property
    def bobs(self) -> PhoneCall:
        return self.bob.calls[0]

    @property
    def carols(self) -> PhoneCall:
        return self.carol.calls[0]

    def after(self) -> None:
        self.world.run(0.1)


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize("when", ["true", "when_ringing"])
def test_the_first_phone_stops_when_the_second_rings(when: str, via: str, tmp_path: Path) -> None:
    p = Pickup(tmp_path, when, via)
    assert p.bobs.state == "ringing", "the INVITE alone takes the call from nobody"
    p.carols.ring()
    p.after()
    assert p.bobs.cancelled and "Call completed elsewhere" in p.bobs.cancel_reason
    p.carols.answer()
    p.after()
    assert p.caller.state == "answered"
    p.caller.hangup()
    p.over()


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize("status", [486, 404, 503, 600])
def test_a_second_phone_that_refuses_at_once_loses_nothing(status: int, via: str, tmp_path: Path) -> None:
    """A 600 of the picker is the called user's word for everybody (RFC 3261 §21.6): it does end the call."""
    p = Pickup(tmp_path, via=via)
    p.carols.reject(status)
    p.after()
    if status == 600:
        assert p.bobs.cancelled
    else:
        assert p.bobs.state == "ringing"
        p.bobs.answer()
        p.after()
        assert p.caller.state == "answered"
        p.caller.hangup()
    p.over()


def test_a_second_phone_that_says_nothing_loses_nothing(tmp_path: Path) -> None:
    p = Pickup(tmp_path)
    p.carols.ring(100)
    p.world.run(10)
    assert p.bobs.state == "ringing"
    p.bobs.answer()
    p.after()
    assert p.caller.state == "answered" and p.carols.cancelled
    p.caller.hangup()
    p.over()


def test_an_answer_without_ringing_takes_the_call(tmp_path: Path) -> None:
    p = Pickup(tmp_path)
    p.carols.answer()
    p.after()
    assert p.caller.state == "answered" and p.bobs.cancelled
    p.caller.hangup()
    p.over()


def test_the_time_of_the_first_phone_is_not_that_of_the_second(tmp_path: Path) -> None:
    """`each:` was bob's."""
    p = Pickup(tmp_path)
    p.carols.ring()
    p.world.run(25)
    assert p.carols.state == "ringing" and p.dora.calls == []
    p.carols.answer()
    p.after()
    assert p.caller.state == "answered"
    p.caller.hangup()
    p.over()


def test_when_sent_stops_them_with_the_invite(tmp_path: Path) -> None:
    p = Pickup(tmp_path, "when_sent")
    assert p.bobs.cancelled
    p.carols.reject(486)
    p.after()
    assert p.caller.state == "ended"
    p.over()


def test_a_phone_that_rings_already_takes_the_call_at_once(tmp_path: Path) -> None:
    p = Pickup.__new__(Pickup)
    Stage.__init__(p, FLOW.format(when="true", via="", mode="parallel").replace("carol@", "bob@"), tmp_path)
    p.dora = p.world.phone("dora@example.com", "10.0.0.5")
    p.caller = p.call("bob@example.com")
    p.world.engine.bus.publish(Event("pickup", {}))
    p.world.engine.flows.drain()
    p.after()
    assert p.dora.calls[0].cancelled and p.bobs.state == "ringing"
    p.caller.hangup()
    p.over()
