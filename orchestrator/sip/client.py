"""Client transactions: what we sent and are waiting for (RFC 3261 §17.1, RFC 6026 §7.2).

The user of a client transaction gets `on_response(client, response)` for every response that is not a retransmission
the machine absorbs, `on_timeout(client)` and `on_unreachable(client)`, which end the transaction. The user of an INVITE
gets `on_timer_c(client)`, too, while it rings: timer C (§16.6 step 11, §16.8) has run out; it is armed for 64*T1 more
unless the user arms it anew.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from orchestrator.native import mypyc_attr
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.sip.transaction import TERMINATED, Layer, Table, Transaction


class ClientUser(Protocol):
    """The transaction user of a client transaction; `None` stands for one that does not care."""

    def on_response(self, client: ClientTransaction, response: Response) -> None: ...
    def on_timeout(self, client: ClientTransaction) -> None: ...
    def on_unreachable(self, client: ClientTransaction) -> None: ...


@mypyc_attr(acyclic=True)
class ClientTransaction(Transaction):
    """A request under way: `sent` holds its octets for retransmission until an answer makes them useless."""

    __slots__ = ("sent", "branch")

    first_state: ClassVar[str]
    resend_timer: ClassVar[str]
    end_timer: ClassVar[str]

    def __init__(self, layer: Layer, branch: bytes, method: bytes, sent: bytes, destination: Hop) -> None:
        Transaction.__init__(self, layer, client_key(branch, method), method, destination, self.first_state)
        self.branch = branch
        self.sent = sent

    def start(self) -> None:
        """Send and arm the timeout (B or F) and, where octets get lost, the retransmission timer (A or E): §17.1.1.2,
        §17.1.2.2."""
        if not self.destination.point.reliable:
            self.start_resend_timer(self.layer.times.t1, self.resend_timer)
        self.start_end_timer(self.layer.times.timeout, self.end_timer)
        self.resend()

    def lose_connection(self) -> None:
        """The connection it was sent over has ended: no answer comes over it any more (§17.1.4)."""
        if self.state == "proceeding":
            user = self.user
            self.step("abandon")
            if user is not None:
                user.on_unreachable(self)
        else:
            self.step("transport error")

    def resend(self) -> None:
        self.layer.send(self.sent, self.destination)


def client_key(branch: bytes, method: bytes) -> bytes:
    """Branch and CSeq method (§17.1.3); only CANCEL shares its branch, that of the request it cancels."""
    return branch + b"/CANCEL" if method == b"CANCEL" else branch


# --- effects ----------------------------------------------------------------------------------------------------------


def _tell_response(client: ClientTransaction, response: Response) -> None:
    if client.user is not None:
        client.user.on_response(client, response)


def _tell_last_response(client: ClientTransaction, response: Response) -> None:
    """What comes after the final response of a non-INVITE is a repetition: nobody has to hear of it, or be kept."""
    user, client.user = client.user, None
    if user is not None:
        user.on_response(client, response)


def _tell_timeout(client: ClientTransaction, _: object) -> None:
    if client.user is not None:
        client.user.on_timeout(client)


def _tell_unreachable(client: ClientTransaction, _: object) -> None:
    if client.user is not None:
        client.user.on_unreachable(client)


def _start_c(client: ClientTransaction, _: object) -> None:
    client.stop_timers()
    client.start_end_timer(client.layer.times.c, "timer C")


def _tell_timer_c(client: ClientTransaction, _: object) -> None:
    client.start_end_timer(client.layer.times.timeout, "timer C")
    if client.user is None:
        client.step("abandon")
    else:
        client.user.on_timer_c(client)


def _stop_timers(client: ClientTransaction, _: object) -> None:
    client.stop_timers()


def _forget_request(client: ClientTransaction, _: object) -> None:
    client.sent = b""


def _resend_doubled(client: ClientTransaction, _: object) -> None:
    client.start_resend_timer(client._interval * 2, "timer A")
    client.resend()


def _resend_capped(client: ClientTransaction, _: object) -> None:
    client.start_resend_timer(min(client._interval * 2, client.layer.times.t2), "timer E")
    client.resend()


def _resend_at_t2(client: ClientTransaction, _: object) -> None:
    client.start_resend_timer(client.layer.times.t2, "timer E")
    client.resend()


def _acknowledge(client: ClientTransaction, response: Response) -> None:
    client.layer.send(client.layer.build_ack(client.sent, response), client.destination)


def _start_d(client: ClientTransaction, _: object) -> None:
    client.start_end_timer(client.unless_reliable(client.layer.times.timeout), "timer D")


def _start_k(client: ClientTransaction, _: object) -> None:
    client.start_end_timer(client.unless_reliable(client.layer.times.t4), "timer K")


def _start_m(client: ClientTransaction, _: object) -> None:
    client.start_end_timer(client.layer.times.timeout, "timer M")


# --- the INVITE client: figure 5 with RFC 6026's Accepted -------------------------------------------------------------

_INVITE_ANSWERED = ("accepted", (_stop_timers, _start_m, _forget_request, _tell_response))
_INVITE_REFUSED = ("completed", (_stop_timers, _start_d, _acknowledge, _tell_response))

INVITE_CLIENT: Table = {
    "calling": {
        "timer A": ("calling", (_resend_doubled,)),
        "timer B": (TERMINATED, (_tell_timeout,)),
        "1xx": ("proceeding", (_start_c, _tell_response)),
        "2xx": _INVITE_ANSWERED,
        "3xx-6xx": _INVITE_REFUSED,
        "transport error": (TERMINATED, (_tell_unreachable,)),
        "abandon": (TERMINATED, ()),
    },
    "proceeding": {
        "1xx": ("proceeding", (_tell_response,)),
        "timer C": ("proceeding", (_tell_timer_c,)),
        "2xx": _INVITE_ANSWERED,
        "3xx-6xx": _INVITE_REFUSED,
        "abandon": (TERMINATED, ()),
    },
    "completed": {
        "3xx-6xx": ("completed", (_acknowledge,)),
        "timer D": (TERMINATED, ()),
        "transport error": (TERMINATED, ()),
    },
    "accepted": {
        "2xx": ("accepted", (_tell_response,)),
        "timer M": (TERMINATED, ()),
    },
    TERMINATED: {},
}


@mypyc_attr(acyclic=True)
class InviteClient(ClientTransaction):
    __slots__ = ()
    table: ClassVar[Table] = INVITE_CLIENT
    kind: ClassVar[str] = "INVITE client"
    first_state: ClassVar[str] = "calling"
    resend_timer: ClassVar[str] = "timer A"
    end_timer: ClassVar[str] = "timer B"


# --- the non-INVITE client: figure 6 ----------------------------------------------------------------------------------

_REQUEST_DONE = ("completed", (_stop_timers, _start_k, _forget_request, _tell_last_response))

NON_INVITE_CLIENT: Table = {
    "trying": {
        "timer E": ("trying", (_resend_capped,)),
        "timer F": (TERMINATED, (_tell_timeout,)),
        "1xx": ("proceeding", (_tell_response,)),
        "2xx": _REQUEST_DONE,
        "3xx-6xx": _REQUEST_DONE,
        "transport error": (TERMINATED, (_tell_unreachable,)),
        "abandon": (TERMINATED, ()),
    },
    "proceeding": {
        "timer E": ("proceeding", (_resend_at_t2,)),
        "timer F": (TERMINATED, (_tell_timeout,)),
        "1xx": ("proceeding", (_tell_response,)),
        "2xx": _REQUEST_DONE,
        "3xx-6xx": _REQUEST_DONE,
        "transport error": (TERMINATED, (_tell_unreachable,)),
        "abandon": (TERMINATED, ()),
    },
    "completed": {
        "timer K": (TERMINATED, ()),
    },
    TERMINATED: {},
}


@mypyc_attr(acyclic=True)
class NonInviteClient(ClientTransaction):
    __slots__ = ()
    table: ClassVar[Table] = NON_INVITE_CLIENT
    kind: ClassVar[str] = "non-INVITE client"
    first_state: ClassVar[str] = "trying"
    resend_timer: ClassVar[str] = "timer E"
    end_timer: ClassVar[str] = "timer F"
