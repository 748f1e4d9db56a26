"""One forwarded copy of a request (RFC 3261 §16.6 - §16.9), and what it needs of whoever forks the request.

A branch knows its response context by the protocol `Context` only, the context its decider by `Listener`: neither has
to know who stands above it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from orchestrator.errors import UNREACHABLE, MalformedMessage
from orchestrator.native import mypyc_attr
from orchestrator.sip import topology
from orchestrator.sip.challenges import CHALLENGES
from orchestrator.sip.client import ClientTransaction, ClientUser
from orchestrator.sip.layer import derive_request
from orchestrator.sip.message import Response, forward_response
from orchestrator.sip.points import Hop
from orchestrator.sip.proxy_network import Network
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.retry_after import LONGEST_RETRY_AFTER, retry_after_of
from orchestrator.sip.routing import is_private, port_of, unicast
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target
from orchestrator.timers import TICK, Timer

LONGEST_DATAGRAM: Final = 1_300
"""Octets of a request that goes by UDP where the path is not known to take more (RFC 3261 §18.1.1)."""


class Context(ABC):
    """The response context of a branch (`sip.response_context`)."""

    __slots__ = ("network", "server", "method", "listener", "outer", "secure")

    network: Network
    server: ServerTransaction
    method: bytes
    listener: Listener | None
    outer: topology.Outer | None
    """What copies that hide the topology have kept back."""
    secure: bool
    """The request is for a `sips:` URI."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """No branch can be added any more."""

    @abstractmethod
    def find_hops(self, branch: Branch) -> None:
        """Tell it the hops of its target (`Branch.send`)."""

    @abstractmethod
    def superseded(self, branch: Branch) -> ClientUser:
        """Who hears what a server says that was too slow (`sip.superseded`)."""

    @abstractmethod
    def copy_for(self, branch: Branch, hop: Hop, token: bytes) -> bytes:
        """The request as this branch carries it; `token` is its Via branch. Raises ValueError, MalformedMessage."""

    @abstractmethod
    def on_provisional(self, branch: Branch, response: Response) -> None: ...
    @abstractmethod
    def on_success(self, branch: Branch, response: Response, first: bool) -> None: ...
    @abstractmethod
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


@mypyc_attr(acyclic=True)
class Branch:
    """One forwarded copy of the request: the transaction user of its client transaction.

    `state` goes resolving → trying → ringing → answered | failed; a cancelled branch ends as failed with the status it
    gave. A target may have several servers (RFC 3263 §4.3): one that gives no response in time, cannot be reached or
    answers 503 is left for the next one, in a new transaction, and only what the last one says is the branch's result.
    """

    __slots__ = (
        "context", "target", "number", "state", "status", "response", "client", "attempt", "ended", "breadth",
        "authorization", "from_line", "cseq_line", "recorded", "_nonces", "_further", "_patience", "_patience_ends",
        "_cancel",
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
        self.cseq_line: bytes | None = None
        """The same for CSeq."""
        self.recorded: tuple[bytes, ...] | None = None
        """Our Record-Route lines in a copy that hides the topology; None for one that does not."""
        self._nonces: tuple[str, ...] = ()
        self._further: tuple[Hop, ...] = ()
        """Where else the request may go."""
        self._patience: Timer | None = None
        """Runs while the next hop is looked up, for an answer that never comes fails the branch; and until the first
        response while there are further hops."""
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

    def send(self, hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
        """The next hop is known (None: it cannot be), and where else to go: forward (§16.6)."""
        if self.state != "resolving":
            return
        if self._patience is not None:
            self._stop_waiting()
        if self._cancel is not None:
            self._fail(487, None)
            return
        guarded = hop is None or self.context.secure or self.target.binding is not None
        problem = self._problem(hop) if guarded else 0
        if problem and not further:
            self._fail(problem, None)
            return
        self._further = further
        if hop is None or problem:
            self._try_next(problem, None)
        else:
            self._forward(hop)

    def _problem(self, hop: Hop | None) -> int:
        """The status that the request fails with if it is to go there, 0 where it may."""
        context, binding = self.context, self.target.binding
        if hop is None:
            return 480 if context.secure or (binding is not None and binding.connection) else 503
        if context.secure and not hop.point.secure:
            return 480  # `sips:` is TLS on every hop (RFC 3261 §26.2.2, RFC 5630 §5.3)
        return 480 if binding is not None and not context.network.may_ring(binding, hop) else 0

    def await_hop(self) -> None:
        """The next hop has been asked for: no longer than 64*T1."""
        if self.state == "resolving":
            layer = self.context.network.layer
            self._patience = layer.timers.after(layer.times.timeout, _not_resolved, self)

    @property
    def attended(self) -> bool:
        """A timer runs that will end this branch, should nothing else do so."""
        if self._patience is not None:
            return self._patience.armed
        return self.pending and self.client is not None and bool(self.client.armed)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _forward(self, hop: Hop) -> None:
        context = self.context
        network = context.network
        branch = network.tokens.branch()
        try:
            data = context.copy_for(self, hop, branch)
            if len(data) > LONGEST_DATAGRAM and not hop.point.reliable:
                hop, data = self._over_a_stream(hop, branch, data)
        except (ValueError, MalformedMessage):  # what cannot be put into a message, of a binding or a flow
            self._fail(500, None)
            return
        self.state = "trying"
        self.client = network.layer.open_client(branch, context.method, data, hop, self)
        if self._further:
            self._patience = network.layer.timers.after(network.patience, _gave_no_response, self)
        if context.listener is not None:
            context.listener.on_sent(self)

    def _over_a_stream(self, hop: Hop, branch: bytes, data: bytes) -> tuple[Hop, bytes]:
        """A long request goes by a stream where the receiver may take one (§18.1.1), and by a datagram after all where
        it does not. Nobody can open a stream to a phone that is reached where it was seen."""
        network, target = self.context.network, self.target
        if target.hop is None:
            best, *further = network.for_long(target.first_hop(), hop, self._further)
            if best is not hop and not self._problem(best):
                self._further = tuple(further)
                return best, self.context.copy_for(self, best, branch)
        network.count("request.long_datagram")
        return hop, data

    # --- the next server ----------------------------------------------------------------------------------------------

    def _try_next(self, status: int, response: Response | None) -> None:
        """Go to the next hop; where there is none that is allowed, the branch has failed with this."""
        self._stop_waiting()
        while self._further and not self.cancelled and not self.context.closed:
            hop, self._further = self._further[0], self._further[1:]
            if not self._problem(hop):
                self.context.network.count("next_hop.failover")
                self._forward(hop)
                return
        self._fail(status, response)

    def give_up_waiting(self) -> None:
        """No response in time: the next one is asked. What this one says later is not the branch's."""
        client, self._patience = self.client, None
        if client is None or self.state != "trying" or self.cancelled or not self._further:
            return
        self.context.network.avoid(client.destination, None)
        if client.method == b"INVITE":
            client.stop_timers()
            client.start_end_timer(self.context.network.layer.times.timeout, client.end_timer)
            client.user = self.context.superseded(self)
        else:
            client.step("abandon")
        self._try_next(408, None)

    def _unavailable(self, client: ClientTransaction, response: Response) -> None:
        """503: the next server, if any (RFC 3263 §4.3); this one is avoided for as long as it says."""
        seconds = retry_after_of(response)
        if seconds:
            self.context.network.avoid(client.destination, min(seconds, LONGEST_RETRY_AFTER))
        self._try_next(503, response)

    def cancel(self, headers: tuple[bytes, ...] = ()) -> None:
        """Ask the branch to stop; with no provisional response yet the CANCEL waits for one (§9.1). Idempotent."""
        if self._cancel is not None or not self.pending:
            return
        self._cancel = headers
        self._further = ()
        if self.state != "resolving":
            self._stop_waiting()
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
        if self._patience is not None:
            self._stop_waiting()
            self.context.network.answers(client.destination)
        if status < 200:
            self._on_provisional(response)
        elif status < 300:
            self._on_success(response)
        elif status == 503 and self._further:
            self._unavailable(client, response)
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
        stopped = network.withheld(response, self.context.server.destination.host)
        if not stopped.isdisjoint(response.shape.known):
            for name in stopped.intersection(response.names):
                response.drop_header(name)
        outer = self.context.outer
        if self.recorded is not None and outer is not None:
            return topology.upward(network.veil, response, outer, self.recorded, self.from_line, self.cseq_line)
        return forward_response(response, self.from_line, self.cseq_line)

    def on_timeout(self, client: ClientTransaction) -> None:
        self._try_next(408, None)

    def on_unreachable(self, client: ClientTransaction) -> None:
        if not self.pending:
            return
        target = self.target
        if self._further:
            self.context.network.avoid(client.destination, None)
        elif target.hop is not None and target.hop.connection and target.binding is None and not self.cancelled:
            self._leave_connection(target, target.hop)
            return
        self._try_next(480 if target.binding is not None else 503, None)  # a phone that is off, a server that is down

    def _leave_connection(self, target: Target, hop: Hop) -> None:
        """The connection to the receiver, in a dialog, is gone: he may take another one where his Contact leads, unless
        that is within a network of his own or the other end of what is gone."""
        contact, host = target.first_hop(), hop.host.partition("%")[0]
        address = unicast(contact.host)
        gone = (address, port_of(contact)) == (host, hop.port)
        target.hop, self.state = None, "resolving"
        if gone or self.context.closed or (address is not None and is_private(address) and not is_private(host)):
            self.send(None)
        else:
            self.context.find_hops(self)

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
        binding = self.target.binding
        if status == 430 and response is not None and binding is not None and binding.path:  # only an edge proxy knows
            self.context.network.flow_failed(binding)
        if (status in (408, 430) or response is None) and self._takes_next_flow():
            return
        self.state = "failed"
        self.status = status
        self.response = response
        self.context.on_failure(self)

    def _takes_next_flow(self) -> bool:
        """The phone has not been reached: whether it has another flow, and the request goes there (RFC 5626 §6)."""
        if self.cancelled or self.context.closed:
            return False
        target = self.target.next_flow()
        if target is None:
            return False
        self.target, self.state, self.authorization = target, "resolving", None
        self.context.network.count("flow.failover")
        if target.hop is not None:
            self.send(target.hop)
        else:
            self.context.find_hops(self)
        return True

    def __repr__(self) -> str:
        return f"<Branch {self.number} {self.target.contact} {self.state} {self.status or ''}>"


def _not_resolved(branch: Branch) -> None:
    branch.send(None)


def _gave_no_response(branch: Branch) -> None:
    branch.give_up_waiting()
