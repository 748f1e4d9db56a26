"""Server transactions: what a peer asked and how far we have answered (RFC 3261 §17.2, RFC 6026 §7.1).

`respond` takes a complete response. Retransmitted requests are answered from `last` without anybody else noticing.

A request that is not answered yet has a timer, too. One that is no INVITE is given up after 64*T1, when its sender has
given it up (RFC 4320 §4.2: nobody wants a 408), and our branches have, too: T1 later than they. An INVITE may ring for
as long as somebody looks after it: every 64*T1 its user is asked, and when there is none, or nothing that could ever
end it, it is answered 500.
"""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from orchestrator.native import mypyc_attr
from orchestrator.sip.admission import Admission, Source
from orchestrator.sip.build import build_response
from orchestrator.sip.fitting import fit
from orchestrator.sip.message import Request
from orchestrator.sip.parser import METHODS
from orchestrator.sip.points import Hop
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.transaction import TERMINATED, Layer, Table, Transaction

_TRYING: Final = b"SIP/2.0 100 "


class ServerUser(Protocol):
    """Who will answer an INVITE."""

    @property
    def attended(self) -> bool:
        """Something is under way that will end it: a branch that rings, a flow that runs."""

    def fail(self) -> None:
        """Nothing will, or a bug has struck: answer 500 unless a final answer is out, and let go of everything."""


@mypyc_attr(acyclic=True)
class ServerTransaction(Transaction):
    """A request we owe an answer. `request` is kept until the final response, `last` is the response to repeat."""

    __slots__ = (
        "request", "last", "status", "source", "admission", "heard", "room", "call_id", "repeated", "refused", "told",
        "told_at",
    )  # fmt: skip

    first_state: ClassVar[str]
    unanswered_timer: ClassVar[str]

    def __init__(self, layer: Layer, key: object, request: Request, destination: Hop) -> None:
        Transaction.__init__(self, layer, key, request.method, destination, self.first_state)
        self.request: Request | None = request
        self.last = b""
        self.status = 0
        self.source: Source | None = None
        """Whose share of us this is, where it is anybody's."""
        self.admission: Admission | None = None
        self.heard = 0
        """How often a stranger has sent the request; 0 for all others. A stranger's address may be forged: whoever has
        sent one datagram gets one back, so provisional responses wait for a repetition, and a failure is repeated less
        often than the request was. For a 2xx see `_send_again`."""
        self.told = 0
        """Responses sent to a stranger in this state, and when the last one was."""
        self.told_at = 0.0
        self.room = 0
        """Octets that a failure told to a stranger may have; 0 for no bound."""
        self.refused: object = None
        """Key in `layer.refused`."""
        self.repeated = 0
        self.call_id = request.call_id

    def charge_to(self, admission: Admission, source: Source, room: int) -> None:
        """Count this transaction for a source, until its final answer."""
        self.admission, self.source = admission, source
        if not admission.is_proved(source, self.layer.timers.now):
            self.heard, self.room = 1, room
        admission.opened(source, self.heard > 0)

    def _settle(self, status: int) -> None:
        layer = self.layer
        layer.unanswered -= 1
        answers, kind = layer.answers, (METHODS.get(self.method, b"other"), status)
        answers[kind] = answers.get(kind, 0) + 1
        if self.admission is not None and self.source is not None:
            now = self.layer.timers.now
            self.admission.settled(self.source, self.heard > 0, self.method, status, self.call_id, now)

    def start(self) -> None:
        """Arm the timer that runs until there is an answer."""
        times = self.layer.times
        self.start_end_timer(times.timeout + times.t1, self.unanswered_timer)

    def fail(self) -> None:
        """Answer 500 (§21.5.1) without asking anybody; nothing where a final response has gone out."""
        if self.answered:
            return
        if self.request is None:
            self.end()
        else:
            self.respond(500, build_response(self.request, 500, reason_phrase(500), b"fault"))

    @property
    def answered(self) -> bool:
        """A final response has gone out."""
        return self.status >= 200

    @property
    def lapsed(self) -> bool:
        """It has ended without a final response: nobody waits for one any more."""
        return self.answered and self.request is not None

    def end(self) -> None:
        if self.refused is not None and self.layer.refused.get(self.refused) is self:
            del self.layer.refused[self.refused]
        if not self.answered:
            self._settle(487)
            self.status = 487  # given up without a word to the peer: it has been gone for long
        super().end()

    def respond(self, status: int, data: bytes) -> None:
        """Send a response made for this request. Raises TransactionError after a final one, but for repeated 2xx."""
        if status < 200:
            self.step("send 1xx", data)
            self.status = max(self.status, status)
            return
        if self.room and (status >= 300 or self.method == b"REGISTER"):
            data = fit(data, self.room)
        self.step("send 2xx" if status < 300 else "send 3xx-6xx", data)
        if not self.answered:
            self._settle(status)
        self.status = status


# --- effects ----------------------------------------------------------------------------------------------------------


def _send(server: ServerTransaction, data: bytes) -> None:
    server.layer.send(data, server.destination)


def _is_stranger(server: ServerTransaction) -> bool:
    """Whether its source still has not shown that it gets what we send."""
    if not server.heard or server.admission is None or server.source is None:
        return False
    return not server.admission.is_proved(server.source, server.layer.timers.now)


def _send_when_heard_again(server: ServerTransaction, data: bytes) -> None:
    """A provisional response. A stranger gets two for each repetition of his INVITE, and later one in half a minute,
    which keeps timer C of proxies before us from running out (§16.6 step 11)."""
    if server.heard:
        now = server.layer.timers.now
        if server.heard == 1:
            return
        enough = server.told >= 2 * (server.heard - 1) and now < server.told_at + _REFRESH
        if enough and _is_stranger(server):
            return
        server.told += 1
        server.told_at = now
    server.layer.send(data, server.destination)


_REFRESH: Final = 30.0


def _send_first(server: ServerTransaction, data: bytes) -> None:
    server.told = 1
    server.layer.send(data, server.destination)


def _send_again(server: ServerTransaction, data: bytes) -> None:
    """A 2xx that the callee repeats until he sees an ACK (§13.3.1.4).

    A stranger gets the 2nd, 4th and 8th copy only, after 0.5, 3.5 and 19.5 s, and two for each time it has sent its
    INVITE. Whoever has two calls that were answered and never acknowledged gets none of them: an address that somebody
    forges acknowledges nothing. One that repeats its INVITE has not got the 2xx, and gets it once more for each
    repetition (`_tell_again`).
    """
    server.told = told = server.told + 1
    spare = told & (told - 1) == 0 or told <= 2 * server.heard
    hopeful = server.source is not None and server.source.unacknowledged <= 2
    if (spare and hopeful) or not _is_stranger(server):
        server.layer.send(data, server.destination)


def _tell_again(server: ServerTransaction, _: object) -> None:
    if server.last and server.told:
        server.layer.send(server.last, server.destination)


def _hear(server: ServerTransaction, _: object) -> None:
    if server.heard:
        server.heard += 1


def _keep(server: ServerTransaction, data: bytes) -> None:
    """Remember what to repeat. A 100 is not: most requests wait with nothing but it, and it can be made again."""
    server.last = b"" if data.startswith(_TRYING) else data


def _repeat(server: ServerTransaction, _: object) -> None:
    if server.last:
        server.layer.send(server.last, server.destination)
    elif server.status == 100 and server.request is not None:
        server.layer.send(build_response(server.request, 100, "Trying"), server.destination)


def _repeat_capped(server: ServerTransaction, _: object) -> None:
    if server.heard:
        server.repeated += 1
        if server.repeated >= server.heard:
            return
    _repeat(server, _)
    server.start_resend_timer(min(server._interval * 2, server.layer.times.t2), "timer G")


def _let_go_of_user(server: ServerTransaction, _: object) -> None:
    """An answered request that is no INVITE: only its answer is still of use, to be repeated."""
    server.request = server.user = None


def _let_go(server: ServerTransaction, _: object) -> None:
    """An answered INVITE is never answered by us again: the 2xx is repeated by the callee (RFC 6026 §7.1)."""
    server.request = None
    server.last = b""


def _let_go_but_for_strangers(server: ServerTransaction, data: bytes) -> None:
    """The same; but a stranger, who sees less of what the callee repeats, is told again by us."""
    server.request = None
    server.last = data if server.heard else b""


def _stop_timers(server: ServerTransaction, _: object) -> None:
    server.stop_timers()


def _ask_user(server: ServerTransaction, _: object) -> None:
    """Is anybody still looking after this INVITE?"""
    server.start()
    user: ServerUser | None = server.user
    if user is None:
        server.fail()
    elif not user.attended:
        server.layer.unattended += 1
        user.fail()


def _start_g_and_h(server: ServerTransaction, _: object) -> None:
    if server.request is not None:
        server.refused = (server.call_id, server.request.cseq, server.request.from_tag)
        server.layer.refused[server.refused] = server
    if not server.destination.point.reliable:
        server.start_resend_timer(server.layer.times.t1, "timer G")
    server.start_end_timer(server.layer.times.timeout, "timer H")


def _start_i(server: ServerTransaction, _: object) -> None:
    server.start_end_timer(server.unless_reliable(server.layer.times.t4), "timer I")


def _start_j(server: ServerTransaction, _: object) -> None:
    server.start_end_timer(server.unless_reliable(server.layer.times.timeout), "timer J")


def _start_l(server: ServerTransaction, _: object) -> None:
    server.start_end_timer(server.layer.times.timeout, "timer L")


# --- the INVITE server: figure 7 with RFC 6026's Accepted -------------------------------------------------------------

INVITE_SERVER: Table = {
    "proceeding": {
        "request": ("proceeding", (_hear, _repeat)),
        "send 1xx": ("proceeding", (_keep, _send_when_heard_again)),
        "send 2xx": ("accepted", (_start_l, _send_first, _let_go_but_for_strangers)),
        "send 3xx-6xx": ("completed", (_start_g_and_h, _keep, _send)),
        "watch": ("proceeding", (_ask_user,)),
    },
    "completed": {
        "request": ("completed", (_hear, _repeat)),
        "timer G": ("completed", (_repeat_capped,)),
        "ACK": ("confirmed", (_stop_timers, _start_i, _let_go)),
        "timer H": (TERMINATED, ()),
        "transport error": (TERMINATED, ()),
    },
    "confirmed": {
        "ACK": ("confirmed", ()),
        "request": ("confirmed", ()),
        "timer I": (TERMINATED, ()),
    },
    "accepted": {
        "request": ("accepted", (_tell_again,)),
        "send 2xx": ("accepted", (_send_again,)),
        "timer L": (TERMINATED, ()),
    },
    TERMINATED: {},
}


@mypyc_attr(acyclic=True)
class InviteServer(ServerTransaction):
    __slots__ = ()
    table: ClassVar[Table] = INVITE_SERVER
    kind: ClassVar[str] = "INVITE server"
    first_state: ClassVar[str] = "proceeding"
    unanswered_timer: ClassVar[str] = "watch"


# --- the non-INVITE server: figure 8 ----------------------------------------------------------------------------------

_ANSWERED = ("completed", (_start_j, _keep, _send, _let_go_of_user))

NON_INVITE_SERVER: Table = {
    "trying": {
        "request": ("trying", ()),
        "send 1xx": ("proceeding", (_keep, _send)),
        "deadline": (TERMINATED, ()),
        "send 2xx": _ANSWERED,
        "send 3xx-6xx": _ANSWERED,
    },
    "proceeding": {
        "request": ("proceeding", (_repeat,)),
        "send 1xx": ("proceeding", (_keep, _send)),
        "send 2xx": _ANSWERED,
        "send 3xx-6xx": _ANSWERED,
        "deadline": (TERMINATED, ()),
        "transport error": (TERMINATED, ()),
    },
    "completed": {
        "request": ("completed", (_repeat,)),
        "timer J": (TERMINATED, ()),
        "transport error": (TERMINATED, ()),
    },
    TERMINATED: {},
}


@mypyc_attr(acyclic=True)
class NonInviteServer(ServerTransaction):
    __slots__ = ()
    table: ClassVar[Table] = NON_INVITE_SERVER
    kind: ClassVar[str] = "non-INVITE server"
    first_state: ClassVar[str] = "trying"
    unanswered_timer: ClassVar[str] = "deadline"
