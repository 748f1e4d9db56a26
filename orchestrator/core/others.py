"""Requests outside of dialogs that begin no call: offered to the flows, else served as `core.phones` says.

Phones that are registered, and trusted sources, may send them to each other; strangers get 403 unless a flow takes what
they send. An OPTIONS to us is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from orchestrator.core.calls.numbering import Numbering
from orchestrator.core.node import Node
from orchestrator.core.phones import PHONE_EVENTS, allow_events, is_registered_at, leads_to, package_of
from orchestrator.core.push.by_default import forward
from orchestrator.core.push.waking import Wakers
from orchestrator.core.refer_view import Asked, ReferView
from orchestrator.core.registrations import Registrations
from orchestrator.core.request_view import RequestView, text
from orchestrator.core.sender import Sender
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.core.steps.referred import Inside, Referred
from orchestrator.core.steps.starts import Starts
from orchestrator.errors import StepError
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.sip.message import Request, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target

ALLOW = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, INFO, UPDATE, PRACK, REFER, NOTIFY, SUBSCRIBE, MESSAGE"

Default = Callable[[ServerTransaction | None], object]
"""Serves a request without a flow, in the transaction that a flow has opened, if one has."""


class Answers(Protocol):
    """Answers without a transaction."""

    def refuse(self, request: Request, destination: Hop, status: int, *, headers: tuple[bytes, ...] = ()) -> None: ...
    def turn_away(self, request: Request, destination: Hop) -> None:
        """503."""


class OtherRequests:
    """Serves them for one engine. `led_here_by` names the flows that have sent us a request."""

    def __init__(
        self,
        node: Node,
        sender: Sender,
        registrations: Registrations,
        flows: FlowEngine,
        starts: Starts,
        consume: Callable[[Request], None],
        answers: Answers,
        led_here_by: Callable[[Request], tuple[str, ...]],
        numbering: Numbering,
        wakers: Wakers,
    ) -> None:
        self._node = node
        self._network = node.network
        self._sender = sender
        self._registrations = registrations
        self._flows = flows
        self._starts = starts
        self._consume = consume
        self._answers = answers
        self._led_here_by = led_here_by
        self._numbering = numbering
        self._wakers = wakers

    def receive(self, request: Request, source: tuple[str, int], destination: Hop) -> None:
        """One for an address of ours."""
        self.offer(request, source, destination, partial(self._by_default, request, source, destination))

    def offer(
        self,
        request: Request,
        source: tuple[str, int],
        destination: Hop,
        default: Default,
        inside: Inside | None = None,
    ) -> None:
        """Give a request to the first flow that fits; `default`, with the transaction if there is one, serves those
        that no flow takes, or keeps. `inside`: where a REFER inside a dialog stands. Raises MalformedMessage for a
        REFER that cannot be read."""
        flows, kind = self._flows, text(request.method).lower()
        if kind not in self._starts.triggers or kind not in REQUESTS:
            default(None)
            return
        view = RequestView(self._node, request, source)
        names: dict[str, Any] = {"request": view}
        asked = Asked(request) if kind == "refer" else None
        if asked is not None:
            names["refer"] = ReferView(self._node, request, asked, inside.side if inside and inside.side else "none")
            names["call"] = inside.call if inside is not None else None
        flow = flows.choose(kind, names)
        if flow is None:
            default(None)
            return
        chain = (*self._led_here_by(request), flow.name)
        try:
            flows.check_chain(chain)
        except StepError:  # a flow sends it back to us, under whatever address (RFC 5393 §4.2)
            self._answers.refuse(request, destination, 482)
            return
        if not flows.has_room(flow):
            self._answers.turn_away(request, destination)
            return
        if inside is not None:
            server = self._node.layer.open_server(request, destination)
        else:
            server = self._sender.open(request, destination)
        if asked is None:
            other = OtherRequest(self._node, request, view, server, source, default)
        else:
            other = Referred(self._node, request, view, server, source, default, asked, inside, self._numbering)
        self._starts.other(flow, other, chain, names)

    def _by_default(
        self, request: Request, source: tuple[str, int], destination: Hop, server: ServerTransaction | None
    ) -> None:
        if request.method == b"OPTIONS" and not request.parsed_uri.user:
            self._finish(request, destination, server, 200, (ALLOW, b"Accept: application/sdp"))
        elif self._network.trusts(source[0]) or self.is_from_phone(request, Hop(destination.point, *source)):
            self._between_phones(request, source, destination, server)
        else:
            self._finish(request, destination, server, 403)

    def _finish(
        self,
        request: Request,
        destination: Hop,
        server: ServerTransaction | None,
        status: int,
        headers: tuple[bytes, ...] = (),
    ) -> None:
        """Answer, in the transaction that a flow has left, or without one."""
        if server is None:
            self._answers.refuse(request, destination, status, headers=headers)
        else:
            self._node.count(f"refused.{status}")
            tag = self._node.tokens.token()
            server.respond(status, build_response(request, status, reason_phrase(status), tag, headers))

    def is_from_phone(self, request: Request, source: Hop) -> bool:
        """Whether the sender is registered, where the request comes from."""
        sender = request.from_.parsed
        if not sender.is_sip or not self._network.is_local(sender):
            return False
        bindings = self._registrations.bindings_of(self._network.aor(sender))
        return any(is_registered_at(binding, source) for binding in bindings)

    def _between_phones(
        self, request: Request, source: tuple[str, int], destination: Hop, server: ServerTransaction | None
    ) -> None:
        """A request that begins no call, from a phone or a trusted source: to the phones of whom it names, but never
        back to its sender. Subscriptions go to the server that is configured for their package."""
        targets = self._registrations.targets_for(request, self._network.aor(request.parsed_uri))
        here = Hop(destination.point, *source)

        def leads_back(target: Target) -> bool:
            return leads_to(target, here)

        targets = [target for target in targets if not leads_back(target)]
        if request.method in (b"SUBSCRIBE", b"PUBLISH"):
            events, package = self._node.settings.events, package_of(request)
            switch = self._node.site.freeswitch.get(events.get(package.decode("ascii", "replace"), ""))
            if switch:
                targets = [self._at_server(request, switch)]
            elif request.method == b"PUBLISH" or package not in PHONE_EVENTS or self._is_to_oneself(request):
                self._finish(request, destination, server, 489, (allow_events(events),))
                return
        if not targets:
            self._finish(request, destination, server, 480)
            return
        self._consume(request)
        context = ResponseContext(self._network, server or self._sender.open(request, destination), request)
        forward(self._wakers, context, request, targets, self._registrations.is_for_all(request), leads_back)

    def _at_server(self, request: Request, server: str) -> Target:
        user = request.parsed_uri.user
        scheme, _, rest = server.encode().partition(b":")
        host = rest.rpartition(b"@")[2]
        return Target(b"%b:%b@%b" % (scheme, user, host) if user else b"%b:%b" % (scheme, host))

    def _is_to_oneself(self, request: Request) -> bool:
        sender = request.from_.parsed
        return sender.is_sip and self._network.aor(sender) == self._network.aor(request.parsed_uri)
