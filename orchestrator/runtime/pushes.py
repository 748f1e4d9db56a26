"""Pushing to the phones of an address by hand.

    POST /api/v1/push  {"to": "bob@example.com", "kind": "call", "ttl": 30, "data": {"from": "alice@example.com"}}

answers what became of it for each phone: {"to": …, "phones": [{"contact", "service", "app", "token", "asleep",
"outcome", "reason", "id"}]}. `outcome` is sent, failed or dead, `none` for a phone that nobody can push to, `pending`
where the push service has not answered in time. Tokens are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, get_args

from gevent.event import Event
from loguru import logger

from orchestrator.core.push.pusher import Pusher
from orchestrator.flow.run.trace import masked_text
from orchestrator.sip.location import Binding
from orchestrator.sip.push import PushAddress, Pushed, PushKind

PATIENCE: Final = 8.0
"""Seconds in which the push services have to answer; the client waits a little longer."""
BUSY: Final = 1.0
"""Seconds in which the reactor has to come to it."""
TTL, MOST_TTL = 30.0, 28 * 86400.0
"""Seconds that a push service may keep a push unless asked otherwise, and at most (FCM: four weeks)."""
KINDS: Final[Sequence[str]] = get_args(PushKind)

Turn = Callable[..., None]
"""`turn(receive, …)` has `receive(…, now)` done in a turn of the reactor."""


class WrongPush(ValueError):
    """What is asked for makes no sense; the text says what is wrong."""


class NobodyRegistered(LookupError):
    """No phone is registered for the address."""


class Busy(Exception):
    """The server has not come to it."""


class HandPushes:
    """Pushes when somebody asks for it."""

    def __init__(self, pusher: Pusher, bindings_of: Callable[[str], Sequence[Binding]], turn: Turn) -> None:
        self._pusher = pusher
        self._bindings_of = bindings_of
        self._turn = turn

    def push(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Do what `told` asks for and wait for the push services. Raises WrongPush, NobodyRegistered, Busy."""
        asked = _Asked(told)
        work = _ByHand(self._pusher, self._bindings_of, asked)
        self._turn(work.begin)
        if not work.begun.wait(BUSY):
            work.given_up = True
            raise Busy
        if not work.phones:
            raise NobodyRegistered(f"no phone is registered as {asked.to}")
        work.ended.wait(PATIENCE)
        logger.bind(aor=asked.to, kind=asked.kind, phones=len(work.phones)).info("pushed_by_hand")
        return {"to": asked.to, "phones": work.phones}


class _Asked:
    """What the body says. Raises WrongPush."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        for name in body:
            if name not in ("to", "kind", "ttl", "data"):
                raise WrongPush(f"{name[:50]}: There is no such key; known: to, kind, ttl, data.")
        self.to = body.get("to")
        if not isinstance(self.to, str) or "@" not in self.to or not self.to.isprintable():
            raise WrongPush("to: An address of record is expected: bob@example.com.")
        user, _, host = self.to.removeprefix("sip:").rpartition("@")
        self.to = f"{user}@{host.lower()}"
        kind = body.get("kind", "call")
        if kind not in KINDS:
            raise WrongPush(f"kind: The kind is one of {', '.join(KINDS)}.")
        self.kind = cast(PushKind, kind)
        ttl = body.get("ttl", TTL)
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 <= ttl <= MOST_TTL:
            raise WrongPush(f"ttl: A number of seconds from 0 to {MOST_TTL:g} is expected.")
        self.ttl = float(ttl)
        self.data = body.get("data", {})
        if not isinstance(self.data, dict):
            raise WrongPush("data: A map is expected.")


class _ByHand:
    """One request: its pushes, and what becomes of them."""

    def __init__(self, pusher: Pusher, bindings_of: Callable[[str], Sequence[Binding]], asked: _Asked) -> None:
        self._pusher = pusher
        self._bindings_of = bindings_of
        self._asked = asked
        self._open = 0
        self.phones: list[dict[str, Any]] = []
        self.begun, self.ended = Event(), Event()
        self.given_up = False
        """Nobody waits for it any more."""

    def begin(self, now: float) -> None:
        """In a turn: push to every phone, whether it sleeps or not."""
        if self.given_up:
            return
        try:
            for binding in self._bindings_of(str(self._asked.to)):
                self.phones.append(self._push(binding))
        finally:
            self.begun.set()
            if not self._open:
                self.ended.set()

    def _push(self, binding: Binding) -> dict[str, Any]:
        pusher, asked = self._pusher, self._asked
        address, service = binding.push_address, pusher.service_of(binding)
        told: dict[str, Any] = {"contact": masked_text(binding.uri), "outcome": "none", "reason": "", "id": ""}
        if address is None:
            return {**told, "reason": _unnamed(binding)}
        told |= {"service": service.name if service else "", "app": address.app, "token": address.shown}
        told["asleep"] = pusher.sleeps(binding)
        if service is None:
            return {**told, "reason": _unserved(address)}

        def done(pushed: Pushed) -> None:
            told.update(outcome=pushed.outcome, reason=pushed.reason, id=pushed.id)
            self._open -= 1
            if not self._open:
                self.ended.set()

        if not pusher.send(binding, asked.kind, done, ttl=asked.ttl, data=dict(asked.data)):
            return {
                **told,
                "outcome": "failed",
                "reason": "too many pushes to it in a minute (push: per_phone)",
            }
        self._open += 1
        told["outcome"] = "pending"
        return told


def _unnamed(binding: Binding) -> str:
    """Why a Contact has no push address."""
    written = binding.uri.lower()
    missing = [name for name in ("pn-provider", "pn-prid") if f";{name}=" not in written]
    if len(missing) == 1:
        return f"its Contact has no {missing[0]}"
    return "its Contact names no push service (pn-provider, pn-prid)"


def _unserved(address: PushAddress) -> str:
    team = f" of team {address.team}" if address.team else ""
    return f"nothing under push: services: serves {address.service} and {address.app!r}{team}"
