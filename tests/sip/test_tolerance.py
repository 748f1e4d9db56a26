"""Defects that are passed on and those that are not (`sip.tolerance.DECISIONS`), each through the whole engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scene import Scene

from orchestrator.sip.tolerance import DECISIONS, Decision

Change = Callable[[bytes], bytes]


def line(name: bytes, value: Callable[[bytes], bytes]) -> Change:
    """Change the first line of a header: `value` gets what stands behind its name."""

    def change(data: bytes) -> bytes:
        head, body = data.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        at = next(n for n, one in enumerate(lines) if one.lower().startswith(name.lower() + b":"))
        lines[at] = name + b": " + value(lines[at].split(b":", 1)[1].strip())
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    return change


def add(extra: bytes) -> Change:
    return lambda data: data.replace(b"\r\n", b"\r\n" + extra + b"\r\n", 1)


def address(uri: bytes, display: bytes = b"") -> Change:
    """Another address in From, whose tag stays."""
    return line(b"From", lambda old: display + b"<" + uri + b">" + old[old.index(b">") + 1 :])


def last_via(tail: bytes) -> Change:
    """A defect in a Via below the top one: of a response the caller's, of a request one that stands there already."""

    def change(data: bytes) -> bytes:
        vias = [part for part in data.split(b"\r\n") if part.lower().startswith(b"via:")]
        if data.startswith(b"SIP/"):
            return data.replace(vias[-1], vias[-1] + tail, 1) if len(vias) > 1 else data
        return data.replace(vias[0], vias[0] + b"\r\nVia: SIP/2.0/UDP 10.9.9.9:0;branch=z9hG4bKlow" + tail, 1)

    return change


CHANGES: dict[str, list[Change]] = {
    "two tags in From or To": [
        line(b"From", lambda v: v + b";tag=second"), line(b"To", lambda v: v + b";tag=x;tag=y"),
        line(b"To", lambda v: v + b";tag=x;tag=x"), line(b"From", lambda v: v + b";TAG=second;x=1"),
    ],
    "unquoted @ in a display name": [
        address(b"sip:alice@example.com", b"a@b "),
        address(b"sip:alice@example.com", b"a@b.c (x) "),
    ],
    "tel: with blanks": [address(b"tel:+49 30 123"), address(b"tel:+49 (30) 123-4")],
    "sip: without a host": [address(b"sip:anonymous@"), address(b"sip:@"), address(b"sip:anonymous@", b"Anonymous ")],
    "sip: that cannot be read in From or To": [
        address(b"sip:a@b@c"), address(b"sip:alice@example.com:70000"), address(b"sip:al ice@example.com"),
        address(b"sip:a^b|c@example.com"), address("sip:ünï@example.com".encode()), address(b"sip:alice@2001:db8::1"),
    ],
    "; at the end of parameters": [
        line(b"From", lambda v: v + b";"), line(b"To", lambda v: v + b" ; "), line(b"Via", lambda v: v + b";"),
    ],
    "parameter with = and no value": [
        line(b"From", lambda v: v + b";x="),
        line(b"To", lambda v: v + b";user=;y"),
        line(b"Via", lambda v: v + b";rport="),
    ],
    "; at the end of a URI": [address(b"sip:alice@example.com;"), address(b"sip:alice@example.com;user=phone;")],
    "blank behind the start line": [
        lambda d: d.replace(b"\r\n", b" \r\n", 1),
        lambda d: d.replace(b"\r\n", b" \t\r\n", 1),
    ],
    "no empty line at the end of a datagram": [lambda d: d[:-2]],
    "the same Content-Length twice": [add(b"Content-Length: 0"), add(b"l: 0")],
    "Content-Length beyond the datagram": [line(b"Content-Length", lambda v: b"500")],
    "Content-Length that is not a number": [
        line(b"Content-Length", lambda v: b"none"),
        line(b"Content-Length", lambda v: b"-1"),
    ],
    "blanks between status and version": [lambda d: d.replace(b"SIP/2.0 ", b"SIP/2.0   ", 1)],
    "header line without a colon": [add(b"X-Garbage")],
    "header name that is not a token": [add(b"X Y@Z: 1")],
    "two Content-Type, Expires or Max-Forwards": [
        add(b"Expires: 1\r\nExpires: 2"),
        add(b"Content-Type: a/b\r\nContent-Type: c/d"),
        add(b"Max-Forwards: 1\r\nMax-Forwards: 2"),
    ],
    "unbalanced quote in From or To": [line(b"From", lambda v: b'"Al ' + v), line(b"To", lambda v: b'Al" ' + v)],
    "comma in an unquoted display name": [address(b"sip:alice@example.com", b"Bell, A. ")],
    "Call-ID with blanks": [line(b"Call-ID", lambda v: v + b" x")],
    "empty tag": [line(b"To", lambda v: v.partition(b";tag")[0] + b";tag=")],
    "parameter of the top Via twice": [line(b"Via", lambda v: v + b";received=1.1.1.1;received=2.2.2.2")],
    "lower Via that cannot be read": [last_via(b";x=<"), last_via(b";;;")],
    "Contact that cannot be read": [add(b"Contact: <sip:a@b"), add(b"Contact: garbage")],
    "Max-Forwards in a response": [lambda d: add(b"Max-Forwards: x")(d) if d.startswith(b"SIP/") else d],
    "two different Content-Lengths": [add(b"Content-Length: 7")],
    "bare CR or LF in a header": [add(b"X: a\rb"), add(b"X: a\nY: b")],
    "NUL in From or To": [address(b"sip:ali\0ce@example.com"), line(b"To", lambda v: v + b";x=\0")],
    "two Call-IDs": [add(b"Call-ID: another"), add(b"i: another")],
    "two CSeqs": [add(b"CSeq: 7 INVITE")],
    "two Froms or Tos": [add(b"From: <sip:x@example.com>;tag=x"), add(b"t: <sip:x@example.com>")],
    "no Call-ID": [lambda d: d.replace(b"Call-ID:", b"X-Call-ID:", 1)],
    "status of four digits": [lambda d: d.replace(b"SIP/2.0 ", b"SIP/2.0 1", 1)],
}  # fmt: skip
FOR_RESPONSES_ONLY = ("blanks between status and version", "status of four digits")
CASES = [
    pytest.param(d, change, id=f"{d.defect} {n}") for d in DECISIONS for n, change in enumerate(CHANGES[d.defect], 1)
]


def test_every_decision_has_its_tests() -> None:
    assert [decision.defect for decision in DECISIONS] == list(CHANGES)
    assert len(DECISIONS) >= 30


@pytest.mark.parametrize(("decision", "change"), CASES)
@pytest.mark.parametrize("status", [180, 200, 486])
def test_responses(decision: Decision, change: Change, status: int) -> None:
    scene = Scene()
    [bob] = scene.phones
    call = scene.call()
    good = bob.answer(bob.requests("INVITE")[0], status)
    scene.world._wires.clear()
    scene.alice.received.clear()
    bob.send(change(good))
    raw: list[bytes] = []
    scene.world.attach(scene.alice.address, lambda data, source: raw.append(data))
    scene.world.attach(bob.address, lambda data, source: None)  # the ACK has the To of the response
    scene.run()
    assert [data.split(b" ", 2)[1] for data in raw if not data.startswith(b"SIP/2.0 100")] == (
        [str(status).encode()] if decision.response else []
    )
    assert scene.world.engine.counters["malformed"] == (not decision.response)
    if decision.defect.startswith("Content-Length"):
        assert b"Content-Length: 0\r\n" in raw[-1], "the next reader sees the true length"
    if raw and "tag" not in decision.defect:
        assert call.octets.split(b"\r\n")[1] not in raw[0].split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("decision", "change"),
    [case for case in CASES if case.values[0].defect not in FOR_RESPONSES_ONLY],  # type: ignore[union-attr]
)
def test_requests(decision: Decision, change: Change) -> None:
    scene = Scene()
    [bob] = scene.phones
    got: list[bytes] = []
    heard: list[bytes] = []
    scene.world.attach(bob.address, lambda data, source: got.append(data))
    scene.world.attach(scene.alice.address, lambda data, source: heard.append(data))
    ask = scene.alice.ask(
        "OPTIONS" if decision.defect == "Max-Forwards in a response" else "INVITE", "sip:bob@example.com", send=False
    )
    data = change(ask.octets)
    scene.alice.send(data)
    scene.run()
    if not decision.request:
        assert got == []
        assert [answer.split(b" ", 2)[1] for answer in heard] in ([b"400"], [])
        assert scene.world.engine.counters["malformed"] == 1
    elif b";tag=x" not in data:  # with a To tag it is inside a dialog, and refused as that
        assert scene.world.engine.counters["malformed"] == 0
        assert heard and not heard[0].startswith(b"SIP/2.0 400")
