"""The core put together: SIP, channels, events and flows behind a handful of inputs, with two lists of outputs.

    receive_datagram(octets, host, port, transport, now)      receive_esl(server, event, now)      run_timers(now)
    receive_snapshot(server, channels, since, core_uuid, now)      link_changed(server, state, reason, now)
    socket_opened(server, event, refuse, now)      socket_closed(server, reason, now)
    complete(job, result, now)                transport_failed(destination, octets, now)

Each input is one *turn*: it runs to its end without waiting for anything, and what it wants done outside it leaves in
`datagrams` and `jobs`. There is no clock, socket, thread or sleep in here; `now` is the caller's monotonic clock in
seconds. So the same engine runs against real wires, against the virtual ones of the tests, and twice the same way from
the same inputs.

A turn that raises is a bug, and costs its own input only: see `core.faults`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.auth import asserted_user
from orchestrator.core.call import Call
from orchestrator.core.calls import Calls
from orchestrator.core.cdr import CallRecord
from orchestrator.core.faults import Fault, Faults
from orchestrator.core.gateways import Gateways
from orchestrator.core.host import FlowHost
from orchestrator.core.jobs import Job, JobEffect, Resolve
from orchestrator.core.network import CLAIMS, SipNetwork
from orchestrator.core.overload import Overload
from orchestrator.core.registration import announce
from orchestrator.core.requests import Requests
from orchestrator.core.servers import Servers
from orchestrator.core.settings import CoreSettings
from orchestrator.core.socket import SocketCall, Sockets
from orchestrator.core.views import Views, text
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import Translation, Translator
from orchestrator.events.bus import Bus
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Program
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.run import Run
from orchestrator.sip.admission import MALFORMED, NOBODY, STRAY, Admission
from orchestrator.sip.branch import CHALLENGES
from orchestrator.sip.client import ClientTransaction, ClientUser, client_key
from orchestrator.sip.contact_guard import ContactGuard
from orchestrator.sip.dialog import Leg
from orchestrator.sip.fitting import fit, room_for
from orchestrator.sip.handshake import Handshakes
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.location import Binding, Location
from orchestrator.sip.message import Request, Response, build_response, parse_message, salvage_request
from orchestrator.sip.registrar import Registrar
from orchestrator.sip.routing import request_uri, response_destination
from orchestrator.sip.target import Target
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.transaction import Destination
from orchestrator.sip.uri import Uri
from orchestrator.timers import Timer, Timers

_TOP_BRANCH = re.compile(rb"([^ \r\n]+) [^\r\n]+\r\nVia: [^;\r\n]+;branch=([^;,\s]+)")
"""Method and branch of a request we have sent: our Via is its first header line."""
_KEEPALIVE = 4
"""Octets up to which a datagram of line ends is a keep-alive (RFC 5626 §3.5.1)."""


class Challenged:
    """Hears what becomes of a request of our own to a gateway, and answers one challenge with our account there."""

    __slots__ = ("_engine", "_leg", "_headers")

    def __init__(self, engine: Engine, leg: Leg, headers: tuple[bytes, ...]) -> None:
        self._engine = engine
        self._leg = leg
        self._headers = headers

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        account, known = self._leg.account, CHALLENGES.get(response.status)
        if account is None or known is None:
            return
        network, layer = self._engine.network, self._engine.layer
        word, branch = network.tokens.token(), network.tokens.branch()
        found = account.answer(response.get_all(known[0]), client.method, self._leg.target, word)
        if found is not None:
            via = network.via(client.destination[0], branch)
            data = self._leg.request(client.method, via, (*self._headers, known[1] + found[0]))
            layer.open_client(branch, client.method, data, client.destination, None)

    def on_timeout(self, client: ClientTransaction) -> None: ...
    def on_unreachable(self, client: ClientTransaction) -> None: ...


class Engine:
    """One node's core. Outputs are taken by whoever calls: `datagrams` and `jobs` are emptied after each turn."""

    def __init__(self, settings: CoreSettings, location: Location, program: Program, now: float = 0.0) -> None:
        self.settings = settings
        self.datagrams: list[tuple[bytes, Destination]] = []
        self.jobs: list[Job] = []
        self.counters: Counter[str] = Counter()
        self.on_record: Callable[[CallRecord], None] | None = None
        """Told the detail record of each call of a flow at its end."""
        self.on_news: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told what the log shows: the name of an event and its facts."""
        self.timers = Timers(now)
        self.admission = Admission(settings.sources, lambda host: self.network.trusts(host) or self._is_peer(host))
        self.sender = NOBODY
        """The source of the datagram of this turn, and its size in octets."""
        self.octets = 0
        self.faults = Faults(lambda run: self.host.served_by(run), lambda: self.host.sweep())
        self.timers.on_fault = self.faults.of_timer
        self.location = location
        self.layer = TransactionLayer(self.timers, self.send, settings.times)
        self.handshakes = Handshakes(self.timers, settings.times.timeout)
        self.network: SipNetwork = SipNetwork(
            settings, self.layer, Tokens(settings.entropy), self._look_up, lambda: location.route_key(settings.entropy)
        )
        self.registrar = Registrar(location, self.network.aor, self._contact_at_source())
        self.bus = Bus(self.timers)
        self.bus.on_fault = lambda subscription, bug: self.faults.struck(Fault("event", bug), subscription.owner)
        self.calls = Calls()
        self.views = Views(self)
        self.channels = ChannelTable()
        self.translator = Translator(self.channels)
        self.gateways = Gateways(self.network, self.network.own_uri, self._publish_global)
        self.servers = Servers(self)
        self.sockets = Sockets(self)
        self.host = FlowHost(self)
        self.flows = FlowEngine(program, self.bus, self.timers, self.host)
        limits = settings.limits
        self.flows.capacity = limits.subscriptions
        self.flows.most_runs, self.flows.most_runs_per_flow = limits.runs, limits.runs_per_flow
        self.flows.chain, self.flows.trace_memory.most = limits.chain, limits.trace_memory
        self.flows.on_collapse = self.faults.end
        self.requests = Requests(self)
        self.overload = Overload(self, settings.age, settings.entropy)
        self.draining = False
        self._last_job = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._expiry_timer: Timer | None = None
        self._note_usage(program)
        self.watch_expiry()

    @property
    def wall(self) -> float:
        """Seconds since the epoch, moving with the monotonic clock."""
        return self.timers.now + self.settings.wall_offset

    # --- inputs -------------------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, host: str, port: int, transport: int, now: float) -> None:
        """One datagram. Never raises for what is in it. One of a source that has had its share is not read."""
        sender = self.admission.admit(host, now)
        if sender is None:
            return
        self.sender, self.octets = sender, len(data)
        self.timers.run_due(now)
        message: Request | Response | None = None
        try:
            try:
                message = parse_message(data, self.settings.limits.message)
            except MalformedMessage as error:
                self._refuse_malformed(data, error, host, port, transport)
                return
            if not CLAIMS.isdisjoint(message.names) and not self.network.trusts(host):
                for name in CLAIMS.intersection(message.names):
                    message.drop_header(name)
            if isinstance(message, Request):
                self.requests.receive(message, host, port, transport)
            elif not self.layer.receive_response(message):
                self.admission.charge(sender, STRAY, now)
                self.count("response.unmatched")
            elif not sender.exempt:  # only who has got our request knows its branch
                self.admission.prove(sender, now)
        except Exception as bug:
            call_id = text(message.call_id) if message is not None else ""
            fault = Fault("datagram", bug, f"{host}:{port}", call_id)
            self.faults.struck(fault, *self._struck(message, host, port, transport))

    def run_timers(self, now: float) -> None:
        """Everything due by `now`; `timers.next_due()` says when to call."""
        self.timers.run_due(now)

    def receive_esl(self, server: str, event: EslEvent, now: float) -> None:
        """One FreeSWITCH event, in the order of its connection."""
        self.timers.run_due(now)
        try:
            self._receive_esl(server, event, now)
        except Exception as bug:
            self.faults.struck(Fault(f"event {event.name}", bug, server), *self._carried_by(server, event.uuid))

    def _receive_esl(self, server: str, event: EslEvent, now: float) -> None:
        if self.translator.repeated(server, event):
            return
        translations = self.translator.events_of(server, event, now)
        if self.channels.lost:  # the first event of a restarted server
            lost, self.channels.lost = self.channels.lost, []
            self.servers.end_calls(lost)
        if self.channels.strangers:
            strangers, self.channels.strangers = self.channels.strangers, []
            self.servers.ask(server, strangers)
        self.servers.observe(server, event)
        key_taken = self.host.observe(server, event)
        for translation in translations:
            self._publish_translated(translation, key_taken)
        self.sockets.observe(server, event)

    def receive_snapshot(
        self, server: str, channels: Iterable[Mapping[str, Any]], since: float, core_uuid: str, now: float
    ) -> None:
        """The channels a server says it has (`show channels as json`), on a connection that receives since `since`.

        A call whose channel is gone without a word is ended: the server was restarted, or we were away when it hung up.
        """
        self.timers.run_due(now)
        try:
            self.servers.compare(server, channels, since, core_uuid)
        except Exception as bug:
            self.faults.struck(Fault("snapshot", bug, server))

    def socket_opened(self, server: str, event: EslEvent, refuse: Callable[[], None], now: float) -> None:
        """FreeSWITCH's dialplan hands over a channel: `event` is its CHANNEL_DATA, `server` our name of the connection.

        `refuse()` is called within the turn when no flow takes the channel.
        """
        self.timers.run_due(now)
        try:
            self.sockets.open(server, event, refuse)
        except Exception as bug:
            if self.sockets.of(server) is None:
                refuse()
            self.faults.struck(Fault("socket", bug, server), self.sockets.of(server))

    def socket_closed(self, server: str, reason: str, now: float) -> None:
        """That connection has ended."""
        self.timers.run_due(now)
        call = self.sockets.of(server)
        try:
            self.sockets.closed(server, reason)
        except Exception as bug:
            self.faults.struck(Fault("socket", bug, server), call)

    def link_changed(self, server: str, state: str, reason: str, now: float) -> None:
        """The Event Socket link of a server is now down, connecting, … or up; `reason`: why it went down."""
        self.timers.run_due(now)
        try:
            self.servers.link_changed(server, state, reason)
        except Exception as bug:
            self.faults.struck(Fault("link", bug, server))

    def complete(self, job: int, result: Any, now: float) -> None:
        """The result of a job: its value, or the StepError it failed with."""
        self.timers.run_due(now)
        done = self._waiting.pop(job, None)
        if done is not None:
            try:
                done(result)
            except Exception as bug:
                self.faults.struck(Fault("job", bug), done)

    def transport_failed(self, destination: Destination, data: bytes, now: float) -> None:
        """The socket refused these octets: the client transaction that sent them ends (RFC 3261 §17.1.4)."""
        self.timers.run_due(now)
        self.count("transport.failed")
        found = _TOP_BRANCH.match(data)
        if found is not None and not data.startswith(b"SIP/2.0 "):
            client = self.layer.clients.get(client_key(found[2], found[1]))
            try:
                self.layer.unreachable(found[2], found[1])
            except Exception as bug:
                self.faults.struck(Fault("transport", bug, f"{destination[1]}:{destination[2]}"), client)

    def load(self, program: Program) -> None:
        """Take a program: new calls run it, running ones keep theirs."""
        self.flows.load(program)
        self.admission.forget()
        self._note_usage(program)

    def drain(self, now: float) -> None:
        """Take no new calls or registrations any more; what is in progress goes on."""
        self.timers.run_due(now)
        self.draining = True

    @property
    def idle(self) -> bool:
        """Nothing is in progress that a stop would break off: no open transaction, no unanswered call of a flow, no
        BYE that waits for an ACK."""
        return not (self.layer.unanswered or self.handshakes.held)

    # --- for the rest of the core -------------------------------------------------------------------------------------

    def send(self, data: bytes, destination: Destination) -> None:
        self.datagrams.append((data, destination))

    def fitting(self, answer: bytes) -> bytes:
        """An answer to the datagram of this turn, made small for a source that has not proved itself."""
        if self.admission.is_proved(self.sender, self.timers.now):
            return answer
        return fit(answer, room_for(self.octets))

    def _peers(self) -> tuple[str, ...]:
        """URIs of the gateways and FreeSWITCH servers."""
        gateways = (str(gateway["uri"]) for gateway in self.flows.program.resources.gateways.values())
        return (*gateways, *self.settings.freeswitch.values())

    def _is_peer(self, host: str) -> bool:
        """Whether this is the address of a gateway or of a FreeSWITCH server."""
        return self.network.is_at(host, self._peers())

    def _contact_at_source(self) -> Callable[[Uri, str], bool] | None:
        """The guard of what untrusted phones register, None where there is none."""
        network, allow = self.network, self.settings.contacts
        if allow is None:
            return None
        guard = ContactGuard(
            allow,
            network.is_own,
            network.is_ours,
            self._is_peer,
            lambda name: network.is_domain(name) or network.names_one(name, self._peers()),
        )
        return lambda uri, host: not network.trusts(host) and guard.at_source(uri, host)

    def tell(self, event: str, **facts: Any) -> None:
        """Something for the log; `source` is the network address that caused it."""
        if self.on_news is not None:
            self.on_news(event, facts)

    def count(self, name: str) -> None:
        self.counters[name] += 1

    def job(self, effect: JobEffect, done: Callable[[Any], None]) -> None:
        """Hand work out; `done(value or StepError)` runs in a later turn."""
        self._last_job += 1
        self._waiting[self._last_job] = done
        self.jobs.append(Job(self._last_job, effect))

    def must_refuse_new(self, method: bytes) -> bool:
        """Whether a new request outside of dialogs has to go elsewhere: we are stopping, or full."""
        limits = self.settings.limits
        return (
            self.draining
            or self.layer.unanswered >= limits.transactions
            or self.layer.lingering >= limits.lingering
            or self.layer.octets >= limits.octets
        )

    def must_refuse_all(self) -> bool:
        """Whether even requests inside dialogs would take more memory than they may: somebody floods us with them."""
        limits = self.settings.limits
        most = limits.transactions + limits.lingering
        return len(self.layer) >= most + most // 4 or self.layer.octets >= limits.octets + limits.octets // 4

    def user_of(self, request: Request, source: tuple[str, int]) -> str | None:
        """Who a trusted source says the sender is (RFC 3325 §5); None from all others."""
        return asserted_user(request) if self.network.trusts(source[0]) else None

    def targets_of(self, aor: str) -> list[Target]:
        """The contacts registered for an address, as destinations, best first."""
        return [self.target_of(binding) for binding in self.bindings_of(aor)]

    def bindings_of(self, aor: str) -> Sequence[Binding]:
        """The live bindings of an address a flow names, best first."""
        return self.location.bindings(self.network.home_aor(aor), self.wall)

    def target_of(self, binding: Binding) -> Target:
        """A binding is reached through its Path, else where it was seen when that is not where it says (NAT)."""
        hop = None
        if binding.received is not None and not binding.path:
            hop = self.network.destination(*binding.received, transport=0)
        return Target(request_uri(binding.contact), binding.path, hop, binding=binding)

    def channels_of(self, call: Call | SocketCall) -> Iterable[Channel]:
        """FreeSWITCH channels of a call, found by the Call-IDs of its dialogs."""
        if isinstance(call, SocketCall):
            yield from call.channels()
            return
        for call_id in call.call_ids:
            yield from self.channels.by_call_id(text(call_id))

    def server_for(self, name: str, call: Call | SocketCall | None) -> str:
        """The FreeSWITCH server a command goes to: the named one, the one that carries the call, else that which has
        least to do.

        Raises StepError `esl.down` when there is none.
        """
        if name:
            return name
        for channel in self.channels_of(call) if call is not None else ():
            return channel.server
        chosen = self.servers.choose(self.settings.freeswitch)
        if chosen is None:
            raise StepError("esl.down", "no FreeSWITCH server is configured")
        return chosen

    def send_in_dialog(
        self,
        leg: Leg,
        method: bytes,
        transport: int,
        headers: tuple[bytes, ...] = (),
        user: ClientUser | None = None,
        counted: bool = True,
    ) -> None:
        """A request of our own inside a dialog that passes through us; `user` hears of the answer. Not `counted`: it
        has the number of the last one."""
        branch = self.network.tokens.branch()

        def send(hop: Destination | None) -> None:
            if hop is None:
                self.count("dialog.unreachable")
                return
            data = leg.request(method, self.network.via(hop[0], branch), headers, counted)
            heard = Challenged(self, leg, headers) if user is None and leg.account is not None else user
            self.layer.open_client(branch, method, data, hop, heard)

        if leg.hop is not None:
            send(leg.hop)
            return
        try:
            self.network.resolve(leg.first_hop(), transport, send)
        except MalformedMessage:
            self.count("dialog.unreachable")

    def watch_expiry(self) -> None:
        """Arm the timer for the next binding that runs out."""
        due = self.location.next_expiry
        if due is None:
            return
        delay = max(0.0, due - self.wall)
        timer = self._expiry_timer
        if timer is None or not timer.armed or timer.when > self.timers.now + delay:
            if timer is not None:
                timer.cancel()
            self._expiry_timer = self.timers.after(delay, self._expire)

    def _struck(self, message: Request | Response | None, host: str, port: int, transport: int) -> tuple[Any, ...]:
        """What a datagram was about whose turn has raised."""
        if isinstance(message, Request):
            return self.requests.struck(message, host, port, transport)
        if message is None:
            return ()
        client = self.layer.find_client(message)
        return () if client is None else (client,)

    def _carried_by(self, server: str, uuid: str) -> Iterator[Call | SocketCall | None]:
        """The calls that a channel belongs to."""
        yield self.sockets.of(server)
        channel = self.channels.get(server, uuid)
        for call_id in (channel.sip_call_id, channel.uuid) if channel is not None else (uuid,):
            yield self.calls.by_call_id(call_id.encode())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _note_usage(self, program: Program) -> None:
        self.usage = usage_of(program)
        self.network.knows_names(self._peers())
        self.gateways.load(program.resources.gateways)
        self.translator.fs = self.usage.fs
        self._of_a_call = frozenset(name for name, spec in program.events.items() if spec.scope == "call")

    def _publish_global(self, name: str, attributes: dict[str, Any]) -> None:
        """An event of no call, where a flow waits for it."""
        if self.bus.hears(name):
            self.bus.publish(Event(name, attributes, "", self.timers.now))

    def _expire(self, _: object) -> None:
        self._expiry_timer = None
        announce(self, self.location.expire(self.wall))

    def _refuse_malformed(self, data: bytes, error: MalformedMessage, host: str, port: int, transport: int) -> None:
        """Answer what can be answered (RFC 3261 §8.2, RFC 4475); the rest gets silence and a counter."""
        if len(data) <= _KEEPALIVE and not data.strip(b"\r\n\0"):
            self.count("keepalive")
            return
        self.count("malformed")
        self.admission.charge(self.sender, MALFORMED, self.timers.now)
        first = data[:100].split(b"\r\n", 1)[0].decode("utf-8", "replace")
        self.tell("malformed", source=host, port=port, reason=error.reason, first=first)
        request = salvage_request(data) if error.sip_status else None
        if request is None or request.method == b"ACK":
            return
        request.stamp_source(host.encode(), port)
        answer = build_response(request, error.sip_status, error.reason, b"malformed")
        answer = self.fitting(answer)
        proved = self.admission.is_proved(self.sender, self.timers.now)
        if proved or len(answer) <= room_for(self.octets):  # nobody is owed an answer to what he garbled
            self.send(answer, response_destination(request.via, transport, host, port))

    def _look_up(self, host: str, found: Callable[[str | None], None]) -> None:
        job = Resolve(host, host in self.network.names.configured)
        self.job(job, lambda result: found(None if isinstance(result, StepError) else result))

    def _publish_translated(self, translation: Translation, key_taken: bool) -> None:
        """Give a FreeSWITCH event its call. An event that belongs to no flow's call is ignored.

        `key_taken` says that it is a key that a step has taken already, so that it may be for nobody else.
        """
        event = translation.event
        run: Run | None = None
        if event.name in self._of_a_call:
            call = self.sockets.of(translation.server) or self._call_of(translation)
            if call is None:
                self.count("esl.event.without_call")
                return
            event.call, run = call.id, call.run
        taken = self.bus.publish(event) if self.bus.hears(event.name) else 0
        if event.name == "dtmf" and not taken and not key_taken and run is not None:
            run.ignored_key(event.attributes["digit"], event.attributes["leg"])

    def _call_of(self, translation: Translation) -> Call | None:
        for call_id in (translation.sip_call_id, translation.other_call_id):
            call = self.calls.by_call_id(call_id.encode()) if call_id else None
            if call is not None:
                return call
        return self.calls.by_id(translation.x_call)
