"""What FreeSWITCH says of lost events, read from its own words; and what a channel table makes of odd sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import EslEvent, FrameDecoder
from orchestrator.esl.losses import lost_events
from orchestrator.testing.recordings import build_frame, build_log

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


def event(sequence: int | str, core: str = "a") -> EslEvent:
    return EslEvent.plain(f"Event-Name: DTMF\nCore-UUID: {core}\nEvent-Sequence: {sequence}\n\n".encode())


def test_gaps_are_the_rule_and_steps_back_are_counted() -> None:
    table = ChannelTable()
    for sequence in (5, 900, 901, 7, 902, 903, 903, "x"):
        table.duplicate("fs1", event(sequence))
    assert table.reordered == 1, "7 behind 901; 903 came twice, and what is no number is none"


def test_a_core_that_was_restarted_counts_anew() -> None:
    table = ChannelTable()
    table.duplicate("fs1", event(500))
    table.duplicate("fs1", event(3, core="b"))
    table.duplicate("fs2", event(2))
    assert table.reordered == 0
