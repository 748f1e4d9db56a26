"""A story about calls, told on virtual wires: who is registered, what happens when, and what came of it.

`orchestrator test` reads such stories from YAML, the pytest fixture `flow` writes them in Python; both are this class.
The engine is the real one (testing.world), time stands still between two acts, and every fact is kept with its time:
what was sent to phones, what the caller was told, which web services and FreeSWITCH commands were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.core.jobs import Job, Resolve
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.events.event import Event
from orchestrator.flow.effects import EslCommand, EslExecute, Http, Log
from orchestrator.flow.program import Program, Step
from orchestrator.flow.run import Run
from orchestrator.flow.trace import Record, Trace
from orchestrator.testing.phone import Address, Phone, PhoneCall
from orchestrator.testing.recordings import Recording
from orchestrator.testing.world import PROXY, World

SERVER = "fs1"
"""The FreeSWITCH a recording stands for, unless the flows name servers."""

SETTLE = 60.0
"""Seconds after the last act: every wait of an ordinary flow is over by then."""

QUIET = 40.0
"""Seconds after the last call has ended until nothing may be left: 64*T1 and a little."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was seen. `stream` is sip, http or esl; `what` the method, the status or the kind of command."""

    time: float
    stream: str
    kind: str
    """sent (a request to a phone), reply (a status to a caller), register (a status to a REGISTER), http, esl."""
    what: str
    about: str
    """The request URI, the reason phrase, the URL, the command."""
    data: Any = None

    def __str__(self) -> str:
        return f"{self.time:.1f}s {self.kind} {self.what} {self.about}".rstrip()


@dataclass(slots=True)
class HttpRule:
    """What a web service answers: the first rule whose globs fit. `error` is connect or timeout."""

    url: str
    method: str = "*"
    status: int = 200
    json: Any = None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    delay: float = 0.0

    def answer(self, effect: Http) -> Any:
        if self.error:
            return StepError(f"http.{self.error}", f"{self.error} (as the test says)")
        expected = any(fnmatchcase(str(self.status), word.replace("x", "?")) for word in effect.expect)
        if not 200 <= self.status < 300 and not expected:
            return StepError("http.status", f"status {self.status}", {"status": self.status})
        return {"status": self.status, "text": self.text, "json": self.json, "headers": dict(self.headers)}


@dataclass(slots=True)
class EslRule:
    """What FreeSWITCH answers to a command."""

    command: str
    reply: str = "+OK"


_DIRECTIONS = {"caller": "inbound", "callee": "outbound"}
"""Whom FreeSWITCH hears on a channel it received, and on one it made."""


class StoryError(Exception):
    """The story cannot be told: it names a phone or a call that is not there."""


class StoryCall:
    """One call of a story: the caller's side of it, and what a flow knows of it."""

    def __init__(self, story: Scenario, phone_call: PhoneCall) -> None:
        self._story = story
        self.phone_call = phone_call

    @property
    def replies(self) -> list[int]:
        """Final replies the caller got."""
        return [status for status in self.phone_call.statuses if status >= 200]

    @property
    def _end(self) -> tuple[str, str]:
        call_id = self.phone_call.call_id.decode()
        return next((end[1:] for end in self._story.ended if end[0] == call_id), ("", ""))

    @property
    def ended_by(self) -> str:
        """caller, callee or engine; '' when it was still up at the end of the story, or no flow took it."""
        return self._end[0]

    @property
    def end_reason(self) -> str:
        return self._end[1]


class Scenario:
    """One story. Acts are scheduled with `at`; `finish` tells it to its end and looks for what was left behind."""

    def __init__(
        self,
        program: Program,
        *,
        registered: Mapping[str, Sequence[str]] | None = None,
        secrets: Mapping[str, str] | None = None,
        http: Iterable[HttpRule] = (),
        esl: Iterable[EslRule] = (),
        domains: Sequence[str] = ("example.com",),
        wall: float | None = None,
        seed: int = 1,
    ) -> None:
        servers = dict.fromkeys(program.resources.freeswitch, "") or {SERVER: ""}
        self.world = World(
            program, domains=domains, seed=seed, wall=wall, secrets=dict(secrets or {}), freeswitch=servers
        )
        self.server = next(iter(servers))
        self.http = list(http)
        self.esl = list(esl)
        self.facts: list[Fact] = []
        self.calls: list[StoryCall] = []
        self.runs: list[Run] = []
        self.logs: list[tuple[float, str, str]] = []
        """(time, level, text) of every `log:` step."""
        self.ran: set[tuple[str, int]] = set()
        """(file, line) of every step that was run."""
        self.ended: list[tuple[str, str, str]] = []
        """(SIP Call-ID, by whom, why) of the calls of flows when the story was told; ('', '') for what was still up."""
        self.finished = False
        self._seen = 0
        self._callers = 0
        self._repeated: set[bytes] = set()
        self._watch()
        for aor, contacts in (registered or {}).items():
            for contact in contacts:
                self.phone_at(aor, contact).register()
        self.world.run()
        self._forget_facts()

    def _watch(self) -> None:
        engine = self.world.engine
        self.world.on_job = self._job
        engine.host.on_log = self._logged
        engine.host.on_trace = self._traced
        engine.flows.on_step = self._stepped

    # --- acts ---------------------------------------------------------------------------------------------------------

    def at(self, time: float, act: Callable[[], object]) -> None:
        """Schedule an act at so many seconds; acts of one instant happen in the order they were scheduled."""
        self.world.call_at(time, act)

    def phone_at(self, aor: str, contact: str) -> Phone:
        """The phone with this contact (`bob@10.0.0.5:5060;pn-provider=apns`), made when it is new."""
        address, parameters = _split_contact(contact)
        known = self.world.phones.get(address)
        if known is not None:
            return known
        return self.world.phone(aor, *address, parameters=parameters)

    def register(self, aor: str, contact: str, expires: int = 3600) -> None:
        self.phone_at(aor, contact).register(expires)

    def invite(self, caller: str, to: str, headers: Mapping[str, str] | None = None) -> StoryCall:
        """`caller` calls `to`; the phone of a caller who is not registered is made for the call."""
        known = [phone for phone in self.world.phones.values() if f"{phone.user}@{phone.domain}" == caller]
        if not known:
            self._callers += 1
        phone = known[0] if known else self.world.phone(caller, f"10.255.0.{self._callers}")
        lines = [f"{name}: {value}".encode() for name, value in (headers or {}).items()]
        call = StoryCall(self, phone.invite(to, lines))
        self.calls.append(call)
        return call

    def ringing(self, contact: str) -> PhoneCall:
        """The call that rings at the phone whose contact fits a glob. Raises StoryError."""
        for call in self.incoming(contact):
            if call.state == "ringing":
                return call
        raise StoryError(f"no phone {contact!r} rings at {self.world.now:g}s")

    def incoming(self, contact: str) -> list[PhoneCall]:
        """All calls that the phones with this contact (a glob) were called for, newest first."""
        pattern = contact.removeprefix("sip:").split(";")[0]
        found = []
        for phone in self.world.phones.values():
            name = f"{phone.user}@{phone.here.decode()}"
            if fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(":5060"), pattern):
                found += [call for call in reversed(phone.calls) if call.incoming]
        return found

    def respond(self, contact: str, code: int) -> None:
        """The phone that rings answers with this status."""
        call = self.ringing(contact)
        if code < 200:
            call.ring(code)
        elif code < 300:
            call.answer()
        else:
            call.reject(code)

    def hangup(self, side: str = "caller", call: StoryCall | None = None) -> None:
        """A side hangs up; the caller's is CANCEL while it rings. Raises StoryError."""
        found = call or (self.calls[-1] if self.calls else None)
        if found is None:
            raise StoryError("nobody has called yet")
        (found.phone_call if side == "caller" else self._callee_of(found)).hangup()

    def press(self, side: str, digit: str, call: StoryCall | None = None) -> None:
        """A side presses a key (SIP INFO). Raises StoryError."""
        found = call or (self.calls[-1] if self.calls else None)
        if found is None:
            raise StoryError("nobody has called yet")
        (found.phone_call if side == "caller" else self._callee_of(found)).press(digit)

    def _callee_of(self, call: StoryCall) -> PhoneCall:
        for phone in self.world.phones.values():
            for other in phone.calls:
                if other.incoming and other.call_id == call.phone_call.call_id and other.state == "answered":
                    return other
        raise StoryError("nobody has answered this call")

    def raise_event(self, name: str, attributes: Mapping[str, Any]) -> int:
        """Raise an event from outside; returns how many took it."""
        world = self.world
        taken = world.engine.bus.publish(Event(name, dict(attributes), time=world.now))
        world.engine.flows.drain()
        return taken

    def replay(self, recording: Recording, legs: Mapping[str, str], call: StoryCall | None = None) -> None:
        """Play a recording's events from now on, with their gaps. `legs` (caller, callee → uuid) says which recorded
        channels stand for the legs of this call."""
        found = call or (self.calls[-1] if self.calls else None)
        call_id = found.phone_call.call_id.decode() if found is not None else ""
        sides = {uuid: _DIRECTIONS[leg] for leg, uuid in legs.items()}
        begin = self.world.now
        for item in recording:
            if item.event is not None:
                self.at(begin + item.at, lambda event=item.event: self._play(event, sides, call_id))  # type: ignore[misc]

    def _play(self, event: EslEvent, sides: Mapping[str, str], call_id: str) -> None:
        engine, now = self.world.engine, self.world.now
        direction = sides.get(event.uuid)
        if direction is not None and call_id:
            engine.channels.observe(self.server, event, now)
            engine.channels.tie(self.server, event.uuid, call_id, direction)
        engine.receive_esl(self.server, event, now)

    # --- telling it ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Run all acts, wait for what they caused, hang up what is still up, and let everything run dry. Idempotent."""
        if self.finished:
            return
        while (last := self.world.planned) is not None:
            self.run_until(last)
        self.run_until(self.world.now + SETTLE)
        self.finished = True
        calls = [run.call for run in self.runs if run.call is not None]
        self.ended = [(call["sip_call_id"], call["ended_by"] or "", call["end_reason"] or "") for call in calls]
        self._hang_up_everything()
        self.world.run(QUIET)

    def run_until(self, time: float) -> None:
        """Run the acts due by then, and the clock to it."""
        self.world.run(max(0.0, time - self.world.now))
        self._collect()

    def _hang_up_everything(self) -> None:
        for phone in list(self.world.phones.values()):
            for call in phone.calls:
                if not call.incoming and call.state != "ended":
                    call.hangup()

    # --- facts --------------------------------------------------------------------------------------------------------

    def _forget_facts(self) -> None:
        self._seen = len(self.world.sent)

    def _collect(self) -> None:
        for time, source, _, data in self.world.sent[self._seen :]:
            if source == PROXY and data not in self._repeated:
                self._repeated.add(data)
                self._note(time, data)
        self._seen = len(self.world.sent)

    def _note(self, time: float, data: bytes) -> None:
        first, _, rest = data.split(b"\r\n", 1)[0].decode("utf-8", "replace").partition(" ")
        if first == "SIP/2.0":
            status, _, reason = rest.partition(" ")
            cseq = _cseq(data)
            if b"INVITE" in cseq:
                self.facts.append(Fact(time, "sip", "reply", status, reason))
            elif b"REGISTER" in cseq:
                self.facts.append(Fact(time, "sip", "register", status, reason))
        elif first != "ACK":
            self.facts.append(Fact(time, "sip", "sent", first, rest.rpartition(" ")[0]))

    def _job(self, job: Job) -> Any:
        effect, now = job.effect, self.world.now
        if isinstance(effect, Http):
            self.facts.append(Fact(now, "http", "http", effect.method, effect.url, effect))
            return self._answer_http(job, effect)
        if isinstance(effect, EslCommand):
            self.facts.append(Fact(now, "esl", "esl", effect.kind, effect.command, effect))
            reply = self._esl_reply(effect.command)
            failed = reply.startswith("-ERR")
            return StepError("esl.command", reply) if failed else {"ok": True, "text": reply}
        if isinstance(effect, EslExecute):
            command = f"{effect.app} {effect.args}".strip()
            self.facts.append(Fact(now, "esl", "esl", "execute", command, effect))
            return {"response": self._esl_reply(command)}
        return None if isinstance(effect, Resolve) else StepError("esl.down", "there is no FreeSWITCH in a test")

    def _answer_http(self, job: Job, effect: Http) -> Any:
        rules = (rule for rule in self.http if fnmatchcase(effect.url, rule.url))
        rule = next((rule for rule in rules if fnmatchcase(effect.method, rule.method)), None)
        if rule is None:
            return StepError("http.connect", f"no http: rule of the test fits {effect.method} {effect.url}")
        if not rule.delay:
            return rule.answer(effect)
        answer, world = rule.answer(effect), self.world
        world.call_at(world.now + rule.delay, lambda: world.engine.complete(job.id, answer, world.now))
        return World.LATER

    def _esl_reply(self, command: str) -> str:
        return next((rule.reply for rule in self.esl if fnmatchcase(command, rule.command)), "+OK")

    def _logged(self, run: Run, effect: Log) -> None:
        self.logs.append((self.world.now, effect.level, effect.text))

    def _traced(self, run: Run, record: Record) -> None:
        if run not in self.runs:
            self.runs.append(run)

    def _stepped(self, step: Step) -> None:
        self.ran.add((step.place.file, step.place.line))

    # --- what came of it ----------------------------------------------------------------------------------------------

    def run_of(self, flow: str = "") -> Run | None:
        """The last run of a flow, or of any."""
        return next((run for run in reversed(self.runs) if not flow or run.flow.name == flow), None)

    def handled(self, id: str) -> tuple[int, int]:
        """How many events the subscription with this id handled and skipped, over all runs."""
        counts = [run.handlers[id] for run in self.runs if run.handlers and id in run.handlers]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def traces(self) -> list[Trace]:
        return [Trace.of(run) for run in self.runs]

    def leftovers(self) -> list[str]:
        """What is left after everything has ended, in words; empty is right."""
        live = {**self.world.leftovers(), **self.world.engine.flows.live()}
        event_flows = sum(flow.trigger.kind == "event" for flow in self.world.engine.flows.program.flows)
        live["subscriptions"] = max(0, len(self.world.engine.bus) - event_flows)
        return [f"{count} {what} left" for what, count in live.items() if count]

    def errors(self) -> list[str]:
        """Types of the errors that nobody caught, one per run that had one."""
        return [run.error for run in self.runs if run.error]


def _cseq(data: bytes) -> bytes:
    head = data.split(b"\r\n\r\n", 1)[0]
    return next((line for line in head.split(b"\r\n") if line.lower().startswith(b"cseq")), b"")


def _split_contact(contact: str) -> tuple[Address, str]:
    """`[sip:]user@host[:port][;parameters]` → address and parameters with their leading semicolon."""
    where, semicolon, parameters = contact.removeprefix("sip:").partition(";")
    host, _, port = where.rpartition("@")[2].partition(":")
    return (host, int(port) if port.isdigit() else 5060), semicolon + parameters
