"""`transfer` and `originate`: FreeSWITCH calls for a flow, through us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mediakit import CAUGHT, OK, Stage, failed, media, recorded, stage

from orchestrator.testing.phone import PhoneCall

# --- transfer ---------------------------------------------------------------------------------------------------------


def test_a_held_call_is_put_through(tmp_path: Path) -> None:
    steps = ("transfer: 'sip:bob@example.com'", "log: through", "play: {file: a.wav, leg: callee}")
    s = media(tmp_path, *steps)
    call = s.call()
    assert s.said == [] and s.bob.calls[0].state == "ringing"
    (command,) = s.switch.commands
    uuid = call.call_id.decode()
    way = f"uuid_transfer {uuid} m:^:set:continue_on_fail=true^set:hangup_after_bridge=true^bridge:{{sip_h_X-Orc"
    assert "sip_invite_domain=example.com,sip_invite_to_uri=<sip:bob@example.com>}" in command, "his domain, not ours"
    assert command.startswith(way) and command.endswith("}sofia/orchestrator/call@10.0.0.1:5060^park: inline")
    s.bob.calls[0].answer()
    s.world.run()
    assert s.said == ["through"] and s.apps == [("playback", "a.wav", "callee")]
    s.bob.calls[0].hangup()
    s.over()
    assert call.state == "ended"


def test_an_unanswered_caller_hears_the_new_destination_answer(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: fs1", "transfer: 'sip:bob@example.com'", "log: through")
    s.bob.on_invite = PhoneCall.answer
    call = s.call()
    assert call.statuses == [100, 183, 200] and s.said == ["through"]
    call.hangup()
    s.over()


def test_a_transfer_that_fails_leaves_the_call_to_the_flow(tmp_path: Path) -> None:
    s = media(tmp_path, f"transfer: 'sip:bob@example.com'\n {CAUGHT}", "transfer: 'sip:carol@example.com'", "log: on")
    s.bob.on_invite = lambda call: call.reject(486)
    s.carol.on_invite = PhoneCall.answer
    call = s.call()
    assert s.said == ["esl.command transfer to sip:bob@example.com: 486 Busy Here", "on"]
    call.hangup()
    s.over()


def test_the_old_peer_is_hung_up_and_the_call_goes_on(tmp_path: Path) -> None:
    flow = ("relay: {to: 'sip:bob@10.0.0.3', via: fs1}", "transfer: 'sip:carol@example.com'", "log: through")
    s = stage(tmp_path, *flow)
    s.bob.on_invite = s.carol.on_invite = PhoneCall.answer
    call = s.call("bob@example.com")
    assert (s.bob.calls[0].state, call.state, s.carol.calls[0].state) == ("ended", "answered", "answered")
    assert s.said == ["through"] and len(s.world.engine.calls) == 1
    s.carol.calls[0].hangup()
    s.over()


def test_a_caller_who_hangs_up_ends_the_ringing(tmp_path: Path) -> None:
    s = media(tmp_path, "transfer: 'sip:bob@example.com'", "log: never")
    call = s.call()
    call.hangup()
    s.world.run()
    assert s.said == [] and s.bob.calls[0].cancelled
    s.over()


def test_freeswitch_may_refuse(tmp_path: Path) -> None:
    s = media(tmp_path, f"transfer: 'sip:bob@example.com'\n {CAUGHT}", "hangup: done")
    s.switch.answers["uuid_transfer"] = {"ok": False, "text": "-ERR No such channel!\n"}
    s.call()
    assert s.said == ["esl.command transfer: -ERR No such channel!"] and s.bob.calls == []
    s.over()


def test_or_never_call_us(tmp_path: Path) -> None:
    s = media(tmp_path, f"transfer: 'sip:bob@example.com'\n {CAUGHT}", "hangup: done")
    s.switch.answers["uuid_transfer"] = OK
    s.call()
    s.world.run(11)
    assert s.said == ["esl.command transfer to sip:bob@example.com: 504 Server Time-out"]
    s.over()


def test_a_context_takes_the_leg_away(tmp_path: Path) -> None:
    s = media(tmp_path, "transfer: {to: 'sip:9000@example.com', context: public}", "log: gone")
    call = s.call()
    assert s.switch.commands == [f"uuid_transfer {call.call_id.decode()} 9000 XML public"] and s.said == ["gone"]
    call.hangup()
    s.over()


@pytest.mark.parametrize(
    "transfer",
    ["{to: 'sip:9000,x@example.com', context: public}", "{to: 'sip:9000@example.com', context: 'a b'}"],
)
def test_no_destination_is_a_command(tmp_path: Path, transfer: str) -> None:
    s = media(tmp_path, f"transfer: {transfer}\n {CAUGHT}", "hangup: done")
    s.call()
    assert s.said[0].startswith("esl.command transfer: ") and s.switch.commands == []
    s.over()


def test_a_strange_destination_is_no_dial_string(tmp_path: Path) -> None:
    """It is rung by us; FreeSWITCH only ever calls us."""
    s = media(tmp_path, f"transfer: 'sip:a,b@10.0.0.3'\n {CAUGHT}", "hangup: done")
    s.bob.on_invite = lambda call: call.reject(404)
    s.call()
    assert "a,b" not in s.switch.commands[0] and s.bob.calls[0].invite is not None
    assert s.bob.calls[0].invite.uri == b"sip:a,b@10.0.0.3"
    s.over()


# --- originate --------------------------------------------------------------------------------------------------------

REMIND = """events: {due: {to: aor}}
gateways: {telco: {uri: 'sip:10.0.0.4'}}
flows:
  start:
    on: invite
    do:
      - raise: due
        data: {to: '${call.target.user}@example.com'}
      - reply: 480
  remind:
    on: {event: due}
    do:
      - originate: %s
        as: out
      - log: '${out.outcome} ${out.code} ${out.contact ?? "-"}'
      - if: out.outcome != 'answered'
        then: [stop]
      - log: '${call.state} ${call.to.aor} ${call.from.user}'
%s
"""
TO = "{to: 'sip:${event.to}', from: clinic@example.com, ring: 20s, vars: {colour: red}}"


def remind(tmp_path: Path, *steps: str, originate: str = TO) -> Stage:
    lines = "\n".join("      - " + step.replace("\n", "\n      ") for step in steps)
    return Stage(REMIND % (originate, lines), tmp_path)


def start(s: Stage, user: str = "bob") -> None:
    s.call(f"{user}@example.com")
    s.world.run(0.1)


def test_the_placed_call_is_the_call_of_the_flow(tmp_path: Path) -> None:
    s = remind(tmp_path, "play: {file: a.wav, leg: callee}", "hangup: delivered")
    s.bob.on_invite = PhoneCall.answer
    start(s)
    (command,) = s.switch.commands
    assert command.startswith("originate {origination_uuid=")
    assert command.endswith("sip_invite_to_uri=<sip:bob@example.com>}sofia/orchestrator/call@10.0.0.1:5060 &park()")
    for part in (
        "originate_timeout=35",
        "origination_caller_id_number=clinic",
        "colour=red",
        "ignore_early_media=true",
    ):
        assert part in command
    assert s.said[0] == "answered 200 sip:bob@10.0.0.3:5060"
    assert s.said[1].startswith("answered ")
    assert s.apps == [("playback", "a.wav", "callee")]
    s.world.run(1)
    assert s.bob.calls[0].state == "ended"
    s.over()


def test_placed_calls_that_come_back_to_the_flow_that_placed_them_come_to_an_end(tmp_path: Path) -> None:
    """Each call raises the event that places the next one, to an address of ours: 16 in a row, not for ever."""
    s = remind(tmp_path, originate="{to: 'sip:1${event.to.drop(12)}@10.0.0.1:5060', from: clinic@example.com}")
    told: list[str] = []
    s.world.engine.flows.on_bound = lambda flow, what: told.append(what)
    start(s, "x")
    s.world.run(30)
    assert 5 <= len(s.switch.commands) <= 16 and s.world.engine.flows.stats.circles == 1
    assert "start -> remind -> start" in told[0]
    s.over()


@pytest.mark.parametrize("left", [70, 5, 2, 1])
def test_a_placed_call_has_no_more_hops_than_the_call_that_led_to_it(tmp_path: Path, left: int) -> None:
    """RFC 7332: a circle through somebody else's B2BUA ends only if everybody counts down."""
    s = remind(tmp_path)
    s.world.peer("gw", "10.0.0.9").ask("INVITE", "sip:bob@example.com", max_forwards=left)
    s.world.run(0.1)
    if left > 1:
        assert f"max_forwards={left - 1}," in s.switch.commands[0]
    else:
        assert s.switch.commands == []
        assert any(trace.error == "flow.limit" for trace in s.world.engine.flows.traces)


def test_the_to_of_a_placed_call_is_an_address_without_its_port(tmp_path: Path) -> None:
    s = remind(tmp_path, originate="{to: 'sip:bob@10.0.0.3:5060', from: clinic@example.com, ring: 20s}")
    s.bob.on_invite = PhoneCall.answer
    start(s)
    assert "sip_invite_to_uri=<sip:bob@10.0.0.3>" in s.switch.commands[0]
    assert s.bob.calls[0].invite is not None
    assert s.bob.calls[0].invite.uri == b"sip:bob@10.0.0.3:5060", "what is called has it"


def test_digits_beeps_and_hanging_up_reach_the_flow(tmp_path: Path) -> None:
    s = remind(
        tmp_path,
        "subscribe: dtmf\n  do: [log: 'key ${event.digit} ${event.leg}']",
        "subscribe: beep\n  do: [log: 'beep ${event.leg}']",
        "subscribe: hangup\n  do: [log: '${event.leg} hung up']",
    )
    s.bob.on_invite = PhoneCall.answer
    start(s)
    placed = next(iter(s.switch.placed))
    s.switch.emit(recorded("via_bridge", "DTMF", Call_Direction="outbound"), placed.call_id.decode())
    s.switch.emit(recorded("avmd_beep", "avmd::beep"), placed.call_id.decode())
    s.bob.calls[0].press("7")
    s.world.run()
    assert s.said[2:] == ["key 5 callee", "beep callee"], "an INFO is FreeSWITCH's to report"
    s.bob.calls[0].hangup()
    s.world.run()
    assert s.said[-1] == "callee hung up"
    s.over()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda call: call.reject(486), "busy 486 sip:bob@10.0.0.3:5060"),
        (lambda call: call.reject(603), "rejected 603 sip:bob@10.0.0.3:5060"),
        (PhoneCall.ring, "no_answer 408 -"),
    ],
)
def test_who_does_not_answer_is_an_outcome(tmp_path: Path, act: Callable[[PhoneCall], None], said: str) -> None:
    s = remind(tmp_path)
    s.bob.on_invite = act
    start(s)
    s.world.run(25)
    assert s.said == [said]
    s.over()


def test_a_number_goes_out_through_a_gateway(tmp_path: Path) -> None:
    s = remind(tmp_path, "hangup: done", originate="{to: '004930123', gateway: telco, via: fs1}")
    s.carol.on_invite = PhoneCall.answer
    start(s)
    assert s.carol.calls[0].invite is not None
    assert s.carol.calls[0].invite.uri == b"sip:004930123@10.0.0.4"
    assert s.said[0] == "answered 200 sip:004930123@10.0.0.4"
    assert "Anonymous" in s.switch.commands[0]
    assert "sip_invite_domain=anonymous.invalid" in s.switch.commands[0], "RFC 3323 §4.1.1.3"
    s.over()


def test_it_is_answered_only_when_freeswitch_says_so_too(tmp_path: Path) -> None:
    s = remind(tmp_path, "hangup: done")
    s.bob.on_invite = PhoneCall.answer
    s.call("bob@example.com")
    assert s.bob.calls[0].state == "answered" and s.said == [], "its channel takes no commands yet"
    s.world.run(0.1)
    assert s.said[0].startswith("answered 200")
    s.over()


def test_freeswitch_that_cannot_place_it_is_an_outcome_or_an_error(tmp_path: Path) -> None:
    s = remind(tmp_path)
    s.switch.answers["originate"] = {"ok": False, "text": "-ERR NETWORK_OUT_OF_ORDER\n"}
    start(s)
    assert s.said == ["failed 503 -"]
    s.over()
    s = remind(tmp_path, originate=f"{TO}\n        on_error: [log: '${{error.type}}', stop]")
    s.switch.answers["originate"] = failed("esl.down", "fs1 is down")
    start(s)
    assert s.said == ["esl.down"]
    s.over()


def test_an_invite_that_never_comes_is_a_timeout(tmp_path: Path) -> None:
    s = remind(tmp_path, originate=f"{TO}\n        on_error: [log: '${{error.message}}', stop]")
    s.switch.answers["originate"] = s.world.LATER
    start(s)
    s.world.run(11)
    assert s.said == ["originate: FreeSWITCH fs1 has sent no INVITE within 10 s"]
    s.over()


def test_a_step_that_is_cut_off_takes_the_call_back(tmp_path: Path) -> None:
    s = remind(tmp_path, originate=f"{TO}\n        timeout: 3s\n        on_error: [log: '${{error.type}}', stop]")
    start(s)
    s.world.run(4)
    assert s.said == ["step.timeout"] and s.bob.calls[0].cancelled
    s.over()


@pytest.mark.parametrize("evil", ["a,b", "x}sofia/evil", "${system(id)}", "a b;c", "'"])
def test_a_variable_is_a_value_and_nothing_more(tmp_path: Path, evil: str) -> None:
    quoted = evil.replace("'", "''").replace("${", "$${")
    caught = "on_error: [log: '${error.type}', stop]"
    originate = f"{{to: 'sip:bob@example.com', vars: {{a: '{quoted}'}}}}\n        {caught}"
    s = remind(tmp_path, originate=originate)
    start(s)
    assert s.said == ["esl.command"] and s.switch.commands == []
    s.over()


def test_nobody_else_can_deliver_the_placed_call(tmp_path: Path) -> None:
    s = remind(tmp_path)
    s.switch.answers["originate"] = s.world.LATER
    s.call("bob@example.com")
    id = s.switch.commands[0].split("sip_h_X-Orchestrator-Call=")[1].split(",")[0]
    mallory = s.world.phone("mallory@example.com", "10.0.0.66")
    mallory.invite("bob@example.com", [b"X-Orchestrator-Call: " + id.encode()])
    s.world.run(0.1)
    assert len(s.switch.commands) == 2, "an INVITE like any other: it starts the flow again"
    s.world.run(60)


# --- pickup by intercept ----------------------------------------------------------------------------------------------

INTERCEPT = """events: {take: {uuid: text}}
flows:
  pick:
    on: invite
    when: call.target.user == '*7'
    do:
      - media: {server: fs1, answer: true}
      - raise: take
        data: {uuid: '${call.fs.caller ?? ""}'}
  ring:
    on: invite
    do:
      - subscribe: take
        limit: 1
        do: [fs.api: 'uuid_transfer ${event.uuid} intercept:${call.fs.caller ?? "-"} inline']
      - relay: {to: registered, via: fs1, ring: 30s}
        as: out
      - log: '${out.outcome}'
"""


def test_a_ringing_call_is_picked_up_inside_freeswitch(tmp_path: Path) -> None:
    """FreeSWITCH answers the caller, gives up the phone that rings and bridges the picker: our part is to tell it."""
    s = Stage(INTERCEPT, tmp_path)
    call = s.call("bob@example.com")
    assert s.bob.calls[0].state == "ringing"
    picker = s.carol.invite("*7@example.com")
    s.world.run()
    uuid, picked = call.call_id.decode(), picker.call_id.decode()
    assert s.switch.commands == [f"uuid_transfer {picked} intercept:{uuid} inline"]
    assert s.said == ["answered"] and call.state == "answered" and s.bob.calls[0].cancelled
    picker.hangup()
    s.over()
