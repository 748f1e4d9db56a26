"""Endpoints that keep the rules on wires that do not: they repeat what got lost and give up when they should.

Each is a user agent over a `TransactionLayer` of its own, so a test joins two of our cores through a bad network and
can ask afterwards whether both sides agree on what they think has become of their calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import MalformedMessage
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.dialog import Leg
from orchestrator.sip.layer import TransactionLayer, derive_request
from orchestrator.sip.message import Request, Response, build_response, parse_message
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.server import InviteServer
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

HERE = Point(0, "udp", "10.0.0.1", 5060)

PROXY_HOP = Hop(HERE, *PROXY)


def _contact(message: Request | Response) -> bytes | None:
    """The URI of the first contact; None where there is none that can be read."""
    try:
        return next((contact.uri for contact in message.contacts()), None)
    except MalformedMessage:
        return None


def _routes(message: Request | Response) -> list[bytes]:
    """The values of Record-Route; none where they cannot be read."""
    try:
        return [b"<%b>" % (route.uri or b"") for route in message.record_routes()]
    except MalformedMessage:
        return []


class Dialog:
    """An answered call as one side sees it. `state`: waiting (2xx sent, no ACK yet), up, over."""

    def __init__(self, agent: Agent, call_id: bytes, local_tag: bytes, remote_tag: bytes, leg: Leg, state: str) -> None:
        self.agent = agent
        self.key = call_id, local_tag, remote_tag
        self.leg = leg
        self.state = state
        self.was_up = state == "up"
        self.answer = b""
        self.server: InviteServer | None = None
        self._interval = agent.layer.times.t1

    # the callee repeats its 2xx until the ACK comes (§13.3.1.4)

    def repeat_answer(self, sent_for: float = 0.0) -> None:
        if self.state != "waiting":
            return
        if sent_for >= self.agent.layer.times.timeout:
            self.hang_up()
            return
        if sent_for:
            self.agent.layer.send(self.answer, PROXY_HOP)
        interval, self._interval = self._interval, min(2 * self._interval, self.agent.layer.times.t2)
        self.agent.layer.timers.after(interval, self.repeat_answer, sent_for + interval)

    def acknowledged(self) -> None:
        if self.state == "waiting":
            self.state = "up"
            self.was_up = True

    def acknowledge(self) -> None:
        """The caller's ACK, again for each repetition of the 2xx."""
        self.agent.layer.send(self.leg.request(b"ACK", self.agent.via()), PROXY_HOP)

    def hang_up(self) -> None:
        if self.state == "over":
            return
        self.state = "over"
        via = self.agent.via()
        branch = via.rpartition(b"=")[2]
        self.agent.layer.open_client(branch, b"BYE", self.leg.request(b"BYE", via), PROXY_HOP, None)


@dataclass
class Plan:
    """What a phone does with an INVITE: (seconds after it came, status); nothing behind a final status happens."""

    steps: Sequence[tuple[float, int]]


class Agent:
    """What callers and phones share: a name, an address, transactions, dialogs."""

    def __init__(self, world: World, name: str, host: str) -> None:
        self.world = world
        self.name = name.encode()
        self.address: Address = (host, 5060)
        post = world.post_from(self.address)
        self.layer = TransactionLayer(world.engine.timers, lambda data, to: post(data, (to[1], to[2])))
        self.dialogs: dict[tuple[bytes, bytes, bytes], Dialog] = {}
        self.uri = b"sip:%b@%b:5060" % (self.name, host.encode())
        self.contact = b"<%b>" % self.uri
        self._words = 0
        world.attach(self.address, self.receive)

    def word(self) -> bytes:
        self._words += 1
        return b"%b%d" % (self.name, self._words)

    def via(self) -> bytes:
        return b"Via: SIP/2.0/UDP %b:5060;branch=z9hG4bK%b" % (self.address[0].encode(), self.word())

    def receive(self, data: bytes, source: Address) -> None:
        try:
            message = parse_message(data)
        except MalformedMessage:
            return
        if isinstance(message, Response):
            if not self.layer.receive_response(message):
                self.on_stray(message)
            return
        server = self.layer.find_server(message)
        if server is not None and server.step("ACK" if message.method == b"ACK" else "request"):
            return
        if message.method == b"ACK":
            self.on_ack(message)
        else:
            self.on_request(message)

    def on_stray(self, response: Response) -> None:
        """A response without a transaction."""

    def on_ack(self, ack: Request) -> None:
        dialog = self.dialog_of(ack)
        if dialog is not None:
            dialog.acknowledged()

    def on_request(self, request: Request) -> None:
        """In-dialog requests; out of a dialog nothing is served here."""
        dialog = self.dialog_of(request)
        status = 481 if dialog is None or dialog.state == "over" else 200
        if dialog is not None and request.method == b"BYE":
            dialog.state = "over"
        self.reply(request, status)

    def reply(self, request: Request, status: int) -> None:
        server = self.layer.open_server(request, PROXY_HOP)
        server.respond(status, build_response(request, status, reason_phrase(status), self.word()))

    def dialog_of(self, request: Request) -> Dialog | None:
        return self.dialogs.get((request.call_id, request.to.tag or b"", request.from_.tag or b""))

    @property
    def up(self) -> set[tuple[bytes, frozenset[bytes]]]:
        """Dialogs this side takes for calls: Call-ID and the two tags, which read the same from both sides."""
        live = (dialog for dialog in self.dialogs.values() if dialog.state != "over")
        return {(dialog.key[0], frozenset(dialog.key[1:])) for dialog in live}


class Caller(Agent):
    """Calls once. `finals` are the final statuses heard, repetitions included."""

    def __init__(self, world: World, name: str, host: str) -> None:
        super().__init__(world, name, host)
        self.finals: list[int] = []
        self.provisional = False
        self.gave_up = False
        self.call_id = b"call-" + self.word()
        self.tag = self.word()
        self.client: ClientTransaction | None = None

    def call(self, to: bytes) -> None:
        via = self.via()
        octets = b"\r\n".join(
            [
                b"INVITE sip:%b SIP/2.0" % to,
                via,
                b"Max-Forwards: 70",
                b"From: <sip:%b@example.com>;tag=%b" % (self.name, self.tag),
                b"To: <sip:%b>" % to,
                b"Call-ID: " + self.call_id,
                b"CSeq: 1 INVITE",
                b"Contact: " + self.contact,
                b"Content-Length: 0\r\n\r\n",
            ]
        )
        self.client = self.layer.open_client(via.rpartition(b"=")[2], b"INVITE", octets, PROXY_HOP, self)

    def cancel(self) -> None:
        """Give up: a CANCEL as soon as something has been heard; 64*T1 later it is over here whatever is heard then."""
        if self.finals or self.gave_up:
            return
        self.gave_up = True
        if self.provisional:
            self._send_cancel()

    def _send_cancel(self) -> None:
        client = self.client
        assert client is not None
        self.layer.open_client(client.branch, b"CANCEL", derive_request(client.sent, b"CANCEL"), PROXY_HOP, None)
        self.layer.timers.after(self.layer.times.timeout, self._forget, client)

    def _forget(self, client: ClientTransaction) -> None:
        if client.state in ("calling", "proceeding"):
            client.step("abandon")

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if response.status < 200:
            if self.gave_up and not self.provisional:
                self._send_cancel()
            self.provisional = True
            return
        self.finals.append(response.status)
        if response.status < 300:
            self._on_answer(response)

    def _on_answer(self, response: Response) -> None:
        """One dialog per To tag. The first is the call, unless we have given up; the others are ended (§13.2.2.4)."""
        key = self.call_id, self.tag, response.to.tag or b""
        dialog = self.dialogs.get(key)
        if dialog is None:
            routes = _routes(response)[::-1]
            target = _contact(response) or b""
            sender, receiver = response.get(b"from") or b"", response.get(b"to") or b""
            dialog = Dialog(self, *key, Leg(self.call_id, sender, receiver, target, routes, 1, HERE), "up")
            unwanted = self.gave_up or bool(self.dialogs)
            self.dialogs[key] = dialog
            dialog.acknowledge()
            if unwanted:
                dialog.hang_up()
        elif dialog.leg.cseq == 1:
            dialog.acknowledge()

    def on_timer_c(self, client: ClientTransaction) -> None:
        """A caller waits for as long as it rings."""

    def on_timeout(self, client: ClientTransaction) -> None:
        """64*T1 without a word."""

    def on_unreachable(self, client: ClientTransaction) -> None:
        raise AssertionError("the test has no such wires")


@dataclass
class Ringing:
    """Who answers an INVITE at a phone: rings for as long as the caller likes; one that never speaks forgets it."""

    server: InviteServer
    plan: Plan

    @property
    def attended(self) -> bool:
        return bool(self.plan.steps)

    def fail(self) -> None:
        self.server.end()


class Callee(Agent):
    """Does with each INVITE what its plan says."""

    def __init__(self, world: World, name: str, host: str, plan: Plan) -> None:
        super().__init__(world, name, host)
        self.plan = plan
        self.invites: list[bytes] = []
        """Call-ID of each INVITE that was no repetition."""
        self.open: list[InviteServer] = []

    def on_request(self, request: Request) -> None:
        if request.method == b"INVITE" and not request.to.tag:
            self._ring(request)
        elif request.method == b"CANCEL":
            self._on_cancel(request)
        else:
            super().on_request(request)

    def _ring(self, request: Request) -> None:
        self.invites.append(request.call_id)
        server = self.layer.open_server(request, PROXY_HOP)
        assert isinstance(server, InviteServer)
        server.user = Ringing(server, self.plan)
        self.open.append(server)
        tag = self.word()
        for delay, status in self.plan.steps:
            self.layer.timers.after(delay, self._step, (server, request, status, tag))

    def _step(self, what: tuple[InviteServer, Request, int, bytes]) -> None:
        server, request, status, tag = what
        if server.answered:
            return
        if _contact(request) is None:  # a proxy passes it on; whoever is called cannot call back
            server.respond(400, build_response(request, 400, "Bad Request", tag))
            return
        headers = [b"Contact: " + self.contact] if status > 100 else []
        octets = build_response(request, status, reason_phrase(status), tag if status > 100 else None, headers)
        server.respond(status, octets)
        if 200 <= status < 300:
            self._answered(request, octets, tag)

    def _answered(self, request: Request, octets: bytes, tag: bytes) -> None:
        routes = _routes(request)
        target = _contact(request) or b""
        sender = (request.get(b"to") or b"") + b";tag=" + tag
        leg = Leg(request.call_id, sender, request.get(b"from") or b"", target, routes, 0, HERE)
        dialog = Dialog(self, request.call_id, tag, request.from_.tag or b"", leg, "waiting")
        dialog.answer = octets
        self.dialogs[dialog.key] = dialog
        dialog.repeat_answer()

    def _on_cancel(self, cancel: Request) -> None:
        server = self.layer.find_cancelled(cancel)
        self.reply(cancel, 200 if server is not None else 481)
        if server is not None and not server.answered and server.request is not None:
            server.respond(487, build_response(server.request, 487, "Request Terminated", self.word()))

    @property
    def ringing(self) -> set[bytes]:
        """Call-IDs of the calls that ring here."""
        live = (server for server in self.open if server.state == "proceeding" and server.status > 100)
        return {server.request.call_id for server in live if server.request is not None}
