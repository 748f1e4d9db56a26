"""What comes from the network: datagrams, and news of transports and connections that have failed."""

from __future__ import annotations

import re

from orchestrator.core.faults import Fault, Faults
from orchestrator.core.malformed import refuse_malformed
from orchestrator.core.node import Node
from orchestrator.core.overload import Overload
from orchestrator.core.registrations import Registrations
from orchestrator.core.request_view import text
from orchestrator.core.requests import Requests
from orchestrator.core.sender import Sender
from orchestrator.errors import MalformedMessage
from orchestrator.sip.admission import SCANNER, STRAY, Source
from orchestrator.sip.claims import CLAIMS, OURS
from orchestrator.sip.client import client_key
from orchestrator.sip.message import Request, Response, parse_message
from orchestrator.sip.points import Hop
from orchestrator.sip.routing import via_destination
from orchestrator.sip.scanners import Scanners
from orchestrator.sip.shown import shown
from orchestrator.sip.skim import BEGINNINGS

_TOP_BRANCH = re.compile(rb"([^ \r\n]+) [^\r\n]+\r\nVia: [^;\r\n]+;branch=([^;,\s]+)")
"""Method and branch of a request we have sent: our Via is its first header line."""


class Wire:
    """Takes the inputs of one engine that concern SIP on the network; see `core.engine` for what each means."""

    def __init__(
        self,
        node: Node,
        sender: Sender,
        overload: Overload,
        requests: Requests,
        registrations: Registrations,
        faults: Faults,
    ) -> None:
        self._node = node
        self._layer = node.layer
        self._timers = node.timers
        self._longest = node.settings.limits.message
        self._late = node.settings.late
        self._sender = sender
        self._admission = sender.admission
        self._overload = overload
        self._requests = requests
        self._registrations = registrations
        self._faults = faults
        self._scanners = Scanners(*node.settings.scanners)

    def receive(self, data: bytes, hop: Hop, now: float) -> None:
        """One datagram, or one message of a stream; `hop` is its sender and the point it was sent to. Never raises for
        what is in it. One of a source that has had its share is not read."""
        source = self._admission.admit(hop.host, now, self._late)
        if source is None:
            return
        begun = len(self._node.datagrams)
        sender, exempt = self._sender, source.exempt
        sender.source, sender.octets = source, len(data)
        if hop.connection and not exempt:  # nobody forges the address of a connection
            self._admission.prove(source, now)
        self._timers.run_due(now)
        refusals = self._overload.refusals
        ends_refusal = refusals.any and data[:4] == b"ACK " and data.find(refusals.mark) >= 0
        if ends_refusal and self._admission.is_proved(source, now):
            sender.charge(STRAY)  # ends a refusal: the less that costs, the more calls are served in an overload
            self._node.count("ack.unmatched")
            return
        message: Request | Response | None = None
        try:
            if self._overload.is_on and data.startswith(BEGINNINGS) and self._requests.receive_unread(data, hop):
                return
            try:
                message = parse_message(data, self._longest)
            except MalformedMessage as error:
                if not exempt and self._scanners.wrote(data):
                    self._meet_scanner(hop, data)
                    return
                refuse_malformed(self._node, sender, data, error, hop)
                return
            if not exempt and isinstance(message, Request) and self._is_scanner(message, source):
                self._meet_scanner(hop, data)
                return
            if message.shape.claims:
                self._doubt(message, hop.host)
            if isinstance(message, Request):
                self._requests.receive(message, hop)
            elif not self._layer.receive_response(message):
                sender.charge(STRAY)
                self._node.count("response.unmatched")
            elif not exempt:  # only who has got our request knows its branch
                sender.prove()
        except Exception as bug:
            call_id = text(message.call_id) if message is not None else ""
            fault = Fault("datagram", bug, f"{hop.host}:{hop.port}", call_id)
            self._faults.struck(fault, *self._requests.struck(message, hop, begun))

    def receive_malformed(self, data: bytes, error: MalformedMessage, hop: Hop, now: float) -> None:
        """What a connection ends with; a request among it is answered."""
        source = self._admission.admit(hop.host, now, self._late)
        if source is not None and (source.exempt or not self._scanners.wrote(data)):
            self._sender.source, self._sender.octets = source, len(data)
            with self._faults.guard("datagram", f"{hop.host}:{hop.port}"):
                refuse_malformed(self._node, self._sender, data, error, hop)

    def _doubt(self, message: Request | Response, host: str) -> None:
        """Take out what this source may not say."""
        network = self._node.network
        trusted, believed = network.trusts(host), network.believes(host)
        for name in CLAIMS.intersection(message.names):
            if not (trusted if name in OURS else believed):
                message.drop_header(name)

    def _is_scanner(self, request: Request, source: Source) -> bool:
        return self._scanners.knows(request, source.proved_until > self._node.timers.now)

    def _meet_scanner(self, hop: Hop, data: bytes) -> None:
        """Silence, but it costs the source points: one that goes on is banned."""
        self._sender.charge(SCANNER)
        self._node.count("scanner")
        self._node.tell("scanner", source=hop.host, port=hop.port, first=lambda: shown(data.split(b"\r\n", 1)[0]))

    def transport_failed(self, hop: Hop, data: bytes) -> None:
        """The socket refused these octets, or there is no connection to send them over."""
        self._node.count("transport.failed")
        if data.startswith(b"SIP/2.0 "):
            self._answer_elsewhere(hop, data)
            return
        found = _TOP_BRANCH.match(data)
        if found is not None:
            client = self._layer.clients.get(client_key(found[2], found[1]))
            with self._faults.guard("transport", f"{hop.host}:{hop.port}", client):
                self._layer.unreachable(found[2], found[1])

    def _answer_elsewhere(self, hop: Hop, data: bytes) -> None:
        """A response whose connection is gone: once to where its Via leads (RFC 3261 §18.2.2)."""
        if not hop.connection:
            return
        try:
            message = parse_message(data)
            there = via_destination(message.via, hop)
        except MalformedMessage:  # we have made it, but of what others said
            return
        if there is not None:
            self._node.count("response.new_connection")
            self._node.send(data, there)

    def connection_lost(self, hop: Hop) -> None:
        """A connection has ended."""
        self._node.count("connection.lost")
        for client in self._layer.clients_on(hop):
            with self._faults.guard("connection", f"{hop.host}:{hop.port}", client):
                client.lose_connection()
        with self._faults.guard("connection", f"{hop.host}:{hop.port}"):
            self._registrations.connection_lost(hop.connection)
