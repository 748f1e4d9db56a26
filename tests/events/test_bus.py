"""The bus delivers what a linear scan would, in order of registration, and forgets what is cancelled."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.errors import StepError
from orchestrator.events.bus import MAX_DEPTH, Bus, Subscription
from orchestrator.events.event import Event
from orchestrator.timers import Timers


class Ears:
    """Subscribers with names that write down what they hear."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.bus = Bus(self.timers)
        self.heard: list[Any] = []

    def listen(self, name: str, event: str = "registered", **options: Any) -> Subscription:
        return self.bus.subscribe(event, self._hear, owner=name, **options)

    def _hear(self, event: Event, subscription: Subscription) -> None:
        self.heard.append(subscription.owner)

    def publish(self, name: str = "registered", call: str = "", **attributes: Any) -> int:
        return self.bus.publish(Event(name, attributes, call))


@pytest.fixture
def ears() -> Ears:
    return Ears()


def test_only_equal_values_of_that_event_are_delivered(ears: Ears) -> None:
    ears.listen("bob", equals={"aor": "bob"})
    ears.listen("bob mobile", equals={"aor": "bob", "mobile": True})
    ears.listen("alice", equals={"aor": "alice"})
    ears.listen("other event", "unregistered", equals={"aor": "bob"})
    assert ears.publish(aor="bob", mobile=False) == 1
    assert ears.publish(aor="bob", mobile=True) == 2
    assert ears.heard == ["bob", "bob", "bob mobile"]


def test_a_star_in_a_value_is_only_a_star(ears: Ears) -> None:
    ears.listen("wild", equals={"aor": "*@example.com"})
    assert ears.publish(aor="bob@example.com") == 0
    assert ears.publish(aor="*@example.com") == 1


def test_call_is_part_of_the_key(ears: Ears) -> None:
    ears.listen("c1", "dtmf", call="c1")
    ears.listen("c1 digit", "dtmf", call="c1", equals={"digit": "2"})
    ears.listen("any", "dtmf")
    assert ears.publish("dtmf", call="c2", digit="2") == 1
    assert ears.publish("dtmf", call="c1", digit="2") == 3
    assert ears.heard == ["any", "c1", "c1 digit", "any"]


def test_an_attribute_the_event_lacks_equals_nothing(ears: Ears) -> None:
    ears.listen("typo", equals={"aorr": None})
    assert ears.publish(aor="bob") == 0


def test_a_missing_optional_value_is_null(ears: Ears) -> None:
    ears.listen("no group", "pickup", equals={"group": None})
    assert ears.publish("pickup", group=None) == 1
    assert ears.publish("pickup", group="sales") == 0


@pytest.mark.parametrize("value", [["a", "b"], {"X-Id": "1"}])
def test_lists_and_maps_are_compared_by_value(ears: Ears, value: Any) -> None:
    ears.listen("list", equals={"aor": "bob", "what": value}, accept=lambda event, _: event.attributes["n"] > 1)
    assert ears.publish(aor="bob", what=type(value)(value), n=2) == 1
    assert ears.publish(aor="bob", what=type(value)(value), n=1) == 0
    assert ears.publish(aor="bob", what=type(value)(), n=2) == 0
    assert ears.publish(aor="eve", what=type(value)(value), n=2) == 0


def test_a_list_in_the_event_matches_no_plain_value(ears: Ears) -> None:
    ears.listen("plain", equals={"what": "a"})
    assert ears.publish(what=["a"]) == 0


def test_accept_is_asked_only_for_equal_ones_and_once(ears: Ears) -> None:
    asked = []

    def accept(event: Event, _: Subscription) -> bool:
        asked.append(event.attributes["n"])
        return bool(event.attributes["n"] > 1)

    ears.listen("bob", equals={"aor": "bob"}, accept=accept)
    for aor, n in [("bob", 1), ("eve", 2), ("bob", 3)]:
        ears.publish(aor=aor, n=n)
    assert asked == [1, 3]
    assert ears.heard == ["bob"]


def test_limit_counts_only_what_was_taken(ears: Ears) -> None:
    subscription = ears.listen("bob", limit=2, accept=lambda event, _: event.attributes["n"] % 2 == 0)
    assert [ears.publish(n=n) for n in range(6)] == [1, 0, 1, 0, 0, 0]
    assert not subscription.armed and subscription.taken == 2
    assert len(ears.bus) == 0


def test_expiry_cancels_and_tells(ears: Ears) -> None:
    told: list[Any] = []
    subscription = ears.listen("bob", expires_in=20.0, on_expire=lambda s: told.append((s.owner, s.armed)))
    ears.timers.run_due(19.9)
    assert ears.publish() == 1 and not told
    ears.timers.run_due(20.0)
    assert ears.publish() == 0
    assert told == [("bob", False)]
    assert not subscription.armed and len(ears.timers) == 0


@pytest.mark.parametrize("how", ["cancel", "limit"])
def test_what_ends_early_leaves_no_timer_and_does_not_expire(ears: Ears, how: str) -> None:
    told: list[Any] = []
    subscription = ears.listen("bob", expires_in=20.0, on_expire=told.append, limit=1)
    if how == "cancel":
        subscription.cancel()
        subscription.cancel()
    else:
        ears.publish()
    assert len(ears.timers) == 0 and len(ears.bus) == 0
    ears.timers.run_due(30.0)
    assert not told


def test_cancelled_by_an_earlier_delivery_hears_nothing(ears: Ears) -> None:
    ears.bus.subscribe("registered", lambda event, subscription: second.cancel())
    second = ears.listen("second")
    ears.listen("third", equals={"aor": "bob"})
    assert ears.publish(aor="bob") == 2
    assert ears.heard == ["third"]


def test_subscribed_during_a_delivery_hears_the_next_one(ears: Ears) -> None:
    ears.bus.subscribe("registered", lambda event, subscription: ears.listen("late"), limit=1)
    assert ears.publish() == 1
    assert ears.heard == []
    assert ears.publish() == 1
    assert ears.heard == ["late"]


def test_nested_publish_is_cut_at_eight(ears: Ears) -> None:
    refused: list[StepError] = []
    depths: list[int] = []

    def again(event: Event, subscription: Subscription) -> None:
        depths.append(ears.bus.depth)
        try:
            ears.publish()
        except StepError as error:
            refused.append(error)

    ears.bus.subscribe("registered", again)
    assert ears.publish() == 1
    assert depths == list(range(1, MAX_DEPTH + 1))
    assert [error.type for error in refused] == ["flow.limit"]
    assert ears.bus.depth == 0


def test_depth_is_put_back_after_a_delivery_that_fails(ears: Ears) -> None:
    def broken(event: Event, subscription: Subscription) -> None:
        raise RuntimeError("bug")

    ears.bus.subscribe("registered", broken)
    with pytest.raises(RuntimeError):
        ears.publish()
    assert ears.bus.depth == 0


def test_settle_runs_once_after_the_outermost_publish(ears: Ears) -> None:
    ears.bus.settle = lambda: ears.heard.append("settled")
    ears.bus.subscribe("registered", lambda event, subscription: ears.publish("unregistered"))
    ears.listen("inner", "unregistered")
    ears.listen("outer")
    assert ears.publish() == 2
    assert ears.heard == ["inner", "outer", "settled"]


def test_repr_says_what_is_awaited(ears: Ears) -> None:
    subscription = ears.listen("bob", call="c1", equals={"aor": "bob"})
    assert repr(subscription) == "<Subscription 1 {'': 'c1', 'aor': 'bob'} took 0>"
    subscription.cancel()
    assert repr(subscription) == "<Subscription 1 cancelled took 0>"


def _choose_filter(choice: random.Random) -> tuple[str | None, dict[str, Any]]:
    call = choice.choice([None, None, "c1", "c2"])
    equals = {name: choice.randrange(3) for name in ("a", "b", "c") if choice.random() < 0.4}
    return call, equals


@pytest.mark.parametrize("seed", range(200))
def test_it_agrees_with_a_linear_scan(seed: int) -> None:
    """Random subscriptions, cancellations and events: same receivers in the same order as the obvious list."""
    choice = random.Random(seed)
    ears = Ears()
    scan: list[tuple[Subscription, str | None, dict[str, Any]]] = []
    for number in range(120):
        action = choice.random()
        if action < 0.5:
            call, equals = _choose_filter(choice)
            limit = choice.choice([None, None, 1, 2])
            scan.append((ears.listen(str(number), "e", call=call, equals=equals, limit=limit), call, equals))
        elif action < 0.6 and scan:
            choice.choice(scan)[0].cancel()
        else:
            call, values = choice.choice(["c1", "c2", ""]), {name: choice.randrange(3) for name in ("a", "b", "c")}
            expected = [
                s.owner
                for s, wanted_call, equals in scan
                if s.armed and wanted_call in (None, call) and all(values[k] == v for k, v in equals.items())
            ]
            ears.heard.clear()
            assert ears.publish("e", call=call, **values) == len(expected)
            assert ears.heard == expected
    assert len(ears.bus) == sum(s.armed for s, _, _ in scan)
    for subscription, _, _ in scan:
        subscription.cancel()
    assert len(ears.bus) == 0 and not any(ears.bus._events.values())
