"""What flows ask for, done: the `Host` of the flow engine over this core (FLOWLANG §4.3, §5).

An effect that touches SIP is carried out inside the turn. One that has to wait for a network answer becomes a job, and
its ticket is resumed when the job is complete. Errors are StepErrors with the dotted types of the language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.core.anchor import Anchor, answer_headers
from orchestrator.core.applications import Applications
from orchestrator.core.auth import Gate
from orchestrator.core.call import Call
from orchestrator.core.calling_party import from_value
from orchestrator.core.executions import channel_of
from orchestrator.core.names import ProgramNames
from orchestrator.core.network import CALL_HEADER
from orchestrator.core.outward import Outward
from orchestrator.core.registration import Registration, registered_attributes
from orchestrator.core.relay import Relay
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.signals import PENDING, Ticket
from orchestrator.sip.contact import Contact
from orchestrator.sip.message import header_line
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from orchestrator.core.engine import Engine
    from orchestrator.core.jobs import JobEffect
    from orchestrator.core.socket import SocketCall
    from orchestrator.core.views import CallView
    from orchestrator.esl.codec import EslEvent
    from orchestrator.flow.language.program import Flow, Program
    from orchestrator.flow.run.run import Run
    from orchestrator.flow.run.trace import Record
    from orchestrator.sip.message import Request


_SCHEME = re.compile(r"(?:sips?|tel):", re.IGNORECASE)


class RelayStep:
    """What a relay tells its result: the step that waits for it. Smaller than a closure; thousands wait at once."""

    __slots__ = ("host", "ticket")

    def __init__(self, host: FlowHost, ticket: Ticket) -> None:
        self.host = host
        self.ticket = ticket

    def __call__(self, result: Mapping[str, Any]) -> None:
        self.host.relay_over(self.ticket)
        self.host.engine.flows.resume(self.ticket, result)


class FlowHost:
    """Performs effects for the runs of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.on_trace: Callable[[Run, Record], None] | None = None
        """Called with every trace line of every trace: the log, `orchestrator trace`, the tests."""
        self.on_log: Callable[[Run, effects.Log], None] | None = None
        """Told every `log:` step."""
        self.triggers: frozenset[str] = frozenset()
        """Kinds of trigger in the loaded program: a request that no flow can take costs no look at the flows."""
        self._relays: dict[Ticket, Relay] = {}
        self._registrations: dict[int, Registration] = {}
        self._calls: dict[int, Call] = {}
        self._handed: dict[int, SocketCall] = {}
        self.applications = Applications(engine)
        self.outward = Outward(engine)
        self._anchors: dict[Ticket, Anchor] = {}
        self.gate = Gate(engine)
        self._on_done = self._done  # bound once for all runs
        self._perform: Mapping[type, Callable[[Run, Ticket, Any], Any]] = {
            effects.Reply: self._reply,
            effects.Relay: self._relay,
            effects.Inject: self._inject,
            effects.Cancel: self._cancel,
            effects.Hangup: self._hangup,
            effects.Release: self._release,
            effects.SaveContact: self._save,
            effects.Lookup: self._lookup,
            effects.Authenticate: self._authenticate,
            effects.Http: self._http,
            effects.EslCommand: self._esl_command,
            effects.Media: self._media,
            effects.Answer: self._answer,
            effects.Transfer: self.outward.transfer,
            effects.Originate: self.outward.originate,
            **self.applications.performs,
            effects.Log: self._log,
        }

    # --- starting runs ------------------------------------------------------------------------------------------------

    def start_call(self, flow: Flow, call: Call, view: CallView, chain: tuple[str, ...]) -> None:
        """`chain` names the flows that have led to this call, `flow` the last."""
        run = self._create(flow, {"call": view})
        run.chain = chain
        if call.invite.max_forwards is not None:
            run.max_forwards = call.invite.max_forwards
        call.run = run
        self._calls[run.id] = call
        self._tell_begin(run, view)
        self._begin(run)

    def start_socket(self, flow: Flow, call: SocketCall) -> None:
        run = self._create(flow, {"call": call.view})
        call.run = run
        self._handed[run.id] = call
        self._tell_begin(run, call.view)
        self._begin(run)

    def _tell_begin(self, run: Run, view: Any) -> None:
        if self.engine.on_news is not None:
            ends = {"from": view["from"]["aor"], "to": view["target"]["aor"], "source": view["source_ip"]}
            self.engine.tell("call_begun", call=view["sip_call_id"], **ends, flow=run.flow.name, run=run.name)

    def adopt(self, run: Run, call: Call, request: Request, source: tuple[str, int]) -> None:
        """Give a run the call it has placed: from now on it is a run with a call."""
        view = self.engine.views.offer(request, source)
        view.bind(call)
        call.run = run
        run.call, run.call_id = view, call.id
        self._calls[run.id] = call

    def start_registration(self, flow: Flow, registration: Registration) -> None:
        run = registration.run = self._create(flow, {"request": registration.view})
        self._registrations[run.id] = registration
        self._begin(run)

    def _create(self, flow: Flow, names: Mapping[str, Any]) -> Run:
        flows = self.engine.flows
        run = flows.create(flow, flows.program, names)
        run.on_done = self._on_done
        return run

    def _begin(self, run: Run) -> None:
        run.begin()
        self.engine.flows.drain()

    def _done(self, run: Run) -> None:
        self._calls.pop(run.id, None)
        self._handed.pop(run.id, None)
        self._registrations.pop(run.id, None)
        self.gate.forget(run.id)
        self.applications.detectors.forget(run)

    # --- the Host protocol --------------------------------------------------------------------------------------------

    def perform(self, run: Run, ticket: Ticket, effect: Any) -> Any:
        """The result, or PENDING. Raises StepError."""
        return self._perform[type(effect)](run, ticket, effect)

    def abandon(self, ticket: Ticket) -> None:
        """A relay nobody waits for stops ringing, an application is broken off; what a job answers is ignored."""
        relay = self._relays.pop(ticket, None)
        if relay is not None:
            relay.stop(("all",))
        anchor = self._anchors.pop(ticket, None)
        if anchor is not None:
            anchor.abandon()
        self.applications.abandon(ticket)
        self.outward.abandon(ticket)

    def observe(self, server: str, event: EslEvent) -> bool:
        """Every FreeSWITCH event, after the channel table has learned from it. Returns whether it is a key that a step
        has taken."""
        taken = self.applications.observe(server, event)
        if self._anchors and event.name.startswith("CHANNEL_"):
            channel = self.engine.channels.get(server, event.uuid)
            for call_id in (channel.sip_call_id, channel.uuid) if channel is not None else ():
                call = self.engine.calls.by_call_id(call_id.encode())
                if call is not None and call.anchor is not None:
                    call.anchor.look()
                    break
        return taken

    def names(self, program: Program) -> Mapping[str, Any]:
        """Called whenever a program is loaded: what its expressions know besides the run."""
        self.triggers = frozenset(flow.trigger.kind for flow in program.flows)
        return ProgramNames(program, lambda: self.engine.wall, self.engine.settings.secrets)

    def trace(self, run: Run, record: Record) -> None:
        if self.on_trace is not None:
            self.on_trace(run, record)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _reply(self, run: Run, ticket: Ticket, effect: effects.Reply) -> None:
        headers = header_lines(effect.headers)
        if any(mark in effect.reason for mark in "\r\n\0"):
            raise StepError("call.state", "reply: the reason phrase holds a line break")
        registration = self._registrations.get(run.id)
        if registration is not None:
            registration.reply(effect.code, effect.reason, headers)
        else:
            call = self._call(run)
            if not (effect.implicit and call.reply_best()):
                call.reply(effect.code, effect.reason, headers)
        if effect.code >= 200:
            run.replied = True

    def _save(self, run: Run, ticket: Ticket, effect: effects.SaveContact) -> None:
        registration = self._registrations.get(run.id)
        if registration is None:
            raise StepError("call.state", "register: this run has no REGISTER")
        default = self.engine.settings.register
        registration.save(
            replace(
                default,
                min_expires=default.min_expires if effect.min_expires is None else int(effect.min_expires),
                max_expires=default.max_expires if effect.max_expires is None else int(effect.max_expires),
                max_contacts=default.max_contacts if effect.max_contacts is None else effect.max_contacts,
                extra={name: str(value) for name, value in effect.extra.items()} or None,
            )
        )
        run.replied = True

    def _lookup(self, run: Run, ticket: Ticket, effect: effects.Lookup) -> list[dict[str, Any]]:
        wall = self.engine.wall
        bindings = self.engine.bindings_of(effect.aor)
        return [
            {**registered_attributes(binding, False, "", wall), "q": binding.q, "extra": binding.extra or {}}
            for binding in bindings
        ]

    def _authenticate(self, run: Run, ticket: Ticket, effect: effects.Authenticate) -> Any:
        registration = self._registrations.get(run.id)
        return self.gate.check(run.id, registration or self.live_call(run), ticket, effect)

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, run: Run) -> Call:
        call = self._calls.get(run.id)
        if call is None:
            known = "FreeSWITCH has handed over this call: there is no SIP here" if run.id in self._handed else ""
            raise StepError("call.state", known or "this run has no call")
        return call

    def call_of(self, run: Run) -> Call | None:
        """The call of a run, over or not; None for a run without one."""
        return self._calls.get(run.id)

    def served_by(self, run: Run) -> Call | SocketCall | Registration | None:
        """Whatever a run owes an answer or an end."""
        return self._calls.get(run.id) or self._handed.get(run.id) or self._registrations.get(run.id)

    def sweep(self) -> list[Call]:
        """After a bug: let go of relays nobody waits for; returns calls that are over and whose runs were not told."""
        for ticket in [ticket for ticket in self._relays if ticket.task is None]:
            self._relays.pop(ticket).abandon()
        return [call for call in self._calls.values() if call.over and call.run is not None and not call.run.bounded]

    def live_call(self, run: Run) -> Call:
        """The call of a run. Raises StepError `call.state` when there is none, or it is over."""
        call = self._call(run)
        if call.over:
            raise StepError("call.state", "the call is over")
        return call

    def media_call(self, run: Run) -> Call | SocketCall:
        """The call of a run, whether SIP or FreeSWITCH's dialplan brought it. Raises as `live_call` does."""
        call = self._handed.get(run.id)
        if call is None:
            return self.live_call(run)
        if call.over:
            raise StepError("call.state", "the call is over")
        return call

    def _relay(self, run: Run, ticket: Ticket, effect: effects.Relay) -> Any:
        call = self.live_call(run)
        if call.front.server.answered:
            raise StepError("call.state", "relay: the call already has a final reply")
        if call.relay is not None:
            raise StepError("call.state", "relay: another relay of this call is still running")
        relay = Relay(
            call,
            effect,
            self._groups(run, call, effect),
            RelayStep(self, ticket),
            self._front(call, effect),
            header_lines(effect.headers),
        )
        call.relay = self._relays[ticket] = relay
        waiting, call.waiting = call.waiting, ()
        for target in waiting:  # injected before there was a relay to take this from
            target.headers, target.sender = (*relay.headers, *target.headers), from_value(effect.from_)
        relay.start(waiting)
        return PENDING

    def relay_began(self, ticket: Ticket, relay: Relay) -> None:
        """This step waits for a relay: it is stopped with the step."""
        self._relays[ticket] = relay

    def relay_over(self, ticket: Ticket) -> None:
        self._relays.pop(ticket, None)

    def _front(self, call: Call, effect: effects.Relay) -> Target | None:
        """The way to FreeSWITCH of `relay … via:`: the called user at the server, with our call's id for the way
        back."""
        if not effect.via:
            return None
        uri = self._sip_of(effect.via)
        call.server = effect.via
        host = uri.split(":", 1)[1].rpartition("@")[2]
        user = call.invite.parsed_uri.user or b"call"
        return Target(
            b"sip:%b@%b" % (user, host.encode()),
            headers=(CALL_HEADER + b": " + call.id.encode(), *header_lines(effect.headers)),
            sender=from_value(effect.from_),
        )

    def _sip_of(self, server: str) -> str:
        """SIP URI of a FreeSWITCH server. Raises StepError `esl.down`."""
        uri = self.engine.settings.freeswitch.get(server)
        if not uri:
            raise StepError("esl.down", f"FreeSWITCH server {server!r} has no SIP address (key 'sip')")
        return uri

    # --- FreeSWITCH holds the call ------------------------------------------------------------------------------------

    def _media(self, run: Run, ticket: Ticket, effect: effects.Media) -> Any:
        """Have FreeSWITCH hold the call; where it does already, at most have it answer."""
        call = self.live_call(run)
        if channel_of(self.engine, call, "caller") is not None:
            return self._answer(run, ticket, effects.Answer()) if effect.answer else None
        if call.front.server.answered:
            raise StepError("call.state", "media: the call is answered already, and not by FreeSWITCH")
        return self._hold(run, call, ticket, effect)

    def _hold(self, run: Run, call: Call, ticket: Ticket, effect: effects.Media) -> Any:
        if call.relay is not None or call.anchor is not None:
            raise StepError("call.state", "media: a relay or another media: of this call is still under way")
        server = self.engine.server_for(effect.server, call)
        if self.engine.servers.states.get(server, "up") != "up":
            raise StepError("esl.down", f"media: FreeSWITCH {server} is not connected")
        call.anchor = self._anchors[ticket] = Anchor(call, server, self._sip_of(server))
        call.carried, call.server = True, server
        call.anchor.hold(effect.answer, lambda error: self._anchored(run, ticket, error))
        return PENDING

    def _anchored(self, run: Run, ticket: Ticket, error: StepError | None) -> None:
        self._anchors.pop(ticket, None)
        if error is not None:
            self.engine.flows.throw(ticket, error)
        else:
            self.engine.flows.resume(ticket, None)

    def _answer(self, run: Run, ticket: Ticket, effect: effects.Answer) -> Any:
        """Answer from FreeSWITCH, which takes the call first where it does not have it."""
        handed = self._handed.get(run.id)
        if handed is not None:
            return self._answer_handed(run, ticket, handed, effect)
        call = self.live_call(run)
        if call.front.server.answered:
            return None
        if call.anchor is None:
            if effect.headers:
                raise StepError("call.state", "answer: headers need media: before it")
            return self._hold(run, call, ticket, effects.Media(answer=True))
        channel = channel_of(self.engine, call, "caller")
        headers = answer_headers(effect.headers, channel.uuid) if channel is not None else ()
        self._anchors[ticket] = call.anchor
        call.anchor.answer(headers, lambda error: self._anchored(run, ticket, error))
        return PENDING

    def _answer_handed(self, run: Run, ticket: Ticket, call: SocketCall, effect: effects.Answer) -> Any:
        """The application `answer`, which FreeSWITCH finishes at once on a channel that is answered."""
        if effect.headers:
            raise StepError("call.state", "answer: headers are SIP, and this call is FreeSWITCH's")
        return self.applications.answer(run, ticket, call.channel)

    def _groups(self, run: Run, call: Call, effect: effects.Relay) -> list[list[Target]]:
        """Destinations in the order they ring: each inner list at once."""
        targets = self._targets(run, call, effect)
        if effect.mode == "serial":
            return [[target] for target in targets]
        if effect.mode == "by_q":
            return self._by_q(targets)
        return [targets]

    def _by_q(self, targets: Sequence[Target]) -> list[list[Target]]:
        groups: dict[float, list[Target]] = {}
        for target in targets:
            groups.setdefault(target.binding.q if target.binding is not None else 1.0, []).append(target)
        return [groups[q] for q in sorted(groups, reverse=True)]

    def _targets(self, run: Run, call: Call, effect: effects.Relay) -> list[Target]:
        headers, sender = header_lines(effect.headers), from_value(effect.from_)
        if effect.gateways:
            targets = self.gateway_targets(effect.gateways, effect.number or call.invite.parsed_uri, run)
        elif effect.registered or effect.aor:
            aor = effect.aor or self.engine.network.aor(call.invite.parsed_uri)
            targets = self.engine.targets_of(aor)
        elif effect.original:
            targets = [Target(call.invite.uri)]
        else:
            targets = [self.target_of(item) for item in effect.to]
        for target in targets:
            target.headers, target.sender = headers, sender
        return targets

    def gateway_targets(self, names: Sequence[str], dialled: Uri | str, run: Run) -> list[Target]:
        """The gateways that take calls now, as the program of the run knows them. Raises StepError."""
        gateways, known = self.engine.gateways, run.program.resources.gateways
        usable = gateways.usable(names)
        for name in names:
            if name not in usable:
                run.trace(None, "gateway {} is down, passed over: {}", name, gateways.prober.reason(name))
        return [gateways.target(name, dialled, known) for name in usable]

    def target_of(self, item: Any) -> Target:
        """A destination a flow names: a contact as `lookup` and the events give it, or a URI (with or without `sip:`).

        A contact is its binding, and reached the way that registered: through its Path, or where it was seen behind
        NAT. A URI is only a URI, whoever may have registered the same one.
        """
        named = item["uri"] if isinstance(item, Mapping) else item
        if isinstance(named, Contact):
            return self.engine.target_of(self.engine.location.standing(named.binding, self.engine.wall))
        uri = str(named).strip()
        if _SCHEME.match(uri) is None:
            uri = "sip:" + uri
        try:
            parsed = parse_uri(uri.encode())
        except MalformedMessage as error:
            raise StepError("call.state", f"{uri!r} is not a destination: {error.reason}") from None
        return Target(bytes(parsed))

    def _inject(self, run: Run, ticket: Ticket, effect: effects.Inject) -> dict[str, Any]:
        call = self._call(run)
        if call.over or call.front.server.answered:
            return {"added": 0, "reason": "the call is over" if call.over else "the call is already answered"}
        targets = self.engine.targets_of(effect.aor) if effect.aor else [self.target_of(item) for item in effect.to]
        headers = header_lines(effect.headers)
        relay = call.relay
        for target in targets:
            target.headers = (*target.headers, *(relay.headers if relay is not None else ()), *headers)
            target.sender = from_value(relay.effect.from_) if relay is not None else b""
            target.ring = effect.ring
        if relay is None:
            call.waiting += tuple(targets)
            return {"added": len(targets), "reason": "waits for the relay"}
        added = relay.inject(targets, effect.cancel_others, effect.last)
        return {"added": added, "reason": "" if added else "nothing new to ring"}

    def _cancel(self, run: Run, ticket: Ticket, effect: effects.Cancel) -> None:
        relay = self.live_call(run).relay
        if relay is not None:
            relay.stop(effect.branches)

    def _hangup(self, run: Run, ticket: Ticket, effect: effects.Hangup) -> None:
        handed = self._handed.get(run.id)
        if handed is not None:
            handed.hangup(effect.reason, effect.code)
        else:
            self._call(run).hangup(effect.reason, effect.code, effect.leg)

    def _release(self, run: Run, ticket: Ticket, effect: effects.Release) -> None:
        """A caller whom FreeSWITCH holds would hear silence until he gives up; one who talks to somebody goes on."""
        handed = self._handed.get(run.id)
        if handed is not None:
            handed.hangup(f"flow failed: {effect.reason}", 503)
        call = self._calls.get(run.id)
        if call is not None and call.held:
            call.hangup(f"flow failed: {effect.reason}", None, "both")

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _http(self, run: Run, ticket: Ticket, effect: effects.Http) -> Any:
        if effect.background:
            self.engine.job(effect, lambda result: self._background_done(run, result))
            return None
        return self._as_job(ticket, effect)

    def _background_done(self, run: Run, result: Any) -> None:
        """It may outlive its run, and never fails it; what went wrong is counted and stands in the trace."""
        if isinstance(result, StepError):
            self.engine.count("http.background.failed")
            run.trace(None, "background http failed, {}: {}", result.type, result.message)

    def _esl_command(self, run: Run, ticket: Ticket, effect: effects.EslCommand) -> Any:
        effect.server = self.engine.server_for(effect.server, self._handed.get(run.id) or self._calls.get(run.id))
        return self._as_job(ticket, effect)

    def _as_job(self, ticket: Ticket, effect: JobEffect) -> Any:
        flows = self.engine.flows

        def done(result: Any) -> None:
            if isinstance(result, StepError):
                flows.throw(ticket, result)
            else:
                flows.resume(ticket, result)

        self.engine.job(effect, done)
        return PENDING

    def _log(self, run: Run, ticket: Ticket, effect: effects.Log) -> None:
        if self.on_log is not None:
            self.on_log(run, effect)


def header_lines(headers: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Header lines from names and values of a flow. Raises StepError when one would end the line and begin another
    header."""
    try:
        return tuple(header_line(str(name).encode(), str(value).encode()) for name, value in headers.items())
    except ValueError:
        raise StepError("call.state", "a header value holds a line break") from None
