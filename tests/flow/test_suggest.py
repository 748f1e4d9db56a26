"""What a user probably meant."""

from __future__ import annotations

import pytest

from orchestrator.flow import actions as _actions  # noqa: F401
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.language.suggest import FOREIGN_ACTIONS, meant, meant_action

NAMES = tuple(action.name for action in ACTIONS)


@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("relya", "relay"),
        ("Relay", "relay"),
        ("hangpu", "hangup"),
        ("t_relay", "relay"),
        ("T_RELAY", "relay"),
        ("notify_on_event", "subscribe"),
        ("t_inject_branches", "inject"),
        ("dial", "relay"),
        ("gather", "collect"),
        ("choose", "switch"),
        ("wait_for_trigger", "wait"),
        ("sl_send_reply", "reply"),
        ("fs.apl", "fs.api"),
    ],
)
def test_nearest_action(word: str, action: str) -> None:
    assert meant_action(word, NAMES) == f"did you mean '{action}'?"


def test_nothing_near_gives_no_guess() -> None:
    assert meant_action("frobnicate", NAMES) == ""


def test_foreign_word_is_no_help_where_the_action_is_not_installed() -> None:
    assert meant_action("t_relay", ("reply",)) == ""


def test_foreign_words_lead_to_actions_that_exist_and_are_none_themselves() -> None:
    assert set(FOREIGN_ACTIONS.values()) <= set(NAMES)
    assert not set(FOREIGN_ACTIONS) & set(NAMES)
    assert all(word == word.lower() for word in FOREIGN_ACTIONS)


def test_few_names_are_listed_many_are_not() -> None:
    assert meant("xyz", ["b_one", "a_two"]) == "known: a_two, b_one"
    assert meant("xyz", [f"name{i}" for i in range(20)]) == ""
    assert meant("xyz", []) == ""
    assert meant("telco_b", ["telco_a"]) == "did you mean 'telco_a'?"
