"""What the lines of a trace say: what came from outside, when, and what the engine did (`case_from_trace`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.switches.detectors import PAUSE
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.testing.scenario import SETTLE
from orchestrator.testing.switch.commands import SOON

Act = tuple[float, str]

_SIMPLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
_BUILTIN = {spec.name for spec in BUILTIN_EVENTS}

_CAUSED_BY_SIP = ("ringing", "answered", "branch_failed", "hangup")
"""Events that follow from what the phones of the test do."""

_TAKEN = re.compile(r"(?:handler of|wait ->|first_of ->|flow \S+ starts on) (\S+).*")

_KEYS = re.compile(r"[0-9A-D*#]+")

_VIA = re.compile(r"\bvia: ")
_END = re.compile(r"\bend: *['\"]?([0-9A-D*#])")
_STOP = re.compile(r"\bstop: *['\"]?([0-9A-D*#])")
_SILENCE = re.compile(r"\bsilence: *([0-9.]+)s\b")
_REPEAT = re.compile(r"\brepeat: *([0-9]+)")
_WITHOUT_RESULT = ("set", "export", "unset")
"""Applications of FreeSWITCH that do the same everywhere."""

_PARKED = "sip:park@"
"""Whom an INVITE is for that FreeSWITCH is to keep (core.anchor)."""


@dataclass(frozen=True, slots=True)
class _Collecting:
    """A `collect` step: since when, for how many keys of whom, seconds for each, what is played first."""

    since: float = 0.0
    most: int = 0
    leg: str = "caller"
    timeout: float = 0.0
    prompt: str = ""
    step: str = ""


class Teller:
    """Reads a trace line by line and sorts what it says into given, when and expect."""

    def __init__(self, trace: Mapping[str, Any]) -> None:
        self._begin: float = trace["records"][0]["time"] if trace["records"] else 0.0
        self.caller = self.called = ""
        self.registered: dict[str, list[str]] = {}
        self.acts: list[Act] = []
        self.expected: list[str] = []
        self.comments: list[str] = []
        self.http: list[str] = []
        self.asks_web = False
        self.ended = ""
        self._now = 0.0
        self._known: set[str] = set()
        self._cancelled: set[str] = set()
        self._cancelled_at = -1.0
        self._rung: list[str] = []
        self._unheard: dict[str, float] = {}
        """Contacts that have not said anything yet, and when their INVITE left."""
        self.answers: dict[str, int] = {}
        """What phones answer at once, without ringing."""
        self._event: Mapping[str, Any] = {}
        """The event taken last: it mostly names whom the flow rings next."""
        self._replied = False
        self._ring_aor = ""
        self.sounds: dict[str, float] = {}
        """How long what was played took, in seconds."""
        self._playing: tuple[float, str, int] | None = None
        """When what began to play, and how often."""
        self._happened: list[tuple[Mapping[str, Any], str]] = []
        """Events so far: their attributes, and the act that brings each."""
        self._recording: tuple[float, str, str] | None = None
        """Since when whose voice is recorded, and the step."""
        self._request = ""
        """The method of the request that began the run, where no call did."""
        self._switch: set[str] = set()
        """URIs of FreeSWITCH: what is sent there is no fact of a test."""
        self._goes_via = False
        """A relay has begun whose first INVITE goes to FreeSWITCH."""
        self._step = ""
        self._read: Mapping[str, Any] = {}
        self._no_fact = ""
        """The side at which FreeSWITCH is alone: its BYE is no fact either."""
        self._collecting = _Collecting()
        self._collected: tuple[float, str, int] | None = None
        """When how many keys of which side were collected; which ones the next condition on them tells."""
        self._patterns: Sequence[tuple[re.Pattern[str], Callable[..., None]]] = [
            (re.compile(pattern), method)
            for pattern, method in (
                (r"flow \S+ starts for (\S*) -> (\S*)", self._starts),
                (r"flow \S+ starts for ([A-Z]+) (\S*) -> (\S*)", self._requests),
                (r"register|(?:implicit )?reply (\d{3}) ?(.*)", self._answers_request),
                (r"relay to (\S+)", self._relays),
                (r"transfer \w+ to sip:(\S+)", self._relays),
                (r"originate to sip:(\S+)", self._originates),
                (r"collect up to (\d+) keys from (\w+), (\S+)s each(?: after (.+))?", self._collects),
                (r"key '?(\S*?)'? (?:of the (\w+) )?ignored: .*", self._ignores),
                (r"play (.+) to \w+", self._plays),
                (r"record (\w+) to .+", self._records),
                (r"recorded (\S+)s", self._has_recorded),
                (r"fs\.execute (\S+) .*", self._executes),
                (r"  skipped, .* = (.+) was seen before", self._repeats),
                (r"collected (\d+) keys", self._has_collected),
                (r"inject (\d+) branch\(es\).*", self._injects),
                (r"raise (\S+) -> delivered to (\d+)", self._raises),
                (r"http -> (\d{3})", lambda status: self.http.append(f"{{url: '*', status: {status}}}")),
                (r".*failed, http\.(connect|timeout)\b.*", self._fails_web),
                (r"http .*", self._asks),
                (r"call ended by (\w+): (.*)", self._ends),
            )
        ]

    def read(self, record: Mapping[str, Any]) -> None:
        self._now = record["time"] - self._begin
        text = record["text"]
        self._step, self._read = record["step"], record["read"]
        self._goes_via = self._goes_via or (text.startswith("relay to ") and bool(_VIA.search(self._step)))
        self._look_for_keys(self._read)
        taken = _TAKEN.fullmatch(text)
        if self._playing is not None and (record["line"] or text.startswith("call ended")) and taken is None:
            self._has_played(over=bool(record["line"]))
        if taken is not None and self._read:
            self._takes(taken[1], {name.removeprefix("event."): value for name, value in self._read.items()})
            return
        if record["fact"] is not None:
            self._reads_fact(**record["fact"])
            return
        for pattern, method in self._patterns:
            found = pattern.fullmatch(text)
            if found is not None:
                method(*found.groups())
                return

    def _reads_fact(self, kind: str, **fact: Any) -> None:
        """SIP of the call (`orchestrator.history`)."""
        if kind == "RequestSent":
            {"INVITE": self._rings, "CANCEL": self._cancels, "BYE": self._says_bye}[fact["method"]](fact["to"])
        elif kind == "ResponseSent":
            self._replies(fact["code"], fact["reason"])
        elif kind == "ResponseReceived":
            self._hears(fact["code"], fact["contact"])

    def end(self) -> None:
        """That was the last line."""
        self._give_up_keys()
        if self._now > max((at for at, _ in self.acts), default=0.0) + SETTLE:
            self._act("")

    def _act(self, text: str, at: float | None = None) -> None:
        act = (self._now if at is None else at, text)
        if act not in self.acts:
            self.acts.append(act)

    def _expect(self, text: str, timed: bool = False) -> None:
        """`timed` where the engine chose the moment."""
        self.expected.append(text.replace("}", f", at: {seconds_of(self._now)}}}") if timed else text)

    # --- what the lines say ------------------------------------------------------------------------------------------

    def _starts(self, caller: str, called: str) -> None:
        self.caller, self.called = caller, called
        self._act(f"invite: {{from: {quoted(caller)}, to: {quoted(called)}}}")

    def _requests(self, method: str, sender: str, to: str) -> None:
        self._request, self.caller, self.called = method, sender, to
        if method == "REGISTER":
            contact = str(self._read.get("request.contact", ""))
            self._act(f"register: {{aor: {quoted(to)}, contact: {quoted(bare(contact))}}}")
        else:
            self._act(f"send: {{method: {method.lower()}, from: {quoted(sender)}, to: {quoted(to)}}}")
            self.comments.append(f"headers and body of the {method} are not in the trace: add those that matter")

    def _answers_request(self, code: str | None, reason: str | None) -> None:
        if self._request:
            said = f", reason: {quoted(pattern_of(reason))}" if reason else ""
            kind = "register" if self._request == "REGISTER" else "reply"
            self._expect(f"{kind}: {{code: {code or 200}{said}}}", timed=True)

    def _originates(self, target: str) -> None:
        self._relays(target)
        self._no_fact = "caller"

    def _relays(self, target: str) -> None:
        self._ring_aor = target if "@" in target else self.called if target == "registered" else ""

    def _rings(self, contact: str) -> None:
        if self._goes_via or contact.startswith(_PARKED):
            self._goes_via = False
            self._switch.add(contact)
            self._no_fact = "callee" if contact.startswith(_PARKED) else ""
            return
        self._rung.append(contact)
        self._unheard[contact] = self._now
        if contact not in self._known:
            self._known.add(contact)
            user = contact.removeprefix("sip:").partition("@")[0]
            aor = self._ring_aor or f"{user}@{self.called.rpartition('@')[2]}"
            self.registered.setdefault(aor, []).append(bare(contact))
        self._cancelled.discard(contact)
        self._expect(f"sent: {{INVITE: {quoted(pattern_of(contact))}}}", timed=True)

    def _injects(self, count: str) -> None:
        """The last contacts that rang were put in by the flow: they are somebody else's."""
        for contact in self._rung[len(self._rung) - int(count) :]:
            user = contact.removeprefix("sip:").partition("@")[0]
            named = [str(value) for value in self._event.values() if str(value).startswith(f"{user}@")]
            owner = named[0] if named else f"{user}@{self.called.rpartition('@')[2]}"
            for contacts in self.registered.values():
                if bare(contact) in contacts:
                    contacts.remove(bare(contact))
                    self.registered.setdefault(owner, []).append(bare(contact))
                    break

    def _says_bye(self, side: str) -> None:
        if side != self._no_fact:
            self._expect("sent: {BYE: '*'}")

    def _cancels(self, contact: str) -> None:
        if contact in self._switch:
            return
        self._cancelled.add(contact)
        self._cancelled_at = self._now
        self._expect(f"sent: {{CANCEL: {quoted(pattern_of(contact))}}}")

    def _replies(self, code: int, reason: str) -> None:
        if code >= 200 and self._no_fact != "caller":
            self._replied = True
            said = f", reason: {quoted(pattern_of(reason))}" if reason else ""
            self._expect(f"reply: {{code: {code}{said}}}", timed=True)

    def _hears(self, status: int, contact: str) -> None:
        at_once = self._unheard.pop(contact, None) == self._now
        if status < 200 or contact in self._cancelled or (contact in self._switch and status >= 300):
            return
        if contact not in self._switch:
            where = bare(contact).partition(";")[0]
            if at_once:
                self.answers[bare(contact)] = status
            else:
                self._act(f"branch: {{uri: {quoted(pattern_of(where))}, reply: {status}}}")
            if status < 300 and self._no_fact == "callee":
                self._no_fact = ""  # whom FreeSWITCH held has somebody to talk to now
        if status < 300 and not self._replied and self._no_fact != "caller":
            self._expect_reply(status)

    def _expect_reply(self, code: int) -> None:
        """The reply to the caller goes out before anybody is cancelled, also when that is traced first."""
        self._replied = True
        place = len(self.expected)
        while place and self._cancelled_at == self._now and "CANCEL" in self.expected[place - 1]:
            place -= 1
        self.expected.insert(place, f"reply: {code}")

    def _raises(self, event: str, delivered: str) -> None:
        if int(delivered):
            self.comments.append(f"{event} at {seconds_of(self._now)} was taken by other runs: add what started them")

    def _asks(self) -> None:
        self.asks_web = True

    def _fails_web(self, error: str) -> None:
        self.http.append(f"{{url: '*', error: {error}}}")

    def _takes(self, event: str, attributes: Mapping[str, Any]) -> None:
        self._event = attributes
        acts = len(self.acts)
        self._brings(event, attributes)
        if len(self.acts) > acts:
            self._happened.append((attributes, self.acts[-1][1]))

    def _repeats(self, value: str) -> None:
        """An event that was there before, as far as `unique_by` looks at it."""
        same = (act for attributes, act in reversed(self._happened) if value in map(repr, attributes.values()))
        act = next(same, "")
        if act:
            self._act(act)

    def _brings(self, event: str, attributes: Mapping[str, Any]) -> None:
        """What makes an event happen."""
        if event in _CAUSED_BY_SIP:
            return
        if event == "registered":
            self._known.add(attributes["uri"])
            contact = quoted(bare(str(attributes["uri"])))
            self._act(f"register: {{aor: {quoted(attributes['aor'])}, contact: {contact}}}")
        elif event == "unregistered":
            contact = quoted(bare(str(attributes["contact"])))
            self._act(f"unregister: {{aor: {quoted(attributes['aor'])}, contact: {contact}}}")
        elif event == "dtmf":
            self._act(f"dtmf: {{leg: {attributes['leg']}, digit: {quoted(attributes['digit'])}}}")
        elif event == "beep":
            self._act(f"tone: {{leg: {attributes['leg']}, tone: beep}}")
        elif event == "fax_tone":
            self._act(f"tone: {{leg: {attributes['leg']}, tone: {attributes['tone']}}}")
        elif event == "decision":
            self._decides(str(attributes["verdict"]), str(attributes["leg"]), attributes["ms"] / 1000)
        elif event in _BUILTIN:
            self.comments.append(
                f"{event} at {seconds_of(self._now)} came from FreeSWITCH: record it and add  esl: FILE"
            )
        else:
            data = ", ".join(f"{name}: {quoted(value)}" for name, value in attributes.items())
            self._act(f"raise: {{event: {event}, data: {{{data}}}}}")

    # --- what FreeSWITCH heard ----------------------------------------------------------------------------------------

    def _decides(self, verdict: str, leg: str, seconds: float) -> None:
        """What that side must have done in so many seconds; silence is what it does by itself."""
        began = self._now - seconds
        if verdict == "beep":
            self._act(f"tone: {{leg: {leg}, tone: beep}}")
        elif verdict == "fax":
            self._act(f"tone: {{leg: {leg}, tone: {'ced' if leg == 'callee' else 'cng'}}}")
        elif verdict == "machine":
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(seconds + 1)}}}", began + 0.1)
        elif verdict == "human" and seconds > PAUSE + 0.3:
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(seconds - PAUSE - 0.1)}}}", began + 0.1)
        elif verdict == "human":
            self._act(f"dtmf: {{leg: {leg}, digit: 1}}")

    def _collects(self, most: str, leg: str, timeout: str, prompt: str | None) -> None:
        self._give_up_keys()
        self._collecting = _Collecting(self._now, int(most), leg, float(timeout), prompt or "", self._step)

    def _has_collected(self, count: str) -> None:
        """FreeSWITCH is done SOON after the last key, or after the time for another one."""
        collecting, number, done = self._collecting, int(count), self._now - SOON
        if not number:
            length = done - collecting.timeout - collecting.since
            if collecting.prompt and length > 0.001:
                self.sounds[collecting.prompt] = length
            return
        end = _END.search(collecting.step)
        if number < collecting.most and done - collecting.timeout >= collecting.since:
            done -= collecting.timeout
        elif number < collecting.most and end is not None:
            self._act(f"dtmf: {{leg: {collecting.leg}, digit: {quoted(end[1])}}}", done + 0.001)
        self._collected = done, collecting.leg, number

    def _ignores(self, key: str, leg: str | None) -> None:
        """A key that had no effect; one that no telephone has is no act."""
        if _KEYS.fullmatch(key):
            self._act(f"dtmf: {{leg: {leg or self._collecting.leg}, digit: {quoted(key)}}}")

    def _look_for_keys(self, read: Mapping[str, Any]) -> None:
        """A condition that looks at what was collected tells which keys those were."""
        if self._collected is None:
            return
        at, leg, count = self._collected
        keys = next((str(v) for v in read.values() if len(str(v)) == count and _KEYS.fullmatch(str(v))), "")
        for key in keys:
            self.acts.append((at, f"dtmf: {{leg: {leg}, digit: {quoted(key)}}}"))
        if keys:
            self._collected = None

    def _give_up_keys(self) -> None:
        if self._collected is not None:
            at, leg, count = self._collected
            self.comments.append(f"{count} keys of the {leg} at {seconds_of(at)} are not in the trace: add  dtmf: …")
            self._collected = None

    def _plays(self, file: str) -> None:
        repeat = _REPEAT.search(self._step)
        self._playing = self._now, file, int(repeat[1]) if repeat is not None else 1

    def _has_played(self, over: bool) -> None:
        """The next step, or the end of the call before it was over: then it had more to play."""
        assert self._playing is not None
        (began, file, times), self._playing = self._playing, None
        length = (self._now - began) / max(times, 1) + (0 if over else 1)
        if length > 0.001:
            self.sounds[file] = length

    def _records(self, leg: str) -> None:
        self._recording = self._now, "caller" if leg == "both" else leg, self._step

    def _has_recorded(self, seconds: str) -> None:
        """Silence ended it, or a key; or it was as long as it may be."""
        assert self._recording is not None
        (began, leg, step), self._recording = self._recording, None
        silence, stop, length = _SILENCE.search(step), _STOP.search(step), float(seconds)
        pause = float(silence[1]) if silence is not None else 0.0
        if length - pause > 0.001:
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(length - pause)}}}", began)
        if stop is not None and (silence is None or length < pause):
            self._act(f"dtmf: {{leg: {leg}, digit: {quoted(stop[1])}}}", began + length)

    def _executes(self, app: str) -> None:
        if app not in _WITHOUT_RESULT:
            self.comments.append(
                f"{app} at {seconds_of(self._now)} may have ended otherwise than here: add  given: esl"
            )

    def _ends(self, by: str, reason: str) -> None:
        if self._recording is not None:  # and nothing else had ended it
            began, leg, _ = self._recording
            self._act(f"speaks: {{leg: {leg}, for: {seconds_of(self._now - began + 1)}}}", began)
        if by in ("caller", "callee"):
            self._act(f"hangup: {by}")
        if by == "caller" and not self._replied:
            self._expect_reply(487)
        why = "" if by in ("caller", "callee") else f", reason: {quoted(pattern_of(reason))}"
        self.ended = f"ends: {{by: {by}{why}}}"


def seconds_of(seconds: float) -> str:
    return f"{round(max(0.0, seconds), 3):g}s"


def bare(uri: str) -> str:
    """A contact as tests write it, without its scheme."""
    return uri.removeprefix("sip:")


def pattern_of(text: str) -> str:
    """Text as a pattern that fits it: what would be a wildcard becomes one for a single character."""
    return re.sub(r"[*?\[]", "?", text)


def quoted(value: Any) -> str:
    """A value as YAML that reads back as this text, whatever a caller put into it."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if _SIMPLE.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)
