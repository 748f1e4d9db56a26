"""One `relay` step at work: which destinations ring now, which come next, and when it is over (FLOWLANG §5 relay).

A relay adds branches to the call's response context and counts its own. It ends, once, with a result for the flow:
when a branch answers, when all have failed and nothing more is awaited, or at `ring:`. `keep_open` means that running
out of branches ends nothing before its time. Late branches (`inject`) join the relay that is running, under its
headers and timers.

With `wake:` phones that sleep are waited for (`core.push.waking`): each one rings when it wakes up, or when its turn
comes.

With `via:` a single branch leads to FreeSWITCH, and the destinations wait until FreeSWITCH has sent the call back. A
`transfer` is the same without that branch (`core.steps.transfer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from orchestrator.core.calls.call import Call
from orchestrator.core.gateways import SILENCE, Gateways
from orchestrator.core.push.waking import Waking
from orchestrator.core.steps.header_lines import header_lines
from orchestrator.core.steps.outcomes import outcome_of, result_of
from orchestrator.core.steps.turns import line_up, may_ring_beside
from orchestrator.flow.run import effects
from orchestrator.flow.run.signals import Ticket
from orchestrator.history import FreeSwitchUnusable, RunFact
from orchestrator.sip.branch import Branch
from orchestrator.sip.release import COMPLETED_ELSEWHERE
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.selection import rank
from orchestrator.sip.target import Target
from orchestrator.timers import TICK, Timer

BACK_WITHIN = 10.0
"""Seconds FreeSWITCH has to send the call back; longer means its dialplan does not."""

AT_ONCE: Final = b""
"""No URI."""
NOBODY: Final[frozenset[bytes]] = frozenset()
"""Each `frozenset()` is another one, of 200 octets."""

RELAY: Mapping[str, Mapping[str, str]] = {
    "new": {"sent": "sent", "rings": "ringing", "quiet": "open", "over": "done"},
    "sent": {"back": "open", "over": "done"},
    "ringing": {"rings": "ringing", "quiet": "open", "over": "done"},
    "open": {"rings": "ringing", "quiet": "open", "over": "done"},
    "done": {},
}
"""State → what has happened → next state.

    new      not begun
    sent     FreeSWITCH has the call and is to send it back (`via:`, `transfer`)
    ringing  destinations ring
    open     nobody rings; the next group, `keep_open:` or a late branch may go on from here
    done     the result is told, or the call is over

`rings`: a destination has been sent the call. `quiet`: the last one that rang has failed or is not waited for any more.
"""


class RelayAttempt:
    """A running relay. `done` gets the `relay result` mapping, once: the ticket of the step that waits for it, or a
    function."""

    __slots__ = (
        "call", "effect", "via", "_context", "_done", "_groups", "_ringing", "_best",
        "_tried", "_busy", "_began", "_timer", "_late", "_each_timer", "_back_timer", "_answered_by",
        "_replacing", "_late_timers", "_timed_out", "_gateways", "state", "waking",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        effect: effects.Relay,
        groups: Sequence[Sequence[Target]],
        done: Ticket | Callable[[dict[str, Any]], None],
        gateways: Gateways,
        front: Target | None = None,
    ) -> None:
        self.call = call
        self.state = "new"
        self._gateways = gateways
        self.effect = effect
        self.via = front
        """The target that leads to FreeSWITCH, None when destinations ring directly."""
        self._context: ResponseContext | None = None
        """Where destinations ring once FreeSWITCH has sent the call back."""
        self._done: Ticket | Callable[[dict[str, Any]], None] | None = done
        self._groups: tuple[Sequence[Target], ...] = tuple(groups)
        self._ringing: tuple[Branch, ...] = ()
        self._best: Branch | None = None
        self._tried: tuple[str, ...] = ()
        self.waking: Waking | None = None
        """The phones that are waited for to wake up."""
        self._busy = False
        """Several branches are being added or cancelled: one that fails on the spot settles nothing."""
        self._answered_by: Branch | None = None
        self._replacing = NOBODY
        """URIs of injected branches that take the place of the others: once they ring, or have been sent, where it has
        `AT_ONCE`."""
        self._began = 0.0
        self._timer: Timer | None = None
        """For what comes first, the end of `keep_open:` or that of `ring:`."""
        self._late = effect.keep_open is not None
        """Late branches are awaited: `keep_open:` is not over."""
        self._each_timer: Timer | None = None
        self._back_timer: Timer | None = None
        self._late_timers: tuple[Timer, ...] = ()
        self._timed_out = False
        """`each:` has run out for somebody."""

    def _move(self, what: str) -> None:
        """The only place where the state changes; what the table does not list changes nothing."""
        self.state = RELAY[self.state].get(what, self.state)

    @property
    def running(self) -> bool:
        return self.state != "done"

    @property
    def attended(self) -> bool:
        """A branch rings, or a timer runs that will end it."""
        timers = (self._timer, self._each_timer, self._back_timer)
        if self.waking is not None or any(timer is not None and timer.armed for timer in timers):
            return True
        behind = self._context.pending if self._context is not None else ()
        return any(branch.attended for branch in (*self.call.sent_on, *behind))

    @property
    def awaits_back(self) -> bool:
        return self.state == "sent"

    @property
    def headers(self) -> tuple[bytes, ...]:
        """Header lines every branch of this relay carries, late ones too."""
        return header_lines(self.effect.headers)

    @property
    def _on_back(self) -> bool:
        """Destinations do not ring on the front of the call: that leads to FreeSWITCH."""
        return self.via is not None

    @property
    def _closed(self) -> bool:
        """No destination can be added any more."""
        if self._on_back:
            return self._context is not None and self._context.closed
        return self.call.closed

    def start(self, waiting: Sequence[Target]) -> None:
        """Begin to ring. `waiting` were injected before and join the first group."""
        if waiting:
            first = self._groups[0] if self._groups else ()
            new = [target for target in waiting if not any(target.same_as(known) for known in first)]
            self._groups = ([*first, *new], *self._groups[1:])
        self.call.forget_failures()
        self._began = self.call.node.timers.now
        self._arm()
        self._open()

    def _arm(self) -> None:
        """Have the clock call for what ends first: one timer, for thousands of relays wait."""
        self._stop(self._timer)
        self._timer = None
        ring, keep_open = self.effect.ring, self.effect.keep_open if self._late else None
        if keep_open is not None and (ring is None or keep_open < ring):
            first: float | None = keep_open
        else:
            first = ring
        if first is not None:
            timers = self.call.node.timers
            self._timer = timers.after(max(0.0, self._began + first - timers.now), RelayAttempt._time_is_up, self)

    def _time_is_up(self) -> None:
        self._timer = None
        ring, passed = self.effect.ring, self.call.node.timers.now - self._began
        if ring is not None and passed > ring - TICK / 2:
            self._rang_out()
        else:
            self._late = False
            self._arm()
            self._check_settled()

    def _open(self) -> None:
        """Ring, at once or when FreeSWITCH has sent the call back."""
        if self.via is not None:
            silence = self.call.exchange.servers.acceptance.silence(self.effect.via)
            if silence:
                self.call.note(FreeSwitchUnusable(self.effect.via, f"takes no calls: {silence}"))
                self._finish("failed", 503)
                return
            self.await_back()
            self.call.front.add(self.via, self)
        else:
            self._ring_next()

    # --- FreeSWITCH in the middle -------------------------------------------------------------------------------------

    def await_back(self) -> None:
        """FreeSWITCH is to send the call back."""
        self._move("sent")
        self._back_timer = self.call.node.timers.after(BACK_WITHIN, RelayAttempt._back_missing, self)

    def back_arrived(self, context: ResponseContext) -> None:
        if self._back_timer is not None:
            self._back_timer.cancel()
        self._context = context
        self._move("back")
        if self.via is not None:
            self.call.exchange.servers.acceptance.took(self.effect.via)
        self._ring_next()

    def _back_missing(self) -> None:
        branch = self.call.front.find(self.via) if self.via is not None else None
        if branch is not None and branch.state == "trying":
            acceptance = self.call.exchange.servers.acceptance
            acceptance.silent(self.effect.via, f"no response to a call in {BACK_WITHIN:g} s")
        self.call.note(FreeSwitchUnusable(self.call.server, "did not send the call back"))
        self._finish("failed", 504)

    # --- branches -----------------------------------------------------------------------------------------------------

    def inject(self, targets: Sequence[Target], cancel_others: bool | str, last: bool) -> int:
        """Add late branches; returns how many were new. `cancel_others`: the others go on until a new one rings, or has
        really been sent (`when_sent`): a phone that refuses at once takes the call from nobody."""
        if cancel_others:
            at_once = (AT_ONCE,) if cancel_others == "when_sent" else ()
            self._replacing = frozenset([*at_once, *(target.uri for target in targets)])
        if self.awaits_back:
            self._groups = (targets, *self._groups)
            added = len(targets)
        else:
            added = self._add(targets)
        if last:
            self._await_nobody()
        for branch in self._ringing:
            if branch.state == "ringing":  # it was among them already
                self._replace(branch)
        self._check_settled()
        return added

    def sent(self, branch: Branch) -> None:
        """A branch is on its way."""
        if AT_ONCE in self._replacing:
            self._replace(branch)

    def is_news(self, branch: Branch) -> bool:
        """The way to FreeSWITCH is no destination."""
        return branch.target is not self.via

    def rang(self, branch: Branch, status: int) -> None:
        """A branch rings."""
        self._replace(branch)

    def _replace(self, branch: Branch) -> None:
        """Now those it replaces may stop, not before."""
        if branch.target.uri not in self._replacing:
            return
        replacing, self._replacing = self._replacing, NOBODY
        self._groups = ()
        self._stop(self._each_timer)
        self._wake_nobody()
        for other in self._ringing:
            if other.target.uri not in replacing:
                other.cancel((COMPLETED_ELSEWHERE,))

    def _add(self, targets: Sequence[Target]) -> int:
        context = self._context if self._on_back else self.call.front if targets else None
        if context is None:
            return 0
        added = 0
        self._busy = True
        for target in targets:
            branch = context.add(target, self)
            if branch is None:
                continue
            if branch.pending:
                self._ringing += (branch,)
                self._move("rings")
                added += 1
                if target.ring is not None:
                    timers = self.call.node.timers
                    self._late_timers += (timers.after(target.ring, self._rang_long_enough, branch),)
        self._busy = False
        return added

    def _ring_next(self) -> None:
        """Ring the next group that has anybody to ring."""
        self._stop(self._each_timer)
        waits = self._on_back and self._context is None
        while self._groups and not waits and not self._closed:
            group, self._groups = self._groups[0], self._groups[1:]
            if self._add(group):
                if self.effect.each is not None:
                    self._each_timer = self.call.node.timers.after(self.effect.each, RelayAttempt._each_over, self)
                return
        if self._closed:
            self._groups = ()
        if not self._ringing:
            self._move("quiet")
        self._check_settled()

    def _rang_long_enough(self, branch: Branch) -> None:
        """`ring:` of an injected branch."""
        if branch in self._ringing:
            branch.cancel()
            self._timed_out = True
            self._forget_cancelled()
            self._go_on()

    def _each_over(self) -> None:
        self._timed_out = True
        self._note_silence(self.effect.each)
        self._cancel_ringing(("all",))
        self._forget_cancelled()
        if not self._fails_over(408, timeout=True):
            self._groups = ()
        self._ring_next()

    def _note_silence(self, waited: float | None) -> None:
        """Gateways that have not even said 100 in the time they had."""
        if waited is not None and waited >= SILENCE:
            for branch in self._ringing:
                if branch.target.label and branch.state == "trying":
                    self._gateways.silent(branch.target.label, f"no response to a call in {waited:g} s")

    def _forget_cancelled(self) -> None:
        """Branches we stopped are not waited for: what they still say is the response context's business."""
        for branch in self._ringing:
            if branch.cancelled:
                self._leave(branch)
                self._note_tried(branch)

    def _leave(self, branch: Branch) -> None:
        """It rings no more."""
        self._ringing = tuple([other for other in self._ringing if other is not branch])
        if not self._ringing:
            self._move("quiet")

    def failed(self, branch: Branch) -> None:
        if not self.running:
            return
        if branch.target is self.via:
            self._front_failed(branch)
            return
        self._note_tried(branch)
        if branch.target.label:
            self._gateways.failed(branch.target.label, branch.status, branch.response)
        if self._best is None or rank(branch.status) < rank(self._best.status):
            self._best = branch
        if branch not in self._ringing:
            return  # failed while it was being added
        self._leave(branch)
        if branch.status >= 600 or not self._fails_over(branch.status, branch.response is None):
            self._groups = ()
            self._await_nobody()
        self._go_on()

    def _front_failed(self, branch: Branch) -> None:
        """FreeSWITCH has given the call up: whoever still rings behind it rings for nobody."""
        if self.awaits_back and not branch.cancelled:  # what it says is its own
            acceptance = self.call.exchange.servers.acceptance
            acceptance.failed(self.effect.via, branch.status, branch.response)
        self._cancel_ringing(("all",))
        self._forget_cancelled()
        self._best = branch
        self._finish(outcome_of(branch.status), branch.status)

    def _go_on(self) -> None:
        if not self._ringing and self._groups:
            self._ring_next()
        else:
            self._check_settled()

    def _fails_over(self, status: int, timeout: bool) -> bool:
        """`failover_on`: whether this failure makes the next destination be tried; every one does where it is not
        given."""
        wanted = self.effect.failover_on
        words = (str(status), f"{status // 100}xx", "timeout" if timeout else "")
        return not wanted or any(word.lower() in words for word in wanted)

    def _note_tried(self, branch: Branch) -> None:
        self._tried += (branch.target.label or branch.target.contact,)

    def stop(self, wanted: Sequence[str]) -> None:
        """`cancel`: stop all branches, or those named by number or contact."""
        self._cancel_ringing(wanted)
        self._forget_cancelled()
        if self.waking is not None:
            self.waking.forget(wanted)
        if "all" in wanted:
            self._finish("cancelled", 487)
        else:
            self._check_settled()

    def undo(self) -> None:
        """Nobody waits for it any more: stop ringing (`flow.run.signals.Work`)."""
        self.stop(("all",))

    def _cancel_ringing(self, wanted: Sequence[str]) -> None:
        self._busy = True
        for branch in self._ringing:
            if "all" in wanted or str(branch.number) in wanted or branch.target.contact in wanted:
                branch.cancel()
        self._busy = False

    # --- phones that sleep (core.push.waking.Waiter) ------------------------------------------------------------------

    def woke(self, target: Target) -> None:
        mode = self.effect.mode
        if self._ringing and may_ring_beside(target, (branch.target for branch in self._ringing), mode):
            self._add([target])
            return
        self._groups = line_up(target, self._groups, mode)
        if not self.awaits_back and not self._ringing:
            self._ring_next()

    def waited(self) -> None:
        self._wake_nobody()
        self._check_settled()

    def leave(self) -> None:
        self._wake_nobody()
        if not self._ringing and not self.awaits_back:
            self.call.hangup("server stops", 503)

    def note(self, fact: RunFact) -> None:
        self.call.note(fact)

    def _wake_nobody(self) -> None:
        waking, self.waking = self.waking, None
        if waking is not None:
            self.call.woken += waking.woken
            waking.stop()

    def _await_nobody(self) -> None:
        """No further branch is awaited, but for those whose turn comes."""
        if self._late:
            self._late = False
            self._arm()
        self._wake_nobody()

    # --- the end ------------------------------------------------------------------------------------------------------

    def answered_by(self, branch: Branch) -> None:
        """A destination behind FreeSWITCH has answered; the caller's answer follows from FreeSWITCH."""
        self._answered_by = branch

    def answering_contact(self, branch: Branch) -> str:
        return (self._answered_by or branch).target.contact

    def finish_answered(self, branch: Branch, status: int) -> None:
        winner = self._answered_by or branch
        self._note_tried(winner)
        if winner.target.label:
            self._gateways.answered(winner.target.label)
        self._finish("answered", status, winner)

    def _rang_out(self) -> None:
        self._groups = ()
        self._note_silence(self.effect.ring)
        self._cancel_ringing(("all",))
        self._forget_cancelled()
        self._finish("no_answer", 408)

    def _check_settled(self) -> None:
        awaited = self._late or self.waking is not None
        if self.state != "open" or self._busy or self._groups or awaited:
            return
        if self._best is not None:
            self._finish(outcome_of(self._best.status), self._best.status)
        elif self._timed_out:
            self._finish("no_answer", 408)
        else:
            self._finish("unavailable", 480)

    def _finish(self, outcome: str, code: int, winner: Branch | None = None) -> None:
        done = self._done
        if done is None or not self.running:
            return
        branch, tried = winner or self._best, self._tried
        self.abandon()
        if self.call.relay is self:
            self.call.relay = None
        if winner is None:
            self._end_back(code)
        result = result_of(outcome, code, branch, tried)
        if isinstance(done, Ticket):
            self.call.exchange.flows.resume(done, result)
        else:
            done(result)

    def _end_back(self, code: int) -> None:
        """The destinations behind FreeSWITCH have failed: tell it, and take back the call we sent it."""
        if self.via is None:
            return
        self.call.front.cancel_pending()
        if self._context is not None:
            self._context.reply(code)

    def call_ended(self) -> None:
        """The call is over. The run of the call hears so, and undoes what it waits for."""

    def abandon(self) -> None:
        """Stop all timers and report nothing more: the call is over or the result is known."""
        self._move("over")
        self._done = None
        self._wake_nobody()
        self._groups = ()
        self._ringing = ()  # branches refer to us
        self._best = self._answered_by = None
        for timer in (self._timer, self._each_timer, self._back_timer, *self._late_timers):
            self._stop(timer)
        self._late = False

    @staticmethod
    def _stop(timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state} ringing={len(self._ringing)} next={len(self._groups)}>"
