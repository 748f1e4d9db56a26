"""What flows wait for, and why an event is not theirs."""

from __future__ import annotations

from typing import Any

import pytest
from flowkit import World

from orchestrator.errors import TooManyWatchersError
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.tools import explain
from orchestrator.flow.tools.explain import WATCHERS, Explainer, waiting

FLOWS = """\
flowlang: 1
events:
  pickup: {group: optional text, picker: text}
flows:
  ring_user:
    on: invite
    do:
      - subscribe: registered
        id: late_phone
        where: {aor: '${call.to.aor}'}
        for: 20s
        limit: 3
        do: [log: here]
      - subscribe: pickup
        where: event.picker != call.from.user and (event.group ?? '') == 'sales'
        do: [log: picked]
      - first_of:
          - wait: dtmf
            where: event.leg == 'callee'
          - after: 60s
  on_pickup:
    on: {event: pickup, where: {group: support}}
    do: [log: support]
"""


def world() -> World:
    program, _ = load_sources([Source("x.flow.yaml", FLOWS)])
    return World(program=program)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found]


class Watching:
    """What an explainer has told."""

    def __init__(self, world: World, target: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.explainer = Explainer(world.engine)
        self.number = self.explainer.open(target, self.told.append)

    @property
    def why(self) -> list[tuple[str, bool, str]]:
        return [(one["subscription"], one["fits"], one["why"]) for one in self.told]


# --- what is waited for -----------------------------------------------------------------------------------------------


def test_all_that_waits_in_the_order_it_was_armed() -> None:
    w = world()
    w.invite()
    found = waiting(w.engine, "", 5.0)
    assert names(found) == ["on_pickup", "ring_user#1/late_phone", "ring_user#1/pickup", "ring_user#1/dtmf"]
    assert [one["kind"] for one in found] == ["trigger", "subscribe", "subscribe", "wait"]


def test_what_a_subscription_wants() -> None:
    w = world()
    run = w.invite()
    _, late, pickup, dtmf = waiting(w.engine, "", 5.0)
    assert late == {
        "name": "ring_user#1/late_phone",
        "kind": "subscribe",
        "run": "ring_user#1",
        "event": "registered",
        "file": "x.flow.yaml",
        "line": 8,
        "where": "aor = ${call.to.aor}",
        "wanted": {"aor": "bob@example.com"},
        "condition": "",
        "call": "",
        "taken": 0,
        "left": 3,
        "expires_in": 15.0,
    }
    assert pickup["condition"] == "event.picker != call.from.user and (event.group ?? '') == 'sales'"
    assert dtmf["call"] == run.call_id and dtmf["wanted"] == {"leg": "callee"}


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("ring_user#1", 3),
        ("ring_user#2", 3),
        ("ring_user", 6),
        ("late_phone", 2),
        ("ring_user#2/late_phone", 1),
        ("ring_user#1/dtmf", 1),
        ("on_pickup", 1),
        ("", 7),
        ("nobody", 0),
    ],
)
def test_targets(target: str, count: int) -> None:
    w = world()
    w.invite()
    w.invite()
    assert len(waiting(w.engine, target, 0.0)) == count


def test_what_has_been_taken_counts() -> None:
    w = world()
    w.invite()
    w.event("registered")
    (late,) = waiting(w.engine, "late_phone", 0.0)
    assert (late["taken"], late["left"]) == (1, 2)


# --- why not ----------------------------------------------------------------------------------------------------------


def test_another_value() -> None:
    w = world()
    w.invite()
    watching = Watching(w, "ring_user#1")
    w.event("registered", aor="carol@example.com")
    assert watching.why == [
        ("ring_user#1/late_phone", False, "aor is 'carol@example.com', wanted 'bob@example.com'"),
    ]
    assert watching.told[0]["missed"] == {"aor": {"is": "carol@example.com", "wanted": "bob@example.com"}}
    assert watching.told[0]["line"] == 8


def test_a_condition_that_is_false_shows_what_it_looked_at() -> None:
    w = world()
    w.invite()
    watching = Watching(w, "ring_user#1/pickup")
    w.event("pickup", group="support", picker="carol")
    (verdict,) = watching.told
    assert not verdict["fits"]
    assert "is false: call.from.user is 'alice', event.group is 'support', event.picker is 'carol'" in verdict["why"]


def test_what_fits_is_said_as_well() -> None:
    w = world()
    w.invite()
    watching = Watching(w, "ring_user")
    w.event("registered")
    w.event("pickup", group="sales", picker="carol")
    assert watching.why == [("ring_user#1/late_phone", True, ""), ("ring_user#1/pickup", True, "")]
    assert w.logs == ["here", "picked"]


def test_a_trigger_can_be_asked_about() -> None:
    w = world()
    watching = Watching(w, "on_pickup")
    w.event("pickup", group="sales")
    assert watching.why == [("on_pickup", False, "group is 'sales', wanted 'support'")]


def test_events_of_another_call_say_nothing() -> None:
    w = world()
    w.invite()
    other = w.invite()
    watching = Watching(w, "ring_user#1")
    w.event("dtmf", other, leg="caller")
    assert watching.told == []


def test_other_targets_are_not_told() -> None:
    w = world()
    w.invite()
    watching = Watching(w, "on_pickup")
    w.event("registered", aor="carol@example.com")
    assert watching.told == []


def test_what_did_not_fit_stands_in_the_trace_too() -> None:
    w = world()
    run = w.invite()
    Watching(w, "late_phone")
    w.event("registered", aor="carol@example.com")
    assert w.trace(run)[-1] == (
        "  subscription late_phone not for us: aor is 'carol@example.com', wanted 'bob@example.com'"
    )


def test_a_condition_that_fails_is_told_with_its_error() -> None:
    text = FLOWS.replace("event.picker != call.from.user and", "event.picker != (call.headers['X'] ?? '') and")
    program, _ = load_sources([Source("x.flow.yaml", text)])
    w = World(program=program)
    w.invite()  # the call of this kit has no headers at all
    watching = Watching(w, "ring_user#1/pickup")
    w.event("pickup", group="sales", picker="x")
    assert not watching.told[0]["fits"] and "failed, expr." in watching.told[0]["why"]


# --- for how long -----------------------------------------------------------------------------------------------------


def test_the_bus_is_watched_only_while_somebody_asks() -> None:
    w = world()
    w.invite()
    assert not w.bus.watchers
    first = Watching(w, "ring_user")
    second = first.explainer.open("ring_user", first.told.append)
    assert w.bus.watchers
    first.explainer.close(first.number)
    first.explainer.close(first.number)
    assert w.bus.watchers, "the second still asks"
    first.explainer.close(second)
    assert not w.bus.watchers
    w.event("registered", aor="carol@example.com")
    assert first.told == []


def test_who_watched_before_goes_on() -> None:
    w = world()
    seen: list[str] = []
    w.bus.watch(lambda event: seen.append(event.name))
    watching = Watching(w, "on_pickup")
    w.event("pickup")
    watching.explainer.close(watching.number)
    w.event("pickup")
    assert seen == ["pickup", "pickup"]


def test_no_more_than_some() -> None:
    w = world()
    explainer = Explainer(w.engine)
    for _ in range(WATCHERS):
        explainer.open("", print)
    with pytest.raises(TooManyWatchersError):
        explainer.open("", print)


def test_explaining_takes_nothing_away() -> None:
    """`unique_by` and `limit` count what is delivered, not what is explained."""
    plain, watched = world(), world()
    Watching(watched, "")
    for w in (plain, watched):
        w.invite()
        for _ in range(5):
            w.event("registered")
    assert plain.logs == watched.logs == ["here"] * 3


def test_a_long_list_breathes_and_leaves_out_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "STRETCH", 2)
    w = world()
    runs = [w.invite() for _ in range(3)]
    breaths: list[int] = []

    def breathe() -> None:
        breaths.append(1)
        if len(breaths) == 1:
            w.hang_up(runs[2])

    found = names(waiting(w.engine, "", 0.0, breathe))
    assert len(breaths) > 4
    assert any(name.startswith("ring_user#2") for name in found)
    assert not any(name.startswith("ring_user#3") for name in found)
