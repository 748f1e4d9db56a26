"""A story about calls, told on virtual wires: who is registered, what happens when, and what came of it.

`orchestrator test` reads such stories from YAML, the pytest fixture `flow` writes them in Python; both are this class.
The engine is the real one (testing.world), so is its SIP to a FreeSWITCH in memory (testing.switch). Time stands still
between two acts, and every fact is kept with its time: what was sent to phones, what the caller was told, which web
services and FreeSWITCH commands were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

from orchestrator.core.users import LocalUsers
from orchestrator.esl.codec import EslEvent
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Program, Step
from orchestrator.flow.run.charging import ChargedCall
from orchestrator.flow.run.effects import Log
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import Trace, TraceWritten
from orchestrator.history import CallRecord, MessageOut
from orchestrator.sip.digest import Secret
from orchestrator.sip.push import Push
from orchestrator.testing.billing import Billing
from orchestrator.testing.facts import EffectRule, EslRule, HttpRule, PushRule, Seen, seen_in
from orchestrator.testing.outside import Outside
from orchestrator.testing.parties import Parties, StoryCall, StoryError, reserved
from orchestrator.testing.phone import Address, Phone, PhoneCall
from orchestrator.testing.published import EACH_TYPE, SinkRule, SinksOfStory
from orchestrator.testing.recordings import Recording
from orchestrator.testing.sleepers import policy_for, push_parameters, pushed_to, put_to_sleep
from orchestrator.testing.switch.channel import LOUD, SwitchChannel
from orchestrator.testing.switch.server import SWITCHES, VirtualFreeSwitch
from orchestrator.testing.world import World

SERVER = "fs1"
"""The FreeSWITCH a recording stands for, unless the flows name servers."""

SETTLE = 60.0
"""Seconds after the last act: every wait of an ordinary flow is over by then."""

QUIET = 40.0
"""Seconds after the last call has ended until nothing may be left: 64*T1 and a little."""


_DIRECTIONS = {"caller": "inbound", "callee": "outbound"}
"""Whom FreeSWITCH hears on a channel it received, and on one it made."""


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
        effects: Iterable[EffectRule] = (),
        push: Iterable[PushRule] = (),
        cgrates: Billing | None = None,
        sinks: Sequence[SinkRule] = EACH_TYPE,
        users: Mapping[str, Mapping[str, str]] | None = None,
        sounds: Mapping[str, float] | None = None,
        answers: Mapping[str, int] | None = None,
        domains: Sequence[str] = ("example.com",),
        wall: float | None = None,
        seed: int = 1,
    ) -> None:
        homes = {name: (f"10.254.0.{n}", 5080) for n, name in enumerate(program.resources.freeswitch or (SERVER,), 1)}
        sip = {name: f"sip:{host}:{port}" for name, (host, port) in homes.items()}
        site: dict[str, Any] = {"secrets": dict(secrets or {}), "freeswitch": sip}
        rules = list(push)
        phones = [contact for contacts in (registered or {}).values() for contact in contacts]
        site["push"] = policy_for(rules, phones)
        site["users"] = {
            table: LocalUsers.of({name: Secret(password) for name, password in known.items()})
            for table, known in (users or {}).items()
        }
        self._passwords = {name: password for known in (users or {}).values() for name, password in known.items()}
        self.world = World(program, domains=domains, seed=seed, wall=wall, trust=(SWITCHES,), **site)
        self.switches = {name: VirtualFreeSwitch.in_world(self.world, name, home) for name, home in homes.items()}
        """The FreeSWITCH servers the flows name."""
        for switch in self.switches.values():
            switch.lengths.update(sounds or {})
            switch.on_placed = lambda call: self.calls.append(StoryCall(self, call))
        self.parties = Parties(self.world, self.switches)
        self.server = next(iter(homes))
        self.facts: list[Seen] = []
        self.outside = Outside(self.world, self.switches, self.facts, http, esl, effects, rules, self._wake, cgrates)
        self.calls: list[StoryCall] = []
        """Those of callers, and those a flow has had FreeSWITCH place."""
        self.runs: list[Run] = []
        self.logs: list[tuple[float, str, str]] = []
        """(time, level, text) of every `log:` step."""
        self.ran: set[tuple[str, int]] = set()
        """(file, line) of every step that was run."""
        self.named: dict[str, StoryCall] = {}
        """Calls that have a name, to tell several apart."""
        self._call_ids: dict[str, str] = {}
        """Call-ID of any dialog of a call → that of its caller's."""
        self.ended: list[tuple[str, str, str]] = []
        """(SIP Call-ID, by whom, why) of the calls of flows when the story was told; ('', '') for what was still up."""
        self.finished = False
        self._callers = 0
        self._repeated: set[bytes] = set()
        self._watch()
        self._begin(registered or {}, answers or {})
        self.world.engine.history.listen(MessageOut, self._sent)
        self._sinks = SinksOfStory(self.world, sinks, self.facts)

    def _begin(self, registered: Mapping[str, Sequence[str]], answers: Mapping[str, int]) -> None:
        """What is there before the story: phones that have registered, and what some of them answer at once."""
        for aor, contacts in registered.items():
            for contact in contacts:
                self.phone_at(aor, contact).register()
        for contact, status in answers.items():
            phone = self.phone_at(contact, contact)
            phone.on_invite, phone.status = partial(_answer_at_once, status), status
        self.world.run()
        put_to_sleep(self.world, self.world.settings.push)

    def _watch(self) -> None:
        engine = self.world.engine
        self.world.on_job = self.outside.answer
        engine.host.on_log = self._logged
        engine.history.listen(TraceWritten, self._traced)
        engine.history.listen(CallRecord, self._call_ended)
        engine.flows.on_step = self._stepped

    # --- acts ---------------------------------------------------------------------------------------------------------

    def at(self, time: float, act: Callable[[], object]) -> None:
        """Schedule an act at so many seconds; acts of one instant happen in the order they were scheduled."""
        self.world.call_at(time, act)

    def phone_at(self, aor: str, contact: str) -> Phone:
        """The phone with this contact (`bob@10.0.0.5:5060;pn-provider=apns`), made when it is new.

        Raises StoryError for an address that is not a phone's.
        """
        address, parameters = _split_contact(contact)
        owner = reserved(address[0])
        if owner:
            raise StoryError(f"{address[0]} is the address of {owner} in a test: give {contact!r} another one")
        known = self.world.phones.get(address)
        if known is not None:
            return known
        return self._knowing(self.world.phone(aor, *address, parameters=parameters))

    def _knowing(self, phone: Phone, password: str = "") -> Phone:
        """A phone with a password: this one, or what the tables of users have for its user or its address."""
        aor = f"{phone.user}@{phone.domain}"
        phone.login = aor if aor in self._passwords else phone.user
        phone.password = password or self._passwords.get(phone.login, "")
        return phone

    def register(self, aor: str, contact: str, expires: int = 3600, password: str = "") -> None:
        self._knowing(self.phone_at(aor, contact), password).register(expires)

    def _wake(self, push: Push, contact: str) -> None:
        """The phone that was pushed to registers; from another contact with the same push address unless that has one
        of its own."""
        phone = pushed_to(self.world, push)
        if phone is None:
            return
        if contact:
            contact += push_parameters(phone) if ";" not in contact else ""
            known, phone = phone, self.phone_at(push.aor, contact)
            known.is_now_at(phone)
        phone.register()

    def invite(
        self, caller: str, to: str, headers: Mapping[str, str] | None = None, name: str = "", password: str = ""
    ) -> StoryCall:
        """`caller` calls `to`; the phone of a caller who is not registered is made for the call. `name` is what
        `call` finds it by. A challenge is answered with `password`, else with the one that the tables of users have."""
        call = StoryCall(self, self._knowing(self._phone_of(caller), password).invite(to, _lines(headers)))
        self.calls.append(call)
        if name:
            self.named[name] = call
        return call

    def send(
        self,
        method: str,
        sender: str,
        to: str,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        password: str = "",
    ) -> None:
        """`sender` sends a request that begins no call: MESSAGE, OPTIONS … One who is not registered is a stranger.
        For `password` see `invite`."""
        self._knowing(self._phone_of(sender), password).ask(method, to, _lines(headers), body.encode())

    def _phone_of(self, aor: str) -> Phone:
        """The phone of an address, made when nobody has it."""
        known = [phone for phone in self.world.phones.values() if f"{phone.user}@{phone.domain}" == aor]
        if not known:
            self._callers += 1
        return known[0] if known else self.world.phone(aor, f"10.255.0.{self._callers}")

    def call(self, name: str) -> StoryCall | None:
        """The call with that name; None for '', which stands for the last one. Raises StoryError."""
        if name and name not in self.named:
            raise StoryError(f"the call {name!r} has not begun at {self.world.now:g}s")
        return self.named[name] if name else None

    def is_of(self, call_id: str, call: StoryCall) -> bool:
        """Whether a Call-ID is that of one of the dialogs of a call."""
        return self._call_ids.get(call_id, call_id) == call.phone_call.call_id.decode()

    def ringing(self, contact: str, of: StoryCall | None = None) -> PhoneCall:
        """The call that rings at the phone whose contact fits a glob. Raises StoryError."""
        for call in self.incoming(contact):
            if call.state == "ringing" and (of is None or self.is_of(call.call_id.decode(), of)):
                return call
        raise StoryError(f"no phone {contact!r} rings at {self.world.now:g}s")

    def incoming(self, contact: str) -> list[PhoneCall]:
        """All calls that the phones with this contact (a glob) were called for, newest first."""
        pattern = contact.removeprefix("sip:").split(";")[0]
        found = []
        for phone in self.parties.phones:
            name = f"{phone.user}@{phone.here.decode()}"
            if fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(":5060"), pattern):
                found += [call for call in reversed(phone.calls) if call.incoming]
        return found

    def respond(self, contact: str, code: int, of: StoryCall | None = None) -> None:
        """The phone that rings (for this call) answers with this status. Raises StoryError."""
        call = self.ringing(contact, of)
        if code < 200:
            call.ring(code)
        elif code < 300:
            call.answer()
        else:
            call.reject(code)

    def hangup(self, side: str = "caller", call: StoryCall | None = None) -> None:
        """A side hangs up; the caller's is CANCEL while it rings. Raises StoryError."""
        self._dialog_of(call or self._last_call(), side).hangup()

    def refer(self, side: str, to: str, call: StoryCall | None = None, instead_of: StoryCall | None = None) -> None:
        """A side asks for a transfer to `user@domain`: blind, or attended to its other call `instead_of`. Raises
        StoryError."""
        dialog = self._dialog_of(call or self._last_call(), side)
        other = None
        if instead_of is not None:
            phone = dialog.phone
            mine = (self.parties.side(instead_of, each) for each in ("caller", "callee"))
            other = next((each for each in (instead_of.phone_call, *mine) if each.phone is phone), None)
            if other is None:
                raise StoryError(f"the {side} has no part in the call that is to be replaced")
        dialog.refer(f"sip:{to}", other)

    def _dialog_of(self, call: StoryCall, side: str) -> PhoneCall:
        dialog = call.phone_call if side == "caller" else self.parties.side(call, side)
        self._going_on(dialog, side)
        return dialog

    def press(self, side: str, digit: str, call: StoryCall | None = None) -> None:
        """A side presses a key: FreeSWITCH hears it where the media go through one, else it is a SIP INFO. Raises
        StoryError."""
        found = call or self._last_call()
        self._going_on(self.parties.side(found, side), side)
        channel = self.parties.channel(found, side)
        if channel is not None:
            channel.press(digit)
        else:
            self.parties.side(found, side).press(digit)

    def speak(self, side: str, seconds: float, call: StoryCall | None = None, level: int = LOUD) -> None:
        """A side talks for so long, as loud as `level`. Raises StoryError."""
        self.parties.heard(call or self._last_call(), side).talk(seconds, level)

    def sound(self, side: str, tone: str, call: StoryCall | None = None) -> None:
        """A beep, or the tone of a fax (cng, ced), comes from a side. Raises StoryError."""
        self.parties.heard(call or self._last_call(), side).sound(tone)

    def raise_event(self, name: str, attributes: Mapping[str, Any], call: StoryCall | None = None) -> int:
        """Raise an event from outside, one of a call for this or the last call; returns how many took it. Raises
        StoryError when it is about a call and there is none."""
        world = self.world
        spec = world.engine.flows.program.events.get(name)
        of_call = ""
        if spec is not None and spec.scope == "call":
            known = world.engine.calls.by_call_id((call or self._last_call()).phone_call.call_id)
            if known is None:
                raise StoryError(f"{name} is an event of a call, and the call is over at {world.now:g}s")
            of_call = known.id
        taken = world.engine.bus.publish(Event(name, dict(attributes), of_call, world.now))
        world.engine.flows.drain()
        return taken

    def charged(self, make: Callable[[str], Any], call: StoryCall | None = None) -> None:
        """CGRateS has a message for the sessions of a call. Raises StoryError when none of them is open."""
        engine, billing = self.world.engine, self.outside.billing
        known = engine.calls.by_call_id((call or self._last_call()).phone_call.call_id)
        sessions = [] if known is None or billing is None else [id for id in billing.open if id.startswith(known.id)]
        if known is None or not sessions:
            raise StoryError(f"CGRateS has no session of this call at {self.world.now:g}s")
        for session in sessions:
            engine.host.works.receive(known.id, ChargedCall, make(session), self.world.now)

    def replay(self, recording: Recording, legs: Mapping[str, str], call: StoryCall | None = None) -> None:
        """Play a recording's events from now on, with their gaps. `legs` (caller, callee → uuid) says which recorded
        channels stand for the legs of this call."""
        found = call or (self.calls[-1] if self.calls else None)
        sides = {uuid: leg for leg, uuid in legs.items()}
        begin = self.world.now
        for item in recording:
            if item.event is not None:
                self.at(begin + item.at, lambda event=item.event: self._play(event, sides, found))  # type: ignore[misc]

    def _play(self, event: EslEvent, sides: Mapping[str, str], call: StoryCall | None) -> None:
        """What was heard on a recorded channel is heard on the one that stands for it, which lives a life of its
        own; where none does, the recorded one is the call's."""
        side = sides.get(event.uuid)
        channel = self._standing_for(call, side)
        if channel is not None:
            if not event.name.startswith("CHANNEL_"):
                channel.switch.play(event, channel)
            return
        engine, switch = self.world.engine, self.switches[self.server]
        if call is not None and side is not None:
            engine.channels.observe(self.server, switch.restated(event), self.world.now)
            engine.channels.tie(self.server, event.uuid, call.phone_call.call_id.decode(), _DIRECTIONS[side])
        switch.play(event)

    def _standing_for(self, call: StoryCall | None, side: str | None) -> SwitchChannel | None:
        if call is None or side is None:
            return None
        try:
            return self.parties.channel(call, side)
        except StoryError:
            return None

    def _going_on(self, dialog: PhoneCall, side: str) -> None:
        """Raises StoryError when the call of a side is over."""
        if dialog.state == "ended":
            raise StoryError(f"the call of the {side} is over at {self.world.now:g}s")

    def _last_call(self) -> StoryCall:
        """Raises StoryError."""
        if not self.calls:
            raise StoryError("nobody has called yet")
        return self.calls[-1]

    # --- telling it ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Run all acts, wait for what they caused, hang up what is still up, and let everything run dry. Idempotent."""
        if self.finished:
            return
        while (last := self.world.planned) is not None:
            self.run_until(last)
        self.run_until(self.world.now + SETTLE)
        self.finished = True
        up = [run.call["sip_call_id"] for run in self.runs if run.call is not None]
        over = {call_id for call_id, _, _ in self.ended}
        self.ended += [(call_id, "", "") for call_id in up if call_id not in over]
        self.world.engine.history.ignore(CallRecord, self._call_ended)
        self._sinks.stop()
        self._hang_up_everything()
        self.world.run(QUIET)

    def run_until(self, time: float) -> None:
        """Run the acts due by then, and the clock to it."""
        self.world.run(max(0.0, time - self.world.now))

    def _hang_up_everything(self) -> None:
        placed = [call for switch in self.switches.values() for call in switch.placed]
        for call in [call for phone in self.parties.phones for call in phone.calls if not call.incoming] + placed:
            if call.state != "ended":
                call.hangup()

    # --- facts --------------------------------------------------------------------------------------------------------

    def _sent(self, message: MessageOut) -> None:
        """What went to people; what we and FreeSWITCH have to say to each other is nobody's business."""
        homes = {switch.address for switch in self.switches.values()}
        if (message.host, message.port) in homes or message.data in self._repeated:
            return
        self._repeated.add(message.data)
        seen = seen_in(self.world.now, message)
        if seen is not None:
            self._note_call(seen.call)
            self.facts.append(seen)

    def _note_call(self, call_id: str) -> None:
        """Remember whose dialog it is as long as the engine knows."""
        known = self.world.engine.calls.by_call_id(call_id.encode())
        if known is not None and call_id not in self._call_ids:
            self._call_ids[call_id] = known.sip_call_id.decode()

    def _logged(self, run: Run, effect: Log) -> None:
        self.logs.append((self.world.now, effect.level, effect.text))

    def _traced(self, written: TraceWritten) -> None:
        run = cast(Run, written.run)
        if run not in self.runs:
            self.runs.append(run)

    def _call_ended(self, record: CallRecord) -> None:
        self.ended.append((record.sip_call_id, record.ended_by, record.reason))

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
        live["works of calls"] = len(self.world.engine.host.works)
        live["detectors"] = len(self.world.engine.steps.detectors)
        live["FreeSWITCH channels"] = sum(len(switch.channels) for switch in self.switches.values())
        return [f"{count} {what} left" for what, count in live.items() if count]

    def errors(self) -> list[str]:
        """Types of the errors that nobody caught, one per run that had one."""
        return [run.error for run in self.runs if run.error]


def _split_contact(contact: str) -> tuple[Address, str]:
    """`[sip:]user@host[:port][;parameters]` → address and parameters with their leading semicolon."""
    where, semicolon, parameters = contact.removeprefix("sip:").partition(";")
    host, _, port = where.rpartition("@")[2].partition(":")
    return (host, int(port) if port.isdigit() else 5060), semicolon + parameters


def _lines(headers: Mapping[str, str] | None) -> list[bytes]:
    return [f"{name}: {value}".encode() for name, value in (headers or {}).items()]


def _answer_at_once(status: int, call: PhoneCall) -> None:
    if status < 300:
        call.answer()
    else:
        call.reject(status)
