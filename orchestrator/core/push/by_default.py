"""Requests that no flow takes, for phones of which some sleep: forwarded to those that are awake at once, to the others
as they wake up (`core.push.waking`). What becomes of the branches is what becomes of any (RFC 3261 §16.7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.core.push.waking import Wakers, Waking
from orchestrator.history import RunFact
from orchestrator.sip.binding import Binding
from orchestrator.sip.branch import Branch, Context
from orchestrator.sip.message import Request, Response
from orchestrator.sip.purr import PARAMETER as PURR
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.target import Target


class WaitingRequest:
    """One of them: it decides about its response context (`sip.branch.Listener`) as that would by itself, but for the
    wait (`core.push.waking.Waiter`)."""

    __slots__ = ("context", "_waking", "_share", "_skips", "_refused")

    def __init__(self, context: ResponseContext, share: int, skips: Callable[[Target], bool] | None) -> None:
        self.context = context
        self._waking: Waking | None = None
        self._share = share
        self._skips = skips
        self._refused = context.on_refused
        context.on_refused = self._on_refused
        context.listener = self
        context.held = True

    def begin(
        self, wakers: Wakers, request: Request, asleep: Sequence[Target], awake: Sequence[Target], others: bool
    ) -> None:
        """Forward it to those who are awake, and wake the others."""
        self._waking = wakers.wake(self, request, asleep, awake, wakers.pusher.policy.wake, others=others)
        for target in awake:
            self.context.add(target, breadth=self._share)
        if not awake:
            wakers.node.folds.fold(request)  # it waits now, maybe for long

    # --- the phones -------------------------------------------------------------------------------------------------

    def woke(self, target: Target) -> None:
        if self._skips is None or not self._skips(target):
            self.context.add(target)

    def waited(self) -> None:
        self._waking = None
        self.context.let_settle()

    def leave(self) -> None:
        self._waking = None
        if self.context.pending:
            self.context.let_settle()
        else:
            self.context.reply(503)

    def note(self, fact: RunFact) -> None:
        """No flow has it, so there is no trace."""

    # --- the branches -----------------------------------------------------------------------------------------------

    @property
    def attended(self) -> bool:
        return self._waking is not None

    def on_sent(self, branch: Branch) -> None: ...
    def on_cancelled(self, branch: Branch) -> None: ...
    def on_ringing(self, branch: Branch, response: Response) -> None: ...

    def on_answered(self, branch: Branch, response: Response) -> None:
        self._stop()

    def on_branch_failed(self, branch: Branch) -> None:
        if self.context.closed:  # a 6xx: nobody else is to ring
            self._stop()

    def on_settled(self, context: Context) -> None:
        best = self.context.best
        if self.context.server.answered:
            return
        if best is None:
            self.context.reply(480)
        elif context.method != b"INVITE" and best.status == 408:
            self.context.lapse()
        else:
            self.context.send_best()

    def _on_refused(self, status: int) -> None:
        self._stop()
        if self._refused is not None:
            self._refused(status)

    def _stop(self) -> None:
        """It has its answer, or will have it from the branches that are left."""
        self.context.held = False
        waking, self._waking = self._waking, None
        if waking is not None:
            waking.stop()


class WaitingInside(WaitingRequest):
    """One inside a dialog: for one phone, and to where that is when it has woken up. Its Request-URI stays.

    Whoever talks is awake, and may have registered long ago. So a phone that cannot be pushed, or does not register for
    a push, gets the request where it was: the BYE of a call must not end with us."""

    __slots__ = ("_stays", "_target", "_sent")

    def __init__(self, context: ResponseContext, target: Target, stays: bool) -> None:
        super().__init__(context, context.breadth, None)
        self._target = target
        self._stays = stays
        self._sent = False

    def woke(self, target: Target) -> None:
        if self._sent:
            return
        if not self._stays:
            lead_to(self._target, target)
        self._send()

    def waited(self) -> None:
        if not self._sent:
            self._send()
        super().waited()

    def leave(self) -> None:
        self.waited()

    def _send(self) -> None:
        self._sent = True
        self.context.add(self._target, breadth=self._share)


_OF_CALLS = frozenset((b"BYE", b"INVITE", b"UPDATE", b"INFO", b"PRACK", b"REFER"))


def _talks(request: Request, phone: Binding) -> bool:
    """A phone in a call whose connection stands is awake: its app is at work. A subscription keeps nobody awake."""
    return bool(phone.connection) and request.method in _OF_CALLS


def lead_to(target: Target, place: Target) -> None:
    """Have what goes to the one go where the other one is."""
    target.hop, target.point = place.hop, place.point
    target.routes = (*target.routes, *place.routes)
    target.toward = place.first_hop() if place.hop is None else None


def forward_inside(wakers: Wakers, context: ResponseContext, request: Request, target: Target, stays: bool) -> None:
    """Send a request inside a dialog on. A phone that has put its PURR into its Contact (RFC 8599 §6) is woken if it
    sleeps, and found where it is now, but for one that other proxies lead to (`stays`)."""
    uri = request.parsed_uri
    phone = None if uri.is_plain or request.uri.find(PURR) < 0 else wakers.phone_of(uri)
    if phone is None:
        context.add_all((target,))
    elif wakers.pusher.policy.wake > 0 and wakers.pusher.sleeps(phone) and not _talks(request, phone):
        WaitingInside(context, target, stays).begin(wakers, request, (wakers.target_of(phone),), (), others=False)
    else:
        if not stays:
            lead_to(target, wakers.target_of(phone))
        context.add_all((target,))


def forward(
    wakers: Wakers,
    context: ResponseContext,
    request: Request,
    targets: Sequence[Target],
    others: bool,
    skips: Callable[[Target], bool] | None = None,
) -> None:
    """Send a request on to registered phones, waking those that sleep. `others`: whether phones of the address that
    register meanwhile get it as well; `skips(target)`: whether one of them does not."""
    groups, asleep = wakers.split([targets]) if wakers.pusher.policy.wake > 0 else ([], [])
    if not asleep:
        context.add_all(targets)
        return
    if context.breadth < len(targets):
        context.reply(440)
        return
    share = max(1, context.breadth // (2 * len(targets)))  # the rest is for those who wake up, and who register as well
    awake = [target for group in groups for target in group]
    WaitingRequest(context, share, skips).begin(wakers, request, asleep, awake, others)
