"""ACK: the one request without an answer (RFC 3261 §17.1.1.3, §13.2.2.4). One to a failure ends here, one to a 2xx
travels on like any request of its dialog."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.calls.numbering import Numbering
from orchestrator.core.node import Node
from orchestrator.core.overload import Overload
from orchestrator.core.registrations import Registrations
from orchestrator.core.request_routes import Route, Routes
from orchestrator.core.sender import Sender
from orchestrator.errors import MalformedMessage
from orchestrator.sip.admission import STRAY
from orchestrator.sip.message import Request, forward_request
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.response_context import DEFAULT_MAX_FORWARDS
from orchestrator.sip.route_token import Passage
from orchestrator.sip.target import NUMBERED, Target
from orchestrator.sip.topology import HIDDEN, NOTHING
from orchestrator.sip.uri import Uri


def unkept_tag(request: Request) -> bytes:
    """Our To tag in an answer without a transaction: keyed, and the same for each repetition and the ACK."""
    return b"%x" % (hash((request.via.branch, request.call_id, request.cseq)) & 0xFFFFFFFFFFFF)


class Acks:
    """Serves the ACKs of one engine."""

    def __init__(
        self,
        node: Node,
        sender: Sender,
        overload: Overload,
        routes: Routes,
        registrations: Registrations,
        consume: Callable[[Request], None],
        numbering: Numbering,
    ) -> None:
        """`consume` takes credentials for us out of a request that is going on."""
        self._node = node
        self._layer = node.layer
        self._network = node.network
        self._sender = sender
        self._overload = overload
        self._routes = routes
        self._registrations = registrations
        self._consume = consume
        self._numbering = numbering

    def receive(self, request: Request, source: Hop) -> None:
        """An ACK to a failure ends here; one to a 2xx travels on like any request of its dialog, without an answer
        ever."""
        server = self._layer.find_server(request) or self._layer.find_refused(request)
        if server is not None:
            proof = server.last and request.to_tag and b";tag=" + request.to_tag in server.last
            if server.step("ACK"):
                if proof:
                    self._sender.prove()
                return
        try:
            route = self._routes.route(request)
        except MalformedMessage:
            self._node.count("ack.malformed")
            return
        passage = self._routes.passage(request, route)
        toward, hop = self._routes.onward(request, route, passage)
        meant = self._registrations.target_meant(request) if route.toward is None else None
        if meant is not None:
            toward, hop = meant.first_hop(), meant.hop
        may_pass = request.to_tag and (passage is not None or meant is not None or self._network.trusts(source.host))
        if not may_pass or request.max_forwards == 0 or (hop is None and self._network.ends_here(toward)):
            ours = request.to_tag and request.to_tag.removeprefix(self._overload.refusals.mark)
            if ours == unkept_tag(request):  # of a failure without a transaction
                self._sender.prove()
            self._sender.charge(STRAY)
            self._node.count("ack.unmatched")
            return
        if request.call_id in self._sender.source.offered:
            self._sender.prove()
        self._consume(request)
        self._forward(request, route, toward, hop, source.point, passage, meant)
        self._node.handshakes.acknowledged(request)

    def _forward(
        self,
        request: Request,
        route: Route,
        toward: Uri,
        seen: Hop | None,
        here: Point,
        passage: Passage | None,
        meant: Target | None,
    ) -> None:
        numbers = self._numbering.of(request)

        def send(hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
            if hop is None:
                self._node.count("ack.unreachable")
                return
            left = DEFAULT_MAX_FORWARDS if request.max_forwards is None else request.max_forwards - 1
            via = hop.point.via + self._network.tokens.branch()
            data = forward_request(
                request,
                uri=request.uri if meant is None else meant.uri,
                via=via,
                max_forwards=left,
                drop_routes=route.drop,
                routes=route.hidden or (() if meant is None else meant.routes),
                remove=(NUMBERED if numbers is not None else NOTHING) | (NOTHING if route.hidden is None else HIDDEN),
                headers=numbers.lines(request) if numbers is not None else (),
            )
            self._node.send(data, hop)

        if seen is not None:
            send(seen)
        else:
            by = route.point if passage is not None else None
            self._network.resolve(toward, here, send, self._sender.source.name, by)
