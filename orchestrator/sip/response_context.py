"""The stateful proxy: one server transaction, any number of branches (RFC 3261 §16).

A `ResponseContext` is RFC 3261's response context. What it adds to the RFC is that its target set stays open: `add`
works as long as the request has no final answer, from anywhere, at any time. A late branch, a picked-up call and
serial hunting are all `add`.

Who decides when the branches have failed? Without a `listener` the context does, by §16.7; with one (a call flow) the
context only reports, because the flow may have other plans for the call. Answers are never a matter of taste: a 2xx
goes upstream at once and the other branches are cancelled.

A CANCEL is answered 487 at once, in every state of the branches. The RFC would have the caller wait for branches that
may never speak again; instead a branch that answers *after* we have sent a failure upstream is released by us (ACK,
BYE), so that no phone is left talking to nobody. `sip.departures` lists this with the other known differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.errors import MalformedMessage
from orchestrator.sip import session_timer
from orchestrator.sip.branch import Attempt, Branch, Context, Listener
from orchestrator.sip.grammar import read_number
from orchestrator.sip.message import Request, Response, build_response, forward_request
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.proxy_network import Network
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.release import COMPLETED_ELSEWHERE, release
from orchestrator.sip.routing import SIPS
from orchestrator.sip.selection import is_challenge, rank
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.superseded import Superseded
from orchestrator.sip.target import NUMBERED, Target
from orchestrator.sip.topology import HIDDEN, Outer, veiled
from orchestrator.sip.transaction import TERMINATED

DEFAULT_MAX_FORWARDS: Final = 70
MAX_BREADTH: Final = 60
"""Copies of one request that may be under way at a time, counted over all proxies it passes (RFC 5393 §5.3)."""
MAX_BRANCHES: Final = 60
"""Branches of one request over its life."""
_LATE_SHARE: Final = 20
"""A branch that is added by itself gets this part of the breadth that is left: others may follow it."""


_DIALOG_FORMING: Final = frozenset((b"INVITE", b"SUBSCRIBE", b"REFER", b"NOTIFY"))
"""Methods that may begin a dialog (RFC 3261 §12.1, RFC 6665)."""


def breadth_of(request: Request) -> int:
    """The request's Max-Breadth, ours where it names none or more (RFC 5393 §5.3.2)."""
    if not request.has(b"max-breadth"):
        return MAX_BREADTH
    asked = read_number(request.get(b"max-breadth"))
    return MAX_BREADTH if asked is None else min(asked, MAX_BREADTH)


def _name_of(server: ServerTransaction) -> str:
    """The source of a request, where it has a share; '' for those that have none."""
    return server.source.name if server.source is not None else ""


class ResponseContext(Context):
    """A request being proxied: its server transaction, its pending branches, the best failure so far (§16.7)."""

    __slots__ = (
        "request", "pending", "best", "answered", "drop_routes", "held", "breadth", "on_refused", "on_accepted",
        "_interval", "_count", "_closed", "_challenges", "_inside",
    )  # fmt: skip

    def __init__(
        self, network: Network, server: ServerTransaction, request: Request, listener: Listener | None = None
    ) -> None:
        self.network = network
        self.server = server
        self.request: Request | None = request
        self.method = request.method
        self.listener = listener
        self.pending: tuple[Branch, ...] = ()
        self.best: Branch | None = None
        """The best failure, until there is an answer: it refers to us, and the collector does not look into
        branches."""
        self.answered = False
        self.drop_routes = 0
        """Route values of the request that meant us (§16.4)."""
        self.held = False
        """While true, running out of branches settles nothing: more may come."""
        self.secure = request.uri[:4] in SIPS
        self.breadth = breadth_of(request)
        """What is left of the request's Max-Breadth for further branches."""
        self.on_refused: Callable[[int], object] | None = None
        """Called with the status of the failure that is the final answer."""
        self.on_accepted: Callable[[Response], object] | None = None
        """Called with the 2xx that is the final answer."""
        self.outer = None
        self._interval = 0
        """Seconds that the caller, who knows session timers, may go without a refresh; 0 for what he likes."""
        self._count = 0
        self._closed = False
        self._challenges: tuple[bytes, ...] = ()
        self._inside = request.to_tag is not None
        """The request is of a dialog that stands, whatever becomes of it."""
        server.user = self

    # --- the target set -----------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """No branch can be added any more: answered, refused by a 6xx, cancelled, or a final answer has gone out."""
        return self._closed or self.answered or self.server.answered

    def add(self, target: Target, attempt: Attempt | None = None, breadth: int = 0) -> Branch | None:
        """Forward to one more target, now; `breadth` is its share, else a part of what is left.

        None when the context is closed, full, or the target is ringing already.
        """
        full = self._count >= MAX_BRANCHES or self.breadth < 1
        if self.closed or full or self.find(target) is not None or self._joins_flow(target):
            return None
        branch = Branch(self, target, self._count, attempt, breadth or max(1, self.breadth // _LATE_SHARE))
        self.breadth -= branch.breadth
        self._count += 1
        self.pending += (branch,)
        if target.hop is not None:
            branch.send(target.hop)
        else:
            self.find_hops(branch)
        return branch

    def find_hops(self, branch: Branch) -> None:
        """Have the hops of its target found, and told to the branch."""
        target = branch.target
        try:
            toward = target.first_hop()
        except MalformedMessage:
            branch.send(None)
        else:
            here = self.server.destination.point
            self.network.resolve(toward, here, branch.send, _name_of(self.server), target.point)
            branch.await_hop()

    def superseded(self, branch: Branch) -> Superseded:
        """Hears what a server of this branch says that was too slow."""
        return Superseded(branch)

    def add_all(self, targets: Sequence[Target]) -> None:
        """Fork to several targets and no others; 440 when the request's breadth does not suffice (RFC 5393 §5.3.3).

        One that fails on the spot does not settle the request before the last is added.
        """
        share = self.breadth // len(targets)
        if not share:
            self.reply(440)
            return
        self.held = True
        for target in targets:
            self.add(target, breadth=share)
        self.let_settle()

    @property
    def attended(self) -> bool:
        """A branch is under way, or whoever decides about this context is."""
        return any(branch.attended for branch in self.pending) or (self.listener is not None and self.listener.attended)

    def fail(self) -> None:
        """A bug has struck, or nothing is left that could end this request: 500 (§21.5.1) and CANCEL."""
        self._closed = True
        try:
            self.reply(500)
            self.cancel_pending()
        finally:
            self.server.fail()

    def let_settle(self) -> None:
        """Stop holding the target set open; with nothing pending the context settles now."""
        self.held = False
        if not self.pending:
            self._settle()

    def forget_failures(self) -> None:
        """Start afresh: what failed before says nothing about the destinations tried next, not even a 6xx."""
        self._closed = False
        self.best = None
        self._challenges = ()

    def find(self, target: Target) -> Branch | None:
        """The pending branch to this target, which is more than its URI; see `Target.same_as`."""
        for branch in self.pending:
            if not branch.cancelled and branch.target.same_as(target):
                return branch
        return None

    def _joins_flow(self, target: Target) -> bool:
        """Whether another flow of its phone is being used: then it is one to go on with, should that fail."""
        for branch in self.pending:
            if not branch.cancelled and branch.target.is_flow_of(target):
                branch.target.flows += (target,)
                return True
        return False

    def copy_for(self, branch: Branch, hop: Hop, token: bytes) -> bytes:
        """The request as this branch carries it (§16.6 steps 1-8); `token` is its Via branch."""
        request, target = self.request, branch.target
        assert request is not None
        request.unfold()
        forwards = request.max_forwards
        dialog_forming = self.method in _DIALOG_FORMING and not request.to_tag
        headers, stopped = target.headers, self.network.withheld(request, hop.host)
        recorded = self._record_routes(hop.point, target) if dialog_forming else ()
        if target.hides or self.network.hides(target.label, self.server.destination.host):
            self.outer = self.outer or Outer(request)
            branch.recorded = recorded  # as it is: the caller's side is told otherwise
            stopped |= HIDDEN
            if recorded:
                recorded = veiled(self.network.veil, recorded, -1, self.outer.routes())
        if branch.breadth != MAX_BREADTH:  # which is what its absence says
            headers = (*headers, b"Max-Breadth: %d" % branch.breadth)
        if branch.authorization is not None:
            headers = (*headers, branch.authorization)
        if target.sender:
            stopped |= {b"from"}
            branch.from_line = branch.from_line or request.lines[request.shape.first[b"from"]]
            headers = (_from_line(target.sender, request.from_.tag), *headers)
        timer = self.network.session_timer
        if timer is not None and self.method in session_timer.TIMED:
            interval = timer.interval(request)
            self._interval = interval if session_timer.knows_timers(request) else 0
            headers = (*headers, session_timer.expires_line(request, interval))
            stopped |= {session_timer.EXPIRES}
        if target.numbers is not None:
            stopped |= NUMBERED
            branch.cseq_line = request.lines[request.shape.first[b"cseq"]]
            headers = (*target.numbers.lines(request), *headers)
        return forward_request(
            request,
            uri=target.uri,
            via=hop.point.via + token,
            max_forwards=DEFAULT_MAX_FORWARDS if forwards is None else forwards - 1,
            record_routes=recorded,
            drop_routes=self.drop_routes,
            routes=target.routes,
            remove=() if stopped.isdisjoint(request.shape.known) else stopped,
            headers=headers,
        )

    def _record_routes(self, point: Point, target: Target) -> tuple[bytes, ...]:
        assert self.request is not None
        gateway = target.label if target.account is not None else ""
        return self.network.record_routes(point, self.request, self.server.destination, target.hop, gateway)

    # --- ending it ----------------------------------------------------------------------------------------------------

    def cancel_pending(self, headers: tuple[bytes, ...] = (), keep: Branch | None = None) -> None:
        """CANCEL every pending branch but one."""
        for branch in self.pending:
            if branch is not keep:
                branch.cancel(headers)

    def cancel(self, headers: tuple[bytes, ...] = ()) -> None:
        """The caller gave up: 487 now, CANCEL to the branches (§16.10; DEPARTURES).

        A re-INVITE waits for what the other side says: both have to agree whether it has failed, and its answer may
        cross the CANCEL (§14.1). Where the other side has not got it yet, there is nothing to wait for.
        """
        if self.server.answered:
            return
        self._closed = True
        if not (self._inside and self.pending):
            self.reply(487)
        self.cancel_pending(headers)

    def reply(self, status: int, reason: str = "", headers: Sequence[bytes] = (), to_tag: bytes | None = None) -> None:
        """Answer the request ourselves."""
        request = self.request
        if request is None or self.server.answered:
            return
        if 100 < status < 200 and b"100rel" in request.tokens(b"require"):
            return  # RFC 3262 §3: then none may be unreliable, and ours are
        tag = to_tag or (self.network.tokens.token() if status > 100 else None)
        self._send_up(status, build_response(request, status, reason or reason_phrase(status), tag, headers))

    def send_best(self) -> bool:
        """Answer with the best failure of the branches (§16.7 step 6). False when there is none."""
        branch = self.best
        if branch is None or self.request is None:
            return False
        response = branch.response
        if response is None or response.status == 503:
            self.reply(500 if branch.status == 503 else branch.status)
        else:
            self._send_up(response.status, self._with_challenges(branch.upward(response), response))
        return True

    def lapse(self) -> None:
        """End the request without an answer: by now nobody is waiting for one (RFC 4320 §4.2)."""
        self.server.end()
        self.best = None

    def _with_challenges(self, data: bytes, response: Response) -> bytes:
        """§16.7 step 7: a 401 or 407 carries the challenges of all branches."""
        if response.status not in (401, 407):
            return data
        own = {line for name, line in zip(response.names, response.lines, strict=True) if is_challenge(name)}
        others = [line for line in self._challenges if line not in own]
        if not others:
            return data
        head, _, body = data.partition(b"\r\n\r\n")
        return b"\r\n".join([head, *others, b"", body])

    def _send_up(self, status: int, data: bytes) -> None:
        self.server.respond(status, data)
        if status >= 200:
            self.request = self.best = None
            self._closed = True
            refused, self.on_refused = self.on_refused, None  # it holds on to what it will tell
            if status >= 300 and refused is not None:
                refused(status)

    def _leave(self, branch: Branch) -> None:
        """It is pending no more."""
        self.pending = tuple([other for other in self.pending if other is not branch])
        if self.server.answered and not self._lapsed:
            self.best = None

    # --- what branches report -----------------------------------------------------------------------------------------

    def on_provisional(self, branch: Branch, response: Response) -> None:
        if self.server.answered:
            return
        self.server.respond(response.status, branch.upward(response))
        if self.listener is not None:
            self.listener.on_ringing(branch, response)

    def on_success(self, branch: Branch, response: Response, first: bool) -> None:
        if first:
            self._leave(branch)
        if self._interval:
            session_timer.complete(response, self._interval)
        if self.server.answered:
            if self.method == b"INVITE":
                self._on_late_success(branch, response, first)
            elif self.listener is not None and self._lapsed:
                self.answered = True
                self.listener.on_answered(branch, response)
            return
        self.answered = True
        self._send_up(response.status, branch.upward(response))
        if self.pending:
            self.cancel_pending((COMPLETED_ELSEWHERE,))
        if self.on_accepted is not None:
            self.on_accepted(response)
        if self.listener is not None:
            self.listener.on_answered(branch, response)

    def _on_late_success(self, branch: Branch, response: Response, first: bool) -> None:
        """A 2xx behind the final answer goes up to a caller who got a 2xx and still listens; else it is ours to end."""
        listens = self.server.state is not TERMINATED
        if self.answered and listens:
            self.server.respond(response.status, branch.upward(response))
        elif (first or not self.answered) and branch.client is not None:
            release(self.network, branch, branch.client, response, hang_up=not self._inside)

    def on_failure(self, branch: Branch) -> None:
        self._leave(branch)
        self.breadth += branch.breadth
        if not (self.server.answered or self.answered) or self._lapsed:
            self._remember(branch)
            if branch.status >= 600 and not branch.cancelled:
                self._closed = True
                self.cancel_pending()
            if self.listener is not None:
                self.listener.on_branch_failed(branch)
        if not self.pending:
            self._settle()

    def _remember(self, branch: Branch) -> None:
        if branch.response is not None and branch.status in (401, 407):
            names, lines = branch.response.names, branch.response.lines
            new = (line for name, line in zip(names, lines, strict=True) if is_challenge(name))
            self._challenges += tuple(line for line in new if line not in self._challenges)
        if self.best is None or rank(branch.status) < rank(self.best.status):
            self.best = branch

    @property
    def _lapsed(self) -> bool:
        """The sender of a request that is no INVITE has given it up, and its branches are still under way: those that
        began late. He is told nothing any more, but whoever decides about them is."""
        if self.method == b"INVITE" or self.answered:
            return False
        return self.listener is not None and self.server.lapsed

    def _settle(self) -> None:
        lapsed = self._lapsed
        if self.held or self.answered or (self.server.answered and not lapsed):
            return
        if self.listener is not None:
            self.listener.on_settled(self)
            if lapsed:
                self.best = None
        elif self.method != b"INVITE" and self.best is not None and self.best.status == 408:
            self.lapse()
        else:
            self.send_best()

    def __repr__(self) -> str:
        state = "answered" if self.answered else "closed" if self.closed else "open"
        return f"<ResponseContext {self.method.decode()} {state} pending={len(self.pending)}>"


def _from_line(sender: bytes, tag: bytes | None) -> bytes:
    """From with another address. The tag stays: it is what dialogs are told by (§12)."""
    return b"From: %b;tag=%b" % (sender, tag) if tag else b"From: " + sender
