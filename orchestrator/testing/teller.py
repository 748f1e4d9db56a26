"""What the facts of a trace say: what came from outside, when, and what the engine did (`case_from_trace`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.run.run_facts import (
    BackgroundFailed,
    EventSkipped,
    EventTaken,
    Failed,
    Raised,
    ReplyImplied,
    RunBegan,
    RunEnded,
    StepFailed,
)
from orchestrator.flow.run.step_facts import (
    ContactsSaved,
    FreeSwitchAsked,
    HttpAnswered,
    HttpAsked,
    Injected,
    PlacingBegan,
    PushBegan,
    PushDone,
    RelayBegan,
    RelayEnded,
    Replied,
    Transferred,
)
from orchestrator.history import BY_OPERATOR, RequestSent, ResponseReceived, ResponseSent
from orchestrator.testing.billed import Billed
from orchestrator.testing.case_text import bare, pattern_of, quoted, seconds_of
from orchestrator.testing.heard import Fact, Heard
from orchestrator.testing.scenario import SETTLE
from orchestrator.testing.woken import Woken, has_push_address, with_token, without_parameters

Act = tuple[float, str]

_BUILTIN = {spec.name for spec in BUILTIN_EVENTS}

_CAUSED_BY_SIP = ("ringing", "answered", "branch_failed", "hangup")
"""Events that follow from what the phones of the test do."""

_WITHOUT_RESULT = ("set", "export", "unset")
"""Applications of FreeSWITCH that do the same everywhere."""

_PARKED = "sip:park@"
"""Whom an INVITE is for that FreeSWITCH is to keep (`core.steps.hold`)."""


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
        self._happened: list[tuple[Mapping[str, Any], str]] = []
        """Events so far: their attributes, and the act that brings each."""
        self._request = ""
        """The method of the request that began the run, where no call did."""
        self._switch: set[str] = set()
        """URIs of FreeSWITCH: what is sent there is no fact of a test."""
        self._goes_via = False
        """A relay has begun whose first INVITE goes to FreeSWITCH."""
        self._read: Mapping[str, Any] = {}
        self._no_fact = ""
        """The side at which FreeSWITCH is alone: its BYE is no fact either."""
        self.woken = Woken(self._act, self._expect)
        self._wakes_since = -1.0
        """Since when a relay waits for phones to wake up; -1 for none."""
        self.billed = Billed(self._act, self._expect)
        self.heard = Heard(self._act, lambda text, at: self.acts.append((at, text)), self.comments.append)
        self._kinds = self._what_kinds_say()

    def _what_kinds_say(self) -> Mapping[str, Callable[[Fact], None]]:
        return {
            kind.__name__: method
            for kind, method in (
                (RunBegan, self._starts),
                (RunEnded, self._ends),
                (RequestSent, self._requested),
                (ResponseSent, lambda fact: self._replies(fact["code"], fact["reason"])),
                (ResponseReceived, lambda fact: self._hears(fact["code"], fact["contact"])),
                (ContactsSaved, lambda fact: self._answers_request(200, "")),
                (Replied, lambda fact: self._answers_request(fact["code"], fact["reason"])),
                (ReplyImplied, lambda fact: self._answers_request(fact["code"], fact["reason"])),
                (RelayBegan, self._relay_begins),
                (RelayEnded, lambda fact: self._wakes(False)),
                (PushBegan, lambda fact: self.woken.begins(self._now, fact["to"])),
                (PushDone, lambda fact: self.woken.pushed(self._now, fact)),
                (Transferred, lambda fact: self._relays(fact["to"].removeprefix("sip:"))),
                (PlacingBegan, self._originates),
                (Injected, lambda fact: self._injects(fact["added"])),
                (FreeSwitchAsked, self._executes),
                (EventSkipped, lambda fact: self._repeats(fact["seen"])),
                (Raised, lambda fact: self._raises(fact["event"], fact["delivered"])),
                (HttpAsked, self._asks),
                (HttpAnswered, lambda fact: self.http.append(f"{{url: '*', status: {fact['status']}}}")),
                (Failed, self._fails_web),
                (StepFailed, self._fails_web),
                (BackgroundFailed, self._fails_web),
            )
        }

    def read(self, record: Mapping[str, Any]) -> None:
        before, self._now = self._now, record["time"] - self._begin
        fact: Fact = record["fact"]
        kind = fact["kind"]
        self._read = record["read"]
        self.heard.look_for_keys(self._read)
        taken = kind == EventTaken.__name__ or (kind == RunBegan.__name__ and bool(fact["event"]))
        if (record["line"] or kind == RunEnded.__name__) and not taken:
            self.heard.has_played(self._now, over=bool(record["line"]))
        if taken and self._read:
            self._takes(fact["event"], {name.removeprefix("event."): value for name, value in self._read.items()})
        elif (
            self.heard.read(self._now, fact)
            or self.woken.read(self._now, fact, self._ring_aor or self.called)
            or self.billed.read(fact, self._now - before)
        ):
            return
        elif kind in self._kinds:
            self._kinds[kind](fact)

    def _requested(self, fact: Fact) -> None:
        """A request to a destination or a side (`orchestrator.history.RequestSent`)."""
        {"INVITE": self._rings, "CANCEL": self._cancels, "BYE": self._says_bye}[fact["method"]](fact["to"])

    def end(self) -> None:
        """That was the last line."""
        self.heard.give_up_keys()
        self.woken.end()
        for aor, contact in self.woken.asleep:
            self.registered.setdefault(aor, []).append(contact)
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

    def _starts(self, fact: Fact) -> None:
        self.caller, self.called, self._request = fact["caller"], fact["called"], fact["method"]
        if self._request:
            self._requests(self._request, self.caller, self.called)
        elif self.caller or self.called:
            self._act(f"invite: {{from: {quoted(self.caller)}, to: {quoted(self.called)}}}")

    def _requests(self, method: str, sender: str, to: str) -> None:
        if method == "REGISTER":
            contact = str(self._read.get("request.contact", ""))
            self._act(f"register: {{aor: {quoted(to)}, contact: {quoted(bare(contact))}}}")
        else:
            self._act(f"send: {{method: {method.lower()}, from: {quoted(sender)}, to: {quoted(to)}}}")
            self.comments.append(f"headers and body of the {method} are not in the trace: add those that matter")

    def _answers_request(self, code: int, reason: str) -> None:
        if self._request:
            said = f", reason: {quoted(pattern_of(reason))}" if reason else ""
            kind = "register" if self._request == "REGISTER" else "reply"
            self._expect(f"{kind}: {{code: {code}{said}}}", timed=True)

    def _originates(self, fact: Fact) -> None:
        self._relays(fact["to"].removeprefix("sip:"))
        self._no_fact = "caller"

    def _relay_begins(self, fact: Fact) -> None:
        self._goes_via = bool(fact["via"])
        self._unheard.clear()
        self._wakes(bool(fact["wake"]))
        self._relays(fact["to"])

    def _wakes(self, waits: bool) -> None:
        self._wakes_since = self._now if waits else -1.0

    def _relays(self, target: str) -> None:
        self._ring_aor = target if "@" in target else self.called if target == "registered" else ""

    def _rings(self, contact: str) -> None:
        if self._goes_via or contact.startswith(_PARKED):
            self._goes_via = False
            self._switch.add(contact)
            self._no_fact = "callee" if contact.startswith(_PARKED) else ""
            return
        if contact in self._unheard:  # the next hop of the same branch, such as UDP where nothing listens on TCP
            return
        self._rung.append(contact)
        self._unheard[contact] = self._now
        if contact not in self._known:
            self._known.add(contact)
            if not self.woken.calls(contact):
                self._was_registered(contact)
        self._cancelled.discard(contact)
        self._expect(f"sent: {{INVITE: {quoted(_shown(contact))}}}", timed=True)

    def _was_registered(self, contact: str) -> None:
        """A phone is called of which the trace says nothing else: it had registered before, a moment ago where it has a
        push address and was not pushed, or just now where phones are waited for."""
        user = contact.removeprefix("sip:").partition("@")[0]
        aor = self._ring_aor or f"{user}@{self.called.rpartition('@')[2]}"
        late = 0.0 <= self._wakes_since < self._now
        if late or has_push_address(contact):
            written = quoted(bare(with_token(contact, f"awake{len(self._known)}")))
            act = f"register: {{aor: {quoted(aor)}, contact: {written}}}"
            self.acts.insert(0, (self._now if late else 0.0, act))
        else:
            self.registered.setdefault(aor, []).append(bare(contact))

    def _injects(self, count: int) -> None:
        """The last contacts that rang were put in by the flow: they are somebody else's."""
        for contact in self._rung[len(self._rung) - count :]:
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
        self._expect(f"sent: {{CANCEL: {quoted(_shown(contact))}}}")

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
            if at_once and not has_push_address(contact):
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

    def _raises(self, event: str, delivered: int) -> None:
        if delivered:
            self.comments.append(f"{event} at {seconds_of(self._now)} was taken by other runs: add what started them")

    def _asks(self, _: object) -> None:
        self.asks_web = True

    def _fails_web(self, fact: Fact) -> None:
        if fact["type"] in ("http.connect", "http.timeout"):
            self.http.append(f"{{url: '*', error: {fact['type'].removeprefix('http.')}}}")

    def _takes(self, event: str, attributes: Mapping[str, Any]) -> None:
        self._event = attributes
        acts = len(self.acts)
        self._brings(event, attributes)
        if len(self.acts) > acts:
            self._happened.append((attributes, self.acts[-1][1]))

    def _repeats(self, value: str) -> None:
        """An event that was there before, as far as `unique_by` looks at it."""
        if not value:
            return
        same = (act for attributes, act in reversed(self._happened) if value in map(repr, attributes.values()))
        act = next(same, "")
        if act:
            self._act(act)

    def _brings(self, event: str, attributes: Mapping[str, Any]) -> None:
        """What makes an event happen."""
        if event in _CAUSED_BY_SIP or self.billed.brings(event, attributes):
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
            self.heard.decided(self._now, str(attributes["verdict"]), str(attributes["leg"]), attributes["ms"] / 1000)
        elif event in _BUILTIN:
            self.comments.append(
                f"{event} at {seconds_of(self._now)} came from FreeSWITCH: record it and add  esl: FILE"
            )
        else:
            data = ", ".join(f"{name}: {quoted(value)}" for name, value in attributes.items())
            self._act(f"raise: {{event: {event}, data: {{{data}}}}}")

    def _executes(self, fact: Fact) -> None:
        app = fact["command"]
        if fact["how"] == "execute" and app not in _WITHOUT_RESULT:
            self.comments.append(
                f"{app} at {seconds_of(self._now)} may have ended otherwise than here: add  given: esl"
            )

    def _ends(self, fact: Fact) -> None:
        by, reason = fact["by"], fact["reason"]
        if not fact["of_call"]:
            return
        self.heard.ended(self._now)
        self.billed.ended(reason)
        if reason == BY_OPERATOR:
            self.comments.append(f"an operator hung up at {seconds_of(self._now)}: nothing in a test does that")
        if by in ("caller", "callee"):
            self._act(f"hangup: {by}")
        if by == "caller" and not self._replied:
            self._expect_reply(487)
        why = "" if by in ("caller", "callee") else f", reason: {quoted(pattern_of(reason))}"
        self.ended = f"ends: {{by: {by}{why}}}"


def _shown(contact: str) -> str:
    """A contact as an expectation names it: without a token that the trace has masked."""
    return pattern_of(without_parameters(contact) if has_push_address(contact) else contact)
