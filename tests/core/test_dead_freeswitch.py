"""A FreeSWITCH that dies, stalls or comes back in the middle of calls: who is told what, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import Stage, media, stage

from orchestrator.core.calls.liveness import GONE
from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallRecord
from orchestrator.testing.phone import Phone, PhoneCall

VIA = "relay: {to: registered, via: fs1, ring: 60s}"
DOWN = "FreeSWITCH fs1 is down"
ENDED = """    on_end: [log: 'ended: ${call.end_reason ?? "?"}']"""


def records(s: Stage) -> list[CallRecord]:
    found: list[CallRecord] = []
    s.world.engine.history.listen(CallRecord, found.append)
    return found


def traced(s: Stage) -> list[str]:
    """What the traces of all runs say."""
    found: list[str] = []
    s.world.engine.history.listen(TraceWritten, lambda written: found.append(written.line.text))
    return found


def ringing(s: Stage) -> PhoneCall:
    call = s.call("bob@example.com")
    s.world.run(0.1)
    assert [c.state for c in s.bob.calls] == ["ringing"]
    return call


def answered(s: Stage) -> PhoneCall:
    call = ringing(s)
    s.bob.calls[0].answer()
    s.world.run(1)
    assert call.state == "answered"
    return call


# --- while it rings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["the caller gives up", "it has rung long enough", "the flow hangs up"])
def test_the_second_invite_is_answered_too(end: str, tmp_path: Path) -> None:
    """FreeSWITCH, which would have sent the CANCEL for it, is dead."""
    s = stage(tmp_path, VIA)
    call = ringing(s)
    s.switch.kill()
    if end == "the caller gives up":
        call.hangup()
    elif end == "the flow hangs up":
        next(iter(s.world.engine.calls)).hangup("enough", 503, "both")
    else:
        s.world.run(60)
    s.world.run(1)
    assert s.bob.calls[0].cancelled
    assert call.statuses[-1] >= 400
    assert s.world.engine.layer.unanswered == 0
    s.over()


def test_a_phone_that_answers_a_dead_freeswitch_is_hung_up(tmp_path: Path) -> None:
    """Its 200 goes to FreeSWITCH, which passes nothing on."""
    s = stage(tmp_path, VIA)
    call = ringing(s)
    s.switch.kill()
    s.bob.calls[0].answer()
    s.world.run(31)
    assert call.state == "ended"
    assert s.bob.calls[0].bye is not None
    s.over()


def test_an_invite_of_a_call_that_is_over_is_no_new_call(tmp_path: Path) -> None:
    """A FreeSWITCH that was restarted takes the repeated INVITE of a call that has ended, and sends it on to us."""
    s = stage(tmp_path, VIA)
    s.switch.kill()
    call = s.call("bob@example.com")
    call.hangup()
    s.world.run(0.1)
    s.switch.start()
    s.world.run(5)
    back = [c for c in s.switch.calls if not c.incoming]
    assert [c.statuses[-1] for c in back] == [481]
    assert s.bob.calls == []
    s.over()


# --- while it is answered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_bye_is_answered_while_freeswitch_is_dead(who: str, tmp_path: Path) -> None:
    s = stage(tmp_path, VIA)
    call = answered(s)
    s.switch.kill()
    (call if who == "alice" else s.bob.calls[0]).hangup()
    s.world.run(0.1)
    phone = ("10.0.0.2", 5060) if who == "alice" else ("10.0.0.3", 5060)
    assert answers_to(s, phone, b"BYE") == [200]
    assert [call.state, s.bob.calls[0].state] == ["ended", "ended"]
    s.over()


def answers_to(s: Stage, address: tuple[str, int], method: bytes) -> list[int]:
    found = [data for _, _, target, data in s.world.sent if target == address and data.startswith(b"SIP/2.0 ")]
    return [int(data.split()[1]) for data in found if b" " + method in data.partition(b"\r\nCSeq: ")[2].split(b"\r")[0]]


def test_its_calls_end_after_a_bound_while_it_stays_down(tmp_path: Path) -> None:
    s = stage(tmp_path, VIA, more=ENDED)
    found = records(s)
    call = answered(s)
    uuids = (call.call_id.decode(), s.bob.calls[0].call_id.decode())
    s.switch.kill()
    s.world.run(29.9)
    assert [call.state, s.bob.calls[0].state] == ["answered", "answered"]
    s.world.run(0.2)
    assert [call.state, s.bob.calls[0].state] == ["ended", "ended"]
    assert call.bye is not None and DOWN.encode() in (call.bye.get(b"reason") or b"")
    assert s.said == [f"ended: {DOWN}"]
    (record,) = found
    assert (record.server, record.caller_uuid, record.callee_uuid, record.reason) == ("fs1", *uuids, DOWN)
    s.over()


def test_one_that_comes_back_in_time_keeps_the_calls_it_still_has(tmp_path: Path) -> None:
    s = stage(tmp_path, VIA)
    call = answered(s)
    s.switch.drop_link()
    s.world.run(29)
    s.switch.raise_link()
    s.world.run(60)
    assert call.state == "answered"
    call.hangup()
    s.over()


def test_a_restart_loses_the_calls_and_the_record_still_names_the_channels(tmp_path: Path) -> None:
    s = stage(tmp_path, VIA)
    found = records(s)
    call = answered(s)
    uuids = (call.call_id.decode(), s.bob.calls[0].call_id.decode())
    s.switch.kill()
    s.switch.start()
    s.world.run(0.1)
    assert [call.state, s.bob.calls[0].state] == ["ended", "ended"]
    (record,) = found
    assert (record.server, record.caller_uuid, record.callee_uuid, record.reason) == ("fs1", *uuids, "channel lost")
    s.over()


def test_a_call_that_collects_keys_ends_too(tmp_path: Path) -> None:
    s = media(tmp_path, "collect: {max: 4, timeout: 600s}\n as: keys", "log: 'got ${keys}'")
    found = records(s)
    call = s.call()
    assert call.state == "answered"
    s.switch.kill()
    s.world.run(30.1)
    assert call.state == "ended"
    assert [record.reason for record in found] == [DOWN]
    s.over()


# --- what the trace says ----------------------------------------------------------------------------------------------


def test_a_branch_that_nobody_answered_is_no_status_that_somebody_sent(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: {to: 'sip:nobody@[2001:db8::1]', ring: 5s}\n on: {else: [reply: 480]}")
    said = traced(s)
    s.call("bob@example.com")
    assert "SIP -- sip:nobody@[2001:db8::1] cannot be reached" in said
    assert not any("503" in line for line in said)
    s.over()


# --- phones that are gone ---------------------------------------------------------------------------------------------


def away(s: Stage, phone: Phone) -> None:
    """Its plug is pulled: it says nothing any more."""
    del s.world.phones[phone.address]


def pings(phone: Phone) -> list[int]:
    return [request.cseq for request in phone.requests if request.method == b"OPTIONS"]


@pytest.mark.parametrize("way", ["", ", via: fs1"])
def test_a_call_whose_phones_are_both_gone_ends(way: str, tmp_path: Path) -> None:
    s = stage(tmp_path, f"relay: {{to: registered{way}, ring: 60s}}", more=ENDED)
    found = records(s)
    answered(s)
    away(s, s.alice)
    away(s, s.bob)
    s.world.run(300 + 32 + 1)
    assert len(s.world.engine.calls) == 0
    assert s.said == [f"ended: {GONE}"]
    assert [record.reason for record in found] == [GONE]
    s.world.run(60)
    assert s.world.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}


def test_a_call_with_one_silent_phone_goes_on_and_its_numbers_are_its_own(tmp_path: Path) -> None:
    """It may have missed two. The number of a ping is the one before, so that the phones' own requests are in order
    behind it (RFC 3261 §12.2.2)."""
    s = stage(tmp_path, "relay: {to: registered, ring: 60s}")
    call = answered(s)
    away(s, s.alice)
    s.world.run(890)
    assert len(s.world.engine.calls) == 1
    assert pings(s.bob) == [1] * 2, "the number of the INVITE"
    s.world.phones[s.alice.address] = s.alice
    call.hangup()
    s.world.run(1)
    assert s.bob.calls[0].bye is not None and s.bob.calls[0].bye.cseq == 2
    s.over()


def test_a_phone_that_does_not_know_the_call_ends_it(tmp_path: Path) -> None:
    """It was restarted in the middle of it: 481."""
    s = stage(tmp_path, "relay: {to: registered, ring: 60s}")
    call = answered(s)
    s.bob.calls.clear()
    s.world.run(301)
    assert call.state == "ended"
    s.over()


def test_a_call_ends_at_the_longest_duration(tmp_path: Path) -> None:
    s = stage(tmp_path, VIA)
    call = answered(s)
    s.world.run(12 * 3600 - 2)
    assert call.state == "answered"
    s.world.run(3)
    assert call.state == "ended"
    s.over()
