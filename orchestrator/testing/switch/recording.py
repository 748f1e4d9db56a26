"""`record_session` on a FreeSWITCH in memory: it runs beside everything else, and its end is a RECORD_STOP."""

from __future__ import annotations

import re
from math import inf

from orchestrator.testing.switch.channel import SwitchChannel

_ARGUMENTS = re.compile(r"(?P<path>\S+)(?: \+(?P<limit>\d+))?(?: \{(?P<settings>[^}]*)\})?")


class SessionRecording:
    """One recording of a channel: `path [+seconds] [{variable=value,…}]`.

    It ends at its limit (`success-maxtime`), when it is stopped, with the channel, and where it is told to at a silence
    of the channel's party: RECORD_INITIAL_TIMEOUT_MS while nobody has spoken (`no-input-timeout`),
    RECORD_FINAL_TIMEOUT_MS after speech (`success-silence`; switch_ivr_async.c).
    """

    def __init__(self, channel: SwitchChannel, arguments: str) -> None:
        found = _ARGUMENTS.match(channel.expand(arguments))
        assert found is not None
        self.path = found["path"]
        self.settings = dict(pair.split("=", 1) for pair in (found["settings"] or "").split(",") if "=" in pair)
        self._channel = channel
        self._limit = float(found["limit"]) if found["limit"] else inf
        self._began = channel.switch.now()
        self._plan = 0
        """Counts the plans: a look that was planned before something more was heard is not taken."""
        channel.recordings.append(self)
        self.heard()

    def heard(self) -> None:
        """Something has changed in what is heard: see when it ends now."""
        self._plan += 1
        end, cause = self._end()
        if end < inf:
            switch, plan = self._channel.switch, self._plan
            switch.after(end - switch.now(), lambda: self.stop(cause) if plan == self._plan else None)

    def _end(self) -> tuple[float, str]:
        """When it ends, and why."""
        first, pause = self._seconds("RECORD_INITIAL_TIMEOUT_MS"), self._seconds("RECORD_FINAL_TIMEOUT_MS")
        level = int(self.settings.get("RECORD_SILENCE_THRESHOLD", "0"))
        silence = self._channel.speech.silence(self._began, first, pause, level)
        return min((self._began + self._limit, "success-maxtime"), silence)

    def _seconds(self, name: str) -> float:
        """A time of silence that ends it; for ever where it is not told."""
        return int(self.settings.get(name, "0")) / 1000 or inf

    def stop(self, cause: str = "") -> None:
        """It ends now. Without a cause it was stopped from outside."""
        channel = self._channel
        if self not in channel.recordings:
            return
        channel.recordings.remove(self)
        self._plan += 1
        ms = round((channel.switch.now() - self._began) * 1000)
        channel.variables |= {"record_ms": str(ms), "record_seconds": str(ms // 1000), "record_samples": str(ms * 8)}
        headers = {f"Recording-Variable-{name}": value for name, value in self.settings.items()}
        headers["Record-File-Path"] = self.path
        known = dict.fromkeys(("Record-Completion-Cause", "variable_record_completion_cause"), cause or None)
        channel.say("RECORD_STOP", {**headers, **known})
