"""The FreeSWITCH in memory: what it does with a call, and how long that takes; as flows and their tests see it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.flow.loader import load_program
from orchestrator.testing.facts import EslRule
from orchestrator.testing.parties import StoryError
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.switch.apps import words
from orchestrator.testing.switch.channel import Speech

HEAD = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x}, fs2: {host: 10.0.0.10, password: x}}
events: {due: {}, nudge: {}}
flows:
  main:
    on: invite
    do:
"""
BOB = {"bob@example.com": ["bob@10.0.0.5"]}


def story(tmp_path: Path, *steps: str, **given: object) -> Scenario:
    """A story about a flow of these steps; lines of a step after its first are indented by two spaces."""
    path = tmp_path / "a.flow.yaml"
    lines = [f"      {'  ' if line.startswith(' ') else '- '}{line.strip()}" for line in "\n".join(steps).split("\n")]
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return Scenario(load_program([path])[0], registered=BOB, **given)  # type: ignore[arg-type]


def held(tmp_path: Path, *steps: str, **given: object) -> Scenario:
    """The same with a caller whom FreeSWITCH holds from the beginning."""
    told = story(tmp_path, "media: {server: fs1, answer: true}", *steps, **given)
    told.at(0, lambda: told.invite("alice@example.com", "ivr@example.com"))
    return told


def logged(told: Scenario) -> list[tuple[float, str]]:
    """What the flow has said, and when; nothing may be left behind."""
    told.finish()
    assert told.leftovers() == [] and told.errors() == []
    return [(round(time, 2), text) for time, _, text in told.logs]


# --- speech -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "ends"),
    [
        ([], (3.0, "no-input-timeout")),
        ([(0.5, 1.5)], (2.3, "success-silence")),
        ([(0.0, 1.0)], (4.0, "no-input-timeout")),
        ([(0.0, 1.0), (2.0, 2.5)], (3.3, "success-silence")),
        ([(0.5, 1.5), (2.0, 4.0)], (4.8, "success-silence")),
        ([(4.0, 5.0)], (3.0, "no-input-timeout")),
    ],
)
def test_a_recording_ends_at_silence(spans: list[tuple[float, float]], ends: tuple[float, str]) -> None:
    speech = Speech()
    for span in spans:
        speech.add(*span)
    end, cause = speech.silence(0.0, 3.0, 0.8)
    assert (round(end, 3), cause) == ends


def test_who_goes_on_talking_talks_longer() -> None:
    speech = Speech()
    speech.add(0.0, 2.0)
    speech.add(1.0, 1.5)
    speech.add(2.0, 3.0)
    assert [span[:2] for span in speech.spans] == [(0.0, 3.0)]


def test_noise_below_the_level_is_silence() -> None:
    speech = Speech()
    speech.add(0.5, 1.5, 300)
    speech.add(1.0, 2.0, 800)
    assert speech.silence(0.0, 3.0, 0.8, 200) == (2.8, "success-silence")
    assert speech.silence(0.0, 3.0, 0.8, 400) == (2.8, "success-silence")
    assert speech.silence(0.0, 3.0, 0.8, 801) == (3.0, "no-input-timeout")


def test_arguments_are_taken_apart_as_freeswitch_does() -> None:
    assert words("0 4 'it\\'s a.wav' '' x") == ["0", "4", "it's a.wav", "", "x"]


# --- applications -----------------------------------------------------------------------------------------------------


def test_a_sound_takes_no_time_unless_told(tmp_path: Path) -> None:
    told = held(tmp_path, "play: a.wav", "log: a", "play: long.wav", "log: long", "hangup: done", sounds={"long*": 2.5})
    assert logged(told) == [(0.0, "a"), (2.5, "long")]


def test_music_plays_until_something_else_comes(tmp_path: Path) -> None:
    told = held(
        tmp_path, "play: {file: 'tone_stream://x;loops=-1', background: true}", "play: a.wav", "log: a", "hangup: done"
    )
    assert logged(told) == [(0.02, "a")]


def test_a_message_ends_with_silence_a_key_or_its_time(tmp_path: Path) -> None:
    record = "record: {file: /tmp/a.wav, max: 20s, silence: 3s, stop: '#'}\n as: r"
    told = held(tmp_path, record, "log: '${r.duration}'", record, "log: '${r.duration}'", "hangup: done")
    told.at(1, lambda: told.speak("caller", 4.0))
    told.at(9, lambda: told.speak("caller", 8.0))
    told.at(10, lambda: told.press("caller", "#"))
    assert logged(told) == [(8.0, "8"), (10.0, "2")]


def test_both_sides_are_recorded_until_the_limit(tmp_path: Path) -> None:
    told = story(
        tmp_path,
        "relay: {to: registered, via: fs2}",
        "record: {file: /tmp/both.wav, leg: both, max: 5s}\n as: r",
        "log: '${r.duration}'",
    )
    told.at(0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.at(1, lambda: told.respond("bob@*", 200))
    assert logged(told) == [(6.0, "5")]
    assert len(told.switches["fs2"].calls) == 2 and told.switches["fs1"].calls == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "7 <>"),
        ([(2, "4"), (4, "7")], "7 <47>"),
        ([(2, "4"), (3, "#")], "3 <4>"),
        ([(1, "1")] * 4, "1 <1111>"),
    ],
)
def test_keys_are_collected_over_a_prompt(tmp_path: Path, keys: list[tuple[int, str]], text: str) -> None:
    told = held(
        tmp_path,
        "collect: {max: 4, timeout: 3s, end: '#', prompt: prompt.wav}\n as: pin",
        "log: '<${pin}>'",
        "hangup: done",
        sounds={"prompt.wav": 4.0},
    )
    for at, key in keys:
        told.at(at, lambda key=key: told.press("caller", key))  # type: ignore[misc]
    assert [f"{time:.0f} {said}" for time, said in logged(told)] == [text]


def test_what_an_application_comes_to_can_be_told(tmp_path: Path) -> None:
    told = held(
        tmp_path,
        "fs.execute: {app: rxfax, args: /tmp/f.tif, wait: true}\n as: fax",
        'log: \'${fax.response} ${call.fs.vars["fax_result_text"] ?? ""}\'',
        "fs.api: 'uuid_exists ${call.fs.caller ?? \"\"}'\n as: there",
        "log: '${there.text}'",
        "hangup: done",
        esl=[EslRule("rxfax *", "done", {"fax_result_text": "no carrier"}), EslRule("uuid_exists *", "false")],
    )
    assert logged(told) == [(0.0, "done no carrier"), (0.0, "false")]


def test_settings_are_variables(tmp_path: Path) -> None:
    told = held(
        tmp_path,
        "fs.execute: {app: set, args: colour=red, wait: true}",
        'log: \'${call.fs.vars["colour"] ?? ""}\'',
        "hangup: done",
    )
    assert logged(told) == [(0.0, "red")]


def test_an_application_can_hang_up(tmp_path: Path) -> None:
    told = held(tmp_path, "fs.execute: {app: hangup, wait: true}\n on_error: [log: '${error.message}']", "sleep: 5s")
    told.finish()
    assert told.leftovers() == [] and told.calls[0].ended_by == "callee"


# --- detectors --------------------------------------------------------------------------------------------------------


def test_only_a_detector_that_listens_hears_a_tone(tmp_path: Path) -> None:
    told = held(
        tmp_path,
        "subscribe: fax_tone\n do: [log: '${event.tone}']",
        "wait: {event: nudge}",
        "detect: {what: fax, for: 5s}",
        "sleep: 20s",
        "hangup: done",
    )
    told.at(2, lambda: told.sound("caller", "cng"))
    told.at(3, lambda: told.raise_event("nudge", {}))
    told.at(4, lambda: told.sound("caller", "ced"))
    told.at(5, lambda: told.sound("caller", "cng"))
    told.at(6, lambda: told.sound("caller", "cng"))
    assert logged(told) == [(5.0, "cng")], "once, and not what it was not told to listen for"


def test_silence_comes_after_the_last_word(tmp_path: Path) -> None:
    told = held(tmp_path, "detect: {what: silence, silence: 4s}", "wait: silence", "log: quiet", "hangup: done")
    told.at(1, lambda: told.speak("caller", 2.0))
    told.at(5, lambda: told.speak("caller", 1.0))
    assert logged(told) == [(10.0, "quiet")]


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    told = story(tmp_path, "reply: 480")
    switch = told.switches["fs1"]
    call = told.phone_at("mallory@example.com", "mallory@10.0.0.66")
    call.proxy = switch.address
    invite = call.invite("bob@example.com")
    told.world.run()
    assert invite.statuses == [603] and switch.channels == {}


def test_a_second_leg_that_fails_takes_its_status_to_the_caller(tmp_path: Path) -> None:
    told = story(tmp_path, "relay: {to: registered, via: fs1}")
    told.at(0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.at(1, lambda: told.respond("bob@*", 603))
    told.finish()
    assert told.calls[0].replies == [603] and told.leftovers() == []


def test_the_second_leg_carries_the_addresses_of_the_call(tmp_path: Path) -> None:
    told = story(tmp_path, "relay: {to: registered, via: fs1}")
    told.at(0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.finish()
    invite = told.incoming("bob@10.0.0.5")[0].invite
    assert invite is not None
    assert b"sip:alice@example.com" in (invite.get(b"from") or b"")
    assert b"sip:bob@example.com" in (invite.get(b"to") or b"")


def test_a_key_of_a_call_without_freeswitch_is_an_info(tmp_path: Path) -> None:
    told = story(tmp_path, "relay: registered", "wait: dtmf\n as: key", "log: '${key.source} ${key.digit}'")
    told.at(0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.at(1, lambda: told.respond("bob@*", 200))
    told.at(2, lambda: told.press("callee", "7"))
    assert logged(told) == [(2.0, "INFO 7")]


def test_freeswitch_that_has_placed_a_call_has_nobody_on_its_side(tmp_path: Path) -> None:
    path = tmp_path / "a.flow.yaml"
    flow = (
        HEAD.replace("on: invite", "on: {event: due}") + "      - originate: 'sip:bob@example.com'\n        as: out\n"
    )
    path.write_text(flow + "      - log: '${out.outcome}'\n")
    told = Scenario(load_program([path])[0], registered=BOB)
    told.at(0, lambda: told.raise_event("due", {}))
    told.at(1, lambda: told.respond("bob@*", 200))
    told.run_until(2)
    with pytest.raises(StoryError, match="FreeSWITCH has placed this call"):
        told.press("caller", "1")
    told.at(3, lambda: told.hangup("callee"))
    assert logged(told) == [(1.02, "answered")]
    assert told.calls[0].ended_by == "callee"


def test_an_event_of_a_call_is_for_the_last_one(tmp_path: Path) -> None:
    told = held(tmp_path, "wait: charge_stop\n as: stop", "hangup: '${stop.reason}'")
    told.at(1, lambda: told.invite("carol@example.com", "ivr@example.com"))
    told.at(2, lambda: told.raise_event("charge_stop", {"reason": "nothing left"}))
    assert logged(told) == []
    assert [call.end_reason for call in told.calls] == ["", "nothing left"]


# --- the example of docs/flows/voicemail_detect.md --------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "flows" / "voicemail_detect.md"


@pytest.mark.parametrize(("length", "transferred"), [(0.8, False), (9.0, True)])
def test_a_machine_that_answers_is_replaced_by_a_mailbox(tmp_path: Path, length: float, transferred: bool) -> None:
    (block,) = (text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "our_own" in text)
    (tmp_path / "a.flow.yaml").write_text(block)
    registered = {**BOB, "mailbox@example.com": ["mailbox@10.0.0.8"]}
    told = Scenario(load_program([tmp_path / "a.flow.yaml"])[0], registered=registered)
    told.at(0, lambda: told.invite("alice@example.com", "66bob@example.com"))
    told.at(2, lambda: told.respond("bob@*", 200))
    told.at(2.3, lambda: told.speak("callee", length))
    told.run_until(10)
    assert bool(told.incoming("mailbox@10.0.0.8")) is transferred
    if transferred:
        told.respond("mailbox@*", 200)
        told.run_until(11)
        assert (told.incoming("bob@*")[0].state, told.calls[0].phone_call.state) == ("ended", "answered")
    told.at(20, lambda: told.hangup("callee"))
    assert logged(told) == []
    assert told.calls[0].ended_by == "callee"
