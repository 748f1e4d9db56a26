"""What is refused before it is parsed gets the same answer as what is parsed, octet for octet, and costs its source the
same: two engines side by side, one of which parses everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_network
from itertools import product
from typing import Any

import pytest
from torture_stage import MESSAGES

from orchestrator.core.requests import Requests
from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import Hop
from orchestrator.sip.skim import skim
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

CORPUS = [message.data for message in MESSAGES.values()]
"""RFC 4475 and RFC 5118, where they are at hand, and our own for the same kinds."""
ALICE, CARRIER = ("198.51.100.7", 5060), ("10.0.0.9", 5060)

LINES = {
    "via": b"Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK-%d;rport",
    "hops": b"Max-Forwards: 70",
    "from": b'From: "Alice" <sip:alice@example.com>;tag=a%d',
    "to": b"To: <sip:bob@example.com>",
    "call-id": b"Call-ID: %d@198.51.100.7",
    "cseq": b"CSeq: 1 INVITE",
    "contact": b"Contact: <sip:alice@198.51.100.7:5060;transport=udp>",
    "allow": b"Allow: INVITE, ACK, CANCEL, BYE",
    "type": b"Content-Type: application/sdp",
    "length": b"Content-Length: 5",
}
RFC_3261 = "via hops from to call-id cseq contact allow type length"
ORDERS = [RFC_3261, "via contact hops to from call-id cseq type length", "length cseq call-id to from via hops allow"]
VARIANTS = [
    (b"", b""),
    (b";branch=z9hG4bK", b";rport;branch=z9hG4bK"),
    (b";rport", b""),
    (b";rport", b";rport;received=192.0.2.1"),
    (b";rport", b";received=198.51.100.7"),
    (b"branch=z9hG4bK", b"branch=old"),
    (b"198.51.100.7:5060;", b"192.168.1.7;"),
    (b"198.51.100.7:5060;", b"[2001:db8::7]:5060;"),
    (b";rport", b";rport, SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx"),
    (b";rport", b";rport\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx"),
    (b";rport", b";rport\r\nVia: anything"),
    (b";rport", b";rport\r\nv: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx"),
    (b"Max-Forwards: 70", b"Max-Forwards: 256"),
    (b"Max-Forwards: 70", b"Max-Forwards: 0"),
    (b"Max-Forwards: 70", b"max-forwards: 70\r\nMAX-FORWARDS: 71"),
    (b"Max-Forwards: 70", b"From: <sip:x@y>;tag=z"),
    (b"Max-Forwards: 70", b"FROM: <sip:x@y>;tag=z"),
    (b"Max-Forwards: 70", b"To: <sip:x@y>;tag=z"),
    (b"Max-Forwards: 70", b"t: <sip:x@y>;tag=z"),
    (b"Max-Forwards: 70", b"i : other"),
    (b"Max-Forwards: 70", b"Content-Length: 5"),
    (b"Max-Forwards: 70", b"l: 4"),
    (b"Max-Forwards: 70", b"Expires: 5\r\nExpires: 6"),
    (b"Max-Forwards: 70", b"Expires: 5\r\nexpires: 6"),
    (b"Max-Forwards: 70", b"c: text/plain"),
    (b"Max-Forwards: 70", b"Subject: a\nTo: <sip:x@y>;tag=z"),
    (b"Max-Forwards: 70", b"Subject: a\rb"),
    (b"Max-Forwards: 70", b"Subject: a\0b"),
    (b"Max-Forwards: 70", b"Subject: folded\r\n once"),
    (b"Max-Forwards: 70", b"Subject"),
    (b"Max-Forwards: 70", b"Sub ject: a"),
    (b"Max-Forwards: 70", b"X-Orchestrator-Call: c"),
    (b"Max-Forwards: 70", b"x-orchestrator-CALL: c"),
    (b"Max-Forwards: 70", b"Subject: " + b"a" * 9000),
    (b"Max-Forwards: 70", b"\r\n".join([b"P: q"] * 130)),
    (b"Max-Forwards: 70", b"Proxy-Require: nothing"),
    (b";tag=a%d", b""),
    (b";tag=a%d", b";tag="),
    (b'"Alice" <', b"<"),
    (b'"Alice" <sip:alice@example.com>', b"sip:alice@example.com"),
    (b'"Alice"', b'"Al\0ice"'),
    (b"To: <sip:bob@example.com>", b"To: <sip:bob@example.com;tag=in>"),
    (b"To: <sip:bob@example.com>", b"To: <sip:bob@example.com>;tag=t"),
    (b"To: <sip:bob@example.com>", b"To: <sip:tag@example.com>;x=y"),
    (b"To: <sip:bob@example.com>", b"To:\t<sip:bob@example.com> "),
    (b"CSeq: 1 INVITE", b"CSeq: 1 MESSAGE"),
    (b"CSeq: 1 INVITE", b"CSeq: 1  INVITE"),
    (b"CSeq: 1 INVITE", b"CSeq: 4294967296 INVITE"),
    (b"CSeq: 1 INVITE", b"CSeq: 007 INVITE"),
    (b"INVITE", b"SUBSCRIBE"),
    (b"INVITE", b"MESSAGE"),
    (b"INVITE", b"OPTIONS"),
    (b"INVITE", b"REGISTER"),
    (b"INVITE sip:bob@example.com ", b"INVITE tel:+491 "),
    (b"INVITE sip:bob@example.com ", b"INVITE sips:bob@example.com;user=phone "),
    (b"INVITE sip:bob@example.com ", b"INVITE sip:%b@example.com " % (b"b" * 2100)),
    (b"INVITE sip:bob@example.com ", b"INVITE  sip:bob@example.com "),
    (b"Content-Length: 5", b"Content-Length: 6"),
    (b"Content-Length: 5", b"Content-Length: 4"),
    (b"Content-Length: 5", b"Subject: none"),
    (b"hello", b"hello\r\n\r\nTo: again\0"),
]


def octets(order: str = RFC_3261, number: int = 1, old: bytes = b"", new: bytes = b"") -> bytes:
    head = b"\r\n".join([b"INVITE sip:bob@example.com SIP/2.0", *(LINES[name] for name in order.split())])
    data = (head + b"\r\n\r\nhello").replace(old, new) if old else head + b"\r\n\r\nhello"
    return data.replace(b"%d", b"%d" % number)


class Twins:
    """Two worlds that differ in this alone: `reader` parses everything."""

    def __init__(self, age: float, **settings: Any) -> None:
        settings = {"trust": (ip_network("10.0.0.0/8"),), "sources": SourceLimits(), **settings}
        self.taken = self.sent = 0
        self.quick = World(age=lambda: age, **settings)
        self.reader = World(age=lambda: age, **settings)
        self.reader.engine.requests.receive_unread = lambda *_: False  # type: ignore[method-assign]
        receive = self.quick.engine.requests.receive_unread

        def counted(data: bytes, hop: Hop) -> bool:
            took = receive(data, hop)
            self.taken += took
            return took

        self.quick.engine.requests.receive_unread = counted  # type: ignore[method-assign]

    def deliver(self, data: bytes, source: Address = ALICE) -> None:
        for world in (self.quick, self.reader):
            world.deliver(data, source, PROXY)
            world.run(0.001)
        assert self.state(self.quick, source) == self.state(self.reader, source), data
        self.sent = len(self.quick.sent)

    def state(self, world: World, source: Address) -> tuple[object, ...]:
        engine = world.engine
        admission, refusals = engine.admission, engine.overload.refusals
        share = admission.source_of(source[0], engine.now)
        known = refusals._new, refusals._old
        return (
            world.sent[self.sent :],
            engine.counters,
            known,
            share.points,
            share.pending,
            admission._pool,
            len(engine.layer),
        )


def mutants(count: int) -> Iterator[bytes]:
    """Our own messages, each with one to three lines cut, doubled, swapped or spoiled."""
    chance = random.Random(5)
    pieces = (
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b";",
        b",",
        b'"',
        b"<",
        b">",
        b":",
        b"@",
        b"%",
        b"\r\n ",
        b"9",
        b"",
    )
    for number in range(count):
        data = octets(chance.choice(ORDERS), number)
        for _ in range(chance.choice((1, 1, 2, 3))):
            at, kind = chance.randrange(len(data)), chance.randrange(4)
            if kind == 0:
                data = data[:at] + data[at + chance.choice((1, 1, 5, 30)) :]
            elif kind == 1:
                data = data[:at] + chance.choice(pieces) + data[at:]
            elif kind == 2:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            else:
                lines = data.split(b"\r\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines).swapcase())
                data = b"\r\n".join(lines)
        yield data


@pytest.mark.plain("replaces a method of the core")
@pytest.mark.parametrize("source", [ALICE, CARRIER])
@pytest.mark.parametrize("age", [0.1, 1.0])
def test_the_same_answer_whoever_reads_it(age: float, source: Address) -> None:
    twins = Twins(age, sources=SourceLimits(rate=1e6, burst=1e6, strangers=1e6))
    for at, (order, (old, new)) in enumerate(product(ORDERS, VARIANTS)):
        for number in range(3 * at, 3 * at + 3):  # some are refused, some are not
            twins.deliver(octets(order, number, old, new), source)
    for data in CORPUS:
        twins.deliver(data, source)
    assert twins.taken > 40


@pytest.mark.plain("replaces a method of the core")
@pytest.mark.parametrize("age", [0.1, 1.0])
def test_the_same_answer_to_mutants(age: float) -> None:
    twins = Twins(age, sources=SourceLimits(rate=1e6, burst=1e6, strangers=1e6))
    for data in mutants(1500):
        twins.deliver(data)
    assert twins.taken > 50


@pytest.mark.plain("replaces a method of the core")
def test_it_costs_its_source_the_same_and_the_share_ends() -> None:
    twins = Twins(1.0)
    for number in range(400):
        twins.deliver(octets(number=number // 2))  # each once more
    assert 0 < len(twins.quick.sent) < 800, "what is beyond the share is not answered"


@pytest.mark.plain("replaces a method of the core")
def test_a_stranger_gets_no_more_than_half_as_much_again() -> None:
    twins = Twins(1.0)
    data = octets("via from to call-id cseq length", old=b"hello", new=b"hello")
    twins.deliver(data)
    (answer,) = [octets for _, source, _, octets in twins.quick.sent if source == PROXY]
    assert answer.startswith(b"SIP/2.0 503 ")
    assert len(answer) <= 1.5 * len(data)


@pytest.mark.parametrize(("old", "new"), VARIANTS)
def test_what_is_seen_at_a_glance_is_what_is_read(old: bytes, new: bytes) -> None:
    for order in ORDERS:
        data = octets(order, 1, old, new)
        glimpse = skim(data, 65_535)
        if glimpse is not None:
            whole = parse_message(data)
            assert isinstance(whole, Request)
            assert (whole.method, whole.uri, whole.call_id) == (glimpse.method, glimpse.uri, glimpse.call_id)
            assert (whole.cseq, whole.from_tag, whole.to_tag) == (glimpse.cseq, glimpse.from_tag, None)
            assert repr(whole.via) == repr(glimpse.via)


def test_the_usual_kind_is_seen_at_a_glance() -> None:
    for order in ORDERS:
        assert skim(octets(order), 65_535) is not None
    assert skim(octets(old=b"INVITE", new=b"REGISTER"), 65_535) is None
    assert skim(octets(old=b"bob@example.com>", new=b"bob@example.com>;tag=t"), 65_535) is None


def test_what_was_accepted_is_not_refused_as_its_repetition() -> None:
    """A stall begins after the INVITE was taken: its repetition belongs to its transaction (C8)."""
    age = [0.0]
    world = World(age=lambda: age[0], trust=(ip_network("0.0.0.0/0"),))
    bob = world.peer("bob", "10.0.0.3")
    bob.register("bob@example.com")
    world.run()
    world.deliver(octets(), ALICE, PROXY)
    world.run()
    age[0] = 1.0
    world.deliver(octets(), ALICE, PROXY)
    world.run()
    statuses = [data[8:11] for _, source, _, data in world.sent if source == PROXY and data.startswith(b"SIP/2.0 ")]
    assert b"503" not in statuses
    assert bob.heard.count("INVITE") == 1


@pytest.mark.plain("replaces a method of the core")
def test_nothing_is_skimmed_while_there_is_no_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(Requests, "receive_unread", never)
    world = World(age=lambda: 0.0)
    world.deliver(octets(), ALICE, PROXY)
    world.run()
