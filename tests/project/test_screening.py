"""Scenario 2 with nothing replaced: the command line's server, a real FreeSWITCH, a digit in real RTP.

Alice calls bob `via: fs1`; bob answers and presses a key. The flow ends the call unless the key is 2.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from media_server import MediaServer, needs_freeswitch, orchestrator

pytestmark = needs_freeswitch

PATIENCE = 90.0
"""Seconds a busy machine may take for anything."""

FLOW = """
flowlang: 1
flows:
  screened:
    on: invite
    do:
      - subscribe: dtmf
        where: event.leg == 'callee'
        limit: 1
        do:
          - hangup: 'callee pressed ${event.digit}'
            if: event.digit != 2
      - relay: {to: registered, via: fs1, ring: 30s}
        on:
          else: [reply: 480]
"""


@pytest.fixture
def proxy_port(server: MediaServer, tmp_path: Path) -> Iterator[int]:
    """SIP port of an `orchestrator run` that is connected to FreeSWITCH."""
    with orchestrator(server, tmp_path, FLOW) as port:
        yield port


class Phone:
    """One SIP user agent on one socket, in plain text."""

    def __init__(self, name: str, proxy: int) -> None:
        self.name, self.proxy = name, ("127.0.0.1", proxy)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.contact = f"<sip:{name}@127.0.0.1:{self.port}>"
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind(("127.0.0.1", 0))
        self.sequence = 0
        self.packets = 0
        self.next_frame = 0.0

    def close(self) -> None:
        self.socket.close()
        self.rtp.close()

    def sdp(self) -> str:
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp.getsockname()[1]} RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        )

    def request(self, method: str, uri: str, to: str, number: int, routes: list[str], body: str = "") -> None:
        self.sequence += 1
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{self.name}{self.sequence};rport",
            *(f"Route: {route}" for route in routes),
            "Max-Forwards: 70",
            f"From: <sip:{self.name}@example.com>;tag={self.name}",
            f"To: {to}",
            f"Call-ID: {method if method == 'REGISTER' else 'call'}-{self.port}",
            f"CSeq: {number} {method}",
            f"Contact: {self.contact}",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.socket.sendto("\r\n".join((*lines, "", body)).encode(), self.proxy)

    def answer(self, request: str, status: str, body: str = "") -> None:
        kept = re.findall(r"^(?:Via|From|Call-ID|CSeq|Record-Route): .*(?=\r$)", request, re.MULTILINE)
        to = value(request, "To")
        lines = [
            f"SIP/2.0 {status}",
            *kept,
            f"To: {to if ';tag=' in to else to + ';tag=' + self.name}",
            f"Contact: {self.contact}",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.socket.sendto("\r\n".join((*lines, "", body)).encode(), self.proxy)

    def expect(self, start: str, meanwhile: Callable[[], None] | None = None) -> str:
        """The next message that begins so; provisional answers and repetitions are passed over.

        `meanwhile`: what the phone does again and again until then. On a busy machine FreeSWITCH may listen late.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if meanwhile is not None:
                meanwhile()
            self.socket.settimeout(0.001 if meanwhile is not None else PATIENCE)
            try:
                message = self.socket.recv(65_535).decode()
            except TimeoutError:
                continue
            if message.startswith(start):
                return message
        pytest.fail(f"no {start}for {self.name} within {PATIENCE} s")

    def hears_nothing(self) -> bool:
        self.socket.settimeout(0.5)
        try:
            return self.socket.recv(65_535) == b""
        except TimeoutError:
            return True

    def frame(self, kind: int, stamp: int, payload: bytes, far_port: int) -> None:
        """One packet of 20 ms. The numbers go on from one to the next, and so does the time: a phone that is late
        catches up. FreeSWITCH takes a lost moment for silence, but reads what comes at once one after another."""
        self.packets += 1
        self.rtp.sendto(struct.pack("!BBHII", 0x80, kind, self.packets, stamp, 9) + payload, ("127.0.0.1", far_port))
        now = time.monotonic()
        begun = self.next_frame if now - self.next_frame < 0.2 else now
        self.next_frame = begun + 0.02
        time.sleep(max(self.next_frame - now, 0))

    @property
    def stamp(self) -> int:
        return self.packets * 160

    def is_silent(self, seconds: float, far_port: int) -> None:
        for _ in range(int(seconds * 50)):
            self.frame(8, self.stamp, b"\xd5" * 160, far_port)

    def type(self, keys: Sequence[int], far_port: int) -> None:
        """Keys as RTP events (RFC 4733), 11 is the hash, with a quarter of a second between them; of the ten packets of
        a key the last three mark its end."""
        for key in keys:
            self.is_silent(0.25, far_port)
            begun = self.stamp
            for n in range(10):
                event = struct.pack("!BBH", key, (0x80 if n >= 7 else 0) | 10, min(n + 1, 8) * 160)
                self.frame(101 | (0x80 if n == 0 else 0), begun, event, far_port)

    def farewell(self, meanwhile: Callable[[], None] | None = None) -> str:
        """Answer the BYE that ends the call; the text of its Reason (RFC 3326), '' without one."""
        bye = self.expect("BYE ", meanwhile)
        self.answer(bye, "200 OK")
        match = re.search(r'^Reason: .*text="([^"]*)"\r$', bye, re.MULTILINE)
        return match[1] if match else ""


def value(message: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)\r$", message, re.MULTILINE)
    assert match is not None, message
    return match[1]


class Call:
    """Alice calls bob, who answers; both are in conversation when it is made."""

    def __init__(self, alice: Phone, bob: Phone) -> None:
        self.alice, self.bob = alice, bob
        bob.request("REGISTER", "sip:example.com", "<sip:bob@example.com>", 1, [])
        bob.expect("SIP/2.0 200")
        alice.request("INVITE", "sip:bob@example.com", "<sip:bob@example.com>", 1, [], alice.sdp())
        self.invite = bob.expect("INVITE ")
        bob.answer(self.invite, "180 Ringing")
        self.ringing = alice.expect("SIP/2.0 180")
        bob.answer(self.invite, "200 OK", bob.sdp())
        answer = alice.expect("SIP/2.0 200")
        self.to, self.target = value(answer, "To"), value(answer, "Contact").strip("<>")
        self.routes = list(reversed(re.findall(r"^Record-Route: (.*)\r$", answer, re.MULTILINE)))
        self.request("ACK", 1)
        bob.expect("ACK ")

    def request(self, method: str, number: int) -> None:
        self.alice.request(method, self.target, self.to, number, self.routes)

    @property
    def freeswitch_rtp(self) -> int:
        match = re.search(r"m=audio (\d+)", self.invite)
        assert match is not None
        return int(match[1])


@pytest.fixture
def call(proxy_port: int) -> Iterator[Call]:
    alice, bob = Phone("alice", proxy_port), Phone("bob", proxy_port)
    yield Call(alice, bob)
    alice.close()
    bob.close()


def test_another_key_than_2_ends_the_call_on_both_sides(call: Call) -> None:
    call.bob.farewell(lambda: call.bob.type([5], call.freeswitch_rtp))
    call.alice.farewell()


def test_the_caller_is_told_no_names_of_ours(call: Call) -> None:
    """A phone would show `Outbound Call` instead of what was dialled."""
    assert not re.search("Remote-Party-ID|P-Asserted|Outbound", call.ringing, re.IGNORECASE)


def test_key_2_keeps_it_until_somebody_hangs_up(call: Call) -> None:
    call.bob.type([2], call.freeswitch_rtp)
    assert call.alice.hears_nothing() and call.bob.hears_nothing()
    call.request("BYE", 2)
    call.alice.expect("SIP/2.0 200")
    call.bob.answer(call.bob.expect("BYE "), "200 OK")
