"""What is read of events in C, beside its twin in Python."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native_build import extension

from orchestrator.errors import EslProtocolError
from orchestrator.esl import codec
from orchestrator.esl.codec import EslEvent, FrameDecoder
from orchestrator.testing.recordings import Recording

RECORDING = Path(__file__).parents[1] / "fixtures/esl/burst20.esl"


@pytest.fixture(scope="module")
def fast() -> ModuleType:
    return extension()


def read(head: bytes, name: str) -> str | None:
    """The twin: `find` never asks the extension."""
    value = codec._find(head, name)
    return None if value is None else codec._decode(value)


PIECES = [b"a", b"%41", b"%", b"%4", b"%zz", b"%0A", b"%c3%a4", b"%ff", b"\xff", b"_undef_", b": ", b" ", b"%5Fundef_"]
values = st.lists(st.sampled_from(PIECES), max_size=6)


@given(st.lists(st.tuples(st.sampled_from([b"A", b"Abc", b"A-b", b"x"]), values), max_size=5))
@example([(b"A", [b"%41" * 400, b"%"])])
def test_it_reads_what_its_twin_reads(fast: ModuleType, lines: list[tuple[bytes, list[bytes]]]) -> None:
    head = b"\n" + b"".join(b"%b: %b\n" % (name, b"".join(parts)) for name, parts in lines)
    for name in ("A", "Abc", "A-b", "x", "b"):
        assert fast.header(head, b"\n%b: " % name.encode(), None) == read(head, name)


NAMES = ("Event-Name", "Unique-ID", "Core-UUID", "Event-Sequence", "Event-Subclass")
BLOCKS = [
    *(f"{name}: {value}\n".encode() for name in NAMES for value in ("CUSTOM", "DTMF", "7", "%41")),
    *(
        b"Event-Nam: x\n",
        b"Unique-ID",
        b"\n",
        b"\n\n",
        b"Content-Length: 3\n",
        b"Content-Length: 99\n\n",
        b"abc",
        b"E",
        b"",
    ),
]


def looked_at(block: bytes) -> tuple[object, ...]:
    event = EslEvent.plain(block)
    values = tuple(event.get(name, "none") for name in NAMES), tuple(event.find(name) for name in NAMES)
    return event.name, event.uuid, event.core_uuid, event.order, event.key, values, event.body, event.block


@given(st.lists(st.sampled_from(BLOCKS), max_size=9))
@example([b"Content-Length: 3\n\n", b"Unique-ID: 7\n"])
@example([b"\n", b"Unique-ID: 7\n"])
@example([b"\n\n", b"Unique-ID: 7\n", b"Content-Length: 3\n"])
def test_odd_blocks_read_alike(fast: ModuleType, pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_header", None)
        patch.setattr(codec, "_identity", None)
        plain = looked_at(b"".join(pieces))
        patch.setattr(codec, "_header", fast.header)
        patch.setattr(codec, "_identity", fast.identity)
        assert looked_at(b"".join(pieces)) == plain


HEAD = b"Content-Length: %d\nContent-Type: text/event-plain\n\n"
STREAM = [
    *(HEAD % size + b"x" * size for size in (0, 1, 12)),
    *(HEAD % 2, b"Content-Length: 12345678\nContent-Type: text/event-plain\n\n", b"Content-Length: ", b"\n", b"xx"),
    *(b"Content-Type: text/event-plain\nContent-Length: 2\n\nab", b"Content-Type: command/reply\nReply-Text: +OK\n\n"),
]


def frames_of(chunks: list[bytes]) -> tuple[object, ...]:
    decoder, found = FrameDecoder(), []
    try:
        for chunk in chunks:
            found += [(frame.content_type, frame.head, frame.body, frame.size) for frame in decoder.feed(chunk)]
    except EslProtocolError as error:
        return found, str(error)
    return found, decoder.pending


@given(st.lists(st.sampled_from(STREAM), max_size=8), st.lists(st.integers(0, 400), max_size=6))
def test_streams_are_cut_alike(fast: ModuleType, pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)
    cuts = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    chunks = [stream[one:other] for one, other in itertools.pairwise(cuts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_events", None)
        plain, whole = frames_of(chunks), frames_of([stream])
        assert plain[0] == whole[0] or isinstance(whole[1], str), "however it is cut"
        patch.setattr(codec, "_events", fast.events)
        assert frames_of(chunks) == plain


def test_recorded_events_read_alike(fast: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for event in Recording.load(RECORDING).events[:40]:
        monkeypatch.setattr(codec, "_header", None)
        monkeypatch.setattr(codec, "_identity", None)
        plain = EslEvent.plain(event.block)
        found = {name: plain.get(name) for name in (*plain.headers, "None-Such")}
        monkeypatch.setattr(codec, "_header", fast.header)
        monkeypatch.setattr(codec, "_identity", fast.identity)
        again = EslEvent.plain(event.block)
        assert {name: again.get(name) for name in found} == found
        assert (again.name, again.uuid, again.key) == (plain.name, plain.uuid, plain.key)


@pytest.mark.parametrize("arguments", [(), (b"", b""), ("", b"", None), (b"", "", None)])
def test_only_octets_are_looked_through(fast: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        fast.header(*arguments)


@pytest.mark.parametrize("arguments", [(), (b"", "0"), ("", 0), (b"", 1), (b"", -1), (b"", 1 << 70)])
def test_only_octets_are_cut(fast: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, IndexError, OverflowError)):
        fast.events(*arguments)
    with pytest.raises(TypeError):
        fast.identity("")
