"""`media`, `answer` and what runs on the channel behind them: one leg on FreeSWITCH, two wires that may disagree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mediakit import CAUGHT, HEADER, failed, media, recorded, stage

from orchestrator.esl.translate import needed
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.loader import load_program
from orchestrator.testing.phone import PhoneCall

# --- media and answer -------------------------------------------------------------------------------------------------


def test_media_with_answer_is_a_200_and_a_channel(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: {server: fs1, answer: true}", "log: '${call.state} ${call.fs.caller ?? \"?\"}'")
    call = s.call()
    assert call.statuses == [100, 200]
    assert s.said == [f"answered {call.call_id.decode()}"]
    invite = s.switch.calls[0].invite
    assert invite is not None and invite.uri == b"sip:park@10.0.0.9:5080"
    call.hangup()
    s.over()


def test_media_without_is_early_media_and_answer_answers(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: fs1", "log: '${call.state}'", "answer: {headers: {X-Why: told so}}", "log: answered")
    call = s.call()
    assert call.statuses == [100, 183, 200]
    assert s.said == ["new", "answered"]
    uuid = call.call_id.decode()
    assert s.switch.commands == [f"uuid_setvar {uuid} sip_rh_X-Why told so", f"uuid_answer {uuid}"]
    call.hangup()
    s.over()


def test_answer_alone_has_freeswitch_take_the_call(tmp_path: Path) -> None:
    s = stage(tmp_path, "answer:", "log: answered")
    call = s.call()
    assert call.statuses == [100, 200] and s.said == ["answered"]
    call.hangup()
    s.over()


@pytest.mark.parametrize("value", ["a${system(id)}", "a;b", "a\\nb"])
def test_a_header_of_the_answer_is_no_way_into_freeswitch(tmp_path: Path, value: str) -> None:
    steps = f'answer: {{headers: {{X-Why: \'${{call.headers["subject"] ?? ""}}\'}}}}\n {CAUGHT}'
    s = stage(tmp_path, "media: fs1", steps, "hangup: done")
    s.alice.invite("ivr@example.com", [b"Subject: " + value.encode()])
    s.world.run()
    assert len(s.said) == 1 and s.said[0].startswith("esl.command answer:")
    assert s.switch.commands == []
    s.over()


def test_the_event_socket_may_be_the_slower_wire(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: {server: fs1, answer: true}", "play: hello.wav", "hangup: done")
    s.switch.say_channels = False
    call = s.call()
    assert call.state == "answered" and s.apps == []
    s.world.run(0.02)
    s.switch.report()
    assert s.apps == [("playback", "hello.wav", "caller")]
    s.over()


def test_a_channel_that_is_never_reported_is_a_timeout(tmp_path: Path) -> None:
    s = stage(tmp_path, f"media: {{server: fs1, answer: true}}\n {CAUGHT}", "hangup: done")
    s.switch.say_channels = False
    s.call()
    s.world.run(11)
    assert s.said == ["esl.timeout media: FreeSWITCH fs1: its Event Socket has not reported the channel within 10 s"]
    s.over()


def test_a_freeswitch_that_refuses_leaves_the_call_to_others(tmp_path: Path) -> None:
    caught = "on_error: [log: '${error.type} ${error.message}', relay: 'sip:bob@10.0.0.3', stop]"
    s = stage(tmp_path, f"media: {{server: fs1, answer: true}}\n {caught}", "play: never.wav")
    s.switch.refuses = 603
    s.bob.on_invite = lambda call: call.answer()
    call = s.call()
    assert s.said == ["esl.command media: FreeSWITCH fs1: 603 Decline"]
    assert call.state == "answered" and s.bob.calls[0].state == "answered"
    call.hangup()
    s.over()


def test_a_link_that_is_down_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    caught = "on_error: [log: '${error.type} ${error.message}', reply: 503]"
    s = stage(tmp_path, f"media: {{server: fs1, answer: true}}\n {caught}")
    s.world.engine.servers.states["fs1"] = "down"
    call = s.call()
    assert s.said == ["esl.down media: FreeSWITCH fs1 is not connected"] and s.switch.calls == []
    assert call.statuses[-1] == 503
    s.over()


def test_a_caller_who_gives_up_during_early_media_ends_all_of_it(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: fs1", "play: hello.wav", "answer:")
    s.switch.slow = {"playback"}
    call = s.call()
    call.hangup()
    s.world.run()
    assert call.statuses[-1] == 487 and s.switch.calls[0].cancelled
    s.over()


def test_early_media_then_a_phone(tmp_path: Path) -> None:
    steps = ("relay: 'sip:bob@10.0.0.3'", "log: '${call.state}'", "wait: dtmf\n as: key", "log: '${key.digit}'")
    s = stage(tmp_path, "media: fs1", "play: hello.wav", *steps)
    call = s.call()
    s.bob.calls[0].answer()
    s.world.run()
    call.press("3")
    s.world.run()
    assert call.state == "answered"
    assert s.said == ["answered", "3"], "FreeSWITCH is out of it: an INFO is ours to hear again"
    assert s.switch.calls[0].cancelled, "FreeSWITCH's early leg ends when somebody else answers"
    call.hangup()
    s.over()


def test_early_media_and_no_answer_is_a_failure_for_the_caller(tmp_path: Path) -> None:
    s = stage(tmp_path, "media: fs1", "play: closed.wav", "reply: 480")
    assert s.call().statuses == [100, 183, 480]
    s.over()


# --- play -------------------------------------------------------------------------------------------------------------


def test_channel_variables_are_as_freeswitch_told_them_last(tmp_path: Path) -> None:
    told = 'log: \'${call.fs.vars["fax_result_text"] ?? "-"} ${call.fs.vars["direction"] ?? "-"}\''
    s = media(tmp_path, told, "wait: dtmf", told, "hangup: done")
    call = s.call()
    finished = recorded("fax_cng", "CHANNEL_EXECUTE_COMPLETE")
    s.switch.emit(finished, call.call_id.decode(), variable_fax_result_text="OK", variable_direction="inbound")
    s.switch.emit(recorded("dtmf", "DTMF"), call.call_id.decode())  # which has none, and takes none away
    s.world.run()
    assert s.said[0].startswith("- ") and s.said[1] == "OK inbound"
    s.over()


def test_variables_of_the_caller_come_before_those_of_the_callee(tmp_path: Path) -> None:
    read = 'log: \'${call.fs.vars["one"] ?? "-"} ${call.fs.vars["two"] ?? "-"}\''
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", "wait: dtmf", read)
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    back = next(c for c in s.switch.calls if c.call_id != call.call_id)
    answered = recorded("via_bridge", "CHANNEL_ANSWER")
    s.switch.emit(answered, back.call_id.decode(), variable_one="callee", variable_two="callee")
    s.switch.emit(answered, call.call_id.decode(), variable_one="caller")
    s.switch.emit(recorded("dtmf", "DTMF"), call.call_id.decode())
    s.world.run()
    assert s.said == ["caller callee"]
    call.hangup()
    s.over()


def test_play_waits_for_its_end_as_often_as_told(tmp_path: Path) -> None:
    s = media(tmp_path, "play: {file: a.wav, repeat: 2}", "log: done", "hangup: done")
    s.switch.slow = {"playback"}
    s.call()
    s.switch.finish()
    assert s.said == [] and len(s.switch.ran) == 2
    s.switch.finish()
    assert s.said == ["done"]
    s.over()


@pytest.mark.parametrize(
    ("response", "said"), [("FILE NOT FOUND", "there is no such file"), ("PLAYBACK ERROR", "it cannot be played")]
)
def test_a_file_that_cannot_be_played_is_an_error(tmp_path: Path, response: str, said: str) -> None:
    s = media(tmp_path, f"play: a.wav\n {CAUGHT}", "hangup: done")
    s.switch.answers["playback"] = {"response": response, "variables": {}}
    s.call()
    assert s.said == [f"esl.command play: a.wav: {said}"]
    s.over()


def test_nobody_is_left_in_silence_by_a_flow_that_failed(tmp_path: Path) -> None:
    s = media(tmp_path, "subscribe: dtmf\n do: [log: key]", "play: no.wav")
    s.switch.answers["playback"] = {"response": "FILE NOT FOUND", "variables": {}}
    call = s.call()
    assert call.state == "ended" and call.bye is not None
    s.over()


def test_two_who_talk_are_not_parted_by_a_flow_that_failed(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", "play: no.wav")
    s.bob.on_invite = PhoneCall.answer
    s.switch.answers["playback"] = {"response": "FILE NOT FOUND", "variables": {}}
    call = s.call("bob@example.com")
    s.world.run(5)
    assert call.state == "answered"
    call.hangup()
    s.over()


def test_a_play_that_is_cut_off_is_stopped(tmp_path: Path) -> None:
    s = media(tmp_path, f"play: a.wav\n timeout: 2s\n {CAUGHT}", "play: b.wav", "hangup: done")
    s.switch.slow = {"playback"}
    call = s.call()
    s.world.run(3)
    assert s.said == ["step.timeout play took longer than 2s"]
    assert s.switch.commands == [f"uuid_break {call.call_id.decode()}"]
    s.switch.finish()
    s.over()


def test_what_plays_behind_stops_before_the_next_begins(tmp_path: Path) -> None:
    s = media(tmp_path, "play: {file: music.wav, background: true}", "log: on", "play: b.wav", "hangup: done")
    s.switch.slow = {"playback"}
    call = s.call()
    assert s.said == ["on"]
    assert [args for _, args, _ in s.apps] == ["music.wav"], "inside the first the second would begin"
    assert s.switch.commands == [f"uuid_break {call.call_id.decode()}"]
    s.world.run(0.02)
    assert [args for _, args, _ in s.apps] == ["music.wav", "b.wav"]
    s.switch.finish()
    s.over()


def test_a_background_that_fails_ends_nothing(tmp_path: Path) -> None:
    s = media(tmp_path, "play: {file: no.wav, background: true}", "log: went on", "sleep: 1s", "hangup: done")
    s.switch.answers["playback"] = {"response": "FILE NOT FOUND", "variables": {}}
    s.call()
    (run,) = s.world.engine.flows.runs.values()
    assert [record for record in run.records if "background play failed" in record.text]
    assert s.said == ["went on"]
    s.world.run(2)
    s.over()


def test_what_a_caller_sends_is_no_command(tmp_path: Path) -> None:
    s = media(tmp_path, f'play: \'${{call.headers["subject"] ?? ""}}.wav\'\n {CAUGHT}', "hangup: done")
    s.alice.invite("ivr@example.com", [b"Subject: ${system(id)}"])
    s.world.run()
    assert s.apps == [] and s.said[0].startswith("expr.value ")
    s.over()


def test_without_freeswitch_there_is_no_media(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: 'sip:bob@10.0.0.3'", f"play: a.wav\n {CAUGHT}", f"transfer: 'sip:x@y.z'\n {CAUGHT}")
    s.bob.on_invite = lambda call: call.answer()
    call = s.call()
    assert s.said == [
        "call.state FreeSWITCH does not have the caller of this call: use media:, or relay: with via:, before",
        "call.state transfer: FreeSWITCH does not have the caller (media: or via: first)",
    ]
    call.hangup()
    s.over()


def test_the_legs_of_a_call_through_freeswitch(tmp_path: Path) -> None:
    s = stage(
        tmp_path,
        "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
        "play: {file: a.wav, leg: callee}",
        "play: {file: b.wav, leg: both}",
    )
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    assert s.apps == [("playback", "a.wav", "callee"), ("playback", "b.wav", "caller"), ("playback", "b.wav", "callee")]
    call.hangup()
    s.over()


def test_a_step_waits_for_a_channel_that_sip_was_faster_than(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", "play: {file: a.wav, leg: callee}", "log: done")
    s.bob.on_invite = lambda call: call.answer()
    s.switch.say_channels = False
    call = s.call("bob@example.com")
    assert call.state == "answered" and s.apps == []
    s.world.run(0.5)
    s.switch.report()
    assert s.apps == [("playback", "a.wav", "callee")] and s.said == ["done"]
    call.hangup()
    s.over()


def test_or_for_one_that_only_a_list_of_channels_tells_of(tmp_path: Path) -> None:
    """The link was down when the channel began: it stands in the list that comes with the link, and is asked about."""
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", "play: {file: a.wav, leg: callee}", "log: played")
    s.switch.say_channels = False
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    uuid = next(c for c in s.switch.calls if c.call_id != call.call_id).call_id.decode()
    facts = {"Event-Name": "CHANNEL_DATA", "Core-UUID": "core", "Unique-ID": uuid, "Call-Direction": "outbound"}
    s.switch.answers["uuid_dump"] = {"ok": True, "text": json.dumps(facts | {"variable_sip_call_id": uuid})}
    s.world.run(0.5)
    assert s.said == []
    now = s.world.now
    s.world.engine.receive_snapshot("fs1", [{"uuid": uuid, "direction": ""}], now, "core", now)
    s.world.run()
    assert s.said == ["played"]
    s.switch.report()
    call.hangup()
    s.over()


def test_but_not_for_ever(tmp_path: Path) -> None:
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", f"play: {{file: a.wav, leg: callee}}\n {CAUGHT}")
    s.bob.on_invite = lambda call: call.answer()
    s.switch.say_channels = False
    call = s.call("bob@example.com")
    s.world.run(2)
    assert s.said[0].startswith("call.state FreeSWITCH does not have the callee")
    call.hangup()
    s.over()


# --- record and collect -----------------------------------------------------------------------------------------------


def test_a_recording_ends_as_told_and_says_how_long_it_is(tmp_path: Path) -> None:
    steps = "record: {file: '/tmp/a b.wav', max: 90s, silence: 2500ms, stop: '#'}\n as: r"
    s = media(tmp_path, steps, "log: '${r.file} ${r.duration}'", "hangup: done")
    s.switch.answers["record"] = {"response": "", "variables": {"record_ms": "4320"}}
    call = s.call()
    uuid = call.call_id.decode()
    assert s.apps == [("record", "'/tmp/a b.wav' 90 200 3", "caller")]
    setting = f"uuid_setvar {uuid} playback_terminators"
    assert s.switch.commands == [f"{setting} #", f"{setting} none"], "no key ends what is played later"
    assert s.said == ["/tmp/a b.wav 4.32"]
    s.over()


def test_both_legs_are_recorded_beside_the_call_until_record_stop(tmp_path: Path) -> None:
    steps = "record: {file: /tmp/both.wav, leg: both, max: 1m}\n as: r"
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", steps, "log: '${r.duration}'")
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    uuid = call.call_id.decode()
    assert s.apps == [("record_session", "/tmp/both.wav +60", "caller")] and s.said == []
    stop = recorded("via_bridge", "CHANNEL_BRIDGE")
    named = {"Event-Name": "RECORD_STOP", "variable_record_ms": "1500"}
    s.switch.emit(stop, uuid, **named, **{"Record-File-Path": "/tmp/other.wav"})
    assert s.said == []
    s.switch.emit(stop, uuid, **named, **{"Record-File-Path": "/tmp/both.wav"})
    assert s.said == ["1.5"]
    call.hangup()
    s.over()


def test_a_recording_of_both_that_is_cut_off_is_stopped(tmp_path: Path) -> None:
    steps = f"record: {{file: /tmp/both.wav, leg: both}}\n timeout: 5s\n {CAUGHT}"
    s = stage(tmp_path, "relay: {to: 'sip:bob@10.0.0.3', via: fs1}", steps)
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    s.world.run(6)
    assert s.said and s.switch.commands == [f"uuid_record {call.call_id.decode()} stop /tmp/both.wav"]
    call.hangup()
    s.over()


@pytest.mark.parametrize("keys", ["x", "#;", "any"])
def test_only_keys_of_a_telephone_end_anything(tmp_path: Path, keys: str) -> None:
    s = media(tmp_path, f"record: {{file: /tmp/a.wav, stop: '{keys}'}}\n {CAUGHT}", "hangup: done")
    s.call()
    assert s.said[0].startswith("call.state stop: ") and s.apps == []
    s.over()


# --- detectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("leg", "tone"), [("caller", "cng"), ("callee", "ced")])
def test_a_fax_is_heard_by_the_tone_its_side_sends(tmp_path: Path, leg: str, tone: str) -> None:
    s = stage(
        tmp_path,
        "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
        f"detect: {{what: fax, leg: {leg}, for: 6s}}",
        "wait: fax_tone\n as: heard",
        "log: '${heard.tone} ${heard.leg}'",
    )
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    assert s.apps == [("spandsp_start_fax_detect", f"set fax_heard=true 6 {tone}", leg)]
    back = next(c for c in s.switch.calls if c.call_id != call.call_id)
    heard_on = call.call_id if leg == "caller" else back.call_id
    direction = "inbound" if leg == "caller" else "outbound"
    s.switch.emit(recorded("fax_cng", "DETECTED_TONE"), heard_on.decode(), **{"Call-Direction": direction})
    assert s.said == [f"{tone} {leg}"]
    call.hangup()
    s.over()


def test_a_beep_is_looked_for_on_the_called_side_and_not_for_ever(tmp_path: Path) -> None:
    s = stage(
        tmp_path,
        "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
        "detect: {what: beep, for: 20s}",
        f"detect: {{what: beep, leg: caller}}\n {CAUGHT}",
        "subscribe: beep\n do: [log: '${event.frequency} ${event.leg}']",
    )
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    assert s.apps == [("avmd_start", "", "callee")]
    assert s.said == ["call.state detect: beep listens to the called party only, not to the caller"]
    back = next(c for c in s.switch.calls if c.call_id != call.call_id)
    s.switch.emit(recorded("avmd_beep", "avmd::beep"), back.call_id.decode())
    assert s.said[1].startswith("1000.") and s.said[1].endswith(" callee")
    s.world.run(21)
    assert s.apps[1:] == [("avmd_stop", "", "callee")]
    call.hangup()
    s.over()


def test_a_detector_works_beside_what_plays(tmp_path: Path) -> None:
    s = media(tmp_path, "play: {file: ringing.wav, background: true}", "detect: {what: fax, for: 6s}", "log: listening")
    s.switch.slow = {"playback"}
    call = s.call()
    assert s.said == ["listening"] and s.switch.commands == []
    call.hangup()
    s.over()


# --- fs.execute -------------------------------------------------------------------------------------------------------


def test_an_application_waits_for_the_background_and_tells_its_response(tmp_path: Path) -> None:
    s = media(
        tmp_path,
        "play: {file: tone.wav, background: true}",
        "fs.execute: {app: rxfax, args: '/tmp/f.tif', wait: true}\n as: fax",
        "log: '<${fax.response}>'",
        "hangup: done",
    )
    s.switch.slow = {"playback"}
    s.call()
    assert [app for app, _, _ in s.apps] == ["playback"]
    s.world.run(0.02)
    assert [app for app, _, _ in s.apps] == ["playback", "rxfax"] and s.said == ["<FILE PLAYED>"]
    s.over()


@pytest.mark.parametrize(
    ("display", "args", "runs"),
    [
        ("Alice", "x=${call.from.display}", ["x=Alice"]),
        ("Alice", "x=$${uuid} ${call.from.display}", ["x=${uuid} Alice"]),
        ("${system(id)}", "x=${call.from.display}", []),
        ("${system(id)}", "x=$${uuid} ${call.from.display}", []),
    ],
)
def test_freeswitch_expands_what_the_flow_wrote_and_nothing_else(
    tmp_path: Path, display: str, args: str, runs: list[str]
) -> None:
    s = media(tmp_path, f"fs.execute: {{app: set, args: '{args}'}}\n {CAUGHT}", "hangup: done")
    original = s.alice.send
    s.alice.send = lambda data, to: original(data.replace(b"From: <", b'From: "%b" <' % display.encode()), to)
    s.call()
    assert [arguments for _, arguments, _ in s.apps] == runs
    assert bool(s.said) is not bool(runs)
    s.over()


def test_a_failed_command_is_an_error_of_its_kind(tmp_path: Path) -> None:
    s = media(tmp_path, f"play: a.wav\n {CAUGHT}", "hangup: done")
    s.switch.answers["playback"] = failed("esl.down", "fs1 is down")
    s.call()
    assert s.said == ["esl.down fs1 is down"]
    s.over()


@pytest.mark.parametrize("wait", ["false", "true"])
def test_a_flow_ends_with_its_call_before_an_application(tmp_path: Path, wait: str) -> None:
    s = media(tmp_path, "hangup: done", f"fs.execute: {{app: set, args: a=b, wait: {wait}}}", "log: still here")
    s.call()
    s.over()
    assert (s.apps, s.said) == ([], [])
    assert [trace.error for trace in s.world.engine.flows.traces] == [""]


def test_the_shipped_flows_say_what_they_need() -> None:
    """What is used has to be subscribed to, or it would wait for ever."""
    folder = Path(__file__).parents[2] / "flows"
    usage = usage_of(load_program([folder])[0])
    assert {"CHANNEL_EXECUTE_COMPLETE", "DTMF", "CUSTOM avmd::beep", "DETECTED_TONE"} <= needed(usage.events, usage.fs)


def test_a_recording_has_its_event_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.flow.yaml"
    path.write_text(HEADER + "flows: {r: {on: invite, do: [{answer: {}}, {record: /tmp/a.wav}]}}\n")
    usage = usage_of(load_program([path])[0])
    assert {"RECORD_STOP", "CHANNEL_EXECUTE_COMPLETE"} <= needed(usage.events)
