"""One forwarded copy of a request (RFC 3261 §16.6 - §16.9), and what it needs of whoever forks the request.

A branch knows its response context by the protocol `Context` only, the context its decider by `Listener`: neither has
to know who stands above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from orchestrator.errors import UNREACHABLE, MalformedMessage
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.layer import TransactionLayer, derive_request
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Message, Request, Response, forward_response
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.uri import Uri
from orchestrator.timers import TICK, Timer

CHALLENGES = {
    401: (b"www-authenticate", b"Authorization: "),
    407: (b"proxy-authenticate", b"Proxy-Authorization: "),
}
"""Status → header of the challenge, header of the answer."""


class Network(Protocol):
    """What a context needs of the engine it lives in."""

    layer: TransactionLayer
    tokens: Tokens

    def withheld(self, message: Message, host: str) -> frozenset[bytes]:
        """Names (canonical) of headers that this receiver is not told: those that end here, and an identity that is to
        be kept from those we do not trust (RFC 3325 §7)."""

    def record_routes(
        self, point: Point, request: Request, source: Hop, callee: Hop | None, gateway: str = ""
    ) -> tuple[bytes, ...]:
        """Our Record-Route for the dialogs of an INVITE that came from `source` and leaves by `point`: one header
        line, or two where these sides differ, the callee's first. `callee` is where it goes when that is not where its
        Request-URI leads."""

    def resolve(
        self, uri: Uri, here: Point, found: Callable[[Hop | None], None], source: str = "", by: Point | None = None
    ) -> None:
        """Find the next hop of a URI; `found` is called at once for an address literal, later for a name, with None on
        failure. It leaves by the point `by` where the receiver is known to be reached from there, else by the one that
        leads there, by `here` where nothing says which. `source` is on whose behalf, for its share of look-ups; '' for
        nobody's."""

    def is_own(self, uri: Uri) -> bool:
        """Whether this URI means us."""

    def may_ring(self, binding: Binding, hop: Hop) -> bool:
        """Whether a request for a registered contact may go to this place (`sip.contact_guard`)."""


class Context(Protocol):
    """The response context of a branch (`sip.response_context`)."""

    @property
    def network(self) -> Network: ...
    @property
    def server(self) -> ServerTransaction: ...
    @property
    def method(self) -> bytes: ...
    @property
    def listener(self) -> Listener | None: ...
    @property
    def closed(self) -> bool:
        """No branch can be added any more."""

    def copy_for(self, branch: Branch, hop: Hop, token: bytes) -> bytes:
        """The request as this branch carries it; `token` is its Via branch. Raises ValueError, MalformedMessage."""

    def on_provisional(self, branch: Branch, response: Response) -> None: ...
    def on_success(self, branch: Branch, response: Response, first: bool) -> None: ...
    def on_failure(self, branch: Branch) -> None: ...


class Attempt(Protocol):
    """What a branch of a flow's call belongs to, a relay or a hold: the call tells it what becomes of the branch."""

    def is_news(self, branch: Branch) -> bool:
        """Whether flows hear of it: FreeSWITCH is no destination."""

    def sent(self, branch: Branch) -> None:
        """It is on its way."""

    def rang(self, branch: Branch, status: int) -> None:
        """A provisional response but 100 has passed."""

    def failed(self, branch: Branch) -> None:
        """A final failure, or none will come."""


class Listener(Protocol):
    """Who decides about a context's failures: a call flow. All are called inside the turn that caused them."""

    def on_sent(self, branch: Branch) -> None:
        """The request of this branch has been handed to the transport."""

    def on_cancelled(self, branch: Branch) -> None:
        """A CANCEL for this branch has been handed to the transport."""

    def on_ringing(self, branch: Branch, response: Response) -> None: ...
    def on_answered(self, branch: Branch, response: Response) -> None: ...
    def on_branch_failed(self, branch: Branch) -> None: ...
    def on_settled(self, context: Context) -> None:
        """No branch is pending and none has answered."""

    @property
    def attended(self) -> bool:
        """It is at work, and something will make it go on."""


class Nobody:
    """Listens to a context whose call is over."""

    attended = False

    def on_sent(self, branch: Branch) -> None: ...
    def on_cancelled(self, branch: Branch) -> None: ...
    def on_ringing(self, branch: Branch, response: Response) -> None: ...
    def on_answered(self, branch: Branch, response: Response) -> None: ...
    def on_branch_failed(self, branch: Branch) -> None: ...
    def on_settled(self, context: Context) -> None: ...


NOBODY: Final = Nobody()


class Branch:
    """One forwarded copy of the request: the transaction user of its client transaction.

    `state` goes resolving → trying → ringing → answered | failed; a cancelled branch ends as failed with the status it
    gave.
    """

    __slots__ = (
        "context", "target", "number", "state", "status", "response", "client", "attempt", "ended", "breadth",
        "authorization", "from_line", "_nonces", "_resolving", "_patience_ends", "_cancel",
    )  # fmt: skip

    def __init__(self, context: Context, target: Target, number: int, attempt: Attempt | None, breadth: int) -> None:
        self.context = context
        self.target = target
        self.number = number
        self.state = "resolving"
        self.status = 0
        self.response: Response | None = None
        self.client: ClientTransaction | None = None
        self.attempt = attempt
        """None where no flow has the call."""
        self.breadth = breadth
        """How many copies of the request this branch may become further down."""
        self.ended: tuple[bytes | None, ...] = ()
        """To tags of the dialogs of this branch that we have ended (see `release`): a proxy below us may fork."""
        self.authorization: bytes | None = None
        """Header line that answers the challenge of the target."""
        self.from_line: bytes | None = None
        """The caller's From line, where the target was shown another one."""
        self._nonces: tuple[str, ...] = ()
        self._resolving: Timer | None = None
        """Runs while the next hop is looked up: an answer that never comes fails the branch."""
        self._patience_ends = 0.0
        """When timer C is really due: each 18x puts it off, and moving a number is cheaper than arming anew."""
        self._cancel: tuple[bytes, ...] | None = None

    @property
    def pending(self) -> bool:
        return self.state in ("resolving", "trying", "ringing")

    @property
    def reason(self) -> str:
        """Reason phrase of the failure: the peer's, or ours where it never spoke; of a peer that cannot be reached
        nobody has sent the 503."""
        if self.response is not None:
            return self.response.reason.decode("utf-8", "replace")
        return UNREACHABLE if self.status == 503 else reason_phrase(self.status)

    @property
    def cancelled(self) -> bool:
        """We have asked this branch to stop, though the CANCEL may still be waiting for a provisional response
        (§9.1)."""
        return self._cancel is not None

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, hop: Hop | None) -> None:
        """The next hop is known (None: it cannot be): forward (§16.6)."""
        if self.state != "resolving":
            return
        if self._resolving is not None:
            self._resolving.cancel()
            self._resolving = None
        if hop is None:
            self._fail(503, None)
            return
        if self._cancel is not None:
            self._fail(487, None)
            return
        binding = self.target.binding
        if binding is not None and not self.context.network.may_ring(binding, hop):
            self._fail(480, None)
            return
        self._forward(hop)

    def await_hop(self) -> None:
        """The next hop has been asked for: no longer than 64*T1."""
        if self.state == "resolving":
            layer = self.context.network.layer
            self._resolving = layer.timers.after(layer.times.timeout, _not_resolved, self)

    @property
    def attended(self) -> bool:
        """A timer runs that will end this branch, should nothing else do so."""
        if self._resolving is not None:
            return self._resolving.armed
        return self.pending and self.client is not None and bool(self.client.armed)

    def _forward(self, hop: Hop) -> None:
        context = self.context
        layer = context.network.layer
        branch = context.network.tokens.branch()
        try:
            data = context.copy_for(self, hop, branch)
        except (ValueError, MalformedMessage):  # what cannot be put into a message, of a binding or a flow
            self._fail(500, None)
            return
        self.state = "trying"
        self.client = layer.open_client(branch, context.method, data, hop, self)
        if context.listener is not None:
            context.listener.on_sent(self)

    def cancel(self, headers: tuple[bytes, ...] = ()) -> None:
        """Ask the branch to stop; with no provisional response yet the CANCEL waits for one (§9.1). Idempotent."""
        if self._cancel is not None or not self.pending:
            return
        self._cancel = headers
        if self.state == "resolving":
            self._fail(487, None)
        elif self.state == "ringing":
            self._send_cancel()

    def _send_cancel(self) -> None:
        client, layer = self.client, self.context.network.layer
        if client is None or self._cancel is None or client.method != b"INVITE":  # §9.1: only an INVITE is cancelled
            return
        data = derive_request(client.sent, b"CANCEL", headers=self._cancel)
        layer.open_client(client.branch, b"CANCEL", data, client.destination, None)
        self._patience_ends = layer.timers.now + layer.times.timeout
        client.start_end_timer(layer.times.timeout, "timer C")
        if self.context.listener is not None:
            self.context.listener.on_cancelled(self)

    # --- transaction user ---------------------------------------------------------------------------------------------

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        status = response.status
        if status < 200:
            self._on_provisional(response)
        elif status < 300:
            self._on_success(response)
        elif status not in (401, 407) or not self._answers(client, response):
            self._fail(status, response)

    def _answers(self, client: ClientTransaction, response: Response) -> bool:
        """Answer a gateway's challenge with our account there, on a new transaction (DEPARTURES). Challenges of others
        are for the caller: nobody gets a digest from us who is not asked for by name."""
        account, context = self.target.account, self.context
        if account is None or not self.pending or self.cancelled or context.closed:
            return False
        name, line = CHALLENGES[response.status]
        word = context.network.tokens.token()
        found = account.answer(response.get_all(name), context.method, self.target.uri, word, self._nonces)
        if found is None:
            return False
        self.authorization = line + found[0]
        self._nonces += (found[1],)
        self._forward(client.destination)
        return True

    def upward(self, response: Response) -> bytes:
        """The target's response as it goes on to the caller, who knows his own From."""
        network = self.context.network
        for name in network.withheld(response, self.context.server.destination.host).intersection(response.names):
            response.drop_header(name)
        return forward_response(response, self.from_line)

    def on_timeout(self, client: ClientTransaction) -> None:
        self._fail(408, None)

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._fail(480 if self.target.binding is not None else 503, None)  # a phone that is off, a server that is down

    def on_timer_c(self, client: ClientTransaction) -> None:
        """§16.8: a ringing branch is cancelled; one that has been is given up."""
        left = self._patience_ends - self.context.network.layer.timers.now
        if left > TICK / 2:
            client.start_end_timer(left, "timer C")
        elif self.state == "ringing" and self._cancel is None:
            self.cancel()
        else:
            client.step("abandon")
            self._fail(408, None)

    def _on_provisional(self, response: Response) -> None:
        if not self.pending:
            return
        first = self.state == "trying"
        self.state = "ringing"
        layer = self.context.network.layer
        if self._cancel is not None:
            if first:
                self._send_cancel()
            return
        if first or response.status > 100:
            self._patience_ends = layer.timers.now + layer.times.c
        if response.status > 100:
            self.context.on_provisional(self, response)

    def _on_success(self, response: Response) -> None:
        first = self.pending
        self.state = "answered"
        self.status = response.status
        self.context.on_success(self, response, first)

    def _fail(self, status: int, response: Response | None) -> None:
        if not self.pending:
            return
        self.state = "failed"
        self.status = status
        self.response = response
        self.context.on_failure(self)

    def __repr__(self) -> str:
        return f"<Branch {self.number} {self.target.contact} {self.state} {self.status or ''}>"


def _not_resolved(branch: Branch) -> None:
    branch.send(None)
