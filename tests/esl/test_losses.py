"""What FreeSWITCH says of lost events, read from its own words; and what a channel table makes of odd sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent, FrameDecoder
from orchestrator.esl.losses import lost_events
from orchestrator.testing.recordings import Recording, build_frame, build_log

RECORDED = Path(__file__).parent.parent / "fixtures" / "esl" / "lost_events.esl"


def test_the_words_of_a_real_freeswitch() -> None:
    """Two events did not fit, then one did: the line behind it says how many were lost in all."""
    frames = list(FrameDecoder().feed(RECORDED.read_bytes()))
    assert [frame.content_type for frame in frames] == ["log/data"] * 3 + ["text/event-plain"]
    assert [lost_events(frame) for frame in frames] == [0, 0, 199, 0]


@pytest.mark.parametrize(
    "frame",
    [
        build_log(2, "mod_event_socket.c", "Lost [5] log lines! Log Queue size: [1/100000]"),
        build_log(2, "mod_sofia.c", "Lost [5] events!"),
        build_log(2, "mod_event_socket.c", "Lost [] events!"),
        build_log(2, "mod_event_socket.c", f"Lost [{'9' * 40}] events!"),
        build_frame("text/event-plain", b"Event-Name: CUSTOM\nX: Lost%20[5]%20events!\n\n"),
    ],
)
def test_nothing_else_is_a_loss(frame: bytes) -> None:
    (decoded,) = FrameDecoder().feed(frame)
    assert lost_events(decoded) == 0


def event(sequence: int | str, core: str = "a", uuid: str = "one", name: str = "DTMF") -> EslEvent:
    headers = f"Event-Name: {name}\nCore-UUID: {core}\nEvent-Sequence: {sequence}\nUnique-ID: {uuid}\n"
    return EslEvent.plain(f"{headers}Call-Direction: inbound\n\n".encode())


def take(table: ChannelTable, event: EslEvent) -> None:
    if not table.duplicate("fs1", event):
        table.observe("fs1", event, 0.0)


def test_gaps_are_the_rule_and_steps_back_are_counted() -> None:
    table = ChannelTable()
    for sequence in (5, 900, 901, 7, 902, 903, 903, "x"):
        take(table, event(sequence))
    assert table.reordered == 1, "7 behind 901; 903 came twice, and what is no number is none"


def test_the_first_event_of_a_channel_counts_too() -> None:
    table = ChannelTable()
    take(table, event(20))
    take(table, event(10, name="CHANNEL_CREATE"))
    assert table.reordered == 1


def test_channels_overtake_each_other_and_that_is_not_odd() -> None:
    """Each channel has a thread, which takes the number before it queues the event."""
    table = ChannelTable()
    for sequence, uuid in ((5, "one"), (4, "two"), (9, "one"), (8, "two"), (7, "")):
        take(table, event(sequence, uuid=uuid))
    assert table.reordered == 0


@pytest.mark.parametrize("path", sorted(RECORDED.parent.glob("*.esl*")), ids=lambda path: path.name)
def test_no_recording_of_a_real_freeswitch_is_reordered(path: Path) -> None:
    """burst20 has 77 events that are behind those of other channels; COMMAND comes late in seven recordings."""
    table = ChannelTable()
    for recorded in Recording.load(path).events:
        take(table, recorded)
    assert table.reordered == 0


def test_a_core_that_was_restarted_counts_anew() -> None:
    table = ChannelTable()
    table.duplicate("fs1", event(500))
    table.duplicate("fs1", event(3, core="b"))
    table.duplicate("fs2", event(2))
    assert table.reordered == 0
