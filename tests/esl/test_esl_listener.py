"""Event names, CUSTOM subclasses and filters as mod_event_socket treats them."""

from __future__ import annotations

import pytest

from orchestrator.esl.codec import EslEvent
from orchestrator.testing.esl_listener import NO_KEYWORDS, Listener


def event(name: str, **headers: str) -> EslEvent:
    lines = [f"Event-Name: {name}", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    return EslEvent.plain("\n".join(lines).encode() + b"\n\n")


DTMF = event("DTMF", Unique_ID="u-1")
BEEP = event("CUSTOM", Event_Subclass="avmd::beep", Unique_ID="u-1")


def subscribed(words: str = "plain ALL") -> Listener:
    listener = Listener()
    listener.event(words.split())
    return listener


def test_subscriptions_add_up() -> None:
    listener = Listener()
    assert not listener.wants(DTMF)
    assert listener.event(["plain", "HEARTBEAT"]) == "+OK event listener enabled plain"
    assert not listener.wants(DTMF)
    assert listener.event(["json", "dtmf"]) == "+OK event listener enabled json"
    assert listener.wants(DTMF)
    assert listener.wants(event("HEARTBEAT"))


def test_words_after_custom_are_subclasses() -> None:
    listener = subscribed("plain CUSTOM avmd::beep DTMF")
    assert listener.wants(BEEP)
    assert not listener.wants(DTMF)
    assert not subscribed("plain CUSTOM").wants(BEEP)
    assert not subscribed("plain CUSTOM AVMD::beep").wants(BEEP)
    assert subscribed("plain ALL").wants(BEEP)


@pytest.mark.parametrize("words", ["", "plain", "plain DTMFF", "json foo bar"])
def test_without_a_known_name_nothing_happens(words: str) -> None:
    listener = Listener()
    assert listener.event(words.split()) == NO_KEYWORDS
    assert listener.format == ""


def test_unknown_names_among_known_ones_are_ignored() -> None:
    assert subscribed("plain NOPE DTMF").wants(DTMF)


def test_nixevent() -> None:
    listener = subscribed("plain DTMF HEARTBEAT CUSTOM avmd::beep")
    assert listener.nixevent(["DTMF"]) == "+OK events nixed"
    assert not listener.wants(DTMF)
    assert listener.wants(BEEP)
    listener.nixevent(["CUSTOM", "avmd::beep"])
    assert not listener.wants(BEEP)
    everything = subscribed()
    everything.nixevent(["DTMF"])
    assert (everything.wants(DTMF), everything.wants(event("HEARTBEAT"))) == (False, True)
    everything.nixevent(["ALL"])
    assert not everything.wants(event("HEARTBEAT"))
    assert everything.nixevent([]) == NO_KEYWORDS


def test_noevents() -> None:
    listener = subscribed()
    assert listener.noevents() == "+OK no longer listening for events"
    assert not listener.wants(DTMF)
    assert listener.noevents() == "-ERR not listening for events"


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ([], True),
        (["Unique-ID u-1"], True),
        (["unique-id U-1"], True),
        (["Unique-ID u-2"], False),
        (["Unique-ID u-2", "Event-Name DTMF"], True),
        (["variable_x 1"], False),
        (["Unique-ID -u-2"], False),
        (["Event-Name /./", "Unique-ID -u-1"], False),
        (["Event-Name /./", "Unique-ID -u-2"], True),
        (["Unique-ID /^u-[0-9]$/"], True),
        (["Unique-ID +/^u-[0-9]$/"], False),
    ],
)
def test_filters(filters: list[str], passes: bool) -> None:
    listener = subscribed()
    for each in filters:
        name, _, value = each.partition(" ")
        assert listener.filter(each.split()) == f"+OK filter added. [{name}]=[{value}]"
    assert listener.wants(DTMF) is passes


def test_deleting_filters() -> None:
    listener = subscribed()
    listener.filter(["Unique-ID", "u-2"])
    listener.filter(["Unique-ID", "u-3"])
    assert listener.filter(["delete", "Unique-ID", "u-2"]) == "+OK filter deleted. [Unique-ID][u-2]"
    assert not listener.wants(DTMF)
    assert listener.filter(["delete", "all"]) == "+OK filter deleted. [all][]"
    assert listener.wants(DTMF)
    assert listener.filter(["x"]) == "-ERR invalid syntax"
