"""`collect`: which keys count, when the waiting ends, and what FreeSWITCH plays meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from mediakit import CAUGHT, PLAYED, Stage, failed, media, recorded, stage

from orchestrator.esl.codec import EslEvent
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.recordings import rewrite


class Collecting:
    """A held call whose flow collects; playbacks go on until they are broken or the test ends them."""

    def __init__(self, tmp_path: Path, keys: str, *more: str) -> None:
        self.stage: Stage = media(tmp_path, f"collect: {keys}\n as: keys", "log: '<${keys}>'", *more)
        self.switch = self.stage.switch
        self.switch.slow = {"playback"}
        self.call: PhoneCall = self.stage.call()
        self.began = self.stage.world.now
        self.sequence = 900_000

    @property
    def said(self) -> list[str]:
        return self.stage.said

    @property
    def playing(self) -> list[str]:
        return [job.effect.args for job in self.switch.running]  # type: ignore[union-attr]

    def at(self, seconds: float) -> None:
        self.stage.world.run(self.began + seconds - self.stage.world.now)

    def press(self, *keys: str, leg: str = "", again: bool = False) -> None:
        """FreeSWITCH says so; `again` with the number of the event before."""
        world = self.stage.world
        for key in keys:
            self.sequence += not again
            about = {"Unique-ID": leg or self.call.call_id.decode(), "Call-Direction": "inbound", "DTMF-Digit": key}
            changed = {
                **about,
                "Event-Sequence": str(self.sequence),
                "Core-UUID": world.engine.channels.core_uuid("fs1"),
            }
            world.engine.receive_esl("fs1", EslEvent.plain(rewrite(recorded("dtmf", "DTMF").block, changed)), world.now)
        world.run()

    def over(self) -> None:
        self.stage.world.run(0.1)
        self.call.hangup()
        self.stage.over()
        assert self.playing == []


def test_it_ends_with_the_last_key(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 3, timeout: 5s}")
    c.press("0", "4")
    assert c.said == [] and c.playing == ["silence_stream://-1"]
    c.press("7")
    assert c.said == [], "the leg is not free yet"
    c.at(0.1)
    assert c.said == ["<047>"] and c.playing == []
    c.over()


def test_it_ends_with_the_key_that_ends_it(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 8, end: '#', timeout: 5s}")
    c.press("1", "*", "A", "#", "9")
    c.at(0.1)
    assert c.said == ["<1*A>"]
    c.over()


def test_each_key_has_its_own_time(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 8, timeout: 3s}")
    c.at(2.9)
    c.press("1")
    c.at(5.8)
    c.press("2")
    c.at(8.7)
    assert c.said == []
    c.at(8.9)
    assert c.said == ["<12>"]
    c.over()


def test_nothing_pressed_is_an_empty_text(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "1")
    c.at(4.9)
    assert c.said == []
    c.at(5.1)
    assert c.said == ["<>"]
    c.over()


def test_the_clock_runs_from_the_end_of_the_prompt(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 2, timeout: 3s, prompt: 'say your pin.wav'}")
    assert c.playing == ["say your pin.wav"]
    c.at(20)
    assert c.said == []
    c.switch.finish()
    assert c.playing == ["silence_stream://-1"]
    c.at(23.1)
    assert c.said == ["<>"]
    c.over()


def test_a_key_stops_the_prompt(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 2, timeout: 3s, prompt: 'say your pin.wav'}")
    c.at(1)
    c.press("4")
    c.at(1.1)
    assert c.playing == ["silence_stream://-1"]
    c.at(3.9)
    c.press("7")
    c.at(4)
    assert c.said == ["<47>"]
    c.over()


def test_the_only_key_stops_the_prompt_and_all(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 1, prompt: 'press.wav'}")
    c.press("2")
    c.at(0.1)
    assert c.said == ["<2>"] and c.playing == []
    assert [effect.args for effect in c.switch.ran] == ["press.wav"]
    c.over()


def test_a_break_that_came_too_early_is_repeated(tmp_path: Path) -> None:
    """FreeSWITCH forgets a break that comes before the application has begun."""
    c = Collecting(tmp_path, "{max: 1}")
    c.switch.answers["uuid_break"] = {"ok": True, "text": "+OK"}  # and nothing happens
    c.press("2")
    c.at(0.2)
    assert c.said == []
    del c.switch.answers["uuid_break"]
    c.at(0.4)
    assert c.said == ["<2>"]
    c.over()


@pytest.mark.parametrize("key", ["F", "w", "", "12", "x"])
def test_what_is_no_key_is_none(tmp_path: Path, key: str) -> None:
    c = Collecting(tmp_path, "{max: 1, timeout: 1s}")
    c.press(key)
    c.at(1.1)
    assert c.said == ["<>"]
    c.over()


def test_keys_of_another_leg_and_repeated_events_are_not_counted(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 2, timeout: 2s}")
    c.press("1", leg="somebody-else")
    c.press("4")
    c.press("4", again=True)
    c.at(2.1)
    assert c.said == ["<4>"]
    c.over()


def test_a_prompt_that_cannot_be_played_is_an_error(tmp_path: Path) -> None:
    s = media(tmp_path, f"collect: {{max: 1, prompt: no.wav}}\n {CAUGHT}")
    s.switch.answers["playback"] = {"response": "FILE NOT FOUND", "variables": {}}
    call = s.call()
    assert s.said == ["esl.command collect: the prompt no.wav: there is no such file"]
    call.hangup()
    s.over()


@pytest.mark.parametrize("prompt", ["", ", prompt: a.wav"])
def test_a_link_that_fails_is_an_error(tmp_path: Path, prompt: str) -> None:
    s = media(tmp_path, f"collect: {{max: 1{prompt}}}\n {CAUGHT}")
    s.switch.answers["playback"] = failed("esl.down", "fs1 went down")
    call = s.call()
    assert s.said == ["esl.down fs1 went down"]
    call.hangup()
    s.over()


def test_a_server_without_silence_waits_all_the_same(tmp_path: Path) -> None:
    c = Collecting(tmp_path, "{max: 1, timeout: 3s}")
    c.switch.finish({"response": "FILE NOT FOUND", "variables": {}})
    assert c.playing == []
    c.press("5")
    assert c.said == ["<5>"]
    c.over()


def test_a_step_that_is_cut_off_stops_what_plays(tmp_path: Path) -> None:
    s = media(tmp_path, f"collect: {{max: 1, prompt: long.wav}}\n timeout: 2s\n {CAUGHT}", "log: on")
    s.switch.slow = {"playback"}
    call = s.call()
    s.world.run(2.1)
    assert s.said == ["step.timeout collect took longer than 2s", "on"]
    assert s.switch.running == []
    call.hangup()
    s.over()


def test_it_waits_for_what_plays_behind(tmp_path: Path) -> None:
    s = media(tmp_path, "play: {file: tone.wav, background: true}", "collect: {max: 1, prompt: a.wav}", "log: done")
    s.switch.slow = {"playback"}
    call = s.call()
    s.world.run(0.1)
    assert [effect.args for effect in s.switch.ran] == ["tone.wav", "a.wav"]
    s.switch.finish(PLAYED)
    call.hangup()
    s.over()


def test_a_prompt_that_is_not_wanted_any_more_when_its_turn_comes_is_not_played(tmp_path: Path) -> None:
    """The key came while the prompt still waited for the end of what plays behind."""
    steps = ["play: {file: tone.wav, background: true}", "collect: {max: 1, prompt: a.wav}\n as: k", "log: '<${k}>'"]
    s = media(tmp_path, *steps)
    s.switch.slow = {"playback"}
    s.switch.answers["uuid_break"] = {"ok": True, "text": "+OK"}  # and it plays on for a moment
    call = s.call()
    s.switch.emit(recorded("dtmf", "DTMF"), call.call_id.decode(), **{"DTMF-Digit": "4", "Call-Direction": "inbound"})
    assert s.said == []
    s.switch.finish()
    assert s.said == ["<4>"]
    assert [effect.args for effect in s.switch.ran] == ["tone.wav"]
    call.hangup()
    s.over()


@pytest.mark.parametrize("wanted", [0, 128])
def test_how_many_keys_there_may_be(tmp_path: Path, wanted: int) -> None:
    s = media(tmp_path, f"collect: {{max: '${{{wanted} + 0}}'}}\n {CAUGHT}")
    call = s.call()
    assert s.said == [f"call.state collect: max is {wanted}, not 1 to 127"]
    call.hangup()
    s.over()


def test_a_flow_that_ends_the_call_meanwhile_leaves_nobody_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FreeSWITCH hears of the end of one leg only; the other one runs the prompt, and would run it to its end."""
    s = stage(
        tmp_path,
        "subscribe: beep\n do: [hangup: a machine]",
        "relay: {to: 'sip:bob@10.0.0.3', via: fs1}",
        "collect: {max: 1, leg: callee, prompt: long.wav}",
    )
    s.switch.slow = {"playback"}
    s.bob.on_invite = lambda call: call.answer()
    call = s.call("bob@example.com")
    back = next(c for c in s.switch.calls if c.call_id != call.call_id).call_id.decode()
    with monkeypatch.context() as patch:
        patch.setattr(s.switch, "hang_up", lambda channel, cause="": None)  # it does not get to it
        s.switch.emit(recorded("avmd_beep", "avmd::beep"), back, **{"Call-Direction": "outbound"})
        s.world.run(0.9)
    assert not any("uuid_kill" in command for command in s.switch.commands), "BYE comes first"
    s.world.run(0.2)
    assert f"uuid_kill {back}" in s.switch.commands
    s.over()


def test_a_channel_is_not_killed_while_the_bye_waits_for_an_ack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FreeSWITCH would end the caller's leg with a BYE of its own, before the ACK (RFC 3261 §15)."""
    s = media(tmp_path, "hangup: done")
    lost = True
    s.world.fate = lambda data, source, target: () if lost and data.startswith(b"ACK") else (0.0,)
    call = s.alice.invite("ivr@example.com")
    with monkeypatch.context() as patch:
        patch.setattr(s.switch, "hang_up", lambda channel, cause="": None)
        s.world.run(20)
        assert call.bye is None and not any("uuid_kill" in command for command in s.switch.commands)
        s.world.run(15)
    assert call.state == "ended", "by our BYE, once no ACK can come any more"
    lost = False
    s.over()


def test_a_channel_that_has_ended_is_not_killed(tmp_path: Path) -> None:
    s = media(tmp_path, "hangup: done")
    call = s.call()
    s.switch.emit(recorded("dtmf", "CHANNEL_DESTROY"), call.call_id.decode(), **{"Call-Direction": "inbound"})
    s.world.run(2)
    assert not any("uuid_kill" in command for command in s.switch.commands)
    s.over()
