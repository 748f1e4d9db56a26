"""Frames and events out of octets: framing, decoding, and what a stranger's values must not be able to do."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import EslProtocolError
from orchestrator.esl.codec import MAX_BODY, MAX_HEAD, EslEvent, Frame, FrameDecoder, split_array
from orchestrator.testing.recordings import build_frame, build_reply, url_encode

PLAIN = b"Event-Name: DTMF\nUnique-ID: u-1\nDTMF-Digit: %23\n\n"


def feed(stream: bytes, size: int = 0) -> list[Frame]:
    decoder = FrameDecoder()
    size = size or len(stream) or 1
    return [frame for at in range(0, len(stream), size) for frame in decoder.feed(stream[at : at + size])]


def facts(frames: list[Frame]) -> list[tuple[str, bytes, bytes]]:
    return [(frame.content_type, frame.head, frame.body) for frame in frames]


# --- framing
# -------------------------------------------------------------------------------------------------------------


def test_heads_of_replies_and_events_come_in_either_order() -> None:
    reply, event, api = feed(
        b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
        + build_frame("text/event-plain", PLAIN)
        + build_frame("api/response", b"+OK\n")
    )
    assert (reply.content_type, reply.text, reply.ok) == ("command/reply", "+OK accepted", True)
    assert event.content_type == "text/event-plain"
    assert event.body == PLAIN
    assert (api.text, api.data) == ("+OK\n", "+OK\n")


@pytest.mark.parametrize("name", ["dtmf", "dtmf_json", "commands", "bgapi_job", "via_bridge"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 61, 1021, 65536])
def test_pieces_of_any_size_give_the_frames_of_the_whole(recording, name: str, size: int) -> None:
    stream = recording(name).raw[:60_000]
    assert facts(feed(stream, size)) == facts(feed(stream))


@given(
    bodies=st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_any_frames_in_any_pieces(bodies: list[bytes | None], cuts: list[int]) -> None:
    frames = [build_reply("+OK") if body is None else build_frame("api/response", body) for body in bodies]
    stream = b"".join(frames)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder = FrameDecoder()
    got = [f for a, b in pairwise(edges) for f in decoder.feed(stream[a:b])]
    assert [frame.body for frame in got] == [body or b"" for body in bodies]


def test_a_body_is_counted_in_octets_not_characters() -> None:
    text = "Grüße · 你好\n"
    (frame,) = feed(build_frame("api/response", text.encode()))
    assert frame.text == text


def test_invalid_utf8_is_replaced_not_fatal() -> None:
    (frame,) = feed(build_frame("api/response", b"caf\xe9 \xff"))
    assert frame.text == "caf� �"


def test_empty_lines_between_frames_are_no_frames() -> None:
    assert len(feed(b"\n\n" + build_reply("+OK") + b"\n" + build_reply("+OK"))) == 2


def test_unknown_and_missing_content_types_are_left_to_the_caller() -> None:
    odd, none = feed(b"Content-Type: text/new-thing\nContent-Length: 2\n\nhi" + b"X: y\n\n")
    assert (odd.content_type, odd.body) == ("text/new-thing", b"hi")
    assert none.content_type == ""


@pytest.mark.parametrize(
    "length", [b"-1", b"abc", b"1e3", b"", b"+5", b"0x10", b"99999999999999", str(MAX_BODY + 1).encode(), b"\xb2"]
)
def test_a_bad_length_ends_the_stream_after_what_was_complete(length: bytes) -> None:
    decoder = FrameDecoder()
    frames = decoder.feed(build_reply("+OK first") + b"Content-Type: api/response\nContent-Length: " + length + b"\n\n")
    assert [frame.text for frame in frames] == ["+OK first"]
    assert decoder.error is not None
    with pytest.raises(EslProtocolError):
        decoder.feed(b"")


def test_a_bad_length_alone_is_raised_at_once() -> None:
    with pytest.raises(EslProtocolError, match="Content-Length"):
        FrameDecoder().feed(b"Content-Length: -1\nContent-Type: text/event-plain\n\n")


def test_two_lengths_in_one_head_are_refused() -> None:
    with pytest.raises(EslProtocolError, match="two Content-Length"):
        FrameDecoder().feed(b"Content-Length: 1\nContent-Type: api/response\nContent-Length: 5\n\n")


@pytest.mark.parametrize("size", [1000, 70_000, MAX_HEAD * 2])
def test_a_head_without_end_is_not_collected_for_ever(size: int) -> None:
    decoder = FrameDecoder()
    with pytest.raises(EslProtocolError, match="header block"):
        for _ in range(0, MAX_HEAD * 2, size):
            decoder.feed(b"x" * size)


def test_a_body_of_the_greatest_size_arrives_in_pieces() -> None:
    body = b"b" * MAX_BODY
    frames = feed(build_frame("api/response", body) + build_reply("+OK"), 1 << 16)
    assert [len(frame.body) for frame in frames] == [MAX_BODY, 0]


# --- events
# --------------------------------------------------------------------------------------------------------------


def test_values_are_decoded_when_asked_for() -> None:
    event = EslEvent.plain(PLAIN)
    assert (event.name, event.uuid, event.get("DTMF-Digit")) == ("DTMF", "u-1", "#")
    assert event.get("Missing") == ""
    assert event.get("Missing", "none") == "none"
    assert event.find("Missing") is None
    assert event.headers == {"Event-Name": "DTMF", "Unique-ID": "u-1", "DTMF-Digit": "#"}


def test_a_name_is_found_only_at_the_beginning_of_a_line() -> None:
    event = EslEvent.plain(b"X-Unique-ID: no\nNote: see Unique-ID: no\nUnique-ID: yes\n\n")
    assert event.uuid == "yes"
    assert event.find("ID") is None


def test_line_breaks_from_a_value_stay_in_it() -> None:
    """S20: a display name `Bob%0AEvent-Name: DTMF` reaches the wire as FreeSWITCH's encoder leaves it."""
    name = "Bob%0AEvent-Name: DTMF%0AUnique-ID: victim%0D%0AX: y"
    event = EslEvent.plain(
        b"Event-Name: CHANNEL_CREATE\nCaller-Caller-ID-Name: " + url_encode(name) + b"\nUnique-ID: mine\n\n"
    )
    assert (event.name, event.uuid) == ("CHANNEL_CREATE", "mine")
    assert event.get("Caller-Caller-ID-Name") == "Bob\nEvent-Name: DTMF\nUnique-ID: victim\r\nX: y"
    assert set(event.headers) == {"Event-Name", "Caller-Caller-ID-Name", "Unique-ID"}


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_value_can_forge_a_header(name: str, other: str) -> None:
    block = b"Event-Name: CHANNEL_CREATE\nCaller-Caller-ID-Name: %b\nvariable_sip_h_X-Evil: %b\nUnique-ID: mine\n\n"
    event = EslEvent.plain(block % (url_encode(name), url_encode(other)))
    assert len(event.headers) == 4
    assert (event.name, event.uuid, event.find("DTMF-Digit")) == ("CHANNEL_CREATE", "mine", None)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    value = f"a{separator}Event-Name: DTMF"
    assert EslEvent.plain(b"Event-Name: X\nV: " + url_encode(value) + b"\n\n").headers == {
        "Event-Name": "X",
        "V": value,
    }
    raw = EslEvent.plain(f"Event-Name: X\nV: {value}\n\n".encode())
    assert (raw.name, raw.get("V")) == ("X", value)


def test_values_are_decoded_once() -> None:
    assert EslEvent.plain(b"V: %2541\n\n").get("V") == "%41"


def test_undefined_is_empty() -> None:
    event = EslEvent.plain(b"A: _undef_\nB: b\n\n")
    assert (event.get("A", "default"), event.headers) == ("", {"A": "", "B": "b"})


def test_of_a_repeated_header_the_first_counts() -> None:
    event = EslEvent.plain(b"Hangup-Cause: NORMAL_CLEARING\nUnique-ID: a\nHangup-Cause: LOSE_RACE\nUnique-ID: b\n\n")
    assert (event.get("Hangup-Cause"), event.uuid) == ("NORMAL_CLEARING", "a")
    assert event.headers == {"Hangup-Cause": "NORMAL_CLEARING", "Unique-ID": "a"}


def test_arrays() -> None:
    event = EslEvent.plain(b"V: ARRAY%3A%3Aa%3B1%7C%3Ab\nW: one\n\n")
    assert (event.array("V"), event.array("W"), event.array("X")) == (["a;1", "b"], ["one"], [])
    assert split_array("ARRAY::a|:|:c") == ["a", "", "c"]


def test_a_body_is_no_header(recording) -> None:
    job = recording("bgapi_job").find("BACKGROUND_JOB")
    assert job.body.startswith("UP 0 years")
    assert len(job.body.encode()) == 366 == int(job.get("Content-Length"))
    assert not any("years" in value for value in job.headers.values())


def test_a_body_cannot_forge_headers() -> None:
    body = b"Signal=5\nUnique-ID: victim\n\nX: y\n"
    event = EslEvent.plain(b"Event-Name: RECV_INFO\nContent-Length: %d\n\n%b" % (len(body), body))
    assert (event.uuid, event.find("X"), event.body) == ("", None, body.decode())
    assert event.block == b"Event-Name: RECV_INFO\nContent-Length: %d\n\n%b" % (len(body), body)


def test_a_body_is_as_long_as_its_header_says() -> None:
    assert EslEvent.plain(b"A: b\nContent-Length: 3\n\nabc\n\n").body == "abc"
    assert EslEvent.plain(b"A: b\nContent-Length: 9\n\nabc").body == "abc"
    assert EslEvent.plain(b"A: b\nContent-Length: many\n\nabc").body == "abc"


def test_json_and_plain_say_the_same(recording) -> None:
    """The same call was recorded in both formats; what does not differ from call to call must agree."""
    names = ["Event-Name", "Event-Calling-Function", "Call-Direction", "DTMF-Digit", "DTMF-Duration", "Answer-State"]
    plain, in_json = (recording(name).find("DTMF") for name in ("dtmf", "dtmf_json"))
    assert [in_json.get(n) for n in names] == [plain.get(n) for n in names]
    assert set(in_json.headers) == set(plain.headers)
    assert all(e.uuid and e.sequence and e.timestamp > 1.7e9 and e.core_uuid for e in (in_json, plain))


def test_json_with_raw_control_characters_arrays_and_body() -> None:
    event = EslEvent.json(b'{"Event-Name":"X","V":"a\nb\x01","L":["a","b"],"E":"_undef_","N":5,"O":null,"_body":"hi"}')
    assert event is not None
    assert (event.get("V"), event.array("L"), event.get("E")) == ("a\nb\x01", ["a", "b"], "")
    assert (event.get("N"), event.get("O"), event.body, event.block) == ("5", "", "hi", b"")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b"[" * 100_000])
def test_what_is_no_json_object_is_no_event(text: bytes) -> None:
    assert EslEvent.json(text) is None
    assert Frame("text/event-json", b"", text).event() is None


def test_a_connect_reply_is_an_event_in_the_head() -> None:
    (frame,) = feed(
        b"Event-Name: CHANNEL_DATA\nUnique-ID: u%3A1\nContent-Type: command/reply\nReply-Text: %2BOK%0A\n\n"
    )
    event = frame.event()
    assert event is not None
    assert (event.name, event.uuid, frame.text) == ("CHANNEL_DATA", "u:1", "+OK\n")


def test_outer_headers_are_raw() -> None:
    (frame,) = feed(build_reply("-ERR invalid session id [a%0Ab]", X="%41"))
    assert (frame.text, frame.get("X"), frame.ok) == ("-ERR invalid session id [a%0Ab]", "%41", False)
    assert frame.headers == {"Content-Type": "command/reply", "Reply-Text": frame.text, "X": "%41"}
    assert frame.event() is None


def test_key_is_what_handlers_are_registered_for(recording) -> None:
    assert recording("avmd_beep").find("avmd::beep").name == "CUSTOM"
    assert recording("dtmf").find("DTMF").key == "DTMF"


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", "²", "9" * 30])
def test_numbers_that_are_none_count_as_zero(text: str) -> None:
    event = EslEvent.plain(b"Event-Sequence: " + text.encode() + b"\nEvent-Date-Timestamp: " + text.encode() + b"\n\n")
    assert (event.sequence, event.timestamp) == (0, 0.0)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_is_frames_or_a_protocol_error(data: bytes) -> None:
    decoder = FrameDecoder()
    try:
        for frame in decoder.feed(data + b"\n\n"):
            event = frame.event()
            assert repr(frame)
            assert event is None or (repr(event) and isinstance(event.headers, dict))
    except EslProtocolError:
        pass


@given(st.dictionaries(st.sampled_from(["Event-Name", "Unique-ID", "A", "B"]), st.text(max_size=20), max_size=4))
def test_json_round_trip(fields: dict[str, str]) -> None:
    event = EslEvent.json(json.dumps(fields))
    assert event is not None
    assert event.headers == {name: "" if value == "_undef_" else value for name, value in fields.items()}


@pytest.mark.parametrize("depth", [1, 100, 300, 400, 900, 5_000])
@pytest.mark.parametrize("name", ["Event-Name", "Unique-ID", "Core-UUID", "_body"])
def test_json_however_deep_is_an_event_or_none(depth: int, name: str) -> None:
    event = EslEvent.json(f'{{"{name}": {"[" * depth}{"]" * depth}}}')
    assert event is None or isinstance(event.name + event.uuid + event.core_uuid + event.body, str)
