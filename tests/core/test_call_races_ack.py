"""A flow hangs up before the caller's ACK has passed: for the flow the call is over at once, on the wire the BYE waits
(RFC 3261 §15)."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import Stage as Media
from mediakit import media, stage
from test_call_races import BOB, RELAY, Stage
from test_outbound import remind, start

from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.phone import Address, PhoneCall

AT_ONCE = RELAY + "      - hangup: enough\n"
LATER = RELAY + "      - sleep: 40s\n      - hangup: enough\n"
ALICE = ("10.0.0.2", 5060)


def in_dialog(call: Ask, method: str, cseq: int, tag: str = "bob") -> Ask:
    """alice's request in the dialog that bob's answer has made."""
    return _speak(call.peer, call, method, cseq, f"<{BOB}>;tag={tag}", "<sip:alice@example.com>;tag=alice")


def from_bob(bob: Peer, call: Ask, method: str, cseq: int) -> Ask:
    return _speak(bob, call, method, cseq, "<sip:alice@example.com>;tag=alice", f"<{BOB}>;tag=bob")


def _speak(peer: Peer, call: Ask, method: str, cseq: int, to: str, sender: str) -> Ask:
    answer = call.final
    target = "sip:bob@10.0.0.11:5060" if peer is call.peer else "sip:alice@10.0.0.2:5060"
    routes = [f"Route: <{(route.uri or b'').decode()}>" for route in answer.record_routes()]
    call_id = answer.call_id.decode()
    return peer.ask(method, target, *routes, to=to, sender=sender, call_id=call_id, cseq=cseq)


def answered(tmp_path: Path, steps: str = AT_ONCE) -> tuple[Stage, Ask]:
    s = Stage(tmp_path, steps)
    call = s.call()
    s.answer(s.bob, 200)
    assert call.statuses == [100, 200]
    return s, call


def byes(s: Stage) -> tuple[list[int], list[int]]:
    """CSeq of the BYEs alice and bob have got."""
    return tuple([r.cseq for r in peer.requests("BYE")] for peer in (s.alice, s.bob))  # type: ignore[return-value]


def agree(s: Stage) -> None:
    for peer in (s.alice, s.bob):
        for bye in peer.requests("BYE"):
            peer.answer(bye, 200)
    s.world.run(70.0)
    assert not any(s.world.leftovers().values())
    assert (len(s.world.engine.handshakes), s.world.engine.handshakes.held) == (0, 0)
    assert s.world.engine.idle


def test_the_call_is_over_at_once_and_the_bye_follows_the_ack(tmp_path: Path) -> None:
    s, call = answered(tmp_path)
    assert len(s.world.engine.calls) == len(s.world.engine.flows.runs) == 0
    assert byes(s) == ([], [])
    assert not s.world.engine.idle, "a stop waits for it"
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert s.bob.heard[-2:] == ["ACK", "BYE"]
    assert byes(s) == ([1], [2])
    agree(s)


def test_a_lost_ack_is_waited_for(tmp_path: Path) -> None:
    """bob repeats his 2xx, it passes, and alice says it again."""
    s, call = answered(tmp_path)
    s.world.run(0.5)
    s.answer(s.bob, 200)
    assert call.statuses == [100, 200, 200]
    assert byes(s) == ([], [])
    in_dialog(call, "ACK", 1)
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert s.bob.heard[-3:] == ["ACK", "BYE", "ACK"]
    assert byes(s) == ([1], [2])
    agree(s)


def test_an_ack_that_never_comes_is_not_waited_for_longer_than_64_t1(tmp_path: Path) -> None:
    s, _ = answered(tmp_path)
    s.world.run(31.9)
    assert byes(s) == ([], [])
    s.world.run(0.1)
    assert byes(s) == ([1], [2])
    agree(s)


def test_behind_the_ack_nothing_waits(tmp_path: Path) -> None:
    s, call = answered(tmp_path, RELAY + "      - sleep: 1s\n      - hangup: enough\n")
    in_dialog(call, "ACK", 1)
    s.world.run(1.0)
    assert byes(s) == ([1], [2])
    agree(s)


def test_nor_when_its_time_has_passed_anyway(tmp_path: Path) -> None:
    s, _ = answered(tmp_path, LATER)
    s.world.run(39.9)
    assert byes(s) == ([], [])
    s.world.run(0.1)
    assert byes(s) == ([1], [2])
    agree(s)


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_bye_of_a_party_makes_ours_needless(who: str, tmp_path: Path) -> None:
    s, call = answered(tmp_path)
    if who == "caller":
        in_dialog(call, "BYE", 2)
    else:
        from_bob(s.bob, call, "BYE", 1)
    s.world.run()
    assert byes(s) == (([], [2]) if who == "caller" else ([1], []))
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert byes(s) == (([], [2]) if who == "caller" else ([1], []))
    agree(s)


def test_what_a_party_says_meanwhile_has_used_up_its_number(tmp_path: Path) -> None:
    s, call = answered(tmp_path)
    in_dialog(call, "INFO", 2)
    s.world.run()
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert byes(s) == ([1], [3])
    for info in s.bob.requests("INFO"):
        s.bob.answer(info, 200)
    agree(s)


def test_an_ack_of_another_dialog_of_the_call_is_not_the_one(tmp_path: Path) -> None:
    """A second phone has answered too: its ACK says nothing about bob's answer."""
    s, call = answered(tmp_path)
    in_dialog(call, "ACK", 1, tag="second")
    s.world.run()
    assert byes(s) == ([], [])
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert byes(s) == ([1], [2])
    agree(s)


def test_a_party_that_hangs_up_before_the_flow_does_leaves_nothing_waiting(tmp_path: Path) -> None:
    s, call = answered(tmp_path, LATER)
    in_dialog(call, "BYE", 2)
    s.world.run()
    assert len(s.world.engine.handshakes) == 0
    agree(s)


def test_only_the_side_that_was_named_is_hung_up(tmp_path: Path) -> None:
    s, call = answered(tmp_path, RELAY + "      - hangup: {leg: caller}\n")
    in_dialog(call, "ACK", 1)
    s.world.run()
    assert byes(s) == ([1], [])
    agree(s)


# --- FreeSWITCH on one side -------------------------------------------------------------------------------------------


def losing_acks(s: Media, source: Address, count: int) -> list[bytes]:
    """The first ACKs of this address are lost; returns the list they go to."""
    lost: list[bytes] = []

    def fate(data: bytes, sender: Address, target: Address) -> tuple[float, ...]:
        if data.startswith(b"ACK ") and sender == source and len(lost) < count:
            lost.append(data)
            return ()
        return (0.0,)

    s.world.fate = fate
    return lost


def holds_back(s: Media, lost: list[bytes], *calls: PhoneCall, repeat: PhoneCall) -> None:
    """None of the calls is ended before the answer was repeated and acknowledged; then all are."""
    assert len(lost) == 1
    assert len(s.world.engine.calls) == 0
    assert [call.bye for call in calls] == [None] * len(calls)
    repeat._respond(200)
    s.world.run()
    assert all(call.state == "ended" for call in calls)
    s.over()
    assert len(s.world.engine.handshakes) == 0


def test_a_call_that_freeswitch_holds(tmp_path: Path) -> None:
    s = media(tmp_path, "hangup: done")
    lost = losing_acks(s, ALICE, 1)
    call = s.call()
    holds_back(s, lost, call, s.switch.calls[0], repeat=s.switch.calls[0])


@pytest.mark.parametrize("waits", [True, False])
def test_a_call_through_freeswitch_waits_for_the_callers_ack(waits: bool, tmp_path: Path) -> None:
    """Two dialogs: FreeSWITCH's ACK to the phone is not the caller's to FreeSWITCH."""
    s = stage(tmp_path, "relay: {to: registered, via: fs1}", "hangup: done")
    s.bob.on_invite = PhoneCall.answer
    lost = losing_acks(s, ALICE, 1 if waits else 0)
    call = s.call("bob@example.com")
    front = s.switch.calls[0]
    assert s.bob.calls[0].acknowledged
    if waits:
        holds_back(s, lost, call, front, s.bob.calls[0], repeat=front)
    s.over()


def test_a_call_placed_by_freeswitch_waits_for_freeswitchs_ack(tmp_path: Path) -> None:
    s = remind(tmp_path, "hangup: done")
    s.bob.on_invite = PhoneCall.answer
    lost = losing_acks(s, ("10.0.0.9", 5080), 1)
    start(s)
    holds_back(s, lost, next(iter(s.switch.placed)), s.bob.calls[0], repeat=s.bob.calls[0])
