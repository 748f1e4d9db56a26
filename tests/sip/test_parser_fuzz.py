"""Hostile octets: only MalformedMessage comes out, in linear time, and what is accepted means the same downstream."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sip_corpus import OWN, torture_messages

from orchestrator.sip import parser
from orchestrator.sip.grammar import parse_params
from orchestrator.sip.headers import parse_via, split_commas
from orchestrator.sip.message import (
    MalformedMessage,
    Message,
    Request,
    Response,
    build_response,
    forward_request,
    forward_response,
    parse_message,
    salvage_request,
)
from orchestrator.sip.uri import parse_name_addr, parse_uri

SEEDS = [*OWN, *(message.data for message in torture_messages())]
INTERESTING = [
    b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"\0", b":", b";", b",", b"<", b">", b'"', b"\\", b'\\"',
    b"@", b"=", b"%", b"%00", b"%41", b"?", b"*", b"[", b"]", b" ", b"\t", b"\xff", b"\xc3\xa4", b"0", b"-1",
    b"4294967296", b"65536", b"SIP/2.0", b"sip:", b";lr", b";tag", b";tag=1", b";branch=z9hG4bK", b";rport",
    b";received=1", b"v:", b"l: 0\r\n", b"Content-Length: 5\r\n", b"Via: ", b"Route: <sip:a;lr>\r\n", b"To: x\r\n",
    b"(", b")",
]  # fmt: skip


def mutate(data: bytes, choose: random.Random) -> bytes:
    for _ in range(choose.choice((1, 1, 2, 4))):
        start = choose.randrange(len(data) + 1)
        end = min(len(data), start + choose.choice((0, 1, 1, 4, 30)))
        kind = choose.randrange(5)
        if kind == 0:
            put = bytes([choose.randrange(256)])
        elif kind in (1, 2):
            put = choose.choice(INTERESTING)
        elif kind == 3:
            put = data[start:end] * 2
        else:
            other = choose.choice(SEEDS)
            cut = choose.randrange(len(other))
            put = other[cut : cut + choose.choice((5, 60))]
        data = data[:start] + put + data[end:]
    return data


def may_raise(read: Callable[[], object]) -> None:
    try:
        read()
    except MalformedMessage:
        pass


def check_accessors(message: Message) -> None:
    """What parsing checked reads without an exception; what it left for later raises MalformedMessage at most."""
    assert message.via.port is None or 1 <= message.via.port <= 65535
    assert isinstance(message.via.params, dict)
    assert message.via.rport is None or 1 <= message.via.rport <= 65535
    for address in (message.from_, message.to):
        assert isinstance(address.parsed.aor, str)
        assert isinstance(address.parsed.params, dict)
        assert address.tag is None or address.tag
    assert isinstance(message.expires, int | None)
    assert message.tokens(b"supported") is not None
    for read in (message.contacts, message.routes, message.record_routes, message.vias):
        may_raise(read)
    if isinstance(message, Request):
        assert isinstance(message.parsed_uri.aor, str)
        assert message.parsed_uri.headers == b""


def check_judged_alike(message: Message, rest: bytes) -> None:
    """Reading header by header gives what the one expression gave."""
    copy: Message = Request(message.method, message.uri) if isinstance(message, Request) else Response(200, b"")
    copy.shape, copy.lines, copy.body = message.shape, message.lines, rest
    (parser._judge if isinstance(copy, Request) else parser._judge_response)(copy, rest)
    for name in ("call_id", "cseq", "cseq_method", "body", "max_forwards", "from_tag", "to_tag"):
        assert getattr(copy, name) == getattr(message, name), name
    for name in ("transport", "host", "port", "branch", "params"):
        assert getattr(copy.via, name) == getattr(message.via, name), name
    assert (copy.from_.uri, copy.from_.params) == (message.from_.uri, message.from_.params)
    assert (copy.to.uri, copy.to.params) == (message.to.uri, message.to.params)
    assert (message.from_tag, message.to_tag) == (message.from_.tag, message.to.tag)
    if isinstance(message, Request):
        again = parse_uri(message.uri)
        assert bytes(again) == message.uri
        for name in ("scheme", "user", "password", "host", "port", "params", "headers", "opaque"):
            assert getattr(again, name) == getattr(message.parsed_uri, name), name


def check_forwarded(message: Message) -> None:
    """The next hop reads the same call, the same headers and the same body."""
    if isinstance(message, Request):
        data = forward_request(message, uri=message.uri, via=b"Via: SIP/2.0/UDP h;branch=z9hG4bKf", max_forwards=1)
        again = parse_message(data)
        added = 1 + (b"max-forwards" not in message.names)
        assert again.names[added : added + len(message.names)] == message.names
        may_raise(lambda: forward_request(message, uri=b"sip:h", via=b"Via: x", max_forwards=1, drop_routes=1))
        check_answered(message)
    else:
        assert isinstance(message, Response)
        data = forward_response(message)
        if len([name for name in message.names if name == b"via"]) < 2:
            return  # may have been our own Via alone: then there is no next hop
        try:
            again = parse_message(data)
        except MalformedMessage as error:
            assert "Via" in error.reason or "Param" in error.reason or "Branch" in error.reason
            return
        assert set(again.names) - {b"content-length"} <= set(message.names)
    assert again.body == message.body
    assert (again.call_id, again.cseq, again.cseq_method) == (message.call_id, message.cseq, message.cseq_method)
    assert (again.from_.uri, again.from_.params) == (message.from_.uri, message.from_.params)
    assert (again.to.uri, again.to.params) == (message.to.uri, message.to.params)


def check_answered(request: Request) -> None:
    request.stamp_source(b"203.0.113.9", 4321)
    assert request.via.received == b"203.0.113.9" or request.via.host.strip(b"[]") == b"203.0.113.9"
    answer = parse_message(build_response(request, 200, "OK", b"t0"))
    assert isinstance(answer, Response)
    assert (answer.via.branch, answer.via.params) == (request.via.branch, request.via.params)
    assert answer.to.tag == (request.to.tag or b"t0")
    assert (answer.call_id, answer.cseq) == (request.call_id, request.cseq)


def check(data: bytes) -> bool:
    """Whether `data` was accepted; everything that must hold either way is asserted."""
    try:
        message = parse_message(data)
    except MalformedMessage as error:
        assert error.sip_status in (0, 400, 414, 505, 513)
        salvaged = salvage_request(data)
        if salvaged is not None:
            assert salvaged.method != b"ACK"
            salvaged.stamp_source(b"203.0.113.9", 4321)
            answer = build_response(salvaged, 400, error.reason, b"t0")
            head = answer.partition(b"\r\n\r\n")[0]
            assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
        return False
    check_accessors(message)
    check_judged_alike(message, data.lstrip(b"\r\n").partition(b"\r\n\r\n")[2])
    check_forwarded(message)
    return True


@pytest.mark.parametrize("seed", range(20))
def test_mutated_messages(seed: int) -> None:
    choose = random.Random(seed)
    accepted = sum(check(mutate(choose.choice(SEEDS), choose)) for _ in range(2_500))
    assert 250 < accepted < 2_250  # the mutations neither spare nor destroy everything


@given(st.binary(max_size=400))
@example(b"")
@example(b" ")
@example(b"SIP/2.0 200 OK\r\n\r\n")
def test_random_octets(data: bytes) -> None:
    check(data)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*INTERESTING, b"INVITE", b"CSeq", b"Call-ID", b"From", b"1", b"x"]), max_size=60))
def test_words_of_the_grammar_in_any_order(words: list[bytes]) -> None:
    data = b"".join(words)
    check(data)
    check(b"INVITE sip:h SIP/2.0\r\n" + data + b"\r\n\r\n")
    check(b"SIP/2.0 200 OK\r\n" + data + b"\r\n\r\n")


HEADER = re.compile(rb"(?<=\r\n)(Via|Contact|From|To|Route|Call-ID|CSeq): ?([^\r\n]*)")


@given(
    value=st.lists(st.sampled_from(INTERESTING), max_size=12).map(b"".join),
    which=st.integers(0, 6),
    own=st.sampled_from(OWN),
)
def test_one_header_replaced(value: bytes, which: int, own: bytes) -> None:
    matches = list(HEADER.finditer(own))
    match = matches[which % len(matches)]
    check(own[: match.start(2)] + value + own[match.end(2) :])
    check(own[: match.end(2)] + value + own[match.end(2) :])


# --- time -----------------------------------------------------------------------------------------------------------

GROWING = [
    b'"', b'\\"', b'"\\', b'""', b"<", b"<<>", b"<>", b",", b"<,", b'",', b";", b";a", b";a=", b';a="', b";a=1,", b" ",
    b"\t ", b"a", b"a ", b"a@", b"a:", b"%41", b"%", b"[", b"1", b"0", b"\r\n ", b"\r\n\t;", b"(", b"((", b"()", b"a.",
    b"-", b"\\", b";rport", b"sip:", b"\xff", b"\0", b"=", b"?", b"&a=b",
]  # fmt: skip
LIMIT = 0.005


def least_time(call: Callable[[], object]) -> float:
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        may_raise(call)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("piece", GROWING, ids=repr)
def test_a_field_grown_to_64_kib_costs_little(piece: bytes) -> None:
    own = OWN[0]
    for match in [None, *HEADER.finditer(own)]:
        start, end = (match.start(2), match.end(2)) if match else (7, 26)
        for keep in (own[start:end], b""):
            grown = (keep + piece * 65_000)[: 65_000 - len(own)]
            for size in (8_000, len(grown)):  # below the limit of a header, and at that of a message
                data = own[:start] + grown[:size] + own[end:]
                assert least_time(lambda data=data: parse_message(data).contacts()) < LIMIT  # type: ignore[misc]
                assert least_time(lambda data=data: salvage_request(data)) < LIMIT  # type: ignore[misc]


@pytest.mark.parametrize("parse", [parse_uri, parse_name_addr, parse_via, split_commas, parse_params])
@pytest.mark.parametrize(
    "prefix", [b"", b"sip:", b'"', b"<sip:a", b"<sip:a@b>;a=", b"SIP/2.0/UDP h;branch=", b";a=", b"sip:a;b"], ids=repr
)
def test_field_parsers_are_linear(parse: Callable[[bytes], object], prefix: bytes) -> None:
    for piece in GROWING:
        count = 65_536 // len(piece)
        ratios = []
        for _ in range(5):  # a busy machine spoils single measurements; a parser that is not linear fails all of them
            whole = least_time(lambda grown=prefix + piece * count: parse(grown))  # type: ignore[misc]
            if whole <= 0.002:  # below, the clock's noise decides
                break
            half = least_time(lambda grown=prefix + piece * (count // 2): parse(grown))  # type: ignore[misc]
            ratios.append(whole / half)
            if ratios[-1] < 3.5:
                break
        else:
            raise AssertionError(f"{piece!r}: twice the length takes {min(ratios):.1f} times as long")
