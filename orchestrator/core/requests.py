"""What becomes of a request: the checks of RFC 3261 §16.3, routing inside dialogs (§16.4), and who serves the rest.

A request is refused without a transaction as long as nothing has been done for it (§8.2.7): one datagram in, one out,
nothing remembered, so a flood with forged sources gains nothing from us. A transaction begins where a flow, the
registrar or a callee takes over.

Without a flow that takes it, a REGISTER is saved, an INVITE for one of our domains rings the registered contacts, and
everything for foreign domains is sent on for trusted sources only. A To tag alone changes nothing about that: inside a
dialog is what brings back the token of our Record-Route (`sip.route_token`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.core.call import Call
from orchestrator.core.network import CALL_HEADER
from orchestrator.core.phones import PHONE_EVENTS, allow_events, is_registered_at, leads_to, package_of
from orchestrator.core.registration import Registration
from orchestrator.core.views import text
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.sip.admission import FULL, IN_DIALOG, REPETITION, STRAY
from orchestrator.sip.digest import Account
from orchestrator.sip.fitting import room_for
from orchestrator.sip.grammar import COMMA, unescape
from orchestrator.sip.message import Request, build_response, forward_request
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import DEFAULT_MAX_FORWARDS, ResponseContext, breadth_of
from orchestrator.sip.route_token import Passage
from orchestrator.sip.routing import response_destination
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.sharing import SharedLines
from orchestrator.sip.target import Target
from orchestrator.sip.transaction import Destination
from orchestrator.sip.uri import Uri

if TYPE_CHECKING:
    from orchestrator.core.engine import Engine

ALLOW = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, INFO, UPDATE, PRACK, REFER, NOTIFY, SUBSCRIBE, MESSAGE"

_SCHEMES = (b"sip", b"sips", b"tel")
_CALL_HEADER_NAME = CALL_HEADER.lower()


def _tag(request: Request) -> bytes:
    """Our To tag in an answer without a transaction: keyed, and the same for each repetition and the ACK."""
    return b"%x" % (hash((request.via.branch, request.call_id, request.cseq)) & 0xFFFFFFFFFFFF)


class Route:
    """Where the Route header leads: how many values meant us, the next one, if any; the token of the last of ours."""

    __slots__ = ("drop", "toward", "token")

    def __init__(self, drop: int, toward: Uri | None, token: bytes = b"") -> None:
        self.drop = drop
        self.toward = toward
        self.token = token


_NO_ROUTE = Route(0, None)
_SIP = b"<sip:"


class Requests:
    """Serves requests for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.layer = engine.layer
        self.network = engine.network
        self._shared = SharedLines()

    def receive(self, request: Request, host: str, port: int, transport: int) -> None:
        """One request from the network; every path ends in an answer, a forwarded request or, for an ACK, silence."""
        request.stamp_source(host.encode(), port)
        if request.method == b"ACK":
            self._receive_ack(request, host, transport)
            return
        repeated = self.layer.find_server(request)
        if repeated is not None:
            self._charge(REPETITION)
            repeated.step("request")
            return
        destination = response_destination(request.via, transport, host, port)
        if request.method == b"CANCEL":
            self._receive_cancel(request, destination)
            return
        try:
            self._receive_new(request, (host, port), destination)
        except MalformedMessage as error:
            first = f"{text(request.method)} {text(request.uri)}"
            self.engine.tell("malformed", source=host, port=port, reason=error.reason, first=first)
            self.refuse(request, destination, error.sip_status, error.reason)

    def refuse(
        self, request: Request, destination: Destination, status: int, reason: str = "", headers: tuple[bytes, ...] = ()
    ) -> None:
        """Answer without a transaction (§8.2.7). The tag is the same for each repetition of the request."""
        engine = self.engine
        engine.count(f"refused.{status}")
        if request.method == b"REGISTER":
            to = text(request.get(b"to") or b"")  # as it stands: it may be what is malformed
            engine.tell("register_refused", source=destination[1], to=to, code=status, reason=reason)
        answer = build_response(request, status, reason or reason_phrase(status), _tag(request), headers)
        if not engine.sender.exempt:
            answer = engine.fitting(answer)
            if status >= 300:
                engine.admission.refused(engine.sender, status, engine.timers.now)
        engine.send(answer, destination)

    def _charge(self, points: float) -> None:
        self.engine.admission.charge(self.engine.sender, points, self.engine.timers.now)

    def _open(self, request: Request, destination: Destination) -> ServerTransaction:
        """A transaction for a request that begins something, counted for its source."""
        server = self.layer.open_server(request, destination)
        sender = self.engine.sender
        if not sender.exempt:
            server.charge_to(self.engine.admission, sender, room_for(self.engine.octets))
        return server

    def struck(self, request: Request, host: str, port: int, transport: int) -> tuple[Any, ...]:
        """A bug has struck while this request was served: what it has begun, or what it is about.

        One that has begun nothing yet is answered 500 here, unless it got its answer before.
        """
        if request.method == b"ACK":
            return ()
        server, call = self.layer.find_server(request), self.engine.calls.by_call_id(request.call_id)
        if server is None:
            destination = response_destination(request.via, transport, host, port)
            if not any(to == destination and data.startswith(b"SIP/2.0 ") for data, to in self.engine.datagrams):
                self.refuse(request, destination, 500)
        cancelled = self.layer.find_cancelled(request) if request.method == b"CANCEL" else None
        return server, cancelled, call if call is not None and call.holds(request) else None

    # --- ACK and CANCEL -----------------------------------------------------------------------------------------------

    def _receive_ack(self, request: Request, host: str, transport: int) -> None:
        """An ACK to a failure ends here; one to a 2xx travels on like any request of its dialog, without an answer
        ever."""
        server = self.layer.find_server(request) or self.layer.find_refused(request)
        if server is not None:
            proof = server.last and request.to_tag and b";tag=" + request.to_tag in server.last
            if server.step("ACK"):
                if proof:
                    self._prove()
                return
        try:
            route = self._route(request)
        except MalformedMessage:
            self.engine.count("ack.malformed")
            return
        passage = self._passage(request, route)
        toward, hop = self._onward(request, route, passage)
        may_pass = request.to_tag and (passage is not None or self.network.trusts(host))
        if not may_pass or request.max_forwards == 0 or (hop is None and self.network.ends_here(toward)):
            if request.to_tag == _tag(request):  # of a failure without a transaction
                self._prove()
            self._charge(STRAY)
            self.engine.count("ack.unmatched")
            return
        if request.call_id in self.engine.sender.offered:
            self._prove()
        self.engine.host.gate.consume(request)
        self._forward_ack(request, route, toward, hop, transport)
        self.engine.handshakes.acknowledged(request)

    def _prove(self) -> None:
        self.engine.admission.prove(self.engine.sender, self.engine.timers.now)

    def _forward_ack(
        self, request: Request, route: Route, toward: Uri, seen: Destination | None, transport: int
    ) -> None:
        def send(hop: Destination | None) -> None:
            if hop is None:
                self.engine.count("ack.unreachable")
                return
            left = DEFAULT_MAX_FORWARDS if request.max_forwards is None else request.max_forwards - 1
            via = self.network.via(hop[0], self.network.tokens.branch())
            self.engine.send(
                forward_request(request, uri=request.uri, via=via, max_forwards=left, drop_routes=route.drop), hop
            )

        if seen is not None:
            send(seen)
        else:
            self.network.resolve(toward, transport, send, self.engine.sender.name)

    def _receive_cancel(self, request: Request, destination: Destination) -> None:
        """§9.2: the CANCEL has its own answer; what it cancels is told apart by everything but the method."""
        invite = self.layer.find_cancelled(request)
        if invite is None:
            self.refuse(request, destination, 481)
            return
        server = self._open(request, destination)
        server.respond(200, build_response(request, 200, "OK", self.network.tokens.token()))
        cancelled: Call | ResponseContext | None = invite.user
        if cancelled is not None:  # a line for each protocol, or one for all (RFC 3326 §2)
            cancelled.cancel(tuple(b"Reason: " + reason for reason in request.get_all(b"reason")))

    # --- everything else ----------------------------------------------------------------------------------------------

    def _receive_new(self, request: Request, source: tuple[str, int], destination: Destination) -> None:
        begins = not request.to_tag and not self._belongs_to_a_call(request, source)
        if not request.to_tag and self._has_no_room(request, begins):
            self._turn_away(request, destination)
            return
        problem = self._problem(request)
        if problem is not None:
            self.refuse(request, destination, problem[0], headers=problem[1])
            return
        route = self._route(request)
        if route.drop and route.toward is None and not request.to_tag:
            request.drop_header(b"route")  # all of it meant us: whoever is rung shall not send it back
            route = _NO_ROUTE
        if request.to_tag:
            self._in_dialog(request, route, source, destination)
        elif begins and self.engine.must_refuse_new(request.method):
            self._turn_away(request, destination)
        elif route.toward is not None:
            self._send_on(request, route, source, destination)
        elif not self.network.is_local(request.parsed_uri):
            self._foreign(request, route, source, destination)
        elif request.method == b"REGISTER":
            self._register(request, source, destination)
        elif request.method == b"INVITE":
            self._invite(request, source, destination)
        elif request.method == b"OPTIONS" and not request.parsed_uri.user:
            self.refuse(request, destination, 200, headers=(ALLOW, b"Accept: application/sdp"))
        elif self.network.trusts(source[0]) or self._is_from_phone(request, source):
            self._between_phones(request, source, destination)
        else:
            self.refuse(request, destination, 403)

    def _is_from_phone(self, request: Request, source: tuple[str, int]) -> bool:
        """Whether the sender is registered, where the request comes from."""
        sender = request.from_.parsed
        if not sender.is_sip or not self.network.is_local(sender):
            return False
        bindings = self.engine.bindings_of(self.network.aor(sender))
        return any(is_registered_at(binding, *source) for binding in bindings)

    def _between_phones(self, request: Request, source: tuple[str, int], destination: Destination) -> None:
        """A request that begins no call, from a phone or a trusted source: to the phones of whom it names, but never
        back to its sender. Subscriptions go to the server that is configured for their package."""
        targets = self.engine.targets_of(self.network.aor(request.parsed_uri))
        targets = [target for target in targets if not leads_to(target, *source)]
        if request.method in (b"SUBSCRIBE", b"PUBLISH"):
            events, package = self.engine.settings.events, package_of(request)
            server = self.engine.settings.freeswitch.get(events.get(package.decode("ascii", "replace"), ""))
            if server:
                targets = [self._at_server(request, server)]
            elif request.method == b"PUBLISH" or package not in PHONE_EVENTS or self._is_to_oneself(request):
                self.refuse(request, destination, 489, headers=(allow_events(events),))
                return
        if not targets:
            self.refuse(request, destination, 480)
            return
        self.engine.host.gate.consume(request)
        ResponseContext(self.network, self._open(request, destination), request).add_all(targets)

    def _at_server(self, request: Request, server: str) -> Target:
        user = request.parsed_uri.user
        host = server.partition(":")[2].rpartition("@")[2].encode()
        return Target(b"sip:%b@%b" % (user, host) if user else b"sip:" + host)

    def _is_to_oneself(self, request: Request) -> bool:
        sender = request.from_.parsed
        return sender.is_sip and self.network.aor(sender) == self.network.aor(request.parsed_uri)

    def _has_no_room(self, request: Request, begins: bool) -> bool:
        """Whether there is no room for a request outside of dialogs, or was none when it came first."""
        engine = self.engine
        if engine.overload.refusals.knows(request, engine.timers.now):
            self._charge(REPETITION)
            return True
        return self._has_too_much(request) or (begins and engine.overload.refuses(request))

    def _turn_away(self, request: Request, destination: Destination) -> None:
        """503 to a request that could be served another time, and to all its repetitions, but those of a BYE and the
        like: to serve them late does no harm."""
        overload = self.engine.overload
        if not request.to_tag or request.method == b"INVITE":
            overload.refusals.add(request, self.engine.timers.now)
        self.refuse(request, destination, 503, headers=(overload.retry_after(request),))

    def _has_too_much(self, request: Request) -> bool:
        """Whether the sender has as many requests under way as its share allows; a new one costs it points."""
        engine = self.engine
        sender, now = engine.sender, engine.timers.now
        if sender.exempt:
            return False
        engine.admission.asked(sender, request.method, now)
        full = engine.admission.is_full(sender, engine.settings.limits.transactions, now)
        if full:
            self._charge(FULL)
        return full

    def _belongs_to_a_call(self, request: Request, source: tuple[str, int]) -> bool:
        """FreeSWITCH sends a call of ours on: that is no new work, though no dialog of ours either."""
        return _CALL_HEADER_NAME in request.names and self.network.trusts(source[0])

    def _problem(self, request: Request) -> tuple[int, tuple[bytes, ...]] | None:
        """RFC 3261 §16.3 steps 2-5: scheme, hops, loop, extensions; RFC 5393 §5.3.3: breadth."""
        if request.parsed_uri.scheme not in _SCHEMES:
            return 416, ()
        if request.max_forwards == 0 and not self._is_for_us(request):
            return 483, ()
        names = request.names
        if b"proxy-require" in names:
            unknown = request.proxy_require()
            if unknown:
                return 420, (b"Unsupported: " + b", ".join(unknown),)
        if self._loops(request):
            return 482, ()
        if b"max-breadth" in names and not breadth_of(request):
            return 440, ()
        return None

    def _is_for_us(self, request: Request) -> bool:
        """Whether it ends here and is not forwarded: Max-Forwards is about what we send on (§11, §16.3)."""
        uri = request.parsed_uri
        ends = request.method == b"REGISTER" or (request.method == b"OPTIONS" and not uri.user)
        return ends and self.network.is_local(uri)

    def _loops(self, request: Request) -> bool:
        """A copy of ours that comes back for an address we are serving it for is a loop; for another it is a spiral.

        All its Vias are looked at: the topmost one is ours when we have sent it to ourselves.
        """
        for context in self._sent_by_us(request):
            if context.request is not None and self._goal(context.request) == self._goal(request):
                return True
        return False

    def _sent_by_us(self, request: Request) -> Iterator[ResponseContext]:
        """The requests that we are serving and whose copy this one is, the latest first."""
        names = request.names
        if names.count(b"via") == 1 and COMMA not in request.lines[names.index(b"via")]:
            return
        try:
            vias = request.vias()
        except MalformedMessage:  # one below the top: no business of ours, and Max-Forwards ends a loop, too
            return
        for via in vias:
            client = self.layer.clients.get(via.branch or b"")
            context = getattr(getattr(client, "user", None), "context", None)
            if isinstance(context, ResponseContext):
                yield context

    def _led_here_by(self, request: Request) -> tuple[str, ...]:
        """The flows whose runs have led to this INVITE: it is a spiral, a flow has sent it to an address of ours."""
        for context in self._sent_by_us(request):
            run = getattr(context.listener, "run", None)
            if run is not None:
                chain: tuple[str, ...] = run.chain
                return chain
        return ()

    def _goal(self, request: Request) -> object:
        """What a request URI stands for here: an address of ours however it is written, or the URI itself."""
        uri = request.parsed_uri
        return self.network.aor(uri) if self.network.is_local(uri) else request.uri

    def _route(self, request: Request) -> Route:
        """§16.4: take our own entries off the top of the Route header."""
        names = request.names
        if b"route" not in names:
            return _NO_ROUTE
        strict = self._loosen(request) if request.to_tag else b""
        if strict and b"route" not in names:
            return Route(0, None, strict)
        if names.count(b"route") == 1:
            begin, _, end = (request.get(b"route") or b"").partition(b"@")
            token = begin[len(_SIP) :]
            if end in self.network.own_route_ends and begin.startswith(_SIP) and token.isalnum():
                return Route(1, None, token)
        routes = request.routes()
        drop, token = 0, strict
        while drop < len(routes) and self.network.is_own_route(routes[drop].parsed, not drop and not request.to_tag):
            token = unescape(routes[drop].parsed.user)
            drop += 1
        return Route(drop, routes[drop].parsed if drop < len(routes) else None, token)

    def _loosen(self, request: Request) -> bytes:
        """Undo what a strict router did (§16.4): our Record-Route is the Request-URI, and that the last Route value.
        Returns the token of that Record-Route; b'' where the Request-URI is none that we have made for this dialog.
        """
        uri = request.parsed_uri
        if not uri.user or not self.network.is_own(uri):
            return b""
        token = unescape(uri.user)
        if self.network.passage(request, token) is None:
            return b""
        request.take_last_route()
        return token

    def _passage(self, request: Request, route: Route) -> Passage | None:
        """What the Route proves (`sip.route_token`): that the request is in a dialog of ours, which a To tag alone
        does not. A spiral has several entries; the last one was put in on the side the request goes to."""
        return self.network.passage(request, route.token) if route.token else None

    def _onward(self, request: Request, route: Route, passage: Passage | None) -> tuple[Uri, Destination | None]:
        """The URI that names the next hop, and the hop itself where the receiver was seen elsewhere and no further
        proxy stands before it."""
        if route.toward is not None:
            return route.toward, None
        return request.parsed_uri, passage.seen if passage is not None else None

    def _in_dialog(self, request: Request, route: Route, source: tuple[str, int], destination: Destination) -> None:
        passage = self._passage(request, route)
        toward, hop = self._onward(request, route, passage)
        if hop is None and self.network.ends_here(toward):
            self.refuse(request, destination, 481)
            return
        if passage is None and not self.network.trusts(source[0]):
            self.refuse(request, destination, 481 if route.drop else 403)
            return
        if self.engine.must_refuse_all() or self.engine.overload.refusals.knows(request, self.engine.timers.now):
            self._turn_away(request, destination)
            return
        self.engine.host.gate.consume(request)
        self._charge(IN_DIALOG)
        server = self.layer.open_server(request, destination)
        call = self.engine.calls.by_call_id(request.call_id)
        account = call.account_beyond(request) if call is not None else None
        self._forward(request, route, server, hop, account)
        if call is not None:
            if request.method == b"BYE" and call.freeswitch_is_gone and not server.answered:
                server.respond(200, build_response(request, 200, "OK"))  # nobody else will, and we end the call
            call.passes(request)
        elif request.method == b"BYE":
            self.engine.tell("call_ended", call=text(request.call_id), source=source[0])
        self.engine.handshakes.passes(request)

    def _send_on(self, request: Request, route: Route, source: tuple[str, int], destination: Destination) -> None:
        """A pre-loaded Route to somebody else: only for those we trust, or anybody could have us shout at third
        parties."""
        if self.network.trusts(source[0]):
            self._forward(request, route, self._open(request, destination))
        else:
            self.refuse(request, destination, 403)

    def _foreign(self, request: Request, route: Route, source: tuple[str, int], destination: Destination) -> None:
        if not self.network.trusts(source[0]):
            self.refuse(request, destination, 403)
        elif request.method != b"INVITE" or not self._start_call(request, source, destination):
            self._forward(request, route, self._open(request, destination))

    def _forward(
        self,
        request: Request,
        route: Route,
        server: ServerTransaction,
        hop: Destination | None = None,
        account: Account | None = None,
    ) -> None:
        if request.method == b"INVITE":
            self._trying(request, server)
        context = ResponseContext(self.network, server, request)
        context.drop_routes = route.drop
        toward = route.toward or request.parsed_uri
        context.add_all((Target(request.uri, hop=hop, toward=toward, account=account),))

    # --- calls --------------------------------------------------------------------------------------------------------

    def _invite(self, request: Request, source: tuple[str, int], destination: Destination) -> None:
        if _CALL_HEADER_NAME in request.names and self._is_back(request, source, destination):
            return
        if not self._start_call(request, source, destination):
            self._relay_to_contacts(request, destination)

    def _is_back(self, request: Request, source: tuple[str, int], destination: Destination) -> bool:
        """Whether this is a call we sent to FreeSWITCH and that it now sends on, or one that it places for us; see
        `Call`."""
        id = (request.get(_CALL_HEADER_NAME) or b"").decode("ascii", "replace")
        if not self.network.trusts(source[0]):
            return False
        call, placed = self.engine.calls.by_id(id), self.engine.host.outward.take(id)
        if placed is not None:
            server = self._open(request, destination)
            self._trying(request, server)
            placed.arrived(request, server, source)
            return True
        server = self._open(request, destination)
        self._trying(request, server)
        if call is None or not call.open_back(request, server):  # a call that is over is no new one
            server.respond(481, build_response(request, 481, reason_phrase(481), self.network.tokens.token()))
        return True

    def _start_call(self, request: Request, source: tuple[str, int], destination: Destination) -> bool:
        """Give the call to the first flow that fits. False when none does."""
        engine = self.engine
        if "invite" not in engine.host.triggers:
            return False
        view = engine.views.offer(request, source)
        flow = engine.flows.choose("invite", {"call": view})
        if flow is None:
            return False
        chain = (*self._led_here_by(request), flow.name)
        try:
            engine.flows.check_chain(chain)
        except StepError:  # as a loop, whatever the flows have made of the address on the way (RFC 5393 §4.2)
            self.refuse(request, destination, 482)
            return True
        if not engine.flows.has_room(flow):
            self._turn_away(request, destination)
            return True
        server = self._open(request, destination)
        self._trying(request, server)
        self._shared.share(request)
        call = Call(engine, self.network.tokens.token().decode(), request, server, source)
        view.bind(call)
        engine.calls.add(call)
        engine.host.start_call(flow, call, view, chain)
        return True

    def _relay_to_contacts(self, request: Request, destination: Destination) -> None:
        targets = self.engine.targets_of(self.network.aor(request.parsed_uri))
        call, source, tell = text(request.call_id), destination[1], self.engine.tell
        invites = request.method == b"INVITE"
        if invites:
            tell("call_begun", call=call, **_ends(request), source=source)
        if not targets:
            self.refuse(request, destination, 480)
            if invites:
                tell("call_ended", call=call, source=source, code=480)
            return
        server = self._open(request, destination)
        context = ResponseContext(self.network, server, request)
        if invites:
            self._trying(request, server)
            context.on_refused = lambda code: tell("call_ended", call=call, source=source, code=code)
        context.add_all(targets)

    def _trying(self, request: Request, server: ServerTransaction) -> None:
        """100 at once (§16.2 and §17.2.1): the caller stops repeating while we and the callee think."""
        server.respond(100, build_response(request, 100, "Trying"))

    # --- registrations ------------------------------------------------------------------------------------------------

    def _register(self, request: Request, source: tuple[str, int], destination: Destination) -> None:
        if not request.to.parsed.is_sip:
            self.refuse(request, destination, 400, "To Is Not A SIP Address")
            return
        if not self.network.is_local(request.to.parsed):
            self.refuse(request, destination, 404)
            return
        engine = self.engine
        request.contacts()  # a malformed one is refused here, before anything is begun for it
        server = self._open(request, destination)
        registration = Registration(engine, request, server, source)
        flow = None
        if "register" in engine.host.triggers:
            flow = engine.flows.choose("register", {"request": registration.view})
        if flow is None:
            registration.save()
        elif not engine.flows.has_room(flow):
            registration.reply(503, headers=(engine.overload.retry_after(request),))
        else:
            engine.host.start_registration(flow, registration)


def _ends(request: Request) -> dict[str, str]:
    """Who calls whom, for the log."""
    return {"from": text(request.from_.uri or b""), "to": text(request.uri)}
