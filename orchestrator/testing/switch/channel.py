"""A channel of a FreeSWITCH in memory: its dialog, its variables, what runs on it, and what its party lets be heard."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, Protocol

from orchestrator.esl.codec import EslEvent
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.switch.events import NOTHING, Headers, about, made, template

TONES = ("beep", "cng", "ced")
"""What a party can sound: the beep of an answering machine, the tone of a calling and of a called fax (ITU-T T.30)."""

LOUD = 2000
"""Mean sample of ordinary speech on a telephone; some hundreds are a noisy room."""

_VARIABLE = re.compile(r"\$\{([^}]+)\}")


Done = Callable[[str | None], None]
"""Told the response of an application; None when the channel has ended instead."""


class Switch(Protocol):
    """The FreeSWITCH of a channel, as its channels and applications see it."""

    variables: dict[str, str]
    now: Callable[[], float]

    def tell(self, event: EslEvent) -> None:
        """Say an event, as the next one of this core."""

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something later, unless it has died by then."""

    def look(self) -> None:
        """Say what has become of the channels."""

    def length_of(self, sound: str) -> float:
        """Seconds a sound plays."""

    def play(self, event: EslEvent, channel: SwitchChannel | None = None) -> None:
        """A recorded event is said."""

    def answer(self, channel: SwitchChannel) -> None:
        """Answer an incoming leg that rings."""

    def hang_up(self, channel: SwitchChannel, cause: str = "NORMAL_CLEARING") -> None:
        """End a leg, by what fits."""

    def bridge(self, channel: SwitchChannel, dial: str, otherwise: Callable[[int], None]) -> None:
        """Call a dial string, and connect the two when that is answered."""


class Recorded(Protocol):
    """A recording of a channel, which runs beside everything else."""

    path: str

    def heard(self) -> None:
        """Something has changed in what is heard."""

    def stop(self, cause: str = "") -> None:
        """It ends now."""


class Speech:
    """When the party of a channel talks; silence otherwise."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float, int]] = []

    def add(self, begin: float, end: float, level: int = LOUD) -> None:
        """It begins to talk, or goes on doing so; `level` is the mean sample of what is heard."""
        if self.spans and begin <= self.spans[-1][1] and self.spans[-1][2] == level:
            before, until, _ = self.spans.pop()
            begin, end = before, max(until, end)
        self.spans.append((begin, end, level))

    def silence(self, began: float, first: float, pause: float, level: int = 0) -> tuple[float, str]:
        """When a recording that has begun then ends for silence, and why, if nobody says more than is known by now.
        What is below `level` is silence.

        `first` seconds of silence end it while nobody has been heard, `pause` after that. FreeSWITCH takes speech for
        speech when a silence was before it (record_callback, switch_ivr_async.c), so a word right at the beginning is
        not heard; the time of silence begins behind it.
        """
        quiet, patience, cause = began, first, "no-input-timeout"
        for begin, end, loudness in self.spans:
            if end <= quiet or loudness < level:
                continue
            if begin > quiet:
                if begin - quiet >= patience:
                    break
                patience, cause = pause, "success-silence"
            quiet = end
        return quiet + patience, cause


class SwitchChannel:
    """One leg. `peer` is the other one, from the moment it is called; `otherwise(status)` is what becomes of this one
    when that has failed."""

    def __init__(self, switch: Switch, call: PhoneCall, direction: str, name: str) -> None:
        self.switch = switch
        self.call = call
        self.uuid = call.call_id.decode()
        self.direction = direction
        self.name = name
        self.variables: dict[str, str] = {"playback_terminators": "none"}
        self.peer: SwitchChannel | None = None
        self.otherwise: Callable[[int], None] = lambda status: None
        self.answered = False
        self.ended = False
        self.unwanted = False
        """It is being hung up; should it be answered in that moment, it is hung up again."""
        self.cause = "NORMAL_CLEARING"
        self.running: list[Running] = []
        self.recordings: list[Recorded] = []
        self.speech = Speech()
        self.hears_beeps = False
        self.fax = ("", 0.0)
        """The fax tone that is listened for, and until when."""
        self.is_fax = False
        """Its party has answered with the tone of a fax machine."""

    def say(self, event: str | EslEvent, headers: Headers = NOTHING) -> None:
        """An event about this channel goes out, with its variables and these headers."""
        found = template(event) if isinstance(event, str) else event
        mine = {f"variable_{name}": value for name, value in self.variables.items()}
        other = self.peer.uuid if self.peer is not None else ""
        self.switch.tell(made(found, about(self.uuid, self.direction, self.name, other), {**mine, **headers}))

    def expand(self, text: str) -> str:
        """`${name}` replaced by variables of the channel, as FreeSWITCH does before it runs an application."""
        return _VARIABLE.sub(lambda found: self.variables.get(found[1], self.switch.variables.get(found[1], "")), text)

    # --- what its party does ------------------------------------------------------------------------------------------

    def press(self, digit: str, event: EslEvent | None = None) -> None:
        """A key, as an RTP event; `event` is a recorded one to say it with."""
        key = {"DTMF-Digit": digit, "DTMF-Duration": "1280", "DTMF-Source": "RTP"}
        self.say(event or "DTMF", NOTHING if event is not None else key)
        if self.running:
            self.running[-1].key(digit)
        self.switch.look()

    def talk(self, seconds: float, level: int = LOUD) -> None:
        """It talks for so long from now on, as loud as `level`."""
        now = self.switch.now()
        self.speech.add(now, now + seconds, level)
        listening: list[Running | Recorded] = [*self.recordings, *self.running]
        for each in listening:
            each.heard()

    def sound(self, tone: str) -> None:
        """One of TONES: heard by a detector that listens for it, and by a fax that is being sent."""
        if tone == "beep":
            if self.hears_beeps:
                self.hears_beeps = False  # mod_avmd tells of the first one
                self.say("avmd::beep")
        elif self.fax[0] == tone and self.switch.now() <= self.fax[1]:
            self.fax = ("", 0.0)
            self.say("DETECTED_TONE")
            self.variables["fax_heard"] = "true"
        self.is_fax = self.is_fax or tone == "ced"
        for each in list(self.running):
            each.sounded(tone)

    def __repr__(self) -> str:
        return f"<SwitchChannel {self.uuid} {self.direction}>"


class Told(NamedTuple):
    """What a test says an application comes to."""

    response: str = ""
    variables: Mapping[str, str] = {}


class Running:
    """An application at work on a channel; by itself one that ends at once."""

    def __init__(self, channel: SwitchChannel, name: str, arguments: str, id: str, done: Done) -> None:
        self.channel = channel
        self.name = name
        self.arguments = channel.expand(arguments)
        self.id = id
        """Application-UUID: what it is known by in CHANNEL_EXECUTE_COMPLETE."""
        self._done: Done | None = done

    def start(self, told: Told | None = None) -> None:
        self.channel.running.append(self)
        if told is None:
            self.begin()
        else:
            self.end(*told)

    def begin(self) -> None:
        self.end()

    def key(self, digit: str) -> None:
        """The party has pressed a key."""

    def heard(self) -> None:
        """The party has begun to talk."""

    def sounded(self, tone: str) -> None:
        """The party has beeped, or is a fax."""

    def broken(self) -> None:
        """`uuid_break`, or a transfer."""
        self.end()

    def end(self, response: str = "", variables: Mapping[str, str] | None = None) -> None:
        """It has ended, with this Application-Response; channel variables are set before anybody hears of it."""
        done = self._finish()
        if done is None:
            return
        channel = self.channel
        channel.variables |= variables or {}
        told = {"current_application": self.name, "current_application_data": self.arguments or None}
        headers = {
            "Application": self.name,
            "Application-Data": self.arguments,
            "Application-Response": response or "_none_",
            "Application-UUID": self.id,
            **{f"variable_{name}": value for name, value in told.items()},
        }
        channel.say("CHANNEL_EXECUTE_COMPLETE", headers)
        done(response)

    def lost(self) -> None:
        """The channel is gone."""
        done = self._finish()
        if done is not None:
            done(None)

    def _finish(self) -> Done | None:
        done, self._done = self._done, None
        if done is not None and self in self.channel.running:
            self.channel.running.remove(self)
        return done

    # --- for the kinds ------------------------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later, if it still runs then."""
        if seconds < inf:
            self.channel.switch.after(seconds, lambda: act() if self._done is not None else None)

    @property
    def terminators(self) -> str:
        """The keys that end it."""
        keys = self.channel.variables.get("playback_terminators", "none")
        return {"none": "", "any": "0123456789*#"}.get(keys, keys)
