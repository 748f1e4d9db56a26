"""The core put together: SIP, channels, events and flows behind a handful of inputs, with two lists of outputs.

    receive(octets, hop, now)      receive_esl(server, event, now)      run_timers(now)
    receive_snapshot(server, channels, since, core_uuid, now)      link_changed(server, state, reason, now)
    receive_event(event, now)      host.works.receive(call, kind, message, now)
    socket_opened(server, event, refuse, now)      socket_closed(server, reason, now)
    complete(job, result, now)      bindings_changed(changes, now)      transport_failed(hop, octets, now)
    connection_lost(hop, now)

Each input is one *turn*: it runs to its end without waiting for anything, and what it wants done outside it leaves in
`datagrams` and `jobs`. There is no clock, socket, thread or sleep in here; `now` is the caller's monotonic clock in
seconds. So the same engine runs against real wires, against the virtual ones of the tests, and twice the same way from
the same inputs.

A turn that raises is a bug, and costs its own input only: see `core.faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.core.calls.call import Exchange
from orchestrator.core.calls.cdr import CallRecords
from orchestrator.core.calls.table import Calls
from orchestrator.core.esl_events import EslEvents
from orchestrator.core.faults import Fault, Faults
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.overload import Overload
from orchestrator.core.peers import Peers
from orchestrator.core.push.pusher import Pusher
from orchestrator.core.push.refresh import Refreshes
from orchestrator.core.push.waking import Wakers
from orchestrator.core.registrations import Registrations
from orchestrator.core.requests import Requests
from orchestrator.core.sender import Sender
from orchestrator.core.settings import NO_SITE, CoreSettings, Site
from orchestrator.core.socket_calls import SocketCalls
from orchestrator.core.steps.performers import Performers
from orchestrator.core.steps.starts import Starts
from orchestrator.core.steps.steps import Steps
from orchestrator.core.steps.subjects import unaware
from orchestrator.core.switches.resync import Resync
from orchestrator.core.switches.servers import Servers
from orchestrator.core.wire import Wire
from orchestrator.errors import MalformedMessage
from orchestrator.esl.channels import Channel, ChannelTable
from orchestrator.esl.codec import EslEvent
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Program
from orchestrator.flow.language.usage import usage_of
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.sip.admission import Admission
from orchestrator.sip.location import Change, Location
from orchestrator.sip.points import Hop


class Engine(Node):
    """One node's core: composition and inputs."""

    def __init__(
        self, settings: CoreSettings, location: Location, program: Program, now: float = 0.0, site: Site = NO_SITE
    ) -> None:
        super().__init__(settings, location.route_key(settings.entropy), now)
        self.site = site
        self.location = location
        self.peers = Peers(self)
        self.admission = Admission(settings.sources, self.peers.exempt)
        self.sender = Sender(self, self.admission)
        self.registrations = Registrations(self, location, self.peers.contact_guard(settings.contacts))
        self.pusher = Pusher(self, settings.push, self.registrations.token_died)
        self.refreshes = Refreshes(self, self.pusher, self.registrations)
        self.wakers = Wakers(self, self.pusher, self.registrations)
        self.overload = Overload(self, location)
        self.gateways = Gateways(self.network, self.publish)
        self.channels = ChannelTable()
        self.servers = Servers(self)
        self.host = Performers(self)
        self.flows = FlowEngine(program, self.bus, self.timers, self.host, history=self.history)
        self.faults = Faults(lambda: unaware(self.flows.runs.values()))
        self.calls = Calls(self.history)
        self.records = CallRecords(self.history, settings.wall_offset)
        self._compose()
        self._bound()
        self._note_usage(program)

    def _compose(self) -> None:
        """Calls, what is done for them, and what requests become."""
        flows, servers, channels = self.flows, self.servers, self.channels
        exchange = Exchange(self.records, flows, self.calls, channels, servers)
        registrations, sender = self.registrations, self.sender
        steps = Steps(self, self.host, exchange, registrations, self.gateways, self.admission, self.wakers)
        self.steps = steps
        self.starts = Starts(self, flows, steps.forget)
        self.sockets = SocketCalls(self, exchange, self.starts)
        self.resync = Resync(self, servers, channels, self.calls, self._reported, self._channel_struck)
        self.esl_events = EslEvents(
            self, channels, self.calls, self.sockets, servers, self.resync, steps, registrations
        )
        outbound, authenticator = steps.outbound_calls, steps.authenticator
        self.requests = Requests(
            self, sender, self.overload, registrations, exchange, self.starts, outbound, authenticator, self.wakers
        )
        self.wire = Wire(self, sender, self.overload, self.requests, registrations, self.faults)
        self.receive = self.wire.receive
        """An input as well; each datagram is one, so there is no step in between."""

    def _reported(self, channel: Channel) -> None:
        self.esl_events.reported(channel)

    def _bound(self) -> None:
        """Bounds of the flows, and who hears of a bug."""
        limits, flows = self.settings.limits, self.flows
        flows.capacity = limits.subscriptions
        flows.most_runs, flows.most_runs_per_flow = limits.runs, limits.runs_per_flow
        flows.chain, flows.trace_memory.most = limits.chain, limits.trace_memory
        self.esl_events.translator.on_fault = lambda spec, bug: self.faults.struck(Fault(f"read {spec.name}", bug))
        self.timers.on_fault = self.faults.of_timer
        self.bus.on_fault = lambda subscription, bug: self.faults.struck(Fault("event", bug), subscription.owner)
        flows.on_collapse = self.faults.end
        self.registrations.location.on_fault = lambda bug: self.faults.struck(Fault("location", bug))
        self.history.on_fault = lambda bug: self.faults.struck(Fault("history", bug))

    # --- inputs -------------------------------------------------------------------------------------------------------

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        """Octets of a connection that are no message; the connection ends by itself."""
        self.timers.run_due(now)
        self.wire.receive_malformed(data, error, hop, now)

    def run_timers(self, now: float) -> None:
        """Everything due by `now`; `timers.next_due()` says when to call."""
        self.timers.run_due(now)

    def receive_esl(self, server: str, event: EslEvent, now: float) -> None:
        """One FreeSWITCH event, in the order of its connection."""
        self.timers.run_due(now)
        try:
            self.esl_events.receive(server, event, now)
        except Exception as bug:
            carried = self.esl_events.carried_by(server, event.uuid)
            self.faults.struck(Fault(f"event {event.name}", bug, server), *carried)

    def receive_event(self, event: Event, now: float) -> int:
        """An event that code outside has made (`events.outside`); one of a call that is over is counted. Returns how
        many subscriptions took it."""
        self.timers.run_due(now)
        event.time = now
        if event.call and self.calls.by_id(event.call) is None:
            self.count("event.without_call")
            return 0
        with self.faults.guard(f"event {event.name}"):
            return self.bus.publish(event)
        return 0

    def receive_snapshot(
        self, server: str, channels: Iterable[Mapping[str, Any]], since: float, core_uuid: str, now: float
    ) -> None:
        """The channels a server says it has (`show channels as json`), on a connection that receives since `since`.

        A call whose channel is gone without a word is ended: the server was restarted, or we were away when it hung up.
        """
        self.timers.run_due(now)
        with self.faults.guard("snapshot", server):
            self.resync.compare(server, channels, since, core_uuid)

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
        with self.faults.guard("socket", server, self.sockets.of(server)):
            self.sockets.closed(server, reason)

    def link_changed(self, server: str, state: str, reason: str, now: float) -> None:
        """The Event Socket link of a server is now down, connecting, … or up; `reason`: why it went down."""
        self.timers.run_due(now)
        with self.faults.guard("link", server):
            self.resync.link_changed(server, state)
            self.servers.link_changed(server, state, reason)

    def complete(self, job: int, result: Any, now: float) -> None:
        """The result of a job: its value, or the StepError it failed with."""
        self.timers.run_due(now)
        done = self.done_of(job)
        if done is not None:
            with self.faults.guard("job", "", done):
                done(result)

    def bindings_changed(self, changes: Sequence[Change], now: float) -> None:
        """The store has been changed by others: other nodes, or its owner. Never written back; news that are late or
        come twice change nothing."""
        self.timers.run_due(now)
        for change in changes:
            with self.faults.guard("bindings"):
                self.registrations.take(change)

    def transport_failed(self, hop: Hop, data: bytes, now: float) -> None:
        """The socket refused these octets: the client transaction that sent them ends (RFC 3261 §17.1.4)."""
        self.timers.run_due(now)
        self.wire.transport_failed(hop, data)

    def connection_lost(self, hop: Hop, now: float) -> None:
        """A connection has ended, whoever has ended it. What is under way on it fails, except for answers, which go
        where the Via leads (RFC 3261 §18.2.2); what was registered over it is gone (RFC 5626 §5.1)."""
        self.timers.run_due(now)
        self.wire.connection_lost(hop)

    def load(self, program: Program, site: Site) -> None:
        """Take a program and the site it belongs to, in one turn: new calls run it, running ones keep theirs."""
        self.site = site
        self.flows.load(program)
        self.admission.forget()
        self._note_usage(program)

    def drain(self, now: float) -> None:
        """Take no new calls or registrations any more; what is in progress goes on."""
        self.timers.run_due(now)
        self.draining = True
        self.wakers.leave()

    @property
    def idle(self) -> bool:
        """No registration waits for the store either."""
        return super().idle and self.registrations.writes.idle

    # --- inside -------------------------------------------------------------------------------------------------------

    def _note_usage(self, program: Program) -> None:
        self.usage = usage_of(program)
        self.peers.load(program.resources.gateways)
        self.gateways.load(program.resources.gateways)
        self.servers.acceptance.load(self.site.freeswitch, self.site.server_times)
        self.starts.load(program)
        self.esl_events.load(program, self.usage.fs)

    def _channel_struck(self, call_id: str, bug: Exception, call: object) -> None:
        self.faults.struck(Fault("channel lost", bug, call_id=call_id), call)
