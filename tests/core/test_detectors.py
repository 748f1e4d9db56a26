"""Silence, and who has answered: what a leg has to do to be taken for a person or a machine, on a manual clock.

The events are those of a real FreeSWITCH (tests/fixtures/esl/detectors.esl); what changes is whose they are.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mediakit import CAUGHT, Stage, media, recorded, stage

from orchestrator.esl.translate import needed
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.loader import load_program
from orchestrator.testing.phone import PhoneCall

TOLD = "log: '${heard.verdict} ${heard.ms} ${heard.leg}'"


class Answered:
    """A call to bob through FreeSWITCH, in which somebody is listened to."""

    def __init__(self, tmp_path: Path, detect: str, event: str, told: str) -> None:
        self.stage: Stage = stage(
            tmp_path,
            "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
            f"detect: {detect}",
            f"subscribe: {event}\n do: [log: '{told}']",
        )
        self.stage.bob.on_invite = lambda call: call.answer()
        self.call: PhoneCall = self.stage.call("bob@example.com")
        switch = self.stage.switch
        self.back = next(call for call in switch.calls if call.call_id != self.call.call_id)
        self.uuid = {"caller": self.call.call_id.decode(), "callee": self.back.call_id.decode()}

    @property
    def said(self) -> list[str]:
        return self.stage.said

    @property
    def recording(self) -> str:
        """Arguments of the recording that listens."""
        (arguments,) = (args for app, args, _ in self.stage.apps if app == "record_session")
        return arguments

    @property
    def token(self) -> str:
        found = re.search(r"orchestrator_detector=(\w+)", self.recording)
        assert found is not None
        return found[1]

    def at(self, seconds: float) -> None:
        self.stage.world.run(seconds - self.stage.world.now)

    def hear(self, event: str, leg: str = "callee", name: str = "detectors", **headers: str | None) -> None:
        direction = {"caller": "inbound", "callee": "outbound"}[leg]
        self.stage.switch.emit(recorded(name, event), self.uuid[leg], **{"Call-Direction": direction, **headers})
        self.stage.world.run()

    def recording_ends(self, cause: str, seconds: float, leg: str = "callee", token: str = "") -> None:
        """FreeSWITCH ends the recording now, which is so many seconds long."""
        given = {
            "Record-Completion-Cause": cause,
            "variable_record_ms": str(round(seconds * 1000)),
            "Recording-Variable-orchestrator_detector": token or self.token,
        }
        self.hear("RECORD_STOP", leg, **given)

    def over(self) -> None:
        self.call.hangup()
        self.stage.over()
        assert len(self.stage.world.engine.steps.detectors) == 0


@pytest.fixture
def decision(tmp_path: Path) -> Answered:
    return Answered(tmp_path, "decision", "decision", "${event.verdict} ${event.ms} ${event.leg}")


@pytest.fixture
def silence(tmp_path: Path) -> Answered:
    return Answered(
        tmp_path, "{what: silence, leg: callee, silence: 2s, for: 20s}", "silence", "${event.ms} ${event.leg}"
    )


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_recording_listens_of_which_nothing_is_kept(silence: Answered) -> None:
    assert silence.stage.apps[-1][2] == "callee"
    path, limit, settings = silence.recording.split(" ")
    assert path == f"${{temp_dir}}/orchestrator-{silence.token}.wav" and limit == "+20"
    assert settings == (
        f"{{orchestrator_detector={silence.token},RECORD_READ_ONLY=true,RECORD_INITIAL_TIMEOUT_MS=2000,"
        "RECORD_FINAL_TIMEOUT_MS=2000,RECORD_SILENCE_THRESHOLD=200,RECORD_MIN_SEC=86400,RECORD_PRE_BUFFER_FRAMES=1}"
    )
    silence.over()


@pytest.mark.parametrize("what", ["silence", "decision"])
@pytest.mark.parametrize(("level", "told"), [("", 200), (", level: 450", 450), (", level: '${400 + 50}'", 450)])
def test_the_level_of_speech_can_be_set(tmp_path: Path, what: str, level: str, told: int) -> None:
    call = Answered(tmp_path, f"{{what: {what}, leg: callee{level}}}", what, "x")
    assert f"RECORD_SILENCE_THRESHOLD={told}," in call.recording
    call.over()


@pytest.mark.parametrize("level", ["'${0 - 1}'", "'${40000}'"])
def test_a_level_that_is_none_is_an_error_of_the_step(tmp_path: Path, level: str) -> None:
    s = media(tmp_path, f"detect: {{what: silence, level: {level}}}\n {CAUGHT}")
    s.call()
    assert [text.split()[0] for text in s.said] == ["expr.value"]


@pytest.mark.parametrize("cause", ["no-input-timeout", "success-silence"])
def test_silence_is_told_once(silence: Answered, cause: str) -> None:
    silence.at(5)
    silence.recording_ends(cause, 5)
    silence.recording_ends(cause, 5)
    assert silence.said == ["2000 callee"]
    silence.over()


def test_the_end_of_another_recording_is_no_silence(silence: Answered) -> None:
    silence.recording_ends("success-silence", 5, token="another")
    silence.hear("RECORD_STOP", **{"Recording-Variable-orchestrator_detector": None})
    assert silence.said == []
    silence.over()


@pytest.mark.parametrize("cause", ["input-too-short", "success-maxtime", "uri-failure"])
def test_a_recording_that_ends_otherwise_tells_nothing(silence: Answered, cause: str) -> None:
    silence.recording_ends(cause, 20)
    assert silence.said == []
    silence.over()


def test_nothing_is_told_after_the_deadline(silence: Answered) -> None:
    silence.at(20.5)
    silence.recording_ends("success-silence", 20.4)
    assert silence.said == []
    silence.over()


def test_three_seconds_count_unless_told(tmp_path: Path) -> None:
    s = media(tmp_path, "detect: silence")
    call = s.call()
    ((_, arguments, leg),) = s.apps
    assert leg == "caller" and "INITIAL_TIMEOUT_MS=3000" in arguments and " +" not in arguments, "and without an end"
    call.hangup()
    s.over()


# --- who has answered -------------------------------------------------------------------------------------------------


def test_a_decision_listens_to_speech_beeps_and_fax_tones(decision: Answered) -> None:
    apps = [(app, args) for app, args, _ in decision.stage.apps]
    assert [app for app, _ in apps] == ["record_session", "spandsp_start_fax_detect", "avmd_start"]
    assert "INITIAL_TIMEOUT_MS=3000,RECORD_FINAL_TIMEOUT_MS=800" in decision.recording
    assert apps[1][1] == "set fax_heard=true 5 ced"
    decision.over()


def test_who_says_hello_and_waits_is_a_person(decision: Answered) -> None:
    decision.at(1.9)
    decision.recording_ends("success-silence", 1.9)
    assert decision.said == ["human 1900 callee"]
    decision.over()


def test_a_word_right_at_the_start_is_a_word(decision: Answered) -> None:
    """FreeSWITCH did not hear a silence before it, so it takes the three seconds after it for the wait of nobody."""
    decision.at(3.9)
    decision.recording_ends("no-input-timeout", 3.9)
    assert decision.said == ["human 3900 callee"]
    decision.over()


def test_who_says_nothing_is_silent(decision: Answered) -> None:
    decision.at(3.05)
    decision.recording_ends("no-input-timeout", 3.02)
    assert decision.said == ["silence 3050 callee"]
    decision.over()


def test_who_still_talks_is_a_machine(decision: Answered) -> None:
    decision.at(30)
    assert decision.said == ["machine 4100 callee"], "by the clock: no event says that somebody goes on talking"
    decision.over()


def test_the_end_of_a_long_greeting_is_a_machine_however_late_it_is_told(tmp_path: Path) -> None:
    call = Answered(tmp_path, "{what: decision, greeting: 1s}", "decision", "${event.verdict}")
    call.at(2.05)
    call.recording_ends("success-silence", 2.9)
    assert call.said == ["machine"]
    call.over()


def test_a_beep_is_a_machine_and_the_moment_to_speak(decision: Answered) -> None:
    decision.at(1)
    decision.hear("avmd::beep", name="avmd_beep")
    assert decision.said == ["beep 1000 callee"]
    assert decision.stage.apps[-1] == ("avmd_stop", "", "callee")
    decision.over()


def test_a_called_fax(decision: Answered) -> None:
    decision.at(0.5)
    decision.hear("DETECTED_TONE", name="fax_ced")
    assert decision.said == ["fax 500 callee"]
    decision.over()


def test_a_key_is_as_good_as_a_word(decision: Answered) -> None:
    decision.at(0.5)
    decision.hear("DTMF", leg="caller", name="dtmf")
    assert decision.said == [], "not that of the caller"
    decision.hear("DTMF", name="dtmf")
    assert decision.said == ["human 500 callee"]
    decision.over()


def test_there_is_one_verdict_whatever_comes_after(decision: Answered) -> None:
    decision.at(0.5)
    decision.hear("DTMF", name="dtmf")
    decision.hear("avmd::beep", name="avmd_beep")
    decision.recording_ends("success-silence", 1.5)
    decision.at(60)
    assert len(decision.said) == 1
    decision.over()


@pytest.mark.parametrize(("seconds", "verdict"), [("2s", "timeout 2000 callee"), ("10s", "machine 4100 callee")])
def test_there_is_a_verdict_even_when_no_event_comes(tmp_path: Path, seconds: str, verdict: str) -> None:
    told = "${event.verdict} ${event.ms} ${event.leg}"
    call = Answered(tmp_path, f"{{what: decision, for: {seconds}}}", "decision", told)
    call.at(60)
    assert call.said == [verdict]
    call.over()


def test_the_end_of_the_call_is_no_verdict(decision: Answered) -> None:
    decision.at(1)
    decision.call.hangup()
    decision.at(60)
    assert decision.said == []
    decision.stage.over()
    assert len(decision.stage.world.engine.steps.detectors) == 0


def test_the_end_of_the_channel_ends_the_listening(decision: Answered) -> None:
    decision.hear("CHANNEL_HANGUP", name="dtmf")
    assert len(decision.stage.world.engine.steps.detectors) == 0
    decision.over()


def test_a_leg_that_is_given_another_uuid_is_listened_to_all_the_same(decision: Answered) -> None:
    """An attended transfer inside FreeSWITCH does that."""
    old, new = decision.uuid["callee"], "another-uuid"
    decision.uuid["callee"] = new
    decision.hear("CHANNEL_ANSWER", **{"Event-Name": "CHANNEL_UUID", "Old-Unique-ID": old, "Event-Subclass": None})
    decision.hear("DTMF", name="dtmf")
    assert decision.said == ["human 0 callee"]
    decision.over()


def test_both_sides_have_their_own_decision(tmp_path: Path) -> None:
    s = stage(
        tmp_path,
        "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
        "detect: {what: decision, leg: both}",
        "subscribe: decision\n do: [log: '${event.leg} ${event.verdict}']",
    )
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    apps = [(app, leg) for app, _, leg in s.apps]
    assert ("avmd_start", "callee") in apps and ("avmd_start", "caller") not in apps
    s.world.run(10)
    assert sorted(s.said) == ["callee machine", "caller machine"]
    call.hangup()
    s.over()


def test_a_caller_can_be_judged_while_freeswitch_holds_him(tmp_path: Path) -> None:
    s = media(tmp_path, "detect: {what: decision, leg: caller}", "wait: decision\n as: heard", TOLD, "hangup: done")
    s.call()
    s.world.run(5)
    assert s.said == ["machine 4100 caller"]
    s.over()


def test_a_beep_is_listened_for_as_long_as_anybody_wants_to(tmp_path: Path) -> None:
    call = Answered(tmp_path, "{what: beep, for: 5s}\ndetect: {what: beep, for: 9s}", "beep", "${event.leg}")
    stopped = ("avmd_stop", "", "callee")
    call.at(7)
    assert stopped not in call.stage.apps
    call.at(10)
    assert call.stage.apps.count(stopped) == 1
    call.over()


def test_a_second_fax_detector_of_a_channel_takes_the_place_of_the_first(tmp_path: Path) -> None:
    s = media(tmp_path, "detect: {what: decision, leg: caller}", "detect: {what: fax, for: 6s}", "detect: fax")
    call = s.call()
    faxes = [(app, args) for app, args, _ in s.apps if "fax" in app]
    assert faxes == [
        ("spandsp_start_fax_detect", "set fax_heard=true 5 cng"),
        ("spandsp_stop_fax_detect", ""),
        ("spandsp_start_fax_detect", "set fax_heard=true 6 cng"),
        ("spandsp_stop_fax_detect", ""),
        ("spandsp_start_fax_detect", "set fax_heard=true 0 cng"),
    ]
    call.hangup()
    s.over()


def test_a_detector_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    s = media(tmp_path, "detect: {what: beep, leg: caller}\n on_error: [log: '${error.type}', hangup: no]")
    s.call()
    assert s.said == ["call.state"]
    s.over()


def test_what_the_events_live_on_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.flow.yaml"
    steps = "[media: {server: fs1, answer: true}, detect: decision, wait: decision]"
    path.write_text(
        f"flowlang: 1\nfreeswitch: {{fs1: {{host: h, password: x}}}}\nflows: {{a: {{on: invite, do: {steps}}}}}\n"
    )
    usage = usage_of(load_program([path])[0])
    assert needed(usage.events, usage.fs) >= {"RECORD_STOP", "CUSTOM avmd::beep", "DETECTED_TONE", "DTMF"}
