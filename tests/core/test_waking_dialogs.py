"""Requests inside dialogs with phones that sleep (RFC 8599 §6): the phone has put the PURR that it was given into its
Contact, and is pushed before it gets one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_connections import EVERY
from wakekit import AOR, Night, program

from orchestrator.sip.push import Pushed
from orchestrator.testing.peer import Ask, Peer


class Talk:
    """alice and bob talk; bob's phone falls asleep."""

    def __init__(self, night: Night, method: str = "INVITE", purr: bool = True, transport: str = "udp") -> None:
        self.night = night
        self.bob = night.world.peer("bob", "10.0.0.11", 5060, transport, listens=transport == "udp")
        night.register(night.alice, aor="alice@example.com")
        answer = night.register(self.bob, "T1").final
        found = re.search(rb'\+sip\.pnspurr="([^"]+)"', b" ".join(answer.get_all(b"feature-caps")))
        assert found is not None
        self.contact = f"sip:bob@10.0.0.11;transport={transport}" + (f";pn-purr={found[1].decode()}" if purr else "")
        self.call = night.call(method=method)
        request = self.bob.requests(method)[0]
        self.bob.answer(request, 200, contact=f"<{self.contact}>")
        night.world.run()
        final = self.call.final
        self.sides = ((final.get(b"from") or b"").decode(), (final.get(b"to") or b"").decode())
        self.routes = [f"Route: <{(route.uri or b'').decode()}>" for route in final.record_routes()[::-1]]
        self.call_id = final.call_id.decode()
        self.number = 1
        if method == "INVITE":
            self.ask("ACK")
        night.world.run(60)

    def ask(self, method: str, cseq: int = 0) -> Ask:
        """alice speaks."""
        if method != "ACK":
            self.number += 1
        sender, to = self.sides
        ask = self.night.alice.ask(
            method, self.contact, *self.routes, sender=sender, to=to, call_id=self.call_id, cseq=cseq or self.number
        )
        self.night.world.run()
        return ask

    def wake(self, host: str = "10.0.0.11", name: str = "bob") -> Peer:
        """bob's phone registers."""
        peer = self.bob if host == "10.0.0.11" else self.night.world.peer(name, host)
        self.night.register(peer, "T1")
        return peer


FLOWS = pytest.mark.parametrize("flow", [False, True], ids=["without a flow", "in a flow"])


def talk(tmp_path: Path, flow: bool) -> Talk:
    return Talk(Night(program(tmp_path, "      - relay: {to: registered, wake: 20s}\n") if flow else None))


@FLOWS
@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE", "UPDATE"])
def test_a_request_waits_for_the_phone(method: str, flow: bool, tmp_path: Path) -> None:
    stage = talk(tmp_path, flow)
    before = len(stage.bob.requests(method))
    ask = stage.ask(method)
    assert stage.night.pushes == [("request", "T1")]
    assert ask.statuses == ([100] if method == "INVITE" else [])
    stage.night.world.run(3)
    stage.wake()
    assert stage.night.rung(stage.bob, method=method) == [before + 1]
    request = stage.night.reply(stage.bob, 200, method)
    assert request.uri == stage.contact.encode(), "as the dialog has it"
    assert ask.statuses[-1] == 200
    if method == "INVITE":
        stage.ask("ACK", stage.number)
    if method != "BYE":
        bye = stage.ask("BYE")
        stage.night.reply(stage.bob, 200, "BYE")
        assert bye.statuses == [200]
    stage.night.quiet()


def test_a_phone_that_wakes_up_elsewhere_gets_it_there() -> None:
    stage = Talk(Night())
    ask = stage.ask("BYE")
    moved = stage.wake("192.0.2.77", "moved")
    assert stage.night.rung(stage.bob, moved, method="BYE") == [0, 1]
    assert stage.night.reply(moved, 200, "BYE").uri == stage.contact.encode()
    assert ask.statuses == [200]
    stage.night.quiet()


def test_a_phone_that_is_awake_elsewhere_gets_it_there() -> None:
    stage = Talk(Night())
    moved = stage.wake("192.0.2.77", "moved")
    ask = stage.ask("BYE")
    assert (stage.night.pushes, stage.night.rung(stage.bob, moved, method="BYE")) == ([], [0, 1])
    stage.night.reply(moved, 200, "BYE")
    assert ask.statuses == [200]
    stage.night.quiet()


def test_a_phone_without_purr_is_not_pushed() -> None:
    stage = Talk(Night(), purr=False)
    stage.ask("BYE")
    assert (stage.night.pushes, stage.night.rung(stage.bob, method="BYE")) == ([], [1])
    stage.night.reply(stage.bob, 200, "BYE")
    stage.night.quiet()


@pytest.mark.parametrize("method", ["BYE", "INVITE", "NOTIFY"])
def test_a_phone_that_does_not_register_gets_it_where_it_was(method: str) -> None:
    """It may be in the middle of a call, and no push has reached it."""
    stage = Talk(Night())
    before = len(stage.bob.requests(method))
    ask = stage.ask(method)
    stage.night.world.run(19)
    assert len(stage.bob.requests(method)) == before
    stage.night.world.run(1)
    stage.night.reply(stage.bob, 200, method)
    assert ask.statuses[-1] == 200
    if method == "INVITE":
        stage.ask("ACK", stage.number)
    stage.night.quiet()


@pytest.mark.parametrize("outcome", ["failed", "dead"])
def test_a_phone_that_cannot_be_pushed_gets_it_at_once(outcome: str) -> None:
    stage = Talk(Night())
    stage.night.answer = Pushed(outcome, "x")  # type: ignore[arg-type]
    ask = stage.ask("BYE")
    assert stage.night.rung(stage.bob, method="BYE") == [1]
    stage.night.reply(stage.bob, 200, "BYE")
    assert ask.statuses == [200]
    stage.night.quiet()


def test_nobody_hears_of_a_phone_that_has_gone_and_the_transaction_ends() -> None:
    stage = Talk(Night())
    ask = stage.ask("BYE")
    stage.night.world.run(60)
    assert ask.statuses == [] and stage.night.rung(stage.bob, method="BYE") == [1]
    stage.night.quiet()


@pytest.mark.parametrize(("method", "waits"), [("BYE", False), ("UPDATE", False), ("NOTIFY", True)])
def test_a_phone_that_talks_over_a_connection_is_awake(method: str, waits: bool) -> None:
    stage = Talk(Night(points=EVERY), transport="tls")
    ask = stage.ask(method)
    assert stage.night.rung(stage.bob, method=method) == [not waits]
    assert bool(stage.night.pushes) == waits
    if waits:
        stage.wake()
    stage.night.reply(stage.bob, 200, method)
    assert ask.statuses == [200]
    stage.night.world.cut(stage.bob)
    pushed = len(stage.night.pushes)
    bye = stage.ask("BYE")
    assert len(stage.night.pushes) == pushed + 1, "its connection is gone: it sleeps"
    stage.wake()
    stage.night.reply(stage.bob, 200, "BYE")
    assert bye.statuses == [200]
    stage.night.quiet()


def test_a_stop_sends_what_waits() -> None:
    stage = Talk(Night())
    ask = stage.ask("BYE")
    stage.night.engine.drain(stage.night.world.now)
    stage.night.world.run()
    stage.night.reply(stage.bob, 200, "BYE")
    assert ask.statuses == [200]


def test_a_reinvite_that_is_cancelled_before_the_phone_has_it() -> None:
    """Nobody else knows of it, so there is nobody to wait for (RFC 3261 §14.1)."""
    stage = Talk(Night())
    ask = stage.ask("INVITE")
    ask.cancel()
    stage.night.world.run()
    assert ask.statuses == [100, 487]
    ask.acknowledge()
    stage.wake()
    assert stage.night.rung(stage.bob) == [1]
    stage.night.quiet()


def test_a_purr_of_a_phone_that_is_not_registered_any_more() -> None:
    stage = Talk(Night())
    stage.night.world.location._put(AOR, ())
    stage.ask("BYE")
    assert (stage.night.pushes, stage.night.rung(stage.bob, method="BYE")) == ([], [1])
    stage.night.reply(stage.bob, 200, "BYE")
    stage.night.quiet()


def test_a_notify_inside_a_subscription_waits() -> None:
    """Long-lived dialogs are what PURRs are for: nobody keeps a phone awake for a subscription."""
    stage = Talk(Night(), "REFER")
    ask = stage.ask("SUBSCRIBE")
    assert stage.night.pushes == [("request", "T1")]
    stage.wake()
    stage.night.reply(stage.bob, 200, "SUBSCRIBE")
    assert ask.statuses == [200]
    stage.night.quiet()
