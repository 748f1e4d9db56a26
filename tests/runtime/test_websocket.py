"""SIP over WebSocket, octets alone: RFC 6455's own examples, frames made by hand, and everything else that may come."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.runtime.streams.websocket import MAX_HEAD, WebSocketRules, WebSocketServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The pair of RFC 6455 §1.3."""

OPTIONS = (
    b"OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/WSS x.invalid;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
    b"From: <sip:a@example.com>;tag=1\r\nTo: <sip:example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)
"""Without Content-Length: it may be left out (RFC 7118 §5)."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def request(*, without: str = "", path: str = "/", method: str = "GET", **other: str) -> bytes:
    """What a browser sends; `other` are headers that differ or are added, `_` for `-`."""
    headers = {
        "Host": "sip.example.com:8443",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Protocol": "sip",
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in other.items()}
    headers.pop(without, None)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as RFC 6455 §5.2 draws it; no mask as a server sends it."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 65_536 else 127
    long = b"" if short < 126 else struct.pack("!H" if short == 126 else "!Q", size)
    head = bytes((fin << 7 | opcode, (0x80 if mask else 0) | short)) + long
    return head + mask + (bytes(c ^ mask[n % 4] for n, c in enumerate(payload)) if mask else payload)


def frames(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of the whole, unmasked frames that a server sends."""
    while octets:
        opcode, short = octets[0] & 0x0F, octets[1]
        assert octets[0] & 0xF0 == 0x80, "not fragmented, no extension"
        assert short < 128, "a server does not mask"
        at, size = (4, struct.unpack("!H", octets[2:4])[0]) if short == 126 else (2, short)
        yield opcode, octets[at : at + size]
        octets = octets[at + size :]


def connected(rules: WebSocketRules | None = None) -> WebSocketServer:
    server = WebSocketServer(rules or WebSocketRules())
    assert server.receive(request()) == []
    assert server.open
    server.take()
    return server


def status(octets: bytes) -> int:
    return int(octets.split(b" ", 2)[1])


def close_code(server: WebSocketServer) -> int:
    """The code of the Close frame that ends what is sent; whoever holds the connection calls `close` at the end."""
    server.close()
    *_, (opcode, payload) = frames(server.take())
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


class TestHandshake:
    def test_the_example_of_the_rfc(self) -> None:
        server = WebSocketServer(WebSocketRules())
        server.receive(request())
        answer = server.take()
        assert status(answer) == 101
        assert f"\r\nSec-WebSocket-Accept: {ACCEPT}\r\n".encode() in answer
        assert b"\r\nSec-WebSocket-Protocol: sip\r\n" in answer
        assert (server.open, server.ended, server.unfinished) == (True, False, False)

    def test_octet_by_octet(self) -> None:
        server = WebSocketServer(WebSocketRules())
        octets = request()
        for n in range(len(octets)):
            assert not server.open
            assert server.receive(octets[n : n + 1]) == []
        assert server.open
        assert status(server.take()) == 101

    def test_what_comes_right_behind_it_is_read(self) -> None:
        server = WebSocketServer(WebSocketRules())
        assert server.receive(request() + frame(OPTIONS)) == [OPTIONS]

    @pytest.mark.parametrize(
        ("octets", "expected"),
        [
            pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, id="a browser that shows a page"),
            pytest.param(b"GET / HTTP/1.0\r\n\r\n", 426, id="HTTP/1.0"),
            pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
            pytest.param(request(method="POST"), 405, id="POST"),
            pytest.param(request(without="Upgrade"), 426, id="no Upgrade"),
            pytest.param(request(without="Connection"), 426, id="no Connection"),
            pytest.param(request(Upgrade="h2c"), 426, id="another protocol"),
            pytest.param(request(Sec_WebSocket_Version="8"), 426, id="an old version"),
            pytest.param(request(without="Sec-WebSocket-Version"), 426, id="no version"),
            pytest.param(request(without="Sec-WebSocket-Key"), 400, id="no key"),
            pytest.param(request(Sec_WebSocket_Key="c2hvcnQ="), 400, id="a short key"),
            pytest.param(request(Sec_WebSocket_Key="!" * 24), 400, id="no Base64"),
            pytest.param(request(without="Sec-WebSocket-Protocol"), 400, id="no subprotocol"),
            pytest.param(request(Sec_WebSocket_Protocol="xmpp, sipx"), 400, id="other subprotocols"),
            pytest.param(request(Content_Length="3") + b"abc", 400, id="a body"),
            pytest.param(request(Transfer_Encoding="chunked"), 400, id="a chunked body"),
            pytest.param(request(Origin="https://evil.example"), 403, id="a page from elsewhere"),
            pytest.param(request(Origin="null"), 403, id="a page from nowhere"),
            pytest.param(request(Origin="http://[::1"), 403, id="an origin that is none"),
            pytest.param(OPTIONS, 400, id="SIP without WebSocket"),
            pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(80), 400, id="TLS"),
            pytest.param(b"GET / HTTP/1.1\r\n" + b"Cookie: " + b"x" * MAX_HEAD, 431, id="too long"),
            pytest.param(request(Cookie="ä\x80"), 101, id="odd octets in a cookie"),
            pytest.param(request(Sec_WebSocket_Protocol="sip\u00e4"), 400, id="odd octets in the subprotocol"),
            pytest.param(request(Host="\u00e4"), 101, id="odd octets in Host"),
            pytest.param(request(Sec_WebSocket_Protocol="msrp, sip"), 101, id="one of several"),
            pytest.param(request(Origin="http://SIP.example.com"), 101, id="a page from here"),
            pytest.param(request(path="/ws?token=1"), 101, id="any path"),
        ],
    )
    def test_answers(self, octets: bytes, expected: int) -> None:
        server = WebSocketServer(WebSocketRules())
        assert server.receive(octets) == []
        answer = server.take()
        assert status(answer) == expected
        assert server.open == (expected == 101)
        assert server.ended == (expected != 101)
        if server.ended:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"\r\nContent-Length: {len(body)}".encode() in head
            assert b"\r\nConnection: close" in head
            assert b"SIP over WebSocket" in body
            assert (expected == 426) == (b"\r\nUpgrade: websocket" in head)
            assert server.why == f"http {expected}"
            server.close()
            assert (server.receive(request()), server.take()) == ([], b""), "it is over"

    @pytest.mark.parametrize(
        ("origins", "origin", "expected"),
        [
            (["https://phone.example.com"], "https://phone.example.com", 101),
            (["https://phone.example.com"], "https://Phone.Example.com", 101),
            (["https://phone.example.com"], "http://phone.example.com", 403),
            (["https://phone.example.com"], "https://phone.example.com:444", 403),
            (["https://phone.example.com"], "https://sip.example.com", 101),
            (["*"], "https://anything.example", 101),
            (["*"], "null", 101),
            (["null"], "null", 101),
        ],
    )
    def test_origins(self, origins: list[str], origin: str, expected: int) -> None:
        server = WebSocketServer(WebSocketRules(origins=frozenset(origins)))
        server.receive(request(Origin=origin))
        assert status(server.take()) == expected

    @pytest.mark.parametrize(("path", "expected"), [("/sip", 101), ("/sip?x=1", 101), ("/", 404), ("/sip/", 404)])
    def test_a_path(self, path: str, expected: int) -> None:
        server = WebSocketServer(WebSocketRules(path="/sip"))
        server.receive(request(path=path))
        assert status(server.take()) == expected

    def test_nothing_is_sent_before_it_is_done(self) -> None:
        server = WebSocketServer(WebSocketRules())
        assert (server.send(OPTIONS), server.ping()) == (b"", b"")
        server.close()
        assert (server.ended, server.take()) == (True, b"")


class TestMessages:
    def test_the_frames_of_the_rfc(self) -> None:
        """RFC 6455 §5.7: a masked "Hello", the same in two, a masked Ping."""
        server = connected()
        assert server.receive(bytes.fromhex("818537fa213d7f9f4d5158")) == [b"Hello"]
        server.receive(bytes.fromhex("898537fa213d7f9f4d5158"))
        assert server.take() == bytes.fromhex("8a0548656c6c6f")
        assert server.send(b"Hello") == bytes.fromhex("810548656c6c6f")

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_one_message_a_frame_answered_in_kind(self, opcode: int) -> None:
        server = connected()
        assert server.receive(frame(OPTIONS, opcode) * 2) == [OPTIONS, OPTIONS]
        assert list(frames(server.send(b"SIP/2.0 200 OK\r\n\r\n"))) == [(opcode, b"SIP/2.0 200 OK\r\n\r\n")]

    def test_octet_by_octet(self) -> None:
        server = connected()
        octets = frame(OPTIONS) + frame(OPTIONS, BINARY)
        found = [message for n in range(len(octets)) for message in server.receive(octets[n : n + 1])]
        assert found == [OPTIONS, OPTIONS]

    def test_fragments_with_a_ping_between_them(self) -> None:
        server = connected()
        assert server.receive(frame(OPTIONS[:100], fin=False)) == []
        assert server.unfinished
        assert server.receive(frame(b"?", PING)) == []
        assert server.receive(frame(OPTIONS[100:], 0)) == [OPTIONS]
        assert not server.unfinished
        assert list(frames(server.take())) == [(PONG, b"?")]

    def test_a_character_cut_in_two_by_fragments(self) -> None:
        server = connected()
        text = OPTIONS + "ä€𐍈".encode()
        found = [server.receive(frame(text[:-n], fin=False) + frame(text[-n:], 0)) for n in range(1, 10)]
        assert found == [[text]] * 9

    def test_octets_that_are_no_text_are_sent_binary(self) -> None:
        server = connected()
        server.receive(frame(OPTIONS))
        assert list(frames(server.send(b"\xff\xfe"))) == [(BINARY, b"\xff\xfe")]
        assert list(frames(server.send("ü".encode()))) == [(TEXT, "ü".encode())]

    def test_a_long_message_has_a_long_frame(self) -> None:
        server = connected()
        assert [len(payload) for _, payload in frames(server.send(bytes(60_000)))] == [60_000]

    def test_keepalive(self) -> None:
        server = connected()
        assert server.receive(frame(b"\r\n\r\n")) == []
        assert list(frames(server.take())) == [(TEXT, b"\r\n")]
        assert server.receive(frame(b"\r\n") + frame(b"")) == []
        assert server.take() == b""
        assert server.receive(frame(b"\r\n\r\n" + OPTIONS)) == [OPTIONS]
        assert server.take() == b""

    @pytest.mark.parametrize("name", ["Content-Length", "content-length ", "l"])
    def test_content_length(self, name: str) -> None:
        """It may be missing. Where it is not, the body is as long as it says; the parser finds one too short."""
        server = connected()
        head = OPTIONS[:-2]
        fits = head + f"{name}: 5\r\n\r\nhello".encode()
        short = head + f"{name}: 6\r\n\r\nhello".encode()
        long = head + f"{name}: 4\r\n\r\nhello".encode()
        assert server.receive(frame(fits) + frame(short) + frame(OPTIONS + b"hello")) == [
            fits, short, OPTIONS + b"hello",
        ]  # fmt: skip
        assert server.receive(frame(OPTIONS) + frame(long) + frame(OPTIONS)) == [OPTIONS]
        assert server.malformed is not None
        assert server.malformed[0] == long
        assert server.malformed[1].sip_status == 400
        answer = b"SIP/2.0 400 Bad Request\r\n\r\n"
        assert list(frames(server.send(answer))) == [(TEXT, answer)], "a request is owed one"
        assert (close_code(server), server.ended) == (1008, True)
        assert server.send(answer) == b""

    def test_a_response_is_taken_as_it_is(self) -> None:
        server = connected()
        response = b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\nhello"
        assert server.receive(frame(response)) == [response]

    def test_a_message_that_has_begun(self) -> None:
        """However little of it has come: whoever holds the connection has a clock for it."""
        server = connected()
        for octets in (frame(OPTIONS), frame(OPTIONS, fin=False) + frame(b"", 0, fin=False), frame(b"ping", PING)):
            seen = []
            for n in range(len(octets)):
                server.receive(octets[n : n + 1])
                seen.append(server.unfinished)
            assert seen[:-1] == [True] * (len(octets) - 1)
        assert server.unfinished, "the second message has not come to its end"
        server.receive(frame(b"", 0))
        assert not server.unfinished

    def test_a_ping_of_ours_and_its_pong(self) -> None:
        server = connected()
        assert list(frames(server.ping())) == [(PING, b"")]
        assert (server.receive(frame(b"", PONG)), server.take(), server.ended) == ([], b"", False)


class TestTheEnd:
    def test_the_phone_closes(self) -> None:
        server = connected()
        assert server.receive(frame(OPTIONS) + frame(struct.pack("!H", 1001) + b"bye", CLOSE) + frame(OPTIONS)) == [
            OPTIONS
        ]
        assert close_code(server) == 1001
        assert (server.ended, server.why) == (True, "closed")
        assert (server.receive(frame(OPTIONS)), server.send(OPTIONS), server.ping()) == ([], b"", b"")

    def test_the_phone_closes_without_a_code(self) -> None:
        server = connected()
        server.receive(frame(b"", CLOSE))
        assert list(frames(server.take())) == [(CLOSE, b"")]

    def test_we_close(self) -> None:
        server = connected()
        server.close()
        assert list(frames(server.take())) == [(CLOSE, struct.pack("!H", 1001))]
        assert server.ended
        server.close()
        assert server.take() == b""

    @pytest.mark.parametrize(
        ("octets", "code"),
        [
            pytest.param(frame(b"\xc3\x28"), 1007, id="no UTF-8"),
            pytest.param(frame(b"\xc3", fin=False) + frame(b"", 0), 1007, id="UTF-8 that ends too early"),
            pytest.param(frame(OPTIONS, mask=b""), 1002, id="not masked"),
            pytest.param(frame(OPTIONS, 3), 1002, id="an unknown opcode"),
            pytest.param(frame(OPTIONS, 0), 1002, id="a continuation of nothing"),
            pytest.param(frame(b"a", fin=False) + frame(OPTIONS), 1002, id="a message within another"),
            pytest.param(frame(b"", PING, fin=False), 1002, id="a Ping in two"),
            pytest.param(frame(bytes(126), PING), 1002, id="a long Ping"),
            pytest.param(b"\xc1" + frame(OPTIONS)[1:], 1002, id="compressed"),
            pytest.param(frame(b"\x03", CLOSE), 1002, id="half a code"),
            pytest.param(frame(struct.pack("!H", 1005), CLOSE), 1002, id="a code that is never sent"),
            pytest.param(frame(struct.pack("!H", 999), CLOSE), 1002, id="no code at all"),
            pytest.param(frame(bytes(1001)), 1009, id="too large"),
            pytest.param(frame(bytes(500), fin=False) + frame(bytes(501), 0), 1009, id="too large in two"),
            pytest.param(frame(bytes(10**6))[:2000], 1009, id="too large, not even whole"),
        ],
    )
    def test_codes(self, octets: bytes, code: int) -> None:
        server = connected(WebSocketRules(message=1000))
        assert server.receive(octets) == []
        assert close_code(server) == code
        assert server.ended
        assert server.why == f"websocket {code}"
        assert not server.unfinished
        assert (server.receive(frame(OPTIONS)), server.take()) == ([], b"")

    def test_the_largest_message_passes(self) -> None:
        server = connected(WebSocketRules(message=1000))
        assert server.receive(frame(b"x" * 1000)) == [b"x" * 1000]


@pytest.mark.parametrize("one", [frame(b"", 0x9), frame(b"", TEXT, fin=False), frame(b"", 0xA)])
def test_frames_that_say_nothing_end_a_connection(one: bytes) -> None:
    """A read of 4 KB holds 600 of them; honest phones send one in half a minute."""
    server = connected()
    rest = frame(b"", 0x0, fin=False) if one == frame(b"", TEXT, fin=False) else one
    assert server.receive(one + rest * 199) == []
    assert not server.ended
    server = connected()
    assert server.receive(one + rest * 200) == []
    assert server.ended and server.why == "websocket 1008"


# --- whatever comes ---------------------------------------------------------------------------------------------------

_PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([request(), OPTIONS, frame(OPTIONS), frame(b"\r\n\r\n"), frame(b"", CLOSE), b"\r\n\r\n", b"GET "]),
    st.builds(
        frame,
        st.binary(max_size=140),
        st.integers(0, 15),
        fin=st.booleans(),
        mask=st.sampled_from([b"", b"abcd", bytes(4)]),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.booleans(), st.lists(_PIECES, max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_anything_gives_messages_or_a_clean_end_however_it_is_cut(
    shaken: bool, pieces: list[bytes], cuts: list[int]
) -> None:
    rules = WebSocketRules(message=300)
    octets = (request() if shaken else b"") + b"".join(pieces)
    whole, cut = WebSocketServer(rules), WebSocketServer(rules)
    messages = whole.receive(octets)
    found, at, n = [], 0, 0
    while at < len(octets):
        size = cuts[n % len(cuts)]
        found += cut.receive(octets[at : at + size])
        at, n = at + size, n + 1
    assert all(0 < len(message) <= 300 for message in messages)
    assert (found, cut.open, cut.ended) == (messages, whole.open, whole.ended)
    answers = []
    for server in (whole, cut):
        if server.ended:
            server.close()
        answers.append(server.take())
    if whole.why in ("", "closed") or not whole.open:
        assert answers[0] == answers[1]
    else:  # of two reasons to end it, the one that was seen first is named
        assert [list(frames(_behind(answer)))[-1][0] for answer in answers] == [CLOSE, CLOSE]
    if whole.ended:
        assert whole.send(OPTIONS) == b""


def _behind(octets: bytes) -> bytes:
    """What follows the answer to the handshake."""
    return octets.partition(b"\r\n\r\n")[2]
