"""Flows on: refer: transfers inside calls and outside of them, refused, passed on and carried out."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import HEADER
from mediakit import Stage as MediaStage

from orchestrator.errors import InputError
from orchestrator.flow.loader import Source, load_sources
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.world import World

VIA = "  calls:\n    on: invite\n    do: [{relay: {to: registered, via: fs1}}]\n    on_end: [log: 'call over']\n"
DIRECT = "  calls:\n    on: invite\n    do: [{relay: registered}]\n"
TAKE = """\
  transfers:
    on: refer
    when: call != null
    do:
      - log: '${refer.leg} ${refer.by.user} -> ${refer.to.uri} ${refer.replaces ?? "-"} ${call.to.user}'
      - transfer: ${refer.to.uri}
      - log: done
    on_error: [log: '${error.type} ${error.message}']
"""


class Stage(MediaStage):
    """alice calls bob, both talk; carol and dave are there, too."""

    def __init__(self, flows: str, tmp_path: Path) -> None:
        super().__init__("flows:\n" + flows, tmp_path)
        self.dave = self.world.phone("dave@example.com", "10.0.0.5")
        for phone in (self.alice, self.dave):
            phone.register()
        self.world.run()
        for phone in (self.alice, self.bob, self.carol, self.dave):
            phone.on_invite = PhoneCall.answer

    def talk(self, caller: Phone, callee: Phone) -> tuple[PhoneCall, PhoneCall]:
        """The call as both phones have it."""
        call = caller.invite(f"{callee.user}@example.com")
        self.world.run(1)
        assert [call.state, callee.calls[-1].state] == ["answered", "answered"]
        return call, callee.calls[-1]

    def refer(self, call: PhoneCall, to: str, instead_of: PhoneCall | None = None) -> None:
        call.refer(to, instead_of)
        self.world.run(1)

    def in_call(self) -> dict[str, int]:
        phones = (self.alice, self.bob, self.carol, self.dave)
        return {phone.user: n for phone in phones if (n := sum(c.state == "answered" for c in phone.calls))}

    def over(self) -> None:
        for phone in (self.alice, self.bob, self.carol, self.dave):
            for call in phone.calls:
                if call.state == "answered":
                    call.hangup()
            self.world.run(1)
        super().over()
        assert self.switch.channels == {}


# --- blind ------------------------------------------------------------------------------------------------------------


def test_a_callee_sends_his_caller_on(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    alice, bob = s.talk(s.alice, s.bob)
    s.refer(bob, "sip:carol@example.com")
    assert s.bob.replies[b"REFER"] == [202]
    assert s.bob.news == [b"SIP/2.0 100 Trying", b"SIP/2.0 200 OK"]
    assert s.said == ["callee bob -> sip:carol@example.com - bob", "done"]
    assert s.in_call() == {"alice": 1, "carol": 1}
    assert (bob.state, alice.state) == ("ended", "answered"), "she stays in her call"
    assert len(s.world.engine.calls) == 1
    s.carol.calls[0].hangup()
    s.world.run(1)
    assert alice.state == "ended" and s.said[-1] == "call over"
    s.over()


def test_a_caller_sends_his_callee_on(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE + "    on_end: [log: 'new call over by ${call.ended_by ?? \"?\"}']\n", tmp_path)
    alice, bob = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:carol@example.com")
    assert s.alice.replies[b"REFER"] == [202]
    assert s.alice.news == [b"SIP/2.0 100 Trying", b"SIP/2.0 200 OK"]
    assert s.said[0] == "caller alice -> sip:carol@example.com - bob" and "done" in s.said
    assert s.in_call() == {"bob": 1, "carol": 1}
    assert len(s.world.engine.calls) == 1, "the one of the flow"
    s.carol.calls[0].hangup()
    s.world.run(1)
    assert bob.state == "ended" and s.said[-1] == "new call over by callee"
    s.over()


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_transfer_that_fails_says_so_and_leaves_nobody_alone(who: str, tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    s.carol.on_invite = lambda call: call.reject(486)
    alice, bob = s.talk(s.alice, s.bob)
    s.refer(alice if who == "caller" else bob, "sip:carol@example.com")
    asker = s.alice if who == "caller" else s.bob
    assert asker.replies[b"REFER"] == [202]
    assert asker.news == [b"SIP/2.0 100 Trying", b"SIP/2.0 486 Busy Here"]
    assert any("486 Busy Here" in line for line in s.said)
    s.world.run(2)
    assert s.in_call() == {}
    s.over()


def test_the_flow_may_ring_the_phone_that_asked_again(tmp_path: Path) -> None:
    step = "      - transfer: ${refer.to.uri}\n"
    take = TAKE.replace(step, step + "        on_error: [{transfer: 'sip:bob@example.com'}]\n")
    s = Stage(VIA + take, tmp_path)
    s.carol.on_invite = lambda call: call.reject(480)
    _, bob = s.talk(s.alice, s.bob)
    s.refer(bob, "sip:carol@example.com")
    assert s.in_call() == {"alice": 1, "bob": 1}
    assert s.bob.news[-1] == b"SIP/2.0 480 Temporarily Unavailable"
    s.over()


def test_freeswitch_refuses_and_the_call_goes_on(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    s.switch.answers["uuid_transfer"] = {"ok": False, "text": "-ERR No such channel!\n"}
    alice, _ = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:carol@example.com")
    assert s.alice.replies[b"REFER"] == [200] and s.alice.news == [], "the flow has caught the error: it is passed on"
    assert s.said[-1] == "esl.command transfer: -ERR No such channel!"
    s.over()


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_caller_who_is_moved_hangs_up_meanwhile(who: str, tmp_path: Path) -> None:
    """Whoever is moved; his call is over, and with it the transfer."""
    s = Stage(VIA + TAKE, tmp_path)
    s.carol.on_invite = PhoneCall.ring
    alice, bob = s.talk(s.alice, s.bob)
    asks, moved, asker = (bob, alice, s.bob) if who == "alice" else (alice, bob, s.alice)
    s.refer(asks, "sip:carol@example.com")
    assert s.carol.calls[0].state == "ringing"
    moved.hangup()
    s.world.run(2)
    assert asker.news == [b"SIP/2.0 100 Trying", b"SIP/2.0 487 Request Terminated"]
    assert s.carol.calls[0].cancelled
    s.over()


@pytest.mark.parametrize("reported", [True, False])
def test_a_phone_may_ask_before_freeswitch_has_reported_the_channels(reported: bool, tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    s.switch.say_channels = False
    alice, _ = s.talk(s.alice, s.bob)
    alice.refer("sip:carol@example.com")
    s.world.run(0.3)
    assert s.alice.replies == {}
    if reported:
        s.switch.report()
    s.world.run(1)
    assert s.alice.replies[b"REFER"] == ([202] if reported else [200]), "passed on, for the flow has caught the error"
    s.switch.report()
    s.over()


def test_a_callee_who_is_left_in_freeswitch_is_hung_up(tmp_path: Path) -> None:
    """carol hangs up before FreeSWITCH has joined the two: it parks bob, and nobody would ever end that."""
    s = Stage(VIA + TAKE, tmp_path)
    alice, bob = s.talk(s.alice, s.bob)
    s.switch._left = lambda channel, gone: None  # type: ignore[method-assign]
    s.refer(alice, "sip:carol@example.com")
    s.alice.calls[0].hangup()
    s.carol.calls[0].hangup()
    s.world.run(0.5)
    assert bob.state == "answered"
    s.world.run(2)
    assert bob.state == "ended"
    s.over()


def test_what_freeswitch_says_behind_our_news_is_in_order(tmp_path: Path) -> None:
    """Its BYE to who has asked comes behind two NOTIFYs of ours in the same dialog (RFC 3261 §12.2.2)."""
    for who in ("alice", "bob"):
        s = Stage(VIA + TAKE, tmp_path)
        alice, bob = s.talk(s.alice, s.bob)
        asks, phone = (alice, s.alice) if who == "alice" else (bob, s.bob)
        s.refer(asks, "sip:carol@example.com")
        inside = [r for r in phone.requests if r.call_id == asks.call_id and r.method in (b"NOTIFY", b"BYE")]
        assert sorted(r.method for r in inside) == [b"BYE", b"NOTIFY", b"NOTIFY"]
        numbers = [r.cseq for r in inside]
        assert numbers == sorted(numbers) and len(set(numbers)) == 3
        s.over()


# --- attended ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["alice calls bob", "bob calls alice"])
@pytest.mark.parametrize("second", ["alice calls carol", "carol calls alice"])
def test_two_legs_of_freeswitch_are_joined(first: str, second: str, tmp_path: Path) -> None:
    """alice, in the middle, puts bob and carol through, whoever has called whom before."""
    s = Stage(VIA + TAKE, tmp_path)
    one = s.talk(s.alice, s.bob)[0] if first == "alice calls bob" else s.talk(s.bob, s.alice)[1]
    two = s.talk(s.alice, s.carol)[0] if second == "alice calls carol" else s.talk(s.carol, s.alice)[1]
    s.refer(one, "sip:carol@example.com", two)
    assert s.alice.replies[b"REFER"] == [202] and s.alice.news[-1] == b"SIP/2.0 200 OK"
    assert sum(command.startswith("uuid_bridge") for command in s.switch.commands) == 1
    s.world.run(5)
    assert s.in_call() == {"bob": 1, "carol": 1}
    followed = (first == "bob calls alice") + (second == "carol calls alice")
    assert len(s.world.engine.calls) == followed
    s.bob.calls[-1].hangup()
    s.world.run(1)
    assert s.in_call() == {}
    s.over()


@pytest.mark.parametrize("reported", [True, False])
def test_a_phone_may_put_two_through_before_freeswitch_has_reported_the_second_call(
    reported: bool, tmp_path: Path
) -> None:
    """The two are joined, a little later: carol is not called a second time beside the call that she has."""
    s = Stage(VIA + TAKE, tmp_path)
    one, _ = s.talk(s.alice, s.bob)
    s.switch.say_channels = False
    two, _ = s.talk(s.alice, s.carol)
    one.refer("sip:carol@example.com", two)
    s.world.run(0.3)
    assert s.alice.replies == {} and len(s.carol.calls) == 1
    if reported:
        s.switch.report()
    s.world.run(5)
    assert s.alice.replies[b"REFER"] == ([202] if reported else [200]), "passed on, for the flow has caught the error"
    assert sum(command.startswith("uuid_bridge") for command in s.switch.commands) == reported
    assert len(s.carol.calls) == 1
    if reported:
        assert s.in_call() == {"bob": 1, "carol": 1}
    s.switch.report()
    s.over()


def test_a_leg_that_ends_before_they_are_joined_takes_the_other_one_along(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    one, bob = s.talk(s.alice, s.bob)
    two, carol = s.talk(s.alice, s.carol)
    s.refer(one, "sip:carol@example.com", two)
    s.switch._left = lambda channel, gone: None  # type: ignore[method-assign]
    bob.hangup()
    s.world.run(0.5)
    assert carol.state == "answered"
    s.world.run(2)
    assert carol.state == "ended"
    s.over()


def test_a_dialog_that_does_not_go_through_freeswitch_is_replaced(tmp_path: Path) -> None:
    flows = VIA.replace("on: invite", "on: invite\n    when: call.target.user != 'carol'")
    s = Stage(flows + TAKE + DIRECT.replace("calls", "direct"), tmp_path)
    second = s.world.phone("carol@example.com", "10.0.0.44")
    second.register()
    second.on_invite = PhoneCall.ring
    s.world.run()
    _, bob = s.talk(s.alice, s.bob)
    consult, _ = s.talk(s.bob, s.carol)
    second.calls.clear()
    s.refer(bob, "sip:carol@example.com", consult)
    assert s.in_call() == {"alice": 1, "carol": 1}
    assert second.calls == [], "her other phone does not have the dialog"
    assert s.bob.news[-1] == b"SIP/2.0 200 OK" and consult.state == "ended"
    s.over()


def test_freeswitch_does_not_join_and_both_calls_go_on(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE.partition("    on_error")[0], tmp_path)
    s.switch.answers["uuid_bridge"] = {"ok": False, "text": "-ERR Invalid uuid\n"}
    _, one = s.talk(s.bob, s.alice)
    two, _ = s.talk(s.alice, s.carol)
    s.refer(one, "sip:carol@example.com", two)
    assert s.alice.replies[b"REFER"] == [500] and s.alice.news == []
    assert s.in_call() == {"alice": 2, "bob": 1, "carol": 1} and len(s.world.engine.calls) == 2
    one.hangup()
    two.hangup()
    s.world.run(1)
    assert s.in_call() == {} and s.said.count("call over") == 2
    s.over()


# --- what else a flow may do ------------------------------------------------------------------------------------------


def test_without_such_a_flow_it_passes(tmp_path: Path) -> None:
    s = Stage(DIRECT, tmp_path)
    alice, _ = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:carol@example.com")
    assert [r.get(b"refer-to") for r in s.bob.requests if r.method == b"REFER"] == [b"<sip:carol@example.com>"]
    assert s.alice.replies[b"REFER"] == [200]
    s.over()


@pytest.mark.parametrize(
    ("steps", "answer", "passed"),
    [("reply: 603", 603, 0), ("log: seen", 200, 1), ("relay: {to: original, headers: {X-Seen: us}}", 200, 1)],
)
def test_a_flow_refuses_it_or_sends_it_on(steps: str, answer: int, passed: int, tmp_path: Path) -> None:
    s = Stage(DIRECT + f"  transfers:\n    on: refer\n    do: [{{{steps}}}]\n", tmp_path)
    alice, bob = s.talk(s.alice, s.bob)
    for call, there in ((alice, s.bob), (bob, s.alice)):
        s.refer(call, "sip:carol@example.com")
        assert call.phone.replies[b"REFER"] == [answer]
        got = [r for r in there.requests if r.method == b"REFER"]
        assert len(got) == passed
        if "relay" in steps:
            assert got[0].get(b"x-seen") == b"us"
    s.over()


def test_a_call_that_goes_from_phone_to_phone_cannot_be_moved(tmp_path: Path) -> None:
    s = Stage(DIRECT + TAKE, tmp_path)
    alice, _ = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:carol@example.com")
    assert s.alice.replies[b"REFER"] == [200] and [r.method for r in s.bob.requests].count(b"REFER") == 1
    assert s.said[-1].startswith("call.state transfer: FreeSWITCH does not have the callee")
    assert s.in_call() == {"alice": 1, "bob": 1}
    s.over()


def test_a_stranger_sends_nobody_to_a_foreign_domain(tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    alice, _ = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:+1900@elsewhere.example.net")
    assert s.switch.commands == [] and s.alice.news == []
    assert s.said[-1] == "call.state transfer: elsewhere.example.net is not a domain that we serve"
    s.over()


@pytest.mark.parametrize(
    "header",
    ["", "Refer-To: <sip:a@b", "Refer-To: <sip:carol@example.com?Replaces=x>", "Refer-To: <sip:a@b>\r\nr: <sip:c@d>"],
)
def test_one_that_cannot_be_read_is_malformed(header: str, tmp_path: Path) -> None:
    s = Stage(VIA + TAKE, tmp_path)
    alice, _ = s.talk(s.alice, s.bob)
    alice.ask("REFER", [header.encode()] if header else [])
    s.world.run(1)
    assert s.alice.replies[b"REFER"] == [400]
    s.over()


# --- outside of calls -------------------------------------------------------------------------------------------------

DIAL = """\
  dial:
    on: refer
    when: call == null
    do:
      - reply: 202
      - originate: {to: 'sip:alice@example.com', via: fs1}
        as: out
      - log: '${out.outcome}'
      - transfer: {to: 'sip:carol@example.com', leg: callee}
        if: out.outcome == 'answered'
"""


@pytest.mark.parametrize("status", [200, 486])
def test_a_refer_outside_of_calls_has_news_in_its_own_dialog(status: int, tmp_path: Path) -> None:
    """dave clicks; alice's phone rings. What has become of that is told in the dialog that the 202 has made."""
    s = Stage(VIA + DIAL.split("      - transfer")[0], tmp_path)
    if status == 486:
        s.alice.on_invite = lambda call: call.reject(486)
    peer = s.world.peer("crm", "10.0.0.77")
    ask = peer.ask("REFER", "sip:click@example.com", "Refer-To: <sip:x@example.com>", f"Contact: {peer.contact}")
    s.world.run(1)
    for number in range(2):
        peer.answer(peer.requests("NOTIFY")[-1], 200)
        s.world.run(number)
    assert ask.statuses == [202]
    first, last = {n.cseq: n for n in peer.requests("NOTIFY")}.values()
    assert (first.body, last.body.split(b" ")[1]) == (b"SIP/2.0 100 Trying\r\n", str(status).encode())
    assert first.from_tag == ask.final.to_tag and first.to_tag == b"crm"
    assert (first.get(b"event"), last.get(b"subscription-state")) == (b"refer", b"terminated;reason=noresource")
    s.over()


def test_who_hears_the_news_may_ask_for_them_and_end_them(tmp_path: Path) -> None:
    """baresip does when its call has ended: a SUBSCRIBE with Expires 0 (RFC 6665 §4.2.1)."""
    s = Stage(VIA + TAKE, tmp_path)
    s.carol.on_invite = PhoneCall.ring
    alice, _ = s.talk(s.alice, s.bob)
    s.refer(alice, "sip:carol@example.com")
    assert s.alice.news == [b"SIP/2.0 100 Trying"]
    for expires, state in (("60", b"active;expires=180"), ("0", b"terminated;reason=timeout")):
        alice.ask("SUBSCRIBE", [b"Event: refer", b"Expires: " + expires.encode()])
        s.world.run(0.1)
        last = next(r for r in reversed(s.alice.requests) if r.method == b"NOTIFY")
        assert last.get(b"subscription-state") == state and last.body == b"SIP/2.0 100 Trying\r\n"
    assert s.alice.replies[b"SUBSCRIBE"] == [200, 200]
    s.carol.calls[0].answer()
    s.world.run(1)
    assert len(s.alice.news) == 3 and s.in_call() == {"bob": 1, "carol": 1}
    assert s.world.engine.requests._dialogs._numbering.subscriptions == {}
    s.over()


def test_a_sender_that_wants_no_news_gets_none(tmp_path: Path) -> None:
    """RFC 4488 §4."""
    s = Stage("  take: {on: refer, do: [reply: 200]}\n", tmp_path)
    peer = s.world.peer("crm", "10.0.0.77")
    lines = ("Refer-To: <sip:x@example.com>", f"Contact: {peer.contact}", "Refer-Sub: false")
    ask = peer.ask("REFER", "sip:click@example.com", *lines)
    s.world.run(1)
    assert ask.statuses == [200] and ask.final.get(b"refer-sub") == b"false"
    assert peer.requests("NOTIFY") == []


# --- the language -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "code", "message"),
    [
        ("{on: refer, do: [log: '${call.to.user}']}", "E208", "may be missing"),
        ("{on: refer, do: [play: a.wav]}", "E303", "play: needs a call, but this flow runs on refer"),
        ("{on: refer, do: [{transfer: {to: '${refer.to.uri}', leg: caller}}]}", "E303", "the party that did not ask"),
        ("{on: refer, do: [{transfer: '${refer.by.uri}'}]}", "E212", ""),
        ("{on: refer, do: [{transfer: '${refer.to.uri}'}, {reply: 202}]}", "E302", "already answered"),
        ("{on: invite, do: [log: '${refer.to.user}']}", "E205", "refer"),
        ("{on: message, do: [{transfer: 'sip:a@example.com'}]}", "E303", "transfer: needs a call"),
        ("{on: refer, when: refer.leg == 'calee', do: [reply: 603]}", "E204", "never"),
    ],
)  # fmt: skip
def test_what_the_checker_says(flow: str, code: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_sources([Source("x.flow.yaml", f"{HEADER}flows:\n  x: {flow}\n")])
    assert code in str(caught.value) and message in str(caught.value)


def test_the_flow_of_the_docs_is_right() -> None:
    assert World(load_sources([Source("x.flow.yaml", HEADER + "flows:\n" + VIA + TAKE)])[0])
