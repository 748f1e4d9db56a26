"""The look-up of an event's header in C beside its twin in Python."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native_build import extension

from orchestrator.esl import codec
from orchestrator.esl.codec import EslEvent
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


def test_recorded_events_read_alike(fast: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for event in Recording.load(RECORDING).events[:40]:
        monkeypatch.setattr(codec, "_header", None)
        plain = EslEvent.plain(event.block)
        found = {name: plain.get(name) for name in (*plain.headers, "None-Such")}
        monkeypatch.setattr(codec, "_header", fast.header)
        again = EslEvent.plain(event.block)
        assert {name: again.get(name) for name in found} == found
        assert (again.name, again.uuid, again.key) == (plain.name, plain.uuid, plain.key)


@pytest.mark.parametrize("arguments", [(), (b"", b""), ("", b"", None), (b"", "", None)])
def test_only_octets_are_looked_through(fast: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        fast.header(*arguments)
