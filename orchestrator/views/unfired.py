"""Why has this subscription not fired: what a run waits for, and the last events that nearly were it.

An `Explainer` (`flow.tools.explain`) says so of events to come. Here it is asked of those that have passed, as far as
the history of calls remembers them: the last of each name, while calls of flows are up. A condition sees the names that
its step was armed with, as then.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from orchestrator.core.engine import Engine
from orchestrator.events.bus import Subscription
from orchestrator.flow.language.program import Branch
from orchestrator.flow.run.listen import Listener, Wait
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.run_facts import Subscribed, WaitBegan
from orchestrator.flow.run.waits import waiting_steps
from orchestrator.flow.tools.explain import Party, party_of, shown_subscription, verdict
from orchestrator.views.call_history import CallHistory
from orchestrator.views.shown_values import iso

MOST = 50
"""Subscriptions of one run that are told."""
NEAR = 10
"""Events of each."""
LOOKED = 20_000
"""Subscriptions of one name that are looked through for those of the run."""

_ARMED = (Subscribed, WaitBegan)


def unfired(engine: Engine, history: CallHistory, run: Run, now: float) -> list[dict[str, Any]]:
    """What a run waits for: its subscriptions in the order they were armed, then steps that wait for no event.

    Each as `/subscriptions` has it; a subscription has `seen` besides, the last events of its name, the newest first:
    `time`, `call` ('' for none), `fits` and if not, `why`, which names the first condition that failed, and `missed`.
    Events of other calls say nothing about a subscription that is for its own.
    """
    owners: list[Listener | Wait] = [owner for owner in run.listeners if isinstance(owner, Listener)]
    owners += _waits(engine, run)
    found: list[tuple[Subscription, Party]] = []
    for owner in owners:
        party = party_of(owner.subscription) if owner.subscription.armed else None
        if party is not None:
            found.append((owner.subscription, party))
    found.sort(key=lambda entry: entry[0].number)
    told = [_told(engine, history, run, subscription, party, now) for subscription, party in found[:MOST]]
    events = frozenset(owner.ticket for owner in owners if isinstance(owner, Wait))
    return [*told, *islice(waiting_steps(run, now, events), MOST)]


def _waits(engine: Engine, run: Run) -> list[Wait]:
    """The armed `wait`s of its tasks, branches of `first_of` too."""
    names: dict[str, None] = {}
    for task in run.tasks:
        if task.ticket is not None and task.step is not None:
            branches = task.step.args.get("branches") or task.step.args.get("first_of") or ()
            steps = [task.step, *(branch.wait for branch in branches if isinstance(branch, Branch) and branch.wait)]
            names.update((step.args["event"], None) for step in steps if isinstance(step.args.get("event"), str))
    owners = (subscription.owner for name in names for subscription in islice(engine.bus.of(name), LOOKED))
    return [owner for owner in owners if isinstance(owner, Wait) and owner.run is run]


def _told(
    engine: Engine, history: CallHistory, run: Run, subscription: Subscription, party: Party, now: float
) -> dict[str, Any]:
    armed = _armed_at(run, subscription)
    seen: list[dict[str, Any]] = []
    for event in reversed(history.recent(party.event)):
        said = verdict(event, subscription, party)
        if said is None:
            continue
        if event.time < armed:
            said = {**said, "fits": False, "why": "it came before this was armed"}
        time = iso(event.time + engine.settings.wall_offset)
        seen.append({"time": time, "call": event.call, **{name: said[name] for name in ("fits", "why", "missed")}})
        if len(seen) == NEAR:
            break
    return {**shown_subscription(subscription, party, now), "seen": seen}


def _armed_at(run: Run, subscription: Subscription) -> float:
    """Seconds of the engine's clock, as the trace has it; 0 where that line is gone."""
    step = subscription.owner.step
    times = [record.time for record in run.records if record.step is step and isinstance(record.fact, _ARMED)]
    return times[-1] if times else 0.0
