"""A request outside of dialogs that begins no call, served by a flow: MESSAGE, SUBSCRIBE, OPTIONS and so on.

The flow replies, relays it, or leaves it: what it leaves is served as if there were no flow (`default`). There is no
call, so nothing rings: a relay forks to its destinations, or tries them one after the other, and is over with the first
2xx, which has gone to the sender, or with the last failure, which has not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.phones import leads_to
from orchestrator.core.push.waking import Waking
from orchestrator.core.request_view import RequestView
from orchestrator.core.served_request import ServedRequest
from orchestrator.core.steps.outcomes import outcome_of, result_of
from orchestrator.errors import StepError
from orchestrator.history import RunFact
from orchestrator.sip.branch import Branch, Context
from orchestrator.sip.message import Request, Response, build_response
from orchestrator.sip.points import Hop
from orchestrator.sip.reasons import reason_phrase
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction
from orchestrator.sip.target import Target

Done = Callable[[dict[str, Any]], None]


class OtherRequest(ServedRequest):
    """One such transaction. It decides about the branches of its response context (`sip.branch.Listener`)."""

    __slots__ = ("_context", "_default", "_groups", "_done", "_tried", "_waking")

    def __init__(
        self,
        node: Node,
        request: Request,
        view: RequestView,
        server: ServerTransaction,
        source: tuple[str, int],
        default: Callable[[ServerTransaction], object],
    ) -> None:
        super().__init__(node, request, view, server, source)
        self._context = ResponseContext(node.network, server, request, self)
        self._default = default
        self._groups: list[Sequence[Target]] = []
        self._done: Done | None = None
        self._tried: list[str] = []
        self._waking: Waking | None = None
        """The phones that a relay waits for to wake up."""

    @property
    def hop(self) -> Hop:
        """Where it came from."""
        return Hop(self.server.destination.point, *self.source)

    @property
    def replied(self) -> bool:
        return self.server.answered

    def fail(self) -> None:
        """A bug has struck: 500."""
        self.undo()
        self._context.fail()

    @property
    def running(self) -> bool:
        """A relay is under way."""
        return self._done is not None

    # --- what the flow wants ------------------------------------------------------------------------------------------

    def reply(self, code: int, reason: str = "", headers: tuple[bytes, ...] = ()) -> None:
        """Answer it; nothing where its sender has given it up (RFC 4320 §4.2). Raises StepError `call.state` when it is
        answered, and for 1xx (RFC 4320 §4.1)."""
        if self.server.lapsed and code >= 200:
            self.undo()
            return
        if self.replied:
            raise StepError("call.state", "the request is already answered")
        if code < 200:
            raise StepError("call.state", f"reply: {code} is provisional, and only an INVITE has provisional replies")
        self.undo()
        tag = self._node.tokens.token()
        self.server.respond(code, build_response(self.request, code, reason or reason_phrase(code), tag, headers))

    def reply_best(self) -> bool:
        """Answer with the best failure of the last relay. False when there is none to send."""
        best = self._context.best
        if best is not None and best.status == 408:
            self._context.lapse()
            return True
        return self._context.send_best()

    def part(self) -> None:
        """Its run is done: let go of the failures that an answer could have been made of."""
        self.run = None
        self._context.forget_failures()
        if self.replied:
            self._context.listener = None

    def serve(self) -> None:
        """Do what is done without flows, unless it is answered."""
        if not self.replied:
            self._default(self.server)

    def check_open(self) -> None:
        """Raises StepError `call.state` when it cannot be sent on: it is answered or under way."""
        if self.replied or self._done is not None:
            what = "already answered" if self.replied else "on its way already"
            raise StepError("call.state", f"relay: the request is {what}")

    def relay(self, groups: Sequence[Sequence[Target]], done: Done, waking: Waking | None = None) -> None:
        """Send it on, to one group after the other, and to the phones of `waking` as they wake up; `done(relay result)`
        is called once. It has to be open (`check_open`)."""
        self._context.forget_failures()
        self._groups, self._done, self._tried, self._waking = list(groups), done, [], waking
        self._next()

    def undo(self) -> None:
        """Nobody waits for the relay any more; what was sent cannot be called back."""
        self._groups.clear()
        self._done = None
        waking, self._waking = self._waking, None
        if waking is not None:
            waking.stop()

    # --- phones that sleep --------------------------------------------------------------------------------------------

    def woke(self, target: Target) -> None:
        if not leads_to(target, self.hop):
            self._context.add(target)

    def waited(self) -> None:
        self._waking = None
        if not self._context.pending:
            self.on_settled(self._context)

    def leave(self) -> None:
        self._waking = None
        if not self._context.pending:
            self._context.reply(503)
            self._finish("failed", 503, None)

    def note(self, fact: RunFact) -> None:
        if self.run is not None:
            self.run.trace(None, fact)

    def _next(self) -> None:
        context = self._context
        group = self._groups.pop(0) if self._groups else ()
        context.held = True
        room = context.breadth if self._waking is None else context.breadth // 2  # phones may wake up, or register
        for target in group:
            context.add(target, breadth=max(1, room // len(group)))
        context.let_settle()

    # --- what the branches report -------------------------------------------------------------------------------------

    def on_sent(self, branch: Branch) -> None: ...
    def on_cancelled(self, branch: Branch) -> None: ...
    def on_ringing(self, branch: Branch, response: Response) -> None: ...

    def on_answered(self, branch: Branch, response: Response) -> None:
        self._tried.append(_name(branch))
        self._finish("answered", response.status, branch)

    def on_branch_failed(self, branch: Branch) -> None:
        self._tried.append(_name(branch))

    def on_settled(self, context: Context) -> None:
        """Every branch has failed. Where the flow does not wait any more, its end answers."""
        if self._groups and not context.closed:
            self._next()
            return
        if self._waking is not None and not context.closed:
            return
        best = self._context.best
        self._finish(outcome_of(best.status) if best else "unavailable", best.status if best else 480, best)

    def _finish(self, outcome: str, code: int, branch: Branch | None) -> None:
        done = self._done
        self.undo()
        if done is not None:
            done(result_of(outcome, code, branch, self._tried))


def _name(branch: Branch) -> str:
    return branch.target.label or branch.target.contact
