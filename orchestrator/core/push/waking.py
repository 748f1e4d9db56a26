"""Requests that wait for phones to wake up (RFC 8599 §5.3): a push to each phone that sleeps, and each one gets the
request when its REGISTER comes, once, wherever it comes from then.

A wait ends after its time, or as soon as nobody is waited for any more: all phones have woken up, or their pushes have
failed. A phone whose push has failed gets the request where it is; one that is dead to its service gets none. Until the
end other phones of the address that register get the request, too. Who has the request is a `Waiter`: a relay of a
flow, or what serves a request without one. When a call is over before a phone has registered, its app may be told by
another push.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2s
from typing import Any, Final, Protocol

from orchestrator.core.node import Node
from orchestrator.core.push.pusher import Pusher
from orchestrator.core.registrations import Registrations
from orchestrator.history import PhonePushed, PhoneWoke, PushEnded, RunFact
from orchestrator.sip.binding import same_contact
from orchestrator.sip.contact import Contact
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.push import Pushed, PushKind
from orchestrator.sip.target import Target
from orchestrator.sip.uri import parse_name_addr
from orchestrator.timers import Timer

SHARE: Final = 7 / 8
"""Of the 64*T1 that a request lives which is no INVITE, the part that it may wait: the rest is for its answer."""
LONGEST: Final = 256
"""Characters that an app is told of the caller's name, of his address, and of the Call-ID."""
PATIENCE: Final = 3.0
"""Seconds that a push service has for its answer before a phone whose connection stands gets the request over that."""
WAITING, WAITED, STOPPED = "waiting", "waited", "stopped"


class Waiter(Protocol):
    """Who has a request that waits."""

    def woke(self, target: Target) -> None:
        """A phone has registered that is to get the request."""

    def waited(self) -> None:
        """Nobody is waited for any more."""

    def leave(self) -> None:
        """The server stops and takes no registrations any more: nobody will come."""

    def note(self, fact: RunFact) -> None:
        """For the trace."""


def kind_of(request: Request) -> PushKind:
    """Why phones are woken for a request. One inside a dialog is no new call, whatever it is."""
    if request.to_tag:
        return "request"
    return {b"INVITE": "call", b"MESSAGE": "message"}.get(request.method, "request")  # type: ignore[return-value]


class Sleeper:
    """One phone that was pushed, whatever number of contacts it has. It is told what has become of the push."""

    __slots__ = ("waking", "bindings", "pending", "sent", "tried", "over")

    def __init__(self, waking: Waking, binding: Binding) -> None:
        self.waking = waking
        self.bindings: tuple[Binding, ...] = (binding,)
        self.pending = False
        """The push is under way."""
        self.sent = False
        """The push service has taken the push."""
        self.tried = 0
        """The connection over which it got the request without having been woken; 0 for none."""
        self.over = False
        """The request is not for this phone any more."""

    def __call__(self, pushed: Pushed) -> None:
        self.waking.pushed(self, pushed)

    def is_same_phone(self, binding: Binding) -> bool:
        return any(is_same_phone(own, binding) for own in self.bindings)


class Waking:
    """The phones that one request waits for."""

    __slots__ = (
        "aor", "state", "sleepers", "woken", "_unreached", "_wakers", "waiter", "_request", "_headers", "_sender",
        "_known", "_others", "_ttl", "_timer", "_patience", "_since",
    )  # fmt: skip

    def __init__(
        self,
        wakers: Wakers,
        waiter: Waiter,
        request: Request,
        known: Sequence[Binding],
        others: bool,
        headers: Sequence[bytes],
        sender: bytes,
        ttl: float,
    ) -> None:
        self.aor = ""
        self.state = WAITING
        self.sleepers: list[Sleeper] = []
        """Those who are waited for."""
        self.woken = 0
        """Phones that have woken up."""
        self._unreached: list[Sleeper] = []
        """Those whose pushes have failed, and who ring over no connection."""
        self._wakers = wakers
        self.waiter = waiter
        self._request = request
        self._headers = headers
        self._sender = sender
        self._known = list(known)
        """Phones that have the request, as they registered last."""
        self._others = others
        self._ttl = ttl
        self._timer: Timer | None = None
        self._patience: Timer | None = None
        self._since = wakers.node.timers.now

    @property
    def contacts(self) -> list[str]:
        """Of the phones that are waited for now."""
        waits = self.state == WAITING
        return [Contact(sleeper.bindings[0], short=True) for sleeper in self.sleepers] if waits else []

    # --- the pushes ---------------------------------------------------------------------------------------------------

    def push(self, targets: Sequence[Target]) -> None:
        """Push to phones that sleep. What comes of it is told in later turns."""
        for target in targets:
            for binding in _bindings_of(target):
                same = next((sleeper for sleeper in self.sleepers if sleeper.is_same_phone(binding)), None)
                if same is not None:
                    same.bindings += (binding,)
                else:
                    self.sleepers.append(Sleeper(self, binding))
        timers = self._wakers.node.timers
        for sleeper in self.sleepers:
            if not self._send(sleeper, kind_of(self._request)):
                timers.after(0.0, self._unsent, sleeper)
        self.aor = self.sleepers[0].bindings[0].aor
        self._wakers.add(self)
        self._timer = timers.after(self._ttl, Waking._time_over, self)
        if any(binding.connection for sleeper in self.sleepers for binding in sleeper.bindings):
            self._patience = timers.after(PATIENCE, Waking._lose_patience, self)

    def _send(self, sleeper: Sleeper, kind: PushKind) -> bool:
        """Whether the phone may be waited for: one that gets no more pushes was woken a moment ago, maybe."""
        pusher, binding, request = self._wakers.pusher, sleeper.bindings[0], self._request
        service = pusher.service_of(binding)
        sleeper.pending = sent = pusher.send(
            binding,
            kind,
            sleeper if kind != "cancel" else None,
            ttl=self._ttl,
            call=request.call_id.decode("utf-8", "replace"),
            collapse=collapse_of(request),
            data=told_of(self._wakers.node.network, request, self._sender),
        )
        if sent and service is not None:
            self.waiter.note(PhonePushed(Contact(binding, short=True), service.name, kind))
        return sent or pusher.pushed_lately(binding, self._ttl)

    def pushed(self, sleeper: Sleeper, pushed: Pushed) -> None:
        """What a push service says about its push."""
        sleeper.pending, sleeper.sent = False, pushed.outcome == "sent"
        if sleeper.over:
            self._call_off(sleeper)
        elif not sleeper.sent and self.state == WAITING and sleeper in self.sleepers:
            self.waiter.note(PushEnded(Contact(sleeper.bindings[0], short=True), pushed.outcome, pushed.reason))
            self.sleepers.remove(sleeper)
            if pushed.outcome == "failed":
                self._leave_asleep(sleeper)
            self._look()

    def _unsent(self, sleeper: Sleeper) -> None:
        """It gets no more pushes for now."""
        self.pushed(sleeper, Pushed("failed", "too many pushes"))

    def _leave_asleep(self, sleeper: Sleeper) -> None:
        """That its push has failed says nothing about the phone: it rings over its connection at once. Over UDP nobody
        knows whether it listens, so it rings there when the wait is over, if it has not registered until then."""
        connected = self._try_connection(sleeper)
        if connected is not None:
            self._known.append(connected)
        else:
            self._unreached.append(sleeper)

    def _lose_patience(self) -> None:
        """A service that hangs keeps no phone from ringing that may be there. It may wake up elsewhere yet."""
        for sleeper in self.sleepers:
            if not sleeper.sent:
                self._try_connection(sleeper)

    def _try_connection(self, sleeper: Sleeper) -> Binding | None:
        """Give the phone the request over its connection; None when that has ended."""
        connected = [binding for binding in self._live(sleeper) if binding.connection]
        if not connected:
            return None
        best = max(connected, key=_registered_at)
        if sleeper.tried != best.connection:
            sleeper.tried = best.connection
            self._send_to(best)
        return best

    def _ring_unreached(self) -> None:
        """The last resort: those whose pushes have failed, or were never answered, where they registered last."""
        hung = [sleeper for sleeper in self.sleepers if sleeper.pending and not sleeper.tried]
        for sleeper in (*self._unreached, *hung):
            reached = [binding for binding in self._live(sleeper) if not self._wakers.pusher.is_cut_off(binding)]
            if reached:
                self._ring(max(reached, key=_registered_at))

    def _live(self, sleeper: Sleeper) -> list[Binding]:
        """What has become of its bindings: it may have removed them, and their connections may have ended."""
        return [binding for binding in self._wakers.bindings_of(self.aor) if sleeper.is_same_phone(binding)]

    # --- registrations ------------------------------------------------------------------------------------------------

    def registered(self, change: Change) -> None:
        """A phone of the address has registered."""
        if self.state != WAITING:
            return
        new, old = change.binding, change.previous
        for sleeper in (*self.sleepers, *self._unreached):
            if old in sleeper.bindings or sleeper.is_same_phone(new):
                if not any(_is_repeated(own, new) for own in sleeper.bindings):
                    self._forget(sleeper)
                    self.woken += 1
                    self._measure(sleeper)
                    was = Contact(sleeper.bindings[0], short=True)
                    self.waiter.note(PhoneWoke(Contact(new, short=True), was))
                    if new.connection and new.connection == sleeper.tried:
                        self._known.append(new)
                    else:
                        self._ring(new)
                    self._look()
                return
        for number, known in enumerate(self._known):
            if known is old or is_same_phone(known, new):
                self._known[number] = new
                return
        if self._others:
            self._ring(new)

    def _measure(self, sleeper: Sleeper) -> None:
        service, node = self._wakers.pusher.service_of(sleeper.bindings[0]), self._wakers.node
        if service is not None:
            node.measures.wakeup_time.observe(service.name, node.timers.now - self._since)

    def _ring(self, binding: Binding) -> None:
        self._known.append(binding)
        self._send_to(binding)

    def _send_to(self, binding: Binding) -> None:
        target = self._wakers.target_of(binding)
        target.headers, target.sender = self._headers, self._sender
        self.waiter.woke(target)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self.sleepers and self.state == WAITING:
            self._waited()

    def _time_over(self) -> None:
        self._wakers.node.count("push.slept_on")
        self._waited()

    def _waited(self) -> None:
        self._end(WAITED)
        self._ring_unreached()
        self.waiter.waited()

    def _forget(self, sleeper: Sleeper) -> None:
        for listed in (self.sleepers, self._unreached):
            if sleeper in listed:
                listed.remove(sleeper)

    def forget(self, contacts: Sequence[str]) -> None:
        """These phones are not to get the request any more; they are named by their contacts."""
        for sleeper in (*self.sleepers, *self._unreached):
            if any(Contact(binding) in contacts for binding in sleeper.bindings):
                self._forget(sleeper)
                self._call_off(sleeper)
        self._look()

    def stop(self) -> None:
        """The request is answered or given up: who still sleeps is told, where the push service can."""
        if self.state == WAITING:
            self._end(STOPPED)
            for sleeper in self.sleepers:
                self._call_off(sleeper)

    def leave(self) -> None:
        """The server stops."""
        if self.state == WAITING:
            self._end(STOPPED)
            self.waiter.leave()
            for sleeper in self.sleepers:
                self._call_off(sleeper)

    def _call_off(self, sleeper: Sleeper) -> None:
        """Tell a phone that the call it may have been woken for is over, once it is known that it was."""
        sleeper.over = True
        service = self._wakers.pusher.service_of(sleeper.bindings[0])
        if sleeper.sent and service is not None and service.cancels and kind_of(self._request) == "call":
            sleeper.sent = False
            self._send(sleeper, "cancel")

    def _end(self, state: str) -> None:
        self.state = state
        for timer in (self._timer, self._patience):
            if timer is not None:
                timer.cancel()
        self._wakers.drop(self)

    def __repr__(self) -> str:
        return f"<Waking {self.aor} {self.state} sleepers={len(self.sleepers)}>"


class Wakers:
    """All waits of one engine."""

    def __init__(self, node: Node, pusher: Pusher, registrations: Registrations) -> None:
        self.node = node
        self.pusher = pusher
        self.target_of = registrations.target_of
        self.phone_of = registrations.phone_of
        self.bindings_of = registrations.bindings_of
        registrations.hearers.append(self.heard)
        self._waiting: dict[str, list[Waking]] = {}
        """Address of record → who waits for its phones."""

    def __len__(self) -> int:
        """Requests that wait."""
        return sum(map(len, self._waiting.values()))

    def split(self, groups: Sequence[Sequence[Target]]) -> tuple[list[list[Target]], list[Target]]:
        """Destinations in the order they ring, without those that sleep; and those."""
        sleeps = self.pusher.sleeps
        asleep = [target for group in groups for target in group if _all(target, sleeps)]
        if not asleep:
            return [list(group) for group in groups if group], asleep
        awake = ([target for target in group if target not in asleep] for group in groups)
        return [group for group in awake if group], asleep

    def wake(
        self,
        waiter: Waiter,
        request: Request,
        asleep: Sequence[Target],
        awake: Sequence[Target],
        wait: float,
        *,
        others: bool = True,
        headers: Sequence[bytes] = (),
        sender: bytes = b"",
    ) -> Waking:
        """Push to the phones that sleep, at least one, and have `waiter` hear who wakes up within `wait` seconds.

        `awake` are those that have the request already, `others`: whether further phones of the address get it as well.
        `headers` and `sender` are for the copies of it; see `Target`.
        """
        if request.method != b"INVITE":
            wait = min(wait, self.node.settings.times.timeout * SHARE)
        known = [binding for target in awake for binding in _bindings_of(target)]
        waking = Waking(self, waiter, request, known, others, headers, sender, wait)
        waking.push(asleep)
        return waking

    def heard(self, changes: Sequence[Change]) -> None:
        """What has been registered."""
        if self._waiting:
            for change in changes:
                if change.stands:
                    for waking in tuple(self._waiting.get(change.binding.aor, ())):
                        waking.registered(change)

    def awaits(self, aor: str) -> bool:
        """Whether a request waits for phones of this address."""
        return aor in self._waiting

    def leave(self) -> None:
        """The server stops: nobody waits any more."""
        for waking in [waking for wakings in self._waiting.values() for waking in wakings]:
            waking.leave()

    def add(self, waking: Waking) -> None:
        self._waiting.setdefault(waking.aor, []).append(waking)

    def drop(self, waking: Waking) -> None:
        wakings = self._waiting.get(waking.aor, [])
        if waking in wakings:
            wakings.remove(waking)
            if not wakings:
                del self._waiting[waking.aor]


def is_same_phone(a: Binding, b: Binding) -> bool:
    """Whether two contacts of one address are of one phone: of one instance, or one contact (`sip.binding`)."""
    return (a.instance is not None and a.instance == b.instance) or same_contact(a, b)


def _is_repeated(old: Binding, new: Binding) -> bool:
    """Whether both are of one REGISTER: something else has changed about the contact, its phone has said nothing."""
    return (old.call_id, old.cseq) == (new.call_id, new.cseq)


def _registered_at(binding: Binding) -> float:
    return binding.registered_at


def _bindings_of(target: Target) -> Iterator[Binding]:
    """Those of a phone: of all its flows."""
    for flow in (target, *target.flows):
        if flow.binding is not None:
            yield flow.binding


def _all(target: Target, sleeps: Callable[[Binding], bool]) -> bool:
    if not target.flows:
        return target.binding is not None and sleeps(target.binding)
    bindings = list(_bindings_of(target))
    return bool(bindings) and all(map(sleeps, bindings))


def collapse_of(request: Request) -> str:
    """What ties the pushes of one call together, so that the last one replaces those before: 32 characters, which is
    what Web Push takes (RFC 8030 §5.4). Each text is for itself."""
    return blake2s(request.call_id, digest_size=16).hexdigest() if kind_of(request) == "call" else ""


def told_of(network: SipNetwork, request: Request, sender: bytes = b"") -> dict[str, Any]:
    """What the app is told: the Call-ID, who calls, and how he is called. `sender` is the From of the copies where that
    is not the caller's."""
    party = parse_name_addr(sender) if sender else request.from_
    told: dict[str, str | bytes] = {
        "call": request.call_id,
        "from": network.aor(party.parsed),
        "display_name": party.display,
    }
    return {name: _text(value) for name, value in told.items()}


def _text(value: str | bytes) -> str:
    return (value if isinstance(value, str) else value.decode("utf-8", "replace"))[:LONGEST]
