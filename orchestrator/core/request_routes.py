"""Where a request is on its way: Route header, dialog, whether it has been here before (RFC 3261 §16.3, §16.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import COMMA, unescape
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.response_context import ResponseContext, breadth_of
from orchestrator.sip.route_token import SHORTEST, Passage
from orchestrator.sip.uri import Uri, parse_name_addr

_SCHEMES: Final = (b"sip", b"sips", b"tel")


class Route:
    """Where the Route header leads: how many values meant us, the next one, if any; the token of the last of ours,
    and the point of ours it names: by that one the request leaves, if the token is genuine (RFC 5658)."""

    __slots__ = ("drop", "toward", "token", "point", "hidden")

    def __init__(
        self,
        drop: int,
        toward: Uri | None,
        token: bytes = b"",
        point: Point | None = None,
        hidden: tuple[bytes, ...] | None = None,
    ) -> None:
        self.drop = drop
        self.hidden = hidden
        """Route values that stood hidden in the last one of ours; None where the dialog is not hidden."""
        self.toward = toward
        self.token = token
        self.point = point


NO_ROUTE: Final = Route(0, None)
NOT_STRICT: tuple[bytes, Uri | None] = (b"", None)
_SIP: Final = b"<sip:"


class Routes:
    """Reads the way of requests, for one engine."""

    def __init__(self, network: SipNetwork, layer: TransactionLayer) -> None:
        self._network = network
        self._layer = layer

    def route(self, request: Request) -> Route:
        """§16.4: take our own entries off the top of the Route header."""
        if request.shape.route < 0:
            return NO_ROUTE
        strict, last = self._loosen(request) if request.to_tag else NOT_STRICT
        if last is not None and request.shape.route < 0:
            return self._way(0, None, strict, last)
        if request.shape.routes == 1:
            begin, _, end = (request.get(b"route") or b"").partition(b"@")
            token = begin[len(_SIP) :]
            if end in self._network.own_route_ends and begin.startswith(_SIP) and token.isalnum():
                return Route(1, None, token, self._network.own_route_ends[end])
        routes = request.routes()
        drop, token = 0, strict
        while drop < len(routes) and self._network.is_own_route(routes[drop].parsed, not drop and not request.to_tag):
            last = routes[drop].parsed
            token = unescape(last.user)
            drop += 1
        return self._way(drop, routes[drop].parsed if drop < len(routes) else None, token, last)

    def _way(self, drop: int, toward: Uri | None, token: bytes, last: Uri | None) -> Route:
        """With the point that the `last` value of ours names, and the hops that stand hidden in it: they come before
        all others."""
        point = None if last is None else self._network.point_named(last)
        hidden = self._network.shown(token, last) if last is not None and token else None
        if hidden:
            toward = parse_name_addr(hidden[0]).parsed
        return Route(drop, toward, token, point, hidden)

    def _loosen(self, request: Request) -> tuple[bytes, Uri | None]:
        """Undo what a strict router did (§16.4): our Record-Route is the Request-URI, and that the last Route value.
        Returns the token of that Record-Route and its URI; b'' where the Request-URI is none that we have made for this
        dialog.
        """
        uri = request.parsed_uri
        if len(uri.user) < SHORTEST or not self._network.is_own(uri):
            return NOT_STRICT
        token = unescape(uri.user)
        if self._network.passage(request, token) is None:
            return NOT_STRICT
        request.take_last_route()
        return token, uri

    def passage(self, request: Request, route: Route) -> Passage | None:
        """What the Route proves (`sip.route_token`): that the request is in a dialog of ours, which a To tag alone
        does not. A spiral has several entries; the last one was put in on the side the request goes to."""
        return self._network.passage(request, route.token) if route.token else None

    def onward(self, request: Request, route: Route, passage: Passage | None) -> tuple[Uri, Hop | None]:
        """The URI that names the next hop, and the hop itself where the receiver was seen elsewhere and no further
        proxy stands before it."""
        if route.toward is not None:
            return route.toward, None
        seen = passage.seen if passage is not None else None
        if seen is None:
            return request.parsed_uri, None
        hop = self._network.hop_of(*seen, route.point)
        return request.parsed_uri, None if hop is None else self._network.moved(hop, request.uri)

    def loops(self, request: Request) -> bool:
        """A copy of ours that comes back for an address we are serving it for is a loop; for another it is a spiral.

        All its Vias are looked at: the topmost one is ours when we have sent it to ourselves.
        """
        for context in self._sent_by_us(request):
            if context.request is not None and self._goal(context.request) == self._goal(request):
                return True
        return False

    def _sent_by_us(self, request: Request) -> Sequence[ResponseContext]:
        """The requests that we are serving and whose copy this one is, the latest first."""
        shape = request.shape
        alone = shape.vias == 1 and COMMA not in request.lines[shape.via]
        if alone and request.via.branch not in self._layer.clients:  # a hidden copy of ours has one Via, too
            return ()
        try:
            vias = request.vias()
        except MalformedMessage:  # one below the top: no business of ours, and Max-Forwards ends a loop, too
            return ()
        clients = (self._layer.clients.get(via.branch or b"") for via in vias)
        contexts = (getattr(getattr(client, "user", None), "context", None) for client in clients)
        return [context for context in contexts if isinstance(context, ResponseContext)]

    def led_here_by(self, request: Request) -> tuple[str, ...]:
        """The flows whose runs have led to this request: it is a spiral, a flow has sent it to an address of ours."""
        for context in self._sent_by_us(request):
            run = getattr(context.listener, "run", None)
            if run is not None:
                chain: tuple[str, ...] = run.chain
                return chain
        return ()

    def _goal(self, request: Request) -> object:
        """What a request URI stands for here: an address of ours however it is written, or the URI itself."""
        uri = request.parsed_uri
        return self._network.aor(uri) if self._network.is_local(uri) else request.uri

    def problem_of(self, request: Request) -> tuple[int, tuple[bytes, ...]] | None:
        """RFC 3261 §16.3 steps 2-5: scheme, hops, loop, extensions; RFC 5393 §5.3.3: breadth."""
        if request.parsed_uri.scheme not in _SCHEMES:
            return 416, ()
        if request.max_forwards == 0 and not self._is_for_us(request):
            return 483, ()
        if request.has(b"proxy-require"):
            unknown = request.proxy_require()
            if unknown:
                return 420, (b"Unsupported: " + b", ".join(unknown),)
        if self.loops(request):
            return 482, ()
        if request.has(b"max-breadth") and not breadth_of(request):
            return 440, ()
        return None

    def _is_for_us(self, request: Request) -> bool:
        """Whether it ends here and is not forwarded: Max-Forwards is about what we send on (§11, §16.3)."""
        uri = request.parsed_uri
        ends = request.method == b"REGISTER" or (request.method == b"OPTIONS" and not uri.user)
        return ends and self._network.is_local(uri)
