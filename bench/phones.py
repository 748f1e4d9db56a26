"""Callers and sleeping phones for benchmarks: one process, two plain UDP sockets, octets put together by hand.

Everything is a closed loop with a bounded number of messages under way, and waits at most `PATIENCE` seconds for any
of them: nothing is repeated, so a lost datagram ends the benchmark instead of bending its figures.
"""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Self

PATIENCE = 10.0
"""Seconds for one message of the closed loop to arrive."""

FINAL = (b"SIP/2.0 486 ", b"SIP/2.0 600 ")
"""What a caller is told when the phone refuses for all phones: our flows say busy, OpenSIPS hands it on."""

LATER = 0.05
"""Seconds after which a refused call is made again."""

_SDP = (
    b"v=0\r\no=alice 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8 101\r\n"
    b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
_COPIED = re.compile(rb"(?mi)^(?:via|from|to|call-id|cseq|record-route):[^\r]*\r\n")
_TO = re.compile(rb"(?mi)^to:[^\r]*")
_NUMBER = re.compile(rb"(?mi)^call-id: *call-([0-9]+)\.")
_URI = re.compile(rb"[A-Z]+ ([^ ]+) ")


class Wire:
    """A UDP socket that talks to one server."""

    def __init__(self, host: str, server: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self.socket.bind((host, 0))
        self.socket.settimeout(PATIENCE)
        self.address = b"%b:%d" % (host.encode(), self.socket.getsockname()[1])
        self.server = b"%b:%d" % (server[0].encode(), server[1])
        self._to = server

    def send(self, octets: bytes) -> None:
        self.socket.sendto(octets, self._to)

    def receive(self, begin: bytes | tuple[bytes, ...]) -> bytes:
        """The next datagram that begins like that (or in one of these ways); others are passed over. Raises
        TimeoutError."""
        octets = b"nothing"
        try:
            while True:
                octets = self.socket.recv(65_535)
                if octets.startswith(begin):
                    return octets
        except TimeoutError:
            raise TimeoutError(f"no {begin!r} came in {PATIENCE:g} s; the last was {octets[:80]!r}") from None

    def close(self) -> None:
        self.socket.close()


class Population:
    """`user<n>` calls never, `alice` calls them all: callers on one socket, phones on another."""

    def __init__(self, host: str, server: tuple[str, int]) -> None:
        self.callers = Wire(host, server)
        self.phones = Wire(host, server)
        self._invites = self._guests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.callers.close()
        self.phones.close()

    # --- calls --------------------------------------------------------------------------------------------------------

    def invite(self, number: int) -> None:
        """alice calls user<number>, again when she was refused before."""
        self._invites += 1
        me, server = self.callers.address, self.callers.server
        self.callers.send(
            b"INVITE sip:user%d@%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKi%d\r\nMax-Forwards: 70\r\n"
            b'From: "Alice" <sip:alice@example.com>;tag=a%d\r\nTo: <sip:user%d@%b>\r\nCall-ID: call-%d.%d@%b\r\n'
            b"CSeq: 1 INVITE\r\nContact: <sip:alice@%b>\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY\r\n"
            b"Supported: replaces, timer, outbound\r\nUser-Agent: Bench Phone 5.10.3\r\n"
            b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
            % (
                number,
                server,
                me,
                self._invites,
                number,
                number,
                server,
                number,
                self._invites,
                me,
                me,
                len(_SDP),
                _SDP,
            )
        )

    def park(self, numbers: Iterable[int], window: int, before_next: Callable[[int], None]) -> None:
        """Call each of them, `window` at a time; a call counts as parked with its 100.

        A call refused because the server is overloaded (503) is made again a little later. `before_next(parked)` may
        wait, for what the server does besides. Raises TimeoutError where every call is refused.
        """
        to_call = deque(numbers)
        under_way = parked = 0
        last = time.monotonic()
        while to_call or under_way:
            if to_call and under_way < window:
                self.invite(to_call.popleft())
                under_way += 1
                continue
            response = self.callers.receive(b"SIP/2.0 ")
            under_way -= 1
            if response.startswith(b"SIP/2.0 503 "):
                self.callers.send(acknowledge(response, self.callers.server))
                to_call.append(number_of(response))
                if time.monotonic() > last + PATIENCE:
                    raise TimeoutError(f"all calls are refused once {parked} are parked")
                time.sleep(LATER)
                continue
            parked += 1
            last = time.monotonic()
            before_next(parked)

    # --- phones -------------------------------------------------------------------------------------------------------

    def wake(self, number: int) -> tuple[float, bytes]:
        """user<number> registers, is called at once and rings; seconds from its REGISTER to the INVITE, and that."""
        register = self._register(b"user", number)
        begun = time.perf_counter()
        self.phones.send(register)
        invite = self.phones.receive(b"INVITE ")
        passed = time.perf_counter() - begun
        self.ring(invite)
        return passed, invite

    def enrol_guests(self, count: int) -> None:
        """So many phones register that nobody calls, one after the other."""
        for number in range(self._guests, self._guests + count):
            self.phones.send(self._register(b"guest", number))
            self.phones.receive(b"SIP/2.0 200 ")
        self._guests += count

    def _register(self, name: bytes, number: int) -> bytes:
        """The REGISTER of <name><number>."""
        me, server = self.phones.address, self.phones.server
        user = b"%b%d" % (name, number)
        return (
            b"REGISTER sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bKr%b\r\nMax-Forwards: 70\r\n"
            b"From: <sip:%b@%b>;tag=r%b\r\nTo: <sip:%b@%b>\r\nCall-ID: reg-%b@%b\r\nCSeq: 1 REGISTER\r\n"
            b"Contact: <sip:%b@%b>\r\nExpires: 3600\r\nUser-Agent: Bench Phone 5.10.3\r\nContent-Length: 0\r\n\r\n"
            % (server, me, user, user, server, user, user, server, user, me, user, me)
        )

    def ring(self, invite: bytes) -> None:
        """Say 180, and see that the caller hears it."""
        self.phones.send(answer(invite, b"180 Ringing"))
        ringing = self.callers.receive(b"SIP/2.0 180 ")
        assert number_of(ringing) == number_of(invite)

    def refuse(self, invite: bytes) -> None:
        """End a ringing call: the phone refuses it for all the user's phones, the caller acknowledges."""
        self.phones.send(answer(invite, b"600 Busy Everywhere"))
        self.phones.receive(b"ACK ")
        final = self.callers.receive(FINAL)
        self.callers.send(acknowledge(final, self.callers.server))


def answer(request: bytes, status: bytes) -> bytes:
    """A response without a body, its To tagged."""
    copied = b"".join(_COPIED.findall(request))
    return b"SIP/2.0 %b\r\n%bContent-Length: 0\r\n\r\n" % (status, _TO.sub(lambda line: line[0] + b";tag=b", copied))


def acknowledge(response: bytes, server: bytes) -> bytes:
    """The ACK of a failed call (RFC 3261 §17.1.1.3)."""
    copied = b"".join(line for line in _COPIED.findall(response)).replace(b"INVITE\r\n", b"ACK\r\n")
    number = number_of(response)
    return b"ACK sip:user%d@%b SIP/2.0\r\n%bMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n" % (number, server, copied)


def number_of(message: bytes) -> int:
    """Which user this call is for."""
    found = _NUMBER.search(message)
    assert found is not None, message
    return int(found[1])
