"""Requests inside dialogs that have proved to be ours: each goes on to the other side, and the call it belongs to, if a
flow has it, follows (RFC 3261 §16.4, §12.2). A REFER is offered to the flows first."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.calls.accounts import account_beyond
from orchestrator.core.calls.call import CallTable
from orchestrator.core.calls.numbering import Numbering
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.others import OtherRequests
from orchestrator.core.push.by_default import forward_inside
from orchestrator.core.push.waking import Wakers
from orchestrator.core.request_routes import Route
from orchestrator.core.request_view import text
from orchestrator.core.sender import Sender
from orchestrator.core.steps.referred import Inside
from orchestrator.sip.admission import IN_DIALOG
from orchestrator.sip.dialog import TARGET_REFRESH
from orchestrator.sip.digest import Account
from orchestrator.sip.message import Request, Response, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.route_token import Passage
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri


class DialogRequests:
    """Passes them on, for one engine. `consume` takes credentials for us out of a request that is going on."""

    def __init__(
        self,
        node: Node,
        sender: Sender,
        calls: CallTable,
        gateways: Gateways,
        numbering: Numbering,
        others: OtherRequests,
        consume: Callable[[Request], None],
        wakers: Wakers,
    ) -> None:
        self._node = node
        self._layer = node.layer
        self._network = node.network
        self._sender = sender
        self._calls = calls
        self._gateways = gateways
        self._numbering = numbering
        self._others = others
        self._consume = consume
        self._wakers = wakers

    def pass_on(
        self,
        request: Request,
        route: Route,
        passage: Passage | None,
        onward: tuple[Uri, Hop | None],
        source: tuple[str, int],
        destination: Hop,
        meant: Target | None = None,
    ) -> None:
        """One whose way is known: `onward` is the URI of the next hop, and the hop where it is another. `meant` is the
        phone that a GRUU in its Request-URI means: it goes to the contact that is registered now (RFC 5627 §5.2)."""
        self._consume(request)
        self._sender.charge(IN_DIALOG)
        toward, hop = onward
        call = self._calls.by_call_id(request.call_id)
        account, point = None, None
        if call is not None:
            account = account_beyond(call, request, toward)
        if passage is not None:
            point = route.point
            if call is None and passage.gateway:
                account = self._account_beyond(passage, toward)
        target = meant or Target(
            request.uri, route.hidden or (), hop=hop, toward=toward, account=account, point=point
        )  # fmt: skip
        target.hides = route.hidden is not None
        if request.method == b"REFER":
            self._refer(request, route, source, destination, target)
            return
        opened = self._layer.open_server if passage is not None else self._sender.open
        server = opened(request, destination)
        if request.method == b"INVITE":  # at once (§16.2 and §17.2.1), as for any
            server.respond(100, build_response(request, 100, "Trying"))
        target.numbers = self._numbering.of(request)
        context = self._forward(request, route, server, target)
        if call is not None:
            if request.method in TARGET_REFRESH:
                dialogs = call.dialogs

                def accepted(response: Response) -> None:
                    dialogs.follow_answer(request, response)

                context.on_accepted = accepted
            if request.method == b"BYE" and call.freeswitch_is_gone and not server.answered:
                server.respond(200, build_response(request, 200, "OK"))  # nobody else will, and we end the call
            call.passes(request)
        elif request.method == b"BYE":
            self._node.tell_call("call_ended", {"call": text(request.call_id), "source": source[0]})
        self._node.handshakes.passes(request)

    def serves(self, request: Request, destination: Hop) -> bool:
        """Whether this is a SUBSCRIBE for news that we have promised; it is answered then."""
        subscription = self._numbering.subscription(request)
        if subscription is None:
            return False
        self._sender.charge(IN_DIALOG)
        subscription.asked_again(request, destination)
        return True

    def _forward(self, request: Request, route: Route, server: ServerTransaction, target: Target) -> ResponseContext:
        context = ResponseContext(self._network, server, request)
        context.drop_routes = route.drop
        forward_inside(self._wakers, context, request, target, stays=route.toward is not None)
        return context

    def _account_beyond(self, passage: Passage, toward: Uri) -> Account | None:
        """The same for a dialog begun before our restart: its token names the gateway, and the request goes there."""
        network = self._network
        return self._gateways.account_beyond(
            lambda name, uri: network.is_marked(passage, name) and network.are_at_one_address(uri, toward)
        )

    def _refer(self, request: Request, route: Route, source: tuple[str, int], destination: Hop, target: Target) -> None:
        """A transfer that a party of a call asks for: a flow may take it, else it goes on to the other party."""
        call, side, leg = self._calls.by_call_id(request.call_id), "", None
        if call is not None:
            call.passes(request)
        self._node.handshakes.passes(request)
        if call is not None and call.dialogs.holds(request):
            side = call.dialogs.side_of(request)
            leg = call.dialogs.phone_of(request, call.carried, call.placed)
        else:
            call = None

        def onward() -> Target:
            target.numbers = self._numbering.of(request)
            return target

        def forward(server: ServerTransaction | None) -> None:
            self._forward(request, route, server or self._layer.open_server(request, destination), onward())

        if call is not None and leg is None:  # FreeSWITCH speaks, which is no party
            forward(None)
        else:
            inside = Inside(onward, route.drop, call, side, leg)
            self._others.offer(request, source, destination, forward, inside)
