"""PRACK, UPDATE, session timers, REFER, NOTIFY, INFO and what nobody knows pass inside dialogs, from both sides: to the
right one of several early dialogs, and so that our own requests are in order behind them (RFC 3261 §12.2, RFC 3262,
3311, 4028, 3515)."""

from __future__ import annotations

from random import Random

import pytest
from dialogkit import BOB, RELAY, Side, Stage

from orchestrator.testing.peer import Peer

FLOWS = pytest.mark.parametrize("flows", [RELAY, ""], ids=["in a flow", "without one"])
RELIABLE = ("Require: 100rel", "RSeq: 1")
HANGUP = """\
  main:
    on: invite
    do:
      - relay: {to: registered, ring: 60s}
        on: {answered: [{sleep: 10s}, {hangup: enough}]}
"""


# --- early dialogs ----------------------------------------------------------------------------------------------------


@FLOWS
def test_a_prack_reaches_the_phone_it_is_for(flows: str) -> None:
    """Two phones ring, each with an early dialog and a reliable response of its own; a repetition passes, too."""
    stage = Stage(flows)
    stage.call("Supported: 100rel")
    first, second = (stage.respond(bob, 180, *RELIABLE) for bob in stage.bobs)
    stage.respond(stage.bobs[0], 180, *RELIABLE)
    assert [r.get(b"rseq") for r in stage.invite.responses if r.to_tag == b"bob1"] == [b"1", b"1"]
    for (alice, _), bob in ((second, stage.bobs[1]), (first, stage.bobs[0])):
        ask = alice.ask("PRACK", "RAck: 1 1 INVITE")
        assert (stage.got(bob, "PRACK").get(b"rack"), stage.got(bob, "PRACK").to_tag) == (
            b"1 1 INVITE",
            bob.name.encode(),
        )
        bob.answer(stage.got(bob, "PRACK"), 200)
        stage.world.run()
        assert ask.statuses == [200]
    assert [len(bob.requests("PRACK")) for bob in stage.bobs] == [1, 1]
    stage.invite.cancel()
    for bob in stage.bobs:
        stage.world.run()
        bob.answer(bob.requests("INVITE")[0], 487)
    stage.over()


@FLOWS
def test_an_update_passes_in_an_early_dialog_from_both_sides(flows: str) -> None:
    stage = Stage(flows)
    stage.call()
    alice, bob = stage.respond(stage.bobs[0], 183)
    sides = ((alice, stage.bobs[0]), (bob, stage.alice))
    for side, there in sides:
        ask = side.ask("UPDATE", f"Contact: {side.peer.contact}", body=b"v=0")
        assert stage.got(there, "UPDATE").body == b"v=0"
        there.answer(stage.got(there, "UPDATE"), 491, "Retry-After: 1")
        stage.world.run()
        assert ask.statuses == [491] and ask.final.get(b"retry-after") == b"1", "glare is theirs to solve"
    stage.invite.cancel()
    for each in stage.bobs:
        stage.world.run()
        each.answer(each.requests("INVITE")[0], 487)
    stage.over()


def test_a_repeated_reliable_response_is_no_news_for_a_flow() -> None:
    """RFC 3262 §3: it comes again until its PRACK has; the next one has another number."""
    stage = Stage(
        "  main:\n    on: invite\n    do:\n      - subscribe: ringing\n        do: [log: '${event.code}']\n"
        "      - relay: {to: registered, ring: 60s}\n"
    )
    stage.call("Supported: 100rel")
    for number in (1, 1, 1, 2):
        stage.respond(stage.bobs[0], 183, "Require: 100rel", f"RSeq: {number}")
    stage.respond(stage.bobs[1], 183, *RELIABLE)
    assert stage.said == ["183", "183", "183"]
    assert len([r for r in stage.invite.responses if r.status == 183]) == 5, "the caller gets them all"


@pytest.mark.parametrize(("require", "told"), [("100rel", [100]), ("replaces", [100, 180])])
def test_no_provisional_response_of_ours_is_unreliable_where_it_must_not_be(require: str, told: list[int]) -> None:
    stage = Stage("  main:\n    on: invite\n    do: [{reply: 180}, {relay: {to: registered, ring: 60s}}]\n")
    assert stage.call(f"Require: {require}").statuses == told
    stage.respond(stage.bobs[0], 183, *RELIABLE)
    assert stage.invite.statuses == [*told, 183]


def test_our_bye_goes_on_from_the_numbers_of_the_early_dialog() -> None:
    """PRACK and UPDATE use numbers up before the answer: a BYE with one of them would be out of order (§12.2.2)."""
    stage = Stage(HANGUP)
    stage.call("Supported: 100rel")
    alice, bob = stage.respond(stage.bobs[1], 183, *RELIABLE)
    stage.respond(stage.bobs[0], 180)
    alice.ask("PRACK", "RAck: 1 1 INVITE")
    alice.ask("UPDATE", "Contact: <sip:alice@10.0.0.2:7777>")
    bob.ask("UPDATE", "Contact: <sip:bob2@10.0.0.12:5060>")
    bob.ask("UPDATE", "Contact: <sip:bob2@10.0.0.12:5060>")
    stage.respond(stage.bobs[1], 200)
    alice.ask("ACK", cseq=1)
    moved = stage.world.peer("moved", "10.0.0.2", 7777)
    stage.world.run(11)
    assert stage.got(stage.bobs[1], "BYE").cseq == alice.number + 1 == 4
    assert stage.got(moved, "BYE").cseq == bob.number + 1 == 103, "where the UPDATE has said that she is"


def test_the_numbers_of_a_phone_that_lost_are_not_those_of_the_one_that_answered() -> None:
    stage = Stage(HANGUP)
    stage.call()
    lost, _ = stage.respond(stage.bobs[0], 180)
    alice, _ = stage.respond(stage.bobs[1], 180)
    for _ in range(5):
        lost.ask("UPDATE", "Contact: <sip:x@10.0.0.9>")
    stage.respond(stage.bobs[1], 200)
    alice.ask("ACK", cseq=1)
    stage.world.run(11)
    assert stage.got(stage.bobs[1], "BYE").cseq == 2
    assert stage.got(stage.alice, "BYE").cseq == 1


def test_a_stranger_moves_nobody() -> None:
    """Requests with the Call-ID but without the token of our Record-Route, or with other tags, change nothing."""
    stage = Stage(HANGUP)
    stage.call()
    alice, _ = stage.respond(stage.bobs[1], 180)
    eve = stage.world.peer("eve", "10.0.0.66")
    for to in (alice.remote, "<sip:x@y>;tag=other"):
        ask = eve.ask("UPDATE", alice.target, "Contact: <sip:eve@10.0.0.66>", to=to, sender=alice.local, call_id="one")
        stage.world.run()
        assert ask.statuses == [403]
    stage.respond(stage.bobs[1], 200)
    alice.ask("ACK", cseq=1)
    stage.world.run(11)
    assert [stage.got(peer, "BYE").cseq for peer in (stage.bobs[1], stage.alice)] == [2, 1]


# --- answered dialogs -------------------------------------------------------------------------------------------------


@FLOWS
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("UPDATE", ("Session-Expires: 1800;refresher=uac", "Min-SE: 90", "Supported: timer")),
        ("INVITE", ("Session-Expires: 90;refresher=uas", "Supported: timer, replaces, norefersub")),
        ("REFER", ("Refer-To: <sip:carol@example.com?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>", "X-A: b")),
        ("NOTIFY", ("Event: refer", "Subscription-State: active;expires=60", "Content-Type: message/sipfrag")),
        ("SUBSCRIBE", ("Event: refer;id=2", "Expires: 0")),
        ("INFO", ("Content-Type: application/dtmf-relay",)),
        ("MESSAGE", ("Content-Type: text/plain",)),
        ("OPTIONS", ("Accept: application/sdp",)),
        ("PRACK", ("RAck: 776656 1 INVITE",)),
        ("FROB", ("X-What: nobody knows",)),
    ],
)  # fmt: skip
def test_it_passes_from_both_sides_as_it_is(flows: str, method: str, headers: tuple[str, ...]) -> None:
    stage = Stage(flows)
    alice, bob = stage.answered()
    for side, there in ((alice, stage.bobs[1]), (bob, stage.alice)):
        contact = (f"Contact: {side.peer.contact}",)
        ask = side.ask(method, *contact, *headers, body=b"body")
        got = stage.got(there, method)
        for line in headers:
            name, _, value = line.partition(": ")
            assert got.get(name.lower().encode()) == value.encode()
        assert (got.body, got.cseq, got.to_tag) == (b"body", side.number, side.remote.partition("tag=")[2].encode())
        there.answer(got, 202, "X-Back: yes")
        stage.world.run()
        assert (ask.statuses[-1], ask.final.get(b"x-back")) == (202, b"yes")
        if method == "INVITE":
            side.ask("ACK", cseq=side.number)
            assert stage.got(there, "ACK").cseq == side.number
    assert not stage.bobs[0].requests(method)[1:], "the phone that lost hears nothing"
    bob.ask("BYE")
    stage.alice.answer(stage.got(stage.alice, "BYE"), 200)
    stage.over()


PAIRS = [("tcp", "tcp"), ("tls", "udp"), ("udp", "ws"), ("ws", "wss"), ("wss", "tls")]


@FLOWS
@pytest.mark.parametrize("transports", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_it_passes_over_every_transport(flows: str, transports: tuple[str, str]) -> None:
    """Early and answered, from both sides, over the connections that are there."""
    stage = Stage(flows, transports=transports)
    stage.call("Supported: 100rel")
    alice, bob = stage.respond(stage.bobs[1], 183, *RELIABLE)
    opened = len(stage.world.streams.connections)
    for method, header in (("PRACK", "RAck: 1 1 INVITE"), ("UPDATE", "Session-Expires: 90")):
        pass_on(stage, alice, stage.bobs[1], method, header)
    pass_on(stage, bob, stage.alice, "UPDATE", "Session-Expires: 90")
    stage.respond(stage.bobs[1], 200)
    alice.ask("ACK", cseq=1)
    assert stage.got(stage.bobs[1], "ACK").cseq == 1
    for side, there in ((alice, stage.bobs[1]), (bob, stage.alice)):
        for method, header in (
            ("UPDATE", "Min-SE: 90"),
            ("REFER", "Refer-To: <sip:carol@example.com>"),
            ("NOTIFY", "Event: refer"),
            ("INVITE", "Supported: timer"),
            ("FROB", "X-What: nobody knows"),
        ):
            pass_on(stage, side, there, method, header)
    pass_on(stage, bob, stage.alice, "BYE", "Reason: Q.850;cause=16")
    assert len(stage.world.streams.connections) == opened


def pass_on(stage: Stage, side: Side, there: Peer, method: str, header: str) -> None:
    """A request of one side reaches the other, and its response comes back."""
    ask = side.ask(method, f"Contact: {side.peer.contact}", header)
    name, _, value = header.partition(": ")
    assert stage.got(there, method).get(name.lower().encode()) == value.encode()
    there.answer(stage.got(there, method), 202)
    stage.world.run()
    assert ask.statuses[-1] == 202
    if method == "INVITE":
        side.ask("ACK", cseq=side.number)
        assert stage.got(there, "ACK").cseq == side.number


@FLOWS
def test_a_session_interval_that_is_too_small_is_told_to_the_caller(flows: str) -> None:
    """422 (RFC 4028 §6) comes back with its Min-SE, and the next INVITE is a new one."""
    stage = Stage(flows)
    for number in (1, 2):
        for bob in stage.bobs:
            bob.received.clear()
        ask = stage.alice.ask("INVITE", BOB, f"Session-Expires: {number * 60}", call_id="one", cseq=number)
        stage.world.run()
        for bob in stage.bobs:
            bob.answer(bob.requests("INVITE")[0], 422 if number == 1 else 486, "Min-SE: 120")
        stage.world.run()
        assert ask.final.status == (422 if number == 1 else 486)
        assert ask.final.get(b"min-se") == b"120"
        ask.acknowledge()
    stage.over()


@pytest.mark.parametrize(
    ("own", "goes_on"),
    [
        ((), "600"),
        (("Session-Expires: 1800;refresher=uas",), "600;refresher=uas"),
        (("x: 300;a=b",), "300;a=b"),
        (("Session-Expires: 1800", "Min-SE: 900"), "900"),
        (("Min-SE: 900",), "900"),
        (("Session-Expires: soon",), "600"),
    ],
)
@pytest.mark.parametrize("knows", [True, False])
def test_a_proxy_asks_for_session_timers(own: tuple[str, ...], goes_on: str, knows: bool) -> None:
    """RFC 4028 §8.1: never longer than asked for, never below Min-SE. §8.2: where the called side names no interval, a
    caller who knows timers is told to refresh, in each copy of the 2xx; another one is not."""
    stage = Stage(session_expires=600)
    stage.call(*own, *(("Supported: timer",) if knows else ()))
    assert stage.got(stage.bobs[0], "INVITE").get_all(b"session-expires") == [goes_on.encode()]
    alice, bob = stage.respond(stage.bobs[0], 200)
    stage.respond(stage.bobs[0], 200)
    added = goes_on.partition(";")[0] + ";refresher=uac" if knows else None
    for response in [r for r in stage.invite.responses if r.status == 200]:
        assert response.get(b"session-expires") == (added.encode() if added else None)
        assert response.get(b"require") == (b"timer" if knows else None)
    for method, line in (("UPDATE", b"600"), ("INFO", None)):
        alice.ask(method)
        assert stage.got(stage.bobs[0], method).get(b"session-expires") == line
    bob.ask("UPDATE", "Supported: timer")
    stage.alice.answer(stage.got(stage.alice, "UPDATE"), 200, "Session-Expires: 120;refresher=uas", "Require: timer")
    stage.world.run()
    back = [r for r in stage.bobs[0].received if getattr(r, "status", 0) == 200]
    assert [r.get_all(b"session-expires") for r in back] == [[b"120;refresher=uas"]]


@FLOWS
def test_news_of_a_transfer_pass_after_the_call(flows: str) -> None:
    """The subscription of a REFER outlives the call whose dialog it shares (RFC 5057 §4)."""
    stage = Stage(flows)
    alice, bob = stage.answered()
    ask = alice.ask("REFER", "Refer-To: <sip:carol@example.com>", f"Contact: {stage.alice.contact}")
    stage.bobs[1].answer(stage.got(stage.bobs[1], "REFER"), 202, f"Contact: {stage.bobs[1].contact}")
    stage.world.run()
    assert ask.statuses == [202]
    alice.ask("BYE")
    stage.bobs[1].answer(stage.got(stage.bobs[1], "BYE"), 200)
    stage.world.run(40)
    news = bob.ask("NOTIFY", "Event: refer", "Subscription-State: terminated;reason=noresource", body=b"SIP/2.0 200 OK")
    assert stage.got(stage.alice, "NOTIFY").body == b"SIP/2.0 200 OK"
    stage.alice.answer(stage.got(stage.alice, "NOTIFY"), 200)
    stage.world.run()
    assert news.statuses == [200]
    stage.over()


def test_a_2xx_says_where_its_sender_is_from_now_on() -> None:
    """§12.2.1.2: the Contact of the 2xx to a re-INVITE or UPDATE is the remote target; our BYE goes there."""
    stage = Stage(HANGUP)
    alice, bob = stage.answered()
    moved = stage.world.peer("moved", "10.0.0.2", 7777), stage.world.peer("bob2", "10.0.0.12", 7777)
    alice.ask("UPDATE", f"Contact: {stage.alice.contact}")
    stage.bobs[1].answer(stage.got(stage.bobs[1], "UPDATE"), 200, contact="<sip:bob2@10.0.0.12:7777>")
    bob.ask("INVITE", f"Contact: {stage.bobs[1].contact}")
    stage.alice.answer(stage.got(stage.alice, "INVITE"), 200, contact="<sip:alice@10.0.0.2:7777>")
    stage.world.run(11)
    assert [bool(peer.requests("BYE")) for peer in moved] == [True, False], "a request moves its sender again"
    assert stage.bobs[1].requests("BYE")


# --- orders -----------------------------------------------------------------------------------------------------------

METHODS = ("PRACK", "UPDATE", "INFO", "REFER", "NOTIFY", "OPTIONS")


class Story:
    """What both sides of both early dialogs may do at any time; each receiver holds the numbers against §12.2.2."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.stage = Stage(HANGUP)
        self.stage.call("Supported: 100rel")
        self.sides: list[tuple[Side, str]] = []
        self.sent = 0
        self.expected: dict[str, list[tuple[str, int]]] = {"alice": [], "bob1": [], "bob2": []}

    def ring(self) -> None:
        for bob in self.stage.bobs:
            alice, there = self.stage.respond(bob, 183, *RELIABLE)
            self.sides += [(alice, bob.name), (there, "alice")]

    def speak(self) -> None:
        side, to = self.random.choice(self.sides)
        method = self.random.choice(METHODS)
        headers = ("Refer-To: <sip:carol@example.com>",) if method == "REFER" else ()
        side.ask(method, *headers, "RAck: 1 1 INVITE")
        self.expected[to].append((method, side.number))

    def check(self) -> None:
        peers = {"alice": self.stage.alice, "bob1": self.stage.bobs[0], "bob2": self.stage.bobs[1]}
        for name, expected in self.expected.items():
            got = [(r.method.decode(), r.cseq) for r in peers[name].requests() if r.method.decode() in METHODS]
            assert got == expected


@pytest.mark.parametrize("seed", range(24))
def test_any_order_of_requests_before_and_behind_the_answer(seed: int) -> None:
    story = Story(seed)
    random, stage = story.random, story.stage
    story.ring()
    for _ in range(random.randrange(8)):
        story.speak()
    end = random.choice(["hangup", "bye", "cancel", "bye crosses", "cancel crosses"])
    if end.startswith("cancel"):
        if end == "cancel crosses":
            stage.bobs[1].answer(stage.bobs[1].requests("INVITE")[0], 200)
        stage.invite.cancel()
        stage.world.run()
        story.speak()
        story.check()
        assert stage.invite.final.status in (200, 487)
        return
    winner = stage.bobs[1]
    stage.respond(winner, 200)
    alice, bob = story.sides[2][0], story.sides[3][0]
    alice.ask("ACK", cseq=1)
    for _ in range(random.randrange(6)):
        story.speak()
    story.check()
    highest = {peer.name: max(r.cseq for r in peer.requests() if _is_of(r, winner.name)) for peer in (winner,)}
    if end == "hangup":
        stage.world.run(11)
        assert stage.got(winner, "BYE").cseq == highest[winner.name] + 1
        numbers = [r.cseq for r in stage.alice.requests() if _is_of(r, winner.name) and r.method != b"BYE"]
        assert stage.got(stage.alice, "BYE").cseq > max(numbers, default=0)
    elif end == "bye":
        ask = alice.ask("BYE")
        winner.answer(stage.got(winner, "BYE"), 200)
        stage.world.run()
        assert ask.statuses == [200]
        story.speak()
        story.check()
    else:
        both = alice.ask("BYE"), bob.ask("BYE")
        winner.answer(stage.got(winner, "BYE"), 200)
        stage.alice.answer(stage.got(stage.alice, "BYE"), 200)
        stage.world.run()
        assert [ask.statuses for ask in both] == [[200], [200]]
    assert [record.code for record in stage.records] == [200]
    assert len(stage.world.engine.calls) == 0


def _is_of(request: object, tag: str) -> bool:
    return tag.encode() in (getattr(request, "from_tag", None), getattr(request, "to_tag", None)) or (
        getattr(request, "method", b"") == b"INVITE"
    )
