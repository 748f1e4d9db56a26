"""Reading recordings, and changing who is in them without making anything up."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.esl.codec import EslEvent, FrameDecoder
from orchestrator.testing.recordings import Recording, block_of, json_of, rewrite, url_encode

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures" / "esl").glob("*.esl*"))
RAW = [path for path in FIXTURES if path.suffix == ".esl"]


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.name)
def test_a_raw_recording_is_kept_octet_for_octet(path: Path) -> None:
    assert Recording.load(path).raw == path.read_bytes()


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_times_run_forward(path: Path) -> None:
    times = [item.at for item in Recording.load(path)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < 60


def test_both_formats_of_one_connection_agree(recording) -> None:
    raw, lines = recording("bgapi_job"), recording("bgapi_job.eslrec")
    assert raw.raw == lines.raw
    assert lines.meta["format"] == "eslrec/1"
    assert lines.core_uuid == raw.core_uuid != ""


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.name)
def test_our_encoder_is_freeswitchs(path: Path) -> None:
    """Every value FreeSWITCH wrote comes out the same when it is decoded and encoded again."""
    for event in Recording.load(path).events:
        for line in event.block.partition(b"\n\n")[0].split(b"\n") if event.block else ():
            name, _, value = line.partition(b": ")
            assert url_encode(unquote_to_bytes(value).decode("utf-8", "surrogateescape")) == value, name


def test_what_looks_encoded_passes_as_it_is() -> None:
    assert url_encode("Bob%0AX: y %4 %zz") == b"Bob%0AX%3A%20y%20%254%20%25zz"


@given(st.text(max_size=30))
def test_encoded_values_hold_no_line_break(text: str) -> None:
    encoded = url_encode(text.encode("utf-8", "replace").decode())
    assert not set(encoded) & set(b"\r\n :")
    assert encoded.isascii()


def test_rewriting_nothing_changes_nothing(recording) -> None:
    for event in recording("bgapi_job").events:
        assert rewrite(event.block, {}, {"not in there": "x"}) == event.block


def test_rewriting_headers(recording) -> None:
    event = recording("bgapi_job").find("BACKGROUND_JOB")
    changed = EslEvent.plain(rewrite(event.block, {"Job-UUID": "a:b", "New": "x y", "Job-Command": None}))
    assert (changed.get("Job-UUID"), changed.get("New"), changed.find("Job-Command")) == ("a:b", "x y", None)
    assert changed.body == event.body
    assert len(changed.headers) == len(event.headers)
    assert changed.get("Event-Sequence") == event.get("Event-Sequence")


def test_substituting_identities(recording) -> None:
    """A recorded call becomes the call of a test: the same Call-ID in every header that holds it."""
    old, new = "1-2239@127.0.0.1", "live call@[::1]"
    changed = recording("via_bridge").substituted({old: new})
    assert len(changed) == len(recording("via_bridge"))
    for before, after in zip(recording("via_bridge").events, changed.events, strict=True):
        assert after.headers == {name: value.replace(old, new) for name, value in before.headers.items()}
    assert changed.find("DTMF", nth=1).uuid == new
    decoder = FrameDecoder()
    assert len(decoder.feed(changed.raw)) == len(changed)


def test_substituting_in_json(recording) -> None:
    event = recording("dtmf_json").find("DTMF")
    changed = recording("dtmf_json").substituted({event.uuid: "u-1"})
    assert changed.find("DTMF").uuid == "u-1"
    assert changed.find("DTMF").get("Caller-Unique-ID") == "u-1"


def test_an_event_in_the_other_format(recording) -> None:
    for name in ("via_bridge", "bgapi_job", "pickup_intercept"):
        for event in recording(name).events:
            as_json = EslEvent.json(json_of(event))
            assert (as_json.headers, as_json.body) == (event.headers, event.body)
            assert EslEvent.plain(block_of(as_json)).headers == event.headers


def test_arrays_are_lists_in_json(recording) -> None:
    event = EslEvent.plain(b"Event-Name: X\nA: ARRAY%3A%3Aa%7C%3Ab\n\n")
    assert json.loads(json_of(event)) == {"Event-Name": "X", "A": ["a", "b"]}


def test_finding_and_cutting(recording) -> None:
    dtmf = recording("dtmf")
    assert dtmf.find("DTMF", nth=-1).get("DTMF-Digit") == "#"
    assert dtmf.find("DTMF", DTMF_Digit="5").sequence > dtmf.find("DTMF").sequence
    with pytest.raises(LookupError, match="has 0 events DTMF"):
        dtmf.find("DTMF", DTMF_Digit="9")
    assert [event.name for event in dtmf.only("DTMF").events] == ["DTMF"] * 3
    assert dtmf.only("DTMF")[2].at > dtmf.only("DTMF")[0].at
    assert len(dtmf[:10]) == 10
    assert isinstance(dtmf[0].raw, bytes)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.esl", b"hello"), ("a.esl", b"Content-Length: x\n\n"), ("a.eslrec", b"{}\n"), ("a.eslrec", b"not json\n")],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError):
        Recording.load(tmp_path / name)


def test_lengths_are_computed_never_trusted(tmp_path: Path) -> None:
    lines = [
        {"format": "eslrec/1"},
        {"t": 0.5, "dir": "c2s", "head": "auth x"},
        {"t": 1, "dir": "s2c", "head": "Content-Length: 99\nContent-Type: api/response", "body": "caf\udce9"},
    ]
    (tmp_path / "a.eslrec").write_text("\n".join(json.dumps(line) for line in lines))
    (item,) = Recording.load(tmp_path / "a.eslrec")
    assert item.frame.body == b"caf\xe9"
    assert item.raw == b"Content-Length: 4\nContent-Type: api/response\n\ncaf\xe9"


def test_an_empty_recording(tmp_path: Path) -> None:
    (tmp_path / "a.esl").write_bytes(b"")
    with pytest.raises(ValueError, match="the recording is empty"):
        Recording.load(tmp_path / "a.esl")
