"""What FreeSWITCH must have heard, by the facts of a trace: keys, words, tones, and how long sounds took."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.switches.detectors import PAUSE
from orchestrator.flow.run.run_facts import KeyIgnored
from orchestrator.flow.run.step_facts import CollectBegan, CollectEnded, PlayBegan, RecordBegan, RecordEnded
from orchestrator.testing.case_text import quoted, seconds_of
from orchestrator.testing.switch.commands import SOON

Fact = Mapping[str, Any]
"""A fact as the trace gives it: name of a field → plain value."""

_KEYS = re.compile(r"[0-9A-D*#]+")
_NOTHING: Fact = {"leg": "caller"}


class Heard:
    """Reads the facts about media; `act(text, seconds)` is told what has to happen when, `again` the same where it may
    happen twice at one moment, `comment` what nobody knows."""

    def __init__(
        self, act: Callable[[str, float], None], again: Callable[[str, float], None], comment: Callable[[str], None]
    ) -> None:
        self.sounds: dict[str, float] = {}
        """How long what was played took, in seconds."""
        self._act = act
        self._again = again
        self._comment = comment
        self._collecting: tuple[float, Fact] = 0.0, _NOTHING
        """Since when keys are collected, and the fact of that."""
        self._collected: tuple[float, str, int] | None = None
        """When how many keys of which side were collected; which ones the next condition on them tells."""
        self._playing: tuple[float, Fact] | None = None
        self._recording: tuple[float, Fact] | None = None
        self._kinds: Mapping[str, Callable[[float, Fact], None]] = {
            CollectBegan.__name__: self._collects,
            CollectEnded.__name__: self._has_collected,
            KeyIgnored.__name__: self._ignores,
            PlayBegan.__name__: self._plays,
            RecordBegan.__name__: self._records,
            RecordEnded.__name__: self._has_recorded,
        }

    def read(self, now: float, fact: Fact) -> bool:
        """Take a fact; False for one about something else."""
        method = self._kinds.get(fact["kind"])
        if method is not None:
            method(now, fact)
        return method is not None

    def decided(self, now: float, verdict: str, leg: str, seconds: float) -> None:
        """What that side must have done in so many seconds; silence is what it does by itself."""
        began = now - seconds
        if verdict == "beep":
            self._act(f"tone: {{leg: {leg}, tone: beep}}", now)
        elif verdict == "fax":
            self._act(f"tone: {{leg: {leg}, tone: {'ced' if leg == 'callee' else 'cng'}}}", now)
        elif verdict == "machine":
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(seconds + 1)}}}", began + 0.1)
        elif verdict == "human" and seconds > PAUSE + 0.3:
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(seconds - PAUSE - 0.1)}}}", began + 0.1)
        elif verdict == "human":
            self._act(f"dtmf: {{leg: {leg}, digit: 1}}", now)

    def look_for_keys(self, read: Mapping[str, Any]) -> None:
        """A condition that looks at what was collected tells which keys those were."""
        if self._collected is None:
            return
        at, leg, count = self._collected
        keys = next((str(v) for v in read.values() if len(str(v)) == count and _KEYS.fullmatch(str(v))), "")
        for key in keys:
            self._again(f"dtmf: {{leg: {leg}, digit: {quoted(key)}}}", at)
        if keys:
            self._collected = None

    def give_up_keys(self) -> None:
        """No condition has looked at them."""
        if self._collected is not None:
            at, leg, count = self._collected
            self._comment(f"{count} keys of the {leg} at {seconds_of(at)} are not in the trace: add  dtmf: …")
            self._collected = None

    def has_played(self, now: float, over: bool) -> None:
        """The next step, or the end of the call before it was over: then it had more to play."""
        if self._playing is None:
            return
        (began, fact), self._playing = self._playing, None
        length = (now - began) / max(fact["repeat"], 1) + (0 if over else 1)
        if length > 0.001:
            self.sounds[fact["file"]] = length

    def ended(self, now: float) -> None:
        """The call is over: nothing else had ended a recording."""
        if self._recording is not None:
            began, fact = self._recording
            self._act(f"speaks: {{leg: {_side(fact)}, for: {seconds_of(now - began + 1)}}}", began)

    # --- facts --------------------------------------------------------------------------------------------------------

    def _collects(self, now: float, fact: Fact) -> None:
        self.give_up_keys()
        self._collecting = now, fact

    def _has_collected(self, now: float, fact: Fact) -> None:
        """FreeSWITCH is done SOON after the last key, or after the time for another one."""
        (since, begun), number, done = self._collecting, fact["keys"], now - SOON
        if not number:
            length = done - begun["seconds"] - since
            if begun["prompt"] and length > 0.001:
                self.sounds[begun["prompt"]] = length
            return
        if number < begun["max"] and done - begun["seconds"] >= since:
            done -= begun["seconds"]
        elif number < begun["max"] and begun["end"]:
            self._act(f"dtmf: {{leg: {begun['leg']}, digit: {quoted(begun['end'][0])}}}", done + 0.001)
        self._collected = done, begun["leg"], number

    def _ignores(self, now: float, fact: Fact) -> None:
        """A key that had no effect; one that no telephone has is no act."""
        key, leg = fact["digit"], fact["leg"] or self._collecting[1]["leg"]
        if _KEYS.fullmatch(key):
            self._act(f"dtmf: {{leg: {leg}, digit: {quoted(key)}}}", now)

    def _plays(self, now: float, fact: Fact) -> None:
        self._playing = now, fact

    def _records(self, now: float, fact: Fact) -> None:
        self._recording = now, fact

    def _has_recorded(self, now: float, fact: Fact) -> None:
        """Silence ended it, or a key; or it was as long as it may be."""
        assert self._recording is not None
        (began, begun), self._recording = self._recording, None
        pause, length, leg = begun["silence"] or 0.0, round(fact["seconds"], 1), _side(begun)
        if length - pause > 0.001:
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(length - pause)}}}", began)
        if begun["stop"] and (not pause or length < pause):
            self._act(f"dtmf: {{leg: {leg}, digit: {quoted(begun['stop'][0])}}}", began + length)


def _side(begun: Fact) -> str:
    """Whose voice is recorded; of both sides the caller's will do."""
    return "caller" if begun["leg"] == "both" else str(begun["leg"])
