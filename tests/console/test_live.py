"""What follows by itself: one drawing for all viewers, and nothing for one that does not read."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from orchestrator.console.live import Fragments, Full, Live, Topic, encode
from orchestrator.testing.sockets import wait_until


class Board:
    """What is looked at."""

    def __init__(self) -> None:
        self.parts: dict[str, str] | None = {"head": "one", "list": "a"}
        self.drawn = 0

    def render(self) -> Fragments | None:
        self.drawn += 1
        return None if self.parts is None else dict(self.parts)


@pytest.fixture
def live() -> Iterator[Live]:
    live = Live(most=2)
    yield live
    live.close()


def next_of(stream: Iterator[bytes]) -> str:
    with gevent.Timeout(20):
        return next(stream).decode()


def follow(topic: Topic) -> Iterator[bytes]:
    stream = topic.follow()
    assert next_of(stream) == "retry: 2000\n\n"
    return stream


def partial(name: str, text: str) -> str:
    return f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{text}</hx-partial>'


def test_a_viewer_gets_all_and_then_what_has_changed(live: Live) -> None:
    board = Board()
    topic = live.topic("board", board.render, every=60, throttle=0)
    stream = follow(topic)
    assert next_of(stream) == f"data: {partial('head', 'one')}{partial('list', 'a')}\n\n"
    board.parts = {"head": "one", "list": "b"}
    topic.touch()
    assert next_of(stream) == f"data: {partial('list', 'b')}\n\n"


def test_all_viewers_are_drawn_for_once(live: Live) -> None:
    board = Board()
    topic = live.topic("board", board.render, every=60, throttle=0)
    assert live.topic("board", board.render) is topic
    streams = [follow(topic) for _ in range(50)]
    assert len({next_of(stream) for stream in streams}) == 1
    board.parts = {"head": "two"}
    topic.touch()
    assert {next_of(stream) for stream in streams} == {f"data: {partial('head', 'two')}\n\n"}
    assert board.drawn == topic.renders == 2
    assert topic.message(1) is topic.message(1)


def test_a_viewer_that_does_not_read_gets_the_newest_state_at_once(live: Live) -> None:
    board = Board()
    topic = live.topic("board", board.render, every=60, throttle=0)
    slow = follow(topic)
    next_of(slow)
    for number in range(5):
        board.parts = {"head": f"{number}", "list": "a"}
        topic.touch()
        assert wait_until(lambda number=number: topic.version == number + 2)
    assert next_of(slow) == f"data: {partial('head', '4')}\n\n"


def test_what_does_not_change_is_not_sent(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.console.live.QUIET", 0.01)
    topic = live.topic("board", Board().render, every=60, throttle=0)
    stream = follow(topic)
    next_of(stream)
    topic.touch()
    assert next_of(stream) == ": still here\n\n"


def test_a_topic_ends_with_what_it_shows(live: Live) -> None:
    board = Board()
    topic = live.topic("board", board.render, every=60, throttle=0)
    stream = follow(topic)
    next_of(stream)
    board.parts = None
    topic.touch()
    assert next_of(stream) == "event: gone\ndata: -\n\n"
    assert list(stream) == []
    assert wait_until(lambda: not live.topics)


def test_a_topic_that_nobody_looks_at_ends(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.console.live.LINGER", 0.05)
    topic = live.topic("board", Board().render, every=0.02, throttle=0)
    stream = follow(topic)
    next_of(stream)
    gevent.sleep(0.1)
    assert live.topics == {"board": topic}
    stream.close()  # type: ignore[attr-defined] # a generator: the client has gone
    assert topic.viewers == 0
    assert wait_until(lambda: not live.topics)


def test_topics_are_bounded(live: Live) -> None:
    for name in ("one", "two"):
        live.topic(name, Board().render)
    with pytest.raises(Full):
        live.topic("three", Board().render)


def test_a_drawing_that_fails_is_told_and_tried_again(live: Live) -> None:
    board = Board()
    failing = [True]

    def render() -> Fragments | None:
        if failing.pop() if failing else False:
            raise RuntimeError("a bug")
        return board.render()

    topic = live.topic("board", render, every=0.02, throttle=0)
    assert "one" in next_of(follow(topic))


def test_lines_of_a_message_cannot_make_another_one() -> None:
    said = encode({"a": "one\r\n\r\nevent: evil\rdata: x", "@sample": '{"calls": 1}\n\nid: 7'}).decode()
    assert [line.partition(":")[0] for line in said.splitlines() if line] == ["event", "data", "data", "data"] + [
        "data"
    ] * 4
