"""What registered phones send each other besides calls; ACKs and challenges as phones and gateways really send them."""

from __future__ import annotations

import pytest

from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World


class Office:
    """alice and two phones of bob's, registered."""

    def __init__(self, **settings: object) -> None:
        self.world = World(**settings)  # type: ignore[arg-type]
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bobs = [self.world.peer("bob1", "10.0.0.11"), self.world.peer("bob2", "10.0.0.12")]
        self.alice.register("alice@example.com")
        for phone in self.bobs:
            phone.register("bob@example.com")
        self.world.run()
        for peer in (self.alice, *self.bobs):
            peer.received.clear()

    def ask(self, peer: Peer, method: str, uri: str, *headers: str, **more: str) -> Ask:
        ask = peer.ask(method, uri, *headers, **more)
        self.world.run()
        return ask


BOB = "sip:bob@example.com"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("MESSAGE", ()), ("INFO", ()), ("OPTIONS", ()), ("REFER", ("Refer-To: <sip:carol@example.com>",)),
        ("NOTIFY", ("Event: check-sync",)), ("SUBSCRIBE", ("Event: presence",)), ("SUBSCRIBE", ("Event: dialog;x=1",)),
    ],
)  # fmt: skip
def test_a_registered_phone_may_send_it_and_it_forks(method: str, headers: tuple[str, ...]) -> None:
    office = Office()
    asked = office.ask(office.alice, method, BOB, *headers)
    for phone in office.bobs:
        [got] = phone.requests(method)
        begins = method in ("REFER", "NOTIFY", "SUBSCRIBE")
        assert len(got.record_routes()) == begins, "what may begin a dialog comes back through us"
    office.bobs[1].answer(office.bobs[1].requests()[0], 200)
    office.world.run()
    office.bobs[0].answer(office.bobs[0].requests()[0], 404)
    office.world.run()
    assert asked.statuses == [200]


def test_never_back_to_the_phone_that_asked() -> None:
    office = Office()
    sent = office.ask(office.bobs[0], "MESSAGE", BOB, sender="<sip:bob@example.com>;tag=b")
    assert office.bobs[0].requests() == []
    assert len(office.bobs[1].requests("MESSAGE")) == 1
    assert sent.statuses == []
    alone = office.ask(office.alice, "MESSAGE", "sip:alice@example.com")
    assert alone.statuses == [480] and office.alice.requests() == []


@pytest.mark.parametrize(
    ("method", "uri", "package"),
    [
        ("SUBSCRIBE", "sip:alice@example.com", "message-summary"), ("SUBSCRIBE", "sip:alice@example.com", "presence"),
        ("SUBSCRIBE", BOB, "x-nobody"), ("SUBSCRIBE", BOB, "message-summary"),
        ("PUBLISH", "sip:alice@example.com", "presence"),
        ("PUBLISH", BOB, "dialog"),
    ],
)  # fmt: skip
def test_a_package_nobody_serves_is_489(method: str, uri: str, package: str) -> None:
    office = Office()
    asked = office.ask(office.alice, method, uri, f"Event: {package}")
    assert asked.statuses == [489]
    assert b"presence" in asked.final.tokens(b"allow-events")
    assert not any(peer.requests() for peer in (office.alice, *office.bobs))


@pytest.mark.parametrize(("method", "package"), [("SUBSCRIBE", "message-summary"), ("PUBLISH", "presence")])
def test_what_freeswitch_serves_goes_there(method: str, package: str) -> None:
    office = Office(events={"message-summary": "fs1", "presence": "fs1"}, freeswitch={"fs1": "sip:10.0.0.9:5080"})
    switch = office.world.peer("fs", "10.0.0.9", 5080)
    office.ask(office.alice, method, "sip:alice@example.com", f"Event: {package}")
    [got] = switch.requests(method)
    assert got.uri == b"sip:alice@10.0.0.9:5080"


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE", "REFER", "NOTIFY", "PUBLISH", "INFO"])
def test_strangers_may_not(method: str) -> None:
    office = Office()
    eve = office.world.peer("eve", "10.0.0.66")
    assert office.ask(eve, method, BOB, "Event: presence").statuses == [403]
    forged = office.ask(eve, method, BOB, "Event: presence", sender="<sip:alice@example.com>;tag=e")
    assert forged.statuses == [403], "alice is registered elsewhere"


def test_a_dialog_begun_by_subscribe_goes_on_through_us() -> None:
    office = Office()
    office.ask(office.alice, "SUBSCRIBE", BOB, "Event: presence", "Contact: <sip:alice@10.0.0.2>", call_id="sub")
    phone = office.bobs[0]
    [got] = phone.requests("SUBSCRIBE")
    [route] = got.record_routes()
    notify = phone.ask(
        "NOTIFY", "sip:alice@10.0.0.2", f"Route: <{(route.uri or b'').decode()}>", "Event: presence",
        sender=f"<{BOB}>;tag=bob1", to="<sip:alice@example.com>;tag=alice", call_id="sub",
    )  # fmt: skip
    office.world.run()
    [passed] = office.alice.requests("NOTIFY")
    office.alice.answer(passed, 200)
    office.world.run()
    assert notify.statuses == [200]


def test_an_ack_with_a_branch_of_its_own_ends_the_repetitions() -> None:
    office = Office()
    call = office.ask(office.alice, "INVITE", BOB, call_id="busy")
    for phone in office.bobs:
        phone.answer(phone.requests("INVITE")[0], 486)
        office.world.run()
    to = (call.final.get(b"to") or b"").decode()
    office.ask(office.alice, "ACK", BOB, to=to, call_id="busy")
    office.world.run(40)
    assert [status for status in call.statuses if status >= 300] == [486]
    assert not office.world.engine.layer.refused


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER"])
def test_what_ends_here_needs_no_hops(method: str) -> None:
    office = Office()
    asked = office.alice.ask(method, "sip:example.com", max_forwards=0, to="<sip:alice@example.com>")
    office.world.run()
    assert asked.statuses == [200]
