"""What the dialplan applications of a FreeSWITCH in memory do, and how long that takes: nothing, unless told.

What plays for ever (`loops=-1`, `silence_stream://-1`) plays until it is broken off; a sound for which the test has
given a length takes that; a fax takes `FAX`. An application that is not here ends at once and has done nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf

from orchestrator.testing.switch.channel import Running, SwitchChannel
from orchestrator.testing.switch.recording import SessionRecording

FAX = 30.0
"""Seconds a fax of one page takes."""
NO_FAX = 60.0
"""Seconds after which spandsp gives up hope that a fax machine answers (T0)."""

_WORD = re.compile(r"'((?:[^'\\]|\\.)*)'|(\S+)")


def words(arguments: str) -> list[str]:
    """Arguments as FreeSWITCH takes them apart: at blanks, single quotes keep some together."""
    return [plain or re.sub(r"\\(.)", r"\1", quoted) for quoted, plain in _WORD.findall(arguments)]


class Playback(Running):
    def begin(self) -> None:
        length = self.channel.switch.length_of(self.arguments)
        if length:
            self.after(length, self.broken)
        else:
            self.broken()

    def key(self, digit: str) -> None:
        if digit in self.terminators:
            self.end("FILE PLAYED", {"playback_terminator_used": digit})

    def broken(self) -> None:
        self.end("FILE PLAYED")


class RecordFile(Running):
    """`record path [limit [threshold [silence]]]`, seconds both."""

    def begin(self) -> None:
        _, limit, _, silence = [*words(self.arguments), "0", "0", "0"][:4]
        self._began = self.channel.switch.now()
        self._limit, self._silence = float(limit) or inf, float(silence) or inf
        self._plans = 0
        self.heard()

    def heard(self) -> None:
        """It ends at the first silence of that length, whether anybody has spoken before or not."""
        self._plans += 1
        plan, now = self._plans, self.channel.switch.now()
        silent, _ = self.channel.speech.silence(self._began, self._silence, self._silence)
        end = min(self._began + self._limit, silent)
        self.after(end - now, lambda: self.broken() if plan == self._plans else None)

    def key(self, digit: str) -> None:
        if digit in self.terminators:
            self.channel.variables["playback_terminator_used"] = digit
            self.broken()

    def broken(self) -> None:
        ms = round((self.channel.switch.now() - self._began) * 1000)
        self.end("", {"record_ms": str(ms), "record_seconds": str(ms // 1000), "record_samples": str(ms * 8)})


class RecordSession(Running):
    def begin(self) -> None:
        SessionRecording(self.channel, self.arguments)
        self.end()


class BeepDetector(Running):
    """`avmd_start` listens to what an outbound channel reads; on an inbound one to what is written, where there is no
    machine (mod_avmd.c:1482)."""

    def begin(self) -> None:
        self.channel.hears_beeps = self.channel.direction == "outbound"
        self.end()


class NoBeepDetector(Running):
    def begin(self) -> None:
        self.channel.hears_beeps = False
        self.end()


class FaxDetector(Running):
    """`spandsp_start_fax_detect app argument [seconds [tone]]`; less than two arguments it refuses
    (mod_spandsp.c:126)."""

    def begin(self) -> None:
        found = self.arguments.split()
        if len(found) >= 2:
            seconds = float(found[2]) if len(found) > 2 else 0.0
            tone = found[3] if len(found) > 3 else "cng"
            self.channel.fax = (tone, self.channel.switch.now() + (seconds or inf))
        self.end()


class ReceiveFax(Running):
    """`rxfax`; it succeeds."""

    def begin(self) -> None:
        self.after(FAX, self._received)

    def _received(self) -> None:
        tell_fax(self.channel, "rxfaxresult", _FAXED)
        self.end("", _FAXED)


class SendFax(Running):
    """`txfax`: who is called has to be a fax machine, which its tone says, before or within spandsp's timer T0. What
    has come of it is an event; the application itself ends with the call."""

    def begin(self) -> None:
        self._answered = False
        self.after(NO_FAX, lambda: self._over(_NO_FAX) if not self._answered else None)
        if self.channel.is_fax:
            self.sounded("ced")

    def sounded(self, tone: str) -> None:
        if tone == "ced" and not self._answered:
            self._answered = True
            self.after(FAX, lambda: self._over(_FAXED))

    def _over(self, result: Mapping[str, str]) -> None:
        self.channel.variables |= result
        tell_fax(self.channel, "txfaxresult", result)


def tell_fax(channel: SwitchChannel, kind: str, result: Mapping[str, str]) -> None:
    """The CUSTOM event in which mod_spandsp says the same as in the variables (mod_spandsp_fax.c, phase_e_handler)."""
    told = {name.replace("_", "-"): value for name, value in result.items()}
    channel.say("spandsp::txfaxresult", {"Event-Subclass": f"spandsp::{kind}", **told})


class Set(Running):
    def begin(self) -> None:
        name, _, value = self.arguments.partition("=")
        self.channel.variables[name] = value
        self.end()


class Sleep(Running):
    def begin(self) -> None:
        self.after(float(self.arguments or 0) / 1000, self.end)


class Park(Running):
    def begin(self) -> None:
        """Until it is broken off."""


class Answer(Running):
    def begin(self) -> None:
        self.channel.switch.answer(self.channel)
        self.end()


class Hangup(Running):
    def begin(self) -> None:
        self.channel.switch.hang_up(self.channel, self.arguments or "NORMAL_CLEARING")


class Bridge(Running):
    """Until the second leg has failed; where it has been answered, the call ends with it."""

    def begin(self) -> None:
        self.channel.switch.bridge(self.channel, self.arguments, lambda status: self.end())


_FAXED = {
    "fax_success": "1",
    "fax_result_code": "0",
    "fax_result_text": "OK",
    "fax_document_transferred_pages": "1",
    "fax_document_total_pages": "1",
}
_NO_FAX = {
    "fax_success": "0",
    "fax_result_code": "2",
    "fax_result_text": "Timed out waiting for initial communication",
    "fax_document_transferred_pages": "0",
}

APPLICATIONS: Mapping[str, type[Running]] = {
    "answer": Answer,
    "avmd_start": BeepDetector,
    "avmd_stop": NoBeepDetector,
    "bridge": Bridge,
    "hangup": Hangup,
    "park": Park,
    "playback": Playback,
    "record": RecordFile,
    "record_session": RecordSession,
    "rxfax": ReceiveFax,
    "set": Set,
    "sleep": Sleep,
    "spandsp_start_fax_detect": FaxDetector,
    "txfax": SendFax,
}
