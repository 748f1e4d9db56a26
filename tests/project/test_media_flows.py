"""Flows that use the media, with nothing replaced: the command line's server, a real FreeSWITCH, sound in real RTP.

What a flow has found out it says in the Reason of its BYE.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from media_server import MediaServer, needs_freeswitch, orchestrator
from test_screening import PATIENCE, Phone, value

pytestmark = needs_freeswitch

FLOW = """
flowlang: 1
events: {call_back: {to: aor}}
flows:
  ivr:
    on: invite
    when: call.target.user == 'ivr'
    do:
      - media: fs1
      - play: 'tone_stream://%(200,0,440)'
      - answer: {headers: {X-Greeting: done}}
      - collect: {max: 4, end: '#', timeout: 20s, prompt: 'tone_stream://%(60000,0,350)'}
        as: digits
      - record: {file: RECORDING, max: 1s}
        as: r
      - hangup: '${digits}, ${r.duration > 500ms ? "recorded" : "nothing recorded"}'
  fax:
    on: invite
    when: call.target.user == 'fax'
    do:
      - media: {server: fs1, answer: true}
      - detect: {what: fax, for: 25s}
      - play: {file: 'tone_stream://%(1000,4000,425);loops=-1', background: true}
      - first_of:
          - wait: fax_tone
            do: [hangup: '${event.tone} from the ${event.leg}']
          - after: 25s
            do: [hangup: nothing heard]
  ask:
    on: invite
    when: call.target.user == 'ask'
    do:
      - raise: call_back
        data: {to: '${call.from.user}@example.com'}
      - reply: 480
  call_back:
    on: call_back
    do:
      - originate: {to: 'sip:${event.to}', ring: 25s}
        as: out
      - if: out.outcome != 'answered'
        then: [stop]
      - detect: {what: beep, for: 25s}
      - first_of:
          - wait: beep
            do: [hangup: 'machine, ${event.frequency > 990 and event.frequency < 1010}']
          - wait: dtmf
            do: [hangup: 'person, ${event.digit}']
  put_through:
    on: invite
    when: call.target.user == 'office'
    do:
      - media: {server: fs1, answer: true}
      - transfer: 'sip:bob@example.com'
      - play: {file: 'tone_stream://%(200,0,440)', leg: both}
      - hangup: put through
"""


@pytest.fixture
def proxy_port(server: MediaServer, tmp_path: Path) -> Iterator[int]:
    flow = FLOW.replace("RECORDING", str(tmp_path / "caller.wav"))
    with orchestrator(server, tmp_path, flow) as port:
        yield port


class Sounding(Phone):
    """A phone in one call that can sound a tone."""

    def call(self, user: str) -> str:
        """Dial, and take the answer; returns it."""
        to = f"<sip:{user}@example.com>"
        self.request("INVITE", f"sip:{user}@example.com", to, 1, [], self.sdp())
        return self.answered()

    def answered(self) -> str:
        """The answer to our call, acknowledged."""
        answer = self.expect("SIP/2.0 200")
        routes = [line[14:] for line in answer.split("\r\n") if line.startswith("Record-Route: ")]
        target = value(answer, "Contact").strip("<>")
        self.request("ACK", target, value(answer, "To"), 1, list(reversed(routes)))
        return answer

    def register(self) -> None:
        aor = f"<sip:{self.name}@example.com>"
        self.request("REGISTER", "sip:example.com", aor, 1, [])
        self.expect("SIP/2.0 200")

    def sound(self, frequency: int, seconds: float, far_port: int) -> None:
        """A tone in A-law after a quarter of a second of silence."""
        self.is_silent(0.25, far_port)
        payloads = tone(frequency)
        for number in range(int(seconds * 50)):
            self.frame(8, self.stamp, payloads[number % len(payloads)], far_port)

    def forgets(self) -> None:
        """What was heard so far does not count."""
        self.rtp.setblocking(False)
        try:
            while self.rtp.recv(2_048):
                pass
        except BlockingIOError:
            self.rtp.setblocking(True)

    def hears_sound(self, meanwhile: Callable[[], None] | None = None) -> bool:
        """Whether FreeSWITCH plays something to us: a packet that is not silence.

        `meanwhile`: what makes the sound, done again and again.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if meanwhile is not None:
                meanwhile()
            packets: list[bytes] = []
            self.rtp.settimeout(0.1)
            try:
                packets.append(self.rtp.recv(2_048))
                self.rtp.setblocking(False)
                while True:
                    packets.append(self.rtp.recv(2_048))
            except (TimeoutError, BlockingIOError):
                pass
            if any(len(packet) > 12 and len(set(packet[12:])) > 8 for packet in packets):
                return True
        return False


@lru_cache
def tone(frequency: int) -> list[bytes]:
    """A second of it, in frames of 20 ms; made before it is sent, since sending is bound to the time."""
    samples = [alaw(math.sin(2 * math.pi * frequency * n / 8000)) for n in range(8000)]
    return [bytes(samples[start : start + 160]) for start in range(0, 8000, 160)]


def alaw(sample: float) -> int:
    """G.711 A-law of a sample between -1 and 1."""
    size = min(int(abs(sample) * 16_000), 32_635)
    exponent = max(size.bit_length() - 8, 0)
    mantissa = (size >> (exponent + 3 if exponent else 4)) & 15
    return ((0x80 if sample >= 0 else 0) | exponent << 4 | mantissa) ^ 0x55


def rtp_port(message: str) -> int:
    return int(message.split("m=audio ")[1].split()[0])


@pytest.fixture
def phone(proxy_port: int) -> Iterator[Callable[[str], Sounding]]:
    phones: list[Sounding] = []

    def make(name: str) -> Sounding:
        phones.append(Sounding(name, proxy_port))
        return phones[-1]

    yield make
    for phone in phones:
        phone.close()


def test_prompts_digits_and_a_recording(phone: Callable[[str], Sounding], tmp_path: Path) -> None:
    alice = phone("alice")
    answer = alice.call("ivr")
    assert value(answer, "X-Greeting") == "done"
    port = rtp_port(answer)
    alice.is_silent(0.2, port)
    alice.forgets()
    assert alice.hears_sound(), "the prompt of collect"
    alice.type([4, 7, 11], port)
    assert alice.farewell(lambda: alice.sound(500, 0.5, port)) == "47, recorded"
    assert (tmp_path / "caller.wav").stat().st_size > 8_000


def test_a_calling_fax(phone: Callable[[str], Sounding]) -> None:
    alice = phone("alice")
    port = rtp_port(alice.call("fax"))
    assert alice.farewell(lambda: alice.sound(1100, 0.6, port)) == "cng from the caller"


@pytest.mark.parametrize("party", ["machine", "person"])
def test_who_takes_a_call_of_ours(phone: Callable[[str], Sounding], party: str) -> None:
    bob = phone("bob")
    bob.register()
    bob.request("INVITE", "sip:ask@example.com", "<sip:ask@example.com>", 1, [], bob.sdp())
    invite = bob.expect("INVITE ")
    assert "<sip:anonymous@anonymous.invalid>" in value(invite, "From")
    bob.answer(invite, "200 OK", bob.sdp())
    bob.expect("ACK ")
    port = rtp_port(invite)
    if party == "machine":
        assert bob.farewell(lambda: bob.sound(1000, 1.0, port)) == "machine, true"
    else:
        assert bob.farewell(lambda: bob.type([6], port)) == "person, 6"


def test_a_held_caller_is_put_through(phone: Callable[[str], Sounding]) -> None:
    alice, bob = phone("alice"), phone("bob")
    bob.register()
    alice.call("office")
    invite = bob.expect("INVITE ")
    assert "<sip:alice@example.com>" in value(invite, "From"), "her domain, not FreeSWITCH's address"
    assert value(invite, "To") == "<sip:bob@example.com>"
    bob.answer(invite, "200 OK", bob.sdp())
    assert alice.farewell() == "put through"
    bob.answer(bob.expect("BYE "), "200 OK")
