"""The framer: octets of a stream to messages, however they are cut (RFC 3261 §18.3, §20.14, RFC 5626 §3.5.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sip.framing import HEAD, StreamFramer

BODY = b"v=0\r\n\r\no=- 1 1 IN IP4 192.0.2.1\r\n"  # with what looks like the end of a head


def message(headers: bytes = b"Content-Length: %d", body: bytes = BODY, method: bytes = b"OPTIONS") -> bytes:
    head = method + b" sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\n"
    return head + (headers % len(body) if b"%d" in headers else headers) + b"\r\n\r\n" + body


def fed(framer: StreamFramer, octets: bytes, size: int) -> list[bytes]:
    found = []
    for start in range(0, len(octets), size):
        found += framer.receive(octets[start : start + size])
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10_000])
def test_messages_however_the_stream_is_cut(size: int) -> None:
    messages = [message(), message(body=b""), message(b"l : %d"), message(b"CONTENT-LENGTH:\r\n %d"), message()]
    framer = StreamFramer()
    assert fed(framer, b"".join(messages), size) == messages
    assert not framer.unfinished and not framer.ended


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_blank_lines_between_messages_say_nothing(size: int) -> None:
    framer = StreamFramer()
    assert fed(framer, b"\r\n" + message() + b"\r\n" + message(), size) == [message()] * 2
    assert framer.take() == b""


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000])
def test_a_pong_for_each_ping(size: int) -> None:
    framer = StreamFramer()
    assert fed(framer, b"\r\n\r\n" * 3 + message() + b"\r\n\r\n", size) == [message()]
    assert framer.take() == b"\r\n" * 4
    assert framer.take() == b"" and not framer.unfinished


def test_a_message_is_unfinished_until_its_last_octet() -> None:
    framer = StreamFramer()
    whole = message()
    for position in range(len(whole) - 1):
        assert framer.receive(whole[position : position + 1]) == []
        assert framer.unfinished
    assert framer.receive(whole[-1:]) == [whole]
    assert not framer.unfinished


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    ("headers", "status", "why"),
    [
        (b"Subject: no length", 400, "Content-Length is missing"),
        (b"Content-Length: five", 400, "Content-Length is not a number"),
        (b"Content-Length:", 400, "Content-Length is not a number"),
        (b"Content-Length: -1", 400, "Content-Length is not a number"),
        (b"Content-Length: 1\r\nl: 2", 400, "several Content-Lengths"),
        (b"Content-Length: 4, 4", 400, "Content-Length is not a number"),
        (b"Content-Length: 70000", 513, "Message Too Large"),
        (b"Content-Length: 99999999999999999999999", 513, "Message Too Large"),
    ],
)
def test_without_a_length_the_stream_has_ended(headers: bytes, status: int, why: str, size: int) -> None:
    framer = StreamFramer()
    broken = message(headers)
    assert fed(framer, message() + broken + message(), size) == [message()]
    assert framer.ended and framer.why == why
    assert framer.malformed is not None
    head, error = framer.malformed
    assert head == broken[: broken.index(b"\r\n\r\n") + 4]
    assert (error.sip_status, error.reason) == (status, why)
    assert framer.receive(message()) == []


def test_the_same_length_twice_is_a_length() -> None:
    framer = StreamFramer()
    twice = message(b"Content-Length: 2\r\nl: 2", b"ab")
    assert framer.receive(twice) == [twice]


def test_a_header_line_of_the_body_is_none_of_the_head() -> None:
    framer = StreamFramer()
    one = message(body=b"\r\nContent-Length: 77\r\n")
    assert framer.receive(one * 2) == [one] * 2


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"\x00", b" INVITE", b"\xff\xff", b"{"])
def test_what_does_not_begin_like_a_message_is_no_sip(first: bytes) -> None:
    framer = StreamFramer()
    assert framer.receive(first) == []
    assert framer.ended and framer.malformed is not None and framer.malformed[1].sip_status == 0


def test_what_has_begun_and_does_not_go_on_may_be_answered() -> None:
    framer = StreamFramer()
    framer.give_up()
    assert not framer.ended, "nothing has begun"
    framer.receive(message() + message()[:-1])
    framer.give_up()
    assert framer.ended and framer.malformed is not None
    assert framer.malformed[0] == message()[:-1] and framer.malformed[1].sip_status == 400


def test_a_head_without_an_end_is_not_kept_for_ever() -> None:
    framer = StreamFramer()
    for _ in range(HEAD // 1000 + 2):
        framer.receive(b"X" * 1000)
    assert framer.ended and framer.why == "too long a head" and not framer.unfinished


def test_a_message_as_large_as_allowed() -> None:
    largest = message(body=b"x" * 900)
    framer = StreamFramer(len(largest))
    assert framer.receive(largest) == [largest]
    assert StreamFramer(len(largest) - 1).receive(largest) == []


def test_a_dribbled_head_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search goes on where it stopped: the octets looked at in all are few times the octets that came."""

    class Counted(bytearray):
        looked = 0

        def find(self, sub: bytes, start: int = 0, *rest: int) -> int:  # type: ignore[override]
            Counted.looked += len(self) - start
            return super().find(sub, start, *rest)

    framer = StreamFramer()
    framer._buffer = Counted()
    whole = message(b"Subject: " + b"x" * 20_000 + b"\r\nContent-Length: %d")
    assert fed(framer, whole, 1) == [whole]
    assert Counted.looked < 5 * len(whole)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_any_bodies_in_any_pieces(bodies: list[bytes], data: st.DataObject) -> None:
    messages = [message(body=body) for body in bodies]
    stream = b"".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    framer = StreamFramer()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += framer.receive(stream[start:end])
    assert found == messages


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_noise_never_raises(pieces: list[bytes]) -> None:
    framer = StreamFramer(1000)
    for piece in pieces:
        framer.receive(piece)
        framer.take()
    assert framer.held <= HEAD + 200
