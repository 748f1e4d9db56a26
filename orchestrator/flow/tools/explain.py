"""Why did nothing happen? What flows wait for, and the events that nearly fitted (FLOWLANG §9.4).

`waiting` lists the live subscriptions with what each wants: the values its filter was armed with, the condition that is
left, the time it has; then the steps that wait for something else than an event (run.waits). An `Explainer` watches
the bus for somebody who asks and says, for every event of the right name, why each of those subscriptions takes it or
does not. That looks at every subscription of the event, so it is done for a target and for as long as somebody watches,
never by default.

A target is a run (`ring_user#17`), a subscription by its `id:` (`late_phone`, or of one run `ring_user#17/late_phone`),
or a flow by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import StepError, TooManyWatchersError
from orchestrator.events.bus import Subscription
from orchestrator.events.event import Event
from orchestrator.flow.language.program import Evaluable, Where
from orchestrator.flow.run.engine import FlowEngine
from orchestrator.flow.run.listen import Listener, Wait
from orchestrator.flow.run.run_facts import EventUnfit
from orchestrator.flow.run.task import values_read
from orchestrator.flow.run.trace import masked, masked_text
from orchestrator.flow.run.triggers import Starter
from orchestrator.flow.run.waits import waiting_steps
from orchestrator.flow.tools.graph import filter_text

Tell = Callable[[dict[str, Any]], object]

WATCHERS = 8
"""Explanations at a time: each makes every event cost a look at all its subscriptions."""

STRETCH = 100
"""Subscriptions and runs looked at between two breaths: some 1 ms."""


@dataclass(frozen=True, slots=True)
class Party:
    """Who holds a subscription: a `subscribe` or `wait` of a run (a branch of `first_of` too), or a flow's trigger."""

    kind: str
    flow: str
    run: str
    """'' for a trigger."""
    id: str
    event: str
    file: str
    line: int
    where: Where | None
    env: Any

    @property
    def name(self) -> str:
        """`ring_user#17/late_phone`; the event where the step has no id, the flow for a trigger."""
        return f"{self.run}/{self.id or self.event}" if self.run else self.flow

    def is_meant(self, target: str) -> bool:
        """Whether a target names it; the empty one names all."""
        return not target or target in (self.run, self.flow, self.name) or (bool(self.id) and target == self.id)


def party_of(subscription: Subscription) -> Party | None:
    """Who holds it; None when no flow does."""
    owner = subscription.owner
    if isinstance(owner, Starter):
        flow, trigger = owner.flow, owner.flow.trigger
        place = flow.place
        return Party("trigger", flow.name, "", "", trigger.event, place.file, place.line, trigger.where, owner.env)
    if not isinstance(owner, Listener | Wait):
        return None
    step, run = owner.step, owner.run
    kind = "subscribe" if isinstance(owner, Listener) else "wait"
    name, place = step.args["event"], step.place
    return Party(
        kind, run.flow.name, run.name, step.id or "", name, place.file, place.line, step.args.get("where"), owner.env
    )


def _nothing() -> None:
    """Whoever waits for nobody need not breathe."""


def waiting(
    engine: FlowEngine, target: str, now: float, breathe: Callable[[], object] = _nothing
) -> list[dict[str, Any]]:
    """What a target waits for, one JSON object each: live subscriptions in the order they were armed, then steps that
    wait for no event, their `kind` is step. `breathe()` is called between two stretches; what ends meanwhile is left
    out."""
    found = []
    subscriptions = sorted(engine.bus, key=lambda subscription: subscription.number)
    events = frozenset(sub.owner.ticket for sub in subscriptions if isinstance(sub.owner, Wait))
    for number, subscription in enumerate(subscriptions, 1):
        if number % STRETCH == 0:
            breathe()
        party = party_of(subscription) if subscription.armed else None
        if party is not None and party.is_meant(target):
            found.append(shown_subscription(subscription, party, now))
    for number, run in enumerate(list(engine.runs.values()), 1):
        if number % STRETCH == 0:
            breathe()
        steps = waiting_steps(run, now, events)
        found += [step for step in steps if target in ("", run.name, run.flow.name, step["name"], step["id"] or None)]
    return found


def shown_subscription(subscription: Subscription, party: Party, now: float) -> dict[str, Any]:
    """An armed subscription: what it wants, and for how long."""
    wanted = subscription.wanted
    own = wanted.pop("", None)
    due = subscription.due
    rest = party.where.rest if party.where is not None else None
    return {
        "name": party.name,
        "kind": party.kind,
        "run": party.run,
        "event": party.event,
        "file": party.file,
        "line": party.line,
        "where": masked_text(filter_text(party.where)),
        "wanted": {name: _plain(name, value) for name, value in wanted.items()},
        "condition": getattr(rest, "source", "…") if rest is not None else "",
        "call": own or "",
        "taken": subscription.taken,
        "left": subscription.left,
        "expires_in": None if due is None else round(max(0.0, due - now), 3),
    }


def verdict(event: Event, subscription: Subscription, party: Party) -> dict[str, Any] | None:
    """What a subscription makes of an event of its name: `fits`, and if not, why. None when it is about another
    call, which says nothing about this one."""
    wanted = subscription.wanted
    if wanted.pop("", event.call) != event.call:
        return None
    missed = {
        name: {"is": _plain(name, event.attributes.get(name)), "wanted": _plain(name, value)}
        for name, value in wanted.items()
        if event.attributes.get(name) != value
    }
    told: dict[str, Any] = {"subscription": party.name, "event": event.name, "time": event.time, "line": party.line}
    if missed:
        why = ", ".join(f"{name} is {found['is']!r}, wanted {found['wanted']!r}" for name, found in missed.items())
        return {**told, "fits": False, "missed": missed, "why": why}
    rest = party.where.rest if party.where is not None else None
    held, why = _condition(rest, party.env, event.attributes) if rest is not None else (True, "")
    return {**told, "fits": held, "missed": {}, "why": why}


def _condition(rest: Evaluable, env: Any, attributes: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the rest of a filter holds, and what it looked at when it does not."""
    inside = env.bind("event", attributes)
    source = getattr(rest, "source", "the condition")
    try:
        if rest.evaluate(inside) is True:
            return True, ""
    except StepError as error:
        return False, masked_text(f"{source} failed, {error.type}: {error.message}")
    read = ", ".join(f"{name} is {masked(value, name)!r}" for name, value in values_read(rest, inside))
    return False, f"{source} is false" + (f": {read}" if read else "")


def _plain(name: str, value: Any) -> Any:
    """A value as JSON has it, without push tokens."""
    value = masked(value, name)
    return value if value is None or isinstance(value, str | int | float) else str(value)


class Explainer:
    """Whoever asks for explanations of one engine. The bus is watched only while somebody does."""

    def __init__(self, engine: FlowEngine) -> None:
        self._engine = engine
        self._watchers: dict[int, tuple[str, Tell]] = {}
        self._last = 0

    def open(self, target: str, tell: Tell) -> int:
        """Call `tell(verdict)` for every event of a name the target waits for; returns a number for `close`.

        What did not fit also goes into the trace of the run, so that it is there afterwards.

        Raises TooManyWatchersError.
        """
        if len(self._watchers) >= WATCHERS:
            raise TooManyWatchersError("too many explanations")
        if not self._watchers:
            self._engine.bus.watch(self._watch)
        self._last += 1
        self._watchers[self._last] = (target, tell)
        return self._last

    def close(self, number: int) -> None:
        """Idempotent; after the last one events cost what they did before."""
        if self._watchers.pop(number, None) is not None and not self._watchers:
            self._engine.bus.unwatch(self._watch)

    def _watch(self, event: Event) -> None:
        for subscription, party in self._parties(event):
            meant = [tell for target, tell in self._watchers.values() if party.is_meant(target)]
            told = verdict(event, subscription, party) if meant else None
            if told is None:
                continue
            if not told["fits"] and isinstance(subscription.owner, Listener | Wait):
                owner = subscription.owner
                owner.run.trace(owner.step, EventUnfit(party.id or event.name, told["why"]))
            for tell in meant:
                tell(told)

    def _parties(self, event: Event) -> Iterator[tuple[Subscription, Party]]:
        for subscription in list(self._engine.bus.of(event.name)):
            party = party_of(subscription)
            if party is not None:
                yield subscription, party
