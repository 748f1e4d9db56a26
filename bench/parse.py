"""What reading and splicing one SIP message costs, in microseconds of one core.

Run `python -m bench.parse`. Each figure is the least of five runs, the usual defence against a noisy machine; compare
figures of one run only. The messages are those of a plain call through one proxy: an INVITE of 877 octets with SDP,
its 200 and a BYE.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from bench.figures import Absent, Figure, middle, ratios
from bench.turns import in_turns
from orchestrator.sip.headers import parse_via
from orchestrator.sip.message import (
    Request,
    Response,
    build_response,
    forward_request,
    forward_response,
    parse_message,
)
from orchestrator.sip.model import line_value
from orchestrator.sip.uri import NameAddr, parse_name_addr, parse_uri

ROUNDS = 5
CALLS = 5_000

SDP = b"\r\n".join(
    (
        b"v=0",
        b"o=alice 53655765 2353687637 IN IP4 192.0.2.10",
        b"s=-",
        b"c=IN IP4 192.0.2.10",
        b"t=0 0",
        b"m=audio 6000 RTP/AVP 0 8 101",
        b"a=rtpmap:0 PCMU/8000",
        b"a=rtpmap:8 PCMA/8000",
        b"a=rtpmap:101 telephone-event/8000",
        b"a=fmtp:101 0-15",
        b"a=sendrecv",
        b"a=ptime:20",
        b"a=rtcp:6001 IN IP4 192.0.2.10",
        b"",
    )
)


def _message(start: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((start, *headers, b"Content-Length: %d" % len(body), b"", body))


DIALOG = (
    b'From: "Alice" <sip:alice@example.com>;tag=9fxced76sl',
    b"Call-ID: 3848276298220188511@192.0.2.10",
)
VIA = b"Via: SIP/2.0/UDP 192.0.2.10:5061;rport;branch=z9hG4bK-524287-1---0123456789abcdef"
OUR_VIA = b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0a1b2c3d4e5f60718293"

INVITE = _message(
    b"INVITE sip:bob@example.com SIP/2.0",
    VIA,
    b"Max-Forwards: 70",
    b"Contact: <sip:alice@192.0.2.10:5061;transport=udp>",
    b"To: <sip:bob@example.com>",
    *DIALOG,
    b"CSeq: 1 INVITE",
    b"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, UPDATE",
    b"Supported: replaces, timer, 100rel, outbound",
    b"User-Agent: Bench Phone 5.10.3 (rv2.10.19) build 123",
    b"Session-Expires: 1800",
    b"Accept: application/sdp, multipart/mixed",
    b"Content-Type: application/sdp",
    body=SDP,
)
OK_200 = _message(
    b"SIP/2.0 200 OK",
    OUR_VIA,
    VIA,
    b"Record-Route: <sip:192.0.2.1:5060;lr>",
    b"Contact: <sip:bob@192.0.2.20:5062;transport=udp>",
    b"To: <sip:bob@example.com>;tag=as58f4201b",
    *DIALOG,
    b"CSeq: 1 INVITE",
    b"User-Agent: Bench Phone 5.10.3",
    b"Content-Type: application/sdp",
    body=SDP,
)
BYE = _message(
    b"BYE sip:bob@192.0.2.20:5062;transport=udp SIP/2.0",
    VIA,
    b"Max-Forwards: 70",
    b"Route: <sip:192.0.2.1:5060;lr>",
    b"To: <sip:bob@example.com>;tag=as58f4201b",
    *DIALOG,
    b"CSeq: 2 BYE",
)


def line_address(message: Request, name: bytes) -> NameAddr:
    return parse_name_addr(message.get(name) or b"")


def micros(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def measurements() -> list[tuple[str, Callable[[], object]]]:
    invite, bye, answer = parse_message(INVITE), parse_message(BYE), parse_message(OK_200)
    assert isinstance(invite, Request) and isinstance(bye, Request) and isinstance(answer, Response)
    via_value = line_value(VIA)
    return [
        (f"parse INVITE ({len(INVITE)} octets)", lambda: parse_message(INVITE)),
        (f"parse 200 ({len(OK_200)} octets)", lambda: parse_message(OK_200)),
        (f"parse BYE ({len(BYE)} octets)", lambda: parse_message(BYE)),
        ("stamp the source, rport asked for", lambda: invite.via.stamped(b"198.51.100.7", 5061)),
        ("From and To of an INVITE", lambda: (line_address(invite, b"from"), line_address(invite, b"to"))),
        ("parse top Via", lambda: parse_via(via_value)),
        ("parse URI", lambda: parse_uri(b"sip:alice@192.0.2.10:5061;transport=udp")),
        (
            "forward INVITE with Record-Route",
            lambda: forward_request(
                invite,
                uri=b"sip:bob@192.0.2.20:5062",
                via=OUR_VIA,
                max_forwards=69,
                record_routes=(b"Record-Route: <sip:192.0.2.1:5060;lr>",),
            ),
        ),
        (
            "forward BYE, one Route out",
            lambda: forward_request(bye, uri=bye.uri, via=OUR_VIA, max_forwards=69, drop_routes=1),
        ),
        ("forward 200", lambda: forward_response(answer)),
        ("build 100", lambda: build_response(invite, 100, "Trying")),
        ("build 404 with To tag", lambda: build_response(invite, 404, "Not Found", b"a6c85cf")),
    ]


IN_TABLE = (
    f"parse INVITE ({len(INVITE)} octets)",
    f"parse 200 ({len(OK_200)} octets)",
    "forward INVITE with Record-Route",
)


def figures(count: int = 2_000, rounds: int = 5) -> Iterator[Figure | Absent]:
    """The three that say most about a relayed call, and sippy's parser beside ours."""
    works = {name: call for name, call in measurements() if name in IN_TABLE}
    theirs = "sippy reads the same INVITE"
    if find_spec("sippy") is not None:
        from sippy.SipRequest import SipRequest

        text = INVITE.decode()
        works[theirs] = lambda: SipRequest(text)
    else:
        yield Absent("sippy, whose parser is the peer", "pip install sippy")
    found = in_turns(works, count, rounds)
    for name, values in found.items():
        yield middle(name, values, "µs")
    if theirs in found:
        yield middle("parse INVITE beside sippy", ratios(found[IN_TABLE[0]], found[theirs]), "x")


QUICK = {"count": 500, "rounds": 3}


def main() -> None:
    for name, call in measurements():
        print(f"{name:34} {micros(call):6.2f} µs")


if __name__ == "__main__":
    main()
