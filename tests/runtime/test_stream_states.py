"""Every state of a connection meets every input, on a clock of the test: RFC 3261 §18.2, §18.4, docs/states.md."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from orchestrator.errors import MalformedMessage
from orchestrator.runtime.streams.limits import ANSWER_TIME, LINGER, StreamLimits
from orchestrator.runtime.streams.stream import TABLE, Stream
from orchestrator.runtime.streams.websocket import WebSocketRules, WebSocketServer
from orchestrator.sip.framing import StreamFramer
from orchestrator.sip.points import Hop, Point

LIMITS = StreamLimits(connect=4, handshake=10, message=6, idle=100, write=20, write_queue=5000)
PEER = Hop(Point(0, "tls", "192.0.2.1", 5061), "192.0.2.7", 40_000, 7)
OPTIONS = b"OPTIONS sip:a@example.com SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"
HELLO, FAREWELL = b"<hello>", b"<farewell>"


class Plain:
    """A cipher that enciphers nothing: each side says hello, then messages, then a farewell."""

    def __init__(self, name: str | None) -> None:
        self.open = self.ended = False
        self.why = ""
        self.proved = False
        self.named = "example.com"
        self._out = HELLO if name is not None else b""

    def receive(self, octets: bytes) -> bytes:
        if not self.open:
            if not octets.startswith(HELLO):
                self.ended, self.why = True, "no hello"
                self._out += b"<alert>"
                return b""
            self.open = True
            self._out += HELLO
            octets = octets[len(HELLO) :]
        plain, farewell, _ = octets.partition(FAREWELL)
        self.ended = bool(farewell)
        return plain

    def take(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def send(self, message: bytes) -> bytes:
        return self.take() + message

    def close(self) -> None:
        self.ended = True
        if self.open:
            self._out += FAREWELL

    def admits(self, name: str) -> str:
        return "" if name in ("", self.named) else "wrong name"


def stream(name: str | None = None, cipher: bool = True, now: float = 0.0) -> Stream:
    return Stream(LIMITS, StreamFramer(), Plain(name) if cipher else None, PEER, now, name)


def connecting() -> Stream:
    made = stream("example.com")
    made.send(OPTIONS, PEER, 0.0)
    return made


def handshaking() -> Stream:
    made = connecting()
    made.step("connected", 0.0)
    taken(made)
    return made


def idle() -> Stream:
    made = stream()
    made.step("connected", 0.0)
    made.receive(HELLO + OPTIONS, 0.0)
    made.messages.clear()
    made.finish(0.0)
    taken(made)
    return made


def half_a_message() -> Stream:
    made = idle()
    made.receive(OPTIONS[:20], 0.0)
    return made


def writing() -> Stream:
    made = idle()
    made.send(OPTIONS, PEER, 0.0)
    made.written(5, 0.0)
    return made


def answering() -> Stream:
    made = idle()
    made.step("end", 0.0)
    made.send(OPTIONS, PEER, 0.0)
    taken(made)
    return made


def closing() -> Stream:
    made = writing()
    made.step("close", 0.0)
    return made


def closed() -> Stream:
    made = idle()
    made.step("reset", 0.0)
    return made


def taken(made: Stream) -> bytes:
    """The kernel takes everything."""
    octets = b"".join(piece.octets for piece in made.outbox)
    made.written(len(octets), 0.0)
    return octets


def late(made: Stream) -> None:
    made.time_out(made.deadline)


def broken(made: Stream) -> None:
    made.receive(b"\0", 1.0)
    made.messages.clear()
    made.finish(1.0)


SITUATIONS: tuple[Callable[[], Stream], ...] = (
    connecting, handshaking, idle, half_a_message, writing, answering, closing, closed,
)  # fmt: skip

INPUTS: dict[str, Callable[[Stream], object]] = {
    "connected": lambda s: s.step("connected", 1.0),
    "hello": lambda s: s.receive(HELLO, 1.0),
    "octets": lambda s: s.receive(OPTIONS, 1.0),
    "noise": broken,
    "end": lambda s: s.hear_end(1.0),
    "reset": lambda s: s.step("reset", 1.0),
    "refused": lambda s: s.step("refused", 1.0),
    "time-out": late,
    "write error": lambda s: s.step("write error", 1.0),
    "full": lambda s: [s.send(OPTIONS, PEER, 1.0) for _ in range(100)],
    "close": lambda s: s.step("close", 1.0),
    "abort": lambda s: s.step("abort", 1.0),
}

FOLLOWS = """
                connecting   handshaking  idle        half_a_message  writing     answering   closing  closed
connected       handshaking  handshaking  open        open            open        answering   closing  closed
hello           -            open         -           -               -           -           closing  closed
octets          -            closing      open        open            open        answering   closing  closed
noise           -            closing      closing     open            closing     closed      closing  closed
end             closed       closed       answering   closing         answering   answering   closed   closed
reset           closed       closed       closed      closed          closed      closed      closed   closed
refused         closed       handshaking  open        open            open        answering   closing  closed
time-out        closed       closed       closing     closing         closed      closing     closed   closed
write error     closed       closed       closed      closed          closed      closed      closed   closed
full            closed       closed       closed      closed          closed      closed      closing  closed
close           closed       closed       closing     closing         closing     closing     closing  closed
abort           closed       closed       closed      closed          closed      closed      closed   closed
"""
"""By hand; `-` cannot be: octets before the connection stands, a second handshake."""


def follows() -> dict[tuple[str, str], str]:
    head, *rows = FOLLOWS.strip().splitlines()
    found = {}
    for row in rows:
        what = next(name for name in sorted(INPUTS, key=len, reverse=True) if row.startswith(name))
        states = row.removeprefix(what).split()
        found |= {(situation, what): state for situation, state in zip(head.split(), states, strict=True)}
    return found


EXPECTED = follows()
PAIRS = [pair for pair in product(SITUATIONS, INPUTS) if EXPECTED[pair[0].__name__, pair[1]] != "-"]


def messages_in(made: Stream) -> int:
    """Messages that it still has, or gave back."""
    return sum(bool(piece.message) for piece in (*made.outbox, *made._queue, *made.unsent))


@pytest.mark.parametrize(("situation", "what"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_every_input_in_every_state(situation: Callable[[], Stream], what: str) -> None:
    made = situation()
    before = messages_in(made)
    INPUTS[what](made)
    made.finish(1.0)
    assert made.state == EXPECTED[situation.__name__, what]
    sent = 100 if what == "full" else 0
    given_back = 1 if situation is answering and EXPECTED["answering", what] == "closed" and what != "noise" else 0
    assert messages_in(made) == before + sent + given_back, "no message is lost without a word"
    if made.state == "closed":
        assert not made.outbox and not made._queue and made.size == 0
        assert made.deadline == float("inf")
    else:
        assert made.deadline < 1000.0, "nothing stays for ever"


def test_every_pair_is_listed() -> None:
    assert {(situation.__name__, what) for situation in SITUATIONS for what in INPUTS} == EXPECTED.keys()


def test_every_state_ends_when_nothing_happens_any_more() -> None:
    for situation in SITUATIONS:
        made = situation()
        for _ in range(4):
            late(made)
            made.finish(made.deadline)
        assert made.state == "closed", situation.__name__


def test_every_entry_of_the_table_leads_to_a_state() -> None:
    assert {entry[0] for row in TABLE.values() for entry in row.values()} == TABLE.keys() - {"connecting"}


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_what_waits_for_the_handshake_goes_behind_it() -> None:
    made = handshaking()
    made.send(OPTIONS + b"2", PEER, 0.5)
    made.receive(HELLO, 1.0)
    assert taken(made) == HELLO + OPTIONS + OPTIONS + b"2"
    assert made.size == 0


def test_a_peer_with_another_name_is_told_nothing_and_not_heard() -> None:
    made = stream("example.net")
    made.send(OPTIONS, PEER, 0.0)
    made.step("connected", 0.0)
    taken(made)
    made.receive(HELLO + OPTIONS, 1.0)
    made.finish(1.0)
    assert made.messages == [] and made.why == "wrong name"
    assert [piece.message for piece in made.unsent] == [OPTIONS]
    assert OPTIONS not in taken(made)


def test_a_handshake_that_fails_is_said_to_the_peer() -> None:
    made = stream()
    made.step("connected", 0.0)
    made.receive(b"GET / HTTP/1.0\r\n\r\n", 1.0)
    made.finish(1.0)
    assert made.state == "closing" and made.farewell_due and taken(made) == b"<alert>"


def test_messages_before_the_end_are_served_and_answered() -> None:
    """A message without a length ends the connection, but not for those before it."""
    made = stream(cipher=False)
    made.step("connected", 0.0)
    made.receive(OPTIONS + OPTIONS.replace(b"Content-Length", b"Content-Size"), 1.0)
    assert made.messages == [OPTIONS] and made.state == "open"
    made.send(b"SIP/2.0 200 OK\r\n\r\n", PEER, 1.0)
    assert made.malformed is not None and made.malformed[1].sip_status == 400
    made.send(b"SIP/2.0 400 Bad\r\n\r\n", PEER, 1.0)
    made.messages.clear()
    made.finish(1.0)
    assert made.state == "closing" and made.malformed is None
    assert taken(made) == b"SIP/2.0 200 OK\r\n\r\nSIP/2.0 400 Bad\r\n\r\n"
    made.receive(OPTIONS, 2.0)
    assert made.messages == []


def test_a_farewell_of_the_peer_leaves_time_for_answers() -> None:
    made = idle()
    made.receive(OPTIONS + FAREWELL, 1.0)
    made.messages.clear()
    made.finish(1.0)
    assert made.state == "answering"
    made.send(b"SIP/2.0 200 OK\r\n\r\n", PEER, 2.0)
    assert taken(made) == b"SIP/2.0 200 OK\r\n\r\n"
    assert not made.usable, "nothing new goes to who does not listen"


def test_the_kernel_takes_as_much_as_it_likes() -> None:
    made = idle()
    for _ in range(3):
        made.send(OPTIONS, PEER, 0.0)
    octets, out = b"", b""
    while made.outbox:
        octets = made.outbox[0].octets[:7]
        out += octets
        made.written(len(octets), 0.0)
    assert out == OPTIONS * 3 and made.size == 0


def test_half_written_messages_count_as_unsent() -> None:
    made = writing()
    made.step("write error", 1.0)
    assert [(piece.message, piece.hop) for piece in made.unsent] == [(OPTIONS, PEER)]


# --- time -------------------------------------------------------------------------------------------------------------


def test_connecting_has_its_time() -> None:
    assert connecting().deadline == 4.0


def test_handshake_and_first_message_have_one_time_together() -> None:
    made = stream()
    made.step("connected", 0.0)
    made.receive(HELLO, 9.0)
    assert taken(made) == HELLO and made.state == "open" and made.deadline == 10.0
    made.receive(OPTIONS, 9.5)
    assert made.deadline == 109.5


def test_a_message_has_its_time_from_the_first_octet() -> None:
    made = idle()
    for second in range(5):
        made.receive(OPTIONS[second : second + 1], float(second))
    assert made.deadline == 6.0
    made.receive(OPTIONS[5:] + OPTIONS[:5], 5.0)
    assert made.deadline == 11.0, "the next one has its own"
    made.time_out(11.0)
    assert made.malformed is not None and made.malformed[0] == OPTIONS[:5]
    made.finish(11.0)
    assert (made.state, made.why) == ("closing", "message time-out")


def test_each_message_is_taken_in_its_time() -> None:
    """A peer that takes an octet now and then is not kept for ever."""
    made = idle()
    made.send(OPTIONS, PEER, 3.0)
    for second in range(4, 23):
        made.written(1, float(second))
        made.time_out(float(second))
        assert made.state == "open"
    made.time_out(23.0)
    assert (made.state, made.why) == ("closed", "write time-out")


def test_keep_alives_keep_it_alive() -> None:
    made = idle()
    for second in range(50, 500, 50):
        made.receive(b"\r\n\r\n", float(second))
        assert taken(made) == b"\r\n"
        made.time_out(float(second))
    assert made.deadline == 550.0
    made.time_out(550.0)
    assert (made.state, made.why) == ("closing", "idle")
    assert made.deadline == 550.0 + LINGER


def test_a_peer_that_has_said_all_is_answered_for_a_while() -> None:
    made = idle()
    made.receive(OPTIONS, 50.0)
    made.step("end", 60.0)
    assert made.deadline == 50.0 + ANSWER_TIME


def test_malformed_is_told_once() -> None:
    made = stream(cipher=False)
    made.step("connected", 0.0)
    made.receive(b"{}", 0.0)
    assert made.malformed is not None and isinstance(made.malformed[1], MalformedMessage)
    made.finish(0.0)
    assert made.malformed is None and made.why == "this is no SIP"


# --- a framing that shakes hands and pings ----------------------------------------------------------------------------


def browser(ping: float) -> Stream:
    made = Stream(LIMITS, WebSocketServer(WebSocketRules(ping=ping)), None, PEER, 0.0)
    made.step("connected", 0.0)
    made.receive(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
        5.0,
    )
    assert made.state == "open"
    taken(made)
    return made


def test_who_has_shaken_hands_may_be_silent() -> None:
    assert browser(0.0).deadline == 5.0 + LIMITS.idle


def test_a_silent_browser_is_pinged_and_then_gone() -> None:
    made = browser(30.0)
    for due in (35.0, 65.0):
        assert made.deadline == due
        made.time_out(due)
        assert (taken(made), made.state) == (b"\x89\x00", "open")
    assert made.deadline == 95.0
    made.time_out(95.0)
    assert (made.state, made.why) == ("closing", "idle")
    assert taken(made) == b"\x88\x02\x03\xe9"


def test_a_pong_is_a_sign_of_life() -> None:
    made = browser(30.0)
    made.time_out(35.0)
    taken(made)
    made.receive(b"\x8a\x80abcd", 36.0)
    assert (made.deadline, made._silent_at) == (66.0, 126.0)


def test_an_idle_time_below_the_pings_counts() -> None:
    made = browser(60.0)
    made.time_out(65.0)
    assert (taken(made), made.deadline) == (b"\x89\x00", 105.0)
    made.time_out(105.0)
    assert made.state == "closing"
