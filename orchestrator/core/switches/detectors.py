"""Detectors on a leg that FreeSWITCH has: fax tones, beeps, silence, and the question of who answered (FLOWLANG §4.3).

All of them listen beside whatever else the leg does: a bridge goes on, a prompt plays, keys are heard. Each has one
deadline, `for:`, and raises nothing after it.

| `what:` | FreeSWITCH runs | and flows hear |
|---|---|---|
| `fax` | `spandsp_start_fax_detect` | `fax_tone`, which esl.translate makes of DETECTED_TONE |
| `beep` | `avmd_start` | `beep`, of avmd::beep |
| `silence` | `record_session`, of which nothing is kept | `silence`, once, of RECORD_STOP |
| `decision` | all three | `decision`, exactly once |

FreeSWITCH has no event for a silence. But a recording session can end at one, and it says so in its RECORD_STOP
(`Record-Completion-Cause`, switch_ivr_async.c): `no-input-timeout` when nobody has spoken yet, `success-silence` when
somebody has. `RECORD_MIN_SEC` longer than any call makes it remove its file again.

The decision goes by how people and machines take a call. A person says a word or two and waits; a machine goes on
talking. So whoever falls silent within `greeting` is a person, whoever is still talking then is a machine, and a key is
as good as a word. A beep or a fax tone says it all. Where the events stop coming (the link is lost) the clock decides,
so that no flow waits for ever.

Traps, checked in the source of 1.11: `avmd_start` listens to what an *outbound* channel reads, that is the called
party, and to an inbound one only where FreeSWITCH itself speaks (mod_avmd.c:1482); the API command `avmd … start`
detects nothing at all; `spandsp_start_fax_detect` refuses less than two arguments (mod_spandsp.c:126), a channel has
one such detector for ever unless it is stopped (mod_spandsp_fax.c:2483), and its event does not say which tone it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.core.node import Node
from orchestrator.core.switches.executions import Application, ignore, tone_of, whole
from orchestrator.errors import StepError
from orchestrator.esl.channels import ENDS, Channel
from orchestrator.esl.codec import EslEvent, integer
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.timers import Timer

SILENCE = 3.0
"""Seconds without a word that `detect: silence` raises its event after, unless told."""
PAUSE = 0.8
"""The same for a person who has said hello and waits; what answering machine detectors use (app_amd: 800 ms)."""
GREETING = 3.0
"""Seconds within which a person has said hello. One who takes a second to lift the receiver and says his name is done
by then; mailboxes speak for longer."""
SLACK = 0.3
"""Seconds that FreeSWITCH's word may be late: 20 ms of its listener, a frame, our turn."""

SILENCE_LEVEL = 200
"""Mean sample below which a frame is silent, unless told; what the dialplans FreeSWITCH ships use."""
NEVER_KEPT = 86_400
"""Seconds; a recording that is shorter than RECORD_MIN_SEC is removed when it ends."""
MARK = "orchestrator_detector"
"""Variable of the recording that says whose it is; it comes back in RECORD_STOP."""
START_WITHIN = 5.0
"""Seconds a detector may take to start listening."""


class WatchedCall(Protocol):
    """A call that is listened to."""

    id: str
    run: Run | None

    @property
    def over(self) -> bool: ...


class Detectors:
    """What listens on the channels of one engine. `make` gives a detector whose `applications` are to be run; once they
    are, `add` sets its clock."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._of_run: dict[int, tuple[Detector, ...]] = {}

    def make(self, call: WatchedCall, channel: Channel, effect: effects.Detect) -> Detector:
        """A detector for one leg, not yet listening."""
        return _KINDS[effect.what](self, call, channel, effect)

    def add(self, detector: Detector) -> None:
        """It listens from now on."""
        run = detector.run_id
        self._of_run[run] = (*self._of_run.get(run, ()), detector)
        detector.channel.listen(detector)
        detector.begin()

    def remove(self, detector: Detector) -> None:
        """It listens no more."""
        detector.channel.ignore(detector)
        others = tuple(other for other in self._of_run.pop(detector.run_id, ()) if other is not detector)
        if others:
            self._of_run[detector.run_id] = others

    def forget(self, run: Run) -> None:
        """The run is over: nobody is left to be told."""
        for detector in self._of_run.get(run.id, ()):
            detector.end()

    def __len__(self) -> int:
        return sum(map(len, self._of_run.values()))


class Detector(ABC):
    """One detector on one leg."""

    def __init__(self, detectors: Detectors, call: WatchedCall, channel: Channel, effect: effects.Detect) -> None:
        self.call = call
        self.channel = channel
        self.effect = effect
        self.run_id = call.run.id if call.run is not None else 0
        """The run that is told."""
        self._detectors = detectors
        self._node = detectors.node
        self._token = self._node.tokens.token().decode()
        self._began = 0.0
        self._timers: list[Timer] = []

    @property
    @abstractmethod
    def applications(self) -> list[Application]:
        """What FreeSWITCH has to run for it. Raises StepError for a leg it cannot listen to."""

    def begin(self) -> None:
        """The applications run."""
        self._began = self._node.timers.now
        if self.effect.seconds is not None:
            self.after(self.effect.seconds, self.expire)

    def hear(self, event: EslEvent) -> bool:
        """An event of the channel. Returns whether it is a key that decides."""
        if event.name in ENDS:
            self.end()
            return False
        self.notice(event)
        return event.name == "DTMF" and self.effect.what == "decision"

    def notice(self, event: EslEvent) -> None:
        """An event of the channel that is not its end."""
        return

    def expire(self, _: object) -> None:
        """The deadline."""
        self.end()

    def end(self) -> None:
        """Nothing is raised any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._detectors.remove(self)

    # --- for the kinds ------------------------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[Any], None]) -> None:
        self._timers.append(self._node.timers.after(seconds, act))

    @property
    def elapsed(self) -> float:
        return self._node.timers.now - self._began

    def raise_event(self, name: str, **attributes: Any) -> None:
        """Tell the flow, while there is a call."""
        if not self.call.over:
            attributes["leg"] = self.channel.leg
            self._node.publish(name, attributes, self.call.id)

    def run(self, application: Application) -> None:
        """Run an application whose outcome changes nothing."""
        if not self.channel.destroyed:
            self._node.job(application.on(self.channel), ignore)

    @property
    def hears_beeps(self) -> bool:
        """It lives on avmd, which a channel has once."""
        return False

    def stop_beeps(self) -> None:
        """Stop avmd, unless another detector of the channel lives on it."""
        if not any(isinstance(other, Detector) and other.hears_beeps for other in self.channel.listeners):
            self.run(Application("avmd_stop", ""))

    def expect_fax_tone(self) -> None:
        """spandsp's detector runs: its event will not say which tone it heard."""
        self.channel.fax_tone = tone_of(self.channel)

    def listen_to_speech(self, first: float, pause: float, most: float | None) -> Application:
        """A recording that ends when nobody has spoken for the `first` seconds, or not for `pause` after speech, and
        after `most` seconds anyhow."""
        settings = {
            MARK: self._token,
            "RECORD_READ_ONLY": "true",
            "RECORD_INITIAL_TIMEOUT_MS": str(round(first * 1000)),
            "RECORD_FINAL_TIMEOUT_MS": str(round(pause * 1000)),
            "RECORD_SILENCE_THRESHOLD": str(SILENCE_LEVEL if self.effect.level is None else self.effect.level),
            "RECORD_MIN_SEC": str(NEVER_KEPT),
            "RECORD_PRE_BUFFER_FRAMES": "1",
        }
        variables = ",".join(f"{name}={value}" for name, value in settings.items())
        path = f"${{temp_dir}}/orchestrator-{self._token}.wav"
        limit = "" if most is None else f" +{whole(most)}"
        return Application("record_session", f"{path}{limit} {{{variables}}}", timeout=START_WITHIN)

    def heard_end(self, event: EslEvent) -> str:
        """Why the recording has ended: Record-Completion-Cause; '' for other events."""
        if event.name == "RECORD_STOP" and event.get(f"Recording-Variable-{MARK}") == self._token:
            return event.get("Record-Completion-Cause")
        return ""


class FaxTone(Detector):
    """spandsp keeps the deadline itself, and translate makes the event."""

    @property
    def applications(self) -> list[Application]:
        return fax_detector(self.channel, self.effect.seconds)

    def begin(self) -> None:
        super().begin()
        self.expect_fax_tone()


class Beep(Detector):
    @property
    def applications(self) -> list[Application]:
        if self.channel.direction != "outbound":
            raise StepError("call.state", "detect: beep listens to the called party only, not to the caller")
        return [Application("avmd_start", "", timeout=START_WITHIN)]

    @property
    def hears_beeps(self) -> bool:
        return True

    def expire(self, _: object) -> None:
        self.end()
        self.stop_beeps()


class Silence(Detector):
    @property
    def applications(self) -> list[Application]:
        return [self.listen_to_speech(self.quiet, self.quiet, self.effect.seconds)]

    @property
    def quiet(self) -> float:
        return SILENCE if self.effect.silence is None else self.effect.silence

    def notice(self, event: EslEvent) -> None:
        cause = self.heard_end(event)
        if cause:
            self.end()
        if cause in ("no-input-timeout", "success-silence"):
            self.raise_event("silence", ms=round(self.quiet * 1000))


class Decision(Detector):
    """Verdicts: human, machine, beep (a machine, now is the moment to speak), fax, silence, timeout."""

    @property
    def applications(self) -> list[Application]:
        most = self.greeting + self.pause + 1
        found = [self.listen_to_speech(self.greeting, self.pause, most), *fax_detector(self.channel, most)]
        if self.hears_beeps:
            found.append(Application("avmd_start", "", timeout=START_WITHIN))
        return found

    @property
    def pause(self) -> float:
        return PAUSE if self.effect.silence is None else self.effect.silence

    @property
    def greeting(self) -> float:
        return GREETING if self.effect.greeting is None else self.effect.greeting

    @property
    def hears_beeps(self) -> bool:
        return self.channel.direction == "outbound"

    def begin(self) -> None:
        super().begin()
        self.expect_fax_tone()
        self.after(self.greeting + self.pause + SLACK, lambda _: self.decide("machine"))

    def notice(self, event: EslEvent) -> None:
        if event.name == "DTMF":
            self.decide("human")
        elif event.subclass == "avmd::beep":
            self.decide("beep")
        elif event.get("Detected-Fax-Tone") == "true":
            self.decide("fax")
        else:
            self._hear_speech(event)

    def _hear_speech(self, event: EslEvent) -> None:
        cause, seconds = self.heard_end(event), integer(event.get("variable_record_ms")) / 1000
        if cause == "success-silence":
            self.decide("human" if seconds - self.pause <= self.greeting + SLACK else "machine")
        elif cause == "no-input-timeout":
            # FreeSWITCH takes speech for speech only when it has heard a silence before: a word right at the start
            # leaves the time of silence at that for nobody, so the whole lasts longer
            self.decide("silence" if seconds <= self.greeting + SLACK else "human")

    def expire(self, _: object) -> None:
        self.decide("timeout")

    def decide(self, verdict: str) -> None:
        self.end()
        if self.hears_beeps:
            self.stop_beeps()
        self.raise_event("decision", verdict=verdict, ms=round(self.elapsed * 1000))


def fax_detector(channel: Channel, seconds: float | None) -> list[Application]:
    """spandsp's detector for the tone of that side; it stops by itself after `seconds`, None for never.

    One that has run before is in the way of a second one even when its time is over (`Max Tones Reached!`).
    """
    arguments = f"set fax_heard=true {whole(seconds or 0)} {tone_of(channel)}"
    start = Application("spandsp_start_fax_detect", arguments, timeout=START_WITHIN)
    if not channel.fax_tone:
        return [start]
    return [Application("spandsp_stop_fax_detect", "", timeout=START_WITHIN), start]


_KINDS: Mapping[str, type[Detector]] = {"fax": FaxTone, "beep": Beep, "silence": Silence, "decision": Decision}
