"""What becomes of a request: the checks of RFC 3261 §16.3, routing inside dialogs (§16.4), and who serves the rest.

A request is refused without a transaction as long as nothing has been done for it (§8.2.7): one datagram in, one out,
nothing remembered, so a flood with forged sources gains nothing from us. A transaction begins where a flow, the
registrar or a callee takes over.

Without a flow that takes it, a REGISTER is saved, an INVITE for one of our domains rings the registered contacts, and
everything for foreign domains is sent on for trusted sources only. A To tag alone changes nothing about that: inside a
dialog is what brings back the token of our Record-Route (`sip.route_token`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from orchestrator.core.acks import Acks, unkept_tag
from orchestrator.core.calls.call import Call, Exchange
from orchestrator.core.calls.numbering import Numbering
from orchestrator.core.calls.replaced import ReplacedDialogs
from orchestrator.core.calls.views import NewCallView
from orchestrator.core.in_dialogs import DialogRequests
from orchestrator.core.node import Node
from orchestrator.core.others import OtherRequests
from orchestrator.core.overload import Overload
from orchestrator.core.push.by_default import forward
from orchestrator.core.push.waking import Wakers
from orchestrator.core.registrations import Registration, Registrations
from orchestrator.core.request_routes import NO_ROUTE, Route, Routes
from orchestrator.core.request_view import text
from orchestrator.core.sender import Sender
from orchestrator.core.steps.auth import Authenticator
from orchestrator.core.steps.outbound import OutboundCalls
from orchestrator.core.steps.starts import Starts
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.sip.admission import REPETITION
from orchestrator.sip.claims import CALL_HEADER
from orchestrator.sip.message import Request, Response, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.routing import response_destination
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.shown import shown
from orchestrator.sip.skim import skim
from orchestrator.sip.target import Target

_CALL_HEADER_NAME: Final = CALL_HEADER.lower()


class Requests:
    """Serves requests for one engine."""

    def __init__(
        self,
        node: Node,
        sender: Sender,
        overload: Overload,
        registrations: Registrations,
        exchange: Exchange,
        starts: Starts,
        outbound: OutboundCalls,
        authenticator: Authenticator,
        wakers: Wakers,
    ) -> None:
        self.routes = Routes(node.network, node.layer)
        self._node = node
        self._layer = node.layer
        self._network = node.network
        self._tell = node.tell
        self._count = node.count
        self._sender = sender
        self._overload = overload
        self._registrations = registrations
        self._exchange = exchange
        self._flows = exchange.flows
        self._calls = exchange.calls
        self._starts = starts
        self._outbound = outbound
        self._consume = authenticator.consume
        self._wakers = wakers
        overload.awaits = wakers.awaits
        self._replaced = ReplacedDialogs(node.network, exchange.calls)
        numbering = Numbering(node)
        self._acks = Acks(node, sender, overload, self.routes, registrations, self._consume, numbering)
        self._others = OtherRequests(
            node,
            sender,
            registrations,
            self._flows,
            starts,
            self._consume,
            self,
            self.routes.led_here_by,
            numbering,
            wakers,
        )
        self._dialogs = DialogRequests(
            node, sender, self._calls, outbound.gateways, numbering, self._others, self._consume, wakers
        )

    def receive(self, request: Request, hop: Hop) -> None:
        """One request from the network; every path ends in an answer, a forwarded request or, for an ACK, silence."""
        host, port = hop.host, hop.port
        request.stamp_source(host.encode(), port)
        if request.method == b"ACK":
            self._acks.receive(request, hop)
            return
        repeated = self._layer.find_server(request)
        if repeated is not None:
            self._sender.charge(REPETITION)
            repeated.step("request")
            return
        destination = response_destination(request.via, hop, self._node.settings.nat)
        if request.method == b"CANCEL":
            self._receive_cancel(request, destination)
            return
        try:
            self._receive_new(request, (host, port), destination)
        except MalformedMessage as error:
            first = shown(b"%b %b" % (request.method, request.uri))
            self._tell("malformed", source=host, port=port, reason=error.reason, first=first)
            self.refuse(request, destination, error.sip_status, error.reason)

    def receive_unread(self, data: bytes, hop: Hop) -> bool:
        """Refuse what overload control refuses before it is parsed, with the same answer. False when these octets have
        to be parsed: then nothing has been done."""
        request = skim(data, self._node.settings.limits.message)
        if request is None or self._layer.find_server(request) is not None:
            return False
        overload, now = self._overload, self._node.timers.now
        repeats = overload.refusals.knows(request, now)
        if not repeats and not overload.refuses(request):
            return False
        self._has_no_room(request, repeats, True)
        overload.refusals.add(request, now)
        self._count("refused.503")
        via = request.via.stamped(hop.host.encode(), hop.port)
        tag = overload.refusals.mark + unkept_tag(request)
        answer = request.refusal(b"SIP/2.0 503 Service Unavailable", via, tag, overload.retry_after(request))
        self._send_refusal(answer, response_destination(via, hop, self._node.settings.nat), 503)
        return True

    def refuse(
        self,
        request: Request,
        destination: Hop,
        status: int,
        reason: str = "",
        headers: tuple[bytes, ...] = (),
        mark: bytes = b"",
    ) -> None:
        """Answer without a transaction (§8.2.7). The tag is the same for each repetition of the request; it begins with
        `mark`."""
        self._count(f"refused.{status}")
        if request.method == b"REGISTER":
            to = text(request.get(b"to") or b"")  # as it stands: it may be what is malformed
            self._tell("register_refused", source=destination.host, to=to, code=status, reason=reason)
        answer = build_response(request, status, reason or reason_phrase(status), mark + unkept_tag(request), headers)
        self._send_refusal(answer, destination, status)

    def _send_refusal(self, answer: bytes, destination: Hop, status: int) -> None:
        if not self._sender.source.exempt:
            answer = self._sender.fitting(answer)
            if status >= 300:
                self._sender.refused(status)
        self._node.send(answer, destination)

    def struck(self, request: Request | Response | None, hop: Hop, begun: int) -> tuple[Any, ...]:
        """A bug has struck while this datagram was served: what a request has begun, or what it is about. `begun`:
        datagrams that were there before.

        A request that has begun nothing yet is answered 500 here, unless it got its answer before.
        """
        if not isinstance(request, Request):
            client = self._layer.find_client(request) if request is not None else None
            return () if client is None else (client,)
        if request.method == b"ACK":
            return ()
        server, call = self._layer.find_server(request), self._calls.by_call_id(request.call_id)
        if server is None:
            destination = response_destination(request.via, hop, self._node.settings.nat)
            if not any(to == destination and data.startswith(b"SIP/2.0 ") for data, to in self._node.datagrams[begun:]):
                self.refuse(request, destination, 500)
        cancelled = self._layer.find_cancelled(request) if request.method == b"CANCEL" else None
        return server, cancelled, call if call is not None and call.dialogs.holds(request) else None

    # --- CANCEL -------------------------------------------------------------------------------------------------------

    def _receive_cancel(self, request: Request, destination: Hop) -> None:
        """§9.2: the CANCEL has its own answer; what it cancels is told apart by everything but the method."""
        invite = self._layer.find_cancelled(request)
        if invite is None:
            self.refuse(request, destination, 481)
            return
        server = self._sender.open(request, destination)
        server.respond(200, build_response(request, 200, "OK", self._network.tokens.token()))
        cancelled: Call | ResponseContext | None = invite.user
        if cancelled is not None:  # a line for each protocol, or one for all (RFC 3326 §2)
            cancelled.cancel(tuple(b"Reason: " + reason for reason in request.get_all(b"reason")))

    # --- everything else ----------------------------------------------------------------------------------------------

    def _receive_new(self, request: Request, source: tuple[str, int], destination: Hop) -> None:
        begins = not request.to_tag and not self._belongs_to_a_call(request, source)
        if not request.to_tag:
            repeats = self._overload.refusals.knows(request, self._node.timers.now)
            if self._has_no_room(request, repeats, begins and self._overload.refuses(request)):
                self.turn_away(request, destination)
                return
        problem = self.routes.problem_of(request)
        if problem is not None:
            self.refuse(request, destination, problem[0], headers=problem[1])
            return
        named = not request.parsed_uri.is_plain and request.uri.find(b";gr") >= 0
        if named and not self._read_gruu(request) and not request.to_tag:
            self.refuse(request, destination, 404)
            return
        route = self.routes.route(request)
        if route.drop and route.toward is None and not request.to_tag:
            request.drop_header(b"route")  # all of it meant us: whoever is rung shall not send it back
            route = NO_ROUTE
        if request.to_tag:
            self._in_dialog(request, route, source, destination)
        elif begins and self._overload.must_refuse_new():
            self.turn_away(request, destination)
        elif route.toward is not None:
            self._send_on(request, route, source, destination)
        elif not self._network.is_local(request.parsed_uri):
            self._foreign(request, route, source, destination)
        elif request.method == b"REGISTER":
            self._register(request, source, destination)
        elif request.method == b"INVITE":
            self._invite(request, source, destination)
        else:
            self._others.receive(request, source, destination)

    def _read_gruu(self, request: Request) -> bool:
        """Put what a temporary GRUU stands for in its place. False where it stands for nothing any more."""
        meant = self._registrations.gruu_of(request)
        if meant is None:
            return b"gr" not in request.parsed_uri.params or not self._network.is_local(request.parsed_uri)
        if not meant.call:
            return True
        if not self._registrations.targets_at(meant):
            return False
        request.readdress(meant.uri)
        return True

    def _has_no_room(self, request: Request, repeats: bool, overload: bool) -> bool:
        """Whether there is no room for a request outside of dialogs, or was none when it came first (`repeats`); where
        that is so only for `overload`, it is counted."""
        if repeats:
            self._sender.charge(REPETITION)
            return True
        if self._sender.has_too_much(request):
            return True
        if overload:
            self._count(f"overload.{request.method.decode()}")
        return overload

    def turn_away(self, request: Request, destination: Hop) -> None:
        """503 to a request that could be served another time, and to all its repetitions, but those of a BYE and the
        like: to serve them late does no harm."""
        overload = self._overload
        if not request.to_tag or request.method == b"INVITE":
            overload.refusals.add(request, self._node.timers.now)
        headers = (overload.retry_after(request),)
        self.refuse(request, destination, 503, headers=headers, mark=overload.refusals.mark)

    def _belongs_to_a_call(self, request: Request, source: tuple[str, int]) -> bool:
        """FreeSWITCH sends a call of ours on: that is no new work, though no dialog of ours either."""
        return request.has(_CALL_HEADER_NAME) and self._network.trusts(source[0])

    def _in_dialog(self, request: Request, route: Route, source: tuple[str, int], destination: Hop) -> None:
        if request.method == b"SUBSCRIBE" and self._dialogs.serves(request, destination):
            return
        passage = self.routes.passage(request, route)
        toward, hop = self.routes.onward(request, route, passage)
        meant = self._registrations.target_meant(request) if route.toward is None else None
        if meant is None and hop is None and self._network.ends_here(toward):
            self.refuse(request, destination, 481)
            return
        if passage is None and meant is None and not self._network.trusts(source[0]):
            self.refuse(request, destination, 481 if route.drop else 403)
            return
        if self._overload.must_refuse_all() or self._overload.refusals.knows(request, self._node.timers.now):
            self.turn_away(request, destination)
            return
        self._dialogs.pass_on(request, route, passage, (toward, hop), source, destination, meant)

    def _send_on(self, request: Request, route: Route, source: tuple[str, int], destination: Hop) -> None:
        """A pre-loaded Route to somebody else: only for those we trust, or anybody could have us shout at third
        parties."""
        if self._network.trusts(source[0]):
            self._forward(request, route, self._sender.open(request, destination))
        else:
            self.refuse(request, destination, 403)

    def _foreign(self, request: Request, route: Route, source: tuple[str, int], destination: Hop) -> None:
        if not self._network.trusts(source[0]):
            holder = self._replaced.phone_at(request) if request.method == b"INVITE" else None
            if holder is None or not self._others.is_from_phone(request, Hop(destination.point, *source)):
                self.refuse(request, destination, 403)
                return
            server = self._sender.open(request, destination)
            self._trying(request, server)
            ResponseContext(self._network, server, request).add_all((holder,))
        elif request.method != b"INVITE":
            self._others.offer(request, source, destination, partial(self._forward_other, request, route, destination))
        elif not self._start_call(request, source, destination):
            self._forward(request, route, self._sender.open(request, destination))

    def _forward_other(
        self, request: Request, route: Route, destination: Hop, server: ServerTransaction | None
    ) -> None:
        self._forward(request, route, server or self._sender.open(request, destination))

    def _forward(self, request: Request, route: Route, server: ServerTransaction) -> None:
        if request.method == b"INVITE":
            self._trying(request, server)
        context = ResponseContext(self._network, server, request)
        context.drop_routes = route.drop
        context.add_all((Target(request.uri, toward=route.toward or request.parsed_uri),))

    # --- calls --------------------------------------------------------------------------------------------------------

    def _invite(self, request: Request, source: tuple[str, int], destination: Hop) -> None:
        if request.has(_CALL_HEADER_NAME) and self._is_back(request, source, destination):
            return
        if not self._start_call(request, source, destination):
            self._relay_to_contacts(request, destination)

    def _is_back(self, request: Request, source: tuple[str, int], destination: Hop) -> bool:
        """Whether this is a call we sent to FreeSWITCH and that it now sends on, or one that it places for us; see
        `Call`."""
        id = (request.get(_CALL_HEADER_NAME) or b"").decode("ascii", "replace")
        if not self._network.trusts(source[0]):
            return False
        call, placed = self._calls.by_id(id), self._outbound.take(id)
        if placed is not None:
            server = self._sender.open(request, destination)
            self._trying(request, server)
            placed.arrived(request, server, source)
            return True
        server = self._sender.open(request, destination)
        self._trying(request, server)
        if call is None or not call.open_back(request, server):  # a call that is over is no new one
            server.respond(481, build_response(request, 481, reason_phrase(481), self._network.tokens.token()))
        return True

    def _start_call(self, request: Request, source: tuple[str, int], destination: Hop) -> bool:
        """Give the call to the first flow that fits. False when none does."""
        node, flows = self._node, self._flows
        if "invite" not in self._starts.triggers:
            return False
        flow = flows.choose("invite", {"call": NewCallView(node, request, source)})
        if flow is None:
            return False
        led_here_by = self.routes.led_here_by(request)
        chain = (*led_here_by, flow.name) if led_here_by else flow.chain
        try:
            flows.check_chain(chain)
        except StepError:  # as a loop, whatever the flows have made of the address on the way (RFC 5393 §4.2)
            self.refuse(request, destination, 482)
            return True
        if not flows.has_room(flow):
            self.turn_away(request, destination)
            return True
        server = self._sender.open(request, destination)
        self._trying(request, server)
        call = Call(node, self._exchange, node.tokens.token().decode(), request, server, source)
        self._calls.add(call)
        self._starts.call(flow, call, chain)
        if not call.over and not call.replied and not call.pending:
            node.folds.fold(request)  # its flow waits now, maybe for long
        return True

    def _relay_to_contacts(self, request: Request, destination: Hop) -> None:
        targets = self._registrations.targets_for(request, self._network.aor(request.parsed_uri))
        targets = self._replaced.narrow(request, targets)
        call, source, tell = text(request.call_id), destination.host, self._node.tell_call
        invites = request.method == b"INVITE"
        if invites:
            ends = _ends(request)
            tell("call_begun", {"call": call, "from": ends[0], "to": ends[1], "source": source})
        if not targets:
            self.refuse(request, destination, 480)
            if invites:
                tell("call_ended", {"call": call, "source": source, "code": 480})
            return
        server = self._sender.open(request, destination)
        context = ResponseContext(self._network, server, request)
        if invites:
            self._trying(request, server)
            context.on_refused = lambda code: tell("call_ended", {"call": call, "source": source, "code": code})
        forward(self._wakers, context, request, targets, self._registrations.is_for_all(request))

    def _trying(self, request: Request, server: ServerTransaction) -> None:
        """100 at once (§16.2 and §17.2.1): the caller stops repeating while we and the callee think."""
        server.respond(100, build_response(request, 100, "Trying"))

    # --- registrations ------------------------------------------------------------------------------------------------

    def _register(self, request: Request, source: tuple[str, int], destination: Hop) -> None:
        if not request.to.parsed.is_sip:
            self.refuse(request, destination, 400, "To Is Not A SIP Address")
            return
        if not self._network.is_local(request.to.parsed):
            self.refuse(request, destination, 404)
            return
        request.contacts()  # a malformed one is refused here, before anything is begun for it
        closed = not self._node.settings.open_registrar and not self._network.trusts(source[0])
        if closed and "register" not in self._starts.triggers:
            self._node.count("register.closed")
            self.refuse(request, destination, 403)
            return
        server = self._sender.open(request, destination)
        registration = Registration(self._node, self._registrations, request, server, source)
        flow = None
        if "register" in self._starts.triggers:
            flow = self._flows.choose("register", {"request": registration.view})
        if flow is None and closed:
            self._node.count("register.closed")
            registration.reply(403)
        elif flow is None:
            registration.save()
        elif not self._flows.has_room(flow):
            registration.reply(503, headers=(self._overload.retry_after(request),))
        else:
            self._starts.registration(flow, registration)


def _ends(request: Request) -> tuple[Callable[[], str], Callable[[], str]]:
    """Who calls whom, for the log."""
    return lambda: text(request.from_.uri or b""), lambda: text(request.uri)
