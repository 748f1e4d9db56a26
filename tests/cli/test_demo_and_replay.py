"""`orchestrator demo` and `orchestrator replay`, as a user types them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from called import orchestrator

ROOT = Path(__file__).parents[2]
RECORDINGS = "tests/fixtures/esl"

KEYS = """flowlang: 1
flows:
  keys:
    on: invite
    do:
      - relay: registered
      - wait: dtmf
        where: event.leg == 'callee'
        as: key
      - hangup: 'callee pressed ${key.digit}'
"""
"""Lives on events alone, and needs nothing of FreeSWITCH while the link is away."""


def replay(file: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return orchestrator(ROOT, "replay", f"{RECORDINGS}/{file}", "--flows", "flows", *arguments)


def test_demo_shows_the_three_scenarios() -> None:
    command = [sys.executable, "-m", "orchestrator", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for shown in (
        "1. Push wake-up with late forking",
        "inject 1 branch(es)",
        "2. Fax and voicemail detection by DTMF",
        "call ended by engine: callee pressed 5",
        "3. Call pickup",
        "raise pickup -> delivered to 1",
        "All three went as they should.",
    ):
        assert shown in done.stdout
    pickup = done.stdout[done.stdout.index("3. Call pickup") :]
    late, cancel = pickup.index("charlie ◄── proxy   INVITE"), pickup.index("dave ◄── proxy   CANCEL")
    assert late < cancel, "the ringing phone is cancelled after the new one is sent to"


class TestReplay:
    SCREENED = ("--flow", "dtmf_screening", "--to", "88bob@example.com", "--registered", "bob@example.com")

    def test_the_callee_of_the_recording_presses_five(self) -> None:
        done = replay("via_bridge.esl", *self.SCREENED)
        assert done.returncode == 0, done.stderr
        assert "flow dtmf_screening starts for alice@example.com -> 88bob@example.com" in done.stdout
        assert "2.420  dtmf_screening#1  L30   collected 1 keys" in done.stdout
        assert "call ended by engine: callee pressed 5" in done.stdout

    def test_another_caller_can_be_given(self) -> None:
        done = replay("via_bridge.esl", *self.SCREENED, "--from", "carol@example.com")
        assert "flow dtmf_screening starts for carol@example.com -> 88bob@example.com" in done.stdout

    def test_the_caller_of_another_recording_presses_and_that_says_nothing(self) -> None:
        done = replay("dtmf.esl", *self.SCREENED)
        assert done.returncode == 0, done.stderr
        assert "collected" not in done.stdout
        assert "2 calls, 2 runs" in done.stdout

    def test_two_runs_of_one_recording_are_the_same(self) -> None:
        assert replay("via_bridge.esl", *self.SCREENED).stdout == replay("via_bridge.esl", *self.SCREENED).stdout

    def test_a_bad_event_socket(self) -> None:
        cut = replay("via_bridge.esl", *self.SCREENED, "--cut", "30", "--duplicate")
        assert cut.returncode == 0, cut.stderr
        assert "after 30 events: the link was cut" in cut.stdout
        assert "back, with 2 channels" in cut.stdout
        assert "call ended by engine: callee pressed 5" in cut.stdout
        restarted = replay("via_bridge.esl", *self.SCREENED, "--restart", "30")
        assert "call ended by engine: channel lost" in restarted.stdout
        silent = replay("via_bridge.esl", *self.SCREENED, "--silence", "40")
        assert "after 40 events: FreeSWITCH says nothing any more" in silent.stdout
        assert "18 events lost" in silent.stdout

    def test_a_link_that_is_cut_at_the_birth_of_a_channel(self, tmp_path: Path) -> None:
        """It is found and asked about: the key pressed later counts."""
        (tmp_path / "keys.flow.yaml").write_text(KEYS)
        given = (
            "--flow",
            "keys",
            "--registered",
            "bob@example.com",
            "--to",
            "bob@example.com",
            "--flows",
            str(tmp_path),
        )
        cut = orchestrator(ROOT, "replay", f"{RECORDINGS}/via_bridge.esl", *given, "--cut", "5", "--duplicate")
        assert cut.returncode == 0, cut.stderr
        assert "after 5 events: the link was cut" in cut.stdout
        assert "back, with 2 channels" in cut.stdout
        assert "call ended by engine: callee pressed 5" in cut.stdout

    def test_a_recording_that_breaks_off_is_said_to(self, tmp_path: Path) -> None:
        whole = (ROOT / RECORDINGS / "dtmf.esl").read_bytes()
        (tmp_path / "cut.esl").write_bytes(whole[:-10])
        done = orchestrator(ROOT, "replay", str(tmp_path / "cut.esl"), "--flows", "flows", *self.SCREENED)
        assert "cut.esl ends in the middle of a frame: its last" in done.stderr
        assert "59 events, 2 calls, 2 runs" in done.stdout and done.returncode == 0

    def test_a_recording_no_flow_runs_for_is_said_to(self) -> None:
        done = replay("heartbeat.esl", *self.SCREENED)
        assert done.returncode == 1
        assert "no flow has run: 0 calls, and the recording has no CHANNEL_CREATE" in done.stderr
        stranger = replay("dtmf.esl", *self.SCREENED, "--leg", "callee=1-2-3")
        assert stranger.returncode == 2
        assert "callee: the recording has no channel 1-2-3" in stranger.stderr

    def test_mistakes_are_named(self) -> None:
        unknown = replay("dtmf.esl", "--flow", "screning")
        assert unknown.returncode == 2
        assert "no flow 'screning' with on: invite; there is: pickup, ring_member" in unknown.stderr
        empty = orchestrator(ROOT, "replay", "README.md", "--flow", "push_wakeup")
        assert empty.returncode == 2
        assert "README.md holds no FreeSWITCH events" in empty.stderr
        leg = replay("dtmf.esl", "--flow", "push_wakeup", "--leg", "calee=1")
        assert "write caller=UUID or callee=UUID" in leg.stderr
